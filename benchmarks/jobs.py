"""A job: experiments with the files that they need, run where their results are missing or out of date."""

from __future__ import annotations

import argparse
import graphlib
import importlib.util
import os
import sys
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.experiments import TRAINING, Experiment
from benchmarks.inputs import given_roots, positive, weight_files, with_synthetic
from benchmarks.loading import CPUS_PER_GPU
from benchmarks.score.provenance import scoring_code
from benchmarks.score.results import read_result
from benchmarks.sweep.display import SweepDisplay
from benchmarks.sweep.storage import fetch
from benchmarks.train.gflops import count_experiment
from benchmarks.train.models import weights_file
from benchmarks.train.training import origin_of

if TYPE_CHECKING:
    from benchmarks.sweep.cluster import Resources

LOGGERS = ("tensorboard", "wandb", "mlflow")
ORIGINS = {
    "data": "the data",
    "weights": "the initialisation weights",
    "code": "the training code",
    "scoring": "the scoring code",
}
"""Part of `Result.origin` -> what it is."""


@dataclass(frozen=True)
class Job:
    """What the command line asks for, read and checked."""

    names: dict[str, str]
    """Hash of each distinct experiment -> the names of its rows, for it may stand in several tables."""
    experiments: dict[str, Experiment]
    roots: dict[str, Path]
    weights: dict[str, Path]
    out: Path


def add_machine_options(p: argparse.ArgumentParser) -> None:
    """Options of how the machines' processors are shared, and of where results are copied to."""
    p.add_argument(
        "--mirror",
        metavar="URI",
        help="remote storage to sync results with (s3://, gs://, file://): machines then share no --out",
    )
    p.add_argument(
        "--processes",
        type=positive,
        metavar="N",
        help="that share each run and its batch, with a GPU or a core each (default: as many as leave no GPU "
        "idle; 1 without GPUs)",
    )
    p.add_argument(
        "--log-to",
        nargs="+",
        default=[],
        choices=LOGGERS,
        help="loss and mAP of every training to these, too, through Ray's callbacks; pip install "
        "'actloc[wandb]' or 'actloc[mlflow]' (OUT/logs has TensorBoard's files and csv always)",
    )
    p.add_argument("--quiet", action="store_true", help="no progress, only what was done and what failed")
    p.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="loader processes of each process (default: the cores of its GPU's share, up to "
        f"{CPUS_PER_GPU - 1}; 0 without a GPU)",
    )
    p.add_argument(
        "--gpus-each",
        type=float,
        metavar="F",
        help="for each process: 1, 0, or a fraction: runs then share a GPU (default: 1 where there are any)",
    )


def read_job(args: argparse.Namespace, rows: Mapping[str, Experiment]) -> Job:
    """The rows' distinct experiments and the files that they need.

    Raises ValueError or FileNotFoundError naming what is missing.
    """
    names: dict[str, str] = {}
    for name, exp in rows.items():
        names[exp.hash] = f"{names[exp.hash]} = {name}" if exp.hash in names else name
    experiments = {exp.hash: exp for exp in rows.values()}
    roots = given_roots(args.data, rows)
    downloads = args.out / "weights" if args.pretrained else None
    weights = weight_files(args.weights, experiments, downloads)
    # Last, for it takes a minute: all options are checked before.
    return Job(names, experiments, with_synthetic(roots, rows, args.out / "data"), weights, args.out)


def run_job(job: Job, fingerprints: Mapping[str, str], args: argparse.Namespace) -> int:
    """Run the rows that are due, and print what is done; -> the exit code.

    args: `add_machine_options`, `add_common_options` and --fresh.
    """
    if args.mirror:
        fetch_done(args.mirror, args.out, job.experiments.values())
    due = rows_to_run(job, fingerprints, fresh=args.fresh)
    missing: dict[str, list[Experiment]] = {}  # training -> its rows without a result
    for key, why in due.items():
        exp = job.experiments[key]
        print(f"{job.names[key]} [{key}]: {'up to date' if why is None else f'to run ({why})'}")
        if why is not None:
            # The last file to be written and the first to be removed: a run is done where it is there.
            (args.out / "runs" / key / "result.json").unlink(missing_ok=True)
            missing.setdefault(exp.training_hash, []).append(exp)
    failures = run_missing(missing, job, args) if missing else {}
    return _print_outcome(job, missing, failures)


def _print_outcome(job: Job, missing: Mapping[str, list[Experiment]], failures: Mapping[str, str]) -> int:
    """Print the failed rows with their reasons; -> the exit code."""
    failed = {
        exp.hash: reason
        for training, reason in failures.items()
        for exp in missing[training]
        if unfinished([exp], job.out)
    }
    for key, reason in failed.items():
        print(f"failed: {job.names[key]} [{key}]: {reason}", file=sys.stderr)
        log = job.out / "trainings" / job.experiments[key].training_hash / "trial.log"
        if log.exists():
            print(f"    log of training {log.parent.name}: {log}", file=sys.stderr)
    done = len(job.experiments) - len(failed)
    print(f"{done} of {len(job.experiments)} runs have a result in {job.out / 'runs'}")
    return 1 if failed else 0


def rows_to_run(job: Job, fingerprints: Mapping[str, str], *, fresh: bool) -> dict[str, str | None]:
    """Hash -> why a run is due; None where its result is up to date."""
    due = {
        key: why_run(job.out, exp, fingerprints[key], job.weights, fresh=fresh)
        for key, exp in job.experiments.items()
    }
    initialise = {job.experiments[key].weights for key, why in due.items() if why}
    for key, exp in job.experiments.items():
        checkpoint = job.out / "trainings" / exp.training_hash / "checkpoint.pt"
        if TRAINING + exp.training_hash in initialise and not checkpoint.exists():
            due[key] = due[key] or "others are initialised from its weights, which are missing"
    return due


def why_run(
    out: Path, exp: Experiment, fingerprint: str, weights: Mapping[str, Path], *, fresh: bool
) -> str | None:
    """Why a run is due, in words; None where its result is up to date."""
    folder = out / "runs" / exp.hash
    if fresh:
        return "--fresh"
    if not (folder / "result.json").exists():
        training = out / "trainings" / exp.training_hash
        if (training / "checkpoint.pt").exists():
            return "trained, not scored"
        return "not finished" if any(training.glob("*.pt")) else "new"
    try:
        result = read_result(folder / "result.json")
    except ValueError:
        return "its result is of another version"
    file = weights_file(exp, weights, out / "trainings")
    if file is not None and not file.exists():
        return "the training it is initialised from is missing"
    now = origin_of(exp, fingerprint, file) | {"scoring": scoring_code()}
    changed = [what for part, what in ORIGINS.items() if result.origin.get(part) != now[part]]
    return f"{' and '.join(changed)} changed" if changed else None


def run_missing(
    missing: Mapping[str, list[Experiment]], job: Job, args: argparse.Namespace
) -> dict[str, str]:
    """Run the rows without a result; -> training -> reason of those that failed.

    missing: training -> its rows. Raises ValueError for insufficient resources, or machines that do not see
    the files.
    """
    sizes = [group[0].batch for group in missing.values()]
    if args.processes and (uneven := [size for size in sizes if size % args.processes]):
        raise ValueError(
            f"a batch of {uneven[0]} clips cannot be shared evenly by {args.processes} processes"
        )
    if args.workers is not None and args.workers < 0:
        raise ValueError(f"--workers {args.workers}: give at least 0")
    _check_loggers(args.log_to)
    if not args.quiet:
        some = "1 training" if len(missing) == 1 else f"{len(missing)} trainings"
        print(f"starting Ray for {some} ...", flush=True)
    # Ray takes seconds to import: not for --list or errors.
    from benchmarks.sweep.cluster import check_storage, cluster
    from benchmarks.sweep.trials import SweepOptions, sweep

    titles = {
        training: ", ".join(job.names[exp.hash] for exp in group) for training, group in missing.items()
    }
    with cluster(args.address) as machines:
        processes, resources, at_once = _arrange(sizes, [machine["Resources"] for machine in machines], args)
        if args.address is not None or args.mirror is not None:
            needed = [*job.roots.values(), *job.weights.values()]
            check_storage(machines, job.out, needed, mirror=args.mirror)
            print(f"{len(machines)} machines, {at_once} runs at once", flush=True)
        options = SweepOptions(
            resources=resources,
            processes=processes,
            at_once=at_once,
            mirror=args.mirror,
            weights={name: path.resolve() for name, path in job.weights.items()},
            fresh=uuid.uuid4().hex if args.fresh else "",
            log_to=tuple(args.log_to),
        )
        with SweepDisplay(titles, at_once=at_once, quiet=args.quiet) as display:
            for wave in waves(missing):
                ready = _ready(wave, job, display)
                sweep(ready, job.roots, job.out, display, options)
                if args.mirror:
                    fetch_done(args.mirror, job.out, [exp for group in ready.values() for exp in group])
                if any(
                    unfinished(group, job.out) and training not in display.failures
                    for training, group in ready.items()
                ):
                    break  # the sweep was interrupted, which it does not report
    for training, group in missing.items():
        if training not in display.failures and unfinished(group, job.out):
            display.failures[training] = "interrupted; rerun the same command to resume"
    return display.failures


def _check_loggers(names: Sequence[str]) -> None:
    """Raise ValueError for a logger that is not installed, or has nowhere to write."""
    for name in names:
        if name != "tensorboard" and importlib.util.find_spec(name) is None:
            raise ValueError(f"--log-to {name}: it is not installed: pip install 'actloc[{name}]'")
    if "mlflow" in names and not os.environ.get("MLFLOW_TRACKING_URI"):
        raise ValueError("--log-to mlflow: set MLFLOW_TRACKING_URI to its server or database")


def _arrange(
    batches: Sequence[int], machines: Sequence[Mapping[str, float]], args: argparse.Namespace
) -> tuple[int, Resources, int]:
    """-> (processes of a run, resources of each, runs at once); where there are GPUs, in a line, too.

    batches: clips of each training's batch. machines: the "CPU" and "GPU" that each has.
    """
    from benchmarks.sweep.cluster import processes_per_run, resources_per_process

    gpus, processes = int(sum(machine.get("GPU", 0) for machine in machines)), args.processes or 1
    if not args.processes and args.gpus_each in (None, 1):
        processes = processes_per_run(gpus, len(batches), batches)
    resources, at_once = resources_per_process(
        machines, processes=processes, gpus_each=args.gpus_each, workers=args.workers
    )
    if gpus:
        used = min(at_once, len(batches)) * processes * resources.num_gpus
        print(
            f"{gpus} GPUs, {max(0, gpus - used):g} of them idle: {len(batches)} trainings, {processes} "
            f"processes each (--processes), {resources.workers} loader processes for each (--workers)",
            flush=True,
        )
    return processes, resources, at_once


def _ready(
    wave: Mapping[str, list[Experiment]], job: Job, display: SweepDisplay
) -> dict[str, list[Experiment]]:
    """The trainings of a wave whose initialisation weights are there; the others have failed."""
    ready = {}
    for training, group in wave.items():
        file = weights_file(group[0], job.weights, job.out / "trainings")
        if file and not file.exists():
            display.failed(training, "the training it is initialised from has failed")
        else:
            ready[training] = group
    return ready


def fetch_done(mirror: str, out: Path, experiments: Iterable[Experiment]) -> None:
    """Fetch into `out` what a mirror has of these."""
    for exp in experiments:
        fetch(mirror, out, f"trainings/{exp.training_hash}")
        fetch(mirror, out, f"runs/{exp.hash}")


def unfinished(group: list[Experiment], out: Path) -> bool:
    """Whether a row of the group has no result."""
    return not all((out / "runs" / exp.hash / "result.json").exists() for exp in group)


def waves(trainings: Mapping[str, list[Experiment]]) -> list[dict[str, list[Experiment]]]:
    """The trainings in waves, none initialised from the weights of one in its own or a later wave.

    In a wave the longest come first, so that no core waits long for the last.
    """
    longest_first = list(trainings)
    if len(trainings) > 1:  # to count the first FLOPs takes two seconds
        longest_first.sort(key=lambda training: -work(trainings[training][0]))
    sorter = graphlib.TopologicalSorter(
        {
            training: {(trainings[training][0].weights or "").removeprefix(TRAINING)} & trainings.keys()
            for training in longest_first
        }
    )
    sorter.prepare()
    order = []
    while sorter.is_active():
        ready = set(sorter.get_ready())
        order.append({training: trainings[training] for training in longest_first if training in ready})
        sorter.done(*ready)
    return order


def work(exp: Experiment) -> float:
    """How long a training takes, in no unit, for comparison: passes over the data times GFLOPs."""
    return exp.epochs * count_experiment(exp).gflops
