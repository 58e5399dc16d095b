"""Views of a split: the seeded augmentation of training and the single view of evaluation.

A clip is (T, H, W, 3) uint8 as decoded, (3, T, h, w) uint8 after resizing, and float32 in the model alone:
between processes and on the way to a GPU a clip of bytes takes a quarter of the room.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from actloc_core.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh
from actloc_core.clip import VideoError
from actloc_core.pixels import KINETICS, Normalisation, normalise, resize, size_for
from actloc_core.structures import Targets, to_device
from datasets.split import Split


@dataclass(frozen=True)
class Augmentation:
    """Strengths of the training augmentation; 0 turns a part off."""

    flip: float = 0.5
    """Probability of a horizontal flip."""
    colour: float = 0.4
    """Brightness, contrast and saturation are each scaled by a factor in [1 - colour, 1 + colour]."""
    box: float = 0.05
    """Each edge of a ground-truth box is moved by up to this fraction of the box's side."""
    short_sides: tuple[int, int] | None = None
    """Table 2c's scale augmentation: the short side is sampled from this range, ends included, and the
    aspect ratio kept. None: clips are resized to the split's square."""
    multiple: int = 32
    """Sides are rounded to a multiple of this, so that every stride of a backbone divides them."""


class View(NamedTuple):
    """How a clip is changed on the way into the model."""

    flip: bool = False
    """Whether it is mirrored from left to right."""
    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0


def unchanged(count: int) -> NDArray[np.float32]:
    """(count, 4), the views of clips as they are."""
    return np.array([View()] * count, np.float32)


def sample_view(
    targets: Targets, strength: Augmentation, rng: np.random.Generator, *, flipped_columns: Tensor
) -> tuple[View, Targets]:
    """Sample a random view of a clip, and change its targets accordingly; `to_input` changes the clip.

    flipped_columns (C,) int64: the column that each label comes from after a horizontal flip, so
    that "left" becomes "right"; arange(C) where labels have no direction.
    """
    boxes, labels, view = targets.boxes, targets.labels, View()
    if rng.random() < strength.flip:
        view = view._replace(flip=True)
        boxes = torch.cat([1 - boxes[:, :1], boxes[:, 1:]], dim=1)
        labels = labels[:, flipped_columns]
    if strength.colour:
        view = View(view.flip, *rng.uniform(1 - strength.colour, 1 + strength.colour, 3).tolist())
    if strength.box and len(boxes):
        size = boxes[:, 2:].repeat(1, 2)
        noise = rng.uniform(-strength.box, strength.box, (len(boxes), 4)).astype(np.float32)
        boxes = xyxy_to_cxcywh((cxcywh_to_xyxy(boxes) + torch.from_numpy(noise) * size).clamp(0, 1))
    return view, Targets(boxes, labels)


def to_input(clips: Tensor, views: NDArray[np.float32], by: Normalisation = KINETICS) -> Tensor:
    """Views of clips, normalised, as a model takes them: (b, 3, T, H, W) uint8 -> float32, on their device.

    views: (b, 4), a `View` each. Clips travel to a GPU as bytes, and become numbers there.
    """
    of_clip = to_device(torch.from_numpy(views), clips.device)[
        ..., None, None, None, None
    ]  # (b, 4, 1, 1, 1, 1)
    flip, brightness, contrast, saturation = of_clip.unbind(1)
    if (views[:, 0] > 0).any():
        clips = torch.where(flip > 0, clips.flip(-1), clips)
    x = clips.float() / 255
    if (views[:, 1:] != 1).any():
        # Brightness, then contrast about the clip's mean, then saturation about each pixel's grey: the
        # three are one weighted sum of clip, grey and mean.
        grey = x.mean(1, keepdim=True)  # (b, 1, T, H, W)
        both = brightness * contrast
        mean = grey.mean((1, 2, 3, 4), keepdim=True)
        offset = grey * (both * (1 - saturation)) + mean * (brightness * (1 - contrast))
        x = torch.addcmul(offset, x, both * saturation).clamp_(0, 1)
    return normalise(x, by)


class Item(NamedTuple):
    """One sample of a batch."""

    clip: Tensor
    """(3, T, H, W) uint8, resized."""
    targets: Targets
    view: View = View()
    problem: str | None = None
    """Error of the unreadable clip that this fallback clip replaces; None where none was replaced."""


MAX_FALLBACKS = 20
"""Clips in a row that may be unreadable before training fails."""


class TrainingView(Dataset[Item]):
    """A split with augmentation, indexed by (epoch, index): seed, epoch and index determine the view.

    An unreadable clip is replaced by a fallback clip, sampled from the same seed, epoch and index; the
    item's `problem` says why. VideoError: MAX_FALLBACKS clips in a row are unreadable.
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
        view, targets = sample_view(
            self.split.targets(index), self.strength, rng, flipped_columns=self.split.flipped_columns
        )
        return Item(resize(frames, size), targets, view, problem)

    def _read(self, epoch: int, index: int) -> tuple[int, NDArray[np.uint8], str | None]:
        """Read the clip of this index or a fallback clip; -> its index, frames, and the first error."""
        rng = np.random.default_rng((self.seed, epoch, index, MAX_FALLBACKS))
        problem = None
        for _ in range(MAX_FALLBACKS):
            try:
                return index, self.split.read(index), problem
            except VideoError as error:
                problem = problem or str(error)
                index = int(rng.integers(len(self.split)))
        raise VideoError(f"{MAX_FALLBACKS} clips in a row are unreadable; the first: {problem}")


class EvaluationView(Dataset[Item]):
    """A split without augmentation: the single view of evaluation. An unreadable clip raises VideoError.

    short_side: None resizes to the split's square; a number keeps the aspect ratio (Table 2c).
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
        return Item(resize(frames, size), self.split.targets(index))


class Group(NamedTuple):
    """The clips of a batch that have one size."""

    clips: Tensor
    """(b, 3, T, H, W) uint8"""
    views: NDArray[np.float32]
    """(b, 4), a `View` each; with the clips the arguments of `to_input`."""
    targets: list[Targets]
    indices: list[int]
    """Index in the batch of each clip."""

    def inputs(self, device: torch.device, by: Normalisation = KINETICS) -> Tensor:
        """The clips as a model takes them, (b, 3, T, H, W) float32 on the device; see `to_input`."""
        return to_input(self.clips.to(device, non_blocking=True), self.views, by)

    def take(self, chosen: Sequence[int]) -> Group:
        """Some of the clips, by their place in the group."""
        return Group(
            self.clips[chosen],
            self.views[chosen],
            [self.targets[i] for i in chosen],
            [self.indices[i] for i in chosen],
        )


class Batch(NamedTuple):
    """A batch as groups of equal clip size, usually one group. Clips are never padded to a common size, so
    there is no padding that attention, pooling or matching could see."""

    groups: list[Group]
    problems: list[str]
    """Errors of the unreadable clips that were replaced."""


def collate(items: Sequence[Item]) -> Batch:
    """Collate items to a Batch. Targets stay lists, since clips differ in their number of actors."""
    by_size: dict[torch.Size, list[int]] = {}
    for i, item in enumerate(items):
        by_size.setdefault(item.clip.shape, []).append(i)
    groups = [
        Group(
            torch.stack([items[i].clip for i in indices]),
            np.array([items[i].view for i in indices], np.float32),
            [items[i].targets for i in indices],
            indices,
        )
        for indices in by_size.values()
    ]
    return Batch(groups, [item.problem for item in items if item.problem is not None])
