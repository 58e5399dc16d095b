"""Validate datasets and make synthetic ones.

    python -m datasets check --dataset ava --root /data/ava     counts, problems and a contact sheet
    python -m datasets make --shape ucf24 --out /tmp/ucf24      a small synthetic dataset in that format
    python -m datasets convert --from via project.json --fps 30 --out mine/annotations/ava_train_v2.2.csv
                                                                an annotation tool's boxes as AVA's csv

Exit code: 0; 1 where `check` finds the data unusable; 2 for bad input, with lines that say why; 130 for
Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from actloc_core import cli
from actloc_core.files import atomic_path, text_beside
from datasets import kinetics, scenes, synthetic, synthetic_clips, synthetic_tubes
from datasets.annotation_tools import READERS, OptionNeeded, Timing, ToolFile, ToolFileError, read_tool_file
from datasets.check import PUBLISHED_COUNTS, contact_sheet, inspect, summary
from datasets.convert import convert, describe
from datasets.description import FILE
from evaluators.act_pickle import read_act
from evaluators.ava_csv import read_groundtruth
from evaluators.files import Invalid

SHAPES = ("ava", *synthetic_tubes.SHAPES, "kinetics")
"""The formats that `make` writes."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; -> its exit code, 2 for bad input, 130 for Ctrl-C."""
    return cli.exit_code(lambda: _run(parser().parse_args(argv)))


def _run(args: argparse.Namespace) -> int:
    code: int = args.command(args)
    return code


def parser() -> argparse.ArgumentParser:
    """Build the parser of all commands."""
    p = cli.command_parser("datasets", __doc__)
    subparsers = p.add_subparsers(required=True, metavar="COMMAND")
    add_check(subparsers)
    add_make(subparsers)
    add_convert(subparsers)
    return p


def add_check(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command `check`, which validates a dataset on disk."""
    p = subparsers.add_parser(
        "check",
        help="validate a dataset on disk before training",
        description="Count videos, frames and boxes of each split and compare them with the published data; "
        "list missing and truncated videos and boxes out of range; draw sample keyframes.",
    )
    p.add_argument("--dataset", required=True, choices=tuple(PUBLISHED_COUNTS), help="its format")
    p.add_argument("--root", type=Path, required=True, metavar="DIR", help="folder of the dataset")
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
        help="file for the drawn keyframes (default: out/check.png)",
    )
    p.add_argument("--seed", type=int, default=0, metavar="S", help="seed of the sample (default: 0)")
    p.add_argument(
        "--start-second",
        type=int,
        metavar="S",
        help="of ava: the annotations' second at a video's first frame, as dataset.json will say it",
    )
    p.add_argument(
        "--leave-out-missing",
        action="store_true",
        help="videos that are missing are warnings, as in training",
    )
    p.add_argument("--quiet", action="store_true", help="no progress bar")
    p.set_defaults(command=check)


def check(args: argparse.Namespace) -> int:
    """Validate a dataset and print a summary; -> 0 usable, 1 unusable. ValueError: a wrong option."""
    if not args.root.is_dir():
        what = "is a file; give the folder that it is in" if args.root.exists() else "no such folder"
        raise ValueError(f"--root {args.root}: {what}")
    if args.sample < 0:
        raise ValueError(f"--sample {args.sample}: give at least 0")
    if args.start_second is not None and (args.dataset != "ava" or args.start_second < 0):
        raise ValueError(f"--start-second {args.start_second}: a number of seconds from 0, of --dataset ava")
    with progress_bar(quiet=args.quiet) as bar:
        tasks: dict[str, TaskID] = {}

        def progress(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(f"{args.dataset} {name}: videos", total=total)
            bar.update(tasks[name], completed=done)

        reports = inspect(
            args.dataset,
            args.root,
            progress,
            args.start_second,
            leave_out_missing=args.leave_out_missing,
        )
    sheet = contact_sheet(reports, args.sample, args.seed)
    if sheet is not None:
        with atomic_path(args.picture) as part:
            sheet.save(part, format="PNG")
    text, usable = summary(args.dataset, reports, own=(args.root / FILE).is_file())
    with text_beside(args.picture if sheet is not None else None):
        print(text)
        if args.start_second is not None and usable:
            print(f'to train with it: write {{"start_second": {args.start_second}}} into {args.root / FILE}')
        if sheet is not None:
            print(f"sample keyframes with their boxes: {args.picture}")
    return 0 if usable else 1


def add_make(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command `make`, which writes a small synthetic dataset in the format of a real one."""
    p = subparsers.add_parser(
        "make",
        help="make a small synthetic dataset in the format of a real one",
        description="Make a small synthetic dataset in the format of a real one. Equal arguments give "
        "equal bytes.",
    )
    p.add_argument("--shape", required=True, choices=SHAPES, help="its format")
    p.add_argument("--out", type=Path, required=True, metavar="DIR", help="new or empty folder")
    p.add_argument(
        "--clips",
        type=int,
        default=240,
        metavar="N",
        help="training clips: annotated seconds for ava, videos for the others (default: 240)",
    )
    p.add_argument("--seed", type=int, default=0, metavar="S", help="random seed, at least 0 (default: 0)")
    p.add_argument(
        "--images",
        choices=("frames", "videos"),
        help="extracted frames or video files (default: frames for jhmdb, videos for the others; ucf24 has "
        "its videos beside the frames)",
    )
    p.add_argument("--quiet", action="store_true", help="no progress bar")
    p.set_defaults(command=make)


def make(args: argparse.Namespace) -> int:
    """Make a synthetic dataset; -> 0. ValueError: a wrong option, or `--out` is not empty."""
    out: Path = args.out
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out}: is a file; give a new or empty folder")
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"--out {out}: is not empty; give a new or empty folder")
    if args.clips < 1:
        raise ValueError(f"--clips {args.clips}: give at least 1")
    if args.seed < 0:
        raise ValueError(f"--seed {args.seed}: give at least 0")
    if args.shape in ("ava", "kinetics") and args.images == "frames":
        raise ValueError(f"--images frames: the {args.shape} shape is written as videos only")

    target = out.resolve()  # a folder can be renamed over an empty folder, but not over a link to one
    with progress_bar(quiet=args.quiet) as bar:
        task = bar.add_task(f"{args.shape}: videos", total=None)

        def progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        if args.shape == "ava":
            val, test = max(1, args.clips // 10), max(1, args.clips // 5)
            size = synthetic.Size(args.clips, val, test, args.seed)
            synthetic.make_at(target, size, progress=progress)
        elif args.shape == "kinetics":
            held_out = max(1, args.clips // 10), max(1, args.clips // 5)
            synthetic_clips.make_at(
                target, synthetic_clips.ClipsSize(args.clips, *held_out, args.seed), progress=progress
            )
        else:
            tube_size = synthetic_tubes.TubeSize(args.clips, max(1, args.clips // 3), args.seed)
            synthetic_tubes.make_at(target, args.shape, tube_size, images=args.images, progress=progress)
    left = dict(sorted(scenes.FLIPPED.items())[:1])  # of the pair, one direction
    with atomic_path(target / FILE) as part:
        part.write_text(json.dumps({"mirrored": left}) + "\n")
    name = "synthetic_ava" if args.shape == "ava" else args.shape
    if args.shape == "kinetics":  # its clips have no boxes to score
        counts, evaluation = _describe_kinetics(out), ""
    else:
        counts, flags = _describe_ava(out) if args.shape == "ava" else _describe_tubes(out, args.shape)
        evaluation = f"\nevaluation: python -m evaluators {args.shape} {flags} --detections FILE"
    print(
        f"made {out}: {', '.join(counts)} ({synthetic.fingerprint(out)})\n"
        f"training:   --data {name}={_quote(out)}{evaluation}"
    )
    return 0


def add_convert(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command `convert`, which writes an annotation tool's boxes as AVA's csv."""
    p = subparsers.add_parser(
        "convert",
        help="write an annotation tool's boxes as AVA's csv and label map",
        description="Write the boxes and actions of an annotation tool's file as AVA's csv and label map: "
        "those at whole seconds, for a keyframe of AVA is one. Several files become one csv.",
    )
    p.add_argument("files", type=Path, nargs="+", metavar="IN", help="what the tool exported")
    p.add_argument("--from", dest="tool", required=True, choices=tuple(READERS), help="the tool")
    p.add_argument(
        "--out", type=Path, required=True, metavar="CSV", help="such as mine/annotations/ava_train_v2.2.csv"
    )
    p.add_argument(
        "--fps",
        type=float,
        help="frame rate of the videos: numbers in names of images are then those of frames, else of seconds",
    )
    p.add_argument(
        "--first-frame", type=int, default=1, metavar="N", help="number of a video's first image (default: 1)"
    )
    p.add_argument(
        "--start-second",
        type=int,
        default=0,
        metavar="S",
        help="number of a video's first second; AVA's is 900 (default: 0)",
    )
    p.add_argument("--video", metavar="NAME", help="the video, where neither file nor image names tell it")
    p.add_argument(
        "--attribute", metavar="NAME", help="attribute that holds the actions (default: all of them do)"
    )
    p.add_argument("--split", choices=("train", "test"), help="of ucf: the videos of its first split alone")
    p.add_argument("--size", metavar="WxH", help="width and height of images, where the file has none")
    p.set_defaults(command=convert_files)


def convert_files(args: argparse.Namespace) -> int:
    """Convert tools' files; -> 0. ValueError: a wrong option, files that are not the tool's."""
    if args.fps is not None and not 0 < args.fps < 1000:
        raise ValueError(f"--fps {args.fps}: give frames a second, such as 30")
    if args.first_frame < 0 or args.start_second < 0:
        raise ValueError("--first-frame and --start-second count from 0")
    size = None
    if args.size is not None:
        match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", args.size)
        if match is None:
            raise ValueError(f"--size {args.size}: give width and height in pixels, such as 640x480")
        size = float(match[1]), float(match[2])
    timing = Timing(args.fps, args.first_frame, args.start_second, args.video)
    whole = ToolFile()
    for number, path in enumerate(args.files):
        try:
            read = read_tool_file(args.tool, path, timing, args.attribute)
        except OptionNeeded:
            raise
        except ToolFileError as error:  # the other files are read all the same: their errors are told, too
            whole.problems.add(Invalid(str(error)))
            continue
        if args.split is None and read.splits:
            print(f"note: {path}: the videos of all its splits; --split takes those of one", file=sys.stderr)
        whole.extend(read if args.split is None else read.of_split(args.split), number)
    whole.problems.refuse(ToolFileError)
    print(describe(convert(whole, args.out, timing, size=size), args.out))
    return 0


def progress_bar(*, quiet: bool = False) -> Bar:
    """Build a progress bar on standard error that disappears at its end; silent in a pipe, or if quiet."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    return Bar(*columns, transient=True, console=console, disable=quiet or not console.is_terminal)


def _quote(path: Path) -> str:
    """Quote a path for a shell."""
    return shlex.quote(str(path))


# The counts are read back from the files, by the readers that training and evaluation use.


def _describe_ava(root: Path) -> tuple[list[str], str]:
    """Count a made AVA tree; -> its counts and the options by which the evaluator reads it."""
    annotations = root / "annotations"
    videos, boxes = set(), set()
    for split in ("train", "val", "test"):
        gt = read_groundtruth(annotations / f"ava_{split}_v2.2.csv")
        names = [gt.videos[i] for i in gt.video]
        videos |= set(names)
        boxes |= set(zip(names, gt.frame.tolist(), map(tuple, gt.box.tolist()), strict=True))
    counts = [
        f"videos {len(videos)}",
        f"keyframes {len({box[:2] for box in boxes})}",
        f"boxes {len(boxes)}",
        f"classes {len(synthetic.ACTIONS)}",
    ]
    return counts, (
        f"--groundtruth {_quote(annotations / 'ava_test_v2.2.csv')} "
        f"--labelmap {_quote(annotations / 'ava_action_list_v2.2_for_activitynet_2019.pbtxt')} "
        f"--exclusions {_quote(annotations / 'ava_test_excluded_timestamps_v2.2.csv')}"
    )


def _describe_tubes(root: Path, shape: synthetic_tubes.Shape) -> tuple[list[str], str]:
    """Count a made UCF101-24 or JHMDB tree; -> as `_describe_ava`."""
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
    return counts, f"--groundtruth {_quote(file)}" + (" --split all" if len(act.test_videos) > 1 else "")


def _describe_kinetics(root: Path) -> list[str]:
    """Count made clips."""
    splits = {split: kinetics.read_labels(root, split) for split in ("train", "val", "test")}
    videos = sum(len(labels) for labels, _ in splits.values())
    labels = sum(len(of_video) for labels, _ in splits.values() for of_video in labels.values())
    return [f"videos {videos}", f"labels {labels}", f"classes {len(splits['train'][1])}"]


if __name__ == "__main__":
    sys.exit(main())
