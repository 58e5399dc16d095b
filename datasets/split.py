"""A split of a benchmark as every dataset file's `load` returns it: keyframes, people, clips.

What differs between benchmarks, the frames of a clip and the unit of the boxes, is one method each
of `AvaSplit` (datasets/ava.py) and `TubeSplit` (datasets/tubes.py).
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from actloc_core.boxes import xyxy_to_cxcywh
from actloc_core.clip import VideoError, read_frames
from actloc_core.pixels import to_tensor
from actloc_core.structures import Targets
from evaluators.frame_map import GroundTruth

Key = tuple[str, int]
"""A keyframe: video, and second (AVA) or frame from 1 (UCF101-24, JHMDB)."""

VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".avi")


@dataclass(frozen=True)
class Images:
    """A video as extracted frames: a folder of images, numbered from 1 without gaps."""

    folder: Path
    name: str
    """Of image n: name % n, such as "%05d.jpg"."""
    count: int

    def read(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Frames by number from 0, (len(indices), H, W, 3) uint8 RGB; frame i is image i + 1.

        Raises VideoError naming the image that is missing, damaged or of another size.
        """
        distinct, places = np.unique(indices, return_inverse=True)
        frames = [_read_image(self.folder / (self.name % (i + 1))) for i in distinct]
        for i, frame in zip(distinct, frames, strict=True):
            if frame.shape != frames[0].shape:
                path = self.folder / (self.name % (i + 1))
                raise VideoError(f"{path}: its size differs from the clip's other frames; extract them again")
        return np.stack(frames)[places]


Source = Images | Path
"""How a video lies on disk: extracted frames, or a video file."""


def _read_image(path: Path) -> NDArray[np.uint8]:
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except FileNotFoundError:
        raise VideoError(f"{path}: no such image; extract the video's frames again") from None
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, SyntaxError) as error:
        raise VideoError(f"{path}: not a readable image ({error}); extract the frames again") from error


def read_source(source: Source, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Frames by number from 0, (len(indices), H, W, 3) uint8 RGB. Raises VideoError."""
    return source.read(indices) if isinstance(source, Images) else read_frames(source, indices)


def check_name(video: str, file: Path) -> None:
    """ValueError for a video's name from an annotation file that would lead out of the data folder."""
    parts = video.replace("\\", "/").split("/")
    if "" in parts or "." in parts or ".." in parts or "\0" in video:
        raise ValueError(f"{file}: video name {video!r} is no path inside the data folder; correct the file")


def find_images(folder: Path, name: str) -> Images | None:
    """The frames in a folder, counted by looking for the last one; None where there is no first."""
    if not (folder / (name % 1)).is_file():
        return None
    low, high = 1, 2  # image `low` is there
    while (folder / (name % high)).is_file():
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if (folder / (name % middle)).is_file() else (low, middle)
    return Images(folder, name, low)


@dataclass(frozen=True, kw_only=True)
class Split(abc.ABC):
    """Keyframes of one split; items are (clip (3, T, crop, crop) in [0, 1], Targets)."""

    classes: dict[int, str]
    """Action id -> name of all the actions learned; column c of the labels is the c-th id."""
    evaluated: dict[int, str]
    """Those that count in the evaluation (60 of AVA's 80)."""
    ground_truth: GroundTruth
    """Of the whole split, for the evaluators: boxes xyxy in the benchmark's unit."""
    excluded: frozenset[Key]
    keyframes: tuple[Key, ...]
    """Of each item."""
    sources: dict[str, Source]
    """Video -> where it lies."""
    people: People
    flipped_columns: Tensor
    """(C,) int64: the label column that each one comes from after a horizontal flip."""
    frames: int
    stride: int
    crop: int

    def __len__(self) -> int:
        return len(self.keyframes)

    def __getitem__(self, index: int) -> tuple[Tensor, Targets]:
        return to_tensor(self.read(index), (self.crop, self.crop)), self.targets(index)

    def targets(self, index: int) -> Targets:
        """The people at an item's keyframe; none where nobody is annotated."""
        return self.people.at(self.keyframes[index])

    @abc.abstractmethod
    def read(self, index: int) -> NDArray[np.uint8]:
        """An item's clip as stored, (T, H, W, 3) uint8 RGB; the keyframe is frame T // 2.

        Raises VideoError naming the file.
        """

    @abc.abstractmethod
    def box_unit(self, video: str) -> tuple[float, float]:
        """(width, height) of the whole frame in the unit of this video's ground-truth boxes."""

    def keyframe(self, index: int) -> NDArray[np.uint8]:
        """An item's keyframe as stored, (H, W, 3) uint8 RGB. Raises VideoError."""
        return replace(self, frames=1, stride=1).read(index)[0]


@dataclass(frozen=True)
class People:
    """The annotated people of a split, those of one keyframe behind one another."""

    rows: dict[Key, tuple[int, int]]
    """Keyframe -> first row and the one after the last."""
    boxes: Tensor
    """(N, 4) float32 cxcywh in [0, 1]."""
    labels: Tensor
    """(N, C) uint8, 1 where the person does the action."""

    def at(self, key: Key) -> Targets:
        """Who is annotated at a keyframe; nobody is no rows."""
        first, end = self.rows.get(key, (0, 0))
        return Targets(self.boxes[first:end], self.labels[first:end].float())


def gather_people(
    truth: GroundTruth, who: NDArray[np.int64], box: NDArray[np.float64], classes: Sequence[int]
) -> People:
    """One row of ground truth is one (box, label); a person's rows are gathered to one.

    who (N,): tells apart people with one box in one frame (AVA: the person id, UCF: the tube).
    box (N, 4): the ground truth's boxes in [0, 1], xyxy. classes: the ids of the label columns.
    People keep the order in which the file names them.
    """
    column = pd.Series(range(len(classes)), index=list(classes)).reindex(truth.label).to_numpy()
    rows = pd.DataFrame(np.column_stack([truth.video, truth.frame, who, box]))
    person = rows.groupby(list(rows), sort=False).ngroup().to_numpy()
    _, first = np.unique(person, return_index=True)
    labels = np.zeros((len(first), len(classes)), np.uint8)
    labels[person, column.astype(np.int64)] = 1
    order = np.lexsort((first, truth.frame[first], truth.video[first]))
    video, frame = truth.video[first][order], truth.frame[first][order]
    begins = np.flatnonzero(np.diff(video, prepend=-1) | np.diff(frame, prepend=-1))
    ends = np.append(begins[1:], len(video))
    return People(
        rows={
            (truth.videos[video[a]], int(frame[a])): (int(a), int(b))
            for a, b in zip(begins, ends, strict=True)
        },
        boxes=xyxy_to_cxcywh(torch.from_numpy(box[first][order].astype(np.float32))),
        labels=torch.from_numpy(labels[order]),
    )


def flipped_columns(classes: Mapping[int, str], flipped: Mapping[str, str] | None) -> Tensor:
    """(C,) int64: where each label column comes from when the clip is mirrored.

    flipped: action names that a horizontal flip exchanges.
    """
    names = list(classes.values())
    other = {name: (flipped or {}).get(name, name) for name in names}
    return torch.tensor([names.index(other[name]) for name in names])


def thinned(split: Split, count: int) -> Split:
    """`count` keyframes at even distances, with the ground truth of those alone: for a look in training."""
    places = np.unique(np.linspace(0, len(split) - 1, min(count, len(split))).round().astype(int))
    return with_keyframes(split, [split.keyframes[place] for place in places])


def parted(split: Split, *, every: int) -> tuple[Split, Split]:
    """(the rest, every n-th video): for choices that must not look at another split."""
    apart = set(sorted({video for video, _ in split.keyframes})[::every])
    return (
        with_keyframes(split, [key for key in split.keyframes if key[0] not in apart]),
        with_keyframes(split, [key for key in split.keyframes if key[0] in apart]),
    )


def with_keyframes(split: Split, keyframes: Sequence[Key]) -> Split:
    """These keyframes of a split alone, with their ground truth."""
    truth, kept = split.ground_truth, set(keyframes)
    rows = np.array(
        [(truth.videos[v], int(s)) in kept for v, s in zip(truth.video, truth.frame, strict=True)], bool
    )
    return replace(split, keyframes=tuple(keyframes), ground_truth=truth.take(rows))
