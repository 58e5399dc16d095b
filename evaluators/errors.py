"""Where the mAP goes: every false detection gets one cause, and each cause a price.

In the spirit of TIDE, for actions. People do several things at once, so one box may be right for
one action and wrong for another; hence the box is judged first, then the class:

                              the class of that box      another class     no box touched
    box good (iou or more)    duplicate                  wrong class
    box poor (background up)  poor box                   both              background

and a true box that no detection claims, nor would claim if its class or its box were put right,
is missed. The price of a cause is the mAP that putting right all of it, and nothing else, would
add. Prices do not sum up: two faults of one detection hide each other.
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass
from math import nan

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
    box_iou,
    claim_remaining,
    class_ap,
    match_frames,
    meetings,
    pool,
)

CAUSES = ("wrong class", "poor box", "both", "duplicate", "background", "missed")
WRONG_CLASS, POOR_BOX, BOTH, DUPLICATE, BACKGROUND, MISSED = range(6)
_CHUNK = 250_000  # detections looked at together; bounds the memory


@dataclass(frozen=True)
class ErrorBudget:
    """How often each of CAUSES came, and the mAP it costs, in [0, 1]."""

    score: FrameMap
    count: dict[str, int]  # detections; of "missed", true boxes
    price: dict[str, float]  # of "missed" NaN where all boxes are: nothing would be left to score
    class_count: dict[int, dict[str, int]]  # by class id of the detection; of the true box
    background: float


def error_budget(
    truth: GroundTruth,
    found: Detections,
    classes: Mapping[int, str],
    *,
    excluded: Set[tuple[str, int]] = frozenset(),
    protocol: Protocol | str = Protocol.STANDARD,
    iou: float = 0.5,
    plus_one: bool = False,
    background: float = 0.1,
) -> ErrorBudget:
    """The causes of all false positives and misses of `frame_map`; its arguments, and

    background  a box that overlaps none by as much touches nobody, 0 < background < iou

    Put right, by the one rule "surest first, each takes the free box it overlaps most":
    wrong class   the detection moves to the class of a free box that it overlaps by iou
    poor box      it counts for a free box of its class that it touches
    missed        the true boxes are forgotten
    What finds no free box, and both, duplicate and background, are deleted.

    ValueError: as frame_map; background out of range.
    """
    if not 0 < background < iou:
        raise ValueError(f"background must lie between 0 and iou ({iou}); found {background}")
    matched = match_frames(
        truth, found, classes, excluded=excluded, protocol=protocol, iou=iou, plus_one=plus_one
    )
    score = pool(matched)
    hit = matched.claimed >= 0
    false = np.flatnonzero(~hit)
    free = np.ones(len(matched.truth_row), dtype=np.bool_)
    free[matched.claimed[hit]] = False

    cause = np.full(len(hit), -1)
    to_class, to_box = [], []  # the pairs that count when these are put right
    for begin in range(0, len(false), _CHUNK):
        some = false[begin : begin + _CHUNK]
        touching = _touching(matched, truth, found, some, background)
        cause[some] = _causes(some, touching, iou)
        of, is_free = cause[touching.found], free[touching.truth]
        to_class.append(touching.only(is_free & (of == WRONG_CLASS) & (touching.overlap >= iou)))
        to_box.append(touching.only(is_free & (of == POOR_BOX) & touching.own))

    found_class = matched.found_class
    num_truth = np.bincount(matched.truth_class, minlength=len(matched.classes))
    price, saved = {}, np.zeros(len(free), dtype=np.bool_)
    for number, name in enumerate(CAUSES[:-1]):
        claimed = _put_right(matched, {WRONG_CLASS: to_class, POOR_BOX: to_box}.get(number, []))
        won = np.flatnonzero(claimed >= 0)
        saved[claimed[won]] = True
        moved, right = found_class.copy(), hit.copy()
        moved[won], right[won] = matched.truth_class[claimed[won]], True
        kept = (cause != number) | right
        price[name] = _mean_ap(matched, num_truth, moved, right, kept) - score.mAP
    missed = free & ~saved
    fewer = num_truth - np.bincount(matched.truth_class[missed], minlength=len(num_truth))
    price["missed"] = _mean_ap(matched, fewer, found_class, hit, np.ones_like(hit)) - score.mAP

    table = np.zeros((len(num_truth), len(CAUSES)), dtype=np.int64)
    np.add.at(table, (found_class[false], cause[false]), 1)
    table[:, -1] = num_truth - fewer
    return ErrorBudget(
        score=score,
        count=dict(zip(CAUSES, table.sum(axis=0).tolist(), strict=True)),
        price=price,
        class_count={
            class_id: dict(zip(CAUSES, row, strict=True))
            for class_id, row in zip(matched.classes, table.tolist(), strict=True)
        },
        background=background,
    )


@dataclass(frozen=True)
class _Touching:
    """Pairs of a false detection and a true box of its frame that it touches, each (P,)."""

    found: Ints  # index into the rows of the matching
    truth: Ints
    overlap: Floats
    own: Bools  # the box is of the detection's class

    def only(self, kept: Bools) -> "_Touching":
        return _Touching(self.found[kept], self.truth[kept], self.overlap[kept], self.own[kept])


def _touching(
    matched: Matched, truth: GroundTruth, found: Detections, rows: Ints, background: float
) -> _Touching:
    at, there = meetings(matched.truth_frame, matched.found_frame[rows])
    seen = rows[at]
    overlap = box_iou(
        found.box[matched.found_row[seen]],
        truth.box[matched.truth_row[there]],
        plus_one=RULES[matched.protocol].plus_one or matched.plus_one,
    )
    own = matched.found_class[seen] == matched.truth_class[there]
    return _Touching(seen, there, overlap, own).only(overlap >= background)


def _causes(rows: Ints, touching: _Touching, iou: float) -> Ints:
    """The cause of each of these false detections, an index into CAUSES."""
    at = np.searchsorted(rows, touching.found)
    own, best = np.zeros(len(rows)), np.zeros(len(rows))
    np.maximum.at(best, at, touching.overlap)
    np.maximum.at(own, at[touching.own], touching.overlap[touching.own])
    conditions = [own >= iou, best >= iou, own > 0, best > 0]
    return np.select(conditions, [DUPLICATE, WRONG_CLASS, POOR_BOX, BOTH], BACKGROUND)


def _put_right(matched: Matched, pairs: list[_Touching]) -> Ints:
    """Which free true box each detection gets, (m,); -1 for none."""
    if not pairs:
        return np.full(len(matched.found_row), -1, dtype=np.int64)
    seen, there, overlap = (
        np.concatenate([getattr(part, name) for part in pairs]) for name in ("found", "truth", "overlap")
    )
    return claim_remaining(seen, there, overlap, matched.found_frame, matched.score, iou=0.0)


def _mean_ap(matched: Matched, num_truth: Ints, found_class: Ints, hit: Bools, kept: Bools) -> float:
    ap = class_ap(num_truth, found_class[kept], matched.score[kept], hit[kept], RULES[matched.protocol])
    counted = ap[~np.isnan(ap)]
    return float(counted.mean()) if len(counted) else nan
