"""The actors detected in a split, with a score for each action; rows for the evaluators on demand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluators.frame_map import Detections


@dataclass(frozen=True, eq=False)
class SplitDetections:
    """K detected actors and C actions. Never all expanded to rows: the 80 actions of AVA's validation split,
    with the 83 candidates a clip of a barely trained model, were 24 GiB of rows, and are 2 GiB like this."""

    persons: Detections
    """K rows, label 0, score p(alpha)."""
    ids: NDArray[np.int64]
    """(C,) ids of the actions."""
    scores: NDArray[Any]
    """(K, C) in [0, 1], float32 as models give them."""


def expand_rows(detections: SplitDetections, ids: Sequence[int] | None = None) -> Detections:
    """One row for each actor and action, by actor, then by action. ids: of these actions alone.

    Actions that the model does not know have no rows.
    """
    persons = detections.persons
    columns = np.arange(len(detections.ids))
    if ids is not None:
        columns = np.flatnonzero(np.isin(detections.ids, ids))
    return Detections(
        videos=persons.videos,
        video=persons.video.repeat(len(columns)),
        frame=persons.frame.repeat(len(columns)),
        box=persons.box.repeat(len(columns), axis=0),
        label=np.tile(detections.ids[columns], len(persons.score)),
        score=detections.scores[:, columns].ravel().astype(np.float64),
    )


def scored_by(detections: SplitDetections, score: str) -> SplitDetections:
    """Detections that have the scores of the actions alone, by `score`: see `actloc_core.model.keep_actors`.

    Raises ValueError for another score than these.
    """
    if score not in ("action", "product"):
        raise ValueError(f"score must be 'action' or 'product', got {score!r}")
    if score == "action":
        return detections
    p_actor = detections.persons.score[:, None].astype(np.float32)  # as the model gave it
    return replace(detections, scores=detections.scores * p_actor)


def filter_by_score(detections: SplitDetections, theta: float) -> SplitDetections:
    """Filter actors by p(alpha) > theta, as `actloc_core.model.keep_actors` filters candidates."""
    persons = detections.persons
    # There p(alpha) is a float32 and theta becomes one.
    kept = np.flatnonzero(persons.score > float(np.float32(theta)))
    if len(kept) == len(persons.score):
        return detections
    return replace(detections, persons=persons.take(kept), scores=detections.scores[kept])
