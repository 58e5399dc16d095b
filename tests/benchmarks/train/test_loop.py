import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from benchmarks.engine import batches, fit, predict, warmup_cosine, weight_groups
from torch import nn

from actloc_core import backbones
from actloc_core.backbones import vit
from actloc_core.clip import VideoError
from actloc_core.structures import Predictions
from benchmarks.experiments import OURS, at_scale
from benchmarks.score.detections import detections
from benchmarks.train.models import build_model
from datasets import ava, synthetic
from datasets.transforms import EvaluationView, collate

EXP = replace(at_scale(OURS, "smoke"), frames=4, crop=32, epochs=1)


@pytest.fixture(scope="module")
def split(small_benchmark):
    whole = ava.load(
        small_benchmark, "train", frames=4, stride=4, crop=32, fps=synthetic.FPS, flipped=synthetic.FLIPPED
    )
    return replace(whole, keyframes=whole.keyframes[:64])


def train(split, exp, seed=0):
    torch.manual_seed(seed)
    model, steps = build_model(exp, len(split.classes)), []
    fit(model, split, exp, torch.device("cpu"), on_step=steps.append)
    return model, steps


def test_warmup_then_cosine_to_zero():
    factors = [warmup_cosine(step, 12, 4) for step in range(13)]
    assert factors[:5] == pytest.approx([0.25, 0.5, 0.75, 1, 1])
    assert factors[8] == pytest.approx(0.5 * (1 + math.cos(math.pi / 2)))
    assert factors[12] == pytest.approx(0)


def test_each_epoch_is_a_new_permutation_of_whole_batches():
    every = list(batches(10, 4, 6, seed=0))
    assert [epoch for batch in every for epoch, _ in batch] == [0] * 8 + [1] * 8 + [2] * 8
    firsts = [[i for batch in every[2 * e : 2 * e + 2] for _, i in batch] for e in range(3)]
    assert all(len(set(order)) == 8 for order in firsts)
    assert firsts[0] != firsts[1]
    assert every == list(batches(10, 4, 6, seed=0))
    assert every != list(batches(10, 4, 6, seed=1))


def test_no_weight_decay_for_biases_norms_and_positions():
    decayed, plain = weight_groups(build_model(replace(EXP, frame_embedding=True), 10))
    assert all(p.dim() > 1 for p in decayed["params"])
    assert plain["weight_decay"] == 0
    shapes = {tuple(p.shape) for p in plain["params"] if p.dim() > 1}
    assert (2, 64) in shapes, "the frame embedding"
    assert (3, 48) in shapes, "a table of relative positions in time"


def test_training_is_the_same_twice_and_lowers_the_loss(split):
    exp = replace(EXP, epochs=6, lr=1e-3)
    model, steps = train(split, exp)
    again, _ = train(split, exp)
    for a, b in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    losses = [step.losses["loss"] for step in steps]
    assert [step.step for step in steps] == list(range(1, 25))
    assert sum(losses[-4:]) < 0.9 * sum(losses[:4])


@pytest.mark.parametrize("method", ["single_stage", "two_stage", "detr"])
def test_a_batch_computed_in_parts_is_the_same_step(split, method):
    exp = replace(EXP, epochs=0.5, lr=1e-3, method=method, queries=16)
    whole, steps = train(split, exp)
    for count in (3, 16):
        model, again = train(split, replace(exp, accumulate=count))
        for step, other in zip(steps, again, strict=True):
            assert other.losses == pytest.approx(step.losses, rel=2e-4, abs=1e-6)
        for a, b in zip(whole.parameters(), model.parameters(), strict=True):
            torch.testing.assert_close(a, b, atol=2e-4, rtol=1e-2)


def test_parts_need_clips_of_one_size(split):
    exp = replace(EXP, crop=64, short_sides=(30, 85), accumulate=2)
    with pytest.raises(ValueError, match="all its clips have one size: accumulate=1"):
        train(replace(split, crop=64), exp)


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


def test_the_moving_average_is_what_is_left(split):
    """With decay 0 it is the last step's weights, with 1 the first ones; in between the textbook's sum."""
    exp = replace(EXP, epochs=0.75, lr=1e-3)
    every = []
    torch.manual_seed(0)
    model = build_model(exp, 10)
    fit(
        model, split, exp, torch.device("cpu"),
        on_step=lambda step: every.append([p.detach().clone() for p in model.parameters()]),
    )  # fmt: skip
    averaged, _ = train(split, replace(exp, ema=0.5))
    assert len(every) == 3
    for first, second, third, mine in zip(*every, averaged.parameters(), strict=True):
        # It begins with the weights of the first step.
        torch.testing.assert_close(mine, 0.25 * first + 0.25 * second + 0.5 * third)


def test_a_stopped_training_goes_on_with_its_moving_average(split):
    exp = replace(EXP, epochs=1, lr=1e-3, ema=0.9, drop_path=0.5)
    torch.manual_seed(0)
    whole, states = build_model(exp, 10), []
    fit(
        whole, split, exp, torch.device("cpu"),
        on_state=lambda state: states.append(copy.deepcopy(state)), state_every=0,
    )  # fmt: skip
    assert [state["step"] for state in states] == [1, 2, 3]
    torch.manual_seed(99)
    model, later = build_model(exp, 10), []
    fit(model, split, exp, torch.device("cpu"), state=states[1], on_step=later.append)
    assert [step.step for step in later] == [3, 4]
    for a, b in zip(whole.parameters(), model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_loss_that_is_not_finite_stops_with_the_clips_named(split):
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, clip):
            n = len(clip)
            actor = torch.full((n, 8, 2), float("inf")) * self.scale
            return Predictions(torch.full((n, 8, 4), 0.5) * self.scale, actor, torch.zeros(n, 8, 10))

    with pytest.raises(FloatingPointError, match="not finite"):
        fit(Broken(), split, EXP, torch.device("cpu"))


def test_too_few_clips_for_a_batch(split):
    with pytest.raises(ValueError, match="3 training clips do not fill one batch of 16"):
        train(replace(split, keyframes=split.keyframes[:3]), EXP)


def test_predictions_become_rows_of_the_right_clip(split):
    """A model that tells the clip's brightness as p(alpha): each row must carry its own clip's."""

    class Brightness(nn.Module):
        def forward(self, clip):
            mean = clip.mean((1, 2, 3, 4))
            actor = torch.stack([mean, torch.zeros_like(mean)], -1)[:, None]
            box = torch.tensor([0.5, 0.5, 0.5, 0.5]).expand(len(clip), 1, 4)
            return Predictions(box, actor, torch.arange(10.0).expand(len(clip), 1, 10))

    found = predict(Brightness(), split, torch.device("cpu"), theta=0.0, score="action", batch=7)
    persons, rows = found.persons, detections(found)
    assert len(persons.score) == 64
    assert len(rows.score) == 640
    for row in (0, 6, 7, 63):
        video, second = persons.videos[persons.video[row]], int(persons.frame[row])
        index = split.keyframes.index((video, second))
        assert index == row
        brightness = (split[index][0].mean() - 0.45) / 0.225
        assert persons.score[row] == pytest.approx(brightness.sigmoid().item(), abs=1e-5)
    assert rows.label[:10].tolist() == list(split.classes)
    assert rows.score[:10] == pytest.approx(torch.arange(10.0).sigmoid().numpy())
    assert rows.box[0].tolist() == [0.25, 0.25, 0.75, 0.75]


def test_with_the_aspect_kept_each_clip_is_found_as_if_it_were_alone(split):
    """Landscape and portrait clips in one batch: nothing of one reaches the other, no padding counts."""

    class Mixed(type(split)):
        def read(self, index):
            frames = super().read(index)
            return frames if index % 3 else frames.swapaxes(1, 2)

    mixed = Mixed(**{**vars(split), "keyframes": split.keyframes[:8]})
    torch.manual_seed(0)
    model = build_model(EXP, 10).eval()
    ask = {"theta": 0.0, "score": "product", "keep_aspect": True}
    together = predict(model, mixed, torch.device("cpu"), batch=8, **ask).persons
    alone = predict(model, mixed, torch.device("cpu"), batch=1, **ask).persons
    assert len(collate([EvaluationView(mixed, short_side=32, multiple=4)[i] for i in range(8)]).groups) == 2

    def rows(persons):
        order = np.lexsort((persons.box[:, 0], persons.score, persons.frame, persons.video))
        return np.column_stack([persons.video, persons.frame, persons.score, persons.box])[order]

    assert rows(together) == pytest.approx(rows(alone), abs=1e-5)


def test_training_with_scale_augmentation_learns_from_clips_of_unequal_size(split):
    exp = replace(EXP, crop=64, lr=1e-3, short_sides=(60, 85))
    _, steps = train(replace(split, crop=64), exp)
    assert len(steps) == 4
    assert all(np.isfinite(step.losses["loss"]) for step in steps)
    assert all(step.problems == [] for step in steps)


def test_workers_replace_and_report_a_broken_video_in_training_and_stop_in_evaluation(split, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"not a video")
    video = split.keyframes[0][0]
    some = replace(split, sources={**split.sources, video: broken})
    clips = sum(name == video for name, _ in some.keyframes)
    assert 0 < clips < len(some)
    torch.manual_seed(0)
    model, steps = build_model(EXP, 10), []
    fit(model, some, EXP, torch.device("cpu"), workers=1, on_step=steps.append)
    problems = [problem for step in steps for problem in step.problems]
    assert len(problems) == clips, "each clip of the video once in the epoch"
    assert all("broken.mp4: not a readable video" in problem for problem in problems)
    with pytest.raises(VideoError, match=r"broken\.mp4"):
        predict(model, some, torch.device("cpu"), theta=0.1, score="action", batch=8, workers=1)
