"""docs/evaluators.ipynb: its cells show what the page shows."""

import json

import pytest

from tests.console import ROOT
from tools import notebook

PAGE = ROOT / "docs" / "evaluators.ipynb"


def texts(cells):
    """The outputs of each code cell but for pictures, whose bytes depend on fonts."""
    for cell in cells:
        for output in cell.get("outputs", []):
            shown = output.get("data", {"text": output.get("text")})
            yield {kind: value for kind, value in shown.items() if kind != "image/png"}


def test_the_cells_show_what_the_page_shows():
    cells = json.loads(PAGE.read_text())["cells"]
    again = notebook.run(cells)
    assert list(texts(again)) == list(texts(cells))
    pictures = [o for cell in again for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
    assert len(pictures) == 3


def test_a_cell_shows_what_it_prints_and_its_last_value():
    def cell(source):
        return {"cell_type": "code", "source": [source]}

    text = {"cell_type": "markdown", "source": ["# Title"]}
    done = notebook.run([text, cell("x = 2\nprint(x)\nx + 1"), cell("y = x")])
    assert done[0] == text
    stream, result = done[1]["outputs"]
    assert (stream["text"], result["data"]) == (["2\n"], {"text/plain": ["3"]})
    assert (done[2]["execution_count"], done[2]["outputs"]) == (2, [])
    with pytest.raises(ZeroDivisionError):
        notebook.run([cell("1 / 0")])
