"""Start a training, resume it from its last checkpoint, or load it where it is finished.

OUT/trainings/<training>/
    log.csv            a line for each step
    state_<step>.pt    checkpoints, all that the rest of the training follows from; the last two of them
    best.pt            the model with the best validation mAP
    checkpoint.pt      the trained model, written last
    trial.log          what the training's process printed
    lock               held by the process that trains, so that two sweeps never train the same at once

Of processes that share a run the first writes these; whoever starts them holds the lock (`training_lock`).
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import nn

from actloc_core.detector import pack_checkpoint
from benchmarks.context import Callbacks, RunContext
from benchmarks.distributed import barrier, rank, world_size
from benchmarks.experiments import Experiment
from benchmarks.score.predict import validation_chance, validation_mAP
from benchmarks.score.provenance import training_code
from benchmarks.score.results import save
from benchmarks.train import checkpoints
from benchmarks.train.data import Data, clip_rate
from benchmarks.train.log import BestCheckpoint, CheckpointWriter, TrainingLog, TrainingRecord
from benchmarks.train.loop import Validation, fit, training_steps, validation_steps
from benchmarks.train.models import build_model, initialise, weights_file, weights_hash
from benchmarks.train.state import TrainState, new_state


@dataclass(frozen=True)
class FinishedTraining:
    """A trained model and the record of its training."""

    model: nn.Module
    record: TrainingRecord
    origin: dict[str, str | None]
    """`origin_of` the training."""


def train(
    exp: Experiment, data: Data, context: RunContext, callbacks: Sequence[Callbacks] = ()
) -> FinishedTraining:
    """Start or resume the experiment's training, or load what an earlier one of the same origin finished.

    Where another process trains the same, wait for it.
    Raises what the readers of data and weights raise, and FloatingPointError as `fit` does.
    """
    folder = context.trainings / exp.training_hash
    with training_lock(folder) if world_size() == 1 else contextlib.nullcontext():
        initial_weights = weights_file(exp, context.weights, context.trainings)
        origin = origin_of(exp, data.fingerprint, initial_weights)
        if rank() == 0:
            _discard_stale(folder, context.fresh)
        barrier()
        torch.manual_seed(exp.seed)
        model = build_model(exp, len(data.train.classes))
        if (finished := checkpoints.finished(folder, origin)) is not None:
            model.load_state_dict(finished["model"])
            record = TrainingRecord.of(finished["training"])
            return FinishedTraining(model.to(context.device), record, origin)
        saved = checkpoints.latest(folder, origin)
        if saved is None and initial_weights is not None:
            print(initialise(model, initial_weights), file=sys.stderr, flush=True)
        model.to(context.device)
        steps, warmup = training_steps(exp, len(data.train))
        state = new_state(model, exp, steps=steps, warmup=warmup)
        record = _fit(state, saved, exp, data, context, origin, callbacks)
        if rank() == 0:
            packed = pack_checkpoint(model, asdict(exp), data.train.classes, fps=clip_rate(exp))
            checkpoints.save_tensors(
                folder / "checkpoint.pt", packed | {"origin": origin, "training": record.summary()}
            )
            checkpoints.remove_intermediate(folder)
        return FinishedTraining(model, record, origin)


def _fit(
    state: TrainState,
    saved: Mapping[str, Any] | None,
    exp: Experiment,
    data: Data,
    context: RunContext,
    origin: dict[str, str | None],
    callbacks: Sequence[Callbacks],
) -> TrainingRecord:
    """Train to the end, from the start or from a checkpoint; -> the record, with the files written."""
    folder = context.trainings / exp.training_hash
    if saved is None:
        if rank() == 0:
            checkpoints.remove_all(folder)
        untrained = validation_mAP(state.model, data.report, exp, context, callbacks)
        record = TrainingRecord(untrained, datetime.now(UTC).isoformat(timespec="seconds"))
    else:
        record = TrainingRecord.of(saved["kept"])
        state.load_state_dict(saved)
        print(f"resuming from step {state.step}", file=sys.stderr, flush=True)
        if len(saved["generators"]) != world_size():
            before = f"trained by {len(saved['generators'])} processes so far, by {world_size()} from here on"
            print(f"{before}: stochastic depth drops other paths", file=sys.stderr, flush=True)
    validation = Validation(
        validation_steps(exp, len(data.train)),
        lambda: validation_mAP(state.model, data.val, exp, context, callbacks),
        validation_chance(data.val, exp),
    )
    with TrainingLog(folder / "log.csv", resumed_at=state.step) as log:
        best = BestCheckpoint(folder / "best.pt", record, state.model, exp, data.train.classes, origin)
        with CheckpointWriter(folder, record, origin, callbacks) as writer:
            fit(
                state,
                data.train,
                exp,
                context,
                [record, best, log, writer, *callbacks],
                validation=validation,
                seconds_before=record.seconds,
            )
    return record


def origin_of(exp: Experiment, data: str, initial_weights: Path | None) -> dict[str, str | None]:
    """What a trained model follows from, beside its experiment: fingerprints of data, weights and code."""
    return {"data": data, "weights": weights_hash(initial_weights), "code": training_code(exp)}


def training_lock(folder: Path) -> FileLock:
    """A training's lock, for a `with` statement; waits for the process that holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / "lock")


def _discard_stale(folder: Path, fresh: str) -> None:
    """Remove what an earlier training left, unless it was started for this request; "" requests nothing."""
    name = folder / "fresh.txt"
    if fresh and not (name.exists() and name.read_text() == fresh):
        checkpoints.remove_all(folder)
        save(name, lambda path: path.write_text(fresh))
