"""Confidence intervals of frame-mAP and paired comparison of two runs: a jackknife over videos.

The videos of a benchmark are a sample, and frames of one video are alike, so whole videos are left out, one
at a time, and the rest is scored again. Matching is done once; only the pooling is repeated.

    intervals(ground_truth, detections, classes)     the 95 % interval of mAP and of each AP
    compare(ground_truth, (first, second), classes)  of the differences, and their p-values

For few videos the deviation between the scores is uncertain itself: quantiles are Student's. An AP is an
average of shares, so its interval is taken on the logit scale, where it does not leave [0, 1]. On skewed
data with clustered frames these intervals cover 94 to 98 %, from 6 to 100 videos, where percentiles of a
bootstrap cover 74 to 95 % (`tests/evaluators/test_jackknife.py` simulates it). Nothing is random.

Letters: V videos, G groups of videos left out, C classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import nan

import numpy as np

from evaluators.frame_map import (
    STANDARD_RULES,
    Detections,
    EvalRules,
    FrameMap,
    GroundTruth,
    Matching,
    match_frames,
    pool,
)
from evaluators.matching import Floats, Ints
from evaluators.notebook import Shown
from evaluators.resampling import mean_of_classes, resampled_ap

_MOST_GROUPS = 1000  # of more videos several are left out at once: the time grows with G x V
_LEAST = 1e-3  # scores are this far from 0 and 1 on the logit scale, or a tenth of what the whole score is


@dataclass(frozen=True)
class Intervals(Shown):
    """A frame-mAP and its intervals at `level`. Fractions in [0, 1].

    A class has none, NaN, if all its ground truth is in one video, and nothing has any if that is so of all.
    """

    score: FrameMap  # of all videos
    low: float
    high: float
    class_low: dict[int, float]  # by class id
    class_high: dict[int, float]
    class_videos: dict[int, int]  # videos with ground truth of the class
    level: float
    num_videos: int


@dataclass(frozen=True)
class Comparison(Shown):
    """The second run minus the first. Fractions; positive where the second is better.

    p_value: two-sided, of Student's t. It is not corrected for multiple comparisons: of 60 equal classes,
    three are below 0.05 by chance. NaN, as the ends, for a class whose ground truth is in one video.
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
    class_videos: dict[int, int]
    level: float
    num_videos: int


@dataclass(frozen=True, eq=False)
class _LeftOut:
    """The AP (C, 1 + G) of all videos, and without each group of them."""

    ap: Floats
    videos: int  # with ground truth
    class_videos: Ints  # (C,) with ground truth of the class


def intervals(
    ground_truth: GroundTruth,
    detections: Detections,
    classes: Mapping[int, str],
    *,
    rules: EvalRules = STANDARD_RULES,
    level: float = 0.95,
) -> Intervals:
    """Compute `frame_mAP` with intervals over videos; its arguments, and level: the share they are to cover.

    Where a score is 0 or 1 and stays so whatever video is left out, there is no deviation to estimate. The
    interval then ends where that many videos would all be so with half of the remaining probability
    (Clopper and Pearson): 12 perfect videos leave 73.5 to 100 %.

    With fewer than two videos with ground truth there is nothing to leave out, and the ends are NaN.

    ValueError: as frame_mAP; level out of range.
    """
    _check(level)
    matching = match_frames(ground_truth, detections, classes, rules=rules)
    score = pool(matching)
    [left] = _leave_out(ground_truth, [(detections, matching)])
    low, high = _share(mean_of_classes(left.ap), left.videos, level)
    ends = [_share(ap, int(k), level) for ap, k in zip(left.ap, left.class_videos, strict=True)]
    return Intervals(
        score=score,
        low=low,
        high=high,
        class_low=_by_class(score, np.array(ends)[:, 0]),
        class_high=_by_class(score, np.array(ends)[:, 1]),
        class_videos=dict(zip(score.classes, left.class_videos.tolist(), strict=True)),
        level=level,
        num_videos=left.videos,
    )


def compare(
    ground_truth: GroundTruth,
    runs: tuple[Detections, Detections],
    classes: Mapping[int, str],
    *,
    rules: EvalRules = STANDARD_RULES,
    level: float = 0.95,
) -> Comparison:
    """Compare the second of two runs with the first, paired: both are scored without the same videos.

    Arguments and errors as `intervals`.
    """
    _check(level)
    matchings = [match_frames(ground_truth, run, classes, rules=rules) for run in runs]
    first, second = (pool(matching) for matching in matchings)
    one, two = _leave_out(ground_truth, list(zip(runs, matchings, strict=True)))
    of_mean = mean_of_classes(two.ap) - mean_of_classes(one.ap)
    low, high, p = _difference(of_mean, one.videos, level)
    of_classes = np.array(
        [
            _difference(values, int(k), level)
            for values, k in zip(two.ap - one.ap, one.class_videos, strict=True)
        ]
    )
    difference = np.array(list(second.ap.values())) - np.array(list(first.ap.values()))
    return Comparison(
        first=first,
        second=second,
        difference=second.mAP - first.mAP,
        low=low,
        high=high,
        p_value=p,
        class_difference=_by_class(first, difference),
        class_low=_by_class(first, of_classes[:, 0]),
        class_high=_by_class(first, of_classes[:, 1]),
        class_p_value=_by_class(first, of_classes[:, 2]),
        class_videos=dict(zip(first.classes, one.class_videos.tolist(), strict=True)),
        level=level,
        num_videos=one.videos,
    )


def _leave_out(ground_truth: GroundTruth, runs: list[tuple[Detections, Matching]]) -> list[_LeftOut]:
    """The scores of each run without the same videos: those with a row that counts, of truth or of a run."""
    names = dict.fromkeys([*ground_truth.videos, *(name for rows, _ in runs for name in rows.videos)])
    number = {name: i for i, name in enumerate(names)}

    def videos(rows: GroundTruth | Detections, kept: Ints) -> Ints:
        of = np.array([number[name] for name in rows.videos], dtype=np.int64)
        return of[rows.video[kept]]

    sides = [
        (videos(ground_truth, matching.gt_row), videos(rows, matching.det_row)) for rows, matching in runs
    ]
    counted = np.unique(np.concatenate([video for side in sides for video in side]))
    with_truth = np.unique(sides[0][0])
    new = np.zeros(len(names), np.int64)
    new[counted] = np.arange(len(counted))
    groups = min(len(counted), _MOST_GROUPS)
    weights = np.ones((len(counted), 1 + groups))
    weights[np.arange(len(counted)), 1 + np.arange(len(counted)) % groups] = 0
    left = []
    for (gt_video, det_video), (_, matching) in zip(sides, runs, strict=True):
        truth = np.zeros((len(matching.classes), len(counted)))
        np.add.at(truth, (matching.gt_class, new[gt_video]), 1)
        ap = resampled_ap(matching, new[gt_video], new[det_video], weights)
        left_with = truth @ weights
        # Of a class that is left out whole a protocol says 0; but it is a mean over other classes then.
        ap[(left_with == 0) & (left_with[:, :1] > 0)] = nan
        left.append(_LeftOut(ap, len(with_truth), (truth > 0).sum(axis=1)))
    return left


def _deviation(values: Floats) -> float:
    """Standard error of values[0], a score, from those without each group, values[1:].

    A class that leaving a group out removes changes nothing else: NaN counts as the whole score.
    """
    left = np.where(np.isnan(values[1:]), values[0], values[1:])
    return float(np.sqrt((len(left) - 1) / len(left) * ((left - left.mean()) ** 2).sum()))


def _share(values: Floats, videos: int, level: float) -> tuple[float, float]:
    """The interval of a score in [0, 1], values[0], from those without each group."""
    from scipy.special import expit, logit  # not at the top: `import evaluators` stays fast
    from scipy.stats import t

    score = float(values[0])
    if np.isnan(score) or videos < 2:
        return nan, nan
    if score in (0, 1) and (np.isnan(values) | (values == score)).all():
        bound = float(((1 - level) / 2) ** (1 / videos))
        return (bound, 1.0) if score else (0.0, 1 - bound)
    least = min(_LEAST, *(x / 10 for x in (score, 1 - score) if x > 0))
    scaled = logit(np.clip(values, least, 1 - least))
    half = t.ppf((1 + level) / 2, videos - 1) * _deviation(scaled)
    low, high = expit(scaled[0] - half), expit(scaled[0] + half)
    # A score of 0 or 1 that a video changes is an end itself.
    return (0.0 if score == 0 else float(low)), (1.0 if score == 1 else float(high))


def _difference(values: Floats, videos: int, level: float) -> tuple[float, float, float]:
    """The interval of a difference, values[0], from those without each group, and its p-value.

    Without any deviation a difference is as probable as every video's sign, 2^(1 - videos).
    """
    from scipy.stats import t

    difference = float(values[0])
    if np.isnan(difference) or videos < 2:
        return nan, nan, nan
    deviation = _deviation(values)
    half = float(t.ppf((1 + level) / 2, videos - 1)) * deviation
    if deviation > 0:
        p = float(2 * t.sf(abs(difference) / deviation, videos - 1))
    else:
        p = 1.0 if difference == 0 else 2.0 ** (1 - videos)
    return max(difference - half, -1.0), min(difference + half, 1.0), p


def _by_class(score: FrameMap, values: Floats) -> dict[int, float]:
    return dict(zip(score.classes, values.tolist(), strict=True))


def _check(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, such as 0.95; found {level}")
