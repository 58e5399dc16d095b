"""The data of an experiment: its splits, the rules they are scored by, and the boxes of a two-stage row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from actloc_core.boxes import xyxy_to_cxcywh
from actloc_core.two_stage import GivenBoxes
from benchmarks.actors import FoundActors, detections
from benchmarks.engine import true_boxes
from benchmarks.experiments import Experiment
from datasets import ava, jhmdb, synthetic, synthetic_tubes, ucf24
from datasets.split import Key, Split
from evaluators.frame_map import Detections, EvalRules, FrameMap, frame_map

PROTOCOLS = {"ava": "standard", "ucf24": "gurkirt", "jhmdb": "gurkirt"}
"""Whose rules a benchmark's number follows; see `evaluators.frame_map.Protocol`."""
ROWS_AT_ONCE = 4_000_000
"""Detections that are scored together, some 1 GiB; of one class all, however many these are."""
USUAL_FPS = {"ucf24": 25.0, "jhmdb": 30.0}


@dataclass(frozen=True)
class Data:
    """The splits of one experiment. `report` is not for choices; `val` is."""

    train: Split
    val: Split
    report: Split
    report_name: str
    fingerprint: str


def benchmark(exp: Experiment) -> str:
    """Whose formats and rules an experiment's dataset has: "ava", "ucf24" or "jhmdb"; ValueError: none."""
    name = exp.dataset.removeprefix("synthetic_").removesuffix("_smoke")
    if name not in PROTOCOLS:
        raise ValueError(f"no dataset is called {exp.dataset!r}; there are {', '.join(PROTOCOLS)}")
    return name


def load_data(exp: Experiment, roots: Mapping[str, Path]) -> Data:
    """The experiment's splits from `roots` (dataset name -> folder).

    AVA reports on its validation split, as everybody does, and shows it during training too; so do
    UCF101-24 and JHMDB with their test splits. The synthetic AVA has a test split of its own.
    Raises ValueError where no folder is given, and what the readers raise, naming file and line.
    """
    name = benchmark(exp)
    if exp.dataset not in roots:
        raise ValueError(f"no folder is given for dataset {exp.dataset!r}: --data {exp.dataset}=FOLDER")
    root, made = roots[exp.dataset], exp.dataset.startswith("synthetic_")
    flipped = synthetic.FLIPPED if made else None
    clips: dict[str, Any] = {"frames": exp.frames, "stride": exp.stride, "crop": exp.crop, "flipped": flipped}
    if name == "ava":
        clips["fps"] = clip_rate(exp)
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


def clip_rate(exp: Experiment) -> float:
    """Frames a second that the stride of the experiment's clips counts in.

    UCF101-24 and JHMDB are read frame by frame, whatever their files' rates: the usual one of each.
    """
    if benchmark(exp) == "ava":
        return synthetic.FPS if exp.dataset.startswith("synthetic_") else ava.FPS
    return synthetic_tubes.FPS if exp.dataset.startswith("synthetic_") else USUAL_FPS[benchmark(exp)]


def given_boxes(exp: Experiment, split: Split, root: Path) -> dict[Key, GivenBoxes] | None:
    """The boxes a two-stage row is asked about, by keyframe; None for the other methods.

    Raises ValueError for boxes that are neither the detector's nor the true ones, and for a detector's beside
    AVA; FileNotFoundError or ValueError naming the person-box file where it is missing or broken.
    """
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


def frame_ap(split: Split, found: FoundActors, protocol: str) -> FrameMap:
    """Frame-mAP of what was found on a split, by its own annotations, classes and exclusions.

    Raises ValueError as `frame_map` does.
    """
    ids = sorted(split.evaluated)
    # Classes meet nowhere but in the frame's best rows, so a few are scored at a time.
    rules = EvalRules(protocol, excluded=split.excluded)
    meet = rules.protocol_rules.max_per_frame is not None
    step = max(1, len(ids) if meet else ROWS_AT_ONCE // max(1, len(found.persons.score)))
    scored = [
        frame_map(
            split.ground_truth,
            detections(found, some),
            {i: split.evaluated[i] for i in some},
            rules=rules,
        )
        for some in [ids[first : first + step] for first in range(0, len(ids), step)] or [[]]
    ]
    ap = {i: value for score in scored for i, value in score.ap.items()}
    counted = np.array([value for value in ap.values() if not np.isnan(value)])
    return replace(
        scored[0],
        mAP=float(counted.mean()) if len(counted) else np.nan,
        ap=ap,
        classes={i: split.evaluated[i] for i in ids},
        num_classes=len(counted),
        num_ground_truth=sum(score.num_ground_truth for score in scored),
        num_detections=sum(score.num_detections for score in scored),
        num_true_positives=sum(score.num_true_positives for score in scored),
    )


def random_classes(split: Split, protocol: str) -> FrameMap:
    """Score every true box with every class at random: the chance level of classification."""
    truth = split.ground_truth
    who = np.column_stack([truth.video, truth.frame, truth.box])
    _, first = np.unique(who, axis=0, return_index=True)
    ids = np.array(sorted(split.evaluated))
    nothing = np.zeros(len(first))
    persons = Detections(
        truth.videos,
        truth.video[first],
        truth.frame[first],
        truth.box[first],
        nothing.astype(np.int64),
        nothing,
    )
    scores = np.random.default_rng(0).random((len(first), len(ids)))
    return frame_ap(split, FoundActors(persons, ids, scores), protocol)
