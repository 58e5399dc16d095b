"""Frame-mAP of a split's detections, under the protocol of its benchmark."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from benchmarks.experiments import Experiment
from benchmarks.score.detections import SplitDetections, expand_rows
from datasets.split import Split
from evaluators.frame_map import Detections, EvalRules, FrameMap, frame_mAP

PROTOCOLS = {"ava": "standard", "ucf24": "gurkirt", "jhmdb": "gurkirt", "kinetics": "standard"}
"""Benchmark -> the protocol of its number; see `evaluators.frame_map.Protocol`. Of whole frames,
which all overlap by 1, frame-mAP is the mean average precision of classes over clips."""
ROWS_AT_ONCE = 4_000_000
"""Detections that are scored together, some 1 GiB; of one class all, however many these are."""


def benchmark(exp: Experiment) -> str:
    """The benchmark whose formats and rules an experiment's dataset has: "ava", "ucf24", "jhmdb", "kinetics".

    Raises ValueError for another dataset.
    """
    name = exp.dataset.removeprefix("synthetic_").removesuffix("_smoke")
    if name not in PROTOCOLS:
        raise ValueError(f"unknown dataset {exp.dataset!r}; known are {', '.join(PROTOCOLS)}")
    return name


def protocol_of(exp: Experiment) -> str:
    """The protocol that an experiment is scored by."""
    return PROTOCOLS[benchmark(exp)]


def frame_ap(split: Split, detections: SplitDetections, protocol: str) -> FrameMap:
    """Frame-mAP of the detections of a split, by its own annotations, classes and exclusions.

    Raises ValueError as `frame_mAP` does.
    """
    ids = sorted(split.evaluated)
    # Classes interact only under a cap on the rows of a frame: without one, a few are scored at a time.
    rules = EvalRules(protocol, excluded=split.excluded)
    capped = rules.protocol_rules.max_per_frame is not None
    step = max(1, len(ids) if capped else ROWS_AT_ONCE // max(1, len(detections.persons.score)))
    scored = [
        frame_mAP(
            split.ground_truth,
            expand_rows(detections, some),
            {i: split.evaluated[i] for i in some},
            rules=rules,
        )
        for some in [ids[first : first + step] for first in range(0, len(ids), step)] or [[]]
    ]
    ap = {i: value for score in scored for i, value in score.ap.items()}
    counted = np.array([value for value in ap.values() if not np.isnan(value)])
    return replace(
        scored[0],
        mAP=float(counted.mean()) if len(counted) else np.nan,
        ap=ap,
        classes={i: split.evaluated[i] for i in ids},
        num_classes=len(counted),
        num_ground_truth=sum(score.num_ground_truth for score in scored),
        num_detections=sum(score.num_detections for score in scored),
        num_true_positives=sum(score.num_true_positives for score in scored),
    )


def random_classes(split: Split, protocol: str) -> FrameMap:
    """Score every true box with every class at random: the chance level of classification."""
    gt = split.ground_truth
    _, first = np.unique(np.column_stack([gt.video, gt.frame, gt.box]), axis=0, return_index=True)
    ids, boxes = np.array(sorted(split.evaluated)), gt.take(first)
    zeros = np.zeros(len(first))
    persons = Detections(
        boxes.videos, boxes.video, boxes.frame, boxes.box, label=zeros.astype(np.int64), score=zeros
    )
    scores = np.random.default_rng(0).random((len(first), len(ids)))
    return frame_ap(split, SplitDetections(persons, ids, scores), protocol)


def top1_accuracy(split: Split, detections: SplitDetections) -> float:
    """The share of clips whose class with the highest score is one of their labels.

    detections: of a classifier, one for each clip.
    """
    best = detections.ids[detections.scores.argmax(1)]
    gt, persons = split.ground_truth, detections.persons
    true = {(gt.videos[v], f, c) for v, f, c in zip(gt.video, gt.frame, gt.label, strict=True)}
    hits = [
        (persons.videos[v], f, c) in true for v, f, c in zip(persons.video, persons.frame, best, strict=True)
    ]
    return sum(hits) / len(split)
