"""GFLOPs and parameters of the models of experiments and of published classifiers.

"GFLOPs" are multiply-accumulates in units of 1e9, fvcore's convention and the papers', with a layer
norm counted as 5 per element. The number of record is fvcore's, with handles for all that these
models use: an operation without one is an error, not a silent zero. The instant count shares no
code with it and must agree.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from actloc_core import backbones
from actloc_core.pixels import size_for
from actloc_core.structures import Backbone, backbone_of
from actloc_core.two_stage import GivenBoxes
from benchmarks import experiments
from benchmarks.experiments import Experiment
from benchmarks.train.models import build_model

ACTIONS = 80
"""Outputs of the detectors' action head: AVA's actions."""
PEOPLE = 10
"""Boxes given to the two-stage baseline, whose head runs once for each: 0.0007 GFLOPs of a box."""
ASPECT = (3, 4)
"""Height to width of the clips that rows with the aspect kept are counted at; AVA's movies vary."""


class Classifier(nn.Module):
    """A backbone as it was pre-trained: a linear layer to the 400 Kinetics classes behind it."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(backbone.out_dim, 400)

    def forward(self, clip: Tensor) -> Tensor:
        """(B, 3, T, H, W) -> (B, classes)."""
        return self.head(self.backbone(clip).flatten(1, 3)[:, 0])  # one token goes to the head


@dataclass(frozen=True)
class Row:
    """A Kinetics classifier to count. `paper` is what the paper prints of it, in GFLOPs."""

    backbone: str
    crop: int
    last_pool: bool = True
    frames: int = 16
    paper: float | None = None
    tubelet: int | None = None
    """Frames of a token, where the backbone leaves it open."""


ROWS: dict[str, Row] = {
    "mvitv2_s_k400_224": Row("mvitv2_s", 224, paper=65),
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
    "vit_b_umt_224": Row("vit_b", 224, last_pool=False, frames=8, paper=180, tubelet=1),
    "vit_l_umt_224": Row("vit_l", 224, last_pool=False, frames=8, paper=596, tubelet=1),
}
"""Backbones with their classifiers, as published methods are initialised from them."""

PAPER = {
    "table2a_two_stage": 64.0,
    "table2a_224_7": 65.0,
    "table2a_224_14": 87.9,
    "table2a_256_8": 90.7,
    "table2a_256_16": 121.2,
    "table3_hiera_l": 650.0,
}
"""What the paper prints of rows of its tables, without a person detector."""


def detectors() -> dict[str, Experiment]:
    """The models of the tables' rows at the paper's size, one for each that counts differently.

    The row "2a/256_16" is called table2a_256_16 here.
    """
    seen: dict[str, Experiment] = {}
    for name, exp in experiments.ROWS.items():
        if not any(_counted_as(exp) == _counted_as(other) for other in seen.values()):
            table, row = name.split("/")
            seen[f"table{table}_{row}" if table[0].isdigit() else f"{table}_{row}"] = exp
    return seen


def _counted_as(exp: Experiment) -> Experiment:
    """The experiment with every field that does not change its count as in OURS: equal ones count alike."""
    return replace(
        experiments.OURS, **{name: value for name, value in asdict(exp).items() if name in COUNTED}
    )


COUNTED = (
    "method", "backbone", "frames", "crop", "short_sides", "last_pool", "selection", "dim", "frame_embedding",
    "queries", "encoder_layers", "decoder_layers",
)  # fmt: skip
"""Fields of an experiment that decide its model's GFLOPs and parameters."""


@dataclass(frozen=True)
class Count:
    """Multiply-accumulates in 1e9, in all and of each part (the model's children), and parameters.

    An instant count has one part, the backbone.
    """

    gflops: float
    parts: dict[str, float]
    params: int

    @property
    def after_backbone(self) -> float:
        """GFLOPs of all but the backbone."""
        return self.gflops - self.parts["backbone"]


def build(row: Row | Experiment, classes: int = ACTIONS) -> nn.Module:
    """The row's model on the default device, in evaluation mode."""
    if isinstance(row, Experiment):
        return build_model(row, classes).eval()
    more = {} if row.tubelet is None else {"tubelet": row.tubelet}
    backbone = getattr(backbones, row.backbone)(
        frames=row.frames, crop=row.crop, last_pool=row.last_pool, drop_path=0.0, **more
    )
    return Classifier(backbone).eval()


def inputs(row: Row | Experiment, model: nn.Module) -> tuple[Any, ...]:
    """The inputs of the row's model, on the default device: one clip, and boxes where it takes them."""
    height = width = row.crop
    if isinstance(row, Experiment) and row.short_sides is not None:
        height, width = size_for(*ASPECT, short_side=row.crop, multiple=backbone_of(model).side_multiple)
    clip = torch.zeros(1, 3, row.frames, height, width)
    if isinstance(row, Experiment) and row.method == "two_stage":
        return clip, [GivenBoxes(torch.full((PEOPLE, 4), 0.5), torch.ones(PEOPLE))]
    return (clip,)


def count(model: nn.Module, *given: Any) -> Count:
    """fvcore's count on a real input, a clip (B, 3, T, H, W) first. ValueError names uncounted operations."""
    from fvcore.nn import FlopCountAnalysis  # slow to import, and noisy

    analysis = FlopCountAnalysis(model, given)
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
        "avg_pool2d",
        "pad_sequence",
        "pad",
        "repeat",
        "movedim",
        "unflatten",
        "logit",
        "meshgrid",
        "eye",
        "fill_",
        "cartesian_prod",  # of the places of tokens, which are constants: their sines and cosines, too
        "linspace",
        "sin",
        "cos",
        "flip",
        "numpy_T",
        "upsample_linear1d",  # of tables of positions, for clips of another size
        "upsample_bicubic2d",
        "pow",  # of a constant: the scale of k
        "reciprocal",  # of the rows and columns of a grid: the default boxes
    )
)
"""Operations without a rule in fvcore that every paper counts as 0: additions, activations, copies."""


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


def count_instantly(model: nn.Module, *given: Any) -> float:
    """The same, in 1e9, for a model and its input on the meta device: no arithmetic is done."""
    with torch.no_grad(), _Macs() as macs:
        model(*given)
    return macs.total / 1e9


SHAPES: dict[str, Callable[..., Tensor | None]] = {
    "layer_norm": lambda x, shape, *_, **__: (
        torch.empty_like(x) if x.shape[-len(shape) :] == tuple(shape) else None
    ),
    "gelu": lambda x, *_, **__: torch.empty_like(x),
    "linear": lambda x, weight, bias=None: (
        x.new_empty(*x.shape[:-1], len(weight)) if x.shape[-1] == weight.shape[-1] else None
    ),
    "scaled_dot_product_attention": lambda q, k, v, *_, **__: (
        q.new_empty(*q.shape[:-1], v.shape[-1])
        if q.shape[-1] == k.shape[-1] and k.shape[-2] == v.shape[-2]
        else None
    ),
}
"""The outputs of the most frequent functions on the meta device: a tensor of the right shape, or None where
the inputs do not fit, and torch then raises its own error."""


class _Macs(TorchFunctionMode):
    """Adds up the multiply-accumulates of the torch functions that are called inside."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0
        self.before_padding: dict[int, tuple[Tensor, int]] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        # On the meta device torch finds these shapes by rules in Python, which took most of the time.
        out: Any = SHAPES[name](*args, **(kwargs or {})) if name in SHAPES else None
        if out is None:
            out = func(*args, **(kwargs or {}))
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
        elif name == "grid_sample":
            self.total += 4 * out.numel()  # four neighbours of each bilinear sample
        elif name == "layer_norm":
            self.total += 5 * out.numel()
        return out


def parameters(model: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(p.numel() for p in model.parameters())


def count_row(row: Row | Experiment, *, instant: bool, classes: int = ACTIONS) -> Count:
    """GFLOPs and parameters of a row's model; each model is counted once."""
    return _count_once(_counted_as(row) if isinstance(row, Experiment) else row, instant, classes)


@cache
def _count_once(row: Row | Experiment, instant: bool, classes: int) -> Count:
    if not instant:
        model = build(row, classes)
        return count(model, *inputs(row, model))
    with torch.device("meta"):
        model = build(row, classes)
        given = inputs(row, model)
        with torch.no_grad(), _Macs() as macs:
            # In one pass: what is counted when the backbone ends is the backbone's, which runs first.
            reached: list[int] = []
            model.get_submodule("backbone").register_forward_hook(lambda *_: reached.append(macs.total))
            model(*given)
        return Count(macs.total / 1e9, {"backbone": reached[0] / 1e9}, parameters(model))


def count_experiment(exp: Experiment, classes: int = ACTIONS) -> Count:
    """GFLOPs and parameters of an experiment's own model, by the instant count, in about a second."""
    return count_row(exp, instant=True, classes=classes)
