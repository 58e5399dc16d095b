"""What several tests of the benchmarks share: a tiny experiment, contexts, and callbacks that record."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.context import Callbacks, RunContext
from benchmarks.experiments import OURS, at_scale
from benchmarks.train.loop import Validation, fit, quarters, training_steps
from benchmarks.train.models import build_model
from benchmarks.train.state import new_state

CHECKOUT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")
TINY = replace(at_scale(OURS, "smoke"), weights=None, frames=4, stride=4, crop=32)
"""The method on the smallest clips, from drawn weights; `epochs` is left to each test."""


def context_of(out: Path = Path("writes nothing"), **options) -> RunContext:
    """A context on the CPU."""
    return RunContext(CPU, out, **options)


class Recorder(Callbacks):
    """Records every event."""

    def __init__(self):
        self.steps, self.validations, self.checkpoints, self.batches = [], [], [], 0

    def on_batch(self):
        self.batches += 1

    def on_step(self, step):
        self.steps.append(step)

    def on_validation(self, step):
        self.validations.append(step)

    def on_checkpoint(self, saved):
        self.checkpoints.append(copy.deepcopy(saved))

    @property
    def numbers(self):
        """The recorded steps' numbers."""
        return [step.step for step in self.steps]


class Stopped(Exception):
    """Raised by a callback: the training is interrupted."""


class StopAt(Callbacks):
    """Interrupts a training at a step, before its checkpoint."""

    def __init__(self, step):
        self.step = step

    def on_step(self, step):
        if step.step == self.step:
            raise Stopped


def state_of(model, exp, clips):
    """The state before the first step of a training on this many clips."""
    steps, warmup = training_steps(exp, clips)
    return new_state(model, exp, steps=steps, warmup=warmup)


def fit_new(
    split,
    exp,
    callbacks: Sequence[Callbacks] = (),
    *,
    seed=0,
    model=None,
    saved=None,
    validate=None,
    **options,
):
    """Train a model by the loop alone; -> (model, its steps).

    saved: a checkpoint to resume from. validate: -> a mAP, after each quarter. options: RunContext's.
    """
    torch.manual_seed(seed)
    model = build_model(exp, len(split.classes)) if model is None else model
    state, recorder = state_of(model, exp, len(split)), Recorder()
    if saved is not None:
        state.load_state_dict(saved)
    at = quarters(training_steps(exp, len(split))[0])
    validation = Validation(at, validate) if validate else None
    fit(state, split, exp, context_of(**options), [recorder, *callbacks], validation=validation)
    return model, recorder.steps


def equal_weights(model, other) -> bool:
    """Whether two models are bit for bit the same."""
    return all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
