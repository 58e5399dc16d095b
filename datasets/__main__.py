"""Data sets from the command line.

    python -m datasets check --dataset ava --root /data/ava     can it be trained on? counts and a picture
    python -m datasets make --shape ucf24 --out /tmp/ucf24      a small synthetic one in that format

Exit status: 0; 1 where `check` finds the data not usable; 2 for bad input, with a line that says why.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from datasets import synthetic, synthetic_tubes
from datasets.check import KNOWN, contact_sheet, inspect, summary
from evaluators.act_pickle import read_act
from evaluators.ava_csv import read_groundtruth


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; -> its exit status, 2 for bad input."""
    args = parser().parse_args(argv)
    try:
        status: int = args.command(args)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return status


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    summary, _, more = (__doc__ or "").partition("\n\n")
    p = argparse.ArgumentParser(
        prog="python -m datasets",
        description=summary,
        epilog=more,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subparsers = p.add_subparsers(required=True, metavar="COMMAND")
    add_check(subparsers)
    add_make(subparsers)
    return p


def add_check(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """`check`: whether a data set on disk is what training will need."""
    p = subparsers.add_parser(
        "check",
        help="look at a data set on disk before anyone trains on it",
        description="Counts videos, frames, boxes of each split and holds them against the published data; "
        "names videos that are missing or short and boxes out of range; draws sample keyframes.",
    )
    p.add_argument("--dataset", required=True, choices=tuple(KNOWN), help="whose format it has")
    p.add_argument("--root", type=Path, required=True, metavar="DIR", help="its folder")
    p.add_argument(
        "--sample",
        type=int,
        default=12,
        metavar="N",
        help="keyframes to decode and draw (default: 12; 0: none)",
    )
    p.add_argument(
        "--picture",
        type=Path,
        default=Path("out/check.png"),
        metavar="PNG",
        help="where they are drawn (default: out/check.png)",
    )
    p.add_argument("--seed", type=int, default=0, metavar="S", help="of the sample (default: 0)")
    p.set_defaults(command=check)


def check(args: argparse.Namespace) -> int:
    """Look at a tree and print what is there; -> 0 usable, 1 not yet. ValueError: a wrong option."""
    if args.sample < 0:
        raise ValueError(f"--sample {args.sample}: give 0 or more")
    with progress_bar() as bar:
        tasks: dict[str, TaskID] = {}

        def progress(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(f"{args.dataset} {name}: videos", total=total)
            bar.update(tasks[name], completed=done)

        reports = inspect(args.dataset, args.root, progress)
    sheet = contact_sheet(reports, args.sample, args.seed)
    if sheet is not None:
        args.picture.parent.mkdir(parents=True, exist_ok=True)
        part = args.picture.with_name(f".{args.picture.name}.part")
        sheet.save(part, format="PNG")
        part.replace(args.picture)
    text, usable = summary(args.dataset, reports)
    print(text)
    if sheet is not None:
        print(f"sample keyframes with their boxes: {args.picture}")
    return 0 if usable else 1


def add_make(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """`make`: a small synthetic data set in the format of a real one."""
    p = subparsers.add_parser(
        "make",
        help="make a small synthetic data set in the format of a real one",
        description="Make a small synthetic data set in the format of a real one. The same arguments "
        "give the same bytes.",
    )
    p.add_argument("--shape", required=True, choices=("ava", *synthetic_tubes.SHAPES), help="whose format")
    p.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new or empty folder")
    p.add_argument(
        "--clips",
        type=int,
        default=240,
        metavar="N",
        help="training clips: annotated seconds for ava, videos for the others (default: 240)",
    )
    p.add_argument("--seed", type=int, default=0, metavar="S", help="from 0 (default: 0)")
    p.add_argument(
        "--images",
        choices=("frames", "videos"),
        help="extracted frames or video files (default: frames for jhmdb, else videos; ucf24 has the videos "
        "besides its frames)",
    )
    p.set_defaults(command=make)


def make(args: argparse.Namespace) -> int:
    """Write a synthetic tree; -> 0. ValueError: a wrong option, or something is there already."""
    out: Path = args.out
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out}: a file is there; name a new or empty folder")
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"--out {out}: something is in it; name a new or empty folder")
    if args.clips < 1:
        raise ValueError(f"--clips {args.clips}: at least 1 is needed")
    if args.seed < 0:
        raise ValueError(f"--seed {args.seed}: seeds count from 0")
    if args.shape == "ava" and args.images == "frames":
        raise ValueError("--images frames: the ava shape is made as videos only")

    target = out.resolve()  # a link to an empty folder cannot be renamed over, the folder can
    with progress_bar() as bar:
        task = bar.add_task(f"{args.shape}: videos", total=None)

        def progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        if args.shape == "ava":
            val, test = max(1, args.clips // 10), max(1, args.clips // 5)
            scenes = synthetic.Size(args.clips, val, test, args.seed)
            synthetic.make_at(target, scenes, progress=progress)
        else:
            videos = synthetic_tubes.TubeSize(args.clips, max(1, args.clips // 3), args.seed)
            synthetic_tubes.make_at(target, args.shape, videos, images=args.images, progress=progress)
    print("\n".join(_what_was_made(out, args.shape)))
    return 0


def progress_bar() -> Bar:
    """Gone when it is done; nothing of it in a pipe."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Bar(*columns, transient=True, console=Console(stderr=True))


def quoted(path: Path) -> str:
    """For a shell."""
    return shlex.quote(str(path))


def _what_was_made(root: Path, shape: Literal["ava"] | synthetic_tubes.Shape) -> list[str]:
    """Read back from the files, with the readers that training and evaluation use."""
    if shape == "ava":
        annotations = root / "annotations"
        videos, boxes = set(), set()
        for split in ("train", "val", "test"):
            truth = read_groundtruth(annotations / f"ava_{split}_v2.2.csv")
            names = [truth.videos[i] for i in truth.video]
            videos |= set(names)
            boxes |= set(zip(names, truth.frame.tolist(), map(tuple, truth.box.tolist()), strict=True))
        counts = [
            f"videos {len(videos)}",
            f"keyframes {len({box[:2] for box in boxes})}",
            f"boxes {len(boxes)}",
            f"classes {len(synthetic.ACTIONS)}",
        ]
        name = "synthetic_ava"
        truth_flags = (
            f"--groundtruth {quoted(annotations / 'ava_test_v2.2.csv')} "
            f"--labelmap {quoted(annotations / 'ava_action_list_v2.2_for_activitynet_2019.pbtxt')} "
            f"--exclusions {quoted(annotations / 'ava_test_excluded_timestamps_v2.2.csv')}"
        )
    else:
        file = root / synthetic_tubes.ANNOTATIONS[shape]
        act = read_act(file)
        frames = np.unique(np.stack([act.ground_truth.video, act.ground_truth.frame]), axis=1)
        counts = [
            f"videos {len(act.nframes)}",
            f"frames {sum(act.nframes.values())}, annotated {frames.shape[1]}",
            f"boxes {len(act.ground_truth.box)} in {len(np.unique(act.ground_truth.tube))} tubes",
            f"classes {len(act.labels)}",
            f"splits {len(act.test_videos)}",
        ]
        name = shape
        truth_flags = f"--groundtruth {quoted(file)}" + (" --split all" if len(act.test_videos) > 1 else "")
    return [
        f"made {root}: {', '.join(counts)} ({synthetic.fingerprint(root)})",
        f"training:   --data {name}={quoted(root)}",
        f"evaluation: python -m evaluators {shape} {truth_flags} --detections FILE",
    ]


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
