"""The data of an experiment: its splits, and the boxes of a two-stage row."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from actloc_core.boxes import xyxy_to_cxcywh
from actloc_core.two_stage import GivenBoxes
from benchmarks.experiments import Experiment
from benchmarks.score.evaluate import benchmark
from benchmarks.score.predict import annotated_boxes
from datasets import ava, jhmdb, kinetics, scenes, synthetic, synthetic_tubes, ucf24
from datasets.description import mirror_pairs
from datasets.split import Key, Split, with_detected_boxes

TRAIN_BOXES = ("ground_truth", "both")
"""What a two-stage row may be trained on."""
USUAL_FPS = {"ucf24": 25.0, "jhmdb": 30.0}


@dataclass(frozen=True)
class Data:
    """The splits of one experiment. `report` is not for choices; `val` is."""

    train: Split
    val: Split
    report: Split
    report_name: str
    fingerprint: str

    @property
    def left_out(self) -> frozenset[str]:
        """Videos that are not there, see `Experiment.leave_out_missing`."""
        return frozenset({*self.train.left_out, *self.val.left_out, *self.report.left_out})


def load_data(exp: Experiment, roots: Mapping[str, Path]) -> Data:
    """The experiment's splits from `roots` (dataset name -> folder).

    The fingerprint is the annotations', and where videos are left out that of these, too.

    AVA reports on its validation split, as everybody does, and shows it during training too; so do
    UCF101-24 and JHMDB with their test splits, and Kinetics with its validation split. The synthetic AVA and
    Kinetics have test splits of their own.
    Raises ValueError where no folder is given, and what the readers raise, naming file and line.
    """
    data = _load(exp, roots)
    if not data.left_out:
        return data
    text = " ".join([data.fingerprint, *sorted(data.left_out)])
    return replace(data, fingerprint=hashlib.sha256(text.encode()).hexdigest()[:16])


def _load(exp: Experiment, roots: Mapping[str, Path]) -> Data:
    name = benchmark(exp)
    if exp.train_boxes not in TRAIN_BOXES or (exp.train_boxes == "both" and name != "ava"):
        raise ValueError(
            f"train_boxes must be one of {', '.join(TRAIN_BOXES)}, and both of AVA alone, which has a "
            f"person-box file; it is {exp.train_boxes!r}, of {exp.dataset}"
        )
    if exp.dataset not in roots:
        raise ValueError(f"no folder is given for dataset {exp.dataset!r}: --data {exp.dataset}=FOLDER")
    root, made = roots[exp.dataset], exp.dataset.startswith("synthetic_")
    mirrored = scenes.FLIPPED if made else None
    if exp.mirrored is not None:
        mirrored = mirror_pairs(_json(exp.mirrored), "--set mirrored")
    clips: dict[str, Any] = {"frames": exp.frames, "stride": exp.stride, "crop": exp.crop}
    clips |= {"mirrored": mirrored, "leave_out_missing": exp.leave_out_missing}
    if name == "ava":
        clips["fps"] = clip_rate(exp)
        train, val = (
            _training_boxes(exp, ava.load(root, "train", **clips), root),
            ava.load(root, "val", **clips),
        )
        if made:
            return Data(train, val, ava.load(root, "test", **clips), "test", synthetic.fingerprint(root))
        return Data(train, val, val, "val", ava.fingerprint(root))
    if name == "kinetics":
        clips["fps"] = clip_rate(exp)
        # A synthetic video is as long as a clip.
        labelled = kinetics.load(root, "train", places=1 if made else kinetics.PLACES, **clips)
        held_out = kinetics.load(root, "val", **clips)
        if made:
            test_clips = kinetics.load(root, "test", **clips)
            return Data(labelled, held_out, test_clips, "test", synthetic.fingerprint(root))
        return Data(labelled, held_out, held_out, "val", kinetics.fingerprint(root))
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


def _training_boxes(exp: Experiment, train: Split, root: Path) -> Split:
    """The training split with what a two-stage row is trained on, see `Experiment.train_boxes`."""
    if exp.method != "two_stage" or exp.train_boxes == "ground_truth":
        return train
    detected = ava.person_boxes(ava.find_person_boxes(root, "train"))
    return with_detected_boxes(train, {key: persons.boxes for key, persons in detected.items()})


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


def clip_rate(exp: Experiment) -> float:
    """Frames a second that the stride of the experiment's clips counts in.

    UCF101-24 and JHMDB are read frame by frame, whatever their files' rates: the usual one of each.
    """
    name, made = benchmark(exp), exp.dataset.startswith("synthetic_")
    if name in ("ava", "kinetics"):
        return scenes.FPS if made else ava.FPS
    return synthetic_tubes.FPS if made else USUAL_FPS[name]


def given_boxes(exp: Experiment, split: Split, root: Path) -> dict[Key, GivenBoxes] | None:
    """The boxes that a two-stage row classifies, by keyframe; None for the other methods.

    Raises ValueError for boxes other than "detector" and "ground_truth", and for a detector's beside AVA;
    FileNotFoundError or ValueError naming the person-box file where it is missing or broken.
    """
    if exp.method != "two_stage":
        return None
    if exp.boxes == "ground_truth":
        return annotated_boxes(split)
    if exp.boxes != "detector":
        raise ValueError(f"boxes must be 'detector' or 'ground_truth', not {exp.boxes!r}")
    if benchmark(exp) != "ava":
        raise ValueError(f"{exp.dataset} has no person-box file: set boxes='ground_truth'")
    name = "test" if exp.dataset.startswith("synthetic_") else "val"
    return {
        key: GivenBoxes(
            xyxy_to_cxcywh(torch.from_numpy(persons.boxes)).float(), torch.from_numpy(persons.scores).float()
        )
        for key, persons in ava.person_boxes(ava.find_person_boxes(root, name)).items()
    }
