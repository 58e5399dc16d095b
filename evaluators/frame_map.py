"""AVA frame-mAP from plain NumPy arrays: two kinds of rows in, one number per class out.

`frame_map` is the whole of the protocol and reads downward. The steps below it (`match`,
`average_precision`) are public because the other evaluators are made of them.

Letters in the shapes: N ground-truth rows, M detection rows, C evaluated classes. A *frame* is one
video at one whole number; for AVA that number is the second, elsewhere it may be a frame number.
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass
from enum import StrEnum
from math import nan

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

FRAME_LIMIT = 2**31  # frames lie below this, so that (video, frame, class) packs into one int64
ROWS_KEPT = 50  # per frame, over all classes: the later ActivityNet tools score no more


class Protocol(StrEnum):
    """Whose rules made the number. A number without its protocol is not a number.

    STANDARD           the rules as written for AVA in 2018; STMixer's tool agrees.
    ACTIVITYNET_2019   only the 50 best rows of a frame count, over all evaluated classes.
    ACTIVITYNET_HEAD   the same 50; exclusions are not read; detections on frames that have no
                       ground-truth row of any class, evaluated or not, are ignored.
    SLOWFAST           inside a frame the FILE order claims boxes, not the score: a low-scored
                       duplicate written first takes the match. It explains published numbers;
                       it is not to be preferred.
    """

    STANDARD = "standard"
    ACTIVITYNET_2019 = "activitynet_2019"
    ACTIVITYNET_HEAD = "activitynet_head"
    SLOWFAST = "slowfast"


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """What is there: N rows, one per (box, label). A person doing three things is three rows.

    videos  names; no name twice
    video   (N,) int64, index into `videos`
    frame   (N,) int64, 0 .. 2**31-1 (AVA: the second)
    box     (N, 4) float64, x1 y1 x2 y2, in one unit throughout (AVA: 0..1 of width and height)
    label   (N,) int64, class id as the annotations number it

    Arrays of other widths are widened. ValueError when lengths, shapes or ranges do not fit.
    """

    videos: tuple[str, ...]
    video: Ints
    frame: Ints
    box: Floats
    label: Ints

    def __post_init__(self) -> None:
        _settle(self)


@dataclass(frozen=True, eq=False)
class Detections:
    """What was found: M rows, one per (box, label, score), in file order.

    Fields as in `GroundTruth`, and score (M,) float64, finite, higher is surer. `videos` need not
    be the ground truth's: scoring goes by name. Boxes turned inside out (x1 >= x2 or y1 >= y2)
    may stand here; scoring drops them.
    """

    videos: tuple[str, ...]
    video: Ints
    frame: Ints
    box: Floats
    label: Ints
    score: Floats

    def __post_init__(self) -> None:
        _settle(self)


@dataclass(frozen=True)
class FrameMap:
    """AVA frame-mAP and what it was taken over. Fractions in [0, 1], not per cent."""

    mAP: float  # mean of `ap` over the classes with ground truth; NaN when there is none
    ap: dict[int, float]  # by class id; NaN without ground truth, 0 with it and no detection
    classes: dict[int, str]  # id -> name, the evaluated classes
    protocol: Protocol
    iou: float
    num_classes: int  # classes the mean is over
    num_ground_truth: int  # rows left after the class list and the exclusions
    num_detections: int  # rows left after those, the frame cap and the inverted boxes
    num_true_positives: int


def frame_map(
    truth: GroundTruth,
    found: Detections,
    classes: Mapping[int, str],
    *,
    excluded: Set[tuple[str, int]] = frozenset(),
    protocol: Protocol | str = Protocol.STANDARD,
    iou: float = 0.5,
) -> FrameMap:
    """Frame-mAP by AVA's rules, under one of the named protocols.

    classes   id -> name of the evaluated classes (AVA: 60 of 80); rows of other ids are left out
    excluded  (video, frame) pairs left out on both sides; not read by ACTIVITYNET_HEAD
    iou       least overlap of a true positive, 0 < iou <= 1

    Tied scores keep the order of the rows, in the claim, in the pooled ranking and at the cap, so
    a number does not depend on the machine. Where scores tie, the peers' own order is arbitrary.
    Rules: the 2018 AVA tool of ActivityNet, as read from its source.

    ValueError: no classes, unknown protocol, iou out of range, an inverted ground-truth box.
    """
    protocol = _protocol(protocol)
    check_task(truth, classes, iou)
    capped = protocol in (Protocol.ACTIVITYNET_2019, Protocol.ACTIVITYNET_HEAD)
    head = protocol == Protocol.ACTIVITYNET_HEAD

    ids = np.array(sorted(classes), dtype=np.int64)  # (C,)
    truth_class, found_class = lookup(ids, truth.label), lookup(ids, found.label)
    truth_frame, found_frame, excluded_frame = frame_keys(truth, found, excluded)

    truth_kept, found_kept = truth_class >= 0, found_class >= 0
    if capped:  # before inverted boxes go: the peers let those take a place among the 50
        found_kept = _best_rows(found_frame, found.score, found_kept)
    if head:  # any row makes a frame count, also of a class that is not evaluated
        found_kept &= lookup(np.unique(truth_frame), found_frame) >= 0
    else:
        truth_kept &= lookup(excluded_frame, truth_frame) < 0
        found_kept &= lookup(excluded_frame, found_frame) < 0
    found_kept &= right_way_round(found.box)

    truth_class, truth_frame = truth_class[truth_kept], truth_frame[truth_kept]
    found_class, found_frame = found_class[found_kept], found_frame[found_kept]
    score = found.score[found_kept]
    claimed = match(
        truth_frame * len(ids) + truth_class,
        truth.box[truth_kept],
        found_frame * len(ids) + found_class,
        found.box[found_kept],
        None if protocol == Protocol.SLOWFAST else score,
        iou=iou,
    )

    # Keys of 8 or 16 bits sort by radix, which is what makes this stable sort cheap.
    by_class = np.argsort(found_class.astype(np.min_scalar_type(len(ids))), kind="stable")
    first = np.concatenate([[0], np.cumsum(np.bincount(found_class, minlength=len(ids)))])
    num_truth = np.bincount(truth_class, minlength=len(ids))
    ap = {}
    for c, class_id in enumerate(ids.tolist()):
        rows = by_class[first[c] : first[c + 1]]
        ap[class_id] = average_precision(claimed[rows] >= 0, score[rows], int(num_truth[c]))

    counted = [value for c, value in enumerate(ap.values()) if num_truth[c]]
    return FrameMap(
        mAP=float(np.mean(counted)) if counted else nan,
        ap=ap,
        classes={class_id: classes[class_id] for class_id in ap},
        protocol=protocol,
        iou=iou,
        num_classes=len(counted),
        num_ground_truth=len(truth_class),
        num_detections=len(found_class),
        num_true_positives=int((claimed >= 0).sum()),
    )


def match(
    truth_group: Ints,
    truth_box: Floats,
    found_group: Ints,
    found_box: Floats,
    score: Floats | None,
    *,
    iou: float,
) -> Ints:
    """Which ground-truth box each detection claims: (M,) row number, or -1 for a false positive.

    truth_group (N,), found_group (M,)  any whole numbers; only equal groups meet (AVA frame-mAP:
                                        one group per (frame, class); actors: one per frame)
    truth_box (N, 4), found_box (M, 4)  x1 y1 x2 y2 with x1 < x2 and y1 < y2
    score (M,)                          higher claims first, ties by row; None: rows claim in order

    A detection has one target, the box it overlaps most (the first row among equals), whoever else
    wants it: a second-best box is never tried. So no detection's fate hangs on a later one's, and
    the whole of greedy matching is "the earliest claimant of a target wins it".
    """
    target = _targets(truth_group, truth_box, found_group, found_box, iou)  # (M,)
    claimant = np.flatnonzero(target >= 0)
    wanted = target[claimant]
    if score is None:
        order = np.argsort(wanted, kind="stable")
    else:
        order = np.lexsort((-score[claimant], wanted))  # by target, then score; stable
    winner = claimant[order[_starts(wanted[order])]]
    claimed = np.full(len(found_group), -1, dtype=np.int64)
    claimed[winner] = target[winner]
    return claimed


def average_precision(true_positive: Bools, score: Floats, num_truth: int) -> float:
    """Area under the all-point interpolated precision-recall curve (PASCAL VOC 2010 on), 0..1.

    true_positive (M,), score (M,): the detections of one class, pooled over frames, in any order;
    equal scores rank in row order. num_truth: its ground-truth boxes. NaN when num_truth is 0.

    The interpolated precision at a recall is the best precision at that recall or beyond. Recall
    moves only at true positives and precision peaks there, so they alone are looked at, each
    widening the recall by 1/num_truth.
    """
    if true_positive.shape != score.shape or score.ndim != 1:
        raise ValueError(
            f"average_precision needs two (M,) arrays of one length; true_positive is "
            f"{true_positive.shape} and score is {score.shape}"
        )
    if num_truth < int(true_positive.sum()):
        raise ValueError(
            f"{int(true_positive.sum())} true positives for {num_truth} ground-truth boxes: "
            f"a box was counted twice"
        )
    if num_truth == 0:
        return nan
    order = np.argsort(-score, kind="stable")
    rank = np.flatnonzero(true_positive[order]) + 1  # of each true positive, 1 is the surest
    precision = np.arange(1, len(rank) + 1) / rank
    interpolated = np.maximum.accumulate(precision[::-1])
    return float(interpolated.sum() / num_truth)


def frame_keys(
    truth: GroundTruth, found: Detections, excluded: Set[tuple[str, int]]
) -> tuple[Ints, Ints, Ints]:
    """One whole number per (video name, frame), the same on both sides: (N,), (M,), sorted (E,).

    Excluded frames of videos that stand on neither side are left out.
    """
    number = {name: i for i, name in enumerate(dict.fromkeys(truth.videos + found.videos))}
    truth_video, found_video = (
        np.array([number[name] for name in rows.videos], dtype=np.int64)[rows.video]
        for rows in (truth, found)
    )
    keys = sorted(
        number[name] * FRAME_LIMIT + frame
        for name, frame in excluded
        if name in number and 0 <= frame < FRAME_LIMIT
    )
    return (
        truth_video * FRAME_LIMIT + truth.frame,
        found_video * FRAME_LIMIT + found.frame,
        np.array(keys, dtype=np.int64),
    )


def lookup(table: Ints, value: Ints) -> Ints:
    """Where each value stands in a sorted table without repeats; -1 when it does not."""
    if len(table) == 0:
        return np.full(len(value), -1, dtype=np.int64)
    at = np.minimum(np.searchsorted(table, value), len(table) - 1)
    return np.where(table[at] == value, at, -1)


def right_way_round(box: Floats) -> Bools:
    """(K, 4) -> (K,): x1 < x2 and y1 < y2, so the box has an area."""
    return (box[:, 0] < box[:, 2]) & (box[:, 1] < box[:, 3])


def check_task(truth: GroundTruth, classes: Mapping[int, str], iou: float) -> None:
    """ValueError when there is nothing to score by, or the ground truth is no ground truth."""
    if not classes:
        raise ValueError("no classes to evaluate: give the label map, a dict of class id to name")
    if not 0 < iou <= 1:
        raise ValueError(f"iou must lie above 0 and at most at 1; found {iou}")
    inverted = np.flatnonzero(~right_way_round(truth.box))
    if len(inverted):
        i = int(inverted[0])
        raise ValueError(
            f"ground-truth row {i} ({truth.videos[truth.video[i]]}, frame {truth.frame[i]}) has "
            f"the inverted or empty box {truth.box[i].tolist()}; x1 < x2 and y1 < y2 is needed"
        )


def _protocol(name: Protocol | str) -> Protocol:
    try:
        return Protocol(name)
    except ValueError:
        known = ", ".join(Protocol)
        raise ValueError(f"unknown protocol {name!r}; known are: {known}") from None


def _targets(truth_group: Ints, truth_box: Floats, found_group: Ints, found_box: Floats, iou: float) -> Ints:
    """(M,): the row of the box in the same group overlapped most, or -1 where none reaches iou."""
    target = np.full(len(found_group), -1, dtype=np.int64)
    by_group = np.argsort(truth_group, kind="stable")  # stable: "first" means first in the file
    grouped = truth_group[by_group]
    start = np.flatnonzero(_starts(grouped))
    size = np.diff(np.append(start, len(grouped)))

    group = lookup(grouped[start], found_group)
    met = np.flatnonzero(group >= 0)  # detections with anything to meet: a small part of M
    if len(met) == 0:
        return target
    group = group[met]

    # All (detection, box) pairs of equal groups, one after the other, grouped by detection.
    n = size[group]
    pair_start = np.cumsum(n) - n
    number = np.arange(int(n.sum()))
    owner = np.repeat(np.arange(len(met)), n)
    truth_row = by_group[start[group][owner] + number - pair_start[owner]]
    overlap = _overlap(found_box[met][owner], truth_box[truth_row])

    best = np.maximum.reduceat(overlap, pair_start)
    candidate = np.where(overlap == best[owner], number, len(number))
    first_best = np.minimum.reduceat(candidate, pair_start)
    good = best >= iou
    target[met[good]] = truth_row[first_best[good]]
    return target


def _overlap(a: Floats, b: Floats) -> Floats:
    """IoU of box pairs (K, 4), (K, 4) -> (K,). No +1 pixel: coordinates are lengths, not indices.

    The order of the sums is the peers', so that a pair exactly at the threshold falls alike.
    """
    width = np.minimum(a[:, 2], b[:, 2]) - np.maximum(a[:, 0], b[:, 0])
    height = np.minimum(a[:, 3], b[:, 3]) - np.maximum(a[:, 1], b[:, 1])
    shared = np.maximum(height, 0) * np.maximum(width, 0)
    area_a = (a[:, 3] - a[:, 1]) * (a[:, 2] - a[:, 0])
    area_b = (b[:, 3] - b[:, 1]) * (b[:, 2] - b[:, 0])
    union = area_a + area_b - shared
    iou: Floats = np.zeros(len(union))
    np.divide(shared, union, out=iou, where=union > 0)  # two areas may round to nothing
    return iou


def _best_rows(frame: Ints, score: Floats, among: Bools) -> Bools:
    """(M,): the ROWS_KEPT best-scored rows of each frame, of those in `among`; ties by row."""
    rows = np.flatnonzero(among)
    rows = rows[np.argsort(frame[rows], kind="stable")]
    start = np.flatnonzero(_starts(frame[rows]))
    size = np.diff(np.append(start, len(rows)))
    rows = rows[np.repeat(size > ROWS_KEPT, size)]  # only crowded frames need the second sort
    size = size[size > ROWS_KEPT]

    rows = rows[np.lexsort((-score[rows], frame[rows]))]
    place = np.arange(len(rows)) - np.repeat(np.cumsum(size) - size, size)
    kept = among.copy()
    kept[rows[place >= ROWS_KEPT]] = False
    return kept


def _starts(ordered: Ints) -> Bools:
    """(K,): True where a run of equal numbers begins."""
    new = np.ones(len(ordered), dtype=np.bool_)
    new[1:] = ordered[1:] != ordered[:-1]
    return new


def _settle(rows: GroundTruth | Detections) -> None:
    """Widen a new object's arrays to int64 and float64, and refuse what does not fit together."""
    what = type(rows).__name__
    names = tuple(rows.videos)
    object.__setattr__(rows, "videos", names)
    if not all(isinstance(name, str) for name in names):
        raise ValueError(f"{what}.videos must hold names (str); found {names[:3]}")
    if len(set(names)) != len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise ValueError(f"{what}.videos names {twice!r} twice; every video stands there once")

    length = len(np.atleast_1d(rows.video))
    scored = ("score",) if isinstance(rows, Detections) else ()
    for field in ("video", "frame", "label", "box", *scored):
        values = np.asarray(getattr(rows, field))
        whole = field in ("video", "frame", "label")
        if values.dtype.kind not in ("iu" if whole else "fiu") and values.size:
            kind = "whole numbers" if whole else "numbers"
            raise ValueError(f"{what}.{field} must hold {kind}; its dtype is {values.dtype}")
        shape = (length, 4) if field == "box" else (length,)
        if values.shape != shape:
            raise ValueError(
                f"{what}.{field} has shape {values.shape}; {shape} is needed, for as many rows as "
                f"{what}.video has"
            )
        values = values.astype(np.int64 if whole else np.float64, copy=False)
        if not whole and not np.isfinite(values).all():
            row = int(np.argwhere(~np.isfinite(values))[0, 0])
            raise ValueError(f"{what}.{field} row {row} is NaN or infinite: {values[row].tolist()}")
        object.__setattr__(rows, field, values)

    for field, limit in (("video", len(names)), ("frame", FRAME_LIMIT)):
        values = getattr(rows, field)
        wrong = np.flatnonzero((values < 0) | (values >= limit))
        if len(wrong):
            raise ValueError(
                f"{what}.{field} row {wrong[0]} is {values[wrong[0]]}; 0 to {limit - 1} is needed"
            )
