"""Preprocessing of decoded frames: resizing, scaling to [0, 1], normalisation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation of red, green and blue in [0, 1], that weights were trained with."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


KINETICS = Normalisation((0.45, 0.45, 0.45), (0.225, 0.225, 0.225))
"""Of MViT's and Hiera's weights (PySlowFast)."""
IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Of VideoMAE's and UMT's."""


def resize(frames: NDArray[np.uint8], size: tuple[int, int]) -> Tensor:
    """Resize frames to (height, width) without cropping: (T, H, W, 3) uint8 -> (3, T, *size) uint8."""
    x = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)
    if x.shape[2:] != size:
        x = F.interpolate(x, size, mode="bilinear", antialias=True)
    return x.transpose(0, 1)


def to_tensor(frames: NDArray[np.uint8], size: tuple[int, int]) -> Tensor:
    """`resize` frames: (T, H, W, 3) uint8 -> (3, T, *size) in [0, 1]."""
    return resize(frames, size).float() / 255


def size_for(height: int, width: int, *, short_side: int, multiple: int) -> tuple[int, int]:
    """(height, width) with this short side and the aspect ratio kept, rounded to multiples."""
    scale = short_side / min(height, width)
    rows, columns = (max(round(side * scale / multiple), 1) * multiple for side in (height, width))
    return rows, columns


def normalise(clip: Tensor, by: Normalisation = KINETICS) -> Tensor:
    """Normalise clips (..., 3, T, H, W) in [0, 1] to the range the published weights were trained on."""
    if len(set(by.mean)) == len(set(by.std)) == 1:  # one operation for the three channels
        return (clip - by.mean[0]) / by.std[0]
    channels = zip(clip.unbind(-4), by.mean, by.std, strict=True)
    return torch.stack([(channel - mean) / std for channel, mean, std in channels], dim=-4)
