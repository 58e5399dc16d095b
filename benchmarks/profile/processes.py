"""Several processes that share a batch: whether they do what one does, and what sharing costs a step."""

from __future__ import annotations

import tempfile
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from functools import partial
from multiprocessing import get_context
from typing import Any

import torch
from torch import distributed

from benchmarks.distributed import all_reduce, host_group, rank, world_size
from benchmarks.experiments import Experiment
from benchmarks.profile.measure import experiment, median_s, random_batch, training_of
from benchmarks.train.state import data_parallel
from benchmarks.train.step import train_step
from datasets.transforms import Batch

STEPS = 3
WORLD = 2


def processes(device: torch.device, quick: bool) -> dict[str, Any]:
    """The losses of the same steps by one process and by two, which have half of each batch.

    The two share the device and talk through gloo, for NCCL wants a GPU each. With NCCL one process takes a
    step alone, and with its gradients in DDP's buckets, at the batch of each GPU where eight share one.
    Raises RuntimeError where the two disagree.
    """
    exp = experiment(quick, batch=4, drop_path=0.0)
    with tempfile.TemporaryDirectory() as folder:
        share = partial(_share, device=device, exp=exp, meet=f"file://{folder}/meet")
        with ProcessPoolExecutor(WORLD, mp_context=get_context("spawn")) as pool:
            one, other = pool.map(share, range(WORLD))
        if one != other:
            raise RuntimeError(f"the processes disagree on the summed losses: {one}, {other}")
        figures: dict[str, Any] = {"one": losses_of(exp, device), "two": one}
        backend = "nccl" if device.type == "cuda" else "gloo"
        distributed.init_process_group(backend, init_method=f"file://{folder}/alone", rank=0, world_size=1)
        try:
            distributed.all_gather_object([None], backend, group=host_group())  # as evaluation gathers
            return figures | {"backend": backend} | _cost(experiment(quick, batch=2), device)
        finally:
            distributed.destroy_process_group()


def _share(index: int, *, device: torch.device, exp: Experiment, meet: str) -> list[float]:
    """Train as one of the processes; -> the losses of the whole batch."""
    distributed.init_process_group(
        "gloo", init_method=meet, rank=index, world_size=WORLD, timeout=timedelta(minutes=2)
    )
    try:
        return losses_of(exp, device)
    finally:
        distributed.destroy_process_group()


def losses_of(exp: Experiment, device: torch.device) -> list[float]:
    """The loss of each of the first steps on one batch, which the processes share."""
    [whole] = random_batch(exp, device).groups
    mine = whole.take(range(rank(), exp.batch, world_size()))
    state, batch = training_of(exp, device), Batch([mine], [])
    return [float(all_reduce(train_step(state, batch, exp, device)["loss"])) for _ in range(STEPS)]


def _cost(exp: Experiment, device: torch.device) -> dict[str, float]:
    """Milliseconds of a step without and with DDP, of a group of one process."""
    state, batch = training_of(exp, device), random_batch(exp, device)
    alone = median_s(lambda: train_step(state, batch, exp, device), device)
    state.forward = data_parallel(state.forward)  # type: ignore[arg-type]
    shared = median_s(lambda: train_step(state, batch, exp, device), device)
    return {"alone_ms": 1e3 * alone, "shared_ms": 1e3 * shared}
