"""What a data folder says of itself in `dataset.json`, where its annotation files cannot say it.

    {"start_second": 0, "mirrored": {"to the left": "to the right"}}

Whoever reads the folder reads this file: training, evaluation, `datasets check`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from evaluators.files import MOST_TOLD, Invalid, Problems

FILE = "dataset.json"
_SIDE = re.compile(
    r"(?<![^\W_])(?:(left|right)(?=(?:wards?|hand|handed)?(?![^\W_]))|((?:anti|counter)-?)?clockwise(?![^\W_]))",
    re.IGNORECASE,
)
"""A word for a side, or for a sense of rotation, in the name of a class."""


@dataclass(frozen=True)
class Description:
    """The fields of dataset.json, none of which is required."""

    start_second: int | None = None
    """The annotations' second at the first frame of each video. None: AVA's, see `datasets.ava.span`."""
    mirrored: Mapping[str, str] = field(default_factory=dict)
    """Class name -> the name that it gets in a mirrored clip, of all that get another, in both directions."""


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
    advice = f"its fields are {', '.join(known)}"
    if not isinstance(values, dict):
        raise ValueError(f"{path}: not an object; {advice}")
    wrong = Problems()
    for name in sorted(values.keys() - set(known)):
        wrong.add(Invalid(f"unknown field {name!r}", advice))
    start = values.get("start_second")
    if start is not None and (type(start) is not int or start < 0):
        wrong.add(Invalid(f"start_second {start!r}: give a whole number of seconds, at least 0"))
    pairs: dict[str, str] = {}
    try:
        pairs = mirror_pairs(values.get("mirrored", {}), "mirrored")
    except ValueError as error:
        wrong.add(Invalid(str(error)))
    wrong.refuse(ValueError, f"{path}: ")
    return Description(start, pairs)


def mirror_pairs(value: object, where: str) -> dict[str, str]:
    """Check pairs of class names that a horizontal flip exchanges; -> each name of a pair -> the other.

    value: an object of names, {"to the left": "to the right"}; the other direction may stand there, too.
    Raises ValueError, which begins with `where`: not such an object, or a name in two pairs.
    """
    form = 'give pairs of class names, such as {"to the left": "to the right"}'
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value.values()):
        raise ValueError(f"{where}: {str(value)[:60]}: {form}")
    pairs: dict[str, str] = {}
    for one, other in value.items():
        for name, mirrored in ((one, other), (other, one)):
            if pairs.setdefault(name, mirrored) != mirrored:
                raise ValueError(f"{where}: {name!r} is in a pair with {pairs[name]!r} and with {mirrored!r}")
    return pairs


def check_known(pairs: Mapping[str, str], classes: Iterable[str], where: str) -> None:
    """Raise ValueError, which begins with `where`, for a name of `mirror_pairs` that is no class."""
    names = list(classes)
    if unknown := [name for name in pairs if name not in names]:
        shown = ", ".join(names[:5]) + (", .." if len(names) > 5 else "")
        found = f"{unknown[0]!r} is none of the classes"
        if len(unknown) > 1:
            found = f"{', '.join(map(repr, unknown[:MOST_TOLD]))} are none of the classes"
        raise ValueError(f"{where}: {found}, which are {shown}")


def sided(names: Iterable[str]) -> list[str]:
    """Names of classes that name a side: a flip makes another class of them."""
    return [name for name in names if _SIDE.search(name)]


def opposite(name: str) -> str:
    """A name with its sides exchanged: "to the left" -> "to the right"."""
    return _SIDE.sub(_other_side, name)


def _other_side(match: re.Match[str]) -> str:
    if match[1] is None:
        return "clockwise" if match[2] else f"counter{match[0].lower()}"
    other = {"left": "right", "right": "left"}[match[1].lower()]
    return other.upper() if match[1].isupper() else other.title() if match[1].istitle() else other


def mirror_note(root: Path, names: Iterable[str], mirrored: Mapping[str, str]) -> str | None:
    """A warning of classes that name a side and stay what they are in a mirrored clip; None without any."""
    names = list(names)
    left = [name for name in sided(names) if mirrored.get(name, name) == name]
    if not left:
        return None
    pairs = {}
    for name in left:
        if opposite(name) in names and opposite(name) not in pairs:
            pairs[name] = opposite(name)
    example = json.dumps(pairs or {left[0]: opposite(left[0])}, ensure_ascii=False)
    shown = ", ".join(map(repr, left[:4])) + (f" and {len(left) - 4} more" if len(left) > 4 else "")
    return (
        f"clips are mirrored in training, with {shown} labelled as before: write "
        f'{{"mirrored": {example}}} into {root / FILE}, or train with --set flip=0'
    )
