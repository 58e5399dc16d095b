"""docs/architecture.md's pictures and lists, from the imports and docstrings: `python -m tests.architecture`.

Writes what stands between the markers of that page; `tests/test_architecture.py` holds it to the code.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "architecture.md"
PACKAGES = ("reports", "benchmarks", "datasets", "actloc_core", "evaluators")
MARK = "<!-- made by `python -m tests.architecture` -->"
INSIDE = ("actloc_core", "benchmarks")
"""Packages whose own modules are drawn."""


def graph() -> grimp.ImportGraph:
    sys.path.insert(0, str(ROOT))
    return grimp.build_graph(*PACKAGES, cache_dir=None)


def arrows_between_packages(found: grimp.ImportGraph) -> str:
    """Mermaid: how many modules of one package import some of another."""
    lines = ["```mermaid", "graph TD"]
    for one in PACKAGES:
        for other in PACKAGES:
            importers = {
                module
                for module in found.modules
                if module.partition(".")[0] == one
                for imported in found.find_modules_directly_imported_by(module)
                if imported.partition(".")[0] == other
            }
            if one != other and importers:
                lines.append(f"    {one} -->|{len(importers)}| {other}")
    return "\n".join([*lines, "```"])


def arrows_within(found: grimp.ImportGraph, package: str) -> str:
    """Mermaid: which module of a package imports which. A subpackage is one box."""

    def box(module: str) -> str:
        return module.split(".")[1] if "." in module else ""

    pairs = {
        (box(module), box(imported))
        for module in found.modules
        for imported in found.find_modules_directly_imported_by(module)
        if module.startswith(f"{package}.") and imported.startswith(f"{package}.")
    }
    lines = [f"    {one} --> {other}" for one, other in sorted(pairs) if one != other and one and other]
    return "\n".join(["```mermaid", "graph LR", *lines, "```"])


def first_words(path: Path) -> str:
    """A module's first sentence, without its command line."""
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    return " ".join(text.partition("\n\n")[0].split()).replace("|", "\\|")


def files(package: str) -> str:
    rows = [
        f"| `{path.relative_to(ROOT / package)}` | {first_words(path)} |"
        for path in sorted((ROOT / package).rglob("*.py"))
        if "perf" not in path.parts
    ]
    return "\n".join(["| file | what it is |", "|---|---|", *rows])


def sections() -> dict[str, str]:
    """Heading of docs/architecture.md -> what is made below it."""
    found = graph()
    made = {"Which way imports point": arrows_between_packages(found)}
    for package in PACKAGES:
        parts = [files(package)] + ([arrows_within(found, package)] if package in INSIDE else [])
        made[f"`{package}`"] = "\n\n".join(parts)
    return made


def rewritten(page: str) -> str:
    for heading, text in sections().items():
        place = re.compile(rf"(^## {re.escape(heading)}\n.*?{re.escape(MARK)}\n).*?(?=^## |\Z)", re.M | re.S)
        if not place.search(page):
            raise ValueError(f"{PAGE}: no heading {heading!r} with the marker below it")
        page = place.sub(lambda found, text=text: f"{found[1]}\n{text}\n\n", page)
    return page.rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(rewritten(PAGE.read_text()))
