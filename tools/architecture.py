"""Draw docs/architecture.svg from the layers that import-linter checks, and describe those of `benchmarks`.

python -m tools.architecture
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

from actloc_core.cli import command_parser

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "architecture.md"
PICTURE = PAGE.with_suffix(".svg")
MARK = "<!-- made by `python -m tools.architecture` -->"
INSIDE = "benchmarks"
"""The package whose layers are drawn and described, too."""
WIDTH, ROW, BASELINE, GAP, MARGIN = 800, 30, 20, 8, 12
"""Pixels: widths and heights, a text's baseline in its box, the space between boxes and around them."""

Layers = Sequence[Sequence[str]]
"""Names from top to bottom; those of one layer import only from layers below, and not each other."""


def layers(container: str | None = None) -> Layers:
    """The layers of a contract in pyproject.toml: inside a package, or of the packages.

    Raises ValueError where a module of the package is in no layer.
    """
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    [found] = [
        contract["layers"]
        for contract in contracts
        if contract["type"] == "layers" and contract.get("containers") == (container and [container])
    ]
    split = [sorted(re.findall(r"\w+", layer)) for layer in found]
    if container:
        modules = {path.parent.name for path in (ROOT / container).glob("*/__init__.py")}
        modules |= {path.stem for path in (ROOT / container).glob("[!_]*.py")}
        if left_out := modules - {name for layer in split for name in layer}:
            raise ValueError(f"pyproject.toml: {', '.join(sorted(left_out))} of {container} in no layer")
    return split


def drawing(outer: Layers, inner: Layers) -> str:
    """The packages from top to bottom as SVG, `inner` inside the box of INSIDE."""
    parts, y = [], MARGIN
    for layer in outer:
        rows = inner if [*layer] == [INSIDE] else []
        height = ROW + len(rows) * (ROW + GAP)
        parts += _boxes(layer, MARGIN, WIDTH - MARGIN, y, height, "package")
        for number, row in enumerate(rows, 1):
            top = y + ROW + (number - 1) * (ROW + GAP)
            parts.append(f'<text class="number" x="{2.5 * MARGIN}" y="{top + BASELINE}">{number}</text>')
            parts += _boxes(row, 4 * MARGIN, WIDTH - 2 * MARGIN, top, ROW, "module")
        y += height + GAP
    height = y - GAP + MARGIN
    boxes = "\n".join(parts)
    return f"""<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" \
viewBox="0 0 {WIDTH} {height}">
<style>
  rect {{ stroke: #57606a; }} .page {{ fill: white; stroke: none; }}
  .package {{ fill: #dbe9f9; }} .module {{ fill: #fdf6e3; }}
  text {{ font: 14px sans-serif; fill: #1f2328; text-anchor: middle; }}
  text.package {{ fill: #1f2328; font-weight: bold; }} text.module {{ fill: #1f2328; }}
</style>
<rect class="page" width="{WIDTH}" height="{height}"/>
{boxes}
</svg>
"""


def _boxes(names: Sequence[str], left: float, right: float, y: float, height: float, kind: str) -> list[str]:
    """Boxes of equal width side by side, with the names in their first ROW pixels."""
    width = (right - left - GAP * (len(names) - 1)) / len(names)
    parts = []
    for at, name in enumerate(names):
        x = left + at * (width + GAP)
        parts += [
            f'<rect class="{kind}" x="{x:.1f}" y="{y}" width="{width:.1f}" height="{height}" rx="5"/>',
            f'<text class="{kind}" x="{x + width / 2:.1f}" y="{y + BASELINE}">{name}</text>',
        ]
    return parts


def descriptions(inner: Layers) -> str:
    """A Markdown table of the modules of INSIDE, by layer."""
    rows = ["| layer | module | what it is |", "|---|---|---|"]
    for number, layer in enumerate(inner, 1):
        for name in layer:
            path = ROOT / INSIDE / name
            source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
            shown = f"{name}/" if path.is_dir() else source.name
            rows.append(f"| {number} | `{shown}` | {first_sentence(source)} |")
    return "\n".join(rows)


def first_sentence(path: Path) -> str:
    """The first paragraph of a module's docstring, for a Markdown table."""
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    return " ".join(text.partition("\n\n")[0].split()).replace("|", "\\|")


def rewritten(page: str) -> str:
    """The page with what follows its marker made anew. Raises ValueError where the marker is missing."""
    kept, mark, _ = page.partition(MARK)
    if not mark:
        raise ValueError(f"{PAGE}: no marker {MARK}")
    return f"{kept}{mark}\n\n{descriptions(layers(INSIDE))}\n"


def main(argv: list[str] | None = None) -> int:
    """Write docs/architecture.svg and the table in docs/architecture.md; -> 0."""
    command_parser("tools.architecture", __doc__).parse_args(argv)
    page = rewritten(PAGE.read_text())
    PICTURE.write_text(drawing(layers(), layers(INSIDE)))
    PAGE.write_text(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
