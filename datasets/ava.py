"""AVA 2.2 and everything in its formats (the synthetic benchmark too), from video files.

<root>/videos/<video>.{mp4,mkv,webm,avi}
<root>/annotations/ava_<split>_v2.2.csv                      video,second,x1,y1,x2,y2,action,person
<root>/annotations/ava_<split>_excluded_timestamps_v2.2.csv
<root>/annotations/ava_action_list_v2.2.pbtxt                    all actions: what a model learns
<root>/annotations/ava_action_list_v2.2_for_activitynet_2019.pbtxt   what is evaluated
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from actloc_core.boxes import xyxy_to_cxcywh
from actloc_core.clip import VideoInfo, clip_indices, probe, read_frames
from actloc_core.structures import Targets
from datasets.transforms import to_tensor
from evaluators.ava_csv import read_annotations, read_exclusions, read_label_map
from evaluators.frame_map import GroundTruth

FIRST_SECOND, LAST_SECOND = 902, 1798
"""The annotated range of a movie, keyframes once a second."""
START_SECOND = 900
"""Video files are the 15-minute cuts: their time 0 is this second of the movie."""
SUFFIXES = (".mp4", ".mkv", ".webm", ".avi")


@dataclass(frozen=True)
class AvaSplit:
    """Keyframes of one split; items are (clip (3, T, crop, crop) in [0, 1], Targets)."""

    classes: dict[int, str]
    """Action id -> name of all the actions learned; column c of the labels is the c-th id."""
    evaluated: dict[int, str]
    """Those that count in the evaluation (60 of AVA's 80)."""
    ground_truth: GroundTruth
    excluded: frozenset[tuple[str, int]]
    keyframes: tuple[tuple[str, int], ...]
    """(video, second) of each item."""
    people: dict[tuple[str, int], Targets]
    videos: dict[str, Path]
    info: dict[str, VideoInfo]
    flipped_columns: Tensor
    frames: int
    stride: int
    crop: int

    def __len__(self) -> int:
        return len(self.keyframes)

    def __getitem__(self, index: int) -> tuple[Tensor, Targets]:
        video, second = self.keyframes[index]
        info = self.info[video]
        indices = clip_indices(
            frame_of(second, info.fps), info.frames, frames=self.frames, stride=self.stride
        )
        clip = to_tensor(read_frames(self.videos[video], indices), self.crop)
        nobody = Targets(torch.zeros(0, 4), torch.zeros(0, len(self.classes)))
        return clip, self.people.get((video, second), nobody)


def frame_of(second: int, fps: float) -> int:
    """The frame number, from 0, that a movie's second has in its 15-minute cut."""
    return round((second - START_SECOND) * fps)


def load(
    root: Path,
    split: str,
    *,
    frames: int,
    stride: int,
    crop: int,
    flipped: dict[str, str] | None = None,
) -> AvaSplit:
    """Read one split's annotations and look at each of its videos. Nothing is converted.

    The training split's items are the annotated seconds, any other split's all seconds of the
    annotated range that the videos hold: somebody found where nobody is counts as false.
    flipped: action names that a horizontal flip exchanges.
    Raises FileNotFoundError or ValueError naming file, line and field.
    """
    annotations = _annotations_folder(root)
    classes = read_label_map(annotations / "ava_action_list_v2.2.pbtxt")
    evaluated = read_label_map(annotations / "ava_action_list_v2.2_for_activitynet_2019.pbtxt")
    csv = annotations / f"ava_{split}_v2.2.csv"
    truth, person = read_annotations(csv, known_ids=frozenset(classes))
    excluded = read_exclusions(annotations / f"ava_{split}_excluded_timestamps_v2.2.csv")
    videos = {video: _video_file(root, video, csv) for video in truth.videos}
    info = {video: probe(path) for video, path in videos.items()}
    people = _people(truth, person, tuple(classes))
    for video, second in people:
        last = frame_of(second, info[video].fps)
        if last >= info[video].frames:
            raise ValueError(
                f"{csv}: {video} is annotated at second {second}, but {videos[video]} ends at second "
                f"{START_SECOND + info[video].seconds:.1f}; is it the cut from second {START_SECOND}?"
            )
    if split == "train":
        keys = list(people)
    else:
        keys = [
            (video, second)
            for video in truth.videos
            for second in range(FIRST_SECOND, LAST_SECOND + 1)
            if frame_of(second, info[video].fps) < info[video].frames
        ]
    names = list(classes.values())
    other = {name: (flipped or {}).get(name, name) for name in names}
    return AvaSplit(
        classes=classes,
        evaluated=evaluated,
        ground_truth=truth,
        excluded=excluded,
        keyframes=tuple(sorted(key for key in keys if key not in excluded)),
        people=people,
        videos=videos,
        info=info,
        flipped_columns=torch.tensor([names.index(other[name]) for name in names]),
        frames=frames,
        stride=stride,
        crop=crop,
    )


def first(split: AvaSplit, count: int) -> AvaSplit:
    """The split's first keyframes, with the ground truth of those alone: for a look during training."""
    keyframes = split.keyframes[:count]
    truth, kept = split.ground_truth, set(keyframes)
    rows = np.array(
        [(truth.videos[v], int(s)) in kept for v, s in zip(truth.video, truth.frame, strict=True)]
    )
    mine = GroundTruth(truth.videos, truth.video[rows], truth.frame[rows], truth.box[rows], truth.label[rows])
    return replace(split, keyframes=keyframes, ground_truth=mine)


def _people(
    truth: GroundTruth, person: np.ndarray | None, ids: tuple[int, ...]
) -> dict[tuple[str, int], Targets]:
    """One row of the csv is one (box, label); a person's rows repeat the box: gather them."""
    column = {action: i for i, action in enumerate(ids)}
    labels: dict[tuple[str, int], dict[tuple[float, ...], Tensor]] = {}
    for row in range(len(truth.label)):
        key = (truth.videos[truth.video[row]], int(truth.frame[row]))
        # The person's number tells apart two people with one box; old files have none.
        who = (*truth.box[row], -1 if person is None else person[row])
        mine = labels.setdefault(key, {}).setdefault(who, torch.zeros(len(ids)))
        mine[column[int(truth.label[row])]] = 1
    return {
        key: Targets(
            xyxy_to_cxcywh(torch.tensor([who[:4] for who in found], dtype=torch.float32)),
            torch.stack(list(found.values())),
        )
        for key, found in labels.items()
    }


def _annotations_folder(root: Path) -> Path:
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such data folder; give it as --data ava=FOLDER")
    for name in ("annotations", "annotations_v2.2"):
        if (root / name).is_dir():
            return root / name
    raise FileNotFoundError(f"{root}: no folder annotations/ (or annotations_v2.2/) in it")


def _video_file(root: Path, video: str, csv: Path) -> Path:
    for suffix in SUFFIXES:
        if (path := root / "videos" / f"{video}{suffix}").is_file():
            return path
    raise FileNotFoundError(
        f"{csv} annotates video {video!r}, but {root / 'videos'} has no {video}{{{','.join(SUFFIXES)}}}"
    )


def fingerprint(root: Path) -> str:
    """A hash of the annotation files; the videos' bytes (200 GB) are not read."""
    digest = hashlib.sha256()
    for path in sorted(_annotations_folder(root).glob("ava_*")):
        digest.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]
