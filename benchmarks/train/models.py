"""From an experiment to its model, and its initialisation weights."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from actloc_core.assemble import FIELDS, assemble
from actloc_core.checkpoints import Report, find_weights, load_backbone, read
from benchmarks.experiments import TRAINING, Experiment
from benchmarks.train.pretrained import WEIGHTS


def build_model(exp: Experiment, num_classes: int) -> nn.Module:
    """An experiment's model, see `assemble`, with its random weights."""
    model = assemble(num_classes, **{name: getattr(exp, name) for name in FIELDS})
    if exp.action_prior is not None:  # as RetinaNet: most actions are absent, which need not be learned first
        # The last linear layer of every method gives the action logits.
        *_, last = (module for module in model.modules() if isinstance(module, nn.Linear))
        nn.init.constant_(last.bias, math.log(exp.action_prior / (1 - exp.action_prior)))
    return model


def weights_file(exp: Experiment, files: Mapping[str, Path], trainings: Path) -> Path | None:
    """The file of the weights that an experiment's backbone is initialised from; None for random ones.

    files: name of published weights -> file. trainings: directory of finished trainings.
    Raises ValueError or FileNotFoundError saying what to get and how to name it.
    """
    if exp.weights is None:
        return None
    if exp.weights.startswith(TRAINING):
        return trainings / exp.weights.removeprefix(TRAINING) / "checkpoint.pt"
    if exp.weights not in files:
        known = WEIGHTS.get(exp.weights)
        raise ValueError(
            f"no file for the initialisation weights {exp.weights!r}: give --weights {exp.weights}=FILE; "
            + (f"it is {known.what}; --pretrained downloads it" if known else "no published file is known")
        )
    if not files[exp.weights].is_file():
        raise FileNotFoundError(f"{files[exp.weights]}: no such file (--weights {exp.weights}=FILE)")
    return files[exp.weights]


def initialise(model: nn.Module, file: Path) -> Report:
    """Initialise the backbone from a file. Raises actloc_core.checkpoints.CheckpointError."""
    return load_backbone(model.get_submodule("backbone"), file)


def weights_hash(file: Path | None) -> str | None:
    """16 digits of a SHA-256 over the names and values of a file's weights, whatever else it holds.

    Raises CheckpointError where there are none.
    """
    if file is None:
        return None
    digest = hashlib.sha256()
    for name, tensor in sorted(find_weights(read(file), str(file)).items()):
        digest.update(name.encode() + tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
