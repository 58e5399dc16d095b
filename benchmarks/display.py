"""What a sweep shows while it runs: a live table on a terminal, plain lines in a pipe."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table

from benchmarks.training import Progress

LINE_EVERY = 30.0
"""Seconds between the lines of one trial in a pipe."""


@dataclass
class Line:
    """One trial's state as last heard."""

    name: str
    state: str = "waits"
    progress: Progress | None = None
    printed: float = 0.0


class SweepDisplay:
    """A `benchmarks.sweep.Observer` for people. Use as a context: the live table ends with it.

    names: hash of a training -> the names of its rows, of the trainings that are to come.
    at_once: how many run side by side, for the estimate of the time left.
    """

    def __init__(self, names: Mapping[str, str], *, at_once: int) -> None:
        self.lines = {key: Line(name) for key, name in names.items()}
        self.at_once = at_once
        self.failures: dict[str, str] = {}
        self.begun = time.monotonic()
        self.console = Console(file=sys.stdout)
        live = self.console.is_terminal
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

    def started(self, key: str) -> None:
        """Says that a trial begins."""
        self._say(key, "starts")

    def progressed(self, key: str, progress: Progress) -> None:
        """Notes how far a trial is; in a pipe it says so once in a while."""
        line = self.lines[key]
        line.progress, line.state = progress, "trains"
        if progress.step == progress.steps:
            line.state = "is scored"
        if not self.live and time.monotonic() - line.printed > LINE_EVERY:
            self._print(line)

    def finished(self, key: str) -> None:
        """Says that a trial is done."""
        self._say(key, "done")

    def failed(self, key: str, reason: str) -> None:
        """Says that a trial failed; the reason is told at the end."""
        self.failures[key] = reason
        self._say(key, "FAILED")

    def _say(self, key: str, state: str) -> None:
        line = self.lines[key]
        line.state = state
        if not self.live:
            self._print(line)

    def _print(self, line: Line) -> None:
        line.printed = time.monotonic()
        state, *numbers = _cells(line).items()
        said = ", ".join([state[1], *(f"{what} {number}" for what, number in numbers if number)])
        print(f"[{_clock(time.monotonic() - self.begun)}] {line.name}: {said}", flush=True)

    def table(self) -> Table:
        """The trials as they stand, with what is left of each."""
        spent = time.monotonic() - self.begun
        title = f"{_clock(spent)} gone" + (f", about {_clock(left)} left" if (left := self.left()) else "")
        table = Table("trial", "state", "step", "loss", "val mAP", "left", title=title)
        for line in self.lines.values():
            table.add_row(line.name, *_cells(line).values())
        return table

    def left(self) -> float | None:
        """Seconds, from the pace of the trials heard so far; None before the first word."""
        paces = [
            line.progress.seconds / line.progress.step * line.progress.steps
            for line in self.lines.values()
            if line.progress and line.progress.step
        ]
        if not paces:
            return None
        whole = sum(paces) / len(paces)
        rest = sum(
            whole if line.progress is None else max(whole * (1 - line.progress.step / line.progress.steps), 5)
            for line in self.lines.values()
            if line.state not in ("done", "FAILED")
        )
        return rest / self.at_once


def _cells(line: Line) -> dict[str, str]:
    p = line.progress
    if p is None:
        return {"state": line.state, "step": "", "loss": "", "val mAP": "", "left": ""}
    over = line.state in ("done", "FAILED")
    return {
        "state": line.state,
        "step": f"{p.step}/{p.steps}",
        "loss": f"{p.loss:.2f}",
        "val mAP": "" if p.mAP is None else f"{100 * p.mAP:.1f}",
        "left": "" if over else _clock(p.seconds / p.step * (p.steps - p.step)),
    }


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
