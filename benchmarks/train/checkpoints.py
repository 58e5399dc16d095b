"""A training's checkpoint files: written whole or not at all, found by origin, removed."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from actloc_core.checkpoints import CheckpointError, read
from benchmarks.score.results import save


def save_tensors(path: Path, content: dict[str, Any]) -> None:
    """torch.save, atomically. Raises OSError where the disk is full, which torch reports as a RuntimeError of
    positions."""
    try:
        save(path, lambda part: torch.save(content, part))
    except RuntimeError as error:
        if "enforce fail" not in str(error):
            raise
        free = shutil.disk_usage(path.parent).free / 2**20
        raise OSError(f"No space left on device for {path}? {free:.0f} MiB are free ({error})") from error


def finished(folder: Path, origin: Mapping[str, str | None]) -> dict[str, Any] | None:
    """The final checkpoint of a training of this origin; None where there is none."""
    content = _read(folder / "checkpoint.pt")
    return content if content and content["origin"] == origin else None


def latest(folder: Path, origin: Mapping[str, str | None]) -> dict[str, Any] | None:
    """The latest readable checkpoint of a training of this origin; None where there is none."""
    for path in reversed(intermediate(folder)):
        content = _read(path)
        if content and content["origin"] == origin:
            return content
    return None


def intermediate(folder: Path) -> list[Path]:
    """The checkpoints of a training that is not finished, the oldest first."""
    return sorted(folder.glob("state_*.pt"))


def remove_intermediate(folder: Path) -> None:
    """Remove the checkpoints that a finished training needs no more."""
    for path in intermediate(folder):
        path.unlink()


def remove_all(folder: Path) -> None:
    """Remove every checkpoint."""
    for path in [folder / "checkpoint.pt", folder / "best.pt", *intermediate(folder)]:
        path.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        content = read(path)
    except (CheckpointError, OSError) as error:
        print(f"{path}: unreadable, ignored ({error})", file=sys.stderr, flush=True)
        return None
    return content if isinstance(content, dict) and "origin" in content else None
