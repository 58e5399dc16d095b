"""What a model found, as actors and as rows: the same numbers, however many rows are made at a time."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from actloc_core.model import keep_actors
from actloc_core.structures import Predictions
from benchmarks import data
from benchmarks.score.detections import FoundActors, above, detections
from benchmarks.train.data import frame_ap
from evaluators.frame_map import Detections, EvalRules, GroundTruth, frame_map

BOXES = np.array([[0.1, 0.1, 0.3, 0.3], [0.6, 0.6, 0.9, 0.9]])
TWO = FoundActors(
    Detections(
        ("a", "b"), np.array([0, 1]), np.array([5, 7]), BOXES, np.zeros(2, np.int64), np.array([0.9, 0.4])
    ),
    np.array([1, 4, 9]),
    np.array([[0.25, 0.5, 0.75], [0.125, 1, 0]], np.float32),
)


def test_an_actor_is_a_row_for_each_action():
    rows = detections(TWO)
    assert rows.videos == ("a", "b")
    assert rows.video.tolist() == [0, 0, 0, 1, 1, 1]
    assert rows.frame.tolist() == [5, 5, 5, 7, 7, 7]
    assert rows.label.tolist() == [1, 4, 9, 1, 4, 9]
    assert rows.score.tolist() == [0.25, 0.5, 0.75, 0.125, 1, 0]
    assert rows.box.tolist() == BOXES.repeat(3, axis=0).tolist()


def test_rows_of_some_actions_leave_out_those_the_model_does_not_know():
    rows = detections(TWO, [9, 1, 2])
    assert rows.label.tolist() == [1, 9, 1, 9]
    assert rows.score.tolist() == [0.25, 0.75, 0.125, 0]


@pytest.mark.parametrize("nms_iou", [None, 0.5])
def test_above_theta_are_those_that_would_have_been_kept(nms_iou):
    """Also those at theta itself, which as a float32 is not 0.2: 0.200000003."""
    generator = torch.Generator().manual_seed(3)
    p = torch.rand(4, 50, generator=generator)
    p[:, ::7] = 0.2
    boxes = torch.rand(4, 50, 4, generator=generator) * 0.3 + 0.3
    made = Predictions(boxes, torch.zeros(4, 50, 2), torch.randn(4, 50, 3, generator=generator))
    made = SimpleNamespace(boxes=made.boxes, p_actor=p, action_logits=made.action_logits)

    def kept(theta):
        found = keep_actors(made, theta=theta, score="product", nms_iou=nms_iou)
        persons = Detections(
            ("a", "b", "c", "d"), found.clip.numpy(), found.clip.numpy(), found.boxes.numpy(),
            np.zeros(len(found.clip), np.int64), found.p_actor.double().numpy(),
        )  # fmt: skip
        return FoundActors(persons, np.array([1, 2, 3]), found.scores.numpy())

    few, all_ = kept(0.2), kept(0.02)
    assert 0 < len(few.scores) < len(all_.scores)
    chosen = above(all_, 0.2)
    assert np.array_equal(chosen.scores, few.scores)
    for name in ("video", "frame", "box", "label", "score"):
        assert np.array_equal(getattr(chosen.persons, name), getattr(few.persons, name))


@pytest.mark.parametrize("protocol", ["standard", "gurkirt", "annotated", "activitynet_2019"])
@pytest.mark.parametrize("at_once", [1, 400, 10**9])
def test_a_few_classes_at_a_time_score_as_all_together(protocol, at_once, monkeypatch):
    """Seven classes, of which one has no ground truth and one the model does not know."""
    random = np.random.default_rng(5)
    n, k = 60, 200
    corner = random.random((n, 2)) * 0.5
    box = np.hstack([corner, corner + 0.3])
    video, frame = random.integers(2, size=n), random.integers(4, size=n)
    truth = GroundTruth(("a", "b"), video, frame, box, random.choice([1, 2, 3, 5, 6, 8], size=n))
    near = random.integers(n, size=k)
    moved = box[near] + 0.05 * random.random((k, 4))
    persons = Detections(("a", "b"), video[near], frame[near], moved, np.zeros(k, np.int64), random.random(k))
    ids = np.array([1, 2, 3, 4, 5, 6, 7])
    found = FoundActors(persons, ids, random.random((k, len(ids))).astype(np.float32))
    split = SimpleNamespace(
        ground_truth=truth, evaluated={i: str(i) for i in (8, 1, 2, 3, 4, 5, 6)}, excluded={("a", 2)}
    )
    monkeypatch.setattr(data, "ROWS_AT_ONCE", at_once)
    rules = EvalRules(protocol, excluded=split.excluded)
    whole = frame_map(truth, detections(found), split.evaluated, rules=rules)
    assert repr(frame_ap(split, found, protocol)) == repr(whole), "to the last digit, NaN where there is none"
    assert 0 < whole.mAP < 1
    assert whole.num_true_positives > 20


def test_no_classes_are_refused_in_words():
    truth = GroundTruth(("a",), np.zeros(1, int), np.zeros(1, int), BOXES[:1], np.ones(1, int))
    split = SimpleNamespace(ground_truth=truth, evaluated={}, excluded=frozenset())
    for protocol in ("standard", "activitynet_2019"):
        with pytest.raises(ValueError, match="no classes to evaluate: give the label map"):
            frame_ap(split, TWO, protocol)
