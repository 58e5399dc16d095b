"""Kinetics, and labelled clips in its forms, from video files: what backbones are pre-trained on.

<root>/<split>/<class>/<video>.{mp4,mkv,webm,avi}      one class a clip; or else
<root>/<split>.csv          a line for each clip: path label [label ...]; paths below root, labels from 0
<root>/classes.txt          with a csv, the name of class 0, of class 1, ...; without it names are numbers

The csv is what PySlowFast and MMAction2 read; several labels make a set of several actions a clip.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from actloc_core.clip import clip_times, duration, read_times
from datasets.cache import read_once
from datasets.description import FILE
from datasets.split import VIDEO_SUFFIXES, Split, columns_after_flip, group_by_actor, missing_note
from evaluators.files import MOST_TOLD, DataFileError, Invalid, Problems, decode, invalid, open_data
from evaluators.frame_map import GroundTruth

FPS = 30
"""Frame rate that a clip's stride counts in, as in PySlowFast, whatever a file's own."""
PLACES = 5
"""Training clips of a video, evenly spaced; published recipes take one at random each time."""
MOST_CLASSES = 100_000
"""A label beyond is a slip: without classes.txt, every number below the highest label is a class."""
FULL_FRAME = (0.0, 0.0, 1.0, 1.0)

LINE = re.compile(r"(.*?)[ ,]+(\d{1,18}(?:[ ,]+\d{1,18})*)")
"""A line of a csv: the path, which may have spaces in it, and the labels behind it."""

Labels = dict[str, tuple[int, ...]]
"""Path of a video, relative to the root -> its classes, from 0."""


@dataclass(frozen=True, kw_only=True)
class ClipSplit(Split):
    """A split whose items are clips of labelled videos: key (path, place), one actor, the whole frame."""

    fps: float
    places: int

    def read(self, index: int) -> NDArray[np.uint8]:
        """Read the frames of a clip, (T, H, W, 3) uint8 RGB: place p of n is centred at (p + 1/2) / n."""
        video, place = self.keyframes[index]
        source = self.sources[video]
        assert isinstance(source, Path)

        def read() -> NDArray[np.uint8]:
            middle = duration(source) * (place + 0.5) / self.places
            times = clip_times(middle, frames=self.frames, stride=self.stride, fps=self.fps)
            return read_times(source, times, fps=self.fps)

        return read_once(source, np.array([place, self.places, self.frames, self.stride, self.fps]), read)

    def box_unit(self, video: str) -> tuple[float, float]:
        """(1, 1): boxes are fractions of the frame."""
        return 1.0, 1.0


def load(
    root: Path,
    split: str,
    *,
    frames: int,
    stride: int,
    crop: int,
    fps: float = FPS,
    places: int = 1,
    mirrored: Mapping[str, str] | None = None,
    leave_out_missing: bool = False,
) -> ClipSplit:
    """Load one split: find its videos and their classes. No video is opened.

    split: "train", "val" or "test". places: clips of a video, evenly spaced; 1 is the middle. mirrored:
    class name -> the name that it gets in a mirrored clip; None: what dataset.json says.
    leave_out_missing: do without videos of a list that are not there.
    Raises FileNotFoundError or ValueError naming file and line.
    """
    labels, names = read_labels(root, split, leave_out_missing=leave_out_missing)
    missing = tuple(video for video in labels if not (root / video).is_file())
    labels = {video: labels[video] for video in labels if video not in set(missing)}
    if not labels:
        raise FileNotFoundError(f"{root / f'{split}.csv'}: none of its {len(missing):,} videos is there")
    classes = dict(enumerate(names, 1))
    keys = [(video, place) for video in labels for place in range(places)]
    number = {video: i for i, video in enumerate(labels)}
    rows = [(number[video], place, label + 1) for video, place in keys for label in labels[video]]
    video, place, label = np.array(rows, np.int64).reshape(-1, 3).T
    boxes = np.tile(FULL_FRAME, (len(rows), 1))
    ground_truth = GroundTruth(tuple(labels), video, place, boxes, label)
    return ClipSplit(
        classes=classes,
        evaluated=classes,
        ground_truth=ground_truth,
        excluded=frozenset(),
        keyframes=tuple(keys),
        sources={video: root / video for video in labels},
        annotations=group_by_actor(ground_truth, np.zeros_like(label), boxes, tuple(classes)),
        flipped_columns=columns_after_flip(classes, mirrored, root),
        frames=frames,
        stride=stride,
        crop=crop,
        fps=fps,
        places=places,
        notes=missing_note(root / f"{split}.csv", missing, len(labels)),
        left_out=missing,
    )


def read_labels(root: Path, split: str, *, leave_out_missing: bool = False) -> tuple[Labels, list[str]]:
    """The videos of a split with their classes, and the names of all classes, the same for every split.

    leave_out_missing: those of a list that are not there are among them all the same.
    Raises FileNotFoundError or ValueError naming file and line.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such data folder; give it as --data kinetics=FOLDER")
    if (file := root / f"{split}.csv").is_file():
        return _read_csv(root, file, leave_out_missing)
    if not (root / split).is_dir():
        raise FileNotFoundError(f"{root}: neither a folder {split}/<class>/ nor a file {split}.csv in it")
    # Of the training split, whose every class is there: a class may have no clip in another.
    known = root / "train" if (root / "train").is_dir() else root / split
    names = sorted(path.name for path in known.iterdir() if path.is_dir())
    found = sorted(
        path
        for path in (root / split).glob("*/*")
        if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file()
    )
    if not found:
        raise FileNotFoundError(
            f"{root / split}: no <class>/<video> in it that ends with {', '.join(VIDEO_SUFFIXES)}"
        )
    labels: Labels = {}
    for path in found:
        if path.parent.name not in names:
            raise ValueError(f"{path.parent}: a class that {known} does not have")
        labels[path.relative_to(root).as_posix()] = (names.index(path.parent.name),)
    return labels, names


def _read_csv(root: Path, file: Path, leave_out_missing: bool) -> tuple[Labels, list[str]]:
    names = _class_names(root / "classes.txt")
    labels: Labels = {}
    wrong, missing = Problems(), Problems()
    for number, line in enumerate(_text(file).splitlines(), 1):
        if line.strip():
            with wrong.noting():
                video, of_video = _read_line(f"line {number}", line.strip())
                if video in labels:
                    found = f"{video} is there twice"
                    invalid(f"line {number}", found, "give its labels in one line")
                if not leave_out_missing and not (root / video).is_file():
                    found = f"line {number}: {root / video} does not exist"
                    missing.add(Invalid(found, "--leave-out-missing does without"))
                if of_video[-1] >= MOST_CLASSES:
                    invalid(
                        f"line {number}",
                        f"label {of_video[-1]}",
                        f"at most {MOST_CLASSES:,} classes are read",
                    )
                if names and of_video[-1] >= len(names):
                    found = f"label {of_video[-1]}, but {root / 'classes.txt'} has {len(names)} names"
                    invalid(f"line {number}", found, "labels count from 0")
                labels[video] = of_video
    wrong.refuse(DataFileError, f"{file}, ")
    missing.refuse(FileNotFoundError, f"{file}, ")
    if not labels:
        raise DataFileError(f"{file}: no clips in it")
    if names:
        return labels, names
    if file.name != "train.csv":  # the classes are those of the training split
        return labels, _read_csv(root, root / "train.csv", leave_out_missing)[1]
    highest = max(label for of_video in labels.values() for label in of_video)
    return labels, [str(i) for i in range(highest + 1)]


def _read_line(where: str, line: str) -> tuple[str, tuple[int, ...]]:
    """The path of a video and its labels, in order. Raises Invalid."""
    if not (read := LINE.fullmatch(line)):
        found = f"{line!r:.80} is not a path and its labels"
        invalid(where, found, "labels are numbers from 0, with spaces or commas between them")
    return read[1], tuple(sorted({int(text) for text in re.split("[ ,]+", read[2])}))


def _class_names(file: Path) -> list[str]:
    """The names of classes.txt; none without the file."""
    if not file.is_file():
        return []
    names = [name.strip() for name in _text(file).split("\n") if name.strip()]
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        found = ", ".join(map(repr, repeated[:MOST_TOLD]))
        raise DataFileError(f"{file}: a name is there twice: {found}; give every class its own name")
    return names


def _text(file: Path) -> str:
    with open_data(file, DataFileError, form="text", refused=("pickle", "array", "zip", "JSON")) as opened:
        return decode(file, opened.read(), DataFileError)


def fingerprint(root: Path) -> str:
    """Hash of the names of videos and classes, 16 hex digits; the videos' bytes are not read."""
    digest = hashlib.sha256((root / FILE).read_bytes() if (root / FILE).is_file() else b"")
    for split in ("train", "val"):
        labels, names = read_labels(root, split, leave_out_missing=True)
        digest.update(repr((split, labels, names)).encode())
    return digest.hexdigest()[:16]
