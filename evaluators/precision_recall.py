"""Are the people found, whatever they do? Precision and recall of actors at a confidence theta.

This is the paper's Table 2b question: p(alpha), the probability that a candidate is an actor,
against a threshold. The labels of the predictions play no part.
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass
from math import nan
from typing import NamedTuple

import numpy as np

from evaluators.frame_map import (
    Bools,
    Detections,
    Floats,
    GroundTruth,
    Ints,
    check_task,
    frame_keys,
    lookup,
    match,
    right_way_round,
)


@dataclass(frozen=True)
class ActorScore:
    """Precision and recall at one theta, pooled over frames. Fractions in [0, 1]."""

    precision: float  # NaN without predictions above theta
    recall: float  # NaN without actors
    true_positives: int
    false_positives: int
    actors: int
    theta: float
    iou: float


class ActorCurve(NamedTuple):
    """Precision and recall at every theta at which they change, (K,) each, theta ascending."""

    theta: Floats
    precision: Floats
    recall: Floats


def actor_precision_recall(
    truth: GroundTruth,
    persons: Detections,
    classes: Mapping[int, str],
    *,
    theta: float = 0.2,
    excluded: Set[tuple[str, int]] = frozenset(),
    iou: float = 0.5,
) -> ActorScore:
    """Score the predictions with p(alpha) > theta (strictly) against the actors.

    Actors are the distinct (video, frame, box) of `truth` with at least one evaluated label, on
    frames that are not excluded. `persons` holds one row per predicted person, its score p(alpha);
    its labels are ignored. Matching is that of AVA frame-mAP with all actors as one class: one
    target each, the surest claimant wins it.

    ValueError: no classes, iou out of range, an inverted ground-truth box, theta NaN.
    """
    if np.isnan(theta):
        raise ValueError("theta is NaN; give a number, such as 0.2")
    hit, score, actors = _claims(truth, persons, classes, excluded, iou)
    # Cutting after matching is right: a claim can only be lost to a higher-scored claimant.
    above = score > theta
    true_positives = int((hit & above).sum())
    predictions = int(above.sum())
    return ActorScore(
        precision=true_positives / predictions if predictions else nan,
        recall=true_positives / actors if actors else nan,
        true_positives=true_positives,
        false_positives=predictions - true_positives,
        actors=actors,
        theta=theta,
        iou=iou,
    )


def actor_curve(
    truth: GroundTruth,
    persons: Detections,
    classes: Mapping[int, str],
    *,
    excluded: Set[tuple[str, int]] = frozenset(),
    iou: float = 0.5,
) -> ActorCurve:
    """(theta, precision, recall), each (K,): every theta at which the numbers change, ascending.

    The thetas are the K distinct scores of the scored predictions. At each the numbers are exactly
    those of `actor_precision_recall` there, so the prediction scored theta is itself out, and the
    last precision is NaN. For "everything in", ask `actor_precision_recall` below the least score.
    """
    hit, score, actors = _claims(truth, persons, classes, excluded, iou)
    order = np.argsort(-score, kind="stable")
    theta = np.unique(score)
    predictions = len(score) - np.searchsorted(np.sort(score), theta, side="right")  # above theta
    hits = np.concatenate([[0], np.cumsum(hit[order])])[predictions]
    precision = np.full(len(theta), nan)
    np.divide(hits, predictions, out=precision, where=predictions > 0)
    recall = hits / actors if actors else np.full(len(theta), nan)
    return ActorCurve(theta, precision, recall)


def _claims(
    truth: GroundTruth,
    persons: Detections,
    classes: Mapping[int, str],
    excluded: Set[tuple[str, int]],
    iou: float,
) -> tuple[Bools, Floats, int]:
    """Match all predictions, whatever their score: true positive (K,), p(alpha) (K,), actors."""
    check_task(truth, classes, iou)
    truth_frame, found_frame, excluded_frame = frame_keys(truth, persons, excluded)
    ids = np.array(sorted(classes), dtype=np.int64)
    evaluated = (lookup(ids, truth.label) >= 0) & (lookup(excluded_frame, truth_frame) < 0)
    actor = _distinct(truth_frame, truth.box, np.flatnonzero(evaluated))
    kept = (lookup(excluded_frame, found_frame) < 0) & right_way_round(persons.box)
    score = persons.score[kept]
    claimed = match(
        truth_frame[actor], truth.box[actor], found_frame[kept], persons.box[kept], score, iou=iou
    )
    return claimed >= 0, score, len(actor)


def _distinct(frame: Ints, box: Floats, rows: Ints) -> Ints:
    """Of the given rows, the first of each (frame, box), in row order.

    The rows of one person repeat the coordinate text, so equal boxes are exactly equal.
    """
    order = rows[np.lexsort((*box[rows].T, frame[rows]))]
    new = np.ones(len(order), dtype=np.bool_)
    new[1:] = (frame[order][1:] != frame[order][:-1]) | (box[order][1:] != box[order][:-1]).any(axis=1)
    return np.sort(order[new])
