"""The processes that share one run, each of which computes its part of every batch. One is the rule.

Nothing here starts them: `benchmarks.sweep` does, through Ray Train. All of these are to be called by all
of them, at the same place; of a single process they ask nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import distributed


def count() -> int:
    """How many share the run."""
    return (
        int(distributed.get_world_size())
        if distributed.is_available() and distributed.is_initialized()
        else 1
    )


def place() -> int:
    """Which one this is, from 0. The first writes the files."""
    return int(distributed.get_rank()) if count() > 1 else 0


def added(values: Sequence[float], device: torch.device) -> list[float]:
    """The sum over the processes of each of these numbers, in float64 on their device."""
    if count() == 1:
        return list(values)
    total = torch.tensor(values, dtype=torch.float64, device=device)
    distributed.all_reduce(total)
    return [float(x) for x in total.tolist()]


def gathered(value: Any) -> list[Any]:
    """What each process holds, in their order."""
    if count() == 1:
        return [value]
    held: list[Any] = [None] * count()
    distributed.all_gather_object(held, value)
    return held


def together() -> None:
    """Wait for the others."""
    if count() > 1:
        distributed.barrier()
