"""Run a notebook's cells and write what they show into it: `python -m tools.notebook docs/evaluators.ipynb`.

Without Jupyter. Of a cell, what it prints and its last expression are shown, as Jupyter would show them: by
`_repr_png_`, `_repr_html_` and `repr`. Cells run in one namespace, in a temporary folder.
"""

from __future__ import annotations

import argparse
import ast
import json
import sys
from base64 import b64encode
from collections.abc import Sequence
from contextlib import chdir, redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from evaluators.files import atomic_write

Cell = dict[str, Any]


def run(cells: list[Cell]) -> list[Cell]:
    """The cells with the outputs of a new run. An error of a cell is raised."""
    names: dict[str, Any] = {"__name__": "__main__"}
    done, number = [], 0
    with TemporaryDirectory() as folder, chdir(folder):
        for cell in cells:
            if cell["cell_type"] != "code":
                done.append(cell)
                continue
            number += 1
            outputs = _outputs("".join(cell["source"]), names, number)
            done.append(cell | {"execution_count": number, "outputs": outputs})
    return done


def _outputs(source: str, names: dict[str, Any], number: int) -> list[Cell]:
    tree, printed, shown = ast.parse(source), StringIO(), None
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    with redirect_stdout(printed):
        exec(compile(tree, f"<cell {number}>", "exec"), names)  # the notebook is ours
        if isinstance(last, ast.Expr):
            shown = eval(compile(ast.Expression(last.value), f"<cell {number}>", "eval"), names)
    outputs: list[Cell] = []
    if printed.getvalue():
        outputs.append({"name": "stdout", "output_type": "stream", "text": _lines(printed.getvalue())})
    if shown is not None:
        result = {"output_type": "execute_result", "execution_count": number, "metadata": {}}
        outputs.append(result | {"data": _data(shown)})
    return outputs


def _data(shown: object) -> dict[str, Any]:
    """What a value looks like, by MIME type."""
    if hasattr(shown, "_repr_png_"):
        image = b64encode(shown._repr_png_()).decode()
        return {"image/png": image, "text/plain": [f"<{type(shown).__name__}>"]}
    data: dict[str, Any] = {"text/plain": _lines(repr(shown))}
    if hasattr(shown, "_repr_html_"):
        data["text/html"] = _lines(shown._repr_html_())
    return data


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a notebook, write it anew and return the exit status, 0."""
    parser = argparse.ArgumentParser(prog="python -m tools.notebook", description=__doc__)
    parser.add_argument("notebook", type=Path, metavar="FILE", help="the notebook, .ipynb")
    path = parser.parse_args(arguments).notebook
    notebook = json.loads(path.read_text())
    notebook["cells"] = run(notebook["cells"])
    with atomic_write(path) as file:
        file.write((json.dumps(notebook, indent=1, ensure_ascii=False) + "\n").encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
