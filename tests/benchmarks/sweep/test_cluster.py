"""Ray clusters for real: several processes in a run, several machines, and one that is lost."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import sweep
from benchmarks.score.provenance import git_commit
from benchmarks.sweep import Share, share_of
from benchmarks.sweep.storage import send

CHECKOUT = Path(__file__).resolve().parents[2]

LAPTOP = {"CPU": 2.0}
SERVER = {"CPU": 64.0, "GPU": 8.0}


@pytest.mark.parametrize(
    ("machines", "asked", "share", "at_once"),
    [
        ([LAPTOP], {}, Share(1, 0), 2),
        ([LAPTOP], {"processes": 2}, Share(1, 0), 1),
        ([SERVER], {}, Share(4, 1), 8),
        ([SERVER], {"processes": 8}, Share(4, 1), 1),
        ([SERVER], {"gpus_each": 0.5}, Share(2, 0.5), 16),
        ([SERVER], {"gpus_each": 0.3}, Share(pytest.approx(1.2), 0.3), 26),
        ([SERVER], {"gpus_each": 0}, Share(1, 0), 64),
        ([SERVER, SERVER], {"processes": 16}, Share(4, 1), 1),
        ([{"CPU": 4.0}, SERVER], {"processes": 2}, Share(4, 1), 4),
        ([{"CPU": 6.0, "GPU": 2.0}], {}, Share(3, 1), 2),
    ],
)
def test_what_a_process_gets_and_how_many_runs_fit(machines, asked, share, at_once):
    assert share_of(machines, **asked) == (share, at_once)


@pytest.mark.parametrize(
    ("machines", "asked", "said"),
    [
        ([LAPTOP], {"processes": 3}, "a run asks for 3 x .* there is 2 cores and 0 GPUs"),
        ([LAPTOP], {"gpus_each": 1}, "1 GPUs.*nobody can serve"),
        ([SERVER], {"gpus_each": 2}, "at most one GPU, not 2; for more give more processes"),
        ([SERVER], {"processes": 9}, "9 x .*there is 64 cores and 8 GPUs"),
        ([SERVER], {"gpus_each": -1}, "not -1"),
        ([], {}, "there is no machine"),
    ],
)
def test_what_nobody_can_serve_is_refused(machines, asked, said):
    with pytest.raises(ValueError, match=said):
        share_of(machines, **asked)


def test_a_machine_says_what_it_does_not_see(tmp_path):
    """Its folder has the mark, or not; its mirror has it, or not; and a file of the data may be elsewhere."""
    out, here = tmp_path / "out", str(tmp_path)
    (out / "seen").mkdir(parents=True)
    (out / "seen" / "mark").touch()
    missing = str(tmp_path / "data")
    assert sweep._unseen([here], str(out), "seen", None) == []
    assert sweep._unseen([here, missing], str(out), "seen", None) == [missing]
    assert sweep._unseen([here], str(tmp_path / "other"), "seen", None) == ["seen"]
    mirror = (tmp_path / "mirror").as_uri()
    assert sweep._unseen([here], str(out), "seen", mirror) == ["seen"]
    send(mirror, out, "seen")
    assert sweep._unseen([here], str(tmp_path / "other"), "seen", mirror) == []
    assert sweep._unseen([here], str(out), "seen", "nosuch://x") == ["seen"]


SCRIPT = """
import socket, sys, time
from dataclasses import replace
from pathlib import Path
import ray
from ray.cluster_utils import Cluster
from benchmarks.experiments import OURS, at_scale
from benchmarks.sweep import Share, check_storage, cluster, sweep

how, root, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
exp = replace(at_scale(OURS, "smoke"), frames=4, stride=4, crop=32, epochs=0.5)
rows = [exp, replace(exp, seed=1)]
trainings = {one.training_hash: [one] for one in (rows[:1] if how == "processes" else rows)}

class Heard:
    steps = {}
    def started(self, key): print("started", key, flush=True)
    def progressed(self, key, progress):
        self.steps[key] = progress.step
        if how == "lost" and len(self.steps) == 2 and min(self.steps.values()) >= 3 and len(machines) == 2:
            print("lost", flush=True)
            machines[0].remove_node(machines.pop())
    def finished(self, key): print("finished", key, flush=True)
    def failed(self, key, reason): print("failed", key, reason, flush=True)

machines, address = [], None
if how == "client":
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "ray_client_server_port": port})
    address = f"ray://127.0.0.1:{port}"
    while True:  # the head is there before its client server listens
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.2)
if how == "lost":
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    machines = [made, made.add_node(num_cpus=1)]
    made.wait_for_nodes()
    address = made.address
with cluster(address) as nodes:
    print("machines", len(nodes), flush=True)
    where = ray.remote(lambda: __import__("benchmarks.sweep").sweep.__file__).options(num_cpus=0)
    print("code", ray.get(where.remote()), flush=True)
    if address:
        check_storage(nodes, out, [root])
    sweep(trainings, {exp.dataset: root}, out, Heard(), share=Share(1.0, 0.0), at_once=2,
          processes=2 if how == "processes" else 1, state_every=0)
for one in rows:
    print("result", one.training_hash, (out / "runs" / one.hash / "result.json").exists(), flush=True)
"""

SLOW_STEPS = """
import time
from actloc_core import selection
real = selection.two_c_t
def two_c_t(tokens):
    time.sleep(0.3)
    return real(tokens)
selection.two_c_t = two_c_t
"""


def swept(how, root, folder, *, slow=False):
    """What a sweep of two rows (of one with two processes) printed, line by line, and where it is."""
    folder.mkdir()
    if slow:  # what Python imports first, in the trials too
        (folder / "sitecustomize.py").write_text(SLOW_STEPS)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, how, str(root), str(folder / "out")],
        cwd=CHECKOUT, capture_output=True, text=True, timeout=900, check=False,
        env=os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{CHECKOUT}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines(), folder / "out"


def travelled(said):
    """Whether the machines ran a copy of this checkout that Ray brought there."""
    [file] = [line.removeprefix("code ") for line in said if line.startswith("code ")]
    assert ("working_dir_files" in file) != (file == str(CHECKOUT / "benchmarks" / "sweep.py")), file
    return "working_dir_files" in file


def weights(out, key):
    return torch.load(out / "trainings" / key / "checkpoint.pt", weights_only=True)["model"]


def losses(out, key):
    """Of each step: the loss and its terms."""
    with open(out / "trainings" / key / "log.csv", newline="") as file:
        return [
            {name: float(line[name]) for name in ("loss", "l1", "giou", "actor", "action")}
            for line in csv.DictReader(file)
        ]


@pytest.mark.slow
def test_two_machines_one_of_which_is_lost_and_a_run_in_two_processes(small_benchmark, tmp_path):
    """The reference is two rows on this machine; lost machines change nothing, two processes hardly."""
    said, alone = swept("alone", small_benchmark, tmp_path / "alone")
    assert not travelled(said)
    keys = [line.split()[1] for line in said if line.startswith("result")]
    assert [line.split()[2] for line in said if line.startswith("result")] == ["True", "True"]
    assert all((alone / "logs" / key / "progress.csv").exists() for key in keys)
    assert all(list((alone / "logs" / key).glob("events.out.tfevents.*")) for key in keys)

    said, lost = swept("lost", small_benchmark, tmp_path / "lost", slow=True)
    assert "machines 2" in said
    assert travelled(said)
    assert "lost" in said
    assert not [line for line in said if line.startswith("failed")]
    assert [line.split()[2] for line in said if line.startswith("result")] == ["True", "True"]
    again = [key for key in keys if said.count(f"started {key}") == 2]
    assert len(again) == 1, "the one whose machine was lost"
    log = (lost / "trainings" / again[0] / "trial.log").read_text()
    assert re.search(r"goes on behind step \d", log)
    for key in keys:
        for mine, theirs in zip(weights(lost, key).values(), weights(alone, key).values(), strict=True):
            assert torch.equal(mine, theirs)

    said, both = swept("processes", small_benchmark, tmp_path / "both")
    assert f"finished {keys[0]}" in said, said
    mine, theirs = losses(both, keys[0]), losses(alone, keys[0])
    assert len(mine) == len(theirs) == 22
    for one, other in zip(mine[:12], theirs[:12], strict=True):
        assert one == pytest.approx(
            other, abs=2e-3
        )  # later two people may change places, for sums are rounded
    result = next((both / "runs").glob("*/result.json")).read_text()
    assert '"device": "2 x ' in result


@pytest.mark.slow
def test_a_client_of_a_cluster_hears_all_that_happens_there(small_benchmark, tmp_path):
    said, out = swept("client", small_benchmark, tmp_path / "client")
    assert travelled(said)
    for path in (out / "runs").glob("*/result.json"):
        assert json.loads(path.read_text())["commit"] == git_commit(), "though its history stays here"
    keys = [line.split()[1] for line in said if line.startswith("result")]
    assert [line.split()[2] for line in said if line.startswith("result")] == ["True", "True"]
    for key in keys:
        assert said.index(f"started {key}") < said.index(f"finished {key}")
    assert (out / "logs" / keys[0] / "progress.csv").exists()


def ablations(*args):
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.ablations", "--scale", "smoke", *map(str, args)],
        cwd=CHECKOUT, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_what_is_in_a_mirror_is_not_done_again_and_a_request_nobody_serves_is_refused(tmp_path):
    out, mirror = tmp_path / "out", tmp_path / "mirror"
    row = ("--only", "2a/256_8", "--out", out)
    refused = ablations(*row, "--gpus-each", 1)
    assert refused.returncode == 2
    assert re.search("error: a run asks for .*1 GPUs.*nobody can serve", refused.stderr)
    assert "3 processes" in ablations(*row, "--processes", 3).stderr
    nobody = ablations(*row, "--address", "127.0.0.1:9")
    assert nobody.returncode == 2
    assert "error: no Ray cluster answers at '127.0.0.1:9'" in nobody.stderr

    done = ablations(*row, "--mirror", mirror.as_uri())
    assert done.returncode == 0, done.stderr
    for folder in ("runs", "trainings"):
        shutil.rmtree(out / folder)
    again = ablations(*row, "--mirror", mirror.as_uri())
    assert again.returncode == 0, again.stderr
    assert "done before, kept" in again.stdout
    assert next((out / "runs").glob("*/result.json")).exists()
