"""Precision and recall of actors at a confidence theta, whatever action they perform.

This is the question of the paper's Table 2b: p(alpha), the probability that a candidate is an
actor, against a threshold. The labels of the detections play no part.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import nan
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from evaluators.frame_map import (
    STANDARD_RULES,
    Detections,
    EvalRules,
    GroundTruth,
    Protocol,
    check_inputs,
    frame_keys,
)
from evaluators.matching import Bools, Floats, Ints, has_positive_area, lookup, match
from evaluators.notebook import Shown, html, to_frame

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class ActorScore(Shown):
    """Precision and recall at one theta, pooled over frames. Fractions in [0, 1]."""

    precision: float  # NaN without detections above theta
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

    def to_frame(self) -> "pd.DataFrame":
        """The curve by theta. ImportError without pandas."""
        return to_frame(self)

    def _repr_html_(self) -> str:
        return html(self)


def actor_precision_recall(
    ground_truth: GroundTruth,
    persons: Detections,
    classes: Mapping[int, str],
    *,
    rules: EvalRules = STANDARD_RULES,
    theta: float = 0.2,
) -> ActorScore:
    """Score the detections with p(alpha) > theta (strictly) against the actors.

    Actors are the distinct (video, frame, box) of the ground truth with at least one evaluated
    label, on frames that are not excluded. `persons` has one row per detected person, its score
    p(alpha); its labels are ignored. Matching is that of AVA frame-mAP with all actors as one
    class: a detection's only target is the actor it overlaps most, and the first by score is the
    true positive. Of `rules`, iou and excluded apply; the protocol is STANDARD.

    ValueError: no classes, another protocol, an inverted or empty ground-truth box, theta NaN.
    """
    if np.isnan(theta):
        raise ValueError("theta is NaN; give a number, such as 0.2")
    hit, score, actors = _match_actors(ground_truth, persons, classes, rules)
    # Thresholding after matching is exact: only a detection of higher score can take a match away.
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
        iou=rules.iou,
    )


def actor_curve(
    ground_truth: GroundTruth,
    persons: Detections,
    classes: Mapping[int, str],
    *,
    rules: EvalRules = STANDARD_RULES,
) -> ActorCurve:
    """Compute (theta, precision, recall), each (K,), at every theta at which they change, ascending.

    The thetas are the K distinct scores of the detections that count. At each, the numbers are exactly
    those of `actor_precision_recall`: the detection scored theta is itself below the threshold, so
    the last precision is NaN. To include all detections, call `actor_precision_recall` with a theta
    below the least score. Arguments and errors as there.
    """
    hit, score, actors = _match_actors(ground_truth, persons, classes, rules)
    order = np.argsort(-score, kind="stable")
    theta = np.unique(score)
    predictions = len(score) - np.searchsorted(np.sort(score), theta, side="right")  # above theta
    hits = np.concatenate([[0], np.cumsum(hit[order])])[predictions]
    precision = np.full(len(theta), nan)
    np.divide(hits, predictions, out=precision, where=predictions > 0)
    recall = hits / actors if actors else np.full(len(theta), nan)
    return ActorCurve(theta, precision, recall)


def _match_actors(
    ground_truth: GroundTruth, persons: Detections, classes: Mapping[int, str], rules: EvalRules
) -> tuple[Bools, Floats, int]:
    """Match all detections, whatever their score: true positive (K,), p(alpha) (K,), number of actors."""
    if rules.protocol != Protocol.STANDARD:
        raise ValueError(
            f"actors are matched by protocol standard, not by {rules.protocol}; pass iou and excluded only"
        )
    check_inputs(ground_truth, classes)
    gt_frame, det_frame, excluded_frame = frame_keys(ground_truth, persons, rules.excluded)
    ids = np.array(sorted(classes), dtype=np.int64)
    # Actors: distinct boxes with an evaluated label on frames that are not excluded.
    evaluated = (lookup(ids, ground_truth.label) >= 0) & (lookup(excluded_frame, gt_frame) < 0)
    actor = _distinct(gt_frame, ground_truth.box, np.flatnonzero(evaluated))
    kept = (lookup(excluded_frame, det_frame) < 0) & has_positive_area(persons.box)
    score = persons.score[kept]
    assigned = match(
        gt_frame[actor], ground_truth.box[actor], det_frame[kept], persons.box[kept], score, iou=rules.iou
    )
    return assigned >= 0, score, len(actor)


def _distinct(frame: Ints, box: Floats, rows: Ints) -> Ints:
    """Of the given rows, the first of each (frame, box), in row order.

    The rows of one person repeat the coordinate text, so equal boxes are exactly equal.
    """
    order = rows[np.lexsort((*box[rows].T, frame[rows]))]
    new = np.ones(len(order), dtype=np.bool_)
    new[1:] = (frame[order][1:] != frame[order][:-1]) | (box[order][1:] != box[order][:-1]).any(axis=1)
    return np.sort(order[new])
