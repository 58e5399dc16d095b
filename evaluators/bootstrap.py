"""Confidence intervals of frame-mAP and paired comparison of two runs, by bootstrap over videos.

The videos of a benchmark are a sample, and frames of one video are alike, so whole videos are
resampled, with replacement, as many as there are. Matching is done once: drawing a video twice
doubles its rows, so a sample is a whole-number weight per video and only the pooling is repeated.

    bootstrap(ground_truth, detections, classes)     the 95 % interval of mAP and of each AP
    compare(ground_truth, (first, second), classes)  of the differences, sample by sample

Letters: V videos, S samples, C classes, m detections that count, H true positives of one class.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan
from typing import Any

import numpy as np

from evaluators.frame_map import (
    STANDARD_RULES,
    Curve,
    Detections,
    EvalRules,
    FrameMap,
    GroundTruth,
    Matching,
    match_frames,
    pool,
)
from evaluators.matching import Bools, Floats, Ints

_CHUNK = 500_000  # numbers per array in the loop over samples: they stay in the cache


@dataclass(frozen=True)
class Bootstrap:
    """A frame-mAP and the percentile intervals at `level`. Fractions in [0, 1]."""

    score: FrameMap  # of all videos
    low: float
    high: float
    class_low: dict[int, float]  # by class id; NaN where the class has no ground truth
    class_high: dict[int, float]
    level: float
    samples: int
    seed: int
    num_videos: int


@dataclass(frozen=True)
class Comparison:
    """The second run minus the first. Fractions; positive where the second is better.

    p_value: two-sided, twice the share of samples on the far side of 0, at least 2 / (samples + 1).
    It is not corrected for multiple comparisons: of 60 equal classes, three are below 0.05 by chance.
    """

    first: FrameMap
    second: FrameMap
    difference: float
    low: float
    high: float
    p_value: float
    class_difference: dict[int, float]  # by class id; NaN where the class has no ground truth
    class_low: dict[int, float]
    class_high: dict[int, float]
    class_p_value: dict[int, float]
    level: float
    samples: int
    seed: int
    num_videos: int


def bootstrap(
    ground_truth: GroundTruth,
    detections: Detections,
    classes: Mapping[int, str],
    *,
    rules: EvalRules = STANDARD_RULES,
    samples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Bootstrap:
    """Compute `frame_map` with percentile intervals over videos; its arguments, and

    samples  bootstrap samples; with 1000 the ends of a 95 % interval are the 26th from either side
    level    share of the samples inside the interval
    seed     of the random generator: same seed, same numbers

    A sample without ground truth of a class leaves the class out of its mean, as frame_map does.

    ValueError: as frame_map; fewer than two videos with rows; samples or level out of range.
    """
    _check(samples, level)
    matching = match_frames(ground_truth, detections, classes, rules=rules)
    score = pool(matching)
    (ap,), num_videos = _resample(ground_truth, [(detections, matching)], samples, seed)
    low, high = _interval(_mean(ap)[None], level)
    class_low, class_high = _interval(ap, level)
    return Bootstrap(
        score=score,
        low=float(low[0]),
        high=float(high[0]),
        class_low=_by_class(score, class_low),
        class_high=_by_class(score, class_high),
        level=level,
        samples=samples,
        seed=seed,
        num_videos=num_videos,
    )


def compare(
    ground_truth: GroundTruth,
    runs: tuple[Detections, Detections],
    classes: Mapping[int, str],
    *,
    rules: EvalRules = STANDARD_RULES,
    samples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Compare the second of two runs with the first, paired: each sample scores both on the same videos.

    Arguments and errors as `bootstrap`.
    """
    _check(samples, level)
    matchings = [match_frames(ground_truth, run, classes, rules=rules) for run in runs]
    first, second = (pool(matching) for matching in matchings)
    matched_runs = list(zip(runs, matchings, strict=True))
    (ap_first, ap_second), num_videos = _resample(ground_truth, matched_runs, samples, seed)
    differences = (_mean(ap_second) - _mean(ap_first))[None]
    low, high = _interval(differences, level)
    class_differences = ap_second - ap_first
    class_low, class_high = _interval(class_differences, level)
    difference = np.array(list(second.ap.values())) - np.array(list(first.ap.values()))
    return Comparison(
        first=first,
        second=second,
        difference=second.mAP - first.mAP,
        low=float(low[0]),
        high=float(high[0]),
        p_value=float(_p_values(differences)[0]),
        class_difference=_by_class(first, difference),
        class_low=_by_class(first, class_low),
        class_high=_by_class(first, class_high),
        class_p_value=_by_class(first, _p_values(class_differences)),
        level=level,
        samples=samples,
        seed=seed,
        num_videos=num_videos,
    )


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
    return _mean(resampled_ap(matching, *sides, weights))


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


def _resample(
    ground_truth: GroundTruth, runs: Sequence[tuple[Detections, Matching]], samples: int, seed: int
) -> tuple[list[Floats], int]:
    """AP (C, S) of each run in the same samples, and the number of videos to draw from.

    These are the videos with a row that counts, of the ground truth or of a run.
    """
    names = dict.fromkeys([*ground_truth.videos, *(name for rows, _ in runs for name in rows.videos)])
    number = {name: i for i, name in enumerate(names)}

    def videos(rows: GroundTruth | Detections, kept: Ints) -> Ints:
        of = np.array([number[name] for name in rows.videos], dtype=np.int64)
        return of[rows.video[kept]]

    sides = [
        (videos(ground_truth, matching.gt_row), videos(rows, matching.det_row)) for rows, matching in runs
    ]
    # Videos without any row that counts would only dilute the samples.
    counted = np.zeros(len(names), dtype=np.bool_)
    for side in sides:
        for video in side:
            counted[video] = True
    num_videos = int(counted.sum())
    if num_videos < 2:
        raise ValueError(f"bootstrap resamples videos and needs at least two; found {num_videos}")
    new = np.cumsum(counted) - 1
    rng = np.random.default_rng(seed)
    # Drawing V of V videos with replacement: the multiplicities are multinomial.
    weights = rng.multinomial(num_videos, np.full(num_videos, 1 / num_videos), size=samples).T.astype(float)
    return [
        resampled_ap(matching, new[gt_video], new[det_video], weights)
        for (gt_video, det_video), (_, matching) in zip(sides, runs, strict=True)
    ], num_videos


def _mean(ap: Floats) -> Floats:
    """(C, S) -> (S,), over the classes that are not NaN; NaN where all are."""
    known = ~np.isnan(ap)
    number = known.sum(axis=0)
    mean = np.full(ap.shape[1], nan)
    np.divide(np.where(known, ap, 0).sum(axis=0), number, out=mean, where=number > 0)
    return mean


def _interval(sampled: Floats, level: float) -> tuple[Floats, Floats]:
    """(K, S) -> the two ends, (K,) each; samples that are NaN are left out."""
    ends = np.full((2, len(sampled)), nan)
    for k, row in enumerate(sampled):
        known = row[~np.isnan(row)]
        if len(known):
            ends[:, k] = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return ends[0], ends[1]


def _p_values(differences: Floats) -> Floats:
    """(K, S) -> (K,); the observed difference counts as one more sample on either side."""
    p = np.full(len(differences), nan)
    for k, row in enumerate(differences):
        known = row[~np.isnan(row)]
        if len(known):
            side = min((known <= 0).sum(), (known >= 0).sum())
            p[k] = min(1.0, 2 * (side + 1) / (len(known) + 1))
    return p


def _by_class(score: FrameMap, values: Floats) -> dict[int, float]:
    return dict(zip(score.classes, values.tolist(), strict=True))


def _check(samples: int, level: float) -> None:
    if samples < 1:
        raise ValueError(f"samples must be at least 1; found {samples}")
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, such as 0.95; found {level}")
