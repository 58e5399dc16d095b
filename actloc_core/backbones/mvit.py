"""MViT (Fan et al. 2021; version 2, Li et al. 2022, the paper's [19]): multiscale attention over tokens.

One class for every size. Parameter names and shapes are those of the published PySlowFast weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from actloc_core.backbones.layers import (
    Grid,
    LayerNorm,
    Mlp,
    autocast_dtype,
    drop_path,
    norm_as_is,
    resize_line,
    resize_plane,
)
from actloc_core.structures import Backbone


def mvitv2_s(*, frames: int = 16, crop: int = 256, last_pool: bool = False, drop_path: float = 0.2) -> MViT:
    """MViTv2-S 16x4 as in Table 1: 16 blocks; 8x16x16 tokens of 768 at 256 without the last pool."""
    return _base(2, (1, 2, 11, 2), frames, crop, last_pool, drop_path)


def mvitv2_b(*, frames: int = 32, crop: int = 224, last_pool: bool = True, drop_path: float = 0.3) -> MViT:
    """MViTv2-B 32x3: 24 blocks of the widths of MViTv2-S."""
    return _base(2, (2, 3, 16, 3), frames, crop, last_pool, drop_path)


def mvitv1_b(*, frames: int = 16, crop: int = 224, last_pool: bool = True, drop_path: float = 0.2) -> MViT:
    """MViTv1-B, 16x4 and (frames=64) 64x3: 16 blocks, absolute positions."""
    return _base(1, (1, 2, 11, 2), frames, crop, last_pool, drop_path)


def _base(
    version: int, depths: Sequence[int], frames: int, crop: int, last_pool: bool, drop_path: float
) -> MViT:
    """The published video models: four stages from 96 to 768 channels, with a class token."""
    return MViT(
        input_size=(frames, crop, crop),
        patch_kernel=(3, 7, 7),
        patch_stride=(2, 4, 4),
        depths=depths,
        dims=(96, 192, 384, 768),
        heads=(1, 2, 4, 8),
        kv_strides=(8, 4, 2, 1),
        last_pool=last_pool,
        drop_path=drop_path,
        cls_token=True,
        version=version,
    )


def mvitv2_tiny(*, frames: int = 16, crop: int = 64, last_pool: bool = False, drop_path: float = 0.0) -> MViT:
    """Two stages and 0.2 M parameters, for laptops: 8x8x8 tokens of 64 at 64 without the last pool."""
    return MViT(
        input_size=(frames, crop, crop),
        patch_kernel=(3, 9, 9),
        patch_stride=(2, 8, 8),
        depths=(1, 2),
        dims=(48, 64),
        heads=(1, 2),
        kv_strides=(2, 2),
        last_pool=last_pool,
        drop_path=drop_path,
        cls_token=False,
    )


class MViT(Backbone):
    """Stages of pooling-attention blocks; each stage's first block pools the queries and widens.

    input_size: (T, H, W) the tables of relative positions are made for; other sizes are
        interpolated in the forward, so any T, H, W that the strides divide will run.
    depths, dims, heads, kv_strides: one entry a stage. kv_strides is the spatial stride of keys and
        values over the block's input, which in a pooling stage's first block is the finer grid.
    last_pool: False leaves out the last stage's query pooling, the paper's change (Table 1). The
        strides of keys and values stay as they are.
    cls_token: carried through the attention as in pre-training, and dropped from the output.
    version: 2, or 1, which has learned absolute positions (apart for space, time and the class
        token) in place of relative ones, no residual pooling, queries that are pooled only where
        they shrink, and widens in the MLP of the block before.
    checkpointing: the backward pass computes each block anew instead of keeping what is inside it.
    """

    def __init__(
        self,
        *,
        input_size: Grid,
        patch_kernel: Grid,
        patch_stride: Grid,
        depths: Sequence[int],
        dims: Sequence[int],
        heads: Sequence[int],
        kv_strides: Sequence[int],
        last_pool: bool,
        drop_path: float,
        cls_token: bool,
        version: int = 2,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if version not in (1, 2):
            raise ValueError(f"MViT has versions 1 and 2, not {version}")
        self.out_dim = dims[-1]
        self.checkpointing = checkpointing
        self.patch_stride = patch_stride
        self.patch_embed = PatchEmbed(dims[0], patch_kernel, patch_stride)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dims[0])) if cls_token else None
        grid: Grid = (
            input_size[0] // patch_stride[0],
            input_size[1] // patch_stride[1],
            input_size[2] // patch_stride[2],
        )
        self.pos_embed_spatial: nn.Parameter | None = None
        if version == 1:
            self.pos_embed_spatial = nn.Parameter(torch.zeros(1, grid[1] * grid[2], dims[0]))
            self.pos_embed_temporal = nn.Parameter(torch.zeros(1, grid[0], dims[0]))
            self.pos_embed_class = nn.Parameter(torch.zeros(1, 1, dims[0])) if cls_token else None
        self.position_plane = grid[1:]
        rates = [drop_path * i / (sum(depths) - 1) for i in range(sum(depths))]
        blocks: list[Block] = []
        dim = dims[0]
        for stage, depth in enumerate(depths):
            pools = stage > 0 and (last_pool or stage < len(depths) - 1)
            for i in range(depth):
                widens = version == 1 and i == depth - 1 and stage < len(depths) - 1
                block = Block(
                    dim,
                    dims[stage + widens],
                    heads[stage],
                    grid=grid,
                    q_stride=2 if pools and i == 0 else 1,
                    kv_stride=kv_strides[stage],
                    drop_path=rates[len(blocks)],
                    version=version,
                )
                blocks.append(block)
                dim, grid = dims[stage + widens], pooled(grid, block.attn.q_stride)
        self.blocks = nn.ModuleList(blocks)
        self.side_multiple = patch_stride[1] * math.prod(block.attn.q_stride for block in blocks)
        self.norm = LayerNorm(dim)
        self.apply(_init)
        for parameter in self.parameters(recurse=False):  # class token, positions
            nn.init.trunc_normal_(parameter, std=0.02)

    def forward(self, clip: Tensor) -> Tensor:
        """(B, 3, T, H, W) -> (B, t, h, w, out_dim), normalised tokens in time, row, column order.

        Raises ValueError where the patch's strides do not divide T, H or W.
        """
        for name, size, stride in zip("THW", clip.shape[2:], self.patch_stride, strict=True):
            if size % stride:
                raise ValueError(f"clip {name}={size} is not a multiple of the patch stride {stride}")
        x = self.patch_embed(clip).to(clip.dtype)  # (B, t, h, w, dim), not in autocast's type
        grid: Grid = x.shape[1:4]
        x = x.flatten(1, 3)
        if self.cls_token is not None:
            x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1)
        if self.pos_embed_spatial is not None:
            x = x + self._positions(grid)
        for block in self.blocks:
            if self.checkpointing and self.training:
                x, grid = checkpoint(block, x, grid, use_reentrant=False)
            else:
                x, grid = block(x, grid)
        x = self.norm(x)
        if self.cls_token is not None:
            x = x[:, 1:]
        return x.unflatten(1, grid)

    def _positions(self, grid: Grid) -> Tensor:
        """Version 1's absolute positions, (1, [1 +] thw, dim), resized where the grid is another."""
        assert self.pos_embed_spatial is not None
        plane = resize_plane(self.pos_embed_spatial, self.position_plane, grid[1:])  # (1, hw, dim)
        line = resize_line(self.pos_embed_temporal, grid[0])  # (1, t, dim)
        positions = (line[:, :, None] + plane[:, None]).flatten(1, 2)
        if self.pos_embed_class is None:
            return positions
        return torch.cat([self.pos_embed_class, positions], dim=1)


class PatchEmbed(nn.Module):
    """Overlapping space-time patches by one convolution: (B, 3, T, H, W) -> (B, t, h, w, dim)."""

    def __init__(self, dim: int, kernel: Grid, stride: Grid) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
        self.proj = nn.Conv3d(3, dim, kernel, stride, padding)

    def forward(self, clip: Tensor) -> Tensor:
        """(B, 3, T, H, W) -> (B, t, h, w, dim)."""
        return self.proj(clip).movedim(1, -1)


class Block(nn.Module):
    """Pooling attention and an MLP, each with a residual.

    The width changes from dim to dim_out inside the attention; in version 1 inside the MLP.
    """

    def __init__(
        self,
        dim: int,
        dim_out: int,
        heads: int,
        *,
        grid: Grid,
        q_stride: int,
        kv_stride: int,
        drop_path: float,
        version: int = 2,
    ) -> None:
        super().__init__()
        self.widens_in_mlp = version == 1
        inner = dim if self.widens_in_mlp else dim_out
        self.norm1 = LayerNorm(dim)
        self.attn = PoolingAttention(
            dim, inner, heads, grid=grid, q_stride=q_stride, kv_stride=kv_stride, version=version
        )
        self.norm2 = LayerNorm(inner)
        self.mlp = Mlp(inner, dim_out)
        self.proj = nn.Linear(dim, dim_out) if dim != dim_out else None
        self.drop_path = drop_path

    def forward(self, x: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
        """x (B, [1 +] thw, dim) -> (B, [1 +] t'h'w', dim_out) and the new grid."""
        normed = self.norm1(x)
        update, new_grid = self.attn(normed, grid)
        if self.proj is not None and not self.widens_in_mlp:
            x = self.proj(normed).to(x.dtype)
        if new_grid != grid:
            x = _max_pool(x, grid, self.attn.q_stride)
        x = _add_residual(drop_path(update, self.drop_path, self.training), x)
        normed = self.norm2(x)
        update = drop_path(self.mlp(normed), self.drop_path, self.training)
        if self.proj is not None and self.widens_in_mlp:
            x = self.proj(normed).to(x.dtype)
        return _add_residual(update, x), new_grid


def _add_residual(update: Tensor, x: Tensor) -> Tensor:
    """The sum of two tensors of one shape, in the wider of their types.

    Under autocast the update is bfloat16 and the residual stream float32, and so it must stay: rounded to
    bfloat16 after each block, the output's error grows by a quarter (measured on an H200, 16 blocks).
    """
    if update.dtype != x.dtype:
        return x + update
    return update.add_(x)  # in place: nothing else holds the update, and fresh memory costs more than the sum


class PoolingAttention(nn.Module):
    """Attention over pooled queries, keys and values, with decomposed relative positions.

    softmax(q k^T / sqrt(d) + q.R_h + q.R_w + q.R_t) v + q: the bias is a sum of one term an axis,
    and the pooled query is added to the output (residual pooling), but for the class token's.
    Version 1 has neither bias nor residual, and pools the queries only where they shrink.
    """

    def __init__(
        self,
        dim: int,
        dim_out: int,
        heads: int,
        *,
        grid: Grid,
        q_stride: int,
        kv_stride: int,
        version: int = 2,
    ) -> None:
        super().__init__()
        self.heads, self.q_stride, self.kv_stride = heads, q_stride, kv_stride
        self.relative = version == 2
        head_dim = dim_out // heads
        self.qkv = nn.Linear(dim, 3 * dim_out)
        self.proj = nn.Linear(dim_out, dim_out)
        for name in "qkv" if self.relative or q_stride > 1 else "kv":
            self.add_module(f"pool_{name}", DepthwiseWeight(head_dim))
            self.add_module(f"norm_{name}", LayerNorm(head_dim))
        if self.relative:
            self.rel_pos_t = nn.Parameter(torch.empty(2 * grid[0] - 1, head_dim))
            # Tables are sized for the unrounded quotient of the grid, as the published weights are.
            for axis, i in (("h", 1), ("w", 2)):
                longest = max(grid[i] // q_stride, grid[i] // kv_stride)
                table = nn.Parameter(torch.empty(2 * longest - 1, head_dim))
                self.register_parameter(f"rel_pos_{axis}", table)

    def forward(self, x: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
        """x (B, [1 +] thw, dim) -> (B, [1 +] t'h'w', dim_out) and the grid of the queries."""
        has_cls = x.shape[1] > grid[0] * grid[1] * grid[2]
        # One after the other, each from its third of the projection to its pooled grid: a third of the
        # memory at a time, and no copy of a slice before a convolution.
        # Under autocast norms return float32: cast once here, not in each product that follows.
        x = x.to(autocast_dtype(x))
        pooled_qkv = []
        strides = (self.q_stride, self.kv_stride, self.kv_stride)
        parts = zip("qkv", self.qkv.weight.chunk(3), self.qkv.bias.chunk(3), strides, strict=True)
        for name, weight, bias, stride in parts:
            tokens = F.linear(x, weight, bias).unflatten(-1, (self.heads, -1))  # (B, n, heads, d)
            pooled_qkv.append(self._pool(tokens, grid, name, stride))
        (q, q_grid), (k, k_grid), (v, _) = pooled_qkv
        if self.relative:
            out = self._attend(q, k, v, q_grid, k_grid, has_cls)
            # One pass over q: the class token's row, if there is one, is added 0 times.
            times = torch.ones(q.shape[2], 1, dtype=q.dtype, device=q.device)
            times[: q.shape[2] - q_grid[0] * q_grid[1] * q_grid[2]] = 0
            out = torch.addcmul(out, q, times)
        else:
            out = F.scaled_dot_product_attention(q, k, v)
        return self.proj(out.transpose(1, 2).flatten(2)), q_grid

    def _pool(self, x: Tensor, grid: Grid, name: str, stride: int) -> tuple[Tensor, Grid]:
        """x (B, [1 +] thw, heads, d) -> (B, heads, [1 +] t'h'w', d), pooled and normalised."""
        if not hasattr(self, f"pool_{name}"):
            return x.transpose(1, 2), grid
        batch, length, heads, d = x.shape
        tokens = grid[0] * grid[1] * grid[2]
        cls, x = (None, x) if length == tokens else x.split([1, tokens], dim=1)
        # The heads are channels: one weight for each, the same for all heads.
        volume = x.reshape(batch, *grid, heads * d)
        weight = getattr(self, f"pool_{name}").weight.repeat(heads, 1, 1, 1, 1)
        # In evaluation a GPU waits for launches, so fewer kernels win; in training it is bound by the work.
        volume = depthwise_conv3d(volume, weight, stride, fused=x.is_cuda and not self.training)
        new_grid = (volume.shape[1], volume.shape[2], volume.shape[3])
        x = volume.view(batch, -1, heads, d)
        x = x if cls is None else torch.cat([cls, x], dim=1)
        return norm_as_is(getattr(self, f"norm_{name}"), x).transpose(1, 2), new_grid

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, q_grid: Grid, k_grid: Grid, has_cls: bool) -> Tensor:
        """One unmasked attention that has the positions folded in.

        The bias of query i and key j is r_h[i, row of j] + r_w[i, column of j] + r_t[i, time of j].
        With the r appended to q, and one-hot rows, columns and times appended to k, the product
        of the longer vectors is score plus bias, and no (queries x keys) bias is ever made.
        """
        d = q.shape[-1]
        on_grid = q.split([1, q.shape[2] - 1], dim=2)[1] if has_cls else q
        on_grid = on_grid.unflatten(2, q_grid)  # (B, heads, t, h, w, d)
        features = torch.cat(
            [
                torch.einsum(equation, on_grid, relative_table(self.get_parameter(name), q_size, k_size))
                for equation, name, q_size, k_size in zip(
                    ("bnthwd,tkd->bnthwk", "bnthwd,hkd->bnthwk", "bnthwd,wkd->bnthwk"),
                    ("rel_pos_t", "rel_pos_h", "rel_pos_w"),
                    q_grid,
                    k_grid,
                    strict=True,
                )
            ],
            dim=-1,
        ).flatten(2, 4)
        one_hot = _one_hot_positions(k_grid, k)
        # A GPU's fused kernels want widths that are multiples of 8, or copy everything once more.
        spare = -(d + one_hot.shape[-1]) % 8 if q.is_cuda else 0
        if has_cls or spare:  # neither the class token's query nor its key has a position
            features, one_hot = (F.pad(x, (0, spare, int(has_cls), 0)) for x in (features, one_hot))
        longer_q = torch.cat([q, features], dim=-1)
        longer_k = torch.cat([k * d**-0.5, one_hot.expand(*k.shape[:2], -1, -1)], dim=-1)
        padded_v = F.pad(v, (0, longer_k.shape[-1] - d))  # the fused kernels want equal widths
        return F.scaled_dot_product_attention(longer_q, longer_k, padded_v, scale=1.0)[..., :d]


class DepthwiseWeight(nn.Module):
    """The weight of a depthwise 3x3x3 convolution, (C, 1, 3, 3, 3), without bias."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, 1, 3, 3, 3))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)  # nn.Conv3d's


def depthwise_conv3d(x: Tensor, weight: Tensor, stride: int, *, fused: bool = False) -> Tensor:
    """Depthwise 3x3x3 convolution with padding 1 and stride (1, stride, stride), channels last.

    x (N, t, h, w, C), weight (C, 1, 3, 3, 3) -> (N, t, h', w', C). Computed as one 2D convolution
    an offset in time, shifted and added: the same sums as conv3d, whose CPU kernels for depthwise
    weights are several times slower, and on an H200 its backward is, too (docs/gpu.md). fused: by conv3d.
    """
    n, t, _, _, channels = x.shape
    if fused:
        # Channels first in memory: the channels-last kernel is up to 26 times slower on an H200.
        volume = x.permute(0, 4, 1, 2, 3).contiguous()
        volume = F.conv3d(volume, weight, stride=(1, stride, stride), padding=1, groups=channels)
        return volume.permute(0, 2, 3, 4, 1).contiguous()
    frames = x.reshape(n * t, *x.shape[2:]).permute(0, 3, 1, 2)  # channels-last (N t, C, h, w)

    def offset(i: int) -> Tensor:
        y = F.conv2d(frames, weight[:, :, i], stride=stride, padding=1, groups=channels)
        return y.permute(0, 2, 3, 1).unflatten(0, (n, t))

    # Output frame i takes the past weights on frame i - 1 and the future ones on frame i + 1. One
    # after the other: the fewer of these tensors live at once, the less fresh memory is touched.
    out = offset(1).contiguous()
    if t > 1:
        out[:, 1:] += offset(0).split([t - 1, 1], 1)[0]
        out[:, :-1] += offset(2).split([1, t - 1], 1)[1]
    return out


def relative_table(table: Tensor, q_size: int, k_size: int) -> Tensor:
    """Rows of one axis' relative positions for each query and key: (length, d) -> (q, k, d).

    A table made for another size is interpolated linearly first (align_corners=False).
    """
    length = 2 * max(q_size, k_size) - 1
    if len(table) != length:
        table = F.interpolate(table.T[None], size=length, mode="linear")[0].T
    # Distances in units of the finer of the two grids.
    q_step, k_step = max(k_size / q_size, 1.0), max(q_size / k_size, 1.0)
    # On the table's device from the start: a copy from the host would stop a GPU's queue in every block.
    q = torch.arange(q_size, device=table.device) * q_step
    k = torch.arange(k_size, device=table.device) * k_step
    return table[(q[:, None] - k[None, :] + (k_size - 1) * k_step).long()]


def pooled(grid: Grid, stride: int) -> Grid:
    """The grid after a kernel-3 padding-1 pooling of this spatial stride; time is never pooled."""
    return grid[0], (grid[1] - 1) // stride + 1, (grid[2] - 1) // stride + 1


def _one_hot_positions(grid: Grid, like: Tensor) -> Tensor:
    """(thw, t + h + w): each token's time, row and column as three one-hot vectors."""
    eyes = [torch.eye(size, dtype=like.dtype, device=like.device) for size in grid]
    t, h, w = grid
    return torch.cat(
        [
            eyes[0][:, None, None].expand(t, h, w, t),
            eyes[1][None, :, None].expand(t, h, w, h),
            eyes[2][None, None, :].expand(t, h, w, w),
        ],
        dim=-1,
    ).flatten(0, 2)


def _max_pool(x: Tensor, grid: Grid, stride: int) -> Tensor:
    """The residual's pooling, kernel stride + 1 in space: x (B, [1 +] thw, C)."""
    tokens = grid[0] * grid[1] * grid[2]
    cls, x = (None, x) if x.shape[1] == tokens else x.split([1, tokens], dim=1)
    frames = x.reshape(-1, grid[1], grid[2], x.shape[-1]).permute(0, 3, 1, 2)
    frames = F.max_pool2d(frames, stride + 1, stride, padding=(stride + 1) // 2)
    x = frames.permute(0, 2, 3, 1).reshape(x.shape[0], -1, x.shape[-1])
    return x if cls is None else torch.cat([cls, x], dim=1)


def _init(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    if isinstance(module, PoolingAttention) and module.relative:
        for axis in "thw":
            nn.init.trunc_normal_(module.get_parameter(f"rel_pos_{axis}"), std=0.02)
