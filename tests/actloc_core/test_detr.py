import pytest
import torch
from torch import nn

from actloc_core import backbones
from actloc_core.detr import Attention, DetrLocalizer, positions


def small(**kwargs):
    torch.manual_seed(0)
    backbone = backbones.mvitv2_tiny(frames=4, crop=32)
    sizes = {"dim": 24, "queries": 4, "encoder_layers": 1, "decoder_layers": 2, "heads": 2, "feedforward": 32}
    return DetrLocalizer(backbone, num_classes=3, **sizes | kwargs)


def test_a_candidate_for_each_query():
    boxes, actor, action = small()(torch.randn(2, 3, 4, 32, 32))
    assert boxes.shape == (2, 4, 4)
    assert actor.shape == (2, 4, 2)
    assert action.shape == (2, 4, 3)
    assert ((boxes > 0) & (boxes < 1)).all()


def test_gradients_reach_every_parameter():
    model = small()
    sum(x.square().sum() for x in model(torch.randn(2, 3, 4, 32, 32))).backward()
    # A bias of the keys adds the same to all scores of a query, which a softmax does not see.
    silent = [
        name
        for name, p in model.named_parameters()
        if not name.endswith(".k.bias") and (p.grad is None or not p.grad.abs().sum())
    ]
    assert not silent


def test_untrained_boxes_start_as_a_grid():
    model = small(queries=9).eval()
    boxes = model(torch.zeros(1, 3, 4, 32, 32)).boxes[0]
    centres = torch.tensor([[x, y] for y in (1, 3, 5) for x in (1, 3, 5)]) / 6
    assert (boxes[:, :2] - centres).abs().max() < 0.15
    with pytest.raises(ValueError, match="10 is no square number"):
        small(queries=10)


def test_attention_is_torchs():
    torch.manual_seed(0)
    ours, theirs = Attention(8, 2), nn.MultiheadAttention(8, 2, batch_first=True)
    theirs.in_proj_weight.data = torch.cat([ours.q.weight, ours.k.weight, ours.v.weight])
    theirs.in_proj_bias.data = torch.cat([ours.q.bias, ours.k.bias, ours.v.bias])
    theirs.out_proj.load_state_dict(ours.out.state_dict())
    q, k, v = torch.randn(2, 3, 8), torch.randn(2, 5, 8), torch.randn(2, 5, 8)
    torch.testing.assert_close(ours(q, k, v), theirs(q, k, v)[0])
    with pytest.raises(ValueError, match="3 heads do not divide 8 channels"):
        Attention(8, 3)


@pytest.mark.parametrize("dim", [24, 64, 256])
def test_a_place_is_most_like_itself(dim):
    """The product of two cells' embeddings is greatest where the cells are one, on every axis."""
    grid = (4, 8, 6)
    centres = [(torch.arange(size) + 0.5) / size for size in grid]
    table = positions(torch.cartesian_prod(*centres), grid, dim)
    assert table.shape == (4 * 8 * 6, dim)
    assert ((table @ table.T).argmax(1) == torch.arange(len(table))).all()


def test_queries_look_at_their_own_place_from_the_first_step():
    """Untrained, half of the attention's places and more are the cells around the query's, at any time."""
    model = small(dim=96, queries=16)
    seen = {}
    cross = model.decoder[0].cross_attn
    cross.register_forward_pre_hook(lambda module, given: seen.update(near=given[3]))
    model(torch.zeros(1, 3, 16, 32, 32))
    share = seen["near"].softmax(-1).view(2, 16, 8, 4, 4)  # heads, queries, then t, h, w
    for head in share:
        best = head.sum(1).flatten(1).argmax(1)
        assert best.tolist() == list(range(16)), "a 4 x 4 grid of queries on a 4 x 4 grid of cells"
        assert head.sum(1).flatten(1).amax(1).min() > 0.5
    times = share.sum((3, 4))
    assert times[0, :, 3:5].sum(1).min() > 0.8, "the first head reads the two middle frames"
    torch.testing.assert_close(times[1], torch.full((16, 8), 1 / 8))  # the second all of them


def test_attention_adds_its_bias_to_the_scores():
    """A bias of -inf everywhere but one key: the answer is that key's value."""
    torch.manual_seed(0)
    attn = Attention(8, 2)
    q, k, v = torch.randn(1, 3, 8), torch.randn(1, 5, 8), torch.randn(1, 5, 8)
    bias = torch.full((2, 3, 5), -torch.inf)
    bias[..., 4] = 0
    expected = attn.out(attn.v(v[:, 4])).expand(1, 3, 8)
    torch.testing.assert_close(attn(q, k, v, bias), expected)
