"""One training and the rows scored with it: data, model, training, scores, Results. Reads downward."""

from __future__ import annotations

import csv
import json
import platform
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from actloc_core.boxes import xyxy_to_cxcywh
from actloc_core.checkpoints import read
from actloc_core.two_stage import GivenBoxes
from benchmarks.engine import Step, fit, predict, true_boxes
from benchmarks.experiments import Experiment
from benchmarks.flops import count_experiment
from benchmarks.models import begin_with, build_model, weights_file, weights_hash
from benchmarks.results import CURVE_THETA, TABLE_THETA, Result, save
from datasets import ava, jhmdb, synthetic, ucf24
from datasets.split import Key, Split, thinned
from evaluators.ava_csv import write_detections, write_frame_detections, write_persons
from evaluators.frame_map import Detections, FrameMap, GroundTruth, frame_map
from evaluators.precision_recall import actor_precision_recall

PROTOCOLS = {"ava": "standard", "ucf24": "gurkirt", "jhmdb": "gurkirt"}
"""Whose rules a benchmark's number follows; see `evaluators.frame_map.Protocol`."""
GLIMPSE = 80
"""Keyframes of a look in training, and of the one at the untrained model."""


@dataclass(frozen=True)
class Progress:
    """What a running training says of itself now and then."""

    step: int
    steps: int
    loss: float
    mAP: float | None
    """On the first clips of the validation split; None before the first look."""
    seconds: float


@dataclass(frozen=True)
class Data:
    """The splits of one experiment. `report` is not for choices; `val` is."""

    train: Split
    val: Split
    report: Split
    report_name: str
    fingerprint: str


@dataclass(frozen=True)
class Trained:
    """A trained model and what must be known of its training."""

    model: nn.Module
    mAP_untrained: float
    substituted: int
    seconds: float
    started: str
    weights_fingerprint: str | None


def run(
    experiments: Sequence[Experiment],
    roots: Mapping[str, Path],
    out: Path,
    *,
    device: torch.device,
    weights: Mapping[str, Path] | None = None,
    workers: int = 0,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> list[Result]:
    """Train what these rows share, where that is still to do, and score each of them.

    experiments: of one `training_hash`. roots: dataset name -> folder. weights: see `weights_file`.
    Writes OUT/trainings/<training_hash>/{log.csv,checkpoint.pt}, and for each row OUT/runs/<hash>/
    with detections, persons and, last, result.json.
    """
    exp, *others = experiments
    if any(other.training_hash != exp.training_hash for other in others):
        raise ValueError("only experiments that differ in inference alone share a training")
    data = load_data(exp, roots)
    for one in experiments:  # before the training, not after
        given_boxes(one, data.report, roots[exp.dataset])
    trained = train(
        exp, data, out / "trainings", device=device, weights=weights, workers=workers, on_progress=on_progress
    )
    return [
        score(one, trained, data, roots[exp.dataset], out / "runs" / one.hash, device=device, workers=workers)
        for one in experiments
    ]


def train(
    exp: Experiment,
    data: Data,
    trainings: Path,
    *,
    device: torch.device,
    weights: Mapping[str, Path] | None = None,
    workers: int = 0,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Trained:
    """The experiment's model, trained, or as an earlier training on these data left it."""
    started, clock = datetime.now(UTC), time.monotonic()
    folder = trainings / exp.training_hash
    beginning = weights_file(exp, weights or {}, trainings)
    torch.manual_seed(exp.seed)
    model = build_model(exp, len(data.train.classes))
    if (done := finished_training(folder, data.fingerprint, beginning)) is not None:
        model.load_state_dict(done.pop("model"))
        return Trained(model.to(device), **done["training"])
    if beginning is not None:
        print(begin_with(model, beginning), file=sys.stderr, flush=True)
    model.to(device)
    folder.mkdir(parents=True, exist_ok=True)
    look = partial(
        predict,
        device=device,
        theta=CURVE_THETA,
        score="product",
        batch=exp.batch,
        keep_aspect=exp.short_sides is not None,
        workers=workers,
    )
    protocol = PROTOCOLS[benchmark(exp)]

    def glimpse(split: Split) -> float:
        split = thinned(split, GLIMPSE)
        given = {key: true_boxes(split.people.at(key)) for key in split.keyframes}
        return frame_ap(split, look(model, split, given=given)[0], protocol).mAP

    untrained = glimpse(data.report)
    with open(folder / "log.csv", "w", newline="") as file:
        log = csv.writer(file)
        mAP: float | None = None
        broken: Counter[str] = Counter()

        def on_step(step: Step) -> None:
            nonlocal mAP
            for problem in step.problems:
                if problem not in broken:
                    print(f"another clip stands in: {problem}", file=sys.stderr, flush=True)
                broken[problem] += 1
            if step.step == 1:
                log.writerow(["step", "lr", *step.losses, "val_mAP"])
            looks = {round(step.steps * share) for share in (1 / 4, 1 / 2, 3 / 4, 1)}
            if step.step in looks:
                mAP = glimpse(data.val)
            shown = f"{mAP:.4f}" if step.step in looks else ""
            log.writerow([step.step, f"{step.lr:.3e}", *(f"{x:.4f}" for x in step.losses.values()), shown])
            seconds = time.monotonic() - clock
            on_progress(Progress(step.step, step.steps, step.losses["loss"], mAP, seconds))

        fit(model, data.train, exp, device, workers=workers, on_step=on_step)
    training = {
        "mAP_untrained": untrained,
        "substituted": sum(broken.values()),
        "seconds": time.monotonic() - clock,
        "started": started.isoformat(timespec="seconds"),
        "weights_fingerprint": weights_hash(beginning),
    }
    checkpoint = {
        "experiment": asdict(exp),
        "classes": data.train.classes,
        "data_fingerprint": data.fingerprint,
        "training": training,
        "model": model.state_dict(),
    }
    save(folder / "checkpoint.pt", lambda path: torch.save(checkpoint, path))
    return Trained(model, **training)  # type: ignore[arg-type]


def finished_training(folder: Path, data: str, beginning: Path | None) -> dict[str, Any] | None:
    """What a finished training left, where it was on the data of this fingerprint and these weights."""
    path = folder / "checkpoint.pt"
    if not path.exists():
        return None
    held: dict[str, Any] = read(path)
    same = held["data_fingerprint"] == data
    return held if same and held["training"]["weights_fingerprint"] == weights_hash(beginning) else None


def score(
    exp: Experiment,
    trained: Trained,
    data: Data,
    root: Path,
    folder: Path,
    *,
    device: torch.device,
    workers: int = 0,
) -> Result:
    """Score one row on its report split; write detections, persons and, last, result.json."""
    clock, split, protocol = time.monotonic(), data.report, PROTOCOLS[benchmark(exp)]

    def found_at(theta: float) -> tuple[Detections, Detections]:
        return predict(
            trained.model,
            split,
            device,
            theta=theta,
            score=exp.score,
            batch=exp.batch,
            nms_iou=exp.nms_iou,
            given=given_boxes(exp, split, root),
            keep_aspect=exp.short_sides is not None,
            workers=workers,
        )

    found, persons = found_at(exp.theta)
    at_theta = frame_ap(split, found, protocol)
    if exp.theta == CURVE_THETA:
        curve_mAP = at_theta.mAP
    else:
        curve_mAP = frame_ap(split, found_at(CURVE_THETA)[0], protocol).mAP
    actors = actor_precision_recall(
        split.ground_truth, persons, split.evaluated, theta=TABLE_THETA, excluded=split.excluded
    )
    folder.mkdir(parents=True, exist_ok=True)
    write = write_detections if benchmark(exp) == "ava" else write_frame_detections
    write(folder / "detections.csv", found)
    write_persons(folder / "persons.csv", persons)
    counted = count_experiment(exp, len(split.classes))
    result = Result(
        experiment=asdict(exp),
        hash=exp.hash,
        training=exp.training_hash,
        split=data.report_name,
        protocol=protocol,
        mAP=at_theta.mAP,
        mAP_curve_theta=curve_mAP,
        mAP_untrained=trained.mAP_untrained,
        mAP_random_classes=random_classes(split, protocol).mAP,
        precision=None if np.isnan(actors.precision) else actors.precision,
        recall=actors.recall,
        per_class={at_theta.classes[i]: None if np.isnan(ap) else ap for i, ap in at_theta.ap.items()},
        clips=len(split),
        substituted=trained.substituted,
        gflops=counted.gflops,
        parameters=counted.params,
        seconds_training=trained.seconds,
        seconds=trained.seconds + time.monotonic() - clock,
        started=trained.started,
        data_fingerprint=data.fingerprint,
        weights_fingerprint=trained.weights_fingerprint,
        commit=git_commit(),
        device=device_name(device),
        versions={"python": platform.python_version()}
        | {name: version(name) for name in ("torch", "numpy", "av")},
    )
    text = json.dumps(asdict(result), indent=1)
    save(folder / "result.json", lambda path: path.write_text(text))
    return result


def given_boxes(exp: Experiment, split: Split, root: Path) -> dict[Key, GivenBoxes] | None:
    """The boxes a two-stage row is asked about, by keyframe; None for the other methods."""
    if exp.method != "two_stage":
        return None
    if exp.boxes == "ground_truth":
        return {key: true_boxes(split.people.at(key)) for key in split.keyframes}
    if exp.boxes != "detector":
        raise ValueError(f"boxes are those of a 'detector' or the 'ground_truth', not {exp.boxes!r}")
    if benchmark(exp) != "ava":
        raise ValueError(f"there is no person-box file for {exp.dataset}: give boxes='ground_truth'")
    name = "test" if exp.dataset.startswith("synthetic_") else "val"
    return {
        key: GivenBoxes(
            xyxy_to_cxcywh(torch.from_numpy(found.boxes)).float(), torch.from_numpy(found.scores).float()
        )
        for key, found in ava.person_boxes(ava.find_person_boxes(root, name)).items()
    }


def benchmark(exp: Experiment) -> str:
    """Whose formats and rules an experiment's dataset has: "ava", "ucf24" or "jhmdb"."""
    name = exp.dataset.removeprefix("synthetic_").removesuffix("_smoke")
    if name not in PROTOCOLS:
        raise ValueError(f"no dataset is called {exp.dataset!r}; there are {', '.join(PROTOCOLS)}")
    return name


def load_data(exp: Experiment, roots: Mapping[str, Path]) -> Data:
    """The experiment's splits from `roots` (dataset name -> folder).

    AVA reports on its validation split, as everybody does, and shows it during training too; so do
    UCF101-24 and JHMDB with their test splits. The synthetic AVA has a test split of its own.
    """
    name = benchmark(exp)
    if exp.dataset not in roots:
        raise ValueError(f"no folder is given for dataset {exp.dataset!r}: --data {exp.dataset}=FOLDER")
    root, made = roots[exp.dataset], exp.dataset.startswith("synthetic_")
    flipped = synthetic.FLIPPED if made else None
    clips: dict[str, Any] = {"frames": exp.frames, "stride": exp.stride, "crop": exp.crop, "flipped": flipped}
    if name == "ava":
        clips["fps"] = synthetic.FPS if made else ava.FPS
        train, val = ava.load(root, "train", **clips), ava.load(root, "val", **clips)
        if made:
            return Data(train, val, ava.load(root, "test", **clips), "test", synthetic.fingerprint(root))
        return Data(train, val, val, "val", ava.fingerprint(root))
    load_tubes: Callable[..., Split] = (
        ucf24.load if name == "ucf24" else partial(jhmdb.load, number=exp.split)
    )
    test = load_tubes(root, "test", **clips)
    return Data(
        load_tubes(root, "train", every=exp.keyframe_stride, **clips),
        test,
        test,
        "test" if name == "ucf24" else f"test {exp.split}",
        ucf24.fingerprint(root) if name == "ucf24" else jhmdb.fingerprint(root),
    )


def frame_ap(split: Split, found: Detections, protocol: str) -> FrameMap:
    return frame_map(split.ground_truth, found, split.evaluated, excluded=split.excluded, protocol=protocol)


def random_classes(split: Split, protocol: str) -> FrameMap:
    """Score every true box with every class at random: the chance level of classification."""
    truth = split.ground_truth
    who = np.column_stack([truth.video, truth.frame, truth.box])
    _, first = np.unique(who, axis=0, return_index=True)
    ids = np.array(sorted(split.evaluated))
    rows = first.repeat(len(ids))
    boxes = GroundTruth(
        truth.videos,
        truth.video[rows],
        truth.frame[rows],
        truth.box[rows],
        np.tile(ids, len(first)),
    )
    scores = np.random.default_rng(0).random(len(rows))
    rows_found = Detections(boxes.videos, boxes.video, boxes.frame, boxes.box, boxes.label, scores)
    return frame_ap(split, rows_found, protocol)


def git_commit() -> str:
    """The checkout's commit, "+" behind it where files differ; "unknown" outside git."""
    root = Path(__file__).parent.parent
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"],
            cwd=root, capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {torch.get_num_threads()} thread(s)"
