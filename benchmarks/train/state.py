"""All that a training step changes: weights, optimizer, schedule, moving average, random generators."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from actloc_core.structures import Predictions
from actloc_core.two_stage import GivenBoxes
from benchmarks.context import autocast
from benchmarks.distributed import all_gather, rank, world_size
from benchmarks.experiments import Experiment

Forward = Callable[[Tensor, Sequence[GivenBoxes] | None], Predictions]
"""clips (B, 3, T, H, W) and, for the two-stage baseline, the boxes of each -> Predictions."""


@dataclass
class TrainState:
    """A model in training, after `step` steps."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    averaged: AveragedModel | None
    """The exponential moving average of the weights (Experiment.ema)."""
    forward: Forward
    """The model as a step calls it: distributed, compiled or in CUDA graphs."""
    no_sync: Callable[[], AbstractContextManager[None]]
    """A context in which processes do not exchange gradients."""
    step: int = 0

    @property
    def lr(self) -> float:
        """The learning rate of the next step."""
        return float(self.schedule.get_last_lr()[0])

    def state_dict(self) -> dict[str, Any]:
        """All that the rest of the training follows from, for torch.save. Called by every process."""
        averaged = {} if self.averaged is None else {"averaged": self.averaged.state_dict()}
        return {
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "generators": all_gather(generators()),
            **averaged,
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`; on a CPU bit for bit as if never interrupted.

        The random generators are restored where as many processes train as did before; otherwise stochastic
        depth drops other paths from here on.
        """
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.schedule.load_state_dict(saved["schedule"])
        if self.averaged is not None:
            self.averaged.load_state_dict(saved["averaged"])
        if len(saved["generators"]) == world_size():
            set_generators(saved["generators"][rank()])
        self.step = int(saved["step"])

    def use_averaged(self) -> None:
        """Replace the weights by their moving average, where there is one: at the end of a training."""
        if self.averaged is not None:
            self.model.load_state_dict(self.averaged.module.state_dict())


def new_state(model: nn.Module, exp: Experiment, *, steps: int, warmup: int) -> TrainState:
    """The state before the first step, by the experiment's recipe (section 4): AdamW, warm-up, cosine to 0.

    steps, warmup: of the whole training. model: already on its device.
    """
    device = next(model.parameters()).device
    optimizer = torch.optim.AdamW(
        weight_groups(model, lr=exp.lr, head_lr=exp.head_lr * exp.lr),
        weight_decay=exp.weight_decay,
        fused=device.type == "cuda",
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: warmup_cosine(step, steps, warmup))
    averaged = None if exp.ema is None else AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(exp.ema))
    model.train()
    computed: Any = torch.compile(model) if exp.compile else model
    module: nn.Module = CudaGraphs(computed, exp) if uses_cuda_graphs(exp, device) else computed
    no_sync: Callable[[], AbstractContextManager[None]] = nullcontext
    if world_size() > 1:
        module = data_parallel(module)
        no_sync = module.no_sync
        if rank():  # initial weights are the same everywhere, dropped paths are not
            torch.manual_seed(exp.seed + 1_000_003 * rank())
    return TrainState(model, optimizer, schedule, averaged, module, no_sync)


def data_parallel(module: nn.Module) -> DistributedDataParallel:
    """A module whose processes exchange gradients in the backward pass; of CUDA graphs, after it."""
    module = DistributedDataParallel(module)
    # Buffers are tables that never change, and a batch with clips of several sizes takes a forward pass
    # for each: nothing may be exchanged in those, for the processes do not have as many.
    newer = hasattr(module, "forward_sync_buffers")  # since torch 2.13
    setattr(module, "forward_sync_buffers" if newer else "broadcast_buffers", False)
    return module


def uses_cuda_graphs(exp: Experiment, device: torch.device) -> bool:
    """Whether training replays CUDA graphs: on a GPU, for clips of one size.

    The two-stage baseline's boxes differ in number, and checkpointing restores generators.
    """
    fixed = exp.short_sides is None and exp.method != "two_stage"
    return device.type == "cuda" and fixed and not exp.checkpointing


class CudaGraphs(nn.Module):
    """A model whose forward and backward in training are recorded as CUDA graphs, and then replayed.

    A step of MViTv2-S launches some 5,000 kernels, for which the CPU takes 200 ms whatever the batch; a graph
    is one launch. Clips of another shape than a micro-batch's, and evaluation, run as without graphs.
    """

    replay: Callable[[Tensor], tuple[Tensor, ...]]

    def __init__(self, model: nn.Module, exp: Experiment) -> None:
        super().__init__()
        self.model = model
        device = next(model.parameters()).device
        clips_each = max(exp.batch // world_size() // exp.accumulate, 1)
        self.shape = torch.Size((clips_each, 3, exp.frames, exp.crop, exp.crop))
        rng = torch.cuda.get_rng_state(device)
        # Recording happens on a stream of its own, the replays do not: torch warns, and orders the two.
        if hasattr(torch.autograd.graph, "set_warn_on_accumulate_grad_stream_mismatch"):
            torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)
        # The weights' gradients are inputs of the graph's own: none may be left from before.
        with autocast(device, exp.bf16):
            replay = torch.cuda.make_graphed_callables(
                _AsTuple(model), (torch.zeros(self.shape, device=device),), allow_unused_input=True
            )
        torch.cuda.set_rng_state(rng, device)  # its warm-up runs draw dropped paths
        # Not as a Module's attribute, which would register the weights twice.
        object.__setattr__(self, "replay", replay)

    def forward(self, clips: Tensor, boxes: Sequence[GivenBoxes] | None = None) -> Predictions:
        """(B, 3, T, H, W) -> Predictions."""
        if self.training and clips.shape == self.shape:
            return Predictions(*self.replay(clips))
        return self.model(clips, boxes)


class _AsTuple(nn.Module):
    """A model that returns its Predictions as a plain tuple, as CUDA graphs want outputs."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, clips: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.model(clips))


def weight_groups(model: nn.Module, *, lr: float, head_lr: float) -> list[dict[str, Any]]:
    """AdamW's groups: weight decay for matrices and kernels; none for biases, norms and embeddings.

    lr: of the backbone, in the first two groups. head_lr: of all else, in two more groups where it differs.
    """
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {
        (rate, decayed): [] for rate in (lr, head_lr) for decayed in (True, False)
    }
    for name, parameter in model.named_parameters():
        embeds = any(key in name for key in ("rel_pos", "cls_token", "pos_embed", "embedding", "query_"))
        decayed = parameter.dim() > 1 and not embeds
        groups[lr if name.startswith("backbone.") else head_lr, decayed].append(parameter)
    return [
        {"params": parameters, "lr": rate} | ({} if decayed else {"weight_decay": 0.0})
        for (rate, decayed), parameters in groups.items()
    ]


def warmup_cosine(step: int, steps: int, warmup: int) -> float:
    """The learning rate's factor at a step from 0: linear from 1/warmup to 1, then cosine to 0."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))


def generators() -> list[Tensor]:
    """The states of torch's random generators, (n,) uint8: the CPU's, and each GPU's."""
    return [torch.get_rng_state(), *torch.cuda.get_rng_state_all()]


def set_generators(states: Sequence[Tensor]) -> None:
    """Restore torch's random generators from what `generators()` returned, each (n,) uint8."""
    torch.set_rng_state(states[0])
    if len(states) > 1:
        torch.cuda.set_rng_state_all(list(states[1:]))
