"""The whole command, interrupted in every way there is: rerun, it ends as if it had not been."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch

from benchmarks.experiments import rows_at
from tests.benchmarks.shared import CHECKOUT

pytestmark = pytest.mark.slow

PROGRAMS = CHECKOUT / "tests" / "benchmarks" / "programs"
ROW = "ours/drawn_weights"
"""Without the pre-training of other rows, which would be one more trial."""
EXP = rows_at("smoke")[ROW]


@pytest.fixture(scope="module")
def base(tmp_path_factory, smoke_data):
    """A folder for outputs, whose sitecustomize makes the trials checkpoint after each slow step."""
    folder = tmp_path_factory.mktemp("interrupted")
    shutil.copy(PROGRAMS / "slow_steps.py", folder)
    shutil.copy(PROGRAMS / "slow_steps_with_checkpoints.py", folder / "sitecustomize.py")
    (folder / "data").symlink_to(smoke_data)
    return folder


def start(base, out):
    """The command, with data that are there already."""
    out.mkdir(exist_ok=True)
    if not (out / "data").exists():
        (out / "data").symlink_to(base / "data")
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.ablations", "--scale", "smoke", "--only", ROW, "--out", out],
        cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        env=os.environ | {"PYTHONPATH": f"{base}{os.pathsep}{CHECKOUT}"},
    )  # fmt: skip


def training_of(out):
    return out / "trainings" / EXP.training_hash


def weights(out):
    return torch.load(training_of(out) / "checkpoint.pt", weights_only=True)["model"]


@pytest.fixture(scope="module")
def whole(base):
    """Weights and log of a command that was not interrupted."""
    out = base / "whole"
    with start(base, out) as process:
        printed = process.stdout.read()
    assert process.returncode == 0, printed
    return weights(out), (training_of(out) / "log.csv").read_text()


def wait_for(condition, seconds=600):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "timeout"
        time.sleep(0.05)


def test_killed_then_interrupted_the_rerun_command_ends_bit_for_bit_the_same(base, whole):
    out = base / "interrupted"
    for step, number in ((2, signal.SIGKILL), (4, signal.SIGINT)):
        with start(base, out) as process:
            state = training_of(out) / f"state_{step:09}.pt"
            wait_for(lambda state=state, process=process: state.exists() or process.poll() is not None)
            os.kill(process.pid, number)
            printed = process.stdout.read()
        assert process.returncode != 0
        assert not (training_of(out) / "checkpoint.pt").exists()
    assert "to run (not finished)" in printed
    assert "interrupted; rerun the same command to resume" in printed
    assert "Traceback" not in printed
    with start(base, out) as process:
        printed = process.stdout.read()
    assert process.returncode == 0, printed
    assert "to run (not finished)" in printed
    assert "resuming from step" in (training_of(out) / "trial.log").read_text()
    for name, tensor in weights(out).items():
        assert torch.equal(tensor, whole[0][name]), name
    assert (training_of(out) / "log.csv").read_text() == whole[1]


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 9 MB: two checkpoints and the best model fit, a third checkpoint does not."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=9m", "tmpfs", folder], check=False)
    if mounted.returncode:
        pytest.skip("no disk of its own can be mounted here")
    yield folder
    # Lazily: a process of the ended cluster may have its log there for a moment longer.
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_full_disk_fails_the_run_and_the_rerun_command_finishes_it(base, whole, small_disk):
    out = base / "full"
    training_of(out).parent.mkdir(parents=True)
    training_of(out).symlink_to(small_disk)
    ballast = small_disk / "ballast"
    with start(base, out) as process, open(ballast, "wb", buffering=0) as file:
        wait_for(lambda: (small_disk / "state_000000004.pt").exists() or process.poll() is not None)
        while process.poll() is None:  # takes whatever is left of the disk, and whatever comes free
            try:
                file.write(b"0" * 2**14)
            except OSError:
                time.sleep(0.01)
        printed = process.stdout.read()
    assert process.returncode == 1, printed
    assert "No space left on device" in printed
    assert not (small_disk / "checkpoint.pt").exists()
    ballast.unlink()
    with start(base, out) as process:
        printed = process.stdout.read()
    assert process.returncode == 0, printed
    for name, tensor in weights(out).items():
        assert torch.equal(tensor, whole[0][name]), name
