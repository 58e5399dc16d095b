"""The paper's tables, its numbers beside ours: Markdown, LaTeX and CSV.

`paper_results.csv` names every row of a table, in the paper's order. A row is one of ours (a row of
`benchmarks.experiments`), the mean of some of ours, or somebody else's, of which only what was published
is shown.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import ttest_ind

from benchmarks.experiments import ROWS, Experiment, rows_at
from benchmarks.score.analysis import read_analysis
from benchmarks.score.results import TABLE_THETA, Result, read_result
from benchmarks.train.gflops import ROWS as CLASSIFIERS
from benchmarks.train.gflops import Count, count_row

TITLES = {
    "2a": "Table 2a. Input and output resolution, and the two-stage baseline",
    "2b": "Table 2b. Token selection",
    "2c": "Table 2c. Aspect ratio",
    "fig1": "Fig. 1b and 1c. Encoder-decoder with learned queries against matching of the backbone's tokens",
    "3": "Table 3. State of the art on AVA 2.2",
    "4": "Table 4. UCF101-24 and JHMDB",
    "ours": "Ours, beyond the paper. Its open choices, one at a time",
}
MEANS = {"4/jhmdb": ("4/jhmdb_1", "4/jhmdb_2", "4/jhmdb_3")}
"""Row that is no run -> the rows whose mean it is."""
REFERENCE = {
    "2a": "2a/256_16",
    "2b": "2b/two_c_t",
    "2c": "2c/fixed",
    "fig1": "fig1/ours",
    "ours": "ours/two_c_t",
}
"""Table -> the row that the others are compared with: the paper's method."""
SEEDS = 32
"""Results of seeds 0 to 31 are looked for."""
NOISE = 0.05
"""A difference of means is called noise where Welch's t-test gives it a p-value of this or more."""
TINY_WARNING = (
    "These are tiny-scale numbers on a synthetic benchmark. They show that training works and that "
    "the variants differ; they do not confirm or refute the paper's order, which is of another "
    "network, other data and 25 epochs from Kinetics weights. The difference to the paper's number "
    "is printed for completeness, and at this scale means nothing."
)
BEGINNING_NOTE = (
    "The paper's models begin with Kinetics weights. At this scale those of this table begin with the "
    "backbone that 2(C+T) + frame embedding ended with on the AVA-shaped data."
)
MISSING = "not run"


@dataclass(frozen=True)
class Table:
    """One table of the paper. `cells` has a row for each of its rows, numbers in per cent, NaN where none."""

    name: str
    title: str
    cells: pd.DataFrame
    notes: tuple[str, ...]

    @property
    def has_results(self) -> bool:
        """Whether a row was run at all."""
        return bool((self.cells["seeds"] > 0).any())


def published() -> pd.DataFrame:
    """The paper's numbers by row name, in per cent and GFLOPs, each with its source."""
    text = dict.fromkeys(("dataset", "pretraining", "backbone", "clip", "end_to_end", "counted"), str)
    return pd.read_csv(Path(__file__).with_name("paper_results.csv"), index_col="row", dtype=text)


@cache
def counted(row: str) -> Count | None:
    """GFLOPs and parameters of a row's model at the paper's size, counted; None of models that are not ours.

    row: of `published`. Of others' methods on a backbone of ours, the backbone with its classifier.
    """
    name = MEANS[row][0] if row in MEANS else row
    if name in ROWS:
        return count_row(ROWS[name], instant=True)
    key = published()["counted"][row]
    return count_row(CLASSIFIERS[key], instant=True) if isinstance(key, str) else None


def table(name: str, scale: str, runs: Path, *, count: Callable[[str], Count | None] = counted) -> Table:
    """Table `name` with the results found in `runs`, of all seeds from 0; rows without one say so."""
    paper = published()
    mine = paper[paper.index.str.startswith(f"{name}/")]
    found = {row: results_of(row, scale, runs) for row in mine.index}
    reference = found.get(REFERENCE.get(name, ""), [])
    lines = []
    for row, printed in mine.iterrows():
        made_of = cells(str(row), printed, found[row], reference, scale, count)
        low, high = interval(found[row], runs)
        lines.append(made_of | {"low": low, "high": high})
    results = [r for row in mine.index for seed in found[row] for r in seed if row not in MEANS]
    made = pd.DataFrame(lines)
    return Table(name, TITLES[name], made, notes(name, scale, results, made))


def results_of(row: str, scale: str, runs: Path) -> list[tuple[Result, ...]]:
    """For each seed, the results that make the row: one, or those of MEANS; [] for others' methods.

    Only seeds with all of them count.
    """
    parts = MEANS.get(row, (row,))
    if any(part not in ROWS for part in parts):
        return []
    found = []
    for seed in range(SEEDS):
        rows = _rows(scale, seed)
        paths = [runs / rows[part].hash / "result.json" for part in parts]
        if all(path.exists() for path in paths):
            # One of another version is as good as none: `reports.page.store` says so.
            with contextlib.suppress(ValueError):
                found.append(tuple(read_result(path) for path in paths))
    return found


def interval(found: Sequence[tuple[Result, ...]], runs: Path) -> tuple[float, float]:
    """The 95 % interval of the first seed's mAP, in per cent; NaN of a mean, or where it is not known."""
    if not found or len(found[0]) != 1:
        return float("nan"), float("nan")
    known = read_analysis(runs / found[0][0].hash / "analysis.json")
    if known is None or known.mAP_low is None or known.mAP_high is None:
        return float("nan"), float("nan")
    return 100 * known.mAP_low, 100 * known.mAP_high


@cache
def _rows(scale: str, seed: int) -> Mapping[str, Experiment]:
    return rows_at(scale, seed=seed)


def of_seeds(found: Sequence[tuple[Result, ...]], field: str) -> np.ndarray:
    """(S,) a field of each seed in per cent: the mean over its results, NaN where one has no number."""
    values = [[getattr(r, field) for r in seed] for seed in found]
    return np.array([np.nan if None in row else 100 * float(np.mean(row)) for row in values])


def cells(
    row: str,
    printed: Any,
    found: Sequence[tuple[Result, ...]],
    reference: Sequence[tuple[Result, ...]],
    scale: str,
    count: Callable[[str], Count | None],
) -> dict[str, Any]:
    """A row's columns, the paper's number before ours. printed: the row of `published`."""
    ours = row in ROWS or row in MEANS
    mAP = of_seeds(found, "mAP")
    to_reference, p_value = compared(mAP, of_seeds(reference, "mAP"))
    model = count(row)
    first = found[0] if found else ()
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
        # Of a classifier the head is part of what others call the backbone.
        "after backbone": model.after_backbone if model and ours else np.nan,
        "parameters M": model.params / 1e6 if model else np.nan,
        "paper mAP": printed["map"],
        "our mAP": _mean(mAP),
        "std": float(np.std(mAP, ddof=1)) if len(mAP) > 1 else np.nan,
        "seeds": len(found),
        "difference": _mean(mAP) - printed["map"],
        "to reference": to_reference,
        "p-value": p_value,
        "paper precision": printed["precision"],
        "our precision": _mean(of_seeds(found, "precision")),
        "paper recall": printed["recall"],
        "our recall": _mean(of_seeds(found, "recall")),
        "untrained mAP": _mean(of_seeds(found, "mAP_untrained")),
        "ours": ours,
        "scale": scale,
        "protocol": first[0].protocol if first else MISSING,
        "split": (first[0].split if len(first) == 1 else "mean") if first else MISSING,
        "run": " ".join(r.hash for seed in found for r in seed),
        "source": printed["source"],
    }


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def compared(mine: np.ndarray, others: np.ndarray) -> tuple[float, float]:
    """Of seeds' numbers, (S,) and (R,): difference of means, Welch's p-value; NaN where there is none."""
    if not len(mine) or not len(others):
        return float("nan"), float("nan")
    difference = float(mine.mean() - others.mean())
    if min(len(mine), len(others)) < 2 or np.array_equal(mine, others):
        return difference, float("nan")
    return difference, float(ttest_ind(mine, others, equal_var=False).pvalue)


def notes(name: str, scale: str, results: Sequence[Result], made: pd.DataFrame) -> tuple[str, ...]:
    """What a reader must know beside the numbers."""
    protocols = " and ".join(f"`{p}`" for p in sorted({r.protocol for r in results})) or "not known yet"
    lines = [
        f"mAP: frame-mAP at IoU 0.5, protocol {protocols}, in per cent. Precision and recall: of persons "
        f"with p(alpha) > {TABLE_THETA}. Untrained mAP: the same network before its first step. "
        f"Scale: {scale}."
    ]
    if name in REFERENCE:
        method = made["method"][
            list(published().filter(like=f"{name}/", axis=0).index).index(REFERENCE[name])
        ]
        lines.append(
            f'To reference: our mAP less that of "{method}". In brackets where it may be noise: '
            f"p >= {NOISE} in Welch's t-test over the seeds, or one seed alone, which cannot tell."
        )
    if made["counted GFLOPs"].notna().any():
        lines.append(
            "Counted GFLOPs, what comes after the backbone, and parameters: counted by us, of the model of "
            "the paper's size whatever the scale of the mAP; multiply-accumulates of one clip."
        )
    if made["low"].notna().any():
        lines.append(
            "95 %: interval of our mAP (of the first seed's), percentile bootstrap over the test videos."
        )
    if (made["detector GFLOPs"] > 0).any():
        lines.append("A person detector's GFLOPs, +246 as published, are not in the counts.")
    chance = {(r.split, r.clips, round(100 * r.mAP_random_classes, 1)) for r in results}
    lines += [
        f"Reference on the {split} split of {clips} clips: perfect boxes with random classes {value} mAP."
        for split, clips, value in sorted(chance)
    ]
    if any(r.experiment["method"] == "two_stage" and r.experiment["boxes"] == "detector" for r in results):
        made_up = " (simulated, on this synthetic data)" if scale != "paper" else ""
        lines.append(f"The detector's boxes{made_up} are those of a person-box file, score 0.8 and above.")
    if any(r.experiment["method"] == "detr" for r in results):
        lines.append(
            "The encoder-decoder has a schedule of its own, of more epochs: with the other's it is far from "
            "converged."
        )
    if replaced := sum(r.substituted for r in results):
        lines.append(f"{replaced} training clips could not be read, and others stood in for them.")
    if name == "4" and scale != "paper":
        lines.append(BEGINNING_NOTE)
    if scale == "tiny":
        lines.append(TINY_WARNING)
    return tuple(lines)


SHOWN = (
    "method", "dataset", "pretraining", "backbone", "clip", "res.", "end-to-end", "paper GFLOPs",
    "counted GFLOPs", "after backbone", "parameters M", "paper mAP", "our mAP", "95 %", "difference",
    "to reference", "paper precision", "our precision", "paper recall", "our recall", "untrained mAP",
    "seeds",
)  # fmt: skip
TEXT = ("method", "dataset", "pretraining", "backbone", "clip", "end-to-end")
SOURCE = {"95 %": "low"}
"""Column that people read -> one of the csv that it is made of, where the names differ."""
HIDDEN = {
    "3": ("after backbone", "our precision", "our recall", "untrained mAP"),
    "4": ("counted GFLOPs", "after backbone", "parameters M"),
}
"""Table -> columns of its csv that are left out of what people read."""


def shown(table: Table) -> pd.DataFrame:
    """What people read: text, no column that is empty throughout, one decimal, "not run" in words."""
    made = table.cells
    names = [
        name
        for name in SHOWN
        if name not in HIDDEN.get(table.name, ())
        and (name == "our mAP" or made[SOURCE.get(name, name)].notna().any())
    ]
    return pd.DataFrame({name: [_shown(name, line) for _, line in made.iterrows()] for name in names})


def markdown(table: Table) -> str:
    """The table with its title and notes, as Markdown."""
    cells = shown(table)
    align = ["left" if name in TEXT else "right" for name in cells]
    text = cells.to_markdown(index=False, disable_numparse=True, colalign=align)
    return "\n\n".join([f"## {table.title}", text, *table.notes]) + "\n"


def latex(table: Table) -> str:
    """For a paper: booktabs' rules, the notes in small print below. Needs booktabs and graphicx."""
    cells = shown(table)
    align = "".join("l" if name in TEXT else "r" for name in cells)
    lines = [" & ".join(_tex(text) for text in row) + r" \\" for row in cells.itertuples(index=False)]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_tex(table.title)}}}",
            rf"\label{{tab:{table.name}}}",
            r"\resizebox{\linewidth}{!}{%",
            rf"\begin{{tabular}}{{{align}}}",
            r"\toprule",
            " & ".join(_tex(str(name)) for name in cells) + r" \\",
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}}",
            r"\par\smallskip\footnotesize " + _tex(" ".join(table.notes)),
            r"\end{table}",
            "",
        ]
    )


TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
    "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", ">": r"$>$",
    "<": r"$<$", "`": "'", '"': "''",
}  # fmt: skip
"""What LaTeX would take for a command or set as another sign."""


def _tex(text: str) -> str:
    return "".join(TEX.get(sign, sign) for sign in text)


def _shown(name: str, line: Any) -> str:
    """One cell as people read it."""
    value = line[SOURCE.get(name, name)]
    if name in TEXT:
        return value if isinstance(value, str) else ""
    if name == "seeds":
        return str(value) if line["ours"] else ""
    if name == "our mAP" and pd.isna(value):
        return MISSING if line["ours"] else ""
    if pd.isna(value):
        return ""
    if name == "our mAP" and line["seeds"] > 1:
        return f"{value:.1f} ± {line['std']:.1f}"
    if name == "to reference":
        if value == 0 and pd.isna(line["p-value"]):
            return "0"
        sure = line["p-value"] < NOISE
        return f"{value:+.1f}" if sure else f"({value:+.1f})"
    if name == "paper GFLOPs":
        return f"{value:g}" + (f" + {line['detector GFLOPs']:g}" if pd.notna(line["detector GFLOPs"]) else "")
    if name == "difference":
        return f"{value:+.1f}"
    if name == "95 %":
        return f"{line['low']:.1f} to {line['high']:.1f}"
    return f"{value:.0f}" if name == "res." else f"{value:.1f}"


def sanity_rows(scale: str, runs: Path) -> list[dict[str, str]]:
    """Three lines to look at before any table: has each of the methods learned what people do?"""
    selections = [row for row in ROWS if row.startswith("2b/")]
    rows = {
        "RoI align on the true boxes": ["2a/two_stage_true_boxes"],
        "best single-stage selection": selections,
        "encoder-decoder (DETR)": ["fig1/detr"],
    }
    lines = []
    for title, names in rows.items():
        done = [(name, results_of(name, scale, runs)) for name in names]
        done = [(name, found) for name, found in done if found]
        if not done:
            lines.append({"method": title, "row": "", "mAP": MISSING, "untrained": "", "random classes": ""})
            continue
        name, found = max(done, key=lambda pair: _mean(of_seeds(pair[1], "mAP")))
        lines.append(
            {
                "method": title,
                "row": name,
                "mAP": f"{_mean(of_seeds(found, 'mAP')):.1f}",
                "untrained": f"{_mean(of_seeds(found, 'mAP_untrained')):.1f}",
                "random classes": f"{_mean(of_seeds(found, 'mAP_random_classes')):.1f}",
            }
        )
    return lines


SANITY_NOTE = (
    "Untrained: the same network before its first step, which given boxes lift to chance. Random classes: "
    "the true boxes with random classes."
)


def sanity(scale: str, runs: Path) -> str:
    """Whether each method beats its untrained self, as Markdown."""
    text = pd.DataFrame(sanity_rows(scale, runs)).to_markdown(
        index=False, disable_numparse=True, colalign=["left", "left", "right", "right", "right"]
    )
    return f"## Sanity: do all three ways learn? Scale {scale}\n\n{text}\n\n{SANITY_NOTE}\n"
