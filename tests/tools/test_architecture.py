"""docs/architecture.md is up to date with imports and docstrings."""

from graphlib import CycleError

import pytest

from tools.architecture import PAGE, drawing, first_sentence, layers, rewritten


def test_the_page_is_up_to_date():
    page = PAGE.read_text()
    assert rewritten(page) == page, "run python -m tools.architecture"


def test_a_missing_heading_is_an_error():
    with pytest.raises(ValueError, match="no heading 'Folders'"):
        rewritten("# Architecture\n")


def test_layers_are_numbered_from_the_importers():
    """a imports b and c, b imports c; d is imported by nothing."""
    order = layers({"a": ["b", "c"], "b": ["c"], "c": [], "d": ["c"]})
    assert order == [["a", "d"], ["b"], ["c"]]
    assert drawing(order).splitlines()[2:-1] == [
        '    layer1["a, d"]',
        '    layer2["b"]',
        '    layer3["c"]',
        "    layer1 --> layer2",
        "    layer2 --> layer3",
    ]


def test_a_circle_of_imports_is_an_error():
    with pytest.raises(CycleError):
        layers({"a": ["b"], "b": ["a"]})


def test_the_first_sentence_of_a_module(tmp_path):
    path = tmp_path / "a.py"
    path.write_text('"""One | two\nthree.\n\nFour.\n"""\n')
    assert first_sentence(path) == "One \\| two three."
