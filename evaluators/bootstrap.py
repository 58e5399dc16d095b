"""How sure is a frame-mAP, and is one run better than another? Both by drawing videos again.

The videos of a benchmark are a sample; frames of one video are much alike, so whole videos are
drawn, with replacement, as many as there are. Matching is done once. Drawing a video twice doubles
its rows, so a draw is a whole-number weight per video and only the pooling is done again.

    bootstrap(truth, found, classes)             the 95 % interval of mAP and of each AP
    compare(truth, (run, other), classes)        of the differences, draw by draw on the same videos

Letters: V videos, S draws, C classes, m detections that count, H true positives of one class.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from math import nan
from typing import Any

import numpy as np

from evaluators.frame_map import (
    RULES,
    Bools,
    Detections,
    Floats,
    FrameMap,
    GroundTruth,
    Ints,
    Matched,
    Protocol,
    Rules,
    match_frames,
    pool,
)

_CHUNK = 500_000  # numbers per array in the loop over draws: they stay in the cache


@dataclass(frozen=True)
class Bootstrap:
    """A frame-mAP and the intervals that hold `level` of the draws. Fractions in [0, 1]."""

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
    """What the second run has over the first. Fractions; positive where the second is better.

    p_value: how often a difference this far from nothing would be drawn if there were none,
    two-sided: twice the share of draws on the far side of 0, at least 2 / (samples + 1). It is not
    corrected for looking at many classes: of 60 equal ones, three lie below 0.05 by chance.
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
    truth: GroundTruth,
    found: Detections,
    classes: Mapping[int, str],
    *,
    excluded: Set[tuple[str, int]] = frozenset(),
    protocol: Protocol | str = Protocol.STANDARD,
    iou: float = 0.5,
    plus_one: bool = False,
    samples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Bootstrap:
    """`frame_map` with its percentile intervals over videos; its arguments, and

    samples  draws; with 1000 the ends of a 95 % interval are the 26th of either side
    level    share of the draws inside the interval
    seed     of the draws: same seed, same numbers

    A draw without ground truth of a class leaves the class out of its mean, as frame_map does.

    ValueError: as frame_map; fewer than two videos with rows; samples or level out of range.
    """
    _check(samples, level)
    matched = match_frames(
        truth, found, classes, excluded=excluded, protocol=protocol, iou=iou, plus_one=plus_one
    )
    score = pool(matched)
    (ap,), num_videos = _draw(truth, [(found, matched)], samples, seed)
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
    truth: GroundTruth,
    found: tuple[Detections, Detections],
    classes: Mapping[int, str],
    *,
    excluded: Set[tuple[str, int]] = frozenset(),
    protocol: Protocol | str = Protocol.STANDARD,
    iou: float = 0.5,
    plus_one: bool = False,
    samples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """The second of two runs against the first, paired: each draw scores both on the same videos.

    Arguments and errors as `bootstrap`.
    """
    _check(samples, level)
    runs = [
        (
            rows,
            match_frames(
                truth, rows, classes, excluded=excluded, protocol=protocol, iou=iou, plus_one=plus_one
            ),
        )
        for rows in found
    ]
    first, second = (pool(matched) for _, matched in runs)
    (ap_first, ap_second), num_videos = _draw(truth, runs, samples, seed)
    drawn = (_mean(ap_second) - _mean(ap_first))[None]
    low, high = _interval(drawn, level)
    class_drawn = ap_second - ap_first
    class_low, class_high = _interval(class_drawn, level)
    difference = np.array(list(second.ap.values())) - np.array(list(first.ap.values()))
    return Comparison(
        first=first,
        second=second,
        difference=second.mAP - first.mAP,
        low=float(low[0]),
        high=float(high[0]),
        p_value=float(_p_values(drawn)[0]),
        class_difference=_by_class(first, difference),
        class_low=_by_class(first, class_low),
        class_high=_by_class(first, class_high),
        class_p_value=_by_class(first, _p_values(class_drawn)),
        level=level,
        samples=samples,
        seed=seed,
        num_videos=num_videos,
    )


def resampled_ap(matched: Matched, truth_video: Ints, found_video: Ints, weights: Floats) -> Floats:
    """AP of every class in every draw, (C, S), from weights (V, S): how often a video was drawn.

    truth_video (n,), found_video (m,): the videos of the rows in `matched`. Copies of a detection
    stand next to each other in the ranking.
    """
    rules = RULES[matched.protocol]
    num_classes, num_videos = len(matched.classes), len(weights)
    truth_of = np.zeros((num_classes, num_videos))
    np.add.at(truth_of, (matched.truth_class, truth_video), 1)
    num_truth = truth_of @ weights  # (C, S)

    order = np.lexsort((-matched.score, matched.found_class))
    first = np.searchsorted(matched.found_class[order], np.arange(num_classes + 1))
    ap = np.zeros(num_truth.shape)
    for c in range(num_classes):
        rows = order[first[c] : first[c + 1]]
        hit = matched.claimed[rows] >= 0
        if hit.any():
            ap[c] = _areas(hit, found_video[rows], weights, rules)
    with np.errstate(invalid="ignore"):
        ap /= num_truth
    if rules.every_class:
        ap[num_truth == 0] = 0.0
    else:
        ap[num_truth == 0] = nan
    return ap


def _areas(hit: Bools, video: Ints, weights: Floats, rules: Rules) -> Floats:
    """Area under the curve of one class in every draw, (S,), times its ground-truth boxes.

    hit, video: of the detections, surest first. Between two true positives only the number of
    false ones matters, so they are counted per gap and video, and a draw's ranks are the counts
    times its weights, summed up.
    """
    from scipy.sparse import csr_array  # not at the top: `import evaluators` stays quick

    at = np.flatnonzero(hit)
    gap: Ints = np.cumsum(hit[: at[-1] + 1]) - hit[: at[-1] + 1]
    counts: Any = csr_array((np.ones(len(gap)), (gap, video[: at[-1] + 1])), shape=(len(at), len(weights)))
    area = np.zeros(weights.shape[1])
    step = max(1, _CHUNK // len(at))
    for begin in range(0, len(area), step):
        some = np.ascontiguousarray(weights[:, begin : begin + step])
        rank = np.cumsum(counts @ some, axis=0)  # (H, s), of the last copy of each true positive
        copies = some[video[at]]
        hits = np.cumsum(copies, axis=0)
        if rules.raw_curve:
            area[begin : begin + step] = _trapezoids(hits, rank, copies)
        else:
            precision = np.zeros_like(rank)
            np.divide(hits, rank, out=precision, where=rank > 0)
            envelope = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
            area[begin : begin + step] = (envelope * copies).sum(axis=0)
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


def _draw(
    truth: GroundTruth, runs: Sequence[tuple[Detections, Matched]], samples: int, seed: int
) -> tuple[list[Floats], int]:
    """AP (C, S) of each run in the same draws, and the number of videos to draw from.

    These are the videos with a row that counts, of the ground truth or of a run.
    """
    names = list(dict.fromkeys([*truth.videos, *(name for rows, _ in runs for name in rows.videos)]))
    number = {name: i for i, name in enumerate(names)}

    def videos(rows: GroundTruth | Detections, kept: Ints) -> Ints:
        of = np.array([number[name] for name in rows.videos], dtype=np.int64)
        return of[rows.video[kept]]

    sides = [(videos(truth, matched.truth_row), videos(rows, matched.found_row)) for rows, matched in runs]
    counted = np.zeros(len(names), dtype=np.bool_)
    for side in sides:
        for video in side:
            counted[video] = True
    num_videos = int(counted.sum())
    if num_videos < 2:
        raise ValueError(f"a bootstrap draws videos again and needs at least two; there is {num_videos}")
    new = np.cumsum(counted) - 1
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(num_videos, np.full(num_videos, 1 / num_videos), size=samples).T.astype(float)
    return [
        resampled_ap(matched, new[there], new[seen], weights)
        for (there, seen), (_, matched) in zip(sides, runs, strict=True)
    ], num_videos


def _mean(ap: Floats) -> Floats:
    """(C, S) -> (S,), over the classes that are not NaN; NaN where all are."""
    known = ~np.isnan(ap)
    number = known.sum(axis=0)
    mean = np.full(ap.shape[1], nan)
    np.divide(np.where(known, ap, 0).sum(axis=0), number, out=mean, where=number > 0)
    return mean


def _interval(drawn: Floats, level: float) -> tuple[Floats, Floats]:
    """(K, S) -> the two ends, (K,) each; draws that are NaN are left out."""
    ends = np.full((2, len(drawn)), nan)
    for k, row in enumerate(drawn):
        known = row[~np.isnan(row)]
        if len(known):
            ends[:, k] = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return ends[0], ends[1]


def _p_values(drawn: Floats) -> Floats:
    """(K, S) differences -> (K,); the point itself counts as one more draw on either side."""
    p = np.full(len(drawn), nan)
    for k, row in enumerate(drawn):
        known = row[~np.isnan(row)]
        if len(known):
            side = min((known <= 0).sum(), (known >= 0).sum())
            p[k] = min(1.0, 2 * (side + 1) / (len(known) + 1))
    return p


def _by_class(score: FrameMap, values: Floats) -> dict[int, float]:
    """NaN for classes without ground truth, whatever the protocol says of their AP."""
    return dict(zip(score.classes, values.tolist(), strict=True))


def _check(samples: int, level: float) -> None:
    if samples < 1:
        raise ValueError(f"samples must be at least 1; found {samples}")
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, such as 0.95; found {level}")
