"""The callbacks that write a training's files: record, log, best checkpoint, checkpoints."""

from __future__ import annotations

import csv
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from actloc_core.detector import pack_checkpoint
from benchmarks.context import Callbacks, Step
from benchmarks.distributed import rank
from benchmarks.experiments import Experiment
from benchmarks.train import checkpoints
from benchmarks.train.data import clip_rate


@dataclass
class TrainingRecord(Callbacks):
    """What is remembered of a training, across interruptions."""

    mAP_untrained: float
    """Frame-mAP before the first step, on a subset of the report split."""
    started: str
    """UTC time, ISO 8601."""
    seconds: float = 0.0
    mAP: float | None = None
    """Of the last validation."""
    best: float = -1.0
    broken: dict[str, int] = field(default_factory=dict)
    """Error of an unreadable clip -> how often it was replaced."""
    substituted: int = 0
    """Unreadable clips that were replaced, in all."""

    @classmethod
    def of(cls, saved: Mapping[str, Any]) -> TrainingRecord:
        """From a checkpoint: a `state_dict` of this class or the `summary` of a finished training."""
        return cls(**saved)

    def summary(self) -> dict[str, Any]:
        """What a finished training's checkpoint keeps."""
        kept = ("mAP_untrained", "started", "seconds", "substituted")
        return {name: value for name, value in asdict(self).items() if name in kept}

    def on_step(self, step: Step) -> None:
        """Count time and unreadable clips; report each error once."""
        self.seconds = step.seconds
        counts = Counter(self.broken)
        for problem in step.problems:
            if problem not in counts:
                print(f"unreadable clip replaced: {problem}", file=sys.stderr, flush=True)
            counts[problem] += 1
        self.broken, self.substituted = dict(counts), sum(counts.values())

    def on_validation(self, step: Step) -> None:
        """Remember the mAP."""
        self.mAP = step.mAP


class TrainingLog(Callbacks):
    """log.csv: step, learning rate, losses, and the mAP of the steps after which the model was validated."""

    def __init__(self, path: Path, *, resumed_at: int) -> None:
        lines = path.read_text().splitlines()[: 1 + resumed_at] if resumed_at else []
        self.file = open(path if rank() == 0 else os.devnull, "w", newline="")  # noqa: SIM115
        self.file.writelines(f"{line}\n" for line in lines)
        self.writer = csv.writer(self.file, lineterminator="\n")

    def __enter__(self) -> TrainingLog:
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def on_step(self, step: Step) -> None:
        """Write a line; before the first, the heading."""
        losses = {"loss": step.loss, **step.losses}
        if step.step == 1:
            self.writer.writerow(["step", "lr", *losses, "val_mAP"])
        mAP = "" if step.mAP is None else f"{step.mAP:.4f}"
        self.writer.writerow([step.step, f"{step.lr:.3e}", *(f"{x:.4f}" for x in losses.values()), mAP])

    def on_checkpoint(self, saved: dict[str, Any]) -> None:
        """The lines up to a checkpoint must be on disk when it is."""
        self.file.flush()


@dataclass
class BestCheckpoint(Callbacks):
    """best.pt: the model with the best validation mAP so far."""

    path: Path
    record: TrainingRecord
    model: nn.Module
    exp: Experiment
    classes: Mapping[int, str]
    origin: Mapping[str, str | None]

    def on_validation(self, step: Step) -> None:
        """Save the model where it is the best."""
        if step.mAP is None or step.mAP <= self.record.best:
            return
        self.record.best = step.mAP
        if rank() == 0:
            best = pack_checkpoint(self.model, asdict(self.exp), dict(self.classes), fps=clip_rate(self.exp))
            best |= {"origin": dict(self.origin), "step": step.step, "val_mAP": step.mAP}
            checkpoints.save_tensors(self.path, best)


class CheckpointWriter(Callbacks):
    """state_<step>.pt, of which the last two are kept. A full disk costs checkpoints, not the training.

    Training waits for a copy in host memory alone, and goes on while a thread writes it; where the one before
    is still being written, it waits for that.
    """

    def __init__(
        self,
        folder: Path,
        record: TrainingRecord,
        origin: Mapping[str, str | None],
        callbacks: Sequence[Callbacks] = (),
    ) -> None:
        """callbacks: whose `on_saved` is called, in the thread, after each checkpoint."""
        self.folder, self.record, self.origin, self.callbacks = folder, record, origin, callbacks
        self.thread = ThreadPoolExecutor(1)
        self.writing: Future[None] | None = None

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(self, *error: object) -> None:
        """Wait for the last one: whoever goes on, or gives up, finds it whole."""
        self._wait()
        self.thread.shutdown()

    def on_checkpoint(self, saved: dict[str, Any]) -> None:
        """Have a checkpoint written, and the ones before the last two removed."""
        if rank():
            return
        self._wait()
        content = saved | {"origin": dict(self.origin), "kept": asdict(self.record)}
        self.writing = self.thread.submit(self._write, saved["step"], _on_host(content))

    def _wait(self) -> None:
        if self.writing is not None:
            self.writing.result()

    def _write(self, step: int, content: dict[str, Any]) -> None:
        try:
            checkpoints.save_tensors(self.folder / f"state_{step:09d}.pt", content)
        except OSError as error:
            print(f"step {step}: no checkpoint was saved ({error})", file=sys.stderr, flush=True)
            return
        for old in checkpoints.intermediate(self.folder)[:-2]:
            old.unlink()
        for callback in self.callbacks:
            callback.on_saved()


def _on_host(content: Any) -> Any:
    """A copy in host memory of whatever tensors there are in containers: training changes them in place."""
    if isinstance(content, Tensor):
        return content.detach().to("cpu", copy=True)
    if isinstance(content, dict):
        return {key: _on_host(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return type(content)(_on_host(value) for value in content)
    return content
