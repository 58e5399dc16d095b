"""The processes that share one run: rank, world size and collectives, which a single process needs none of.

Nothing here starts processes: `benchmarks.sweep` does, through Ray Train. Every process calls each collective
at the same point of the program.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, distributed


def world_size() -> int:
    """The number of processes that share the run; 1 where torch.distributed is not initialised."""
    if distributed.is_available() and distributed.is_initialized():
        return int(distributed.get_world_size())
    return 1


def rank() -> int:
    """This process's number, from 0. Rank 0 writes the files."""
    return int(distributed.get_rank()) if world_size() > 1 else 0


def all_reduce(x: Tensor) -> Tensor:
    """Sum a tensor of any shape over the processes, in place; nobody waits for it."""
    if world_size() > 1:
        distributed.all_reduce(x)
    return x


def all_gather(value: Any) -> list[Any]:
    """The value of every process, by rank; through host memory."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    distributed.all_gather_object(values, value, group=host_group())
    return values


_HOST_GROUPS: dict[Any, Any] = {}
"""Process group -> one of the same processes that talks through host memory."""


def host_group() -> Any:
    """The group for Python objects, which talks through host memory.

    NCCL would bring what is gathered, a split's detections, into the memory of every GPU.
    """
    if distributed.get_backend() == "gloo":
        return None
    world = distributed.group.WORLD
    if world not in _HOST_GROUPS:
        _HOST_GROUPS[world] = distributed.new_group(backend="gloo")
    return _HOST_GROUPS[world]


def barrier() -> None:
    """Wait until every process has arrived here."""
    if world_size() > 1:
        distributed.barrier()
