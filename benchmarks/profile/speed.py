"""Time and memory of training: forward, backward and whole steps at the paper's sizes."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from actloc_core.loss import grouped_set_loss
from benchmarks.context import autocast
from benchmarks.experiments import Experiment
from benchmarks.profile.measure import (
    CLASSES,
    experiment,
    forget_peak,
    host_synchronisations,
    median_s,
    model_of,
    peak_gib,
    random_batch,
    training_of,
)
from benchmarks.train.gflops import count_instantly
from benchmarks.train.models import build_model
from benchmarks.train.state import uses_cuda_graphs
from benchmarks.train.step import forward_and_match, train_step

Row = dict[str, Any]


def ceilings(device: torch.device, quick: bool) -> dict[str, Any]:
    """The device's rate on a large matrix product (TFLOP/s) and a copy (GB/s, read and written)."""
    n, dtype = (512, torch.float32) if quick else (8192, torch.bfloat16)
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    seconds = median_s(lambda: a @ b, device)
    source = torch.randn(2**18 if quick else 2**30, device=device)
    target = torch.empty_like(source)
    copied = median_s(lambda: target.copy_(source), device)
    return {
        "matmul_tflops": 2 * n**3 / seconds / 1e12,
        "matmul": f"{n} x {n} x {n} {dtype}".replace("torch.", ""),
        "copy_gb_s": 2 * source.nbytes / copied / 1e9,
    }


SETTINGS: tuple[tuple[str, dict[str, object]], ...] = (
    ("MViTv2-S 256", {"batch": 2}),
    ("MViTv2-S 256", {"batch": 8}),
    ("MViTv2-S 256", {"batch": 16}),
    ("MViTv2-S 256, last pool", {"batch": 2, "last_pool": True}),
    ("MViTv2-S 256, last pool", {"batch": 16, "last_pool": True}),
    ("MViTv2-S 224", {"batch": 2, "crop": 224}),
    ("MViTv2-S 224", {"batch": 16, "crop": 224}),
    ("MViTv2-S 224, last pool", {"batch": 2, "crop": 224, "last_pool": True}),
    ("MViTv2-S 224, last pool", {"batch": 16, "crop": 224, "last_pool": True}),
    ("DETR on MViTv2-S 256", {"batch": 2, "method": "detr", "dim": 256}),
    ("DETR on MViTv2-S 256", {"batch": 16, "method": "detr", "dim": 256}),
    ("Hiera-L 256", {"batch": 2, "backbone": "hiera_l"}),
    ("Hiera-L 256", {"batch": 16, "backbone": "hiera_l"}),
    ("MViTv2-S 256, checkpointing", {"batch": 16, "checkpointing": True}),
)
"""Batch 2 is one GPU's part where eight share the paper's 16; 16 is the whole on one GPU."""
QUICK = (0, 9, 11, 13)


def speed(device: torch.device, quick: bool) -> list[Row]:
    """Forward, forward and backward, and whole steps of each setting; a setting that fails says why."""
    chosen = [SETTINGS[i] for i in QUICK] if quick else SETTINGS
    return [_tried(name, fields, device, quick) for name, fields in chosen]


def eager(device: torch.device, quick: bool) -> list[Row]:
    """The same without CUDA graphs, as PyTorch runs by default."""
    batches = (2,) if quick else (2, 16)
    return [_tried("MViTv2-S 256, no graphs", {"batch": b}, device, quick, graphs=False) for b in batches]


def compiled(device: torch.device, quick: bool) -> list[Row]:
    """The same under torch.compile and in CUDA graphs; the first step takes minutes."""
    fields: dict[str, object] = {"batch": 2 if quick else 16, "compile": True}
    return [_tried("MViTv2-S 256, compile", fields, device, quick)]


def plain(device: torch.device, quick: bool) -> list[Row]:
    """Forward and backward of the backbone alone: ours and the straightforward MViT of the tests."""
    from tests.actloc_core.plain_mvit import plain_forward

    rows = []
    for batch in (2,) if quick else (2, 8):
        exp = experiment(quick, batch=batch, drop_path=0.0)
        backbone = model_of(exp, device).get_submodule("backbone")
        clips = random_batch(exp, device).groups[0].inputs(device)
        row: Row = {"batch": batch}
        for name, forward in (("ours", backbone), ("plain", partial(plain_forward, backbone))):
            step = partial(_forward_and_backward, forward, clips, exp)
            forget_peak(device)
            row[f"{name} ms_clip"] = 1e3 * median_s(step, device, times=3) / batch
            row[f"{name} peak_gib"] = peak_gib(device)
        rows.append(row | {"ratio": row["plain ms_clip"] / row["ours ms_clip"]})
    return rows


def _forward_and_backward(forward: Callable[[Tensor], Tensor], clips: Tensor, exp: Experiment) -> None:
    with autocast(clips.device, exp.bf16):
        out = forward(clips)
    out.float().mean().backward()


def one(
    name: str, fields: dict[str, object], device: torch.device, quick: bool, *, graphs: bool = True
) -> Row:
    """One setting: ms a clip of forward, forward and backward, step; memory, synchronisations."""
    exp = experiment(quick, **fields)
    forget_peak(device)
    clock = time.perf_counter()
    state = training_of(exp, device)
    if not graphs:
        state.forward = state.model
    batch = random_batch(exp, device)

    def forward() -> None:
        with torch.no_grad(), autocast(device, exp.bf16):
            state.model(batch.groups[0].inputs(device))

    def backward() -> None:
        matched = forward_and_match(state, batch.groups[0], exp, device)
        grouped_set_loss([matched])["loss"].backward()

    def step() -> None:
        train_step(state, batch, exp, device)

    step()
    first = time.perf_counter() - clock
    seconds = {what.__name__: median_s(what, device, times=3) for what in (backward, step)}
    peak = peak_gib(device)
    state.model.eval()
    seconds["forward"] = median_s(forward, device, times=3)
    state.model.train()
    return {
        "model": name,
        "crop": exp.crop,
        "last_pool": exp.last_pool,
        "batch": exp.batch,
        "graphs": graphs and uses_cuda_graphs(exp, device),
        "gmac": gmac(exp),
        "first_step_s": first,
        **{f"{what}_ms_clip": 1e3 * seconds[what] / exp.batch for what in ("forward", "backward", "step")},
        "clips_s": exp.batch / seconds["step"],
        "peak_gib": peak,
        "synchronisations": host_synchronisations(step, device),
    }


def graphs(device: torch.device, quick: bool) -> dict[str, Any]:
    """The losses of the same three steps with CUDA graphs and without; they agree to bfloat16's rounding."""
    exp = experiment(quick, batch=2, drop_path=0.0)
    losses = {}
    for name in ("graphs", "eager"):
        state = training_of(exp, device)
        if name == "eager":
            state.forward = state.model
        batch = random_batch(exp, device)
        losses[name] = [float(train_step(state, batch, exp, device)["loss"]) for _ in range(3)]
    return losses


def gmac(exp: Experiment) -> float:
    """Multiply-accumulates of a clip's forward pass, in 1e9."""
    with torch.device("meta"):
        model = build_model(exp, CLASSES)
        return count_instantly(model, torch.empty(1, 3, exp.frames, exp.crop, exp.crop))


def _tried(
    name: str, fields: dict[str, object], device: torch.device, quick: bool, *, graphs: bool = True
) -> Row:
    try:
        return one(name, fields, device, quick, graphs=graphs)
    except (RuntimeError, FloatingPointError) as error:  # out of memory is a RuntimeError
        return {"error": f"{name}, batch {fields['batch']}: {type(error).__name__}: {error}"[:300]}
