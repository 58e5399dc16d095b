"""`nox -s search`: what it looks at, what it keeps, and one search under Ray."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import search
from benchmarks.experiments import OURS, ROWS, at_scale
from benchmarks.score.detections import FoundActors
from benchmarks.search import TrialLog, best_theta, pasted, space_of, try_out
from benchmarks.train.data import load_data
from datasets.split import hold_out_videos
from evaluators.frame_map import Detections

CHECKOUT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")
EXP = replace(at_scale(OURS, "smoke"), frames=4, stride=4, crop=32, epochs=0.25)
SPACE = {"l1": (1.0, 20.0), "lr": (0.001, 0.016)}


def test_what_is_held_out_are_whole_videos_and_the_ground_truth_of_those_alone(small_benchmark):
    whole = load_data(EXP, {EXP.dataset: small_benchmark}).train
    rest, held_out = hold_out_videos(whole, every=5)
    videos = [{video for video, _ in part.keyframes} for part in (rest, held_out, whole)]
    assert not videos[0] & videos[1]
    assert videos[0] | videos[1] == videos[2]
    assert len(videos[1]) == -(-len(videos[2]) // 5)
    assert len(rest) + len(held_out) == len(whole)
    for part in (rest, held_out):
        truth, there = part.ground_truth, set(part.keyframes)
        assert {(truth.videos[v], s) for v, s in zip(truth.video, truth.frame, strict=True)} == there


def test_a_trial_reports_its_looks_and_never_reads_another_split(small_benchmark, monkeypatch):
    """Validation and test splits whose every use fails."""
    real = search.load_data

    def training_only(exp, roots):
        data = real(exp, roots)
        return replace(data, val=None, report=None)

    monkeypatch.setattr(search, "load_data", training_only)
    monkeypatch.setattr(search, "CLIPS", 16)
    heard = []
    try_out(EXP, {EXP.dataset: small_benchmark}, None, device=CPU, workers=0, report=heard.append)
    assert [report["looks"] for report in heard] == [1, 2, 3, 4]
    assert all(report["theta"] in search.THETAS and 0 <= report["mAP"] <= 1 for report in heard)


def test_the_best_theta_is_the_one_whose_rows_alone_score_best(small_benchmark, monkeypatch):
    """True boxes with p(alpha) .25 and wrong ones, sure of their class, with .15: .2 is best."""
    split = load_data(EXP, {EXP.dataset: small_benchmark}).val
    truth, ids = split.ground_truth, np.array(list(split.classes))
    right = np.zeros((len(truth.label), len(ids)))
    right[np.arange(len(truth.label)), np.searchsorted(ids, truth.label)] = 0.5
    boxes = np.concatenate([truth.box, truth.box * 0.1])
    columns = (np.tile(truth.video, 2), np.tile(truth.frame, 2))
    scores = np.concatenate([right, np.full_like(right, 0.9)])
    p_actor = np.repeat([0.25, 0.15], len(truth.label))
    persons = Detections(truth.videos, *columns, boxes, np.zeros(len(boxes), np.int64), p_actor)
    monkeypatch.setattr(search, "predict", lambda *args, **kwargs: FoundActors(persons, ids, scores))
    theta, mAP = best_theta(torch.nn.Identity(), split, EXP, CPU, 0)
    assert theta == 0.2
    assert mAP > 0.5


def test_the_log_is_read_back_and_a_broken_line_is_named(tmp_path):
    log = TrialLog(tmp_path / "trials.csv", SPACE)
    log.add({"l1": 2.0, "lr": 0.004, "looks": 4, "theta": 0.1, "mAP": 0.25, "more": "left out"})
    log.add({"l1": 9.0, "lr": 0.002, "looks": 1, "theta": 0.02, "mAP": 0.125})
    again = TrialLog(tmp_path / "trials.csv", SPACE)
    assert again.trials == log.trials
    assert again.table().splitlines()[1].split() == ["2", "0.004", "4", "0.1", "0.25"]
    text = (tmp_path / "trials.csv").read_text()
    (tmp_path / "trials.csv").write_text(text.replace("9.0", "nine"))
    with pytest.raises(ValueError, match=r"trials.csv, line 3: not a trial of this search"):
        TrialLog(tmp_path / "trials.csv", SPACE)


def test_the_winner_can_be_pasted():
    trial = {name: low for name, (low, _) in space_of(EXP).items()} | {"theta": 0.1, "mAP": 0.5}
    text = pasted("2b/two_c_t", EXP, trial, "tiny")
    assert text.startswith("# 2b/two_c_t at scale tiny: frame-mAP 50.0 on held-out training videos\n")
    names = {"replace": replace, "OURS": OURS, "ROWS": ROWS, "at_scale": at_scale}
    made = eval(text.splitlines()[1], names)
    winner = {"l1": 1.0, "giou": 0.5, "actor": 0.5, "action": 1.5, "eos_coef": 0.02, "theta": 0.1}
    winner["lr"] = float(f"{EXP.lr / 4:.3g}")
    assert made == replace(at_scale(OURS, "tiny"), **winner), "of the small model, which has its own recipe"
    assert eval(pasted("2b/two_c_t", EXP, trial, "paper").splitlines()[1], names) == replace(OURS, **winner)
    other = eval(pasted("2b/tubelet", EXP, trial, "tiny").splitlines()[1], names)
    assert other == replace(at_scale(ROWS["2b/tubelet"], "tiny"), **winner)


@pytest.mark.slow
def test_a_search_ends_with_a_winner_and_goes_on_where_it_was(tmp_path):
    def searched(trials):
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.search", "--scale", "smoke", "--trials", str(trials),
             "--out", str(tmp_path)],
            cwd=CHECKOUT, capture_output=True, text=True, timeout=900, check=False,
            env=os.environ | {"PYTHONPATH": str(CHECKOUT)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    first = searched(3)
    assert "0 trials are there, 3 to come" in first
    assert len(re.findall(r"^trial \d: mAP", first, re.M)) == 3
    [log] = tmp_path.glob("search/*/trials.csv")
    three = log.read_text()
    assert "3 trials are there, 1 to come" in searched(4)
    assert log.read_text().startswith(three)
    assert len(log.read_text().splitlines()) == 5
    again = searched(4)
    assert "4 trials are there, 0 to come" in again
    winner = (log.parent / "winner.txt").read_text()
    assert winner in again
    best = max(float(line.rsplit(",", 1)[1]) for line in log.read_text().splitlines()[1:])
    assert f"frame-mAP {100 * best:.1f}" in winner
