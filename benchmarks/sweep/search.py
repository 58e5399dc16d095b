"""A search: Optuna proposes recipes, ASHA stops the worst; trials see training videos alone."""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.sweep.cluster import Resources  # isort: skip  (sets what Ray reads when it is imported)

import ray
import torch
from ray import tune

from benchmarks.context import Callbacks, RunContext, Step
from benchmarks.experiments import Experiment
from benchmarks.score.detections import filter_by_score
from benchmarks.score.evaluate import frame_ap, protocol_of
from benchmarks.score.predict import annotated_boxes, predict
from benchmarks.score.results import CURVE_THETA, save
from benchmarks.sweep.trials import failure_reason
from benchmarks.train.data import load_data
from benchmarks.train.loop import QUARTERS, Validation, fit, quarters, training_steps
from benchmarks.train.models import build_model, initialise
from benchmarks.train.state import new_state
from datasets.split import Split, hold_out_videos, subsample

THETAS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
"""Tried with each trained model: a threshold costs no training."""
HOLD_OUT_EVERY = 5
"""Every n-th training video is held out for validation."""
CLIPS = 240
"""Held-out keyframes of a validation."""


class TrialLog:
    """trials.csv: finished trials; a value of each field of the space, then reports, theta, mAP."""

    def __init__(self, path: Path, space: Mapping[str, tuple[float, float]], *, quiet: bool = False) -> None:
        """quiet: print no line for each trial. Raises ValueError naming the line that is no trial."""
        self.path, self.space, self.quiet = path, dict(space), quiet
        self.columns = [*space, "looks", "theta", "mAP"]  # "looks": reports, as files have it since the first
        self.trials: list[dict[str, float]] = []
        if path.exists():
            with open(path, newline="") as file:
                for number, line in enumerate(csv.DictReader(file), 2):
                    try:
                        self.trials.append({name: float(line[name]) for name in self.columns})
                    except (KeyError, TypeError, ValueError) as error:
                        raise ValueError(
                            f"{path}, line {number}: not a trial of this search ({error}); delete the file"
                        ) from error

    def add(self, trial: Mapping[str, float]) -> None:
        """Save a finished trial at once. One without all its reports was stopped early."""
        self.trials.append({name: float(trial[name]) for name in self.columns})
        last = self.trials[-1]
        if not self.quiet:
            values = ", ".join(f"{name} {last[name]:.3g}" for name in self.space)
            print(
                f"trial {len(self.trials)}: mAP {100 * last['mAP']:.1f} "
                f"after validation {last['looks']:g} ({values})"
            )

        def write(part: Path) -> None:
            with open(part, "w", newline="") as file:
                lines = csv.DictWriter(file, self.columns, lineterminator="\n")
                lines.writeheader()
                lines.writerows(self.trials)

        save(self.path, write)

    def table(self) -> str:
        """The trials, best first."""
        ranked = sorted(self.trials, key=lambda trial: -trial["mAP"])
        head = " ".join(f"{name:>9}" for name in self.columns)
        return "\n".join([head, *(" ".join(f"{t[name]:9.4g}" for name in self.columns) for t in ranked)])


@dataclass(frozen=True)
class SearchSpec:
    """What every trial of a search has in common. Plain values, for they are sent to other machines."""

    experiment: dict[str, Any]
    roots: dict[str, str]
    initial_weights: str | None
    resources: Resources


def search(spec: SearchSpec, log: TrialLog, *, trials: int, seed: int, at_once: int, logs: Path) -> None:
    """Run `trials` trials in a `cluster`: Optuna proposes from log.space, knowing those in the log.

    log.space: field of an Experiment -> range, sampled log-uniformly. logs: directory of Ray's own records.
    """
    import optuna
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    known = [{name: trial[name] for name in log.space} for trial in log.trials]
    proposals = OptunaSearch(
        {name: optuna.distributions.FloatDistribution(*ends, log=True) for name, ends in log.space.items()},
        metric="mAP",
        mode="max",
        seed=seed + len(known),
        points_to_evaluate=known or None,
        evaluated_rewards=[trial["mAP"] for trial in log.trials] if known else None,
    )
    tune.Tuner(
        tune.with_resources(
            tune.with_parameters(_search_trial, spec=spec),
            {"cpu": spec.resources.num_cpus, "gpu": spec.resources.num_gpus},
        ),
        tune_config=tune.TuneConfig(
            metric="mAP",
            mode="max",
            num_samples=trials,
            search_alg=proposals,
            scheduler=ASHAScheduler(
                time_attr="looks", max_t=len(QUARTERS), grace_period=1, reduction_factor=2
            ),
            max_concurrent_trials=at_once,
        ),
        run_config=tune.RunConfig(
            name="logs", storage_path=str(logs.resolve()), callbacks=[_Keep(log)], verbose=0
        ),
    ).fit()


def _search_trial(config: dict[str, float], spec: SearchSpec) -> None:
    """Runs in a Ray worker: one proposal."""
    cuda = bool(ray.get_gpu_ids())
    torch.set_num_threads(max(1, int(spec.resources.num_cpus)))
    run_trial(
        Experiment(**(spec.experiment | config)),
        {name: Path(path) for name, path in spec.roots.items()},
        None if spec.initial_weights is None else Path(spec.initial_weights),
        RunContext(
            device=torch.device("cuda" if cuda else "cpu"),
            out=Path(),  # a trial writes no files
            workers=spec.resources.workers,
            readers=spec.resources.readers,
        ),
        tune.report,
    )


class _Keep(tune.Callback):
    """Saves finished trials, and those stopped early, in the log."""

    def __init__(self, log: TrialLog) -> None:
        self.log = log

    def __getstate__(self) -> dict[str, Any]:
        """Ray writes its callbacks to disk; the log stays here."""
        return {}

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        if "mAP" in trial.last_result:
            self.log.add({**trial.config, **{k: trial.last_result[k] for k in ("looks", "theta", "mAP")}})

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        error = Path(trial.error_file).read_text() if trial.error_file else ""
        print(f"a trial failed: {failure_reason(error, Path(os.devnull))}", file=sys.stderr, flush=True)


def run_trial(
    exp: Experiment,
    roots: Mapping[str, Path],
    initial_weights: Path | None,
    context: RunContext,
    report: Callable[[dict[str, float]], None],
) -> None:
    """Train on the training videos but those held out, and report each validation on these.

    A report: validations so far, the best theta, and the frame-mAP (fraction) at it.
    """
    rest, held_out = hold_out_videos(load_data(exp, roots).train, every=HOLD_OUT_EVERY)
    held_out = subsample(held_out, CLIPS)
    torch.manual_seed(exp.seed)
    model = build_model(exp, len(rest.classes))
    if initial_weights is not None:
        initialise(model, initial_weights)
    model.to(context.device)
    steps, warmup = training_steps(exp, len(rest))
    best: list[float] = []

    def validate() -> float:
        theta, mAP = best_theta(model, held_out, exp, context)
        best.append(theta)
        return mAP

    class Reporter(Callbacks):
        def on_validation(self, step: Step) -> None:
            report({"looks": len(best), "theta": best[-1], "mAP": step.mAP or 0.0})

    state = new_state(model, exp, steps=steps, warmup=warmup)
    fit(state, rest, exp, context, [Reporter()], validation=Validation(quarters(steps), validate))


def best_theta(
    model: torch.nn.Module, split: Split, exp: Experiment, context: RunContext
) -> tuple[float, float]:
    """-> (theta, frame-mAP) of the best of THETAS."""
    boxes = annotated_boxes(split) if exp.method == "two_stage" else None
    detections = predict(model, split, replace(exp, theta=CURVE_THETA), context, boxes)
    scored = {
        theta: frame_ap(split, filter_by_score(detections, theta), protocol_of(exp)).mAP for theta in THETAS
    }
    best = max(scored, key=lambda theta: scored[theta])
    return best, scored[best]
