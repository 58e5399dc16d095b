"""The analysis of a run that reports draw beside its mAP, computed when the run is scored: analysis.json."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.score.detections import SplitDetections, expand_rows
from benchmarks.score.resampled import sampled_metrics
from benchmarks.score.results import TABLE_THETA, none_if_nan
from datasets.split import Split
from evaluators.errors import error_budget
from evaluators.frame_map import EvalRules, frame_keys
from evaluators.jackknife import intervals
from evaluators.matching import match
from evaluators.precision_recall import actor_curve, actor_precision_recall

THETAS = np.linspace(0, 1, 101)


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """Fractions are in [0, 1]; NaN is None, as in all our JSON."""

    mAP_low: float | None
    mAP_high: float | None
    """Ends of the 95 % interval of the mAP, by a jackknife over videos; None for a single video."""
    boxes: dict[str, int]
    """Class name -> ground-truth boxes."""
    precision: list[float | None]
    recall: list[float | None]
    """Of actors with p(alpha) above each of THETAS; precision is None without detections."""
    errors: dict[str, float | None]
    """Cause -> mAP gain of correcting all errors of this cause, and no other: `evaluators.errors`."""
    confusion: list[list[float]]
    """Annotated classes (rows) against the highest-scored class (columns) of matched actors: shares of a row,
    classes in the order of `boxes`; a row of zeros where no actor of the class is matched."""
    sampled: dict[str, list[float | None]]
    """Metric -> its value in each bootstrap sample of the videos: `benchmarks.score.resampled`."""


def analyse(
    split: Split, candidates: SplitDetections, detections: SplitDetections, protocol: str, *, product: bool
) -> Analysis:
    """Analyse a row's detections of the split that it reports on; arguments as of `diagnose`."""
    gt, ids = split.ground_truth, sorted(split.evaluated)
    rules = EvalRules(protocol, excluded=split.excluded)
    rows, persons = expand_rows(detections, ids), detections.persons
    ends = intervals(gt, rows, split.evaluated, rules=rules)
    actor_rules = EvalRules(excluded=split.excluded)
    curve = actor_curve(gt, persons, split.evaluated, rules=actor_rules)
    # The curve has a point at each p(alpha), and is constant between two. Below the lowest all are detected.
    lowest = actor_precision_recall(gt, persons, split.evaluated, theta=-1.0, rules=actor_rules)
    at = np.searchsorted(curve.theta, THETAS, side="right")
    precision = np.append(lowest.precision, curve.precision)[at]
    recall = np.append(lowest.recall, curve.recall)[at]
    budget = error_budget(gt, rows, split.evaluated, rules=rules)
    return Analysis(
        mAP_low=none_if_nan(ends.low),
        mAP_high=none_if_nan(ends.high),
        boxes={split.evaluated[i]: int((gt.label == i).sum()) for i in ids},
        precision=[none_if_nan(x) for x in precision],
        recall=[none_if_nan(x) for x in recall],
        errors={cause: none_if_nan(gain) for cause, gain in budget.mAP_gain.items()},
        confusion=confusion(split, detections).tolist(),
        sampled=sampled_metrics(split, candidates, detections, protocol, product=product),
    )


def confusion(split: Split, detections: SplitDetections, *, iou: float = 0.5) -> NDArray[np.float64]:
    """(C, C) `Analysis.confusion`, of actors above TABLE_THETA, matched as in frame-mAP."""
    gt, persons, ids = split.ground_truth, detections.persons, np.array(sorted(split.evaluated))
    kept = np.flatnonzero(persons.score > TABLE_THETA)
    gt_frame, frame, excluded = frame_keys(gt, persons, split.excluded)
    labelled = np.flatnonzero(np.isin(gt.label, ids) & ~np.isin(gt_frame, excluded))
    assigned = match(
        gt_frame[labelled],
        gt.box[labelled],
        frame[kept],
        persons.box[kept],
        persons.score[kept],
        iou=iou,
    )
    scores = detections.scores[:, np.isin(detections.ids, ids)]
    actors, actor_of = np.unique(
        np.column_stack([gt_frame[labelled], gt.box[labelled]]), axis=0, return_inverse=True
    )
    annotated = np.zeros((len(actors), len(ids)))
    annotated[actor_of, np.searchsorted(ids, gt.label[labelled])] = 1
    predicted = np.eye(len(ids))[scores[kept].argmax(1)]
    counts = annotated[actor_of[assigned[assigned >= 0]]].T @ predicted[assigned >= 0]
    shares: NDArray[np.float64] = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    return shares


def read_analysis(path: Path) -> Analysis | None:
    """Read an analysis; None where there is none of this version, and a report leaves out what needs it."""
    try:
        return Analysis(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None
