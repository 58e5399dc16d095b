"""`nox -s search`: tune a row's loss weights, no-actor weight, learning rate and theta.

Optuna proposes, ASHA stops the worst trials, and both see training data alone: every fifth training video is
held out, and a trial's metric is its frame-mAP there. OUT/search/<row>/ gets trials.csv, a line for each
finished trial, and winner.txt, an Experiment to paste into benchmarks/experiments.py. The same command
resumes from the trials in trials.csv. Trials finish in an order that depends on the machine, and Optuna's
next proposal on the trials it knows: two searches are alike, not the same.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from actloc_core.cli import command_parser
from actloc_core.detector import resolve_device
from benchmarks.context import RunContext
from benchmarks.experiments import OURS, ROWS, SCALES, Experiment, choose, rows_at
from benchmarks.inputs import (
    add_common_options,
    check_data,
    exit_code,
    given_roots,
    initial_rows,
    positive,
    weight_files,
    with_synthetic,
)
from benchmarks.run import run
from benchmarks.score.results import save
from benchmarks.train.models import weights_file

if TYPE_CHECKING:
    from benchmarks.sweep.search import TrialLog

SPACE: dict[str, tuple[float, float]] = {
    "l1": (1.0, 20.0),
    "giou": (0.5, 8.0),
    "actor": (0.5, 8.0),
    "action": (1.5, 24.0),
    "eos_coef": (0.02, 0.5),
}
"""Field of an Experiment -> range, sampled log-uniformly: a factor of four and more about the paper's."""
LR = 4.0
"""The learning rate is sampled between a row's own divided and multiplied by this."""


def main(argv: list[str] | None = None) -> int:
    """Run the command; -> the exit status.

    Raises ValueError or FileNotFoundError for input that cannot be used.
    """
    args = parser().parse_args(argv)
    [row] = choose([args.row])
    exp = rows_at(args.scale, seed=args.seed)[row]
    given = given_roots(args.data, {row: exp})
    downloads = args.out / "weights" if args.pretrained else None
    weights = weight_files(args.weights, {exp.hash: exp}, downloads)
    roots = with_synthetic(given, {row: exp}, args.out / "data")
    check_data({exp.hash: exp}, roots)
    initial_weights = weights_file(exp, weights, args.out / "trainings")
    if initial_weights is not None and not initial_weights.exists():  # a small row's pre-training
        [(name, initial)] = initial_rows([exp], args.scale).items()
        if not args.quiet:
            print(f"{name}: {row} is initialised from it; training it first", flush=True)
        initial_roots = with_synthetic({}, {name: initial}, args.out / "data")
        run([initial], initial_roots, RunContext(resolve_device(None), args.out))
    from benchmarks.sweep.search import TrialLog  # with Ray, which takes seconds to import

    folder = args.out / "search" / f"{row.replace('/', '_')}_{args.scale}_{exp.hash}"
    folder.mkdir(parents=True, exist_ok=True)
    log = TrialLog(folder / "trials.csv", space_of(exp), quiet=args.quiet)
    left = max(args.trials - len(log.trials), 0)
    if not args.quiet:
        print(f"{row} at scale {args.scale}: {len(log.trials)} trials done, {left} to run", flush=True)
    if left:
        _search(exp, roots, initial_weights, log, left, args)
    if not log.trials:
        print("no trial has finished", file=sys.stderr)
        return 1
    print(log.table())
    winner = pasted(row, exp, max(log.trials, key=lambda trial: trial["mAP"]), args.scale)
    save(folder / "winner.txt", lambda path: path.write_text(winner))
    print(f"\n{winner}\nwritten to {folder / 'winner.txt'}; all trials: {log.path}")
    return 0


def _search(
    exp: Experiment,
    roots: Mapping[str, Path],
    initial_weights: Path | None,
    log: TrialLog,
    trials: int,
    args: argparse.Namespace,
) -> None:
    if not args.quiet:
        print("starting Ray ...", flush=True)
    from benchmarks.sweep.cluster import cluster, resources_per_process
    from benchmarks.sweep.search import SearchSpec, search

    with cluster(args.address) as machines:
        resources, at_once = resources_per_process([machine["Resources"] for machine in machines])
        spec = SearchSpec(
            asdict(exp),
            {name: str(path.resolve()) for name, path in roots.items()},
            None if initial_weights is None else str(initial_weights.resolve()),
            resources,
        )
        search(spec, log, trials=trials, seed=args.seed, at_once=at_once, logs=log.path.parent)


def parser() -> argparse.ArgumentParser:
    """The options."""
    p = command_parser("benchmarks.search", __doc__)
    p.add_argument("--row", default="2b/two_c_t", metavar="ROW", help="table/row (default: 2b/two_c_t)")
    p.add_argument("--trials", type=positive, default=16, metavar="N", help="in all (default: 16)")
    p.add_argument("--seed", type=int, default=0, help="of the proposals and the trainings (default: 0)")
    p.add_argument("--scale", choices=SCALES, default="tiny", help="size of every run (default: tiny)")
    add_common_options(p)
    p.add_argument("--quiet", action="store_true", help="show no progress, only all trials and the winner")
    return p


def space_of(exp: Experiment) -> dict[str, tuple[float, float]]:
    """From where to where each tuned field is drawn, the learning rate around the row's own."""
    return SPACE | {"lr": (exp.lr / LR, exp.lr * LR)}


def pasted(row: str, exp: Experiment, trial: Mapping[str, float], scale: str) -> str:
    """A trial as a line of benchmarks/experiments.py, below what is to be known of it."""
    fields = {name: float(f"{trial[name]:.3g}") for name in space_of(exp)} | {"theta": trial["theta"]}
    changes = ", ".join(f"{name}={value!r}" for name, value in fields.items())
    base = "OURS" if ROWS[row] == OURS else f"ROWS[{row!r}]"
    if scale != "paper":  # which has a recipe of its own: the numbers are for that one
        base = f"at_scale({base}, {scale!r})"
    return (
        f"# {row} at scale {scale}: frame-mAP {100 * trial['mAP']:.1f} on held-out training videos\n"
        f"replace({base}, {changes})\n"
    )


if __name__ == "__main__":
    sys.exit(exit_code(main))
