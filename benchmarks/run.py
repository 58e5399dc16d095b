"""One training and the rows scored with it: data, training, scores, Results. Reads downward."""

from __future__ import annotations

import json
import math
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from benchmarks import processes
from benchmarks.actors import FoundActors, above, detections
from benchmarks.analysis import analyse
from benchmarks.data import PROTOCOLS, Data, benchmark, frame_ap, given_boxes, load_data, random_classes
from benchmarks.engine import predict
from benchmarks.experiments import Experiment
from benchmarks.flops import count_experiment
from benchmarks.provenance import device_name, git_commit, scoring_code
from benchmarks.results import CURVE_THETA, TABLE_THETA, Result, save
from benchmarks.training import STATE_EVERY, Progress, Trained, train
from evaluators.ava_csv import write_detections, write_frame_detections, write_persons
from evaluators.frame_map import EvalRules
from evaluators.precision_recall import actor_precision_recall

MOST_ROWS = 50_000_000
"""Of a run's detections: a csv of 6 GB. In AVA's 57,000 validation clips, 11 actors each."""


class TooManyError(ValueError):
    """A model keeps masses of candidates: the message says how many, and what to do."""


def run(
    experiments: Sequence[Experiment],
    roots: Mapping[str, Path],
    out: Path,
    *,
    device: torch.device,
    weights: Mapping[str, Path] | None = None,
    workers: int = 0,
    fresh: str = "",
    state_every: float = STATE_EVERY,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    on_saved: Callable[[], None] = lambda: None,
    on_alive: Callable[[], None] = lambda: None,
) -> list[Result]:
    """Train what these rows share, where that is still to do, and score each of them.

    experiments: of one `training_hash`. roots: dataset name -> folder. weights: see `weights_file`.
    fresh, state_every, on_progress, on_saved, on_alive: see `train`.
    Of processes that share the run (`benchmarks.processes`) each calls this; the first one writes.
    Fills OUT/trainings/<training_hash>/, and for each row OUT/runs/<hash>/ with detections, persons
    and, last, result.json.
    Raises ValueError where the rows share no training; TooManyError where one keeps more detections than
    MOST_ROWS, after the others are scored.
    """
    exp, *others = experiments
    if any(other.training_hash != exp.training_hash for other in others):
        raise ValueError("only experiments that differ in inference alone share a training")
    data = load_data(exp, roots)
    for one in experiments:  # before the training, not after
        given_boxes(one, data.report, roots[exp.dataset])
    trained = train(
        exp,
        data,
        out / "trainings",
        device=device,
        weights=weights,
        workers=workers,
        fresh=fresh,
        state_every=state_every,
        on_progress=on_progress,
        on_saved=on_saved,
        on_alive=on_alive,
    )
    results, refused = [], []
    for one in experiments:
        folder = out / "runs" / one.hash
        try:
            results.append(
                score(
                    one,
                    trained,
                    data,
                    roots[exp.dataset],
                    folder,
                    device=device,
                    workers=workers,
                    on_alive=on_alive,
                )
            )
        except TooManyError as error:  # of this theta: the other rows can be scored all the same
            refused.append(str(error))
    if refused:
        raise TooManyError("; ".join(refused))
    return results


def score(
    exp: Experiment,
    trained: Trained,
    data: Data,
    root: Path,
    folder: Path,
    *,
    device: torch.device,
    workers: int = 0,
    on_alive: Callable[[], None] = lambda: None,
) -> Result:
    """Score one row on its report split; write detections, persons and, last, result.json.

    Raises TooManyError, with nothing written.
    """
    clock, split, protocol = time.monotonic(), data.report, PROTOCOLS[benchmark(exp)]

    candidates = predict(
        trained.model,
        split,
        device,
        theta=min(exp.theta, CURVE_THETA),
        score=exp.score,
        batch=exp.batch,
        nms_iou=exp.nms_iou,
        given=given_boxes(exp, split, root),
        keep_aspect=exp.short_sides is not None,
        bf16=exp.bf16,
        workers=workers,
        on_batch=on_alive,
    )
    found = above(candidates, exp.theta)
    _refuse_masses(found, exp, len(split))
    at_theta = frame_ap(split, found, protocol)
    if exp.theta == CURVE_THETA:
        curve_mAP = at_theta.mAP
    else:
        curve_mAP = frame_ap(split, above(candidates, CURVE_THETA), protocol).mAP
    del candidates
    actors = actor_precision_recall(
        split.ground_truth,
        found.persons,
        split.evaluated,
        theta=TABLE_THETA,
        rules=EvalRules(excluded=split.excluded),
    )
    counted = count_experiment(exp, len(split.classes))
    result = Result(
        experiment=asdict(exp),
        hash=exp.hash,
        training=exp.training_hash,
        split=data.report_name,
        protocol=protocol,
        mAP=at_theta.mAP,
        mAP_curve_theta=curve_mAP,
        mAP_untrained=trained.mAP_untrained,
        mAP_random_classes=random_classes(split, protocol).mAP,
        precision=None if np.isnan(actors.precision) else actors.precision,
        recall=actors.recall,
        per_class={at_theta.classes[i]: None if np.isnan(ap) else ap for i, ap in at_theta.ap.items()},
        clips=len(split),
        substituted=trained.substituted,
        gflops=counted.gflops,
        parameters=counted.params,
        seconds_training=trained.seconds,
        seconds=trained.seconds + time.monotonic() - clock,
        started=trained.started,
        origin=trained.origin | {"scoring": scoring_code()},
        commit=git_commit(),
        device=device_name(device)
        if processes.count() == 1
        else f"{processes.count()} x {device_name(device)}",
        versions={"python": platform.python_version()}
        | {name: version(name) for name in ("torch", "numpy", "av")},
    )
    if processes.place():
        return result
    folder.mkdir(parents=True, exist_ok=True)
    write = write_detections if benchmark(exp) == "ava" else write_frame_detections
    write(folder / "detections.csv", detections(found))
    write_persons(folder / "persons.csv", found.persons)
    analysis = json.dumps(asdict(analyse(split, found, protocol)))
    save(folder / "analysis.json", lambda path: path.write_text(analysis))
    text = json.dumps(asdict(result), indent=1)
    save(folder / "result.json", lambda path: path.write_text(text))
    return result


def _refuse_masses(found: FoundActors, exp: Experiment, clips: int) -> None:
    """A model that has learned nothing keeps every candidate: a file of 40 GB says no more than that."""
    kept, rows = len(found.persons.score), found.scores.size
    if rows > MOST_ROWS:
        enough = float(np.sort(found.persons.score)[-(MOST_ROWS // found.scores.shape[1]) - 1])
        higher = (
            f", or take a higher theta, {math.ceil(1e6 * enough) / 1e6:g} or more" if enough < 0.9999 else ""
        )
        raise TooManyError(
            f"at theta {exp.theta:g} the model keeps {kept:,} candidates of {clips:,} clips, "
            f"{kept / clips:.0f} a clip: {rows:,} rows of detections, where {MOST_ROWS:,} are the most that "
            f"are written. It tells people from the rest too badly: train longer{higher} (the training is "
            "kept, and its rows of every theta are scored from it)"
        )
