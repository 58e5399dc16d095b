"""Ray clusters for real: several processes in a run, several machines, and one that is lost."""

import ast
import csv
import json
import os
import re
import shutil
import subprocess
import sys

import pytest
import torch

from benchmarks.score.provenance import git_commit
from benchmarks.sweep import cluster
from benchmarks.sweep.cluster import Resources, processes_per_run, resources_per_process
from benchmarks.sweep.storage import send
from tests.benchmarks.shared import CHECKOUT

PROGRAMS = CHECKOUT / "tests" / "benchmarks" / "programs"
LAPTOP = {"CPU": 2.0}
SERVER = {"CPU": 64.0, "GPU": 8.0}


@pytest.mark.parametrize(
    ("machines", "options", "resources", "at_once"),
    [
        ([LAPTOP], {}, Resources(1, 0, 0, 2), 2),
        ([LAPTOP], {"processes": 2}, Resources(1, 0, 0, 2), 1),
        ([LAPTOP], {"workers": 3}, Resources(1, 0, 3, 2), 2),
        ([SERVER], {}, Resources(8, 1, 7, 8), 8),
        ([SERVER], {"processes": 8}, Resources(8, 1, 7, 8), 1),
        ([SERVER], {"gpus_each": 0.5}, Resources(4, 0.5, 3, 16), 16),
        ([SERVER], {"gpus_each": 0.3}, Resources(pytest.approx(2.4), 0.3, 1, 26), 26),
        ([SERVER], {"gpus_each": 0}, Resources(1, 0, 0, 64), 64),
        ([SERVER], {"workers": 2}, Resources(3, 1, 2, 8), 8),
        ([SERVER], {"workers": 30}, Resources(8, 1, 30, 8), 8),
        ([SERVER, SERVER], {"processes": 16}, Resources(8, 1, 7, 8), 1),
        ([{"CPU": 4.0}, SERVER], {"processes": 2}, Resources(8, 1, 7, 8), 4),
        ([{"CPU": 6.0, "GPU": 2.0}], {}, Resources(3, 1, 2, 2), 2),
        ([{"CPU": 192.0, "GPU": 8.0}], {}, Resources(16, 1, 15, 8), 8),
        ([{"CPU": 192.0, "GPU": 8.0}], {"workers": 20}, Resources(21, 1, 20, 8), 8),
    ],
)
def test_resources_of_a_process_and_the_runs_that_fit(machines, options, resources, at_once):
    assert resources_per_process(machines, **options) == (resources, at_once)


@pytest.mark.parametrize(
    ("gpus", "runs", "batches", "processes"),
    [
        (0, 5, [16], 1),
        (8, 1, [16], 8),
        (8, 3, [16, 16, 16], 2),
        (8, 20, [16], 1),
        (6, 1, [16], 4),
        (8, 1, [12], 6),
        (8, 2, [16, 6], 2),
        (8, 1, [7], 7),
    ],
)
def test_runs_fewer_than_gpus_get_several_each_where_the_batch_divides(gpus, runs, batches, processes):
    assert processes_per_run(gpus, runs, batches) == processes


@pytest.mark.parametrize(
    ("machines", "options", "message"),
    [
        ([LAPTOP], {"processes": 3}, "a run asks for 3 x .* available: 2 cores and 0 GPUs"),
        ([LAPTOP], {"gpus_each": 1}, "insufficient resources: .*1 GPUs"),
        ([SERVER], {"gpus_each": 2}, "at most one GPU, not 2; for more give more processes"),
        ([SERVER], {"processes": 9}, "9 x .*available: 64 cores and 8 GPUs"),
        ([SERVER], {"gpus_each": -1}, "not -1"),
        ([], {}, "available: no machine"),
    ],
)
def test_insufficient_resources_are_refused(machines, options, message):
    with pytest.raises(ValueError, match=message):
        resources_per_process(machines, **options)


def test_a_machine_reports_the_paths_that_it_does_not_see(tmp_path):
    """Its output directory has the mark, or not; its mirror has it, or not; data may be missing."""
    out, here = tmp_path / "out", str(tmp_path)
    (out / "probe").mkdir(parents=True)
    (out / "probe" / "mark").touch()
    missing = str(tmp_path / "data")
    assert cluster._missing([here], str(out), "probe", None) == []
    assert cluster._missing([here, missing], str(out), "probe", None) == [missing]
    assert cluster._missing([here], str(tmp_path / "other"), "probe", None) == ["probe"]
    mirror = (tmp_path / "mirror").as_uri()
    assert cluster._missing([here], str(out), "probe", mirror) == ["probe"]
    send(mirror, out, "probe")
    assert cluster._missing([here], str(tmp_path / "other"), "probe", mirror) == []
    assert cluster._missing([here], str(out), "probe", "nosuch://x") == ["probe"]


@pytest.mark.parametrize("failures", [1, 3])
def test_ray_that_starts_too_slowly_is_started_again_and_then_an_error(failures, monkeypatch, capsys):
    """Ray itself waits for 30 seconds, and raises a bare Exception: what a busy machine brings about."""
    answers = [Exception("The current node timed out during startup.")] * failures + [None]

    def init(**options):
        if error := answers.pop(0):
            raise error

    monkeypatch.setattr(cluster.ray, "init", init)
    monkeypatch.setattr(cluster.time, "sleep", lambda seconds: None)
    if failures == 1:
        cluster._init(address="local")
    else:
        with pytest.raises(ValueError, match=r"in three attempts: .*timed out during startup"):
            cluster._init(address="local")
    assert capsys.readouterr().err.count("retrying") == min(failures, 2)


def test_machines_get_all_of_this_checkout_that_its_packages_import():
    """At their import; `perf` are tests."""
    left_out = {name.removeprefix("/") for name in cluster._runtime_env()["excludes"]}
    sent = {path for path in CHECKOUT.iterdir() if path.name not in left_out}
    imported = set()
    for source in (source for path in sent for source in path.rglob("*.py") if "perf" not in source.parts):
        for node in ast.parse(source.read_text()).body:
            if isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.partition(".")[0])
    assert {"actloc_core", "actloc_version"} <= imported
    assert {path.removesuffix(".py") for path in left_out} & imported == set()


def sweep_on(how, root, folder, *, slow=False):
    """Run `programs/cluster_sweep.py`; -> the printed lines, and the output directory."""
    folder.mkdir()
    if slow:
        shutil.copy(PROGRAMS / "slow_steps.py", folder / "sitecustomize.py")
    done = subprocess.run(
        [sys.executable, PROGRAMS / "cluster_sweep.py", how, root, folder / "out"],
        cwd=CHECKOUT, capture_output=True, text=True, timeout=900, check=False,
        env=os.environ | cluster._rounding() | {"PYTHONPATH": f"{folder}{os.pathsep}{CHECKOUT}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines(), folder / "out"


def ran_a_copy(lines):
    """Whether the machines ran a copy of this checkout that Ray's runtime environment brought there."""
    [file] = [line.removeprefix("code ") for line in lines if line.startswith("code ")]
    here = file == str(CHECKOUT / "benchmarks" / "sweep" / "__init__.py")
    assert ("working_dir_files" in file) != here, file
    return not here


def results(lines):
    """Training -> whether its row has a result."""
    return {line.split()[1]: line.split()[2] == "True" for line in lines if line.startswith("result")}


def weights(out, training):
    return torch.load(out / "trainings" / training / "checkpoint.pt", weights_only=True)["model"]


def losses(out, training):
    """The loss and its terms of each step."""
    with open(out / "trainings" / training / "log.csv", newline="") as file:
        return [
            {name: float(line[name]) for name in ("loss", "l1", "giou", "actor", "action")}
            for line in csv.DictReader(file)
        ]


@pytest.mark.slow
def test_a_lost_machine_changes_nothing_and_two_processes_only_rounding(small_benchmark, tmp_path):
    """Compared with the same two rows without a cluster."""
    _, alone = sweep_on("alone", small_benchmark, tmp_path / "alone")
    lines, lost = sweep_on("lost", small_benchmark, tmp_path / "lost", slow=True)
    assert "machines 2" in lines
    assert ran_a_copy(lines)
    assert "lost" in lines
    assert not [line for line in lines if line.startswith("failed")]
    trainings = list(results(lines))
    assert list(results(lines).values()) == [True, True]
    again = [training for training in trainings if lines.count(f"started {training}") == 2]
    assert len(again) == 1, "the one whose machine was lost"
    log = (lost / "trainings" / again[0] / "trial.log").read_text()
    assert re.search(r"resuming from step \d", log)
    for training in trainings:
        pairs = zip(weights(lost, training).values(), weights(alone, training).values(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)

    lines, both = sweep_on("processes", small_benchmark, tmp_path / "both")
    assert not ran_a_copy(lines)
    assert f"finished {trainings[0]}" in lines, lines
    of_two, of_one = losses(both, trainings[0]), losses(alone, trainings[0])
    assert len(of_two) == len(of_one) == 11
    for two, one in zip(of_two, of_one, strict=True):
        assert two == pytest.approx(one, abs=2e-3)
    result = next((both / "runs").glob("*/result.json")).read_text()
    assert '"device": "2 x ' in result


@pytest.mark.slow
def test_a_client_of_a_cluster_sees_every_event(small_benchmark, tmp_path):
    before = git_commit()
    lines, out = sweep_on("client", small_benchmark, tmp_path / "client")
    assert ran_a_copy(lines)
    commits = {before, git_commit()}  # two where somebody commits meanwhile
    for path in (out / "runs").glob("*/result.json"):
        assert json.loads(path.read_text())["commit"] in commits, "though the history is only here"
    assert list(results(lines).values()) == [True, True]
    for training in results(lines):
        assert lines.index(f"started {training}") < lines.index(f"finished {training}")
        assert (out / "logs" / training / "progress.csv").exists()
        assert list((out / "logs" / training).glob("events.out.tfevents.*"))


def test_an_address_at_which_no_cluster_answers_is_refused():
    refused = r"no Ray cluster answers at '127\.0\.0\.1:9': .*refused"
    with pytest.raises(ValueError, match=refused), cluster.cluster("127.0.0.1:9"):
        raise AssertionError("it was joined")


def ablations(*args):
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.ablations", "--scale", "smoke", *map(str, args)],
        cwd=CHECKOUT, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_the_command_fetches_results_from_a_mirror(smoke_data, tmp_path):
    out, mirror = tmp_path / "out", tmp_path / "mirror"
    out.mkdir()
    (out / "data").symlink_to(smoke_data)
    row = ("--only", "ours/drawn_weights", "--out", out)
    done = ablations(*row, "--mirror", mirror.as_uri())
    assert done.returncode == 0, done.stderr
    for folder in ("runs", "trainings"):
        shutil.rmtree(out / folder)
    again = ablations(*row, "--mirror", mirror.as_uri())
    assert again.returncode == 0, again.stderr
    assert "up to date" in again.stdout
    assert next((out / "runs").glob("*/result.json")).exists()
