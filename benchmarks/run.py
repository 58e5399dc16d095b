"""One row of a table: data, model, training, scores, Result. The main path reads downward."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import platform
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from actloc_core import backbones
from actloc_core.model import ActionLocalizer
from benchmarks.engine import Step, fit, predict
from benchmarks.experiments import Experiment
from datasets import ava, jhmdb, synthetic, ucf24
from datasets.split import Split, thinned
from evaluators.ava_csv import write_detections, write_frame_detections, write_persons
from evaluators.frame_map import Detections, FrameMap, GroundTruth, frame_map
from evaluators.precision_recall import actor_precision_recall

PROTOCOLS = {"ava": "standard", "ucf24": "gurkirt", "jhmdb": "gurkirt"}
"""Whose rules a benchmark's number follows; see `evaluators.frame_map.Protocol`."""
CURVE_THETA = 0.02
"""Training curves keep every candidate above this: p(alpha) is not calibrated early on."""
TABLE_THETA = 0.2
"""Table 2b's precision and recall are of persons with p(alpha) above this."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a run leaves for the reports; one JSON file, written last and whole."""

    experiment: dict[str, Any]
    hash: str
    split: str
    """The split reported on."""
    protocol: str
    mAP: float
    """Frame-mAP at IoU 0.5 in [0, 1], at the experiment's theta."""
    mAP_curve_theta: float
    """The same with every candidate above CURVE_THETA."""
    mAP_untrained: float
    """The same network before its first step, at CURVE_THETA."""
    mAP_random_classes: float
    """Perfect boxes with random class scores: what localisation alone is worth on this split."""
    precision: float | None
    """Of persons at TABLE_THETA; None where nobody was found."""
    recall: float
    per_class: dict[str, float | None]
    """Class name -> AP; None for a class without ground truth."""
    clips: int
    substituted: int
    """Training clips that could not be read, for each of which another one stood in."""
    parameters: int
    seconds_training: float
    seconds: float
    started: str
    data_fingerprint: str
    commit: str
    device: str
    versions: dict[str, str]


@dataclass(frozen=True)
class Progress:
    """What a running row says of itself now and then."""

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


def run(
    exp: Experiment,
    roots: Mapping[str, Path],
    folder: Path,
    *,
    device: torch.device,
    workers: int = 0,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Result:
    """Train and score one row; write log, detections, persons, checkpoint and, last, result.json."""
    started, clock = datetime.now(UTC), time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    data, protocol = load_data(exp, roots), PROTOCOLS[benchmark(exp)]
    torch.manual_seed(exp.seed)
    model = build_model(exp, len(data.train.classes)).to(device)

    def score(split: Split, theta: float) -> tuple[FrameMap, Detections, Detections]:
        found, persons = predict(
            model,
            split,
            device,
            theta=theta,
            score=exp.score,
            batch=exp.batch,
            keep_aspect=exp.short_sides is not None,
            workers=workers,
        )
        return frame_ap(split, found, protocol), found, persons

    untrained, _, _ = score(data.report, CURVE_THETA)
    glimpse = thinned(data.val, 120)
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
                mAP = score(glimpse, CURVE_THETA)[0].mAP
            shown = f"{mAP:.4f}" if step.step in looks else ""
            log.writerow([step.step, f"{step.lr:.3e}", *(f"{x:.4f}" for x in step.losses.values()), shown])
            seconds = time.monotonic() - clock
            on_progress(Progress(step.step, step.steps, step.losses["loss"], mAP, seconds))

        before = time.monotonic()
        fit(model, data.train, exp, device, workers=workers, on_step=on_step)
        seconds_training = time.monotonic() - before

    at_theta, found, persons = score(data.report, exp.theta)
    at_curve = at_theta if exp.theta == CURVE_THETA else score(data.report, CURVE_THETA)[0]
    actors = actor_precision_recall(
        data.report.ground_truth,
        persons,
        data.report.evaluated,
        theta=TABLE_THETA,
        excluded=data.report.excluded,
    )
    write = write_detections if benchmark(exp) == "ava" else write_frame_detections
    write(folder / "detections.csv", found)
    write_persons(folder / "persons.csv", persons)
    checkpoint = {
        "experiment": asdict(exp),
        "classes": data.train.classes,
        "model": model.state_dict(),
    }
    save(folder / "checkpoint.pt", lambda path: torch.save(checkpoint, path))
    result = Result(
        experiment=asdict(exp),
        hash=exp.hash,
        split=data.report_name,
        protocol=protocol,
        mAP=at_theta.mAP,
        mAP_curve_theta=at_curve.mAP,
        mAP_untrained=untrained.mAP,
        mAP_random_classes=random_classes(data.report, protocol).mAP,
        precision=None if np.isnan(actors.precision) else actors.precision,
        recall=actors.recall,
        per_class={at_theta.classes[i]: None if np.isnan(ap) else ap for i, ap in at_theta.ap.items()},
        clips=len(data.report),
        substituted=sum(broken.values()),
        parameters=sum(p.numel() for p in model.parameters()),
        seconds_training=seconds_training,
        seconds=time.monotonic() - clock,
        started=started.isoformat(timespec="seconds"),
        data_fingerprint=data.fingerprint,
        commit=git_commit(),
        device=device_name(device),
        versions={"python": platform.python_version()}
        | {name: version(name) for name in ("torch", "numpy", "decord")},
    )
    text = json.dumps(asdict(result), indent=1)
    save(folder / "result.json", lambda path: path.write_text(text))
    return result


def build_model(exp: Experiment, num_classes: int) -> ActionLocalizer:
    """The one wiring diagram: an experiment's detector, its weights drawn from torch's seed."""
    backbone = getattr(backbones, exp.backbone)(
        frames=exp.frames, crop=exp.crop, last_pool=exp.last_pool, drop_path=exp.drop_path
    )
    return ActionLocalizer(
        backbone,
        selection=exp.selection,
        num_classes=num_classes,
        dim=exp.dim,
        anchor=exp.anchor,
        frame_embedding=exp.frame_embedding,
    )


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


def read_result(path: Path) -> Result:
    """Raises ValueError naming the file where it is not a whole result of this version."""
    try:
        values = json.loads(path.read_text())
        return Result(**values)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{path}: not a result this version reads ({error}); delete {path.parent} and run again"
        ) from error


def save(path: Path, write: Callable[[Path], object]) -> None:
    """Write to a temporary file beside `path`, then rename: nobody sees it half-written."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(part)
        part.replace(path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            part.unlink()


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
