"""What can be imported on a machine without video decoders."""

import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
ABSENT = ("av", "decord", "ray", "fvcore", "rich", "filelock")


def imported_without(absent, modules):
    """Import modules in a fresh interpreter where the packages `absent` are not installed."""
    blocked = f"import sys; sys.modules.update(dict.fromkeys({absent!r})); import {modules}"
    return subprocess.run([sys.executable, "-c", blocked], cwd=CHECKOUT, capture_output=True, text=True)


@pytest.mark.slow
def test_imports_without_video_decoders_and_cluster_tools():
    modules = ("scenes", "tube_scenes", "transforms", "split", "tubes", "ava")
    done = imported_without(ABSENT, ", ".join(f"datasets.{name}" for name in modules))
    assert done.returncode == 0, done.stderr


def test_drawing_needs_no_torch():
    done = imported_without((*ABSENT, "torch", "pandas", "PIL"), "datasets.scenes, datasets.tube_scenes")
    assert done.returncode == 0, done.stderr


def test_a_blocked_package_is_noticed():
    assert "import of av halted" in imported_without(ABSENT, "datasets.synthetic").stderr
