from pathlib import Path

import pytest
import torch

from datasets import synthetic

torch.set_num_threads(1)  # the tests' tensors are small: threads would only wait for each other


@pytest.fixture(scope="session")
def small_benchmark(tmp_path_factory) -> Path:
    """A synthetic benchmark of a few hundred scenes; read-only by agreement."""
    root = tmp_path_factory.mktemp("data")
    return synthetic.make(root, synthetic.Size(train=720, val=30, test=240, seed=7))
