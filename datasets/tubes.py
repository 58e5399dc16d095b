"""What UCF101-24 and JHMDB share: annotations in ACT's pickle, labels on every frame, boxes in pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from actloc_core.clip import clip_indices
from datasets.split import (
    VIDEO_SUFFIXES,
    Images,
    Source,
    Split,
    check_name,
    find_images,
    flipped_columns,
    gather_people,
    read_source,
)
from evaluators.act_pickle import ActAnnotations, read_act, split_videos
from evaluators.frame_map import GroundTruthTubes


@dataclass(frozen=True, kw_only=True)
class TubeSplit(Split):
    """Keyframes are frames, counted from 1; boxes are pixels."""

    lengths: dict[str, int]
    """Video -> its number of frames."""
    sizes: dict[str, tuple[int, int]]
    """Video -> (width, height) in pixels."""

    def read(self, index: int) -> NDArray[np.uint8]:
        """The frames of one clip, (T, H, W, 3) RGB."""
        video, frame = self.keyframes[index]
        wanted = clip_indices(frame - 1, self.lengths[video], frames=self.frames, stride=self.stride)
        return read_source(self.sources[video], wanted)

    def box_unit(self, video: str) -> tuple[float, float]:
        """The pixels, (width, height), that the video's boxes are fractions of in a file."""
        return self.sizes[video]


def load(
    root: Path,
    file: str,
    split: str,
    *,
    number: int,
    images: Sequence[tuple[str, str]],
    frames: int,
    stride: int,
    crop: int,
    every: int,
    flipped: dict[str, str] | None,
) -> TubeSplit:
    """One split of `root`/`file`; nothing is converted. `datasets.ucf24` and `datasets.jhmdb` call this.

    split: "train", whose items are every `every`-th annotated frame of each video (the first one
        included), or "test", whose items are all frames of all its videos: a person found
        on a frame without annotation counts as false.
    number: which of the file's splits, from 1.
    images: places of extracted frames, as (folder, name of image n).
    Raises FileNotFoundError or ValueError naming file and entry.
    """
    if split not in ("train", "test"):
        raise ValueError(f"the splits are 'train' and 'test', not {split!r}")
    if every < 1:
        raise ValueError(f"every {every}-th frame: give 1 for all frames, 2 for every other one")
    annotations = read_annotations(root, file)
    path = root / file
    test_videos = split_videos(annotations, number)
    if split == "test":
        videos = test_videos
    elif number > len(annotations.train_videos):
        raise ValueError(f"{path}: train_videos has no split {number}; get the whole file")
    else:
        videos = annotations.train_videos[number - 1]
        if both := set(videos) & set(test_videos):
            raise ValueError(f"{path}: {min(both)!r} is in both train_videos and test_videos of {number}")
    for name in videos:
        for key, known in (("nframes", annotations.nframes), ("resolution", annotations.resolution)):
            if name not in known:
                raise ValueError(f"{path}: {key} does not know video {name!r}; the file is incomplete")
    sources = {v: find_source(root, v, path, images) for v in videos}
    if split == "test":
        for video, source in sources.items():
            _check_length(source, annotations.nframes[video], path)
    truth = only(annotations.ground_truth, videos)
    sizes = {v: (annotations.resolution[v][1], annotations.resolution[v][0]) for v in videos}
    lengths = {v: annotations.nframes[v] for v in videos}
    people = gather_people(*_trainable(truth, sizes, lengths), tuple(annotations.classes))
    if split == "test":
        keys = [(video, frame) for video in videos for frame in range(1, lengths[video] + 1)]
    else:
        annotated: dict[str, list[int]] = {video: [] for video in videos}
        for video, frame in people.rows:
            annotated[video].append(frame)
        keys = [(video, frame) for video in videos for frame in sorted(annotated[video])[::every]]
    return TubeSplit(
        classes=annotations.classes,
        evaluated=annotations.classes,
        ground_truth=truth,
        excluded=frozenset(),
        keyframes=tuple(keys),
        sources=sources,
        people=people,
        flipped_columns=flipped_columns(annotations.classes, flipped),
        frames=frames,
        stride=stride,
        crop=crop,
        lengths=lengths,
        sizes=sizes,
    )


def read_annotations(root: Path, file: str) -> ActAnnotations:
    """The pickle, read without running anything in it. FileNotFoundError says how to name the folder."""
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such data folder; give it as --data NAME=FOLDER")
    if not (root / file).is_file():
        raise FileNotFoundError(f"{root}: no {file} in it; it is the annotation file of ACT and MOC")
    return read_act(root / file)


def only(truth: GroundTruthTubes, videos: Sequence[str]) -> GroundTruthTubes:
    """The ground truth of these videos, in their order."""
    rows = truth.in_videos(videos)
    return rows.take(np.argsort(rows.video, kind="stable"))


def _trainable(
    truth: GroundTruthTubes, sizes: dict[str, tuple[int, int]], lengths: dict[str, int]
) -> tuple[GroundTruthTubes, NDArray[np.int64], NDArray[np.float64]]:
    """The rows one can learn from: -> truth, tube (N,), boxes (N, 4) xyxy in [0, 1].

    Published files have a few boxes that are inside out or outside the image, and frames past a
    video's end. Evaluation counts these as never found; training leaves them out.
    """
    size = np.array([sizes[v] * 2 for v in truth.videos], np.float64).reshape(-1, 4)
    last = np.array([lengths[v] for v in truth.videos], np.int64)
    box = (truth.box / size[truth.video]).clip(0, 1)
    good = (box[:, 0] < box[:, 2]) & (box[:, 1] < box[:, 3]) & (truth.frame <= last[truth.video])
    return truth.take(good), truth.tube[good], box[good]


def find_source(root: Path, video: str, file: Path, images: Sequence[tuple[str, str]]) -> Source:
    """A video's extracted frames or else its file. FileNotFoundError names the places looked at."""
    check_name(video, file)
    for folder, name in images:
        if found := find_images(root / folder / video, name):
            return found
    for suffix in VIDEO_SUFFIXES:
        if (path := root / "videos" / f"{video}{suffix}").is_file():
            return path
    places = [str(root / folder / video / (name % 1)) for folder, name in images]
    places.append(f"{root / 'videos' / video}{{{','.join(VIDEO_SUFFIXES)}}}")
    raise FileNotFoundError(f"{file} lists video {video!r}, but there is none of {', '.join(places)}")


def _check_length(source: Source, length: int, file: Path) -> None:
    """A test video must be whole; in training its clips are replaced and counted."""
    if isinstance(source, Images) and source.count < length:
        raise ValueError(
            f"{source.folder}: {source.count} images, but {file} says {length} frames; extract them again "
            f"without dropping or skipping any (the last must be {source.name % length})"
        )


def fingerprint(root: Path, file: str) -> str:
    """A hash of the annotation file; the frames' bytes are not read."""
    return hashlib.sha256((root / file).read_bytes()).hexdigest()[:16]
