"""Draw the layers in docs/architecture.md from the imports, and describe their modules by their docstrings.

python -m tools.architecture
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Mapping
from graphlib import TopologicalSorter
from pathlib import Path

import grimp

from actloc_core.cli import command_parser

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "architecture.md"
PACKAGES = ("reports", "benchmarks", "datasets", "actloc_core", "evaluators")
MARK = "<!-- made by `python -m tools.architecture` -->"
DEPTHS = {"Folders": "", "Inside `benchmarks`": "benchmarks."}
"""Heading of the page -> prefix of the modules that are drawn below it, each up to its next dot."""


def imports(prefix: str) -> dict[str, set[str]]:
    """Unit -> the units it imports. A unit is a module or package directly below the prefix."""
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)

    def unit(module: str) -> str:
        return module.removeprefix(prefix).partition(".")[0]

    units_imported: dict[str, set[str]] = {}
    for module in sorted(graph.modules):
        if module.startswith(prefix):
            imported = graph.find_modules_directly_imported_by(module)
            units = {unit(other) for other in imported if other.startswith(prefix)}
            units_imported.setdefault(unit(module), set()).update(units - {unit(module)})
    return units_imported


def layers(imported: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Sort units into layers, each of which imports only from layers below it: [0] is imported by none.

    Raises graphlib.CycleError for a circle of imports.
    """
    importers: dict[str, set[str]] = {unit: set() for unit in imported}
    for unit, others in imported.items():
        for other in others:
            importers[other].add(unit)
    sorter = TopologicalSorter(importers)
    sorter.prepare()
    result = []
    while sorter.is_active():
        ready = sorter.get_ready()
        result.append(sorted(ready))
        sorter.done(*ready)
    return result


def drawing(order: list[list[str]]) -> str:
    """Layers as a Mermaid graph from top to bottom."""
    boxes = [f'    layer{number}["{", ".join(layer)}"]' for number, layer in enumerate(order, 1)]
    arrows = [f"    layer{number} --> layer{number + 1}" for number in range(1, len(order))]
    return "\n".join(["```mermaid", "graph TD", *boxes, *arrows, "```"])


def descriptions(order: list[list[str]], prefix: str) -> str:
    """A Markdown table of units that have a docstring, by layer."""
    rows = ["| layer | module | what it is |", "|---|---|---|"]
    for number, layer in enumerate(order, 1):
        for unit in layer:
            path = ROOT / prefix.replace(".", "/") / unit
            source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
            if source.exists():
                name = f"{unit}/" if path.is_dir() else source.name
                rows.append(f"| {number} | `{name}` | {first_sentence(source)} |")
    return "\n".join(rows)


def first_sentence(path: Path) -> str:
    """The first paragraph of a module's docstring, for a Markdown table."""
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    return " ".join(text.partition("\n\n")[0].split()).replace("|", "\\|")


def rewritten(page: str) -> str:
    """The page with its drawings made anew. Raises ValueError where a heading or its marker is missing."""
    for heading, prefix in DEPTHS.items():
        order = layers(imports(prefix))
        text = drawing(order) + ("\n\n" + descriptions(order, prefix) if prefix else "")
        place = re.compile(rf"(^## {re.escape(heading)}\n.*?{re.escape(MARK)}\n).*?(?=^## |\Z)", re.M | re.S)
        match = place.search(page)
        if match is None:
            raise ValueError(f"{PAGE}: no heading {heading!r} with the marker {MARK} below it")
        page = f"{page[: match.end(1)]}\n{text}\n\n{page[match.end() :]}"
    return page.rstrip() + "\n"


def main(argv: list[str] | None = None) -> int:
    """Rewrite the drawings in docs/architecture.md; -> 0."""
    command_parser("tools.architecture", __doc__).parse_args(argv)
    PAGE.write_text(rewritten(PAGE.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
