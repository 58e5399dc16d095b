"""The contract of every backbone and method, checked one promise at a time.

`subjects` lists them: each function of `actloc_core.backbones`, and each method and selection on a small
backbone. `broken` checks all promises of one and returns those it breaks, and how.
"""

from __future__ import annotations

import inspect
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from actloc_core import backbones, selection
from actloc_core.structures import Backbone, Predictions
from actloc_core.two_stage import GivenBoxes
from benchmarks.experiments import OURS, Experiment, at_scale
from benchmarks.train.models import build_model

REAL = 100_000_000
"""Parameters up to which promises about numbers are checked, on small clips; larger models of the
same classes are checked without arithmetic."""
SMALL = 5_000_000
"""Parameters up to which a model is small: made for clips of 64, trained, and timed."""
CLASSES = 10


@dataclass(frozen=True)
class Subject:
    """A model that is held to the contract."""

    name: str
    make: Callable[..., nn.Module]
    """With frames= and crop=, a backbone or a localizer."""
    small: bool
    trained: bool
    """Whether it has an mAP: a small backbone."""

    @property
    def crop(self) -> int:
        """The side it is made for."""
        return 64 if self.small else 256


def subjects() -> dict[str, Subject]:
    """Name -> subject: "backbone/NAME" and "method/NAME"."""
    known = {}
    for name, make in inspect.getmembers(backbones, inspect.isfunction):
        with torch.device("meta"):
            small = sum(p.numel() for p in make().parameters()) <= SMALL
        plain = partial(make, drop_path=0.0)
        known[f"backbone/{name}"] = Subject(f"backbone/{name}", plain, small, small)
    methods = {f"method/{name}": {"selection": name} for name in selections()}
    methods["method/two_stage"] = {"method": "two_stage"}
    methods["method/classification"] = {"method": "classification"}
    methods["method/detr"] = {"method": "detr", "queries": "16"}
    for name, fields in methods.items():
        known[name] = Subject(name, partial(_localizer, fields), True, False)
    return known


def selections() -> list[str]:
    """Every selection: the functions of its module that return two tensors."""
    public = inspect.getmembers(selection, inspect.isfunction)
    return [name for name, function in public if "tuple" in str(function.__annotations__["return"])]


def _localizer(fields: Mapping[str, str], *, frames: int, crop: int) -> nn.Module:
    exp: Experiment = replace(at_scale(OURS, "tiny"), frames=frames, crop=crop)
    typed: dict[str, Any] = {k: int(v) if v.isdigit() else v for k, v in fields.items()}
    return build_model(replace(exp, **typed), CLASSES)


def promises(subject: Subject) -> dict[str, Callable[[Subject], None]]:
    """Promise -> its check, which raises where the subject breaks it."""
    checks: dict[str, Callable[[Subject], None]] = {"shapes at 224, 256, other aspects and lengths": shapes}
    with torch.device("meta"):
        size = sum(p.numel() for p in subject.make(frames=16, crop=subject.crop).parameters())
    if size > REAL:
        return checks
    checks |= {
        "a batch of one is a batch of many": batch_of_one,
        "gradients reach every parameter": gradients,
        "the same seed, the same numbers": deterministic,
        "torch.compile takes it whole": compiles,
        "a checkpoint brings it back": round_trip,
    }
    if subject.name != "method/two_stage":  # cuts its boxes out in float32 whatever the rest computes in
        checks["float64 in, float64 out"] = in_float64
    if subject.name.startswith("backbone/"):
        checks["checkpointing changes no gradient"] = checkpointing
    return checks


def broken(subject: Subject) -> dict[str, str]:
    """Check all promises; -> broken promise -> how."""
    failures = {}
    for promise, check in promises(subject).items():
        try:
            check(subject)
        except Exception as error:  # whatever it raises, the promise is broken
            lines = str(error).strip().splitlines()
            failures[promise] = f"{type(error).__name__}: {lines[0] if lines else ''}"
    return failures


def _expect(condition: bool, otherwise: str) -> None:
    if not condition:
        raise AssertionError(otherwise)


def _built(subject: Subject, frames: int = 8, *, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return subject.make(frames=frames, crop=64).eval()


def _clip(batch: int = 2, *, seed: int = 1, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(batch, 3, 8, 64, 64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def _run(model: nn.Module, clip: Tensor) -> list[Tensor]:
    """All output tensors of a localizer, which is given two boxes a clip, or of a backbone."""
    if isinstance(getattr(model, "_orig_mod", model), Backbone):  # torch.compile wraps it
        return [model(clip)]
    boxes = clip.new_tensor([[0.5, 0.5, 0.4, 0.6], [0.3, 0.4, 0.2, 0.2]])
    out = model(clip, [GivenBoxes(boxes, boxes.new_ones(2))] * len(clip))
    return [out.boxes, out.actor_logits, out.action_logits] if isinstance(out, Predictions) else [out]


def shapes(subject: Subject) -> None:
    """Made for 16 frames, runs 8, 16 and 32, other squares and what is none, without arithmetic.

    AssertionError: the clip that does not.
    """
    # What every size is a multiple of: a paper-sized backbone's 7 and 8 are 224 and 256.
    side, less, more = (16, 3, 5) if subject.small else (32, 7, 10)
    with torch.device("meta"):
        model = subject.make(frames=16, crop=subject.crop)
        own = subject.crop // side
        sizes = [
            (16, own, own),
            (16, less, less),
            (8, own, own),
            (32, less, less),
            (16, less, own),
            (16, own, more),
        ]
        for frames, rows, columns in sizes:
            clip = torch.empty(2, 3, frames, rows * side, columns * side)
            where = f"{frames}x{rows * side}x{columns * side}"
            if frames != 16 and getattr(model, "frame_embedding", None) is not None:
                continue
            try:
                outs = _run(model, clip)
            except Exception as error:
                raise AssertionError(f"{where}: {error}") from error
            if isinstance(model, Backbone):
                [out] = outs
                _expect(out.dim() == 5, f"{where}: {out.dim()} dimensions, not (B, t, h, w, D)")
                _expect(out.shape[-1] == model.out_dim, f"{where}: {out.shape[-1]} channels, not out_dim")
                t, h, w = out.shape[1:4]
                _expect(h * columns == w * rows, f"{where}: {h}x{w} tokens of another aspect")
                _expect(frames % t == 0, f"{where}: {t} token frames of {frames}")
            else:
                candidates = outs[1].shape[1]
                expected = [(2, candidates, 4), (2, candidates, 2), (2, candidates, CLASSES)]
                _expect(
                    [tuple(o.shape) for o in outs] == expected, f"{where}: {[tuple(o.shape) for o in outs]}"
                )
            _expect(all(o.dtype == torch.float32 for o in outs), f"{where}: not float32")


def batch_of_one(subject: Subject) -> None:
    """A clip's outputs do not depend on what is beside it in the batch."""
    model, clips = _built(subject), _clip(3)
    with torch.no_grad():
        many = _run(model, clips)
        for i in range(3):
            for out, one in zip(many, _run(model, clips[i : i + 1]), strict=True):
                off = float((out[i] - one[0]).abs().max())
                _expect(off < 1e-4, f"clip {i} alone is off by {off:.2g}")


def gradients(subject: Subject) -> None:
    """Every parameter gets a gradient, finite and not zero everywhere."""
    model = _built(subject).train()
    outs = _run(model, _clip())
    pull = torch.Generator().manual_seed(2)
    sum((out * torch.randn(out.shape, generator=pull)).sum() for out in outs if out.requires_grad).backward()  # type: ignore[union-attr]
    for name, parameter in model.named_parameters():
        _expect(parameter.grad is not None, f"none for {name}")
        assert parameter.grad is not None
        _expect(bool(parameter.grad.isfinite().all()), f"{name}: not finite")
        _expect(bool(parameter.grad.any()), f"{name}: all zero")


def deterministic(subject: Subject) -> None:
    """A seed decides weights and outputs; another seed gives others."""
    with torch.no_grad():
        one, again = (_run(_built(subject), _clip()) for _ in range(2))
        other = _run(_built(subject, seed=1), _clip())
    _expect(all(torch.equal(a, b) for a, b in zip(one, again, strict=True)), "twice from seed 0 it differs")
    _expect(any(not torch.equal(a, b) for a, b in zip(one, other, strict=True)), "seed 1 is seed 0")


def in_float64(subject: Subject) -> None:
    """It computes in float64, too, and float32 is near it."""
    with torch.no_grad():
        single = _run(_built(subject), _clip())
        double = _run(_built(subject).double(), _clip(dtype=torch.float64))
    for a, b in zip(single, double, strict=True):
        _expect(b.dtype == torch.float64, f"gives {b.dtype}")
        off = float((a - b).abs().max())
        _expect(off < 1e-3, f"float32 is off by {off:.2g}")


def compiles(subject: Subject) -> None:
    """The whole graph is captured; a compiler for it need not be here."""
    model, clip = _built(subject), _clip()
    if subject.name == "method/two_stage":
        model = model.get_submodule("backbone")  # lists of boxes have a length for each batch
    with torch.no_grad():
        compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
        for a, b in zip(_run(model, clip), _run(compiled, clip), strict=True):  # type: ignore[arg-type]
            off = float((a - b).abs().max())
            _expect(off < 1e-4, f"compiled it is off by {off:.2g}")
    torch.compiler.reset()


def round_trip(subject: Subject) -> None:
    """Saved and loaded with `weights_only`, it gives the same outputs."""
    model, file = _built(subject), io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other = _built(subject, seed=1)
    other.load_state_dict(torch.load(file, weights_only=True))
    with torch.no_grad():
        same = all(torch.equal(a, b) for a, b in zip(_run(model, _clip()), _run(other, _clip()), strict=True))
    _expect(same, "with the same weights it gives other numbers")


def checkpointing(subject: Subject) -> None:
    """Activation checkpointing changes neither outputs nor gradients."""
    gradients_of = []
    for on in (False, True):
        model = _built(subject).train()
        assert isinstance(model, Backbone)
        model.checkpointing = on
        out = model(_clip())
        (out * torch.randn(out.shape, generator=torch.Generator().manual_seed(2))).sum().backward()
        gradients_of.append([p.grad for p in model.parameters() if p.grad is not None])
    for a, b in zip(*gradients_of, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
