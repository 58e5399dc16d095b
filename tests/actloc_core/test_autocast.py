"""Models under autocast in bfloat16, on a CPU: what stays float32, what does not, and torch.compile."""

from dataclasses import replace

import pytest
import torch

from actloc_core import backbones
from actloc_core.backbones.layers import LayerNorm, autocast_dtype, norm_as_is
from actloc_core.two_stage import GivenBoxes
from benchmarks.experiments import OURS, at_scale
from benchmarks.train.models import build_model

TINY = replace(at_scale(OURS, "tiny"), frames=8, queries=9)
BOXES = [GivenBoxes(torch.tensor([[0.5, 0.5, 0.2, 0.4]]), torch.ones(1))] * 2


def bfloat16():
    return torch.autocast("cpu", torch.bfloat16)


def model_of(exp):
    torch.manual_seed(0)
    return build_model(exp, 10)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    "name",
    ["mvitv2_tiny", *(pytest.param(name, marks=pytest.mark.slow) for name in ("mvitv1_b", "mvitv2_s"))],
)
def test_the_residual_stream_of_mvit_is_float32_and_its_updates_bfloat16(name, training):
    """After every block, also where a linear layer widens the tokens; with and without class token."""
    model = getattr(backbones, name)(frames=4, crop=64).train(training)
    streams, updates = [], []
    for block in model.blocks:
        block.register_forward_hook(lambda block, inputs, outputs: streams.append(outputs[0].dtype))
        block.attn.register_forward_hook(lambda attn, inputs, outputs: updates.append(outputs[0].dtype))
        block.mlp.register_forward_hook(lambda mlp, inputs, output: updates.append(output.dtype))
    with torch.no_grad(), bfloat16():
        model(torch.randn(1, 3, 4, 64, 64))
    assert len(streams) == len(model.blocks)
    assert set(streams) == {torch.float32}
    assert set(updates) == {torch.bfloat16}


def test_mvit_under_autocast_is_nearer_to_float32_than_in_bfloat16_alone():
    torch.manual_seed(0)
    model, clip = backbones.mvitv2_s(frames=4, crop=64).eval(), torch.randn(1, 3, 4, 64, 64)
    with torch.no_grad():
        exact = model(clip)
        with bfloat16():
            under_autocast = model(clip)
        all_bfloat16 = model.bfloat16()(clip.bfloat16())
    assert under_autocast.dtype == torch.float32

    def error(tokens):
        return float((tokens.float() - exact).norm() / exact.norm())

    assert error(under_autocast) < error(all_bfloat16)


@pytest.mark.parametrize("method", ["single_stage", "two_stage", "detr"])
def test_predictions_are_float32(method):
    """In bfloat16 the centre of a box at 256 would be off by a pixel."""
    model = model_of(replace(TINY, method=method)).eval()
    with torch.no_grad(), bfloat16():
        predictions = model(torch.randn(2, 3, 8, 64, 64), BOXES)
    assert [x.dtype for x in predictions] == [torch.float32] * 3


def test_boxes_under_autocast_are_those_of_float32_to_a_thousandth():
    model = model_of(TINY).eval()
    clips = torch.randn(2, 3, 8, 64, 64)
    with torch.no_grad():
        exact = model(clips)
        with bfloat16():
            rounded = model(clips)
    torch.testing.assert_close(rounded.boxes, exact.boxes, rtol=0, atol=2e-3)


def test_norm_as_is_keeps_bfloat16_and_equals_the_float32_norm_rounded():
    torch.manual_seed(0)
    norm, x = LayerNorm(8), torch.randn(5, 8)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    with bfloat16():
        assert autocast_dtype(x) == torch.bfloat16
        out = norm_as_is(norm, x.bfloat16())
        assert norm_as_is(norm, x).dtype == norm(x).dtype, "a float32 input is left to the norm itself"
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), norm(x.bfloat16().float()), atol=0.03, rtol=0.03)


def test_norm_as_is_without_autocast_is_the_norm():
    norm, x = LayerNorm(8), torch.randn(5, 8)
    assert torch.equal(norm_as_is(norm, x), norm(x))
    assert autocast_dtype(x) == torch.float32
    assert torch.equal(norm_as_is(norm.double(), x.double()), norm(x.double()))


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["mvitv2_tiny", "hiera_tiny"])
def test_torch_compile_takes_the_localizer_under_autocast_as_one_graph(backbone):
    model, clips = model_of(replace(TINY, backbone=backbone)).eval(), torch.randn(2, 3, 8, 64, 64)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    with torch.no_grad(), bfloat16():
        for a, b in zip(compiled(clips), model(clips), strict=True):
            assert a.dtype == torch.float32
            torch.testing.assert_close(a, b, atol=1e-2, rtol=1e-2)
    torch.compiler.reset()


@pytest.mark.parametrize("method", ["single_stage", "two_stage", "detr"])
def test_gradients_reach_every_parameter_in_its_own_type(method):
    model = model_of(replace(TINY, method=method)).train()
    with bfloat16():
        predictions = model(torch.randn(2, 3, 8, 64, 64), BOXES)
    sum((x * torch.randn_like(x)).sum() for x in predictions if x.requires_grad).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.dtype == torch.float32, name
        assert parameter.grad.isfinite().all(), name
