"""Greedy matching of detections with ground-truth boxes, on plain arrays.

`match` is the entry point. The steps below it (candidate pairs, IoU, the two assignment rules) are
public because bootstrap, error budget and video-mAP are built from them.

Letters in the shapes: N ground-truth rows, M detection rows, P candidate pairs.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class Pairs(NamedTuple):
    """Candidate pairs of a detection and a ground-truth box, each array (P,)."""

    det: Ints  # row of the detection
    gt: Ints  # row of the ground-truth box
    iou: Floats

    def take(self, rows: Bools) -> "Pairs":
        """The pairs that a mask (P,) selects."""
        return Pairs(self.det[rows], self.gt[rows], self.iou[rows])


def match(
    gt_group: Ints,
    gt_box: Floats,
    det_group: Ints,
    det_box: Floats,
    score: Floats | None,
    *,
    iou: float,
    plus_one: bool = False,
    unmatched_only: bool = False,
) -> Ints:
    """Assign detections to ground-truth boxes: (M,) ground-truth row, or -1 for a false positive.

    gt_group (N,), det_group (M,)  whole numbers; only equal groups are compared (AVA frame-mAP: one
                                   group per (frame, class); actors: one per frame)
    gt_box (N, 4), det_box (M, 4)  x1 y1 x2 y2; an inverted box overlaps nothing
    score (M,)                     higher scores are matched first, ties by row; None: in row order
    iou                            least IoU of a match, above 0
    plus_one                       boxes are one pixel wider and higher than x2 - x1 and y2 - y1
    unmatched_only                 a detection may take the best box that is still unmatched; by
                                   default only its best box of all, whether matched or not
    """
    pairs = candidate_pairs(gt_group, gt_box, det_group, det_box, plus_one=plus_one)
    if unmatched_only:
        return match_unmatched(pairs, det_group, score, iou=iou)
    return match_best(pairs, len(det_group), score, iou=iou)


def match_best(pairs: Pairs, num_detections: int, score: Floats | None, *, iou: float) -> Ints:
    """`match` by the default rule, from candidate pairs sorted by detection, then ground truth. -> (M,)

    The target of a detection is its box of highest IoU (the first row among equals). A second-best
    box is never tried, so the assignment needs no loop: of the detections that share a target, the
    first by score is the true positive and the others are duplicates.
    """
    target = np.full(num_detections, -1, dtype=np.int64)
    if len(pairs.det):
        best = first_best(pairs.iou, np.flatnonzero(run_starts(pairs.det)))
        best = best[pairs.iou[best] >= iou]
        target[pairs.det[best]] = pairs.gt[best]

    contender = np.flatnonzero(target >= 0)
    matched = contender[_best_scored(target[contender], None if score is None else score[contender])]
    assigned = np.full(num_detections, -1, dtype=np.int64)
    assigned[matched] = target[matched]
    return assigned


def _best_scored(target: Ints, score: Floats | None) -> Ints:
    """Of each target (K,), which of the K has the highest score (K,): the first of equals, or of all."""
    order = np.argsort(target, kind="stable")
    first = np.flatnonzero(run_starts(target[order]))
    if score is None or not len(first):
        return order[first]
    return order[first_best(score[order], first)]


def first_best(score: Floats, first: Ints) -> Ints:
    """Of runs that begin at `first`, the place of the highest score (K,) of each; of equals, the first."""
    best = np.repeat(np.maximum.reduceat(score, first), np.diff(first, append=len(score)))
    place = np.where(score == best, np.arange(len(score)), len(score))
    return np.minimum.reduceat(place, first)


def match_unmatched(pairs: Pairs, det_group: Ints, score: Floats | None, *, iou: float) -> Ints:
    """`match` with `unmatched_only`, from candidate pairs: det_group and score are (M,). -> (M,)

    The rule is sequential: by descending score, each detection takes the unmatched box it overlaps
    most. Where every detection of a group overlaps one box enough, the best-scored of each box take it.
    In the other groups, the rounds below give the same result for all at once. In a round every detection
    points at its best unmatched box; in each group, the detections before the first conflict (a box
    already pointed at) are assigned. A round assigns at least one box in each group with detections
    left, so there are at most as many rounds as boxes in a group.
    """
    assigned = np.full(len(det_group), -1, dtype=np.int64)
    enough = np.flatnonzero(pairs.iou >= iou)
    det, gt, overlap = pairs.det[enough], pairs.gt[enough], pairs.iou[enough]
    again = np.zeros(len(det), dtype=np.bool_)  # pairs are sorted by detection
    again[1:] = det[1:] == det[:-1]
    several = lookup(np.unique(det_group[det[again]]), det_group[det]) >= 0
    alone = np.flatnonzero(~several)
    taken = alone[_best_scored(gt[alone], None if score is None else score[det[alone]])]
    assigned[det[taken]] = gt[taken]

    det, gt, overlap = det[several], gt[several], overlap[several]
    order = np.lexsort((gt, -overlap, det) if score is None else (gt, -overlap, det, -score[det]))
    # By descending score; the pairs of one detection by descending IoU.
    det, gt = det[order], gt[order]
    while len(det):
        first = run_starts(det)
        chooser, choice = det[first], gt[first]
        _, earliest = np.unique(choice, return_index=True)  # the first to point at each box
        conflict = np.ones(len(chooser), dtype=np.bool_)
        conflict[earliest] = False
        group, number = np.unique(det_group[chooser], return_inverse=True)
        first_conflict = np.full(len(group), len(chooser))
        np.minimum.at(first_conflict, number[conflict], np.flatnonzero(conflict))
        accepted = np.arange(len(chooser)) < first_conflict[number]
        assigned[chooser[accepted]] = choice[accepted]
        left = (assigned[det] < 0) & ~np.isin(gt, choice[accepted])
        det, gt = det[left], gt[left]
    return assigned


def candidate_pairs(
    gt_group: Ints, gt_box: Floats, det_group: Ints, det_box: Floats, *, plus_one: bool = False
) -> Pairs:
    """All pairs of a detection and a ground-truth box of equal group, with their IoU.

    Groups (N,), (M,) and boxes (N, 4), (M, 4) as for `match`. Sorted by detection, then ground truth.
    """
    det, gt = pair_groups(gt_group, det_group)
    return Pairs(det, gt, box_iou(det_box[det], gt_box[gt], plus_one=plus_one))


def pair_groups(gt_group: Ints, det_group: Ints) -> tuple[Ints, Ints]:
    """Detection row and ground-truth row, each (P,), of all pairs of equal group: (N,), (M,).

    Sorted by detection, then ground truth.
    """
    by_group = np.argsort(gt_group, kind="stable")  # stable: "first" means first in the file
    grouped = gt_group[by_group]
    start = np.flatnonzero(run_starts(grouped))
    size = np.diff(start, append=len(grouped))

    group = lookup(grouped[start], det_group)
    paired = np.flatnonzero(group >= 0)  # detections with any ground truth: a small part of M
    group = group[paired]
    n = size[group] if len(paired) else np.zeros(0, dtype=np.int64)
    det = np.repeat(paired, n)
    return det, by_group[np.repeat(start[group] - (np.cumsum(n) - n), n) + np.arange(len(det))]


def box_iou(a: Floats, b: Floats, *, plus_one: bool = False) -> Floats:
    """IoU of box pairs (K, 4), (K, 4) -> (K,). Coordinates are lengths; with plus_one, pixel indices.

    The order of the sums is that of the public tools, so that a pair exactly at the threshold is
    decided alike.
    """
    width = np.minimum(a[:, 2], b[:, 2])
    height = np.minimum(a[:, 3], b[:, 3])
    size_a, size_b = a[:, 2:] - a[:, :2], b[:, 2:] - b[:, :2]
    if plus_one:
        for length in (width, height, size_a, size_b):
            length += 1
    width -= np.maximum(a[:, 0], b[:, 0])
    height -= np.maximum(a[:, 1], b[:, 1])
    intersection = np.maximum(height, 0) * np.maximum(width, 0)
    union = size_a[:, 1] * size_a[:, 0] + size_b[:, 1] * size_b[:, 0] - intersection
    iou: Floats = np.zeros(len(union))
    np.divide(intersection, union, out=iou, where=union > 0)  # tiny areas may round to zero
    return iou


def has_positive_area(box: Floats) -> Bools:
    """(K, 4) -> (K,): x1 < x2 and y1 < y2, so the box is neither inverted nor empty."""
    return (box[:, 0] < box[:, 2]) & (box[:, 1] < box[:, 3])


def lookup(table: Ints, value: Ints) -> Ints:
    """Index of each value (K,) in a sorted table (L,) without repeats; -1 if absent. -> (K,)"""
    if len(table) == 0:
        return np.full(len(value), -1, dtype=np.int64)
    low, span = int(table[0]), int(table[-1] - table[0]) + 1
    if span > 4 * (len(table) + len(value)):
        at = np.minimum(np.searchsorted(table, value), len(table) - 1)
        return np.where(table[at] == value, at, -1)
    # Dense numbers: an array with one entry per possible value, and a last one for "absent".
    narrow = span > 2**16 and len(table) < 2**31  # a large table of narrow numbers is looked up faster
    index = np.full(span + 1, -1, dtype=np.int32 if narrow else np.int64)
    index[table - low] = np.arange(len(table))
    if len(value) == 0 or (value.min() >= low and value.max() < low + span):
        at = value if low == 0 else value - low
    else:
        at = np.where((value >= low) & (value < low + span), value - low, span)
    return index[at].astype(np.int64, copy=False)


def run_starts(ordered: Ints) -> Bools:
    """(K,): True where a run of equal numbers begins."""
    start = np.ones(len(ordered), dtype=np.bool_)
    start[1:] = ordered[1:] != ordered[:-1]
    return start
