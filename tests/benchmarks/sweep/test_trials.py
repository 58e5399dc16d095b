"""Ray for real, in a process of its own: a failing trial fails alone, and says why."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]

SCRIPT = """
import sys
from dataclasses import replace
from pathlib import Path
from benchmarks.experiments import OURS, at_scale
from benchmarks.sweep import Share, cluster, sweep

class Heard:
    def started(self, key): print("started", key)
    def progressed(self, key, progress): print("progressed", key, progress.step, progress.steps)
    def finished(self, key): print("finished", key)
    def failed(self, key, reason): print("failed", key, reason)

good = replace(at_scale(OURS, "smoke"), frames=4, stride=4, crop=32, epochs=0.1)
bad = replace(good, selection="no_such_selection")
hurried = replace(good, selection="leaves_no_time")
dead = replace(good, selection="kills_its_process")
hung = replace(good, selection="hangs")
huge = replace(good, selection="wants_all_memory")
nan = replace(good, lr=1e30, clip_norm=1e30)
root, out = map(Path, sys.argv[1:3])
side_by_side = sys.argv[3] == "side by side"
rows = {"good": good, "bad": bad, "hurried": hurried, "dead": dead, "hung": hung, "huge": huge, "nan": nan}
rows = {name: rows[name] for name in sys.argv[4:]}
trainings = {exp.training_hash: [exp] for exp in rows.values()}
with cluster() as machines:
    share = Share(1.0 if side_by_side else machines[0]["Resources"]["CPU"], 0.0)
    sweep(trainings, {good.dataset: root}, out, Heard(), share=share, hang=15 if "hung" in rows else 600)
for name, exp in rows.items():
    print(name, exp.training_hash, (out / "runs" / exp.hash / "result.json").exists())
"""


PLANTED = """
import os, sys, time
from actloc_core import selection
def leaves_no_time(tokens):
    os.environ["TUNE_FUNCTION_THREAD_TIMEOUT_S"] = "0"  # as where the machine has no time for the thread
    return selection.two_c_t(tokens)
def kills_its_process(tokens):
    print("what was said last", flush=True)
    os._exit(7)
def hangs(tokens):
    time.sleep(1000)
def wants_all_memory(tokens):
    tokens.new_empty(10**14)
for planted in leaves_no_time, kills_its_process, hangs, wants_all_memory:
    setattr(selection, planted.__name__, planted)
"""


REFUSED = """
import shutil, sys
from dataclasses import asdict, replace
from pathlib import Path
import torch
from benchmarks import run, sweep
from benchmarks.experiments import OURS, at_scale

every = replace(at_scale(OURS, "smoke"), frames=4, stride=4, crop=32, epochs=0.1)
none = replace(every, theta=0.9999)
root, out, mirror = map(Path, sys.argv[1:4])
run.MOST_ROWS = 1000
work = sweep._Work(
    {every.training_hash: [asdict(every), asdict(none)]}, {every.dataset: str(root)}, {}, str(out),
    "", 600, 600, 1, sweep.Share(1, 0), mirror.as_uri(),
)
def member():
    try:
        sweep._member(every.training_hash, work, torch.device("cpu"), lambda numbers: None)
    except run.TooManyError as error:
        return error
member()
seen = [(mirror / "runs" / none.hash / "result.json").exists(), (mirror / "runs" / every.hash).exists()]
shutil.rmtree(mirror / "runs")
(mirror / "runs").touch()  # nothing can be sent there any more
(out / "seen").write_text(f"{seen} {member().__context__}")
"""


@pytest.mark.slow
def test_a_mirror_gets_the_row_whose_sister_was_refused(small_benchmark, tmp_path):
    """Of one training two rows: one would keep masses of detections, the other is scored. Where nothing can
    be sent either, both errors are told."""
    out, mirror = tmp_path / "out", tmp_path / "mirror"
    subprocess.run(
        [sys.executable, "-c", REFUSED, small_benchmark, out, mirror], cwd=CHECKOUT, timeout=900, check=True
    )
    assert (out / "seen").read_text().startswith(f"[True, False] {mirror.as_uri()}: cannot be written")
    assert next((mirror / "trainings").glob("*/checkpoint.pt"))


def sweep_of(*rows, root, folder, how="side by side", warned=""):
    """What the sweep of these rows told: row -> the lines of its failure, for those that failed."""
    (folder / "sitecustomize.py").write_text(PLANTED)  # what Python imports first, in the trials too
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(root), str(folder / "out"), how, *rows],
        cwd=CHECKOUT, capture_output=True, text=True, timeout=900, check=False,
        env=os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{CHECKOUT}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert warned in done.stderr
    words = [line.split() for line in done.stdout.splitlines()]
    keys = {w[0]: w[1] for w in words if w and w[0] in rows}
    have = [name for name in rows if [name, keys[name], "True"] in words]
    assert have == [name for name in rows if name in ("good", "hurried")], "what has a result"
    good = keys["good"]
    assert ["started", good] in words
    assert ["finished", good] in words
    assert [w for w in words if w[:2] == ["progressed", good]][-1][2:] == ["4", "4"]
    return {
        name: done.stdout.split(f"failed {key} ")[1].splitlines()
        for name, key in keys.items()
        if f"failed {key} " in done.stdout
    }


@pytest.mark.slow
def test_a_failing_trial_fails_alone(small_benchmark, tmp_path):
    """One raises, one dies, one asks for 400 TB, one learns so fast that its loss is no number: each is named
    with its reason, and the one that is well is done."""
    told = sweep_of("good", "bad", "dead", "huge", "nan", root=small_benchmark, folder=tmp_path)
    assert set(told) == {"bad", "dead", "huge", "nan"}
    assert told["huge"][0] == "out of memory"
    said = r"FloatingPointError: step \d+, clips \[\('train_.*(the loss is|is not finite)"
    assert re.search(said, told["nan"][0])
    assert "no_such_selection" in told["bad"][0]
    assert told["dead"][0] == "its process died"
    assert "what was said last" in told["dead"][1]


@pytest.mark.slow
def test_a_trial_that_ray_drops_is_begun_again(small_benchmark, tmp_path):
    """Where the thread of one trial does not end in time, Ray gives up the next one, and tells nobody."""
    warned = "Could not re-use actor"  # Ray's own word for it
    rows, place = ("hurried", "good"), {"root": small_benchmark, "folder": tmp_path}
    assert sweep_of(*rows, **place, how="one by one", warned=warned) == {}


@pytest.mark.slow
def test_a_trial_that_hangs_is_given_up_and_told_where(small_benchmark, tmp_path):
    told = sweep_of("good", "hung", root=small_benchmark, folder=tmp_path)
    assert set(told) == {"hung"}
    assert told["hung"][0] == "it hung: no batch for 0:00:15"
    assert any("in hangs" in line for line in told["hung"][:8])


def ran(script, python=sys.executable):
    """A script in a process of its own, ended."""
    return subprocess.run(
        [python, "-c", script], cwd=CHECKOUT, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.mark.slow
def test_an_environment_in_a_folder_with_spaces(tmp_path):
    """Ray hands the path of Python to a shell; unquoted no worker would ever start."""
    place = tmp_path / "zwei Wörter & 'drei'"
    place.symlink_to(sys.prefix, target_is_directory=True)
    script = (
        "import ray\nfrom benchmarks.sweep import cluster\n"
        "with cluster():\n    print(ray.get(ray.remote(lambda: 3).remote()))"
    )
    done = ran(script, place / "bin" / "python")
    assert (done.returncode, done.stdout) == (0, "3\n"), done.stderr


@pytest.mark.slow
def test_trials_do_not_take_wider_sums_than_most_processors_have():
    script = (
        "import ray, torch\nfrom benchmarks.sweep import cluster\n"
        "with cluster():\n"
        "    print(ray.get(ray.remote(torch.backends.cpu.get_cpu_capability).remote()))"
    )
    done = ran(script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() != "AVX512"


@pytest.mark.slow
def test_processes_that_never_start_are_told_of():
    """Not waited for without end: here the Python that Ray is told of is none."""
    script = (
        "import shlex\nfrom benchmarks import sweep\nsweep.START = 5\n"
        "shlex.quote = lambda path: '/no/python'\n"
        "try:\n    with sweep.cluster():\n        pass\nexcept ValueError as error:\n    print(error)"
    )
    done = ran(script)
    log = re.fullmatch(r"Ray starts no process here, not in 5 seconds; why is in (.+)\n", done.stdout)[1]
    assert "/no/python" in Path(log).read_text()
