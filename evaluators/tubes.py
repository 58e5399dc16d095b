"""Tubes, boxes linked over time, and how much two of them overlap.

Letters: T tubes, R rows of tubes (one per frame), P pairs.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from evaluators.frame_map import FRAME_LIMIT, Detections
from evaluators.matching import Bools, Floats, Ints, box_iou, lookup, run_starts

_CHUNK = 2_000_000  # frames of tube pairs per step; bounds the memory


@dataclass(frozen=True, kw_only=True)
class OverlapRules:
    """How the overlap of two tubes is measured. The defaults are ACT's."""

    plus_one: bool = True  # boxes are one pixel wider and higher than their coordinates say
    whole_frames: bool = True  # a tube from frame 3 to 5 lasts three frames; else two
    least_shared: int = 1  # tubes that share fewer frames overlap nothing


ACT_OVERLAP = OverlapRules()


@dataclass(frozen=True, eq=False)
class Tubes:
    """Detected tubes, boxes linked over time: T tubes of R boxes.

    videos              names
    video, label        (T,) int64, index into `videos`; class id
    score               (T,) float64
    tube                (R,) int64, which of the T a box belongs to, ascending
    frame               (R,) int64, ascending inside a tube, none twice
    box                 (R, 4) float64, x1 y1 x2 y2 in pixels

    ValueError when these do not fit together.
    """

    videos: tuple[str, ...]
    video: Ints
    label: Ints
    score: Floats
    tube: Ints
    frame: Ints
    box: Floats

    def __post_init__(self) -> None:
        number = len(self.video)
        if not len(self.label) == len(self.score) == number:
            raise ValueError(f"Tubes: {number} videos, {len(self.label)} labels, {len(self.score)} scores")
        if not np.isfinite(self.score).all() or not np.isfinite(self.box).all():
            raise ValueError("Tubes: a score or box is NaN or infinite")
        if self.box.shape != (len(self.tube), 4) or len(self.frame) != len(self.tube):
            raise ValueError(
                f"Tubes: {len(self.tube)} tube numbers, {len(self.frame)} frames and boxes of shape "
                f"{self.box.shape}; one of each per row is needed"
            )
        if not np.array_equal(np.unique(self.tube), np.arange(number)):
            raise ValueError(f"Tubes.tube must number the {number} tubes from 0, each with a box")
        key = self.tube * FRAME_LIMIT + self.frame
        if (np.diff(key) <= 0).any():
            row = int(np.argmax(np.diff(key) <= 0)) + 1
            raise ValueError(f"Tubes row {row}: rows must go up by tube, then by frame")


def tube_iou(a: Tubes, a_tube: Ints, b: Tubes, b_tube: Ints, rules: OverlapRules = ACT_OVERLAP) -> Floats:
    """Overlap of pairs of tubes, (P,): a_tube (P,) of `a` with b_tube (P,) of `b`.

    Mean IoU over the shared frames, times the share of shared frames among the frames of either. In
    whole frames that is the sum of the IoUs divided by the number of frames of either; otherwise
    times are differences of the first and last frames, and tubes of one frame overlap nothing.
    """
    stride = 1 + max(int(tubes.frame.max(initial=0)) for tubes in (a, b))
    b_key = b.tube * stride + b.frame
    size_a, size_b = (np.bincount(t.tube, minlength=len(t.video)) for t in (a, b))
    start_a, start_b = (np.cumsum(size) - size for size in (size_a, size_b))
    first_a, first_b = a.frame[start_a], b.frame[start_b]
    last_a, last_b = a.frame[start_a + size_a - 1], b.frame[start_b + size_b - 1]
    overlap = np.zeros(len(a_tube))
    for part in _chunks(size_a[a_tube]):
        of_a, of_b = a_tube[part], b_tube[part]
        n = size_a[of_a]
        pair = np.repeat(np.arange(len(of_a)), n)
        row_a = np.repeat(start_a[of_a] - (np.cumsum(n) - n), n) + np.arange(len(pair))
        row_b = lookup(b_key, of_b[pair] * stride + a.frame[row_a])
        both = np.flatnonzero(row_b >= 0)
        iou = box_iou(a.box[row_a[both]], b.box[row_b[both]], plus_one=rules.plus_one)
        shared = np.bincount(pair[both], minlength=len(of_a))
        total = np.bincount(pair[both], weights=iou, minlength=len(of_a))
        total[shared < rules.least_shared] = 0
        if rules.whole_frames:
            overlap[part] = total / (n + size_b[of_b] - shared)
            continue
        both_last = np.minimum(last_a[of_a], last_b[of_b])
        both_first = np.maximum(first_a[of_a], first_b[of_b])
        either = np.maximum(last_a[of_a], last_b[of_b]) - np.minimum(first_a[of_a], first_b[of_b])
        time = np.maximum(both_last - both_first, 0) / np.maximum(either, 1)
        overlap[part] = total / np.maximum(shared, 1) * time
    return overlap


def suppress_tubes(tubes: Tubes, threshold: float, rules: OverlapRules = ACT_OVERLAP) -> Tubes:
    """The tubes that NMS over space and time leaves; in round k every class keeps its k-th."""
    group = class_of_video(tubes)
    left = np.lexsort((-tubes.score, group))
    kept = [left[:0]]
    while len(left):
        best, of_best = leaders(group[left])
        kept.append(left[best])
        left, leader = left[~best], left[of_best[~best]]
        left = left[tube_iou(tubes, left, tubes, leader, rules) <= threshold]
    keep = np.sort(np.concatenate(kept))
    number = lookup(keep, tubes.tube)
    rows = number >= 0
    return Tubes(
        tubes.videos,
        tubes.video[keep],
        tubes.label[keep],
        tubes.score[keep],
        number[rows],
        tubes.frame[rows],
        tubes.box[rows],
    )


def class_of_video(rows: Detections | Tubes) -> Ints:
    """One number per (video, label)."""
    labels = np.unique(rows.label)
    return rows.video * len(labels) + lookup(labels, rows.label)


def leaders(ordered: Ints) -> tuple[Bools, Ints]:
    """Of runs of equal numbers: which entries begin a run (K,), and where the run of each begins (K,)."""
    best = run_starts(ordered)
    return best, np.flatnonzero(best)[np.cumsum(best) - 1]


def _chunks(sizes: Ints) -> Iterator[slice]:
    """Slices of consecutive entries whose sizes sum to about _CHUNK."""
    ends = np.cumsum(sizes)
    at = 0
    while at < len(sizes):
        done = ends[at - 1] if at else 0
        end = max(at + 1, int(np.searchsorted(ends, done + _CHUNK, side="right")))
        yield slice(at, end)
        at = end
