"""Loading of published checkpoints, built from their tensors' names and shapes.

The tables below were written from the published code, not from ours; their totals are the published counts.
"""

import argparse
import itertools
import math
import os
import pickle
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from actloc_core import backbones
from actloc_core.backbones.hiera import Hiera
from actloc_core.backbones.mvit import MViT
from actloc_core.backbones.vit import ViT
from actloc_core.checkpoints import CheckpointError, load_backbone
from actloc_core.model import ActionLocalizer

# --- names and shapes ---------------------------------------------------------------------------------


def linear(name, inside, out):
    return {f"{name}.weight": (out, inside), f"{name}.bias": (out,)}


def norm(name, width):
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def patches(dim, *kernel):
    return {"patch_embed.proj.weight": (dim, 3, *kernel), "patch_embed.proj.bias": (dim,)}


def pooling(block, which):
    return {f"{block}.attn.pool_{which}.weight": (96, 1, 3, 3, 3), **norm(f"{block}.attn.norm_{which}", 96)}


def mvitv2(blocks, frames, spatial):
    """PySlowFast's MViTv2 at 224. blocks: (width in, width out); spatial: rows of rel_pos_h and rel_pos_w."""
    shapes = {"cls_token": (1, 1, 96), **patches(96, 3, 7, 7)}
    for i, ((inside, out), rows) in enumerate(zip(blocks, spatial, strict=True)):
        b = f"blocks.{i}"
        shapes |= norm(f"{b}.norm1", inside) | linear(f"{b}.attn.qkv", inside, 3 * out)
        shapes |= linear(f"{b}.attn.proj", out, out)
        shapes |= pooling(b, "q") | pooling(b, "k") | pooling(b, "v")
        shapes |= {f"{b}.attn.rel_pos_h": (rows, 96), f"{b}.attn.rel_pos_w": (rows, 96)}
        shapes |= {f"{b}.attn.rel_pos_t": (2 * (frames // 2) - 1, 96)}
        shapes |= norm(f"{b}.norm2", out) | linear(f"{b}.mlp.fc1", out, 4 * out)
        shapes |= linear(f"{b}.mlp.fc2", 4 * out, out)
        if inside != out:
            shapes |= linear(f"{b}.proj", inside, out)
    return shapes | norm("norm", 768) | linear("head.projection", 768, 400)


def mvitv1_b():
    """PySlowFast's MViTv1-B 16x4 at 224: the MLP widens, and only blocks 1, 3 and 14 pool their queries."""
    shapes = {"cls_token": (1, 1, 96), **patches(96, 3, 7, 7)}
    shapes |= {"pos_embed_spatial": (1, 56 * 56, 96), "pos_embed_temporal": (1, 8, 96)}
    shapes |= {"pos_embed_class": (1, 1, 96)}
    widths = [96, 192, 192, *[384] * 11, 768, 768, 768]
    for i, (inside, out) in enumerate(itertools.pairwise(widths)):
        b = f"blocks.{i}"
        shapes |= norm(f"{b}.norm1", inside) | linear(f"{b}.attn.qkv", inside, 3 * inside)
        shapes |= linear(f"{b}.attn.proj", inside, inside)
        shapes |= (pooling(b, "q") if i in (1, 3, 14) else {}) | pooling(b, "k") | pooling(b, "v")
        shapes |= norm(f"{b}.norm2", inside) | linear(f"{b}.mlp.fc1", inside, 4 * inside)
        shapes |= linear(f"{b}.mlp.fc2", 4 * inside, out)
        if inside != out:
            shapes |= linear(f"{b}.proj", inside, out)
    return shapes | norm("norm", 768) | linear("head.projection", 768, 400)


MVITV2_S = mvitv2(
    [(96, 96), (96, 192), (192, 192), (192, 384), *[(384, 384)] * 10, (384, 768), (768, 768)],
    frames=16,
    spatial=[111, 55, 55, *[27] * 12, 13],
)
MVITV2_B = mvitv2(
    [
        *[(96, 96)] * 2,
        (96, 192),
        *[(192, 192)] * 2,
        (192, 384),
        *[(384, 384)] * 15,
        (384, 768),
        *[(768, 768)] * 2,
    ],
    frames=32,
    spatial=[*[111] * 2, *[55] * 3, *[27] * 17, *[13] * 2],
)
MVITV1_B = mvitv1_b()

# PySlowFast's part of a name, and torchvision's.
TORCHVISION = [
    ("patch_embed.proj.", "conv_proj."),
    ("cls_token", "pos_encoding.class_token"),
    ("pos_embed_spatial", "pos_encoding.spatial_pos"),
    ("pos_embed_temporal", "pos_encoding.temporal_pos"),
    ("pos_embed_class", "pos_encoding.class_pos"),
    *[(f"attn.pool_{x}.weight", f"attn.pool_{x}.pool.weight") for x in "qkv"],
    *[(f"attn.norm_{x}.", f"attn.pool_{x}.norm_act.0.") for x in "qkv"],
    ("attn.proj.", "attn.project.0."),
    ("mlp.fc1.", "mlp.0."),
    ("mlp.fc2.", "mlp.3."),
    ("head.projection.", "head.1."),
]


def in_torchvisions_names(state):
    """Rename tensors as torchvision: no leading axes in the stem, blocks.*.project for proj."""
    theirs = {}
    for name, value in state.items():
        for ours, tv in TORCHVISION:
            name = name.replace(ours, tv)
        if name.startswith("blocks.") and name.split(".")[2] == "proj":
            name = name.replace(".proj.", ".project.")
        if name.startswith("pos_encoding."):
            value = value.reshape([n for n in value.shape if n > 1])
        theirs[name] = value
    return theirs


def hiera(dim, depths, head=True):
    """Hiera of 16x224, with its Kinetics head or without."""
    shapes = {
        "pos_embed_spatial": (1, 56 * 56, dim),
        "pos_embed_temporal": (1, 8, dim),
        **patches(dim, 3, 7, 7),
    }
    widths = [dim * 2**stage for stage, depth in enumerate(depths) for _ in range(depth)]
    for i, (inside, out) in enumerate(itertools.pairwise([dim, *widths])):
        b = f"blocks.{i}"
        shapes |= norm(f"{b}.norm1", inside) | linear(f"{b}.attn.qkv", inside, 3 * out)
        shapes |= linear(f"{b}.attn.proj", out, out) | norm(f"{b}.norm2", out)
        shapes |= linear(f"{b}.mlp.fc1", out, 4 * out) | linear(f"{b}.mlp.fc2", 4 * out, out)
        if inside != out:
            shapes |= linear(f"{b}.proj", inside, out)
    return shapes | (norm("norm", out) | linear("head.projection", out, 400) if head else {})


def hiera_mae(dim, depths):
    """Pre-training: no norm, no head; scales fused by convolutions, and a decoder of eight blocks of 512."""
    shapes = hiera(dim, depths, head=False)
    out = 8 * dim
    shapes |= norm("encoder_norm", out) | linear("decoder_embed", out, 512) | {"mask_token": (1, 1, 512)}
    shapes |= {"decoder_pos_embed": (1, 8 * 14 * 14, 512)}
    for i, (width, side) in enumerate(((dim, 4), (2 * dim, 2))):
        name = f"multi_scale_fusion_heads.{i}"
        shapes |= {f"{name}.weight": (out, width, 1, side, side), f"{name}.bias": (out,)}
    for i in range(8):
        b = f"decoder_blocks.{i}"
        shapes |= (
            norm(f"{b}.norm1", 512) | linear(f"{b}.attn.qkv", 512, 1536) | linear(f"{b}.attn.proj", 512, 512)
        )
        shapes |= (
            norm(f"{b}.norm2", 512) | linear(f"{b}.mlp.fc1", 512, 2048) | linear(f"{b}.mlp.fc2", 2048, 512)
        )
    return shapes | norm("decoder_norm", 512) | linear("decoder_pred", 512, 768)


def videomae(dim, depth, last_norm, head=400):
    shapes = patches(dim, 2, 16, 16)
    for i in range(depth):
        b = f"blocks.{i}"
        shapes |= norm(f"{b}.norm1", dim) | {f"{b}.attn.q_bias": (dim,), f"{b}.attn.v_bias": (dim,)}
        shapes |= {f"{b}.attn.qkv.weight": (3 * dim, dim)} | linear(f"{b}.attn.proj", dim, dim)
        shapes |= (
            norm(f"{b}.norm2", dim)
            | linear(f"{b}.mlp.fc1", dim, 4 * dim)
            | linear(f"{b}.mlp.fc2", 4 * dim, dim)
        )
    return shapes | norm(last_norm, dim) | (linear("head", dim, head) if head else {})


def videomae_pretraining(dim, depth, decoder):
    """The encoder behind its prefix, and a decoder of half the width with blocks of the same names."""
    shapes = {f"encoder.{name}": shape for name, shape in videomae(dim, depth, "norm", head=None).items()}
    inner = videomae(decoder, 4, "norm", head=1536)
    shapes |= {
        f"decoder.{name}": shape for name, shape in inner.items() if not name.startswith("patch_embed")
    }
    return shapes | {"encoder_to_decoder.weight": (decoder, dim), "mask_token": (1, 1, decoder)}


@pytest.mark.parametrize(
    ("shapes", "params", "tensors"),
    [
        (MVITV2_S, 34_537_744, 397),
        (MVITV2_B, 51_230_128, None),
        (MVITV1_B, 36_610_672, 313),
        (hiera(144, (2, 6, 36, 4)), 213.1e6, 590),
        (videomae(768, 12, "fc_norm"), 86_534_800, 162),
    ],
    ids=["mvitv2_s", "mvitv2_b", "mvitv1_b", "hiera_l", "vit_b"],
)
def test_tables_have_the_published_totals(shapes, params, tensors):
    assert sum(map(math.prod, shapes.values())) == pytest.approx(params, rel=0 if params % 1e5 else 3e-4)
    assert tensors is None or len(shapes) == tensors


# --- what becomes of them -----------------------------------------------------------------------------


def state_of(shapes):
    """Tensors of distinct values, also along their last axis, in little memory."""
    return {
        name: (torch.arange(float(shape[-1])) / 10000 + i).expand(shape)
        for i, (name, shape) in enumerate(shapes.items())
    }


def empty(build, **arguments):
    """Build a model without initialising its parameters, which takes minutes; all of them are 0.5."""
    with torch.device("meta"):
        model = build(**arguments)
    model.to_empty(device="cpu")
    for tensor in model.state_dict().values():
        tensor.fill_(0.5)
    return model


def in_the_body(state):
    return {name: value for name, value in state.items() if not name.startswith("head.")}


def assert_same(model, expected):
    own = model.state_dict()
    assert set(own) == set(expected)
    different = [name for name in own if not torch.equal(own[name], expected[name])]
    assert not different


def build(name):
    return getattr(backbones, name)


@pytest.mark.parametrize(
    ("name", "shapes", "frames"),
    [("mvitv2_s", MVITV2_S, 16), ("mvitv2_b", MVITV2_B, 32), ("mvitv1_b", MVITV1_B, 16)],
)
def test_mvit_of_pyslowfast_and_of_torchvision_is_loaded(name, shapes, frames):
    state = state_of(shapes)
    model = empty(build(name), frames=frames, crop=224, last_pool=True)
    report = load_backbone(model, {"epoch": 200, "model_state": state, "cfg": "MVIT:\n  POOL_FIRST: false"})
    assert_same(model, in_the_body(state))
    assert str(report) == (
        f"the given state: PySlowFast MViT, {len(state) - 2} tensors loaded; resized: none; "
        "left out: head x2; missing: none; unexpected: none"
    )
    model = empty(build(name), frames=frames, crop=224, last_pool=True)
    report = load_backbone(model, in_torchvisions_names(state))
    assert_same(model, in_the_body(state))
    assert report.layout == "torchvision MViT"
    assert report.left_out == ("head.1.weight", "head.1.bias")


def test_torchvision_names_match_its_source():
    """From torchvision/models/video/mvit.py, so that the table above cannot be wrong on both sides."""
    v2, v1 = in_torchvisions_names(state_of(MVITV2_S)), in_torchvisions_names(state_of(MVITV1_B))
    assert {name.partition("blocks.14.")[2] for name in v2} - {""} == {
        *("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias", "project.weight", "project.bias"),
        *("attn.qkv.weight", "attn.qkv.bias", "attn.project.0.weight", "attn.project.0.bias"),
        *("attn.rel_pos_h", "attn.rel_pos_w", "attn.rel_pos_t"),
        *(
            f"attn.pool_{x}.{y}"
            for x in "qkv"
            for y in ("pool.weight", "norm_act.0.weight", "norm_act.0.bias")
        ),
        *("mlp.0.weight", "mlp.0.bias", "mlp.3.weight", "mlp.3.bias"),
    }
    stem = {name: tuple(value.shape) for name, value in v1.items() if not name.startswith("blocks.")}
    assert stem == {
        "conv_proj.weight": (96, 3, 3, 7, 7),
        "conv_proj.bias": (96,),
        "pos_encoding.class_token": (96,),
        "pos_encoding.spatial_pos": (3136, 96),
        "pos_encoding.temporal_pos": (8, 96),
        "pos_encoding.class_pos": (96,),
        "norm.weight": (768,),
        "norm.bias": (768,),
        "head.1.weight": (400, 768),
        "head.1.bias": (400,),
    }


def test_separate_projections_of_pyslowfast_are_joined():
    """Files of 2021, and those with MVIT.SEPARATE_QKV: attn.q, attn.k and attn.v."""
    state = state_of(MVITV2_S)
    split = {}
    for name, value in state.items():
        if ".qkv." in name:
            split |= {
                name.replace("qkv", x): part for x, part in zip("qkv", value.clone().chunk(3), strict=True)
            }
        else:
            split[name] = value
    for offset, x in enumerate("qkv"):
        split[f"blocks.3.attn.{x}.bias"] += offset
    expected = in_the_body(state)
    expected["blocks.3.attn.qkv.bias"] = state["blocks.3.attn.qkv.bias"] + torch.arange(
        3.0
    ).repeat_interleave(384)
    model = empty(backbones.mvitv2_s, crop=224, last_pool=True)
    load_backbone(model, {"model_state": split})
    assert_same(model, expected)


def test_relative_positions_are_resized_to_256_without_the_last_pool():
    """The tables of Table 1's model: 111 rows become 127, and the last block's 13 become 31."""
    torch.manual_seed(0)
    state = state_of(MVITV2_S)
    state |= {name: torch.randn(value.shape) for name, value in state.items() if "rel_pos" in name}
    model = empty(backbones.mvitv2_s, crop=256, last_pool=False)
    report = load_backbone(model, {"model_state": state})
    rows = {f"blocks.{i}.attn.rel_pos_{x}": n for i, n in enumerate([127, 63, 63, *[31] * 13]) for x in "hw"}
    expected = in_the_body(state)
    for name, n in rows.items():
        expected[name] = F.interpolate(state[name].T[None], size=n, mode="linear", align_corners=False)[0].T
    assert_same(model, expected)
    assert sorted(report.resized) == sorted(rows)
    assert "resized: blocks.*.attn.rel_pos_h x16, blocks.*.attn.rel_pos_w x16;" in str(report)


def test_resizing_at_loading_equals_resizing_in_the_forward():
    torch.manual_seed(0)

    def build(crop):
        return MViT(
            input_size=(4, crop, crop),
            patch_kernel=(3, 7, 7),
            patch_stride=(2, 4, 4),
            depths=(1, 2),
            dims=(8, 16),
            heads=(1, 2),
            kv_strides=(2, 1),
            last_pool=True,
            drop_path=0.0,
            cls_token=True,
        ).eval()

    made_for_32, made_for_64 = build(32), build(64)
    nn.init.normal_(made_for_32.cls_token)
    for block in made_for_32.blocks:
        for axis in "hwt":
            nn.init.normal_(block.attn.get_parameter(f"rel_pos_{axis}"))
    load_backbone(made_for_64, made_for_32.state_dict())
    clip = torch.randn(1, 3, 4, 64, 64)
    with torch.no_grad():
        assert torch.equal(made_for_32(clip), made_for_64(clip))


@pytest.mark.parametrize("wrap", [dict, in_torchvisions_names])
def test_absolute_positions_of_mvitv1_are_resized(wrap):
    """224 to 256, bicubic; 16 frames to 64, linear."""
    torch.manual_seed(0)
    state = state_of(MVITV1_B)
    plane, line = torch.randn(1, 3136, 96), torch.randn(1, 8, 96)
    state |= {"pos_embed_spatial": plane, "pos_embed_temporal": line}
    model = empty(build("mvitv1_b"), frames=64, crop=256, last_pool=True)
    report = load_backbone(model, wrap(state))
    plane = F.interpolate(plane.mT.reshape(1, 96, 56, 56), (64, 64), mode="bicubic", align_corners=False)
    line = F.interpolate(line.mT, 32, mode="linear", align_corners=False).mT
    assert_same(
        model, in_the_body(state) | {"pos_embed_spatial": plane.flatten(2).mT, "pos_embed_temporal": line}
    )
    assert report.resized == ("pos_embed_spatial", "pos_embed_temporal")


def test_class_token_that_the_model_lacks_is_reported():
    torch.manual_seed(0)
    model = backbones.mvitv2_tiny(crop=32)
    state = model.state_dict()
    report = load_backbone(backbones.mvitv2_tiny(crop=32), state | {"cls_token": torch.zeros(1, 1, 48)})
    assert report.unexpected == ("cls_token",)
    assert str(report).endswith("unexpected: cls_token")


HIERA_T = hiera(96, (1, 2, 7, 2))


def test_supervised_hiera_is_loaded():
    state = state_of(HIERA_T)
    model = empty(backbones.hiera_t, crop=224, last_pool=True)
    report = load_backbone(model, {"model_state": state})
    assert_same(model, in_the_body(state))
    assert report.layout == "Hiera"
    assert report.left_out == ("head.projection.weight", "head.projection.bias")
    assert not report.resized + report.missing + report.unexpected


@pytest.mark.parametrize(
    ("name", "dim", "depths"),
    [
        ("hiera_t", 96, (1, 2, 7, 2)),
        ("hiera_s", 96, (1, 2, 11, 2)),
        ("hiera_b", 96, (2, 3, 16, 3)),
        ("hiera_bplus", 112, (2, 3, 16, 3)),
        ("hiera_l", 144, (2, 6, 36, 4)),
        ("hiera_h", 256, (2, 6, 36, 4)),
    ],
)
@pytest.mark.parametrize("last_pool", [True, False])
def test_every_hiera_has_the_published_names_and_shapes(name, dim, depths, last_pool):
    with torch.device("meta"):
        model = getattr(backbones, name)(crop=224, last_pool=last_pool)
    own = {name: tuple(p.shape) for name, p in model.state_dict().items()}
    assert own == {name: shape for name, shape in hiera(dim, depths).items() if not name.startswith("head.")}


def test_hiera_mae_keeps_the_models_norm_and_is_resized_to_256():
    torch.manual_seed(0)
    state = state_of(hiera_mae(96, (1, 2, 7, 2)))
    plane = torch.randn(1, 3136, 96)
    state["pos_embed_spatial"] = plane
    model = empty(backbones.hiera_t, crop=256)
    report = load_backbone(model, {"model_state": state})
    plane = F.interpolate(plane.mT.reshape(1, 96, 56, 56), (64, 64), mode="bicubic", align_corners=False)
    body = {name: value for name, value in state.items() if name in HIERA_T}
    kept = torch.full((768,), 0.5)
    assert_same(
        model, body | {"pos_embed_spatial": plane.flatten(2).mT, "norm.weight": kept, "norm.bias": kept}
    )
    assert report.missing == ("norm.weight", "norm.bias")
    assert report.resized == ("pos_embed_spatial",)
    assert len(report.left_out) == len(state) - len(body)
    assert str(report) == (
        "the given state: Hiera MAE, 154 tensors loaded; resized: pos_embed_spatial; "
        "left out: encoder_norm x2, decoder_embed x2, mask_token, decoder_pos_embed, "
        "multi_scale_fusion_heads x4, decoder_blocks x96, decoder_norm x2, decoder_pred x2; "
        "missing: norm.weight, norm.bias; unexpected: none"
    )


def test_hiera_without_a_norm_is_refused_unless_from_mae():
    state = {name: value for name, value in state_of(HIERA_T).items() if not name.startswith("norm.")}
    with pytest.raises(CheckpointError, match=r"norm.weight: none, model 768\n"):
        load_backbone(empty(backbones.hiera_t, crop=224), state)


@pytest.mark.parametrize("key", ["model", "module"])
@pytest.mark.parametrize("last_norm", ["norm", "fc_norm"])
def test_fine_tuned_videomae_is_loaded(key, last_norm):
    state = state_of(videomae(768, 4, last_norm))
    model = empty(ViT, input_size=(16, 224, 224), tubelet=2, depth=4, dim=768, heads=12, drop_path=0.0)
    report = load_backbone(model, {key: state})
    expected = {name.replace("fc_norm", "norm"): value for name, value in in_the_body(state).items()}
    assert_same(model, expected)
    assert report.left_out == ("head.weight", "head.bias")
    assert not report.missing + report.unexpected


def test_pre_trained_videomae_is_loaded_without_its_decoder():
    """The decoder's blocks have the same names as the encoder's."""
    state = state_of(videomae_pretraining(768, 12, 384))
    model = empty(backbones.vit_b)
    report = load_backbone(model, {"model": state})
    assert_same(model, {n.removeprefix("encoder."): v for n, v in state.items() if n.startswith("encoder.")})
    assert set(report.left_out) == {name for name in state if not name.startswith("encoder.")}
    assert len(report.loaded) == 160


@pytest.mark.parametrize(("name", "dim", "depth"), [("vit_b", 768, 12), ("vit_l", 1024, 24)])
def test_every_vit_has_the_published_names_and_shapes(name, dim, depth):
    with torch.device("meta"):
        own = {name: tuple(p.shape) for name, p in getattr(backbones, name)().state_dict().items()}
    assert own == videomae(dim, depth, "norm", head=None)


def test_backbone_of_our_own_checkpoint_is_loaded():
    torch.manual_seed(0)
    detector = ActionLocalizer(backbones.mvitv2_tiny(crop=32), selection="two_c_t", num_classes=3, dim=16)
    model = backbones.mvitv2_tiny(crop=32)
    report = load_backbone(model, {"model": detector.state_dict(), "step": 7})
    assert_same(model, detector.backbone.state_dict())
    assert {name.split(".")[0] for name in report.left_out} == {"proj", "heads"}
    again = load_backbone(model, {f"module.{name}": value for name, value in detector.state_dict().items()})
    assert again.loaded == report.loaded


def test_half_precision_weights_are_loaded_in_the_models_precision():
    torch.manual_seed(0)
    model, state = backbones.mvitv2_tiny(crop=32), backbones.mvitv2_tiny(crop=32).state_dict()
    load_backbone(model, {name: value.half() for name, value in state.items()})
    assert model.norm.weight.dtype == torch.float32
    assert torch.equal(model.blocks[0].mlp.fc1.weight, state["blocks.0.mlp.fc1.weight"].half().float())


# --- what is refused ----------------------------------------------------------------------------------


def tiny_hiera(depths=(1, 1, 1, 1), dim=8):
    return Hiera(input_size=(2, 32, 32), depths=depths, dim=dim, heads=1, last_pool=True, drop_path=0.0)


def test_another_variant_is_refused_and_the_model_unchanged():
    model = tiny_hiera()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        load_backbone(model, tiny_hiera(dim=16).state_dict())
    assert "patch_embed.proj.weight: 16x3x3x7x7, model 8x3x3x7x7\n" in str(caught.value)
    assert "does not fit this Hiera, and nothing was loaded" in str(caught.value)
    with pytest.raises(CheckpointError) as caught:
        load_backbone(model, tiny_hiera((1, 2, 1, 1)).state_dict())
    assert "blocks.4.norm1.weight: 32, model none" in str(caught.value)
    with pytest.raises(CheckpointError, match=r"blocks\.4\.norm1\.weight: none, model 32\n"):
        load_backbone(tiny_hiera((1, 1, 2, 1)), tiny_hiera().state_dict())
    assert_same(model, before)


@pytest.mark.parametrize("name", ["norm_stem.weight", "pos_embed", "blocks.0.gamma_1"])
def test_unexpected_tensors_of_the_body_are_refused(name):
    state = tiny_hiera().state_dict() | {name: torch.zeros(8)}
    with pytest.raises(CheckpointError, match=f"{name}: 8, model none"):
        load_backbone(tiny_hiera(), state)


def test_position_embedding_that_is_not_square_is_refused():
    state = tiny_hiera().state_dict() | {"pos_embed_spatial": torch.zeros(1, 63, 8)}
    with pytest.raises(CheckpointError, match="pos_embed_spatial: 1x63x8, model 1x64x8"):
        load_backbone(tiny_hiera(), state)


def test_weights_of_another_backbone_are_refused():
    with pytest.raises(CheckpointError, match="weights of a Hiera, the model is a MViT: build a Hiera"):
        load_backbone(backbones.mvitv2_tiny(crop=32), tiny_hiera().state_dict())


def test_mvit_that_pools_before_projecting_is_refused():
    content = {
        "model_state": backbones.mvitv2_tiny(crop=32).state_dict(),
        "cfg": "MVIT:\n  POOL_FIRST: True\n",
    }
    with pytest.raises(CheckpointError, match="POOL_FIRST"):
        load_backbone(backbones.mvitv2_tiny(crop=32), content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"epoch": 3, "optimizer": {}}, "has no weights: .* got epoch, optimizer"),
        ({}, "got an empty mapping"),
        ({"s1.pathway0_stem.conv.weight": torch.zeros(1)}, "unknown layout, .* s1.pathway0_stem"),
        # An image model: four axes of patches, one position embedding.
        (
            {"patch_embed.proj.weight": torch.zeros(96, 3, 7, 7), "pos_embed": torch.zeros(1, 3136, 96)},
            "unknown layout",
        ),
    ],
)
def test_content_without_known_weights_is_refused(content, message):
    with pytest.raises(CheckpointError, match=message):
        load_backbone(tiny_hiera(), content)


# --- files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zipped", [True, False])
def test_file_with_its_command_line_beside_the_weights_is_loaded(tmp_path, zipped):
    """As VideoMAE saves them; older files are no zip archives."""
    torch.manual_seed(0)
    path, saved = tmp_path / "epoch 12.anything", tiny_hiera()
    content = {"model": saved.state_dict(), "args": argparse.Namespace(lr=1e-3, betas=[0.9, 0.999])}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    model = tiny_hiera()
    report = load_backbone(model, path)
    assert_same(model, saved.state_dict())
    assert str(report).startswith(f"{path}: Hiera, {len(saved.state_dict())} tensors loaded;")
    assert load_backbone(model, str(path)) == report


def saved(path):
    torch.save({"model_state": tiny_hiera().state_dict()}, path)
    return path.read_bytes()


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole[:-1],
        lambda whole: b"",
        lambda whole: b"<!DOCTYPE html><title>Quota exceeded</title>",
        lambda whole: bytes(range(256)) * 8,
        lambda whole: b"PK\x03\x04" + whole[:100],
        lambda whole: pickle.dumps({"a": 1}),
    ],
    ids=["half", "one byte short", "empty", "web page", "noise", "zip head", "a pickle"],
)
def test_error_names_a_damaged_file_and_how_to_mend_it(tmp_path, damage):
    path = tmp_path / "k400.pyth"
    path.write_bytes(damage(saved(path)))
    with pytest.raises(CheckpointError, match=r"k400\.pyth .*fetch it again") as caught:
        load_backbone(tiny_hiera(), path)
    assert str(path) in str(caught.value)


class MakesAFolder:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_code_in_a_file_is_not_executed(tmp_path):
    torch.save(
        {"model": tiny_hiera().state_dict(), "extra": MakesAFolder(tmp_path / "made")}, tmp_path / "w.pth"
    )
    with pytest.raises(CheckpointError, match=r"w\.pth holds a \S+mkdir beside its tensors"):
        load_backbone(tiny_hiera(), tmp_path / "w.pth")
    assert not (tmp_path / "made").exists()


def test_error_says_what_another_file_holds(tmp_path):
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match=r"list\.pth holds a list"):
        load_backbone(tiny_hiera(), tmp_path / "list.pth")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth"):
        load_backbone(tiny_hiera(), tmp_path / "nowhere.pth")


# --- names of other libraries ---------------------------------------------------------------------------

HUGGING_FACE = [
    (r"patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
    (r"^blocks\.", "encoder.layer."),
    (r"attn\.proj\.", "attention.output.dense."),
    (r"mlp\.fc1\.", "intermediate.dense."),
    (r"mlp\.fc2\.", "output.dense."),
    (r"norm1\.", "layernorm_before."),
    (r"norm2\.", "layernorm_after."),
    (r"^norm\.", "layernorm."),
]


def in_hugging_faces_names(state, biases):
    """VideoMAE's tensors as transformers has them; biases: their names there, which have changed."""
    theirs = {}
    for name, value in state.items():
        if name.endswith("attn.qkv.weight"):
            stem = name.replace("blocks.", "encoder.layer.").replace(
                "attn.qkv.weight", "attention.attention."
            )
            for part, which in zip(value.chunk(3), ("query", "key", "value"), strict=True):
                theirs[f"videomae.{stem}{which}.weight"] = part.clone()
            continue
        for which, their in biases.items():
            name = name.replace(f"attn.{which}_bias", f"attention.attention.{their}")
        for ours, their in HUGGING_FACE:
            name = re.sub(ours, their, name)
        theirs[name if name.startswith(("fc_norm", "head")) else f"videomae.{name}"] = value
    return {name.replace("head.", "classifier."): value for name, value in theirs.items()}


@pytest.mark.parametrize("form", ["bin", "safetensors", "safetensors named .pth"])
@pytest.mark.parametrize("biases", [{"q": "query.bias", "v": "value.bias"}, {"q": "q_bias", "v": "v_bias"}])
@pytest.mark.parametrize("last_norm", ["norm", "fc_norm"])
def test_videomae_in_hugging_faces_names_is_loaded(tmp_path, form, biases, last_norm):
    """Compared with transformers 5.24 itself: the tokens are equal to 3e-7."""
    state = state_of(videomae(24, 2, last_norm))
    theirs = in_hugging_faces_names(state, biases)
    path = tmp_path / ("model.safetensors" if form == "safetensors" else "model.pth")
    theirs = {name: value.contiguous() for name, value in theirs.items()}
    save_file(theirs, path) if "safetensors" in form else torch.save(theirs, path)
    model = ViT(input_size=(4, 32, 32), tubelet=2, depth=2, dim=24, heads=2, drop_path=0.0)
    report = load_backbone(model, path)
    assert report.layout == "Hugging Face VideoMAE"
    assert set(report.left_out) == {"classifier.weight", "classifier.bias"}
    assert (report.missing, report.unexpected) == ((), ())
    assert_same(model, {name.replace("fc_norm", "norm"): v for name, v in in_the_body(state).items()})


@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod."])
def test_hugging_faces_names_behind_a_prefix(prefix):
    theirs = in_hugging_faces_names(state_of(videomae(24, 2, "norm")), {"q": "q_bias", "v": "v_bias"})
    model = ViT(input_size=(4, 32, 32), tubelet=2, depth=2, dim=24, heads=2, drop_path=0.0)
    report = load_backbone(model, {f"{prefix}{name}": value for name, value in theirs.items()})
    assert (report.layout, report.missing, report.unexpected) == ("Hugging Face VideoMAE", (), ())


def test_mvit_in_pytorchvideos_names_is_loaded():
    """Compared with pytorchvideo 0.1.5 itself: the tokens are equal to 5e-6."""
    state = state_of(MVITV1_B)
    theirs = {}
    for name, value in state.items():
        if ".attn.qkv." in name:
            for part, which in zip(value.chunk(3), "qkv", strict=True):
                theirs[name.replace("qkv", which)] = part
            continue
        name = name.replace("patch_embed.proj.", "patch_embed.patch_model.")
        name = re.sub(r"^(cls_token|pos_embed)", r"cls_positional_encoding.\1", name)
        theirs[re.sub(r"^norm\.", "norm_embed.", name).replace("head.projection", "head.proj")] = value
    model = empty(build("mvitv1_b"), frames=16, crop=224, last_pool=True)
    report = load_backbone(model, {"model_state": theirs})
    assert report.layout == "pytorchvideo MViT"
    assert (report.missing, report.unexpected) == ((), ())
    assert_same(model, in_the_body(state))


@pytest.mark.parametrize(
    ("names", "whose"),
    [
        (["vivit.encoder.layer.0.output.dense.weight"], "Hugging Face's transformers, of a model other"),
        (["backbone.blocks.0.attn.qkv.weight", "cls_head.fc_cls.weight"], "MMAction2"),
        (["s1.pathway0_stem.conv.weight"], "PySlowFast's ResNets"),
        (["blocks.0.multipathway_blocks.0.conv.weight"], "pytorchvideo's ResNets"),
    ],
)
def test_weights_of_other_libraries_are_named(names, whose):
    with pytest.raises(CheckpointError, match=f"unknown layout, in the names of {whose}"):
        load_backbone(tiny_hiera(), {name: torch.zeros(1) for name in names})


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"<!DOCTYPE html><title>Quota exceeded</title>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n", "a Git LFS pointer"),
        (b"\x1f\x8b\x08\x00rest", "gzip"),
        (b"\x89HDF\r\n\x1a\nrest", "an HDF5 file"),
        (b'{"hidden_size": 768}', "JSON, such as a configuration"),
        (b"MATLAB 5.0 MAT-file, Platform", "a MATLAB file"),
        (b"\x93NUMPY\x01\x00", "an array of numpy.save"),
        (b"404: Not Found", "the text of a server's error"),
    ],
)
def test_files_that_are_something_else_are_named(tmp_path, content, what):
    path = tmp_path / "k400.pyth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"k400\.pyth is {what}"):
        load_backbone(tiny_hiera(), path)


def test_nobody_is_advised_to_execute_what_is_in_a_file(tmp_path):
    path = tmp_path / "w.pth"
    path.write_bytes(pickle.dumps(np.zeros(3)))
    with pytest.raises(CheckpointError) as error:
        load_backbone(tiny_hiera(), path)
    assert "will likely succeed" not in str(error.value)


def test_a_damaged_safetensors_file_is_refused(tmp_path):
    save_file({"a.weight": torch.zeros(64)}, tmp_path / "m.safetensors")
    whole = (tmp_path / "m.safetensors").read_bytes()
    (tmp_path / "m.safetensors").write_bytes(whole[:-7])
    with pytest.raises(
        CheckpointError, match=r"m\.safetensors .* no readable safetensors file .*fetch it again"
    ):
        load_backbone(tiny_hiera(), tmp_path / "m.safetensors")
