"""A trained model on frames: `ActionDetector("out/runs/0123456789ab")(frames)`.

The checkpoint alone says what the model is, what its classes are called and what clips it is for.
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
from actloc_core.pixels import normalise, size_for, size_multiple, to_tensor

FORMAT = 1
"""Of the checkpoints that this version writes and reads."""
FILE = "checkpoint.pt"


def packed(
    model: nn.Module, experiment: Mapping[str, Any], classes: Mapping[int, str], *, fps: float
) -> dict[str, Any]:
    """What a checkpoint holds: the weights, and all that it takes to use them.

    experiment: its fields. classes: action id -> name, in the order of the logits. fps: the rate that the
    stride of its clips counts in.
    """
    said = {"experiment": dict(experiment), "classes": dict(classes), "fps": fps}
    return {"format": FORMAT, **said, "model": model.state_dict()}


@dataclass(frozen=True)
class Actor:
    """Somebody at a clip's keyframe."""

    box: tuple[float, float, float, float]
    """xyxy, fractions of the frame's width and height."""
    p_actor: float
    """p(alpha)."""
    actions: dict[str, float]
    """Every class of the model and its score in [0, 1], the highest first."""


@dataclass(frozen=True)
class Trained:
    """What a checkpoint holds, the model built and filled."""

    model: nn.Module
    experiment: dict[str, Any]
    classes: dict[int, str]
    """Action id -> name, in the order of the logits."""
    fps: float
    file: Path


class ActionDetector:
    """A checkpoint's model, ready for clips. Not for two-stage models, which are asked about boxes.

    checkpoint: a file, the folder of a training, or that of a run, see `load_trained`.
    device: "cpu", "cuda", "cuda:1", ...; None takes a GPU where there is one. half: compute in bfloat16
    where it is safe (autocast). compile: torch.compile, which takes a minute at the first clip.
    Raises CheckpointError, FileNotFoundError, or ValueError for a device that is not there.

    Its clips have `frames` frames, `stride` / `fps` seconds apart, the keyframe at index frames // 2.
    `classes` are its actions: id -> name.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        *,
        device: str | torch.device | None = None,
        half: bool = False,
        compile: bool = False,
    ) -> None:
        trained = load_trained(Path(checkpoint))
        exp = trained.experiment
        if exp["method"] == "two_stage":
            raise CheckpointError(
                f"{trained.file} is a two-stage model, which says what the people in given boxes do and "
                "finds nobody itself: take one whose method is single_stage or detr"
            )
        self.device = chosen_device(device)
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
        """Who is there at the keyframe, and what they do; the surest first, p(alpha) > theta.

        frames: (n, H, W, 3) uint8 RGB. Without `fps` they are the clip, n = `self.frames` of them,
            `self.stride` / `self.fps` seconds apart. With it they are a video of that constant rate, any
            number of frames, of which the clip around frame `keyframe`, or the middle one, is taken; edge
            frames are repeated.
        Raises ValueError for another shape, type or number.
        """
        video = np.asarray(frames)
        if video.ndim != 4 or video.shape[-1] != 3 or video.dtype != np.uint8 or 0 in video.shape:
            raise ValueError(f"frames are (n, height, width, 3) uint8 RGB, not {video.shape} {video.dtype}")
        if fps is None:
            if len(video) != self.frames or keyframe not in (None, self.frames // 2):
                raise ValueError(
                    f"a clip of this model is {self.frames} frames, {self.stride / self.fps:.4g} s apart, "
                    f"with the keyframe at {self.frames // 2}; got {len(video)}. Of a video of any length, "
                    "give its rate, fps=..., and the clip is taken from it"
                )
            clip = video
        else:
            middle = len(video) // 2 if keyframe is None else keyframe
            if not 0 <= middle < len(video) or not fps > 0:
                raise ValueError(f"no keyframe {middle} in {len(video)} frames, or no rate: {fps}")
            offsets = (np.arange(self.frames) - self.frames // 2) * self.stride * fps / self.fps
            moved = np.round(offsets).astype(int)
            clip = video[np.clip(middle + moved, 0, len(video) - 1)]
        return self.batch([clip], theta=theta)[0]

    @torch.no_grad()
    def batch(self, clips: Sequence[NDArray[np.uint8]], *, theta: float = 0.2) -> list[list[Actor]]:
        """The same of several clips, (self.frames, H, W, 3) uint8 RGB of one size, in one pass."""
        size = self.size(*clips[0].shape[1:3])
        given = torch.stack([normalise(to_tensor(clip, size)) for clip in clips]).to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            predictions = self._forward(given)
        found = keep_actors(predictions, theta=theta, score=self.score)
        names = list(self.classes.values())
        people: list[list[Actor]] = [[] for _ in clips]
        places, p_actor = found.clip.tolist(), found.p_actor.tolist()
        for i in np.argsort([-p for p in p_actor], kind="stable"):
            scores = dict(zip(names, found.scores[i].tolist(), strict=True))
            best = dict(sorted(scores.items(), key=lambda item: -item[1]))
            x1, y1, x2, y2 = found.boxes[i].tolist()
            people[places[i]].append(Actor((x1, y1, x2, y2), p_actor[i], best))
        return people

    def size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) that frames of this size are resized to for the model, as its evaluation does."""
        if not self.keeps_aspect:
            return self.crop, self.crop
        return size_for(height, width, short_side=self.crop, multiple=size_multiple(self.crop))


def chosen_device(name: str | torch.device | None) -> torch.device:
    """The device of this name, None: a GPU where there is one. ValueError where there is no such device."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch's ways of having none
        said = str(error).splitlines()[0]
        raise ValueError(f"no device {str(name)!r} here ({said}); cpu is always there") from error
    return device


def checkpoint_file(path: Path) -> tuple[Path, dict[str, Any]]:
    """The checkpoint that a path names, and the fields that a run's row asks it with.

    path: a file; OUT/trainings/<hash>; or OUT/runs/<hash>, whose result.json names its training.
    Raises FileNotFoundError saying what is missing, CheckpointError where result.json is no run's.
    """
    if path.is_file():
        return path, {}
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such checkpoint, run or training")
    if (path / FILE).is_file():
        return path / FILE, {}
    result = path / "result.json"
    if not result.is_file():
        raise FileNotFoundError(
            f"{path}: neither a run (result.json) nor a training ({FILE}); give OUT/runs/<hash>, "
            "OUT/trainings/<hash> or a file"
        )
    try:
        said = json.loads(result.read_text())
        training, score = str(said["training"]), str(said["experiment"]["score"])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{result}: not a run's result ({error!r})") from error
    file = path.parent.parent / "trainings" / Path(training).name / FILE
    if not file.is_file():
        raise FileNotFoundError(f"{file}: the trained model of {path} is gone; run it again, or with --fresh")
    return file, {"score": score}


def load_trained(path: Path) -> Trained:
    """The trained model of a checkpoint, in evaluation mode on the CPU. Nothing in the file is executed.

    path: see `checkpoint_file`.
    Raises FileNotFoundError, or CheckpointError saying what the file is instead and what to do.
    """
    file, asked = checkpoint_file(path)
    held = read(file)
    if not isinstance(held, Mapping) or "format" not in held:
        raise CheckpointError(_what_else(file, held))
    if held["format"] != FORMAT:
        raise CheckpointError(
            f"{file} has format {held['format']!r}, this actloc reads format {FORMAT}: use the version that "
            "wrote it, or train again"
        )
    try:
        exp = {**held["experiment"], **asked}
        classes = {int(number): str(name) for number, name in held["classes"].items()}
        fps, fields = float(held["fps"]), _model_fields(exp)
        for name in ("frames", "stride", "crop"):
            if not (isinstance(exp[name], int) and 0 < exp[name] <= 10_000):
                raise ValueError(f"{name} is {exp[name]!r}")
        if not (0 < fps < 10_000 and classes and exp["score"] in ("action", "product")):
            raise ValueError(f"fps is {fps}, score {exp['score']!r}, with {len(classes)} classes")
        exp.setdefault("short_sides", None)
        with torch.random.fork_rng(devices=[]):  # drawn weights, which the file's replace
            model = assemble(len(classes), **fields)
        model.load_state_dict(held["model"])
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        lines = [line.strip() for line in str(error).splitlines()]
        said = " ".join(lines[:3]) + (f" (and {len(lines) - 3} more)" if len(lines) > 3 else "")
        raise CheckpointError(
            f"{file} does not describe a model that this actloc builds ({type(error).__name__}: {said}); "
            "train again, or use the version that wrote it"
        ) from error
    return Trained(model.eval(), exp, classes, fps, file)


def _model_fields(exp: Mapping[str, Any]) -> dict[str, Any]:
    """The fields the model follows from, each of its type; ValueError naming one that is not."""
    hints = get_type_hints(assemble)
    for name in FIELDS:
        wanted = hints[name]
        kinds = (int, float) if wanted is float else (wanted,)
        if name not in exp or type(exp[name]) not in kinds:
            raise ValueError(f"experiment's {name} is {exp.get(name)!r}, not {wanted.__name__}")
    return {name: exp[name] for name in FIELDS}


def _what_else(file: Path, held: Any) -> str:
    """What a file without a format is, for a person."""
    keys = set(held) if isinstance(held, Mapping) else set()
    if {"optimizer", "generators"} <= keys:
        return f"{file} is the state of a training under way; wait for its {FILE}"
    if {"experiment", "origin", "model"} <= keys:
        return f"{file} was written by an older actloc, without what it takes to use it alone; train again"
    try:
        find_weights(held, str(file))
    except CheckpointError as error:
        return str(error)
    return (
        f"{file} holds weights alone, a backbone's perhaps, and no trained detector: it can be what a "
        "training begins with (nox -s ablations -- --weights NAME=FILE)"
    )
