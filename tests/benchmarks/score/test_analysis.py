"""What a run leaves for the reports, on two videos that can be worked out by hand."""

import json
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.score.analysis import THETAS, analyse, confusion, read_analysis
from benchmarks.score.detections import FoundActors
from evaluators.frame_map import Detections, GroundTruth

BOXES = np.array([[0.1, 0.1, 0.3, 0.3], [0.6, 0.6, 0.9, 0.9]])
# Video a, second 1: A does 1 and 2, B does 2. Video b, second 1: C (where A was) does 1.
TRUTH = GroundTruth(
    ("a", "b"), np.array([0, 0, 0, 1]), np.ones(4, np.int64), BOXES[[0, 0, 1, 0]], np.array([1, 2, 2, 1])
)
SPLIT = SimpleNamespace(
    ground_truth=TRUTH,
    classes={1: "walk", 2: "talk", 3: "unscored"},
    evaluated={1: "walk", 2: "talk"},
    excluded=frozenset(),
)


def predicted(p_actor, scores, boxes=BOXES[[0, 1, 0]], video=(0, 0, 1)):
    """As `predict` returns them: actors, and how surely each does the three actions."""
    nothing = np.zeros(len(video), np.int64)
    persons = Detections(("a", "b"), np.array(video), nothing + 1, boxes, nothing, np.array(p_actor))
    return FoundActors(persons, np.array([1, 2, 3]), np.array(scores))


# A is taken to talk, B to talk, C to talk: surest of the two that are evaluated, whatever the third says.
SEEN = predicted([0.9, 0.6, 0.3], [[0.2, 0.8, 0.9], [0.1, 0.7, 0.9], [0.3, 0.4, 0.9]])


def test_confusion_counts_every_action_of_a_person_who_is_found():
    """Who walk: A and C, both taken to talk. Who talk: A and B, both taken to talk."""
    assert confusion(SPLIT, SEEN).tolist() == [[0, 1], [0, 1]]
    # C, below p(alpha) .2, is not found; A alone walks.
    few = predicted([0.9, 0.6, 0.2], [[0.8, 0.2, 0], [0.1, 0.7, 0], [0.3, 0.4, 0]])
    assert confusion(SPLIT, few).tolist() == [[1, 0], [0.5, 0.5]]
    nobody = predicted([0.1, 0.1, 0.1], np.zeros((3, 3)))
    assert confusion(SPLIT, nobody).tolist() == [[0, 0], [0, 0]]


def test_actors_above_each_theta():
    made = analyse(SPLIT, SEEN, "standard")
    recall = dict(zip(THETAS.round(2).tolist(), made.recall, strict=True))
    assert recall[0.0] == 1
    assert recall[0.29] == 1
    assert recall[0.3] == pytest.approx(2 / 3), "above, not at"
    assert recall[0.6] == pytest.approx(1 / 3)
    assert recall[0.9] == 0
    precision = dict(zip(THETAS.round(2).tolist(), made.precision, strict=True))
    assert precision[0.89] == 1
    assert precision[0.9] is None


def test_interval_boxes_and_errors():
    """Seen so, walkers are surer to walk than B, and talkers to talk than C; then B is taken to walk."""
    made = analyse(SPLIT, SEEN, "standard")
    assert made.boxes == {"walk": 2, "talk": 2}
    assert (made.mAP_low, made.mAP_high) == (1, 1)
    # No true box of a class is missed or left over; to forget the missed would leave the others as they are.
    assert made.errors == dict.fromkeys(made.errors, 0)
    wrong = predicted([0.9, 0.6, 0.3], [[0.2, 0.8, 0], [0.9, 0.7, 0], [0.3, 0.4, 0]])
    made = analyse(SPLIT, wrong, "standard")
    assert made.errors["wrong class"] > 0
    assert made.errors["poor box"] == 0
    assert made.mAP_low < made.mAP_high == 1, "drawn alone, video b is right"


def test_a_single_video_has_no_interval():
    truth = GroundTruth(("a",), np.zeros(1, np.int64), np.ones(1, np.int64), BOXES[:1], np.array([1]))
    split = SimpleNamespace(**{**vars(SPLIT), "ground_truth": truth})
    found = predicted([0.9], [[0.9, 0.1, 0.1]], boxes=BOXES[:1], video=(0,))
    made = analyse(split, found, "standard")
    assert (made.mAP_low, made.mAP_high) == (None, None)


def test_it_is_read_back_and_what_is_broken_is_none(tmp_path):
    made = analyse(SPLIT, SEEN, "standard")
    file = tmp_path / "analysis.json"
    file.write_text(json.dumps(asdict(made), allow_nan=False))
    assert read_analysis(file) == made
    for broken in ("", "[]", "{}", '{"mAP_low": 1}', file.read_text()[:-10]):
        file.write_text(broken)
        assert read_analysis(file) is None
    assert read_analysis(tmp_path / "none.json") is None
