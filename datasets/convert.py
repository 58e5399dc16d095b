"""Write annotation tools' boxes as AVA's csv and label map, with what own data need beside them."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from actloc_core.clip import duration, probe, read_header
from actloc_core.files import atomic_path
from datasets.annotation_tools import Box, Timing, ToolFile, ToolFileError
from datasets.ava import file_names
from datasets.description import FILE, read_description
from datasets.split import video_file
from evaluators.ava_csv import read_label_map
from evaluators.files import Invalid, Problems

USUAL_FPS = 30.0
"""Of a file that tells times and not frames: how near to a whole second a time must be is half a frame."""


@dataclass(frozen=True)
class Converted:
    """What was written, and what was not."""

    rows: int
    videos: int
    keyframes: int
    empty: int
    """Keyframes without a person."""
    classes: int
    left_out: Counter[str]
    """Why -> how many boxes."""
    notes: tuple[str, ...]


SizeOf = Callable[[str], tuple[float, float]]
"""Video -> width and height of its frames."""


def convert(
    read: ToolFile, out: Path, timing: Timing, *, size: tuple[float, float] | None = None
) -> Converted:
    """Write a tool's boxes to the csv `out`, its classes to the label map beside it.

    Boxes at whole seconds are written, or within half a frame of one. Where `out` lies in a data folder's
    `annotations`, its dataset.json says where seconds count from; seconds of its videos that were not
    annotated are written as excluded. A label map that is there keeps its ids, and gets new names.
    size: width and height of images whose size is not in the file; None: those of the video's file.
    Raises ToolFileError naming what is missing; ValueError for a label map or description that does not fit.
    """
    root = out.parent.parent if out.parent.name == "annotations" else out.parent
    described = read_description(root).start_second
    if described is not None and described != timing.start_second:
        raise ToolFileError(
            f"{root / FILE} has start_second {described}, and --start-second is {timing.start_second}: "
            "a folder has one"
        )
    label_map, exclusions = beside(out)
    seconds = {place: _second(place[1], timing) for place in read.keyframes}
    _check_times(read, seconds, timing)
    persons, left_out = _persons_of(read, seconds, _sizes(root, size))
    if not persons:
        why = "; ".join(f"{count:,} boxes {reason}" for reason, count in left_out.items())
        raise ToolFileError(f"nothing is left to write: {why or 'there is no box'}")
    classes = read_label_map(label_map) if label_map.exists() else {}
    _add_names(classes, {name for person in persons.values() for name in person.actions})
    with_boxes = {(video, second) for video, second, _ in persons}
    # Where something was there that is no row here, nobody can be said to be absent: it is not a keyframe.
    unsure = {*read.unsure, *((box.video, box.time) for box in read.boxes)}
    looked_at = {place for place in seconds if place not in unsure}
    empty = {(video, second) for video, time in looked_at if (second := seconds[video, time]) is not None}
    empty -= with_boxes
    keyframes = with_boxes | empty
    rows = [
        f"{video},{second:04d},{person.sides},{number},{identity}"
        for (video, second, identity), person in sorted(persons.items())
        for number, name in classes.items()
        if name in person.actions
    ]
    _write(out, rows + [f"{video},{second:04d}" for video, second in sorted(empty)])
    _write(label_map, [_item(name, number) for number, name in classes.items()])
    if described is None:
        _write(root / FILE, [json.dumps({"start_second": timing.start_second})])
    notes = _exclude(root, exclusions, keyframes, timing.start_second) + _other_rates(root, keyframes, timing)
    videos = len({video for video, _ in keyframes})
    return Converted(len(rows), videos, len(keyframes), len(empty), len(classes), left_out, notes)


def _check_times(read: ToolFile, seconds: Mapping[tuple[str, float], int | None], timing: Timing) -> None:
    """Raise ToolFileError where nothing is at a whole second of a video."""
    if not read.keyframes:
        raise ToolFileError("no image or frame is annotated in it; is --from right?")
    if max(time for _, time in read.keyframes) < 0:
        raise ToolFileError(
            f"all its times are before second {timing.start_second}, where by --start-second videos begin"
        )
    if all(second is None for second in seconds.values()):
        off = min(abs(time - round(time)) for _, time in read.keyframes)
        raise ToolFileError(
            f"no annotation is at a whole second (the nearest is {off:.3f} s away), as keyframes of AVA "
            "are: give --fps for frames, --start-second for seconds"
        )


class _Person(NamedTuple):
    """A person at a keyframe, as its rows will have it."""

    sides: str
    """x1,y1,x2,y2"""
    actions: set[str]


def _persons_of(
    read: ToolFile, seconds: Mapping[tuple[str, float], int | None], size_of: SizeOf
) -> tuple[dict[tuple[str, int, int], _Person], Counter[str]]:
    """-> (video, second, number) -> person; and why how many boxes are none."""
    left_out: Counter[str] = Counter(read.left_out)
    persons: dict[tuple[str, int, int], _Person] = {}
    numbers, wrong = _Numbers(), Problems()
    for video in sorted({video for video, _ in seconds}):
        with wrong.noting():
            _check_name(video)
    for box in read.boxes:
        second = seconds[box.video, box.time]
        with wrong.noting():
            if second is None:
                left_out["between whole seconds"] += 1
            elif not box.actions:
                left_out["without an action"] += 1
            elif (corners := _corners(box, size_of)) is None:
                left_out["beyond the image or without an area"] += 1
            else:
                sides = ",".join(f"{value:.5f}" for value in corners)
                key = box.video, second, numbers.of(box)
                if (
                    key in persons and persons[key].sides != sides
                ):  # two boxes of a track at once: two persons
                    key = box.video, second, numbers.of(replace(box, track=None))
                persons.setdefault(key, _Person(sides, set())).actions.update(box.actions)
    wrong.refuse(ToolFileError)
    return persons, +left_out


def _second(time: float, timing: Timing) -> int | None:
    """The number of the whole second that a time is, within half a frame; None between two."""
    nearest = round(time)
    if abs(time - nearest) * (timing.fps or USUAL_FPS) > 0.5 + 1e-6 or nearest < 0:
        return None
    return timing.start_second + nearest


def _add_names(classes: dict[int, str], names: set[str]) -> None:
    """Give each new name the next free id, in the alphabet's order."""
    for name in sorted(names - set(classes.values())):
        classes[max(classes, default=0) + 1] = name


class _Numbers:
    """Numbers of persons within a video: one for each track. Without tracks equal boxes at one time are one
    person, for some tools have a box for each action."""

    def __init__(self) -> None:
        self.known: dict[tuple[object, ...], int] = {}
        self.count: Counter[str] = Counter()

    def of(self, box: Box) -> int:
        """The person's number, from 0."""
        identity = (box.time, box.xywh) if box.track is None else (box.track,)
        if (box.video, *identity) not in self.known:
            self.known[box.video, *identity] = self.count[box.video]
            self.count[box.video] += 1
        return self.known[box.video, *identity]


def _sizes(root: Path, size: tuple[float, float] | None) -> SizeOf:
    """A function from a video to the width and height of its frames, where the tool's file has none."""
    known: dict[str, tuple[float, float]] = {}

    def of(video: str) -> tuple[float, float]:
        if size is not None:
            return size
        if video not in known:
            file = video_file(root, video)
            if file is None:
                raise ToolFileError(
                    f"the size of {video!r}'s frames is not in the file: give --size WIDTHxHEIGHT, or put "
                    f"the video into {root / 'videos'}"
                )
            info = probe(file)
            known[video] = float(info.width), float(info.height)
        return known[video]

    return of


def _corners(box: Box, size_of: SizeOf) -> tuple[float, float, float, float] | None:
    """Corners as fractions, inside the image; None for a box beyond it or without an area."""
    width, height = size_of(box.video) if box.size is None else box.size
    if width <= 0 or height <= 0:
        raise Invalid(f"{box.video!r} at {box.time:g} s: a size of {width:g} x {height:g}")
    x, y, w, h = box.xywh
    sides = (x / width, y / height, (x + w) / width, (y + h) / height)
    if not all(map(math.isfinite, sides)):
        raise Invalid(f"{box.video!r} at {box.time:g} s: a side is not a number")
    x1, y1, x2, y2 = (min(max(side, 0.0), 1.0) for side in sides)
    return (x1, y1, x2, y2) if round(x2 - x1, 5) > 0 and round(y2 - y1, 5) > 0 else None


def beside(out: Path) -> tuple[Path, Path]:
    """The label map and the exclusions that readers look for beside a csv.

    Raises ToolFileError for a csv of a name that no reader looks for.
    """
    known = []
    for split in ("train", "val", "test"):
        for names in file_names(split):
            known.append(names.csv)
            if out.name == names.csv:
                label_map = next(name for name in names.label_map if name.endswith(".pbtxt"))
                return out.parent / label_map, out.parent / names.exclusions
    raise ToolFileError(
        f"--out {out}: no reader looks for a file of this name; call it one of {', '.join(known)}"
    )


def _exclude(root: Path, file: Path, keyframes: set[tuple[str, int]], start: int) -> tuple[str, ...]:
    """Write which seconds of the videos were not annotated, for every second of others is scored."""
    rows, missing = [], []
    for video in sorted({video for video, _ in keyframes}):
        path = video_file(root, video)
        if path is None:
            missing.append(video)
            continue
        seconds = range(start, start + math.ceil(duration(path)))
        rows += [f"{video},{second:04d}" for second in seconds if (video, second) not in keyframes]
    _write(file, rows)
    if not missing:
        return (f"{file}: {len(rows):,} seconds without annotations, which are not scored",)
    return (
        f"{len(missing):,} videos, such as {missing[0]!r}, are not in {root / 'videos'}: their seconds "
        "without annotations are scored; convert again when they are there",
    )


def _other_rates(root: Path, keyframes: set[tuple[str, int]], timing: Timing) -> tuple[str, ...]:
    """A note on videos whose files have another frame rate than was given."""
    if timing.fps is None:
        return ()
    files = {video: video_file(root, video) for video in sorted({video for video, _ in keyframes})}
    rates = {video: read_header(path).fps for video, path in files.items() if path is not None}
    other = [video for video, rate in rates.items() if abs(rate / timing.fps - 1) > 0.02]
    if not other:
        return ()
    return (
        f"{len(other):,} videos have another rate than --fps {timing.fps:g}, {other[0]!r} has "
        f"{rates[other[0]]:g}: are the seconds right?",
    )


def _check_name(video: str) -> None:
    if not video.isprintable() or video != video.strip() or not video or set(video) & set(',"'):
        advice = "a name has no commas, quotes, control characters or spaces around it; rename the file"
        raise Invalid(f"video {video!r}", advice)


def _item(name: str, number: int) -> str:
    text = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'item {{ name: "{text}" id: {number} }}'


def _write(path: Path, lines: list[str]) -> None:
    with atomic_path(path) as part:
        part.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def describe(converted: Converted, out: Path) -> str:
    """What was written, in lines for a terminal."""
    c = converted
    lines = [
        f"{out}: {c.rows:,} rows, {c.videos:,} videos, {c.keyframes:,} keyframes, {c.empty:,} of them "
        "without a person",
        f"{beside(out)[0]}: {c.classes:,} classes",
        *c.notes,
    ]
    lines += [f"left out: {count:,} boxes {why}" for why, count in c.left_out.items()]
    return "\n".join(lines)
