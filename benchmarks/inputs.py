"""What the commands share: options, chosen rows, data roots, weight files, and exit codes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from actloc_core import cli
from benchmarks.experiments import ROWS, SCALES, TRAINING, Experiment, choose, rows_at, size_of
from benchmarks.train.data import given_boxes, load_data
from benchmarks.train.models import weights_file
from benchmarks.train.pretrained import WEIGHTS, download
from datasets import synthetic, synthetic_clips, synthetic_tubes
from datasets.description import mirror_note

SYNTHETIC = synthetic.SIZES.keys() | synthetic_clips.SIZES.keys() | synthetic_tubes.SIZES.keys()
"""Names of the datasets that are made."""


def exit_code(command: Callable[[], int]) -> int:
    """Run a command that can be resumed and return its exit code, see `actloc_core.cli.exit_code`."""
    return cli.exit_code(command, interrupted="interrupted; rerun the same command to resume")


def add_scale_options(p: argparse.ArgumentParser) -> None:
    """The options that `experiments.scale_of` takes."""
    p.add_argument("--scale", choices=SCALES, default="tiny", help="size of every run (default: tiny)")
    p.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="set a field of every row's Experiment, such as accumulate=2; may be repeated",
    )
    p.add_argument(
        "--leave-out-missing",
        action="append_const",
        dest="set",
        const="leave_out_missing=true",
        help="train and score without videos that are missing; their number is in every result",
    )


def add_common_options(p: argparse.ArgumentParser) -> None:
    """Options of every command that trains: data, weights, cluster, output directory."""
    p.add_argument(
        "--data",
        action="append",
        default=[],
        metavar="NAME=FOLDER",
        help="folder of a dataset, such as ava=/data/ava; synthetic ones are made",
    )
    p.add_argument(
        "--weights",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="published initialisation weights of rows of the paper's size, such as mvitv2_s_k400=k400.pyth",
    )
    p.add_argument("--pretrained", action="store_true", help="download published weights that are not named")
    add_cluster_options(p)


def add_cluster_options(p: argparse.ArgumentParser) -> None:
    """Options of where to run, and where results go."""
    p.add_argument("--out", type=Path, default=Path("out"), help="output directory (default: out)")
    p.add_argument(
        "--address",
        metavar="RAY",
        help="Ray cluster to join: auto, host:port or ray://host:port (default: a private one)",
    )


def positive(text: str) -> int:
    """Parse an option's value as a whole number of at least 1."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def chosen_rows(only: list[str], rows: list[str], scale: str, seeds: int) -> dict[str, Experiment]:
    """Row's name -> experiment, for each seed; rows that a chosen one is initialised from come first, once.

    Raises ValueError naming the nearest known names for an unknown one.
    """
    chosen: dict[str, Experiment] = {}
    for seed in range(seeds):
        every = rows_at(scale, seed=seed)
        names = choose(only, rows)
        suffix = f" seed {seed}" if seeds > 1 else ""
        chosen |= {f"{name}{suffix}": every[name] for name in names}
        for name in names:
            if (published := ROWS[name].weights) and every[name].weights is None and seed == 0:
                why = f"no small pre-training stands for its weights {published} (INITIAL_ROWS)"
                print(f"{name}: {why}, so it starts from drawn ones", file=sys.stderr)
    first = initial_rows(chosen.values(), scale)
    return {name: exp for name, exp in first.items() if exp not in chosen.values()} | chosen


def initial_rows(experiments: Iterable[Experiment], scale: str) -> dict[str, Experiment]:
    """Row's name -> experiment, of the rows whose trained backbones initialise these; of seed 0.

    Settings of the scale are not theirs: one pre-training does for rows of all settings.
    """
    initialised_from = {exp.weights for exp in experiments}
    return {
        name: exp
        for name, exp in rows_at(size_of(scale)).items()
        if TRAINING + exp.training_hash in initialised_from
    }


def named(option: str, given: list[str], example: str) -> dict[str, Path]:
    """Parse NAME=PATH arguments. Raises ValueError for one of another form."""
    paths = {}
    for text in given:
        name, equals, path = text.partition("=")
        if not (name and equals and path):
            raise ValueError(f"{option} {text}: write {example}")
        paths[name] = Path(path)
    return paths


def given_roots(given: list[str], rows: Mapping[str, Experiment]) -> dict[str, Path]:
    """Dataset name -> folder, from NAME=FOLDER arguments. Raises ValueError for a folder that no row uses."""
    roots = named("--data", given, "NAME=FOLDER, such as ava=/data/ava")
    wanted = {exp.dataset for exp in rows.values()}
    for name in sorted(roots.keys() - wanted):
        raise ValueError(f"--data {name}=...: no chosen row uses it; they use {', '.join(sorted(wanted))}")
    return roots


def with_synthetic(roots: Mapping[str, Path], rows: Mapping[str, Experiment], made: Path) -> dict[str, Path]:
    """The folders with those of the rows' synthetic benchmarks, which are made under `made` if needed."""
    wanted = {exp.dataset for exp in rows.values()}
    missing = sorted(wanted & SYNTHETIC - roots.keys())
    return {**roots, **{name: make_synthetic(made, name) for name in missing}}


def weight_files(
    given: list[str], experiments: Mapping[str, Experiment], downloads: Path | None = None
) -> dict[str, Path]:
    """Name of published weights -> file, from NAME=FILE arguments, for all initialisation weights.

    downloads: folder that files not given are downloaded to; None downloads nothing.
    Raises ValueError or FileNotFoundError where a file is missing, or given and not used.
    """
    files = named("--weights", given, "NAME=FILE, such as mvitv2_s_k400=k400.pyth")
    wanted = {e.weights for e in experiments.values() if e.weights and not e.weights.startswith(TRAINING)}
    for name in sorted(files.keys() - wanted):
        use = (
            f"they use {', '.join(sorted(wanted))}"
            if wanted
            else "they use none: small rows bring their pre-training along"
        )
        raise ValueError(f"--weights {name}=...: no chosen row uses it; {use}")
    if downloads is not None:
        for name in sorted((wanted & WEIGHTS.keys()) - files.keys()):
            files[name] = download(name, WEIGHTS[name], downloads, show_progress=sys.stderr.isatty())
            print(f"weights: {files[name]}")
    for exp in experiments.values():
        if exp.weights in wanted:
            weights_file(exp, files, Path())
    return files


def make_synthetic(made: Path, name: str) -> Path:
    """Make a synthetic benchmark that experiments name under `made`, unless it is there already."""
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
        elif name in synthetic_clips.SIZES:
            root = synthetic_clips.make(made, synthetic_clips.SIZES[name], progress=progress)
        else:
            root = synthetic_tubes.make(made, *synthetic_tubes.SIZES[name], progress=progress)
    print(f"data: {root} ({synthetic.fingerprint(root)})")
    return root


def synthetic_folder(made: Path, name: str) -> Path:
    """Where `make_synthetic` puts a benchmark."""
    if name in synthetic.SIZES:
        return synthetic.folder_of(made, synthetic.SIZES[name])
    if name in synthetic_clips.SIZES:
        return synthetic_clips.folder_of(made, synthetic_clips.SIZES[name])
    return synthetic_tubes.folder_of(made, *synthetic_tubes.SIZES[name])


def check_data(
    experiments: Mapping[str, Experiment], roots: Mapping[str, Path], *, notes: bool = True
) -> dict[str, str]:
    """Read every annotation and check every video before any training; -> hash -> fingerprint.

    notes: print what is unusual to standard error.
    """
    checked: dict[tuple[object, ...], str] = {}
    fingerprints, noted = {}, set()
    for key, exp in experiments.items():
        asked = (exp.method == "two_stage", exp.boxes)
        clips = (exp.split, exp.keyframe_stride, exp.frames, exp.stride, exp.crop, exp.flip, exp.mirrored)
        same = (exp.dataset, clips, asked)
        if same not in checked:
            data = load_data(exp, roots)
            given_boxes(exp, data.report, roots[exp.dataset])
            checked[same] = data.fingerprint
            unusual = [*data.train.notes, *data.val.notes]
            train, root = data.train, roots[exp.dataset]
            if exp.flip and (note := mirror_note(root, train.classes.values(), train.mirrored)):
                unusual.append(note)
            for note in dict.fromkeys(unusual):
                if notes and note not in noted:
                    print(f"note: {note}", file=sys.stderr)
                noted.add(note)
        fingerprints[key] = checked[same]
    return fingerprints
