"""What several backbones share: norm, MLP, stochastic depth, resizing of position embeddings."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

Grid = tuple[int, int, int]
"""Tokens in time, rows and columns."""
LayerNorm = partial(nn.LayerNorm, eps=1e-6)


class Mlp(nn.Module):
    """Two linear layers with exact (not tanh) GELU, 4 dim wide inside: (B, n, dim) -> (B, n, dim_out)."""

    def __init__(self, dim: int, dim_out: int | None = None) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim_out or dim)

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) -> (..., dim_out)."""
        if (
            x.device.type == "cpu"
            and not torch.compiler.is_compiling()
            and not torch.is_autocast_enabled("cpu")
        ):
            weights = (self.fc1.weight, self.fc1.bias, self.fc2.weight, self.fc2.bias)
            rows = x.flatten(0, -2)
            if torch.is_grad_enabled() and (x.requires_grad or self.fc1.weight.requires_grad):
                rows = _SlicedMlp.apply(rows, *weights)  # type: ignore[no-untyped-call]
            else:
                rows = _sliced_mlp(rows, *weights)
            return rows.unflatten(0, x.shape[:-1])
        hidden = self.fc1(x)
        if self.training and hidden.requires_grad:
            # The widest tensors of a network are kept once, not twice: the backward pass computes
            # the activation anew, and stops there, so that no product is done again.
            return checkpoint(self._narrow, hidden, use_reentrant=False, preserve_rng_state=False)
        return self._narrow(hidden)

    def _narrow(self, hidden: Tensor) -> Tensor:
        return self.fc2(F.gelu(hidden))


def _slices(rows: int, width: int) -> list[slice]:
    """Slices of rows with which a tensor of this width has 2 M numbers: 8 MiB of float32."""
    step = max(2**21 // width, 1)
    return [slice(i, i + step) for i in range(0, rows, step)]


def _sliced_mlp(
    x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, hidden: Tensor | None = None
) -> Tensor:
    """`Mlp` a few rows at a time: (n, dim) -> (n, dim_out). On a CPU.

    What is 4 dim wide stays in the cache from the first product to the second; touching fresh memory
    for it cost more than the activation. `hidden` (n, 4 dim), if given, receives fc1's output.
    """
    out = x.new_empty(len(x), len(w2))
    for rows in _slices(len(x), len(w1)):
        inner = None if hidden is None else hidden[rows]
        torch.addmm(b2, F.gelu(torch.addmm(b1, x[rows], w1.t(), out=inner)), w2.t(), out=out[rows])
    return out


class _SlicedMlp(torch.autograd.Function):
    """`_sliced_mlp` with its gradients, also in slices. Of the wide tensors only fc1's output is kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
        hidden = x.new_empty(len(x), len(w1))
        out = _sliced_mlp(x, w1, b1, w2, b2, hidden)
        ctx.save_for_backward(x, w1, w2, hidden)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        x, w1, w2, hidden = ctx.saved_tensors
        grad = grad.contiguous()
        grad_x, grad_b1 = torch.empty_like(x), w1.new_zeros(len(w1))
        grad_w1, grad_w2 = torch.zeros_like(w1), torch.zeros_like(w2)
        for rows in _slices(len(x), len(w1)):
            grad_w2.addmm_(grad[rows].t(), F.gelu(hidden[rows]))
            grad_hidden = torch.ops.aten.gelu_backward(grad[rows] @ w2, hidden[rows])
            grad_w1.addmm_(grad_hidden.t(), x[rows])
            grad_b1 += grad_hidden.sum(0)
            torch.mm(grad_hidden, w1, out=grad_x[rows])
        return grad_x, grad_w1, grad_b1, grad_w2, grad.sum(0)


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


def autocast_dtype(x: Tensor) -> torch.dtype:
    """The type that products of `x` (any shape) are computed in: autocast's where enabled, else its own."""
    device = x.device.type
    # Not torch.amp.is_autocast_available, at which torch.compile breaks the graph.
    if device != "meta" and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return x.dtype


def norm_as_is(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """LayerNorm of x (..., D) whose output has the type of its input, where autocast would make both float32.

    For an input that is bfloat16 already and an output that is used as such: the kernel computes in float32
    in any case, and the two casts around it move three times the bytes.
    """
    if autocast_dtype(x) != x.dtype or x.dtype == norm.weight.dtype:
        return norm(x)
    weight, bias = norm.weight.to(x.dtype), norm.bias.to(x.dtype)
    with torch.autocast(x.device.type, enabled=False):
        return F.layer_norm(x, norm.normalized_shape, weight, bias, norm.eps)


def drop_path(update: Tensor, rate: float, training: bool) -> Tensor:
    """Stochastic depth: in training, leaves out the whole update (B, ...) of a random share of the clips."""
    if not training or rate == 0:
        return update
    kept = update.new_empty(len(update), *[1] * (update.dim() - 1)).bernoulli_(1 - rate)
    return update * (kept / (1 - rate))
