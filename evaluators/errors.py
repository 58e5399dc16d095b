"""Error budget: one cause per false positive, and the mAP gain of correcting each cause.

In the spirit of TIDE, for actions. People perform several actions at once, so one box may be right
for one action and wrong for another; hence the box is judged first, then the class:

                                     same class     another class     no overlap
    well localised (iou or more)     duplicate      wrong class
    poorly localised (background up) poor box       both              background

A ground-truth box is "missed" when no detection matches it, nor would match it with its class or
its box corrected. The mAP gain of a cause is what correcting all of it, and nothing else, would
add. Gains do not sum up: two errors of one detection hide each other.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from evaluators.frame_map import (
    STANDARD_RULES,
    Detections,
    EvalRules,
    FrameMap,
    GroundTruth,
    Matching,
    class_ap,
    match_frames,
    mean_ap,
    pool,
)
from evaluators.matching import Bools, Ints, Pairs, box_iou, match_unmatched, pair_groups
from evaluators.notebook import Shown

CAUSES = ("wrong class", "poor box", "both", "duplicate", "background", "missed")
WRONG_CLASS, POOR_BOX, BOTH, DUPLICATE, BACKGROUND, MISSED = range(6)
_CHUNK = 250_000  # detections per step; bounds the memory


@dataclass(frozen=True)
class ErrorBudget(Shown):
    """How often each of CAUSES occurs, and the mAP gain of correcting it, in [0, 1]."""

    score: FrameMap
    count: dict[str, int]  # detections; of "missed", ground-truth boxes
    mAP_gain: dict[str, float]  # of "missed" NaN where all boxes are: nothing would be left to score
    class_count: dict[int, dict[str, int]]  # by class id of the detection; of the ground-truth box
    background: float


def error_budget(
    ground_truth: GroundTruth,
    detections: Detections,
    classes: Mapping[int, str],
    *,
    rules: EvalRules = STANDARD_RULES,
    background: float = 0.1,
) -> ErrorBudget:
    """Assign a cause to each false positive and miss of `frame_mAP`; its arguments, and

    background  least IoU with a ground-truth box below which a detection is background,
                0 < background < iou

    Corrections, by greedy matching in score order with the best unmatched box:
    wrong class   the detection gets the class of an unmatched box that it overlaps by iou
    poor box      it counts as a true positive of an unmatched box of its class that it overlaps
    missed        the ground-truth boxes are removed
    Detections without such a box are removed, and so are both, duplicate and background.

    ValueError: as frame_mAP; background out of range.
    """
    if not 0 < background < rules.iou:
        raise ValueError(f"background must be between 0 and iou ({rules.iou}); found {background}")
    matching = match_frames(ground_truth, detections, classes, rules=rules)
    score = pool(matching)
    hit = matching.true_positive
    unmatched = np.ones(len(matching.gt_row), dtype=np.bool_)
    unmatched[matching.assigned[hit]] = False
    cause, candidates = _causes(matching, ground_truth, detections, unmatched, background)

    # Correct one cause at a time. Detections of the cause that stay false positives are removed.
    num_gt, gain = matching.num_gt, {}
    recoverable = np.zeros(len(unmatched), dtype=np.bool_)
    for number, name in enumerate(CAUSES[:-1]):
        corrected = _correct(matching, candidates.get(number, []))
        moved = np.flatnonzero(corrected >= 0)
        recoverable[corrected[moved]] = True
        det_class, right = matching.det_class.copy(), hit.copy()
        det_class[moved], right[moved] = matching.gt_class[corrected[moved]], True
        gain[name] = _mAP(matching, num_gt, det_class, right, (cause != number) | right) - score.mAP
    # Missed boxes, which no correction recovers, are removed from the ground truth instead.
    missed = np.bincount(matching.gt_class[unmatched & ~recoverable], minlength=len(num_gt))
    all_kept = np.ones_like(hit)
    gain["missed"] = _mAP(matching, num_gt - missed, matching.det_class, hit, all_kept) - score.mAP

    table = np.zeros((len(num_gt), len(CAUSES)), dtype=np.int64)
    np.add.at(table, (matching.det_class[~hit], cause[~hit]), 1)
    table[:, MISSED] = missed
    return ErrorBudget(
        score=score,
        count=dict(zip(CAUSES, table.sum(axis=0).tolist(), strict=True)),
        mAP_gain=gain,
        class_count={
            class_id: dict(zip(CAUSES, row, strict=True))
            for class_id, row in zip(matching.classes, table.tolist(), strict=True)
        },
        background=background,
    )


def without_duplicates(
    ground_truth: GroundTruth,
    detections: Detections,
    classes: Mapping[int, str],
    *,
    rules: EvalRules = STANDARD_RULES,
    background: float = 0.1,
) -> Detections:
    """The detections but those whose cause of error is "duplicate"; arguments and errors as `error_budget`.

    Their frame-mAP is the one of all plus the gain of "duplicate".
    """
    matching = match_frames(ground_truth, detections, classes, rules=rules)
    unmatched = np.ones(len(matching.gt_row), dtype=np.bool_)
    unmatched[matching.assigned[matching.true_positive]] = False
    cause, _ = _causes(matching, ground_truth, detections, unmatched, background)
    kept = np.ones(len(detections.score), dtype=np.bool_)
    kept[matching.det_row[cause == DUPLICATE]] = False
    return detections.take(kept)


def _causes(
    matching: Matching, ground_truth: GroundTruth, detections: Detections, unmatched: Bools, background: float
) -> tuple[Ints, dict[int, list[Pairs]]]:
    """The cause of each detection, (m,), -1 for true positives; the pairs that count when corrected."""
    cause = np.full(len(matching.det_row), -1)
    candidates: dict[int, list[Pairs]] = {WRONG_CLASS: [], POOR_BOX: []}
    false_positive = np.flatnonzero(~matching.true_positive)
    iou = matching.rules.iou
    for begin in range(0, len(false_positive), _CHUNK):
        rows = false_positive[begin : begin + _CHUNK]
        pairs = _overlapping(matching, ground_truth, detections, rows, background)
        same_class = matching.det_class[pairs.det] == matching.gt_class[pairs.gt]
        at = np.searchsorted(rows, pairs.det)
        best_same, best = np.zeros(len(rows)), np.zeros(len(rows))
        np.maximum.at(best, at, pairs.iou)
        np.maximum.at(best_same, at[same_class], pairs.iou[same_class])
        # The first condition that holds decides: localisation before class.
        cause[rows] = np.select(
            [best_same >= iou, best >= iou, best_same > 0, best > 0],
            [DUPLICATE, WRONG_CLASS, POOR_BOX, BOTH],
            BACKGROUND,
        )
        of, free = cause[pairs.det], unmatched[pairs.gt]
        candidates[WRONG_CLASS].append(pairs.take(free & (of == WRONG_CLASS) & (pairs.iou >= iou)))
        candidates[POOR_BOX].append(pairs.take(free & (of == POOR_BOX) & same_class))
    return cause, candidates


def _overlapping(
    matching: Matching, ground_truth: GroundTruth, detections: Detections, rows: Ints, background: float
) -> Pairs:
    """Pairs of the given detections and the boxes of their frame, of any class, from IoU `background`."""
    at, gt = pair_groups(matching.gt_frame, matching.det_frame[rows])
    det = rows[at]
    iou = box_iou(
        detections.box[matching.det_row[det]],
        ground_truth.box[matching.gt_row[gt]],
        plus_one=matching.rules.iou_plus_one,
    )
    return Pairs(det, gt, iou).take(iou >= background)


def _correct(matching: Matching, candidates: list[Pairs]) -> Ints:
    """The unmatched ground-truth box that each detection gets, (m,); -1 for none."""
    if not candidates:
        return np.full(len(matching.det_row), -1, dtype=np.int64)
    det, gt, iou = zip(*candidates, strict=True)
    pairs = Pairs(np.concatenate(det), np.concatenate(gt), np.concatenate(iou))
    return match_unmatched(pairs, matching.det_frame, matching.score, iou=0.0)


def _mAP(matching: Matching, num_gt: Ints, det_class: Ints, hit: Bools, kept: Bools) -> float:
    protocol = matching.rules.protocol_rules
    ap = class_ap(num_gt, det_class[kept], matching.score[kept], hit[kept], protocol)
    if protocol.detected_classes_only:  # a correction adds no class to the mean, and takes none out
        detected = np.bincount(matching.det_class, minlength=len(num_gt)) > 0
        ap = np.where(detected, np.where(num_gt > 0, np.nan_to_num(ap), np.nan), np.nan)
    return mean_ap(ap)
