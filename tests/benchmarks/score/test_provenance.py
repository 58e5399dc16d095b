import ast
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import provenance
from benchmarks.experiments import OURS, ROWS, rows_at
from benchmarks.score.provenance import meaning, scoring_code, training_code

SOURCE = '''
"""What it is."""

def double(x: int) -> int:
    """Twice x."""
    # It is what it is.
    return x * 2
'''


def test_comments_docstrings_and_layout_mean_nothing():
    same = "def double(x: int) -> int:\n\n    return (x * 2)  # twice\n"
    assert meaning(SOURCE) == meaning(same)
    assert meaning(SOURCE) != meaning(same.replace("2", "3"))
    assert meaning("x = 'a'") != meaning("x = 'b'"), "a text that is used is no docstring"


def test_a_training_follows_from_the_code_it_goes_through_alone(monkeypatch, tmp_path):
    """A change of one module changes the fingerprints of just the rows that use it."""
    for path in provenance.CHECKOUT.glob("*/**/*.py"):
        copy = tmp_path / path.relative_to(provenance.CHECKOUT)
        if copy.parts[-3:-1] != ("site-packages",) and path.parts[len(provenance.CHECKOUT.parts)] != ".nox":
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(path.read_text())
    monkeypatch.setattr(provenance, "CHECKOUT", tmp_path)

    def fingerprints():
        provenance._fingerprint.cache_clear()
        return {name: training_code(exp) for name, exp in rows_at("tiny").items()} | {
            "scoring": scoring_code()
        }

    before = fingerprints()
    for changed, concerns in {
        "actloc_core/detr.py": lambda row: row == "fig1/detr",
        "actloc_core/two_stage.py": lambda row: row.startswith("2a/two_stage"),
        "actloc_core/backbones/hiera.py": lambda row: row == "3/hiera_l",
        "datasets/tubes.py": lambda row: row.startswith("4/"),
        "actloc_core/checkpoints.py": lambda row: row.startswith("4/"),
        "benchmarks/engine.py": lambda row: row != "scoring",
        "evaluators/frame_map.py": lambda row: row == "scoring",
        "reports/tables.py": lambda row: False,
    }.items():
        path = tmp_path / changed
        text = path.read_text()
        path.write_text(text + "\nchanged = 1\n")
        after = fingerprints()
        assert {row for row in before if before[row] != after[row]} == set(filter(concerns, before)), changed
        path.write_text(text)
    provenance._fingerprint.cache_clear()


def test_every_module_that_is_named_is_there():
    for exp in ROWS.values():
        assert training_code(exp)
    assert training_code(replace(OURS, seed=5)) == training_code(OURS)
    with pytest.raises(FileNotFoundError):
        provenance._fingerprint(("actloc_core/none.py",))


def test_what_a_training_imports_of_the_model_is_part_of_its_fingerprint():
    """A module of the core that a named one imports is named, too: nothing changes unseen."""
    core = Path(provenance.CHECKOUT, "actloc_core")
    known = {*provenance.MODEL, "two_stage", "detr", "checkpoints", "backbones"}
    for name in (*provenance.MODEL, "two_stage", "detr"):
        for node in ast.walk(ast.parse((core / f"{name}.py").read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("actloc_core"):
                parts = (node.module or "").split(".")[1:]
                imported = "/".join(parts) if parts else node.names[0].name
                assert imported in known, f"{name} imports {imported}"
