"""Charts of numbers: AP of each class, mAP against GFLOPs, precision and recall, training curves, errors.

Each function draws plain values and returns a Figure. `svg` turns a figure into text with reproducible bytes,
in the text colour of the page around it.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from html import escape
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, fontManager

from actloc_core.drawing import choose_labels
from benchmarks.score.diagnostics import twin_law

INK = "#010203"
"""Colour of text and axes, which `svg` replaces by the page's text colour."""
OURS, OTHER, BETTER, WORSE = "#2f6fb2", "#c9843a", "#2e8b57", "#c0392b"
"""Blue and orange are safe for colour-blind readers; green and red come with the sign of the number."""
STYLE: dict[Any, Any] = {
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlesize": 10,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "font.size": 9,
    "grid.color": "#80808040",
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "actloc",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


@contextmanager
def style() -> Iterator[None]:
    """Use the fonts and colours of our figures inside the block."""
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        # The text of an SVG is text, for which a browser finds a font.
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        yield


@contextmanager
def font_for(names: Iterable[str]) -> Iterator[None]:
    """Use a font for pictures, too, that has the characters of these class names, if there is one here."""
    file = choose_labels(dict(enumerate(names))).font_file
    family = list(matplotlib.rcParams["font.family"])
    if file is not None:
        fontManager.addfont(file)
        family = ["DejaVu Sans", FontProperties(fname=file).get_name()]
    with matplotlib.rc_context({"font.family": family}):
        yield


def class_ap(ap: Mapping[str, float | None], counts: Mapping[str, int], *, name: str) -> Figure:
    """Draw the AP of each class of a run as bars, the most frequent class first, with its number of boxes.

    ap: class name -> AP in [0, 1]; None for a class without ground truth, which has no bar. counts:
    class name -> ground-truth boxes. name: of the run.
    """
    classes = sorted((c for c in ap if ap[c] is not None), key=lambda c: (-counts.get(c, 0), c))
    figure = Figure(figsize=(8, max(1.6, 0.28 * len(classes) + 0.9)), layout="constrained")
    axis = figure.subplots()
    values = [100 * (ap[c] or 0.0) for c in classes]
    labels = [f"{c} ({counts.get(c, 0):,})" for c in classes]
    axis.barh(range(len(classes)), values, color=OURS)
    for place, value in enumerate(values):
        axis.annotate(
            f"{value:.1f}", (value, place), (3, 0), textcoords="offset points", va="center", fontsize=8
        )
    axis.set_yticks(range(len(classes)), labels)
    axis.invert_yaxis()
    axis.set_xlim(0, 105)
    axis.set_xlabel(f"AP, %: {name}")
    return figure


def per_class_ap(
    first: Mapping[str, float | None],
    second: Mapping[str, float | None],
    counts: Mapping[str, int],
    *,
    names: tuple[str, str],
) -> Figure:
    """Draw the paper's Fig. 4: AP of two runs as paired bars, the most frequent class first.

    Above each pair is the second AP minus the first, green where positive, red where negative.
    first, second: class name -> AP in [0, 1]; None for a class without ground truth, which has no bars.
    counts: class name -> ground-truth boxes. names: of the two runs.
    """
    classes = [c for c in first if first[c] is not None and second.get(c) is not None]
    classes.sort(key=lambda c: (-counts.get(c, 0), c))
    a, b = (np.array([100 * (of[c] or 0.0) for c in classes]) for of in (first, second))
    name_height = 0.06 * max((len(c) for c in classes), default=0)  # inches, of vertical class names
    figure = Figure(figsize=(max(6.0, 0.32 * len(classes) + 1.5), 3.5 + name_height), layout="constrained")
    axis = figure.subplots()
    if not classes:
        axis.text(0.5, 0.5, "no class with ground truth", ha="center", transform=axis.transAxes)
        axis.set_axis_off()
        return figure
    tall = pd.DataFrame(
        {
            "class": [*classes, *classes],
            "AP": np.concatenate([a, b]),
            "run": [names[0]] * len(classes) + [names[1]] * len(classes),
        }
    )
    sns.barplot(tall, x="class", y="AP", hue="run", palette=[OTHER, OURS], ax=axis, width=0.8)
    for place, (one, other) in enumerate(zip(a, b, strict=True)):
        axis.annotate(
            f"{other - one:+.1f}",
            (place, max(one, other)),
            (0, 3),
            textcoords="offset points",
            ha="center",
            fontsize=7,
            rotation=90 if len(classes) > 20 else 0,
            color=BETTER if other > one else WORSE if other < one else INK,
        )
    better, worse = int((b > a).sum()), int((b < a).sum())
    axis.set(xlabel="", ylabel="AP at IoU 0.5, %", ylim=(0, min(110, 1.18 * max(a.max(), b.max(), 1))))
    title = f"{names[1]} is better in {better} of {len(classes)} classes, worse in {worse}"
    axis.set_title(title, loc="left", pad=24)
    axis.set_xticks(range(len(classes)), [f"{c} ({counts.get(c, 0)})" for c in classes])
    axis.tick_params(axis="x", labelrotation=90 if len(classes) > 6 else 0, length=0)
    axis.legend(title=None, loc="lower left", ncols=2, bbox_to_anchor=(0, 0.99), borderaxespad=0)
    axis.grid(axis="y")
    axis.set_axisbelow(True)
    return figure


def mAP_against_gflops(published: pd.DataFrame, ours: pd.DataFrame, *, scale: str) -> Figure:
    """Draw mAP against GFLOPs, with the Pareto front as a line.

    Both frames have the columns label, gflops and map (per cent), and one without points is not drawn.
    published: the paper's numbers. ours: mAP
    at this scale, GFLOPs of the model of the paper's size.
    """
    panels = [
        (published, "published (AVA 2.2)", OTHER),
        (ours, f"ours, scale {scale}; GFLOPs of the paper's size", OURS),
    ]
    panels = [panel for panel in panels if len(panel[0].dropna())] or panels[:1]
    figure = Figure(figsize=(5.5 * len(panels), 4.4), layout="constrained")
    for axis, (rows, title, colour) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
    ):
        rows = rows.dropna().sort_values(["gflops", "map"], ascending=[True, False])
        axis.set(title=title, xlabel="GFLOPs (multiply-accumulates) of one clip", ylabel="frame-mAP, %")
        axis.grid(True)
        axis.set_axisbelow(True)
        if rows.empty:
            axis.text(0.5, 0.5, "not run", ha="center", transform=axis.transAxes)
            continue
        front = rows[rows["map"] > rows["map"].cummax().shift(fill_value=-1)]
        axis.plot(front["gflops"], front["map"], color=colour, linewidth=1, alpha=0.6, drawstyle="steps-post")
        axis.scatter(rows["gflops"], rows["map"], color=colour, s=22)
        axis.margins(x=0.15, y=0.12)
        _label_points(axis, rows)
    return figure


def _label_points(axis: Axes, rows: pd.DataFrame) -> None:
    """Write each point's label at the nearest position that overlaps no point and no other label."""
    (left, right), (low, high) = axis.get_xlim(), axis.get_ylim()
    x_of, y_of = (rows["gflops"] - left) / (right - left), (rows["map"] - low) / (high - low)
    taken = [(x - 0.01, y - 0.015, x + 0.01, y + 0.015) for x, y in zip(x_of, y_of, strict=True)]
    for x, y, name in zip(x_of, y_of, rows["label"], strict=True):
        width, height = 0.0115 * len(name), 0.036
        positions = [
            (x + (0.014 if to_right else -0.014 - width), y + up * height - height / 2)
            for up in (0, 1, -1, 2, -2, 3, -3, 4, -4)
            for to_right in (True, False)
        ]
        free = [
            (a, b)
            for a, b in positions
            if a > 0 and all(a + width < t[0] or a > t[2] or b + height < t[1] or b > t[3] for t in taken)
        ]
        a, b = (free or positions)[0]
        taken.append((a, b, a + width, b + height))
        axis.text(a, b + height / 2, name, fontsize=6.5, va="center", transform=axis.transAxes)
        if abs(b + height / 2 - y) > height:  # not beside its point
            end = a if a > x else a + width
            axis.plot([x, end], [y, b + height / 2], color=INK, linewidth=0.4, transform=axis.transAxes)


def actor_curves(curves: Mapping[str, tuple[Any, Any, Any]]) -> Figure:
    """Draw precision and recall of actors.

    curves: run -> (theta, precision, recall), each (K,) in [0, 1], theta ascending.
    """
    figure = Figure(figsize=(11, 3.8), layout="constrained")
    left, middle, right = figure.subplots(1, 3, sharey=True)
    for colour, (name, (theta, precision, recall)) in zip(palette(len(curves)), curves.items(), strict=True):
        left.plot(recall, precision, label=name, color=colour, linewidth=1.3)
        middle.plot(theta, precision, color=colour, linewidth=1.3)
        right.plot(theta, recall, color=colour, linewidth=1.3)
    for axis, x, y in (
        (left, "recall", "precision"),
        (middle, "theta", "precision"),
        (right, "theta", "recall"),
    ):
        axis.set(xlabel=x, ylabel=y, xlim=(0, 1), ylim=(0, 1.02))
        axis.grid(True)
    if curves:
        left.legend(fontsize=7, loc="lower left")
    return figure


def twins(points: pd.DataFrame, eos_coef: float) -> Figure:
    """Draw how often actors are detected against p(alpha), beside the twin law.

    points: columns label, candidates (per actor) and p (their median p(alpha)). eos_coef: no-actor weight.
    """
    figure = Figure(figsize=(7, 3.8), layout="constrained")
    axis = figure.subplots()
    k = np.linspace(1, max(2.0, 1.1 * points["candidates"].max()), 200)
    law = [twin_law(x, eos_coef) for x in k]
    axis.plot(k, law, color=INK, linewidth=1, label="k candidates that cannot be told apart")
    names, at, p = (points[column].tolist() for column in ("label", "candidates", "p"))
    for colour, name, x, y in zip(palette(len(points)), names, at, p, strict=True):
        axis.scatter(x, y, color=colour, s=26, label=name, zorder=3)
    axis.set(xlabel="candidates per actor", ylabel="their median p(alpha)", ylim=(0, 1.02))
    axis.grid(True)
    axis.set_axisbelow(True)
    axis.legend(fontsize=7, loc="lower left")
    return figure


def training_curves(logs: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw training loss and validation mAP. logs: run -> its log.csv."""
    figure = Figure(figsize=(11, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    for colour, (name, log) in zip(palette(len(logs)), logs.items(), strict=True):
        smooth = log["loss"].rolling(max(len(log) // 20, 1), min_periods=1).mean()
        left.plot(log["step"], smooth, color=colour, linewidth=1.3, label=name)
        validated = log.dropna(subset=["val_mAP"])
        right.plot(
            validated["step"], 100 * validated["val_mAP"], "o-", color=colour, markersize=3, linewidth=1.3
        )
    left.set(xlabel="step", ylabel="loss, mean over 5 % of the training")
    right.set(xlabel="step", ylabel="validation mAP, %", ylim=(0, None))
    for axis in (left, right):
        axis.grid(True)
    if logs:
        left.legend(fontsize=7)
    return figure


def small_curves(log: pd.DataFrame, alt: str) -> str:
    """Training loss and validation mAP of one run as an <svg> element. log: its log.csv. alt: its text.

    Written directly: a page has one of every run, and Matplotlib takes half a second for each.
    """
    smooth = log["loss"].rolling(max(len(log) // 20, 1), min_periods=1).mean()
    validated = log.dropna(subset=["val_mAP"])
    panels = [
        _panel(10, "loss, mean over 5 % of the training", log["step"], smooth, from_zero=False),
        _panel(380, "validation mAP, %", validated["step"], 100 * validated["val_mAP"], from_zero=True),
    ]
    return (
        f'<svg role="img" aria-label="{escape(alt)}" viewBox="0 0 740 170" width="740" height="170" '
        f'font-size="11" font-family="sans-serif">{"".join(panels)}</svg>'
    )


def _panel(left: int, title: str, steps: pd.Series, values: pd.Series, *, from_zero: bool) -> str:
    """One curve with its axes, 350 x 170, as elements of an SVG. At most 200 points are drawn."""
    kept = np.unique(np.linspace(0, len(values) - 1, min(len(values), 200)).round().astype(int))
    x, y = steps.to_numpy(np.float64)[kept], values.to_numpy(np.float64)[kept]
    text = f'<text x="{left + 40}" y="12" fill="currentColor">{escape(title)}</text>'
    if not len(y) or not np.isfinite(y).all():
        return text
    low, high = (0.0 if from_zero else float(y.min())), float(y.max())
    span = max(high - low, 1e-9)
    across = (x - x.min()) / max(x.max() - x.min(), 1)
    points = " ".join(
        f"{left + 40 + 300 * a:.1f},{140 - 115 * (b - low) / span:.1f}"
        for a, b in zip(across, y, strict=True)
    )
    axis = (
        f'<path d="M{left + 40} 20V142H{left + 342}" fill="none" stroke="currentColor" stroke-opacity=".4"/>'
    )
    labels = [
        (left + 36, 144, "end", f"{low:.3g}"),
        (left + 36, 29, "end", f"{high:.3g}"),
        (left + 40, 157, "start", f"step {x.min():g}"),
        (left + 340, 157, "end", f"{x.max():g}"),
        (left + 340, 14 + 126 - 115 * (float(y[-1]) - low) / span - 6, "end", f"{y[-1]:.3g}"),
    ]
    written = "".join(
        f'<text x="{a}" y="{b:.1f}" text-anchor="{anchor}" fill="currentColor">{word}</text>'
        for a, b, anchor, word in labels
    )
    return (
        f'{text}{axis}<polyline points="{points}" fill="none" stroke="{OURS}" stroke-width="1.5"/>{written}'
    )


def rivals(rows: pd.DataFrame, chance: float | None, *, small: bool) -> Figure:
    """Draw the mAP of methods as points with intervals, the highest on top.

    rows: label, map, low, high, in per cent, low and high NaN without an interval, and "ours", True of the
    paper's method, which is marked. chance: mAP of ground-truth boxes with random classes. small: of small
    models on synthetic data, which the axis says.
    """
    rows = rows.sort_values("map").reset_index(drop=True)
    figure = Figure(figsize=(5.2, 0.34 * len(rows) + 0.9), layout="constrained")
    axis = figure.subplots()
    beside: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "fontsize": 7}
    for place, (_, row) in enumerate(rows.iterrows()):
        colour = OURS if row["ours"] else OTHER
        if np.isfinite([row["low"], row["high"]]).all():
            axis.plot([row["low"], row["high"]], [place, place], color=colour, linewidth=1.6, alpha=0.7)
        axis.plot(row["map"], place, "o", color=colour, markersize=6)
        axis.annotate(f"{row['map']:.1f}", (row["map"], place), (0, 5), **beside)
    if chance is not None:
        axis.axvline(chance, color=INK, linestyle=":", linewidth=1, alpha=0.6)
        axis.annotate("chance", (chance, -0.45), (3, 0), textcoords="offset points", fontsize=7, va="center")
    axis.set_yticks(range(len(rows)), rows["label"])
    axis.set_ylim(-0.7, len(rows) - 0.3)
    axis.set_xlim(0, None)
    axis.set_xlabel(f"frame-mAP, %{'; small models, synthetic data' if small else ''}")
    axis.grid(axis="x")
    axis.set_axisbelow(True)
    return figure


def error_gains(gains: Mapping[str, Mapping[str, float]]) -> Figure:
    """Draw the error budget. gains: run -> cause -> mAP gain, in [0, 1], of correcting this cause alone."""
    figure = Figure(figsize=(11, 0.42 * len(gains) + 1.4), layout="constrained")
    axis = figure.subplots()
    causes = list(next(iter(gains.values()), {}))
    height = 0.8 / max(len(causes), 1)
    for number, (cause, colour) in enumerate(zip(causes, palette(len(causes)), strict=True)):
        at = np.arange(len(gains)) + (number - (len(causes) - 1) / 2) * height
        values = np.nan_to_num([100 * run[cause] for run in gains.values()])
        axis.barh(at, values, height, color=colour, label=cause)
    axis.set_yticks(range(len(gains)), list(gains))
    axis.invert_yaxis()
    axis.set(xlabel="frame-mAP gain of correcting this cause alone, points")
    axis.grid(axis="x")
    axis.set_axisbelow(True)
    if causes:
        axis.legend(fontsize=7, ncols=len(causes), loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return figure


def confusion(shares: pd.DataFrame, title: str) -> Figure:
    """Draw a confusion matrix (C, C): for each annotated class, shares of predicted classes in [0, 1]."""
    side = max(4.0, 0.3 * len(shares) + 1.8)
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axis = figure.subplots()
    sns.heatmap(
        shares, ax=axis, cmap="Blues", vmin=0, vmax=1, square=True, cbar=False,
        annot=len(shares) <= 24, fmt=".2f", annot_kws={"fontsize": 7}, linewidths=0.5, linecolor="#80808040",
    )  # fmt: skip
    axis.set(xlabel="predicted", ylabel="annotated")
    axis.set_title(title, loc="left")
    axis.tick_params(length=0)
    return figure


def palette(count: int) -> list[tuple[float, float, float]]:
    """Distinct colours, safe for colour-blind readers."""
    return list(sns.color_palette("colorblind", max(count, 1)))[:count]


def svg(figure: Figure, name: str, alt: str) -> str:
    """Render a figure as an <svg> element for a page. name: prefix of its ids. alt: its description."""
    file = io.StringIO()
    with style():
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(xlink:href="#|url\(#)', rf"\1{name}-", text)
    text = text.replace(INK, "currentColor")
    return text.replace("<svg ", f'<svg role="img" aria-label="{escape(alt)}" ', 1)
