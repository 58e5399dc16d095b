"""docs/evaluators.md: its scripts run, and its commands print the output shown."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "evaluators.md"


def blocks(kind):
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def shell(command, folder):
    """What a command prints; `python` is this interpreter."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHON": sys.executable}
    script = 'python() { "$PYTHON" -W error "$@"; }\n' + command
    process = subprocess.run(
        ["bash", "-c", script], cwd=folder, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    return process.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder in which the page's first script was run."""
    path = tmp_path_factory.mktemp("docs")
    (path / "make.py").write_text(blocks("python")[0])
    assert shell("python make.py", path) == ""
    return path


def test_every_command_prints_the_output_on_the_page(folder):
    commands = [
        part for block in blocks("console") for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]
    ]
    assert len(commands) >= 8
    for part in commands:
        command, expected = part.split("\n", 1)
        assert shell(command, folder) == expected, command


def test_script_prints_the_output_on_the_page(folder):
    (folder / "score.py").write_text(blocks("python")[1])
    assert shell("python score.py", folder) == blocks("text")[0]
    assert (folder / "intervals.svg").exists()


def test_every_protocol_is_on_the_page():
    from evaluators import Protocol

    for protocol in Protocol:
        assert f"| `{protocol}`" in PAGE.read_text()
