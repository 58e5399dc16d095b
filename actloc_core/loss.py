"""The Hungarian loss (Eq. 4) over matched candidates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from actloc_core.boxes import cxcywh_to_xyxy, iou_and_giou
from actloc_core.matcher import Matches
from actloc_core.structures import ACTOR, NO_ACTOR, Predictions, Targets


@dataclass(frozen=True)
class LossWeights:
    """The lambdas of Eq. 4 (values of section 4) and DETR's weight of the no-actor class."""

    l1: float = 5.0
    giou: float = 2.0
    actor: float = 2.0
    action: float = 6.0
    eos_coef: float = 0.1


def set_loss(
    predictions: Predictions,
    targets: Sequence[Targets],
    matches: Matches,
    weights: LossWeights | None = None,
    *,
    num_boxes: float | None = None,
) -> dict[str, Tensor]:
    """The four terms, weighted, and their sum under "loss": float32 scalars.

    Eq. 4 prints minus signs before terms that are negative log likelihoods already; we ADD all.
    l1, giou: over matched candidates, divided by num_boxes (default: this batch's people; with
        several workers pass the mean over them), at least 1, so that empty clips are finite.
    actor: two-way cross-entropy of every candidate, unmatched ones weighted by eos_coef, weighted mean.
    action: the text's -sum a log p is minimised by all ones, so binary cross-entropy, mean over
        matched candidates x C; 0 where nothing is matched.
    """
    weights = weights or LossWeights()
    clip, candidate, person = matches
    boxes = predictions.boxes.float()[clip, candidate]
    truth = torch.cat([target.boxes for target in targets])[person]
    count = max(num_boxes if num_boxes is not None else sum(len(t.boxes) for t in targets), 1)
    _, giou = iou_and_giou(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(truth))

    actor_logits = predictions.actor_logits.float()
    is_actor = torch.full(actor_logits.shape[:2], NO_ACTOR, device=actor_logits.device)
    is_actor[clip, candidate] = ACTOR
    class_weight = actor_logits.new_ones(2)
    class_weight[NO_ACTOR] = weights.eos_coef

    labels = torch.cat([target.labels for target in targets])[person]
    action_logits = predictions.action_logits.float()[clip, candidate]
    action = F.binary_cross_entropy_with_logits(action_logits, labels, reduction="sum")

    terms = {
        "l1": weights.l1 * (boxes - truth).abs().sum() / count,
        "giou": weights.giou * (1 - giou).sum() / count,
        "actor": weights.actor
        * F.cross_entropy(actor_logits.flatten(0, 1), is_actor.flatten(), class_weight),
        "action": weights.action * action / max(labels.numel(), 1),
    }
    return {"loss": torch.stack(list(terms.values())).sum(), **terms}
