"""The main job: `python -m benchmarks.ablations` trains and scores the rows of the paper's tables.

    python -m benchmarks.ablations                             the paper's rows, small, on this machine
    python -m benchmarks.ablations --only 2b 2a/256_8          a table and one row
    python -m benchmarks.ablations --only 2b --rows c_t tubelet    these rows of a table
    python -m benchmarks.ablations --only ours                 our table, beyond the paper's
    python -m benchmarks.ablations --seeds 3                   each row from seeds 0, 1 and 2
    python -m benchmarks.ablations --fresh                     again, although there are results
    python -m benchmarks.ablations --list                      the rows, and which have a result
    python -m benchmarks.ablations --scale paper --data ava=FOLDER --weights mvitv2_s_k400=FILE --dry-run
        one step and one evaluation of every row at full size: can it run here, and how long will it take?

Results go to OUT/runs/<hash>/, trained models to OUT/trainings/<hash>/; `python -m reports` makes the
tables. Finished work is skipped by the next call. Exit status: 0 all rows have a result (or can have
one, --dry-run), 1 a run failed, 2 bad input.
"""

from __future__ import annotations

import argparse
import sys
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from benchmarks.data import given_boxes, load_data
from benchmarks.display import SweepDisplay
from benchmarks.experiments import SCALES, TRAINING, Experiment, choose, rows_at
from benchmarks.flops import count_experiment
from benchmarks.mirror import fetch
from benchmarks.models import weights_file
from benchmarks.pretrained import WEIGHTS, download
from benchmarks.provenance import scoring_code
from benchmarks.results import read_result
from benchmarks.training import origin_of
from datasets import synthetic, synthetic_tubes

ORIGINS = {
    "data": "the data",
    "weights": "the weights it begins with",
    "code": "the code that trains it",
    "scoring": "the code that scores it",
}
"""Part of `Result.origin` -> what it is."""


def main(argv: list[str] | None = None) -> int:
    """Run the command; -> the exit status."""
    args = parser().parse_args(argv)
    try:
        rows = chosen_rows(args.only, args.rows, args.scale, args.seeds)
        if args.list:
            for name, exp in rows.items():
                state = "done" if (args.out / "runs" / exp.hash / "result.json").exists() else "not run"
                print(f"{name:34} {exp.hash}  {state}")
            return 0
        names: dict[str, str] = {}  # of each distinct experiment, which may stand in several tables
        for name, exp in rows.items():
            names[exp.hash] = f"{names[exp.hash]} = {name}" if exp.hash in names else name
        experiments = {exp.hash: exp for exp in rows.values()}
        roots = data_roots(args.data, rows, args.out / "data")
        weights = weight_files(args.weights, experiments, args.out / "weights" if args.pretrained else None)
        fingerprints = check_data(experiments, roots)
        if args.mirror and not args.dry_run:
            fetch_done(args.mirror, args.out, experiments.values())
        if args.dry_run:
            from benchmarks.rehearse import rehearse

            return 0 if rehearse(experiments, names, roots, weights) else 1
        due = {
            key: why_run(args.out, exp, fingerprints[key], weights, fresh=args.fresh)
            for key, exp in experiments.items()
        }
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2

    needed = {experiments[key].weights for key, why in due.items() if why}
    for key, exp in experiments.items():
        checkpoint = args.out / "trainings" / exp.training_hash / "checkpoint.pt"
        if TRAINING + exp.training_hash in needed and not checkpoint.exists():
            due[key] = due[key] or "others begin with its weights, which are gone"
    missing: dict[str, list[Experiment]] = {}  # training -> its rows without a result
    for key, why in due.items():
        exp = experiments[key]
        print(f"{names[key]} [{key}]: {'done before, kept' if why is None else f'runs ({why})'}")
        if why is not None:
            # The last to be written and the first to go: a run is done where it is there.
            (args.out / "runs" / key / "result.json").unlink(missing_ok=True)
            missing.setdefault(exp.training_hash, []).append(exp)
    try:
        failures = run_missing(
            missing,
            names,
            roots,
            weights,
            args.out,
            fresh=args.fresh,
            address=args.address,
            processes=args.processes,
            gpus_each=args.gpus_each,
            mirror=args.mirror,
        )
    except ValueError as error:  # a request that nobody can serve
        print(f"error: {error}", file=sys.stderr)
        return 2
    failed = {
        exp.hash: failures[key]
        for key, group in missing.items()
        if key in failures
        for exp in group
        if unfinished([exp], args.out)
    }
    for key, reason in failed.items():
        print(f"failed: {names[key]} [{key}]: {reason}", file=sys.stderr)
    done = len(experiments) - len(failed)
    print(f"{done} of {len(experiments)} runs have a result in {args.out / 'runs'}")
    return 1 if failed else 0


def parser() -> argparse.ArgumentParser:
    """The options."""
    summary, _, more = (__doc__ or "").partition("\n\n")
    p = argparse.ArgumentParser(
        prog="python -m benchmarks.ablations",
        description=summary,
        epilog=more,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="NAME",
        help="tables, or table/row (default: the paper's tables)",
    )
    p.add_argument("--rows", nargs="+", default=[], metavar="ROW", help="of these, rows of this name alone")
    p.add_argument("--scale", choices=SCALES, default="tiny", help="size of every run (default: tiny)")
    p.add_argument(
        "--seeds", type=positive, default=1, metavar="N", help="run each row from N seeds (default: 1)"
    )
    p.add_argument(
        "--data",
        action="append",
        default=[],
        metavar="NAME=FOLDER",
        help="where a dataset lies, such as ava=/data/ava; synthetic ones are made",
    )
    p.add_argument(
        "--weights",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="published weights that rows of the paper's size begin with, such as mvitv2_s_k400=k400.pyth",
    )
    p.add_argument("--pretrained", action="store_true", help="download published weights that are not named")
    p.add_argument("--out", type=Path, default=Path("out"), help="folder of all that is made (default: out)")
    p.add_argument(
        "--address",
        metavar="RAY",
        help="of a running Ray cluster to join: auto, host:port or ray://host:port (default: a private one)",
    )
    p.add_argument(
        "--mirror",
        metavar="URI",
        help="keep what is made there too (s3://, gs://, file://): machines then need share no --out",
    )
    p.add_argument(
        "--processes",
        type=positive,
        default=1,
        metavar="N",
        help="that share each run and its batch, with a GPU or a core each (default: 1)",
    )
    p.add_argument(
        "--gpus-each",
        type=float,
        metavar="F",
        help="for each process: 1, 0, or a fraction: runs then share a GPU (default: 1 where there are any)",
    )
    p.add_argument("--fresh", action="store_true", help="run again what has a result")
    p.add_argument("--list", action="store_true", help="show the rows and stop")
    p.add_argument(
        "--dry-run", action="store_true", help="one step and one evaluation of each row; no result"
    )
    return p


def positive(text: str) -> int:
    """A whole number from 1, as an option's value."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1")
    return int(text)


def chosen_rows(only: list[str], rows: list[str], scale: str, seeds: int) -> dict[str, Experiment]:
    """Row's name -> experiment, for each seed; rows that a chosen one begins with come first.

    Raises ValueError naming the nearest for a name that does not exist.
    """
    chosen: dict[str, Experiment] = {}
    for seed in range(seeds):
        every = rows_at(scale, seed=seed)
        names = choose(only, rows)
        begun_with = {every[name].weights for name in names}
        first = next((n for n, exp in every.items() if TRAINING + exp.training_hash in begun_with), None)
        suffix = f" seed {seed}" if seeds > 1 else ""
        chosen |= {f"{name}{suffix}": every[name] for name in ([first] if first else []) + names}
    return chosen


def named(option: str, given: list[str], example: str) -> dict[str, Path]:
    """NAME=PATH arguments as a mapping. ValueError for one that is not so."""
    found = {}
    for text in given:
        name, equals, path = text.partition("=")
        if not (name and equals and path):
            raise ValueError(f"{option} {text}: write {example}")
        found[name] = Path(path)
    return found


def data_roots(given: list[str], rows: Mapping[str, Experiment], made: Path) -> dict[str, Path]:
    """Dataset name -> folder, from NAME=FOLDER arguments; synthetic benchmarks are made if needed.

    Raises ValueError for one that no row uses.
    """
    roots = named("--data", given, "NAME=FOLDER, such as ava=/data/ava")
    wanted = {exp.dataset for exp in rows.values()}
    for name in sorted(roots.keys() - wanted):
        raise ValueError(f"--data {name}=...: no chosen row uses it; they use {', '.join(sorted(wanted))}")
    for name in sorted(wanted & (synthetic.SIZES.keys() | synthetic_tubes.SIZES.keys()) - roots.keys()):
        roots[name] = make_synthetic(made, name)
    return roots


def weight_files(
    given: list[str], experiments: Mapping[str, Experiment], downloads: Path | None = None
) -> dict[str, Path]:
    """Name of published weights -> file, from NAME=FILE arguments, for all that experiments begin with.

    downloads: folder that those not given are downloaded to; None: none is.
    Raises ValueError or FileNotFoundError where one is missing, or given and not used.
    """
    files = named("--weights", given, "NAME=FILE, such as mvitv2_s_k400=k400.pyth")
    wanted = {e.weights for e in experiments.values() if e.weights and not e.weights.startswith(TRAINING)}
    for name in sorted(files.keys() - wanted):
        use = f"they begin with {', '.join(sorted(wanted))}" if wanted else "they begin with drawn weights"
        raise ValueError(f"--weights {name}=...: no chosen row uses it; {use}")
    if downloads is not None:
        for name in sorted((wanted & WEIGHTS.keys()) - files.keys()):
            files[name] = download_shown(name, downloads)
    for exp in experiments.values():
        if exp.weights in wanted:
            weights_file(exp, files, Path())
    return files


def download_shown(name: str, folder: Path) -> Path:
    """Published weights, downloaded with a bar on a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, transient=True, disable=not Console().is_terminal) as bar:
        task = bar.add_task(name, total=None)
        file = download(
            name,
            WEIGHTS[name],
            folder,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    print(f"weights: {file}")
    return file


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
    with Progress(*columns, transient=True, disable=not Console().is_terminal) as bar:
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
        asked = (exp.method == "two_stage", exp.boxes)
        same = (exp.dataset, exp.split, exp.keyframe_stride, exp.frames, exp.stride, exp.crop, asked)
        if same not in seen:
            data = load_data(exp, roots)
            given_boxes(exp, data.report, roots[exp.dataset])
            seen[same] = data.fingerprint
        fingerprints[key] = seen[same]
    return fingerprints


def why_run(
    out: Path, exp: Experiment, fingerprint: str, weights: Mapping[str, Path], *, fresh: bool
) -> str | None:
    """Why a run is due, in words; None where its result stands."""
    folder = out / "runs" / exp.hash
    if fresh:
        return "asked to run it afresh"
    if not (folder / "result.json").exists():
        training = out / "trainings" / exp.training_hash
        if (training / "checkpoint.pt").exists():
            return "trained, not scored"
        return "it was not finished" if any(training.glob("*.pt")) else "new"
    try:
        result = read_result(folder / "result.json")
    except ValueError:
        return "its result is of another version"
    file = weights_file(exp, weights, out / "trainings")
    if file is not None and not file.exists():
        return "the training it begins with is gone"
    now = origin_of(exp, fingerprint, file) | {"scoring": scoring_code()}
    changed = [what for part, what in ORIGINS.items() if result.origin.get(part) != now[part]]
    return f"{' and '.join(changed)} changed" if changed else None


def run_missing(
    missing: Mapping[str, list[Experiment]],
    names: Mapping[str, str],
    roots: Mapping[str, Path],
    weights: Mapping[str, Path],
    out: Path,
    *,
    fresh: bool = False,
    address: str | None = None,
    processes: int = 1,
    gpus_each: float | None = None,
    mirror: str | None = None,
) -> dict[str, str]:
    """Run them; -> training -> reason of those that failed. fresh: trained anew, whatever there is.

    address: of the Ray cluster to join. processes, gpus_each: see `benchmarks.sweep.share_of`. mirror: see
    `benchmarks.mirror`.
    Raises ValueError where no run fits on the machines, or these do not see the files.
    """
    if not missing:
        return {}
    for exp in (group[0] for group in missing.values()):
        if exp.batch % processes:
            raise ValueError(f"a batch of {exp.batch} clips cannot be shared evenly by {processes} processes")
    print(f"starting Ray for {len(missing)} trainings ...", flush=True)
    # Ray takes seconds to import: not for --list or errors.
    from benchmarks.sweep import check_storage, cluster, share_of, sweep

    wish = uuid.uuid4().hex if fresh else ""
    titles = {key: ", ".join(names[exp.hash] for exp in group) for key, group in missing.items()}
    with cluster(address) as machines:
        has = [machine["Resources"] for machine in machines]
        share, at_once = share_of(has, processes=processes, gpus_each=gpus_each)
        if address is not None or mirror is not None:
            check_storage(machines, out, [*roots.values(), *weights.values()], mirror=mirror)
            print(f"{len(machines)} machines, {at_once} runs at once", flush=True)
        with SweepDisplay(titles, at_once=at_once) as display:
            for wave in waves(missing):
                ready = {}
                for key, group in wave.items():
                    if (begins := weights_file(group[0], weights, out / "trainings")) and not begins.exists():
                        display.failed(key, "the training it begins with has failed")
                    else:
                        ready[key] = group
                sweep(
                    ready,
                    roots,
                    out,
                    display,
                    share=share,
                    processes=processes,
                    at_once=at_once,
                    mirror=mirror,
                    weights=weights,
                    fresh=wish,
                )
                if mirror:
                    fetch_done(mirror, out, [exp for group in ready.values() for exp in group])
                if any(
                    unfinished(group, out) and key not in display.failures for key, group in ready.items()
                ):
                    break  # somebody has stopped the sweep, which then ends as if it were done
    for key, group in missing.items():
        if key not in display.failures and unfinished(group, out):
            display.failures[key] = "stopped before its end; the same command runs it again"
    return display.failures


def fetch_done(mirror: str, out: Path, experiments: Iterable[Experiment]) -> None:
    """What a mirror has of these, into `out`."""
    for exp in experiments:
        fetch(mirror, out, f"trainings/{exp.training_hash}")
        fetch(mirror, out, f"runs/{exp.hash}")


def unfinished(group: list[Experiment], out: Path) -> bool:
    """Whether a row of the group has no result."""
    return not all((out / "runs" / exp.hash / "result.json").exists() for exp in group)


def waves(trainings: Mapping[str, list[Experiment]]) -> list[dict[str, list[Experiment]]]:
    """The trainings in an order in which none begins with the weights of one that is still to come.

    Of those that may run side by side the longest come first, so that no core waits long for the last.
    """
    longest_first = sorted(trainings, key=lambda key: -work(trainings[key][0]))
    left, order = {key: trainings[key] for key in longest_first}, []
    while left:
        ready = {
            key: group
            for key, group in left.items()
            if (group[0].weights or "").removeprefix(TRAINING) not in left
        }
        order.append(ready)
        left = {key: group for key, group in left.items() if key not in ready}
    return order


def work(exp: Experiment) -> float:
    """How long a training takes, in no unit, for comparison: passes over the data times GFLOPs."""
    return exp.epochs * count_experiment(exp).gflops


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("stopped; the same command goes on from there", file=sys.stderr)
        sys.exit(130)
