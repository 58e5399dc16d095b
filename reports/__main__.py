"""`python -m reports`: the tables of the results in OUT/runs, printed and written to OUT/report."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

from benchmarks.experiments import SCALES, TABLES
from benchmarks.run import save
from reports.tables import markdown, table


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
        text = markdown(made)
        print(text)
        save(folder / f"table_{made.name}.md", partial(Path.write_text, data=text))
        csv = made.cells.to_csv(index=False, float_format="%.4f")
        save(folder / f"table_{made.name}.csv", partial(Path.write_text, data=csv))
    print(f"tables: {folder}/table_*.md and .csv; runs: {args.out / 'runs'}/<run>/, named in the csv:")
    print("  result.json, detections.csv, persons.csv, checkpoint.pt, log.csv")
    return 0


if __name__ == "__main__":
    sys.exit(main())
