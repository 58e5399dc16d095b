"""Person boxes as MMAction2 keeps them: a pickle of 'video,second' -> rows of x1, y1, x2, y2, score."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evaluators.act_pickle import load_plain
from evaluators.files import DataFileError, Invalid, Problems, invalid
from evaluators.frame_map import Detections


def read_proposals(path: Path) -> Detections:
    """Read a file like dense_proposals_val.pkl without executing it: boxes in [0, 1], score p(person).

    Labels are all 0. Rows without a score have score 1.
    Raises FileNotFoundError, or ValueError naming file and entry.
    """
    content = load_plain(path)
    if not isinstance(content, dict) or not content:
        raise ValueError(
            f"{path}: a {type(content).__name__}, but proposals are a dict of 'video,second' -> rows"
        )
    keys, rows = [], []
    wrong = Problems()
    for key, value in content.items():
        with wrong.noting():
            keyframe, boxes = _keyframe(key), _boxes(repr(key), value)
            keys += [keyframe] * len(boxes)
            rows.append(boxes)
    wrong.refuse(DataFileError, f"{path}: ")
    table = np.concatenate(rows)
    videos = tuple(dict.fromkeys(video for video, _ in keys))
    number = {video: i for i, video in enumerate(videos)}
    return Detections(
        videos,
        np.array([number[video] for video, _ in keys], np.int64),
        np.array([second for _, second in keys], np.int64),
        table[:, :4],
        np.zeros(len(keys), np.int64),
        table[:, 4],
    )


def _keyframe(key: object) -> tuple[str, int]:
    """The video and second of a key. Raises Invalid."""
    video, comma, second = str(key).rpartition(",")
    if not comma or not re.fullmatch(r"\s*\d{1,6}\s*", second):
        raise Invalid(f"key {key!r:.80}: it should be the video, a comma and the second")
    return video, int(second)


def _boxes(where: str, value: object) -> NDArray[np.float64]:
    """The rows of a keyframe, (N, 5), with score 1 where they have none. Raises Invalid."""
    try:
        boxes = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        boxes = np.zeros(())  # refused below, as other shapes are
    boxes = boxes.reshape(0, 5) if boxes.size == 0 and boxes.ndim else boxes
    if boxes.ndim != 2 or boxes.shape[1] not in (4, 5) or not np.isfinite(boxes).all():
        invalid(where, f"shape {boxes.shape}", "rows are x1, y1, x2, y2, score, finite")
    if len(boxes) and (boxes[:, :4].max() > 1.5 or boxes[:, :4].min() < -0.5):
        found = f"sides of {boxes[:, :4].min():g} to {boxes[:, :4].max():g}"
        invalid(where, found, "boxes are fractions of the frame, in [0, 1], not pixels")
    return boxes if boxes.shape[1] == 5 else np.c_[boxes, np.ones(len(boxes))]
