"""One-to-one matching of candidates to annotated actors (Eq. 3), by the Hungarian algorithm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from actloc_core.boxes import cxcywh_to_xyxy, iou_and_giou
from actloc_core.structures import Predictions, Targets, to_device


@dataclass(frozen=True)
class CostWeights:
    """Weights of the matching cost. Eq. 3 prints none: we take the loss's (section 4)."""

    l1: float = 5.0
    giou: float = 2.0
    actor: float = 2.0
    action: float = 1.0
    """0 leaves the action term out of the matching."""
    tie_break: float = 0.0
    """What the last candidate costs more than the first, the others evenly between them. Not in the paper: of
    candidates that are alike, always the same one is then matched, which the model may learn."""


class Matches(NamedTuple):
    """K matched pairs of a batch, K = the number of actors in it (or L of a clip with more)."""

    clip: Tensor
    """(K,) int64, the clip's place in the batch."""
    candidate: Tensor
    """(K,) int64 in [0, L)."""
    person: Tensor
    """(K,) int64, row of the batch's targets laid end to end."""


@torch.no_grad()
def match(
    predictions: Predictions, targets: Sequence[Targets], weights: CostWeights | None = None
) -> Matches:
    """The assignment of least total cost, each clip on its own L x N matrix.

    Raises FloatingPointError naming the clips whose cost is not finite.
    """
    weights = weights or CostWeights()
    device = predictions.boxes.device
    counts = [len(target.boxes) for target in targets]
    # The one point of a training step at which the host waits for a GPU.
    cost = pairwise_cost(predictions, targets, weights).cpu()  # (actors of the batch, L)
    if not torch.isfinite(cost).all():
        bad = [i for i, rows in enumerate(cost.split(counts)) if not torch.isfinite(rows).all()]
        raise FloatingPointError(f"the matching cost is not finite in clips {bad} of the batch")
    clips, candidates, persons = [], [], []
    first = 0
    for clip, rows in enumerate(cost.split(counts)):
        # The Hungarian algorithm: one candidate for each actor, at least total cost.
        person, candidate = linear_sum_assignment(rows.numpy())
        clips.append(torch.full((len(person),), clip))
        candidates.append(torch.from_numpy(candidate))
        persons.append(torch.from_numpy(person) + first)
        first += len(rows)
    return Matches(*to_device(torch.stack([torch.cat(x) for x in (clips, candidates, persons)]), device))


def pairwise_cost(predictions: Predictions, targets: Sequence[Targets], weights: CostWeights) -> Tensor:
    """Cost of each person of the batch with each candidate of their own clip, (actors, L) float32.

    One piece for the whole batch: a person's row gathers their clip's candidates, so nothing is
    padded and no pair of different clips is computed.
    """
    clip = clip_of_each_person(targets, predictions.boxes.device)
    gt_boxes = torch.cat([target.boxes for target in targets])[:, None]  # (actors, 1, 4)
    labels = torch.cat([target.labels for target in targets])  # (actors, C)
    boxes = predictions.boxes.float()[clip]  # (actors, L, 4)
    _, giou = iou_and_giou(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(gt_boxes))
    cost = weights.l1 * (boxes - gt_boxes).abs().sum(-1) - weights.giou * giou
    # -p(alpha) in place of -log p(alpha), as in DETR: bounded, so that one certain candidate cannot dominate.
    cost = cost - weights.actor * predictions.p_actor[clip]
    if weights.action:
        # Mean over the person's own labels of -p(a). A person without labels costs nothing here.
        share = labels / labels.sum(1, keepdim=True).clamp(min=1)
        p_action = predictions.action_logits.float().sigmoid()[clip]  # (actors, L, C)
        cost = cost - weights.action * torch.einsum("plc,pc->pl", p_action, share)
    if weights.tie_break:
        cost = cost + weights.tie_break * torch.linspace(0, 1, cost.shape[1], device=cost.device)
    return cost


def clip_of_each_person(targets: Sequence[Targets], device: torch.device) -> Tensor:
    """(actors of the batch,) int64: which clip each row of the targets laid end to end is in."""
    counts = torch.tensor([len(target.boxes) for target in targets])
    return to_device(torch.arange(len(targets)).repeat_interleave(counts), device)
