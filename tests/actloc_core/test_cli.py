"""Exit codes of commands, and files that appear only when complete."""

import pytest

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
