"""Train on your own data in one command: `python -m benchmarks.train --data FOLDER`.

    python -m benchmarks.train --data mine                  the small network, from random weights, on a CPU
    python -m benchmarks.train --data mine --init tiny      from the backbone of the shipped small model
    python -m benchmarks.train --data mine --seeds 3 --set epochs=20
    python -m benchmarks.train --data mine --scale paper --init mvitv2_s_k400=FILE    the paper's network

FOLDER has the form of AVA, UCF101-24 or JHMDB (docs/own_data.md). The data are checked; at the paper's size a
dry run tells whether it can run here, and for how long; then follow training, which can be interrupted and
resumed, the score of the validation split, and the report: AP of each class, causes of errors, and a page.
Exit code: 0; 1 the data are unusable or a run failed; 2 bad input; 130 interrupted.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from actloc_core.cli import command_parser
from actloc_core.detector import find_checkpoint
from benchmarks.experiments import OURS, Experiment, at_scale, parse_setting
from benchmarks.inputs import add_cluster_options, check_data, exit_code, positive
from benchmarks.jobs import Job, add_machine_options, read_job, run_job
from benchmarks.train.data import load_data
from datasets.__main__ import main as datasets_command
from datasets.ava import file_names as ava_files
from datasets.jhmdb import JHMDB
from datasets.ucf24 import UCF24

SCALES = ("tiny", "paper")
TINY = "tiny"
"""--init: the backbone of the shipped small model, which is also the name of its weights."""
STEPS = 900
"""Least steps of a tiny training: a small data set is passed more often."""
MOST_EPOCHS = 60


def main(argv: list[str] | None = None) -> int:
    """Run the command; -> the exit code.

    Raises ValueError or FileNotFoundError for input that cannot be used.
    """
    args = parser().parse_args(argv)
    settings: dict[str, Any] = dict(parse_setting(text) for text in args.set)
    folder, dataset = args.data, args.dataset or form_of(args.data)
    name, files = initial_weights(args.init, args.scale, args.pretrained)
    picture = args.out / "check.png"
    check = ["check", "--dataset", dataset, "--root", str(folder), "--picture", str(picture)]
    if "leave_out_missing" in settings:
        check.append("--leave-out-missing")
    if not args.no_check and (code := datasets_command(check)):
        return code
    exp = own_experiment(dataset, args.name or folder.resolve().name, args.scale, name)
    exp = replace(exp, **settings)
    if args.scale == "tiny" and "epochs" not in settings:
        exp = with_enough_steps(exp, len(load_data(exp, {dataset: folder}).train))
    rows = {
        f"own/{exp.own}" + (f" seed {seed}" if args.seeds > 1 else ""): replace(exp, seed=seed)
        for seed in range(args.seeds)
    }
    args.data, args.weights = [f"{dataset}={folder}"], files
    job = read_job(args, rows)
    fingerprints = check_data(job.experiments, job.roots, notes=args.no_check)
    if (args.dry_run or args.scale == "paper") and not can_run(job, args):
        return 1
    if args.dry_run:
        return 0
    code = run_job(job, fingerprints, args)
    done = [key for key in job.experiments if (job.out / "runs" / key / "result.json").exists()]
    if done:
        report(job.out, done[0])
    return code


def form_of(folder: Path) -> str:
    """The benchmark whose form a folder has: "ava", "ucf24" or "jhmdb".

    Raises FileNotFoundError where it has none's, ValueError where it has several.
    """
    if not folder.is_dir():
        what = "is a file; give the folder that it is in" if folder.exists() else "no such folder"
        raise FileNotFoundError(f"--data {folder}: {what}")
    csvs = [name.csv for name in ava_files("train")]
    forms = {
        "ava": any((folder / part / csv).is_file() for part in ("annotations", ".") for csv in csvs),
        "ucf24": (folder / UCF24.file).is_file(),
        "jhmdb": (folder / JHMDB.file).is_file(),
    }
    found = [name for name, there in forms.items() if there]
    if not found:
        raise FileNotFoundError(
            f"--data {folder}: neither annotations/{csvs[0]} (AVA's form) nor {UCF24.file} nor {JHMDB.file} "
            "is there; python -m datasets convert writes the first from an annotation tool's file"
        )
    if len(found) > 1:
        raise ValueError(f"--data {folder}: has files of {' and '.join(found)}; choose with --dataset")
    return found[0]


def initial_weights(given: str | None, scale: str, pretrained: bool) -> tuple[str | None, list[str]]:
    """--init -> the name of the initialisation weights, None for random ones, and their NAME=FILE, if any.

    Raises ValueError for another form, and for the paper's network without any.
    """
    if given == TINY:
        if scale != "tiny":
            raise ValueError(f"--init {TINY}: the shipped small backbone does not fit --scale {scale}")
        return TINY, [f"{TINY}={find_checkpoint(Path(TINY))[0]}"]
    if given == "none":
        return None, []
    if given is not None:
        name, equals, file = given.partition("=")
        if not (name and equals and file):
            raise ValueError(
                f"--init {given}: write NAME=FILE, such as mvitv2_s_k400=k400.pyth, tiny or none"
            )
        return name, [given]
    if scale == "tiny":
        return None, []
    if pretrained:
        return OURS.weights, []
    raise ValueError(
        f"the paper's network starts from Kinetics weights: give --init {OURS.weights}=FILE, or --pretrained "
        "to download them; --init none trains it from random ones"
    )


def own_experiment(dataset: str, name: str, scale: str, weights: str | None) -> Experiment:
    """The experiment of own data in a benchmark's form: the paper's method, at one of SCALES.

    Tiny: the tables' small network and recipe, with frame embeddings, of clips of half a second and more.
    """
    fields: dict[str, Any] = {"dataset": dataset, "own": name, "weights": weights}
    if scale == "paper":
        return replace(OURS, keyframe_stride=1 if dataset == "ava" else 4, **fields)
    tiny = at_scale(replace(OURS, frame_embedding=True, weights=None, dataset=dataset), "tiny")
    # Strides of synthetic data count in 16 frames a second, AVA's in 30.
    return replace(tiny, stride=4 if dataset == "ava" else tiny.stride, **fields)


def with_enough_steps(exp: Experiment, clips: int) -> Experiment:
    """The same with as many epochs as STEPS steps take on this number of clips, MOST_EPOCHS at most."""
    if not clips:
        return exp
    epochs = round(min(MOST_EPOCHS, max(exp.epochs, STEPS * exp.batch / clips)), 2)
    return replace(exp, epochs=epochs, warmup_epochs=round(epochs * exp.warmup_epochs / exp.epochs, 2))


def can_run(job: Job, args: argparse.Namespace) -> bool:
    """Take a step and an evaluation, and print what the whole needs; -> whether it can run here."""
    from benchmarks.gates.dry_run import dry_run

    how = {"processes": args.processes or 1, "workers": args.workers}
    first: Mapping[str, Experiment] = dict(list(job.experiments.items())[:1])  # seeds are alike
    return dry_run(first, job.names, job.roots, job.weights, **how)


def report(out: Path, run: str) -> None:
    """Print the table of own data and a run's classes and errors, and write the page: `reports own`."""
    arguments: Sequence[str] = ["own", "--out", str(out), "--run", run]
    subprocess.run([sys.executable, "-m", "reports", *arguments], check=True)


def parser() -> argparse.ArgumentParser:
    """The options."""
    p = command_parser("benchmarks.train", __doc__)
    p.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="your data")
    p.add_argument("--dataset", choices=("ava", "ucf24", "jhmdb"), help="the form of the data (by its files)")
    p.add_argument("--name", help="of the data in tables (default: the folder's)")
    p.add_argument(
        "--init",
        metavar="NAME=FILE|tiny|none",
        help="weights that the backbone is initialised from (default: none at scale tiny)",
    )
    p.add_argument("--scale", choices=SCALES, default="tiny", help="size of the network (default: tiny)")
    p.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="set a field of the Experiment, such as epochs=20; may be repeated",
    )
    p.add_argument(
        "--leave-out-missing",
        action="append_const",
        dest="set",
        const="leave_out_missing=true",
        help="train and score without videos that are missing; their number is in the result",
    )
    p.add_argument("--seeds", type=positive, default=1, metavar="N", help="train from N seeds (default: 1)")
    p.add_argument("--no-check", action="store_true", help="do not read all videos first")
    p.add_argument("--pretrained", action="store_true", help="download the published weights")
    add_cluster_options(p)
    add_machine_options(p)
    p.add_argument("--fresh", action="store_true", help="train again what has a result")
    p.add_argument("--dry-run", action="store_true", help="one step and one evaluation; no result")
    return p


if __name__ == "__main__":
    sys.exit(exit_code(main))
