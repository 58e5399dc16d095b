"""What the paper claims, held against paired runs: agrees, disagrees or undetermined.

`hypotheses.csv` says, before any run, which row is to be better than which, in which metric. Runs of a seed
are a pair: the same clips in the same order, the same test videos. The interval is over both.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import norm, t

from benchmarks.experiments import ROWS, rows_at
from benchmarks.score.analysis import read_analysis
from benchmarks.score.resampled import METRICS
from benchmarks.score.results import read_result
from reports.tables import SEEDS

LEVEL = 0.95
TITLE = "The paper's claims, seen small"
NOTE = (
    "Difference: the mean over the seeds, which are paired, in points. 95 %: over test videos and, by "
    "Student's quantiles, over seeds. Agrees or disagrees where the interval is on one side of 0; one seed "
    "leaves it undetermined. A disagreement is a finding about this small model and synthetic data, not "
    "about the paper; its rows' diagnostics are in their tables. The claims and comparisons were fixed "
    "before the runs."
)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Hypothesis:
    """`row` is better than `than`: a line of hypotheses.csv."""

    name: str
    claim: str
    row: str
    than: str
    metric: str
    """One of `benchmarks.score.resampled.METRICS`."""
    minus: str
    """Another, whose difference is subtracted; "" for none."""
    sign: str
    """"+" where `row` is to have more of the metric, "-" where less."""
    source: str


@dataclass(frozen=True)
class Verdict:
    """A hypothesis and what the runs say. Points: differences in per cent."""

    hypothesis: Hypothesis
    seeds: int
    difference: float
    """NaN without runs."""
    low: float
    high: float
    """Ends of the 95 % interval; NaN with fewer than two seeds."""

    @property
    def word(self) -> str:
        """agrees, disagrees, undetermined or not run."""
        if not self.seeds:
            return "not run"
        expected = 1 if self.hypothesis.sign == "+" else -1
        if expected * self.low > 0 and expected * self.high > 0:
            return "agrees"
        if expected * self.low < 0 and expected * self.high < 0:
            return "disagrees"
        return "undetermined"


def hypotheses() -> list[Hypothesis]:
    """The lines of hypotheses.csv. Raises ValueError for an unknown row, metric or sign."""
    with Path(__file__).with_name("hypotheses.csv").open(newline="") as file:
        read = [Hypothesis(**line) for line in csv.DictReader(file)]
    for one in read:
        if {one.row, one.than} - ROWS.keys() or {one.metric, one.minus} - {*METRICS, ""}:
            raise ValueError(f"hypotheses.csv, {one.name}: unknown row or metric")
        if one.sign not in ("+", "-"):
            raise ValueError(f"hypotheses.csv, {one.name}: sign is {one.sign!r}, not + or -")
    return read


def judge(hypothesis: Hypothesis, scale: str, runs: Path) -> Verdict:
    """Compare the rows of a hypothesis over all seeds that both have a result of."""
    pairs = list(_differences(hypothesis, scale, runs))
    if not pairs:
        return Verdict(hypothesis, 0, np.nan, np.nan, np.nan)
    difference = float(np.mean([pair[0] for pair in pairs]))
    low, high = interval(np.array(pairs)) if len(pairs) > 1 else (np.nan, np.nan)
    return Verdict(hypothesis, len(pairs), difference, low, high)


def _differences(hypothesis: Hypothesis, scale: str, runs: Path) -> Iterator[Floats]:
    """The difference of a seed's two rows in points, on the videos and in each sample, (1 + S,)."""
    for seed in range(SEEDS):
        rows = rows_at(scale, seed=seed)
        values = [_metric(runs / rows[row].hash, hypothesis) for row in (hypothesis.row, hypothesis.than)]
        if values[0] is not None and values[1] is not None:
            yield 100 * (values[0] - values[1])


def _metric(run: Path, hypothesis: Hypothesis) -> Floats | None:
    """A run's metric on the videos and in each sample; None without a result of this version."""
    try:
        read_result(run / "result.json")
    except (OSError, ValueError):  # `reports.runs.load_sweep` reports it; tables leave it out as well
        return None
    if (analysis := read_analysis(run / "analysis.json")) is None:
        return None
    metric, minus = (
        np.array(analysis.sampled[name], np.float64) if name else 0.0
        for name in (hypothesis.metric, hypothesis.minus)
    )
    return np.asarray(metric - minus)


def interval(differences: Floats, *, level: float = LEVEL) -> tuple[float, float]:
    """The interval of the mean difference of n seeds, (n, 1 + S): of each in all and in S samples of videos.

    Two deviations add up, in squares: that of the mean over samples of the videos, which the seeds share, by
    a normal quantile, and that of a mean of n seeds, which n numbers alone tell, by Student's.
    """
    n = len(differences)
    of_videos = float(np.nanvar(differences[:, 1:].mean(0), ddof=1))
    of_seeds = float(differences[:, 0].var(ddof=1)) / n
    upper = (1 + level) / 2
    half = float(np.sqrt(norm.ppf(upper) ** 2 * of_videos + t.ppf(upper, n - 1) ** 2 * of_seeds))
    mean = float(differences[:, 0].mean())
    return mean - half, mean + half


def verdicts(scale: str, runs: Path) -> list[Verdict]:
    """The verdict on every hypothesis."""
    return [judge(one, scale, runs) for one in hypotheses()]


def text_rows(judged: list[Verdict]) -> list[dict[str, str]]:
    """A line of text cells for each verdict."""
    return [
        {
            "claim": verdict.hypothesis.claim,
            "compared": f"{verdict.hypothesis.row} - {verdict.hypothesis.than}",
            "metric": verdict.hypothesis.metric.replace("_", " ")
            + (f" - {verdict.hypothesis.minus.replace('_', ' ')}" if verdict.hypothesis.minus else ""),
            "difference": "" if np.isnan(verdict.difference) else f"{verdict.difference:+.1f}",
            "95 %": "" if np.isnan(verdict.low) else f"{verdict.low:+.1f} to {verdict.high:+.1f}",
            "seeds": str(verdict.seeds),
            "verdict": verdict.word,
            "paper": verdict.hypothesis.source,
        }
        for verdict in judged
    ]


TEXT = ("claim", "compared", "metric", "verdict", "paper")
"""Columns that are words."""


def markdown(judged: list[Verdict], scale: str) -> str:
    """The verdicts as Markdown."""
    frame = pd.DataFrame(text_rows(judged))
    align = ["left" if name in TEXT else "right" for name in frame]
    table = frame.to_markdown(index=False, disable_numparse=True, colalign=align)
    return f"## {TITLE}. Scale {scale}\n\n{table}\n\n{NOTE}\n"
