"""Pictures of results: what a run found on the split it reports on."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from benchmarks.score.results import TABLE_THETA, Result
from datasets.split import Split
from evaluators.ava_csv import read_detections, read_persons
from evaluators.frame_map import Detections, GroundTruth

SHOWN_SCORE = 0.3
"""Actions of a person are named when their score is above this."""
NAMED = 5
"""Persons of a keyframe whose actions are named, the surest first; every one has its box."""


def keyframes(result: Result, folder: Path, split: Split, *, every: int = 45, count: int = 8) -> Figure:
    """Keyframes with the people found (p(alpha) > 0.2) and the true actors, and their actions.

    folder: the run's, with its detections and persons. Keyframes are taken at even distances
    through the split, not chosen by how well they look.
    """
    detections = read_detections(folder / "detections.csv", known_ids=split.classes)
    persons = read_persons(folder / "persons.csv")
    matplotlib.rcParams["svg.hashsalt"] = "actloc"
    figure = Figure(figsize=(12, 5.6), layout="constrained")
    axes = figure.subplots(2, count // 2).ravel()
    keys = [split.keyframes[(i * every) % len(split)] for i in range(count)]
    for axis, key in zip(axes, keys, strict=True):
        _draw(axis, key, split, detections, persons)
    figure.suptitle(
        f"{result.experiment['selection']}"
        f"{' + frame embedding' if result.experiment['frame_embedding'] else ''}: "
        f"{100 * result.mAP:.1f} frame-mAP on {result.clips} clips of the {result.split} split. "
        f"Dashed: true actors. Yellow: found, p(alpha) > {TABLE_THETA}.",
        fontsize=10,
    )
    return figure


def _draw(
    axis: Axes, key: tuple[str, int], split: Split, detections: Detections, persons: Detections
) -> None:
    frame = split.keyframe(split.keyframes.index(key))
    height, width = frame.shape[:2]
    axis.imshow(frame, extent=(0, 1, 1, 0), aspect=height / width, interpolation="nearest")
    axis.set_axis_off()
    truth = split.ground_truth
    for box in np.unique(truth.box[_at(truth, key)], axis=0):
        axis.add_patch(_outline(box, color="white", linestyle="--", linewidth=1.2))
    person_rows = _at(persons, key) & (persons.score > TABLE_THETA)
    action_rows = _at(detections, key) & (detections.score > SHOWN_SCORE)
    lines = []
    for number, row in enumerate(np.flatnonzero(person_rows), 1):  # in the files the surest is first
        box = persons.box[row]
        axis.add_patch(_outline(box, color="gold", linewidth=1.8))
        axis.text(box[0], box[1] - 0.01, str(number), color="gold", fontsize=9, va="bottom", weight="bold")
        # A person's rows in the two files have the same box, to the last digit.
        mine = np.flatnonzero(action_rows & (detections.box == box).all(1))
        mine = mine[np.argsort(-detections.score[mine], kind="stable")]
        names = [f"{split.classes[int(detections.label[i])]} {detections.score[i]:.2f}" for i in mine]
        lines.append(f"{number}: {', '.join(names) or '-'}")
    if len(lines) > NAMED:
        lines[NAMED:] = [f"and {len(lines) - NAMED} more"]
    axis.set_title(_wrapped(lines) or "nobody", fontsize=7, loc="left", va="bottom")


def _at(rows: GroundTruth | Detections, key: tuple[str, int]) -> np.ndarray:
    """(N,) bool: the rows of this video and second."""
    if key[0] not in rows.videos:
        return np.zeros(len(rows.video), bool)
    here: np.ndarray = (rows.video == rows.videos.index(key[0])) & (rows.frame == key[1])
    return here


def _outline(box: np.ndarray, **style: object) -> Rectangle:
    x1, y1, x2, y2 = box
    return Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, **style)  # type: ignore[arg-type]


def _wrapped(lines: list[str], width: int = 52) -> str:
    return "\n".join(line if len(line) <= width else line[: width - 3] + "..." for line in lines)
