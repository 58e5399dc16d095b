"""A search's trials: what they may read, what they report, and the log that a search resumes from."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.score.detections import SplitDetections
from benchmarks.sweep import search
from benchmarks.sweep.search import TrialLog, best_theta, run_trial
from benchmarks.train.data import load_data
from datasets.split import hold_out_videos
from evaluators.frame_map import Detections
from tests.benchmarks.shared import TINY, context_of

EXP = replace(TINY, epochs=0.5)
SPACE = {"l1": (1.0, 20.0), "lr": (0.001, 0.016)}


def test_whole_videos_are_held_out_with_their_ground_truth_alone(small_benchmark):
    whole = load_data(EXP, {EXP.dataset: small_benchmark}).train
    rest, held_out = hold_out_videos(whole, every=5)
    videos = [{video for video, _ in part.keyframes} for part in (rest, held_out, whole)]
    assert not videos[0] & videos[1]
    assert videos[0] | videos[1] == videos[2]
    assert len(videos[1]) == -(-len(videos[2]) // 5)
    assert len(rest) + len(held_out) == len(whole)
    for part in (rest, held_out):
        gt, keyframes = part.ground_truth, set(part.keyframes)
        assert {(gt.videos[v], s) for v, s in zip(gt.video, gt.frame, strict=True)} == keyframes


def test_a_trial_reports_its_validations_and_reads_no_other_split(small_benchmark, monkeypatch):
    """Validation and test splits are None: every use of them fails."""
    load = search.load_data
    monkeypatch.setattr(search, "load_data", lambda *args: replace(load(*args), val=None, report=None))
    monkeypatch.setattr(search, "CLIPS", 16)
    reports = []
    run_trial(EXP, {EXP.dataset: small_benchmark}, None, context_of(), reports.append)
    assert [report["looks"] for report in reports] == [1, 2, 3, 4]
    assert all(report["theta"] in search.THETAS and 0 <= report["mAP"] <= 1 for report in reports)


def test_the_best_theta_is_the_one_with_the_highest_mAP(small_benchmark, monkeypatch):
    """True boxes with p(alpha) .25 and wrong ones, with high action scores, with .15: .2 is best."""
    split = load_data(EXP, {EXP.dataset: small_benchmark}).val
    gt, ids = split.ground_truth, np.array(list(split.classes))
    right = np.zeros((len(gt.label), len(ids)))
    right[np.arange(len(gt.label)), np.searchsorted(ids, gt.label)] = 0.5
    boxes = np.concatenate([gt.box, gt.box * 0.1])
    columns = (np.tile(gt.video, 2), np.tile(gt.frame, 2))
    scores = np.concatenate([right, np.full_like(right, 0.9)])
    p_actor = np.repeat([0.25, 0.15], len(gt.label))
    persons = Detections(gt.videos, *columns, boxes, np.zeros(len(boxes), np.int64), p_actor)
    monkeypatch.setattr(search, "predict", lambda *args: SplitDetections(persons, ids, scores))
    theta, mAP = best_theta(torch.nn.Identity(), split, EXP, context_of())
    assert theta == 0.2
    assert mAP > 0.5


def test_a_quiet_log_prints_no_trial(tmp_path, capsys):
    trial = {"l1": 2.0, "lr": 0.004, "looks": 4, "theta": 0.1, "mAP": 0.25}
    TrialLog(tmp_path / "trials.csv", SPACE).add(trial)
    assert capsys.readouterr().out == "trial 1: mAP 25.0 after validation 4 (l1 2, lr 0.004)\n"
    TrialLog(tmp_path / "trials.csv", SPACE, quiet=True).add(trial)
    assert capsys.readouterr().out == ""


def test_the_log_is_read_back_and_a_damaged_line_is_named(tmp_path):
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
