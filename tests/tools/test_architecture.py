"""docs/architecture.md and its picture are up to date with the layers and the docstrings."""

import re
from xml.etree import ElementTree

import pytest

from tools import architecture
from tools.architecture import INSIDE, PAGE, PICTURE, drawing, first_sentence, layers, rewritten


def test_the_page_and_its_picture_are_up_to_date():
    page = PAGE.read_text()
    assert rewritten(page) == page, "run python -m tools.architecture"
    assert PICTURE.read_text() == drawing(layers(), layers(INSIDE)), "run python -m tools.architecture"
    assert f"]({PICTURE.name})" in page


def test_a_missing_marker_is_an_error():
    with pytest.raises(ValueError, match="no marker"):
        rewritten("# Architecture\n")


def test_the_layers_are_those_that_lint_checks():
    assert layers()[-1] == ["actloc_core", "evaluators"]
    assert layers(INSIDE)[-1] == ["context", "distributed", "experiments"]


def test_a_module_in_no_layer_is_an_error(tmp_path, monkeypatch):
    contract = 'type = "layers"\ncontainers = ["benchmarks"]\nlayers = ["a | b"]\n'
    (tmp_path / "pyproject.toml").write_text(f"[[tool.importlinter.contracts]]\n{contract}")
    (tmp_path / "benchmarks" / "b").mkdir(parents=True)
    for name in ("__init__.py", "a.py", "b/__init__.py"):
        (tmp_path / "benchmarks" / name).touch()
    monkeypatch.setattr(architecture, "ROOT", tmp_path)
    assert layers("benchmarks") == [["a", "b"]]
    (tmp_path / "benchmarks" / "c.py").touch()
    with pytest.raises(ValueError, match="c of benchmarks in no layer"):
        layers("benchmarks")


def test_the_picture_has_the_layers_below_each_other():
    """`benchmarks` holds its own two layers; what is beside each other has the same height on the page."""
    picture = ElementTree.fromstring(drawing([["tools"], ["benchmarks"], ["a", "b"]], [["x", "y"], ["z"]]))
    rows = {}
    for text in picture.iter("{http://www.w3.org/2000/svg}text"):
        if not re.fullmatch(r"\d", text.text):
            rows.setdefault(float(text.get("y")), []).append(text.text)
    assert [names for _, names in sorted(rows.items())] == [
        ["tools"], ["benchmarks"], ["x", "y"], ["z"], ["a", "b"]
    ]  # fmt: skip


def test_the_first_sentence_of_a_module(tmp_path):
    path = tmp_path / "a.py"
    path.write_text('"""One | two\nthree.\n\nFour.\n"""\n')
    assert first_sentence(path) == "One \\| two three."
