"""The main job: `python -m benchmarks.ablations` trains and scores the rows of the paper's tables.

    python -m benchmarks.ablations                             the paper's rows, small, on this machine
    python -m benchmarks.ablations --only 2b 2a/256_8          a table and one row
    python -m benchmarks.ablations --only 2b --rows c_t tubelet    these rows of a table
    python -m benchmarks.ablations --only ours                 our table, beyond the paper's
    python -m benchmarks.ablations --seeds 3                   each row from seeds 0, 1 and 2
    python -m benchmarks.ablations --fresh                     run again what has a result
    python -m benchmarks.ablations --set accumulate=2 --set batch=8    a field of every row, another run
    python -m benchmarks.ablations --list                      the rows, and which have a result
    python -m benchmarks.ablations --scale paper --data ava=FOLDER --weights mvitv2_s_k400=FILE --dry-run
        one step and one evaluation of every row at full size: can it run here, and how long will it take?

Results go to OUT/runs/<hash>/, trained models to OUT/trainings/<hash>/; `python -m reports` makes the
tables. Rows that are up to date are skipped, and interrupted trainings are resumed. Exit code: 0 all rows
have a result (or can have one, --dry-run), 1 a run failed, 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from actloc_core.cli import command_parser
from benchmarks.experiments import Experiment, scale_of
from benchmarks.inputs import (
    add_common_options,
    add_scale_options,
    check_data,
    chosen_rows,
    exit_code,
    positive,
)
from benchmarks.jobs import add_machine_options, read_job, run_job


def main(argv: list[str] | None = None) -> int:
    """Run the command; -> the exit code.

    Raises ValueError or FileNotFoundError for input that cannot be used.
    """
    args = parser().parse_args(argv)
    rows = chosen_rows(args.only, args.rows, scale_of(args.scale, args.set), args.seeds)
    if args.list:
        _print_rows(rows, args.out)
        return 0
    job = read_job(args, rows)
    fingerprints = check_data(job.experiments, job.roots)
    if args.dry_run:
        from benchmarks.gates.dry_run import dry_run

        how = {"processes": args.processes or 1, "workers": args.workers}
        return 0 if dry_run(job.experiments, job.names, job.roots, job.weights, **how) else 1
    return run_job(job, fingerprints, args)


def _print_rows(rows: Mapping[str, Experiment], out: Path) -> None:
    for name, exp in rows.items():
        done = (out / "runs" / exp.hash / "result.json").exists()
        print(f"{name:34} {exp.hash}  {'done' if done else 'not run'}")


def parser() -> argparse.ArgumentParser:
    """The options."""
    p = command_parser("benchmarks.ablations", __doc__)
    p.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="NAME",
        help="tables, or table/row (default: the paper's tables)",
    )
    p.add_argument("--rows", nargs="+", default=[], metavar="ROW", help="of these, rows of this name alone")
    p.add_argument(
        "--seeds", type=positive, default=1, metavar="N", help="run each row from N seeds (default: 1)"
    )
    add_scale_options(p)
    add_common_options(p)
    add_machine_options(p)
    p.add_argument("--fresh", action="store_true", help="run again what has a result")
    p.add_argument("--list", action="store_true", help="show the rows and stop")
    p.add_argument(
        "--dry-run", action="store_true", help="one step and one evaluation of each row; no result"
    )
    return p


if __name__ == "__main__":
    sys.exit(exit_code(main))
