"""Ray itself: starting or joining a cluster, its runtime environment, and the resources of a run."""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import socket
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Read by Ray when it is imported: no usage reports, no token files, plain output is ours to print. Its own
# record of the sweep, which we do not use, is written once a day instead of at every turn of its loop. A
# process gets its next trial when the thread of the last has ended; 2 seconds for that, as Ray has it, are
# too few on a busy machine.
os.environ.update(
    RAY_AUTH_MODE="disabled",
    RAY_USAGE_STATS_ENABLED="0",
    RAY_AIR_NEW_OUTPUT="0",
    TUNE_GLOBAL_CHECKPOINT_S="86400",
    RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0",
    TUNE_FUNCTION_THREAD_TIMEOUT_S="60",
)

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from benchmarks.loading import CPUS_PER_GPU, use_short_temporary_folder
from benchmarks.score.provenance import CHECKOUT, COMMIT, git_commit
from benchmarks.sweep.storage import fetch, send

STARTUP_TIMEOUT_S = 5 * 60.0
"""Seconds in which a private cluster's first process has to start."""


@contextmanager
def cluster(address: str | None = None) -> Iterator[list[dict[str, Any]]]:
    """Start Ray once for the sweeps inside, for it takes seconds; -> its machines, as `ray.nodes` lists them.

    address: of a running cluster to join, "auto" for the one of this machine; the runtime environment sends
    this checkout's code to its machines. None: a private one, which ends with the context.
    Raises ValueError where no cluster answers, a private one starts no process, or there is no folder for
    its sockets.
    """
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    use_short_temporary_folder()
    if address is None:
        # Workers import this checkout's packages; a private cluster, never somebody else's.
        os.environ["PYTHONPATH"] = os.pathsep.join(
            filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH")])
        )
        os.environ.update(_rounding())
        if (python := shlex.quote(sys.executable)) != sys.executable:  # Ray gives it to a shell as it is
            quiet["runtime_env"] = {"py_executable": python}
        _init(address="local", include_dashboard=False, object_store_memory=128 * 2**20, **quiet)
    else:
        try:
            if address != "auto":  # Ray would try for minutes
                host, _, port = address.removeprefix("ray://").rpartition(":")
                socket.create_connection((host, int(port)), timeout=10).close()
            _init(address=address, runtime_env=_runtime_env(), **quiet)
        except (OSError, ValueError) as error:  # a ConnectionError is an OSError
            raise ValueError(f"no Ray cluster answers at {address!r}: {error}") from error
    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        if address is None:
            _wait_for_first_process()
        yield [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    finally:
        ray.shutdown()


def _wait_for_first_process() -> None:
    """Ray itself would silently start processes that die at once, again and again."""
    try:
        ray.get(ray.remote(lambda: None).remote(), timeout=STARTUP_TIMEOUT_S)
    except ray.exceptions.GetTimeoutError:
        session = Path(ray.nodes()[0]["RayletSocketName"]).parents[1]  # type: ignore[no-untyped-call]
        raise ValueError(
            f"Ray started no process in {STARTUP_TIMEOUT_S:g} seconds; see {session}/logs/raylet.err"
        ) from None


def _init(address: str, **options: Any) -> None:
    """ray.init; up to twice more where a busy machine took longer than Ray waits: 30 seconds, for its own
    processes or for the server that a head starts for a client.

    Raises ConnectionError where nothing answers; ValueError where a private cluster does not start.
    """
    for retries in (2, 1, 0):
        try:
            ray.init(address=address, **options)
            return
        except Exception as error:  # Ray raises nothing more exact for its own processes
            slow = "timed out during startup" in str(error)
            late = address.startswith("ray://") and isinstance(error, ConnectionError)
            if not slow and not late:
                raise
            if not retries:
                raise ValueError(f"Ray did not start in three attempts: {error}") from error
            print(f"{address}: {error}; retrying", file=sys.stderr, flush=True)
            ray.shutdown()
            time.sleep(5)


def _runtime_env() -> dict[str, Any]:
    """The packages of this checkout, without anything that was made in it."""
    packages = {"actloc_core", "benchmarks", "datasets", "evaluators", "reports"}
    kept = {*packages, "actloc_version.py", "pyproject.toml"}
    return {
        "working_dir": str(CHECKOUT),
        "excludes": [f"/{path.name}" for path in sorted(CHECKOUT.iterdir()) if path.name not in kept],
        "env_vars": {COMMIT: git_commit()} | _rounding(),
    }


def _rounding() -> dict[str, str]:
    """Variables for trials on processors with AVX-512, which then round sums as those with AVX2 do.

    Sums rounded otherwise move a tiny row as much as another seed does. Read at a process's first use of
    torch; those that are set already are left as they are.
    """
    processor = Path("/proc/cpuinfo")
    if not processor.exists() or "avx512f" not in processor.read_text():
        return {}
    wanted = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
    return {name: os.environ.get(name, value) for name, value in wanted.items()}


@dataclass(frozen=True)
class Resources:
    """What each process of a run gets of a machine."""

    num_cpus: float
    num_gpus: float
    workers: int = 0
    """Its loader processes."""
    readers: int = 1
    """Processes side by side on a machine, which share its shared memory."""


def resources_per_process(
    machines: Sequence[Mapping[str, float]],
    *,
    processes: int = 1,
    gpus_each: float | None = None,
    workers: int | None = None,
) -> tuple[Resources, int]:
    """-> (resources of a process, how many runs fit side by side).

    machines: the "CPU" and "GPU" that each has. processes: that share a run. gpus_each: for each of them, a
    fraction where several runs are to share a GPU; None is 1 where there are GPUs, else 0. workers: loader
    processes of each; None gives one with a GPU all cores of its share but one, up to CPUS_PER_GPU - 1.
    Raises ValueError for insufficient resources, for which Ray would wait without end.
    """
    gpus = max((machine.get("GPU", 0.0) for machine in machines), default=0.0)
    wanted = gpus_each if gpus_each is not None else min(gpus, 1.0)
    if wanted < 0 or wanted > 1:
        raise ValueError(f"a process uses at most one GPU, not {wanted:g}; for more give more processes")
    cpus = 1.0
    if wanted:
        able = [m for m in machines if m.get("GPU", 0.0) >= wanted]
        share = wanted * min((m.get("CPU", 0.0) / m["GPU"] for m in able), default=0.0)
        cpus = min(share, CPUS_PER_GPU * wanted if workers is None else workers + 1.0)
    side_by_side = [
        int(min([m.get("CPU", 0.0) / cpus] + ([m["GPU"] / wanted] if wanted else [])) + 1e-9)
        for m in machines
        if cpus and m.get("GPU", 0.0) >= wanted
    ]
    if sum(side_by_side) < processes:
        has = ", ".join(f"{m.get('CPU', 0):g} cores and {m.get('GPU', 0):g} GPUs" for m in machines)
        raise ValueError(
            f"insufficient resources: a run asks for {processes} x ({cpus or 1:g} cores, "
            f"{wanted:g} GPUs); available: {has or 'no machine'}"
        )
    if workers is None:
        workers = max(0, int(cpus) - 1) if wanted else 0
    return Resources(cpus, wanted, workers, max(side_by_side)), sum(side_by_side) // processes


def processes_per_run(gpus: int, runs: int, batches: Sequence[int]) -> int:
    """How many processes, with a GPU each, share a run, so that as few GPUs as can be are idle.

    batches: clips of each run's batch, which its processes share evenly.
    """
    most = max(1, gpus // max(runs, 1))
    return max(count for count in range(1, most + 1) if all(batch % count == 0 for batch in batches))


def check_storage(
    machines: Sequence[Mapping[str, Any]], out: Path, needed: Sequence[Path], *, mirror: str | None = None
) -> None:
    """Check that every machine sees what is written into `out` (or its mirror) here, and what is needed.

    Raises ValueError naming the machine and what it does not see.
    """
    probe = f".seen-from-here-{uuid.uuid4().hex}"
    mark = out.resolve() / probe / "mark"
    mark.parent.mkdir(parents=True)
    mark.touch()
    if mirror:
        send(mirror, out, probe)
    paths = [str(path.resolve()) for path in needed]
    try:
        checks = {
            node["NodeManagerHostname"]: ray.remote(_missing)
            .options(
                num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            )
            .remote(paths, str(out.resolve()), probe, mirror)
            for node in machines
        }
        for host, check in checks.items():
            if missing := ray.get(check):
                what = [f"what is written to {mirror or out.resolve()}" if p == probe else p for p in missing]
                raise ValueError(
                    f"machine {host} does not see {', '.join(what)}: the data and --out must lie on storage "
                    "that all machines have under the same path; for --out a --mirror will do"
                )
    finally:
        shutil.rmtree(mark.parent)
        if mirror:
            send(mirror, out, probe)  # nothing is there any more, so it is removed


def _missing(paths: list[str], out: str, probe: str, mirror: str | None) -> list[str]:
    """Runs on a machine: which of these it does not see."""
    missing = [path for path in paths if not os.path.exists(path)]
    if mirror is None:
        return missing if (Path(out) / probe / "mark").exists() else [probe, *missing]
    with tempfile.TemporaryDirectory() as here:
        try:
            fetch(mirror, Path(here), probe)
        except ValueError:
            return [probe, *missing]
        return missing if (Path(here) / probe / "mark").exists() else [probe, *missing]
