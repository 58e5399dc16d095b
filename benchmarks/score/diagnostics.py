"""Why a row is where it is: how often actors are detected, and how good boxes and classes are on their own.

A single-stage model without suppression fails in ways that one mAP does not tell apart: several candidates
detect one actor, boxes are coarse, or classes are wrong. Each number here answers one of these questions, on
the split a row reports on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from benchmarks.score.detections import SplitDetections, expand_rows
from benchmarks.score.results import TABLE_THETA, none_if_nan
from datasets.split import Split
from evaluators.frame_map import Detections, EvalRules, GroundTruth, frame_keys, frame_mAP
from evaluators.matching import Ints, candidate_pairs, has_positive_area, lookup, run_starts


@dataclass(frozen=True, kw_only=True)
class Diagnostics:
    """Fractions in [0, 1], but for `candidates_per_actor`. None where there is nothing to divide by."""

    candidates_per_actor: float | None
    """Candidates with p(alpha) above TABLE_THETA that overlap an actor by 0.5, per actor that has any: 1 is
    ideal, and each of k candidates that a model cannot tell apart makes it k."""
    p_actor: float | None
    """Their median p(alpha). Of k that cannot be told apart it is 1 / (1 + eos_coef (k - 1)) where the
    no-actor weight is eos_coef: each is matched with probability 1 / k."""
    actor_ap_50: float | None
    actor_ap_75: float | None
    """AP of all actors as one class, by p(alpha), at IoU 0.5 and 0.75: how well they are found and boxed."""
    class_ap_true_boxes: float | None
    """Frame-mAP where each true box has the action scores of the candidate that overlaps it most, by
    p(a) alone: how well actions are told apart, whatever the boxes are."""


def diagnose(
    split: Split, candidates: SplitDetections, detections: SplitDetections, *, product: bool
) -> Diagnostics:
    """Diagnose a row's detections of the split that it reports on.

    candidates: those above the lowest threshold, of which `detections` are those above the row's theta.
    product: scores are p(alpha) p(a), not p(a) alone.
    """
    actors = actors_of(split, candidates.persons)
    per_actor, p_actor = _candidates_per_actor(split, actors, detections.persons)
    return Diagnostics(
        candidates_per_actor=per_actor,
        p_actor=p_actor,
        actor_ap_50=_actor_ap(split, actors, candidates.persons, iou=0.5),
        actor_ap_75=_actor_ap(split, actors, candidates.persons, iou=0.75),
        class_ap_true_boxes=_class_ap_on_true_boxes(split, actors, candidates, product=product),
    )


def twin_law(candidates_per_actor: float, eos_coef: float) -> float:
    """The p(alpha) at which k candidates that cannot be told apart end: 1 / (1 + eos_coef (k - 1)).

    Each is the matched one with probability 1 / k. The cross-entropy that weighs the others by eos_coef,
    -(1 / k) log p - (1 - 1 / k) eos_coef log(1 - p), is least there.
    """
    return 1 / (1 + eos_coef * (candidates_per_actor - 1))


def actors_of(split: Split, persons: Detections) -> GroundTruth:
    """The distinct (video, frame, box) with an evaluated label on frames that are not excluded, label 1."""
    gt = split.ground_truth
    frame, _, excluded = frame_keys(gt, persons, split.excluded)
    evaluated = lookup(np.array(sorted(split.evaluated)), gt.label) >= 0
    rows = np.flatnonzero(evaluated & (lookup(excluded, frame) < 0))
    _, first = np.unique(np.column_stack([frame[rows], gt.box[rows]]), axis=0, return_index=True)
    actors = gt.take(rows[np.sort(first)])
    return replace(actors, label=np.ones(len(first), np.int64))


def overlaps(split: Split, actors: GroundTruth, persons: Detections) -> tuple[Ints, Ints, np.ndarray]:
    """Candidate, actor and IoU of the P pairs that overlap on frames that are not excluded, (P,) each."""
    actor_frame, frame, _ = frame_keys(actors, persons, split.excluded)
    frame = np.where(has_positive_area(persons.box), frame, -1)
    pairs = candidate_pairs(actor_frame, actors.box, frame, persons.box)
    return pairs.det, pairs.gt, pairs.iou


def _candidates_per_actor(
    split: Split, actors: GroundTruth, persons: Detections
) -> tuple[float | None, float | None]:
    """`candidates_per_actor` and `p_actor`. A candidate counts for the actor that it overlaps most."""
    persons = persons.take(np.flatnonzero(persons.score > TABLE_THETA))
    candidate, actor, iou = overlaps(split, actors, persons)
    order = np.lexsort((-iou, candidate))  # by candidate, its best actor first
    best = order[run_starts(candidate[order])]
    best = best[iou[best] >= 0.5]
    if not len(best):
        return None, None
    return len(best) / len(np.unique(actor[best])), float(np.median(persons.score[candidate[best]]))


def _actor_ap(split: Split, actors: GroundTruth, persons: Detections, *, iou: float) -> float | None:
    rows = replace(persons, label=np.ones(len(persons.score), np.int64))
    rules = EvalRules(iou=iou, excluded=split.excluded)
    return none_if_nan(frame_mAP(actors, rows, {1: "actor"}, rules=rules).mAP)


def _class_ap_on_true_boxes(
    split: Split, actors: GroundTruth, candidates: SplitDetections, *, product: bool
) -> float | None:
    rows = rows_on_true_boxes(split, actors, candidates, product=product)
    rules = EvalRules(excluded=split.excluded)
    return none_if_nan(frame_mAP(split.ground_truth, rows, split.evaluated, rules=rules).mAP)


def rows_on_true_boxes(
    split: Split, actors: GroundTruth, candidates: SplitDetections, *, product: bool
) -> Detections:
    """A detection of each class for each true box: p(a) of the candidate that overlaps it most."""
    candidate, actor, iou = overlaps(split, actors, candidates.persons)
    candidate, actor, iou = (array[iou > 0] for array in (candidate, actor, iou))
    order = np.lexsort((-iou, actor))  # by actor, its best candidate first
    best = order[run_starts(actor[order])]
    scores = candidates.scores[candidate[best]].astype(np.float64)
    if product:
        scores = scores / candidates.persons.score[candidate[best], None]
    true = actors.take(actor[best])
    persons = Detections(true.videos, true.video, true.frame, true.box, true.label, np.ones(len(best)))
    return expand_rows(replace(candidates, persons=persons, scores=scores), sorted(split.evaluated))
