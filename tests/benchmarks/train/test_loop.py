"""The training loop: order of clips, events, errors, and reading losses late as on a GPU."""

import gc
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils import data

from actloc_core.clip import VideoError
from actloc_core.structures import Backbone, Predictions
from benchmarks.context import Callbacks
from benchmarks.score.predict import predict
from benchmarks.train import checkpoints, loop
from benchmarks.train.log import CheckpointWriter, TrainingRecord
from benchmarks.train.loop import batches, validation_steps
from benchmarks.train.models import build_model
from tests.benchmarks.shared import TINY, Recorder, Stopped, context_of, equal_weights, fit_new

EXP = replace(TINY, backbone="hiera_tiny", epochs=1)  # 2.5 times as fast as the MViT
CLASSES = 10


def test_each_epoch_is_a_new_permutation_of_whole_batches():
    every = list(batches(10, 4, 6, seed=0))
    assert [epoch for batch in every for epoch, _ in batch] == [0] * 8 + [1] * 8 + [2] * 8
    epochs = [[i for batch in every[2 * e : 2 * e + 2] for _, i in batch] for e in range(3)]
    assert all(len(set(order)) == 8 for order in epochs)
    assert epochs[0] != epochs[1]
    assert every == list(batches(10, 4, 6, seed=0))
    assert every != list(batches(10, 4, 6, seed=1))


@pytest.mark.parametrize("first", range(7))
def test_a_resumed_order_is_the_rest_of_the_whole_one(first):
    assert list(batches(10, 4, 6, 0, first=first)) == list(batches(10, 4, 6, 0))[first:]


@pytest.mark.takes_long("32 training steps")
def test_training_is_the_same_twice_and_lowers_the_loss(small_split):
    exp = replace(EXP, epochs=2, lr=4e-3)
    model, steps = fit_new(small_split, exp)
    again, _ = fit_new(small_split, exp)
    assert equal_weights(again, model)
    losses = [step.loss for step in steps]
    assert [step.step for step in steps] == list(range(1, 9))
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])
    for step in steps:
        assert step.loss == pytest.approx(sum(step.losses.values()), rel=1e-5)


@pytest.mark.parametrize(
    "method", ["single_stage", "detr", pytest.param("two_stage", marks=pytest.mark.slow)]
)
def test_training_in_micro_batches_takes_the_same_steps(small_split, method):
    exp = replace(EXP, epochs=0.5, lr=1e-3, method=method, queries=16)
    whole, steps = fit_new(small_split, exp)
    for count in (3, 16) if method == "single_stage" else (3,):
        model, others = fit_new(small_split, replace(exp, accumulate=count))
        for step, other in zip(steps, others, strict=True):
            assert other.losses == pytest.approx(step.losses, rel=2e-4, abs=1e-6)
        for a, b in zip(whole.parameters(), model.parameters(), strict=True):
            torch.testing.assert_close(a, b, atol=2e-4, rtol=1e-2)


def test_micro_batches_of_clips_of_several_sizes_are_refused(small_split):
    exp = replace(EXP, crop=64, short_sides=(30, 85), accumulate=2)
    with pytest.raises(ValueError, match=r"clips of several sizes .* set accumulate=1"):
        fit_new(replace(small_split, crop=64), exp)


def test_fewer_clips_than_a_batch_are_refused(small_split):
    with pytest.raises(ValueError, match="3 training clips do not fill one batch of 16"):
        fit_new(replace(small_split, keyframes=small_split.keyframes[:3]), EXP)


def test_training_with_scale_augmentation_takes_clips_of_several_sizes(small_split):
    exp = replace(EXP, crop=64, lr=1e-3, short_sides=(60, 85), epochs=0.5)
    _, steps = fit_new(replace(small_split, crop=64), exp)
    assert len(steps) == 2
    assert all(np.isfinite(step.loss) for step in steps)
    assert all(step.problems == () for step in steps)


@pytest.mark.slow
def test_a_worker_replaces_an_unreadable_clip_in_training_and_stops_an_evaluation(
    small_split, tmp_path, monkeypatch
):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"not a video")
    video = small_split.keyframes[0][0]
    split = replace(small_split, sources={**small_split.sources, video: broken})
    unreadable = sum(name == video for name, _ in split.keyframes)
    assert 0 < unreadable < len(split)
    model, steps = fit_new(split, EXP, workers=1)
    problems = [problem for step in steps for problem in step.problems]
    assert len(problems) == unreadable, "each clip of the video once in the epoch"
    assert all("broken.mp4: not a readable video" in problem for problem in problems)
    # torch waits five seconds for the end of a worker that raised.
    monkeypatch.setattr(data._utils, "MP_STATUS_CHECK_INTERVAL", 0.1)
    with pytest.raises(VideoError, match=r"broken\.mp4"):
        predict(model, split, replace(EXP, theta=0.1, batch=8), context_of(workers=1))
    gc.collect()  # of the worker, as long as torch is patched


def test_validation_comes_at_each_quarter_and_before_its_step_is_reported(small_split):
    events = []

    class Events(Callbacks):
        def on_validation(self, step):
            events.append(("validation", step.step, step.mAP))

        def on_step(self, step):
            events.append(("step", step.step, step.mAP))

    mAPs = iter([0.1, 0.2, 0.3, 0.4])
    fit_new(small_split, replace(EXP, epochs=2), [Events()], validate=lambda: next(mAPs))
    assert events[:4] == [
        ("step", 1, None), ("validation", 2, 0.1), ("step", 2, 0.1), ("step", 3, None),
    ]  # fmt: skip
    assert [event for event in events if event[0] == "validation"] == [
        ("validation", step, mAP) for step, mAP in zip((2, 4, 6, 8), (0.1, 0.2, 0.3, 0.4), strict=True)
    ]


class Fake(nn.Module):
    """A model whose candidates are the same for all clips, and whose actor logits go wrong at one step.

    logits: of actor and no-actor from that step on. through: multiply the logits by a weight, which the
    optimizer then spoils, too.
    """

    def __init__(self, logits, *, at=1, through=False):
        super().__init__()
        self.weight, self.logits, self.at, self.through = nn.Parameter(torch.ones(())), logits, at, through
        self.backbone, self.calls = Backbone(), 0

    def forward(self, clips, boxes=None):
        self.calls += 1
        n = len(clips)
        actor = torch.zeros(n, 8, 2)
        if self.calls >= self.at:
            actor = actor + torch.tensor(self.logits) * (self.weight if self.through else 1.0)
        box = torch.full((n, 8, 4), 0.5) * self.weight.clamp(0, 1)
        return Predictions(box, actor + 0 * self.weight, torch.zeros(n, 8, CLASSES))


OVERFLOW = (-3e38, 3e38)
"""Logits whose softmax is finite, and so the matching cost; their cross-entropy is more than a float32."""


def clips_of(split, exp, step):
    """The keyframes of a step's batch, as an error names them."""
    [batch] = batches(len(split), exp.batch, step, exp.seed, first=step - 1)
    return str([split.keyframes[index] for _, index in batch])


def test_a_matching_cost_that_is_not_finite_stops_with_step_and_clips_named(small_split):
    with pytest.raises(FloatingPointError, match="not finite") as raised:
        fit_new(small_split, EXP, model=Fake((float("inf"), 0.0), at=2))
    assert str(raised.value).startswith(f"step 2, clips {clips_of(small_split, EXP, 2)}: ")


@pytest.mark.parametrize("read_every", [1, 5])
@pytest.mark.parametrize("through", [False, True], ids=["weights stay finite", "weights are lost as well"])
def test_a_loss_that_is_not_finite_names_its_step_however_late_it_is_read(
    small_split, monkeypatch, read_every, through
):
    """With lost weights the next step's matching fails first: the error still names the step of the loss."""
    monkeypatch.setattr(loop, "READ_EVERY", {"cpu": read_every})
    exp, recorder = replace(EXP, epochs=2), Recorder()
    with pytest.raises(FloatingPointError, match=r"the loss is (inf|nan)") as raised:
        fit_new(small_split, exp, [recorder], model=Fake(OVERFLOW, at=2, through=through))
    assert str(raised.value).startswith(f"step 2, clips {clips_of(small_split, exp, 2)}: ")
    if read_every == 1:
        assert recorder.numbers == [1]


DROPPED = replace(EXP, epochs=3, lr=1e-3, drop_path=0.5)
"""Twelve steps that draw from torch's generator, too, for stochastic depth."""


@pytest.fixture(scope="module")
def every_step(small_split):
    """The model of DROPPED, and what was recorded: losses read at every step, a checkpoint after each."""
    recorder = Recorder()
    model, _ = fit_new(small_split, DROPPED, [recorder], validate=lambda: 0.5, checkpoint_every=0)
    return model, recorder


def test_losses_that_are_read_late_are_those_of_every_step(small_split, every_step, monkeypatch):
    monkeypatch.setattr(loop, "READ_EVERY", {"cpu": 5})
    late, others = fit_new(small_split, DROPPED, validate=lambda: 0.5)
    model, recorder = every_step
    assert equal_weights(late, model)
    assert [(s.step, s.loss, s.losses, s.lr, s.mAP) for s in others] == [
        (s.step, s.loss, s.losses, s.lr, s.mAP) for s in recorder.steps
    ]
    assert [s.step for s in others if s.mAP is not None] == [3, 6, 9, 12]


@pytest.mark.parametrize("stop_at", [2, 7])
def test_a_stop_between_two_reads_resumes_bit_for_bit(small_split, every_step, monkeypatch, stop_at):
    """Twelve steps, read after 5, 10 and 12: a stop in between loses the steps after the last checkpoint."""
    monkeypatch.setattr(loop, "READ_EVERY", {"cpu": 5})
    whole, recorder = every_step

    class StopAtBatch(Recorder):
        def on_batch(self):
            super().on_batch()
            if self.batches == stop_at:
                raise Stopped

    stopped = StopAtBatch()
    with pytest.raises(Stopped):
        fit_new(small_split, DROPPED, [stopped], checkpoint_every=0)
    saved = stopped.checkpoints[-1] if stopped.checkpoints else None
    assert stopped.numbers == list(range(1, 1 + (saved["step"] if saved else 0)))
    resumed, rest = fit_new(small_split, DROPPED, saved=saved)
    assert equal_weights(resumed, whole)
    assert stopped.numbers + [step.step for step in rest] == list(range(1, 13))
    assert [step.loss for step in stopped.steps + rest] == [step.loss for step in recorder.steps]


def test_a_checkpoint_from_between_two_reads_resumes_bit_for_bit(small_split, every_step, monkeypatch):
    """Saved by a process that reads every step, resumed by one that reads every fifth."""
    whole, recorder = every_step
    monkeypatch.setattr(loop, "READ_EVERY", {"cpu": 5})
    resumed, steps = fit_new(small_split, DROPPED, saved=recorder.checkpoints[6])
    assert [step.step for step in steps] == [8, 9, 10, 11, 12]
    assert equal_weights(resumed, whole)


def test_the_model_as_given_is_trained_in_place(small_split):
    torch.manual_seed(0)
    model = build_model(EXP, CLASSES)
    before = [p.detach().clone() for p in model.parameters()]
    trained, _ = fit_new(small_split, replace(EXP, epochs=0.25), model=model)
    assert trained is model
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_real_data_are_validated_after_each_epoch_and_small_ones_four_times():
    small = replace(EXP, batch=4, epochs=3.5)
    assert validation_steps(small, 41) == {9, 18, 26, 35}
    assert validation_steps(replace(small, dataset="ava"), 41) == {10, 20, 30, 35}
    assert validation_steps(replace(small, dataset="ava", epochs=2), 41) == {10, 20}


def test_checkpoints_that_take_long_are_fewer(small_split, monkeypatch):
    """By a clock of the test's own, on which a step takes a second and a checkpoint half, 2 % of 25."""
    now, saved = 0.0, []

    class Slow(Callbacks):
        def on_batch(self):
            nonlocal now
            now += 1.0

        def on_checkpoint(self, content):
            nonlocal now
            now += 0.5
            saved.append(content["step"])

    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: now))
    fit_new(small_split, replace(EXP, batch=1, epochs=0.6), [Slow()], checkpoint_every=10.0)
    assert saved == [10, 35], "at 10 and 35.5 seconds, though one is asked for every 10"
    now = 0.0
    saved.clear()
    fit_new(small_split, replace(EXP, batch=1, epochs=0.05), [Slow()], checkpoint_every=0)
    assert len(saved) > 1, "0 is every step"


def test_a_checkpoint_is_of_its_step_though_training_goes_on(small_split, tmp_path, monkeypatch):
    """The thread that writes it has a copy: the weights change in place meanwhile."""
    written = {}

    def save_late(path, content):
        time.sleep(0.05)  # some steps
        written[content["step"]] = content["model"]

    recorder = Recorder()
    monkeypatch.setattr(checkpoints, "save_tensors", save_late)
    with CheckpointWriter(tmp_path, TrainingRecord(0.0, "now"), {}) as writer:
        fit_new(small_split, EXP, [writer, recorder], checkpoint_every=0)
    assert set(written) == {content["step"] for content in recorder.checkpoints}
    for content in recorder.checkpoints:
        for name, tensor in content["model"].items():
            assert torch.equal(written[content["step"]][name], tensor), name
