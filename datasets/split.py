"""A split of a benchmark, as every dataset file's `load` returns it: keyframes, annotations and clips.

Two things differ between benchmarks, the frames of a clip and the unit of the boxes. Each is one method
of `AvaSplit` (datasets/ava.py) and `TubeSplit` (datasets/tubes.py).
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from actloc_core.boxes import cxcywh_to_xyxy, iou_and_giou, xyxy_to_cxcywh
from actloc_core.clip import VideoError, read_frames
from actloc_core.pixels import to_tensor
from actloc_core.structures import Targets
from datasets.description import FILE, check_known, read_description
from evaluators.files import MOST_TOLD
from evaluators.frame_map import GroundTruth

Key = tuple[str, int]
"""A keyframe: the video, and the second (AVA) or the frame from 1 (UCF101-24, JHMDB)."""

VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v")
"""Of video files, in lower or upper case."""
IMAGE_SUFFIXES = (".jpg", ".png", ".jpeg")
"""Of extracted frames."""


@dataclass(frozen=True)
class FrameFolder:
    """A video as extracted frames: a folder of images, numbered without gaps."""

    folder: Path
    name: str
    """File name of image n: name % n, such as "%05d.jpg"."""
    count: int
    first: int = 1
    """Number of the first image, 0 or 1."""

    def image(self, frame: int) -> Path:
        """The file of a frame, by its number from 0."""
        return self.folder / (self.name % (frame + self.first))

    def read(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Read frames by number from 0, (len(indices), H, W, 3) uint8 RGB; frame i is image i + `first`.

        Raises VideoError naming the image that is missing, damaged or of another size.
        """
        distinct, inverse = np.unique(indices, return_inverse=True)
        frames = [_read_image(self.image(int(i))) for i in distinct]
        for i, frame in zip(distinct, frames, strict=True):
            if frame.shape != frames[0].shape:
                path = self.image(int(i))
                raise VideoError(f"{path}: its size differs from the clip's other frames; extract them again")
        return np.stack(frames)[inverse]


VideoSource = FrameFolder | Path
"""A video on disk: extracted frames or a video file."""


def _read_image(path: Path) -> NDArray[np.uint8]:
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except FileNotFoundError:
        raise VideoError(f"{path}: no such image; extract the video's frames again") from None
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, SyntaxError) as error:
        raise VideoError(f"{path}: not a readable image ({error}); extract the frames again") from error


def read_source(source: VideoSource, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Read frames by number from 0, (len(indices), H, W, 3) uint8 RGB. Raises VideoError."""
    return source.read(indices) if isinstance(source, FrameFolder) else read_frames(source, indices)


def find_video(
    root: Path, video: str, frames: Sequence[tuple[str, str]], annotation_file: Path
) -> VideoSource:
    """Find a video's extracted frames, or else its file, <root>/videos/<video> with one of VIDEO_SUFFIXES.

    frames: where its frames may be, as (folder below root, name of image n), with another of IMAGE_SUFFIXES
    too. A name that has a suffix may be the file's.
    Raises FileNotFoundError listing the paths tried, ValueError for a name that leads out of the folder.
    """
    parts = video.replace("\\", "/").split("/")
    if "" in parts or "." in parts or ".." in parts or "\0" in video:
        raise ValueError(
            f"{annotation_file}: video name {video!r} is not a path inside the data folder; correct the file"
        )
    named = [
        (folder, f"{name.rpartition('.')[0]}{suffix}")
        for folder, name in frames
        for suffix in sorted(IMAGE_SUFFIXES, key=lambda suffix: not name.endswith(suffix))
        for suffix in (suffix, suffix.upper())
    ]
    for folder, name in named:
        if (last := _last_image(root / folder, name)) > 0:
            first = 0 if (root / folder / (name % 0)).is_file() else 1
            return FrameFolder(root / folder, name, last + 1 - first, first)
    if (path := video_file(root, video)) is not None:
        return path
    tried = [str(root / folder / (name % 1)) for folder, name in frames]
    tried.append(f"{root / 'videos' / video}{{{','.join(VIDEO_SUFFIXES)}}}")
    raise FileNotFoundError(
        f"{annotation_file} names video {video!r}, but none of its files exists: {', '.join(tried)}"
    )


def find_present(
    videos: Iterable[str], find: Callable[[str], VideoSource], *, leave_out_missing: bool
) -> tuple[dict[str, VideoSource], tuple[str, ...]]:
    """Find the source of each video; -> video -> source, and the videos that are missing.

    Raises FileNotFoundError for those that are missing, unless they may be left out, and for a set of which
    none is there.
    """
    sources: dict[str, VideoSource] = {}
    missing: dict[str, FileNotFoundError] = {}
    for video in videos:
        try:
            sources[video] = find(video)
        except FileNotFoundError as error:
            missing[video] = error
    if not missing:
        return sources, ()
    first, *rest = missing.values()
    if not sources and len(missing) > 1:
        raise FileNotFoundError(f"none of the {len(missing):,} videos is there: {first}")
    if not leave_out_missing or not sources:
        more = ", ".join(map(repr, list(missing)[1:MOST_TOLD]))
        if len(missing) > MOST_TOLD:
            more += f" and {len(missing) - MOST_TOLD:,} more"
        told = f"; so are {more}" if rest else ""
        raise FileNotFoundError(f"{first}{told}; --leave-out-missing does without such videos")
    return sources, tuple(missing)


def missing_note(annotations: Path, missing: Sequence[str], present: int) -> tuple[str, ...]:
    """What is said of videos that are left out."""
    if not missing:
        return ()
    count = len(missing) + present
    return (
        f"{annotations}: {len(missing):,} of {count:,} videos are missing and left out, first {missing[0]!r}",
    )


def video_file(root: Path, video: str) -> Path | None:
    """The file <root>/videos/<video> with one of VIDEO_SUFFIXES, in lower or upper case; None without one.

    A name that has such a suffix already may be the file's.
    """
    if video.lower().endswith(VIDEO_SUFFIXES):
        if (whole := root / "videos" / video).is_file():
            return whole
        video = video.rpartition(".")[0]
    for suffix in VIDEO_SUFFIXES:
        for written in (suffix, suffix.upper()):
            if (path := root / "videos" / f"{video}{written}").is_file():
                return path
    return None


def _last_image(folder: Path, name: str) -> int:
    """Number of the last image, looked up by bisection: a folder has no gaps, and may be large."""
    if not (folder / (name % 1)).is_file():
        return 0
    low, high = 1, 2  # image `low` exists
    while (folder / (name % high)).is_file():
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if (folder / (name % middle)).is_file() else (low, middle)
    return low


@dataclass(frozen=True, kw_only=True)
class Split(abc.ABC):
    """Keyframes of one split; items are (clip (3, T, crop, crop) in [0, 1], Targets)."""

    classes: dict[int, str]
    """Action id -> name of all classes in training; column c of the labels is the c-th id."""
    evaluated: dict[int, str]
    """The classes that count in the evaluation (60 of AVA's 80)."""
    ground_truth: GroundTruth
    """Annotations of the whole split for the evaluators: boxes xyxy in the benchmark's unit."""
    excluded: frozenset[Key]
    keyframes: tuple[Key, ...]
    """Keyframe of each item."""
    sources: dict[str, VideoSource]
    """Video -> its frames or file."""
    annotations: ActorAnnotations
    flipped_columns: Tensor
    """(C,) int64: the label column that each one comes from after a horizontal flip."""
    frames: int
    stride: int
    crop: int
    notes: tuple[str, ...] = ()
    """What is unusual about its files, in words, for whoever starts a training."""
    left_out: tuple[str, ...] = ()
    """Videos of the annotations that are not there, where these may be left out."""

    @property
    def mirrored(self) -> dict[str, str]:
        """Class name -> the name that it gets in a mirrored clip."""
        names = list(self.classes.values())
        return dict(zip(names, (names[i] for i in self.flipped_columns.tolist()), strict=True))

    def __len__(self) -> int:
        return len(self.keyframes)

    def __getitem__(self, index: int) -> tuple[Tensor, Targets]:
        return to_tensor(self.read(index), (self.crop, self.crop)), self.targets(index)

    def targets(self, index: int) -> Targets:
        """The annotated actors at an item's keyframe; may be empty."""
        return self.annotations.at(self.keyframes[index])

    @abc.abstractmethod
    def read(self, index: int) -> NDArray[np.uint8]:
        """Read an item's clip as stored, (T, H, W, 3) uint8 RGB; the keyframe is frame T // 2.

        Raises VideoError naming the file.
        """

    @abc.abstractmethod
    def box_unit(self, video: str) -> tuple[float, float]:
        """(width, height) of the whole frame in the unit of this video's ground-truth boxes."""

    def keyframe(self, index: int) -> NDArray[np.uint8]:
        """Read an item's keyframe as stored, (H, W, 3) uint8 RGB. Raises VideoError."""
        return replace(self, frames=1, stride=1).read(index)[0]


@dataclass(frozen=True)
class ActorAnnotations:
    """The annotated actors of a split, sorted by keyframe."""

    rows: dict[Key, tuple[int, int]]
    """Keyframe -> its first row and the row after its last."""
    boxes: Tensor
    """(N, 4) float32 cxcywh in [0, 1]."""
    labels: Tensor
    """(N, C) uint8, 1 where the actor does the action."""

    def at(self, key: Key) -> Targets:
        """The actors of a keyframe; no rows where none is annotated."""
        first, end = self.rows.get(key, (0, 0))
        return Targets(self.boxes[first:end], self.labels[first:end].float())


def group_by_actor(
    ground_truth: GroundTruth,
    actor_ids: NDArray[np.int64],
    boxes: NDArray[np.float64],
    classes: Sequence[int],
) -> ActorAnnotations:
    """Join the rows of each actor: one row of ground truth is one (box, label).

    actor_ids (N,): distinguish actors with equal boxes in one frame (AVA: the person id, UCF: the tube).
    boxes (N, 4): the ground truth's boxes in [0, 1], xyxy. classes: the ids of the label columns.
    The actors of a keyframe keep the order of the file.
    """
    gt = ground_truth
    column = pd.Series(range(len(classes)), index=list(classes)).reindex(gt.label).to_numpy()
    rows = pd.DataFrame(np.column_stack([gt.video, gt.frame, actor_ids, boxes]))
    actor = rows.groupby(list(rows), sort=False).ngroup().to_numpy()
    _, first = np.unique(actor, return_index=True)
    labels = np.zeros((len(first), len(classes)), np.uint8)
    labels[actor, column.astype(np.int64)] = 1
    order = np.lexsort((first, gt.frame[first], gt.video[first]))
    video, frame = gt.video[first][order], gt.frame[first][order]
    begins = np.flatnonzero(np.diff(video, prepend=-1) | np.diff(frame, prepend=-1))
    ends = np.append(begins[1:], len(video))[: len(begins)]  # nobody is annotated: no ends either
    return ActorAnnotations(
        rows={
            (gt.videos[video[a]], int(frame[a])): (int(a), int(b)) for a, b in zip(begins, ends, strict=True)
        },
        boxes=xyxy_to_cxcywh(torch.from_numpy(boxes[first][order].astype(np.float32))),
        labels=torch.from_numpy(labels[order]),
    )


def columns_after_flip(classes: Mapping[int, str], mirrored: Mapping[str, str] | None, root: Path) -> Tensor:
    """(C,) int64: the label column that each one comes from when the clip is mirrored.

    mirrored: class name -> the name that it gets; None: what the folder's dataset.json says.
    Raises ValueError where that names what is no class.
    """
    names, where = list(classes.values()), "mirrored"
    if mirrored is None:
        mirrored, where = read_description(root).mirrored, f"{root / FILE}: mirrored"
    check_known(mirrored, names, where)
    return torch.tensor([names.index(mirrored.get(name, name)) for name in names])


def subsample(split: Split, count: int) -> Split:
    """Select at most `count` evenly spaced keyframes of a split, with their ground truth alone."""
    indices = np.unique(np.linspace(0, len(split) - 1, min(count, len(split))).round().astype(int))
    return with_keyframes(split, [split.keyframes[i] for i in indices])


def with_detected_boxes(
    split: Split, detected: Mapping[Key, NDArray[np.float64]], *, min_iou: float = 0.5
) -> Split:
    """A split for training whose keyframes have a person detector's boxes, too, beside the annotated ones.

    detected: keyframe -> boxes (N, 4), xyxy in [0, 1]. A box has the labels of the actor that it overlaps
    most, where that is by at least min_iou, and none otherwise: an example of nobody's actions. What is
    evaluated, the split's ground truth, is left as it is.
    """
    boxes, labels, rows, count = [], [], {}, 0
    for key in split.keyframes:
        actors = split.annotations.at(key)
        found = torch.from_numpy(np.unique(detected.get(key, np.zeros((0, 4))), axis=0)).float()
        of_found = actors.labels.new_zeros(len(found), actors.labels.shape[1])
        if len(found) and len(actors.boxes):
            iou, _ = iou_and_giou(found[:, None], cxcywh_to_xyxy(actors.boxes)[None])
            best, actor = iou.max(1)
            of_found = actors.labels[actor] * (best >= min_iou)[:, None]
        boxes += [actors.boxes, xyxy_to_cxcywh(found)]
        labels += [actors.labels, of_found]
        rows[key] = (count, count + len(actors.boxes) + len(found))
        count = rows[key][1]
    annotations = ActorAnnotations(rows, torch.cat(boxes), torch.cat(labels).to(torch.uint8))
    return replace(split, annotations=annotations)


def hold_out_videos(split: Split, *, every: int) -> tuple[Split, Split]:
    """Hold out every n-th video of a split; -> (remaining, held out), for tuning on training data."""
    held_out = set(sorted({video for video, _ in split.keyframes})[::every])
    return (
        with_keyframes(split, [key for key in split.keyframes if key[0] not in held_out]),
        with_keyframes(split, [key for key in split.keyframes if key[0] in held_out]),
    )


def with_keyframes(split: Split, keyframes: Sequence[Key]) -> Split:
    """Restrict a split to these keyframes and their ground truth."""
    gt, selected = split.ground_truth, set(keyframes)
    rows = np.array(
        [(gt.videos[v], int(s)) in selected for v, s in zip(gt.video, gt.frame, strict=True)], bool
    )
    return replace(split, keyframes=tuple(keyframes), ground_truth=gt.take(rows))
