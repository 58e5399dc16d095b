"""Link the actors of successive keyframes into tracks, one keyframe after the other.

A track predicts its actor's box by constant velocity: the centre moves on as between its last two detections,
and the size stays. Tracks and actors are assigned one-to-one so that the sum of their IoUs is highest
(Hungarian algorithm). Tracks and actors that remain are assigned the same way by the tracks' last boxes,
for an actor who stopped or turned round. Nothing looks ahead and nothing is random: the same
detections give the same tracks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from actloc_core.boxes import iou_and_giou

MIN_IOU = 0.2
"""Boxes that overlap less are not linked. Low, since a keyframe a second later finds people elsewhere."""
MAX_MISSED = 2
"""Keyframes in a row without a match, after which a track ends: the actor gets a new id if detected again."""

Box = tuple[float, float, float, float]


@dataclass
class _Track:
    number: int
    box: Box
    """Of the last detection."""
    second: float
    """Time of the last detection."""
    velocity: tuple[float, float] = (0.0, 0.0)
    """Of the centre, per second, between the last two detections."""
    missed: int = 0
    """Keyframes since the last detection."""

    def predict(self, second: float) -> Box:
        dx, dy = ((second - self.second) * v for v in self.velocity)
        x1, y1, x2, y2 = self.box
        return x1 + dx, y1 + dy, x2 + dx, y2 + dy

    def update(self, box: Box, second: float) -> None:
        moved = [(box[i] + box[i + 2] - self.box[i] - self.box[i + 2]) / 2 for i in (0, 1)]
        passed = second - self.second
        self.velocity = (moved[0] / passed, moved[1] / passed)
        self.box, self.second, self.missed = box, second, 0


@dataclass
class Linker:
    """The tracks of one video so far. Ids count from 1 in the order in which actors first appear."""

    min_iou: float = MIN_IOU
    max_missed: int = MAX_MISSED
    """Keyframes without a match in a row that a track survives."""
    _tracks: list[_Track] = field(default_factory=list)
    _last_id: int = 0

    def link(self, second: float, boxes: Sequence[Box]) -> list[int]:
        """Return the track id of each actor of the next keyframe.

        second: time of the keyframe, after the one before. boxes: xyxy of its actors, in any one unit.
        """
        ids, unlinked = [0] * len(boxes), list(self._tracks)
        for moving in (True, False):
            remaining = [i for i, number in enumerate(ids) if number == 0]
            positions = [track.predict(second) if moving else track.box for track in unlinked]
            pairs = _assign(positions, [boxes[i] for i in remaining], self.min_iou)
            for at, box_at in pairs:
                ids[remaining[box_at]] = unlinked[at].number
                unlinked[at].update(boxes[remaining[box_at]], second)
            linked = {at for at, _ in pairs}
            unlinked = [track for at, track in enumerate(unlinked) if at not in linked]
        for track in unlinked:
            track.missed += 1
        self._tracks = [track for track in self._tracks if track.missed <= self.max_missed]
        for i, number in enumerate(ids):
            if number == 0:
                self._last_id += 1
                ids[i] = self._last_id
                self._tracks.append(_Track(self._last_id, boxes[i], second))
        return ids


def interpolate(a: Box, b: Box, at: float) -> Box:
    """Box between two boxes. at: 0 gives a, 1 gives b."""
    x1, y1, x2, y2 = (p + at * (q - p) for p, q in zip(a, b, strict=True))
    return x1, y1, x2, y2


def _assign(tracks: Sequence[Box], boxes: Sequence[Box], min_iou: float) -> list[tuple[int, int]]:
    """Pairs (track, box) of the highest summed IoU, each pair of at least min_iou."""
    if not tracks or not boxes:
        return []
    ious = iou_and_giou(_tensor(tracks)[:, None], _tensor(boxes)[None])[0].numpy()
    ious[ious < min_iou] = 0
    rows, columns = linear_sum_assignment(ious, maximize=True)
    return [(int(i), int(j)) for i, j in zip(rows, columns, strict=True) if ious[i, j] > 0]


def _tensor(boxes: Sequence[Box]) -> Tensor:
    return torch.tensor(boxes, dtype=torch.float64)
