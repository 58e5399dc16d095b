"""Writing files atomically, and what outputs that are no regular files get."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from actloc_core.files import atomic_path, text_beside
from tests.console import ROOT


def write(path, text="new"):
    with atomic_path(path) as part:
        part.write_text(text)


def test_a_link_stays_and_its_file_is_replaced(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").write_text("old")
    (tmp_path / "link").symlink_to("there/file")
    write(tmp_path / "link")
    assert os.readlink(tmp_path / "link") == "there/file"
    assert (tmp_path / "there" / "file").read_text() == "new"
    assert os.listdir(tmp_path / "there") == ["file"]


def test_a_pipe_gets_the_content_and_stays(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write(tmp_path / "pipe")
    assert os.read(reader, 99) == b"new"
    os.close(reader)
    assert (tmp_path / "pipe").is_fifo()


def test_a_device_stays_and_a_full_one_is_an_error():
    write(Path("/dev/null"))
    assert Path("/dev/null").is_char_device()
    with pytest.raises(OSError, match="No space left"):
        write(Path("/dev/full"))


@pytest.mark.parametrize("name", ["-", "/dev/stdout"])
def test_standard_output_gets_the_content_and_standard_error_the_text(name, capfd):
    with text_beside(Path(name), Path("another")):
        print("text")
        write(Path(name))
    assert capfd.readouterr() == ("new", "text\n")
    assert Path("/dev/stdout").is_symlink()


def test_standard_output_is_for_one_file():
    with (
        pytest.raises(ValueError, match="- and /dev/stdout are both standard output"),
        text_beside(Path("-"), Path("/dev/stdout"), None),
    ):
        pass


@pytest.mark.slow
def test_a_command_whose_output_nobody_reads_ends_quietly():
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.flops", "--instant"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    process.stdout.close()
    assert process.communicate()[1] == b""
    assert process.returncode == 141
