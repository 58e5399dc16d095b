"""Pictures of detections: keyframes of the split that a run reports on, and boxes on any axes."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from benchmarks.score.results import TABLE_THETA, Result, save
from datasets.split import Split
from evaluators.ava_csv import read_detections, read_persons
from evaluators.frame_map import Detections, GroundTruth

SHOWN_SCORE = 0.3
"""Score threshold of the actions listed for a detection."""
LISTED = 5
"""Detections of a keyframe whose actions are listed, by descending score. All have a box."""
LINE_WIDTH = 52
"""Characters of a listed line."""


def keyframes(result: Result, folder: Path, split: Split, *, every: int = 45, count: int = 8) -> Figure:
    """Draw keyframes with detections (p(alpha) > 0.2), ground-truth boxes and the detections' actions.

    folder: the run's directory, with its detections and persons. count keyframes are taken at regular
    intervals through the split, not chosen by the quality of their detections.
    """
    detections = read_detections(folder / "detections.csv", known_ids=split.classes)
    persons = read_persons(folder / "persons.csv")
    figure = Figure(figsize=(12, 5.6), layout="constrained")
    axes = figure.subplots(2, count // 2).ravel()
    keys = [split.keyframes[(i * every) % len(split)] for i in range(count)]
    for axis, key in zip(axes, keys, strict=True):
        _draw_keyframe(axis, key, split, detections, persons)
    figure.suptitle(
        f"{result.experiment['selection']}"
        f"{' + frame embedding' if result.experiment['frame_embedding'] else ''}: "
        f"{100 * result.mAP:.1f} frame-mAP on {result.clips} clips of the {result.split} split. "
        f"Dashed: ground truth. Yellow: detections, p(alpha) > {TABLE_THETA}.",
        fontsize=10,
    )
    return figure


def _draw_keyframe(
    axis: Axes, key: tuple[str, int], split: Split, detections: Detections, persons: Detections
) -> None:
    frame = split.keyframe(split.keyframes.index(key))
    height, width = frame.shape[:2]
    axis.imshow(frame, extent=(0, 1, 1, 0), aspect=height / width, interpolation="nearest")
    axis.set_axis_off()
    gt = split.ground_truth
    for box in np.unique(gt.box[_at(gt, key)], axis=0):
        draw_box(axis, box, color="white", linestyle="--", linewidth=1.2)
    person_rows = _at(persons, key) & (persons.score > TABLE_THETA)
    action_rows = _at(detections, key) & (detections.score > SHOWN_SCORE)
    lines = []
    for number, row in enumerate(np.flatnonzero(person_rows), 1):  # the files have descending scores
        box = persons.box[row]
        draw_box(axis, box, color="gold", linewidth=1.8)
        axis.text(box[0], box[1] - 0.01, str(number), color="gold", fontsize=9, va="bottom", weight="bold")
        # The rows of one actor have exactly equal boxes in the two files.
        actions = np.flatnonzero(action_rows & (detections.box == box).all(1))
        actions = actions[np.argsort(-detections.score[actions], kind="stable")]
        names = [f"{split.classes[int(detections.label[i])]} {detections.score[i]:.2f}" for i in actions]
        lines.append(f"{number}: {', '.join(names) or '-'}")
    if len(lines) > LISTED:
        lines[LISTED:] = [f"and {len(lines) - LISTED} more"]
    shortened = [line if len(line) <= LINE_WIDTH else line[: LINE_WIDTH - 3] + "..." for line in lines]
    axis.set_title("\n".join(shortened) or "no detections", fontsize=7, loc="left", va="bottom")


def _at(rows: GroundTruth | Detections, key: tuple[str, int]) -> np.ndarray:
    """(N,) bool: the rows of a keyframe, given as video and second."""
    if key[0] not in rows.videos:
        return np.zeros(len(rows.video), bool)
    here: np.ndarray = (rows.video == rows.videos.index(key[0])) & (rows.frame == key[1])
    return here


def draw_box(axis: Axes, box: np.ndarray, **style: Any) -> None:
    """Draw the outline of a box (4,), xyxy in the unit of the axes. style: of the rectangle."""
    x1, y1, x2, y2 = box
    axis.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, **style))


def save_png(figure: Figure, path: Path, *, dpi: int) -> None:
    """Write a figure as a PNG file with reproducible bytes, and its directory if needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write = partial(figure.savefig, format="png", dpi=dpi, facecolor="white", metadata={"Software": None})
    save(path, write)
