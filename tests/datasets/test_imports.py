"""What can be imported on a machine without video decoders."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
PROGRAM = Path(__file__).with_name("programs") / "import_without.py"
ABSENT = ("av", "decord", "ray", "fvcore", "rich", "filelock")


def imported_without(absent, *modules):
    """Import modules in a fresh interpreter where the packages `absent` are not installed."""
    return subprocess.run(
        [sys.executable, PROGRAM, ",".join(absent), ",".join(modules)], capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(CHECKOUT)}, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_imports_without_video_decoders_and_cluster_tools():
    modules = ("scenes", "tube_scenes", "transforms", "split", "tubes", "ava")
    done = imported_without(ABSENT, *(f"datasets.{name}" for name in modules))
    assert done.returncode == 0, done.stderr


def test_drawing_needs_no_torch():
    done = imported_without((*ABSENT, "torch", "pandas", "PIL"), "datasets.scenes", "datasets.tube_scenes")
    assert done.returncode == 0, done.stderr


def test_a_blocked_package_is_noticed():
    assert "import of av halted" in imported_without(ABSENT, "datasets.synthetic").stderr
