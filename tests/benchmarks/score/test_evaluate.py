"""Frame-mAP of a split, a few classes at a time, and its chance level."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.score import evaluate
from benchmarks.score.detections import SplitDetections, expand_rows
from benchmarks.score.evaluate import benchmark, frame_ap, protocol_of, random_classes, top1_accuracy
from benchmarks.train.data import load_data
from evaluators.frame_map import Detections, EvalRules, GroundTruth, frame_mAP
from tests.benchmarks.shared import TINY

BOX = np.array([[0.1, 0.1, 0.3, 0.3]])


@pytest.mark.parametrize("protocol", ["standard", "gurkirt", "annotated", "activitynet_2019"])
@pytest.mark.parametrize("rows_at_once", [1, 400, 10**9])
def test_scoring_a_few_classes_at_a_time_equals_scoring_all_together(protocol, rows_at_once, monkeypatch):
    """Seven classes, of which one has no ground truth and one is unknown to the model."""
    rng = np.random.default_rng(5)
    n, k = 60, 200
    corner = rng.random((n, 2)) * 0.5
    box = np.hstack([corner, corner + 0.3])
    video, frame = rng.integers(2, size=n), rng.integers(4, size=n)
    gt = GroundTruth(("a", "b"), video, frame, box, rng.choice([1, 2, 3, 5, 6, 8], size=n))
    near = rng.integers(n, size=k)
    moved = box[near] + 0.05 * rng.random((k, 4))
    persons = Detections(("a", "b"), video[near], frame[near], moved, np.zeros(k, np.int64), rng.random(k))
    ids = np.array([1, 2, 3, 4, 5, 6, 7])
    detections = SplitDetections(persons, ids, rng.random((k, len(ids))).astype(np.float32))
    split = SimpleNamespace(
        ground_truth=gt, evaluated={i: str(i) for i in (8, 1, 2, 3, 4, 5, 6)}, excluded={("a", 2)}
    )
    monkeypatch.setattr(evaluate, "ROWS_AT_ONCE", rows_at_once)
    rules = EvalRules(protocol, excluded=split.excluded)
    whole = frame_mAP(gt, expand_rows(detections), split.evaluated, rules=rules)
    assert repr(frame_ap(split, detections, protocol)) == repr(whole), "to the last digit, NaN included"
    assert 0 < whole.mAP < 1
    assert whole.num_true_positives > 20


def test_a_split_without_classes_is_refused():
    gt = GroundTruth(("a",), np.zeros(1, int), np.zeros(1, int), BOX, np.ones(1, int))
    persons = Detections(("a",), np.zeros(1, int), np.zeros(1, int), BOX, np.zeros(1, int), np.ones(1))
    detections = SplitDetections(persons, np.array([1]), np.ones((1, 1)))
    split = SimpleNamespace(ground_truth=gt, evaluated={}, excluded=frozenset())
    for protocol in ("standard", "activitynet_2019"):
        with pytest.raises(ValueError, match="no classes to evaluate: give the label map"):
            frame_ap(split, detections, protocol)


def test_random_classes_on_perfect_boxes_score_the_share_of_each_class(small_benchmark):
    """AP of random scores is the class's share among the boxes, up to chance."""
    data = load_data(TINY, {TINY.dataset: small_benchmark})
    score = random_classes(data.report, "standard")
    labels = np.concatenate([data.report.annotations.at(key).labels.numpy() for key in data.report.keyframes])
    assert score.mAP == pytest.approx(labels.mean(), abs=0.05)


def test_a_dataset_has_the_rules_of_its_benchmark():
    names = ("ava", "synthetic_ava", "ucf24", "synthetic_ucf24_smoke", "synthetic_jhmdb")
    assert [benchmark(replace(TINY, dataset=name)) for name in names] == [
        "ava",
        "ava",
        "ucf24",
        "ucf24",
        "jhmdb",
    ]
    assert [protocol_of(replace(TINY, dataset=name)) for name in ("ava", "jhmdb")] == ["standard", "gurkirt"]
    with pytest.raises(ValueError, match="unknown dataset 'avo'; known are ava, ucf24, jhmdb"):
        benchmark(replace(TINY, dataset="avo"))


def test_top1_is_right_where_the_surest_class_is_one_of_the_labels():
    """The first clip has both labels, the second's surest class is wrong, the third has class 9."""
    boxes = np.tile(BOX, (4, 1))
    gt = GroundTruth(
        ("a", "b"), np.array([0, 0, 0, 1]), np.array([0, 0, 1, 0]), boxes, np.array([4, 9, 4, 9])
    )
    persons = Detections(
        ("a", "b"), np.array([0, 0, 1]), np.array([0, 1, 0]), boxes[:3], *np.zeros((2, 3), int)
    )
    scores = np.array([[0.2, 0.1], [0.4, 0.6], [0.3, 0.7]])
    split = type("Split", (), {"ground_truth": gt, "__len__": lambda self: 3})()
    assert top1_accuracy(split, SplitDetections(persons, np.array([4, 9]), scores)) == pytest.approx(2 / 3)
