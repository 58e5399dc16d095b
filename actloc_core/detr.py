"""The baseline the paper argues against (Fig. 1b): an encoder-decoder with learned queries on the tokens.

DETR (Carion et al., ECCV 2020, the paper's [1]) over space-time tokens, with the heads, matching and
loss of the single-stage model, so that what differs is the encoder, the decoder and the queries.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from actloc_core.heads import Heads, full_precision, grid_bias
from actloc_core.structures import Backbone, Predictions


class DetrLocalizer(nn.Module):
    """Clip (B, 3, T, H, W) -> Predictions with L = `queries` candidates a clip.

    The defaults are DETR's sizes. A query is a learned vector and a learned box of the keyframe, at first
    one of a grid, as in Conditional, Anchor and DAB-DETR (2021 to 2022): what it reads of the tokens
    depends on its place and on theirs from the first step, and its box is predicted from its own. Plain
    DETR's free query vectors have to find their places, in hundreds of epochs: in 550 steps at tiny
    scale they learned nothing (0.4 mAP). Norms stand before attention and MLP; no dropout and no
    auxiliary losses, so that the loss is the single-stage model's.

    backbone: clip -> tokens (B, t, h, w, D), with D as `.out_dim`.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        num_classes: int,
        dim: int = 256,
        queries: int = 100,
        encoder_layers: int = 6,
        decoder_layers: int = 6,
        heads: int = 8,
        feedforward: int = 2048,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.proj = nn.Linear(backbone.out_dim, dim)
        self.encoder = nn.ModuleList(EncoderLayer(dim, heads, feedforward) for _ in range(encoder_layers))
        self.encoder_norm = nn.LayerNorm(dim)
        self.query_content = nn.Parameter(torch.randn(queries, dim) * 0.02)
        side = math.isqrt(queries)
        if side * side != queries:
            raise ValueError(f"queries start as a square grid of boxes: {queries} is no square number")
        self.query_boxes = nn.Parameter(grid_bias(side, side))  # logits of cxcywh
        self.decoder = nn.ModuleList(DecoderLayer(dim, heads, feedforward) for _ in range(decoder_layers))
        self.decoder_norm = nn.LayerNorm(dim)
        self.heads = Heads(dim, num_classes)
        for module in (*self.encoder.modules(), *self.decoder.modules()):
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)

    def forward(self, clip: Tensor, boxes: object = None) -> Predictions:
        """(B, 3, T, H, W) -> Predictions of L = the number of queries. boxes: as `ActionLocalizer`'s."""
        tokens = self.proj(self.backbone(clip))  # (B, t, h, w, dim)
        t, h, w, dim = tokens.shape[1:]
        centres = ((torch.arange(size, device=clip.device) + 0.5) / size for size in (t, h, w))
        places = torch.cartesian_prod(*centres)  # (thw, 3)
        place = positions(places, (t, h, w), dim).to(tokens)
        memory = tokens.flatten(1, 3)
        for layer in self.encoder:
            memory = layer(memory, place)
        memory = self.encoder_norm(memory)
        # The keyframe is the clip's middle.
        points = F.pad(self.query_boxes[:, :2].sigmoid().flip(-1), (1, 0), value=0.5)  # (L, 3): t, y, x
        query = positions(points, (t, h, w), dim).to(tokens)
        x = self.query_content.expand(clip.shape[0], -1, -1)
        for layer in self.decoder:
            x = layer(x, query, memory, place)
        x = self.decoder_norm(x)  # (B, L, dim)
        with full_precision(x):  # as the single-stage model
            x = x.float() if x.dtype == torch.bfloat16 else x
            box = torch.sigmoid(self.heads.box(x) + self.query_boxes)
            return Predictions(box, self.heads.actor(x), self.heads.action(x))


class EncoderLayer(nn.Module):
    """Self-attention of the tokens, whose places are added to queries and keys, and an MLP."""

    def __init__(self, dim: int, heads: int, feedforward: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = _mlp(dim, feedforward)

    def forward(self, x: Tensor, place: Tensor) -> Tensor:
        """x (B, n, dim), place (n, dim) -> (B, n, dim)."""
        normed = self.norm1(x)
        x = x + self.attn(normed + place, normed + place, normed)
        return x + self.mlp(self.norm2(x))


class DecoderLayer(nn.Module):
    """Self-attention of the queries, attention of theirs to the tokens, and an MLP.

    In the latter contents and places give separate scores, which are added: likeness of content, and
    `sharpness` times the likeness of the places, which is 1 where they are one. Each head has learned
    numbers for time and for the plane; at first half of the heads read the keyframe, and half the
    whole clip: where an actor is, and what it does.
    """

    def __init__(self, dim: int, heads: int, feedforward: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.self_attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.cross_attn = Attention(dim, heads)
        self.sharpness = nn.Parameter(torch.full((heads, 2), 8.0))
        with torch.no_grad():
            self.sharpness[heads // 2 :, 0] = 0
        self.norm3 = nn.LayerNorm(dim)
        self.mlp = _mlp(dim, feedforward)

    def forward(self, x: Tensor, query: Tensor, memory: Tensor, place: Tensor) -> Tensor:
        """x (B, L, dim), query (L, dim), memory (B, n, dim), place (n, dim) -> (B, L, dim)."""
        normed = self.norm1(x)
        x = x + self.self_attn(normed + query, normed + query, normed)
        in_plane = 2 * plane_channels(query.shape[-1])
        likeness = [
            (mine @ theirs.T) / (mine.shape[1] / 2)  # (L, n)
            for mine, theirs in zip(
                query.split([query.shape[1] - in_plane, in_plane], dim=1),
                place.split([place.shape[1] - in_plane, in_plane], dim=1),
                strict=True,
            )
        ]
        near = torch.einsum("ha,aln->hln", self.sharpness, torch.stack(likeness))
        x = x + self.cross_attn(self.norm2(x), memory, memory, near)
        return x + self.mlp(self.norm3(x))


class Attention(nn.Module):
    """Multi-head attention: q (B, L, dim), k and v (B, n, dim) -> (B, L, dim).

    bias (heads, L, n) is added to the scores before the softmax.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"{heads} heads do not divide {dim} channels")
        self.heads = heads
        self.q, self.k, self.v = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
        """q (B, n, dim), k and v (B, m, dim) -> (B, n, dim); bias, added to the scores, (B, heads, n, m)."""
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, x in ((self.q, q), (self.k, k), (self.v, v))
        )
        return self.out(F.scaled_dot_product_attention(q, k, v, bias).transpose(1, 2).flatten(2))


def _mlp(dim: int, feedforward: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, feedforward), nn.ReLU(), nn.Linear(feedforward, dim))


def plane_channels(dim: int) -> int:
    """Channels of a position embedding that tell y, and as many x: an even third."""
    return dim // 6 * 2


def positions(at: Tensor, grid: tuple[int, int, int], dim: int) -> Tensor:
    """Sines and cosines of places: at (N, 3), time, y and x in [0, 1] -> (N, dim).

    On each axis with frequencies at even distances from half a turn over the whole axis to half a turn a
    cell, the finest that a grid (t, h, w) tells apart; the product of two embeddings is greatest where
    the places are one. Time comes first, then y and x with `plane_channels` each.
    """
    plane = plane_channels(dim)
    parts = []
    for axis, (size, width) in enumerate(zip(grid, (dim - 2 * plane, plane, plane), strict=True)):
        turns = torch.linspace(0.5, size / 2, (width + 1) // 2, device=at.device)
        angle = 2 * torch.pi * at[:, axis, None] * turns
        parts.append(torch.cat([angle.sin(), angle.cos()], dim=1)[:, :width])
    return torch.cat(parts, dim=1)
