"""Frame-mAP from plain NumPy arrays: two kinds of rows in, one number per class out.

`frame_map` is the whole of it: `match_frames` decides which detections are right, `pool` turns
that into numbers. Bootstrap and error budget are made of the same two and of the steps below them
(`match`, `average_precision`, ..), which is why these are public.

Letters in the shapes: N ground-truth rows, M detection rows, C evaluated classes. A *frame* is one
video at one whole number: the second in AVA, the frame number in UCF101-24 and JHMDB.
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass, fields
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

    AVA
    STANDARD           the rules as written for AVA in 2018; STMixer's tool agrees.
    ACTIVITYNET_2019   only the 50 best rows of a frame count, over all evaluated classes.
    ACTIVITYNET_HEAD   the same 50; exclusions are not read; detections on frames that have no
                       ground-truth row of any class, evaluated or not, are ignored.
    SLOWFAST           inside a frame the FILE order claims boxes, not the score: a low-scored
                       duplicate written first takes the match. It explains published numbers;
                       it is not to be preferred.

    UCF101-24 and JHMDB. None of them drops a detection whose box is inside out: it overlaps
    nothing and counts as false.
    GURKIRT            a detection may take the best box still free; the mean is over all classes,
                       with 0 for one without ground truth. The MViT-matching paper cites it.
    ACT                (MOC, too) the same, boxes a pixel wider and higher than x2 - x1 and y2 - y1,
                       and the area under the raw curve by trapezoids, in float32 as there.
    MULTISPORTS        STANDARD's matching, curve and mean.
    ANNOTATED          (YOWO, TubeR) the same, on frames with ground truth of any class alone.
                       YOWO's own tool counts ACT's pixel as well: `plus_one`.
    """

    STANDARD = "standard"
    ACTIVITYNET_2019 = "activitynet_2019"
    ACTIVITYNET_HEAD = "activitynet_head"
    SLOWFAST = "slowfast"
    GURKIRT = "gurkirt"
    ACT = "act"
    MULTISPORTS = "multisports"
    ANNOTATED = "annotated"


AVA_PROTOCOLS = (Protocol.STANDARD, Protocol.ACTIVITYNET_2019, Protocol.ACTIVITYNET_HEAD, Protocol.SLOWFAST)
UCF_PROTOCOLS = (Protocol.GURKIRT, Protocol.ACT, Protocol.MULTISPORTS, Protocol.ANNOTATED)


@dataclass(frozen=True)
class Rules:
    """What a protocol does. The defaults are STANDARD."""

    inside_out: bool = False  # detections with x1 >= x2 or y1 >= y2 are scored, not dropped
    capped: bool = False  # only the ROWS_KEPT best rows of a frame count
    exclusions: bool = True  # excluded frames are left out
    truth_frames_only: bool = False  # and so are frames without any ground truth
    by_score: bool = True  # the surest claims first; else the first in the file does
    remaining: bool = False  # of the boxes still free, the best is claimed; else the best of all
    plus_one: bool = False  # a box reaches one pixel further than its coordinates say
    raw_curve: bool = False  # trapezoids under the curve as it is; else its envelope
    every_class: bool = False  # a class without ground truth has AP 0; else NaN, and out of the mean


RULES = {
    Protocol.STANDARD: Rules(),
    Protocol.ACTIVITYNET_2019: Rules(capped=True),
    Protocol.ACTIVITYNET_HEAD: Rules(capped=True, exclusions=False, truth_frames_only=True),
    Protocol.SLOWFAST: Rules(by_score=False),
    Protocol.GURKIRT: Rules(inside_out=True, remaining=True, every_class=True),
    Protocol.ACT: Rules(inside_out=True, remaining=True, every_class=True, plus_one=True, raw_curve=True),
    Protocol.MULTISPORTS: Rules(inside_out=True),
    Protocol.ANNOTATED: Rules(inside_out=True, truth_frames_only=True),
}


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


@dataclass(frozen=True, eq=False)
class TubeTruth(GroundTruth):
    """Ground truth whose boxes are joined to tubes: UCF101-24's and JHMDB's, for video-mAP.

    tube    (N,) int64, the rows of one tube have one number, and no other tube has it
    """

    tube: Ints


@dataclass(frozen=True)
class FrameMap:
    """Frame-mAP and what it was taken over. Fractions in [0, 1], not per cent."""

    mAP: float  # mean of `ap` over `num_classes` of them; NaN when there is none
    ap: dict[int, float]  # by class id; 0 with ground truth and no detection; see `Rules`
    classes: dict[int, str]  # id -> name, the evaluated classes
    protocol: Protocol
    iou: float
    num_classes: int  # classes the mean is over
    num_ground_truth: int  # rows left after the class list and the exclusions
    num_detections: int  # rows left after those, the frame cap and the inverted boxes
    num_true_positives: int
    plus_one: bool  # ANNOTATED as YOWO counts it


@dataclass(frozen=True, eq=False)
class Matched:
    """The rows that count, and which detection claims which box: all that pooling needs.

    n of the N ground-truth rows and m of the M detections are left, in their order.
    """

    classes: dict[int, str]  # id -> name, ids ascending
    protocol: Protocol
    iou: float
    plus_one: bool
    truth_row: Ints  # (n,) their rows in the ground truth
    truth_class: Ints  # (n,) index into `classes`
    truth_frame: Ints  # (n,) one number per (video, frame)
    found_row: Ints  # (m,) and the same of the detections
    found_class: Ints  # (m,)
    found_frame: Ints  # (m,)
    score: Floats  # (m,)
    claimed: Ints  # (m,) which of the n a detection claims; -1 for a false positive


def frame_map(
    truth: GroundTruth,
    found: Detections,
    classes: Mapping[int, str],
    *,
    excluded: Set[tuple[str, int]] = frozenset(),
    protocol: Protocol | str = Protocol.STANDARD,
    iou: float = 0.5,
    plus_one: bool = False,
) -> FrameMap:
    """Frame-mAP under one of the named protocols.

    classes   id -> name of the evaluated classes (AVA: 60 of 80); rows of other ids are left out
    excluded  (video, frame) pairs left out on both sides; not read by ACTIVITYNET_HEAD
    iou       least overlap of a true positive, 0 < iou <= 1
    plus_one  ANNOTATED only: boxes a pixel wider and higher, as in YOWO's own tool

    Tied scores keep the order of the rows, in the claim, in the pooled ranking and at the cap, so
    a number does not depend on the machine. Where scores tie, the peers' own order is arbitrary.
    Rules: the 2018 AVA tool of ActivityNet and the tools that `Protocol` names, as read from their
    sources.

    ValueError: no classes, unknown protocol, iou out of range, plus_one elsewhere; for the AVA
    protocols an inverted ground-truth box.
    """
    return pool(
        match_frames(truth, found, classes, excluded=excluded, protocol=protocol, iou=iou, plus_one=plus_one)
    )


def match_frames(
    truth: GroundTruth,
    found: Detections,
    classes: Mapping[int, str],
    *,
    excluded: Set[tuple[str, int]] = frozenset(),
    protocol: Protocol | str = Protocol.STANDARD,
    iou: float = 0.5,
    plus_one: bool = False,
) -> Matched:
    """The first half of `frame_map`: drop the rows that do not count, match the rest. ValueError as there."""
    protocol = _protocol(protocol)
    rules = RULES[protocol]
    if plus_one and protocol != Protocol.ANNOTATED:
        raise ValueError(f"plus_one is YOWO's variant of protocol annotated; {protocol} has no such option")
    check_task(truth, classes, iou, inside_out=rules.inside_out)

    ids = np.array(sorted(classes), dtype=np.int64)  # (C,)
    truth_class, found_class = lookup(ids, truth.label), lookup(ids, found.label)
    truth_frame, found_frame, excluded_frame = frame_keys(truth, found, excluded)

    truth_kept, found_kept = truth_class >= 0, found_class >= 0
    if rules.capped:  # before inverted boxes go: the peers let those take a place among the 50
        found_kept = _best_rows(found_frame, found.score, found_kept)
    if rules.truth_frames_only:  # any row makes a frame count, also of a class that is not evaluated
        found_kept &= lookup(np.unique(truth_frame), found_frame) >= 0
    if rules.exclusions:
        truth_kept &= lookup(excluded_frame, truth_frame) < 0
        found_kept &= lookup(excluded_frame, found_frame) < 0
    if not rules.inside_out:
        found_kept &= right_way_round(found.box)

    truth_row, found_row = np.flatnonzero(truth_kept), np.flatnonzero(found_kept)
    truth_class, truth_frame = truth_class[truth_row], truth_frame[truth_row]
    found_class, found_frame = found_class[found_row], found_frame[found_row]
    score = found.score[found_row]
    claimed = match(
        truth_frame * len(ids) + truth_class,
        truth.box[truth_row],
        found_frame * len(ids) + found_class,
        found.box[found_row],
        score if rules.by_score else None,
        iou=iou,
        plus_one=rules.plus_one or plus_one,
        remaining=rules.remaining,
    )
    return Matched(
        classes={class_id: classes[class_id] for class_id in ids.tolist()},
        protocol=protocol,
        iou=iou,
        plus_one=plus_one,
        truth_row=truth_row,
        truth_class=truth_class,
        truth_frame=truth_frame,
        found_row=found_row,
        found_class=found_class,
        found_frame=found_frame,
        score=score,
        claimed=claimed,
    )


def pool(matched: Matched) -> FrameMap:
    """The second half of `frame_map`: one AP per class, and their mean."""
    num_truth = np.bincount(matched.truth_class, minlength=len(matched.classes))
    ap = class_ap(
        num_truth, matched.found_class, matched.score, matched.claimed >= 0, RULES[matched.protocol]
    )
    counted = ap[~np.isnan(ap)]
    return FrameMap(
        mAP=float(counted.mean()) if len(counted) else nan,
        ap=dict(zip(matched.classes, ap.tolist(), strict=True)),
        classes=matched.classes,
        protocol=matched.protocol,
        iou=matched.iou,
        num_classes=len(counted),
        num_ground_truth=len(matched.truth_row),
        num_detections=len(matched.found_row),
        num_true_positives=int((matched.claimed >= 0).sum()),
        plus_one=matched.plus_one,
    )


def class_ap(num_truth: Ints, found_class: Ints, score: Floats, hit: Bools, rules: Rules) -> Floats:
    """AP of each class, (C,). num_truth (C,); found_class, score, hit (m,), rows in any order."""
    # Keys of 8 or 16 bits sort by radix, which is what makes this stable sort cheap.
    by_class = np.argsort(found_class.astype(np.min_scalar_type(len(num_truth))), kind="stable")
    first = np.concatenate([[0], np.cumsum(np.bincount(found_class, minlength=len(num_truth)))])
    area = raw_average_precision if rules.raw_curve else average_precision
    ap = np.full(len(num_truth), 0.0 if rules.every_class else nan)
    for c in np.flatnonzero(num_truth):
        rows = by_class[first[c] : first[c + 1]]
        ap[c] = area(hit[rows], score[rows], int(num_truth[c]))
    return ap


def match(
    truth_group: Ints,
    truth_box: Floats,
    found_group: Ints,
    found_box: Floats,
    score: Floats | None,
    *,
    iou: float,
    plus_one: bool = False,
    remaining: bool = False,
) -> Ints:
    """Which ground-truth box each detection claims: (M,) row number, or -1 for a false positive.

    truth_group (N,), found_group (M,)  any whole numbers; only equal groups meet (AVA frame-mAP:
                                        one group per (frame, class); actors: one per frame)
    truth_box (N, 4), found_box (M, 4)  x1 y1 x2 y2; one inside out overlaps nothing
    score (M,)                          higher claims first, ties by row; None: rows claim in order
    plus_one                            boxes reach a pixel further than their x2 and y2

    A detection has one target, the box it overlaps most (the first row among equals), whoever else
    wants it: a second-best box is never tried. So no detection's fate hangs on a later one's, and
    the whole of greedy matching is "the earliest claimant of a target wins it".

    remaining: the other rule. Its target is the best of the boxes that nobody before it has won.
    """
    met = pairs(truth_group, truth_box, found_group, found_box, plus_one=plus_one)
    if remaining:
        return claim_remaining(*met, found_group, score, iou=iou)
    found_row, truth_row, overlap = met
    target = np.full(len(found_group), -1, dtype=np.int64)
    if len(found_row):
        first = np.flatnonzero(starts(found_row))
        best = np.maximum.reduceat(overlap, first)
        number = np.arange(len(found_row))
        candidate = np.where(
            overlap == np.repeat(best, np.diff(first, append=len(number))), number, len(number)
        )
        first_best = np.minimum.reduceat(candidate, first)
        good = best >= iou
        target[found_row[first[good]]] = truth_row[first_best[good]]

    claimant = np.flatnonzero(target >= 0)
    wanted = target[claimant]
    if score is None:
        order = np.argsort(wanted, kind="stable")
    else:
        order = np.lexsort((-score[claimant], wanted))  # by target, then score; stable
    winner = claimant[order[starts(wanted[order])]]
    claimed = np.full(len(found_group), -1, dtype=np.int64)
    claimed[winner] = target[winner]
    return claimed


def claim_remaining(
    found_row: Ints,
    truth_row: Ints,
    overlap: Floats,
    found_group: Ints,
    score: Floats | None,
    *,
    iou: float,
) -> Ints:
    """`match` with `remaining`, from the pairs that meet: found_row, truth_row, overlap, all (P,).

    One after the other, surest first, each detection takes the free box it overlaps most. Rounds
    stand for that: in each, everybody points at the best free box, and in every group those before
    the first quarrel have what they point at. A round gives away at least one box in each group
    that has detections left, so there are no more rounds than boxes in a group.
    """
    claimed = np.full(len(found_group), -1, dtype=np.int64)
    place = np.arange(len(found_group))
    if score is not None:
        place[np.argsort(-score, kind="stable")] = np.arange(len(score))
    good = np.flatnonzero(overlap >= iou)
    good = good[np.lexsort((truth_row[good], -overlap[good], place[found_row[good]]))]
    found_row, truth_row = found_row[good], truth_row[good]  # surest first, its best box first
    while len(found_row):
        first = starts(found_row)
        who, wanted = found_row[first], truth_row[first]
        _, undisputed = np.unique(wanted, return_index=True)  # the earliest to point at each box
        quarrels = np.ones(len(who), dtype=np.bool_)
        quarrels[undisputed] = False
        group, number = np.unique(found_group[who], return_inverse=True)
        limit = np.full(len(group), len(who))
        np.minimum.at(limit, number[quarrels], np.flatnonzero(quarrels))
        wins = np.arange(len(who)) < limit[number]
        claimed[who[wins]] = wanted[wins]
        left = (claimed[found_row] < 0) & ~np.isin(truth_row, wanted[wins])
        found_row, truth_row = found_row[left], truth_row[left]
    return claimed


def average_precision(true_positive: Bools, score: Floats, num_truth: int) -> float:
    """Area under the all-point interpolated precision-recall curve (PASCAL VOC 2010 on), 0..1.

    ValueError: lengths that differ, or more true positives than boxes.

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


def raw_average_precision(true_positive: Bools, score: Floats, num_truth: int) -> float:
    """Area under the precision-recall curve as it stands, by trapezoids, from (recall 0, precision 1).

    Arguments as for `average_precision`. In float32, as ACT and MOC compute it: with 100,000
    detections the two differ in the fifth digit.
    """
    order = np.argsort(-score, kind="stable")
    hits = np.cumsum(true_positive[order])
    precision = np.ones(len(hits) + 1, dtype=np.float32)
    recall = np.zeros(len(hits) + 1, dtype=np.float32)
    precision[1:] = hits / np.arange(1, len(hits) + 1)
    recall[1:] = hits / num_truth
    widths, heights = recall[1:] - recall[:-1], precision[1:] + precision[:-1]
    return float(np.sum(widths * heights * np.float32(0.5)))


def video_names(truth: GroundTruth, found: Detections) -> tuple[str, ...]:
    """The videos of both sides, those of the ground truth first."""
    return tuple(dict.fromkeys(truth.videos + found.videos))


def frame_keys(
    truth: GroundTruth, found: Detections, excluded: Set[tuple[str, int]]
) -> tuple[Ints, Ints, Ints]:
    """One whole number per (video name, frame), the same on both sides: (N,), (M,), sorted (E,).

    Excluded frames of videos that stand on neither side are left out.
    """
    number = {name: i for i, name in enumerate(video_names(truth, found))}
    truth_video, found_video = (
        np.array([number[name] for name in rows.videos], dtype=np.int64)[rows.video]
        for rows in (truth, found)
    )
    # As close together as they go: `lookup` is quickest there.
    stride = 1 + max(int(rows.frame.max(initial=0)) for rows in (truth, found))
    keys = sorted(
        number[name] * stride + frame for name, frame in excluded if name in number and 0 <= frame < stride
    )
    return (
        truth_video * stride + truth.frame,
        found_video * stride + found.frame,
        np.array(keys, dtype=np.int64),
    )


def lookup(table: Ints, value: Ints) -> Ints:
    """Where each value (K,) stands in a sorted table (L,) without repeats; -1 when it does not. -> (K,)"""
    if len(table) == 0:
        return np.full(len(value), -1, dtype=np.int64)
    low, span = int(table[0]), int(table[-1] - table[0]) + 1
    if span > 4 * (len(table) + len(value)):
        at = np.minimum(np.searchsorted(table, value), len(table) - 1)
        return np.where(table[at] == value, at, -1)
    place = np.full(span + 1, -1, dtype=np.int64)  # one for each number there could be, and "none"
    place[table - low] = np.arange(len(table))
    at = value - low
    at[(at < 0) | (at >= span)] = span
    return place[at]


def right_way_round(box: Floats) -> Bools:
    """(K, 4) -> (K,): x1 < x2 and y1 < y2, so the box has an area."""
    return (box[:, 0] < box[:, 2]) & (box[:, 1] < box[:, 3])


def check_task(
    truth: GroundTruth, classes: Mapping[int, str], iou: float, *, inside_out: bool = False
) -> None:
    """ValueError when there is nothing to score by, or the ground truth is no ground truth.

    inside_out: boxes without an area are let pass.
    """
    if not classes:
        raise ValueError("no classes to evaluate: give the label map, a dict of class id to name")
    if not 0 < iou <= 1:
        raise ValueError(f"iou must lie above 0 and at most at 1; found {iou}")
    inverted = np.flatnonzero(~right_way_round(truth.box))
    if len(inverted) and not inside_out:
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


def pairs(
    truth_group: Ints, truth_box: Floats, found_group: Ints, found_box: Floats, *, plus_one: bool = False
) -> tuple[Ints, Ints, Floats]:
    """Every detection with every box of its group: found_row, truth_row and overlap, each (P,).

    Ordered by detection, then by box.
    """
    found_row, truth_row = meetings(truth_group, found_group)
    return found_row, truth_row, box_iou(found_box[found_row], truth_box[truth_row], plus_one=plus_one)


def meetings(truth_group: Ints, found_group: Ints) -> tuple[Ints, Ints]:
    """found_row, truth_row, each (P,): every pair of equal groups, by found row, then by truth row."""
    by_group = np.argsort(truth_group, kind="stable")  # stable: "first" means first in the file
    grouped = truth_group[by_group]
    start = np.flatnonzero(starts(grouped))
    size = np.diff(start, append=len(grouped))

    group = lookup(grouped[start], found_group)
    met = np.flatnonzero(group >= 0)  # detections with anything to meet: a small part of M
    group = group[met]
    n = size[group] if len(met) else np.zeros(0, dtype=np.int64)
    found_row = np.repeat(met, n)
    return found_row, by_group[np.repeat(start[group] - (np.cumsum(n) - n), n) + np.arange(len(found_row))]


def box_iou(a: Floats, b: Floats, *, plus_one: bool = False) -> Floats:
    """IoU of box pairs (K, 4), (K, 4) -> (K,). Coordinates are lengths; with plus_one, pixel indices.

    The order of the sums is the peers', so that a pair exactly at the threshold falls alike.
    """
    width = np.minimum(a[:, 2], b[:, 2])
    height = np.minimum(a[:, 3], b[:, 3])
    size_a, size_b = a[:, 2:] - a[:, :2], b[:, 2:] - b[:, :2]
    if plus_one:
        for length in (width, height, size_a, size_b):
            length += 1
    width -= np.maximum(a[:, 0], b[:, 0])
    height -= np.maximum(a[:, 1], b[:, 1])
    shared = np.maximum(height, 0) * np.maximum(width, 0)
    union = size_a[:, 1] * size_a[:, 0] + size_b[:, 1] * size_b[:, 0] - shared
    iou: Floats = np.zeros(len(union))
    np.divide(shared, union, out=iou, where=union > 0)  # two areas may round to nothing
    return iou


def _best_rows(frame: Ints, score: Floats, among: Bools) -> Bools:
    """(M,): the ROWS_KEPT best-scored rows of each frame, of those in `among`; ties by row."""
    rows = np.flatnonzero(among)
    rows = rows[np.argsort(frame[rows], kind="stable")]
    start = np.flatnonzero(starts(frame[rows]))
    size = np.diff(np.append(start, len(rows)))
    rows = rows[np.repeat(size > ROWS_KEPT, size)]  # only crowded frames need the second sort
    size = size[size > ROWS_KEPT]

    rows = rows[np.lexsort((-score[rows], frame[rows]))]
    place = np.arange(len(rows)) - np.repeat(np.cumsum(size) - size, size)
    kept = among.copy()
    kept[rows[place >= ROWS_KEPT]] = False
    return kept


def starts(ordered: Ints) -> Bools:
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
    for field in [f.name for f in fields(rows) if f.name != "videos"]:
        values = np.asarray(getattr(rows, field))
        whole = field not in ("box", "score")
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
