"""Where a step's time goes on a GPU: kernels, attention kernels of each block, depthwise convolutions."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from actloc_core.backbones.mvit import depthwise_conv3d
from benchmarks.profile.measure import device_ms, experiment, random_batch, synchronise, training_of
from benchmarks.train.step import train_step

GROUPS = (
    ("attention", ("sdpa", "flash", "fmha", "attention")),
    ("depthwise convolution", ("dgrad2d", "wgrad2d", "conv2d_c1", "conv_depthwise", "depthwise", "dwconv")),
    ("matrix products", ("gemm", "nvjet", "cutlass", "xmma", "wgmma", "splitk", "cublas")),
    ("layer norm", ("layer_norm", "gammabeta")),
    ("concatenation", ("cat",)),
    ("optimizer and clipping", ("multi_tensor", "fused", "foreach")),
    ("reductions", ("reduce",)),
    ("copies and casts", ("copy", "memcpy", "memset", "transform")),
    ("elementwise", ("elementwise",)),
)
"""Groups of kernels by what their names hold, the first that fits."""


def kernels(device: torch.device, quick: bool) -> dict[str, Any]:
    """Device time of a training step of batch 8 by group of kernels, and each block's attention kernel."""
    if device.type != "cuda":
        return {"note": "needs a GPU"}
    from torch._C._autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    exp = experiment(quick, batch=8)
    state, batch = training_of(exp, device), random_batch(exp, device)
    for _ in range(3):
        train_step(state, batch, exp, device)
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        clock = time.perf_counter()
        train_step(state, batch, exp, device)
        synchronise(device)
        wall = time.perf_counter() - clock
    events = [e for e in profiled.events() if e.device_type == DeviceType.CUDA]
    events.sort(key=lambda e: e.time_range.start)
    by_kernel: Counter[str] = Counter()
    for event in events:
        by_kernel[event.name] += event.time_range.elapsed_us()
    total = sum(by_kernel.values())
    by_group: Counter[str] = Counter()
    for name, us in by_kernel.items():
        by_group[group_of(name)] += us
    attention = [e for e in events if group_of(e.name) == "attention"]
    return {
        "wall_ms": 1e3 * wall,
        "device_ms": total / 1e3,
        "launched": len(events),
        "groups": {name: us / total for name, us in by_group.most_common()},
        "top": [(name[:90], us / total) for name, us in by_kernel.most_common(25)],
        "attention": [(e.name[:90], round(e.time_range.elapsed_us())) for e in attention],
    }


def group_of(kernel: str) -> str:
    """The group of a kernel, by its name."""
    name = kernel.lower()
    return next((group for group, signs in GROUPS if any(sign in name for sign in signs)), "other")


SHAPES = ((8, 64, 96, 1), (8, 64, 96, 8), (8, 32, 192, 4), (8, 16, 384, 1), (8, 16, 384, 2), (8, 16, 768, 1))
"""t, side, channels and stride of MViTv2-S's poolings at 256."""


def depthwise(device: torch.device, quick: bool) -> list[dict[str, Any]]:
    """Forward and backward of the poolings of 8 clips, ms: three shifted 2D convolutions against conv3d.

    Without the CPU's launches, of which the shifted ones need three times as many.
    """
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    rows = []
    for t, side, channels, stride in ((4, 8, 48, 1),) if quick else SHAPES:
        shape = (2 if quick else 8, t, side, side, channels)
        x = torch.randn(shape, device=device, dtype=dtype, requires_grad=True)
        w = torch.randn(channels, 1, 3, 3, 3, device=device, dtype=dtype, requires_grad=True)
        row: dict[str, Any] = {"t": t, "side": side, "channels": channels, "stride": stride}
        for benchmark in (False, True):
            torch.backends.cudnn.benchmark = benchmark
            for name, way in WAYS.items():
                row[f"{name}{', benchmark' if benchmark else ''}"] = _ms(way, x, w, stride, device)
        torch.backends.cudnn.benchmark = False
        rows.append(row)
    return rows


def _ms(way: Callable[..., Tensor], x: Tensor, w: Tensor, stride: int, device: torch.device) -> float:
    pull = torch.randn_like(way(x, w, stride))

    def both() -> None:
        torch.autograd.grad(way(x, w, stride), (x, w), pull)

    return device_ms(both, device)


def shifted_2d(x: Tensor, w: Tensor, stride: int) -> Tensor:
    """As on a CPU. x (N, t, h, w, C), w (C, 1, 3, 3, 3) -> (N, t, h', w', C), as the next two."""
    return depthwise_conv3d(x, w, stride, fused=False)


def conv3d(x: Tensor, w: Tensor, stride: int) -> Tensor:
    """Channels first in memory: (N, t, h, w, C) -> (N, t, h', w', C)."""
    return depthwise_conv3d(x, w, stride, fused=True)


def conv3d_channels_last(x: Tensor, w: Tensor, stride: int) -> Tensor:
    """Channels last, as the tokens come: (N, t, h, w, C) -> (N, t, h', w', C)."""
    volume = x.permute(0, 4, 1, 2, 3)
    out = F.conv3d(volume, w, stride=(1, stride, stride), padding=1, groups=x.shape[-1])
    return out.permute(0, 2, 3, 4, 1)


WAYS = {"shifted 2D": shifted_2d, "conv3d": conv3d, "conv3d channels last": conv3d_channels_last}
