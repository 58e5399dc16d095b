import pytest
import torch
from torch import nn

from actloc_core import backbones, selection
from actloc_core.model import ActionLocalizer, keep_actors
from actloc_core.structures import Predictions

SELECTIONS = ["singleton", "tubelet", "c_t", "max_pooling", "two_c_t"]


class Grid(nn.Module):
    """A backbone of known tokens: averages 2x8x8 patches and adds nothing, D = 3."""

    out_dim = 3

    def forward(self, clip):
        return nn.functional.avg_pool3d(clip, (2, 8, 8)).movedim(1, -1)


def small(name="two_c_t", **kwargs):
    torch.manual_seed(0)
    return ActionLocalizer(Grid(), selection=name, num_classes=7, dim=16, **kwargs)


@pytest.mark.parametrize("name", SELECTIONS)
def test_shapes_and_ranges(name):
    boxes, actor, action = small(name)(torch.randn(2, 3, 8, 16, 32))
    candidates = {"singleton": 32, "two_c_t": 16}.get(name, 8)
    assert boxes.shape == (2, candidates, 4)
    assert actor.shape == (2, candidates, 2)
    assert action.shape == (2, candidates, 7)
    assert (boxes > 0).all()
    assert (boxes < 1).all()


@pytest.mark.parametrize("name", SELECTIONS)
def test_gradients_reach_every_parameter(name):
    torch.manual_seed(0)
    model = ActionLocalizer(backbones.mvitv2_tiny(frames=4, crop=32), selection=name, num_classes=3, dim=16)
    predictions = model(torch.randn(2, 3, 4, 32, 32))
    sum(x.square().sum() for x in predictions).backward()
    without_gradient = [
        name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum()
    ]
    assert not without_gradient


def test_untrained_boxes_start_near_their_cells():
    model = small("c_t").eval()
    boxes = model(torch.zeros(1, 3, 8, 16, 32)).boxes[0]
    centres = torch.tensor([[x, y] for y in (0.25, 0.75) for x in (0.125, 0.375, 0.625, 0.875)])
    assert (boxes[:, :2] - centres).abs().max() < 0.1


def test_max_pooling_takes_the_best_logit_over_time():
    model = small("max_pooling")
    clip = torch.randn(1, 3, 8, 16, 32)
    tokens = model.proj(model.backbone(clip))
    each = model.heads.action(tokens.flatten(2, 3))  # (1, t, hw, C)
    torch.testing.assert_close(model(clip).action_logits, each.max(1).values)


def test_frame_embedding_moves_actor_tokens_only():
    model = small(frame_embedding=2)
    clip = torch.randn(1, 3, 8, 16, 32)
    before = model(clip)
    with torch.no_grad():
        model.frame_embedding[1] += 5
    after = model(clip)
    assert torch.equal(before.action_logits, after.action_logits)
    changed = (before.actor_logits != after.actor_logits).any(-1)[0]
    assert changed.tolist() == [False] * 8 + [True] * 8
    assert sum(p.numel() for p in model.parameters()) - sum(p.numel() for p in small().parameters()) == 2 * 16


def test_singletons_have_a_frame_embedding_for_every_output_frame():
    model = small("singleton", frame_embedding=4)
    clip = torch.randn(1, 3, 8, 16, 32)
    before = model(clip).actor_logits
    with torch.no_grad():
        model.frame_embedding[3] += 5
    changed = (before != model(clip).actor_logits).any(-1)[0]
    assert changed.tolist() == [False] * 24 + [True] * 8


def test_frame_embedding_needs_actor_tokens_of_several_frames():
    with pytest.raises(ValueError, match="of selection 'c_t' all come from one"):
        small("c_t", frame_embedding=2)
    with pytest.raises(ValueError, match="for 4 output frames, but actor tokens come from 2"):
        small(frame_embedding=4)(torch.randn(1, 3, 8, 16, 32))


def test_nms_suppresses_duplicates_within_each_clip():
    """Of two equal boxes in the first clip the better one is kept; so is that box in the second clip."""
    p = torch.tensor([[0.9, 0.8, 0.7], [0.6, 0.1, 0.1]])
    box, far = [0.3, 0.3, 0.2, 0.2], [0.8, 0.8, 0.2, 0.2]
    boxes = torch.tensor([[box, box, far], [box, far, far]])
    predictions = Predictions(boxes, torch.stack([p.logit(), torch.zeros(2, 3)], -1), torch.zeros(2, 3, 2))
    detections = keep_actors(predictions, theta=0.5, score="product", nms_iou=0.5)
    assert detections.clip.tolist() == [0, 0, 1]
    assert detections.p_actor.tolist() == pytest.approx([0.9, 0.7, 0.6])
    assert detections.scores[:, 0].tolist() == pytest.approx([0.45, 0.35, 0.3])
    assert len(keep_actors(predictions, theta=0.5, score="product").clip) == 4
    assert len(keep_actors(predictions, theta=0.95, score="product", nms_iou=0.5).clip) == 0


def test_every_selection_of_the_module_is_tested():
    names = [
        n
        for n, f in vars(selection).items()
        if callable(f) and getattr(f, "__module__", "") == selection.__name__
    ]
    assert sorted(set(names) - {"central"}) == sorted(SELECTIONS)


def test_keep_actors_filters_by_p_actor_and_scores():
    """Candidates with p(alpha) 0.8 and 0.2: theta 0.2 is strict, so one is kept."""
    actor = torch.tensor([[[0.8, 0.2], [0.2, 0.8]]]).double().log()
    action = torch.tensor([[[0.0, 2.0], [0.0, 0.0]]])
    boxes = torch.tensor([[[0.5, 0.5, 0.5, 0.5], [0.1, 0.1, 0.4, 0.4]]])
    predictions = Predictions(boxes, actor.float(), action)
    sigmoid2 = torch.tensor(2.0).sigmoid().item()
    detections = keep_actors(predictions, theta=0.2001, score="action")
    assert detections.clip.tolist() == [0]
    assert detections.boxes.tolist() == [[0.25, 0.25, 0.75, 0.75]]
    assert detections.scores[0].tolist() == pytest.approx([0.5, sigmoid2])
    product = keep_actors(predictions, theta=0.1, score="product")
    assert product.scores[0].tolist() == pytest.approx([0.4, 0.8 * sigmoid2])
    assert product.boxes[1].tolist() == pytest.approx([0, 0, 0.3, 0.3]), "clipped to the frame"


def test_keep_actors_is_strict_at_theta():
    even = Predictions(torch.full((1, 1, 4), 0.5), torch.zeros(1, 1, 2), torch.zeros(1, 1, 2))
    assert len(keep_actors(even, theta=0.5, score="action").clip) == 0
    assert len(keep_actors(even, theta=0.49, score="action").clip) == 1


def test_unknown_score_raises_value_error():
    with pytest.raises(ValueError, match="'action' or 'product', got 'sum'"):
        keep_actors(small()(torch.randn(1, 3, 8, 16, 32)), theta=0.2, score="sum")
