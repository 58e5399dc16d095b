"""The three heads of Fig. 2: each candidate's box, actor likelihood and action logits, by small MLPs."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn


def full_precision(x: Tensor) -> AbstractContextManager[object]:
    """A context without autocast on the device of `x`, of any shape; an empty one where none is enabled."""
    device = x.device.type
    if device != "meta" and torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()


def mlp(dim: int, hidden_layers: int, out: int) -> nn.Sequential:
    """Linear-GELU `hidden_layers` times at width `dim`, then a linear layer to `out`."""
    layers: list[nn.Module] = []
    for _ in range(hidden_layers):
        layers += [nn.Linear(dim, dim), nn.GELU()]
    return nn.Sequential(*layers, nn.Linear(dim, out))


def grid_bias(h: int, w: int, *, anchor: str = "centre", device: torch.device | None = None) -> Tensor:
    """The logits that put each candidate's default box on its own cell of the h x w grid.

    -> (hw, 4) float32 logits of cxcywh, rows of the grid first; sigmoid gives the cell's centre and
    its size (1/w, 1/h). anchor "corner" is OWL-ViT's choice: the default centre is the cell's
    bottom-right corner, so the last row and column start saturated (clamped to 1 - 1e-4 here).
    "none" is no bias at all: every candidate's default box is the middle half of the frame.
    Raises ValueError for another anchor.
    """
    if anchor not in ("centre", "corner", "none"):
        raise ValueError(f"grid bias anchor must be 'centre', 'corner' or 'none', got {anchor!r}")
    if anchor == "none":
        return torch.zeros(h * w, 4, device=device)
    offset = 0.5 if anchor == "centre" else 1.0
    ys = (torch.arange(h, device=device) + offset) / h
    xs = (torch.arange(w, device=device) + offset) / w
    y, x = torch.meshgrid(ys, xs, indexing="ij")
    width, height = torch.full_like(x, 1 / w), torch.full_like(y, 1 / h)
    default = torch.stack([x, y, width, height], dim=-1).flatten(0, 1)
    return torch.logit(default.clamp(1e-4, 1 - 1e-4))


class Heads(nn.Module):
    """Box MLP of three linear layers (as OWL-ViT), actor and action MLPs of two.

    The depths are our reading of Table 1, which names the widths only: of all that were counted,
    these come nearest to the printed GFLOPs.
    """

    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__()
        self.box = mlp(dim, 2, 4)
        self.actor = mlp(dim, 1, 2)
        self.action = mlp(dim, 1, num_classes)
