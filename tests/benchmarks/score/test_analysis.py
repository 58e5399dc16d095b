"""The analysis of a run, on two videos that can be worked out by hand."""

import json
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.score.analysis import THETAS, analyse, confusion, read_analysis
from benchmarks.score.detections import SplitDetections
from benchmarks.score.resampled import SAMPLES, draw, sampled_metrics
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
    keyframes=(("a", 1), ("b", 1)),
    box_unit=lambda video: (1.0, 1.0),
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
    analysis = analyse(SPLIT, DETECTED, DETECTED, "standard", product=False)
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
    analysis = analyse(SPLIT, DETECTED, DETECTED, "standard", product=False)
    assert analysis.boxes == {"walk": 2, "talk": 2}
    assert analysis.mAP_low == pytest.approx(0.025 ** (1 / 2)), "two perfect videos do not say much"
    assert analysis.mAP_high == 1
    # No ground-truth box of a class is missed, and no detection is left over that would cost anything.
    assert analysis.errors == dict.fromkeys(analysis.errors, 0)
    wrong = predicted([0.9, 0.6, 0.3], [[0.2, 0.8, 0], [0.9, 0.7, 0], [0.3, 0.4, 0]])
    analysis = analyse(SPLIT, wrong, wrong, "standard", product=False)
    assert analysis.errors["wrong class"] > 0
    assert analysis.errors["poor box"] == 0
    assert analysis.mAP_low < analysis.mAP_high == 1, "drawn alone, video b is right"


def test_a_single_video_has_no_interval():
    gt = GroundTruth(("a",), np.zeros(1, np.int64), np.ones(1, np.int64), BOXES[:1], np.array([1]))
    split = SimpleNamespace(**{**vars(SPLIT), "ground_truth": gt})
    detections = predicted([0.9], [[0.9, 0.1, 0.1]], boxes=BOXES[:1], video=(0,))
    analysis = analyse(split, detections, detections, "standard", product=False)
    assert (analysis.mAP_low, analysis.mAP_high) == (None, None)


def test_an_analysis_is_read_back_and_a_damaged_one_is_none(tmp_path):
    analysis = analyse(SPLIT, DETECTED, DETECTED, "standard", product=False)
    file = tmp_path / "analysis.json"
    file.write_text(json.dumps(asdict(analysis), allow_nan=False))
    assert read_analysis(file) == analysis
    for broken in ("", "[]", "{}", '{"mAP_low": 1}', file.read_text()[:-10]):
        file.write_text(broken)
        assert read_analysis(file) is None
    assert read_analysis(tmp_path / "none.json") is None


def test_sampled_metrics_are_those_of_the_videos_that_are_drawn():
    """A sample is video a twice, b twice, or both. B is the larger actor, and the second of video a."""
    half_found = predicted([0.9, 0.1, 0.3], [[0.2, 0.8, 0.9], [0.1, 0.7, 0.9], [0.3, 0.4, 0.9]])
    sampled = sampled_metrics(SPLIT, half_found, half_found, "standard", product=False)
    drawn = draw(2)
    assert drawn.shape == (2, 1 + SAMPLES)
    assert drawn[:, 0].tolist() == [1, 1], "the videos as they are"
    assert (drawn.sum(0) == 2).all()
    only_a, only_b, both = (np.flatnonzero((pair == drawn.T).all(1))[0] for pair in ((2, 0), (0, 2), (1, 1)))
    assert [sampled["recall"][i] for i in (only_a, only_b)] == [0.5, 1]
    assert sampled["recall"][both] == pytest.approx(2 / 3, abs=1e-5)
    assert [sampled["recall_small"][i] for i in (only_a, only_b, both)] == [1, 1, 1]
    assert [sampled["recall_large"][i] for i in (only_a, only_b, both)] == [0, None, 0]
    assert [sampled["actor_ap_75"][i] for i in (only_a, only_b, both)] == [1, 1, 1], "by p(alpha), at any"
    # Walk: A .2, C .3 against B .1. Talk: A .8, B .7 against C .4. All right in either video and in both.
    assert [sampled["class_ap_true_boxes"][i] for i in (only_a, only_b, both)] == [1, 1, 1]


def test_sampled_mAP_counts_duplicates_unless_they_are_removed():
    twice = predicted(
        [0.9, 0.8, 0.6, 0.3], [[0.2, 0.8, 0]] * 2 + [[0.1, 0.7, 0], [0.3, 0.4, 0]],
        boxes=BOXES[[0, 0, 1, 0]], video=(0, 0, 0, 1),
    )  # fmt: skip
    sampled = sampled_metrics(SPLIT, twice, twice, "standard", product=False)
    only_a = np.flatnonzero((draw(2).T == (2, 0)).all(1))[0]
    # Talk in video a: A .8, its duplicate .8, B .7: (1 + 2/3) / 2 when a copy stands between the two.
    assert sampled["mAP"][only_a] < 1
    assert sampled["mAP_without_duplicates"][only_a] == 1
