"""One HTML page of a sweep, with all it needs in it; the same results make the same page, byte for byte."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
import torch
from jinja2 import Environment
from matplotlib.figure import Figure

from actloc_core.model import ActionLocalizer
from benchmarks.inputs import synthetic_folder
from benchmarks.experiments import TABLES, Experiment, rows_at
from benchmarks.score.analysis import THETAS, Analysis, read_analysis
from benchmarks.score.results import Result, read_result
from benchmarks.train.data import load_data
from benchmarks.train.models import build_model
from datasets.split import Split
from reports import attention, charts
from reports.figures import keyframes
from reports.tables import (
    SANITY_NOTE,
    SEEDS,
    SOURCE,
    TEXT,
    TINY_WARNING,
    Table,
    published,
    sanity_rows,
    shown,
)

TITLE = "actloc: the paper's tables, and ours beside them"
LOG_LINES = 15


@dataclass(frozen=True)
class Run:
    """A scored row and what lies beside its result."""

    names: tuple[str, ...]
    """Of its rows, with the seed where it is not 0."""
    experiment: Experiment
    result: Result
    analysis: Analysis | None
    log: pd.DataFrame | None
    """log.csv of its training."""

    @property
    def label(self) -> str:
        """The name that the page calls it by."""
        return label(self.names[0])


def label(name: str) -> str:
    """As legends call a row: the paper's words."""
    row, _, seed = name.partition(" seed ")
    return str(published()["method"].get(row, row)) + (f", seed {seed}" if seed else "")


@dataclass(frozen=True)
class Drawn:
    """A figure as HTML."""

    name: str
    kind: str  # "chart", an svg that scrolls on a narrow screen, "scroll", one that does on any, or "picture"
    drawn: str
    caption: str


def store(out: Path, scale: str) -> tuple[list[Run], list[str], list[dict[str, str]]]:
    """-> (runs with a result, what could not be read, trainings without a result), in the tables' order."""
    names: dict[str, list[str]] = {}
    experiments: dict[str, Experiment] = {}
    for seed in range(SEEDS):
        for row, exp in rows_at(scale, seed=seed).items():
            names.setdefault(exp.hash, []).append(f"{row} seed {seed}" if seed else row)
            experiments[exp.hash] = exp
    runs, problems, failures = [], [], []
    scored = {
        exp.training_hash for key, exp in experiments.items() if (out / "runs" / key / "result.json").exists()
    }
    for key, exp in experiments.items():
        folder, training = out / "runs" / key, out / "trainings" / exp.training_hash
        if (folder / "result.json").exists():
            try:
                result = read_result(folder / "result.json")
            except ValueError as error:
                problems.append(f"{', '.join(names[key])}: {error}")
                continue
            runs.append(
                Run(tuple(names[key]), exp, result, read_analysis(folder / "analysis.json"), _log(training))
            )
        elif training.is_dir() and exp.training_hash not in scored:
            failures.append(
                {
                    "title": ", ".join(names[key]),
                    "hash": key,
                    "state": _state(training),
                    "log": _tail(training),
                }
            )
    return runs, problems, failures


def _log(training: Path) -> pd.DataFrame | None:
    try:
        log = pd.read_csv(training / "log.csv")
    except (OSError, ValueError):  # none, or cut short before its first line
        return None
    return log if {"step", "loss", "val_mAP"} <= set(log) and len(log) else None


def _state(training: Path) -> str:
    if (training / "checkpoint.pt").exists():
        return "The model is trained, and was not scored."
    log = _log(training)
    return (
        f"Stopped at step {int(log['step'].iloc[-1])}."
        if log is not None
        else "Stopped before its first step."
    )


def _tail(training: Path) -> str:
    try:
        return "\n".join((training / "trial.log").read_text(errors="replace").splitlines()[-LOG_LINES:])
    except OSError:
        return ""


def page(out: Path, scale: str, tables: Sequence[Table]) -> str:
    """The page of the results in `out` at this scale. tables: of `reports.tables.table`, in their order."""
    runs, problems, failures = store(out, scale)
    environment = Environment(autoescape=True, trim_blocks=True)
    template = environment.from_string(Path(__file__).with_name("page.html").read_text())
    with charts.style():
        drawn = figures(out, scale, runs, tables)
        described = [_run(run, scale) for run in runs]
    data = sorted({run.result.origin.get("data") or "" for run in runs})
    sections = [("summary", "Summary")]
    sections += [(f"table-{table.name}", f"Table {table.name}") for table in tables]
    sections += [("figures", "Figures"), ("runs", "Runs")]
    if failures:
        sections.append(("failures", "Without a result"))
    return template.render(
        title=TITLE,
        sections=sections,
        summary=(f"{len(runs)} runs at scale {scale}" + (f", on data {', '.join(data)}." if data else ".")),
        warning=TINY_WARNING if scale == "tiny" and runs else "",
        problems=problems,
        tables=[_sanity(out, scale), *(_table(table) for table in tables)],
        figures=drawn,
        runs=described,
        failures=failures,
    )


def _sanity(out: Path, scale: str) -> dict[str, Any]:
    cells = sanity_rows(scale, out / "runs")
    names = list(cells[0])
    rows = [
        {
            "ours": False,
            "cells": [
                {"shown": row[n], "value": _float(row[n]), "text": n in ("method", "row")} for n in names
            ],
        }
        for row in cells
    ]
    return {
        "name": "sanity",
        "title": "Sanity: do all three ways learn?",
        "columns": [{"name": n, "text": n in ("method", "row")} for n in names],
        "rows": rows,
        "notes": [SANITY_NOTE],
    }


def _table(table: Table) -> dict[str, Any]:
    text = shown(table)
    rows = []
    for (_, line), (_, said) in zip(table.cells.iterrows(), text.iterrows(), strict=True):
        cells = []
        for name, value in said.items():
            number: Any = line.get(SOURCE.get(str(name), name))
            numeric = isinstance(number, int | float) and not isinstance(number, bool) and number == number
            cells.append(
                {
                    "shown": value,
                    "text": name in TEXT,
                    "value": float(number) if numeric else None,
                    "runs": line["run"].split() if name == "our mAP" and line["run"] else [],
                }
            )
        rows.append({"ours": line["ours"], "cells": cells})
    return {
        "name": table.name,
        "title": table.title,
        "columns": [{"name": name, "text": name in TEXT} for name in text],
        "rows": rows,
        "notes": [note.replace("`", "") for note in table.notes if note != TINY_WARNING]
        if table.has_results
        else [f"No row was run yet; --only {table.name} runs them."],
    }


def _float(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _run(run: Run, scale: str) -> dict[str, Any]:
    """A run's own part of the page."""
    result, exp = run.result, run.experiment
    row, _, seed = run.names[0].partition(" seed ")
    recipe = [(name, str(value)) for name, value in result.experiment.items()]
    scores = [
        ("frame-mAP at IoU 0.5", _percent(result.mAP)),
        ("95 % interval, bootstrap over videos", interval(run.analysis) or "not known"),
        ("at theta 0.02", _percent(result.mAP_curve_theta)),
        ("untrained", _percent(result.mAP_untrained)),
        ("true boxes, random classes", _percent(result.mAP_random_classes)),
        ("precision of actors", _percent(result.precision)),
        ("recall of actors", _percent(result.recall)),
        ("split, clips", f"{result.split}, {result.clips}"),
        ("protocol", result.protocol),
        ("GFLOPs of this model", f"{result.gflops:.3f}"),
        ("parameters of this model", f"{result.parameters:,}"),
        ("clips others stood in for", str(result.substituted)),
    ]
    counts = run.analysis.boxes if run.analysis else {}
    classes = [
        (name, _percent(ap) + (f" of {counts[name]} boxes" if name in counts else ""))
        for name, ap in result.per_class.items()
    ]
    origin = [(f"{part}", str(value or "drawn from the seed")) for part, value in result.origin.items()]
    source = [
        ("seed", str(exp.seed)),
        ("commit", result.commit),
        ("device", result.device),
        ("started", result.started),
        ("seconds of training, of all", f"{result.seconds_training:.0f}, {result.seconds:.0f}"),
        *((f"version of {name}", value) for name, value in result.versions.items()),
        *((f"fingerprint of {name}", value) for name, value in origin),
        ("training", result.training),
    ]
    only = f"--only {row}" + (f" --seeds {int(seed) + 1}" if seed else "")
    curves = ""
    if run.log is not None:
        alt = f"loss and mAP while {run.label} trained"
        curves = charts.svg(charts.trainings({run.label: run.log}), f"curve-{result.hash}", alt)
    return {
        "hash": result.hash,
        "title": ", ".join(run.names),
        "headline": f"{_percent(result.mAP)} mAP",
        "parts": [
            {"title": "Scores", "rows": scores},
            {"title": "AP of each class", "rows": classes},
            {"title": "Where it comes from", "rows": source},
            {"title": "Recipe", "rows": recipe},
        ],
        "curves": curves,
        "command": f"nox -s ablations -- {only} --scale {scale} --fresh",
    }


def _percent(value: float | None) -> str:
    return "none" if value is None else f"{100 * value:.1f}"


def interval(analysis: Analysis | None) -> str:
    """The bootstrap's interval of the mAP in per cent, or nothing."""
    if analysis is None or analysis.mAP_low is None or analysis.mAP_high is None:
        return ""
    return f"{100 * analysis.mAP_low:.1f} to {100 * analysis.mAP_high:.1f}"


def figures(out: Path, scale: str, runs: Sequence[Run], tables: Sequence[Table]) -> list[Drawn]:
    """All that can be drawn of what there is."""
    of = {name: run for run in runs for name in run.names}
    made = []

    def chart(name: str, figure: Figure, caption: str) -> None:
        kind = "scroll" if figure.get_figwidth() > 12 else "chart"  # wider than a page can show legibly
        made.append(Drawn(name, kind, charts.svg(figure, name, caption), caption))

    if "2a/two_stage" in of and "2a/256_16" in of:
        baseline, ours = of["2a/two_stage"], of["2a/256_16"]
        counts = ours.analysis.boxes if ours.analysis else {}
        aps = (baseline.result.per_class, ours.result.per_class)
        chart(
            "per-class",
            charts.per_class(*aps, counts, names=("two-stage baseline", "ours")),
            "As the paper's Fig. 4: AP of each class, the most frequent first; the number of ground-truth "
            "boxes in brackets.",
        )
    chart(
        "pareto",
        charts.against_gflops(*_costs(tables), scale=scale),
        "Frame-mAP against GFLOPs. The line joins what nothing else beats in both. A published two-stage "
        "method's GFLOPs include its person detector's.",
    )
    selections = {label(f"2b/{name}"): run for name in TABLES["2b"] if (run := of.get(f"2b/{name}"))}
    curves = {
        name: (THETAS, _with_nan(run.analysis.precision), _with_nan(run.analysis.recall))
        for name, run in selections.items()
        if run.analysis
    }
    if curves:
        chart(
            "actors",
            charts.actors(curves),
            "Actors found by each token selection of Table 2b: precision and recall of persons with p(alpha) "
            "above theta.",
        )
    logs = {name: run.log for name, run in selections.items() if run.log is not None}
    if logs:
        chart("trainings", charts.trainings(logs), "How the selections of Table 2b trained.")
    prices = {}
    for name in (
        "2a/two_stage",
        "2a/256_8",
        *(f"2b/{row}" for row in TABLES["2b"]),
        "fig1/detr",
        "3/hiera_l",
    ):
        if (run := of.get(name)) and run.analysis:
            costs = run.analysis.errors.items()
            prices[label(name)] = {cause: float("nan") if cost is None else cost for cause, cost in costs}
    if prices:
        chart(
            "errors",
            charts.errors(prices),
            "Where the mAP goes: what each cause of error costs by itself. Prices do not sum up, for two "
            "faults of one detection hide each other.",
        )
    best = best_single_stage(runs)
    if best is None:
        return made
    if best.analysis:
        classes = list(best.analysis.boxes)
        shares = pd.DataFrame(best.analysis.confusion, classes, classes)
        chart(
            "confusion",
            charts.confusion(shares, best.label),
            "What people who are found do, and what they are most surely taken to do; shares of a row. "
            "People may do several things at once.",
        )
    return made + pictures(out, best)


def best_single_stage(runs: Sequence[Run]) -> Run | None:
    """The run with the best mAP whose clips we can draw: single-stage, AVA's shape."""
    able = [
        run for run in runs if run.experiment.method == "single_stage" and "ava" in run.experiment.dataset
    ]
    return max(able, key=lambda run: run.result.mAP, default=None)


def report_split(out: Path, exp: Experiment) -> Split | None:
    """The split a run reports on, where its data is one we made and is still there."""
    try:
        root = synthetic_folder(out / "data", exp.dataset)
    except KeyError:
        return None
    return load_data(exp, {exp.dataset: root}).report if root.exists() else None


def pictures(out: Path, run: Run) -> list[Drawn]:
    """Keyframes, and what two clips look like to the model."""
    split = report_split(out, run.experiment)
    if split is None:
        return []
    with matplotlib.rc_context(matplotlib.rcParamsDefault):
        made = [
            Drawn(
                "keyframes",
                "picture",
                png(keyframes(run.result, out / "runs" / run.result.hash, split), "keyframes"),
                "Keyframes at even distances through the split, not chosen by how well they look.",
            )
        ]
        for index in (len(split) // 3, 2 * len(split) // 3):
            try:
                figure = clip_figure(out, run, split, index)
            except FileNotFoundError:
                break
            caption = (
                "As the paper's Figs. 3 and 5: p(alpha) over the keyframe, all boxes, and what the tokens of "
                "the surest attend to in the last layer, over the clip."
            )
            made.append(Drawn(f"clip-{index}", "picture", png(figure, caption), caption))
    return made


def clip_figure(out: Path, run: Run, split: Split, index: int, *, theta: float = 0.2) -> Figure:
    """Figs. 3 and 5 of one clip.

    Raises ValueError for another method, FileNotFoundError where the training's checkpoint is gone.
    """
    file = out / "trainings" / run.experiment.training_hash / "checkpoint.pt"
    if not file.exists():
        raise FileNotFoundError(f"{file}: the trained model is gone; run {run.names[0]} again, with --fresh")
    model = build_model(run.experiment, len(split.classes))
    if not isinstance(model, ActionLocalizer):
        method = run.experiment.method
        raise ValueError(f"{run.names[0]}: tokens are looked at in single-stage models, not in {method}")
    model.load_state_dict(torch.load(file, map_location="cpu", weights_only=True)["model"])
    clip, truth = split[index]
    video, keyframe = split.keyframes[index]
    return attention.figure(
        attention.look(model, clip),
        split.read(index),
        truth,
        list(split.classes.values()),
        title=f"{run.label} [{run.result.hash}]: {video}, keyframe {keyframe}",
        theta=theta,
    )


def png(figure: Figure, alt: str) -> str:
    """The figure as an <img> that holds its own bytes."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=100, metadata={"Software": None})
    text = base64.b64encode(file.getvalue()).decode()
    return f'<img alt="{escape(alt)}" src="data:image/png;base64,{text}">'


def _with_nan(values: Sequence[float | None]) -> list[float]:
    return [float("nan") if value is None else value for value in values]


def _costs(tables: Sequence[Table]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(published, ours): label, gflops, map of the rows of AVA that have both."""
    published_rows, ours = [], []
    for table in tables:
        for _, line in table.cells.iterrows():
            if table.name == "3":
                detector = line["detector GFLOPs"] if pd.notna(line["detector GFLOPs"]) else 0
                backbone = line["backbone"] if line["backbone"] != line["method"] else ""
                published_rows.append(
                    {
                        "label": f"{line['method']} {backbone}".strip(),
                        "gflops": line["paper GFLOPs"] + detector,
                        "map": line["paper mAP"],
                    }
                )
            if table.name in ("2a", "2b", "fig1", "3") and line["ours"]:
                ours.append(
                    {"label": line["method"], "gflops": line["counted GFLOPs"], "map": line["our mAP"]}
                )
    names = ["label", "gflops", "map"]
    both = pd.DataFrame(published_rows, columns=names), pd.DataFrame(ours, columns=names)
    return both[0].drop_duplicates(["gflops", "map"]), both[1].drop_duplicates(["gflops", "map"])
