"""A run that prints the number of each step and checkpoints after each: ROOT OUT."""

import sys
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.context import Callbacks, RunContext, Step
from benchmarks.experiments import OURS, at_scale
from benchmarks.run import run

torch.set_num_threads(1)
smallest = replace(at_scale(OURS, "smoke"), weights=None, frames=4, stride=4, crop=32)
exp = replace(smallest, backbone="hiera_tiny", epochs=0.5, drop_path=0.5)  # test_training's
root, out = map(Path, sys.argv[1:])


class Print(Callbacks):
    """Prints the number of each step."""

    def on_step(self, step: Step) -> None:
        """On a line of its own."""
        print(step.step, flush=True)


run([exp], {exp.dataset: root}, RunContext(torch.device("cpu"), out, checkpoint_every=0), [Print()])
