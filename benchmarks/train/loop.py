"""The training loop: batches in a seeded order, steps, validation, checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from actloc_core.structures import backbone_of
from benchmarks.context import Callbacks, RunContext, Step
from benchmarks.distributed import all_gather, all_reduce, rank, world_size
from benchmarks.experiments import Experiment
from benchmarks.loading import loader_options
from benchmarks.train.state import TrainState
from benchmarks.train.step import Losses, train_step
from datasets.split import Split
from datasets.transforms import Augmentation, Batch, TrainingView, collate

READ_EVERY = {"cpu": 1, "cuda": 20}
"""Steps between two reads of losses from the device, each of which waits for it."""
CHECKPOINTS_SHARE = 0.02
"""Of the time, that checkpoints may take at most."""
QUARTERS = (1 / 4, 1 / 2, 3 / 4, 1)
"""Shares of a training after which small models, and those of a search, are validated."""


def fit(
    state: TrainState,
    train: Split,
    exp: Experiment,
    context: RunContext,
    callbacks: Sequence[Callbacks] = (),
    *,
    validation: Validation | None = None,
    seconds_before: float = 0.0,
) -> None:
    """Train in place from `state.step` to the end of the experiment's recipe.

    Order, views and dropped paths follow from exp.seed. validation: of the model as it is, now and then.
    seconds_before: of training before an interruption. Processes that share the run take every world_size-th
    clip of each batch; losses and gradients are those of one process with all clips, and callbacks see the
    same numbers in each.
    Raises FloatingPointError naming the step and its clips where a loss is not finite.
    """
    steps, _ = training_steps(exp, len(train))
    validated_at = validation.steps if validation else frozenset()
    started, checkpointed = time.monotonic() - seconds_before, seconds_before
    pause = context.checkpoint_every  # until the next checkpoint, at least
    unread: list[Unread] = []
    for batch in training_loader(train, exp, state.model, context, first=state.step):
        unread.append(_step(state, batch, unread, train, exp, context.device))
        for callback in callbacks:
            callback.on_batch()
        due = state.step in validated_at or state.step == steps
        if not due and state.step % READ_EVERY[context.device.type]:
            continue
        *earlier, last = read_steps(unread, steps, time.monotonic() - started, train, exp, context.device)
        unread = []
        if validation and state.step in validated_at:
            last = replace(last, mAP=validation.mAP(), chance=validation.chance)
            for callback in callbacks:
                callback.on_validation(last)
        for step in (*earlier, last):
            for callback in callbacks:
                callback.on_step(step)
        if state.step < steps and last.seconds - checkpointed >= pause:
            waited = _checkpoint(state, callbacks)
            if context.checkpoint_every:
                pause = max(context.checkpoint_every, waited / CHECKPOINTS_SHARE)
            checkpointed = last.seconds
    state.use_averaged()


class Validation(NamedTuple):
    """When and how a model is validated during its training."""

    steps: frozenset[int]
    """After which."""
    mAP: Callable[[], float]
    """-> the frame-mAP of the model as it is."""
    chance: float | None = None
    """The chance level of that mAP."""


def quarters(steps: int) -> frozenset[int]:
    """The steps after each quarter of a training."""
    return frozenset(round(steps * share) for share in QUARTERS)


def validation_steps(exp: Experiment, clips: int) -> frozenset[int]:
    """After which steps a training on this many clips is validated: each epoch, and small ones four times."""
    steps, _ = training_steps(exp, clips)
    if exp.dataset.startswith("synthetic_"):
        return quarters(steps)
    per_epoch = clips // exp.batch
    return frozenset({*range(per_epoch, steps + 1, per_epoch), steps})


def _checkpoint(state: TrainState, callbacks: Sequence[Callbacks]) -> float:
    """-> the seconds for which the training waited, in the first process: all go by the same number."""
    clock = time.monotonic()
    saved = state.state_dict()
    for callback in callbacks:
        callback.on_checkpoint(saved)
    waited: float = all_gather(time.monotonic() - clock)[0]
    return waited


class Unread(NamedTuple):
    """A step whose losses are still on the device."""

    step: int
    lr: float
    losses: Losses
    problems: list[str]


def _step(
    state: TrainState,
    batch: Batch,
    unread: Sequence[Unread],
    train: Split,
    exp: Experiment,
    device: torch.device,
) -> Unread:
    """Take a step; an error names the first step, of this and the unread ones, that is not finite."""
    lr = state.lr
    try:
        losses = train_step(state, batch, exp, device)
    except FloatingPointError as error:
        for one in unread:
            if not math.isfinite(loss := float(one.losses["loss"])):
                raise _not_finite(one.step, train, exp, f"the loss is {loss}") from error
        raise _not_finite(state.step + 1, train, exp, str(error)) from error
    return Unread(state.step, lr, losses, batch.problems)


def read_steps(
    unread: Sequence[Unread], steps: int, seconds: float, train: Split, exp: Experiment, device: torch.device
) -> list[Step]:
    """Read the losses of steps from the device, summed over the processes: one reduction, one transfer.

    seconds: of training, by this process's clock; all take the first one's.
    Raises FloatingPointError for the first loss that is not finite.
    """
    losses = torch.stack([torch.stack(list(one.losses.values())) for one in unread]).double()  # (n, terms)
    problems = [problem for one in unread for problem in one.problems]
    host = torch.tensor([0.0 if rank() else seconds, len(problems)], dtype=torch.float64, device=device)
    *values, seconds, replaced = all_reduce(torch.cat([losses.flatten(), host])).tolist()
    if replaced:
        problems = [problem for each in all_gather(problems) for problem in each]
    done = []
    for one, row in zip(unread, np.reshape(values, losses.shape).tolist(), strict=True):
        terms = dict(zip(one.losses, row, strict=True))
        loss = terms.pop("loss")
        if not math.isfinite(loss):
            raise _not_finite(one.step, train, exp, f"the loss is {loss}")
        done.append(Step(one.step, steps, loss, terms, one.lr, seconds))
    done[-1] = replace(done[-1], problems=tuple(problems))
    return done


def training_steps(exp: Experiment, clips: int) -> tuple[int, int]:
    """-> (steps, warm-up steps) of the recipe on a split of this many clips.

    Raises ValueError where the clips do not fill a batch, or the processes cannot share one evenly.
    """
    if exp.batch % world_size():
        raise ValueError(f"a batch of {exp.batch} clips cannot be shared evenly by {world_size()} processes")
    per_epoch = clips // exp.batch
    if per_epoch == 0:
        raise ValueError(f"{clips} training clips do not fill one batch of {exp.batch}")
    return round(exp.epochs * per_epoch), round(exp.warmup_epochs * per_epoch)


class Batches:
    """The (epoch, index) pairs of this process's clips, a list for each step after `first`."""

    def __init__(self, clips: int, exp: Experiment, *, first: int) -> None:
        self.clips, self.exp, self.first = clips, exp, first
        self.steps, _ = training_steps(exp, clips)

    def __len__(self) -> int:
        return self.steps - self.first

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for batch in batches(self.clips, self.exp.batch, self.steps, self.exp.seed, first=self.first):
            yield batch[rank() :: world_size()]


def batches(
    clips: int, batch: int, steps: int, seed: int, *, first: int = 0
) -> Iterator[list[tuple[int, int]]]:
    """Yield the (epoch, index) pairs of steps `first` to `steps`: each epoch a new permutation, its
    incomplete batch left out."""
    per_epoch = clips // batch
    order = None
    for step in range(first, steps):
        epoch, place = divmod(step, per_epoch)
        if place == 0 or order is None:
            order = np.random.default_rng((seed, epoch)).permutation(clips)
        yield [(epoch, int(i)) for i in order[place * batch : (place + 1) * batch]]


def augmentation(exp: Experiment, model: nn.Module) -> Augmentation:
    """The augmentation of an experiment's training clips, of sides that its model takes."""
    return Augmentation(
        flip=exp.flip,
        colour=exp.colour,
        box=exp.box_jitter,
        short_sides=exp.short_sides,
        multiple=backbone_of(model).side_multiple,
    )


def training_loader(
    train: Split, exp: Experiment, model: nn.Module, context: RunContext, *, first: int
) -> DataLoader[Any]:
    """Batches of augmented clips for the steps after `first`."""
    return DataLoader(
        TrainingView(train, augmentation(exp, model), exp.seed),
        batch_sampler=Batches(len(train), exp, first=first),
        collate_fn=collate,
        # Its own generator: a loader draws a number, and torch's belongs to dropped paths alone.
        generator=torch.Generator(),
        **loader_options(exp, context),
    )


def _not_finite(step: int, train: Split, exp: Experiment, what: str) -> FloatingPointError:
    """The error of a step, with the clips of its whole batch."""
    [batch] = batches(len(train), exp.batch, step, exp.seed, first=step - 1)
    clips = [train.keyframes[index] for _, index in batch]
    return FloatingPointError(f"step {step}, clips {clips}: {what}")
