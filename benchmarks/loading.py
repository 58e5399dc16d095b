"""The loader's processes, and the shared memory in which they hand over batches."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.context import RunContext
from benchmarks.distributed import world_size
from benchmarks.experiments import Experiment

WORKER_TIMEOUT_S = 600
"""Seconds after which a loader process that a video hangs is given up, with an error."""
CPUS_PER_GPU = 16
"""Cores of a process with a GPU, where the machine has as many: itself and its loader processes."""
PREFETCH = 4
"""Batches that each loader process reads ahead, where shared memory has room for them."""
SHARED_MEMORY = Path("/dev/shm")
"""Where Linux keeps it. A container has 64 MiB of it unless told otherwise."""
MIB = 2**20
LONGEST_TMPDIR = 36
"""Characters of a folder in which Ray's sockets, 70 longer, fit into a socket's address: 107 on Linux."""
SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")


def use_short_temporary_folder() -> None:
    """Set TMPDIR to a short folder where it is too long for sockets, as on clusters, and say so.

    For this process and those that it starts. Raises ValueError where there is no other folder to write to.
    """
    folder = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    if sys.platform != "linux" or len(folder) <= LONGEST_TMPDIR:
        return
    short = next((path for path in SHORT_FOLDERS if os.access(path, os.W_OK | os.X_OK)), None)
    if short is None:
        raise ValueError(
            f"the temporary folder {folder} is too long for sockets, and nothing can be written to "
            f"{', '.join(SHORT_FOLDERS)}: set TMPDIR to a folder of at most {LONGEST_TMPDIR} characters"
        )
    os.environ["TMPDIR"] = tempfile.tempdir = short
    os.environ.pop("RAY_TMPDIR", None)
    print(f"the temporary folder {folder} is too long for sockets: using {short}", file=sys.stderr)


def loader_options(exp: Experiment, context: RunContext) -> dict[str, Any]:
    """Arguments of a DataLoader: its processes, how far they read ahead, pinned memory for a GPU.

    Raises ValueError where shared memory has no room for a batch of each process.
    """
    ahead: dict[str, Any] = {}
    if context.workers:
        use_short_temporary_folder()  # what loader processes hand over goes through sockets
        room = free_shared_memory()
        factor = PREFETCH if room is None else prefetch(exp, context, room)
        if factor < PREFETCH:
            print(f"shared memory has room for {factor} of {PREFETCH} batches ahead", file=sys.stderr)
        ahead = {"prefetch_factor": factor, "timeout": WORKER_TIMEOUT_S}
    return {"num_workers": context.workers, "pin_memory": context.device.type == "cuda", **ahead}


def prefetch(exp: Experiment, context: RunContext, room: int) -> int:
    """How many batches each loader process may read ahead, of which PREFETCH are enough.

    room: free bytes of shared memory. The machine's reading processes share it, and each of them may have a
    loader for training and one for validation.
    Raises ValueError where not one batch of each loader process fits.
    """
    size = batch_bytes(exp)
    fits = int(room / (2 * context.readers * context.workers * size))
    if fits == 0:
        needed = 2 * context.readers * context.workers * size
        raise ValueError(
            f"{context.workers} loader processes for each of {context.readers} processes hand over batches "
            f"of {size / MIB:.0f} MiB in {SHARED_MEMORY}, which has {room / MIB:,.0f} MiB free of the "
            f"{needed / MIB:,.0f} needed: give it more (docker run --shm-size=16g), or fewer --workers"
        )
    return min(PREFETCH, fits)


def batch_bytes(exp: Experiment) -> int:
    """Bytes of a process's part of a batch, of the largest clips there are: a byte for each number."""
    height = width = exp.crop
    if exp.short_sides is not None:  # films are up to 16:9, nearly
        height, width = exp.short_sides[1], exp.short_sides[1] * 16 // 9
    return exp.batch // world_size() * 3 * exp.frames * height * width


def free_shared_memory() -> int | None:
    """Free bytes of shared memory; None on a system that does not limit it by itself."""
    return shutil.disk_usage(SHARED_MEMORY).free if SHARED_MEMORY.is_dir() else None
