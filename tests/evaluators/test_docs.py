"""docs/evaluators.md: its scripts run, and its commands print the output shown."""

import pytest

from evaluators import Protocol
from tests.console import ROOT, blocks, examples, printed, shell

PAGE = ROOT / "docs" / "evaluators.md"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder in which the page's first script was run."""
    path = tmp_path_factory.mktemp("docs")
    (path / "make.py").write_text(blocks(PAGE, "python")[0])
    assert shell("python make.py", path, warnings="error").stdout == ""
    return path


def test_every_command_prints_the_output_on_the_page(folder):
    commands = [*examples(PAGE)]
    assert len(commands) >= 8
    for command, expected in commands:
        assert printed(command, folder) == expected, command


@pytest.mark.slow
def test_script_prints_the_output_on_the_page(folder):
    (folder / "score.py").write_text(blocks(PAGE, "python")[1])
    assert shell("python score.py", folder, warnings="error").stdout == blocks(PAGE, "text")[0]
    assert (folder / "intervals.svg").exists()


def test_every_protocol_is_on_the_page():
    for protocol in Protocol:
        assert f"| `{protocol}`" in PAGE.read_text()
