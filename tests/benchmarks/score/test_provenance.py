"""Fingerprints of code: what a trained model and its numbers follow from, and nothing else."""

import ast
import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import grimp
import pytest

from benchmarks.experiments import OURS, ROWS, rows_at
from benchmarks.score import provenance
from benchmarks.score.provenance import (
    meaning,
    scoring_code,
    scoring_modules,
    training_code,
    training_modules,
)
from tests.benchmarks.shared import CHECKOUT, TINY

SOURCE = '''
"""What it is."""

def double(x: int) -> int:
    """Twice x."""
    # It is what it is.
    return x * 2
'''
TINY_ROWS = rows_at("tiny")


def test_comments_docstrings_and_layout_do_not_count():
    same = "def double(x: int) -> int:\n\n    return (x * 2)  # twice\n"
    assert meaning(SOURCE) == meaning(same)
    assert meaning(SOURCE) != meaning(same.replace("2", "3"))
    assert meaning("x = 'a'") != meaning("x = 'b'"), "a text that is used is no docstring"


@pytest.fixture
def copy(monkeypatch, tmp_path):
    """A copy of the checkout's sources that fingerprints are taken of."""
    for package in ("actloc_core", "benchmarks", "datasets", "evaluators", "reports"):
        for path in (CHECKOUT / package).rglob("*.py"):
            target = tmp_path / path.relative_to(CHECKOUT)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(path.read_text())
    monkeypatch.setattr(provenance, "CHECKOUT", tmp_path)
    provenance._fingerprint.cache_clear()
    yield tmp_path
    provenance._fingerprint.cache_clear()


class Changed:
    """A source file with a statement more, for a while."""

    def __init__(self, path):
        self.path, self.text = path, path.read_text()

    def __enter__(self):
        self.path.write_text(f"{self.text}\nchanged = 1\n")
        provenance._fingerprint.cache_clear()

    def __exit__(self, *error):
        self.path.write_text(self.text)
        provenance._fingerprint.cache_clear()


def fingerprints():
    """Row -> fingerprint of its training, and that of scoring."""
    return {name: training_code(exp) for name, exp in TINY_ROWS.items()} | {"scoring": scoring_code()}


EVERY = {*TINY_ROWS, "scoring"}
OTHER_DATASETS = {row for row in TINY_ROWS if row.startswith("4/")}
PRETRAINING = {row for row in TINY_ROWS if row.startswith("pretraining/")}
HIERA = {"3/hiera_l", "pretraining/hiera_l"}
CHANGES = {
    "actloc_core/detr.py": {"fig1/detr"},
    "actloc_core/two_stage.py": {"2a/two_stage", "2a/two_stage_true_boxes", "ours/two_stage_both_boxes"},
    "actloc_core/classifier.py": PRETRAINING,
    "actloc_core/backbones/hiera.py": HIERA,
    "actloc_core/backbones/mvit.py": EVERY - HIERA - {"scoring"},
    "actloc_core/loss.py": EVERY,
    "actloc_core/matcher.py": EVERY,
    "actloc_core/checkpoints.py": EVERY,
    "benchmarks/train/training.py": EVERY,
    "benchmarks/train/loop.py": EVERY,
    "benchmarks/train/step.py": EVERY,
    "benchmarks/train/state.py": EVERY,
    "benchmarks/context.py": EVERY,
    "benchmarks/distributed.py": EVERY,
    "datasets/transforms.py": EVERY,
    "datasets/tubes.py": OTHER_DATASETS,
    "datasets/ava.py": EVERY - OTHER_DATASETS - PRETRAINING - {"scoring"},
    "datasets/kinetics.py": PRETRAINING,
    "benchmarks/run.py": {"scoring"},
    "benchmarks/train/gflops.py": {"scoring"},
    "benchmarks/score/predict.py": {"scoring"},
    "benchmarks/score/analysis.py": {"scoring"},
    "benchmarks/score/resampled.py": {"scoring"},
    "evaluators/frame_map.py": {"scoring"},
    "evaluators/matching.py": {"scoring"},
    "evaluators/jackknife.py": {"scoring"},
    "evaluators/resampling.py": {"scoring"},
    "benchmarks/sweep/trials.py": set(),
    "benchmarks/ablations.py": set(),
    "benchmarks/gates/dry_run.py": set(),
    "reports/tables.py": set(),
    "datasets/generate.py": set(),
    "datasets/scenes.py": EVERY - {"scoring"},
}
"""Changed file -> whose fingerprints change: rows' trainings, and scoring."""


@pytest.mark.slow
def test_a_changed_file_changes_the_fingerprints_of_those_that_go_through_it(copy):
    before = fingerprints()
    for file, concerned in CHANGES.items():
        with Changed(copy / file):
            after = fingerprints()
        assert {name for name in before if before[name] != after[name]} == concerned, file
    assert fingerprints() == before


def file_of(folder, module):
    path = folder / module.replace(".", "/")
    return path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__init__.py"


@pytest.mark.parametrize("row", ["2b/two_c_t", "2a/two_stage", "fig1/detr", "3/hiera_l", "4/jhmdb_1"])
def test_a_change_in_any_module_of_a_training_changes_its_fingerprint(copy, row):
    exp = TINY_ROWS[row]
    before = training_code(exp)
    modules = training_modules(exp)
    assert len(modules) > 25
    for module in modules:
        with Changed(file_of(copy, module)):
            assert training_code(exp) != before, module


def test_a_comment_in_a_module_of_a_training_changes_nothing(copy):
    before = training_code(OURS)
    path = copy / "actloc_core" / "loss.py"
    path.write_text(f"# A comment.\n{path.read_text()}")
    provenance._fingerprint.cache_clear()
    assert training_code(OURS) == before


def test_every_row_has_a_fingerprint_and_its_seed_is_none_of_it():
    for exp in ROWS.values():
        assert training_code(exp)
    assert training_code(replace(OURS, seed=5)) == training_code(OURS)


def direct_imports(path):
    """Modules and names that a file imports from our packages, by its syntax alone, as dotted names."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("row", ["2b/two_c_t", "2a/two_stage", "fig1/detr", "3/hiera_l", "4/jhmdb_1"])
def test_imports_of_a_trainings_modules_are_in_it_or_declared_to_be_left_out(row):
    """The closure, checked import by import: a new module cannot slip past the fingerprint."""
    exp = TINY_ROWS[row]
    modules, left_out = training_modules(exp), provenance._choices()
    known = grimp.build_graph("benchmarks", "datasets", "actloc_core", "evaluators", cache_dir=None).modules
    for module in modules:
        for name in direct_imports(file_of(CHECKOUT, module)):
            if name not in known or not meaning_of(name):
                continue
            scoring = any(name == s or name.startswith(f"{s}.") for s in provenance.SCORING)
            assert name in modules or name in left_out or scoring, f"{module} imports {name}"


def test_a_choice_imports_no_other_choice_that_its_rows_leave_out():
    """Such as a backbone that borrows from another's file: a change there would go unnoticed."""
    for name, exp in TINY_ROWS.items():
        modules = training_modules(exp)
        for module in modules & provenance._choices():
            borrowed = provenance._closure(module) & provenance._choices() - {"actloc_core.backbones"}
            assert borrowed <= modules | set(provenance.MAKERS), f"{name}: {module}"


def meaning_of(module):
    """Whether a module holds more than a docstring; a package without a file holds nothing."""
    path = file_of(CHECKOUT, module)
    return path.exists() and meaning(path.read_text()) != meaning("")


@pytest.mark.slow
@pytest.mark.parametrize(("method", "backbone"), [("single_stage", "mvitv2_tiny"), ("detr", "hiera_tiny")])
def test_every_module_imported_by_a_run_is_in_a_fingerprint(small_benchmark, tmp_path, method, backbone):
    """In a process of its own. Left out are other methods, backbones and readers, and makers of data."""
    exp = replace(TINY, epochs=0.2, method=method, backbone=backbone, queries=16)
    program = CHECKOUT / "tests" / "benchmarks" / "programs" / "modules_of_a_run.py"
    done = subprocess.run(
        [sys.executable, program, json.dumps(asdict(exp)), small_benchmark, tmp_path],
        capture_output=True, text=True, check=True, env=os.environ | {"PYTHONPATH": str(CHECKOUT)},
    )  # fmt: skip
    imported = set(json.loads(done.stdout.splitlines()[-1]))
    assert "benchmarks.train.step" in imported
    fingerprinted = training_modules(exp) | scoring_modules()
    left_out = {module for module in imported - fingerprinted if meaning_of(module)}
    assert left_out <= provenance._choices()


def test_every_file_that_is_named_is_there():
    with pytest.raises(FileNotFoundError):
        provenance._fingerprint(frozenset({"actloc_core.none"}))


def test_the_commit_is_that_of_the_environment_where_it_is_given(monkeypatch):
    """As on another machine, to which the code was sent without its history."""
    monkeypatch.setenv(provenance.COMMIT, "abc+")
    assert provenance.git_commit() == "abc+"


def test_the_commit_is_unknown_outside_git(monkeypatch, tmp_path):
    monkeypatch.delenv(provenance.COMMIT, raising=False)
    monkeypatch.setattr(provenance, "CHECKOUT", Path(tmp_path))
    assert provenance.git_commit() == "unknown"


def test_the_constants_of_synthetic_data_are_part_of_trainings_on_it_alone():
    """Such as which labels a horizontal flip exchanges: no byte of the data tells."""
    assert "datasets.scenes" in provenance.training_modules(TINY_ROWS["2b/two_c_t"])
    assert "datasets.scenes" not in provenance.training_modules(OURS)
