"""The dry run: one training step and one evaluation of every row, at its own size, in a process of its own.

A user should know in minutes, not days, that a row cannot run. First a single clip takes a step,
then two: what the second adds, times the batch, is the memory that the whole batch would need. Only where
there is that much does the whole batch take its step.
"""

from __future__ import annotations

import gc
import multiprocessing
import queue
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from benchmarks.context import RunContext
from benchmarks.experiments import TRAINING, Experiment
from benchmarks.score.evaluate import frame_ap, protocol_of
from benchmarks.score.predict import predict
from benchmarks.train.data import Data, given_boxes, load_data
from benchmarks.train.gflops import count_experiment
from benchmarks.train.loop import fit, training_steps
from benchmarks.train.models import build_model, initialise, weights_file
from benchmarks.train.state import new_state
from datasets.split import subsample

GIB = 2**30


@dataclass
class Findings:
    """What the dry run of one row has measured. None: unknown."""

    gflops: float | None = None
    parameters: int | None = None
    data_seconds: float | None = None
    """Of opening the dataset: annotations and a check of each video."""
    clip_seconds: float | None = None
    """Of a training step with one clip."""
    needed: float | None = None
    """Bytes that a step with the whole batch needs, or would need."""
    free: float | None = None
    step_seconds: float | None = None
    """Of a step with the whole batch, its clips read by one process."""
    steps: int | None = None
    """Of the whole training."""
    clip_evaluation_seconds: float | None = None
    clips: int | None = None
    """Of the evaluation."""
    problem: str | None = None
    """Why the row cannot run here."""

    @property
    def hours(self) -> float | None:
        """Of the whole row, at this pace."""
        if self.step_seconds is None or self.clip_evaluation_seconds is None:
            return None
        evaluation = self.clip_evaluation_seconds * (self.clips or 0)
        return (self.step_seconds * (self.steps or 0) + evaluation) / 3600


def dry_run(
    experiments: Mapping[str, Experiment],
    names: Mapping[str, str],
    roots: Mapping[str, Path],
    weights: Mapping[str, Path],
) -> bool:
    """Run each training's dry run once and print what it takes; -> whether every row can run here."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    findings: dict[str, Findings] = {}
    for exp in experiments.values():
        if exp.training_hash not in findings:
            print(f"dry run of {names[exp.hash]} ...", flush=True)
            findings[exp.training_hash] = of_row = _in_own_process(exp, roots, weights, device)
            if of_row.problem:
                print(f"  cannot run: {of_row.problem}", flush=True)
    _print_table({names[key]: findings[exp.training_hash] for key, exp in experiments.items()}, device)
    for exp in experiments.values():
        if problem := findings[exp.training_hash].problem:
            print(f"cannot run: {names[exp.hash]}: {problem}", file=sys.stderr)
    return not any(f.problem for f in findings.values())


def _print_table(rows: Mapping[str, Findings], device: str) -> None:
    table = Table(
        "row", "GFLOPs", "params M", "data s", "step s", "memory GiB", "eval s/clip", "whole row h", "runs"
    )
    for name, f in rows.items():
        table.add_row(
            name,
            _number(f.gflops),
            _number(f.parameters, 1e6),
            _number(f.data_seconds),
            _number(f.step_seconds) or (f"{_number(f.clip_seconds)} a clip" if f.clip_seconds else ""),
            _number(f.needed, GIB),
            _number(f.clip_evaluation_seconds),
            _number(f.hours),
            "no" if f.problem else "yes",
        )
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else 160).print(table)
    print(
        f"On {device}. Step: the whole batch, forward, backward and update, its clips read by one process. "
        "Memory: the peak of a step. Whole row: at this pace, on one device, without validation."
    )


def _number(value: float | None, unit: float = 1.0) -> str:
    if value is None:
        return ""
    number = value / unit
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def _in_own_process(
    exp: Experiment, roots: Mapping[str, Path], weights: Mapping[str, Path], device: str
) -> Findings:
    """A row's dry run in a fresh process, whose peak memory is its own; its death is a finding."""
    context = multiprocessing.get_context("spawn")
    reports: Queue[dict[str, Any]] = context.Queue()
    process = context.Process(target=_run, args=(asdict(exp), dict(roots), dict(weights), device, reports))
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


def _run(
    values: dict[str, Any],
    roots: dict[str, Path],
    weights: dict[str, Path],
    device: str,
    reports: Queue[dict[str, Any]],
) -> None:
    findings = Findings()
    context = RunContext(torch.device(device), out=Path(), weights=weights)
    try:
        _measure(Experiment(**values), roots, context, findings, reports)
    except torch.OutOfMemoryError as error:
        findings.problem = f"out of GPU memory: {str(error).splitlines()[0]}"
    except Exception as error:  # whatever it is, the row cannot run, and the others are still to come
        findings.problem = f"{type(error).__name__}: {error}"
    reports.put(asdict(findings))


def _measure(
    exp: Experiment,
    roots: dict[str, Path],
    context: RunContext,
    findings: Findings,
    reports: Queue[dict[str, Any]],
) -> None:
    """Fill in the findings, and report them after each part, so that they survive a killed process."""
    counted = count_experiment(exp)
    findings.gflops, findings.parameters = counted.gflops, counted.params
    clock = time.monotonic()
    data = load_data(exp, roots)
    findings.data_seconds = time.monotonic() - clock
    findings.clips = len(data.report)
    findings.steps, _ = training_steps(exp, len(data.train))
    torch.manual_seed(exp.seed)
    model = build_model(exp, len(data.train.classes))
    if exp.weights is not None and not exp.weights.startswith(TRAINING):
        file = weights_file(exp, context.weights, Path())
        assert file is not None
        initialise(model, file)
    model.to(context.device)
    reports.put(asdict(findings))
    _step(model, data, exp, context, clips=1)  # the optimizer's state and the libraries' own buffers
    findings.clip_seconds, first = _step(model, data, exp, context, clips=1)
    reports.put(asdict(findings))
    _, second = _step(model, data, exp, context, clips=2)
    findings.free = _free(context.device)
    findings.needed = first + max(second - first, 0) * (exp.batch - 1)
    reports.put(asdict(findings))
    if findings.needed > findings.free:
        findings.problem = (
            f"a batch of {exp.batch} clips needs about {findings.needed / GIB:.1f} GiB, "
            f"and this {context.device.type} has {findings.free / GIB:.1f} GiB; --set accumulate=2, 4, ... "
            "or --set checkpointing=true reduces it"
        )
        return
    findings.step_seconds, findings.needed = _step(model, data, exp, context, clips=exp.batch)
    subset = subsample(data.report, min(exp.batch, len(data.report)))
    clock = time.monotonic()
    detections = predict(model, subset, exp, context, given_boxes(exp, subset, roots[exp.dataset]))
    frame_ap(subset, detections, protocol_of(exp))
    findings.clip_evaluation_seconds = (time.monotonic() - clock) / len(subset)


def _step(
    model: nn.Module, data: Data, exp: Experiment, context: RunContext, *, clips: int
) -> tuple[float, float]:
    """-> seconds and peak bytes of one training step with this many clips."""
    one = replace(exp, batch=clips, epochs=clips / len(data.train), warmup_epochs=0)
    gc.collect()
    _reset_peak(context.device)
    clock = time.monotonic()
    fit(new_state(model, one, steps=1, warmup=0), data.train, one, context)
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
