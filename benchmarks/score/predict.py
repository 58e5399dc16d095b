"""Prediction: a split through a model, one pass for every model that returns `Predictions`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader

from actloc_core.model import keep_actors
from actloc_core.structures import backbone_of
from actloc_core.two_stage import GivenBoxes, ground_truth_boxes
from benchmarks.context import Callbacks, RunContext, autocast
from benchmarks.distributed import all_gather, rank, world_size
from benchmarks.experiments import Experiment
from benchmarks.loading import loader_options
from benchmarks.score.detections import SplitDetections
from benchmarks.score.evaluate import frame_ap, protocol_of, random_classes
from benchmarks.score.results import CURVE_THETA
from datasets.split import Key, Split, subsample
from datasets.transforms import EvaluationView, collate
from evaluators.frame_map import Detections

VALIDATION_CLIPS, SMALL_VALIDATION_CLIPS = 2000, 80
"""Keyframes of a validation in training, and of the one of the untrained model; of synthetic data, fewer."""

Boxes = Mapping[Key, GivenBoxes]
"""Keyframe -> the boxes that a two-stage model classifies; a keyframe without any may be missing."""


class _Kept(NamedTuple):
    """Arrays of the K candidates kept of some clips."""

    clip: NDArray[np.int64]
    """(K,) index in the split."""
    boxes: NDArray[np.float64]
    """(K, 4) xyxy in [0, 1]."""
    p_actor: NDArray[np.float64]
    scores: NDArray[np.float32]
    """(K, C)"""


def predict(
    model: nn.Module,
    split: Split,
    exp: Experiment,
    context: RunContext,
    boxes: Boxes | None = None,
    callbacks: Sequence[Callbacks] = (),
) -> SplitDetections:
    """Run a split through a model: -> the candidates that pass exp.theta, in the order of clips.

    Boxes are in the unit of the split's ground truth. boxes: for a two-stage model. Processes that share the
    run each take every world_size-th clip; all return the detections of all.
    Raises VideoError for a video that cannot be read: in an evaluation no clip is replaced.
    """
    was_training = model.training
    model.eval()
    kept = _gather(list(_batches(model, split, exp, context, boxes, callbacks)))
    model.train(was_training)
    videos = tuple(sorted({video for video, _ in split.keyframes}))
    number = {video: i for i, video in enumerate(videos)}
    units = np.array([split.box_unit(video) * 2 for video in videos]).reshape(-1, 4)
    video = np.array([number[video] for video, _ in split.keyframes])[kept.clip]
    second = np.array([second for _, second in split.keyframes])[kept.clip]
    persons = Detections(
        videos=videos,
        video=video,
        frame=second,
        box=kept.boxes * units[video],
        label=np.zeros(len(kept.clip), np.int64),
        score=kept.p_actor,
    )
    return SplitDetections(persons, np.array(list(split.classes)), kept.scores)


@torch.no_grad()
def _batches(
    model: nn.Module,
    split: Split,
    exp: Experiment,
    context: RunContext,
    boxes: Boxes | None,
    callbacks: Sequence[Callbacks],
) -> Iterator[_Kept]:
    """The kept candidates of each group of this process's clips."""
    backbone = backbone_of(model)
    view = EvaluationView(split)
    if exp.short_sides is not None:
        view = EvaluationView(split, short_side=split.crop, multiple=backbone.side_multiple)
    mine = np.arange(rank(), len(split), world_size())
    loader: DataLoader[Any] = DataLoader(
        view, batch_size=exp.batch, sampler=mine.tolist(), collate_fn=collate, **loader_options(exp, context)
    )
    for step, batch in enumerate(loader):
        indices = mine[step * exp.batch :]
        for group in batch.groups:
            clip_index = indices[np.array(group.indices)]
            given = _boxes_of([split.keyframes[i] for i in clip_index], boxes, context.device)
            with autocast(context.device, exp.bf16):
                predictions = model(group.inputs(context.device, backbone.normalisation), given)
            kept = keep_actors(predictions, theta=exp.theta, score=exp.score, nms_iou=exp.nms_iou)
            yield _Kept(
                clip_index[kept.clip.cpu().numpy()],
                kept.boxes.cpu().double().numpy(),
                kept.p_actor.cpu().double().numpy(),
                kept.scores.cpu().float().numpy(),
            )
        for callback in callbacks:
            callback.on_batch()


def _boxes_of(keys: Sequence[Key], boxes: Boxes | None, device: torch.device) -> list[GivenBoxes] | None:
    if boxes is None:
        return None
    none = GivenBoxes(torch.zeros(0, 4), torch.zeros(0))
    return [boxes.get(key, none).to(device) for key in keys]


def _gather(kept: Sequence[_Kept]) -> _Kept:
    """The candidates of all batches and processes in the order of clips."""
    mine = [np.concatenate(arrays) for arrays in zip(*kept, strict=True)]
    held = [each for each in all_gather(mine) if each]
    joined = held[0] if len(held) == 1 else [np.concatenate(arrays) for arrays in zip(*held, strict=True)]
    if (np.diff(joined[0]) < 0).any():
        order = np.argsort(joined[0], kind="stable")
        joined = [array[order] for array in joined]
    return _Kept(*joined)


def validation_mAP(
    model: nn.Module, split: Split, exp: Experiment, context: RunContext, callbacks: Sequence[Callbacks] = ()
) -> float:
    """Frame-mAP on a subset of a split, in training: product scores above CURVE_THETA, without NMS.

    A two-stage model is given the annotated boxes.
    """
    subset = _validated(split, exp)
    asked = replace(exp, theta=CURVE_THETA, score="product", nms_iou=None)
    boxes = annotated_boxes(subset) if exp.method == "two_stage" else None
    detections = predict(model, subset, asked, context, boxes, callbacks)
    return frame_ap(subset, detections, protocol_of(exp)).mAP


def validation_chance(split: Split, exp: Experiment) -> float:
    """The chance level of `validation_mAP`: that of annotated boxes with random classes."""
    return random_classes(_validated(split, exp), protocol_of(exp)).mAP


def _validated(split: Split, exp: Experiment) -> Split:
    """The subset of a split that validations in training are on."""
    small = exp.dataset.startswith("synthetic_")
    return subsample(split, SMALL_VALIDATION_CLIPS if small else VALIDATION_CLIPS)


def annotated_boxes(split: Split) -> dict[Key, GivenBoxes]:
    """The annotated boxes of every keyframe."""
    return {key: ground_truth_boxes(split.annotations.at(key)) for key in split.keyframes}
