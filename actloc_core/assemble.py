"""The one wiring diagram: from the fields of an experiment, or of a checkpoint, to the model."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

from torch import nn

from actloc_core import backbones
from actloc_core import selection as selections
from actloc_core.classifier import ClipClassifier
from actloc_core.detr import DetrLocalizer
from actloc_core.model import ActionLocalizer
from actloc_core.structures import Backbone
from actloc_core.two_stage import TwoStageLocalizer

METHODS = ("single_stage", "two_stage", "detr", "classification")


def assemble(
    num_classes: int,
    *,
    method: str,
    backbone: str,
    frames: int,
    crop: int,
    last_pool: bool,
    drop_path: float,
    selection: str,
    dim: int,
    anchor: str,
    frame_embedding: bool,
    queries: int,
    encoder_layers: int,
    decoder_layers: int,
    checkpointing: bool,
    dropout: float = 0.0,
) -> nn.Module:
    """A model that returns `Predictions`, its weights drawn from torch's seed.

    Called with a clip, (B, 3, frames, crop, crop) or of another size that the strides divide; a
    TwoStageLocalizer also with the boxes of each clip. backbone and selection are names of functions in
    `actloc_core.backbones` and `actloc_core.selection`; queries and layers are the encoder-decoder's, dropout
    the two-stage baseline's.
    Raises ValueError for a name that there is not.
    """
    body: Backbone = _named(backbones, backbone)(
        frames=frames, crop=crop, last_pool=last_pool, drop_path=drop_path
    )
    body.checkpointing = checkpointing
    if method == "two_stage":
        return TwoStageLocalizer(body, num_classes=num_classes, dropout=dropout)
    if method == "classification":
        return ClipClassifier(body, num_classes=num_classes)
    if method == "detr":
        return DetrLocalizer(
            body,
            num_classes=num_classes,
            dim=dim,
            queries=queries,
            encoder_layers=encoder_layers,
            decoder_layers=decoder_layers,
            heads=max(dim // 32, 1),  # 8 at DETR's 256
            feedforward=8 * dim,  # 2048
        )
    if method != "single_stage":
        raise ValueError(f"unknown method {method!r}; known are {', '.join(METHODS)}")
    _named(selections, selection)
    # Frames that give actor tokens. All our backbones halve the frames of a clip.
    embedded = {"two_c_t": 2, "singleton": frames // 2}.get(selection, 1)
    return ActionLocalizer(
        body,
        selection=selection,
        num_classes=num_classes,
        dim=dim,
        anchor=anchor,
        frame_embedding=embedded if frame_embedding else 0,
    )


FIELDS = tuple(inspect.signature(assemble).parameters)[1:]
"""The fields of an experiment that its model follows from."""


def _named(module: ModuleType, name: str) -> Callable[..., Any]:
    """A public function of this package by its name, which may come out of a file."""
    known = {key: value for key, value in vars(module).items() if inspect.isfunction(value) and key[0] != "_"}
    if name not in known:
        raise ValueError(f"{module.__name__} has no {name!r}; known are {', '.join(known)}")
    return known[name]
