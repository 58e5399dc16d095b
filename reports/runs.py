"""The runs of a sweep, read from its output directory: results, analyses, training logs and models."""

from __future__ import annotations

import glob
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch

from actloc_core.model import ActionLocalizer
from benchmarks.experiments import HIERA_L, OURS, ROWS, SCALES, Experiment, rows_at
from benchmarks.inputs import synthetic_folder
from benchmarks.score.analysis import Analysis, read_analysis
from benchmarks.score.results import Result, read_result
from benchmarks.train.data import load_data
from benchmarks.train.models import build_model
from datasets.split import Split
from reports.tables import SEEDS, published

LOG_LINES = 15
"""Last lines of the log of a training without a result that the page shows."""


@dataclass(frozen=True)
class Run:
    """A scored experiment, with the files beside its result."""

    names: tuple[str, ...]
    """Names of its rows, with the seed where it is not 0."""
    experiment: Experiment
    result: Result
    analysis: Analysis | None
    log: pd.DataFrame | None
    """log.csv of its training."""

    @property
    def label(self) -> str:
        """The name of the run in legends."""
        return label(self.names[0])


@dataclass(frozen=True)
class Unfinished:
    """A training without a result."""

    title: str
    """Names of its rows."""
    hash: str
    state: str
    """How far it came, as a sentence."""
    log: str
    """The last LOG_LINES lines of its log."""


@dataclass(frozen=True)
class Sweep:
    """All runs of a sweep at one scale, in the order of the tables."""

    runs: list[Run]
    problems: list[str]
    """Why results could not be read, one message each."""
    unfinished: list[Unfinished]


def label(name: str) -> str:
    """The method's name, in the paper's words, for a row's name with or without " seed N".

    The paper's method has one name, 2(C+T), in whatever table its row stands.
    """
    row, _, seed = name.partition(" seed ")
    exp = ROWS.get(row)
    if exp == OURS:
        method = "2(C+T)"
    elif exp == HIERA_L:
        method = "2(C+T), Hiera-L"
    else:
        method = str(published()["method"].get(row, row))
    return method + (f", seed {seed}" if seed else "")


def load_sweep(out: Path, scale: str) -> Sweep:
    """Load every run of a sweep from its output directory."""
    names: dict[str, list[str]] = {}
    experiments: dict[str, Experiment] = {}
    for seed in range(SEEDS):
        for row, exp in rows_at(scale, seed=seed).items():
            names.setdefault(exp.hash, []).append(f"{row} seed {seed}" if seed else row)
            experiments[exp.hash] = exp
    scored = {
        exp.training_hash for key, exp in experiments.items() if (out / "runs" / key / "result.json").exists()
    }
    sweep = Sweep([], [], [])
    for key, exp in experiments.items():
        folder, training = out / "runs" / key, out / "trainings" / exp.training_hash
        title = ", ".join(names[key])
        if (folder / "result.json").exists():
            try:
                result = read_result(folder / "result.json")
            except ValueError as error:
                sweep.problems.append(f"{title}: {error}")
                continue
            analysis = read_analysis(folder / "analysis.json")
            sweep.runs.append(Run(tuple(names[key]), exp, result, analysis, read_log(training)))
        elif training.is_dir() and exp.training_hash not in scored:
            sweep.unfinished.append(Unfinished(title, key, _state(training), _log_end(training)))
    return sweep


def read_log(training: Path) -> pd.DataFrame | None:
    """log.csv of a training; None where it is missing or empty."""
    try:
        log = pd.read_csv(training / "log.csv")
    except (OSError, ValueError):  # missing, or empty
        return None
    return log if {"step", "loss", "val_mAP"} <= set(log) and len(log) else None


def _state(training: Path) -> str:
    if (training / "checkpoint.pt").exists():
        return "The model is trained, but was not scored."
    log = read_log(training)
    if log is None:
        return "Stopped before its first step."
    return f"Stopped at step {int(log['step'].iloc[-1])}."


def _log_end(training: Path) -> str:
    try:
        return "\n".join((training / "trial.log").read_text(errors="replace").splitlines()[-LOG_LINES:])
    except OSError:
        return ""


def other_runs(out: Path, known: Collection[str]) -> list[tuple[str, str]]:
    """Runs in an output directory that are not among the known, such as of other scales: (hash, what)."""
    others = []
    for path in sorted((out / "runs").glob("*/result.json")):
        if path.parent.name in known:
            continue
        try:
            result = read_result(path)
        except ValueError:
            continue  # load_sweep and own_runs tell it
        exp = result.experiment
        what = f"{exp['dataset']}, {exp['method']}, {exp['backbone']}, {exp['selection']}, seed {exp['seed']}"
        others.append((result.hash, f"{what}: {100 * result.mAP:.1f} mAP"))
    return others


def find_run(out: Path, prefix: str) -> Run:
    """The run whose hash starts with a prefix. Raises ValueError unless there is exactly one."""
    matches = [
        run for scale in SCALES for run in load_sweep(out, scale).runs if run.result.hash.startswith(prefix)
    ]
    known = {run.result.hash for run in matches}
    for path in sorted((out / "runs").glob(f"{glob.escape(prefix)}*/result.json")):  # of rows with fields set
        if path.parent.name not in known:
            result = read_result(path)
            exp = Experiment(**result.experiment)
            analysis = read_analysis(path.with_name("analysis.json"))
            log = read_log(out / "trainings" / exp.training_hash)
            matches.append(Run((result.hash,), exp, result, analysis, log))
    if len(matches) != 1:
        raise ValueError(f"run {prefix}: {len(matches) or 'no'} runs in {out / 'runs'} start with this hash")
    return matches[0]


def best_single_stage(runs: Sequence[Run]) -> Run | None:
    """The single-stage run on AVA or AVA-shaped data with the highest mAP; None without any."""
    candidates = [
        run for run in runs if run.experiment.method == "single_stage" and "ava" in run.experiment.dataset
    ]
    return max(candidates, key=lambda run: run.result.mAP, default=None)


def report_split(out: Path, exp: Experiment) -> Split | None:
    """The split that a run reports on; None unless it is synthetic data that is still in `out`."""
    try:
        root = synthetic_folder(out / "data", exp.dataset)
    except KeyError:
        return None
    return load_data(exp, {exp.dataset: root}).report if root.exists() else None


def load_model(out: Path, run: Run, num_classes: int) -> ActionLocalizer:
    """The trained model of a single-stage run, on the CPU.

    Raises ValueError for another method, FileNotFoundError where the training's checkpoint is missing.
    """
    file = out / "trainings" / run.experiment.training_hash / "checkpoint.pt"
    if not file.exists():
        raise FileNotFoundError(f"{file}: checkpoint is missing; run {run.names[0]} again with --fresh")
    model = build_model(run.experiment, num_classes)
    if not isinstance(model, ActionLocalizer):
        method = run.experiment.method
        raise ValueError(f"{run.names[0]}: only single-stage models have token attention, not {method}")
    model.load_state_dict(torch.load(file, map_location="cpu", weights_only=True)["model"])
    return model
