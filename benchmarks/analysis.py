"""What a report draws of a run beside its mAP, worked out once, when the run is scored: analysis.json."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.actors import FoundActors, detections
from benchmarks.results import TABLE_THETA
from datasets.split import Split
from evaluators.bootstrap import bootstrap
from evaluators.errors import error_budget
from evaluators.frame_map import EvalRules, frame_keys
from evaluators.matching import match
from evaluators.precision_recall import actor_curve, actor_precision_recall

THETAS = np.linspace(0, 1, 101)
SAMPLES = 1000
"""Draws of the bootstrap."""


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """Fractions are in [0, 1]; NaN is None, as in all our JSON."""

    mAP_low: float | None
    mAP_high: float | None
    """The ends of the 95 % interval of the mAP, percentile bootstrap over videos; None of a single video."""
    boxes: dict[str, int]
    """Class name -> ground-truth boxes."""
    precision: list[float | None]
    recall: list[float | None]
    """Of actors, with p(alpha) above each of THETAS; precision is None where nobody is."""
    errors: dict[str, float | None]
    """Cause -> the mAP that putting right all of it, and nothing else, would add: `evaluators.errors`."""
    confusion: list[list[float]]
    """What the people that are found do (rows) and are most surely taken to do (columns): shares of a row,
    classes in the order of `boxes`; a row of zeros where nobody who does it is found."""


def analyse(split: Split, actors: FoundActors, protocol: str) -> Analysis:
    """Of a run on the split that it reports on."""
    truth, ids = split.ground_truth, sorted(split.evaluated)
    rules = EvalRules(protocol, excluded=split.excluded)
    found, persons = detections(actors, ids), actors.persons
    videos = len({*truth.video.tolist()})
    ends = bootstrap(truth, found, split.evaluated, samples=SAMPLES, rules=rules) if videos > 1 else None
    people = EvalRules(excluded=split.excluded)
    curve = actor_curve(truth, persons, split.evaluated, rules=people)
    # The curve has its numbers at each p(alpha) there is; from one to the next they stay. Below the least
    # everybody is in.
    everybody = actor_precision_recall(truth, persons, split.evaluated, theta=-1.0, rules=people)
    at = np.searchsorted(curve.theta, THETAS, side="right")
    precision = np.append(everybody.precision, curve.precision)[at]
    recall = np.append(everybody.recall, curve.recall)[at]
    budget = error_budget(truth, found, split.evaluated, rules=rules)
    return Analysis(
        mAP_low=_number(ends.low) if ends else None,
        mAP_high=_number(ends.high) if ends else None,
        boxes={split.evaluated[i]: int((truth.label == i).sum()) for i in ids},
        precision=[_number(x) for x in precision],
        recall=[_number(x) for x in recall],
        errors={cause: _number(price) for cause, price in budget.mAP_gain.items()},
        confusion=confusion(split, actors).tolist(),
    )


def confusion(split: Split, found: FoundActors, *, iou: float = 0.5) -> NDArray[np.float64]:
    """(C, C) `Analysis.confusion`. A person above TABLE_THETA is found who is matched as in frame-mAP."""
    truth, persons, ids = split.ground_truth, found.persons, np.array(sorted(split.evaluated))
    sure = np.flatnonzero(persons.score > TABLE_THETA)
    truth_frame, found_frame, excluded = frame_keys(truth, persons, split.excluded)
    labelled = np.flatnonzero(np.isin(truth.label, ids) & ~np.isin(truth_frame, excluded))
    claimed = match(
        truth_frame[labelled],
        truth.box[labelled],
        found_frame[sure],
        persons.box[sure],
        persons.score[sure],
        iou=iou,
    )
    scores = found.scores[:, np.isin(found.ids, ids)]
    person = np.column_stack([truth_frame[labelled], truth.box[labelled]])
    people, person_of = np.unique(person, axis=0, return_inverse=True)
    does = np.zeros((len(people), len(ids)))
    does[person_of, np.searchsorted(ids, truth.label[labelled])] = 1
    taken_for = np.eye(len(ids))[scores[sure].argmax(1)]
    counts = does[person_of[claimed[claimed >= 0]]].T @ taken_for[claimed >= 0]
    shares: NDArray[np.float64] = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    return shares


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def read_analysis(path: Path) -> Analysis | None:
    """None where there is none, or none of this version: a report then leaves out what needs it."""
    try:
        return Analysis(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None
