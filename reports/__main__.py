"""`nox -s report`: tables, figures and a page of the results in OUT/runs, into OUT/report; no training.

`python -m reports figures --run HASH --clips VIDEO:KEYFRAME ...` draws what a model looks at in those clips,
`python -m reports compare HASH HASH` the AP of each class of two runs side by side.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

from benchmarks.inputs import named
from benchmarks.experiments import SCALES, TABLES
from benchmarks.score.results import save
from benchmarks.train.data import load_data
from reports.charts import per_class, style
from reports.figures import keyframes
from reports.page import Run, best_single_stage, clip_figure, page, report_split, store
from reports.tables import latex, markdown, sanity, table


def main(argv: list[str] | None = None) -> int:
    """Run the command; -> the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["figures"]:
        return draw_clips(argv[1:])
    if argv[:1] == ["compare"]:
        return draw_comparison(argv[1:])
    summary, _, more = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(prog="python -m reports", description=summary, epilog=more)
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder of a sweep (default: out)")
    parser.add_argument("--scale", choices=SCALES, default="tiny", help="which runs (default: tiny)")
    args = parser.parse_args(argv)
    folder = args.out / "report"
    tables = [table(name, args.scale, args.out / "runs") for name in TABLES]
    folder.mkdir(parents=True, exist_ok=True)
    for made in tables:
        if not made.has_results:
            print(f"## {made.title}\n\nNo row was run yet; `--only {made.name}` runs them.\n")
            continue
        text = markdown(made)
        print(text)
        save(folder / f"table_{made.name}.md", partial(Path.write_text, data=text))
        save(folder / f"table_{made.name}.tex", partial(Path.write_text, data=latex(made)))
        csv = made.cells.to_csv(index=False, float_format="%.4f")
        save(folder / f"table_{made.name}.csv", partial(Path.write_text, data=csv))
    text = sanity(args.scale, args.out / "runs")
    print(text)
    save(folder / "sanity.md", partial(Path.write_text, data=text))
    runs, problems, _ = store(args.out, args.scale)
    for problem in problems:
        print(f"not shown: {problem}", file=sys.stderr)
    if figure := draw_keyframes(args.out, runs, folder):
        print(f"figure: {figure}")
    html = page(args.out, args.scale, tables)
    save(folder / "index.html", partial(Path.write_text, data=html))
    print(f"page: {folder / 'index.html'}, with everything in it: open it in a browser")
    print(f"tables: {folder}/table_*.md, .tex and .csv; runs: {args.out / 'runs'}/<run>/, named in the csv:")
    print(
        "  result.json, analysis.json, detections.csv, persons.csv; trainings: checkpoint.pt and log.csv in"
    )
    print(f"  {args.out / 'trainings'}/<training>/, named in result.json")
    return 0


def draw_keyframes(out: Path, runs: list[Run], folder: Path) -> Path | None:
    """What the best single-stage run on AVA's shape found; None where OUT/data has not the data."""
    best = best_single_stage(runs)
    if best is None or (split := report_split(out, best.experiment)) is None:
        return None
    figure = keyframes(best.result, out / "runs" / best.result.hash, split)
    path = folder / "keyframes.png"
    save(path, lambda part: figure.savefig(part, format="png", dpi=110, metadata={"Software": None}))
    return path


def draw_clips(argv: list[str]) -> int:
    """The `figures` command; -> the exit status, 2 for a ValueError or a missing file."""
    parser = argparse.ArgumentParser(
        prog="python -m reports figures",
        description="p(alpha) over the keyframe, boxes, and the last layer's attention of the surest tokens.",
    )
    parser.add_argument(
        "--run", required=True, metavar="HASH", help="a folder of OUT/runs, or its first digits"
    )
    parser.add_argument(
        "--clips",
        nargs="+",
        required=True,
        metavar="VIDEO:KEYFRAME",
        help="second (AVA) or frame (UCF, JHMDB)",
    )
    parser.add_argument(
        "--theta", type=float, default=0.2, help="boxes above it are highlighted (default: 0.2)"
    )
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder of a sweep (default: out)")
    parser.add_argument(
        "--data",
        action="append",
        default=[],
        metavar="NAME=FOLDER",
        help="where a dataset lies that we did not make",
    )
    args = parser.parse_args(argv)
    try:
        run = one_run(args.out, args.run)
        roots = named("--data", args.data, "NAME=FOLDER, such as ava=/data/ava")
        dataset = run.experiment.dataset
        split = (
            load_data(run.experiment, roots).report
            if dataset in roots
            else report_split(args.out, run.experiment)
        )
        if split is None:
            raise ValueError(
                f"{args.out / 'data'}: no {dataset} there; give its folder, --data {dataset}=FOLDER"
            )
        folder = args.out / "report" / "clips"
        folder.mkdir(parents=True, exist_ok=True)
        for text in args.clips:
            video, _, keyframe = text.rpartition(":")
            if not keyframe.isdigit() or (video, int(keyframe)) not in split.keyframes:
                near = ", ".join(f"{v}:{k}" for v, k in split.keyframes[:3])
                raise ValueError(f"--clips {text}: no such keyframe; there are {len(split)}, such as {near}")
            figure = clip_figure(
                args.out, run, split, split.keyframes.index((video, int(keyframe))), theta=args.theta
            )
            path = folder / f"{run.result.hash}_{video.replace('/', '_')}_{keyframe}.png"
            save(path, partial(figure.savefig, format="png", dpi=130, metadata={"Software": None}))
            print(path)
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def draw_comparison(argv: list[str]) -> int:
    """The `compare` command; -> the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m reports compare",
        description="The paper's Fig. 4 of any two runs: AP of each class as paired bars.",
    )
    parser.add_argument("runs", nargs=2, metavar="HASH", help="of OUT/runs, or its first digits")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder of a sweep (default: out)")
    args = parser.parse_args(argv)
    try:
        first, second = (one_run(args.out, start) for start in args.runs)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    counts = second.analysis.boxes if second.analysis else {}
    names = [f"{run.label} [{run.result.hash[:4]}]" for run in (first, second)]
    with style():
        figure = per_class(
            first.result.per_class, second.result.per_class, counts, names=(names[0], names[1])
        )
        path = args.out / "report" / f"compare_{first.result.hash}_{second.result.hash}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        drawn = partial(figure.savefig, format="png", dpi=130, facecolor="white", metadata={"Software": None})
        save(path, drawn)
    print(path)
    return 0


def one_run(out: Path, start: str) -> Run:
    """The run whose hash begins so. Raises ValueError where there is none, or several."""
    found = [run for scale in SCALES for run in store(out, scale)[0] if run.result.hash.startswith(start)]
    if len(found) != 1:
        raise ValueError(f"--run {start}: {len(found) or 'no'} runs in {out / 'runs'} begin so")
    return found[0]


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
