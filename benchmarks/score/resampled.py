"""What a row's numbers would be on other videos: bootstrap samples of the videos of the report split.

Every row of a split is scored on the same samples, so that the difference of two rows is one of pairs
(`reports.hypotheses`). Letters: V videos, S samples, A actors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from benchmarks.score.detections import SplitDetections, expand_rows
from benchmarks.score.diagnostics import actors_of, overlaps, rows_on_true_boxes
from benchmarks.score.results import TABLE_THETA, none_if_nan
from datasets.split import Split
from evaluators.errors import without_duplicates
from evaluators.frame_map import Detections, EvalRules, GroundTruth
from evaluators.resampling import resampled_mAP

SAMPLES = 400
SEED = 0
SMALL_SHARE = 0.5
"""Share of the split's actors that count as small, by the area of their boxes."""

METRICS = (
    "mAP", "mAP_without_duplicates", "actor_ap_50", "actor_ap_75", "class_ap_true_boxes", "recall",
    "recall_small", "recall_large",
)  # fmt: skip

Floats = NDArray[np.float64]


def sampled_metrics(
    split: Split, candidates: SplitDetections, detections: SplitDetections, protocol: str, *, product: bool
) -> dict[str, list[float | None]]:
    """Each of METRICS -> its value on the videos as they are, and in each sample: (1 + S,), fractions.

    None where a sample has no ground truth. Arguments as of `diagnose`.
    """
    names = sorted({video for video, _ in split.keyframes})
    weights = draw(len(names))
    number = {name: i for i, name in enumerate(names)}
    rules, actor_rules = EvalRules(protocol, excluded=split.excluded), EvalRules(excluded=split.excluded)
    ids = sorted(split.evaluated)

    def mAP(gt: GroundTruth, rows: Detections, classes: Mapping[int, str], rules: EvalRules) -> Floats:
        return resampled_mAP(gt, rows, classes, number, weights, rules=rules)

    rows, actors = expand_rows(detections, ids), actors_of(split, candidates.persons)
    persons = replace(candidates.persons, label=np.ones(len(candidates.persons.score), np.int64))
    on_boxes = rows_on_true_boxes(split, actors, candidates, product=product)
    sampled = {
        "mAP": mAP(split.ground_truth, rows, split.evaluated, rules),
        "mAP_without_duplicates": mAP(
            split.ground_truth,
            without_duplicates(split.ground_truth, rows, split.evaluated, rules=rules),
            split.evaluated,
            rules,
        ),
        "actor_ap_50": mAP(actors, persons, {1: "actor"}, actor_rules),
        "actor_ap_75": mAP(actors, persons, {1: "actor"}, replace(actor_rules, iou=0.75)),
        "class_ap_true_boxes": mAP(split.ground_truth, on_boxes, split.evaluated, actor_rules),
    }
    sampled |= _recalls(split, actors, detections.persons, number, weights)
    return {metric: [none_if_nan(round(x, 5)) for x in values.tolist()] for metric, values in sampled.items()}


def draw(videos: int) -> Floats:
    """How often each of V videos is drawn, (V, 1 + S): once, and then by V draws with replacement."""
    rng = np.random.default_rng(SEED)
    drawn = rng.multinomial(videos, np.full(videos, 1 / videos), size=SAMPLES)
    return np.concatenate([np.ones((1, videos)), drawn]).T


def _recalls(
    split: Split, actors: GroundTruth, persons: Detections, number: Mapping[str, int], weights: Floats
) -> dict[str, Floats]:
    """Recall of all actors, and of the smaller and the larger half, at TABLE_THETA and IoU 0.5."""
    persons = persons.take(np.flatnonzero(persons.score > TABLE_THETA))
    _, actor, iou = overlaps(split, actors, persons)
    found = np.zeros(len(actors.label), bool)
    found[actor[iou >= 0.5]] = True
    video = np.array([number[name] for name in actors.videos])[actors.video]
    units = np.array([split.box_unit(name) for name in actors.videos]).prod(1)[actors.video]
    area = (actors.box[:, 2:] - actors.box[:, :2]).prod(1) / units
    small = area <= np.quantile(area, SMALL_SHARE)
    recalls = {}
    for name, chosen in (("recall", small | True), ("recall_small", small), ("recall_large", ~small)):
        per_video = np.zeros((2, len(weights)))
        np.add.at(per_video, (found[chosen].astype(int), video[chosen]), 1)
        missed, hit = per_video @ weights
        with np.errstate(invalid="ignore"):
            recalls[name] = hit / (hit + missed)
    return recalls
