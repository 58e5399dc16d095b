import os
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from datasets import synthetic

torch.set_num_threads(1)  # the tests' tensors are small: threads would only wait for each other


@pytest.fixture(scope="session")
def small_benchmark(tmp_path_factory) -> Path:
    """A synthetic benchmark of a few hundred scenes, made by the first process that needs it; read-only."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # each process has a folder in there
    with FileLock(root / "data.lock"):
        return synthetic.make(root / "data", synthetic.Size(train=720, val=30, test=120, seed=7))
