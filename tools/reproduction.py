"""The table of docs/reproduction.md: every number of the paper, how we get it, and how far we are.

    python -m reports.reproduction

writes it anew into the page. GFLOPs are counted when this runs.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

from benchmarks.experiments import DEFAULT, ROWS
from reports.tables import counted, published

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reproduction.md"
MARK = "<!-- made by `python -m reports.reproduction` -->\n"
PARTS = {"4/jhmdb": ("4/jhmdb_1", "4/jhmdb_2", "4/jhmdb_3")}
"""Rows of the paper that are means of ours."""


def lines() -> list[dict[str, object]]:
    """One for each row of the paper's tables, in its order."""
    found = []
    for name, paper in published().iterrows():
        if not isinstance(name, str) or name.partition("/")[0] not in DEFAULT or not _has_number(paper):
            continue
        ours = PARTS.get(name, (name,) if name in ROWS else ())
        model = counted(name)
        gflops = model.gflops if model else None
        found.append(
            {
                "row": name,
                "what": paper["method"],
                "mAP": _shown(paper["map"]),
                "precision / recall": " / ".join(
                    filter(None, (_shown(paper["precision"]), _shown(paper["recall"])))
                ),
                "GFLOPs": _shown(paper["gflops"]),
                "counted": "" if gflops is None else f"{gflops:.1f}",
                "off by": f"{gflops / paper['gflops'] - 1:+.1%}" if gflops and paper["gflops"] > 0 else "",
                "how": f"`--only {' '.join(ours)}`" if ours else "quoted",
            }
        )
    return found


def _has_number(paper: pd.Series) -> bool:
    return bool(paper[["map", "gflops"]].notna().any())


def _shown(value: float) -> str:
    return "" if pd.isna(value) else f"{value:g}"


def table() -> str:
    """Each number of the paper with ours, as Markdown."""
    return pd.DataFrame(lines()).to_markdown(index=False, disable_numparse=True)


def main() -> int:
    """Write the table into docs/reproduction.md; -> 0."""
    prose, _, _ = PAGE.read_text().partition(MARK)
    PAGE.write_text(f"{prose}{MARK}\n{table()}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
