"""The mutants are what they say, and tests are seen to notice or not."""

import ast
import inspect
import subprocess
import sys

import pytest

from actloc_core import pixels
from tests.mutants import ROOT, mutants, passes

SOURCE = '''"""Text stays, 1 < 2."""

def total(values: list[int], most: int = 3) -> int:
    if not values:
        raise ValueError(f"no values, {1 + 1}")
    found = [value for value in values if value < most]
    found.append(-1)
    return max(found) + 2 * most
'''


def test_every_small_change_once():
    made = [(line, what) for line, what, _ in mutants(ast.parse(SOURCE))]
    assert sorted(made) == [
        (3, "3 -> 4"),
        (4, "condition reversed"),
        (4, "not x -> x"),
        (6, "Lt -> LtE"),
        (6, "filter left out"),
        (7, "1 -> 2"),
        (7, "USub -> nothing"),
        (7, "left out: found.append(-1)"),
        (8, "2 -> 3"),
        (8, "Add -> Sub"),
        (8, "Mult -> Div"),
        (8, "max -> min"),
    ]


def test_what_guards_against_nothing_that_happens_is_left_alone():
    source = "@dataclass(frozen=True)\nclass A:\n    pairs = dict(zip(a, b, strict=True), key=True)\n"
    assert [what for _, what, _ in mutants(ast.parse(source))] == ["True -> False"]


def test_a_mutant_computes_what_it_says():
    def computed(line, what):
        [tree] = [tree for where, told, tree in mutants(ast.parse(SOURCE)) if (where, told) == (line, what)]
        space = {}
        exec(compile(tree, "mutant", "exec"), space)
        return space["total"]([1, 2, 3])

    assert computed(8, "Add -> Sub") == 2 - 6
    assert computed(6, "Lt -> LtE") == 3 + 6
    assert computed(6, "filter left out") == 3 + 6
    assert computed(8, "max -> min") == -1 + 6
    assert computed(7, "left out: found.append(-1)") == 2 + 6
    assert computed(7, "USub -> nothing") == 2 + 6


@pytest.mark.slow
def test_tests_that_notice_and_tests_that_do_not(tmp_path):
    """A module of this tree with its own tests, and with tests that look at nothing."""

    def said(*args):
        command = [sys.executable, "-m", "tests.mutants", "actloc_core/pixels.py", *args]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    blind = tmp_path / "test_blind.py"
    blind.write_text("def test_nothing():\n    from actloc_core import pixels\n\n    assert pixels\n")
    assert "0 of 2 mutants noticed" in said("--tests", str(blind), "--sample", "2")
    seeing = tmp_path / "test_seeing.py"
    seeing.write_text("def test_size():\n    from actloc_core.pixels import size_multiple\n\n"
                      "    assert size_multiple(256) == 32\n")  # fmt: skip
    survivors = said("--tests", str(seeing))
    assert "crop // 8" not in survivors
    assert "mutants noticed" in survivors


def test_a_module_that_is_imported_already_is_not_judged():
    """A mutant would not be what the tests import, and every one would survive."""
    tree = ast.parse(inspect.getsource(pixels))
    with pytest.raises(RuntimeError, match=r"actloc_core\.pixels is imported already"):
        passes(ROOT / "actloc_core/pixels.py", tree, [])
