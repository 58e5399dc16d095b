"""The main job: `python -m benchmarks.ablations` trains and scores the rows of the paper's tables.

    python -m benchmarks.ablations                         every row, small, on this machine
    python -m benchmarks.ablations --only 2b/tubelet 2a    one row and one table
    python -m benchmarks.ablations --fresh                 again, although there are results
    python -m benchmarks.ablations --list                  the rows, and which have a result

Results go to OUT/runs/<hash>/; `python -m reports` makes the tables of them. Finished runs are
skipped by the next call. Exit status: 0 all rows have a result, 1 a run failed, 2 bad input.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks.display import SweepDisplay
from benchmarks.experiments import SCALES, Experiment, at_scale, choose
from benchmarks.run import load_data, read_result
from datasets import synthetic, synthetic_tubes


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    try:
        rows = {name: at_scale(exp, args.scale) for name, exp in choose(args.only).items()}
        runs = args.out / "runs"
        if args.list:
            for name, exp in rows.items():
                state = "done" if (runs / exp.hash / "result.json").exists() else "not run"
                print(f"{name:32} {exp.hash}  {state}")
            return 0
        roots = data_roots(args.data, rows, args.out / "data")
        experiments = {exp.hash: exp for exp in rows.values()}
        fingerprints = check_data(experiments, roots)
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2

    names: dict[str, str] = {}
    for name, exp in rows.items():  # one run may stand in several tables
        names[exp.hash] = f"{names[exp.hash]} = {name}" if exp.hash in names else name
    missing = {}
    for key, exp in experiments.items():
        why = why_run(runs / key, fingerprints[key], fresh=args.fresh)
        print(f"{names[key]} [{key}]: {'done before, kept' if why is None else f'runs ({why})'}")
        if why is not None:
            shutil.rmtree(runs / key, ignore_errors=True)
            missing[key] = exp
    failures = run_missing(missing, names, roots, runs)
    for key, reason in failures.items():
        print(f"failed: {names[key]} [{key}]: {reason}", file=sys.stderr)
    print(f"{len(experiments) - len(failures)} of {len(experiments)} runs have a result in {runs}")
    return 1 if failures else 0


def parser() -> argparse.ArgumentParser:
    summary, _, more = (__doc__ or "").partition("\n\n")
    p = argparse.ArgumentParser(
        prog="python -m benchmarks.ablations",
        description=summary,
        epilog=more,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("--only", nargs="+", default=[], metavar="NAME", help="tables or rows (default: all)")
    p.add_argument("--scale", choices=SCALES, default="tiny", help="size of every run (default: tiny)")
    p.add_argument(
        "--data",
        action="append",
        default=[],
        metavar="NAME=FOLDER",
        help="where a dataset lies, such as ava=/data/ava; synthetic ones are made",
    )
    p.add_argument("--out", type=Path, default=Path("out"), help="folder of all that is made (default: out)")
    p.add_argument("--fresh", action="store_true", help="run again what has a result")
    p.add_argument("--list", action="store_true", help="show the rows and stop")
    return p


def data_roots(given: list[str], rows: Mapping[str, Experiment], made: Path) -> dict[str, Path]:
    """Dataset name -> folder, from NAME=FOLDER arguments; synthetic benchmarks are made if needed."""
    roots = {}
    for text in given:
        name, equals, folder = text.partition("=")
        if not (name and equals and folder):
            raise ValueError(f"--data {text}: write NAME=FOLDER, such as ava=/data/ava")
        roots[name] = Path(folder)
    wanted = {exp.dataset for exp in rows.values()}
    for name in sorted(roots.keys() - wanted):
        raise ValueError(f"--data {name}=...: no chosen row uses it; they use {', '.join(sorted(wanted))}")
    for name in sorted(wanted & (synthetic.SIZES.keys() | synthetic_tubes.SIZES.keys()) - roots.keys()):
        roots[name] = make_synthetic(made, name)
    return roots


def make_synthetic(made: Path, name: str) -> Path:
    """One of the synthetic benchmarks that experiments name, made under `made` where it is not there yet."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    if not synthetic_folder(made, name).exists():
        print(f"making {name} in {made}, once", flush=True)
    with Progress(*columns, transient=True) as bar:
        task = bar.add_task(f"{name}: videos", total=None)

        def progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        if name in synthetic.SIZES:
            root = synthetic.make(made, synthetic.SIZES[name], progress=progress)
        else:
            root = synthetic_tubes.make(made, *synthetic_tubes.SIZES[name], progress=progress)
    print(f"data: {root} ({synthetic.fingerprint(root)})")
    return root


def synthetic_folder(made: Path, name: str) -> Path:
    """Where `make_synthetic` puts a benchmark."""
    if name in synthetic.SIZES:
        return synthetic.folder_of(made, synthetic.SIZES[name])
    return synthetic_tubes.folder_of(made, *synthetic_tubes.SIZES[name])


def check_data(experiments: Mapping[str, Experiment], roots: Mapping[str, Path]) -> dict[str, str]:
    """Read every annotation and look at every video before any training; -> hash -> fingerprint."""
    seen: dict[tuple[object, ...], str] = {}
    fingerprints = {}
    for key, exp in experiments.items():
        same = (exp.dataset, exp.split, exp.keyframe_stride, exp.frames, exp.stride, exp.crop)
        if same not in seen:
            seen[same] = load_data(exp, roots).fingerprint
        fingerprints[key] = seen[same]
    return fingerprints


def why_run(folder: Path, fingerprint: str, *, fresh: bool) -> str | None:
    """Why a run is due, in words; None where its result stands."""
    if not (folder / "result.json").exists():
        return "it was not finished" if folder.exists() else "new"
    if fresh:
        return "asked to run it afresh"
    try:
        result = read_result(folder / "result.json")
    except ValueError:
        return "its result is of another version"
    return None if result.data_fingerprint == fingerprint else "the data changed"


def run_missing(
    missing: Mapping[str, Experiment],
    names: Mapping[str, str],
    roots: Mapping[str, Path],
    runs: Path,
) -> dict[str, str]:
    """Run them; -> hash -> reason of those that failed."""
    if not missing:
        return {}
    print(f"starting Ray for {len(missing)} runs ...", flush=True)
    from benchmarks.sweep import (
        slots,
        sweep,
    )  # Ray takes seconds to import: not for --list or errors

    gpus = torch.cuda.is_available()
    with SweepDisplay({key: names[key] for key in missing}, at_once=slots(gpus=gpus)) as display:
        sweep(missing, roots, runs, display, gpus=gpus)
    for key in missing:
        if key not in display.failures and not (runs / key / "result.json").exists():
            display.failures[key] = "stopped before its end; the same command runs it again"
    return display.failures


if __name__ == "__main__":
    sys.exit(main())
