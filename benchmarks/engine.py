"""Training and prediction: one engine for every model that returns `Predictions`.

Several processes that share a run (`benchmarks.processes`) each call these as a single one does.
"""

from __future__ import annotations

import functools
import math
import operator
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from actloc_core.loss import LossWeights, Totals, grouped_set_loss, totals_of
from actloc_core.matcher import CostWeights, match
from actloc_core.model import keep_actors
from actloc_core.pixels import size_multiple
from actloc_core.structures import Targets
from actloc_core.two_stage import GivenBoxes, TwoStageLocalizer
from benchmarks import processes
from benchmarks.actors import FoundActors
from benchmarks.experiments import Experiment
from datasets.split import Key, Split
from datasets.transforms import Augmentation, EvaluationView, Group, TrainingView, collate
from evaluators.frame_map import Detections


@dataclass(frozen=True)
class Step:
    """What is known after one training step."""

    step: int
    """From 1."""
    steps: int
    losses: dict[str, float]
    lr: float
    seconds: float
    """Of this `fit`, by the first process's clock."""
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
    state: Mapping[str, Any] | None = None,
    on_state: Callable[[dict[str, Any]], None] | None = None,
    state_every: float = 60.0,
) -> None:
    """Train in place by the experiment's recipe: AdamW, warm-up, cosine to 0, clipped gradients.

    Order, views and dropped paths follow from exp.seed. Raises FloatingPointError naming the step
    and its clips where the loss is not finite, ValueError where the clips do not fill a batch or the
    processes cannot share one evenly.

    on_state: is given, every `state_every` seconds, after the step's `on_step`, all that the rest of the
        training follows from, a dict that torch.save takes. state: such a dict: the training goes on
        behind its step, and what becomes of the model is, on a CPU bit for bit, what an uninterrupted
        training makes of it.

    Processes that share the run take every so many-th clip of each batch. Losses are divided by the whole
    batch's totals, so that losses and gradients are those of one process with all of it; the dropped
    paths are others. All of them call on_step and on_state, with the same numbers.
    """
    me, sharing = processes.place(), processes.count()
    if exp.batch % sharing:
        raise ValueError(f"a batch of {exp.batch} clips cannot be shared evenly by {sharing} processes")
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
    done = 0 if state is None else int(state["step"])
    order = list(batches(len(train), exp.batch, steps, exp.seed))[done:]
    mine = [batch[me::sharing] for batch in order]
    view = TrainingView(train, strength, exp.seed)
    loader: DataLoader[Any] = DataLoader(
        view, batch_sampler=mine, collate_fn=collate, **loading(workers, device)
    )
    optimizer = torch.optim.AdamW(weight_groups(model), lr=exp.lr, weight_decay=exp.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: warmup_cosine(step, steps, warmup))
    cost = CostWeights(l1=exp.l1, giou=exp.giou, actor=exp.actor, action=exp.match_action)
    weights = LossWeights(l1=exp.l1, giou=exp.giou, actor=exp.actor, action=exp.action, eos_coef=exp.eos_coef)
    model.train()
    shared = DistributedDataParallel(model) if sharing > 1 else None
    if shared is not None:
        # Our buffers are tables that never change, and clips of several sizes take a forward pass for each:
        # nothing may be sent in those, for the processes do not have as many.
        newer = hasattr(shared, "forward_sync_buffers")  # since torch 2.13
        setattr(shared, "forward_sync_buffers" if newer else "broadcast_buffers", False)
    whole = model if shared is None else shared
    forward = torch.compile(whole) if exp.compile else whole
    if me:  # drawn weights are the same everywhere, dropped paths are not
        torch.manual_seed(exp.seed + 1_000_003 * me)
    averaged = None if exp.ema is None else AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(exp.ema))
    made = iter(loader)  # draws from torch's generator, so before that is set
    if state is not None:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        if averaged is not None:
            averaged.load_state_dict(state["averaged"])
        if len(state["generators"]) == sharing:
            set_generators(state["generators"][me])
    clock, saved = time.monotonic(), 0.0
    for step, batch in enumerate(made, done + 1):
        optimizer.zero_grad()
        where = [train.keyframes[index] for _, index in order[step - done - 1]]
        losses: Counter[str] = Counter()
        totals: Totals | None = None
        mine_in_parts = parts(batch.groups, exp.accumulate)
        for part in mine_in_parts:
            groups = []
            for group in part:
                targets = [target.to(device) for target in group.targets]
                with autocast(device, exp.bf16):
                    clips = group.clips.to(device, non_blocking=True)
                    if isinstance(model, TwoStageLocalizer):
                        # It learns on the true boxes, jittered: the matching gives each person their own.
                        predictions = forward(clips, [true_boxes(target) for target in targets])
                    else:
                        predictions = forward(clips)
                try:
                    groups.append((predictions, targets, match(predictions, targets, cost)))
                except FloatingPointError as error:
                    raise FloatingPointError(f"step {step}, clips {where}: {error}") from error
            if totals is None:
                counted = [totals_of(of, p.actor_logits.shape[1], weights) for p, of, _ in groups]
                if (
                    len(mine_in_parts) > 1
                ):  # the other parts are not computed yet, and have as many candidates
                    people = [target for group in batch.groups for target in group.targets]
                    candidates = predictions.actor_logits.shape[1]
                    if isinstance(model, TwoStageLocalizer):  # as many as the clip with the most has boxes
                        candidates = max(candidates, *(len(target.boxes) for target in people))
                    counted = [totals_of(people, candidates, weights)]
                total = functools.reduce(operator.add, counted)
                totals = Totals(*processes.added([total.boxes, total.actors, total.labels], device))
            terms = grouped_set_loss(groups, weights, totals=totals)
            values = processes.added([float(x.item()) for x in terms.values()], device)
            losses.update(dict(zip(terms, values, strict=True)))
            if not math.isfinite(losses["loss"]):
                raise FloatingPointError(f"step {step}, clips {where}: the loss is {losses['loss']}")
            # DDP takes the mean of the gradients over the processes: of losses that add up, `sharing` times.
            last = part is mine_in_parts[-1]
            with nullcontext() if shared is None or last else shared.no_sync():
                (terms["loss"] * sharing).backward()
        nn.utils.clip_grad_norm_(model.parameters(), exp.clip_norm)
        optimizer.step()
        if averaged is not None:
            averaged.update_parameters(model)
        lr = float(schedule.get_last_lr()[0])
        schedule.step()
        elapsed = time.monotonic() - clock
        seconds, broken = processes.added([0.0 if me else elapsed, len(batch.problems)], device)
        problems = [text for texts in processes.gathered(batch.problems) for text in texts] if broken else []
        on_step(Step(step, steps, dict(losses), lr, seconds, problems))
        if on_state is not None and step < steps and seconds - saved >= state_every:
            on_state(
                {
                    "step": step,
                    "model": model.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "schedule": schedule.state_dict(),
                    "generators": processes.gathered(generators()),
                }
                | ({} if averaged is None else {"averaged": averaged.state_dict()})
            )
            saved = seconds
    if averaged is not None:
        model.load_state_dict(averaged.module.state_dict())


def parts(groups: Sequence[Group], count: int) -> list[list[Group]]:
    """A batch in `count` parts of about as many clips, each a list of groups that takes its turn.

    Raises ValueError for more than one part of clips of several sizes.
    """
    if count == 1:
        return [list(groups)]
    if len(groups) > 1:
        raise ValueError("a batch is computed in parts only where all its clips have one size: accumulate=1")
    [whole] = groups
    places = np.array_split(np.arange(len(whole.targets)), count)
    return [
        [Group(whole.clips[mine], [whole.targets[i] for i in mine], [whole.indices[i] for i in mine])]
        for mine in places
        if len(mine)
    ]


def generators() -> list[Tensor]:
    """The states of torch's generators, (n,) uint8: the CPU's, and each GPU's."""
    return [torch.get_rng_state(), *torch.cuda.get_rng_state_all()]


def set_generators(states: Sequence[Tensor]) -> None:
    """Puts torch's random generators where they were: states, (n,) uint8, as `generators()` gave them."""
    torch.set_rng_state(states[0])
    if len(states) > 1:
        torch.cuda.set_rng_state_all(list(states[1:]))


def true_boxes(target: Targets) -> GivenBoxes:
    """The annotated boxes, as sure as boxes can be."""
    return GivenBoxes(target.boxes, target.boxes.new_ones(len(target.boxes)))


def weight_groups(model: nn.Module) -> list[dict[str, object]]:
    """Weight decay for matrices and kernels; none for biases, norms and embeddings (1D or named)."""
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        embeds = any(key in name for key in ("rel_pos", "cls_token", "pos_embed", "embedding", "query_"))
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


def autocast(device: torch.device, bf16: bool) -> torch.autocast:
    """bfloat16 on a GPU, if wanted; float32 on a CPU, where bfloat16 was slower."""
    return torch.autocast(device.type, torch.bfloat16, enabled=bf16 and device.type == "cuda")


def loading(workers: int, device: torch.device) -> dict[str, Any]:
    """A DataLoader's arguments: batches are made ahead by `workers` processes, in memory a GPU can fetch.

    A worker that a video hangs is given up after ten minutes, with an error, not waited for.
    """
    ahead = {"prefetch_factor": 4, "timeout": 600} if workers else {}
    return {"num_workers": workers, "pin_memory": device.type == "cuda", **ahead}


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
    bf16: bool = True,
    workers: int = 0,
    on_batch: Callable[[], None] = lambda: None,
) -> FoundActors:
    """Run a split through the model: -> the candidates that are kept, in the order of clips.

    Boxes are in the unit of the split's ground truth.
    theta, score, nms_iou: `actloc_core.model.keep_actors`'s.
    given: the boxes of each keyframe that has any, for a two-stage model, which is asked about them.
    keep_aspect: clips of short side `split.crop`, the aspect kept, instead of squares.
    bf16: on a GPU. on_batch: called after each batch.
    Processes that share the run take every so many-th clip, each clip one process; all return all of them.
    Raises VideoError for a video that cannot be read: nothing stands in for it in an evaluation.
    """
    videos = tuple(sorted({video for video, _ in split.keyframes}))
    number = {video: i for i, video in enumerate(videos)}
    view = EvaluationView(
        split, short_side=split.crop if keep_aspect else None, multiple=size_multiple(split.crop)
    )
    mine = np.arange(processes.place(), len(split), processes.count())
    loader: DataLoader[Any] = DataLoader(
        view, batch_size=batch, sampler=mine.tolist(), collate_fn=collate, **loading(workers, device)
    )
    was_training = model.training
    model.eval()
    clips: list[NDArray[Any]] = []
    boxes: list[NDArray[Any]] = []
    p_actor: list[NDArray[Any]] = []
    scores: list[NDArray[Any]] = []
    for step, made in enumerate(loader):
        items = mine[step * batch :]
        for group in made.groups:
            clip_input = group.clips.to(device, non_blocking=True)
            with autocast(device, bf16):
                if isinstance(model, TwoStageLocalizer):
                    keys = [split.keyframes[items[place]] for place in group.indices]
                    predictions = model(clip_input, [_given(given, key).to(device) for key in keys])
                else:
                    predictions = model(clip_input)
            found = keep_actors(predictions, theta=theta, score=score, nms_iou=nms_iou)
            clips.append(items[np.array(group.indices)[found.clip.cpu().numpy()]])
            boxes.append(found.boxes.cpu().double().numpy())
            p_actor.append(found.p_actor.cpu().double().numpy())
            scores.append(found.scores.cpu().float().numpy())
        on_batch()
    model.train(was_training)
    clip, box, actor, score_of = _in_order(clips, boxes, p_actor, scores)
    units = np.array([split.box_unit(video) * 2 for video in videos]).reshape(-1, 4)
    video = np.array([number[video] for video, _ in split.keyframes])[clip]
    second = np.array([second for _, second in split.keyframes])[clip]
    persons = Detections(
        videos=videos,
        video=video,
        frame=second,
        box=box * units[video],
        label=np.zeros(len(clip), np.int64),
        score=actor,
    )
    return FoundActors(persons, np.array(list(split.classes)), score_of)


def _in_order(*parts: list[NDArray[Any]]) -> list[NDArray[Any]]:
    """Arrays in parts, of all processes, end to end in the order of the first one, which is that of clips."""
    held = processes.gathered([np.concatenate(arrays) for arrays in parts if arrays])
    if len(held) == 1:
        joined = held[0]
    else:
        joined = [np.concatenate(arrays) for arrays in zip(*(each for each in held if each), strict=True)]
    if (np.diff(joined[0]) >= 0).all():
        return joined
    order = np.argsort(joined[0], kind="stable")
    return [array[order] for array in joined]
