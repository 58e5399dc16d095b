"""Checkpoints of an untrained tiny model, as a training writes them."""

import torch

from actloc_core.assemble import FIELDS, assemble
from actloc_core.detector import pack_checkpoint

TINY = {
    "method": "single_stage",
    "backbone": "factorised_tiny",
    "frames": 8,
    "stride": 2,
    "crop": 32,
    "last_pool": False,
    "drop_path": 0.0,
    "selection": "two_c_t",
    "dim": 16,
    "anchor": "centre",
    "frame_embedding": False,
    "queries": 4,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "checkpointing": False,
    "dropout": 0.0,
    "score": "product",
    "short_sides": None,
}
CLASSES = {1: "stand", 7: 'say "no", <b>wave</b>', 12: "jongliert mit Bällen"}


def checkpoint_content(**fields):
    """Build the content of a checkpoint, with changed fields of the experiment."""
    exp = TINY | fields
    torch.manual_seed(0)
    model = assemble(len(CLASSES), **{name: exp[name] for name in FIELDS})
    return pack_checkpoint(model, exp, CLASSES, fps=16)


def write_checkpoint(path, **fields):
    """Write a checkpoint; -> path."""
    torch.save(checkpoint_content(**fields), path)
    return path
