"""`python -m reports`: tables and a figure of the results in OUT/runs, into OUT/report; no training."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

from benchmarks.ablations import synthetic_folder
from benchmarks.data import load_data
from benchmarks.experiments import SCALES, TABLES, rows_at
from benchmarks.results import read_result, save
from datasets import synthetic
from reports.figures import keyframes
from reports.tables import markdown, sanity, table


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m reports", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder of a sweep (default: out)")
    parser.add_argument("--scale", choices=SCALES, default="tiny", help="which runs (default: tiny)")
    args = parser.parse_args(argv)
    folder = args.out / "report"
    try:
        tables = [table(name, args.scale, args.out / "runs") for name in TABLES]
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    folder.mkdir(parents=True, exist_ok=True)
    for made in tables:
        if not made.has_results:
            print(f"## {made.title}\n\nNo row was run: `--only {made.name}` does.\n")
            continue
        text = markdown(made)
        print(text)
        save(folder / f"table_{made.name}.md", partial(Path.write_text, data=text))
        csv = made.cells.to_csv(index=False, float_format="%.4f")
        save(folder / f"table_{made.name}.csv", partial(Path.write_text, data=csv))
    text = sanity(args.scale, args.out / "runs")
    print(text)
    save(folder / "sanity.md", partial(Path.write_text, data=text))
    if figure := draw_keyframes(args.out, args.scale, folder):
        print(f"figure: {figure}")
    print(f"tables: {folder}/table_*.md and .csv; runs: {args.out / 'runs'}/<run>/, named in the csv:")
    print("  result.json, detections.csv, persons.csv; trainings: checkpoint.pt and log.csv in")
    print(f"  {args.out / 'trainings'}/<training>/, named in result.json")
    return 0


def draw_keyframes(out: Path, scale: str, folder: Path) -> Path | None:
    """What the best single-stage run on the synthetic AVA found; None where OUT/data has not the data."""
    small = [exp for exp in rows_at(scale).values() if exp.method == "single_stage"]
    hashes = {exp.hash: exp for exp in small if exp.dataset in synthetic.SIZES}
    done = [read_result(p) for h in hashes if (p := out / "runs" / h / "result.json").exists()]
    if not done:
        return None
    best = max(done, key=lambda result: result.mAP)
    exp = hashes[best.hash]
    root = synthetic_folder(out / "data", exp.dataset)
    if not root.exists():
        return None
    data = load_data(exp, {exp.dataset: root})
    figure = keyframes(best, out / "runs" / best.hash, data.report)
    path = folder / "keyframes.png"
    save(path, lambda part: figure.savefig(part, format="png", dpi=110, metadata={"Software": None}))
    return path


if __name__ == "__main__":
    sys.exit(main())
