"""Write docs/api.md, what `import evaluators` has, from its docstrings: `python -m tools.api`."""

from __future__ import annotations

import argparse
import ast
import inspect
import sys
import textwrap
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import evaluators
from evaluators.files import atomic_write

PAGE = Path(__file__).resolve().parents[1] / "docs" / "api.md"
HEAD = """# The evaluators' API

What `import evaluators` has, from its docstrings (`python -m tools.api` writes this page).
Examples: [evaluators.md](evaluators.md), [evaluators.ipynb](evaluators.ipynb).
"""
ORDER = (
    "frame_map", "video_map", "linking", "tubes", "precision_recall", "jackknife", "errors", "chance",
    "audit", "present", "ava_csv", "act_pickle", "files", "matching",
)  # fmt: skip
"""The modules, the most used first."""


def page() -> str:
    """The page's text. ValueError: a name of a module that ORDER lacks."""
    of_module: dict[str, list[str]] = {module: [] for module in ORDER}
    for name, value in sorted(vars(evaluators).items(), key=lambda item: item[0].lower()):
        if name.startswith("_") or inspect.ismodule(value):
            continue
        module = getattr(value, "__module__", "").rpartition(".")[2]
        if not callable(value):
            continue
        if module not in of_module:
            raise ValueError(f"evaluators.{name} is of {module}, which tools.api does not know")
        of_module[module].append(entry(name, value))
    sections = [
        f"## {module}\n\n```text\n{_summary(module)}\n```\n\n" + "\n".join(entries)
        for module, entries in of_module.items()
        if entries
    ]
    return HEAD + "\n" + "\n".join(sections)


def entry(name: str, value: object) -> str:
    """The head of a class or function as its source has it, with its fields, and its docstring."""
    text = inspect.getdoc(value) or ""
    return f"### {name}\n\n```python\n{_head(value)}\n```\n\n```text\n{text}\n```\n"


def _head(value: object) -> str:
    """The source of a function up to its docstring; of a class, its fields with their comments, too."""
    target = inspect.unwrap(value) if callable(value) else value
    lines = textwrap.dedent(inspect.getsource(target)).splitlines()  # type: ignore[arg-type]
    [node] = ast.parse("\n".join(lines)).body
    assert isinstance(node, ast.FunctionDef | ast.ClassDef)
    head = lines[node.lineno - 1 : node.body[0].lineno - 1]
    if isinstance(node, ast.ClassDef):
        methods = [part for part in node.body if isinstance(part, ast.FunctionDef)]
        first = min((min([m.lineno, *(d.lineno for d in m.decorator_list)]) for m in methods), default=None)
        head += lines[node.body[0].end_lineno : first - 1 if first else None]
    return "\n".join(line for line in head if line.strip()).removesuffix(":")


def _summary(module: str) -> str:
    return (inspect.getdoc(import_module(f"evaluators.{module}")) or "").split("\n\n")[0]


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page, and return the exit status, 0."""
    argparse.ArgumentParser(prog="python -m tools.api", description=__doc__).parse_args(arguments)
    with atomic_write(PAGE) as file:
        file.write(page().encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
