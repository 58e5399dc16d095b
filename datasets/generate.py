"""Writing of synthetic benchmarks: complete or not at all, on all cores, with reproducible bytes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal, TypeVar

import av
import numpy as np

Progress = Callable[[int, int], None]
"""Called with (videos done, videos in all)."""
T = TypeVar("T")

FEW_JOBS = 12
"""Videos for which processes are not worth their start: up to here one process was as fast as two."""


@dataclass(frozen=True)
class Recipe:
    """A benchmark that can be made from a seed. Equal names, specs and versions give equal bytes."""

    name: str
    """Prefix of its cached folder's name."""
    spec: Mapping[str, Any]
    """JSON values that determine the content; the manifest records them."""
    version: int
    """Number to raise with a change of what is drawn or written."""
    write: Callable[[Path, Progress], None]
    """Writes all files but the manifest into an empty folder."""

    def folder(self, root: Path) -> Path:
        """Where `make` puts this benchmark: a folder of its own for every spec and version."""
        text = json.dumps({"version": self.version, **self.spec}, sort_keys=True)
        return root / f"{self.name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    def make(self, root: Path, progress: Progress | None = None) -> Path:
        """Return the benchmark's folder under `root`, made if it does not exist yet.

        An existing copy is used only if every file has the hash its manifest records. Raises ValueError
        naming the first file that has not.
        """
        target = self.folder(root)
        if target.exists():
            check(target)
        else:
            self.make_at(target, progress)
        return target

    def make_at(self, target: Path, progress: Progress | None = None) -> None:
        """Make the benchmark in `target`, which does not exist yet or is empty.

        A temporary folder beside it is filled and renamed when complete: an interruption leaves no files.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        try:
            self.write(building, progress or (lambda done, total: None))
            manifest = {"spec": dict(self.spec), "version": self.version, "files": _hashes(building)}
            (building / "manifest.json").write_text(json.dumps(manifest, indent=1, sort_keys=True))
            building.chmod(0o755)  # mkdtemp's 0o700 would hide the data from other users
            try:
                building.rename(target)
            except OSError:
                if not (target / "manifest.json").is_file():
                    raise
                check(target)  # another process finished the same benchmark first
        finally:
            shutil.rmtree(building, ignore_errors=True)


def check(root: Path) -> None:
    """Raise ValueError naming the first file that differs from the manifest."""
    manifest = root / "manifest.json"
    if not manifest.is_file():
        raise ValueError(f"{root}: no manifest.json, so this copy is incomplete; delete the folder")
    recorded, actual = json.loads(manifest.read_text())["files"], _hashes(root)
    for name in sorted(recorded.keys() | actual.keys()):
        if recorded.get(name) != actual.get(name):
            raise ValueError(
                f"{root / name}: changed, missing or not part of the benchmark; "
                f"delete {root} and it will be made again"
            )


def fingerprint(root: Path) -> str:
    """Hash of the names and contents of all files of a made benchmark, 16 hex digits."""
    manifest = json.loads((root / "manifest.json").read_text())
    return hashlib.sha256(json.dumps(manifest["files"], sort_keys=True).encode()).hexdigest()[:16]


def _hashes(root: Path) -> dict[str, str]:
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.name != "manifest.json"
    }


def map_in_processes(
    function: Callable[..., T], jobs: Sequence[tuple[Any, ...]], progress: Progress
) -> list[T]:
    """Return function(*job) of every job, in the order of the jobs, computed on all cores."""
    results: dict[int, T] = {}
    progress(0, len(jobs))
    if len(jobs) <= FEW_JOBS:
        for i, job in enumerate(jobs):
            results[i] = function(*job)
            progress(i + 1, len(jobs))
        return list(results.values())
    # Spawned, not forked: the caller may hold threads (torch, Ray), which do not survive a fork.
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(function, *job): i for i, job in enumerate(jobs)}
        try:
            for future in as_completed(futures):
                results[futures[future]] = future.result()
                progress(len(results), len(jobs))
        finally:
            pool.shutdown(cancel_futures=True)  # an interruption does not wait for the remaining jobs
    return [results[i] for i in range(len(jobs))]


@dataclass(frozen=True)
class Codec:
    """An encoder's settings, chosen so that equal frames give equal bytes."""

    name: Literal["libx264", "mpeg4"]
    gop: int
    """Frames from one keyframe to the next, at most."""
    options: Mapping[str, str]
    b_frames: int | None = None
    """Consecutive B-frames at most; None: the encoder's default."""
    tag: str | None = None
    """FourCC; None: the container's default."""


def write_video(path: Path, frames: np.ndarray, codec: Codec, fps: int) -> None:
    """Encode frames (T, H, W, 3) uint8 RGB; the container follows from the suffix of `path`."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec.name, rate=fps)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt, stream.gop_size = "yuv420p", codec.gop
        if codec.b_frames is not None:
            stream.max_b_frames = codec.b_frames
        if codec.tag is not None:
            stream.codec_context.codec_tag = codec.tag
        stream.thread_count = 1  # the encoder's output depends on the number of its threads
        stream.options = dict(codec.options)
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
