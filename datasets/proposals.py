"""Person boxes as MMAction2 keeps them: a pickle of 'video,second' -> rows of x1, y1, x2, y2, score."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from evaluators.act_pickle import load_plain
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
    for key, value in content.items():
        video, comma, second = str(key).rpartition(",")
        if not comma or not second.strip().isdigit():
            raise ValueError(f"{path}: key {key!r}: it should be the video, a comma and the second")
        try:
            boxes = np.asarray(value, np.float64)
        except (TypeError, ValueError):
            boxes = np.zeros(())  # refused below, as other shapes are
        boxes = boxes.reshape(0, 5) if boxes.size == 0 and boxes.ndim else boxes
        if boxes.ndim != 2 or boxes.shape[1] not in (4, 5) or not np.isfinite(boxes).all():
            raise ValueError(f"{path}: {key!r}: shape {boxes.shape}; rows are x1, y1, x2, y2, score, finite")
        if len(boxes) and (boxes[:, :4].max() > 1.5 or boxes[:, :4].min() < -0.5):
            raise ValueError(f"{path}: {key!r}: boxes are fractions of the frame, in [0, 1], not pixels")
        keys += [(video, int(second))] * len(boxes)
        rows.append(boxes if boxes.shape[1] == 5 else np.c_[boxes, np.ones(len(boxes))])
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
