"""One training: begun, gone on with where it was stopped, or found finished.

OUT/trainings/<training_hash>/
    log.csv            a line for each step
    state_<step>.pt    all that the rest of the training follows from; the last two are kept, until the end
    best.pt            the model at the look at the validation split that was best
    checkpoint.pt      the trained model, written last
    trial.log          what the training's process printed
    lock               held by the process that trains, so that two sweeps never train the same at once

Of processes that share a run the first writes these; whoever starts them holds the lock (`training_lock`).
"""

from __future__ import annotations

import contextlib
import csv
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import nn

from actloc_core.checkpoints import CheckpointError, read
from actloc_core.detector import pack_checkpoint
from benchmarks import processes
from benchmarks.data import PROTOCOLS, Data, benchmark, clip_rate, frame_ap
from benchmarks.engine import Step, fit, predict, true_boxes
from benchmarks.experiments import Experiment
from benchmarks.models import begin_with, build_model, weights_file, weights_hash
from benchmarks.provenance import training_code
from benchmarks.results import CURVE_THETA, save
from datasets.split import Split, subsample

GLIMPSE = 80
"""Keyframes of a look in training, and of the one at the untrained model."""
STATE_EVERY = 60.0
"""Seconds of training that a kill can cost."""


@dataclass(frozen=True)
class Progress:
    """What a running training says of itself now and then."""

    step: int
    steps: int
    loss: float
    mAP: float | None
    """On the first clips of the validation split; None before the first look."""
    seconds: float
    """Of training, those before an interruption included."""
    lr: float
    losses: dict[str, float]
    """Of this step, each of the terms."""


@dataclass(frozen=True)
class Trained:
    """A trained model and what must be known of its training."""

    model: nn.Module
    mAP_untrained: float
    substituted: int
    seconds: float
    started: str
    origin: dict[str, str | None]
    """`origin_of` the training."""


def train(
    exp: Experiment,
    data: Data,
    trainings: Path,
    *,
    device: torch.device,
    weights: Mapping[str, Path] | None = None,
    workers: int = 0,
    fresh: str = "",
    state_every: float = STATE_EVERY,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    on_saved: Callable[[], None] = lambda: None,
    on_alive: Callable[[], None] = lambda: None,
) -> Trained:
    """The experiment's model, trained; or as an earlier training of the same origin left it.

    A training that was stopped goes on from its last state. Where another process is at it, waits
    for that one. fresh: a name for the wish to train anew; what was left by a training that was not begun
        for it does not count. (No time: clocks are set back, and differ between machines.)
    on_saved: called when a state is written. on_alive: called after each batch, so that a watchdog can
        tell work from a hang.
    """
    folder = trainings / exp.training_hash
    with training_lock(folder) if processes.count() == 1 else contextlib.nullcontext():
        beginning = weights_file(exp, weights or {}, trainings)
        origin = origin_of(exp, data.fingerprint, beginning)
        if processes.place() == 0:
            _begin_afresh(folder, fresh)
        processes.together()
        torch.manual_seed(exp.seed)
        model = build_model(exp, len(data.train.classes))
        if (done := finished(folder, origin)) is not None:
            model.load_state_dict(done["model"])
            return Trained(model.to(device), origin=origin, **done["training"])
        state = last_state(folder, origin)
        if state is None and beginning is not None:
            print(begin_with(model, beginning), file=sys.stderr, flush=True)
        model.to(device)
        training = _train(
            model,
            exp,
            data,
            folder,
            origin,
            state,
            device=device,
            workers=workers,
            state_every=state_every,
            on_progress=on_progress,
            on_saved=on_saved,
            on_alive=on_alive,
        )
        if processes.place():
            return Trained(model, origin=origin, **training)
        checkpoint = {
            **pack_checkpoint(model, asdict(exp), data.train.classes, fps=clip_rate(exp)),
            "origin": origin,
            "training": training,
        }
        save_tensors(folder / "checkpoint.pt", checkpoint)
        for path in _states(folder):
            path.unlink()
        return Trained(model, origin=origin, **training)


def save_tensors(path: Path, held: dict[str, Any]) -> None:
    """torch.save, whole or not at all. Raises OSError where the disk does not take it, which torch tells as a
    RuntimeError of positions."""
    try:
        save(path, lambda part: torch.save(held, part))
    except RuntimeError as error:
        if "enforce fail" not in str(error):
            raise
        free = shutil.disk_usage(path.parent).free / 2**20
        raise OSError(f"No space left on device for {path}? {free:.0f} MiB are free ({error})") from error


def training_lock(folder: Path) -> FileLock:
    """A training's lock, for a `with`: waits for who has it."""
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / "lock")


def _train(
    model: nn.Module,
    exp: Experiment,
    data: Data,
    folder: Path,
    origin: dict[str, str | None],
    state: dict[str, Any] | None,
    *,
    device: torch.device,
    workers: int,
    state_every: float,
    on_progress: Callable[[Progress], None],
    on_saved: Callable[[], None],
    on_alive: Callable[[], None],
) -> dict[str, Any]:
    """Train in place, from the beginning or behind `state`; -> the fields of `Trained` known then."""
    first = processes.place() == 0

    def glimpse(split: Split) -> float:
        split = subsample(split, GLIMPSE)
        found = predict(
            model,
            split,
            device,
            theta=CURVE_THETA,
            score="product",
            batch=exp.batch,
            given={key: true_boxes(split.annotations.at(key)) for key in split.keyframes},
            keep_aspect=exp.short_sides is not None,
            bf16=exp.bf16,
            workers=workers,
            on_batch=on_alive,
        )
        return frame_ap(split, found, PROTOCOLS[benchmark(exp)]).mAP

    if state is None:
        if first:
            _forget(folder)
        kept: dict[str, Any] = {
            "mAP_untrained": glimpse(data.report),
            "broken": {},
            "mAP": None,
            "best": -1.0,
            "seconds": 0.0,
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        lines = []
    else:
        kept = state["kept"]
        print(f"goes on behind step {state['step']}", file=sys.stderr, flush=True)
        if len(state["generators"]) != processes.count():
            trained = f"{len(state['generators'])} processes have trained it so far"
            print(f"{trained}: other paths are dropped from here on", file=sys.stderr, flush=True)
        lines = (folder / "log.csv").read_text().splitlines()[: 1 + state["step"]]
    before, broken = kept["seconds"], Counter(kept["broken"])
    with open(folder / "log.csv" if first else os.devnull, "w", newline="") as file:
        file.writelines(f"{line}\n" for line in lines)
        log = csv.writer(file, lineterminator="\n")

        def on_step(step: Step) -> None:
            on_alive()
            for problem in step.problems:
                if problem not in broken:
                    print(f"another clip stands in: {problem}", file=sys.stderr, flush=True)
                broken[problem] += 1
            if step.step == 1:
                log.writerow(["step", "lr", *step.losses, "val_mAP"])
            looks = {round(step.steps * share) for share in (1 / 4, 1 / 2, 3 / 4, 1)}
            if step.step in looks:
                kept["mAP"] = glimpse(data.val)
                if kept["mAP"] > kept["best"]:
                    kept["best"] = kept["mAP"]
                    best = pack_checkpoint(model, asdict(exp), data.train.classes, fps=clip_rate(exp))
                    best |= {"origin": origin, "step": step.step, "val_mAP": kept["mAP"]}
                    if first:
                        save_tensors(folder / "best.pt", best)
            shown = f"{kept['mAP']:.4f}" if step.step in looks else ""
            log.writerow([step.step, f"{step.lr:.3e}", *(f"{x:.4f}" for x in step.losses.values()), shown])
            kept["seconds"] = before + step.seconds
            on_progress(
                Progress(
                    step.step,
                    step.steps,
                    step.losses["loss"],
                    kept["mAP"],
                    kept["seconds"],
                    step.lr,
                    {name: value for name, value in step.losses.items() if name != "loss"},
                )
            )

        def on_state(state: dict[str, Any]) -> None:
            if not first:
                return
            file.flush()
            held = state | {"origin": origin, "kept": kept | {"broken": dict(broken)}}
            try:
                save_tensors(folder / f"state_{state['step']:09d}.pt", held)
            except OSError as error:  # a full disk: what is trained so far is in memory yet
                print(f"step {state['step']}: no state was saved ({error})", file=sys.stderr, flush=True)
                return
            for old in _states(folder)[:-2]:
                old.unlink()
            on_saved()

        fit(
            model,
            data.train,
            exp,
            device,
            workers=workers,
            on_step=on_step,
            state=state,
            on_state=on_state,
            state_every=state_every,
        )
    return {
        "mAP_untrained": kept["mAP_untrained"],
        "substituted": sum(broken.values()),
        "seconds": kept["seconds"],
        "started": kept["started"],
    }


def origin_of(exp: Experiment, data: str, beginning: Path | None) -> dict[str, str | None]:
    """What a trained model follows from, beside its experiment: fingerprints of data, weights and code.

    beginning: the file of the weights that it begins with.
    """
    return {"data": data, "weights": weights_hash(beginning), "code": training_code(exp)}


def finished(folder: Path, origin: Mapping[str, str | None]) -> dict[str, Any] | None:
    """What a finished training left, where it is of this origin."""
    held = _read(folder / "checkpoint.pt")
    return held if held and held["origin"] == origin else None


def last_state(folder: Path, origin: Mapping[str, str | None]) -> dict[str, Any] | None:
    """The last state of a training of this origin that can be read."""
    for path in reversed(_states(folder)):
        held = _read(path)
        if held and held["origin"] == origin:
            return held
    return None


def _states(folder: Path) -> list[Path]:
    """Files of states, the oldest first."""
    return sorted(folder.glob("state_*.pt"))


def _read(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        held = read(path)
    except (CheckpointError, OSError) as error:
        print(f"{path}: not readable, so left alone ({error})", file=sys.stderr, flush=True)
        return None
    return held if isinstance(held, dict) and "origin" in held else None


def _begin_afresh(folder: Path, wish: str) -> None:
    """Remove what an earlier training left, unless it was begun for this very wish; "" is none."""
    name = folder / "fresh.txt"
    if wish and not (name.exists() and name.read_text() == wish):
        _forget(folder)
        save(name, lambda path: path.write_text(wish))


def _forget(folder: Path) -> None:
    for path in [folder / "checkpoint.pt", folder / "best.pt", *_states(folder)]:
        path.unlink(missing_ok=True)
