"""Runs on own data (`python -m benchmarks.train`): their table, and a run's classes and errors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.experiments import TRAINING, Experiment
from benchmarks.score.analysis import read_analysis
from benchmarks.score.results import Result, read_result
from reports.runs import Run, read_log

TITLE = "Your own data: frame-mAP of the validation split"
NOTE = (
    "mAP in per cent at IoU 0.5, mean and standard deviation over the seeds; 95 %: of the first seed, by a "
    "jackknife over the videos. Chance: ground-truth boxes with random classes. Precision and recall: of "
    "actors with p(alpha) above 0.2. Actor AP: of persons, whatever they do; class AP: of the classes, on "
    "ground-truth boxes."
)
TEXT = ("data", "network", "initialised from")


def own_runs(out: Path) -> tuple[list[Run], list[str]]:
    """The runs on own data in an output directory, by data and experiment; and why others cannot be read."""
    runs, problems = [], []
    for path in sorted((out / "runs").glob("*/result.json")):
        try:
            result = read_result(path)
        except ValueError as error:
            problems.append(str(error))
            continue
        exp = Experiment(**result.experiment)
        if exp.own is None:
            continue
        name = f"own/{exp.own}" + (f" seed {exp.seed}" if exp.seed else "")
        analysis = read_analysis(path.with_name("analysis.json"))
        log = read_log(out / "trainings" / exp.training_hash)
        runs.append(Run((name,), exp, result, analysis, log))
    return sorted(runs, key=lambda run: (run.experiment.own or "", run.result.started)), problems


def text_rows(runs: Sequence[Run]) -> list[dict[str, str]]:
    """The table's lines as text: one for each experiment, whatever its seeds."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        values = {**run.result.experiment, "seed": 0}
        groups.setdefault(repr(sorted(values.items())), []).append(run)
    return [_line(sorted(group, key=lambda run: run.experiment.seed)) for group in groups.values()]


def _line(group: Sequence[Run]) -> dict[str, str]:
    first, results = group[0], [run.result for run in group]
    exp = first.experiment
    low, high = (first.analysis.mAP_low, first.analysis.mAP_high) if first.analysis else (None, None)
    return {
        "data": exp.own or "",
        "network": exp.backbone,
        "initialised from": _initial(exp),
        "epochs": f"{exp.epochs:g}",
        "seeds": str(len(group)),
        "mAP": _mean(results, "mAP"),
        "95 %": "" if low is None or high is None else f"{100 * low:.1f} to {100 * high:.1f}",
        "chance": _mean(results, "mAP_random_classes"),
        "untrained": _mean(results, "mAP_untrained"),
        "precision": _mean(results, "precision"),
        "recall": _mean(results, "recall"),
        "actor AP": _mean(results, "actor_ap_50"),
        "class AP": _mean(results, "class_ap_true_boxes"),
        "run": first.result.hash,
    }


def _initial(exp: Experiment) -> str:
    if exp.weights is None:
        return "random weights"
    return "another training" if exp.weights.startswith(TRAINING) else exp.weights


def _mean(results: Sequence[Result], field: str) -> str:
    """Mean and, of several seeds, standard deviation of a field in per cent."""
    values = np.array([np.nan if (v := getattr(r, field)) is None else v for r in results], np.float64) * 100
    if np.isnan(values).all():
        return ""
    mean = f"{np.nanmean(values):.1f}"
    return mean if len(values) < 2 else f"{mean} ± {np.nanstd(values, ddof=1):.1f}"


def markdown(runs: Sequence[Run]) -> str:
    """The table as Markdown."""
    frame = pd.DataFrame(text_rows(runs))
    align = ["left" if name in TEXT else "right" for name in frame]
    table = frame.to_markdown(index=False, disable_numparse=True, colalign=align)
    return f"## {TITLE}\n\n{table}\n\n{NOTE}\n"


def details(run: Run) -> str:
    """AP of each class and the error budget of a run, as text."""
    counts = run.analysis.boxes if run.analysis else {}
    width = max((len(name) for name in run.result.per_class), default=5)
    lines = [f"{'class':<{width}}  {'AP':>6}  {'boxes':>7}"]
    by_frequency = sorted(run.result.per_class.items(), key=lambda item: -counts.get(item[0], 0))
    for name, ap in by_frequency:
        lines.append(f"{name:<{width}}  {_number(ap):>6}  {counts.get(name, 0):>7,}")
    if run.analysis:
        lines += ["", "mAP gain if one cause of errors alone is corrected:"]
        lines += [f"  {cause:<12} {_number(gain, '+'):>6}" for cause, gain in run.analysis.errors.items()]
    return "\n".join(lines)


def _number(value: float | None, sign: str = "") -> str:
    return "-" if value is None else f"{100 * value:{sign}.1f}"
