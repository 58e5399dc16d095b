"""What several tests of the evaluators share."""

import os
import subprocess
import sys
from pathlib import Path

PROGRAMS = Path(__file__).with_name("programs")
CHECKOUT = Path(__file__).resolve().parents[2]


def run_program(name):
    """Run a program of this folder to its end."""
    return subprocess.run(
        [sys.executable, PROGRAMS / name], capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(CHECKOUT)},
    )  # fmt: skip
