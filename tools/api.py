"""Write docs/api.md and docs/api_core.md, the two libraries' APIs, from docstrings: `python -m tools.api`."""

from __future__ import annotations

import argparse
import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType

import evaluators
from evaluators.files import atomic_write

DOCS = Path(__file__).resolve().parents[1] / "docs"
EVALUATORS = """# The evaluators' API

What `import evaluators` has, from its docstrings (`python -m tools.api` writes this page).
Examples: [evaluators.md](evaluators.md), [evaluators.ipynb](evaluators.ipynb).
"""
CORE = """# The models' API

What programs import from `actloc_core`, from its docstrings (`python -m tools.api` writes this page).
`ActionDetector` and `load_backbone` are also in `actloc_core` itself.
Examples: [predict.md](predict.md), [new_backbone.md](new_backbone.md).
"""
EVALUATORS_ORDER = (
    "frame_map", "video_map", "linking", "tubes", "precision_recall", "jackknife", "errors", "chance",
    "audit", "present", "ava_csv", "act_pickle", "files", "matching",
)  # fmt: skip
"""The modules, the most used first."""
CORE_ORDER = (
    "detector", "keyframes", "tracks", "checkpoints", "clip", "backbones", "selection", "model", "matcher",
    "loss", "structures", "boxes", "assemble",
)  # fmt: skip


def evaluators_page() -> str:
    """The text of docs/api.md. ValueError: a name of a module that EVALUATORS_ORDER lacks."""
    of_module: dict[str, dict[str, object]] = {module: {} for module in EVALUATORS_ORDER}
    for name, value in _public(evaluators).items():
        module = value.__module__.rpartition(".")[2]
        if module not in of_module:
            raise ValueError(f"evaluators.{name} is of {module}, which tools.api does not know")
        of_module[module][name] = value
    sections = [
        _section(module, import_module(f"evaluators.{module}"), named)
        for module, named in of_module.items()
        if named
    ]
    return "\n".join([EVALUATORS, *sections])


def core_page() -> str:
    """The text of docs/api_core.md: everything public that the modules of CORE_ORDER define."""
    modules = [import_module(f"actloc_core.{name}") for name in CORE_ORDER]
    return "\n".join([CORE, *(_section(m.__name__, m, _public(m)) for m in modules)])


PAGES = {DOCS / "api.md": evaluators_page, DOCS / "api_core.md": core_page}


def _public(module: ModuleType) -> dict[str, object]:
    """The functions and classes that a module, or a package with its modules, has and defines."""
    return {
        name: value
        for name, value in sorted(vars(module).items(), key=lambda item: item[0].lower())
        if (inspect.isfunction(value) or inspect.isclass(value))
        and not name.startswith("_")
        and f"{value.__module__}.".startswith(f"{module.__name__}.")
    }


def _section(title: str, module: ModuleType, named: Mapping[str, object]) -> str:
    summary = (inspect.getdoc(module) or "").split("\n\n")[0]
    entries = "\n".join(entry(name, value) for name, value in named.items())
    return f"## {title}\n\n```text\n{summary}\n```\n\n{entries}"


def entry(name: str, value: object) -> str:
    """The head of a class or function as its source has it, with its fields, and its docstring.

    Then those of a class's own methods.
    """
    lines, node = _source(value)
    if isinstance(node, ast.FunctionDef):
        return f"### {name}\n\n" + _blocks(_signature(lines, node), inspect.getdoc(value))
    methods = [part for part in node.body if isinstance(part, ast.FunctionDef)]
    text = f"### {name}\n\n" + _blocks(_class_head(lines, node, methods), inspect.getdoc(value))
    for method in methods:
        if not method.name.startswith("_") or method.name == "__call__":
            head = textwrap.dedent(_signature(lines, method))
            text += f"\n#### {name}.{method.name}\n\n" + _blocks(head, ast.get_docstring(method))
    return text


def _source(value: object) -> tuple[list[str], ast.FunctionDef | ast.ClassDef]:
    """The source of a class or function: its lines, and what they say."""
    target = inspect.unwrap(value) if callable(value) else value
    lines = textwrap.dedent(inspect.getsource(target)).splitlines()  # type: ignore[arg-type]
    [node] = ast.parse("\n".join(lines)).body
    assert isinstance(node, ast.FunctionDef | ast.ClassDef)
    return lines, node


def _start(function: ast.FunctionDef) -> int:
    """Index of a function's first line, a decorator's if it has any."""
    return min([function.lineno, *(decorator.lineno for decorator in function.decorator_list)]) - 1


def _signature(lines: list[str], function: ast.FunctionDef) -> str:
    """The source of a function up to its body."""
    head = lines[_start(function) : function.body[0].lineno - 1]
    return "\n".join(line for line in head if line.strip()).removesuffix(":")


def _class_head(lines: list[str], node: ast.ClassDef, methods: list[ast.FunctionDef]) -> str:
    """The source of a class: its fields with their comments, and how one is made."""
    head = lines[node.lineno - 1 : node.body[0].lineno - 1]
    first = min(map(_start, methods), default=None)
    head += [line for line in lines[node.body[0].end_lineno : first] if not re.match(r"    _\w+:", line)]
    head += [_signature(lines, method) for method in methods if method.name == "__init__"]
    return "\n".join(line for line in head if line.strip()).removesuffix(":")


def _blocks(head: str, doc: str | None) -> str:
    return f"```python\n{head}\n```\n" + (f"\n```text\n{doc}\n```\n" if doc else "")


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the pages, and return the exit status, 0."""
    argparse.ArgumentParser(prog="python -m tools.api", description=__doc__).parse_args(arguments)
    for path, page in PAGES.items():
        with atomic_write(path) as file:
            file.write(page().encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
