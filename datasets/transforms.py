"""Whole clips, vectorised: the seeded augmentation of training, and the single view of evaluation.

A clip is (T, H, W, 3) uint8 as decoded, (3, T, H, W) float32 after `to_tensor`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from actloc_core.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh
from actloc_core.clip import VideoError
from actloc_core.pixels import normalise, size_for, to_tensor
from actloc_core.structures import Targets


@dataclass(frozen=True)
class Augmentation:
    """Strengths of the training augmentation; 0 leaves a part out."""

    flip: float = 0.5
    """Probability of a horizontal flip."""
    colour: float = 0.4
    """Brightness, contrast and saturation each times a factor in [1 - colour, 1 + colour]."""
    box: float = 0.05
    """Each edge of a ground-truth box moved by up to this share of the box's side."""
    short_sides: tuple[int, int] | None = None
    """Table 2c's scale augmentation: the aspect is kept and the short side drawn from this range, ends
    included. None: resized to the split's square."""
    multiple: int = 32
    """Sides are rounded to this, so that every stride of a backbone divides them."""


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
        brightness, contrast, saturation = rng.uniform(1 - strength.colour, 1 + strength.colour, 3).tolist()
        # x b, then away from the clip's mean by c, then from each pixel's grey by s: one weighted sum.
        grey = (clip[0] + clip[1] + clip[2]) / 3  # (T, H, W)
        both = brightness * contrast
        offset = grey * (both * (1 - saturation)) + grey.mean() * (brightness * (1 - contrast))
        clip = torch.add(offset, clip, alpha=both * saturation).clamp_(0, 1)
    if strength.box and len(boxes):
        size = boxes[:, 2:].repeat(1, 2)
        noise = rng.uniform(-strength.box, strength.box, (len(boxes), 4)).astype(np.float32)
        boxes = xyxy_to_cxcywh((cxcywh_to_xyxy(boxes) + torch.from_numpy(noise) * size).clamp(0, 1))
    return clip, Targets(boxes, labels)


class Split(Protocol):
    """What a dataset file's `load` returns, as far as the views need it."""

    @property
    def crop(self) -> int:
        """Pixels of the square that a clip is resized to."""

    @property
    def flipped_columns(self) -> Tensor:
        """(C,) int64, for each class the one that its mirror image shows."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> NDArray[np.uint8]:
        """The frames of one clip, (T, H, W, 3) RGB."""

    def targets(self, index: int) -> Targets:
        """Who is annotated at its keyframe."""


class Item(NamedTuple):
    """One sample of a batch."""

    clip: Tensor
    """(3, T, H, W), normalised."""
    targets: Targets
    problem: str | None = None
    """What was wrong with the video that this clip stands in for; None as a rule."""


SUBSTITUTES = 20
"""How many clips in a row may be unreadable before training gives up."""


class TrainingView(Dataset[Item]):
    """A split under augmentation, indexed by (epoch, index): the view follows from seed and key.

    A clip that cannot be read is replaced by another one, drawn from the same key, and the item says so.
    """

    def __init__(self, split: Split, strength: Augmentation, seed: int) -> None:
        self.split, self.strength, self.seed = split, strength, seed

    def __getitem__(self, key: tuple[int, int]) -> Item:
        epoch, index = key
        rng = np.random.default_rng((self.seed, epoch, index))
        index, frames, problem = self._read(epoch, index)
        size = (self.split.crop, self.split.crop)
        if self.strength.short_sides is not None:
            low, high = self.strength.short_sides
            short = int(rng.integers(low, high + 1))
            size = size_for(*frames.shape[1:3], short_side=short, multiple=self.strength.multiple)
        clip, targets = augment(
            to_tensor(frames, size),
            self.split.targets(index),
            self.strength,
            rng,
            flipped_columns=self.split.flipped_columns,
        )
        return Item(normalise(clip), targets, problem)

    def _read(self, epoch: int, index: int) -> tuple[int, NDArray[np.uint8], str | None]:
        """The clip of this index or, if it is broken, of the next one drawn."""
        others = np.random.default_rng((self.seed, epoch, index, SUBSTITUTES))
        problem = None
        for _ in range(SUBSTITUTES):
            try:
                return index, self.split.read(index), problem
            except VideoError as error:
                problem = problem or str(error)
                index = int(others.integers(len(self.split)))
        raise VideoError(f"{SUBSTITUTES} clips one after the other cannot be read; the first one: {problem}")


class EvaluationView(Dataset[Item]):
    """A split as it is, normalised: the single view of evaluation. A broken video is an error.

    short_side: None resizes to the split's square; a number keeps the aspect (Table 2c).
    """

    def __init__(self, split: Split, *, short_side: int | None = None, multiple: int = 32) -> None:
        self.split, self.short_side, self.multiple = split, short_side, multiple

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> Item:
        frames = self.split.read(index)
        size = (self.split.crop, self.split.crop)
        if self.short_side is not None:
            size = size_for(*frames.shape[1:3], short_side=self.short_side, multiple=self.multiple)
        return Item(normalise(to_tensor(frames, size)), self.split.targets(index))


class Group(NamedTuple):
    """The clips of a batch that have one size."""

    clips: Tensor
    """(b, 3, T, H, W)"""
    targets: list[Targets]
    places: list[int]
    """Which items of the batch these are."""


class Batch(NamedTuple):
    """A batch as one group a size: clips of different sizes are never padded to one, so there is no
    padding that attention, pooling or matching could see. Of one size, as a rule: one group."""

    groups: list[Group]
    problems: list[str]
    """Of the items that stand in for broken ones."""


def collate(items: Sequence[Item]) -> Batch:
    """Items -> Batch. Targets stay lists, for clips differ in people."""
    by_size: dict[torch.Size, list[int]] = {}
    for place, item in enumerate(items):
        by_size.setdefault(item.clip.shape, []).append(place)
    groups = [
        Group(
            torch.stack([items[place].clip for place in places]),
            [items[place].targets for place in places],
            places,
        )
        for places in by_size.values()
    ]
    return Batch(groups, [item.problem for item in items if item.problem is not None])
