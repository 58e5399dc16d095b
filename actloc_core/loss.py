"""The Hungarian loss (Eq. 4) over matched candidates."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace

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
    action_sum: bool = False
    """Whether the action term is a sum over classes, as Eq. 4 prints it, in place of their mean."""


@dataclass(frozen=True)
class Totals:
    """What the terms are divided by. They add up over the parts of a batch.

    Numbers, or scalars on the device where they are summed over processes: nobody then waits for them.
    """

    boxes: float | Tensor
    """Annotated actors."""
    actors: float | Tensor
    """Weights of all candidates: 1 of a matched one, eos_coef of any other."""
    labels: float | Tensor
    """Matched candidates x classes."""

    def __add__(self, other: Totals) -> Totals:
        return Totals(self.boxes + other.boxes, self.actors + other.actors, self.labels + other.labels)


def totals_of(targets: Sequence[Targets], candidates: int, weights: LossWeights | None = None) -> Totals:
    """Totals of clips with these actors and `candidates` candidates each, known before the matching."""
    weights = weights or LossWeights()
    actors = [len(target.boxes) for target in targets]
    matched = sum(min(n, candidates) for n in actors)
    labels = sum(min(len(t.boxes), candidates) * t.labels.shape[1] for t in targets)
    unmatched = len(actors) * candidates - matched
    return Totals(sum(actors), matched + weights.eos_coef * unmatched, labels)


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
    l1, giou: over matched candidates, divided by num_boxes (default: this batch's actors; with
        several workers pass the mean over them), at least 1, so that empty clips are finite.
    actor: two-way cross-entropy of every candidate, unmatched ones weighted by eos_coef, weighted mean.
    action: the text's -sum a log p is minimised by all ones, so binary cross-entropy, mean over
        matched candidates x C, or with action_sum over matched candidates; 0 where nothing is matched.
    """
    totals = totals_of(targets, predictions.actor_logits.shape[1], weights)
    if num_boxes is not None:
        totals = replace(totals, boxes=num_boxes)
    return grouped_set_loss([(predictions, targets, matches)], weights, totals=totals)


def grouped_set_loss(
    groups: Sequence[tuple[Predictions, Sequence[Targets], Matches]],
    weights: LossWeights | None = None,
    *,
    totals: Totals | None = None,
) -> dict[str, Tensor]:
    """`set_loss` of a batch whose clips have different numbers of candidates, a group for each number.

    groups: (predictions of b clips with L candidates, their b targets, their matches), b and L of its own.
    -> the four terms and "loss", scalars (float32). All sums and means run over the whole
        batch: the groups are laid end to end, nothing is padded.
    totals: of a larger batch that these groups are a part of. The losses of all its parts then
        add up to the loss of the whole.
    """
    weights = weights or LossWeights()
    if totals is None:
        counted = (totals_of(targets, p.actor_logits.shape[1], weights) for p, targets, _ in groups)
        totals = functools.reduce(operator.add, counted)
    boxes, gt_boxes, actor_logits, is_actor, action_logits, labels = (
        torch.cat(parts) for parts in zip(*(_laid_out(*group) for group in groups), strict=True)
    )
    _, giou = iou_and_giou(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(gt_boxes))
    # Most candidates match no actor: without a lower weight they would drown the few that do (as in DETR).
    class_weight = actor_logits.new_ones(2)
    class_weight[NO_ACTOR] = weights.eos_coef
    # Matched candidates alone are classified: what a non-actor does is not annotated.
    action = F.binary_cross_entropy_with_logits(action_logits, labels, reduction="sum")
    classified = totals.labels / action_logits.shape[1] if weights.action_sum else totals.labels
    actor = F.cross_entropy(actor_logits, is_actor, class_weight, reduction="sum")
    terms = {
        "l1": weights.l1 * (boxes - gt_boxes).abs().sum() / _at_least_one(totals.boxes),
        "giou": weights.giou * (1 - giou).sum() / _at_least_one(totals.boxes),
        "actor": weights.actor * actor / totals.actors,
        "action": weights.action * action / _at_least_one(classified),
    }
    return {"loss": torch.stack(list(terms.values())).sum(), **terms}


def _at_least_one(total: float | Tensor) -> float | Tensor:
    return total.clamp(min=1) if isinstance(total, Tensor) else max(total, 1)


def _laid_out(predictions: Predictions, targets: Sequence[Targets], matches: Matches) -> tuple[Tensor, ...]:
    """A group's rows: boxes and ground truth (K, 4), actor logits (BL, 2), which are actors (BL,), action
    logits and labels (K, C); all float32 but the third from last, which is int64."""
    clip, candidate, person = matches
    actor_logits = predictions.actor_logits.float()
    is_actor = torch.full(actor_logits.shape[:2], NO_ACTOR, device=actor_logits.device)
    is_actor[clip, candidate] = ACTOR
    return (
        predictions.boxes.float()[clip, candidate],
        torch.cat([target.boxes for target in targets])[person],
        actor_logits.flatten(0, 1),
        is_actor.flatten(),
        predictions.action_logits.float()[clip, candidate],
        torch.cat([target.labels for target in targets])[person],
    )
