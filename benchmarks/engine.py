"""Training and prediction: one engine for every model that returns `Predictions`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from actloc_core.loss import LossWeights, grouped_set_loss
from actloc_core.matcher import CostWeights, match
from actloc_core.model import keep_actors
from actloc_core.structures import Targets
from actloc_core.two_stage import GivenBoxes, TwoStageLocalizer
from benchmarks.experiments import Experiment
from datasets.split import Key, Split
from datasets.transforms import Augmentation, EvaluationView, TrainingView, collate
from evaluators.frame_map import Detections


@dataclass(frozen=True)
class Step:
    """What is known after one training step."""

    step: int
    """From 1."""
    steps: int
    losses: dict[str, float]
    lr: float
    problems: list[str]
    """Of clips that could not be read, one for each that another clip stood in for."""


def fit(
    model: nn.Module,
    train: Split,
    exp: Experiment,
    device: torch.device,
    *,
    workers: int = 0,
    on_step: Callable[[Step], None] = lambda step: None,
) -> None:
    """Train in place by the experiment's recipe: AdamW, warm-up, cosine to 0, clipped gradients.

    Order, views and dropped paths follow from exp.seed. Raises FloatingPointError naming the step
    and its clips where the loss is not finite.
    """
    per_epoch = len(train) // exp.batch
    if per_epoch == 0:
        raise ValueError(f"{len(train)} training clips do not fill one batch of {exp.batch}")
    steps, warmup = round(exp.epochs * per_epoch), round(exp.warmup_epochs * per_epoch)
    strength = Augmentation(
        flip=exp.flip,
        colour=exp.colour,
        box=exp.box_jitter,
        short_sides=exp.short_sides,
        multiple=size_multiple(exp.crop),
    )
    order = list(batches(len(train), exp.batch, steps, exp.seed))
    view = TrainingView(train, strength, exp.seed)
    loader: DataLoader[Any] = DataLoader(
        view, batch_sampler=order, collate_fn=collate, **loading(workers, device)
    )
    optimizer = torch.optim.AdamW(weight_groups(model), lr=exp.lr, weight_decay=exp.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: warmup_cosine(step, steps, warmup))
    cost = CostWeights(l1=exp.l1, giou=exp.giou, actor=exp.actor, action=exp.match_action)
    weights = LossWeights(l1=exp.l1, giou=exp.giou, actor=exp.actor, action=exp.action, eos_coef=exp.eos_coef)
    model.train()
    for step, batch in enumerate(loader, 1):
        groups = []
        for group in batch.groups:
            targets = [target.to(device) for target in group.targets]
            with autocast(device):
                clips = group.clips.to(device, non_blocking=True)
                if isinstance(model, TwoStageLocalizer):
                    # It learns on the true boxes, jittered: the matching gives each person its own.
                    predictions = model(clips, [true_boxes(target) for target in targets])
                else:
                    predictions = model(clips)
            groups.append((predictions, targets, match(predictions, targets, cost)))
        losses = grouped_set_loss(groups, weights)
        if not torch.isfinite(losses["loss"]):
            where = [train.keyframes[index] for _, index in order[step - 1]]
            raise FloatingPointError(f"the loss is {losses['loss']} at step {step}, clips {where}")
        optimizer.zero_grad()
        losses["loss"].backward()
        nn.utils.clip_grad_norm_(model.parameters(), exp.clip_norm)
        optimizer.step()
        lr = float(schedule.get_last_lr()[0])
        schedule.step()
        on_step(Step(step, steps, {name: float(x.item()) for name, x in losses.items()}, lr, batch.problems))


def true_boxes(target: Targets) -> GivenBoxes:
    """The annotated boxes, as sure as boxes can be."""
    return GivenBoxes(target.boxes, target.boxes.new_ones(len(target.boxes)))


def weight_groups(model: nn.Module) -> list[dict[str, object]]:
    """Weight decay for matrices and kernels; none for biases, norms and embeddings (1D or named)."""
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        embeds = any(key in name for key in ("rel_pos", "cls_token", "pos_embed", "embedding"))
        (plain if parameter.dim() == 1 or embeds else decayed).append(parameter)
    return [{"params": decayed}, {"params": plain, "weight_decay": 0.0}]


def warmup_cosine(step: int, steps: int, warmup: int) -> float:
    """The learning rate's factor at a step from 0: linear from 1/warmup to 1, then cosine to 0."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))


def batches(length: int, batch: int, steps: int, seed: int) -> Iterator[list[tuple[int, int]]]:
    """`steps` lists of (epoch, index): a new permutation each epoch, its incomplete batch left out."""
    per_epoch = length // batch
    for step in range(steps):
        epoch, place = divmod(step, per_epoch)
        if place == 0:
            order = np.random.default_rng((seed, epoch)).permutation(length)
        yield [(epoch, int(i)) for i in order[place * batch : (place + 1) * batch]]


def autocast(device: torch.device) -> torch.autocast:
    """bfloat16 on a GPU; plain float32 on a CPU, where bfloat16 was slower."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


def loading(workers: int, device: torch.device) -> dict[str, Any]:
    """A DataLoader's arguments: batches are made ahead by `workers` processes, in memory a GPU can fetch.

    A worker that a video hangs is given up after ten minutes, with an error, not waited for.
    """
    ahead = {"prefetch_factor": 4, "timeout": 600} if workers else {}
    return {"num_workers": workers, "pin_memory": device.type == "cuda", **ahead}


def size_multiple(crop: int) -> int:
    """What sides are rounded to where the aspect is kept: a token of the coarsest grid, 32 at 256."""
    return crop // 8


def _given(given: Mapping[Key, GivenBoxes] | None, key: Key) -> GivenBoxes:
    if given is None:
        raise ValueError("a two-stage model is asked about boxes: give it those of each keyframe")
    return given.get(key, GivenBoxes(torch.zeros(0, 4), torch.zeros(0)))


@torch.no_grad()
def predict(
    model: nn.Module,
    split: Split,
    device: torch.device,
    *,
    theta: float,
    score: str,
    batch: int,
    nms_iou: float | None = None,
    given: Mapping[Key, GivenBoxes] | None = None,
    keep_aspect: bool = False,
    workers: int = 0,
) -> tuple[Detections, Detections]:
    """Run a split through the model: -> (detections, persons), for the evaluators.

    detections: one row for each kept candidate and action, label the action's id.
    persons: one row for each kept candidate, label 0, score p(alpha).
    Boxes are in the unit of the split's ground truth.
    theta, score, nms_iou: `actloc_core.model.keep_actors`'s.
    given: the boxes of each keyframe that has any, for a two-stage model, which is asked about them.
    keep_aspect: clips of short side `split.crop`, the aspect kept, instead of squares.
    Raises VideoError for a video that cannot be read: nothing stands in for it in an evaluation.
    """
    videos = tuple(sorted({video for video, _ in split.keyframes}))
    number = {video: i for i, video in enumerate(videos)}
    view = EvaluationView(
        split, short_side=split.crop if keep_aspect else None, multiple=size_multiple(split.crop)
    )
    loader: DataLoader[Any] = DataLoader(
        view, batch_size=batch, collate_fn=collate, **loading(workers, device)
    )
    was_training = model.training
    model.eval()
    clips, boxes, p_actor, scores = [], [], [], []
    for step, made in enumerate(loader):
        for group in made.groups:
            clip_input = group.clips.to(device, non_blocking=True)
            with autocast(device):
                if isinstance(model, TwoStageLocalizer):
                    keys = [split.keyframes[step * batch + place] for place in group.places]
                    predictions = model(clip_input, [_given(given, key).to(device) for key in keys])
                else:
                    predictions = model(clip_input)
            found = keep_actors(predictions, theta=theta, score=score, nms_iou=nms_iou)
            clips.append(step * batch + np.array(group.places)[found.clip.cpu().numpy()])
            boxes.append(found.boxes.cpu().double().numpy())
            p_actor.append(found.p_actor.cpu().double().numpy())
            scores.append(found.scores.cpu().double().numpy())
    model.train(was_training)
    clip = np.concatenate(clips)
    units = np.array([split.box_unit(video) * 2 for video in videos]).reshape(-1, 4)
    video = np.array([number[video] for video, _ in split.keyframes])[clip]
    second = np.array([second for _, second in split.keyframes])[clip]
    box = np.concatenate(boxes) * units[video]
    ids = np.array(list(split.classes))
    detections = Detections(
        videos=videos,
        video=video.repeat(len(ids)),
        frame=second.repeat(len(ids)),
        box=box.repeat(len(ids), axis=0),
        label=np.tile(ids, len(clip)),
        score=np.concatenate(scores).ravel(),
    )
    persons = Detections(
        videos=videos,
        video=video,
        frame=second,
        box=box,
        label=np.zeros(len(clip), np.int64),
        score=np.concatenate(p_actor),
    )
    return detections, persons
