"""How far a GPU's arithmetic is from float64: tokens and gradients in float32 and bfloat16."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.context import autocast
from benchmarks.profile.measure import experiment, model_of

MODELS: dict[str, dict[str, object]] = {
    "MViTv2-S": {},
    "Hiera-L": {"backbone": "hiera_l"},
    "DETR on MViTv2-S": {"method": "detr", "dim": 256},
}


def accuracy(device: torch.device, quick: bool) -> list[dict[str, Any]]:
    """Relative error |x - x64| / |x64| of the output tokens and of all gradients, for each model.

    The input is small, a clip of 64 x 64, so that float64 takes seconds; TF32 is off. DETR returns no grid of
    tokens: of it "tokens" are all outputs.
    """
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    rows = []
    for name, fields in MODELS.items():
        exp = experiment(quick, **fields, crop=64, drop_path=0.0)
        model = model_of(exp, device)
        part = model if exp.method == "detr" else model.get_submodule("backbone")
        clip = torch.randn(1, 3, exp.frames, 64, 64, generator=torch.Generator().manual_seed(1)).to(device)
        exact = outputs_and_gradients(part.double(), clip.double(), bf16=False)
        part.float()
        row: dict[str, Any] = {"model": name}
        for kind, bf16 in (("float32", False), ("bfloat16", True)):
            computed = outputs_and_gradients(part, clip, bf16=bf16)
            for what, mine, reference in zip(("tokens", "gradients"), computed, exact, strict=True):
                row[f"{kind} {what}"] = float((mine - reference).norm() / reference.norm())
        rows.append(row)
    return rows


def outputs_and_gradients(part: nn.Module, clip: Tensor, *, bf16: bool) -> tuple[Tensor, Tensor]:
    """All outputs (n,) and gradients of all weights (m,) for a fixed random pull on the outputs, float64."""
    part.zero_grad()
    with autocast(clip.device, bf16):
        out = part(clip)
    outputs = [out] if isinstance(out, Tensor) else list(out)
    generator = torch.Generator().manual_seed(2)
    pulls = [torch.randn(x.shape, generator=generator).to(x) for x in outputs]
    torch.autograd.backward(outputs, pulls)
    gradients = [p.grad.double().flatten() for p in part.parameters() if p.grad is not None]
    return torch.cat([x.detach().double().flatten() for x in outputs]), torch.cat(gradients)
