"""`python -m benchmarks.flops`: GFLOPs and parameters of every model that the paper's tables name.

    python -m benchmarks.flops                              all rows, some minutes on two cores
    python -m benchmarks.flops --backbone mvitv1_b vit_b    the rows of these backbones
    python -m benchmarks.flops --instant                    the meta-device count, seconds
    python -m benchmarks.flops --json FILE                  also as a list of objects

"GFLOPs" are multiply-accumulates in units of 1e9, see `benchmarks.train.gflops`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from actloc_core.cli import command_parser
from actloc_core.files import text_beside
from benchmarks.experiments import Experiment
from benchmarks.inputs import exit_code
from benchmarks.score.results import save
from benchmarks.train.gflops import PAPER, ROWS, Row, count_row, detectors


def main(argv: list[str] | None = None) -> int:
    """Run the command; -> 0."""
    rows: dict[str, Row | Experiment] = {**ROWS, **detectors()}
    args = parser(sorted({row.backbone for row in rows.values()})).parse_args(argv)
    with text_beside(args.json):
        return count(args, rows)


def count(args: argparse.Namespace, rows: dict[str, Row | Experiment]) -> int:
    """Count the chosen of these rows, print and write the counts; -> 0."""
    chosen = {n: r for n, r in rows.items() if not args.backbone or r.backbone in args.backbone}
    print(f"{'model':26}{'GFLOPs':>10}{'paper':>8}{'diff':>8}{'params M':>10}   parts", flush=True)
    counts = []
    for name, row in chosen.items():
        counted = count_row(row, instant=args.instant)
        printed = PAPER.get(name) if isinstance(row, Experiment) else row.paper
        paper = "" if printed is None else f"{printed:g}"
        difference = "" if printed is None else f"{counted.gflops / printed - 1:+.1%}"
        parts = ", ".join(f"{part} {gflops:.3f}" for part, gflops in counted.parts.items())
        print(
            f"{name:26}{counted.gflops:10.3f}{paper:>8}{difference:>8}{counted.params / 1e6:10.2f}   {parts}",
            flush=True,
        )
        counts.append(
            {"name": name, "gflops": counted.gflops, "params": counted.params, "paper_gflops": printed}
            | ({} if args.instant else {"parts": counted.parts})
        )
    if args.json:
        save(args.json, lambda part: part.write_text(json.dumps(counts, indent=1) + "\n"))
    return 0


def parser(backbones: list[str]) -> argparse.ArgumentParser:
    """The options."""
    p = command_parser("benchmarks.flops", __doc__)
    p.add_argument("--backbone", nargs="+", choices=backbones, metavar="NAME", help=", ".join(backbones))
    p.add_argument("--instant", action="store_true", help="count on the meta device, without parts")
    p.add_argument("--json", type=Path, metavar="FILE", help="write the counts there, too")
    return p


if __name__ == "__main__":
    sys.exit(exit_code(main))
