import pytest
import torch

from actloc_core.heads import Heads, grid_bias


def test_the_default_box_is_the_cell():
    boxes = torch.sigmoid(grid_bias(2, 4))
    assert boxes.shape == (8, 4)
    expected = [[0.125, 0.25, 0.25, 0.5], [0.375, 0.25, 0.25, 0.5]]
    torch.testing.assert_close(boxes[:2], torch.tensor(expected))
    torch.testing.assert_close(boxes[-1], torch.tensor([0.875, 0.75, 0.25, 0.5]))


def test_corner_anchors_sit_at_the_far_corner_and_stay_finite():
    boxes = torch.sigmoid(grid_bias(2, 2, anchor="corner"))
    torch.testing.assert_close(boxes[0, :2], torch.tensor([0.5, 0.5]))
    torch.testing.assert_close(boxes[3, :2], torch.tensor([1.0, 1.0]), atol=2e-4, rtol=0)
    assert torch.isfinite(grid_bias(2, 2, anchor="corner")).all()


def test_without_a_bias_every_box_is_the_middle_half():
    assert grid_bias(2, 3, anchor="none").sigmoid().tolist() == [[0.5] * 4] * 6


def test_unknown_anchor_is_refused():
    with pytest.raises(ValueError, match="'centre', 'corner' or 'none', got 'middle'"):
        grid_bias(2, 2, anchor="middle")


def test_head_depths_are_three_two_two_linear_layers():
    heads = Heads(8, 5)
    linear = {
        name: [m.out_features for m in head if isinstance(m, torch.nn.Linear)]
        for name, head in heads.named_children()
    }
    assert linear == {"box": [8, 8, 4], "actor": [8, 2], "action": [8, 5]}
