"""A self-contained HTML page of a sweep, with reproducible bytes: tables, figures, details of every run."""

from __future__ import annotations

import base64
import io
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from jinja2 import Environment
from matplotlib.figure import Figure

from benchmarks.experiments import TABLES, size_of
from benchmarks.score.analysis import THETAS, Analysis
from datasets.split import Split
from reports import attention, charts, hypotheses, own
from reports.figures import keyframes
from reports.runs import (
    Run,
    Sweep,
    best_single_stage,
    label,
    load_model,
    load_sweep,
    other_runs,
    report_split,
)
from reports.tables import (
    PUBLISHED,
    SANITY_NOTE,
    SANITY_TITLE,
    SOURCE_COLUMN,
    TEXT_COLUMNS,
    TINY_WARNING,
    Table,
    format_cells,
    heading,
    parts,
    published,
    sanity_rows,
)

TITLE = "actloc: the paper's tables with our numbers"
NAN = float("nan")
COUNTED = (*PUBLISHED, "after backbone", "seeds")
"""Columns whose numbers are not of small models."""


@dataclass(frozen=True)
class HtmlFigure:
    """A figure of the page."""

    name: str
    kind: str
    """ "chart": an SVG that scrolls on a narrow screen. "scroll": one that scrolls on any. "fit": one that is
    fitted to any. "picture"."""
    html: str
    caption: str


def page(out: Path, scale: str, tables: Sequence[Table]) -> str:
    """The HTML page of the results in `out` at a scale. tables: in the order of the page.

    First what a reader asks first: what was run, the paper's method beside its rivals, the verdicts, what has
    failed. Then tables, diagnostics, runs.
    """
    sweep, judged = load_sweep(out, scale), hypotheses.verdicts(scale, out / "runs")
    mine, unread = own.own_runs(out)
    environment = Environment(autoescape=True, trim_blocks=True)
    template = environment.from_string(Path(__file__).with_name("page.html").read_text())
    with charts.style():
        first = [*_rivals(sweep.runs, small=size_of(scale) != "paper")]
        figures = [*chart_figures(scale, sweep.runs, tables), *_own_figures(mine)]
        if best := best_single_stage(sweep.runs):
            figures += clip_figures(out, best)
        runs = [_run(run, scale) for run in (*sweep.runs, *mine)]
    shown = [part for table in tables if table.has_results for part in parts(table)]
    common = _common_notes(shown)
    others = other_runs(out, {run.result.hash for run in (*sweep.runs, *mine)})
    known = [verdict for verdict in judged if verdict.seeds]
    sections = [("summary", "Summary")]
    sections += [("table-own", "Own data")] * bool(mine) + [("table-hypotheses", "Verdicts")] * bool(known)
    sections += [(f"table-{table.name}", _short(table.name)) for table in shown]
    sections += [("figures", "Diagnostics"), ("runs", "Runs")]
    if sweep.unfinished:
        sections.append(("unfinished", "Without a result"))
    note = hypotheses.NOTE
    if len(known) < len(judged):
        note += f" {len(judged) - len(known)} claims whose rows were not run are not shown."
    opening, tested = [], []
    if mine:
        opening.append(_text_table("own", own.TITLE, own.text_rows(mine), own.TEXT, own.NOTE))
    if known:
        lines = hypotheses.text_rows(known)
        opening.append(_text_table("hypotheses", hypotheses.TITLE, lines, hypotheses.TEXT, note))
    if sweep.runs:
        lines = sanity_rows(scale, out / "runs")
        tested.append(_text_table("sanity", SANITY_TITLE, lines, ("method", "row"), SANITY_NOTE))
    return template.render(
        title=TITLE,
        sections=sections,
        summary=[*_summary(sweep, scale, judged), *_own_summary(mine)],
        first=first,
        warning=TINY_WARNING if size_of(scale) == "tiny" and sweep.runs else "",
        small=size_of(scale) != "paper",
        problems=list(dict.fromkeys([*sweep.problems, *unread])),
        opening=opening,
        common=common,
        tables=[*(_table(part, common) for part in shown), *tested],
        absent=[_short(table.name) for table in tables if not table.has_results],
        figures=figures,
        runs=runs,
        others=others,
        unfinished=sweep.unfinished,
    )


def _short(name: str) -> str:
    """A table's name in the navigation."""
    known = {"pretraining": "Pre-training", "fig1": "Fig. 1", "ours": "Beyond the paper"}
    return known.get(
        name, f"Table {name.removesuffix('-small')}{', small' if name.endswith('-small') else ''}"
    )


def _summary(sweep: Sweep, scale: str, judged: Sequence[hypotheses.Verdict]) -> list[str]:
    """What was run, what came of the claims, and what has no result, a sentence each."""
    if not sweep.runs and not sweep.unfinished:
        return [f"No row of the paper's tables was run at scale {scale}."]
    seeds = {run.experiment.seed for run in sweep.runs}
    methods = {label(run.names[0].partition(" seed ")[0]) for run in sweep.runs}
    versions = {(run.experiment.dataset, run.result.origin.get("data")) for run in sweep.runs}
    data = Counter(dataset for dataset, _ in versions)
    told_data = [name + (f" in {n} versions" if n > 1 else "") for name, n in sorted(data.items())]
    sentences = [
        f"{len(sweep.runs)} runs of {len(methods)} methods at scale {scale}, "
        f"{len(seeds)} seed{'s' * (len(seeds) != 1)}" + (f", on {', '.join(told_data)}." if data else ".")
    ]
    words = [verdict.word for verdict in judged]
    counts = [(words.count(word), word) for word in ("agrees", "disagrees", "undetermined", "not run")]
    told = ", ".join(f"{count} {word}" for count, word in counts if count)
    sentences.append(f"Of the paper's {len(judged)} claims that small runs can show: {told}.")
    if sweep.unfinished:
        titles = "; ".join(training.title for training in sweep.unfinished)
        sentences.append(f"Trainings without a result: {titles}.")
    else:
        sentences.append("No training has failed.")
    return sentences


def _own_summary(mine: Sequence[Run]) -> list[str]:
    """A sentence on each data set of one's own: its last run."""
    last = {run.experiment.own: run for run in mine}
    return [
        f"Your own data, {name}: {_percent(run.result.mAP)} mAP in the last run, where ground-truth boxes "
        f"with random classes have {_percent(run.result.mAP_random_classes)}."
        for name, run in last.items()
    ]


RIVALS = ("2a/two_stage", *(f"2b/{row}" for row in TABLES["2b"]), "fig1/detr", "3/hiera_l")
"""Rows beside the paper's method on the first screen."""


def _rivals(runs: Sequence[Run], *, small: bool) -> Iterator[HtmlFigure]:
    """The paper's method beside its rivals: mean mAP over the seeds, with the interval of the first one."""
    lines, chances = [], set()
    for row in RIVALS:
        of_row = [run for run in runs for name in run.names if name.partition(" seed ")[0] == row]
        if not of_row:
            continue
        first = of_row[0]
        low, high = _interval_of_seeds(of_row)
        mean = 100 * sum(run.result.mAP for run in of_row) / len(of_row)
        seeds = f" ({len(of_row)} seeds)" if len(of_row) > 1 else ""
        method = label(row).replace(
            "Encoder-decoder with learned queries (Fig. 1b)", "Encoder-decoder (Fig. 1b)"
        )
        name = {"label": method + seeds, "map": mean, "low": low, "high": high}
        lines.append(name | {"ours": row == "2b/two_c_t"})
        chances.add(round(100 * first.result.mAP_random_classes, 1))
    if len(lines) > 1:
        chance = chances.pop() if len(chances) == 1 else None
        caption = (
            "The paper's method, 2(C+T), in blue, beside its rivals: mean over the seeds, with its 95 % "
            "interval over test videos and seeds. Chance: ground-truth boxes with random classes."
        )
        picture = charts.svg(charts.rivals(pd.DataFrame(lines), chance, small=small), "rivals", caption)
        yield HtmlFigure("rivals", "fit", picture, caption)


def _interval_of_seeds(runs: Sequence[Run]) -> tuple[float, float]:
    """The interval of the mean mAP in per cent: of one seed over the videos, of several over these, too."""
    analyses = [run.analysis for run in runs if run.analysis]
    if len(analyses) > 1 and min(len(one.sampled["mAP"]) for one in analyses) > 2:
        sampled = [[NAN if value is None else value for value in one.sampled["mAP"]] for one in analyses]
        return hypotheses.interval(100 * np.array(sampled, np.float64))
    ends = (analyses[0].mAP_low, analyses[0].mAP_high) if analyses else (None, None)
    low, high = (NAN if end is None else 100 * end for end in ends)
    return low, high


def _common_notes(shown: Sequence[Table]) -> list[str]:
    """Notes that several tables have: they stand once, above the tables."""
    counts = Counter(note for table in shown for note in dict.fromkeys(table.notes) if note != TINY_WARNING)
    return [note.replace("`", "") for note, count in counts.items() if count > 1]


def _text_table(
    name: str, title: str, lines: Sequence[Mapping[str, str]], text: Sequence[str], note: str
) -> dict[str, Any]:
    """A table of text cells as the template reads tables. text: the columns that are words."""
    return {
        "name": name,
        "title": title,
        "columns": [{"name": column, "text": column in text} for column in lines[0]],
        "rows": [
            {
                "ours": False,
                "cells": [
                    {"shown": value, "value": _float(value), "text": column in text}
                    for column, value in line.items()
                ],
            }
            for line in lines
        ],
        "notes": [note],
    }


def _table(table: Table, common: Sequence[str]) -> dict[str, Any]:
    """A table as the template reads it, without the common notes. A number of ours links to its runs."""
    text = format_cells(table)
    rows = []
    for (_, line), (_, shown) in zip(table.cells.iterrows(), text.iterrows(), strict=True):
        cells = []
        for name, value in shown.items():
            number: Any = line.get(SOURCE_COLUMN.get(str(name), name))
            numeric = isinstance(number, int | float) and not isinstance(number, bool) and number == number
            cells.append(
                {
                    "shown": value,
                    "text": name in TEXT_COLUMNS,
                    "small": size_of(table.scale) != "paper" and name not in COUNTED,
                    "value": float(number) if numeric else None,
                    "runs": line["run"].split() if name == "our mAP" and line["run"] else [],
                }
            )
        rows.append({"ours": line["ours"], "cells": cells})
    notes = [note.replace("`", "") for note in table.notes if note != TINY_WARNING]
    notes = [note for note in notes if note not in common]
    return {
        "name": table.name,
        "title": table.title,
        "columns": [
            {
                "name": heading(str(name), table),
                "text": name in TEXT_COLUMNS,
                "small": size_of(table.scale) != "paper" and name not in COUNTED,
            }
            for name in text
        ],
        "rows": rows,
        "notes": notes,
    }


def _float(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _run(run: Run, scale: str) -> dict[str, Any]:
    """A run's details as the template reads them."""
    result = run.result
    row, _, seed = run.names[0].partition(" seed ")
    only = f"--only {row}" + (f" --seeds {int(seed) + 1}" if seed else "")
    command = f"nox -s ablations -- {only} --scale {scale} --fresh"
    if run.experiment.own is not None:
        command = f"nox -s train -- --data FOLDER --name {shlex.quote(run.experiment.own)} --fresh"
    curves = ""
    if run.log is not None:
        alt = f"training loss and validation mAP of {run.label}"
        curves = charts.small_curves(run.log, alt)
    return {
        "hash": result.hash,
        "title": ", ".join(run.names),
        "headline": f"{_percent(result.mAP)} mAP",
        "parts": [
            {"title": "Scores", "rows": _scores(run)},
            {"title": "AP of each class", "rows": _classes(run)},
            {"title": "Provenance", "rows": _provenance(run)},
            {"title": "Experiment", "rows": [(name, str(v)) for name, v in result.experiment.items()]},
        ],
        "curves": curves,
        "command": command,
    }


def _scores(run: Run) -> list[tuple[str, str]]:
    result = run.result
    return [
        ("frame-mAP at IoU 0.5", _percent(result.mAP)),
        ("95 % interval, jackknife over videos", interval(run.analysis) or "unknown"),
        ("protocol of PySlowFast", _percent(result.mAP_slowfast)),
        ("at theta 0.02", _percent(result.mAP_curve_theta)),
        ("untrained", _percent(result.mAP_untrained)),
        ("ground-truth boxes, random classes", _percent(result.mAP_random_classes)),
        ("precision of actors", _percent(result.precision)),
        ("recall of actors", _percent(result.recall)),
        ("split, clips", f"{result.split}, {result.clips}"),
        ("protocol", result.protocol),
        ("GFLOPs of this model", f"{result.gflops:.3f}"),
        ("parameters of this model", f"{result.parameters:,}"),
        ("unreadable training clips replaced", str(result.substituted)),
    ]


def _classes(run: Run) -> list[tuple[str, str]]:
    counts = run.analysis.boxes if run.analysis else {}
    return [
        (name, _percent(ap) + (f" of {counts[name]} boxes" if name in counts else ""))
        for name, ap in run.result.per_class.items()
    ]


def _provenance(run: Run) -> list[tuple[str, str]]:
    result = run.result
    return [
        ("seed", str(run.experiment.seed)),
        ("commit", result.commit),
        ("device", result.device),
        ("started", result.started),
        ("seconds of training, in total", f"{result.seconds_training:.0f}, {result.seconds:.0f}"),
        *((f"version of {name}", version) for name, version in result.versions.items()),
        *((f"fingerprint of {part}", value or "none: random") for part, value in result.origin.items()),
        ("training", result.training),
    ]


def _percent(value: float | None) -> str:
    return "none" if value is None else f"{100 * value:.1f}"


def interval(analysis: Analysis | None) -> str:
    """The 95 % interval of the mAP in per cent, "" where it is unknown."""
    if analysis is None or analysis.mAP_low is None or analysis.mAP_high is None:
        return ""
    return f"{100 * analysis.mAP_low:.1f} to {100 * analysis.mAP_high:.1f}"


def chart_figures(scale: str, runs: Sequence[Run], tables: Sequence[Table]) -> Iterator[HtmlFigure]:
    """Every chart whose results are there."""
    by_row = {name: run for run in runs for name in run.names}
    if "2a/two_stage" in by_row and "2a/256_16" in by_row:
        baseline, ours = by_row["2a/two_stage"], by_row["2a/256_16"]
        counts = ours.analysis.boxes if ours.analysis else {}
        aps = (baseline.result.per_class, ours.result.per_class)
        yield _chart(
            "per-class",
            charts.per_class_ap(*aps, counts, names=("two-stage baseline", "ours")),
            "The paper's Fig. 4: AP of each class, the most frequent first, with its number of ground-truth "
            f"boxes. {_improved(*aps)} In the paper, on AVA, 44 of 60 do, drive by 23.1 and turn by 12.8.",
        )
    if not runs:
        return
    theirs, mine = _gflops_and_mAP(tables)
    caption = (
        "Frame-mAP against GFLOPs, with the Pareto front as a line. GFLOPs of published two-stage methods "
        "include their person detector."
    )
    absent = [*theirs["label"][theirs[["gflops", "map"]].isna().any(axis=1)]]
    if absent:
        caption += f" Published without GFLOPs or mAP, so not in it: {', '.join(dict.fromkeys(absent))}."
    yield _chart("pareto", charts.mAP_against_gflops(theirs, mine, scale=scale), caption)
    yield from _selection_figures(by_row)
    gains = _error_gains(by_row)
    if gains:
        yield _chart(
            "errors",
            charts.error_gains(gains),
            "Error budget: the mAP gain of correcting each cause of error alone. Gains do not add up, "
            "because two errors of one detection hide each other.",
        )
    if (best := best_single_stage(runs)) and best.analysis:
        classes = list(best.analysis.boxes)
        yield _chart(
            "confusion",
            charts.confusion(pd.DataFrame(best.analysis.confusion, classes, classes), best.label),
            "Annotated actions of matched actors against their highest-scored action, as shares of a row. An "
            "actor may have several actions.",
        )


def _improved(baseline: Mapping[str, float | None], ours: Mapping[str, float | None]) -> str:
    """How many classes improve over the baseline, and the two that improve most, as a sentence."""
    gains = {
        name: 100 * (ap - before)
        for name, ap in ours.items()
        if ap is not None and (before := baseline.get(name)) is not None
    }
    improved = sorted((name for name in gains if gains[name] > 0), key=lambda name: -gains[name])
    most = " and ".join(f"{name} by {gains[name]:.1f}" for name in improved[:2])
    return f"Here {len(improved)} of {len(gains)} classes improve{f', {most}' if most else ''}."


def _own_figures(runs: Sequence[Run]) -> Iterator[HtmlFigure]:
    """Of own data: AP of each class of the last run of each data set, and the causes of errors of all."""
    last = {run.experiment.own: run for run in runs if run.analysis}
    for number, (name, run) in enumerate(last.items()):
        assert run.analysis is not None
        figure = charts.class_ap(
            run.result.per_class, run.analysis.boxes, name=f"{name} [{run.result.hash[:4]}]"
        )
        caption = f"Own data, {name}: AP of each class of the last run, the most frequent first."
        yield _chart(f"own-{number}", figure, caption)
    gains = {
        f"{name} [{run.result.hash[:4]}]": dict(
            zip(run.analysis.errors, _with_nan(run.analysis.errors.values()), strict=True)
        )
        for name, run in last.items()
        if run.analysis
    }
    if gains:
        yield _chart(
            "own-errors", charts.error_gains(gains), "Own data: the mAP gain of correcting a cause alone."
        )


def _selection_figures(by_row: Mapping[str, Run]) -> Iterator[HtmlFigure]:
    """The charts that compare the token selections of Table 2b."""
    selections = {label(f"2b/{name}"): run for name in TABLES["2b"] if (run := by_row.get(f"2b/{name}"))}
    curves = {
        name: (THETAS, _with_nan(run.analysis.precision), _with_nan(run.analysis.recall))
        for name, run in selections.items()
        if run.analysis
    }
    if curves:
        caption = (
            "Precision and recall of actors with p(alpha) > theta, for each token selection of Table 2b."
        )
        yield _chart("actors", charts.actor_curves(curves), caption)
    detected = [
        (name, run.result.candidates_per_actor, run.result.p_actor)
        for name, run in selections.items()
        if run.result.candidates_per_actor is not None
    ]
    if detected:
        caption = (
            "Candidates per detected actor and their p(alpha), beside the law that both follow where a model "
            "cannot tell candidates apart. One candidate per actor is ideal."
        )
        eos_coef = next(iter(selections.values())).experiment.eos_coef
        points = pd.DataFrame(detected, columns=["label", "candidates", "p"])
        yield _chart("twins", charts.twins(points, eos_coef), caption)
    logs = {name: run.log for name, run in selections.items() if run.log is not None}
    if logs:
        caption = "Training loss and validation mAP of the token selections of Table 2b."
        yield _chart("trainings", charts.training_curves(logs), caption)


def _chart(name: str, figure: Figure, caption: str) -> HtmlFigure:
    kind = "scroll" if figure.get_figwidth() > 12 else "chart"  # wider is illegible when fitted to the page
    return HtmlFigure(name, kind, charts.svg(figure, name, caption), caption)


def _error_gains(by_row: Mapping[str, Run]) -> dict[str, dict[str, float]]:
    """Method -> cause -> mAP gain, for baselines, selections and the largest backbone."""
    rows = ("2a/two_stage", "2a/256_8", *(f"2b/{row}" for row in TABLES["2b"]), "fig1/detr", "3/hiera_l")
    return {
        label(row): dict(zip(run.analysis.errors, _with_nan(run.analysis.errors.values()), strict=True))
        for row in rows
        if (run := by_row.get(row)) and run.analysis
    }


def clip_figures(out: Path, run: Run) -> list[HtmlFigure]:
    """Keyframes of a run, and attention in two clips; [] where the data is missing."""
    split = report_split(out, run.experiment)
    if split is None:
        return []
    with matplotlib.rc_context(matplotlib.rcParamsDefault):
        caption = "Keyframes at regular intervals through the split, not chosen by their detections."
        picture = _png(keyframes(run.result, out / "runs" / run.result.hash, split), "keyframes")
        figures = [HtmlFigure("keyframes", "picture", picture, caption)]
        caption = (
            "As the paper's Figs. 3 and 5: p(alpha) over the keyframe, all boxes, and the last layer's "
            "attention of the highest-scored tokens over the clip."
        )
        for index in (len(split) // 3, 2 * len(split) // 3):
            try:
                figure = clip_figure(out, run, split, index)
            except FileNotFoundError:  # the checkpoint was deleted
                break
            figures.append(HtmlFigure(f"clip-{index}", "picture", _png(figure, caption), caption))
    return figures


def clip_figure(out: Path, run: Run, split: Split, index: int, *, theta: float = 0.2) -> Figure:
    """Draw Figs. 3 and 5 of one clip. Raises what `load_model` raises."""
    model = load_model(out, run, len(split.classes))
    clip, ground_truth = split[index]
    video, keyframe = split.keyframes[index]
    return attention.draw_clip(
        attention.predict_clip(model, clip),
        split.read(index),
        ground_truth,
        list(split.classes.values()),
        title=f"{run.label} [{run.result.hash}]: {video}, keyframe {keyframe}",
        theta=theta,
    )


def _png(figure: Figure, alt: str) -> str:
    """The figure as an <img> that contains its bytes."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=100, metadata={"Software": None})
    text = base64.b64encode(file.getvalue()).decode()
    return f'<img alt="{escape(alt)}" src="data:image/png;base64,{text}">'


def _with_nan(values: Iterable[float | None]) -> list[float]:
    return [NAN if value is None else value for value in values]


def _gflops_and_mAP(tables: Sequence[Table]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(published, ours): label, gflops and map of the rows of AVA."""
    theirs, ours = [], []
    for table in tables:
        names = [row for row in published().index if row.startswith(f"{table.name}/")]
        for row, (_, line) in zip(names, table.cells.iterrows(), strict=True):
            if table.name == "3":
                detector = line["detector GFLOPs"] if pd.notna(line["detector GFLOPs"]) else 0
                backbone = line["backbone"] if line["backbone"] != line["method"] else ""
                theirs.append(
                    {
                        "label": f"{line['method']} {backbone}".strip(),
                        "gflops": line["paper GFLOPs"] + detector,
                        "map": line["paper mAP"],
                    }
                )
            if table.name in ("2a", "2b", "fig1", "3") and line["ours"]:
                ours.append({"label": label(row), "gflops": line["counted GFLOPs"], "map": line["our mAP"]})
    first, second = (pd.DataFrame(rows, columns=["label", "gflops", "map"]) for rows in (theirs, ours))
    return first.drop_duplicates(["gflops", "map"]), second.drop_duplicates(["gflops", "map"])
