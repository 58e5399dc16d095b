"""Tube benchmarks (UCF101-24, JHMDB): annotations in ACT's pickle, labels per frame, boxes in pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from actloc_core.clip import clip_indices, read_frames
from datasets.cache import read_once
from datasets.description import FILE
from datasets.split import (
    ActorAnnotations,
    FrameFolder,
    Key,
    Split,
    VideoSource,
    columns_after_flip,
    find_present,
    find_video,
    group_by_actor,
    missing_note,
)
from evaluators.act_pickle import ActAnnotations, read_act, split_videos
from evaluators.frame_map import GroundTruthTubes


@dataclass(frozen=True, kw_only=True)
class TubeSplit(Split):
    """A split whose keyframes are frames, counted from 1, and whose boxes are in pixels."""

    lengths: dict[str, int]
    """Video -> its number of frames."""
    sizes: dict[str, tuple[int, int]]
    """Video -> (width, height) in pixels."""

    def read(self, index: int) -> NDArray[np.uint8]:
        """Read the frames of a clip, (T, H, W, 3) uint8 RGB."""
        video, frame = self.keyframes[index]
        indices = clip_indices(frame - 1, self.lengths[video], frames=self.frames, stride=self.stride)
        source = self.sources[video]
        if isinstance(source, FrameFolder):
            return source.read(indices)
        return read_once(source, indices, lambda: read_frames(source, indices))

    def box_unit(self, video: str) -> tuple[float, float]:
        """(width, height) of the video in pixels, the unit of its boxes."""
        return self.sizes[video]


@dataclass(frozen=True)
class TubeBenchmark:
    """A benchmark in ACT's schema: where its files are and how they are loaded."""

    file: str
    """Name of the annotation pickle."""
    images: tuple[tuple[str, str], ...]
    """Extracted frames of a video: (folder that holds <video>/, name of image n)."""
    splits: int
    """Number of splits; a result is their mean."""

    def load(
        self,
        root: Path,
        split: str,
        *,
        frames: int,
        stride: int,
        crop: int,
        number: int = 1,
        every: int = 1,
        mirrored: Mapping[str, str] | None = None,
        leave_out_missing: bool = False,
    ) -> TubeSplit:
        """Load one split: read its annotations and find each of its videos. No file is converted.

        split: "train" or "test". Training items are every `every`-th annotated frame of each video, the
            first one included; neighbours are near-copies. Test items are all frames of all videos: a
            detection on a frame without annotations is a false positive.
        number: which of the splits, from 1. stride: in frames of the video; image n is annotation frame n.
        mirrored: class name -> the name that it gets in a mirrored clip; None: what dataset.json says.
        leave_out_missing: do without videos that are not there, and without their ground truth.
        Raises FileNotFoundError or ValueError naming file and entry.
        """
        if split not in ("train", "test"):
            raise ValueError(f"the splits are 'train' and 'test', not {split!r}")
        if every < 1:
            raise ValueError(f"every {every}-th frame: give 1 for all frames, 2 for every other one")
        act = self.read_annotations(root)
        annotated = videos_of(act, split, number, root / self.file)
        sources, missing = find_present(
            annotated, lambda video: self.find_source(root, video), leave_out_missing=leave_out_missing
        )
        videos = list(sources)
        lengths = {video: act.nframes[video] for video in videos}
        sizes = {video: (act.resolution[video][1], act.resolution[video][0]) for video in videos}
        ground_truth = select_videos(act.ground_truth, videos)
        annotations = group_by_actor(*_valid_rows(ground_truth, sizes, lengths), tuple(act.classes))
        if split == "test":
            for video, source in sources.items():
                _check_length(source, lengths[video], root / self.file)
            keyframes = [(video, frame) for video in videos for frame in range(1, lengths[video] + 1)]
        else:
            keyframes = _training_keyframes(annotations, videos, every, root / self.file)
        return TubeSplit(
            classes=act.classes,
            evaluated=act.classes,
            ground_truth=ground_truth,
            excluded=frozenset(),
            keyframes=tuple(keyframes),
            sources=sources,
            annotations=annotations,
            flipped_columns=columns_after_flip(act.classes, mirrored, root),
            frames=frames,
            stride=stride,
            crop=crop,
            lengths=lengths,
            sizes=sizes,
            notes=missing_note(root / self.file, missing, len(videos)),
            left_out=missing,
        )

    def read_annotations(self, root: Path) -> ActAnnotations:
        """Read the annotation pickle without executing it. Raises FileNotFoundError saying what to do."""
        if not root.is_dir():
            raise FileNotFoundError(f"{root}: no such data folder; give it as --data NAME=FOLDER")
        if not (root / self.file).is_file():
            raise FileNotFoundError(
                f"{root}: no {self.file} in it; get it, the annotation file of ACT and MOC"
            )
        return read_act(root / self.file)

    def find_source(self, root: Path, video: str) -> VideoSource:
        """Find a video's extracted frames or else its file. Raises as `datasets.split.find_video`."""
        frames = [(f"{folder}/{video}", name) for folder, name in self.images]
        return find_video(root, video, frames, root / self.file)

    def fingerprint(self, root: Path) -> str:
        """Hash of the annotation file, 16 hex digits; the videos' bytes are not read."""
        digest = hashlib.sha256((root / self.file).read_bytes())
        if (root / FILE).is_file():
            digest.update((root / FILE).read_bytes())
        return digest.hexdigest()[:16]


def select_videos(ground_truth: GroundTruthTubes, videos: Sequence[str]) -> GroundTruthTubes:
    """Select the ground truth of these videos, in their order."""
    gt, number = ground_truth, {name: i for i, name in enumerate(videos)}
    new = np.array([number.get(name, -1) for name in gt.videos], np.int64)[gt.video]
    rows = np.flatnonzero(new >= 0)
    rows = rows[np.argsort(new[rows], kind="stable")]
    return replace(gt.take(rows), videos=tuple(videos), video=new[rows])


def videos_of(act: ActAnnotations, split: str, number: int, path: Path) -> Sequence[str]:
    """The videos of "train" or "test" of a split.

    Raises ValueError for annotations that lack one, or its length or size, or have one in both.
    """
    videos = test_videos = split_videos(act, number)
    if split == "train":
        if number > len(act.train_videos):
            raise ValueError(f"{path}: train_videos has no split {number}; get the complete file")
        videos = act.train_videos[number - 1]
        if both := set(videos) & set(test_videos):
            raise ValueError(f"{path}: {min(both)!r} is in both train_videos and test_videos of {number}")
    for name in videos:
        for key, known in (("nframes", act.nframes), ("resolution", act.resolution)):
            if name not in known:
                raise ValueError(f"{path}: {key} has no video {name!r}; get the complete file")
    return videos


def _training_keyframes(
    annotations: ActorAnnotations, videos: Sequence[str], every: int, file: Path
) -> list[Key]:
    """Every `every`-th annotated frame of each video. ValueError where there is none."""
    if not annotations.rows:
        raise ValueError(
            f"{file}: no video of train_videos has an annotated frame: there is nothing to train on "
            "(evaluation needs none)"
        )
    annotated: dict[str, list[int]] = {video: [] for video in videos}
    for video, frame in annotations.rows:
        annotated[video].append(frame)
    return [(video, frame) for video in videos for frame in sorted(annotated[video])[::every]]


def _valid_rows(
    ground_truth: GroundTruthTubes, sizes: dict[str, tuple[int, int]], lengths: dict[str, int]
) -> tuple[GroundTruthTubes, NDArray[np.int64], NDArray[np.float64]]:
    """Select the rows to train on: -> ground truth, tube (N,), boxes (N, 4) xyxy in [0, 1].

    Published files have a few boxes that are inverted or outside the image, and frames past a video's
    end. Evaluation counts them as missed; training leaves them out.
    """
    gt = ground_truth
    size = np.array([sizes[v] * 2 for v in gt.videos], np.float64).reshape(-1, 4)
    last = np.array([lengths[v] for v in gt.videos], np.int64)
    box = (gt.box / size[gt.video]).clip(0, 1)
    rows = (box[:, 0] < box[:, 2]) & (box[:, 1] < box[:, 3]) & (gt.frame <= last[gt.video])
    return gt.take(rows), gt.tube[rows], box[rows]


def _check_length(source: VideoSource, length: int, file: Path) -> None:
    """Raise ValueError for an incomplete test video; in training its clips are replaced and counted."""
    if isinstance(source, FrameFolder) and source.count < length:
        raise ValueError(
            f"{source.folder}: {source.count} images, but {file} says {length} frames; extract them again "
            f"without dropping or skipping any (the last must be {source.name % length})"
        )
