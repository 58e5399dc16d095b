"""Verdicts on the paper's claims, from made-up runs whose differences are known."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from benchmarks.experiments import rows_at
from benchmarks.score.analysis import Analysis
from benchmarks.score.resampled import METRICS, SAMPLES
from reports import hypotheses
from reports.hypotheses import Hypothesis, interval, judge

CLAIM = Hypothesis("x", "c_t is better", "2b/c_t", "2b/tubelet", "mAP", "", "+", "Table 2b")


def write(store, runs, row, seed, values):
    """A run with these values of each metric on the videos and in its samples."""
    store(runs, row, seed=seed)
    made = Analysis(
        mAP_low=None, mAP_high=None, boxes={}, precision=[], recall=[], errors={}, confusion=[],
        sampled={metric: list(values) for metric in METRICS},
    )  # fmt: skip
    folder = runs / rows_at("tiny", seed=seed)[row].hash
    (folder / "analysis.json").write_text(json.dumps(asdict(made)))


def pairs(store, runs, differences, noise=0.01):
    """A pair of runs for each seed, c_t better by this much, in the samples with the same noise for both."""
    videos = np.random.default_rng(1).normal(0, 0.1, 1 + SAMPLES)
    for seed, difference in enumerate(differences):
        own = np.random.default_rng(2 + seed).normal(0, noise, 1 + SAMPLES)
        write(store, runs, "2b/tubelet", seed, 0.5 + videos)
        write(store, runs, "2b/c_t", seed, 0.5 + videos + difference + own - own[0])


@pytest.mark.parametrize(
    ("differences", "sign", "word"),
    [
        ([0.05, 0.06, 0.04], "+", "agrees"),
        ([0.05, 0.06, 0.04], "-", "disagrees"),
        ([-0.05, -0.06, -0.04], "-", "agrees"),
        ([0.05, -0.06, 0.04], "+", "undetermined"),
        ([0.05], "+", "undetermined"),
        ([], "+", "not run"),
    ],
)
def test_a_verdict_needs_an_interval_on_one_side_of_zero(store, tmp_path, differences, sign, word):
    """The videos differ by far more than the rows do, but they are the same videos."""
    pairs(store, tmp_path, differences)
    verdict = judge(Hypothesis(**asdict(CLAIM) | {"sign": sign}), "tiny", tmp_path)
    assert verdict.word == word
    assert verdict.seeds == len(differences)
    if differences:
        assert verdict.difference == pytest.approx(100 * np.mean(differences))
    assert np.isnan(verdict.low) == (len(differences) < 2)


def test_seeds_that_lack_one_of_the_rows_are_left_out(store, tmp_path):
    pairs(store, tmp_path, [0.05, 0.05])
    write(store, tmp_path, "2b/c_t", 2, np.ones(1 + SAMPLES))
    assert judge(CLAIM, "tiny", tmp_path).seeds == 2


def test_results_of_another_version_do_not_count(store, tmp_path):
    pairs(store, tmp_path, [0.05, 0.05])
    file = tmp_path / rows_at("tiny", seed=1)["2b/c_t"].hash / "result.json"
    file.write_text(file.read_text().replace('"mAP"', '"map"'))
    assert judge(CLAIM, "tiny", tmp_path).seeds == 1


def test_a_difference_of_differences_cancels_what_both_metrics_share(store, tmp_path):
    pairs(store, tmp_path, [0.05, 0.05])
    both = Hypothesis(**asdict(CLAIM) | {"metric": "recall_small", "minus": "recall_large"})
    verdict = judge(both, "tiny", tmp_path)
    assert (verdict.difference, verdict.low, verdict.high) == (0, 0, 0)
    assert verdict.word == "undetermined"


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("deviation", [0.1, 1, 5])
def test_the_interval_covers_the_truth_as_often_as_it_says(seeds, deviation):
    """Differences of 1 with a deviation of seeds, and one of 1 of videos that the seeds share."""
    covered = []
    for trial in range(400):
        rng = np.random.default_rng(trial)
        of_seeds = 1 + rng.normal(0, deviation, (seeds, 1))
        of_videos = rng.normal(0, 1) + np.append(0, rng.normal(0, 1, 100))  # a sample is centred on the data
        low, high = interval(of_seeds + of_videos)
        covered.append(low <= 1 <= high)
    assert 0.92 < np.mean(covered) < 0.99


def test_every_claim_names_rows_and_metrics_that_exist():
    read = hypotheses.hypotheses()
    assert len(read) > 10
    assert len({one.name for one in read}) == len(read)


def test_markdown_has_a_line_for_each_claim_with_its_verdict(store, tmp_path):
    pairs(store, tmp_path, [0.05, 0.06, 0.05])
    text = hypotheses.markdown(hypotheses.verdicts("tiny", tmp_path), "tiny")
    [line] = [line for line in text.splitlines() if "central frame localises" in line]
    assert "2b/c_t - 2b/tubelet" in line
    assert "| agrees " in line
    assert text.count("not run") == len(hypotheses.hypotheses()) - 1
