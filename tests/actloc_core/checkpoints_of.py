"""A checkpoint of an untrained tiny model, as a training would leave it."""

import torch

from actloc_core.assemble import FIELDS, assemble
from actloc_core.detector import packed

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
    "score": "product",
    "short_sides": None,
}
CLASSES = {1: "stand", 7: 'say "no", <b>wave</b>', 12: "jongliert mit Bällen"}


def held(**fields):
    """What its file holds."""
    exp = TINY | fields
    torch.manual_seed(0)
    model = assemble(len(CLASSES), **{name: exp[name] for name in FIELDS})
    return packed(model, exp, CLASSES, fps=16)


def write_checkpoint(path, **fields):
    torch.save(held(**fields), path)
    return path
