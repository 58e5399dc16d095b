"""A short training of the full-size model: MViTv2-S at 256 on scenes rendered in memory, by `train_step`."""

from __future__ import annotations

import math
import os
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from actloc_core.model import keep_actors
from actloc_core.structures import Targets
from benchmarks.context import autocast
from benchmarks.experiments import Experiment
from benchmarks.profile.measure import experiment, synchronise
from benchmarks.train.models import build_model
from benchmarks.train.state import TrainState, new_state
from benchmarks.train.step import train_step
from datasets import scenes
from datasets.transforms import Batch, Group, to_input, unchanged
from evaluators.frame_map import Detections, GroundTruth, frame_mAP

Scene = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Frames (T, H, W, 3) uint8, boxes (N, 4) cxcywh in [0, 1] and labels (N, 10) of the annotated actors."""


def trains(device: torch.device, quick: bool, seconds: float) -> dict[str, Any]:
    """Train for this many seconds; -> validation mAP before and after, the loss curve, clips a second.

    3,000 training scenes and 256 validation scenes, as `datasets.synthetic` draws them, enlarged to 256. From
    random weights, so that the mAP says "it learns", not how well the method does.
    """
    count, held_out = (64, 16) if quick else (3000, 256)
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        made = list(pool.map(scene, range(count + held_out), chunksize=16))
    exp = experiment(
        quick, batch=4 if quick else 16, lr=2e-3 if quick else 3e-4, frames=16, frame_embedding=True
    )
    torch.manual_seed(exp.seed)
    model = build_model(exp, len(scenes.ACTIONS)).to(device)
    state = new_state(model, exp, steps=1, warmup=1)
    before = validate(state, made[count:], exp, device)
    curve = _fit(state, made[:count], exp, device, seconds)
    after = validate(state, made[count:], exp, device)
    return {
        "seconds": seconds,
        "steps": state.step,
        "clips_s": state.step * exp.batch / curve[-1]["seconds"],
        "mAP_before": before,
        "mAP_after": after,
        "mAP_random_classes": random_classes(made[count:]),
        "curve": curve,
    }


def _fit(
    state: TrainState, made: list[Scene], exp: Experiment, device: torch.device, seconds: float
) -> list[dict[str, float]]:
    """Train until the time is over; -> losses now and then. The schedule runs over time, not steps."""
    rng = np.random.default_rng(exp.seed)
    clips, targets = on_device(made, exp, device)
    curve: list[dict[str, float]] = []
    synchronise(device)
    clock, logged = time.perf_counter(), 0.0
    while (elapsed := time.perf_counter() - clock) < seconds or not curve:
        factor = min(1.0, (state.step + 1) / 50) * (
            0.5 + 0.5 * math.cos(math.pi * min(1.0, elapsed / seconds))
        )
        for group in state.optimizer.param_groups:
            group["lr"] = exp.lr * factor
        chosen = rng.choice(len(made), exp.batch, replace=False)
        views = unchanged(exp.batch)
        mine = Group(clips(chosen), views, [targets[i] for i in chosen], list(range(exp.batch)))
        batch = Batch([mine], [])
        losses = train_step(state, batch, exp, device)
        if elapsed - logged >= seconds / 20 or not curve:
            logged = elapsed
            curve.append({"step": state.step, **{name: float(x) for name, x in losses.items()}})
            curve[-1]["seconds"] = time.perf_counter() - clock
    synchronise(device)
    curve[-1]["seconds"] = max(curve[-1]["seconds"], time.perf_counter() - clock)
    return curve


def scene(seed: int) -> Scene:
    """One scene of the synthetic benchmark, by its seed."""
    rng = np.random.default_rng(seed)
    persons = scenes.sample_scene(rng)
    frames = scenes.render(persons, rng)
    actors = [p for p in persons if p.is_actor]
    boxes = [
        (
            p.x / scenes.WIDTH,
            p.y / scenes.HEIGHT,
            p.size * scenes.ASPECT / scenes.WIDTH,
            p.size / scenes.HEIGHT,
        )
        for p in actors
    ]
    labels = [[action in p.actions for action in scenes.ACTIONS] for p in actors]
    return frames, np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.float32).reshape(-1, 10)


def on_device(made: list[Scene], exp: Experiment, device: torch.device) -> tuple[Any, list[Targets]]:
    """-> a function from indices to clips (b, 3, T, crop, crop) uint8 on the device, and all targets."""
    small = torch.from_numpy(np.stack([frames for frames, *_ in made])).to(device)  # (n, T, h, w, 3) uint8

    def clips(chosen: np.ndarray) -> Tensor:
        x = small[torch.from_numpy(chosen)].permute(0, 1, 4, 2, 3).flatten(0, 1).float()
        x = F.interpolate(x, (exp.crop, exp.crop), mode="bilinear").round().to(torch.uint8)
        return x.unflatten(0, (len(chosen), -1)).transpose(1, 2).contiguous()

    return clips, [Targets(torch.from_numpy(boxes), torch.from_numpy(labels)) for _, boxes, labels in made]


@torch.no_grad()
def validate(state: TrainState, made: list[Scene], exp: Experiment, device: torch.device) -> float:
    """Frame-mAP at IoU 0.5 (protocol "standard") of the scores p(alpha) p(a), theta 0.02."""
    clips, _ = on_device(made, exp, device)
    state.model.eval()
    frame, box, score = [], [], []
    for first in range(0, len(made), exp.batch):
        chosen = np.arange(first, min(first + exp.batch, len(made)))
        with autocast(device, exp.bf16):
            predictions = state.model(to_input(clips(chosen), unchanged(len(chosen))))
        kept = keep_actors(predictions, theta=0.02, score="product")
        frame.append(chosen[kept.clip.cpu().numpy()])
        box.append(kept.boxes.cpu().double().numpy())
        score.append(kept.scores.cpu().double().numpy())
    state.model.train()
    return _frame_map(made, np.concatenate(frame), np.concatenate(box), np.concatenate(score))


def random_classes(made: list[Scene]) -> float:
    """The chance level: every true box with every class, scored at random."""
    frame = np.concatenate([np.full(len(boxes), i) for i, (_, boxes, _) in enumerate(made)])
    box = _corners(np.concatenate([boxes for _, boxes, _ in made]))
    return _frame_map(made, frame, box, np.random.default_rng(0).random((len(frame), len(scenes.ACTIONS))))


def _frame_map(made: list[Scene], frame: np.ndarray, box: np.ndarray, score: np.ndarray) -> float:
    """frame (K,), box (K, 4) xyxy, score (K, C) -> frame-mAP; a scene is a frame of one video."""
    classes = dict(enumerate(scenes.ACTIONS, 1))
    count = len(classes)
    rows = [
        (i, j, c) for i, (_, _, labels) in enumerate(made) for j, c in zip(*np.nonzero(labels), strict=True)
    ]
    where, who, label = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    true_box = np.array([_corners(made[i][1][j]) for i, j in zip(where, who, strict=True)], np.float64)
    return frame_mAP(
        GroundTruth(("scenes",), np.zeros_like(where), where, true_box, label + 1),
        Detections(
            ("scenes",),
            np.zeros(len(frame) * count, np.int64),
            frame.astype(np.int64).repeat(count),
            box.astype(np.float64).repeat(count, axis=0),
            np.tile(np.arange(1, count + 1), len(frame)),
            score.ravel().astype(np.float64),
        ),
        classes,
    ).mAP


def _corners(boxes: np.ndarray) -> np.ndarray:
    """cxcywh (..., 4) -> xyxy."""
    centre, size = boxes[..., :2], boxes[..., 2:]
    return np.concatenate([centre - size / 2, centre + size / 2], axis=-1)
