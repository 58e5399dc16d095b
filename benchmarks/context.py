"""What a run is given besides its experiments: where and how to compute, and whom to notify."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

CHECKPOINT_EVERY_S = 60.0
"""Seconds of training that a killed process can lose; more where checkpoints would take over 2 % of them."""


@dataclass(frozen=True)
class RunContext:
    """Where and how runs compute. No number of a result depends on it, but for rounding on another device."""

    device: torch.device
    out: Path
    """Output directory: OUT/trainings/<training>/ and OUT/runs/<hash>/ are written."""
    workers: int = 0
    """Loader processes; 0 reads clips in the training process."""
    readers: int = 1
    """Processes of this machine, this one among them, that have as many loader processes at the same time."""
    weights: Mapping[str, Path] = field(default_factory=dict)
    """Name of published initialisation weights -> file."""
    fresh: str = ""
    """Id of a request to train anew: checkpoints of a training not started for it do not count. An id and no
    time, for clocks are set back and differ between machines. "" uses what is there."""
    checkpoint_every: float = CHECKPOINT_EVERY_S
    """Seconds between two checkpoints, or more, see CHECKPOINT_EVERY_S; 0: one after each step."""

    @property
    def trainings(self) -> Path:
        """Directory of all trainings."""
        return self.out / "trainings"

    @property
    def runs(self) -> Path:
        """Directory of all runs."""
        return self.out / "runs"


@dataclass(frozen=True)
class Step:
    """A training step as callbacks see it."""

    step: int
    """From 1."""
    steps: int
    """Of the whole training."""
    loss: float
    losses: dict[str, float]
    """The weighted terms of Eq. 4, whose sum is `loss`."""
    lr: float
    seconds: float
    """Of training so far, those before an interruption included."""
    mAP: float | None = None
    """Validation frame-mAP; None where the model was not validated after this step."""
    chance: float | None = None
    """Of the same keyframes: frame-mAP of ground-truth boxes with random classes; None as `mAP`."""
    problems: tuple[str, ...] = ()
    """Errors of the unreadable clips that were replaced."""


class Callbacks:
    """Handlers of a training's events, which do nothing by default. Every process of a run calls its own."""

    def on_batch(self) -> None:
        """A batch was computed, in training, validation or evaluation."""

    def on_step(self, step: Step) -> None:
        """A training step's losses are known. On a GPU several steps follow one another at once."""

    def on_validation(self, step: Step) -> None:
        """The model was validated after this step; before `on_step`."""

    def on_checkpoint(self, saved: dict[str, Any]) -> None:
        """A checkpoint is due: `saved` is all that the rest of the training follows from, for torch.save. Its
        tensors are the training's own, which the next step changes."""

    def on_saved(self) -> None:
        """A checkpoint is on disk. Called in a thread beside the training, in the first process alone."""


def autocast(device: torch.device, bf16: bool) -> torch.autocast:
    """bfloat16 on a GPU where wanted; float32 on a CPU, where bfloat16 was slower."""
    # Without autocast's cache of cast weights: it saves nothing in a step that reads each weight once, and
    # CUDA graphs may not refer to its tensors.
    return torch.autocast(
        device.type, torch.bfloat16, enabled=bf16 and device.type == "cuda", cache_enabled=False
    )
