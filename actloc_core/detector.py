"""Run a trained model on frames: `ActionDetector("out/runs/0123456789ab")(frames)`.

A checkpoint is complete: it holds the model's fields, the class names and the clip format beside the weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from actloc_core.assemble import FIELDS, assemble
from actloc_core.checkpoints import CheckpointError, find_weights, read
from actloc_core.model import keep_actors
from actloc_core.pixels import normalise, size_for, to_tensor
from actloc_core.structures import backbone_of

FORMAT = 1
"""Version of the checkpoint format that is written and read here."""
CHECKPOINT_FILE = "checkpoint.pt"
SHIPPED = Path(__file__).parent / "shipped"
"""The folder of the small trained model that comes with the package, and of its test video."""
SHIPPED_VIDEO = SHIPPED / "synthetic.mp4"
SHIPPED_MODEL = "tiny"
"""The name of that model where a checkpoint is asked for."""


def pack_checkpoint(
    model: nn.Module, experiment: Mapping[str, Any], classes: Mapping[int, str], *, fps: float
) -> dict[str, Any]:
    """Build the content of a checkpoint: the weights and everything needed to use them.

    experiment: its fields. classes: action id -> name, in the order of the logits. fps: the frame rate
    that the stride of its clips refers to.
    """
    return {
        "format": FORMAT,
        "experiment": dict(experiment),
        "classes": dict(classes),
        "fps": fps,
        "model": model.state_dict(),
    }


@dataclass(frozen=True)
class Actor:
    """One detected actor at a clip's keyframe."""

    box: tuple[float, float, float, float]
    """xyxy, fractions of the frame's width and height."""
    p_actor: float
    """p(alpha)."""
    actions: dict[str, float]
    """Score in [0, 1] of every class of the model, by name, the highest first."""


@dataclass(frozen=True)
class TrainedModel:
    """The content of a checkpoint, with the model built and its weights loaded."""

    model: nn.Module
    experiment: dict[str, Any]
    classes: dict[int, str]
    """Action id -> name, in the order of the logits."""
    fps: float
    file: Path


class ActionDetector:
    """A trained model that detects actors in clips. Two-stage models, which need boxes, are refused.

    checkpoint: a file, the folder of a training, or the folder of a run; see `find_checkpoint`.
    device: "cpu", "cuda", "cuda:1", ...; None takes a GPU if available. half: compute in bfloat16 where
    it is safe (autocast). compile: torch.compile, which takes a minute at the first clip.
    Raises CheckpointError, FileNotFoundError, or ValueError for a device that is not available.

    Its clips have `frames` frames, `stride` / `fps` seconds apart, the keyframe at index frames // 2.
    `classes` maps action ids to names.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        *,
        device: str | torch.device | None = None,
        half: bool = False,
        compile: bool = False,
    ) -> None:
        trained = load_checkpoint(Path(checkpoint))
        exp = trained.experiment
        if exp["method"] == "two_stage":
            raise CheckpointError(
                f"{trained.file} is a two-stage model, which classifies given boxes and detects no actors "
                "itself: use a checkpoint whose method is single_stage or detr"
            )
        self.device = resolve_device(device)
        self.half = half
        self.model = trained.model.to(self.device).eval()
        self._forward = torch.compile(self.model) if compile else self.model
        self.file, self.classes = trained.file, trained.classes
        self.fps = trained.fps
        self.frames, self.stride, self.crop = int(exp["frames"]), int(exp["stride"]), int(exp["crop"])
        self.score = str(exp["score"])
        self.keeps_aspect = exp["short_sides"] is not None

    def __call__(
        self,
        frames: NDArray[np.uint8] | Sequence[NDArray[np.uint8]],
        *,
        fps: float | None = None,
        keyframe: int | None = None,
        theta: float = 0.2,
    ) -> list[Actor]:
        """Detect the actors at a keyframe: those with p(alpha) > theta, the highest first.

        frames: (n, H, W, 3) uint8 RGB. Without `fps` they are one clip: n = `self.frames`, `self.stride` /
            `self.fps` seconds apart. With `fps` they are a video of that constant frame rate and any length;
            the clip around frame `keyframe`, by default the middle one, is taken, with edge frames repeated.
        Raises ValueError for another shape, type or number of frames.
        """
        video = np.asarray(frames)
        if video.ndim != 4 or video.shape[-1] != 3 or video.dtype != np.uint8 or 0 in video.shape:
            raise ValueError(
                f"frames must be (n, height, width, 3) uint8 RGB, got {video.shape} {video.dtype}"
            )
        if fps is None:
            if len(video) != self.frames or keyframe not in (None, self.frames // 2):
                raise ValueError(
                    f"a clip of this model is {self.frames} frames, {self.stride / self.fps:.4g} s apart, "
                    f"with the keyframe at {self.frames // 2}; got {len(video)}. For a video of any length "
                    "give its frame rate, fps=..., and the clip is taken from it"
                )
            clip = video
        else:
            middle = len(video) // 2 if keyframe is None else keyframe
            if not 0 <= middle < len(video) or not fps > 0:
                raise ValueError(f"no keyframe {middle} in {len(video)} frames, or no frame rate: {fps}")
            offsets = (np.arange(self.frames) - self.frames // 2) * self.stride * fps / self.fps
            indices = middle + np.round(offsets).astype(int)
            clip = video[np.clip(indices, 0, len(video) - 1)]
        return self.batch([clip], theta=theta)[0]

    @torch.no_grad()
    def batch(self, clips: Sequence[NDArray[np.uint8]], *, theta: float = 0.2) -> list[list[Actor]]:
        """Detect the actors of several clips, (self.frames, H, W, 3) uint8 RGB of one size, in one pass."""
        size = self.size(*clips[0].shape[1:3])
        by = backbone_of(self.model).normalisation
        inputs = torch.stack([normalise(to_tensor(clip, size), by) for clip in clips]).to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            predictions = self._forward(inputs)
        detections = keep_actors(predictions, theta=theta, score=self.score)
        names = list(self.classes.values())
        actors: list[list[Actor]] = [[] for _ in clips]
        clip_of, p_actor = detections.clip.tolist(), detections.p_actor.tolist()
        for i in np.argsort([-p for p in p_actor], kind="stable"):
            scores = dict(zip(names, detections.scores[i].tolist(), strict=True))
            ranked = dict(sorted(scores.items(), key=lambda item: -item[1]))
            x1, y1, x2, y2 = detections.boxes[i].tolist()
            actors[clip_of[i]].append(Actor((x1, y1, x2, y2), p_actor[i], ranked))
        return actors

    def size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) that frames of this size are resized to, the same as in evaluation."""
        if not self.keeps_aspect:
            return self.crop, self.crop
        return size_for(height, width, short_side=self.crop, multiple=backbone_of(self.model).side_multiple)


def resolve_device(name: str | torch.device | None) -> torch.device:
    """Return the device of this name; None: a GPU if available. ValueError: it is not available."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch raises any of these
        reason = str(error).splitlines()[0]
        raise ValueError(f"no device {str(name)!r} here ({reason}); cpu is always available") from error
    return device


def find_checkpoint(path: Path) -> tuple[Path, dict[str, Any]]:
    """Find a checkpoint file; -> it, and a run's inference-only fields, which override its own.

    path: a file; OUT/trainings/<hash>; OUT/runs/<hash>, whose result.json names its training; or "tiny", the
        shipped model, unless there is a file or folder of that name.
    Raises FileNotFoundError naming what is missing, CheckpointError for a result.json that is no run's.
    """
    if path.is_file():
        return path, {}
    if not path.exists():
        if str(path) == SHIPPED_MODEL:
            return SHIPPED / CHECKPOINT_FILE, {}
        raise FileNotFoundError(
            f"{path}: no such checkpoint, run or training; {SHIPPED_MODEL} is the shipped model"
        )
    if (path / CHECKPOINT_FILE).is_file():
        return path / CHECKPOINT_FILE, {}
    result = path / "result.json"
    if not result.is_file():
        raise FileNotFoundError(
            f"{path}: neither a run (result.json) nor a training ({CHECKPOINT_FILE}); give OUT/runs/<hash>, "
            "OUT/trainings/<hash> or a file"
        )
    try:
        fields = json.loads(result.read_text())
        training, score = str(fields["training"]), str(fields["experiment"]["score"])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{result}: not a run's result ({error!r})") from error
    file = path.parent.parent / "trainings" / Path(training).name / CHECKPOINT_FILE
    if not file.is_file():
        raise FileNotFoundError(
            f"{file}: the checkpoint of {path} is missing; run the experiment again, or with --fresh"
        )
    return file, {"score": score}


def load_checkpoint(path: Path) -> TrainedModel:
    """Load the model of a checkpoint, in evaluation mode on the CPU. Nothing in the file is executed.

    path: see `find_checkpoint`.
    Raises FileNotFoundError, or CheckpointError saying what the file is instead and what to do.
    """
    file, overrides = find_checkpoint(path)
    content = read(file)
    if not isinstance(content, Mapping) or "format" not in content:
        raise CheckpointError(_describe_other_file(file, content))
    if content["format"] != FORMAT:
        raise CheckpointError(
            f"{file} has format {content['format']!r}, this actloc reads format {FORMAT}: use the version "
            "that wrote it, or train again"
        )
    try:
        exp = {**content["experiment"], **overrides}
        classes = {int(number): str(name) for number, name in content["classes"].items()}
        fps, fields = float(content["fps"]), _model_fields(exp)
        for name in ("frames", "stride", "crop"):
            if not (isinstance(exp[name], int) and 0 < exp[name] <= 10_000):
                raise ValueError(f"{name} is {exp[name]!r}")
        if not (0 < fps < 10_000 and classes and exp["score"] in ("action", "product")):
            raise ValueError(f"fps is {fps}, score {exp['score']!r}, with {len(classes)} classes")
        exp.setdefault("short_sides", None)
        # The random initial weights are replaced; the caller's generator must not notice them.
        with torch.random.fork_rng(devices=[]):
            model = assemble(len(classes), **fields)
        model.load_state_dict(content["model"])
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        lines = [line.strip() for line in str(error).splitlines()]
        reason = " ".join(lines[:3]) + (f" (and {len(lines) - 3} more)" if len(lines) > 3 else "")
        raise CheckpointError(
            f"{file} does not describe a model that this actloc builds ({type(error).__name__}: {reason}); "
            "train again, or use the version that wrote it"
        ) from error
    return TrainedModel(model.eval(), exp, classes, fps, file)


def _model_fields(exp: dict[str, Any]) -> dict[str, Any]:
    """The experiment's fields that `assemble` takes. ValueError names a missing or mistyped one."""
    hints = get_type_hints(assemble)
    exp = {"dropout": 0.0} | exp  # what checkpoints of before this field had
    for name in FIELDS:
        expected = hints[name]
        types = (int, float) if expected is float else (expected,)
        if name not in exp or type(exp[name]) not in types:
            raise ValueError(f"experiment's {name} is {exp.get(name)!r}, not {expected.__name__}")
    return {name: exp[name] for name in FIELDS}


def _describe_other_file(file: Path, content: Any) -> str:
    """Error message for a file that is no checkpoint of a trained model."""
    keys = set(content) if isinstance(content, Mapping) else set()
    if {"optimizer", "generators"} <= keys:
        return f"{file} is the state of an unfinished training; wait for its {CHECKPOINT_FILE}"
    if {"experiment", "origin", "model"} <= keys:
        return f"{file} was written by an older actloc and lacks format, classes and fps; train again"
    try:
        find_weights(content, str(file))
    except CheckpointError as error:
        return str(error)
    return (
        f"{file} holds weights alone, such as a backbone's, and no trained detector: use it to initialise a "
        "training (nox -s ablations -- --weights NAME=FILE)"
    )
