"""Docstrings of everything public, help texts of every option, and the length of names of tests."""

import argparse
import ast
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = [path for folder in ("actloc_core", "datasets", "evaluators", "benchmarks", "reports", "tools")
           for path in sorted((ROOT / folder).rglob("*.py")) if "perf" not in path.parts]  # fmt: skip
COMMANDS = [path for path in MODULES if re.search(r"^def main\(", path.read_text(), re.MULTILINE)]


def name_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def undocumented(node, name):
    """Names of public functions and classes in a module or class without a docstring."""
    for child in node.body:
        if isinstance(child, ast.FunctionDef | ast.ClassDef) and not child.name.startswith("_"):
            if not ast.get_docstring(child):
                yield f"{name}.{child.name}"
            if isinstance(child, ast.ClassDef):
                yield from undocumented(child, f"{name}.{child.name}")


def test_methods_without_a_docstring_are_found():
    """A class with a docstring and its method without one; nested and private functions do not count."""
    tree = ast.parse(
        'class A:\n    "Says."\n    def f(self):\n        def g(): pass\n    def _h(self): pass\n'
    )
    assert list(undocumented(tree, "m")) == ["m.A.f"]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_modules_functions_and_classes_have_docstrings(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), f"{path}: no docstring"
    assert list(undocumented(tree, name_of(path))) == []


ARRAYS = ("Tensor", "NDArray", "ndarray", "Floats", "Ints", "Bools")
SHAPE = re.compile(r"\((?:[^()]|\(\w+\))*,[^()]*\)|scalar|any shape")
"""Such as (N, 4), (K,), (len(indices), H, W, 3), or "any shape"."""


def omissions(node, name):
    """What docstrings of public functions omit: shapes of arrays, errors that the function itself raises."""
    for child in node.body:
        if isinstance(child, ast.ClassDef) and not child.name.startswith("_"):
            yield from omissions(child, f"{name}.{child.name}")
        if not isinstance(child, ast.FunctionDef) or child.name.startswith("_"):
            continue
        text = ast.get_docstring(child) or ""
        types = ast.unparse(child.args) + (ast.unparse(child.returns) if child.returns else "")
        if any(kind in types for kind in ARRAYS) and not SHAPE.search(text):
            yield f"{name}.{child.name}: no shape"
        tries = [node for node in ast.walk(child) if isinstance(node, ast.Try)]
        caught = {id(r) for t in tries for line in t.body for r in ast.walk(line)}
        for r in ast.walk(child):
            if isinstance(r, ast.Raise) and isinstance(r.exc, ast.Call) and id(r) not in caught:
                error = ast.unparse(r.exc.func)
                if error[0].isupper() and error not in text:
                    yield f"{name}.{child.name}: raises {error}"


def test_omitted_shapes_and_errors_are_found():
    tree = ast.parse(
        "def f(x: Tensor):\n    'Of x (see there).'\n"
        "def g(x: Tensor) -> int:\n    '(N,) -> its length. IndexError: none.'\n"
        "    raise IndexError()\ndef h():\n    'Says.'\n    raise OSError('gone')\n"
        "def k():\n    'Says.'\n    try:\n        raise OSError()\n    except OSError: pass\n"
    )
    assert list(omissions(tree, "m")) == ["m.f: no shape", "m.h: raises OSError"]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_docstrings_give_shapes_and_errors(path):
    assert list(omissions(ast.parse(path.read_text()), name_of(path))) == []


def without_help(parser, command):
    """Options of a parser and its subcommands without a help text."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, sub in action.choices.items():
                yield from without_help(sub, f"{command} {name}")
        elif not action.help:
            yield f"{command}: {action.option_strings or action.dest}"


@pytest.mark.parametrize("path", COMMANDS, ids=name_of)
def test_every_command_and_option_has_help(path, monkeypatch):
    parsers = []

    def parse_args(parser, *args, **options):
        parsers.append(parser)
        raise SystemExit(0)

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
    module = importlib.import_module(name_of(path))
    with pytest.raises(SystemExit):
        module.main([])
    [parser] = parsers
    assert parser.description
    assert list(without_help(parser, name_of(path))) == []


def test_an_option_without_help_is_found():
    parser = argparse.ArgumentParser()
    parser.add_argument("--documented", help="what it does")
    parser.add_argument("--undocumented")
    assert list(without_help(parser, "c")) == ["c: ['--undocumented']"]


TESTS = sorted((ROOT / "tests").rglob("test_*.py"))


@pytest.mark.parametrize("path", TESTS, ids=name_of)
def test_names_of_tests_are_at_most_80_characters(path):
    tree = ast.parse(path.read_text())
    names = [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    assert [name for name in names if name.startswith("test_") and len(name) > 80] == []
