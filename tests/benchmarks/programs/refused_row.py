"""Runs two rows of one training, of which one keeps too many detections, with a mirror: ROOT OUT MIRROR.

Then makes the mirror unwritable and runs them again. Writes what it saw to OUT/seen.
"""

import shutil
import sys
from dataclasses import asdict, replace
from pathlib import Path

import torch

from benchmarks import run
from benchmarks.experiments import OURS, at_scale
from benchmarks.sweep import trials
from benchmarks.sweep.cluster import Resources

refused = replace(at_scale(OURS, "smoke"), weights=None, frames=4, stride=4, crop=32, epochs=0.2)
strict = replace(refused, theta=0.9999)
root, out, mirror = map(Path, sys.argv[1:4])
run.MAX_ROWS = 1000
spec = trials._TrialSpec(
    {refused.training_hash: [asdict(refused), asdict(strict)]},
    {refused.dataset: str(root)},
    str(out),
    trials.SweepOptions(Resources(1, 0), mirror=mirror.as_uri()),
)


def error_of_a_trial() -> run.TooManyError:
    """The error that the trial ends with."""
    try:
        trials._process(refused.training_hash, spec, torch.device("cpu"), lambda numbers: None)
    except run.TooManyError as error:
        return error
    raise AssertionError("no error")


error_of_a_trial()
seen = [(mirror / "runs" / strict.hash / "result.json").exists(), (mirror / "runs" / refused.hash).exists()]
shutil.rmtree(mirror / "runs")
(mirror / "runs").touch()  # a file: nothing can be sent into it
again = error_of_a_trial()
(out / "seen").write_text(f"{seen} {again.__cause__}")
