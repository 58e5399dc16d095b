"""What a training step changes: schedule, weight groups, moving average, and saving all of it."""

import math
from dataclasses import replace

import pytest
import torch

from actloc_core import backbones
from actloc_core.backbones import vit
from benchmarks.context import Callbacks
from benchmarks.train.models import build_model
from benchmarks.train.state import new_state, uses_cuda_graphs, warmup_cosine, weight_groups
from tests.benchmarks.shared import CPU, TINY, Recorder, equal_weights, fit_new, state_of

EXP = replace(TINY, epochs=1)


def test_learning_rate_warms_up_then_follows_a_cosine_to_zero():
    factors = [warmup_cosine(step, 12, 4) for step in range(13)]
    assert factors[:5] == pytest.approx([0.25, 0.5, 0.75, 1, 1])
    assert factors[8] == pytest.approx(0.5 * (1 + math.cos(math.pi / 2)))
    assert factors[12] == pytest.approx(0)


def test_biases_norms_and_embeddings_have_no_weight_decay():
    model = build_model(replace(EXP, frame_embedding=True), 10)
    decayed, plain = weight_groups(model, lr=1.0, head_lr=1.0)
    assert all(p.dim() > 1 for p in decayed["params"])
    assert plain["weight_decay"] == 0
    shapes = {tuple(p.shape) for p in plain["params"] if p.dim() > 1}
    assert (2, 64) in shapes, "the frame embedding"
    assert (3, 48) in shapes, "a table of relative positions in time"


@pytest.mark.parametrize("method", ["single_stage", "two_stage", "detr"])
def test_all_but_the_backbone_has_the_learning_rate_of_the_heads(method):
    """Four groups: two of the backbone first, and every parameter in one of them."""
    model = build_model(replace(EXP, method=method, queries=16), 10)
    groups = weight_groups(model, lr=1.0, head_lr=8.0)
    assert [group["lr"] for group in groups] == [1, 1, 8, 8]
    assert ["weight_decay" in group for group in groups] == [False, True, False, True]
    backbone = {id(p) for p in model.backbone.parameters()}
    assert {id(p) for group in groups[:2] for p in group["params"]} == backbone
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))


def test_the_schedule_scales_both_learning_rates():
    """A warm-up of two steps to 0.5 and, for the heads, to 4."""
    model = build_model(replace(EXP, epochs=1), 10)
    state = new_state(model, replace(EXP, lr=0.5, head_lr=8.0), steps=4, warmup=2)
    assert [group["lr"] for group in state.optimizer.param_groups] == [0.25, 0.25, 2, 2]


@pytest.mark.parametrize("backbone", ["mvitv2_tiny", "hiera_tiny", "vit_b"])
def test_checkpointing_changes_no_gradient(backbone, monkeypatch):
    if backbone == "vit_b":  # a small one: what is tested is the class
        monkeypatch.setattr(backbones, "vit_b", lambda **kwargs: vit._vit(2, 16, 2, 4, 32, False, 0.0, 2))
    exp = replace(EXP, backbone=backbone)
    clip, gradients = torch.randn(1, 3, 4, 32, 32), []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        model = build_model(replace(exp, checkpointing=checkpointing), 10).train()
        assert model.backbone.checkpointing == checkpointing
        sum(x.square().sum() for x in model(clip)).backward()
        gradients.append([p.grad for p in model.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


def test_the_trained_model_is_the_moving_average_of_its_weights(small_split):
    """Of three steps with decay 0.5: it starts as the first step's weights, then halves and adds."""
    exp = replace(EXP, epochs=0.75, lr=1e-3)
    torch.manual_seed(0)
    model, weights = build_model(exp, 10), []

    class Weights(Callbacks):
        def on_step(self, step):
            weights.append([p.detach().clone() for p in model.parameters()])

    fit_new(small_split, exp, [Weights()], model=model)
    averaged, _ = fit_new(small_split, replace(exp, ema=0.5))
    assert len(weights) == 3
    for first, second, third, average in zip(*weights, averaged.parameters(), strict=True):
        torch.testing.assert_close(average, 0.25 * first + 0.25 * second + 0.5 * third)


def test_resuming_restores_moving_average_and_dropped_paths_bit_for_bit(small_split):
    exp = replace(EXP, lr=1e-3, ema=0.9, drop_path=0.5)
    recorder = Recorder()
    whole, _ = fit_new(small_split, exp, [recorder], checkpoint_every=0)
    assert [saved["step"] for saved in recorder.checkpoints] == [1, 2, 3]
    resumed, steps = fit_new(small_split, exp, saved=recorder.checkpoints[1], seed=99)
    assert [step.step for step in steps] == [3, 4]
    assert equal_weights(resumed, whole)


def test_a_state_survives_torch_save_and_weights_only_load(small_split, tmp_path):
    exp = replace(EXP, lr=1e-3, ema=0.9)
    torch.manual_seed(0)
    state = state_of(build_model(exp, 10), exp, 64)
    state.optimizer.step()
    torch.save(state.state_dict(), tmp_path / "state.pt")
    other = state_of(build_model(exp, 10), exp, 64)
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert equal_weights(other.model, state.model)
    assert other.step == state.step
    assert other.lr == state.lr


def test_no_cuda_graphs_on_a_cpu_or_for_rows_with_clips_or_boxes_of_varying_size():
    gpu = torch.device("cuda")
    assert uses_cuda_graphs(EXP, gpu)
    assert not uses_cuda_graphs(EXP, CPU)
    for field, value in {
        "method": "two_stage", "short_sides": (32, 48), "checkpointing": True,
    }.items():  # fmt: skip
        assert not uses_cuda_graphs(replace(EXP, **{field: value}), gpu), field


def test_a_state_starts_at_step_0_with_the_first_learning_rate():
    state = new_state(build_model(EXP, 10), replace(EXP, lr=1e-3), steps=10, warmup=4)
    assert state.step == 0
    assert state.lr == pytest.approx(1e-3 / 4)
    assert state.model.training
