"""Hiera against the plain way to compute it, token by token in (t, h, w) order, and the published counts."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from actloc_core import backbones
from actloc_core.backbones import hiera
from actloc_core.backbones.layers import drop_path

# By depths: the side of the units that keys stand in (None: no units), whether queries are pooled, and
# the heads. A block that pools opens a stage and attends as the stage before it.
PUBLISHED = (1, 2, 2, 2)
PLANS = {
    PUBLISHED: [
        (8, False, 1),
        (8, True, 2),
        (4, False, 2),
        (4, True, 4),
        (None, False, 4),
        (None, True, 8),
        (None, False, 8),
    ],
    (1, 1, 2): [(4, False, 1), (4, True, 2), (None, True, 4), (None, False, 4)],
}


def small(last_pool=True, input_size=(4, 64, 64), drop_path=0.0, depths=PUBLISHED):
    """All parameters drawn, so that none hides behind a zero or a one."""
    torch.manual_seed(0)
    model = hiera.Hiera(
        input_size=input_size, depths=depths, dim=8, heads=1, last_pool=last_pool, drop_path=drop_path
    )
    for p in model.parameters():
        nn.init.normal_(p, std=0.5)
    return model.double().eval()


def max_2x2(x):
    return F.max_pool3d(x.movedim(-1, 1), (1, 2, 2)).movedim(1, -1)


def unit_of(x, side):
    """(t h w, 3): the frame, and the row and column of the unit, of each token of x (B, t, h, w, D)."""
    t, h, w = map(torch.arange, x.shape[1:4])
    return torch.cartesian_prod(t, h // side, w // side)


def plain_block(block, x, side, pools, heads):
    """x (B, t, h, w, D): attention over the whole clip, with everything outside the unit masked."""
    normed = F.layer_norm(x, x.shape[-1:], block.norm1.weight, block.norm1.bias, 1e-6)
    q, k, v = F.linear(normed, block.attn.qkv.weight, block.attn.qkv.bias).chunk(3, -1)
    x = x if block.proj is None else F.linear(normed, block.proj.weight, block.proj.bias)
    if pools:
        q, x = max_2x2(q), max_2x2(x)
    apart = torch.zeros(1, 1, dtype=torch.bool)
    if side:
        at, to = unit_of(q, side // 2 if pools else side), unit_of(k, side)
        apart = (at[:, None] != to[None]).any(-1)
    out = []
    for qi, ki, vi in zip(*(y.flatten(1, 3).chunk(heads, -1) for y in (q, k, v)), strict=True):
        scores = qi @ ki.transpose(1, 2) / qi.shape[-1] ** 0.5
        out.append(scores.masked_fill(apart, -torch.inf).softmax(-1) @ vi)
    update = F.linear(torch.cat(out, -1), block.attn.proj.weight, block.attn.proj.bias)
    x = x + update.view(x.shape)
    normed = F.layer_norm(x, x.shape[-1:], block.norm2.weight, block.norm2.bias, 1e-6)
    return x + block.mlp.fc2(F.gelu(block.mlp.fc1(normed), approximate="none"))


def plain_hiera(model, clip, last_pool, depths):
    plan = PLANS[depths]
    last = max(i for i, (_, pools, _) in enumerate(plan) if pools)
    x = F.conv3d(clip, model.patch_embed.proj.weight, model.patch_embed.proj.bias, (2, 4, 4), (1, 3, 3))
    x = x.permute(0, 2, 3, 4, 1)
    _, t, h, w, d = x.shape
    x = x + model.pos_embed_spatial.view(1, 1, h, w, d) + model.pos_embed_temporal.view(1, t, 1, 1, d)
    for i, (block, (side, pools, heads)) in enumerate(zip(model.blocks, plan, strict=True)):
        x = plain_block(block, x, side, pools and (last_pool or i < last), heads)
    return F.layer_norm(x, x.shape[-1:], model.norm.weight, model.norm.bias, 1e-6)


@pytest.mark.parametrize("last_pool", [True, False])
@pytest.mark.parametrize(
    ("size", "depths"), [((64, 32), PUBLISHED), ((32, 96), PUBLISHED), ((32, 48), (1, 1, 2))]
)
def test_equals_masked_attention_in_grid_order_in_float64(last_pool, size, depths):
    """Also with three stages, as hiera_tiny: units of 4 x 4 tokens, in the first stage alone."""
    model = small(last_pool, (4, *size), depths=depths)
    clip = torch.randn(2, 3, 4, *size, dtype=torch.float64)
    fast, plain = model(clip), plain_hiera(model, clip, last_pool, depths)
    stride = 4 * 2 ** (len(depths) - (1 if last_pool else 2))
    assert fast.shape == (2, 2, size[0] // stride, size[1] // stride, 8 * 2 ** (len(depths) - 1))
    torch.testing.assert_close(fast, plain, atol=1e-10, rtol=1e-10)
    weights = list(model.parameters())
    for a, b in zip(
        torch.autograd.grad(fast.sin().sum(), weights),
        torch.autograd.grad(plain.sin().sum(), weights),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-9)


def test_units_lie_so_that_pooling_takes_the_maximum_of_quarters():
    """One 8x16 frame, tokens numbered by rows: two units, and the first pooling merges 0, 1, 16, 17."""
    numbers = torch.arange(128.0).view(1, 1, 8, 16, 1)
    units = hiera.to_units(numbers)
    assert units.shape == (1, 2, 64, 1)
    assert units[0, 0].view(4, 16)[:, 0].tolist() == [0, 1, 16, 17]
    assert units[0, 1].min() == 8
    once, twice = hiera.pool(units), hiera.pool(hiera.pool(units))
    assert once.shape == (1, 2, 16, 1)
    assert twice[0, 0, :, 0].tolist() == [51, 55, 115, 119]
    assert hiera.from_units(twice, (1, 1, 2))[0, 0, :, :, 0].tolist() == [
        [51, 55, 59, 63],
        [115, 119, 123, 127],
    ]
    assert hiera.from_units(hiera.pool(twice), (1, 1, 2))[0, 0, :, :, 0].tolist() == [[119, 127]]


def test_positions_of_another_size_are_interpolated():
    """Bicubic in the plane and linear in time: the same as a model whose tables were resized so."""
    model, wide = small(), small(input_size=(8, 32, 96))
    with torch.no_grad():
        plane = model.pos_embed_spatial.view(1, 16, 16, 8).permute(0, 3, 1, 2)
        plane = F.interpolate(plane, (8, 24), mode="bicubic", align_corners=False, antialias=False)
        line = F.interpolate(model.pos_embed_temporal.mT, 4, mode="linear", align_corners=False).mT
        wide.load_state_dict(
            model.state_dict() | {"pos_embed_spatial": plane.flatten(2).mT, "pos_embed_temporal": line}
        )
        clip = torch.randn(1, 3, 8, 32, 96, dtype=torch.float64)
        assert (model.pos_embed_spatial - small().pos_embed_spatial).abs().max() == 0
        torch.testing.assert_close(model(clip), wide(clip), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize(
    ("shape", "said"), [((3, 64, 64), "T=3 .* 2"), ((4, 48, 64), "H=48 .* 32"), ((4, 64, 80), "W=80")]
)
def test_sizes_that_the_strides_do_not_divide_are_refused(shape, said):
    with pytest.raises(ValueError, match=said):
        small()(torch.zeros(1, 3, *shape, dtype=torch.float64))


def test_clips_of_a_batch_do_not_meet():
    model, clips = small(last_pool=False), torch.randn(3, 3, 4, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(model(clips), torch.cat([model(c[None]) for c in clips]))


def test_drop_path_is_off_in_evaluation_and_unbiased_in_training():
    update = torch.ones(40000, 1, 1)
    torch.manual_seed(0)
    dropped = drop_path(update, 0.25, training=True)
    assert dropped.unique().tolist() == pytest.approx([0, 4 / 3])
    assert dropped.mean().item() == pytest.approx(1, abs=0.02)
    assert drop_path(update, 0.25, training=False) is update
    rates = [block.drop_path for block in small(drop_path=0.6).blocks]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6])


def gmacs(model, *shape):
    """Multiply-accumulates in 1e9 as the papers count them: layer norms at 5 an element."""
    norms = 0

    def count(_, inputs):
        nonlocal norms
        norms += 5 * inputs[0].numel()

    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.register_forward_pre_hook(count)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(torch.empty(*shape, device="meta"))
    return (counter.get_total_flops() / 2 + norms) / 1e9


@pytest.mark.parametrize(
    ("name", "crop", "last_pool", "published"),
    [
        ("hiera_t", 256, True, 71.56),
        ("hiera_b", 256, True, 145.02),
        ("hiera_l", 256, True, 579.62),
        pytest.param("hiera_h", 256, True, 1585.7, marks=pytest.mark.slow),
    ],
)
def test_counts_of_the_original_code(name, crop, last_pool, published):
    with torch.device("meta"):
        model = getattr(backbones, name)(crop=crop, last_pool=last_pool)
    assert gmacs(model, 1, 3, 16, crop, crop) == pytest.approx(published, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "millions"), [("hiera_b", 51), ("hiera_bplus", 69), ("hiera_l", 213), ("hiera_h", 672)]
)
def test_parameters_of_the_kinetics_classifiers(name, millions):
    with torch.device("meta"):
        model = getattr(backbones, name)(crop=224)
    count = sum(p.numel() for p in model.parameters()) + model.out_dim * 400 + 400
    assert count / 1e6 == pytest.approx(millions, abs=1)


def test_hiera_l_has_590_tensors_and_213_1_million_parameters_with_its_head():
    with torch.device("meta"):
        model = backbones.hiera_l(crop=224)
    sizes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    assert len(sizes) + 2 == 590
    assert sum(p.numel() for p in model.parameters()) + 1152 * 400 + 400 == pytest.approx(213.1e6, abs=5e4)
    assert not list(model.buffers())
    assert sizes["pos_embed_spatial"] == (1, 3136, 144)
    assert sizes["pos_embed_temporal"] == (1, 8, 144)
    assert [i for i in range(48) if f"blocks.{i}.proj.weight" in sizes] == [2, 8, 44]
    with torch.device("meta"):
        assert tuple(backbones.hiera_l().pos_embed_spatial.shape) == (1, 4096, 144)


@pytest.mark.parametrize(("crop", "last_pool", "side"), [(224, True, 7), (256, True, 8), (256, False, 16)])
def test_output_grids(crop, last_pool, side):
    with torch.device("meta"):
        model = backbones.hiera_l(crop=crop, last_pool=last_pool).eval()
        assert model(torch.empty(1, 3, 16, crop, crop)).shape == (1, 8, side, side, 1152)
