"""The ViT against the plain way to compute it, and against the published counts."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from actloc_core import backbones
from actloc_core.backbones import vit


def small(input_size=(4, 32, 48), tubelet=2):
    """All parameters drawn, so that none hides behind a zero or a one."""
    torch.manual_seed(0)
    model = vit.ViT(input_size=input_size, tubelet=tubelet, depth=2, dim=12, heads=3, drop_path=0.0)
    for p in model.parameters():
        nn.init.normal_(p, std=0.5)
    return model.double().eval()


def plain_sinusoids(count, dim):
    rows = [
        [(math.cos if j % 2 else math.sin)(n / 10000 ** (2 * (j // 2) / dim)) for j in range(dim)]
        for n in range(count)
    ]
    return torch.tensor(rows)


def plain_attention(attn, x, heads):
    """One head after the other; keys without bias."""
    wq, wk, wv = attn.qkv.weight.chunk(3)
    q, k, v = x @ wq.T + attn.q_bias, x @ wk.T, x @ wv.T + attn.v_bias
    out = []
    for qi, ki, vi in zip(*(y.chunk(heads, -1) for y in (q, k, v)), strict=True):
        out.append((qi @ ki.mT / qi.shape[-1] ** 0.5).softmax(-1) @ vi)
    return attn.proj(torch.cat(out, -1))


def test_equals_the_plain_way_in_float64():
    model, clip = small(), torch.randn(2, 3, 4, 32, 48, dtype=torch.float64)
    x = F.conv3d(clip, model.patch_embed.proj.weight, model.patch_embed.proj.bias, (2, 16, 16))
    x = x.flatten(2).mT + plain_sinusoids(12, 12).double()
    for block in model.blocks:
        y = F.layer_norm(x, (12,), block.norm1.weight, block.norm1.bias, 1e-6)
        x = x + plain_attention(block.attn, y, 3)
        y = F.layer_norm(x, (12,), block.norm2.weight, block.norm2.bias, 1e-6)
        x = x + block.mlp.fc2(F.gelu(block.mlp.fc1(y), approximate="none"))
    plain = F.layer_norm(x, (12,), model.norm.weight, model.norm.bias, 1e-6).view(2, 2, 2, 3, 12)
    torch.testing.assert_close(model(clip), plain, atol=1e-10, rtol=1e-10)


def test_clips_of_another_size_get_the_positions_of_pre_training_interpolated():
    """UMT's way: bicubic in each frame, then linear over the frames."""
    model = small((8, 32, 32))
    table = plain_sinusoids(16, 12).view(4, 2, 2, 12).permute(0, 3, 1, 2)
    table = F.interpolate(table.double(), (3, 4), mode="bicubic", align_corners=False)  # (4, 12, 3, 4)
    table = F.interpolate(table.permute(2, 3, 1, 0).flatten(0, 1), 2, mode="linear", align_corners=False)
    expected = table.view(3, 4, 12, 2).permute(3, 0, 1, 2)
    torch.testing.assert_close(model._positions((2, 3, 4)), expected)
    assert model(torch.zeros(1, 3, 4, 48, 64, dtype=torch.float64)).shape == (1, 2, 3, 4, 12)


def test_tubelets_of_one_frame_are_umts():
    model = small((4, 32, 32), tubelet=1)
    assert model.patch_embed.proj.weight.shape == (12, 3, 1, 16, 16)
    assert model(torch.zeros(1, 3, 4, 32, 32, dtype=torch.float64)).shape == (1, 4, 2, 2, 12)


def test_sizes_that_the_patches_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="clip T=3 is not a multiple of the patch's 2"):
        small()(torch.zeros(1, 3, 3, 32, 48, dtype=torch.float64))
    with pytest.raises(ValueError, match="W=40"):
        small()(torch.zeros(1, 3, 4, 32, 40, dtype=torch.float64))


def test_there_is_no_last_pool_to_keep():
    with pytest.raises(ValueError, match="last_pool must be False"):
        backbones.vit_b(last_pool=True)


def test_clips_of_a_batch_do_not_meet():
    model, clips = small(), torch.randn(3, 3, 4, 32, 48, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(model(clips), torch.cat([model(c[None]) for c in clips]))


@pytest.mark.parametrize(
    ("name", "params", "tensors", "published"),
    [("vit_b", 86_534_800, 162, 180.5), ("vit_l", 304_270_736, 318, 597.2)],
)
def test_counts_of_videomae(name, params, tensors, published):
    """Parameters and tensors with a head for 400 classes; GFLOPs of 16x224x224, norms at 5 an element."""
    with torch.device("meta"):
        model = getattr(backbones, name)().eval()
    assert len(list(model.parameters())) + 2 == tensors
    assert sum(p.numel() for p in model.parameters()) + model.out_dim * 400 + 400 == params
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        assert model(torch.empty(1, 3, 16, 224, 224, device="meta")).shape == (1, 8, 14, 14, model.out_dim)
    norms = 5 * 1568 * model.out_dim * (2 * len(model.blocks) + 1)
    assert (counter.get_total_flops() / 2 + norms) / 1e9 == pytest.approx(published, rel=1e-3)
