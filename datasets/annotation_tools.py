"""Read what annotation tools write: boxes and actions of persons in images or videos.

    via          VGG Image Annotator: a project of version 2 (images) or 3 (images, videos), json
    cvat         "CVAT for images 1.1" or "CVAT for video 1.1", xml
    coco         COCO's boxes, json
    labelstudio  Label Studio's json: rectangles in images, or in videos with their choices
    ucf          ACT's pickle of UCF101-24 or JHMDB

Files are data: nothing in them is executed, and xml with entities of its own is refused.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree

from PIL import Image

from evaluators.act_pickle import read_act
from evaluators.files import DataFileError, Invalid, Problems, open_data

PERSON = {"person", "people", "human", "actor", "pedestrian"}
"""Labels that say who is in a box, not what is done; the actions are then its attributes."""
NUMBERED = re.compile(
    r"(?P<video>.*?)[_\-/ ]*(?:frame|img|image)?[_\-]?(?P<number>\d+(?:\.\d+)?)", re.IGNORECASE
)
"""An image's path without suffix: the video's name, then the number of the second or frame."""
UPLOADED = re.compile(r"^[0-9a-f]{8}-")
"""What Label Studio puts before the name of an uploaded file."""
ROBOFLOW = re.compile(r"_(?:jpe?g|png)\.rf\.[0-9a-f]+$", re.IGNORECASE)
"""What Roboflow puts behind the name of an image."""


class ToolFileError(DataFileError):
    """A file that cannot be read as the tool's. The message names file and place."""


class OptionNeeded(ToolFileError):
    """Something that an option has to tell, of all of the file and not of one place in it."""


@dataclass(frozen=True)
class Timing:
    """How the numbers of frames, and those in the names of images, become times."""

    fps: float | None = None
    """Frames a second of the videos. None: the numbers in names of images are seconds."""
    first_frame: int = 1
    """Number of the first image of a video, where names have the numbers of frames."""
    start_second: int = 0
    """Number of a video's first second."""
    video: str | None = None
    """The video's name, where the file does not tell it."""
    seen: dict[str, str] = field(default_factory=dict, compare=False)
    """Video -> what the names of its images begin with: two that differ would be one by mistake."""

    def of_image(self, name: str) -> tuple[str, float]:
        """The video of an image and its time, seconds from the video's start.

        Raises ToolFileError for a name without a number, OptionNeeded for what the name does not tell.
        """
        path = urlsplit(name).path if "://" in name else name.partition("?")[0]
        path = unquote(path).replace("\\", "/")
        stem = ROBOFLOW.sub("", re.sub(r"\.[a-z]\w{1,4}$", "", path, flags=re.IGNORECASE))
        match = NUMBERED.fullmatch(stem)
        if match is None:
            raise ToolFileError(f"image {name!r}: its name does not end in the number of a second or frame")
        video = match["video"].rpartition("/")[2] if self.video is None else self.video
        if not video:
            raise OptionNeeded(f"image {name!r}: its name tells no video; give it with --video NAME")
        if self.seen.setdefault(video, match["video"]) != match["video"]:
            raise OptionNeeded(
                f"images of {self.seen[video]!r} and of {match['video']!r} would both be video {video!r}; "
                "begin their names with their video's, and give --video for one video at a time"
            )
        if self.fps is None:
            return video, float(match["number"]) - self.start_second
        number = int(float(match["number"]))
        if number < self.first_frame:
            raise OptionNeeded(
                f"image {name!r} has number {number}, and the first has {self.first_frame}: give "
                "--first-frame 0"
            )
        return video, (number - self.first_frame) / self.fps

    def of_frame(self, number: int) -> float:
        """The time of a frame of a video, counted from 0. Raises OptionNeeded without a frame rate."""
        if self.fps is None:
            raise OptionNeeded("it counts frames of a video: give the video's frame rate with --fps")
        return number / self.fps


@dataclass(frozen=True)
class Box:
    """A person at a time of a video."""

    video: str
    time: float
    """Seconds from the video's start."""
    xywh: tuple[float, float, float, float]
    """Left, top, width, height; in pixels where `size` is given or unknown, else fractions."""
    size: tuple[float, float] | None
    """Width and height of the image; (1, 1) for fractions; None where the file does not tell it."""
    actions: tuple[str, ...]
    track: str | None = None
    """Identity of the person within the video."""


@dataclass
class ToolFile:
    """What a tool's file holds."""

    boxes: list[Box] = field(default_factory=list)
    keyframes: set[tuple[str, float]] = field(default_factory=set)
    """All annotated (video, time), those without a person among them."""
    unsure: set[tuple[str, float]] = field(default_factory=set)
    """Those with something that is no box here: they are not without a person."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Why something is no box here -> how often."""
    splits: dict[str, frozenset[str]] = field(default_factory=dict)
    """Names of splits, where the file has some -> their videos."""
    problems: Problems = field(default_factory=Problems)
    """What is wrong in it, for one error that tells all."""

    @contextmanager
    def noting(self, where: str) -> Iterator[None]:
        """In the context: what is wrong in an entry, such as annotations[3], ends the block and is noted."""
        try:
            yield
        except OptionNeeded:
            raise
        except ToolFileError as error:
            self.problems.add(Invalid(f"{where}: {error}"))
        except MALFORMED as error:
            self.problems.add(Invalid(f"{where}: {_malformed(error)}"))

    def leave_out(self, why: str, video: str, time: float) -> None:
        """Count something that is no box, and remember that it was there."""
        self.left_out[why] += 1
        self.unsure.add((video, time))

    def extend(self, other: ToolFile, number: int) -> None:
        """Add what another file holds, whose tracks are its own."""
        self.boxes += [
            box if box.track is None else replace(box, track=f"{number}/{box.track}") for box in other.boxes
        ]
        self.keyframes |= other.keyframes
        self.unsure |= other.unsure
        self.left_out += other.left_out

    def of_split(self, name: str) -> ToolFile:
        """What it holds of the videos of a split. Raises ToolFileError where it has no such."""
        if name not in self.splits:
            known = ", ".join(self.splits) or "none"
            raise ToolFileError(f"it has no split {name!r}; its splits are {known}")
        videos = self.splits[name]
        return ToolFile(
            [box for box in self.boxes if box.video in videos],
            {place for place in self.keyframes if place[0] in videos},
            {place for place in self.unsure if place[0] in videos},
            self.left_out,
        )

    def add(self, box: Box) -> None:
        """Add a box, and its time as annotated."""
        self.boxes.append(box)
        self.keyframes.add((box.video, box.time))


def read_tool_file(tool: str, path: Path, timing: Timing, attribute: str | None = None) -> ToolFile:
    """Read a tool's file. tool: a key of READERS. attribute: the one that holds the actions; None: all.

    Raises ToolFileError naming file and place, OptionNeeded, FileNotFoundError.
    """
    open_data(path, ToolFileError).close()  # which names what is plainly something else
    try:
        read = READERS[tool](path, timing, attribute)
        read.problems.refuse()
        if attribute is not None and read.boxes and not any(box.actions for box in read.boxes):
            raise ToolFileError(f"no box has an attribute {attribute!r} with a value")
        return read
    except OptionNeeded as error:
        raise OptionNeeded(f"{path}: {error}") from None
    except (ToolFileError, Invalid) as error:
        raise ToolFileError(f"{path}: {error}") from None
    except MALFORMED as error:
        raise ToolFileError(f"{path}: not as {tool} writes it ({_malformed(error)})") from error


MALFORMED = (KeyError, IndexError, TypeError, AttributeError, ValueError)
"""What reading a file of another shape raises."""


def _malformed(error: Exception) -> str:
    return f"field {error} is missing" if isinstance(error, KeyError) else str(error)


def _json(path: Path, kind: type = dict) -> Any:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ToolFileError(f"not JSON ({error}); export it from the tool again") from None
    if not isinstance(content, kind):
        what = (
            "an object" if isinstance(content, dict) else "a list" if isinstance(content, list) else "a value"
        )
        raise ToolFileError(f"JSON, but {what} where the tool writes another thing; is --from right?")
    return content


def chosen_actions(
    label: str | None, attributes: Mapping[str, object], attribute: str | None
) -> tuple[str, ...]:
    """The actions of a box: the label, unless it says who it is, and its attributes' values.

    Values are separated by commas or semicolons; an attribute that is true is an action by its name.
    """
    actions = [] if label is None or label.strip().lower() in PERSON else [label.strip()]
    if attribute is not None:
        attributes = {name: value for name, value in attributes.items() if name == attribute}
    for name, value in attributes.items():
        if isinstance(value, Mapping):  # of VIA: {option: true}
            value = ",".join(str(option) for option, chosen in value.items() if chosen)
        elif isinstance(value, (list, tuple)):
            value = ",".join(map(str, value))
        text = str(value).strip()
        if text.lower() == "true":
            actions.append(name)
        elif text.lower() not in ("false", "", "none", "__undefined__"):
            actions += [part.strip() for part in re.split(r"[,;]", text) if part.strip()]
    return tuple(dict.fromkeys(" ".join(name.split()) for name in actions if name.lower() not in PERSON))


# --- VGG Image Annotator -------------------------------------------------------------------------


def read_via(path: Path, timing: Timing, attribute: str | None) -> ToolFile:
    """A project of VIA 2 or 3. Sizes of images are not in it: they are those of images that lie beside it."""
    content = _json(path)
    if "_via_img_metadata" in content or "metadata" not in content:
        return _read_via_2(path, content, timing, attribute)
    read = ToolFile()
    options = {
        key: (one["aname"], one.get("options", {})) for key, one in content.get("attribute", {}).items()
    }
    files = {str(key): one for key, one in content["file"].items()}
    views = {str(key): [str(f) for f in one["fid_list"]] for key, one in content["view"].items()}

    def place(view: str, times: list[float]) -> tuple[str, float]:
        name = files[views[view][0]]["fname"]
        if times:
            return timing.video or Path(name).stem, float(times[0])
        return timing.of_image(name)

    for view, names in views.items():
        with read.noting(f"view {view}"):
            if all(int(files[name].get("type", 2)) == 2 for name in names):
                read.keyframes.add(place(view, []))
    for key, one in content["metadata"].items():
        with read.noting(f"metadata {key}"):
            if not one.get("xy"):  # a stretch of time
                continue
            video, time = place(str(one["vid"]), one.get("z", []))
            if one["xy"][0] != 2:
                read.leave_out("of another shape than a rectangle", video, time)
                continue
            values = {}
            for number, value in one.get("av", {}).items():
                name, named = options.get(number, (number, {}))
                values[name] = [named.get(part, part) for part in str(value).split(",")]
            actions = chosen_actions(None, values, attribute)
            size = _size_beside(path, files[views[str(one["vid"])][0]]["fname"])
            read.add(Box(video, time, _four(one["xy"][1:5]), size, actions))
    return read


def _four(values: Iterable[Any]) -> tuple[float, float, float, float]:
    x, y, width, height = map(float, values)
    return x, y, width, height


def _size_beside(path: Path, name: str) -> tuple[float, float] | None:
    """Width and height of an image that lies beside the project, below its folder."""
    image = (path.parent / name).resolve()
    if not image.is_file() or not image.is_relative_to(path.parent.resolve()):
        return None
    try:
        with Image.open(image) as opened:
            return float(opened.width), float(opened.height)
    except (OSError, Image.DecompressionBombError):  # a video, or damaged: its size is asked for elsewhere
        return None


def _read_via_2(path: Path, content: Any, timing: Timing, attribute: str | None) -> ToolFile:
    images = content.get("_via_img_metadata", content)
    described = content.get("_via_attributes", {}).get("region", {})
    read = ToolFile()
    for key, image in images.items():
        with read.noting(f"image {key!r}"):
            video, time = timing.of_image(image["filename"])
            size = _size_beside(path, image["filename"])
            read.keyframes.add((video, time))
            regions = image["regions"]
            listed = regions.items() if isinstance(regions, Mapping) else enumerate(regions)
            for number, region in listed:
                with read.noting(f"image {key!r}, region {number}"):
                    shape = region["shape_attributes"]
                    if shape["name"] != "rect":
                        read.leave_out("of another shape than a rectangle", video, time)
                        continue
                    values = {
                        name: _via_options(value, described.get(name, {}).get("options", {}))
                        for name, value in region["region_attributes"].items()
                    }
                    xywh = _four(shape[side] for side in ("x", "y", "width", "height"))
                    read.add(Box(video, time, xywh, size, chosen_actions(None, values, attribute)))
    return read


def _via_options(value: Any, named: Mapping[str, Any]) -> list[str]:
    """The chosen options of an attribute by their descriptions, or its text."""
    chosen = [o for o, on in value.items() if on] if isinstance(value, Mapping) else [value]
    return [str(named.get(option) or option) for option in chosen]


# --- CVAT ----------------------------------------------------------------------------------------


def read_cvat(path: Path, timing: Timing, attribute: str | None) -> ToolFile:
    """The xml of "CVAT for images 1.1" or "CVAT for video 1.1"; frames of the latter count from 0.

    Raises ToolFileError.
    """
    text = _cvat_xml(path)
    if b"<!DOCTYPE" in text or b"<!ENTITY" in text:
        raise ToolFileError("xml with a DOCTYPE or entities of its own, which CVAT does not write")
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, LookupError, ValueError) as error:  # of its encoding, the last two
        raise ToolFileError(f"not xml ({error}); export it as CVAT for images or video 1.1") from None
    read = ToolFile()
    if timing.video is None and len(sources := {one.text for one in root.iter("source") if one.text}) == 1:
        named = replace(timing, video=Path(sources.pop()).stem)
    else:
        named = timing
    for image in root.iter("image"):
        where = f"image {image.get('id', '')}"
        with read.noting(where):
            # Frames of a video are named by number alone: the task's source is the video then.
            of = named if re.fullmatch(r"(?:frame|img|image)?_?\d+\.\w+", image.attrib["name"]) else timing
            place = of.of_image(image.attrib["name"])
            read.keyframes.add(place)
            size = float(image.attrib["width"]), float(image.attrib["height"])
            for number, shape in enumerate(image):
                with read.noting(f"{where}, shape {number}"):
                    _add_cvat(read, shape, place, size, shape.get("label"), None, attribute)
    tasks = {task.findtext("id") or "": task for task in root.iter("task")} or {"": root}
    for track in root.iter("track"):
        with read.noting(f"track {track.get('id', '')}"):
            if len(tasks) > 1 and track.get("task_id") not in tasks:
                raise ToolFileError(
                    "it holds several tasks and does not tell of which a track is: export one task"
                )
            task = tasks[track.attrib["task_id"]] if len(tasks) > 1 else next(iter(tasks.values()))
            _add_cvat_track(read, root, task, track, timing, attribute)
    return read


def _add_cvat_track(
    read: ToolFile,
    root: ElementTree.Element,
    task: ElementTree.Element,
    track: ElementTree.Element,
    timing: Timing,
    attribute: str | None,
) -> None:
    """Add a track of "CVAT for video 1.1", which belongs to this task."""
    original = task.find(".//original_size")
    if original is None:
        raise ToolFileError("meta has no original_size: export it as CVAT for video 1.1")
    size = float(original.findtext("width") or 0), float(original.findtext("height") or 0)
    source = task.findtext(".//source") or root.findtext("meta//source") or task.findtext("name") or ""
    video = timing.video or Path(source).stem
    if not video:
        raise OptionNeeded("meta names no source; give the video's name with --video NAME")
    number = track.attrib["id"]
    for shape in track:
        if shape.get("outside") == "1" or "frame" not in shape.attrib:
            continue
        with read.noting(f"track {number}, frame {shape.attrib['frame']}"):
            place = video, timing.of_frame(int(shape.attrib["frame"]))
            of_task = f"{track.get('task_id', '')}/{number}"
            _add_cvat(read, shape, place, size, track.attrib["label"], of_task, attribute)


def _cvat_xml(path: Path) -> bytes:
    """The xml of CVAT's export, also where that is still the zip that CVAT writes."""
    if not zipfile.is_zipfile(path):
        return path.read_bytes()
    with zipfile.ZipFile(path) as content:
        if "annotations.xml" not in content.namelist():
            raise ToolFileError(
                f"a zip without annotations.xml; it holds {', '.join(content.namelist()[:5])}"
            )
        return content.read("annotations.xml")


def _add_cvat(
    read: ToolFile,
    shape: ElementTree.Element,
    place: tuple[str, float],
    size: tuple[float, float],
    label: str | None,
    track: str | None,
    attribute: str | None,
) -> None:
    """Add a shape at a place, if it is a box. KeyError, ValueError: a side is missing or no number."""
    if shape.tag != "box":
        return read.leave_out("of another shape than a rectangle", *place)
    if float(shape.get("rotation", 0)):
        return read.leave_out("rotated", *place)
    if label is None:
        raise KeyError("label")
    x1, y1, x2, y2 = (float(shape.attrib[name]) for name in ("xtl", "ytl", "xbr", "ybr"))
    values = {one.attrib["name"]: one.text or "" for one in shape.iter("attribute")}
    actions = chosen_actions(label, values, attribute)
    read.add(Box(*place, (x1, y1, x2 - x1, y2 - y1), size, actions, track))


# --- COCO ----------------------------------------------------------------------------------------


def read_coco(path: Path, timing: Timing, attribute: str | None) -> ToolFile:
    """COCO's boxes: actions are the categories, or attributes of an annotation.

    Raises ToolFileError.
    """
    content = _json(path)
    read = ToolFile()
    names: dict[Any, str] = {}
    for i, one in enumerate(content["categories"]):
        with read.noting(f"categories[{i}]"):
            names[one["id"]] = str(one["name"])
    images: dict[Any, tuple[tuple[str, float], tuple[float, float] | None]] = {}
    for i, image in enumerate(content["images"]):
        with read.noting(f"images[{i}]"):
            place = timing.of_image(image["file_name"])
            sides = image.get("width"), image.get("height")
            images[image["id"]] = place, None if None in sides else (float(sides[0]), float(sides[1]))
            read.keyframes.add(place)
    read.problems.refuse()  # before annotations that refer to what could not be read
    for i, one in enumerate(content["annotations"]):
        with read.noting(f"annotations[{i}]"):
            _add_coco(read, one, images, names, attribute)
    return read


def _add_coco(
    read: ToolFile,
    one: Mapping[str, Any],
    images: Mapping[Any, tuple[tuple[str, float], tuple[float, float] | None]],
    names: Mapping[Any, str],
    attribute: str | None,
) -> None:
    """Add an annotation. images: id -> place and size. names: id -> category."""
    for key, known, listed in (("image_id", images, "images"), ("category_id", names, "categories")):
        if one[key] not in known:
            raise ToolFileError(f"it has {key} {one[key]!r:.40}, which {listed} do not list")
    place, size = images[one["image_id"]]
    if one.get("iscrowd"):
        return read.leave_out("of a crowd", *place)
    attributes = dict(one.get("attributes") or {})
    track = one.get("track_id", attributes.pop("track_id", None))
    values = {n: v for n, v in attributes.items() if n not in ("occluded", "rotation", "keyframe")}
    actions = chosen_actions(names[one["category_id"]], values, attribute)
    read.add(Box(*place, _four(one["bbox"]), size, actions, None if track is None else str(track)))


# --- Label Studio --------------------------------------------------------------------------------


def read_labelstudio(path: Path, timing: Timing, attribute: str | None) -> ToolFile:
    """Label Studio's json export: of each task the first annotation that was not skipped.

    Sides are in per cent. What is chosen for a region is joined by the region's id. In videos, whose frames
    count from 1, boxes between two of a sequence lie on the line between them. Raises ToolFileError.
    """
    read = ToolFile()
    for i, task in enumerate(_json(path, list)):
        where = f"task {str(task['id'])[:40] if isinstance(task, dict) and 'id' in task else f'[{i}]'}"
        with read.noting(where):
            if "annotations" not in task:
                raise ToolFileError("it has no annotations: export JSON, not JSON-MIN")
            done = [one["result"] for one in task["annotations"] if not one.get("was_cancelled")]
            if done:  # somebody looked at it, and did not skip it
                results = [one for one in done[0] if "value" in one]  # not relations
                _add_labelstudio(read, task["data"], results, timing, where)
    return read


def _add_labelstudio(
    read: ToolFile, data: Mapping[str, Any], results: list[Mapping[str, Any]], timing: Timing, where: str
) -> None:
    """Add the results of a task."""
    name = _labelled_file(data)
    chosen: dict[str, list[str]] = {}
    for one in results:
        if "choices" in one["value"] and "id" in one:
            chosen.setdefault(one["id"], []).extend(map(str, one["value"]["choices"]))
    is_video = any(one["type"] == "videorectangle" for one in results) or "video" in data
    if not is_video:
        read.keyframes.add(timing.of_image(name))
    for one in results:
        with read.noting(f"{where}, result {one.get('id', '')}"):
            value = one["value"]
            labels = value.get("rectanglelabels") or value.get("labels") or []
            labels = [*labels, *chosen.get(one.get("id", ""), [])]
            actions = chosen_actions(None, {"label": [x for x in labels if x.lower() not in PERSON]}, None)
            if one["type"] == "videorectangle":
                for box in _sequence(value, timing, name, str(one["id"]), actions):
                    read.add(box)
            elif is_video:
                continue
            elif one["type"] in ("rectanglelabels", "rectangle") and value.get("rotation"):
                read.leave_out("rotated", *timing.of_image(name))
            elif one["type"] in ("rectanglelabels", "rectangle"):
                read.add(Box(*timing.of_image(name), _fractions(value), (1.0, 1.0), actions))
            elif "points" in value or "x" in value:
                read.leave_out("of another shape than a rectangle", *timing.of_image(name))


def _labelled_file(data: Mapping[str, Any]) -> str:
    """The name of a task's image or video, without what Label Studio puts before it."""
    files = {key: str(value) for key, value in data.items() if isinstance(value, str) and value}
    file = files.get("image") or files.get("video")
    file = file or next((value for value in files.values() if re.search(r"\.\w{2,5}($|\?)", value)), None)
    if file is None:
        raise ToolFileError(f"a task's data names no image or video: {', '.join(data) or 'it is empty'}")
    local = re.search(r"[?&]d=([^&]+)", file)
    path = unquote(local[1] if local else urlsplit(file).path if "://" in file else file.partition("?")[0])
    # Uploads lie in one folder for all; in a bucket or a local folder the folder may be the video.
    return UPLOADED.sub("", path.rpartition("/")[2]) if "/upload/" in path else path.lstrip("/")


def _fractions(value: Mapping[str, Any]) -> tuple[float, float, float, float]:
    return _four(value[side] / 100 for side in ("x", "y", "width", "height"))


def _sequence(
    value: Mapping[str, Any], timing: Timing, name: str, track: str, actions: tuple[str, ...]
) -> Iterator[Box]:
    """The boxes of a region in a video at its whole seconds."""
    if timing.fps is None and value.get("duration") and value.get("framesCount"):
        timing = Timing(value["framesCount"] / value["duration"], video=timing.video)
    video = timing.video or Path(name).stem
    marks = [
        (timing.of_frame(int(one["frame"]) - 1), _fractions(one), bool(one.get("enabled", True)))
        for one in value["sequence"]
    ]
    end = timing.of_frame(int(value["framesCount"]) - 1) if value.get("framesCount") else marks[-1][0]
    for before, after in pairwise([*marks, (max(end, marks[-1][0]) + 1e-9, marks[-1][1], False)]):
        (begin, box, enabled), (until, next_box, _) = before, after
        for second in range(int(-(-begin // 1)), int(-(-until // 1))):
            if enabled:
                share = (second - begin) / (until - begin)
                x, y, width, height = (a + share * (b - a) for a, b in zip(box, next_box, strict=True))
                yield Box(video, float(second), (x, y, width, height), (1.0, 1.0), actions, track)


# --- ACT's pickle --------------------------------------------------------------------------------


def read_ucf(path: Path, timing: Timing, attribute: str | None) -> ToolFile:
    """ACT's pickle: frames count from 1, boxes are in pixels of its `resolution`; it has train and test."""
    act = read_act(path)
    gt, read = act.ground_truth, ToolFile()
    read.splits = {"train": frozenset(act.train_videos[0]), "test": frozenset(act.test_videos[0])}
    for video, frame, box, label, tube in zip(
        gt.video.tolist(),
        gt.frame.tolist(),
        gt.box.tolist(),
        gt.label.tolist(),
        gt.tube.tolist(),
        strict=True,
    ):
        name, (x1, y1, x2, y2) = gt.videos[video], box
        height, width = act.resolution[name]
        time = timing.of_frame(frame - 1)
        size = float(width), float(height)
        read.add(Box(name, time, (x1, y1, x2 - x1, y2 - y1), size, (act.labels[label],), str(tube)))
    return read


READERS: dict[str, Callable[[Path, Timing, str | None], ToolFile]] = {
    "via": read_via,
    "cvat": read_cvat,
    "coco": read_coco,
    "labelstudio": read_labelstudio,
    "ucf": read_ucf,
}
