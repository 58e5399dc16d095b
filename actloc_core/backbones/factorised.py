"""A small ViT whose attention is factorised: over time at each place, then over the places of each frame.

The divided space-time attention of TimeSformer (Bertasius et al., ICML 2021). It is here as the example of
a new backbone, which docs/new_backbone.md walks through; there are no published weights for it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from actloc_core.backbones.layers import Grid, LayerNorm, Mlp, drop_path, resize_line, resize_plane
from actloc_core.structures import Backbone


def factorised_tiny(
    *, frames: int = 16, crop: int = 64, last_pool: bool = False, drop_path: float = 0.0
) -> FactorisedViT:
    """Three blocks and 0.2 M parameters, for laptops: 8x8x8 tokens of 64 at 16 x 64.

    Raises ValueError for last_pool=True: there is none to keep.
    """
    if last_pool:
        raise ValueError("this ViT has no pooling, so no last one to keep: last_pool must be False")
    return FactorisedViT(
        input_size=(frames, crop, crop), patch=(2, 8, 8), depth=3, dim=64, heads=2, drop_path=drop_path
    )


class FactorisedViT(Backbone):
    """Patches side by side, then blocks of attention over time, attention over space, and an MLP.

    input_size: (T, H, W) the tables of positions are made for; other sizes are interpolated in the forward,
        so any T, H, W that the patches divide will run.
    """

    def __init__(
        self, *, input_size: Grid, patch: Grid, depth: int, dim: int, heads: int, drop_path: float
    ) -> None:
        super().__init__()
        self.out_dim = dim
        self.side_multiple = patch[1]
        self.patch_embed = nn.Conv3d(3, dim, patch, patch)
        t, h, w = (size // side for size, side in zip(input_size, patch, strict=True))
        self.table_plane = (h, w)
        self.pos_embed_spatial = nn.Parameter(torch.empty(1, h * w, dim))
        self.pos_embed_temporal = nn.Parameter(torch.empty(1, t, dim))
        self.blocks = nn.ModuleList(Block(dim, heads, drop_path * i / (depth - 1)) for i in range(depth))
        self.norm = LayerNorm(dim)
        self.apply(_init)
        for table in (self.pos_embed_spatial, self.pos_embed_temporal):
            nn.init.trunc_normal_(table, std=0.02)

    def forward(self, clip: Tensor) -> Tensor:
        """(B, 3, T, H, W) -> (B, t, h, w, out_dim), normalised tokens in time, row, column order.

        Raises ValueError where the patches do not divide T, H or W.
        """
        for name, size, side in zip("THW", clip.shape[2:], self.patch_embed.stride, strict=True):
            if size % side:
                raise ValueError(f"clip {name}={size} is not a multiple of the patch's {side}")
        x = self.patch_embed(clip).movedim(1, -1)  # (B, t, h, w, dim)
        t, h, w = x.shape[1:4]
        plane = resize_plane(self.pos_embed_spatial, self.table_plane, (h, w))  # (1, hw, dim)
        line = resize_line(self.pos_embed_temporal, t)  # (1, t, dim)
        x = x.flatten(2, 3) + plane[:, None] + line[:, :, None]  # (B, t, hw, dim)
        for block in self.blocks:
            if self.checkpointing and self.training:
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        return self.norm(x).unflatten(2, (h, w))


class Block(nn.Module):
    """Over time, over space, and an MLP, each with a residual: (B, t, hw, dim) -> (B, t, hw, dim)."""

    def __init__(self, dim: int, heads: int, drop_path: float) -> None:
        super().__init__()
        self.norm_time, self.time = LayerNorm(dim), Attention(dim, heads)
        self.norm_space, self.space = LayerNorm(dim), Attention(dim, heads)
        self.norm_mlp, self.mlp = LayerNorm(dim), Mlp(dim)
        self.drop_path = drop_path

    def forward(self, x: Tensor) -> Tensor:
        """(B, t, n, dim) -> the same: over time, over the tokens of a frame, then the MLP."""
        over_time = self.time(self.norm_time(x).transpose(1, 2)).transpose(1, 2)
        x = x + drop_path(over_time, self.drop_path, self.training)
        x = x + drop_path(self.space(self.norm_space(x)), self.drop_path, self.training)
        return x + drop_path(self.mlp(self.norm_mlp(x)), self.drop_path, self.training)


class Attention(nn.Module):
    """softmax(q k^T / sqrt(d)) v over the last axis but one: (B, groups, n, dim) -> the same."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, groups, n, dim) -> the same; tokens of one group attend to each other."""
        batch = x.shape[:2]
        qkv = self.qkv(x.flatten(0, 1)).unflatten(-1, (3, self.heads, -1))  # (B groups, n, 3, heads, d)
        q, k, v = (y.transpose(1, 2) for y in qkv.unbind(2))
        out = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.proj(out).unflatten(0, batch)


def _init(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
