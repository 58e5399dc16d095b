"""Where a result comes from: commit, device, and fingerprints of the code that it follows from."""

from __future__ import annotations

import ast
import hashlib
import os
import platform
import subprocess
from functools import cache
from pathlib import Path

import torch

from actloc_core import backbones
from benchmarks.experiments import Experiment

CHECKOUT = Path(__file__).resolve().parent.parent
COMMIT = "ACTLOC_COMMIT"
"""Environment variable: the commit of code that travelled to another machine."""

MODEL = (
    *("assemble", "boxes", "clip", "heads", "loss", "matcher", "model", "pixels", "selection", "structures"),
    "backbones/layers",
)
"""Modules of actloc_core that every training goes through."""
READERS = {"ava": ("ava",), "ucf24": ("tubes", "ucf24"), "jhmdb": ("tubes", "jhmdb")}
"""Modules of `datasets` that only one kind of data goes through."""
METHODS = {"single_stage": (), "two_stage": ("two_stage",), "detr": ("detr",)}


def training_code(exp: Experiment) -> str:
    """A fingerprint of the code that an experiment's trained model follows from.

    Of each module that the training goes through, what Python sees: comments, docstrings and layout may
    change. Code of other methods, backbones and datasets may, too.
    """
    backbone = getattr(backbones, exp.backbone).__module__.rpartition(".")[2]
    kind = exp.dataset.removeprefix("synthetic_").removesuffix("_smoke")
    core = [*MODEL, f"backbones/{backbone}", *METHODS.get(exp.method, ())]
    core += ["checkpoints"] if exp.weights else []
    names = [f"actloc_core/{name}.py" for name in core]
    names += [f"datasets/{name}.py" for name in ("split", "transforms", *READERS.get(kind, ()))]
    names += [f"evaluators/{name}.py" for name in ("files", "ava_csv", "act_pickle")]
    names += [f"benchmarks/{name}.py" for name in ("engine", "models", "processes")]
    return _fingerprint(tuple(sorted(names)))


def scoring_code() -> str:
    """The same of the code that the numbers of a trained model follow from."""
    names = [
        f"evaluators/{name}.py"
        for name in (
            *("frame_map", "matching", "precision_recall", "files", "ava_csv", "act_pickle"),
            *("bootstrap", "errors"),
        )
    ]
    names += ["actloc_core/model.py", *(f"benchmarks/{name}.py" for name in ("actors", "data", "analysis"))]
    return _fingerprint(tuple(names))


@cache
def _fingerprint(names: tuple[str, ...]) -> str:
    digest = hashlib.sha256()
    for name in names:
        digest.update(name.encode() + meaning((CHECKOUT / name).read_text()).encode())
    return digest.hexdigest()[:16]


@cache
def meaning(source: str) -> str:
    """What Python sees of a source text, without its docstrings, comments and layout."""
    return ast.dump(_WithoutTexts().visit(ast.parse(source)))


class _WithoutTexts(ast.NodeTransformer):
    """Drops strings that stand alone: docstrings, and what describes the field above it."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        alone = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if alone else node


def git_commit() -> str:
    """The checkout's commit, "+" behind it where files differ; "unknown" outside git.

    Where the code has travelled without its history, the variable COMMIT says it.
    """
    if said := os.environ.get(COMMIT):
        return said
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"],
            cwd=CHECKOUT, capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def device_name(device: torch.device) -> str:
    """The GPU's name, or the CPU's architecture, the instructions that torch takes of it, and threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    takes = torch.backends.cpu.get_cpu_capability()
    return f"{platform.machine()} CPU, {takes}, {torch.get_num_threads()} thread(s)"
