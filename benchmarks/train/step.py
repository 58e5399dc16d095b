"""One training step, the method of the paper: forward, match (Eq. 3), loss (Eq. 4), backward, clip, step.

Nothing here waits for a GPU but the matching, which fetches its costs once for each group of clips; what
processes sum they sum on the device.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor, nn

from actloc_core.loss import LossWeights, Totals, grouped_set_loss, totals_of
from actloc_core.matcher import CostWeights, Matches, match
from actloc_core.structures import Predictions, Targets, backbone_of, to_device
from actloc_core.two_stage import ground_truth_boxes
from benchmarks.context import autocast
from benchmarks.distributed import all_reduce, world_size
from benchmarks.experiments import Experiment
from benchmarks.train.state import TrainState
from datasets.transforms import Batch, Group

Losses = dict[str, Tensor]
"""The loss of Eq. 4 under "loss" and its four weighted terms: detached float32 scalars on the device. Each of
several processes has its share; the sum over the processes is the whole batch's."""

Matched = tuple[Predictions, list[Targets], Matches]
"""A group of clips of one size: predictions, ground truth, and which candidate is whose."""


def train_step(state: TrainState, batch: Batch, exp: Experiment, device: torch.device) -> Losses:
    """Take one optimizer step on a batch, in place.

    batch: this process's clips, in groups of one size each. The gradients are those of the whole batch
    of all processes and micro-batches.
    Raises FloatingPointError naming the clips of the batch whose matching cost is not finite, ValueError for
    micro-batches of clips of several sizes.
    """
    weights = loss_weights(exp)
    micro_batches = split_batch(batch.groups, exp.accumulate)
    losses: Losses = {}
    totals: Totals | None = None
    state.optimizer.zero_grad()
    for micro_batch in micro_batches:
        # Predictions of L candidates a clip, and Eq. 3: the one-to-one assignment of candidates to actors.
        matched = [forward_and_match(state, group, exp, device) for group in micro_batch]
        # The terms of Eq. 4 are divided by totals of the whole batch, not of a micro-batch or a process:
        # so losses and gradients add up over both to those of one process with the whole batch.
        if totals is None:
            totals = batch_totals(batch, matched, weights, exp, device)
        # Eq. 4: box and action terms over matched candidates, actor term over all.
        terms = grouped_set_loss(matched, weights, totals=totals)
        # DDP averages gradients over the processes, and exchanges them at the last micro-batch. Ours are
        # to be summed, hence the factor.
        with nullcontext() if micro_batch is micro_batches[-1] else state.no_sync():
            (terms["loss"] * world_size()).backward()
        for name, term in terms.items():
            losses[name] = losses[name] + term.detach() if name in losses else term.detach()
    nn.utils.clip_grad_norm_(state.model.parameters(), exp.clip_norm)
    state.optimizer.step()
    if state.averaged is not None:
        state.averaged.update_parameters(state.model)
    state.schedule.step()
    state.step += 1
    return losses


def forward_and_match(state: TrainState, group: Group, exp: Experiment, device: torch.device) -> Matched:
    """Predictions of a group of clips of one size, and their assignment to the annotated actors (Eq. 3)."""
    targets = targets_to_device(group.targets, device)
    clips = group.inputs(device, backbone_of(state.model).normalisation)
    # The two-stage baseline trains on the annotated boxes, jittered; the other models take no boxes.
    boxes = [ground_truth_boxes(target) for target in targets] if exp.method == "two_stage" else None
    with autocast(device, exp.bf16):
        predictions = state.forward(clips, boxes)
    return predictions, targets, match(predictions, targets, cost_weights(exp))


def batch_totals(
    batch: Batch, matched: Sequence[Matched], weights: LossWeights, exp: Experiment, device: torch.device
) -> Totals:
    """What the terms of Eq. 4 are divided by: actors, weights of candidates and labels of all processes.

    matched: the first micro-batch. The later ones are not computed yet, but have as many candidates a clip.
    """
    counted = [totals_of(targets, p.actor_logits.shape[1], weights) for p, targets, _ in matched]
    if exp.accumulate > 1:
        targets = [target for group in batch.groups for target in group.targets]
        candidates = matched[-1][0].actor_logits.shape[1]
        if exp.method == "two_stage":  # as many as the clip with the most boxes
            candidates = max(candidates, *(len(target.boxes) for target in targets))
        counted = [totals_of(targets, candidates, weights)]
    total = functools.reduce(operator.add, counted)
    if world_size() == 1:
        return total
    mine = torch.tensor([float(total.boxes), float(total.actors), float(total.labels)])
    return Totals(*all_reduce(to_device(mine, device)).unbind())


def split_batch(groups: Sequence[Group], count: int) -> list[list[Group]]:
    """Split a batch into `count` micro-batches of about as many clips, each a list of groups.

    Raises ValueError for more than one micro-batch of clips of several sizes.
    """
    if count == 1:
        return [list(groups)]
    if len(groups) > 1:
        raise ValueError("clips of several sizes cannot be split into micro-batches: set accumulate=1")
    [whole] = groups
    indices = np.array_split(np.arange(len(whole.targets)), count)
    return [[whole.take(mine.tolist())] for mine in indices if len(mine)]


def targets_to_device(targets: Sequence[Targets], device: torch.device) -> list[Targets]:
    """Move the ground truth of b clips: two copies for the whole group, not two for each clip."""
    if device.type == "cpu":
        return list(targets)
    counts = [len(target.boxes) for target in targets]
    boxes = to_device(torch.cat([target.boxes for target in targets]), device).split(counts)
    labels = to_device(torch.cat([target.labels for target in targets]), device).split(counts)
    return [Targets(*pair) for pair in zip(boxes, labels, strict=True)]


def cost_weights(exp: Experiment) -> CostWeights:
    """The weights of Eq. 3."""
    return CostWeights(exp.l1, exp.giou, exp.actor, exp.match_action, exp.tie_break)


def loss_weights(exp: Experiment) -> LossWeights:
    """The weights of Eq. 4."""
    return LossWeights(exp.l1, exp.giou, exp.actor, exp.action, exp.eos_coef, exp.action_sum)
