"""Attention and predictions in a clip, against the same computed by hand from the model's last block."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from actloc_core import backbones
from actloc_core.backbones.hiera import from_units
from actloc_core.backbones.mvit import MViT
from actloc_core.boxes import cxcywh_to_xyxy
from actloc_core.model import ActionLocalizer
from actloc_core.pixels import normalise
from actloc_core.structures import Targets
from benchmarks.experiments import OURS, at_scale
from benchmarks.train.models import build_model
from reports import attention

TINY = replace(at_scale(OURS, "tiny"), frames=8, crop=64)


def model_of(backbone, selection):
    torch.manual_seed(0)
    made = build_model(replace(TINY, backbone=backbone, selection=selection), 10)
    with torch.no_grad():  # random weights are small, and their attention is uniform
        for name, parameter in made.named_parameters():
            if "qkv.weight" in name:
                parameter.mul_(20)
    return made.eval()


CLIP = torch.rand(3, 8, 64, 64, generator=torch.Generator().manual_seed(1))


def last_input(model, block):
    """Arguments of the last block's attention."""
    calls = []
    hook = block.attn.register_forward_hook(lambda module, args, out: calls.append(args))
    with torch.no_grad():
        model.backbone(normalise(CLIP)[None])
    hook.remove()
    return calls[0]


def test_hiera_attention_is_in_raster_order():
    model = model_of("hiera_tiny", "two_c_t")
    predictions = attention.predict_clip(model, CLIP)
    block = model.backbone.blocks[-1]
    [x] = last_input(model, block)  # (1, units, n, dim)
    t, h, w = model.backbone(normalise(CLIP)[None]).shape[1:4]
    units = (t, 64 // 4 // model.backbone.unit, 64 // 4 // model.backbone.unit)
    q, k, _ = block.attn.qkv(x).unflatten(-1, (3, block.attn.heads, -1)).unbind(3)
    q, k = (
        from_units(y.flatten(-2), units).flatten(1, 3)[0].unflatten(-1, (block.attn.heads, -1))
        for y in (q, k)
    )
    weights = torch.einsum("nhd,mhd->hnm", q, k).mul(q.shape[-1] ** -0.5).softmax(-1).mean(0)
    expected = weights.reshape(t, h, w, t, h, w)[[t // 2 - 1, t // 2]].flatten(0, 2)
    assert weights.max() > 3 * weights.mean(), "uniform attention would pass in any order"
    np.testing.assert_allclose(predictions.attention, expected.detach().numpy(), atol=1e-5)


def test_mvit_attention_includes_the_position_bias():
    """With one head, the block's output is the projection of attention times values plus queries."""
    torch.manual_seed(0)
    backbone = MViT(
        input_size=(8, 64, 64), patch_kernel=(3, 9, 9), patch_stride=(2, 8, 8), depths=(1, 2), dims=(48, 64),
        heads=(1, 1), kv_strides=(2, 2), last_pool=False, drop_path=0.0, cls_token=False,
    )  # fmt: skip
    model = ActionLocalizer(backbone, selection="singleton", num_classes=3, dim=16).eval()
    attn = backbone.blocks[-1].attn
    with torch.no_grad():
        for name, parameter in backbone.named_parameters():
            if "qkv.weight" in name or "rel_pos" in name:  # random ones are small
                parameter.mul_(20)
        predictions = attention.predict_clip(model, CLIP)
        x, grid = last_input(model, backbone.blocks[-1])
        q, v = (
            attn._pool(
                F.linear(x, attn.qkv.weight.chunk(3)[i], attn.qkv.bias.chunk(3)[i])[:, :, None],
                grid,
                part,
                stride,
            )[0]
            for i, part, stride in ((0, "q", attn.q_stride), (2, "v", attn.kv_stride))
        )
        weights = torch.from_numpy(predictions.attention).float().flatten(1)
        np.testing.assert_allclose(attn.proj(weights @ v[0, 0] + q[0, 0]), attn(x, grid)[0][0], atol=1e-4)
        assert weights.max() > 3 * weights.mean()
        attn.rel_pos_h.zero_()
        assert not np.allclose(
            attention.predict_clip(model, CLIP).attention, predictions.attention, atol=1e-3
        )


@pytest.mark.parametrize(
    ("selection", "frames"), [("two_c_t", (1, 2)), ("c_t", (2,)), ("singleton", (0, 1, 2, 3))]
)
def test_boxes_and_p_alpha_equal_the_models_predictions(selection, frames):
    model = model_of("mvitv2_tiny", selection)
    model.train()
    predictions = attention.predict_clip(model, CLIP)
    assert model.training, "the mode is restored"
    model.eval()
    with torch.no_grad():
        expected = model(normalise(CLIP)[None])
    assert predictions.frames == frames
    assert predictions.p_actor.shape[0] == len(frames)
    np.testing.assert_allclose(predictions.p_actor.ravel(), expected.p_actor[0], atol=1e-6)
    np.testing.assert_allclose(predictions.boxes, cxcywh_to_xyxy(expected.boxes[0]).clamp(0, 1), atol=1e-6)
    assert len(predictions.attention) == len(predictions.boxes)


def test_the_class_token_is_excluded():
    backbone = backbones.mvitv1_b(frames=8, crop=64)
    assert backbone.cls_token is not None
    model = ActionLocalizer(backbone, selection="c_t", num_classes=3, dim=16).eval()
    predictions = attention.predict_clip(model, CLIP)
    assert (predictions.attention.sum((1, 2, 3)) < 1).all()
    assert len(predictions.attention) == predictions.p_actor.size


@pytest.mark.parametrize("theta", [0.0, 1.0])
def test_the_figure_lists_detections_above_theta(theta):
    model = model_of("mvitv2_tiny", "two_c_t")
    predictions = attention.predict_clip(model, CLIP)
    ground_truth = Targets(torch.tensor([[0.5, 0.5, 0.2, 0.2]]), torch.eye(10)[:1])
    frames = (CLIP.permute(1, 2, 3, 0) * 255).byte().numpy()
    names = [f"action {i}" for i in range(10)]
    figure = attention.draw_clip(predictions, frames, ground_truth, names, title="clip", theta=theta)
    text = "\n".join(text.get_text() for axis in figure.axes for text in axis.texts)
    assert "action 0" in text
    assert ("none" in text) == (theta == 1.0)
    assert len(figure.axes) == 3 + (12 if theta == 0 else 0)
