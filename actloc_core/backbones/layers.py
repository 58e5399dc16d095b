"""What several backbones share: norm, MLP, stochastic depth, resizing of position embeddings."""

from __future__ import annotations

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

Grid = tuple[int, int, int]
"""Tokens in time, rows and columns."""
LayerNorm = partial(nn.LayerNorm, eps=1e-6)


class Mlp(nn.Module):
    """Two linear layers with exact (not tanh) GELU, 4 dim wide inside."""

    def __init__(self, dim: int, dim_out: int | None = None) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim_out or dim)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.fc1(x)
        if self.training and hidden.requires_grad:
            # The widest tensors of a network are kept once, not twice: the backward pass computes
            # the activation anew, and stops there, so that no product is done again.
            return checkpoint(self._narrow, hidden, use_reentrant=False, preserve_rng_state=False)
        return self._narrow(hidden)

    def _narrow(self, hidden: Tensor) -> Tensor:
        return self.fc2(F.gelu(hidden))


def resize_plane(x: Tensor, size: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Positions of a plane, rows first, for another size: (N, h w, D) -> (N, h' w', D).

    Bicubic, align_corners=False, without antialiasing, as UMT's code does.
    """
    if size == new:
        return x
    plane = x.unflatten(1, size).movedim(-1, 1)
    return F.interpolate(plane, new, mode="bicubic", align_corners=False).flatten(2).transpose(1, 2)


def resize_line(x: Tensor, length: int) -> Tensor:
    """Positions of a line for another length: (N, n, D) -> (N, length, D), linearly, align_corners=False."""
    if x.shape[1] == length:
        return x
    line = x.transpose(1, 2)
    return F.interpolate(line, length, mode="linear", align_corners=False).transpose(1, 2)


def drop_path(update: Tensor, rate: float, training: bool) -> Tensor:
    """Stochastic depth: in training, leaves out the whole update (B, ...) of a random share of the clips."""
    if not training or rate == 0:
        return update
    kept = update.new_empty(len(update), *[1] * (update.dim() - 1)).bernoulli_(1 - rate)
    return update * (kept / (1 - rate))
