"""`python -m benchmarks.flops`: GFLOPs and parameters of every model that the paper's tables name.

    python -m benchmarks.flops                              all rows, about two minutes on two cores
    python -m benchmarks.flops --backbone mvitv2_s vit_b    the rows of these backbones
    python -m benchmarks.flops --instant                    the meta-device count, seconds
    python -m benchmarks.flops --json FILE                  also as a list of objects

"GFLOPs" are multiply-accumulates in units of 1e9, fvcore's convention and the papers', with a layer
norm counted as 5 per element. The number of record is fvcore's, with handles for all that these
models use: an operation without one is an error, not a silent zero. The instant count shares no
code with it and must agree.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from actloc_core import backbones
from actloc_core.model import ActionLocalizer
from actloc_core.structures import Backbone
from benchmarks.run import save

CLIP = (1, 3, 16)  # batch, colours, frames of the paper's clips
ACTIONS = 80
"""Outputs of the detector's action head: AVA's actions."""


class Classifier(nn.Module):
    """A backbone as it was pre-trained: a linear layer to the 400 Kinetics classes behind it."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(backbone.out_dim, 400)

    def forward(self, clip: Tensor) -> Tensor:
        return self.head(self.backbone(clip).flatten(1, 3)[:, 0])  # one token goes to the head


@dataclass(frozen=True)
class Row:
    """One model to count. `paper` is what the paper prints, in GFLOPs without a person detector."""

    backbone: str
    crop: int
    last_pool: bool = True
    frames: int = 16
    detector: bool = False
    """The paper's detector with 2(C+T), and not the Kinetics classifier."""
    paper: float | None = None


ROWS: dict[str, Row] = {
    "mvitv2_s_k400_224": Row("mvitv2_s", 224, paper=65),
    "table2a_224_7": Row("mvitv2_s", 224, detector=True, paper=65),
    "table2a_224_14": Row("mvitv2_s", 224, last_pool=False, detector=True, paper=87.9),
    "table2a_256_8": Row("mvitv2_s", 256, detector=True, paper=90.7),
    "table2a_256_16": Row("mvitv2_s", 256, last_pool=False, detector=True, paper=121.2),
    "mvitv2_b_32x3_224": Row("mvitv2_b", 224, frames=32, paper=225),
    "mvitv1_b_16x4_224": Row("mvitv1_b", 224),
    "mvitv1_b_64x3_224": Row("mvitv1_b", 224, frames=64, paper=455),
    "hiera_t_224": Row("hiera_t", 224),
    "hiera_s_224": Row("hiera_s", 224),
    "hiera_b_224": Row("hiera_b", 224),
    "hiera_bplus_224": Row("hiera_bplus", 224),
    "hiera_l_224": Row("hiera_l", 224, paper=413),
    "hiera_h_224": Row("hiera_h", 224),
    "hiera_l_256": Row("hiera_l", 256),
    "hiera_l_256_no_last_pool": Row("hiera_l", 256, last_pool=False, paper=650),
    "vit_b_224": Row("vit_b", 224, last_pool=False, paper=180),
    "vit_l_224": Row("vit_l", 224, last_pool=False, paper=597),
}


@dataclass(frozen=True)
class Count:
    """Multiply-accumulates in 1e9, in all and of each part (the model's children), and parameters."""

    gflops: float
    parts: dict[str, float]
    params: int


def build(row: Row) -> nn.Module:
    """The row's model on the default device, in evaluation mode."""
    backbone = getattr(backbones, row.backbone)(
        frames=row.frames, crop=row.crop, last_pool=row.last_pool, drop_path=0.0
    )
    if row.detector:
        return ActionLocalizer(backbone, selection="two_c_t", num_classes=ACTIONS).eval()
    return Classifier(backbone).eval()


def count(model: nn.Module, clip: Tensor) -> Count:
    """fvcore's count on a real clip, (B, 3, T, H, W). Raises ValueError naming uncounted operations."""
    from fvcore.nn import FlopCountAnalysis  # slow to import, and noisy

    analysis = FlopCountAnalysis(model, clip)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
    analysis.set_op_handle("aten::scaled_dot_product_attention", attention_macs)
    with torch.no_grad():
        total = analysis.total()
    unknown = set(analysis.unsupported_ops()) - FREE
    if unknown:
        raise ValueError(f"no rule counts {', '.join(sorted(unknown))}: add a handle, or list it in FREE")
    by_module = analysis.by_module()
    parts = {name: by_module[name] / 1e9 for name, _ in model.named_children()}
    return Count(total / 1e9, parts, parameters(model))


FREE = frozenset(
    f"aten::{name}"
    for name in (
        "add",
        "add_",
        "sub",
        "mul",
        "div",
        "addcmul",
        "gelu",
        "sigmoid",
        "softmax",
        "mean",
        "amax",
        "max_pool2d",
        "pad",
        "repeat",
        "movedim",
        "unflatten",
        "logit",
        "meshgrid",
        "eye",
        "fill_",
        "pow",  # of a constant: the scale of k
    )
)
"""What fvcore has no rule for and every paper counts as nothing: additions, activations, copies."""


def attention_macs(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    """q k^T and the weights times v, both at the attention's own width.

    MViT folds its position bias into longer q and k and pads v to their width with zeros. What that
    adds is the addition of the bias, which is counted as nothing wherever it is written out; so
    the width is that of v before its padding.
    """
    value = inputs[2]
    if value.node().kind() in ("aten::pad", "aten::constant_pad_nd"):
        value = value.node().inputsAt(0)
    *batch, queries, _ = inputs[0].type().sizes()
    keys, width = value.type().sizes()[-2:]
    return Counter({"attention": 2 * math.prod(batch) * queries * keys * width})


def count_instantly(model: nn.Module, clip: Tensor) -> float:
    """The same, in 1e9, for a model and a clip on the meta device: no arithmetic is done."""
    with torch.no_grad(), _Macs() as macs:
        model(clip)
    return macs.total / 1e9


class _Macs(TorchFunctionMode):
    """Adds up the multiply-accumulates of the torch functions that are called inside."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0
        self.before_padding: dict[int, tuple[Tensor, int]] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        if name == "pad":  # the padded tensor is kept, so that its id stays its own
            self.before_padding[id(out)] = (out, args[0].shape[-1])
        elif name == "linear":
            self.total += out.numel() * args[1].shape[-1]
        elif name in ("conv2d", "conv3d"):
            self.total += out.numel() * args[1][0].numel()
        elif name == "einsum":
            equation, left, right = args
            sizes = dict(zip(equation.split(",")[0], left.shape, strict=True))
            sizes |= dict(zip(equation.split(",")[1].split("->")[0], right.shape, strict=True))
            self.total += math.prod(sizes.values())
        elif name in ("matmul", "bmm", "__matmul__"):
            self.total += out.numel() * args[0].shape[-1]
        elif name == "scaled_dot_product_attention":
            q, k, v = args[:3]
            width = self.before_padding.get(id(v), (v, v.shape[-1]))[1]
            self.total += 2 * q.shape[:-1].numel() * k.shape[-2] * width
        elif name == "layer_norm":
            self.total += 5 * out.numel()
        return out


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def count_row(row: Row, *, instant: bool) -> Count:
    shape = (1, 3, row.frames, row.crop, row.crop)
    if instant:
        with torch.device("meta"):
            model = build(row)
            return Count(count_instantly(model, torch.empty(shape)), {}, parameters(model))
    return count(build(row), torch.zeros(shape))


def main(argv: list[str] | None = None) -> int:
    summary, _, more = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.flops",
        description=summary,
        epilog=more,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    known = sorted({row.backbone for row in ROWS.values()})
    parser.add_argument("--backbone", nargs="+", choices=known, metavar="NAME", help=", ".join(known))
    parser.add_argument("--instant", action="store_true", help="count on the meta device, without parts")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the counts there too")
    args = parser.parse_args(argv)
    chosen = {n: r for n, r in ROWS.items() if not args.backbone or r.backbone in args.backbone}
    print(f"{'model':26}{'GFLOPs':>10}{'paper':>8}{'diff':>8}{'params M':>10}   parts", flush=True)
    found = []
    for name, row in chosen.items():
        counted = count_row(row, instant=args.instant)
        paper = "" if row.paper is None else f"{row.paper:g}"
        difference = "" if row.paper is None else f"{counted.gflops / row.paper - 1:+.1%}"
        parts = ", ".join(f"{part} {gflops:.3f}" for part, gflops in counted.parts.items())
        print(
            f"{name:26}{counted.gflops:10.3f}{paper:>8}{difference:>8}{counted.params / 1e6:10.2f}   {parts}",
            flush=True,
        )
        found.append(
            {"name": name, "gflops": counted.gflops, "params": counted.params, "paper_gflops": row.paper}
            | ({"parts": counted.parts} if counted.parts else {})
        )
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        save(args.json, lambda part: part.write_text(json.dumps(found, indent=1) + "\n"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
