"""The numbers that `benchmarks.regression` compares with their baselines."""

from __future__ import annotations

import gc
import time
import weakref
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from actloc_core.structures import Backbone
from actloc_core.two_stage import GivenBoxes
from benchmarks.context import RunContext
from benchmarks.experiments import OURS, ROWS, at_scale
from benchmarks.gates.contract import Subject
from benchmarks.inputs import make_synthetic
from benchmarks.score.evaluate import frame_ap
from benchmarks.score.predict import predict
from benchmarks.train.data import load_data
from benchmarks.train.gflops import count_instantly, parameters
from benchmarks.train.loop import fit, training_steps
from benchmarks.train.models import build_model
from benchmarks.train.state import new_state
from datasets.split import subsample
from evaluators.frame_map import Detections, EvalRules, GroundTruth, Protocol, frame_mAP
from evaluators.precision_recall import actor_precision_recall

EPOCHS = 1.0
"""Of the short trainings, of clips and of keyframes: a minute and a half together."""
CLIPS = 150
"""Validation keyframes that it is scored on."""
TURNS = 7


def of_model(subject: Subject) -> dict[str, float]:
    """Parameters, GFLOPs and peak memory of a step at its own size; of small ones the time of a step."""
    frames, crop = 16, subject.crop
    with torch.device("meta"):
        model = subject.make(frames=frames, crop=crop)
        clip = torch.empty(1, 3, frames, crop, crop)
        boxes = [GivenBoxes(torch.empty(10, 4), torch.empty(10))]
        given = (clip,) if isinstance(model, Backbone) else (clip, boxes)
        numbers = {"parameters": parameters(model), "gflops": count_instantly(model, *given)}
        numbers["peak_mib"] = peak_mib(model, *given)
    if subject.small:
        numbers["time_ratio"] = time_ratio(subject)
    return numbers


class _Held(TorchDispatchMode):
    """Adds up the storages that are alive, without caring what lies in them; `peak` is in bytes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self.seen: set[int] = set()

    def _free(self, key: int, size: int) -> None:
        self.now -= size
        self.seen.discard(key)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                key = storage._cdata
                if key not in self.seen:
                    self.seen.add(key)
                    self.now += storage.nbytes()
                    self.peak = max(self.peak, self.now)
                    weakref.finalize(storage, self._free, key, storage.nbytes())
        return out


def peak_mib(model: nn.Module, *given: Any) -> float:
    """MiB that a forward and a backward pass hold at most beside the weights, in float32, by counting.

    On the meta device, whose code paths are those of a GPU; what kernels need inside is not in it.
    """
    gc.collect()
    with _Held() as held:
        out = model(*given)
        tensors = [out] if isinstance(out, Tensor) else [out.boxes, out.actor_logits, out.action_logits]
        sum((t.sum() for t in tensors if t.requires_grad), torch.zeros((), device="meta")).backward()
    return held.peak / 2**20


def time_ratio(subject: Subject) -> float:
    """Seconds of a step, over those of a plain workload that is timed in turn with it."""
    torch.manual_seed(0)
    model, clip = subject.make(frames=16, crop=64), torch.randn(2, 3, 16, 64, 64)

    def step() -> None:
        out = model(*given)
        tensors = [out] if isinstance(out, Tensor) else [out.actor_logits, out.action_logits]
        sum((t.sum() for t in tensors if t.requires_grad), torch.zeros(())).backward()

    boxes = [GivenBoxes(torch.tensor([[0.5, 0.5, 0.4, 0.6]]), torch.ones(1))] * 2
    given = (clip,) if isinstance(model, Backbone) else (clip, boxes)
    return ratio(step, plain_workload())


def plain_workload() -> Callable[[], None]:
    """Products, a convolution, a softmax and a norm, forwards and backwards, of the size of a small step."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(1024, 256, generator=g)
    w = [torch.randn(256, 256, generator=g, requires_grad=True) for _ in range(4)]
    clip = torch.randn(2, 3, 16, 64, 64, generator=g)
    kernel = torch.randn(32, 3, 3, 8, 8, generator=g, requires_grad=True)

    def run() -> None:
        y = x
        for weight in w:
            y = F.gelu(F.layer_norm(y @ weight, (256,)))
        y = (y @ y.T).softmax(-1) @ y
        (y.sum() + F.conv3d(clip, kernel, stride=(2, 4, 4), padding=1).sum()).backward()

    return run


def in_turn(
    timed: Callable[[], object], plain: Callable[[], object], *, turns: int
) -> list[tuple[float, float]]:
    """Seconds of both, one after the other, turn by turn, after one turn to warm up."""
    taken = []
    for _ in range(turns + 1):
        began = time.perf_counter()
        timed()
        between = time.perf_counter()
        plain()
        taken.append((between - began, time.perf_counter() - between))
    return taken[1:]


def ratio(timed: Callable[[], object], plain: Callable[[], object]) -> float:
    """The median over turns of timed over plain."""
    return median(one / other for one, other in in_turn(timed, plain, turns=TURNS))


def trained(subject: Subject, out: Path, *, seeds: int) -> dict[str, float]:
    """The mAPs, in [0, 1], of short trainings with this backbone: means over seeds, and their noise.

    "clip_mAP": of a classifier on the synthetic Kinetics, from drawn weights; "mAP": of the method on the
    synthetic AVA, initialised from that, as the small rows are. Both are frame-mAPs; the box of a clip
    is the frame.
    """
    name, context = subject.name.removeprefix("backbone/"), RunContext(torch.device("cpu"), out)
    scores: dict[str, list[float]] = defaultdict(list)
    rows = (("clip_mAP", ROWS["pretraining/mvitv2_s"]), ("mAP", OURS))
    # The same size for both, so that the weights of one fit the other.
    exps = {
        what: replace(at_scale(row, "tiny"), backbone=name, crop=64, last_pool=False, epochs=EPOCHS)
        for what, row in rows
    }
    roots = {exp.dataset: make_synthetic(out / "data", exp.dataset) for exp in exps.values()}
    datas = {what: load_data(exp, roots) for what, exp in exps.items()}
    for seed in range(seeds):
        pretrained: dict[str, Tensor] = {}
        for what, exp in exps.items():
            data = datas[what]
            torch.manual_seed(seed)
            model = build_model(exp, len(data.train.classes))
            backbone = model.get_submodule("backbone")
            backbone.load_state_dict(pretrained or backbone.state_dict())
            steps, warmup = training_steps(exp, len(data.train))
            state = new_state(model, exp, steps=steps, warmup=warmup)
            fit(state, data.train, replace(exp, seed=seed), context)
            pretrained = backbone.state_dict()
            val = subsample(data.val, CLIPS)
            scores[what].append(frame_ap(val, predict(model, val, exp, context), "standard").mAP)
    numbers = {what: mean(values) for what, values in scores.items()}
    if seeds > 1:
        numbers |= {f"{what}_std": stdev(values) for what, values in scores.items()}
    return numbers


def evaluators() -> dict[str, dict[str, float]]:
    """The numbers of every protocol on a task on which no two agree, and the time over a plain loop's."""
    gt, detections, persons, excluded = task()
    classes = {i: f"class {i}" for i in range(1, 12)}  # the last has no ground truth
    numbers: dict[str, dict[str, float]] = {}
    for protocol in Protocol:
        score = frame_mAP(gt, detections, classes, rules=EvalRules(protocol, excluded=excluded))
        numbers[f"evaluator/{protocol}"] = {"number mAP": score.mAP} | {
            f"number AP of {i}": ap for i, ap in score.ap.items() if i in (1, 5, 10)
        }
    actors = actor_precision_recall(gt, persons, classes, rules=EvalRules(excluded=excluded))
    numbers["evaluator/actors"] = {"number precision": actors.precision, "number recall": actors.recall}
    numbers["evaluator/standard"]["time_ratio"] = ratio(
        lambda: frame_mAP(gt, detections, classes), lambda: _plain_ious(gt, detections)
    )
    return numbers


def task(frames: int = 300) -> tuple[GroundTruth, Detections, Detections, frozenset[tuple[str, int]]]:
    """-> ground truth, detections, persons, excluded frames: a task that tells all protocols apart.

    Three actors a frame, each doing one of ten actions, detected near their boxes with scores for all ten.
    Every actor is detected twice, the lower score first in the file (which slowfast matches first), so that a
    frame has 60 rows (the cap is 50), and some have a neighbour of the same class, which the second detection
    may match (gurkirt, act). Some boxes are inverted (AVA's protocols drop them), some frames have no ground
    truth (annotated, activitynet_head), some are excluded (activitynet_head scores them).
    """
    rng = np.random.default_rng(0)
    count = 3 * frames
    corner = rng.uniform(0, 0.6, (count, 2))
    box = np.concatenate([corner, corner + rng.uniform(0.1, 0.4, (count, 2))], axis=1)
    box[1::6] = box[0::6] + rng.normal(0, 0.02, box[0::6].shape)  # neighbours, half of a frame's first actors
    label = rng.integers(1, 11, count)
    label[1::6] = label[0::6]
    box *= (320, 240, 320, 240)  # pixels: act's boxes are a pixel wider
    frame = np.arange(count) // 3
    video = frame % 7
    annotated = frame % 10 != 9  # the other frames have detections alone
    gt = GroundTruth(tuple("abcdefg"), video, frame, box, label).take(annotated)
    scores = rng.random((count, 10)) / 2
    scores[np.arange(count), label - 1] += rng.random(count) / 2
    near = np.stack([box + rng.normal(0, 5, box.shape), box + rng.normal(0, 9, box.shape)], axis=1)
    near[::25, 0] = near[::25, 0][:, [2, 1, 0, 3]]  # inverted
    both = np.stack([0.9 * scores, scores], axis=1)  # (actor, duplicate, class)
    detections = Detections(
        gt.videos, video.repeat(20), frame.repeat(20), near.reshape(-1, 4).repeat(10, 0),
        np.tile(np.arange(1, 11), 2 * count), both.ravel(),
    )  # fmt: skip
    persons = Detections(gt.videos, video, frame, near[:, 1], np.zeros(count, np.int64), rng.random(count))
    excluded = frozenset((gt.videos[v], int(f)) for v, f in zip(video, frame, strict=True) if f % 17 == 3)
    return gt, detections, persons, excluded


def _plain_ious(gt: GroundTruth, detections: Detections) -> None:
    """The IoU of every hundredth detection with every ground-truth box, one by one in Python."""
    boxes = gt.box.tolist()
    for x1, y1, x2, y2 in detections.box[::100].tolist():
        for a1, b1, a2, b2 in boxes:
            w, h = min(x2, a2) - max(x1, a1), min(y2, b2) - max(y1, b1)
            if w > 0 and h > 0:
                (w * h) / ((x2 - x1) * (y2 - y1) + (a2 - a1) * (b2 - b1) - w * h)
