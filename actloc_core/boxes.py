"""Box arithmetic on tensors of shape (..., 4). cxcywh inside the model, xyxy at the evaluators."""

from __future__ import annotations

import torch
from torch import Tensor


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """(..., 4) centre x, centre y, width, height -> (..., 4) left, top, right, bottom."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """(..., 4) left, top, right, bottom -> (..., 4) centre x, centre y, width, height."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat([(low + high) / 2, high - low], dim=-1)


def iou_and_giou(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Intersection over union and generalised IoU (Rezatofighi et al. 2019, the paper's [28]).

    a, b (..., 4) xyxy, broadcast against each other -> two tensors of the broadcast shape without
    the 4, in [0, 1] and [-1, 1]. Boxes without area have IoU 0 and finite values, never NaN.
    """
    low, high = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    intersection = (high - low).clamp(min=0).prod(-1)
    union = _area(a) + _area(b) - intersection
    iou = intersection / union.clamp(min=1e-9)
    low, high = torch.minimum(a[..., :2], b[..., :2]), torch.maximum(a[..., 2:], b[..., 2:])
    hull = (high - low).clamp(min=0).prod(-1)
    return iou, iou - (hull - union) / hull.clamp(min=1e-9)


def nms(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Greedy non-maximum suppression: -> int64 indices of the kept boxes, best first.

    boxes (N, 4) xyxy, scores (N,). A box is suppressed by a kept box with a higher score whose IoU with it
    is above `threshold`. Among equal scores the first one wins.
    """
    order = torch.argsort(scores, descending=True, stable=True)
    iou, _ = iou_and_giou(boxes[order, None], boxes[None, order])
    overlaps = (iou > threshold).cpu()
    suppressed = torch.zeros(len(order), dtype=torch.bool)
    kept = []
    for i in range(len(order)):
        if not suppressed[i]:
            kept.append(i)
            suppressed |= overlaps[i]
    return order[torch.tensor(kept, dtype=torch.int64, device=order.device)]


def _area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(-1)
