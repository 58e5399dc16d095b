"""The provenance of a result: commit, device, and fingerprints of the code that it follows from."""

from __future__ import annotations

import ast
import hashlib
import inspect
import os
import platform
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from actloc_core import backbones
from benchmarks.distributed import world_size
from benchmarks.experiments import Experiment

CHECKOUT = Path(__file__).resolve().parents[2]
COMMIT = "ACTLOC_COMMIT"
"""Environment variable: the commit of code that was sent to another machine."""

RUN, TRAINING = "benchmarks.run", "benchmarks.train.training"
"""Modules that a result and a trained model follow from, with all that they import."""
SCORING = ("benchmarks.score", "evaluators.frame_map", "evaluators.matching")
"""Not part of a training, nor what these alone go through: a fix there scores again, without training again.
Validation in training chooses nothing but best.pt, and readers use the rows of `evaluators.frame_map`, not
its rules."""
METHODS = {
    "two_stage": "actloc_core.two_stage",
    "detr": "actloc_core.detr",
    "classification": "actloc_core.classifier",
}
READERS = {
    "ava": ("datasets.ava",),
    "ucf24": ("datasets.ucf24", "datasets.tubes"),
    "jhmdb": ("datasets.jhmdb", "datasets.tubes"),
    "kinetics": ("datasets.kinetics",),
}
SCENES = ("datasets.scenes", "datasets.tube_scenes")
"""Frame rates and mirrored classes of synthetic data, which a training on it reads."""
MAKERS = (
    "datasets.synthetic",
    "datasets.synthetic_clips",
    "datasets.synthetic_tubes",
    "datasets.generate",
    *SCENES,
)
"""The bytes of synthetic data are in the data's fingerprint."""


def training_modules(exp: Experiment) -> frozenset[str]:
    """The modules that an experiment's trained model follows from: the closure of TRAINING's imports.

    Without what only other methods, backbones and datasets go through, and without SCORING.
    """
    kind = exp.dataset.removeprefix("synthetic_").removesuffix("_smoke")
    used = {getattr(backbones, exp.backbone).__module__, METHODS.get(exp.method), *READERS.get(kind, ())}
    if exp.dataset.startswith("synthetic_"):
        used |= {*SCENES}
    return _closure(TRAINING, SCORING) - (_choices() - used)


def scoring_modules() -> frozenset[str]:
    """The modules that the numbers of a trained model follow from: the closure of RUN's imports.

    Without methods, backbones and readers, whose every change trains again.
    """
    return _closure(RUN) - _choices()


def training_code(exp: Experiment) -> str:
    """A fingerprint of `training_modules`, whatever their comments and docstrings are."""
    return _fingerprint(training_modules(exp))


def scoring_code() -> str:
    """The same of `scoring_modules`."""
    return _fingerprint(scoring_modules())


def counting_code() -> str:
    """The same of what counts GFLOPs, and of torch, whose operations are counted."""
    return f"{_fingerprint(_closure('benchmarks.train.gflops'))}-{version('torch')}"


def _choices() -> frozenset[str]:
    """Modules that one method, backbone or dataset alone goes through, and the makers of synthetic data.

    And the packages' own files, which hold names alone.
    """
    made = {
        vars(backbones)[name].__module__
        for name in vars(backbones)
        if inspect.isfunction(vars(backbones)[name])
    }
    readers = {module for modules in READERS.values() for module in modules}
    return frozenset({*made, *METHODS.values(), *readers, *MAKERS, "actloc_core", "actloc_core.backbones"})


@cache
def _closure(module: str, without: tuple[str, ...] = ()) -> frozenset[str]:
    import grimp  # here, for a GPU is measured where it is missing, too

    graph = grimp.build_graph("benchmarks", "datasets", "actloc_core", "evaluators", cache_dir=None)
    for name in graph.modules:
        if any(name == left_out or name.startswith(f"{left_out}.") for left_out in without):
            graph.remove_module(name)
    return frozenset({module, *graph.find_upstream_modules(module)})


@cache
def _fingerprint(modules: frozenset[str]) -> str:
    digest = hashlib.sha256()
    for module in sorted(modules):
        path = CHECKOUT / module.replace(".", "/")
        source = path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__init__.py"
        digest.update(module.encode() + meaning(source.read_text()).encode())
    return digest.hexdigest()[:16]


@cache
def meaning(source: str) -> str:
    """The syntax tree of a source text, without docstrings, comments and layout."""
    return ast.dump(_WithoutTexts().visit(ast.parse(source)))


class _WithoutTexts(ast.NodeTransformer):
    """Drops strings that stand alone: docstrings, and what describes the field above it."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        alone = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if alone else node


def git_commit() -> str:
    """The checkout's commit, "+" behind it where files differ; "unknown" outside git.

    Where the code was sent without its history, the variable COMMIT says it.
    """
    if commit := os.environ.get(COMMIT):
        return commit
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"],
            cwd=CHECKOUT, capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def environment(device: torch.device) -> dict[str, Any]:
    """The fields of a Result that say where and with what it was computed."""
    name, processes = device_name(device), world_size()
    return {
        "commit": git_commit(),
        "device": name if processes == 1 else f"{processes} x {name}",
        "versions": {"python": platform.python_version()}
        | {package: version(package) for package in ("torch", "numpy", "av")},
    }


def device_name(device: torch.device) -> str:
    """The GPU's name, or the CPU's architecture, the instructions that torch takes of it, and threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    takes = torch.backends.cpu.get_cpu_capability()
    return f"{platform.machine()} CPU, {takes}, {torch.get_num_threads()} thread(s)"
