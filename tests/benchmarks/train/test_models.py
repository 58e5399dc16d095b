"""From an experiment to its model; every model is called alike."""

from dataclasses import replace

import pytest
import torch

from actloc_core.structures import Predictions
from actloc_core.two_stage import GivenBoxes
from benchmarks.train.models import build_model
from tests.benchmarks.shared import TINY

BOXES = [
    GivenBoxes(torch.tensor([[0.5, 0.5, 0.2, 0.4]]), torch.ones(1)),
    GivenBoxes(torch.tensor([[0.3, 0.5, 0.2, 0.4], [0.7, 0.5, 0.2, 0.4]]), torch.tensor([0.9, 0.8])),
]
"""Of two clips: one box, and two."""


def test_an_unknown_method_is_named():
    with pytest.raises(ValueError, match=r"'three_stage'.* single_stage, two_stage, detr"):
        build_model(replace(TINY, method="three_stage"), 10)


@pytest.mark.parametrize("method", ["single_stage", "two_stage", "detr"])
def test_actions_start_at_their_prior_and_boxes_where_they_were(method):
    """With small features p(a) is about the bias's 0.01 for every candidate and class."""
    outputs = []
    for prior in (None, 0.01):
        torch.manual_seed(0)
        model = build_model(replace(TINY, method=method, queries=9, action_prior=prior), 10).eval()
        with torch.no_grad():
            outputs.append(model(torch.zeros(2, 3, 4, 32, 32), BOXES))
    plain, rare = outputs
    assert torch.equal(plain.boxes, rare.boxes)
    assert torch.equal(plain.actor_logits, rare.actor_logits)
    assert plain.action_logits.sigmoid().mean() > 0.2
    assert 0.002 < rare.action_logits.sigmoid().mean() < 0.05


@pytest.mark.parametrize(
    ("method", "candidates"), [("single_stage", 2 * 4 * 4), ("two_stage", 2), ("detr", 9)]
)
def test_every_model_is_called_with_clips_and_boxes(method, candidates):
    """The two-stage baseline has a candidate for each box, of the clip with the most."""
    torch.manual_seed(0)
    model = build_model(replace(TINY, method=method, queries=9), 10).eval()
    clips = torch.randn(2, 3, 4, 32, 32)
    with torch.no_grad():
        predictions = model(clips, BOXES)
    assert isinstance(predictions, Predictions)
    assert [tuple(x.shape) for x in predictions] == [
        (2, candidates, 4), (2, candidates, 2), (2, candidates, 10),
    ]  # fmt: skip


@pytest.mark.parametrize("method", ["single_stage", "detr"])
def test_models_that_propose_their_own_boxes_ignore_given_ones(method):
    torch.manual_seed(0)
    model = build_model(replace(TINY, method=method, queries=9), 10).eval()
    clips = torch.randn(2, 3, 4, 32, 32)
    with torch.no_grad():
        for with_boxes, without in zip(model(clips, BOXES), model(clips), strict=True):
            assert torch.equal(with_boxes, without)


def test_the_two_stage_model_without_boxes_says_what_it_needs():
    model = build_model(replace(TINY, method="two_stage"), 10)
    with pytest.raises(ValueError, match="pass those of each clip"):
        model(torch.randn(2, 3, 4, 32, 32))
