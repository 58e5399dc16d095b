"""Write the table of docs/reproduction.md: the paper's numbers, our GFLOPs, and the command of each row.

python -m tools.reproduction
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

from actloc_core.cli import command_parser
from benchmarks.experiments import DEFAULT, ROWS
from reports.tables import MEANS, count_paper_model, published

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reproduction.md"
MARK = "<!-- made by `python -m tools.reproduction` -->\n"


def lines() -> list[dict[str, str]]:
    """A line for each row of the paper's tables that has an mAP or GFLOPs, in the paper's order."""
    return [
        _line(str(row), paper)
        for row, paper in published().iterrows()
        if str(row).partition("/")[0] in DEFAULT and paper[["map", "gflops"]].notna().any()
    ]


def _line(row: str, paper: pd.Series) -> dict[str, str]:
    ours = MEANS.get(row, (row,) if row in ROWS else ())
    model = count_paper_model(row)
    printed = [_number(paper[name]) for name in ("precision", "recall")]
    return {
        "row": row,
        "what": str(paper["method"]),
        "mAP": _number(paper["map"]),
        "precision / recall": " / ".join(filter(None, printed)),
        "GFLOPs": _number(paper["gflops"]),
        "counted": f"{model.gflops:.1f}" if model else "",
        "off by": f"{model.gflops / paper['gflops'] - 1:+.1%}" if model and paper["gflops"] > 0 else "",
        "how": f"`--only {' '.join(ours)}`" if ours else "quoted",
    }


def _number(value: float) -> str:
    return "" if pd.isna(value) else f"{value:g}"


def table() -> str:
    """The table as Markdown."""
    return pd.DataFrame(lines()).to_markdown(index=False, disable_numparse=True)


def main(argv: list[str] | None = None) -> int:
    """Rewrite the table in docs/reproduction.md; -> 0."""
    command_parser("tools.reproduction", __doc__).parse_args(argv)
    prose, _, _ = PAGE.read_text().partition(MARK)
    PAGE.write_text(f"{prose}{MARK}\n{table()}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
