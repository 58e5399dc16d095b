import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from datasets import synthetic
from tests import budget

torch.set_num_threads(1)  # the tests' tensors are small: threads would only wait for each other

START = time.perf_counter()


def pytest_addoption(parser):
    """--budget: end with what the session took, see tests/budget.py."""
    parser.addoption("--budget", choices=list(budget.PRODUCTS), help="compare the session with its budget")


def pytest_collection_modifyitems(items):
    """Start with the files that take longest."""
    order = {name: place for place, name in enumerate(budget.LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


def pytest_terminal_summary(terminalreporter, config):
    """Say what the session took, in seconds of a reference computation."""
    if session := config.getoption("--budget"):
        seconds = time.perf_counter() - START
        passed = [report for report in terminalreporter.stats.get("passed", []) if report.when == "call"]
        for line in budget.summary(session, passed, seconds):
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def small_benchmark(tmp_path_factory) -> Path:
    """A synthetic benchmark of a few hundred scenes, made by the first process that needs it; read-only."""
    with shared(tmp_path_factory) as root:
        return synthetic.make(root / "data", synthetic.Size(train=360, val=30, test=120, seed=7))


@pytest.fixture(scope="session")
def smoke_data(tmp_path_factory) -> Path:
    """The folder `data` of a sweep at scale smoke, for many commands of slow tests; they only read it."""
    from benchmarks.inputs import make_synthetic  # mutmut's copy of the tests has no benchmarks

    with shared(tmp_path_factory) as root:
        for name in ("synthetic_ava_smoke", "synthetic_kinetics_smoke", "synthetic_jhmdb_smoke"):
            make_synthetic(root / "smoke", name)
        return root / "smoke"


@contextmanager
def shared(tmp_path_factory) -> Iterator[Path]:
    """A folder that all processes of this session share, for one of them at a time."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # each process has a folder in there
    with FileLock(root / "data.lock"):
        yield root
