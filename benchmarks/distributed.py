"""The processes that share one run: rank, world size and collectives, which a single process needs none of.

Nothing here starts processes: `benchmarks.sweep` does, through Ray Train. Every process calls each collective
at the same point of the program.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, distributed


def world_size() -> int:
    """The number of processes that share the run; 1 where torch.distributed is not initialised."""
    if distributed.is_available() and distributed.is_initialized():
        return int(distributed.get_world_size())
    return 1


def rank() -> int:
    """This process's number, from 0. Rank 0 writes the files."""
    return int(distributed.get_rank()) if world_size() > 1 else 0


def all_reduce(values: Sequence[float], device: torch.device) -> list[float]:
    """Sum each value over the processes, in float64 on `device`."""
    if world_size() == 1:
        return list(values)
    return [
        float(x) for x in all_reduce_tensor(torch.tensor(values, dtype=torch.float64, device=device)).tolist()
    ]


def all_reduce_tensor(x: Tensor) -> Tensor:
    """Sum a tensor of any shape over the processes, in place."""
    if world_size() > 1:
        distributed.all_reduce(x)
    return x


def all_gather(value: Any) -> list[Any]:
    """The value of every process, by rank."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    distributed.all_gather_object(values, value)
    return values


def barrier() -> None:
    """Wait until every process has arrived here."""
    if world_size() > 1:
        distributed.barrier()
