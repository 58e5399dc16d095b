"""The paper's tables as data: each row is one Experiment, a value that alone decides its run.

`TABLES` holds the rows at the paper's size; `rows_at("tiny")` are the same rows on a laptop. A row
says only how it differs from OURS, and a misspelt field stops at import.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache, cached_property
from types import MappingProxyType, NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

SCALES = ("smoke", "tiny", "paper")
INFERENCE_FIELDS = ("theta", "score", "nms_iou", "boxes")
"""Inference-only fields: rows that differ in these alone share one training."""

LATER_FIELDS = ("leave_out_missing", "mirrored", "own")
"""Fields that were added later: where they are off, a row has the hash that it had before."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One trained and scored model. The defaults are the paper's full method and recipe."""

    # data
    dataset: str = "ava"  # or ucf24, jhmdb, kinetics, and the synthetic_ ones of these shapes
    own: str | None = None  # the name of own data that have this dataset's form
    split: int = 1  # of JHMDB's three; a result is their mean
    keyframe_stride: int = 1  # UCF101-24, JHMDB: train on every n-th annotated frame; not given
    frames: int = 16
    stride: int = 4
    crop: int = 256
    leave_out_missing: bool = False  # train and score without the videos that are not there
    short_sides: tuple[int, int] | None = None  # Table 2c's variable aspect ratio: (240, 340)
    # model
    # or a baseline: two_stage (RoI align), detr (encoder-decoder); or classification, of kinetics
    method: str = "single_stage"
    backbone: str = "mvitv2_s"
    weights: str | None = "mvitv2_s_k400"  # a file's name in --weights, or TRAINING and a training's hash
    last_pool: bool = False
    drop_path: float = 0.2  # not given; the Kinetics recipe's
    selection: str = "two_c_t"
    dim: int = 512
    anchor: str = "centre"
    frame_embedding: bool = False
    queries: int = 100  # these three of DETR's: its own sizes
    encoder_layers: int = 6
    decoder_layers: int = 6
    dropout: float = 0.0  # before the classifier of the two-stage baseline; not given
    train_boxes: str = "ground_truth"  # of the same: what it is trained on; or both, the detector's too
    # matching and loss, Eqs. 3 and 4
    l1: float = 5.0
    giou: float = 2.0
    actor: float = 2.0
    action: float = 6.0
    match_action: float = 1.0
    tie_break: float = 0.0  # `CostWeights`'
    action_sum: bool = False  # Eq. 4 prints a sum over classes; the mean, as EVAD
    eos_coef: float = 0.1
    # training
    epochs: float = 25
    warmup_epochs: float = 2  # not given
    batch: int = 16
    lr: float = 1e-4
    head_lr: float = 1.0  # factor of lr for all but the backbone; not given, EVAD's is 8
    action_prior: float | None = None  # p(a) of every action before the first step; not given, EVAD's is 0.01
    weight_decay: float = 1e-4
    clip_norm: float = 1.0  # not given
    flip: float = 0.5  # not given
    # classes that a flip exchanges, as JSON: '{"to the left": "to the right"}'; None: dataset.json's
    mirrored: str | None = None
    colour: float = 0.4  # "colour augmentation", strength not given
    box_jitter: float = 0.05  # "jitter", size not given
    ema: float | None = None  # the decay of a moving average of the weights, which is then scored
    # how training is computed
    bf16: bool = True  # on a GPU; a CPU computes in float32
    accumulate: int = 1  # micro-batches of a batch: less memory, the same step
    checkpointing: bool = False  # blocks are recomputed in the backward pass: less memory
    compile: bool = False  # torch.compile
    seed: int = 0
    # inference
    theta: float = 0.2
    score: str = "action"
    nms_iou: float | None = None  # a diagnostic: the method needs no suppression
    boxes: str = "detector"  # of the two-stage baseline: a person-box file's, or ground_truth

    @cached_property
    def hash(self) -> str:
        """Names the run: equal experiments are run once, in however many tables they stand."""
        return _hash(self._values())

    @cached_property
    def training_hash(self) -> str:
        """Names the training: that of every experiment that differs in INFERENCE_FIELDS alone."""
        return _hash({name: value for name, value in self._values().items() if name not in INFERENCE_FIELDS})

    def _values(self) -> dict[str, object]:
        # `dataclasses.asdict` would copy deeply; a report asks for thousands of hashes.
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if name not in LATER_FIELDS or value}


def _hash(values: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


TRAINING = "training/"
"""Experiment.weights = TRAINING + a training's hash: initialised from that training's backbone."""

OURS = Experiment()
TWO_STAGE = replace(OURS, method="two_stage", crop=224, last_pool=True)
HIERA_L = replace(OURS, backbone="hiera_l", weights="hiera_l_k400")
# What the paper starts from, as published weights; this trains such weights from Kinetics itself, by the
# schedule of PySlowFast's MVITv2_S_16x4: 1e-4 for a batch of 16 videos, each read twice, so 4e-4 for 128
# clips; 200 epochs of two clips a video are 80 of our five, 30 of warm-up are 12. Without its RandAugment,
# random erasing, mixup, label smoothing and dropout. It was never run at this size.
PRETRAINING = Experiment(
    dataset="kinetics",
    method="classification",
    weights=None,
    crop=224,
    last_pool=True,
    epochs=80,
    warmup_epochs=12,
    batch=128,
    lr=4e-4,
    weight_decay=0.05,
    box_jitter=0.0,
)

TABLES: dict[str, dict[str, Experiment]] = {
    "pretraining": {
        "mvitv2_s": PRETRAINING,
        "hiera_l": replace(PRETRAINING, backbone="hiera_l"),
    },
    "2a": {
        "two_stage": TWO_STAGE,
        # Not in the paper: what perfect boxes are worth, an upper bound.
        "two_stage_true_boxes": replace(TWO_STAGE, boxes="ground_truth"),
        "224_7": replace(OURS, crop=224, last_pool=True),
        "224_14": replace(OURS, crop=224),
        "256_8": replace(OURS, last_pool=True),
        "256_16": OURS,
    },
    "2b": {
        "singleton": replace(OURS, selection="singleton"),
        "tubelet": replace(OURS, selection="tubelet"),
        "c_t": replace(OURS, selection="c_t"),
        "max_pooling": replace(OURS, selection="max_pooling"),
        "two_c_t": OURS,
        # Not in the paper: see `ActionLocalizer`'s frame_embedding.
        "two_c_t_frame_embedding": replace(OURS, frame_embedding=True),
    },
    "2c": {
        "variable": replace(OURS, short_sides=(240, 340)),
        "fixed": OURS,
    },
    "fig1": {
        # DETR converges slowly: it gets twice the epochs, and its own clipping of gradients.
        "detr": replace(OURS, method="detr", dim=256, epochs=50, clip_norm=0.1),
        "ours": OURS,
    },
    "3": {
        "mvitv2_s": OURS,
        "hiera_l": HIERA_L,
    },
    "4": {
        # UCF101-24 has some 340,000 annotated training frames, neighbours much alike; not given.
        "ucf24": replace(OURS, dataset="ucf24", keyframe_stride=4),
        "jhmdb_1": replace(OURS, dataset="jhmdb", split=1),
        "jhmdb_2": replace(OURS, dataset="jhmdb", split=2),
        "jhmdb_3": replace(OURS, dataset="jhmdb", split=3),
    },
    # Beyond the paper: its open choices (most change one field).
    "ours": {
        "two_c_t": OURS,
        "two_c_t_frame_embedding": replace(OURS, frame_embedding=True),
        "singleton": replace(OURS, selection="singleton"),
        "singleton_frame_embedding": replace(OURS, selection="singleton", frame_embedding=True),
        # The two-stage baseline as PySlowFast trains it on AVA.
        "two_stage_both_boxes": replace(TWO_STAGE, train_boxes="both", dropout=0.5),
        # What pre-training is worth, and the frame embedding without it.
        "drawn_weights": replace(OURS, weights=None),
        "drawn_weights_frame_embedding": replace(OURS, weights=None, frame_embedding=True),
        "two_c_t_nms": replace(OURS, nms_iou=0.5),
        "two_c_t_frame_embedding_nms": replace(OURS, frame_embedding=True, nms_iou=0.5),
        "singleton_nms": replace(OURS, selection="singleton", nms_iou=0.5),
        "eos_0.05": replace(OURS, eos_coef=0.05),
        "eos_0.3": replace(OURS, eos_coef=0.3),
        "eos_1": replace(OURS, eos_coef=1.0),
        "match_action_0": replace(OURS, match_action=0.0),
        "match_action_6": replace(OURS, match_action=6.0),
        # What may tell candidates apart that are alike: a tie-break in the matching, twice the training.
        "tie_break_0.2": replace(OURS, tie_break=0.2),
        "tie_break_1": replace(OURS, tie_break=1.0),
        "epochs_50": replace(OURS, epochs=50),
        "action_sum": replace(OURS, action_sum=True),
        "action_prior_0.01": replace(OURS, action_prior=0.01),
        "head_lr_8": replace(OURS, head_lr=8.0),
        "anchor_corner": replace(OURS, anchor="corner"),
        "anchor_none": replace(OURS, anchor="none"),
        "score_action": replace(OURS, score="action"),
        "score_product": replace(OURS, score="product"),
        "theta_0.02": replace(OURS, theta=0.02),
        "theta_0.05": replace(OURS, theta=0.05),
        "theta_0.1": replace(OURS, theta=0.1),
        "theta_0.2": replace(OURS, theta=0.2),
        "theta_0.3": replace(OURS, theta=0.3),
        "theta_0.5": replace(OURS, theta=0.5),
        "theta_0.7": replace(OURS, theta=0.7),
    },
}
"""Table -> row -> Experiment. A row's full name is "table/row"."""

INITIAL_ROWS = {"mvitv2_s_k400": "pretraining/mvitv2_s", "hiera_l_k400": "pretraining/hiera_l"}
"""Published weights -> the row whose trained backbone stands for them in the small rows."""

DEFAULT = tuple(table for table in TABLES if table not in ("pretraining", "ours"))
"""The tables that are run when none is named: the paper's. Small rows bring their pre-training along."""

ROWS: dict[str, Experiment] = {
    f"{table}/{row}": exp for table, rows in TABLES.items() for row, exp in rows.items()
}


SET = " --set "
"""Between a scale's size and the fields that are set in all of its rows, as on a command line."""


def scale_of(size: str, settings: Sequence[str]) -> str:
    """A scale with fields set in every row: ("paper", ["batch=8"]) -> "paper --set batch=8".

    Raises ValueError for a field that an Experiment does not have, and for a value that is not of its type.
    """
    for setting in settings:
        parse_setting(setting)
    return SET.join([size, *settings])


def size_of(scale: str) -> str:
    """A scale without its settings, one of SCALES."""
    return scale.partition(SET)[0]


def parse_setting(text: str) -> tuple[str, object]:
    """FIELD=VALUE -> field and value. Raises ValueError for another field or a value of another type."""
    field, equals, value = text.partition("=")
    kinds = get_type_hints(Experiment)
    if not equals or field not in kinds:
        near = ", ".join(difflib.get_close_matches(field, kinds, 3, 0)) or ", ".join(kinds)
        raise ValueError(f"--set {text}: write FIELD=VALUE; nearest fields: {near}")
    if field == "seed":
        raise ValueError(f"--set {text}: every row runs from the seeds of --seeds")
    default = getattr(OURS, field)
    kind = kinds[field]
    kinds_of_field = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    for one in sorted(kinds_of_field, key=lambda one: one is not NoneType):  # "none" is a str, too
        try:
            return field, _value(value, one)
        except ValueError:
            continue
    kind_name = kind.__name__ if isinstance(kind, type) else str(kind)
    raise ValueError(
        f"--set {text}: {field} is of type {kind_name}, such as {default}; "
        "whole numbers are at least 1, others at least 0"
    )


def _value(text: str, kind: Any) -> object:
    """A value of a type from its text. Raises ValueError for another text."""
    if kind is NoneType:
        if text != "none":
            raise ValueError(text)
        return None
    if kind is bool:
        if text not in ("true", "false"):
            raise ValueError(text)
        return text == "true"
    if get_origin(kind) is tuple:
        low, high = (int(part) for part in text.split(","))
        if not 0 < low <= high:
            raise ValueError(text)
        return low, high
    value = kind(text)
    if kind is not str and not (value >= (1 if kind is int else 0) and value < math.inf):
        raise ValueError(text)
    return value


@cache
def rows_at(scale: str, *, seed: int = 0) -> Mapping[str, Experiment]:
    """Every row at this scale, by its full name, with this seed. scale: one of SCALES, or of `scale_of`.

    No scale changes the theta, score or relative epochs that a row of the table "ours" ablates.
    """
    rows = {}
    size, *settings = scale.split(SET)
    fields_set: dict[str, Any] = dict(parse_setting(setting) for setting in settings)
    for name, exp in ROWS.items():
        exp = replace(exp, seed=seed)
        scaled = at_scale(exp, size)
        for field in ("theta", "score"):
            if name.startswith(f"ours/{field}_"):
                scaled = replace(scaled, **{field: getattr(exp, field)})
        if name.startswith("ours/epochs_"):
            scaled = replace(scaled, epochs=scaled.epochs * exp.epochs / OURS.epochs)
        rows[name] = replace(scaled, **fields_set)
    return MappingProxyType(rows)


def at_scale(exp: Experiment, scale: str) -> Experiment:
    """The same row at another size: "paper" leaves it, "tiny" makes it a few CPU minutes.

    Tiny takes a small instance of the same backbone's class, the synthetic benchmark of the dataset's
    shape, the weights of the small pre-training of that backbone, and a recipe of its own. What a row
    ablates is kept: method, selection, last pool, frame embedding, resolution, seed. "smoke" is tiny cut to
    a few steps and clips: it tests the whole command in minutes, and its numbers mean nothing.
    Raises ValueError for a scale not in SCALES.
    """
    if scale not in SCALES:
        raise ValueError(f"scale must be one of {', '.join(SCALES)}; got {scale!r}")
    if scale == "paper":
        return exp
    tiny = replace(
        exp,
        dataset=f"synthetic_{exp.dataset}",
        frames=8,
        stride=2,
        crop=exp.crop // 4,
        short_sides=None if exp.short_sides is None else (exp.short_sides[0] // 4, exp.short_sides[1] // 4),
        backbone={"mvitv2_s": "mvitv2_tiny", "hiera_l": "hiera_tiny"}[exp.backbone],
        drop_path=0.0,
        dim=64,
        queries=64,
        encoder_layers=1,
        decoder_layers=2,
        epochs=1.8,
        warmup_epochs=0.25,
        batch=8,
        lr=1.5e-3,
        head_lr=3.0 if exp.head_lr == 1 else exp.head_lr,
        weight_decay=1e-4,
        colour=0.0,
        theta=0.02,
        score="product",
    )
    if exp.weights is not None:
        # One pre-training for all seeds, as the paper's rows share the published weights. Weights that no row
        # stands for are drawn: published files do not fit a small network.
        weights = None
        if exp.weights in INITIAL_ROWS:
            initial = at_scale(replace(ROWS[INITIAL_ROWS[exp.weights]], seed=0), scale)
            weights = TRAINING + initial.training_hash
        tiny = replace(tiny, weights=weights)
    tiny = replace(tiny, **_schedule(exp))
    if scale == "tiny":
        return tiny
    return replace(tiny, dataset=f"{tiny.dataset}_smoke", epochs=2, warmup_epochs=0.5, batch=16)


def _schedule(exp: Experiment) -> dict[str, Any]:
    """What a tiny row has of its own beside what it ablates: docs/small_recipe.md."""
    if exp.method == "classification":
        own: dict[str, Any] = {"epochs": 3.5, "head_lr": 1.0}
    elif exp.method == "detr":  # learns more slowly, here too
        own = {"epochs": 2.5, "head_lr": 1.0, "clip_norm": 1.0}
    elif exp.backbone == "hiera_l":  # and so does this
        own = {"epochs": 2.5, "lr": 1e-3}
    elif exp.dataset != "ava":
        own = {"epochs": 3, "keyframe_stride": 8}
    else:
        own = {}
    return own | ({"crop": 64} if exp.backbone == "hiera_l" else {})  # a mask unit is 16 pixels wide


def choose(only: Sequence[str] = (), rows: Sequence[str] = ()) -> list[str]:
    """Full names of rows, in the order of the tables.

    only: tables ("2b") or rows ("2b/tubelet"); none means the paper's tables, DEFAULT.
    rows: of these, keep only rows with these names, "tubelet" or "2b/tubelet"; none means all.
    Raises ValueError naming the nearest known names for an unknown one.
    """
    for name in only:
        if name not in TABLES and name not in ROWS:
            raise ValueError(f"unknown table or row {name!r}; nearest: {_nearest(name, TABLES)}")
    chosen = [row for row in ROWS if row.split("/")[0] in (only or DEFAULT) or row in only]
    for name in rows:
        if not any(name in (row, row.split("/")[1]) for row in chosen):
            where = f" in {', '.join(only)}" if only else ""
            raise ValueError(f"unknown row {name!r}{where}; nearest: {_nearest(name, chosen)}")
    return [row for row in chosen if not rows or row in rows or row.split("/")[1] in rows]


def _nearest(name: str, among: Iterable[str]) -> str:
    """The three known names most like this one, whole or without the table's part."""
    known = list(dict.fromkeys([*among, *ROWS]))
    bare = name.split("/")[-1]

    def similarity(other: str) -> float:
        return max(
            difflib.SequenceMatcher(None, name, other).ratio(),
            difflib.SequenceMatcher(None, bare, other.split("/")[-1]).ratio(),
        )

    return ", ".join(sorted(known, key=similarity, reverse=True)[:3])
