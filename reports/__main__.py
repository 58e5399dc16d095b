"""Tables, figures and a page of the results in OUT/runs, written to OUT/report. Trains nothing.

python -m reports                                                     `nox -s report`
python -m reports figures --run HASH --clips VIDEO:KEYFRAME ...       attention of a model in clips
python -m reports compare HASH HASH                                   AP of each class of two runs
python -m reports own                                                 runs on your own data
"""

from __future__ import annotations

import argparse
import shlex
import sys
from functools import partial
from pathlib import Path

from actloc_core.cli import command_parser, exit_code
from benchmarks.experiments import TABLES, scale_of
from benchmarks.inputs import add_scale_options, named
from benchmarks.score.results import save
from benchmarks.train.data import load_data
from datasets.split import Split
from reports import hypotheses, own
from reports.charts import font_for, per_class_ap, style
from reports.counts import kept_counts
from reports.figures import keyframes, save_png
from reports.page import clip_figure, page
from reports.runs import Run, best_single_stage, find_run, load_sweep, report_split
from reports.tables import Table, build_table, latex, markdown, sanity


def main(argv: list[str] | None = None) -> int:
    """Run the command; -> the exit code, 2 for bad input."""
    return exit_code(lambda: _run(parser().parse_args(argv)))


def _run(args: argparse.Namespace) -> int:
    if args.out.exists() and not args.out.is_dir():
        raise ValueError(f"--out {args.out}: is a file; give the output directory of a sweep")
    code: int = args.command(args)
    return code


def parser() -> argparse.ArgumentParser:
    """The options."""
    p = command_parser("reports", __doc__)
    p.add_argument("--out", type=Path, default=Path("out"), help="output directory of a sweep (default: out)")
    add_scale_options(p)
    p.set_defaults(command=write_report)
    commands = p.add_subparsers(title="other commands", metavar="COMMAND")
    clips = "p(alpha) over the keyframe, boxes, and the last layer's attention of the highest-scored tokens"
    figures = commands.add_parser("figures", help=clips, description=clips)
    figures.add_argument(
        "--run", required=True, metavar="HASH", help="directory in OUT/runs, or its first digits"
    )
    figures.add_argument(
        "--clips",
        nargs="+",
        required=True,
        metavar="VIDEO:KEYFRAME",
        help="second (AVA) or frame (UCF, JHMDB)",
    )
    figures.add_argument(
        "--theta", type=float, default=0.2, help="highlight boxes with p(alpha) above this (default: 0.2)"
    )
    figures.add_argument(
        "--data",
        action="append",
        default=[],
        metavar="NAME=FOLDER",
        help="folder of a dataset that is not synthetic",
    )
    figures.set_defaults(command=draw_clips)
    bars = "the paper's Fig. 4 for any two runs: AP of each class as paired bars"
    compare = commands.add_parser("compare", help=bars, description=bars)
    compare.add_argument("runs", nargs=2, metavar="HASH", help="directory in OUT/runs, or its first digits")
    compare.set_defaults(command=compare_runs)
    mine = "the table of runs on your own data, AP of each class and errors of one; then the page"
    data = commands.add_parser("own", help=mine, description=mine)
    data.add_argument("--run", metavar="HASH", help="the run to show (default: the last)")
    data.set_defaults(command=report_own)
    for command in (
        figures,
        compare,
        data,
    ):  # without a default, which would overwrite an --out before the command
        command.add_argument("--out", type=Path, default=argparse.SUPPRESS, help="as above")
    return p


def write_report(args: argparse.Namespace) -> int:
    """Write tables, sanity check, verdicts, keyframes and page; -> 0. ValueError: an unknown field."""
    scale = scale_of(args.scale, args.set)
    folder, runs = args.out / "report", args.out / "runs"
    folder.mkdir(parents=True, exist_ok=True)
    count = kept_counts(folder)
    tables = [build_table(name, scale, runs, count=count) for name in TABLES]
    for table in tables:
        write_table(table, folder)
    text = sanity(scale, runs)
    print(text)
    _write(folder / "sanity.md", text)
    text = hypotheses.markdown(hypotheses.verdicts(scale, runs), scale)
    print(text)
    _write(folder / "hypotheses.md", text)
    sweep = load_sweep(args.out, scale)
    for problem in sweep.problems:
        print(f"not shown: {problem}", file=sys.stderr)
    best = best_single_stage(sweep.runs)
    if best and (split := report_split(args.out, best.experiment)):
        figure = keyframes(best.result, runs / best.result.hash, split)
        save_png(figure, folder / "keyframes.png", dpi=110)
        print(f"figure: {folder / 'keyframes.png'}")
    _write(folder / "index.html", page(args.out, scale, tables))
    print(
        f"page: {folder / 'index.html'}, self-contained: open it in a browser\n"
        f"tables: {folder}/table_*.md, .tex and .csv\n"
        f"runs: {runs}/<run>/ (named in the csv): result.json, analysis.json, detections.csv, persons.csv\n"
        f"trainings: {args.out / 'trainings'}/<training>/ (named in result.json): checkpoint.pt, log.csv"
    )
    return 0


def write_table(table: Table, folder: Path) -> None:
    """Print a table and write it as Markdown, LaTeX and CSV, unless none of its rows was run."""
    if not table.has_results:
        print(f"## {table.title}\n\nNo row was run; run them with `--only {table.name}`.\n")
        return
    print(markdown(table))
    _write(folder / f"table_{table.name}.md", markdown(table))
    _write(folder / f"table_{table.name}.tex", latex(table))
    _write(folder / f"table_{table.name}.csv", table.cells.to_csv(index=False, float_format="%.4f"))


def _write(path: Path, text: str) -> None:
    save(path, partial(Path.write_text, data=text))


def draw_clips(args: argparse.Namespace) -> int:
    """Draw the predictions and attention of a run in clips; -> 0.

    Raises ValueError for an unknown run, dataset or keyframe, FileNotFoundError for a missing checkpoint.
    """
    run = find_run(args.out, args.run)
    split = _split(args, run)
    for clip in args.clips:
        video, _, keyframe = clip.rpartition(":")
        if not keyframe.isdigit() or (video, int(keyframe)) not in split.keyframes:
            examples = ", ".join(f"{v}:{k}" for v, k in split.keyframes[:3])
            raise ValueError(f"--clips {clip}: unknown keyframe; the {len(split)} known include {examples}")
        index = split.keyframes.index((video, int(keyframe)))
        path = args.out / "report" / "clips" / f"{run.result.hash}_{video.replace('/', '_')}_{keyframe}.png"
        with font_for(split.classes.values()):
            save_png(clip_figure(args.out, run, split, index, theta=args.theta), path, dpi=130)
        print(path)
    return 0


def _split(args: argparse.Namespace, run: Run) -> Split:
    """The split that a run reports on, from --data or, of synthetic data, from OUT/data."""
    dataset = run.experiment.dataset
    roots = named("--data", args.data, "NAME=FOLDER, such as ava=/data/ava")
    if dataset in roots:
        return load_data(run.experiment, roots).report
    if split := report_split(args.out, run.experiment):
        return split
    raise ValueError(f"{args.out / 'data'}: {dataset} is not there; give its folder, --data {dataset}=FOLDER")


def report_own(args: argparse.Namespace) -> int:
    """Print the runs on own data and one's classes and errors, and write the page; -> 0.

    Raises ValueError without any such run, or for an unknown one.
    """
    runs, problems = own.own_runs(args.out)
    for problem in problems:
        print(f"not shown: {problem}", file=sys.stderr)
    chosen = [run for run in runs if run.result.hash.startswith(args.run or "")]
    if not chosen:
        raise ValueError(f"{args.out / 'runs'}: no run on own data{f' {args.run}' if args.run else ''}")
    shown, folder = chosen[-1], args.out / "report"
    folder.mkdir(parents=True, exist_ok=True)
    text = own.markdown(runs)
    print(f"{text}\n{shown.names[0]} [{shown.result.hash}]:\n{own.details(shown)}")
    _write(folder / "own.md", text)
    count = kept_counts(folder)
    tables = [build_table(name, args.scale, args.out / "runs", count=count) for name in TABLES]
    _write(folder / "index.html", page(args.out, args.scale, tables))
    run = args.out / "runs" / shown.result.hash
    print(
        f"\npage: {folder / 'index.html'}, self-contained: open it in a browser\n"
        f"predict: python -m actloc_core.predict VIDEO --checkpoint {shlex.quote(str(run))}"
    )
    return 0


def compare_runs(args: argparse.Namespace) -> int:
    """Draw the AP of each class of two runs; -> 0. Raises ValueError for an unknown run."""
    first, second = (find_run(args.out, prefix) for prefix in args.runs)
    counts = second.analysis.boxes if second.analysis else {}
    aps = (first.result.per_class, second.result.per_class)
    one, other = (f"{run.label} [{run.result.hash[:4]}]" for run in (first, second))
    path = args.out / "report" / f"compare_{first.result.hash}_{second.result.hash}.png"
    with style(), font_for(first.result.per_class):
        save_png(per_class_ap(*aps, counts, names=(one, other)), path, dpi=130)
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
