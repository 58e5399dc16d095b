"""MViT computed the straightforward way, on the weights of an `actloc_core` model: the reference.

Plain conv3d over the strided query, key and value slices, explicit biases added to explicit scores,
softmax by hand, as the published code has it. Shares nothing with the fast code but the parameters.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


def plain_forward(model, clip):
    """(B, 3, T, H, W) -> (B, t, h, w, D): what `model(clip)` must be."""
    x = model.patch_embed.proj(clip)
    grid = tuple(x.shape[2:])
    x = x.flatten(2).transpose(1, 2)
    if model.cls_token is not None:
        x = torch.cat([model.cls_token.expand(len(x), -1, -1), x], dim=1)
    if getattr(model, "pos_embed_spatial", None) is not None:
        space = model.pos_embed_spatial.repeat(1, grid[0], 1)
        time = torch.repeat_interleave(model.pos_embed_temporal, grid[1] * grid[2], dim=1)
        positions = space + time
        if model.cls_token is not None:
            positions = torch.cat([model.pos_embed_class, positions], dim=1)
        x = x + positions
    for block in model.blocks:
        x, grid = plain_block(block, x, grid)
    x = model.norm(x)
    if model.cls_token is not None:
        x = x[:, 1:]
    return x.view(len(x), *grid, -1)


def plain_block(block, x, grid):
    normed = block.norm1(x)
    update, new_grid = plain_attention(block.attn, normed, grid)
    widens_in_mlp = block.mlp.fc2.out_features != block.attn.proj.out_features
    if block.proj is not None and not widens_in_mlp:
        x = block.proj(normed)
    if new_grid != grid:
        first, tokens = x[:, : x.shape[1] - _size(grid)], x[:, x.shape[1] - _size(grid) :]
        volume = tokens.reshape(len(x), *grid, -1).permute(0, 4, 1, 2, 3).contiguous()
        s = block.attn.q_stride
        volume = F.max_pool3d(volume, (1, s + 1, s + 1), (1, s, s), (0, (s + 1) // 2, (s + 1) // 2))
        x = torch.cat([first, volume.flatten(2).transpose(1, 2)], dim=1)
    x = x + update
    normed = block.norm2(x)
    update = block.mlp.fc2(F.gelu(block.mlp.fc1(normed)))
    if widens_in_mlp:
        x = block.proj(normed)
    return x + update, new_grid


def plain_attention(attn, x, grid):
    b, n, _ = x.shape
    first = n - _size(grid)
    qkv = attn.qkv(x).reshape(b, n, 3, attn.heads, -1).permute(2, 0, 3, 1, 4)
    q, q_grid = plain_pool(attn, qkv[0], grid, "q", attn.q_stride)
    k, k_grid = plain_pool(attn, qkv[1], grid, "k", attn.kv_stride)
    v, _ = plain_pool(attn, qkv[2], grid, "v", attn.kv_stride)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    relative = getattr(attn, "rel_pos_t", None) is not None
    if relative:
        on_grid = q[:, :, first:].reshape(b, attn.heads, *q_grid, -1)
        bias_h = torch.einsum("bnthwc,hkc->bnthwk", on_grid, _rows(attn.rel_pos_h, q_grid[1], k_grid[1]))
        bias_w = torch.einsum("bnthwc,wkc->bnthwk", on_grid, _rows(attn.rel_pos_w, q_grid[2], k_grid[2]))
        bias_t = torch.einsum("bnthwc,tkc->bnthwk", on_grid, _rows(attn.rel_pos_t, q_grid[0], k_grid[0]))
        # In space, then in time, each written back into the scores of the tokens on the grid.
        scores[:, :, first:, first:] = (
            scores[:, :, first:, first:].view(b, attn.heads, *q_grid, *k_grid)
            + bias_h[..., None, :, None]
            + bias_w[..., None, None, :]
        ).view(b, attn.heads, _size(q_grid), _size(k_grid))
        scores[:, :, first:, first:] = (
            scores[:, :, first:, first:].view(b, attn.heads, *q_grid, *k_grid) + bias_t[..., :, None, None]
        ).view(b, attn.heads, _size(q_grid), _size(k_grid))
    out = scores.softmax(-1) @ v
    if relative:  # residual pooling came with the relative positions, in version 2
        out[:, :, first:] += q[:, :, first:]
    return attn.proj(out.transpose(1, 2).reshape(b, -1, out.shape[1] * out.shape[-1])), q_grid


def plain_pool(attn, x, grid, name, stride):
    if not hasattr(attn, f"pool_{name}"):
        return x, grid
    first, tokens = x[:, :, : x.shape[2] - _size(grid)], x[:, :, x.shape[2] - _size(grid) :]
    b, heads, _, d = x.shape
    # Channels first in memory, as the published code lays them out before it convolves: without this
    # copy torch would see a channels-last volume and take another kernel.
    volume = tokens.reshape(b * heads, *grid, d).permute(0, 4, 1, 2, 3).contiguous()
    weight = getattr(attn, f"pool_{name}").weight
    volume = F.conv3d(volume, weight, stride=(1, stride, stride), padding=1, groups=d)
    tokens = volume.flatten(2).transpose(1, 2).reshape(b, heads, -1, d)
    return getattr(attn, f"norm_{name}")(torch.cat([first, tokens], dim=2)), tuple(volume.shape[2:])


def _rows(table, q_size, k_size):
    length = 2 * max(q_size, k_size) - 1
    if len(table) != length:
        table = F.interpolate(table.T[None], size=length, mode="linear", align_corners=False)[0].T
    step_q, step_k = max(k_size / q_size, 1.0), max(q_size / k_size, 1.0)
    at = [
        [int(i * step_q - j * step_k + (k_size - 1) * step_k) for j in range(k_size)] for i in range(q_size)
    ]
    return table[torch.tensor(at)]


def _size(grid):
    return grid[0] * grid[1] * grid[2]
