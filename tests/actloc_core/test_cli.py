"""Exit codes of commands, and files that appear only when complete."""

import subprocess
import sys

import pytest

import actloc_core
from actloc_core import cli
from actloc_core.files import atomic_path


def test_exit_code_is_the_commands_own():
    assert cli.exit_code(lambda: 3) == 3


@pytest.mark.parametrize("error", [ValueError, FileNotFoundError, ImportError])
def test_bad_input_is_one_line_and_exit_code_2(error, capsys):
    def command():
        raise error("a.csv:3: y1 is 2")

    assert cli.exit_code(command) == 2
    assert capsys.readouterr().err == "error: a.csv:3: y1 is 2\n"


def test_ctrl_c_is_one_line_and_exit_code_130(capsys):
    def command():
        raise KeyboardInterrupt

    assert cli.exit_code(command) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_other_errors_are_not_hidden():
    with pytest.raises(ZeroDivisionError):
        cli.exit_code(lambda: 1 // 0)


def test_atomic_path_replaces_the_file_only_without_an_error(tmp_path):
    path = tmp_path / "new" / "a.txt"

    def write(text, error=None):
        with atomic_path(path) as part:
            part.write_text(text)
            if error is not None:
                raise error

    write("first")
    with pytest.raises(KeyboardInterrupt):
        write("half", KeyboardInterrupt())
    assert path.read_text() == "first"
    assert [file.name for file in path.parent.iterdir()] == ["a.txt"]


def test_version_says_what_a_report_of_a_fault_needs(capsys):
    with pytest.raises(SystemExit, match="0"):
        cli.command_parser("actloc_core.predict", "Predict.").parse_args(["--version"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"actloc {actloc_core.__version__}, Python 3.")
    assert any(line.startswith("torch 2.") for line in lines)


def test_the_package_has_the_detector_and_the_loader_and_imports_no_torch_for_them():
    from actloc_core.checkpoints import load_backbone
    from actloc_core.detector import ActionDetector

    assert actloc_core.ActionDetector is ActionDetector
    assert actloc_core.load_backbone is load_backbone
    assert {"ActionDetector", "load_backbone"} <= set(dir(actloc_core))
    with pytest.raises(AttributeError, match="has no attribute 'Detector'"):
        _ = actloc_core.Detector
    code = "import sys, actloc_core; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
