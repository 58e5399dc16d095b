"""Sweeps two rows on a cluster, and prints the events: HOW ROOT OUT.

HOW: "processes": one row, in two processes of a private cluster; "client": as a client of a cluster;
"lost": on two machines, of which one is lost in the middle; "alone": no sweep, one row after the other here.
"""

import socket
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
import torch
from ray.cluster_utils import Cluster

from benchmarks.context import RunContext, Step
from benchmarks.experiments import OURS, at_scale
from benchmarks.run import run
from benchmarks.sweep.cluster import Resources, check_storage, cluster
from benchmarks.sweep.trials import SweepOptions, sweep

how, root, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
exp = replace(at_scale(OURS, "smoke"), weights=None, frames=4, stride=4, crop=32, epochs=0.5)
rows = [exp, replace(exp, seed=1)]
trainings = {row.training_hash: [row] for row in (rows[:1] if how == "processes" else rows)}
machines: list[Any] = []
"""A cluster and its second machine, where that is to be lost."""


class Print:
    """Prints each event; removes the second machine when both trials have taken three steps."""

    def __init__(self) -> None:
        self.steps: dict[str, int] = {}

    def started(self, training: str) -> None:
        """On a line of its own, as the others."""
        print("started", training, flush=True)

    def progressed(self, training: str, step: Step) -> None:
        """The step is not printed."""
        self.steps[training] = step.step
        if how == "lost" and len(self.steps) == 2 and min(self.steps.values()) >= 3 and len(machines) == 2:
            print("lost", flush=True)
            machines[0].remove_node(machines.pop())

    def finished(self, training: str) -> None:
        """The training alone."""
        print("finished", training, flush=True)

    def failed(self, training: str, reason: str) -> None:
        """With the reason."""
        print("failed", training, reason, flush=True)


def head_with_client_server() -> str:
    """Start a cluster that clients can join; -> its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    head = {"num_cpus": 2, "ray_client_server_port": port, "include_dashboard": False}
    Cluster(initialize_head=True, head_node_args=head)
    while True:  # the head is there before its client server listens
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return f"ray://127.0.0.1:{port}"
        time.sleep(0.2)


def cluster_of_two() -> str:
    """Start a cluster of two machines; -> its address."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    machines.extend([made, made.add_node(num_cpus=1)])
    made.wait_for_nodes()
    return str(made.address)


def code_file() -> str:
    """Where a process of the cluster has our code."""
    import benchmarks.sweep

    return str(benchmarks.sweep.__file__)


if how == "alone":
    torch.set_num_threads(1)
    for row in rows:
        run([row], {exp.dataset: root}, RunContext(torch.device("cpu"), out))
    sys.exit()
addresses = {"client": head_with_client_server, "lost": cluster_of_two}
address = addresses[how]() if how in addresses else None
with cluster(address) as nodes:
    print("machines", len(nodes), flush=True)
    print("code", ray.get(ray.remote(code_file).options(num_cpus=0).remote()), flush=True)
    if address:
        check_storage(nodes, out, [root])
    options = SweepOptions(
        Resources(1.0, 0.0), at_once=2, processes=2 if how == "processes" else 1, checkpoint_every=0
    )
    sweep(trainings, {exp.dataset: root}, out, Print(), options)
for row in rows:
    exists = (out / "runs" / row.hash / "result.json").exists()
    print("result", row.training_hash, exists, flush=True)
