"""ViT over tubelets, as VideoMAE (Tong et al., NeurIPS 2022) and UMT (Li et al., ICCV 2023) use it.

One class for every size. Parameter names and shapes are those of VideoMAE's fine-tuned weights
(MCG-NJU/VideoMAE), whose classifier normalises the mean token by `fc_norm`; here each token is
normalised, by `norm`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from actloc_core.backbones.layers import Grid, LayerNorm, Mlp, drop_path, resize_line, resize_plane
from actloc_core.pixels import IMAGENET
from actloc_core.structures import Backbone

PATCH = 16
"""Side of a patch in pixels."""


def vit_b(
    *,
    frames: int = 16,
    crop: int = 224,
    last_pool: bool = False,
    drop_path: float = 0.2,
    tubelet: int = 2,
) -> ViT:
    """ViT-B/16: 12 blocks, 8x14x14 tokens of 768 at 16 x 224. UMT's weights are for tubelet=1, frames=8."""
    return _vit(12, 768, 12, frames, crop, last_pool, drop_path, tubelet)


def vit_l(
    *,
    frames: int = 16,
    crop: int = 224,
    last_pool: bool = False,
    drop_path: float = 0.2,
    tubelet: int = 2,
) -> ViT:
    """ViT-L/16: 24 blocks, 8x14x14 tokens of 1024 at 16 x 224. UMT's weights are for tubelet=1, frames=8."""
    return _vit(24, 1024, 16, frames, crop, last_pool, drop_path, tubelet)


def _vit(
    depth: int,
    dim: int,
    heads: int,
    frames: int,
    crop: int,
    last_pool: bool,
    drop_path: float,
    tubelet: int,
) -> ViT:
    if last_pool:
        raise ValueError("a ViT has no pooling, so no last one to keep: last_pool must be False")
    return ViT(
        input_size=(frames, crop, crop),
        tubelet=tubelet,
        depth=depth,
        dim=dim,
        heads=heads,
        drop_path=drop_path,
    )


class ViT(Backbone):
    """Equal blocks of global attention over tubelets of `tubelet` frames by 16x16 pixels, without pooling.

    input_size: (T, H, W) the sinusoids count the tokens of. They are not learned and in no
        checkpoint, so this decides what pre-trained weights see: at the size of pre-training, clips of
        other sizes get its positions interpolated (UMT's way); at the size of the clips, the tokens
        are counted anew (VideoMAE's way). Either way any T, H, W that the patches divide will run.
    """

    positions: Tensor

    def __init__(
        self, *, input_size: Grid, tubelet: int, depth: int, dim: int, heads: int, drop_path: float
    ) -> None:
        super().__init__()
        self.out_dim = dim
        self.side_multiple = PATCH
        self.normalisation = IMAGENET
        self.patch_embed = PatchEmbed(dim, tubelet)
        self.table_grid: Grid = (input_size[0] // tubelet, input_size[1] // PATCH, input_size[2] // PATCH)
        t, h, w = self.table_grid
        self.register_buffer("positions", sinusoids(t * h * w, dim).view(t, h * w, dim), persistent=False)
        self.blocks = nn.ModuleList(Block(dim, heads, drop_path * i / (depth - 1)) for i in range(depth))
        self.norm = LayerNorm(dim)
        self.apply(_init)

    def forward(self, clip: Tensor) -> Tensor:
        """(B, 3, T, H, W) -> (B, t, h, w, out_dim), normalised tokens in time, row, column order.

        Raises ValueError where the patches do not divide T, H or W.
        """
        for name, size, patch in zip("THW", clip.shape[2:], self.patch_embed.proj.stride, strict=True):
            if size % patch:
                raise ValueError(f"clip {name}={size} is not a multiple of the patch's {patch}")
        x = self.patch_embed(clip)  # (B, t, h, w, dim)
        grid: Grid = x.shape[1:4]
        # The convolution leaves channels outermost, and sums would keep them so: a copy in every norm.
        x = (x + self._positions(grid)).flatten(1, 3).contiguous()
        for block in self.blocks:
            if self.checkpointing and self.training:
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        return self.norm(x).unflatten(1, grid)

    def _positions(self, grid: Grid) -> Tensor:
        """(t, h, w, dim)"""
        t, h, w = grid
        frames = resize_plane(self.positions, self.table_grid[1:], (h, w))
        return resize_line(frames.transpose(0, 1), t).transpose(0, 1).unflatten(1, (h, w))


class PatchEmbed(nn.Module):
    """Tubelets side by side: (B, 3, T, H, W) -> (B, T / tubelet, H/16, W/16, dim)."""

    def __init__(self, dim: int, tubelet: int) -> None:
        super().__init__()
        self.proj = nn.Conv3d(3, dim, (tubelet, PATCH, PATCH), (tubelet, PATCH, PATCH))

    def forward(self, clip: Tensor) -> Tensor:
        """(B, 3, T, H, W) -> (B, t, h, w, dim)."""
        return self.proj(clip).movedim(1, -1)


class Block(nn.Module):
    """Global attention and an MLP, each with a residual: (B, N, dim) -> (B, N, dim)."""

    def __init__(self, dim: int, heads: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = LayerNorm(dim)
        self.attn = Attention(dim, heads)
        self.norm2 = LayerNorm(dim)
        self.mlp = Mlp(dim)
        self.drop_path = drop_path

    def forward(self, x: Tensor) -> Tensor:
        """(B, n, dim) -> the same."""
        x = x + drop_path(self.attn(self.norm1(x)), self.drop_path, self.training)
        return x + drop_path(self.mlp(self.norm2(x)), self.drop_path, self.training)


class Attention(nn.Module):
    """softmax(q k^T / sqrt(d)) v. Keys have no bias: it would shift all scores of a query alike."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_bias = nn.Parameter(torch.zeros(dim))
        self.v_bias = nn.Parameter(torch.zeros(dim))
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, dim) -> (B, N, dim)"""
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        qkv = F.linear(x, self.qkv.weight, bias).unflatten(-1, (3, self.heads, -1))
        q, k, v = (y.transpose(1, 2) for y in qkv.unbind(2))  # (B, heads, N, d)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def sinusoids(count: int, dim: int) -> Tensor:
    """(count, dim) float32: sin in the even columns, cos in the odd, of n / 10000^(column pair * 2 / dim).

    The tokens of a clip are numbered through, frame after frame and row after row.
    """
    pair = torch.arange(dim, dtype=torch.float64) // 2
    angles = torch.arange(count, dtype=torch.float64)[:, None] / 10000 ** (2 * pair / dim)
    angles[:, 0::2] = angles[:, 0::2].sin()
    angles[:, 1::2] = angles[:, 1::2].cos()
    return angles.float()


def _init(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
