"""The Result of a run: one JSON file, written last and atomically, which reports read."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from actloc_core.files import atomic_path

CURVE_THETA = 0.02
"""Score threshold of training curves, low because p(alpha) is not calibrated early on."""
TABLE_THETA = 0.2
"""Score threshold of Table 2b's precision and recall."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """One scored row. Fractions are in [0, 1]."""

    experiment: dict[str, Any]
    hash: str
    training: str
    """Hash of the training, OUT/trainings/<training>: rows that differ in inference-only fields share it."""
    split: str
    """The split reported on."""
    protocol: str
    mAP: float
    """Frame-mAP at IoU 0.5, at the experiment's theta."""
    mAP_slowfast: float | None
    """The same by the protocol of PySlowFast, as most papers on AVA have it: it matches the candidates in the
    model's order, not in that of scores, which detections.csv has. None of other benchmarks."""
    accuracy: float | None
    """Top-1, of classification; None for detection."""
    mAP_curve_theta: float
    """The same with every candidate above CURVE_THETA."""
    mAP_untrained: float
    """The same before the first step, at CURVE_THETA, on a subset of the report split."""
    mAP_random_classes: float
    """Of ground-truth boxes with random class scores: the chance level of classification on this split."""
    precision: float | None
    """Of actors at TABLE_THETA; None without detections."""
    recall: float
    candidates_per_actor: float | None
    p_actor: float | None
    actor_ap_50: float | None
    actor_ap_75: float | None
    class_ap_true_boxes: float | None
    """These five: see `benchmarks.score.diagnostics.Diagnostics`."""
    mAP_without_duplicates: float | None
    """After an oracle has removed the detections of boxes that are detected already; the protocol's mAP."""
    per_class: dict[str, float | None]
    """Class name -> AP; None for a class without ground truth."""
    clips: int
    substituted: int
    """Unreadable training clips that were replaced."""
    gflops: float
    """Multiply-accumulates in 1e9 of this very model on one clip, not of its paper-scale version."""
    parameters: int
    seconds_training: float
    seconds: float
    """Of the training and of this row's scoring."""
    left_out: int = 0
    """Missing videos of the training and report splits that were done without."""
    started: str
    origin: dict[str, str | None]
    """Fingerprints of what the numbers follow from: data, weights (None: random), code, scoring (code)."""
    commit: str
    device: str
    versions: dict[str, str]


def read_result(path: Path) -> Result:
    """Read a result. Raises ValueError naming the file where it is not a whole result of this version."""
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


def none_if_nan(value: float) -> float | None:
    """A number as our JSON has it: None for NaN."""
    return None if math.isnan(value) else float(value)


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value read from JSON has an annotated type."""
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
    """Write a file atomically: `write` gets a temporary path beside it."""
    with atomic_path(path) as part:
        write(part)
