"""The two-stage baseline (section 5.1): given boxes, RoI align on the temporal mean, a classifier.

Boxes come from outside, a person detector or the ground truth; this model only classifies their
actions. It returns `Predictions` like every model, a candidate for each box.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from actloc_core.boxes import cxcywh_to_xyxy
from actloc_core.heads import full_precision
from actloc_core.structures import Backbone, Predictions, Targets

SURE = 1 - 1e-6
"""The most a given box's score can be: its logit is finite."""


class GivenBoxes(NamedTuple):
    """The N boxes given for one clip."""

    boxes: Tensor
    """(N, 4) cxcywh in [0, 1]."""
    scores: Tensor
    """(N,) in [0, 1], the detector's p(person); 1 for ground truth."""

    def to(self, device: torch.device | str) -> GivenBoxes:
        """The same on another device."""
        return GivenBoxes(self.boxes.to(device), self.scores.to(device))


def ground_truth_boxes(target: Targets) -> GivenBoxes:
    """The annotated boxes of a clip, with the greatest confidence there is."""
    return GivenBoxes(target.boxes, target.boxes.new_ones(len(target.boxes)))


class TwoStageLocalizer(nn.Module):
    """Clip (B, 3, T, H, W) and its boxes -> Predictions of L = the most boxes any clip has, at least 1.

    Tokens are averaged over time, cut out of the grid at `size` x `size` places of each box, maxed over
    those, and a linear layer gives the class logits, as MViT and SlowFast do on AVA. The actor logits
    are those of the boxes' scores; what fills up a clip with fewer boxes has p(alpha) = 1e-6.
    dropout: before the linear layer; the published recipes on AVA have 0.5.
    """

    def __init__(self, backbone: Backbone, *, num_classes: int, size: int = 7, dropout: float = 0.0) -> None:
        super().__init__()
        self.backbone = backbone
        self.size = size
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(backbone.out_dim, num_classes)

    def forward(self, clip: Tensor, boxes: Sequence[GivenBoxes] | None = None) -> Predictions:
        """(B, 3, T, H, W) and each clip's boxes -> Predictions; L: the most boxes of a clip.

        Raises ValueError without boxes.
        """
        if boxes is None:
            raise ValueError("a two-stage model classifies given boxes: pass those of each clip")
        # Positions in bfloat16 would be off by a fraction of a cell.
        features = self.backbone(clip).mean(1).movedim(-1, 1).float()  # (B, D, h, w)
        empty = features.new_zeros(1, 4)  # padded with the others, so that L is at least 1
        padded = pad_sequence([empty, *(box.float() for box, _ in boxes)], batch_first=True)[1:]
        scores = pad_sequence([empty[:, 0], *(p.float() for _, p in boxes)], batch_first=True)[1:]
        cells = roi_align(features, cxcywh_to_xyxy(padded), self.size)  # (B, L, D, size, size)
        logits = torch.logit(scores.clamp(1 - SURE, SURE))
        with full_precision(cells):
            action_logits = self.head(self.dropout(cells.amax((-2, -1))))
        return Predictions(padded, torch.stack([logits, torch.zeros_like(logits)], dim=-1), action_logits)


def roi_align(features: Tensor, boxes: Tensor, size: int, *, samples: int = 2) -> Tensor:
    """RoI align (He et al. 2017) by `grid_sample`, no half-pixel shift ("aligned").

    features (B, D, h, w); boxes (B, L, 4) xyxy in [0, 1] -> (B, L, D, size, size). Each of size x size
    bins is the mean of samples x samples bilinear samples at even distances; the centre of cell
    (i, j) is at ((j + .5) / w, (i + .5) / h), and beyond the outermost centres their value holds.
    """
    count = boxes.shape[1]
    places = (torch.arange(size * samples, device=boxes.device) + 0.5) / (size * samples)
    low, extent = boxes[..., :2, None], (boxes[..., 2:] - boxes[..., :2])[..., None]
    x, y = (low + extent * places).unbind(2)  # (B, L, size samples) each
    shape = (*x.shape, len(places))
    grid = torch.stack([x[:, :, None, :].expand(shape), y[..., None].expand(shape)], dim=-1)
    # All of a clip's boxes one below the other: one call, and no copy of the features for each box.
    sampled = F.grid_sample(
        features, (2 * grid - 1).flatten(1, 2), padding_mode="border", align_corners=False
    )
    bins = F.avg_pool2d(sampled, samples)  # (B, D, L size, size)
    return bins.unflatten(2, (count, size)).movedim(2, 1)
