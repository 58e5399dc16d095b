"""`python -m benchmarks.gpu`: what training at the paper's size takes on this GPU, in eight minutes.

    python -m benchmarks.gpu                        all sections but `compile`
    python -m benchmarks.gpu --only speed kernels   these sections; the figures of the others are kept
    python -m benchmarks.gpu --device cpu --quick   small models, in a minute, as in the tests

Needs torch, numpy, scipy, pandas, pillow and pyarrow alone: clips are rendered in memory, but for `loader`
and `feeding`, which read files and say so where av is missing. Writes OUT/gpu/gpu.json after each section and
OUT/gpu/gpu.md, whose last measured copy is docs/gpu.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from actloc_core import cli
from benchmarks.profile import accuracy, kernels, loader, page, processes, speed, trains
from benchmarks.score.provenance import git_commit
from benchmarks.score.results import save

SECTIONS: dict[str, Callable[[torch.device, bool, float], Any]] = {
    "ceilings": lambda device, quick, seconds: speed.ceilings(device, quick),
    "accuracy": lambda device, quick, seconds: accuracy.accuracy(device, quick),
    "speed": lambda device, quick, seconds: speed.speed(device, quick),
    "eager": lambda device, quick, seconds: speed.eager(device, quick),
    "graphs": lambda device, quick, seconds: speed.graphs(device, quick),
    "plain": lambda device, quick, seconds: speed.plain(device, quick),
    "kernels": lambda device, quick, seconds: kernels.kernels(device, quick),
    "depthwise": lambda device, quick, seconds: kernels.depthwise(device, quick),
    "trains": trains.trains,
    "processes": lambda device, quick, seconds: processes.processes(device, quick),
    "loader": lambda device, quick, seconds: loader.loader(device, quick),
    "feeding": lambda device, quick, seconds: loader.feeding(device, quick),
    "compile": lambda device, quick, seconds: speed.compiled(device, quick),
}
"""In the order in which they run."""
ON_REQUEST = ("compile",)
"""Sections that run when asked for alone: torch.compile takes five minutes before the first step."""


def main(argv: list[str] | None = None) -> int:
    """Measure, print and write; -> 0, or 1 where a section failed. Raises ValueError without a GPU."""
    args = parser().parse_args(argv)
    if args.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("torch sees no GPU here; try the command with --device cpu --quick")
    device = torch.device(args.device)
    path = args.out / "gpu" / "gpu.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    figures: dict[str, Any] = json.loads(path.read_text()) if path.exists() and args.only else {}
    figures["machine"] = machine(device, args.quick)
    seconds = args.train_seconds
    if seconds is None:
        seconds = 10.0 if args.quick else 180.0
    failed = 0
    for name in args.only or [name for name in SECTIONS if name not in ON_REQUEST]:
        clock = time.perf_counter()
        try:
            figures[name] = SECTIONS[name](device, args.quick, seconds)
        except Exception:  # the sections behind it are measured all the same
            figures[name] = {"error": traceback.format_exc()}
            failed += 1
        figures.setdefault("commits", {})[name] = git_commit()
        torch.backends.cudnn.benchmark = False
        if device.type == "cuda":
            torch.cuda.empty_cache()
        if not args.quiet:
            print(f"{name}: {time.perf_counter() - clock:.0f} s", flush=True)
        _write(path, figures)
    print(page.markdown(figures))
    return 1 if failed else 0


def machine(device: torch.device, quick: bool) -> dict[str, Any]:
    """The device and versions that the figures belong to."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "quick": quick,
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def _write(path: Path, figures: Mapping[str, Any]) -> None:
    text = json.dumps(figures, indent=1)
    save(path, lambda part: part.write_text(text + "\n"))
    markdown = page.markdown(figures)
    save(path.with_suffix(".md"), lambda part: part.write_text(markdown + "\n"))


def parser() -> argparse.ArgumentParser:
    """The options."""
    p = cli.command_parser("benchmarks.gpu", __doc__)
    p.add_argument(
        "--device", choices=("cuda", "cpu"), default="cuda", help="what to measure (default: cuda)"
    )
    p.add_argument("--quick", action="store_true", help="small models and few repetitions")
    p.add_argument("--only", nargs="+", choices=SECTIONS, metavar="SECTION", help=", ".join(SECTIONS))
    p.add_argument(
        "--train-seconds", type=float, metavar="S", help="of `trains` (default: 180; 10 with --quick)"
    )
    p.add_argument("--out", type=Path, default=Path("out"), help="output directory (default: out)")
    p.add_argument("--quiet", action="store_true", help="show no progress")
    return p


if __name__ == "__main__":
    sys.exit(cli.exit_code(main, interrupted="interrupted; --only measures the missing sections"))
