"""Frame-mAP as it would be on other videos: each video's rows count several times, once or not at all.

Matching is done once: drawing a video twice doubles its rows, so a sample is a weight per video, and only
the pooling is repeated. `evaluators.jackknife` leaves videos out; a bootstrap draws them.

Letters: V videos, S samples, C classes, m detections that count, H true positives of one class.
"""

from collections.abc import Mapping
from math import nan
from typing import Any

import numpy as np

from evaluators.frame_map import (
    STANDARD_RULES,
    Curve,
    Detections,
    EvalRules,
    GroundTruth,
    Matching,
    match_frames,
)
from evaluators.matching import Bools, Floats, Ints

_CHUNK = 500_000  # numbers per array in the loop over samples: they stay in the cache


def resampled_mAP(
    ground_truth: GroundTruth,
    detections: Detections,
    classes: Mapping[int, str],
    number: Mapping[str, int],
    weights: Floats,
    *,
    rules: EvalRules = STANDARD_RULES,
) -> Floats:
    """frame_map's mAP in given samples of videos, (S,); NaN where a sample has no ground truth.

    weights (V, S): how often each video is drawn. number: the row of `weights` of each video's name.
    """
    matching = match_frames(ground_truth, detections, classes, rules=rules)

    def videos(rows: GroundTruth | Detections, kept: Ints) -> Ints:
        return np.array([number[name] for name in rows.videos], dtype=np.int64)[rows.video[kept]]

    sides = videos(ground_truth, matching.gt_row), videos(detections, matching.det_row)
    return mean_of_classes(resampled_ap(matching, *sides, weights))


def resampled_ap(matching: Matching, gt_video: Ints, det_video: Ints, weights: Floats) -> Floats:
    """AP of every class in every sample, (C, S), from weights (V, S): how often a video is drawn.

    gt_video (n,), det_video (m,): the video of each row in `matching`. Copies of a detection are
    adjacent in the ranking.
    """
    rules = matching.rules.protocol_rules
    num_classes, num_videos = len(matching.classes), len(weights)
    gt_per_video = np.zeros((num_classes, num_videos))
    np.add.at(gt_per_video, (matching.gt_class, gt_video), 1)
    num_gt = gt_per_video @ weights  # (C, S)

    # The ranking of each class is the same in every sample; only the multiplicities differ.
    order = np.lexsort((-matching.score, matching.det_class))
    first = np.searchsorted(matching.det_class[order], np.arange(num_classes + 1))
    ap = np.zeros(num_gt.shape)
    for c in range(num_classes):
        rows = order[first[c] : first[c + 1]]
        hit = matching.true_positive[rows]
        if hit.any():
            ap[c] = _areas(hit, det_video[rows], weights, rules.curve)
            if rules.curve == "sloped":  # from the last detection down to recall 1 and precision 0
                number = np.bincount(det_video[rows], minlength=num_videos) @ weights
                found = np.bincount(det_video[rows[hit]], minlength=num_videos) @ weights
                ap[c] += 0.5 * (num_gt[c] - found) * found / np.maximum(number, 1)
    with np.errstate(invalid="ignore"):
        ap /= num_gt
    ap[num_gt == 0] = 0.0 if rules.all_classes else nan
    if rules.detected_classes_only:
        det_per_video = np.zeros((num_classes, num_videos))
        np.add.at(det_per_video, (matching.det_class, det_video), 1)
        ap[det_per_video @ weights == 0] = nan
    return ap


def _areas(hit: Bools, video: Ints, weights: Floats, curve: Curve) -> Floats:
    """Area under the curve of one class in every sample, (S,), times its ground-truth boxes.

    hit, video: of the detections, by descending score. Between two true positives only the number
    of false positives matters, so they are counted per gap and video; the ranks in a sample are the
    cumulative sums of counts times weights.
    """
    from scipy.sparse import csr_array  # not at the top: `import evaluators` stays fast

    at = np.flatnonzero(hit)
    gap: Ints = np.cumsum(hit[: at[-1] + 1]) - hit[: at[-1] + 1]
    counts: Any = csr_array((np.ones(len(gap)), (gap, video[: at[-1] + 1])), shape=(len(at), len(weights)))
    area = np.zeros(weights.shape[1])
    step = max(1, _CHUNK // len(at))
    for begin in range(0, len(area), step):
        chunk = np.ascontiguousarray(weights[:, begin : begin + step])
        rank = np.cumsum(counts @ chunk, axis=0)  # (H, s), of the last copy of each true positive
        copies = chunk[video[at]]
        hits = np.cumsum(copies, axis=0)
        if curve == "raw":  # in float64, not ACT's float32
            area[begin : begin + step] = _trapezoids(hits, rank, copies)
            continue
        precision = np.zeros_like(rank)
        np.divide(hits, rank, out=precision, where=rank > 0)
        envelope = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
        area[begin : begin + step] = (envelope * copies).sum(axis=0)
        if (
            curve == "sloped"
        ):  # the first copy of a true positive begins at what is before it, the others level
            before = np.ones_like(rank)
            np.divide(hits - copies, rank - copies, out=before, where=rank > copies)
            rise = np.maximum(before - envelope, 0) * (copies > 0)
            area[begin : begin + step] += 0.5 * rise.sum(axis=0)
    return area


def _trapezoids(hits: Floats, rank: Floats, copies: Floats) -> Floats:
    """Sum over true positives, copy by copy, of the mean precision before and after it, (s,)."""
    hits, rank = hits - copies, rank - copies
    before = np.ones_like(rank)
    np.divide(hits, rank, out=before, where=rank > 0)
    total = np.zeros(rank.shape[1])
    for copy in range(1, int(copies.max()) + 1):
        after = (hits + copy) / (rank + copy)
        total += np.where(copies >= copy, 0.5 * (before + after), 0.0).sum(axis=0)
        before = after
    return total


def mean_of_classes(ap: Floats) -> Floats:
    """(C, S) -> (S,), over the classes that are not NaN; NaN where all are."""
    known = ~np.isnan(ap)
    number = known.sum(axis=0)
    mean = np.full(ap.shape[1], nan)
    np.divide(np.where(known, ap, 0).sum(axis=0), number, out=mean, where=number > 0)
    return mean
