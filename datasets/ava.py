"""AVA 2.2 and everything in its formats (the synthetic benchmark too), from frames or video files.

<root>/frames/<video>/<video>_%06d.jpg       30 a second, number 1 is second 900; or else
<root>/videos/<video>.{mp4,mkv,webm,avi}     whole movies, or their cuts from second 900
<root>/annotations/ava_<split>_v2.2.csv                      video,second,x1,y1,x2,y2,action,person
<root>/annotations/ava_<split>_excluded_timestamps_v2.2.csv
<root>/annotations/ava_action_list_v2.2.pbtxt                    all actions: what a model learns
<root>/annotations/ava_action_list_v2.2_for_activitynet_2019.pbtxt   what is evaluated
<root>/annotations/**/ava_detection_<split>_boxes_and_labels.csv     person boxes of a detector
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from actloc_core.clip import clip_indices, clip_times, duration, read_times
from datasets.split import (
    VIDEO_SUFFIXES,
    Images,
    Key,
    Source,
    Split,
    check_name,
    find_images,
    flipped_columns,
    gather_people,
)
from evaluators.ava_csv import read_annotations, read_exclusions, read_label_map, read_persons

FIRST_SECOND, LAST_SECOND = 902, 1798
"""The annotated range of a movie, keyframes once a second."""
START_SECOND = 900
"""Time 0 of extracted frames, and of video files that are the 15-minute cuts."""
FPS = 30
"""Frames a second of the extracted frames, and so of a clip's stride."""


@dataclass(frozen=True, kw_only=True)
class AvaSplit(Split):
    """AVA's keyframes are seconds; boxes are fractions of the frame."""

    starts: dict[str, int]
    """Video -> the movie's second at time 0 of its file or frames."""
    fps: float
    """The clip's frames are taken as from a video of this constant rate, whatever the file's own is."""

    def read(self, index: int) -> NDArray[np.uint8]:
        """The frames of one clip, (T, H, W, 3) RGB."""
        video, second = self.keyframes[index]
        source, time = self.sources[video], second - self.starts[video]
        if isinstance(source, Images):
            wanted = clip_indices(
                round(time * self.fps), source.count, frames=self.frames, stride=self.stride
            )
            return source.read(wanted)
        times = clip_times(time, frames=self.frames, stride=self.stride, fps=self.fps)
        return read_times(source, times, fps=self.fps)

    def box_unit(self, video: str) -> tuple[float, float]:
        """AVA's boxes are fractions of the image already."""
        return 1.0, 1.0


class PersonBoxes(NamedTuple):
    """What a detector found at one keyframe."""

    boxes: NDArray[np.float64]
    """(N, 4) xyxy in [0, 1]."""
    scores: NDArray[np.float64]
    """(N,) p(person)."""


def load(
    root: Path,
    split: str,
    *,
    frames: int,
    stride: int,
    crop: int,
    fps: float = FPS,
    flipped: dict[str, str] | None = None,
) -> AvaSplit:
    """Read one split's annotations and look at each of its videos. Nothing is converted.

    The training split's items are the annotated seconds, any other split's all seconds of the
    annotated range that the videos hold: somebody found where nobody is counts as false.
    fps: the rate that `stride` counts in. Extracted frames have this rate; a video file of another,
    or of a variable one, is sampled at the times that frames of this rate would have.
    flipped: action names that a horizontal flip exchanges.
    Raises FileNotFoundError or ValueError naming file, line and field.
    """
    annotations = annotations_folder(root)
    classes = read_label_map(annotations / "ava_action_list_v2.2.pbtxt")
    evaluated = read_label_map(annotations / "ava_action_list_v2.2_for_activitynet_2019.pbtxt")
    csv = annotations / f"ava_{split}_v2.2.csv"
    truth, person = read_annotations(csv, known_ids=frozenset(classes))
    excluded = read_exclusions(annotations / f"ava_{split}_excluded_timestamps_v2.2.csv")
    sources = {video: find_source(root, video, csv) for video in truth.videos}
    spans = {video: span(source, fps) for video, source in sources.items()}
    starts = {video: begin for video, (begin, _) in spans.items()}
    # The person's number tells apart two people with one box; old files have none.
    who = np.full(len(truth.label), -1) if person is None else person
    people = gather_people(truth, who, truth.box, tuple(classes))
    for video, second in people.rows:
        begin, end = spans[video]
        if not begin <= second < end:
            raise ValueError(
                f"{csv}: {video} is annotated at second {second}, but {_place(sources[video])} holds "
                f"seconds {begin} to {end:.1f} and ends at the latter; is it cut from second {START_SECOND}?"
            )
    if split == "train":
        keys = list(people.rows)
    else:
        keys = [
            (video, second)
            for video in truth.videos
            for second in range(FIRST_SECOND, LAST_SECOND + 1)
            if second < spans[video][1]
        ]
    return AvaSplit(
        classes=classes,
        evaluated=evaluated,
        ground_truth=truth,
        excluded=excluded,
        keyframes=tuple(sorted(key for key in keys if key not in excluded)),
        sources=sources,
        people=people,
        flipped_columns=flipped_columns(classes, flipped),
        frames=frames,
        stride=stride,
        crop=crop,
        starts=starts,
        fps=fps,
    )


def person_boxes(path: Path, *, threshold: float = 0.8) -> dict[Key, PersonBoxes]:
    """A detector's person boxes for the two-stage baseline: (video, second) -> those of that keyframe.

    path: a file like ava_detection_val_boxes_and_labels.csv, whose last column is the score.
    threshold: boxes are used at this score or above; 0.8 is what two-stage methods take.
    A keyframe's boxes are sorted by score, best first. One without any is left out.
    Raises FileNotFoundError, or ValueError naming file and line.
    """
    found = read_persons(path)
    kept = np.flatnonzero(found.score >= threshold)
    order = kept[np.lexsort((-found.score[kept], found.frame[kept], found.video[kept]))]
    keys = np.column_stack([found.video[order], found.frame[order]])
    _, begins = np.unique(keys, axis=0, return_index=True)
    return {
        (found.videos[found.video[rows[0]]], int(found.frame[rows[0]])): PersonBoxes(
            found.box[rows].clip(0, 1), found.score[rows]
        )
        for rows in np.split(order, begins[1:])
        if len(rows)
    }


def find_person_boxes(root: Path, split: str) -> Path:
    """The person-box file of a split. FileNotFoundError says what it is called and who publishes it."""
    name, annotations = f"ava_detection_{split}_boxes_and_labels.csv", annotations_folder(root)
    places = sorted(annotations.rglob(name))
    if not places:
        raise FileNotFoundError(
            f"{annotations}: no {name} in it or below it. It holds a person detector's boxes, and is "
            "published with SlowFast; or choose rows that take ground-truth boxes or need none"
        )
    return places[0]


def annotations_folder(root: Path) -> Path:
    """Where a tree keeps its annotations. FileNotFoundError where there is no tree or no such folder."""
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such data folder; give it as --data ava=FOLDER")
    for name in ("annotations", "annotations_v2.2"):
        if (root / name).is_dir():
            return root / name
    raise FileNotFoundError(f"{root}: no folder annotations/ (or annotations_v2.2/) in it")


def find_source(root: Path, video: str, csv: Path) -> Source:
    """A video's extracted frames or else its file. Raises FileNotFoundError naming both places."""
    check_name(video, csv)
    if images := find_images(root / "frames" / video, f"{video.replace('%', '%%')}_%06d.jpg"):
        return images
    for suffix in VIDEO_SUFFIXES:
        if (path := root / "videos" / f"{video}{suffix}").is_file():
            return path
    raise FileNotFoundError(
        f"{csv} annotates video {video!r}, but {root / 'videos'} has no "
        f"{video}{{{','.join(VIDEO_SUFFIXES)}}} and {root / 'frames' / video} no {video}_000001.jpg"
    )


def span(source: Source, fps: float) -> tuple[int, float]:
    """The movie's seconds that a file or its frames hold: from, and, as the file states it, up to.

    A file that reaches the last annotated second counts from the movie's beginning; a shorter one
    is the cut from second 900. Movies of AVA are longer than half an hour, cuts 15 minutes.
    """
    if isinstance(source, Images):
        return START_SECOND, START_SECOND + source.count / fps
    seconds = duration(source)
    begin = 0 if seconds > LAST_SECOND else START_SECOND
    return begin, begin + seconds


def _place(source: Source) -> Path:
    return source.folder if isinstance(source, Images) else source


def fingerprint(root: Path) -> str:
    """A hash of the annotation files; the videos' bytes (200 GB) are not read."""
    digest = hashlib.sha256()
    for path in sorted(annotations_folder(root).glob("ava_*")):
        digest.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]
