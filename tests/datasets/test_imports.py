"""What can be imported on a machine without video decoders."""

import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
ABSENT = ("av", "decord", "ray", "fvcore", "rich", "filelock")


def imported_without(absent, module):
    """Import a module in a fresh interpreter where the packages `absent` are not installed."""
    blocked = f"import sys; sys.modules.update(dict.fromkeys({absent!r})); import {module}"
    return subprocess.run([sys.executable, "-c", blocked], cwd=CHECKOUT, capture_output=True, text=True)


@pytest.mark.parametrize(
    "module",
    ["datasets.scenes", "datasets.tube_scenes", "datasets.transforms", "datasets.split", "datasets.tubes",
     "datasets.ava"],
)  # fmt: skip
def test_imports_without_video_decoders_and_cluster_tools(module):
    done = imported_without(ABSENT, module)
    assert done.returncode == 0, done.stderr


def test_drawing_needs_no_torch():
    done = imported_without((*ABSENT, "torch", "pandas", "PIL"), "datasets.scenes, datasets.tube_scenes")
    assert done.returncode == 0, done.stderr


def test_a_blocked_package_is_noticed():
    assert "import of av halted" in imported_without(ABSENT, "datasets.synthetic").stderr
