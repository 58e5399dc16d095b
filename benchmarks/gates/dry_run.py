"""The dry run: one training step and one evaluation of every row, at its own size, in a process of its own.

A learner of days should know in minutes that a row cannot run. First a single clip takes a step,
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

from benchmarks.data import PROTOCOLS, benchmark, frame_ap, given_boxes, load_data
from benchmarks.engine import Step, fit, predict
from benchmarks.experiments import TRAINING, Experiment
from benchmarks.flops import count_experiment
from benchmarks.models import begin_with, build_model, weights_file
from datasets.split import subsample

GIB = 2**30


@dataclass
class Rehearsal:
    """What one row's rehearsal found out. None is not known."""

    gflops: float | None = None
    parameters: int | None = None
    data_seconds: float | None = None
    """To open the dataset: annotations and a look at each video."""
    clip_seconds: float | None = None
    """Of a training step with one clip."""
    needed: float | None = None
    """Bytes that a step with the whole batch needs, or would need."""
    free: float | None = None
    step_seconds: float | None = None
    """Of a step with the whole batch, its clips read by one process."""
    steps: int | None = None
    """In the whole training."""
    clip_evaluation_seconds: float | None = None
    clips: int | None = None
    """In the evaluation."""
    problem: str | None = None
    """Why the row cannot run here."""

    @property
    def hours(self) -> float | None:
        """Of the whole row, at this pace."""
        if self.step_seconds is None or self.clip_evaluation_seconds is None:
            return None
        evaluation = self.clip_evaluation_seconds * (self.clips or 0)
        return (self.step_seconds * (self.steps or 0) + evaluation) / 3600


def rehearse(
    experiments: Mapping[str, Experiment],
    names: Mapping[str, str],
    roots: Mapping[str, Path],
    weights: Mapping[str, Path],
) -> bool:
    """Rehearse each training once and print what it takes; -> whether every row can run here."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    found: dict[str, Rehearsal] = {}
    for exp in experiments.values():
        if exp.training_hash not in found:
            print(f"rehearsing {names[exp.hash]} ...", flush=True)
            found[exp.training_hash] = rehearsed = _in_own_process(exp, roots, weights, device)
            if rehearsed.problem:
                print(f"  cannot run: {rehearsed.problem}", flush=True)
    table = Table(
        "row", "GFLOPs", "params M", "data s", "step s", "memory GiB", "eval s/clip", "whole row h", "runs"
    )
    for key, exp in experiments.items():
        r = found[exp.training_hash]
        table.add_row(
            names[key],
            _number(r.gflops),
            _number(r.parameters, 1e6),
            _number(r.data_seconds),
            _number(r.step_seconds) or (f"{_number(r.clip_seconds)} a clip" if r.clip_seconds else ""),
            _number(r.needed, GIB),
            _number(r.clip_evaluation_seconds),
            _number(r.hours),
            "no" if r.problem else "yes",
        )
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else 160).print(table)
    print(
        f"On {device}. Step: the whole batch, forward, backward and update, its clips read by one process. "
        "Memory: the most that a step needs. Whole row: at this pace, on one device, without the looks at "
        "the validation split."
    )
    for exp in experiments.values():
        if problem := found[exp.training_hash].problem:
            print(f"cannot run: {names[exp.hash]}: {problem}", file=sys.stderr)
    return not any(r.problem for r in found.values())


def _number(value: float | None, unit: float = 1.0) -> str:
    if value is None:
        return ""
    number = value / unit
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def _in_own_process(
    exp: Experiment, roots: Mapping[str, Path], weights: Mapping[str, Path], device: str
) -> Rehearsal:
    """The rehearsal in a fresh process, whose peak of memory is its own; its death is a finding."""
    context = multiprocessing.get_context("spawn")
    said: Queue[dict[str, Any]] = context.Queue()
    process = context.Process(target=_rehearse, args=(asdict(exp), dict(roots), dict(weights), device, said))
    process.start()
    last: dict[str, Any] = {}
    while process.is_alive() or not said.empty():
        try:
            last = said.get(timeout=0.2)
        except queue.Empty:
            continue
    process.join()
    result = Rehearsal(**last)
    if process.exitcode and not result.problem:
        killed = process.exitcode == -9
        result.problem = (
            "the system killed it, out of memory as a rule" if killed else f"exit {process.exitcode}"
        )
    return result


def _rehearse(
    values: dict[str, Any],
    roots: dict[str, Path],
    weights: dict[str, Path],
    device: str,
    said: Queue[dict[str, Any]],
) -> None:
    found = Rehearsal()
    try:
        _steps(Experiment(**values), roots, weights, torch.device(device), found, said)
    except torch.OutOfMemoryError as error:
        found.problem = f"out of the GPU's memory: {str(error).splitlines()[0]}"
    except Exception as error:  # whatever it is, the row cannot run, and the others are still to come
        found.problem = f"{type(error).__name__}: {error}"
    said.put(asdict(found))


def _steps(
    exp: Experiment,
    roots: dict[str, Path],
    weights: dict[str, Path],
    device: torch.device,
    found: Rehearsal,
    said: Queue[dict[str, Any]],
) -> None:
    """Fills in `found`, and says it after each part: what is known survives a process that is killed."""
    counted = count_experiment(exp)
    found.gflops, found.parameters = counted.gflops, counted.params
    clock = time.monotonic()
    data = load_data(exp, roots)
    found.data_seconds = time.monotonic() - clock
    found.clips = len(data.report)
    found.steps = round(exp.epochs * (len(data.train) // exp.batch))
    torch.manual_seed(exp.seed)
    model = build_model(exp, len(data.train.classes))
    if exp.weights is not None and not exp.weights.startswith(TRAINING):
        file = weights_file(exp, weights, Path())
        assert file is not None
        begin_with(model, file)
    model.to(device)
    said.put(asdict(found))

    def step(clips: int) -> tuple[float, float]:
        """Seconds, and the most bytes in use, of one training step."""
        took: list[Step] = []
        one = replace(exp, batch=clips, epochs=clips / len(data.train), warmup_epochs=0)
        gc.collect()
        _forget_peak(device)
        clock = time.monotonic()
        fit(model, data.train, one, device, on_step=took.append)
        return time.monotonic() - clock, _peak(device)

    step(1)  # the optimizer's state and the libraries' own buffers come with the first
    found.clip_seconds, first = step(1)
    _, second = step(2)
    found.free = _free(device)
    found.needed = first + max(second - first, 0) * (exp.batch - 1)
    said.put(asdict(found))
    if found.needed > found.free:
        found.problem = (
            f"a batch of {exp.batch} clips needs about {found.needed / GIB:.1f} GiB, "
            f"and this {device.type} has {found.free / GIB:.1f} GiB; the experiment's fields accumulate and "
            "checkpointing make it less"
        )
        return
    found.step_seconds, found.needed = step(exp.batch)
    few = subsample(data.report, min(exp.batch, len(data.report)))
    clock = time.monotonic()
    found_few = predict(
        model,
        few,
        device,
        theta=exp.theta,
        score=exp.score,
        batch=exp.batch,
        nms_iou=exp.nms_iou,
        given=given_boxes(exp, few, roots[exp.dataset]),
        keep_aspect=exp.short_sides is not None,
        bf16=exp.bf16,
    )
    frame_ap(few, found_few, PROTOCOLS[benchmark(exp)])
    found.clip_evaluation_seconds = (time.monotonic() - clock) / len(few)


def _forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    elif Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")  # the peak of resident memory, anew


def _peak(device: torch.device) -> float:
    """Bytes: of this process on a GPU, or resident in memory."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated())
    return _proc("/proc/self/status", "VmHWM")


def _free(device: torch.device) -> float:
    """Bytes that this process could have: what it holds already and what is free."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved())
    return _proc("/proc/meminfo", "MemAvailable") + _proc("/proc/self/status", "VmRSS")


def _proc(file: str, field: str) -> float:
    """A field in kB of one of Linux' files, in bytes; infinite or 0 elsewhere is no help, so an error."""
    try:
        line = next(line for line in Path(file).read_text().splitlines() if line.startswith(f"{field}:"))
    except (OSError, StopIteration):
        raise OSError(f"{file} has no {field}: on a CPU the dry run measures memory on Linux alone") from None
    return float(line.split()[1]) * 1024
