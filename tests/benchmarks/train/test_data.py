"""Which splits and boxes an experiment gets, and what is refused before any training."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.experiments import OURS
from benchmarks.train.data import given_boxes, load_data
from tests.benchmarks.shared import TINY


def test_a_dataset_without_a_folder_is_named():
    with pytest.raises(ValueError, match="--data ava=FOLDER"):
        load_data(OURS, {})


def test_the_synthetic_ava_reports_on_a_test_split_of_its_own(small_benchmark):
    data = load_data(TINY, {TINY.dataset: small_benchmark})
    assert data.report_name == "test"
    videos = [{video for video, _ in split.keyframes} for split in (data.train, data.val, data.report)]
    assert sum(map(len, videos)) == len(set().union(*videos)), "no video is in two splits"


def test_missing_or_unknown_boxes_of_a_two_stage_row_are_named(small_benchmark, tmp_path):
    exp = replace(TINY, method="two_stage")
    data = load_data(exp, {exp.dataset: small_benchmark})
    with pytest.raises(ValueError, match="not 'guessed'"):
        given_boxes(replace(exp, boxes="guessed"), data.report, small_benchmark)
    with pytest.raises(ValueError, match="set boxes='ground_truth'"):
        given_boxes(replace(exp, dataset="jhmdb"), data.report, small_benchmark)
    (tmp_path / "annotations").mkdir()
    with pytest.raises(FileNotFoundError, match="ava_detection_test_boxes_and_labels"):
        given_boxes(exp, data.report, tmp_path)
    assert given_boxes(TINY, data.report, tmp_path) is None, "the other methods take none"


def test_a_two_stage_row_can_be_trained_on_the_detectors_boxes_too(small_benchmark):
    """At 95 % of the actors, and on idle persons and distractors, which have no actions."""
    plain = replace(TINY, method="two_stage")
    exp = replace(plain, train_boxes="both")
    both, one = (load_data(each, {exp.dataset: small_benchmark}) for each in (exp, plain))
    assert both.train.keyframes == one.train.keyframes
    counts = np.array([[len(each.train.targets(i).boxes) for each in (both, one)] for i in range(200)])
    assert (counts[:, 0] >= counts[:, 1]).all()
    assert 1.8 < counts[:, 0].sum() / counts[:, 1].sum() < 2.6
    labels = torch.cat([both.train.targets(i).labels[counts[i, 1] :] for i in range(200)])
    assert 0.05 < (labels.sum(1) == 0).float().mean() < 0.4, "boxes of nobody who acts"
    assert len(both.val.annotations.boxes) == len(one.val.annotations.boxes)
    for wrong in (replace(exp, train_boxes="detector"), replace(exp, dataset="synthetic_jhmdb")):
        with pytest.raises(ValueError, match="train_boxes must be one of ground_truth, both"):
            load_data(wrong, {})


def test_an_experiment_may_say_which_labels_a_flip_exchanges(small_benchmark):
    roots = {TINY.dataset: small_benchmark}
    assert load_data(TINY, roots).train.mirrored["left"] == "right", "synthetic data know"
    exp = replace(TINY, mirrored='{"up": "down"}')
    mirrored = load_data(exp, roots).train.mirrored
    assert [mirrored[name] for name in ("left", "up", "down")] == ["left", "down", "up"]
    assert exp.hash != TINY.hash
    with pytest.raises(ValueError, match="mirrored: 'upp' is none of the classes, which are up, down"):
        load_data(replace(TINY, mirrored='{"upp": "down"}'), roots)
    with pytest.raises(ValueError, match="--set mirrored: left=right: give pairs of class names"):
        load_data(replace(TINY, mirrored="left=right"), roots)


def test_videos_that_are_left_out_are_in_the_fingerprint(small_benchmark, tmp_path):
    """Another movie that is gone is other data; without one gone the option changes nothing."""
    root = shutil.copytree(small_benchmark, tmp_path / "part")
    tolerant = replace(TINY, leave_out_missing=True)
    whole = load_data(TINY, {TINY.dataset: root})
    assert load_data(tolerant, {TINY.dataset: root}).fingerprint == whole.fingerprint
    (root / "videos" / "train_000.mp4").unlink()
    part = load_data(tolerant, {TINY.dataset: root})
    assert part.left_out == {"train_000"}
    assert part.fingerprint != whole.fingerprint
    assert len(part.train) < len(whole.train)
