"""Whole clips, vectorised: resize, normalise, and the seeded augmentation of training.

A clip is (T, H, W, 3) uint8 as decoded, (3, T, H, W) float32 after `to_tensor`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from actloc_core.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh
from actloc_core.structures import Targets

MEAN, STD = 0.45, 0.225
"""Of the Kinetics MViT and Hiera weights, for all three channels."""


def to_tensor(frames: np.ndarray, size: int) -> Tensor:
    """Resize, not crop, aspect not kept: (T, H, W, 3) uint8 -> (3, T, size, size) in [0, 1]."""
    x = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)
    if x.shape[2:] != (size, size):
        x = F.interpolate(x, (size, size), mode="bilinear", antialias=True)
    return x.transpose(0, 1).float() / 255


def normalise(clip: Tensor) -> Tensor:
    """[0, 1] -> what the published weights were trained on."""
    return (clip - MEAN) / STD


@dataclass(frozen=True)
class Augmentation:
    """Strengths of the training augmentation; 0 leaves a part out."""

    flip: float = 0.5
    """Probability of a horizontal flip."""
    colour: float = 0.4
    """Brightness, contrast and saturation each times a factor in [1 - colour, 1 + colour]."""
    box: float = 0.05
    """Each edge of a ground-truth box moved by up to this share of the box's side."""


def augment(
    clip: Tensor,
    targets: Targets,
    strength: Augmentation,
    rng: np.random.Generator,
    *,
    flipped_columns: Tensor,
) -> tuple[Tensor, Targets]:
    """One random view. clip (3, T, H, W) in [0, 1].

    flipped_columns (C,) int64: the column that each label comes from after a horizontal flip, so
    that "left" becomes "right"; arange(C) where labels have no direction.
    """
    boxes, labels = targets.boxes, targets.labels
    if rng.random() < strength.flip:
        clip = clip.flip(-1)
        boxes = torch.cat([1 - boxes[:, :1], boxes[:, 1:]], dim=1)
        labels = labels[:, flipped_columns]
    if strength.colour:
        brightness, contrast, saturation = rng.uniform(1 - strength.colour, 1 + strength.colour, 3).astype(
            np.float32
        )
        clip = clip * brightness
        clip = torch.lerp(clip.mean(), clip, contrast.item())
        clip = torch.lerp(clip.mean(0, keepdim=True), clip, saturation.item()).clamp_(0, 1)
    if strength.box and len(boxes):
        size = boxes[:, 2:].repeat(1, 2)
        noise = rng.uniform(-strength.box, strength.box, (len(boxes), 4)).astype(np.float32)
        boxes = xyxy_to_cxcywh((cxcywh_to_xyxy(boxes) + torch.from_numpy(noise) * size).clamp(0, 1))
    return clip, Targets(boxes, labels)


class Split(Protocol):
    """What a dataset file's `load` returns, as far as training needs it."""

    @property
    def flipped_columns(self) -> Tensor: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Tensor, Targets]: ...


class TrainingView(Dataset[tuple[Tensor, Targets]]):
    """A split under augmentation, indexed by (epoch, index): the view follows from seed and key."""

    def __init__(self, split: Split, strength: Augmentation, seed: int) -> None:
        self.split, self.strength, self.seed = split, strength, seed

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Targets]:
        epoch, index = key
        clip, targets = self.split[index]
        rng = np.random.default_rng((self.seed, epoch, index))
        clip, targets = augment(clip, targets, self.strength, rng, flipped_columns=self.split.flipped_columns)
        return normalise(clip), targets


class EvaluationView(Dataset[tuple[Tensor, Targets]]):
    """A split as it is, normalised: the single view of evaluation."""

    def __init__(self, split: Split) -> None:
        self.split = split

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> tuple[Tensor, Targets]:
        clip, targets = self.split[index]
        return normalise(clip), targets


def collate(items: list[tuple[Tensor, Targets]]) -> tuple[Tensor, list[Targets]]:
    """Clips stacked to (B, 3, T, H, W); targets stay a list, for clips differ in people."""
    return torch.stack([clip for clip, _ in items]), [targets for _, targets in items]
