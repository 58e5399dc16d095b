"""The baseline the paper argues against (Fig. 1b): an encoder-decoder with learned queries on the tokens.

DETR (Carion et al., ECCV 2020, the paper's [1]) over space-time tokens, with the heads, matching and
loss of the single-stage model, so that what differs is the encoder, the decoder and the queries.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from actloc_core.heads import Heads
from actloc_core.structures import Backbone, Predictions


class DetrLocalizer(nn.Module):
    """Clip (B, 3, T, H, W) -> Predictions with L = `queries` candidates a clip.

    The defaults are DETR's sizes. Norms stand before attention and MLP (DETR's normalize_before),
    which trains without its long schedule; no dropout and no auxiliary losses, so that the loss is
    the single-stage model's.

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
        self.query_embedding = nn.Parameter(torch.randn(queries, dim))
        self.decoder = nn.ModuleList(DecoderLayer(dim, heads, feedforward) for _ in range(decoder_layers))
        self.decoder_norm = nn.LayerNorm(dim)
        self.heads = Heads(dim, num_classes)
        for layers in (self.encoder, self.decoder):
            for parameter in layers.parameters():
                if parameter.dim() > 1:
                    nn.init.xavier_uniform_(parameter)

    def forward(self, clip: Tensor) -> Predictions:
        tokens = self.proj(self.backbone(clip))  # (B, t, h, w, dim)
        place = sine_positions(tokens.shape[1], tokens.shape[2], tokens.shape[3], tokens.shape[4])
        place = place.to(tokens).flatten(0, 2)  # (thw, dim)
        memory = tokens.flatten(1, 3)
        for layer in self.encoder:
            memory = layer(memory, place)
        memory = self.encoder_norm(memory)
        query = self.query_embedding
        x = torch.zeros_like(query).expand(len(clip), -1, -1)
        for layer in self.decoder:
            x = layer(x, query, memory, place)
        x = self.decoder_norm(x)  # (B, L, dim)
        return Predictions(torch.sigmoid(self.heads.box(x)), self.heads.actor(x), self.heads.action(x))


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
    """Self-attention of the queries, attention of theirs to the tokens, and an MLP."""

    def __init__(self, dim: int, heads: int, feedforward: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.self_attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.cross_attn = Attention(dim, heads)
        self.norm3 = nn.LayerNorm(dim)
        self.mlp = _mlp(dim, feedforward)

    def forward(self, x: Tensor, query: Tensor, memory: Tensor, place: Tensor) -> Tensor:
        """x (B, L, dim), query (L, dim), memory (B, n, dim), place (n, dim) -> (B, L, dim)."""
        normed = self.norm1(x)
        x = x + self.self_attn(normed + query, normed + query, normed)
        x = x + self.cross_attn(self.norm2(x) + query, memory + place, memory)
        return x + self.mlp(self.norm3(x))


class Attention(nn.Module):
    """Multi-head attention: q (B, L, dim), k and v (B, n, dim) -> (B, L, dim)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"{heads} heads do not divide {dim} channels")
        self.heads = heads
        self.q, self.k, self.v = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, x in ((self.q, q), (self.k, k), (self.v, v))
        )
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def _mlp(dim: int, feedforward: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, feedforward), nn.ReLU(), nn.Linear(feedforward, dim))


def sine_positions(t: int, h: int, w: int, dim: int) -> Tensor:
    """DETR's sine embedding with time beside it: (t, h, w, dim).

    A cell's centre on each axis, in [0, 2 pi], times frequencies from 1 down to 1/10000; sines, then
    cosines. Rows and columns get an even third of the channels each, time what is left.
    """
    plane = dim // 6 * 2  # of rows and of columns, an even number
    parts = []
    for axis, (size, width) in enumerate(((t, dim - 2 * plane), (h, plane), (w, plane))):
        at = (torch.arange(size) + 0.5) / size * 2 * torch.pi
        frequencies = 10000.0 ** -(torch.arange((width + 1) // 2) / ((width + 1) // 2))
        angle = at[:, None] * frequencies
        values = torch.cat([angle.sin(), angle.cos()], dim=1)[:, :width]
        shape = [1, 1, 1, width]
        shape[axis] = size
        parts.append(values.view(shape).expand(t, h, w, width))
    return torch.cat(parts, dim=-1)
