"""Hiera for video (Ryali et al., ICML 2023, the paper's [29]): plain attention, first within small units.

One class for every size. Parameter names and shapes are those of the published weights
(facebookresearch/hiera), whose classifier normalises the mean token; here each token is normalised.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from actloc_core.backbones.layers import Grid, LayerNorm, Mlp, drop_path, resize_line, resize_plane
from actloc_core.structures import Backbone

PATCH_STRIDE: Grid = (2, 4, 4)


def hiera_t(*, frames: int = 16, crop: int = 256, last_pool: bool = False, drop_path: float = 0.2) -> Hiera:
    """Hiera-T: 12 blocks, 8x16x16 tokens of 768 at 256 without the last pool."""
    return _hiera((1, 2, 7, 2), 96, 1, frames, crop, last_pool, drop_path)


def hiera_s(*, frames: int = 16, crop: int = 256, last_pool: bool = False, drop_path: float = 0.2) -> Hiera:
    """Hiera-S: 16 blocks, 8x16x16 tokens of 768 at 256 without the last pool."""
    return _hiera((1, 2, 11, 2), 96, 1, frames, crop, last_pool, drop_path)


def hiera_b(*, frames: int = 16, crop: int = 256, last_pool: bool = False, drop_path: float = 0.2) -> Hiera:
    """Hiera-B: 24 blocks, 8x16x16 tokens of 768 at 256 without the last pool."""
    return _hiera((2, 3, 16, 3), 96, 1, frames, crop, last_pool, drop_path)


def hiera_bplus(
    *, frames: int = 16, crop: int = 256, last_pool: bool = False, drop_path: float = 0.2
) -> Hiera:
    """Hiera-B+: 24 blocks, 8x16x16 tokens of 896 at 256 without the last pool."""
    return _hiera((2, 3, 16, 3), 112, 2, frames, crop, last_pool, drop_path)


def hiera_l(*, frames: int = 16, crop: int = 256, last_pool: bool = False, drop_path: float = 0.2) -> Hiera:
    """Hiera-L, the paper's largest: 48 blocks, 8x16x16 tokens of 1152 at 256 without the last pool."""
    return _hiera((2, 6, 36, 4), 144, 2, frames, crop, last_pool, drop_path)


def hiera_h(*, frames: int = 16, crop: int = 256, last_pool: bool = False, drop_path: float = 0.2) -> Hiera:
    """Hiera-H: 48 blocks, 8x16x16 tokens of 2048 at 256 without the last pool."""
    return _hiera((2, 6, 36, 4), 256, 4, frames, crop, last_pool, drop_path)


def hiera_tiny(*, frames: int = 16, crop: int = 64, last_pool: bool = False, drop_path: float = 0.0) -> Hiera:
    """Three stages and 0.12 M parameters, for laptops: 8x8x8 tokens of 64 at 64 without the last pool."""
    return _hiera((1, 1, 2), 16, 1, frames, crop, last_pool, drop_path)


def _hiera(
    depths: Sequence[int], dim: int, heads: int, frames: int, crop: int, last_pool: bool, drop_path: float
) -> Hiera:
    return Hiera(
        input_size=(frames, crop, crop),
        depths=depths,
        dim=dim,
        heads=heads,
        last_pool=last_pool,
        drop_path=drop_path,
    )


class Hiera(Backbone):
    """Stages, each but the first of which starts with a block that doubles width and heads and pools 2x2.

    The published models have four stages and mask units of 8x8 tokens of the patch embedding, one
    token long in time: the poolings leave one of each unit. All but the last two stages attend inside units.

    Tokens travel as (B, units, n, D): `n` tokens of a mask unit side by side, a quarter after each
    pooling. Attention inside units and attention over the clip are then two views of
    one tensor, and nothing is shuffled between the first block and the last.

    input_size: (T, H, W) the tables of positions are made for. For other clips they are interpolated
        in the forward, so any T divisible by 2 and H, W divisible by 32 (of four stages) will run.
    depths: blocks of each stage. dim, heads: those of the first stage.
    last_pool: False leaves out the last stage's pooling, for twice the rows and columns.
    """

    def __init__(
        self,
        *,
        input_size: Grid,
        depths: Sequence[int],
        dim: int,
        heads: int,
        last_pool: bool,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(dim)
        self.unit = 2 ** (len(depths) - 1)
        self.side_multiple = PATCH_STRIDE[1] * self.unit
        t, h, w = (size // stride for size, stride in zip(input_size, PATCH_STRIDE, strict=True))
        self.table_grid = (t, h, w)
        self.pos_embed_spatial = nn.Parameter(torch.empty(1, h * w, dim))
        self.pos_embed_temporal = nn.Parameter(torch.empty(1, t, dim))
        blocks: list[Block] = []
        width = dim
        for stage, depth in enumerate(depths):
            for i in range(depth):
                opens = stage > 0 and i == 0
                block = Block(
                    width,
                    dim * 2**stage,
                    heads * 2**stage,
                    pools=opens and (stage < len(depths) - 1 or last_pool),
                    # A stage's first block still sees the finer grid, so it attends as the stage before.
                    within_units=stage - opens < len(depths) - 2,
                    drop_path=drop_path * len(blocks) / (sum(depths) - 1),
                )
                blocks.append(block)
                width = dim * 2**stage
        self.blocks = nn.ModuleList(blocks)
        self.norm = LayerNorm(width)
        self.out_dim = width
        self.apply(_init)
        nn.init.trunc_normal_(self.pos_embed_spatial, std=0.02)
        nn.init.trunc_normal_(self.pos_embed_temporal, std=0.02)

    def forward(self, clip: Tensor) -> Tensor:
        """(B, 3, T, H, W) -> (B, t, h, w, out_dim), normalised tokens in time, row, column order.

        Raises ValueError where T is no multiple of 2, or H or W none of a mask unit's side.
        """
        strides = (PATCH_STRIDE[0], PATCH_STRIDE[1] * self.unit, PATCH_STRIDE[2] * self.unit)
        for name, size, stride in zip("THW", clip.shape[2:], strides, strict=True):
            if size % stride:
                raise ValueError(f"clip {name}={size} is not a multiple of {stride}, a mask unit's extent")
        x = self.patch_embed(clip)  # (B, t, h, w, dim)
        grid: Grid = x.shape[1:4]
        x = to_units(x + self._positions(grid), self.unit)
        for block in self.blocks:
            if self.checkpointing and self.training:
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        return from_units(self.norm(x), (grid[0], grid[1] // self.unit, grid[2] // self.unit))

    def _positions(self, grid: Grid) -> Tensor:
        """(1, t, h, w, dim): one embedding of the place plus one of the time."""
        t, h, w = grid
        place = resize_plane(self.pos_embed_spatial, self.table_grid[1:], (h, w))
        time = resize_line(self.pos_embed_temporal, t)
        return place.view(1, 1, h, w, -1) + time.view(1, t, 1, 1, -1)


class PatchEmbed(nn.Module):
    """Overlapping space-time patches by one convolution: (B, 3, T, H, W) -> (B, T/2, H/4, W/4, dim)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv3d(3, dim, (3, 7, 7), PATCH_STRIDE, (1, 3, 3))

    def forward(self, clip: Tensor) -> Tensor:
        """(B, 3, T, H, W) -> (B, t, h, w, dim)."""
        return self.proj(clip).movedim(1, -1)


class Block(nn.Module):
    """Attention and an MLP, each with a residual; `pools` and the width change happen in the attention."""

    def __init__(
        self, dim: int, dim_out: int, heads: int, *, pools: bool, within_units: bool, drop_path: float
    ) -> None:
        super().__init__()
        self.norm1 = LayerNorm(dim)
        self.attn = MaskUnitAttention(dim, dim_out, heads, pools=pools, within_units=within_units)
        self.norm2 = LayerNorm(dim_out)
        self.mlp = Mlp(dim_out)
        self.proj = nn.Linear(dim, dim_out) if dim != dim_out else None
        self.drop_path = drop_path

    def forward(self, x: Tensor) -> Tensor:
        """x (B, units, n, dim) -> (B, units, n or n / 4, dim_out)."""
        normed = self.norm1(x)
        if self.proj is not None:  # under autocast a product is bfloat16, but the residual stream float32
            x = self.proj(normed).to(x.dtype)
        if self.attn.pools:
            x = pool(x)
        x = x + drop_path(self.attn(normed), self.drop_path, self.training)
        return x + drop_path(self.mlp(self.norm2(x)), self.drop_path, self.training)


class MaskUnitAttention(nn.Module):
    """softmax(q k^T / sqrt(d)) v, either inside each mask unit or over the whole clip.

    pools: queries are the maximum of 2x2 neighbours; keys and values stay as fine as they came.
    """

    def __init__(self, dim: int, dim_out: int, heads: int, *, pools: bool, within_units: bool) -> None:
        super().__init__()
        self.heads, self.pools, self.within_units = heads, pools, within_units
        self.qkv = nn.Linear(dim, 3 * dim_out)
        self.proj = nn.Linear(dim_out, dim_out)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, units, n, dim) -> (B, units, n or n / 4, dim_out)."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(3)  # (B, units, n, heads, d)
        if self.pools:
            q = pool(q)
        batch, units, n = q.shape[:3]
        # Units join the batch, or their tokens join one sequence; views both, and four dimensions
        # because the fused kernels take no more.
        first, last = (0, 1) if self.within_units else (1, 2)
        q, k, v = (y.flatten(first, last).transpose(1, 2) for y in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v)
        return self.proj(out.transpose(1, 2).reshape(batch, units, n, -1))


def to_units(x: Tensor, side: int = 8) -> Tensor:
    """Cuts the grid into mask units: (B, t, h, w, D) -> (B, t h/8 w/8, 64, D), units in t, h, w order.

    Inside a unit a row is 4c + 2b + a and a column 4c' + 2b' + a', and the tokens are sorted by
    (a, a', b, b', c, c'). So each quarter holds one token of every 2x2 neighbourhood, and again after
    pooling: `pool` is a maximum over four quarters at every level. side: of a unit, a power of 2.
    """
    b, t, h, w, d = x.shape
    digits = side.bit_length() - 1  # of a row's or column's number inside its unit, in base 2
    x = x.reshape(b, t, h // side, *[2] * digits, w // side, *[2] * digits, d)
    rows, columns = 2, 3 + digits  # the axes of the units, their digits behind them
    lowest_first = [axis + i for i in range(digits, 0, -1) for axis in (rows, columns)]
    return x.permute(0, 1, rows, columns, *lowest_first, -1).reshape(b, -1, side * side, d)


def from_units(x: Tensor, units: Grid) -> Tensor:
    """Lays out units of 1 or 2x2 tokens, what is left at the end: (B, units, n, D) -> (B, t, h, w, D)."""
    side = math.isqrt(x.shape[2])
    t, h, w = units
    batch = x.shape[0]  # not len(x), which torch.export takes for a constant
    x = x.view(batch, t, h, w, side, side, -1).transpose(3, 4)
    return x.reshape(batch, t, h * side, w * side, -1)


def pool(x: Tensor) -> Tensor:
    """The maximum of each 2x2 neighbourhood: (B, units, n, ...) -> (B, units, n / 4, ...)."""
    return x.unflatten(2, (4, -1)).amax(2)


def _init(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Conv3d):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
