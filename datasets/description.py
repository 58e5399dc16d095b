"""What a data folder says of itself in `dataset.json`, where its annotation files cannot say it.

    {"start_second": 0}

Whoever reads the folder reads this file: training, evaluation, `datasets check`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path

FILE = "dataset.json"


@dataclass(frozen=True)
class Description:
    """The fields of dataset.json, none of which is required."""

    start_second: int | None = None
    """The annotations' second at the first frame of each video. None: AVA's, see `datasets.ava.span`."""


def read_description(root: Path) -> Description:
    """Read a folder's description; that of a folder without one is empty.

    Raises ValueError naming file and field: not JSON, an unknown field, a value of another type.
    """
    path = root / FILE
    if not path.is_file():
        return Description()
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error})") from None
    known = [field.name for field in fields(Description)]
    if not isinstance(values, dict) or (unknown := sorted(values.keys() - set(known))):
        found = f"unknown field {unknown[0]!r}" if isinstance(values, dict) else "not an object"
        raise ValueError(f"{path}: {found}; its fields are {', '.join(known)}")
    start = values.get("start_second")
    if start is not None and (type(start) is not int or start < 0):
        raise ValueError(f"{path}: start_second {start!r}: give a whole number of seconds, at least 0")
    return Description(start_second=start)
