"""One training and the rows scored with it: data, training, scores, Results. Reads downward."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.context import Callbacks, RunContext
from benchmarks.distributed import all_gather, rank
from benchmarks.experiments import Experiment
from benchmarks.score.analysis import Analysis, analyse
from benchmarks.score.detections import SplitDetections, expand_rows, filter_by_score, scored_by
from benchmarks.score.diagnostics import Diagnostics, diagnose
from benchmarks.score.evaluate import benchmark, frame_ap, protocol_of, random_classes, top1_accuracy
from benchmarks.score.predict import predict
from benchmarks.score.provenance import environment, scoring_code
from benchmarks.score.results import CURVE_THETA, TABLE_THETA, Result, none_if_nan, save
from benchmarks.train.data import Data, given_boxes, load_data
from benchmarks.train.gflops import count_experiment
from benchmarks.train.training import FinishedTraining, train
from datasets.split import Split
from evaluators import EvalRules
from evaluators.ava_csv import write_detections, write_frame_detections, write_persons
from evaluators.precision_recall import actor_precision_recall

MAX_ROWS = 50_000_000
"""Of a run's detections: a csv of 6 GB. In AVA's 57,000 validation clips, 11 actors each."""


class TooManyError(ValueError):
    """A model keeps too many candidates: the message says how many, and what to do."""


def run(
    experiments: Sequence[Experiment],
    roots: Mapping[str, Path],
    context: RunContext,
    callbacks: Sequence[Callbacks] = (),
) -> list[Result]:
    """Train what these rows share, where that is still to do, and score each of them.

    experiments: of one `training_hash`. roots: dataset name -> folder. Of processes that share the run each
    calls this; the first one writes OUT/trainings/<training_hash>/, and for each row OUT/runs/<hash>/ with
    detections, persons and, last, result.json.
    Raises ValueError where the rows share no training; TooManyError where one keeps more detections than
    MAX_ROWS, after the others are scored.
    """
    exp, *others = experiments
    if any(other.training_hash != exp.training_hash for other in others):
        raise ValueError("only experiments that differ in inference-only fields share a training")
    data, root = load_data(exp, roots), roots[exp.dataset]
    for one in experiments:  # errors in the boxes before the training, not after
        given_boxes(one, data.report, root)
    training = train(exp, data, context, callbacks)
    results, refused = {}, []
    for rows in rows_of_a_prediction(experiments):
        # One pass for rows that differ in theta and score: what passes a higher theta is a part of what
        # passes the lowest, and the product of the scores comes after.
        lowest = replace(rows[0], theta=min(CURVE_THETA, *(one.theta for one in rows)), score="action")
        boxes, clock = given_boxes(lowest, data.report, root), time.monotonic()
        predicted = predict(training.model, data.report, lowest, context, boxes, callbacks)
        seconds = time.monotonic() - clock
        for one in rows:
            try:
                results[one.hash] = score(one, training, data, predicted, context, seconds=seconds)
            except TooManyError as error:  # at this theta: the other rows can be scored all the same
                refused.append(str(error))
            for callback in callbacks:  # at AVA's size a row takes minutes, and a watchdog counts
                callback.on_batch()
    if refused:
        raise TooManyError("; ".join(refused))
    return [results[one.hash] for one in experiments]


def rows_of_a_prediction(experiments: Sequence[Experiment]) -> list[list[Experiment]]:
    """Rows of one training, those together whose detections follow from one pass through the model."""
    rows: dict[tuple[object, ...], list[Experiment]] = {}
    for exp in experiments:
        rows.setdefault((exp.nms_iou, exp.boxes), []).append(exp)
    return list(rows.values())


def score(
    exp: Experiment,
    training: FinishedTraining,
    data: Data,
    predicted: SplitDetections,
    context: RunContext,
    *,
    seconds: float,
) -> Result:
    """Score one row on its report split; write detections, persons and, last, result.json.

    predicted: the candidates of the split at a theta of at most the row's and CURVE_THETA, with the scores of
    the actions; that took `seconds`.
    Raises TooManyError, with nothing written.
    """
    clock, split, protocol = time.monotonic() - seconds, data.report, protocol_of(exp)
    candidates = filter_by_score(scored_by(predicted, exp.score), min(exp.theta, CURVE_THETA))
    detections = filter_by_score(candidates, exp.theta)
    _refuse_too_many(detections, exp, len(split))
    at_theta = frame_ap(split, detections, protocol)
    at_curve_theta = at_theta
    if exp.theta != CURVE_THETA:
        at_curve_theta = frame_ap(split, filter_by_score(candidates, CURVE_THETA), protocol)
    analysis, diagnostics = _analyses(split, candidates, detections, exp)
    del candidates
    rules = EvalRules(excluded=split.excluded)
    actors = actor_precision_recall(
        split.ground_truth, detections.persons, split.evaluated, theta=TABLE_THETA, rules=rules
    )
    counted, duplicates = count_experiment(exp, len(split.classes)), analysis.errors["duplicate"]
    result = Result(
        experiment=asdict(exp),
        hash=exp.hash,
        training=exp.training_hash,
        split=data.report_name,
        protocol=protocol,
        mAP=at_theta.mAP,
        mAP_slowfast=frame_ap(split, detections, "slowfast").mAP if benchmark(exp) == "ava" else None,
        accuracy=top1_accuracy(split, detections) if exp.method == "classification" else None,
        mAP_curve_theta=at_curve_theta.mAP,
        mAP_untrained=training.record.mAP_untrained,
        mAP_random_classes=random_classes(split, protocol).mAP,
        precision=none_if_nan(actors.precision),
        recall=actors.recall,
        **asdict(diagnostics),
        mAP_without_duplicates=None if duplicates is None else at_theta.mAP + duplicates,
        per_class={at_theta.classes[i]: none_if_nan(ap) for i, ap in at_theta.ap.items()},
        clips=len(split),
        substituted=training.record.substituted,
        left_out=len(data.left_out),
        gflops=counted.gflops,
        parameters=counted.params,
        seconds_training=training.record.seconds,
        seconds=training.record.seconds + time.monotonic() - clock,
        started=training.record.started,
        origin=training.origin | {"scoring": scoring_code()},
        **environment(context.device),
    )
    if rank() == 0:
        _write(context.runs / exp.hash, exp, result, analysis, detections)
    return result


def _analyses(
    split: Split, candidates: SplitDetections, detections: SplitDetections, exp: Experiment
) -> tuple[Analysis, Diagnostics]:
    """Analyse in the first process, for all: at AVA's size this takes minutes and gigabytes."""
    analyses = None
    if rank() == 0:
        product = exp.score == "product"
        analyses = (
            analyse(split, candidates, detections, protocol_of(exp), product=product),
            diagnose(split, candidates, detections, product=product),
        )
    first: tuple[Analysis, Diagnostics] = all_gather(analyses)[0]
    return first


def _write(
    folder: Path, exp: Experiment, result: Result, analysis: Analysis, detections: SplitDetections
) -> None:
    """Write a run's files, result.json last: a run is done where it is there."""
    folder.mkdir(parents=True, exist_ok=True)
    write = write_detections if benchmark(exp) == "ava" else write_frame_detections
    write(folder / "detections.csv", expand_rows(detections))
    write_persons(folder / "persons.csv", detections.persons)
    text = json.dumps(asdict(analysis))
    save(folder / "analysis.json", partial(Path.write_text, data=text))
    text = json.dumps(asdict(result), indent=1)
    save(folder / "result.json", partial(Path.write_text, data=text))


def _refuse_too_many(detections: SplitDetections, exp: Experiment, clips: int) -> None:
    """A model that has learned nothing keeps every candidate: a file of 40 GB says no more than that."""
    kept, rows = len(detections.persons.score), detections.scores.size
    if rows <= MAX_ROWS:
        return
    enough = float(np.sort(detections.persons.score)[-(MAX_ROWS // detections.scores.shape[1]) - 1])
    higher = f", or set theta to {math.ceil(1e6 * enough) / 1e6:g} or more" if enough < 0.9999 else ""
    raise TooManyError(
        f"at theta {exp.theta:g} the model keeps {kept:,} candidates of {clips:,} clips, "
        f"{kept / clips:.0f} a clip: {rows:,} rows of detections; at most {MAX_ROWS:,} are written. "
        f"It tells actors from the rest too badly: train longer{higher} (the training is kept, and its "
        "rows of every theta are scored from it)"
    )
