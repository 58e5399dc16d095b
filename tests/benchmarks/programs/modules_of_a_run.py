"""Runs a row of the smallest kind, as JSON given, and prints the modules of ours that are then imported:
VALUES ROOT OUT."""

import json
import sys
from pathlib import Path

import torch

from benchmarks.context import RunContext
from benchmarks.experiments import Experiment
from benchmarks.run import run

PACKAGES = {"actloc_core", "benchmarks", "datasets", "evaluators", "reports"}

torch.set_num_threads(1)
values, root, out = json.loads(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
exp = Experiment(**values)
run([exp], {exp.dataset: root}, RunContext(torch.device("cpu"), out))
print(json.dumps(sorted(name for name in sys.modules if name.split(".")[0] in PACKAGES)))
