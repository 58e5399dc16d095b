"""Why a score is near 0 though the detections are good: another order of columns, scale, frames or names.

Each is told by what would fit, and nothing is changed.
"""

import re
from collections import Counter
from collections.abc import Callable, Set
from dataclasses import replace

import numpy as np

from evaluators.frame_map import Detections, EvalRules, GroundTruth, GroundTruthTubes, frame_keys
from evaluators.matching import Floats, candidate_pairs, lookup

HIGH, MORE = 0.5, 0.3
"""Of the ground-truth boxes, those that detections overlap by half: a reading is named by which their share
is above the first, and above that of the boxes as they are by the second."""
SHIFTS = (-2, -1, 1, 2)
"""Frames or seconds by which a count from 0 and one from 1 differ, or two that round."""
FRAMES = 300
"""Of the ground truth, evenly spaced, that are looked at."""


def hints(ground_truth: GroundTruth, detections: Detections) -> list[str]:
    """Notes on names, frames and boxes by which the detections would fit the ground truth, and do not."""
    if not len(ground_truth.video) or not len(detections.video):
        return []
    notes = other_names(ground_truth, detections)
    some = _some_frames(ground_truth)
    gt_frame, det_frame, _ = frame_keys(some, detections, frozenset())
    near = detections.take(lookup(np.unique(gt_frame), det_frame) >= 0)
    if not len(near.video):
        return notes + _offset(ground_truth, detections)
    now = _overlap(some, near, near.box)[0]
    if now > 1 - MORE:
        return notes
    return notes + (_columns(some, near, now) or _shifted(some, detections, now))


def sparse_tubes(ground_truth: GroundTruthTubes, rules: EvalRules) -> list[str]:
    """A note on ground-truth tubes with holes, such as annotations of every fifth frame."""
    same = np.diff(ground_truth.tube) == 0
    steps = np.diff(ground_truth.frame)[same]
    holes = np.unique(ground_truth.tube[1:][same][steps > 1])
    if not len(holes):
        return []
    usual = Counter(steps[steps > 1].tolist()).most_common(1)[0][0]
    scored = (
        ""
        if rules.protocol_rules.annotated_frames_only
        else ("; detections between count as false positives, but not with --protocol annotated")
    )
    count = len(np.unique(ground_truth.tube))
    return [f"{len(holes):,} of {count:,} ground-truth tubes have holes, most often of step {usual}{scored}"]


def _some_frames(ground_truth: GroundTruth) -> GroundTruth:
    """The ground truth of up to FRAMES frames."""
    key = ground_truth.video * (1 + int(ground_truth.frame.max())) + ground_truth.frame
    frames = np.unique(key)
    chosen = np.unique(np.linspace(0, len(frames) - 1, min(FRAMES, len(frames))).round().astype(np.int64))
    return ground_truth.take(lookup(frames[chosen], key) >= 0)


def _overlap(ground_truth: GroundTruth, detections: Detections, box: Floats) -> tuple[float, float]:
    """How well these boxes (M, 4) fit the ground truth of their frames: -> the share of its boxes that one
    overlaps by half, and the mean of its boxes' best IoU."""
    gt_frame, det_frame, _ = frame_keys(ground_truth, detections, frozenset())
    near = np.isin(det_frame, gt_frame)
    pairs = candidate_pairs(gt_frame, ground_truth.box, det_frame[near], box[near])
    best = np.zeros(len(gt_frame))
    np.maximum.at(best, pairs.gt, pairs.iou)
    return float((best >= 0.5).mean()), float(best.mean())


def _columns(ground_truth: GroundTruth, detections: Detections, now: float) -> list[str]:
    """The reading of the four box columns by which most of the ground truth is overlapped, if any.

    now: the share that is, as they are.
    """
    box = detections.box
    scale = _extent(ground_truth.box) / np.maximum(_extent(box), 1e-9)
    readings: dict[str, Callable[[], Floats]] = {
        "read as y1,x1,y2,x2": lambda: box[:, [1, 0, 3, 2]],
        "read as x1,x2,y1,y2": lambda: box[:, [0, 2, 1, 3]],
        "read as x,y,w,h": lambda: np.concatenate([box[:, :2], box[:, :2] + box[:, 2:]], axis=1),
        "read as x and y of the centre, w, h": lambda: np.concatenate(
            [box[:, :2] - box[:, 2:] / 2, box[:, :2] + box[:, 2:] / 2], axis=1
        ),
        f"scaled by {scale[0]:.3g} in x and {scale[1]:.3g} in y": lambda: box * np.tile(scale, 2),
    }
    fits = {how: _overlap(ground_truth, detections, boxes()) for how, boxes in readings.items()}
    best = max(fits, key=lambda how: fits[how][1])
    if fits[best][0] < max(HIGH, now + MORE):
        return []
    return [
        f"{best} the boxes would overlap {fits[best][0]:.0%} of the ground truth by half; "
        f"as they are, {now:.0%}"
    ]


def _shifted(ground_truth: GroundTruth, detections: Detections, now: float) -> list[str]:
    """The frames or seconds later or earlier by which the detections would fit, if any.

    now: the share of the ground truth that they overlap as they are.
    """
    shares = {}
    for shift in SHIFTS:
        frame = detections.frame + shift
        moved = detections.take(frame >= 0)
        moved = replace(moved, frame=frame[frame >= 0])
        gt_frame, det_frame, _ = frame_keys(ground_truth, moved, frozenset())
        near = moved.take(np.isin(det_frame, gt_frame))
        shares[shift] = _overlap(ground_truth, near, near.box)[0]
    best = max(shares, key=lambda shift: shares[shift])
    if shares[best] < max(HIGH, now + MORE):
        return []
    return [
        f"with {best:+d} to their frames (or seconds) the boxes would overlap {shares[best]:.0%} of the "
        f"ground truth by half; as they are, {now:.0%}: do they count from another number?"
    ]


def _extent(box: Floats) -> Floats:
    """The x and the y below which nearly all corners lie, (2,)."""
    return np.quantile(box[:, 2:], 0.98, axis=0)


def _offset(ground_truth: GroundTruth, detections: Detections) -> list[str]:
    """The number by which the frames or seconds of the same video differ most often."""
    number = {name: i for i, name in enumerate(ground_truth.videos)}
    differences: Counter[int] = Counter()
    frames = 0
    for video, name in enumerate(detections.videos):
        theirs = np.unique(detections.frame[detections.video == video])[:FRAMES]
        ours = np.unique(ground_truth.frame[ground_truth.video == number.get(name, -1)])[:FRAMES]
        if len(ours) and len(theirs):
            differences.update((ours[:, None] - theirs).ravel().tolist())
            frames += min(len(ours), len(theirs))
    if not differences:
        return []
    offset, met = differences.most_common(1)[0]
    if met < HIGH * frames:
        return []
    return [
        f"no detection is in a frame of the ground truth; with {offset:+d} {met:,} of {frames:,} frames (or "
        "seconds) would meet: do they count from another number?"
    ]


FAR = 60
"""Seconds from all annotations, beyond which exclusions count from another number."""


def exclusions_that_match_nothing(ground_truth: GroundTruth, excluded: Set[tuple[str, int]]) -> list[str]:
    """A note on excluded seconds of which none is of a video of the ground truth, or within its seconds."""
    known = set(ground_truth.videos)
    of_known = [second for video, second in excluded if video in known]
    if not excluded or not len(ground_truth.frame):
        return []
    if not of_known:
        first = min(video for video, _ in excluded)
        meant = {_base(name): name for name in ground_truth.videos}.get(_base(first))
        hint = f"; {first!r} may be its {meant!r}" if meant else ""
        return [f"none of the {len(excluded):,} exclusions is of a video of the ground truth{hint}"]
    low, high = int(ground_truth.frame.min()), int(ground_truth.frame.max())
    # Seconds before the first annotation and behind the last are excluded in own data.
    far = [second < low - FAR or second > high + FAR for second in of_known]
    if all(far) and len(far) > 1:
        return [
            f"none of the {len(excluded):,} exclusions is within the seconds of the ground truth, {low} to "
            f"{high}: do they count from another number?"
        ]
    return []


def other_names(ground_truth: GroundTruth, detections: Detections) -> list[str]:
    """Videos of the detections that the ground truth has under another name."""
    known = set(ground_truth.videos)
    present = [detections.videos[i] for i in np.unique(detections.video).tolist()]
    unknown = [name for name in present if name not in known]
    by_base = {_base(name): name for name in ground_truth.videos}
    for name in unknown:
        if (meant := by_base.get(_base(name))) is not None:
            return [
                f"{len(unknown):,} of {len(present):,} videos of the detections are not in the ground truth; "
                f"{name!r} may be its {meant!r}: names must be equal, with folder and suffix"
            ]
    return []


def _base(name: str) -> str:
    """A video's name without folders and suffix."""
    base = name.replace("\\", "/").rpartition("/")[2]
    return re.sub(r"\.(mp4|mkv|webm|avi|mov|jpg|png)$", "", base, flags=re.IGNORECASE)
