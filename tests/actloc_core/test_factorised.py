"""The factorised ViT against the plain way to compute it."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from actloc_core.backbones.factorised import FactorisedViT, factorised_tiny


def small():
    """All parameters drawn, so that none hides behind a zero or a one."""
    torch.manual_seed(0)
    model = FactorisedViT(input_size=(6, 16, 24), patch=(2, 8, 8), depth=2, dim=12, heads=3, drop_path=0.0)
    for p in model.parameters():
        nn.init.normal_(p, std=0.5)
    return model.double().eval()


def plain_attention(attn, x):
    """x (n, dim): one head after the other."""
    q, k, v = attn.qkv(x).chunk(3, -1)
    heads = [
        (qi @ ki.mT / qi.shape[-1] ** 0.5).softmax(-1) @ vi
        for qi, ki, vi in zip(*(y.chunk(attn.heads, -1) for y in (q, k, v)), strict=True)
    ]
    return attn.proj(torch.cat(heads, -1))


def norm(layer, x):
    return F.layer_norm(x, (12,), layer.weight, layer.bias, 1e-6)


def test_equals_the_plain_way_in_float64():
    """Place by place over time, then frame by frame over the places."""
    model, clips = small(), torch.randn(2, 3, 6, 16, 24, dtype=torch.float64)
    for clip, out in zip(clips, model(clips), strict=True):
        x = F.conv3d(clip[None], model.patch_embed.weight, model.patch_embed.bias, (2, 8, 8))[0]
        x = x.permute(1, 2, 3, 0).reshape(3, 6, 12).clone()  # time, place, channel
        for time in range(3):
            for place in range(6):
                x[time, place] += model.pos_embed_spatial[0, place] + model.pos_embed_temporal[0, time]
        for block in model.blocks:
            y = norm(block.norm_time, x)
            x = x + torch.stack([plain_attention(block.time, y[:, place]) for place in range(6)], 1)
            y = norm(block.norm_space, x)
            x = x + torch.stack([plain_attention(block.space, y[time]) for time in range(3)])
            y = norm(block.norm_mlp, x)
            x = x + block.mlp.fc2(F.gelu(block.mlp.fc1(y)))
        torch.testing.assert_close(out, norm(model.norm, x).view(3, 2, 3, 12), atol=1e-10, rtol=1e-10)


def test_no_pool_to_keep_and_no_size_that_patches_do_not_divide():
    with pytest.raises(ValueError, match="no pooling"):
        factorised_tiny(last_pool=True)
    with pytest.raises(ValueError, match="clip W=60 is not a multiple of the patch's 8"):
        factorised_tiny(frames=4)(torch.zeros(1, 3, 4, 64, 60))
