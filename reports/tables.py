"""The paper's tables with our numbers beside the paper's: Markdown, LaTeX and CSV.

`paper_results.csv` names every row of a table, in the paper's order. A row is one of ours (a row of
`benchmarks.experiments`), the mean of several of ours, or a published method of others, with its
published numbers alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import ttest_ind

from benchmarks.experiments import ROWS, rows_at, size_of
from benchmarks.score.analysis import read_analysis
from benchmarks.score.diagnostics import twin_law
from benchmarks.score.results import TABLE_THETA, Result, read_result
from benchmarks.train.gflops import ROWS as CLASSIFIERS
from benchmarks.train.gflops import Count, count_row

TITLES = {
    "pretraining": "Pre-training. Classification of clips, which every small row starts from",
    "2a": "Table 2a. Input and output resolution, and the two-stage baseline",
    "2b": "Table 2b. Token selection",
    "2c": "Table 2c. Aspect ratio",
    "fig1": "Fig. 1b and 1c. Encoder-decoder with learned queries against matching of the backbone's tokens",
    "3": "Table 3. State of the art on AVA 2.2",
    "4": "Table 4. UCF101-24 and JHMDB",
    "ours": "Beyond the paper. Its open choices, one at a time",
}
MEANS = {"4/jhmdb": ("4/jhmdb_1", "4/jhmdb_2", "4/jhmdb_3")}
"""Row that is not a run -> the rows it is the mean of."""
REFERENCE = {
    "2a": "2a/256_16",
    "2b": "2b/two_c_t",
    "2c": "2c/fixed",
    "fig1": "fig1/ours",
    "ours": "ours/two_c_t",
}
"""Table -> the row that the others are compared with: the paper's method."""
SEEDS = 32
"""Results of seeds 0 to 31 are read."""
SIGNIFICANCE = 0.05
"""A difference of means is significant below this p-value of Welch's t-test."""
TINY_WARNING = (
    "These are tiny-scale numbers on a synthetic benchmark. They show that training works and that "
    "the variants differ; they do not confirm or refute the paper's order, which comes from another "
    "network, other data and 25 epochs from Kinetics weights."
)
INITIALISATION_NOTE = (
    "The paper's models are initialised from Kinetics weights. At this scale they are "
    "initialised from backbones that were trained on small synthetic clips, as Kinetics is: the table of "
    "pre-training."
)
NOT_RUN = "not run"


@dataclass(frozen=True)
class Table:
    """One table of the paper."""

    name: str
    title: str
    scale: str
    """Of the results."""
    cells: pd.DataFrame
    """A line for each row of the table: numbers in per cent, NaN where there is none."""
    notes: tuple[str, ...]
    hidden: tuple[str, ...] = ()
    """Columns that are not displayed."""

    @property
    def has_results(self) -> bool:
        """Whether any row was run."""
        return bool((self.cells["seeds"] > 0).any())


def published() -> pd.DataFrame:
    """The paper's numbers by row name, in per cent and GFLOPs, each with its source."""
    text = dict.fromkeys(("dataset", "pretraining", "backbone", "clip", "end_to_end", "counted"), str)
    return pd.read_csv(Path(__file__).with_name("paper_results.csv"), index_col="row", dtype=text)


@cache
def count_paper_model(row: str) -> Count | None:
    """Count GFLOPs and parameters of a row's model at the paper's size; None for models we do not have.

    row: of `published`. A method of others on a backbone of ours counts as the backbone with its classifier.
    """
    name = MEANS[row][0] if row in MEANS else row
    if name in ROWS:
        return count_row(ROWS[name], instant=True)
    key = published()["counted"][row]
    return count_row(CLASSIFIERS[key], instant=True) if isinstance(key, str) else None


def build_table(
    name: str, scale: str, runs: Path, *, count: Callable[[str], Count | None] = count_paper_model
) -> Table:
    """Build table `name` from the results of all seeds in the directory `runs`."""
    paper = published()
    rows = paper[paper.index.str.startswith(f"{name}/")]
    results = {row: load_results(row, scale, runs) for row in rows.index}
    reference = results.get(REFERENCE.get(name, ""), [])
    lines = []
    for row, printed in rows.iterrows():
        line = row_cells(str(row), printed, results[row], reference, scale, count)
        low, high = mAP_interval(results[row], runs)
        lines.append(line | {"low": low, "high": high})
    single = [r for row in rows.index for seed in results[row] for r in seed if row not in MEANS]
    cells = pd.DataFrame(lines)
    hidden = HIDDEN.get(name, ()) + (("difference", "our mAP, slowfast") if size_of(scale) != "paper" else ())
    return Table(name, TITLES[name], scale, cells, notes(name, scale, single, cells), hidden)


def parts(table: Table) -> list[Table]:
    """The table as it is displayed: small results of ours are not beside the state of the art."""
    if size_of(table.scale) == "paper" or table.name not in APART:
        return [table]
    ours = tuple(name for name in DISPLAYED if name not in PUBLISHED)
    small = replace(
        table,
        name=f"{table.name}-small",
        title=f"{table.title}: our small models on synthetic data",
        cells=table.cells[table.cells["ours"]],
        hidden=(
            *table.hidden,
            *(name for name in PUBLISHED if name not in ("method", "dataset", "backbone")),
        ),
    )
    return [replace(table, notes=(), hidden=(*table.hidden, *ours)), small]


def load_results(row: str, scale: str, runs: Path) -> list[tuple[Result, ...]]:
    """Load a row's results, for each seed: one, or those of MEANS; [] for methods of others.

    Seeds that lack one of them are left out.
    """
    parts = MEANS.get(row, (row,))
    if any(part not in ROWS for part in parts):
        return []
    results = []
    for seed in range(SEEDS):
        rows = rows_at(scale, seed=seed)
        paths = [runs / rows[part].hash / "result.json" for part in parts]
        if all(path.exists() for path in paths):
            # `reports.runs.load_sweep` reports results of another version; here they do not count.
            with contextlib.suppress(ValueError):
                results.append(tuple(read_result(path) for path in paths))
    return results


def mAP_interval(results: Sequence[tuple[Result, ...]], runs: Path) -> tuple[float, float]:
    """The 95 % interval of the first seed's mAP, in per cent; NaN for a mean, or where it is unknown."""
    unknown = float("nan"), float("nan")
    if not results or len(results[0]) != 1:
        return unknown
    analysis = read_analysis(runs / results[0][0].hash / "analysis.json")
    if analysis is None or analysis.mAP_low is None or analysis.mAP_high is None:
        return unknown
    return 100 * analysis.mAP_low, 100 * analysis.mAP_high


def per_seed(results: Sequence[tuple[Result, ...]], field: str) -> np.ndarray:
    """(S,) a field for each seed in per cent: the mean over its results, NaN where one has no number."""
    values = [[getattr(r, field) for r in seed] for seed in results]
    return np.array([np.nan if None in row else 100 * float(np.mean(row)) for row in values])


def row_cells(
    row: str,
    printed: Any,
    results: Sequence[tuple[Result, ...]],
    reference: Sequence[tuple[Result, ...]],
    scale: str,
    count: Callable[[str], Count | None],
) -> dict[str, Any]:
    """The columns of a row, the paper's numbers before ours. printed: the row of `published`."""
    ours = row in ROWS or row in MEANS
    mAP = per_seed(results, "mAP")
    to_reference, p_value = compare_seeds(mAP, per_seed(reference, "mAP"))
    model = count(row)
    first = results[0] if results else ()
    return {
        "method": printed["method"],
        "dataset": printed["dataset"],
        "pretraining": printed["pretraining"],
        "backbone": printed["backbone"],
        "clip": printed["clip"],
        "res.": printed["resolution"],
        "end-to-end": printed["end_to_end"],
        "paper GFLOPs": printed["gflops"],
        "detector GFLOPs": printed["detector_gflops"],
        "counted GFLOPs": model.gflops if model else np.nan,
        # A classifier's head is part of what other papers call the backbone.
        "after backbone": model.after_backbone if model and ours else np.nan,
        "parameters M": model.params / 1e6 if model else np.nan,
        "paper mAP": printed["map"],
        "our mAP": _mean(mAP),
        "our mAP, slowfast": _mean(per_seed(results, "mAP_slowfast")),
        "our accuracy": _mean(per_seed(results, "accuracy")),
        "std": float(np.std(mAP, ddof=1)) if len(mAP) > 1 else np.nan,
        "seeds": len(results),
        "difference": _mean(mAP) - printed["map"],
        "to reference": to_reference,
        "p-value": p_value,
        "paper precision": printed["precision"],
        "our precision": _mean(per_seed(results, "precision")),
        "paper recall": printed["recall"],
        "our recall": _mean(per_seed(results, "recall")),
        "candidates per actor": _mean(per_seed(results, "candidates_per_actor")) / 100,
        "their p(alpha)": _mean(per_seed(results, "p_actor")) / 100,
        "twin law": _twin_law(results),
        "actor AP 0.5": _mean(per_seed(results, "actor_ap_50")),
        "actor AP 0.75": _mean(per_seed(results, "actor_ap_75")),
        "class AP, true boxes": _mean(per_seed(results, "class_ap_true_boxes")),
        "mAP, no duplicates": _mean(per_seed(results, "mAP_without_duplicates")),
        "untrained mAP": _mean(per_seed(results, "mAP_untrained")),
        "ours": ours,
        "scale": scale,
        "protocol": first[0].protocol if first else NOT_RUN,
        "split": (first[0].split if len(first) == 1 else "mean") if first else NOT_RUN,
        "run": " ".join(r.hash for seed in results for r in seed),
        "source": printed["source"],
    }


def _twin_law(results: Sequence[tuple[Result, ...]]) -> float:
    """The p(alpha) of as many candidates that a model cannot tell apart; NaN for models of given boxes."""
    laws = [
        twin_law(result.candidates_per_actor, result.experiment["eos_coef"])
        for seed in results
        for result in seed
        if result.experiment["method"] != "two_stage" and result.candidates_per_actor is not None
    ]
    return _mean(np.array(laws))


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def compare_seeds(mAP: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
    """Difference of means of (S,) and (R,) seeds, and its p-value by Welch's t-test; NaN where undefined."""
    if not len(mAP) or not len(reference):
        return float("nan"), float("nan")
    difference = float(mAP.mean() - reference.mean())
    if min(len(mAP), len(reference)) < 2 or np.array_equal(mAP, reference):
        return difference, float("nan")
    return difference, float(ttest_ind(mAP, reference, equal_var=False).pvalue)


def notes(name: str, scale: str, results: Sequence[Result], cells: pd.DataFrame) -> tuple[str, ...]:
    """The notes below a table: what the columns mean, then how its results were made."""
    return (*_column_notes(name, scale, results, cells), *_result_notes(name, scale, results))


def _column_notes(name: str, scale: str, results: Sequence[Result], cells: pd.DataFrame) -> Iterator[str]:
    if name == "pretraining":
        yield (
            "mAP: mean average precision of the classes over clips, each classified as a whole. Accuracy: "
            f"clips whose highest-scored class is one of their labels. One view a clip. Scale: {scale}."
        )
        return
    protocols = " and ".join(f"`{p}`" for p in sorted({r.protocol for r in results})) or "unknown"
    yield (
        f"mAP: frame-mAP at IoU 0.5, protocol {protocols}, in per cent. Precision and recall: of actors "
        f"with p(alpha) > {TABLE_THETA}. Untrained mAP: the same network before its first step. "
        f"Scale: {scale}."
    )
    if name in REFERENCE:
        yield (
            f'To reference: our mAP minus that of "{published()["method"][REFERENCE[name]]}". In brackets '
            f"where the difference may be noise: p >= {SIGNIFICANCE} in Welch's t-test over the seeds, or a "
            "single seed."
        )
    if cells["counted GFLOPs"].notna().any():
        yield (
            "Counted GFLOPs, GFLOPs after the backbone and parameters: our count, of the model of the "
            "paper's size whatever the scale of the mAP; multiply-accumulates of one clip."
        )
    if cells["low"].notna().any():
        yield "95 %: interval of our mAP (of the first seed), by a jackknife over the test videos."
    if cells["candidates per actor"].notna().any():
        yield (
            f"Candidates per actor: those with p(alpha) > {TABLE_THETA} that overlap an actor by 0.5, per "
            "actor that has any; 1 is ideal. Their p(alpha): the median. Twin law: the p(alpha) of as many "
            "that the model cannot tell apart. Actor AP: of actors as one class, by p(alpha), at two "
            "overlaps. Class AP, true boxes: frame-mAP where each true box has the scores of the candidate "
            "on it. mAP, no duplicates: after an oracle has removed them."
        )
    if (cells["detector GFLOPs"] > 0).any():
        yield "A person detector's GFLOPs, +246 as published, are not in the counts."


def _result_notes(name: str, scale: str, results: Sequence[Result]) -> Iterator[str]:
    chance = {(r.split, r.clips, round(100 * r.mAP_random_classes, 1)) for r in results}
    for split, clips, value in sorted(chance):
        yield (
            f"Chance level on the {split} split of {clips} clips: ground-truth boxes with random classes "
            f"{value} mAP."
        )
    if any(r.experiment["method"] == "two_stage" and r.experiment["boxes"] == "detector" for r in results):
        simulated = " (simulated, on this synthetic data)" if size_of(scale) != "paper" else ""
        yield f"The detector's boxes{simulated} come from a person-box file, with scores of at least 0.8."
    if any(r.experiment["method"] == "detr" for r in results):
        yield (
            "The encoder-decoder has its own schedule, with more epochs: with the schedule of the others "
            "it is far from converged."
        )
    if replaced := sum(r.substituted for r in results):
        yield f"{replaced} training clips could not be read and were replaced."
    if size_of(scale) != "paper" and name != "pretraining" and results:
        yield INITIALISATION_NOTE
    if size_of(scale) == "tiny":
        yield TINY_WARNING


DISPLAYED = (
    "method", "dataset", "pretraining", "backbone", "clip", "res.", "end-to-end", "paper GFLOPs",
    "counted GFLOPs", "after backbone", "parameters M", "paper mAP", "our mAP", "our mAP, slowfast",
    "our accuracy", "95 %", "difference", "to reference", "paper precision", "our precision",
    "paper recall", "our recall", "candidates per actor", "their p(alpha)", "twin law",
    "actor AP 0.5", "actor AP 0.75", "class AP, true boxes", "mAP, no duplicates", "untrained mAP", "seeds",
)  # fmt: skip
"""Columns of the Markdown, LaTeX and HTML tables, in order."""
TEXT_COLUMNS = ("method", "dataset", "pretraining", "backbone", "clip", "end-to-end")
SOURCE_COLUMN = {"95 %": "low"}
"""Displayed column -> the column of the CSV that it is made from, where the names differ."""
PUBLISHED = (
    "method", "dataset", "pretraining", "backbone", "clip", "res.", "end-to-end", "paper GFLOPs",
    "counted GFLOPs", "parameters M", "paper mAP", "paper precision", "paper recall",
)  # fmt: skip
"""Columns of the published numbers, where small results of ours are apart."""
APART = ("3", "4")
"""Tables of the state of the art."""
HIDDEN = {
    "pretraining": (
        "our precision",
        "our recall",
        "candidates per actor",
        "their p(alpha)",
        "twin law",
        "actor AP 0.5",
        "actor AP 0.75",
        "class AP, true boxes",
        "mAP, no duplicates",
    ),
    "3": ("after backbone", "our precision", "our recall", "untrained mAP"),
    "4": ("counted GFLOPs", "after backbone", "parameters M"),
}
"""Table -> columns of its CSV that are never displayed."""


def format_cells(table: Table) -> pd.DataFrame:
    """The displayed columns as text, without columns that are empty throughout."""
    cells = table.cells
    names = [
        name
        for name in DISPLAYED
        if name not in table.hidden
        and (name == "our mAP" or cells[SOURCE_COLUMN.get(name, name)].notna().any())
    ]
    return pd.DataFrame({name: [_format_cell(name, line) for _, line in cells.iterrows()] for name in names})


def markdown(table: Table) -> str:
    """The table with its title and notes, as Markdown."""
    texts = []
    for part in parts(table):
        cells = format_cells(part)
        align = ["left" if name in TEXT_COLUMNS else "right" for name in cells]
        text = headed(cells, part).to_markdown(index=False, disable_numparse=True, colalign=align)
        texts.append("\n\n".join([f"## {part.title}", text, *part.notes]) + "\n")
    return "\n".join(texts)


def headed(cells: pd.DataFrame, table: Table) -> pd.DataFrame:
    """Displayed columns under headings that say what each number is of: see `heading`."""
    return cells.rename(columns={name: heading(str(name), table) for name in cells})


def heading(name: str, table: Table) -> str:
    """A column's heading: below the paper's scale a number of ours never looks like one on AVA."""
    kind, _, what = name.partition(" ")
    if size_of(table.scale) == "paper" or what == "GFLOPs" or kind not in ("our", "paper"):
        return name
    data = "real data" if table.name.startswith("4") else "AVA"
    return f"ours, small, synthetic: {what}" if kind == "our" else f"paper, {data}: {what}"


SIGNS = str.maketrans({"<": "$<$", ">": "$>$", "±": r"$\pm$", "²": "$^2$", "`": "", '"': "''"})
"""Signs that pandas leaves as they are and that LaTeX's default fonts set as others."""


def latex(table: Table) -> str:
    """The table for a paper, its notes in small print below. Needs booktabs and graphicx."""
    return "\n".join(_latex(part) for part in parts(table))


def _latex(table: Table) -> str:
    cells = format_cells(table)
    align = "".join("l" if name in TEXT_COLUMNS else "r" for name in cells)
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{table.title}}}",
            rf"\label{{tab:{table.name}}}",
            r"\resizebox{\linewidth}{!}{%",
            _tabular(headed(cells, table), align, header=True) + "}",
            *([r"\par\smallskip\footnotesize", _notes(table)] if table.notes else []),
            r"\end{table}",
            "",
        ]
    )


def _notes(table: Table) -> str:
    return _tabular(pd.DataFrame({"note": table.notes}), r"@{}p{\linewidth}@{}", header=False)


def _tabular(cells: pd.DataFrame, align: str, *, header: bool) -> str:
    """A LaTeX tabular with escaped text, with booktabs' rules if it has a header."""
    style = cells.style.hide(axis="index").format(escape="latex").format_index(escape="latex", axis="columns")
    if not header:
        style = style.hide(axis="columns")
    return style.to_latex(column_format=align, hrules=header).strip().translate(SIGNS)


def _format_cell(name: str, line: Any) -> str:
    """The text of one displayed cell."""
    value = line[SOURCE_COLUMN.get(name, name)]
    if name in TEXT_COLUMNS:
        return value if isinstance(value, str) else ""
    if name == "seeds":
        return str(value) if line["ours"] else ""
    if name == "our mAP" and pd.isna(value):
        return NOT_RUN if line["ours"] else ""
    if pd.isna(value):
        return ""
    if name == "our mAP" and line["seeds"] > 1:
        return f"{value:.1f} ± {line['std']:.1f}"
    if name == "to reference":
        if value == 0 and pd.isna(line["p-value"]):
            return "0"
        return f"{value:+.1f}" if line["p-value"] < SIGNIFICANCE else f"({value:+.1f})"
    if name == "paper GFLOPs":
        return f"{value:g}" + (f" + {line['detector GFLOPs']:g}" if pd.notna(line["detector GFLOPs"]) else "")
    if name == "difference":
        return f"{value:+.1f}"
    if name == "95 %":
        return f"{line['low']:.1f} to {line['high']:.1f}"
    if name in ("candidates per actor", "their p(alpha)", "twin law"):
        return f"{value:.2f}"
    return f"{value:.0f}" if name == "res." else f"{value:.1f}"


SANITY_TITLE = "Sanity check: does each method learn?"
SANITY_NOTE = (
    "Untrained: the same network before its first step, which given boxes lift to chance level. Random "
    "classes: ground-truth boxes with random classes."
)


def sanity_rows(scale: str, runs: Path) -> list[dict[str, str]]:
    """The mAP of each method beside that of its untrained network: three lines of text cells."""
    selections = [row for row in ROWS if row.startswith("2b/")]
    rows = {
        "RoI align on the true boxes": ["2a/two_stage_true_boxes"],
        "best single-stage selection": selections,
        "encoder-decoder (DETR)": ["fig1/detr"],
    }
    lines = []
    for title, names in rows.items():
        results = {name: seeds for name in names if (seeds := load_results(name, scale, runs))}
        if not results:
            lines.append({"method": title, "row": "", "mAP": NOT_RUN, "untrained": "", "random classes": ""})
            continue
        best = max(results, key=lambda name: _mean(per_seed(results[name], "mAP")))
        mAP, untrained, chance = (
            _mean(per_seed(results[best], field)) for field in ("mAP", "mAP_untrained", "mAP_random_classes")
        )
        lines.append(
            {
                "method": title,
                "row": best,
                "mAP": f"{mAP:.1f}",
                "untrained": f"{untrained:.1f}",
                "random classes": f"{chance:.1f}",
            }
        )
    return lines


def sanity(scale: str, runs: Path) -> str:
    """`sanity_rows` as Markdown."""
    text = pd.DataFrame(sanity_rows(scale, runs)).to_markdown(
        index=False, disable_numparse=True, colalign=["left", "left", "right", "right", "right"]
    )
    return f"## {SANITY_TITLE} Scale {scale}\n\n{text}\n\n{SANITY_NOTE}\n"
