"""The project's commands: `nox -s ablations`, `nox -s tests`; `nox -l` lists them all."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import nox

nox.options.default_venv_backend = "virtualenv"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["lint", "types", "tests"]

TIMEOUTS = {"interrupt_timeout": 30, "terminate_timeout": 10}
"""Seconds in which an interrupted sweep may end its processes (nox: half a second)."""

# Processes whose tests compute with one thread each; pytest-benchmark warns beside other processes. In the
# order of the folders: xdist would start files of few tests last, and these take longest.
SIDE_BY_SIDE = ("--dist", "loadfile", "--no-loadscope-reorder", "-p", "no:benchmark")
BYTECODE = {"PYTHONDONTWRITEBYTECODE": ""}
"""The tests start many interpreters, which would each compile the same files."""

PYPROJECT = nox.project.load_toml("pyproject.toml")


def install(session: nox.Session, *groups: str, extras: Sequence[str] = ("model", "benchmarks")) -> None:
    """Install the dependencies of this checkout's folders, in the tested versions.

    Not the checkout itself: commands run in it. So nothing is written into it, and a second call needs no
    network.
    """
    project = PYPROJECT["project"]
    needed = [*project["dependencies"]]
    for extra in extras:
        needed += project["optional-dependencies"][extra]
    for group in groups:
        needed += PYPROJECT["dependency-groups"][group]
    session.install("-q", "-c", "constraints.txt", *needed)


@nox.session
def ablations(session: nox.Session) -> None:
    """Train and score the rows of the paper's tables, then print and write the tables."""
    install(session)
    session.run("python", "-m", "benchmarks.ablations", *session.posargs, **TIMEOUTS)
    if {"-h", "--help", "--list", "--dry-run"} & set(session.posargs):
        return
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--out", default="out")
    shared.add_argument("--scale", default="tiny")
    shared.add_argument("--set", action="append", default=[])
    shared.add_argument(
        "--leave-out-missing", action="append_const", dest="set", const="leave_out_missing=true"
    )
    known, _ = shared.parse_known_args(session.posargs)
    settings = [word for setting in known.set for word in ("--set", setting)]
    session.run("python", "-m", "reports", "--out", known.out, "--scale", known.scale, *settings)


@nox.session
def report(session: nox.Session) -> None:
    """Redraw the tables, figures and page of the results, without training."""
    install(session)
    session.run("python", "-m", "reports", *session.posargs)


@nox.session
def train(session: nox.Session) -> None:
    """Train on your own data: check, training, score, report (docs/own_data.md)."""
    install(session)
    session.run("python", "-m", "benchmarks.train", *session.posargs, **TIMEOUTS)


@nox.session
def search(session: nox.Session) -> None:
    """Tune a row's loss weights, learning rate and theta on training data alone."""
    install(session, "search")
    session.run("python", "-m", "benchmarks.search", *session.posargs, **TIMEOUTS)


@nox.session
def predict(session: nox.Session) -> None:
    """Predict with a trained model: the tables' tiny one on a synthetic video, or yours on your video."""
    install(session)
    module = "actloc_core.predict" if "--checkpoint" in session.posargs else "reports.demo"
    session.run("python", "-m", module, *session.posargs, success_codes=[0, 3], **TIMEOUTS)


@nox.session
def tests(session: nox.Session) -> None:
    """All tests but the slow ones: offline, on a CPU, in two minutes."""
    install(session, "tests", "search", "cluster", extras=("model", "benchmarks", "export"))
    options = ["-n", "2", *SIDE_BY_SIDE, "--budget", "tests"]
    session.run("python", "-m", "pytest", *options, *session.posargs, env=BYTECODE)


@nox.session
def slow(session: nox.Session) -> None:
    """The tests that take minutes."""
    install(session, "tests", "search", "cluster", extras=("model", "benchmarks", "export"))
    # Three processes for two cores: half of the time clusters start and end.
    options = ["-m", "slow", "-n", "3", *SIDE_BY_SIDE, "--budget", "slow"]
    session.run("python", "-m", "pytest", *options, *session.posargs, env=BYTECODE)


@nox.session
def regression(session: nox.Session) -> None:
    """Check every backbone, method and evaluator by its contract and its baseline."""
    install(session, "tests", extras=("model", "benchmarks", "export"))
    session.run("python", "-m", "benchmarks.regression", *session.posargs)


@nox.session
def gpu(session: nox.Session) -> None:
    """Measure full-size training on a GPU: speed, memory, accuracy, kernels, a short training."""
    install(session)
    session.run("python", "-m", "benchmarks.gpu", *session.posargs)


@nox.session
def mutants(session: nox.Session) -> None:
    """Mutation testing of matching, loss, selection and frame-mAP; lists the mutants that no test notices."""
    install(session, "tests", "mutation")
    session.run("mutmut", "run", *session.posargs)
    session.run("mutmut", "results")


@nox.session
def perf(session: nox.Session) -> None:
    """Speed and memory against the straightforward implementations, measured in one run."""
    install(session, "tests", "search", "cluster")
    saved = ["--benchmark-autosave", "--benchmark-storage", "out/perf"]
    session.run("python", "-m", "pytest", "-s", "benchmarks/perf", *saved, *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff's rules and format, and the layers of imports."""
    session.install("-q", "-c", "constraints.txt", *PYPROJECT["dependency-groups"]["lint"])
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports", env={"PYTHONPATH": "."})


@nox.session
def types(session: nox.Session) -> None:
    """Mypy, strict, over all packages."""
    install(session, "types", "search", "tests")
    session.run("mypy")
