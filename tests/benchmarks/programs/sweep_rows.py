"""Sweeps rows that end in different ways, and prints the events: ROOT OUT HOW ROW...

HOW: "side by side" or "one by one".
"""

import sys
from dataclasses import replace
from pathlib import Path

from benchmarks.context import Step
from benchmarks.experiments import OURS, at_scale
from benchmarks.sweep.cluster import Resources, cluster
from benchmarks.sweep.trials import WATCHDOG_TIMEOUT_S, SweepOptions, sweep


def say(line: str) -> None:
    """Print in one piece: Ray's own threads print, too."""
    sys.stdout.write(f"{line}\n")


class Print:
    """Prints each event."""

    def started(self, training: str) -> None:
        """On a line of its own, as the others."""
        say(f"started {training}")

    def progressed(self, training: str, step: Step) -> None:
        """With the number of the step."""
        say(f"progressed {training} {step.step} {step.steps}")

    def finished(self, training: str) -> None:
        """The training alone."""
        say(f"finished {training}")

    def failed(self, training: str, reason: str) -> None:
        """With the reason, which may have several lines."""
        say(f"failed {training} {reason}")


good = replace(at_scale(OURS, "smoke"), weights=None, frames=4, stride=4, crop=32, epochs=0.2)
ROWS = {
    "good": good,
    "unknown": replace(good, selection="no_such_selection"),
    "hurried": replace(good, selection="leaves_no_time"),
    "killed": replace(good, selection="kills_its_process"),
    "hung": replace(good, selection="hangs"),
    "huge": replace(good, selection="wants_all_memory"),
    "nan": replace(good, lr=1e30, clip_norm=1e30),
}
root, out = map(Path, sys.argv[1:3])
side_by_side = sys.argv[3] == "side by side"
rows = {name: ROWS[name] for name in sys.argv[4:]}
with cluster() as machines:
    options = SweepOptions(
        resources=Resources(1.0 if side_by_side else machines[0]["Resources"]["CPU"], 0.0),
        watchdog_timeout=30.0 if "hung" in rows else WATCHDOG_TIMEOUT_S,
    )
    trainings = {exp.training_hash: [exp] for exp in rows.values()}
    sweep(trainings, {good.dataset: root}, out, Print(), options)
for name, exp in rows.items():
    print(name, exp.training_hash, (out / "runs" / exp.hash / "result.json").exists())
