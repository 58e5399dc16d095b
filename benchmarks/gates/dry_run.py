"""The dry run: one training step and one evaluation of every row, at its own size, in a process of its own.

A user should know in minutes, not days, that a row cannot run. First a single clip takes a step,
then two: what the second adds, times a process's micro-batch, is the memory that this would need. Only where
there is that much does the batch take its step. Reading clips is timed apart: loader processes do it beside
the training, and which of the two is slower decides what to change.
"""

from __future__ import annotations

import gc
import math
import multiprocessing
import os
import queue
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from benchmarks.context import RunContext
from benchmarks.experiments import TRAINING, Experiment
from benchmarks.loading import CPUS_PER_GPU, loader_options
from benchmarks.score.evaluate import frame_ap, protocol_of
from benchmarks.score.predict import predict
from benchmarks.train.data import Data, given_boxes, load_data
from benchmarks.train.gflops import count_experiment
from benchmarks.train.loop import augmentation, training_steps
from benchmarks.train.models import build_model, initialise, weights_file
from benchmarks.train.state import new_state
from benchmarks.train.step import train_step
from datasets.split import subsample
from datasets.transforms import Batch, TrainingView, collate

GIB = 2**30
READ_CLIPS = 16
"""Training clips that are read, to be timed."""


@dataclass
class Findings:
    """What the dry run of one row has measured. None: unknown."""

    gflops: float | None = None
    parameters: int | None = None
    data_seconds: float | None = None
    """Of opening the dataset: annotations and a check of each video."""
    clip_seconds: float | None = None
    """Of a training step with one clip, read before."""
    read_seconds: float | None = None
    """Of reading a training clip, by one process."""
    needed: float | None = None
    """Bytes that a step with a process's micro-batch needs, or would need."""
    free: float | None = None
    step_seconds: float | None = None
    """Of a step with a process's part of the batch, on its device."""
    loader_seconds: float | None = None
    """In which its loader processes read that part, or it reads it itself, without any."""
    steps: int | None = None
    """Of the whole training."""
    clip_evaluation_seconds: float | None = None
    """Of reading, predicting and scoring."""
    clips: int | None = None
    """Of the evaluation, for one process."""
    workers: int = 0
    problem: str | None = None
    """Why the row cannot run here."""

    @property
    def hours(self) -> float | None:
        """Of the whole row, at this pace."""
        if self.step_seconds is None or self.loader_seconds is None or self.clip_evaluation_seconds is None:
            return None
        step = self.step_seconds + self.loader_seconds
        if self.workers:  # beside each other
            step = max(self.step_seconds, self.loader_seconds)
        evaluation = self.clip_evaluation_seconds * (self.clips or 0)
        return (step * (self.steps or 0) + evaluation) / 3600

    @property
    def advice(self) -> str:
        """What would make it faster; "" where the device is busy all the time, or nearly."""
        if self.step_seconds is None or self.loader_seconds is None:
            return ""
        enough = math.ceil(self.loader_seconds * max(self.workers, 1) / self.step_seconds)
        if self.workers and self.loader_seconds > 1.1 * self.step_seconds:
            slower = self.loader_seconds / self.step_seconds
            return (
                f"the loader is {slower:.1f} times slower than the device; --workers {enough} would feed it"
            )
        if not self.workers and self.loader_seconds > 0.1 * self.step_seconds:
            share = self.loader_seconds / (self.loader_seconds + self.step_seconds)
            return f"{share:.0%} of the time it reads clips; --workers {enough} would do that beside it"
        return ""


def dry_run(
    experiments: Mapping[str, Experiment],
    names: Mapping[str, str],
    roots: Mapping[str, Path],
    weights: Mapping[str, Path],
    *,
    processes: int = 1,
    workers: int | None = None,
) -> bool:
    """Run each training's dry run once and print what it takes; -> whether every row can run here.

    processes: that are to share a run: one of them is tried, with its part of the batch. workers: loader
    processes of each; None is what a run here would have.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if workers is None:
        workers = usual_workers(processes) if device == "cuda" else 0
    as_one = _AsOne(device, processes, workers, dict(roots), dict(weights))
    findings: dict[str, Findings] = {}
    for exp in experiments.values():
        if exp.training_hash not in findings:
            print(f"dry run of {names[exp.hash]} ...", flush=True)
            findings[exp.training_hash] = of_row = _in_own_process(exp, as_one)
            if of_row.problem:
                print(f"  cannot run: {of_row.problem}", flush=True)
    _print_table({names[key]: findings[exp.training_hash] for key, exp in experiments.items()}, as_one)
    for exp in experiments.values():
        if problem := findings[exp.training_hash].problem:
            print(f"cannot run: {names[exp.hash]}: {problem}", file=sys.stderr)
    return not any(f.problem for f in findings.values())


def usual_workers(processes: int) -> int:
    """Loader processes that each of `processes` on this machine's GPUs has: its share of the cores, but one.

    As `benchmarks.sweep.cluster.resources_per_process` has it.
    """
    gpus = max(torch.cuda.device_count(), 1)
    return max(0, min(CPUS_PER_GPU, (os.cpu_count() or 1) // gpus) - 1)


@dataclass(frozen=True)
class _AsOne:
    """How the tried process is to run: as one of several that share a run."""

    device: str
    processes: int
    workers: int
    roots: dict[str, Path]
    weights: dict[str, Path]


def _print_table(rows: Mapping[str, Findings], as_one: _AsOne) -> None:
    table = Table(
        *("row", "GFLOPs", "params M", "data s", "device s/step", "loader s/step", "memory GiB"),
        *("eval s/clip", "whole row h", "runs"),
    )
    for name, f in rows.items():
        table.add_row(
            name,
            _number(f.gflops),
            _number(f.parameters, 1e6),
            _number(f.data_seconds),
            _number(f.step_seconds) or (f"{_number(f.clip_seconds)} a clip" if f.clip_seconds else ""),
            _number(f.loader_seconds) or (f"{_number(f.read_seconds)} a clip" if f.read_seconds else ""),
            _number(f.needed, GIB),
            _number(f.clip_evaluation_seconds),
            _number(f.hours),
            "no" if f.problem else "yes",
        )
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else 160).print(table)
    each = f"each of {as_one.processes} processes" if as_one.processes > 1 else "the process"
    beside = f"{as_one.workers} loader processes, beside it" if as_one.workers else "itself, before the step"
    print(
        f"On {as_one.device}. Device: forward, backward and update of {each}, of its part of the batch. "
        f"Loader: its clips, read by {beside} (one clip's time, measured in one process, over their number). "
        "Memory: the peak of a step. Whole row: at this pace, without validation."
    )
    for name, f in rows.items():
        if f.advice:
            print(f"{name}: {f.advice}")


def _number(value: float | None, unit: float = 1.0) -> str:
    if value is None:
        return ""
    number = value / unit
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def _in_own_process(exp: Experiment, as_one: _AsOne) -> Findings:
    """A row's dry run in a fresh process, whose peak memory is its own; its death is a finding."""
    context = multiprocessing.get_context("spawn")
    reports: Queue[dict[str, Any]] = context.Queue()
    process = context.Process(target=_run, args=(asdict(exp), as_one, reports))
    process.start()
    last: dict[str, Any] = {}
    while process.is_alive() or not reports.empty():
        try:
            last = reports.get(timeout=0.2)
        except queue.Empty:
            continue
    process.join()
    findings = Findings(**last)
    if process.exitcode and not findings.problem:
        killed = process.exitcode == -9
        findings.problem = (
            "killed by the system, usually out of memory" if killed else f"exit code {process.exitcode}"
        )
    return findings


def _run(values: dict[str, Any], as_one: _AsOne, reports: Queue[dict[str, Any]]) -> None:
    findings = Findings(workers=as_one.workers)
    try:
        _measure(Experiment(**values), as_one, findings, reports)
    except torch.OutOfMemoryError as error:
        findings.problem = f"out of GPU memory: {str(error).splitlines()[0]}"
    except Exception as error:  # whatever it is, the row cannot run, and the others are still to come
        findings.problem = f"{type(error).__name__}: {error}"
    reports.put(asdict(findings))


def _measure(exp: Experiment, as_one: _AsOne, findings: Findings, reports: Queue[dict[str, Any]]) -> None:
    """Fill in the findings, and report them after each part, so that they survive a killed process."""
    context = RunContext(
        torch.device(as_one.device),
        out=Path(),
        workers=as_one.workers,
        readers=as_one.processes,
        weights=as_one.weights,
    )
    counted = count_experiment(exp)
    findings.gflops, findings.parameters = counted.gflops, counted.params
    clock = time.monotonic()
    data = load_data(exp, as_one.roots)
    findings.data_seconds = time.monotonic() - clock
    findings.clips = math.ceil(len(data.report) / as_one.processes)
    findings.steps, _ = training_steps(exp, len(data.train))
    if exp.batch % as_one.processes:
        count = as_one.processes
        raise ValueError(f"a batch of {exp.batch} clips cannot be shared evenly by {count} processes")
    # From here on as a process that has a part of the batch to itself.
    exp = replace(exp, batch=exp.batch // as_one.processes)
    loader_options(exp, context)  # a ValueError where shared memory has no room
    model = _model(exp, len(data.train.classes), context)
    reports.put(asdict(findings))
    read, findings.read_seconds = _read(data, exp, model)
    _step(model, read(1), exp, context)  # the optimizer's state and the libraries' own buffers
    findings.clip_seconds, first = _step(model, read(1), exp, context)
    reports.put(asdict(findings))
    _, second = _step(model, read(2), exp, context)
    findings.free = _free(context.device)
    # What a micro-batch holds is free again when the next one starts.
    findings.needed = first + max(second - first, 0) * (math.ceil(exp.batch / exp.accumulate) - 1)
    reports.put(asdict(findings))
    if findings.needed > findings.free:
        findings.problem = (
            f"a batch of {exp.batch} clips needs about {findings.needed / GIB:.1f} GiB, "
            f"and this {context.device.type} has {findings.free / GIB:.1f} GiB; --set accumulate=2, 4, ... "
            "or --set checkpointing=true reduces it"
        )
        return
    findings.step_seconds, findings.needed = _step(model, read(exp.batch), exp, context)
    findings.loader_seconds = findings.read_seconds * exp.batch / max(as_one.workers, 1)
    subset = subsample(data.report, min(exp.batch, len(data.report)))
    clock = time.monotonic()
    boxes = given_boxes(exp, subset, as_one.roots[exp.dataset])
    detections = predict(model, subset, exp, replace(context, workers=0), boxes)
    frame_ap(subset, detections, protocol_of(exp))
    findings.clip_evaluation_seconds = (time.monotonic() - clock) / len(subset)


def _model(exp: Experiment, classes: int, context: RunContext) -> nn.Module:
    """The experiment's model on its device, with published weights where it begins with these."""
    torch.manual_seed(exp.seed)
    model = build_model(exp, classes)
    if exp.weights is not None and not exp.weights.startswith(TRAINING):
        file = weights_file(exp, context.weights, Path())
        assert file is not None
        initialise(model, file)
    return model.to(context.device)


def _read(data: Data, exp: Experiment, model: nn.Module) -> tuple[Callable[[int], Batch], float]:
    """-> a function that makes a batch of n clips, of a few that are read once; seconds of reading one."""
    view = TrainingView(data.train, augmentation(exp, model), exp.seed)
    count = min(READ_CLIPS, exp.batch, len(data.train))
    clock = time.monotonic()
    items = [view[0, int(i)] for i in np.linspace(0, len(data.train) - 1, count)]
    seconds = (time.monotonic() - clock) / count

    def batch(clips: int) -> Batch:
        return collate([items[i % count] for i in range(clips)])

    return batch, seconds


def _step(model: nn.Module, batch: Batch, exp: Experiment, context: RunContext) -> tuple[float, float]:
    """-> seconds and peak bytes of one training step on this batch, the second of two on a GPU."""
    clips = sum(len(group.targets) for group in batch.groups)
    state = new_state(model, replace(exp, batch=clips), steps=2, warmup=0)
    if context.device.type == "cuda":  # graphs are recorded, and kernels chosen, in the first
        train_step(state, batch, exp, context.device)
        torch.cuda.synchronize()
    gc.collect()
    _reset_peak(context.device)
    clock = time.monotonic()
    losses = train_step(state, batch, exp, context.device)
    if not math.isfinite(loss := float(losses["loss"])):
        raise FloatingPointError(f"the loss of the first step is {loss}")
    return time.monotonic() - clock, _peak(context.device)


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    elif Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")  # the peak of resident memory


def _peak(device: torch.device) -> float:
    """Peak bytes: of this process on a GPU, or resident in memory."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated())
    return _proc("/proc/self/status", "VmHWM")


def _free(device: torch.device) -> float:
    """Bytes available to this process: what it holds already and what is free."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved())
    return _proc("/proc/meminfo", "MemAvailable") + _proc("/proc/self/status", "VmRSS")


def _proc(file: str, field: str) -> float:
    """A field in kB of one of Linux' files, in bytes. Raises OSError elsewhere."""
    try:
        line = next(line for line in Path(file).read_text().splitlines() if line.startswith(f"{field}:"))
    except (OSError, StopIteration):
        raise OSError(f"{file} has no {field}: on a CPU the dry run measures memory on Linux alone") from None
    return float(line.split()[1]) * 1024
