"""Counted GFLOPs and parameters of the paper's models, kept beside the report: to count all takes seconds."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

from benchmarks.score.provenance import counting_code
from benchmarks.score.results import save
from benchmarks.train.gflops import Count
from reports.tables import count_paper_model

FILE = "counts.json"


def kept_counts(folder: Path) -> Callable[[str], Count | None]:
    """`count_paper_model` by FILE in a folder, as long as the code that counts is the same.

    What the file lacks is counted and added; one that cannot be read is written anew.
    """
    path, code = folder / FILE, counting_code()
    kept: dict[str, dict[str, object] | None] = {}
    try:
        content = json.loads(path.read_text())
        if content["code"] == code:
            kept = {
                row: None if one is None else asdict(Count(**one)) for row, one in content["counts"].items()
            }
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        kept = {}

    def count(row: str) -> Count | None:
        if row not in kept:
            counted = count_paper_model(row)
            kept[row] = None if counted is None else asdict(counted)
            text = json.dumps({"code": code, "counts": dict(sorted(kept.items()))}, indent=1)
            save(path, partial(Path.write_text, data=text + "\n"))
        one = kept[row]
        return None if one is None else Count(**one)  # type: ignore[arg-type]

    return count
