"""One training step, on its own: micro-batches, errors, and no waiting for the device."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.overrides import TorchFunctionMode

from actloc_core.structures import Backbone, Predictions, Targets
from benchmarks.train.models import build_model
from benchmarks.train.state import new_state
from benchmarks.train.step import split_batch, targets_to_device, train_step
from datasets.transforms import Batch, Group, unchanged
from tests.benchmarks.shared import CHECKOUT, CPU, TINY

EXP = replace(TINY, batch=6, lr=1e-3, drop_path=0.0)
CLASSES = 10
TERMS = {"loss", "l1", "giou", "actor", "action"}


def batch_of(*actors, groups=None):
    """A batch of noise, a clip for each number of actors, in one group or in groups of this many clips."""
    generator = torch.Generator().manual_seed(0)
    targets = [
        Targets(
            torch.rand(n, 4, generator=generator) * 0.3 + 0.2,
            (torch.rand(n, CLASSES, generator=generator) < 0.3).float(),
        )
        for n in actors
    ]
    clips = torch.randint(0, 256, (len(actors), 3, 4, 32, 32), dtype=torch.uint8, generator=generator)
    made, indices = [], list(range(len(actors)))
    for count in groups or (len(actors),):
        mine = indices[:count]
        views = unchanged(len(mine))
        made.append(Group(clips[mine], views, [targets[i] for i in mine], mine))
        indices = indices[count:]
    return Batch(made, [])


def state_of(exp, seed=0):
    torch.manual_seed(seed)
    return new_state(build_model(exp, CLASSES), exp, steps=100, warmup=2)


def gradients(state):
    return [p.grad.clone() for p in state.model.parameters() if p.grad is not None]


@pytest.mark.parametrize("method", ["single_stage", "two_stage", "detr"])
@pytest.mark.parametrize("micro_batches", [2, 4, 6])
def test_micro_batches_give_the_losses_and_gradients_of_the_whole_batch(method, micro_batches):
    """Six clips with 0 to 4 actors each, so that no micro-batch has the whole batch's totals."""
    exp = replace(EXP, method=method, queries=9, clip_norm=1e9)
    batch = batch_of(3, 0, 1, 4, 2, 0)
    whole, parts = state_of(exp), state_of(exp)
    losses = train_step(whole, batch, exp, CPU)
    others = train_step(parts, batch, replace(exp, accumulate=micro_batches), CPU)
    for name in TERMS:
        torch.testing.assert_close(others[name], losses[name], rtol=1e-5, atol=1e-6)
    for a, b in zip(gradients(whole), gradients(parts), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_clips_in_two_groups_take_the_step_of_one_group():
    """Groups come from clips of several sizes; here both have the same, so that one group can do it, too."""
    one, two = state_of(EXP), state_of(EXP)
    losses = train_step(one, batch_of(2, 1, 3), EXP, CPU)
    others = train_step(two, batch_of(2, 1, 3, groups=(2, 1)), EXP, CPU)
    for name in TERMS:
        torch.testing.assert_close(others[name], losses[name])
    for a, b in zip(gradients(one), gradients(two), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_a_batch_is_split_into_micro_batches_of_about_as_many_clips():
    groups = batch_of(1, 2, 3, 4, 5).groups
    parts = split_batch(groups, 2)
    assert [[len(group.targets) for group in part] for part in parts] == [[3], [2]]
    assert [group.indices for part in parts for group in part] == [[0, 1, 2], [3, 4]]
    assert [len(target.boxes) for part in parts for group in part for target in group.targets] == [
        1,
        2,
        3,
        4,
        5,
    ]
    assert len(split_batch(groups, 9)) == 5, "no micro-batch is empty"


def test_a_step_counts_and_advances_the_schedule():
    state = state_of(EXP)
    before = [p.detach().clone() for p in state.model.parameters()]
    train_step(state, batch_of(1, 2, 1), EXP, CPU)
    assert state.step == 1
    assert state.lr == pytest.approx(EXP.lr), "the second of two steps of warm-up"
    assert any(not torch.equal(a, b) for a, b in zip(before, state.model.parameters(), strict=True))


def test_gradients_are_clipped_to_the_norm():
    exp = replace(EXP, clip_norm=0.01)
    state = state_of(exp)
    train_step(state, batch_of(1, 2, 1), exp, CPU)
    norm = torch.stack([grad.norm() for grad in gradients(state)]).norm()
    assert float(norm) == pytest.approx(0.01, rel=1e-3)


class NotFinite(torch.nn.Module):
    """Boxes of one clip are NaN."""

    def __init__(self, clip):
        super().__init__()
        self.backbone = Backbone()
        self.clip, self.weight = clip, torch.nn.Parameter(torch.ones(()))

    def forward(self, clips, boxes=None):
        n = len(clips)
        box = torch.full((n, 8, 4), 0.5)
        box[self.clip] = float("nan")
        return Predictions(box * self.weight, torch.zeros(n, 8, 2), torch.zeros(n, 8, CLASSES))


def test_a_matching_cost_that_is_not_finite_names_the_clip_and_takes_no_step():
    model = NotFinite(clip=2)
    state = new_state(model, EXP, steps=100, warmup=1)
    with pytest.raises(FloatingPointError, match=r"the matching cost is not finite in clips \[2\]"):
        train_step(state, batch_of(1, 1, 2, 1), EXP, CPU)
    assert state.step == 0
    assert model.weight.item() == 1


class HostReads(TorchFunctionMode):
    """Records which of our files read a tensor on the host, which waits for a GPU."""

    NAMES = frozenset({"item", "tolist", "numpy", "cpu", "__bool__", "__float__", "__int__", "__index__"})

    def __init__(self):
        super().__init__()
        self.files = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if getattr(func, "__name__", "") in self.NAMES:
            frame = sys._getframe()
            while not Path(frame.f_code.co_filename).is_relative_to(CHECKOUT / "actloc_core") and not Path(
                frame.f_code.co_filename
            ).is_relative_to(CHECKOUT / "benchmarks"):
                frame = frame.f_back
            self.files.append((Path(frame.f_code.co_filename).name, func.__name__))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("accumulate", [1, 3])
def test_losses_stay_on_the_device_and_only_the_matching_reads_it(accumulate):
    exp = replace(EXP, accumulate=accumulate)
    state = state_of(exp)
    # AdamW on a CPU reads its own counter, which the fused one on a GPU does not.
    state.optimizer = torch.optim.SGD(state.model.parameters(), lr=1e-3)
    state.schedule = torch.optim.lr_scheduler.LambdaLR(state.optimizer, lambda step: 1.0)
    with HostReads() as reads:
        losses = train_step(state, batch_of(1, 0, 2, 1, 1, 3), exp, CPU)
    assert {file for file, _ in reads.files} == {"matcher.py"}
    assert [name for _, name in reads.files].count("cpu") == accumulate, "one fetch of costs a micro-batch"
    assert set(losses) == TERMS
    for loss in losses.values():
        assert loss.shape == ()
        assert loss.dtype == torch.float32
        assert not loss.requires_grad
    assert float(losses["loss"]) == pytest.approx(sum(float(losses[name]) for name in TERMS - {"loss"}))


def test_targets_on_a_cpu_are_not_copied():
    targets = batch_of(2, 0, 1).groups[0].targets
    assert [id(target) for target in targets_to_device(targets, CPU)] == [id(target) for target in targets]


def test_targets_keep_their_clips_through_the_joint_copy_to_a_device():
    """The device "meta" takes the road of a GPU: one copy for all clips, split again."""
    targets = targets_to_device(batch_of(2, 0, 1).groups[0].targets, torch.device("meta"))
    assert [tuple(target.boxes.shape) for target in targets] == [(2, 4), (0, 4), (1, 4)]
    assert [tuple(target.labels.shape) for target in targets] == [(2, CLASSES), (0, CLASSES), (1, CLASSES)]
