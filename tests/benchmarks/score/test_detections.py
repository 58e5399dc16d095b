"""Detected actors and their rows for the evaluators."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from actloc_core.model import keep_actors
from benchmarks.score.detections import SplitDetections, expand_rows, filter_by_score
from evaluators.frame_map import Detections

BOXES = np.array([[0.1, 0.1, 0.3, 0.3], [0.6, 0.6, 0.9, 0.9]])
TWO = SplitDetections(
    Detections(
        ("a", "b"), np.array([0, 1]), np.array([5, 7]), BOXES, np.zeros(2, np.int64), np.array([0.9, 0.4])
    ),
    np.array([1, 4, 9]),
    np.array([[0.25, 0.5, 0.75], [0.125, 1, 0]], np.float32),
)


def test_an_actor_expands_to_a_row_for_each_action():
    rows = expand_rows(TWO)
    assert rows.videos == ("a", "b")
    assert rows.video.tolist() == [0, 0, 0, 1, 1, 1]
    assert rows.frame.tolist() == [5, 5, 5, 7, 7, 7]
    assert rows.label.tolist() == [1, 4, 9, 1, 4, 9]
    assert rows.score.tolist() == [0.25, 0.5, 0.75, 0.125, 1, 0]
    assert rows.box.tolist() == BOXES.repeat(3, axis=0).tolist()


def test_rows_of_chosen_actions_leave_out_those_unknown_to_the_model():
    rows = expand_rows(TWO, [9, 1, 2])
    assert rows.label.tolist() == [1, 9, 1, 9]
    assert rows.score.tolist() == [0.25, 0.75, 0.125, 0]


@pytest.mark.parametrize("nms_iou", [None, 0.5])
def test_filtering_at_a_higher_theta_gives_what_that_theta_keeps(nms_iou):
    """Also for candidates at theta itself, which as a float32 is not 0.2 but 0.200000003."""
    generator = torch.Generator().manual_seed(3)
    p_actor = torch.rand(4, 50, generator=generator)
    p_actor[:, ::7] = 0.2
    predictions = SimpleNamespace(
        boxes=torch.rand(4, 50, 4, generator=generator) * 0.3 + 0.3,
        p_actor=p_actor,
        action_logits=torch.randn(4, 50, 3, generator=generator),
    )

    def kept_above(theta):
        kept = keep_actors(predictions, theta=theta, score="product", nms_iou=nms_iou)
        persons = Detections(
            ("a", "b", "c", "d"), kept.clip.numpy(), kept.clip.numpy(), kept.boxes.numpy(),
            np.zeros(len(kept.clip), np.int64), kept.p_actor.double().numpy(),
        )  # fmt: skip
        return SplitDetections(persons, np.array([1, 2, 3]), kept.scores.numpy())

    few, many = kept_above(0.2), kept_above(0.02)
    assert 0 < len(few.scores) < len(many.scores)
    filtered = filter_by_score(many, 0.2)
    assert np.array_equal(filtered.scores, few.scores)
    for name in ("video", "frame", "box", "label", "score"):
        assert np.array_equal(getattr(filtered.persons, name), getattr(few.persons, name))


def test_a_threshold_below_every_score_filters_nothing():
    assert filter_by_score(TWO, 0.3) is TWO
    assert filter_by_score(TWO, 0.4).persons.score.tolist() == [0.9], "above theta, not at it"
