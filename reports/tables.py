"""The paper's tables, its numbers beside ours: Markdown and CSV."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.experiments import TABLES, at_scale
from benchmarks.run import TABLE_THETA, Result, read_result

TITLES = {
    "2a": "Table 2a. Output resolution: the last pool on and off",
    "2b": "Table 2b. Token selection",
    "4": "Table 4. UCF101-24 and JHMDB",
}
MEANS = {"4": {"jhmdb": ("jhmdb_1", "jhmdb_2", "jhmdb_3")}}
"""Table -> row that is no run -> the rows whose mean it is."""
TINY_WARNING = (
    "These are tiny-scale numbers on a synthetic benchmark. They show that training works and that "
    "the variants differ; they do not confirm or refute the paper's order, which is of another "
    "network, other data and 25 epochs from Kinetics weights. The difference to the paper's number "
    "is printed for completeness, and at this scale means nothing. One seed a row: differences of a few "
    "points between rows are within the noise."
)
MISSING = "not run"


@dataclass(frozen=True)
class Table:
    """One table of the paper. `cells` has a row for each experiment, numbers in per cent, NaN where none."""

    name: str
    title: str
    cells: pd.DataFrame
    notes: tuple[str, ...]


def published() -> pd.DataFrame:
    """The paper's numbers by row name, in per cent, each with its source."""
    return pd.read_csv(Path(__file__).with_name("paper_results.csv"), index_col="row")


def table(name: str, scale: str, runs: Path) -> Table:
    """Table `name` with the results found in `runs`; rows without one say so."""
    paper = published()
    rows, results = [], []
    for row, exp in TABLES[name].items():
        experiment = at_scale(exp, scale)
        path = runs / experiment.hash / "result.json"
        result = read_result(path) if path.exists() else None
        results += [result] if result else []
        ours = {field: percent(result, field) for field in OURS}
        rows.append(
            cells(paper.loc[f"{name}/{row}"], ours, scale)
            | {
                "seeds": 1 if result else 0,
                "protocol": result.protocol if result else MISSING,
                "split": result.split if result else MISSING,
                "run": experiment.hash,
            }
        )
    for row, parts in MEANS.get(name, {}).items():
        done = [rows[list(TABLES[name]).index(part)] for part in parts]
        # NaN, so "not run", until all of them have a result.
        ours = {field: sum(part[OURS[field]] for part in done) / len(done) for field in OURS}
        rows.append(
            cells(paper.loc[f"{name}/{row}"], ours, scale)
            | {
                "seeds": min(part["seeds"] for part in done),
                "protocol": done[0]["protocol"],
                "split": "mean",
                "run": " ".join(part["run"] for part in done),
            }
        )
    return Table(name, TITLES[name], pd.DataFrame(rows), notes(scale, results))


OURS = {
    "mAP": "our mAP",
    "precision": "our precision",
    "recall": "our recall",
    "mAP_untrained": "untrained mAP",
}
"""Field of a Result -> column."""


def cells(printed: Any, ours: dict[str, float], scale: str) -> dict[str, Any]:
    """A row's columns, the paper's number before ours.

    printed: the row of `published`. ours: field of a Result -> per cent.
    """
    return {
        "method": printed["method"],
        "paper GFLOPs": printed["gflops"],
        "paper mAP": printed["map"],
        "our mAP": ours["mAP"],
        "difference": ours["mAP"] - printed["map"],
        "paper precision": printed["precision"],
        "our precision": ours["precision"],
        "paper recall": printed["recall"],
        "our recall": ours["recall"],
        "untrained mAP": ours["mAP_untrained"],
        "scale": scale,
        "source": printed["source"],
    }


def percent(result: Result | None, name: str) -> float:
    """A result's field, a fraction, in per cent; NaN where there is no result or no number."""
    fraction = None if result is None else getattr(result, name)
    return float("nan") if fraction is None else 100.0 * fraction


def notes(scale: str, results: list[Result]) -> tuple[str, ...]:
    """What a reader must know beside the numbers."""
    protocols = " and ".join(f"`{name}`" for name in sorted({r.protocol for r in results})) or "not known yet"
    lines = [
        f"mAP: frame-mAP at IoU 0.5, protocol {protocols}, in per cent. Precision and recall: of persons "
        f"with p(alpha) > {TABLE_THETA}. Untrained mAP: the same network before its first step. "
        f"Scale: {scale}."
    ]
    chance = {(r.split, r.clips, round(percent(r, "mAP_random_classes"), 1)) for r in results}
    lines += [
        f"Reference on the {split} split of {clips} clips: perfect boxes with random classes {value} mAP."
        for split, clips, value in sorted(chance)
    ]
    if replaced := sum(r.substituted for r in results):
        lines.append(f"{replaced} training clips could not be read, and others stood in for them.")
    if scale == "tiny":
        lines.append(TINY_WARNING)
    return tuple(lines)


SHOWN = (
    "method", "paper mAP", "our mAP", "difference", "paper precision", "our precision",
    "paper recall", "our recall", "untrained mAP", "seeds",
)  # fmt: skip


def markdown(table: Table) -> str:
    """The table for people: no column that is empty throughout, one decimal, "not run" in words."""
    cells = table.cells
    shown = cells[[name for name in SHOWN if name == "our mAP" or cells[name].notna().any()]].astype(object)
    for name in shown.columns[1:]:
        if name != "seeds":
            signed = "{:+.1f}" if name == "difference" else "{:.1f}"
            shown[name] = [signed.format(x) if pd.notna(x) else "" for x in cells[name]]
    shown.loc[cells["seeds"] == 0, "our mAP"] = MISSING
    text = shown.to_markdown(
        index=False, disable_numparse=True, colalign=["left"] + ["right"] * (shown.shape[1] - 1)
    )
    return "\n\n".join([f"## {table.title}", text, *table.notes]) + "\n"
