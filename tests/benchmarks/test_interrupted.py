"""The whole command, stopped in every way there is: the same command then ends as if nothing had been."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from benchmarks.experiments import rows_at

pytestmark = pytest.mark.slow

CHECKOUT = Path(__file__).resolve().parents[2]
EXP = rows_at("smoke")["2b/two_c_t"]
# What Python imports first, in the command and in its trials: a state at every step, and slow steps.
PLANTED = """
import time
import benchmarks.training
benchmarks.training.STATE_EVERY = 0.0
from actloc_core import selection
real = selection.two_c_t
def two_c_t(tokens):
    time.sleep(0.25)
    return real(tokens)
selection.two_c_t = two_c_t
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("interrupted")
    (folder / "sitecustomize.py").write_text(PLANTED)
    return folder


def begin(base, out):
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.ablations", "--scale", "smoke", "--only", "2b/two_c_t",
         "--out", out],
        cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        env=os.environ | {"PYTHONPATH": f"{base}{os.pathsep}{CHECKOUT}"},
    )  # fmt: skip


def training_of(out):
    return out / "trainings" / EXP.training_hash


def weights(out):
    return torch.load(training_of(out) / "checkpoint.pt", weights_only=True)["model"]


@pytest.fixture(scope="module")
def whole(base):
    out = base / "whole"
    with begin(base, out) as process:
        said = process.stdout.read()
    assert process.returncode == 0, said
    return weights(out), (training_of(out) / "log.csv").read_text()


def wait_for(condition, seconds=600):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to it"
        time.sleep(0.05)


def trial_process(out):
    """The process that prints into the trial's log."""
    log = training_of(out).resolve() / "trial.log"
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(folder / "fd/1") == str(log):
                return int(folder.name)
        except OSError:
            continue
    return None


@pytest.mark.parametrize("how", ["driver killed", "trial killed", "ctrl-c"])
def test_the_same_command_again_ends_bit_for_bit_the_same(base, whole, how):
    out = base / how.replace(" ", "_")
    with begin(base, out) as process:
        wait_for(lambda: (training_of(out) / "state_000000003.pt").exists() or process.poll() is not None)
        if how == "driver killed":
            process.kill()
        elif how == "trial killed":
            os.kill(trial_process(out), signal.SIGKILL)
        else:
            os.kill(process.pid, signal.SIGINT)
        said = process.stdout.read()
    assert process.returncode != 0
    if how == "trial killed":
        assert "its process died" in said
    if how == "ctrl-c":
        assert "the same command runs it again" in said
        assert "Traceback" not in said
    assert not (training_of(out) / "checkpoint.pt").exists()
    with begin(base, out) as process:
        said = process.stdout.read()
    assert process.returncode == 0, said
    assert "runs (it was not finished)" in said
    assert "goes on behind step" in (training_of(out) / "trial.log").read_text()
    for name, tensor in weights(out).items():
        assert torch.equal(tensor, whole[0][name]), name
    assert (training_of(out) / "log.csv").read_text() == whole[1]


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 9 MB: two states and the best model fit, a third state does not."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=9m", "tmpfs", folder], check=False)
    if made.returncode:
        pytest.skip("no disk of its own can be mounted here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_disk_that_fills_up_costs_states_and_then_the_end_which_the_same_command_makes_up_for(
    base, whole, small_disk
):
    out = base / "full"
    (out / "trainings").mkdir(parents=True)
    training_of(out).symlink_to(small_disk)
    ballast = small_disk / "ballast"
    with begin(base, out) as process, open(ballast, "wb", buffering=0) as file:
        wait_for(lambda: (small_disk / "state_000000004.pt").exists() or process.poll() is not None)
        while process.poll() is None:  # takes whatever is left of the disk, and whatever comes free
            try:
                file.write(b"0" * 2**14)
            except OSError:
                time.sleep(0.01)
        said = process.stdout.read()
    assert process.returncode == 1, said
    assert "No space left on device" in said
    assert not (small_disk / "checkpoint.pt").exists()
    ballast.unlink()
    with begin(base, out) as process:
        said = process.stdout.read()
    assert process.returncode == 0, said
    for name, tensor in weights(out).items():
        assert torch.equal(tensor, whole[0][name]), name
