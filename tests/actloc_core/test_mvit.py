"""The backbone against the plain way to compute it, and against the published counts."""

import pytest
import torch
import torch.nn.functional as F

from actloc_core import backbones
from actloc_core.backbones import mvit
from tests.actloc_core.plain_mvit import plain_attention, plain_forward


@pytest.mark.parametrize(("q_stride", "kv_stride"), [(1, 1), (2, 1), (1, 2), (2, 2)])
@pytest.mark.parametrize("has_cls", [False, True])
def test_attention_equals_the_plain_way_in_float64(q_stride, kv_stride, has_cls):
    torch.manual_seed(0)
    grid = (2, 4, 6)
    attn = mvit.PoolingAttention(8, 12, 2, grid=(2, 4, 4), q_stride=q_stride, kv_stride=kv_stride).double()
    attn.apply(mvit._init)
    for name in "hw":  # tables of the non-square grid itself: no interpolation in this test
        size = grid["thw".index(name)]
        longest = max(size // q_stride, size // kv_stride)
        setattr(attn, f"rel_pos_{name}", torch.nn.Parameter(torch.randn(2 * longest - 1, 6).double()))
    x = torch.randn(3, 48 + has_cls, 8, dtype=torch.float64, requires_grad=True)
    fast, fast_grid = attn(x, grid)
    plain, plain_grid = plain_attention(attn, x, grid)
    assert fast_grid == plain_grid
    torch.testing.assert_close(fast, plain, atol=1e-10, rtol=1e-10)
    weights = [x, *attn.parameters()]
    for a, b in zip(
        torch.autograd.grad(fast.square().sum(), weights),
        torch.autograd.grad(plain.square().sum(), weights),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("frames", [1, 2, 5])
@pytest.mark.parametrize("stride", [1, 2, 4])
def test_depthwise_convolution_equals_conv3d(frames, stride):
    x = torch.randn(2, frames, 8, 12, 5, dtype=torch.float64)
    weight = torch.randn(5, 1, 3, 3, 3, dtype=torch.float64)
    plain = F.conv3d(x.movedim(-1, 1), weight, stride=(1, stride, stride), padding=1, groups=5).movedim(1, -1)
    fast = mvit.depthwise_conv3d(x, weight, stride)
    torch.testing.assert_close(fast, plain)
    assert tuple(fast.shape[1:4]) == mvit.pooled((frames, 8, 12), stride)


def test_relative_table_rows():
    """Two queries over four keys: the queries are two keys apart."""
    table = torch.arange(7.0)[:, None]
    assert mvit.relative_table(table, 2, 4)[..., 0].tolist() == [[3, 2, 1, 0], [5, 4, 3, 2]]
    assert mvit.relative_table(table, 4, 4)[..., 0].tolist()[0] == [3, 2, 1, 0]


def test_relative_table_is_interpolated_to_another_size():
    table = torch.arange(5.0)[:, None]
    expected = F.interpolate(table.T[None], size=7, mode="linear", align_corners=False)[0, 0]
    rows = mvit.relative_table(table, 4, 4)[..., 0]
    torch.testing.assert_close(rows[0], expected[[3, 2, 1, 0]])


def test_mvitv2_s_has_the_published_tensors():
    """K400 classifier: 34,537,744 parameters in 397 tensors, of which 768 x 400 + 400 are its head."""
    model = backbones.mvitv2_s(crop=224, last_pool=True)
    sizes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    assert sum(p.numel() for p in model.parameters()) + 768 * 400 + 400 == 34_537_744
    assert len(sizes) + 2 == 397
    assert not list(model.buffers())
    lengths = [[sizes[f"blocks.{i}.attn.rel_pos_{a}"][0] for a in "hwt"] for i in range(16)]
    assert lengths == [[111] * 2 + [15]] + [[55] * 2 + [15]] * 2 + [[27] * 2 + [15]] * 12 + [[13] * 2 + [15]]
    assert [i for i in range(16) if f"blocks.{i}.proj.weight" in sizes] == [1, 3, 14]
    assert sizes["blocks.14.attn.qkv.weight"] == (2304, 384)
    assert sizes["blocks.0.attn.pool_k.weight"] == (96, 1, 3, 3, 3)


@pytest.mark.slow
def test_output_grids_of_table_2a():
    for crop, last_pool, side in ((224, True, 7), (224, False, 14), (256, True, 8), (256, False, 16)):
        with torch.device("meta"):
            model = backbones.mvitv2_s(crop=crop, last_pool=last_pool).eval()
            assert model(torch.empty(1, 3, 16, crop, crop)).shape == (1, 8, side, side, 768)


def test_any_size_that_the_strides_divide():
    model = backbones.mvitv2_tiny().eval()
    assert model(torch.randn(1, 3, 8, 48, 80)).shape == (1, 4, 6, 10, 64)
    with pytest.raises(ValueError, match="clip W=60"):
        model(torch.randn(1, 3, 8, 64, 60))


def test_clips_of_a_batch_do_not_meet():
    torch.manual_seed(0)
    model, clips = backbones.mvitv2_tiny().eval(), torch.randn(3, 3, 16, 64, 64)
    with torch.no_grad():
        together, alone = model(clips), torch.cat([model(c[None]) for c in clips])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("build", "parameters"),
    [("mvitv2_s", 34_537_744), ("mvitv2_b", 51_230_128), ("mvitv1_b", 36_610_672)],
)
def test_parameters_of_the_published_classifiers(build, parameters):
    """With the K400 head of 768 x 400 + 400."""
    frames = 32 if build == "mvitv2_b" else 16
    with torch.device("meta"):
        model = getattr(backbones, build)(frames=frames, crop=224, last_pool=True)
    assert sum(p.numel() for p in model.parameters()) + 768 * 400 + 400 == parameters


SMALL = {
    "input_size": (8, 64, 64),
    "patch_kernel": (3, 7, 7),
    "patch_stride": (2, 4, 4),
    "depths": (1, 2, 2),
    "dims": (8, 16, 32),
    "heads": (1, 2, 4),
    "kv_strides": (4, 2, 1),
    "drop_path": 0.0,
}


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("last_pool", [True, False])
@pytest.mark.parametrize("cls_token", [True, False])
def test_the_whole_network_equals_the_plain_way_in_float64(version, last_pool, cls_token):
    torch.manual_seed(0)
    model = mvit.MViT(**SMALL, version=version, last_pool=last_pool, cls_token=cls_token).double()
    clip = torch.randn(2, 3, 8, 64, 64, dtype=torch.float64)
    fast, plain = model(clip), plain_forward(model, clip)
    torch.testing.assert_close(fast, plain, atol=1e-10, rtol=1e-10)
    weights = list(model.parameters())
    one = torch.autograd.grad(fast.square().sum(), weights)
    other = torch.autograd.grad(plain.square().sum(), weights)
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, atol=1e-8, rtol=1e-8)


def test_checkpointing_changes_no_number():
    torch.manual_seed(0)
    model = mvit.MViT(**SMALL, last_pool=False, cls_token=True).double().train()
    clip = torch.randn(1, 3, 8, 64, 64, dtype=torch.float64)
    grads = []
    for checkpointing in (False, True):
        model.checkpointing = checkpointing
        grads.append(torch.autograd.grad(model(clip).square().sum(), list(model.parameters())))
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)


def test_version_1_positions_are_resized_for_another_size():
    torch.manual_seed(0)
    model = mvit.MViT(**SMALL, version=1, last_pool=True, cls_token=True)
    assert model(torch.randn(1, 3, 4, 32, 96)).shape == (1, 2, 2, 6, 32)
    with pytest.raises(ValueError, match="versions 1 and 2, not 3"):
        mvit.MViT(**SMALL, version=3, last_pool=True, cls_token=True)
