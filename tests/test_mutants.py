"""The mutants are what they say, and tests are seen to notice or not."""

import ast

import pytest

from tests.mutants import main, mutants

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
def test_tests_that_notice_and_tests_that_do_not(tmp_path, capsys):
    """A module of this tree with its own tests, and with tests that look at nothing."""
    blind = tmp_path / "test_blind.py"
    blind.write_text("def test_nothing():\n    from actloc_core import pixels\n\n    assert pixels\n")
    main(["actloc_core/pixels.py", "--tests", str(blind), "--sample", "2"])
    assert "0 of 2 mutants noticed" in capsys.readouterr().out
    seeing = tmp_path / "test_seeing.py"
    seeing.write_text("def test_size():\n    from actloc_core.pixels import size_multiple\n\n"
                      "    assert size_multiple(256) == 32\n")  # fmt: skip
    main(["actloc_core/pixels.py", "--tests", str(seeing)])
    said = capsys.readouterr().out
    assert "crop // 8" not in said
    assert "mutants noticed" in said
