"""The analysis of a run, on two videos that can be worked out by hand."""

import json
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.score.analysis import THETAS, analyse, confusion, read_analysis
from benchmarks.score.detections import SplitDetections
from evaluators.frame_map import Detections, GroundTruth

BOXES = np.array([[0.1, 0.1, 0.3, 0.3], [0.6, 0.6, 0.9, 0.9]])
# Video a, second 1: A does 1 and 2, B does 2. Video b, second 1: C (where A was) does 1.
GT = GroundTruth(
    ("a", "b"), np.array([0, 0, 0, 1]), np.ones(4, np.int64), BOXES[[0, 0, 1, 0]], np.array([1, 2, 2, 1])
)
SPLIT = SimpleNamespace(
    ground_truth=GT,
    classes={1: "walk", 2: "talk", 3: "unscored"},
    evaluated={1: "walk", 2: "talk"},
    excluded=frozenset(),
)


def predicted(p_actor, scores, boxes=BOXES[[0, 1, 0]], video=(0, 0, 1)):
    """As `predict` returns them: actors, and how surely each does the three actions."""
    zeros = np.zeros(len(video), np.int64)
    persons = Detections(("a", "b"), np.array(video), zeros + 1, boxes, zeros, np.array(p_actor))
    return SplitDetections(persons, np.array([1, 2, 3]), np.array(scores))


# A is taken to talk, B to talk, C to talk: surest of the two that are evaluated, whatever the third says.
DETECTED = predicted([0.9, 0.6, 0.3], [[0.2, 0.8, 0.9], [0.1, 0.7, 0.9], [0.3, 0.4, 0.9]])


def test_confusion_counts_every_action_of_a_detected_actor():
    """Who walk: A and C, both taken to talk. Who talk: A and B, both taken to talk."""
    assert confusion(SPLIT, DETECTED).tolist() == [[0, 1], [0, 1]]
    # C, below p(alpha) .2, is missed; A alone walks.
    few = predicted([0.9, 0.6, 0.2], [[0.8, 0.2, 0], [0.1, 0.7, 0], [0.3, 0.4, 0]])
    assert confusion(SPLIT, few).tolist() == [[1, 0], [0.5, 0.5]]
    none = predicted([0.1, 0.1, 0.1], np.zeros((3, 3)))
    assert confusion(SPLIT, none).tolist() == [[0, 0], [0, 0]]


def test_precision_and_recall_of_actors_above_each_theta():
    analysis = analyse(SPLIT, DETECTED, "standard")
    recall = dict(zip(THETAS.round(2).tolist(), analysis.recall, strict=True))
    assert recall[0.0] == 1
    assert recall[0.29] == 1
    assert recall[0.3] == pytest.approx(2 / 3), "above, not at"
    assert recall[0.6] == pytest.approx(1 / 3)
    assert recall[0.9] == 0
    precision = dict(zip(THETAS.round(2).tolist(), analysis.precision, strict=True))
    assert precision[0.89] == 1
    assert precision[0.9] is None


def test_interval_number_of_boxes_and_errors():
    """Walkers score higher for walking than B, and talkers for talking than C; then B is taken to walk."""
    analysis = analyse(SPLIT, DETECTED, "standard")
    assert analysis.boxes == {"walk": 2, "talk": 2}
    assert (analysis.mAP_low, analysis.mAP_high) == (1, 1)
    # No ground-truth box of a class is missed, and no detection is left over that would cost anything.
    assert analysis.errors == dict.fromkeys(analysis.errors, 0)
    wrong = predicted([0.9, 0.6, 0.3], [[0.2, 0.8, 0], [0.9, 0.7, 0], [0.3, 0.4, 0]])
    analysis = analyse(SPLIT, wrong, "standard")
    assert analysis.errors["wrong class"] > 0
    assert analysis.errors["poor box"] == 0
    assert analysis.mAP_low < analysis.mAP_high == 1, "drawn alone, video b is right"


def test_a_single_video_has_no_interval():
    gt = GroundTruth(("a",), np.zeros(1, np.int64), np.ones(1, np.int64), BOXES[:1], np.array([1]))
    split = SimpleNamespace(**{**vars(SPLIT), "ground_truth": gt})
    detections = predicted([0.9], [[0.9, 0.1, 0.1]], boxes=BOXES[:1], video=(0,))
    analysis = analyse(split, detections, "standard")
    assert (analysis.mAP_low, analysis.mAP_high) == (None, None)


def test_an_analysis_is_read_back_and_a_damaged_one_is_none(tmp_path):
    analysis = analyse(SPLIT, DETECTED, "standard")
    file = tmp_path / "analysis.json"
    file.write_text(json.dumps(asdict(analysis), allow_nan=False))
    assert read_analysis(file) == analysis
    for broken in ("", "[]", "{}", '{"mAP_low": 1}', file.read_text()[:-10]):
        file.write_text(broken)
        assert read_analysis(file) is None
    assert read_analysis(tmp_path / "none.json") is None
