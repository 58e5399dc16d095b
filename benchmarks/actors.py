"""The actors that a model found on a split and what they do; rows for the evaluators on demand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluators.frame_map import Detections


@dataclass(frozen=True, eq=False)
class FoundActors:
    """K actors and C actions. Never all as rows at once: 80 actions of AVA's validation split, with the 83
    candidates a clip that a barely trained model kept, were 24 GiB of rows, and are 2 GiB like this."""

    persons: Detections
    """K rows, label 0, score p(alpha)."""
    ids: NDArray[np.int64]
    """(C,) of the actions."""
    scores: NDArray[Any]
    """(K, C) in [0, 1], float32 as models give them."""


def detections(found: FoundActors, ids: Sequence[int] | None = None) -> Detections:
    """One row for each actor and action, by actor, then by action. ids: of these actions alone.

    Actions that the model does not know have no rows.
    """
    persons = found.persons
    columns = np.arange(len(found.ids)) if ids is None else np.flatnonzero(np.isin(found.ids, ids))
    return Detections(
        videos=persons.videos,
        video=persons.video.repeat(len(columns)),
        frame=persons.frame.repeat(len(columns)),
        box=persons.box.repeat(len(columns), axis=0),
        label=np.tile(found.ids[columns], len(persons.score)),
        score=found.scores[:, columns].ravel().astype(np.float64),
    )


def above(found: FoundActors, theta: float) -> FoundActors:
    """Those with p(alpha) > theta, as `actloc_core.model.keep_actors` would have kept them."""
    persons = found.persons
    # There p(alpha) is a float32 and theta becomes one.
    kept = np.flatnonzero(persons.score > float(np.float32(theta)))
    if len(kept) == len(persons.score):
        return found
    return replace(found, persons=persons.take(kept), scores=found.scores[kept])
