"""The two values that travel between model, matcher, loss and evaluation.

B clips, L candidates, C action classes, N actors. Boxes are cxcywh, normalised to the frame, in [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from actloc_core.pixels import KINETICS, Normalisation

ACTOR, NO_ACTOR = 0, 1
"""Columns of `Predictions.actor_logits`."""


class Predictions(NamedTuple):
    """What every model returns: L independent triplets <box, p(alpha), p(a)> for each clip."""

    boxes: Tensor
    """(B, L, 4) cxcywh in [0, 1], at the keyframe."""
    actor_logits: Tensor
    """(B, L, 2), columns ACTOR and NO_ACTOR; p(alpha) is their softmax's first column."""
    action_logits: Tensor
    """(B, L, C), independent sigmoids: an actor does several actions at once."""

    @property
    def p_actor(self) -> Tensor:
        """p(alpha), (B, L)."""
        return self.actor_logits.float().softmax(-1)[..., ACTOR]


class Backbone(nn.Module):
    """What a backbone is: called with a clip (B, 3, T, H, W) it returns tokens (B, t, h, w, out_dim)."""

    out_dim: int
    checkpointing: bool = False
    """Whether the backward pass computes each block anew instead of keeping what is inside it."""
    side_multiple: int = 32
    """Height and width of a clip are multiples of this: a token of the coarsest grid."""
    normalisation: Normalisation = KINETICS
    """Of the clips that its published weights were trained on."""


def backbone_of(model: nn.Module) -> Backbone:
    """The backbone of a model of any method."""
    backbone = model.get_submodule("backbone")
    assert isinstance(backbone, Backbone)
    return backbone


def to_device(x: Tensor, device: torch.device) -> Tensor:
    """Copy a host tensor (any shape) to a device without stopping its queue: to a GPU by pinned memory."""
    if device.type == "cuda" and x.device.type == "cpu":
        return x.pin_memory().to(device, non_blocking=True)
    return x.to(device)


@dataclass(frozen=True)
class Targets:
    """The actors annotated at one clip's keyframe."""

    boxes: Tensor
    """(N, 4) float cxcywh in [0, 1]; N may be 0."""
    labels: Tensor
    """(N, C) float, 1 where the actor does the action, else 0; all zeros for an actor without labels."""

    def __post_init__(self) -> None:
        n = len(self.boxes)
        if self.boxes.shape != (n, 4) or self.labels.dim() != 2 or len(self.labels) != n:
            raise ValueError(
                f"Targets: boxes must be (N, 4) and labels (N, C), "
                f"got {tuple(self.boxes.shape)} and {tuple(self.labels.shape)}"
            )

    def to(self, device: torch.device | str) -> Targets:
        """The same on another device."""
        return Targets(self.boxes.to(device), self.labels.to(device))
