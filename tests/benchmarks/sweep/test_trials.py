"""Ray for real, in a process of its own: a failing trial fails alone, with its reason."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.sweep.trials import failure_reason, machine_lost
from tests.benchmarks.shared import CHECKOUT

PROGRAMS = CHECKOUT / "tests" / "benchmarks" / "programs"


def test_the_reason_of_a_failure_is_the_last_line_of_its_error_and_its_log(tmp_path):
    log = tmp_path / "trial.log"
    log.write_text("\n".join(f"line {i}" for i in range(20)))
    error = "Traceback ...\n  File x\nValueError: no such thing\n"
    assert failure_reason(error, log).splitlines() == [
        "ValueError: no such thing", *(f"    line {i}" for i in range(14, 20)),
    ]  # fmt: skip
    assert failure_reason("", tmp_path / "none") == "no reason was left"
    assert failure_reason("torch.OutOfMemoryError: x", tmp_path / "none") == "out of memory"
    assert failure_reason("ray.exceptions.ActorDiedError: x", tmp_path / "none") == "its process died"


def test_a_lost_machine_is_not_a_failure_of_the_trial():
    assert machine_lost("ActorDiedError: The actor died because its node has died.")
    assert not machine_lost("ValueError: x")


@pytest.mark.slow
def test_a_mirror_gets_the_other_row_of_a_training_with_a_refused_row(small_benchmark, tmp_path):
    """Of two rows of a training one would keep too many detections, the other is scored. Where the mirror
    cannot be written either, both errors are reported."""
    out, mirror = tmp_path / "out", tmp_path / "mirror"
    subprocess.run(
        [sys.executable, PROGRAMS / "refused_row.py", small_benchmark, out, mirror],
        timeout=900, check=True, env=os.environ | {"PYTHONPATH": str(CHECKOUT)},
    )  # fmt: skip
    assert (out / "seen").read_text().startswith(f"[True, False] {mirror.as_uri()}: cannot be written")
    assert next((mirror / "trainings").glob("*/checkpoint.pt"))


def sweep_of(*rows, root, folder, how="side by side", warning=""):
    """Sweep rows of `programs/sweep_rows.py`; -> row -> the lines of its failure, for those that failed."""
    shutil.copy(PROGRAMS / "failing_selections.py", folder / "sitecustomize.py")
    done = subprocess.run(
        [sys.executable, PROGRAMS / "sweep_rows.py", root, folder / "out", how, *rows],
        cwd=CHECKOUT, capture_output=True, text=True, timeout=900, check=False,
        env=os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{CHECKOUT}"},
    )  # fmt: skip
    print(done.stdout)  # shown where the test fails
    assert done.returncode == 0, done.stderr
    assert warning in done.stderr
    words = [line.split() for line in done.stdout.splitlines()]
    trainings = {w[0]: w[1] for w in words if w and w[0] in rows}
    with_result = [name for name in rows if [name, trainings[name], "True"] in words]
    assert with_result == [name for name in rows if name in ("good", "hurried")]
    good = trainings["good"]
    assert ["started", good] in words
    assert ["finished", good] in words
    assert [w for w in words if w[:2] == ["progressed", good]][-1][2:] == ["4", "4"]
    return {
        name: done.stdout.split(f"failed {training} ")[1].splitlines()
        for name, training in trainings.items()
        if f"failed {training} " in done.stdout
    }


@pytest.mark.slow
def test_a_failing_trial_fails_alone(small_benchmark, tmp_path):
    """One raises, one dies, one asks for 400 TB, one diverges, one hangs until the watchdog ends it."""
    bad = {"unknown", "killed", "huge", "nan", "hung"}
    reasons = sweep_of("good", *sorted(bad), root=small_benchmark, folder=tmp_path)
    assert set(reasons) == bad
    assert reasons["huge"][0] == "out of memory"
    diverged = r"FloatingPointError: step \d+, clips \[\('train_.*(the loss is|is not finite)"
    assert re.search(diverged, reasons["nan"][0])
    assert "no_such_selection" in reasons["unknown"][0]
    assert reasons["killed"][0] == "its process died"
    assert "    the last line of the log" in reasons["killed"][:4]
    assert reasons["hung"][0] == "it hung: no batch for 0:00:30"
    assert any("in hangs" in line for line in reasons["hung"][:8]), "with its stack"


@pytest.mark.slow
def test_a_trial_that_ray_drops_is_started_again(small_benchmark, tmp_path):
    """Where the thread of one trial does not end in time, Ray gives up the next one, silently."""
    warning = "Could not re-use actor"  # Ray's own words
    rows, where = ("hurried", "good"), {"root": small_benchmark, "folder": tmp_path}
    assert sweep_of(*rows, **where, how="one by one", warning=warning) == {}


def small_cluster(what, python=sys.executable):
    """Run `programs/small_cluster.py` in a process of its own, to its end."""
    return subprocess.run(
        [python, PROGRAMS / "small_cluster.py", what], cwd=CHECKOUT, capture_output=True, text=True,
        timeout=900, check=False, env=os.environ | {"PYTHONPATH": str(CHECKOUT)},
    )  # fmt: skip


@pytest.mark.slow
def test_ray_starts_from_an_environment_in_a_folder_with_spaces(tmp_path):
    """Ray hands the path of Python to a shell; unquoted, no worker would ever start."""
    folder = tmp_path / "zwei Wörter & 'drei'"
    folder.symlink_to(sys.prefix, target_is_directory=True)
    done = small_cluster("three", folder / "bin" / "python")
    assert (done.returncode, done.stdout) == (0, "3\n"), done.stderr


@pytest.mark.slow
def test_trials_round_sums_as_processors_without_avx512_do():
    done = small_cluster("capability")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() != "AVX512"


@pytest.mark.slow
def test_processes_that_never_start_are_an_error_after_a_timeout():
    """Ray would start them again and again: here the Python that it is told of does not exist."""
    done = small_cluster("no python")
    log = re.fullmatch(r"Ray started no process in 5 seconds; see (.+)\n", done.stdout)[1]
    assert "/no/python" in Path(log).read_text()
