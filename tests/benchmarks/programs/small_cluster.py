"""Prints what a task of a private cluster returns, or why there is none: WHAT.

WHAT: "three"; "capability" of the processor, as torch has it; "no python": the cluster is told of a Python
that does not exist, and waits five seconds for it.
"""

import shlex
import sys

import ray
import torch

from benchmarks.sweep import cluster

what = sys.argv[1]
if what == "no python":
    cluster.STARTUP_TIMEOUT_S = 5
    shlex.quote = lambda path: "/no/python"
try:
    with cluster.cluster():
        function = torch.backends.cpu.get_cpu_capability if what == "capability" else lambda: 3
        print(ray.get(ray.remote(function).remote()))
except ValueError as error:
    print(error)
