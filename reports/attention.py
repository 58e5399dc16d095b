"""Predictions and attention of a single-stage model on one clip: the paper's Figs. 3 and 5.

`predict_clip` computes, `draw_clip` draws. The attention is that of the backbone's last block, computed from
its queries and keys, which are recorded in a forward pass.
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
from numpy.typing import NDArray
from torch import Tensor
from torch.overrides import TorchFunctionMode

from actloc_core.backbones.hiera import Hiera, from_units
from actloc_core.boxes import cxcywh_to_xyxy
from actloc_core.model import ActionLocalizer
from actloc_core.pixels import normalise
from actloc_core.structures import Targets, backbone_of
from reports.figures import draw_box

ATTENDING = 3
"""Candidates whose attention is drawn, by descending p(alpha)."""
LISTED = 12
"""Detections that the figure lists at most."""


@dataclass(frozen=True)
class ClipPredictions:
    """Predictions and attention on one clip. Candidates go over frames, rows, then columns of the grid."""

    p_actor: NDArray[np.float64]
    """(g, h, w): p(alpha) of each candidate, for the g output frames that candidates come from."""
    frames: tuple[int, ...]
    """Indices of those g frames among the t output frames."""
    boxes: NDArray[np.float64]
    """(L, 4) xyxy in [0, 1]."""
    scores: NDArray[np.float64]
    """(L, C) sigmoid of each action's logit."""
    attention: NDArray[np.float64]
    """(L, t, h', w'): attention of each candidate's own token to the clip's tokens, mean over heads."""


class _LastAttention(TorchFunctionMode):
    """Records queries and keys of the last attention that is computed inside."""

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
def predict_clip(model: ActionLocalizer, clip: Tensor) -> ClipPredictions:
    """Run a model on a clip (3, T, H, W) in [0, 1], and record its last attention."""
    was_training = model.training
    model.eval()
    batch = normalise(clip, backbone_of(model).normalisation)[None]
    with _LastAttention() as last:
        t, h, w = model.backbone(batch).shape[1:4]
    assert last.q is not None
    assert last.k is not None
    scale = last.scale if last.scale is not None else last.q.shape[-1] ** -0.5
    weights = (last.q[0] @ last.k[0].transpose(-1, -2) * scale).softmax(-1).mean(0)  # (n, n')
    if (extra := len(weights) - t * h * w) > 0:  # the class token, first among queries and keys
        weights = weights[extra:, extra:]
    if isinstance(model.backbone, Hiera):  # its tokens are sorted by mask units
        order = _raster_order(model.backbone, clip, len(weights))
        weights = weights[order][:, order]
    key_stride = round(math.sqrt(t * h * w / weights.shape[1]))
    attention = weights.reshape(t, h, w, t, h // key_stride, w // key_stride)
    predictions = model(batch)
    model.train(was_training)
    groups = predictions.actor_logits.shape[1] // (h * w)
    frames = {1: (t // 2,), 2: (t // 2 - 1, t // 2)}.get(groups, tuple(range(t)))
    return ClipPredictions(
        p_actor=predictions.p_actor[0].reshape(groups, h, w).double().numpy(),
        frames=frames,
        boxes=cxcywh_to_xyxy(predictions.boxes[0]).clamp(0, 1).double().numpy(),
        scores=predictions.action_logits[0].sigmoid().double().numpy(),
        attention=attention[list(frames)].flatten(0, 2).double().numpy(),
    )


def _raster_order(backbone: Hiera, clip: Tensor, tokens: int) -> Tensor:
    """(n,) the index, in the order of mask units, of each token in raster order."""
    _, t, h, w = clip.shape
    units = (t // 2, h // 4 // backbone.unit, w // 4 // backbone.unit)
    count = units[0] * units[1] * units[2]
    numbered = torch.arange(tokens, dtype=torch.float64).view(1, count, tokens // count, 1)
    return from_units(numbered, units).flatten().long()


def draw_clip(
    predictions: ClipPredictions,
    frames: NDArray[np.uint8],
    ground_truth: Targets,
    names: Sequence[str],
    *,
    title: str,
    theta: float = 0.2,
) -> Figure:
    """Draw p(alpha) over the keyframe, all boxes, and the attention of the highest-scored candidates.

    frames: (T, H, W, 3) RGB, the clip as stored. names: of the C actions. Candidates with p(alpha) > theta
    are highlighted and listed with their actions; of the ATTENDING highest-scored, one row each shows the
    attention of the candidate's token over the clip. Ground-truth boxes are dashed.
    """
    p = predictions.p_actor.ravel()
    detected = [int(i) for i in np.argsort(-p, kind="stable") if p[i] > theta]
    attending = detected[:ATTENDING]
    times = predictions.attention.shape[1]
    step = len(frames) // times
    figure = Figure(figsize=(11, 3.4 + 1.35 * len(attending)), layout="constrained")
    grid = figure.add_gridspec(1 + len(attending), times, height_ratios=[2.6] + [1] * len(attending))
    third = max(times // 3, 1)
    columns = (slice(third), slice(third, 2 * third), slice(2 * third, None))
    heat, boxes, text = (figure.add_subplot(grid[0, column]) for column in columns)
    keyframe = frames[len(frames) // 2]
    _draw_frame(heat, keyframe, predictions.p_actor.max(0), 1.0)
    heat.set_title("p(alpha)", fontsize=9)
    _draw_frame(boxes, keyframe)
    boxes.set_title(f"boxes, p(alpha) > {theta:g} highlighted", fontsize=9)
    _draw_boxes(boxes, predictions, detected, cxcywh_to_xyxy(ground_truth.boxes).numpy())
    text.set_axis_off()
    lines = _listed(predictions, detected, ground_truth, names)
    text.text(0, 1, "\n".join(lines), fontsize=7, va="top", transform=text.transAxes)
    for row, candidate in enumerate(attending, 1):
        weights = predictions.attention[candidate]
        for time in range(times):
            axis = figure.add_subplot(grid[row, time])
            _draw_frame(axis, frames[time * step], weights[time], float(weights.max()))
            axis.set_title(f"box {row}, frame {time * step}" if time == 0 else str(time * step), fontsize=7)
    figure.suptitle(title, fontsize=10)
    return figure


def _draw_boxes(
    axis: Axes, predictions: ClipPredictions, detected: Sequence[int], ground_truth: NDArray[np.float32]
) -> None:
    """Draw boxes of all candidates, ground truth (N, 4) xyxy, and the detected ones with numbers from 1."""
    for candidate in sorted(set(range(len(predictions.boxes))) - set(detected)):
        draw_box(axis, predictions.boxes[candidate], color="white", linewidth=0.4, alpha=0.35)
    for box in ground_truth:
        draw_box(axis, box, color="white", linestyle="--", linewidth=1.2)
    for number, candidate in enumerate(detected, 1):
        box = predictions.boxes[candidate]
        draw_box(axis, box, color="gold", linewidth=1.6)
        axis.text(box[0], box[1], str(number), color="gold", fontsize=8, va="bottom")


def _listed(
    predictions: ClipPredictions, detected: Sequence[int], ground_truth: Targets, names: Sequence[str]
) -> list[str]:
    """Lines of text: p(alpha) and the best two actions of each detection, then the annotated actions."""
    lines = []
    for number, candidate in enumerate(detected[:LISTED], 1):
        scores = predictions.scores[candidate]
        actions = ", ".join(f"{names[i]} {scores[i]:.2f}" for i in np.argsort(-scores, kind="stable")[:2])
        lines.append(f"{number}: {predictions.p_actor.ravel()[candidate]:.2f}  {actions}")
    annotated = ["; ".join(names[i] for i in torch.nonzero(row)[:, 0]) for row in ground_truth.labels]
    return [
        "detections, p(alpha) and actions:",
        *(lines or ["none"]),
        "",
        "ground truth:",
        *(annotated or ["none"]),
    ]


def _draw_frame(
    axis: Axes, frame: NDArray[np.uint8], heat: NDArray[np.float64] | None = None, vmax: float = 1.0
) -> None:
    """Draw a frame; with a heat map (h, w) from 0 to vmax, in grey below it."""
    height, width = frame.shape[:2]
    shown = frame if heat is None else frame.mean(-1)
    axis.imshow(shown, cmap="gray", extent=(0, 1, 1, 0), aspect=height / width, vmin=0, vmax=255)
    if heat is not None:
        axis.imshow(
            heat, cmap="inferno", extent=(0, 1, 1, 0), aspect=height / width, vmin=0, vmax=vmax, alpha=0.6
        )
    axis.set_axis_off()
