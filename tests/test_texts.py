"""Everything public says what it is: docstrings of modules, classes and functions, help of every option."""

import argparse
import ast
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = [path for folder in ("actloc_core", "datasets", "evaluators", "benchmarks", "reports")
           for path in sorted((ROOT / folder).rglob("*.py")) if "perf" not in path.parts]  # fmt: skip
COMMANDS = [path for path in [*MODULES, *sorted((ROOT / "tests").glob("*.py"))]
            if "ArgumentParser(" in path.read_text() and path != Path(__file__)]  # fmt: skip


def name_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def silent(node, name):
    """Names of what is public in a module or class and has no docstring."""
    for child in node.body:
        if isinstance(child, ast.FunctionDef | ast.ClassDef) and not child.name.startswith("_"):
            if not ast.get_docstring(child):
                yield f"{name}.{child.name}"
            if isinstance(child, ast.ClassDef):
                yield from silent(child, f"{name}.{child.name}")


def test_what_is_looked_for():
    """A class and its method, one of them silent; a nested function is nobody's business."""
    tree = ast.parse(
        'class A:\n    "Says."\n    def f(self):\n        def g(): pass\n    def _h(self): pass\n'
    )
    assert list(silent(tree, "m")) == ["m.A.f"]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_docstrings(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), f"{path}: what may be done to this file?"
    assert list(silent(tree, name_of(path))) == []


ARRAYS = ("Tensor", "NDArray", "ndarray", "Floats", "Ints", "Bools")
SHAPE = re.compile(r"\((?:[^()]|\(\w+\))*,[^()]*\)|scalar")
"""Such as (N, 4), (K,) or (len(indices), H, W, 3)."""


def unsaid(node, name):
    """What docstrings of public functions leave out: a shape, an error that they raise themselves."""
    for child in node.body:
        if isinstance(child, ast.ClassDef) and not child.name.startswith("_"):
            yield from unsaid(child, f"{name}.{child.name}")
        if not isinstance(child, ast.FunctionDef) or child.name.startswith("_"):
            continue
        said = ast.get_docstring(child) or ""
        types = ast.unparse(child.args) + (ast.unparse(child.returns) if child.returns else "")
        if any(kind in types for kind in ARRAYS) and not SHAPE.search(said):
            yield f"{name}.{child.name}: no shape"
        tries = [node for node in ast.walk(child) if isinstance(node, ast.Try)]
        caught = {id(r) for t in tries for line in t.body for r in ast.walk(line)}
        for r in ast.walk(child):
            if isinstance(r, ast.Raise) and isinstance(r.exc, ast.Call) and id(r) not in caught:
                error = ast.unparse(r.exc.func)
                if error[0].isupper() and error not in said:
                    yield f"{name}.{child.name}: raises {error}"


def test_what_is_left_out_is_noticed():
    tree = ast.parse(
        "def f(x: Tensor):\n    'Of x (see there).'\n"
        "def g(x: Tensor) -> int:\n    '(N,) -> its length. IndexError: none.'\n"
        "    raise IndexError()\ndef h():\n    'Says.'\n    raise OSError('gone')\n"
        "def k():\n    'Says.'\n    try:\n        raise OSError()\n    except OSError: pass\n"
    )
    assert list(unsaid(tree, "m")) == ["m.f: no shape", "m.h: raises OSError"]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_docstrings_give_shapes_and_errors(path):
    assert list(unsaid(ast.parse(path.read_text()), name_of(path))) == []


def without_help(parser, command):
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, sub in action.choices.items():
                yield from without_help(sub, f"{command} {name}")
        elif not action.help:
            yield f"{command}: {action.option_strings or action.dest}"


CALLS = [pytest.param(path, [], id=name_of(path)) for path in COMMANDS]
CALLS += [pytest.param(ROOT / "reports" / "__main__.py", [verb], id=f"reports {verb}")
          for verb in ("figures", "compare")]  # fmt: skip


@pytest.mark.parametrize(("path", "words"), CALLS)
def test_help_of_options(path, words, monkeypatch):
    parsers = []

    def parse_args(parser, *args, **options):
        parsers.append(parser)
        raise SystemExit(0)

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
    module = importlib.import_module(name_of(path))
    with pytest.raises(SystemExit):
        module.main(words)
    [parser] = parsers
    assert parser.description
    assert list(without_help(parser, name_of(path))) == []


def test_an_option_without_help_is_noticed():
    parser = argparse.ArgumentParser()
    parser.add_argument("--told", help="what it does")
    parser.add_argument("--silent")
    assert list(without_help(parser, "c")) == ["c: ['--silent']"]
