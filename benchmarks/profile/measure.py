"""Timing and random inputs that the sections share."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from statistics import median

import numpy as np
import torch
from torch import nn

from actloc_core.structures import Targets
from benchmarks.experiments import OURS, Experiment
from benchmarks.train.models import build_model
from benchmarks.train.state import TrainState, new_state
from datasets.transforms import Batch, Group, unchanged

CLASSES = 80
"""AVA's."""
GIB = 2**30


def synchronise(device: torch.device) -> None:
    """Wait for a GPU's queue; nothing on a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def device_ms(function: Callable[[], object], device: torch.device) -> float:
    """Milliseconds of a call without the CPU's launches: on a GPU the replay of a CUDA graph of it."""
    if device.type != "cuda":
        return 1e3 * median_s(function, device)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            function()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        function()
    return 1e3 * median_s(graph.replay, device)


def median_s(function: Callable[[], object], device: torch.device, *, times: int = 5) -> float:
    """Median seconds of a call, after one to warm up; the device's queue is empty before and after each."""
    taken = []
    for _ in range(times + 1):
        synchronise(device)
        clock = time.perf_counter()
        function()
        synchronise(device)
        taken.append(time.perf_counter() - clock)
    return median(taken[1:])


def small(exp: Experiment) -> Experiment:
    """The experiment with a small backbone on small clips: what a CPU rehearses the command with."""
    backbone = {"mvitv2_s": "mvitv2_tiny", "hiera_l": "hiera_tiny"}[exp.backbone]
    return replace(
        exp, backbone=backbone, crop=64, dim=64, frames=8, queries=16, encoder_layers=1, decoder_layers=1
    )


def experiment(quick: bool, **fields: object) -> Experiment:
    """The paper's method with these fields changed; with `quick`, small."""
    exp: Experiment = replace(OURS, **fields)  # type: ignore[arg-type]
    return small(exp) if quick else exp


def model_of(exp: Experiment, device: torch.device) -> nn.Module:
    """The experiment's model in training mode, initialised from seed 0."""
    torch.manual_seed(0)
    with device:  # initialised there: on a CPU it takes seconds
        return build_model(exp, CLASSES).train()


def training_of(exp: Experiment, device: torch.device) -> TrainState:
    """A training of the experiment before its first step."""
    return new_state(model_of(exp, device), exp, steps=1_000_000, warmup=1)


def random_batch(exp: Experiment, device: torch.device) -> Batch:
    """A batch as the loader gives it, in host memory: noise, and one to four actors a clip."""
    rng = np.random.default_rng(0)
    targets = []
    for _ in range(exp.batch):
        count = int(rng.integers(1, 5))
        boxes = np.c_[rng.uniform(0.2, 0.8, (count, 2)), rng.uniform(0.1, 0.4, (count, 2))]
        labels = rng.random((count, CLASSES)) < 0.04
        targets.append(Targets(torch.from_numpy(boxes).float(), torch.from_numpy(labels).float()))
    size = exp.batch, 3, exp.frames, exp.crop, exp.crop
    noise = torch.Generator(device).manual_seed(0)
    clips = torch.randint(0, 256, size, dtype=torch.uint8, device=device, generator=noise).cpu()
    if device.type == "cuda":
        clips = clips.pin_memory()
    return Batch([Group(clips, unchanged(exp.batch), targets, list(range(exp.batch)))], [])


def host_synchronisations(function: Callable[[], object], device: torch.device) -> int | None:
    """How often a call makes the host wait for the GPU, as torch notices it; None on a CPU."""
    if device.type != "cuda":
        return None
    synchronise(device)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            function()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in caught)


def forget_peak(device: torch.device) -> None:
    """Start measuring peak memory anew."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak_gib(device: torch.device) -> float | None:
    """Peak GPU memory that torch allocated, GiB; None on a CPU."""
    return torch.cuda.max_memory_allocated(device) / GIB if device.type == "cuda" else None
