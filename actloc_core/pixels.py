"""Preprocessing of decoded frames: resizing, scaling to [0, 1], normalisation."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

MEAN, STD = 0.45, 0.225
"""Normalisation of the Kinetics MViT and Hiera weights, equal for the three channels."""


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


def normalise(clip: Tensor) -> Tensor:
    """Normalise clips (..., 3, T, H, W) in [0, 1] to the range the published weights were trained on."""
    return (clip - MEAN) / STD
