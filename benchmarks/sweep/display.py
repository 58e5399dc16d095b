"""The display of a sweep: a live table on a terminal, plain lines in a pipe."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table

from benchmarks.context import Step

LINE_EVERY = 30.0
"""Seconds between two lines of one trial in a pipe."""


@dataclass
class Line:
    """One trial's latest state."""

    name: str
    state: str = "waiting"
    step: Step | None = None
    printed: float = 0.0


class SweepDisplay:
    """A `benchmarks.sweep.trials.Observer` on standard output. A context: the live table ends with it.

    names: hash of a training -> the names of its rows, of all trainings of the sweep.
    at_once: how many run side by side, for the estimate of the remaining time. quiet: nothing is printed.
    """

    def __init__(self, names: Mapping[str, str], *, at_once: int, quiet: bool = False) -> None:
        self.lines = {key: Line(name) for key, name in names.items()}
        self.at_once = at_once
        self.failures: dict[str, str] = {}
        self.start = time.monotonic()
        self.console = Console(file=sys.stdout)
        self.quiet = quiet
        live = self.console.is_terminal and not quiet
        self.live = (
            Live(console=self.console, get_renderable=self.table, refresh_per_second=2) if live else None
        )

    def __enter__(self) -> SweepDisplay:
        if self.live:
            self.live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.live:
            self.live.stop()

    def started(self, training: str) -> None:
        """A trial has started."""
        self._update(training, "started")

    def progressed(self, training: str, step: Step) -> None:
        """A trial has taken a step; in a pipe printed once in a while."""
        line = self.lines[training]
        line.step, line.state = step, "training"
        if step.step == step.steps:
            line.state = "scoring"
        if not self.live and time.monotonic() - line.printed > LINE_EVERY:
            self._print(line)

    def finished(self, training: str) -> None:
        """A trial has its results."""
        self._update(training, "done")

    def failed(self, training: str, reason: str) -> None:
        """A trial has failed; the caller prints the reason at the end."""
        self.failures[training] = reason
        self._update(training, "FAILED")

    def _update(self, training: str, state: str) -> None:
        line = self.lines[training]
        line.state = state
        if not self.live:
            self._print(line)

    def _print(self, line: Line) -> None:
        if self.quiet:
            return
        line.printed = time.monotonic()
        state, *numbers = _cells(line).items()
        text = ", ".join([state[1], *(f"{what} {number}" for what, number in numbers if number)])
        print(f"[{_clock(time.monotonic() - self.start)}] {line.name}: {text}", flush=True)

    def table(self) -> Table:
        """The trials and the remaining time of each."""
        spent = time.monotonic() - self.start
        title = f"{_clock(spent)} elapsed" + (f", about {_clock(left)} left" if (left := self.left()) else "")
        table = Table("trial", "state", "step", "loss", "val mAP", "chance", "left", title=title)
        for line in self.lines.values():
            table.add_row(line.name, *_cells(line).values())
        return table

    def left(self) -> float | None:
        """Remaining seconds, from the pace of the trials so far; None before the first step."""
        paces = [
            line.step.seconds / line.step.step * line.step.steps
            for line in self.lines.values()
            if line.step and line.step.step
        ]
        if not paces:
            return None
        whole = sum(paces) / len(paces)
        rest = sum(
            whole if line.step is None else max(whole * (1 - line.step.step / line.step.steps), 5)
            for line in self.lines.values()
            if line.state not in ("done", "FAILED")
        )
        return rest / self.at_once


def _cells(line: Line) -> dict[str, str]:
    step = line.step
    if step is None:
        return {"state": line.state} | dict.fromkeys(("step", "loss", "val mAP", "chance", "left"), "")
    over = line.state in ("done", "FAILED")
    return {
        "state": line.state,
        "step": f"{step.step}/{step.steps}",
        "loss": f"{step.loss:.2f}",
        "val mAP": "" if step.mAP is None else f"{100 * step.mAP:.1f}",
        "chance": "" if step.chance is None else f"{100 * step.chance:.1f}",
        "left": "" if over else _clock(step.seconds / step.step * (step.steps - step.step)),
    }


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
