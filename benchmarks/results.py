"""What a run leaves for the reports: one JSON file, written last and whole."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

CURVE_THETA = 0.02
"""Training curves keep every candidate above this: p(alpha) is not calibrated early on."""
TABLE_THETA = 0.2
"""Table 2b's precision and recall are of persons with p(alpha) above this."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """One scored row. Fractions are in [0, 1]."""

    experiment: dict[str, Any]
    hash: str
    training: str
    """Names the training, OUT/trainings/<training>: rows that differ in inference alone share it."""
    split: str
    """The split reported on."""
    protocol: str
    mAP: float
    """Frame-mAP at IoU 0.5, at the experiment's theta."""
    mAP_curve_theta: float
    """The same with every candidate above CURVE_THETA."""
    mAP_untrained: float
    """The same network before its first step, at CURVE_THETA, on a thinned report split."""
    mAP_random_classes: float
    """Perfect boxes with random class scores: what localisation alone is worth on this split."""
    precision: float | None
    """Of persons at TABLE_THETA; None where nobody was found."""
    recall: float
    per_class: dict[str, float | None]
    """Class name -> AP; None for a class without ground truth."""
    clips: int
    substituted: int
    """Training clips that could not be read, for each of which another one stood in."""
    gflops: float
    """Multiply-accumulates in 1e9 of this very model on one clip, not of its paper-scale sister."""
    parameters: int
    seconds_training: float
    seconds: float
    """Of the training and of this row's scoring."""
    started: str
    origin: dict[str, str | None]
    """Fingerprints of what the numbers follow from: data, weights (None: drawn), code, scoring (code)."""
    commit: str
    device: str
    versions: dict[str, str]


def read_result(path: Path) -> Result:
    """Raises ValueError naming the file where it is not a whole result of this version."""
    try:
        result = Result(**json.loads(path.read_text()))
        for name, kind in get_type_hints(Result).items():
            if not _fits(getattr(result, name), kind):
                raise ValueError(f"{name} is {getattr(result, name)!r:.40}")
        return result
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{path}: not a result this version reads ({error}); delete {path.parent} and run again"
        ) from error


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value that came out of JSON is of an annotated type."""
    if get_origin(kind) is dict:
        key, held = get_args(kind)
        return isinstance(value, dict) and all(_fits(k, key) and _fits(v, held) for k, v in value.items())
    if get_args(kind):
        return any(_fits(value, one) for one in get_args(kind))
    if kind is Any:
        return True
    kinds = (int, float) if kind is float else kind
    return isinstance(value, kinds) and not isinstance(value, bool)


def save(path: Path, write: Callable[[Path], object]) -> None:
    """Write to a temporary file beside `path`, then rename: nobody sees it half-written."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(part)
        part.replace(path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            part.unlink()
