"""What a trained single-stage model looks at in a clip: the paper's Figs. 3 and 5, of any checkpoint.

`look` computes, `figure` draws. The attention is that of the backbone's last block, computed anew from its
queries and keys, which are the only ones that are kept while the clip runs through.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from torch import Tensor
from torch.overrides import TorchFunctionMode

from actloc_core.backbones.hiera import Hiera, from_units
from actloc_core.boxes import cxcywh_to_xyxy
from actloc_core.model import ActionLocalizer
from actloc_core.pixels import normalise
from actloc_core.structures import Targets


@dataclass(frozen=True)
class Look:
    """One clip as a model sees it. Candidates l run over frames, rows and columns of the token grid."""

    p_actor: NDArray[np.float64]
    """(g, h, w): p(alpha) of each candidate, of the g output frames that candidates come from."""
    frames: tuple[int, ...]
    """Of those g: their numbers among the t output frames."""
    boxes: NDArray[np.float64]
    """(L, 4) xyxy in [0, 1]."""
    scores: NDArray[np.float64]
    """(L, C) the sigmoid of each action's logit."""
    attention: NDArray[np.float64]
    """(L, t, h', w'): how much each candidate's own token attends to each of the clip's, mean over heads."""


class _LastAttention(TorchFunctionMode):
    """Keeps queries and keys of the last attention that is computed inside."""

    def __init__(self) -> None:
        super().__init__()
        self.q: Tensor | None = None
        self.k: Tensor | None = None
        self.scale: float | None = None

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is F.scaled_dot_product_attention:
            self.q, self.k, self.scale = args[0], args[1], (kwargs or {}).get("scale")
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def look(model: ActionLocalizer, clip: Tensor) -> Look:
    """clip (3, T, H, W) in [0, 1], as a split's items are."""
    was_training = model.training
    model.eval()
    given = normalise(clip)[None]
    with _LastAttention() as last:
        t, h, w = model.backbone(given).shape[1:4]
    assert last.q is not None
    assert last.k is not None
    scale = last.scale if last.scale is not None else last.q.shape[-1] ** -0.5
    weights = (last.q[0] @ last.k[0].transpose(-1, -2) * scale).softmax(-1).mean(0)  # (n, n')
    if (more := len(weights) - t * h * w) > 0:  # the class token, first of both
        weights = weights[more:, more:]
    if isinstance(model.backbone, Hiera):  # its tokens are sorted by mask units
        order = _raster(model.backbone, clip, len(weights))
        weights = weights[order][:, order]
    shrunk = round(math.sqrt(t * h * w / weights.shape[1]))
    attention = weights.reshape(t, h, w, t, h // shrunk, w // shrunk)
    predictions = model(given)
    model.train(was_training)
    groups = predictions.actor_logits.shape[1] // (h * w)
    frames = {1: (t // 2,), 2: (t // 2 - 1, t // 2)}.get(groups, tuple(range(t)))
    return Look(
        p_actor=predictions.p_actor[0].reshape(groups, h, w).double().numpy(),
        frames=frames,
        boxes=cxcywh_to_xyxy(predictions.boxes[0]).clamp(0, 1).double().numpy(),
        scores=predictions.action_logits[0].sigmoid().double().numpy(),
        attention=attention[list(frames)].flatten(0, 2).double().numpy(),
    )


def _raster(backbone: Hiera, clip: Tensor, tokens: int) -> Tensor:
    """(n,) where each token of the raster stands among those in the order of mask units."""
    _, t, h, w = clip.shape
    units = (t // 2, h // 4 // backbone.unit, w // 4 // backbone.unit)
    count = units[0] * units[1] * units[2]
    numbered = torch.arange(tokens, dtype=torch.float64).view(1, count, tokens // count, 1)
    return from_units(numbered, units).flatten().long()


def figure(
    seen: Look,
    frames: NDArray[np.uint8],
    truth: Targets,
    names: Sequence[str],
    *,
    title: str,
    theta: float = 0.2,
    tokens: int = 3,
) -> Figure:
    """Above: p(alpha) over the keyframe, and all boxes, those above theta highlighted. Below: a row for each
    of the `tokens` surest candidates above theta, the attention of its token over the whole clip.

    frames (T, H, W, 3): the clip as stored. truth: boxes in dashes, their actions in the caption. names: of
    the C actions.
    """
    p = seen.p_actor.ravel()
    found = [candidate for candidate in np.argsort(-p, kind="stable") if p[candidate] > theta]
    surest = found[:tokens]
    times = seen.attention.shape[1]
    step = len(frames) // times
    made = Figure(figsize=(11, 3.4 + 1.35 * len(surest)), layout="constrained")
    grid = made.add_gridspec(1 + len(surest), times, height_ratios=[2.6] + [1] * len(surest))
    third = max(times // 3, 1)
    keyframe = frames[len(frames) // 2]
    places = (grid[0, :third], grid[0, third : 2 * third], grid[0, 2 * third :])
    heat, boxes, words = (made.add_subplot(place) for place in places)
    _over(heat, keyframe, seen.p_actor.max(0), 1.0)
    heat.set_title("p(alpha)", fontsize=9)
    _over(boxes, keyframe, None, 1.0)
    boxes.set_title(f"boxes, p(alpha) > {theta:g} highlighted", fontsize=9)
    for box, sure in zip(seen.boxes, p > theta, strict=True):
        if not sure:
            _outline(boxes, box, color="white", linewidth=0.4, alpha=0.35)
    for box in cxcywh_to_xyxy(truth.boxes).numpy():
        _outline(boxes, box, color="white", linestyle="--", linewidth=1.2)
    lines = []
    for number, candidate in enumerate(found, 1):
        box = seen.boxes[candidate]
        _outline(boxes, box, color="gold", linewidth=1.6)
        boxes.text(box[0], box[1], str(number), color="gold", fontsize=8, va="bottom")
        best = np.argsort(-seen.scores[candidate], kind="stable")[:2]
        said = ", ".join(f"{names[i]} {seen.scores[candidate, i]:.2f}" for i in best)
        if number <= 12:
            lines.append(f"{number}: {p[candidate]:.2f}  {said}")
    does = ["; ".join(names[i] for i in torch.nonzero(row)[:, 0]) for row in truth.labels]
    words.set_axis_off()
    said_all = ["found, p(alpha) and actions:", *(lines or ["nobody"]), "", "true:", *(does or ["nobody"])]
    words.text(0, 1, "\n".join(said_all), fontsize=7, va="top", transform=words.transAxes)
    for row, candidate in enumerate(surest, 1):
        weights = seen.attention[candidate]
        for time in range(times):
            axis = made.add_subplot(grid[row, time])
            _over(axis, frames[time * step], weights[time], float(weights.max()))
            axis.set_title(f"box {row}, frame {time * step}" if time == 0 else str(time * step), fontsize=7)
    made.suptitle(title, fontsize=10)
    return made


def _over(axis: Axes, frame: NDArray[np.uint8], heat: NDArray[np.float64] | None, most: float) -> None:
    """A frame, in grey below a heat map (h, w) where there is one."""
    height, width = frame.shape[:2]
    shown = frame if heat is None else frame.mean(-1)
    axis.imshow(shown, cmap="gray", extent=(0, 1, 1, 0), aspect=height / width, vmin=0, vmax=255)
    if heat is not None:
        axis.imshow(
            heat, cmap="inferno", extent=(0, 1, 1, 0), aspect=height / width, vmin=0, vmax=most, alpha=0.6
        )
    axis.set_axis_off()


def _outline(axis: Axes, box: NDArray[np.float64], **style: Any) -> None:
    x1, y1, x2, y2 = box
    axis.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, **style))
