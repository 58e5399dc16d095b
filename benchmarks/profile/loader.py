"""What a core reads, clips a second from video files; and whether loader processes feed a training."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from actloc_core.clip import clip_times, read_times
from actloc_core.pixels import resize
from benchmarks.context import RunContext
from benchmarks.experiments import Experiment
from benchmarks.loading import CPUS_PER_GPU
from benchmarks.profile.measure import CLASSES, experiment, random_batch, synchronise, training_of
from benchmarks.train.loop import training_loader
from benchmarks.train.state import TrainState
from benchmarks.train.step import train_step
from datasets import scenes
from datasets.ava import AvaSplit
from datasets.split import ActorAnnotations
from datasets.transforms import Batch
from evaluators.frame_map import GroundTruth

SIZES = ((320, 240), (640, 480))
"""Width and height of the files, of which AVA's movies in circulation have about the first or more."""
FPS, GOP = 30, 100
"""Frames a second, and frames from one keyframe to the next: about a film's shot, where encoders begin."""


def loader(device: torch.device, quick: bool) -> list[dict[str, Any]] | dict[str, str]:
    """A row for each size of file: clips that one core reads a second, by CPU time, and the bytes of a clip.

    A clip is 16 frames, every fourth of 30 a second, resized to 256 x 256. A note where av is missing.
    """
    try:
        import av  # noqa: F401
    except ImportError:
        return {"note": "needs av, which is not installed here"}
    exp, threads = experiment(quick=False), torch.get_num_threads()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for size in SIZES:
            path = Path(folder) / f"{size[0]}.mp4"
            length = write(path, size, seconds=4 if quick else 12)
            middles = np.random.default_rng(0).uniform(1.2, length - 1.2, 3 if quick else 24)
            decoding = resizing = 0.0
            for middle in middles:
                clock = time.process_time()
                times = clip_times(middle, frames=exp.frames, stride=exp.stride, fps=FPS)
                frames = read_times(path, times, fps=FPS)
                between = time.process_time()
                clip = resize(frames, (exp.crop, exp.crop)).contiguous()
                decoding, resizing = decoding + between - clock, resizing + time.process_time() - between
            rows.append(
                {
                    "file": f"{size[0]} x {size[1]}",
                    "clips_s": len(middles) / (decoding + resizing),
                    "decoding_ms": 1e3 * decoding / len(middles),
                    "resizing_ms": 1e3 * resizing / len(middles),
                    "clip_mib": clip.numel() * clip.element_size() / 2**20,
                }
            )
    torch.set_num_threads(threads)
    return rows


def feeding(device: torch.device, quick: bool) -> list[dict[str, Any]] | dict[str, str]:
    """A row for each size of file: clips a second that loader processes read, and that a training takes.

    The training is the method at 256, batch 16, fed as any run is; "alone" is the same one without reading.
    """
    try:
        import av  # noqa: F401
    except ImportError:
        return {"note": "needs av, which is not installed here"}
    exp = experiment(quick, batch=4 if quick else 16)
    state, noise = training_of(exp, device), random_batch(exp, device)
    seconds, rows = 0.3 if quick else 8.0, []
    alone = _rate(lambda: _step(state, noise, exp, device), exp, device, seconds)
    for size in SIZES[:1] if quick else SIZES:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "film.mp4"
            split = _split(path, int(write(path, size, seconds=4 if quick else 12)), exp)
            workers = min(CPUS_PER_GPU, os.cpu_count() or 1) - 1
            context = RunContext(device, Path(folder), workers)
            row: dict[str, Any] = {
                "file": f"{size[0]} x {size[1]}",
                "workers": workers,
                "alone_clips_s": alone,
            }
            for name in ("read", "trained"):
                batches = iter(training_loader(split, exp, state.model, context, first=0))

                def take(batches: Any = batches, trains: bool = name == "trained") -> None:
                    batch = next(batches)
                    if trains:
                        _step(state, batch, exp, device)

                row[f"{name}_clips_s"] = _rate(take, exp, device, seconds, first=2 * workers)
                del batches, take  # which ends the loader's processes
            rows.append(row)
    return rows


def _step(state: TrainState, batch: Batch, exp: Experiment, device: torch.device) -> None:
    train_step(state, batch, exp, device)


def _rate(
    take: Callable[[], None], exp: Experiment, device: torch.device, seconds: float, *, first: int = 2
) -> float:
    """Clips a second of calls that take a batch each, for so many seconds after the first few calls."""
    for _ in range(first):
        take()
    synchronise(device)
    count, clock = 0, time.perf_counter()
    while count < 2 or time.perf_counter() - clock < seconds:
        take()
        count += 1
    synchronise(device)
    return count * exp.batch / (time.perf_counter() - clock)


def _split(path: Path, length: int, exp: Experiment) -> AvaSplit:
    """A training split of one film, each of whose seconds counts as a thousand keyframes with one actor."""
    keys = [("film", second) for second in range(2, length - 1)]
    nobody = np.zeros(0, np.int64)
    return AvaSplit(
        classes={},
        evaluated={},
        ground_truth=GroundTruth(("film",), nobody, nobody, np.zeros((0, 4)), nobody),
        excluded=frozenset(),
        keyframes=tuple(keys * 1000),
        sources={"film": path},
        annotations=ActorAnnotations(
            dict.fromkeys(keys, (0, 1)),
            torch.tensor([[0.5, 0.5, 0.2, 0.6]]),
            torch.eye(1, CLASSES, dtype=torch.uint8),
        ),
        flipped_columns=torch.arange(CLASSES),
        frames=exp.frames,
        stride=exp.stride,
        crop=exp.crop,
        starts={"film": 0},
        fps=FPS,
    )


def write(path: Path, size: tuple[int, int], *, seconds: int) -> float:
    """Encode scenes of the synthetic benchmark, enlarged and with a film's grain; -> the video's seconds."""
    from datasets.generate import Codec, write_video

    rng = np.random.default_rng(0)
    frames: list[np.ndarray] = []
    while len(frames) < seconds * FPS:
        scene = torch.from_numpy(scenes.render(scenes.sample_scene(rng), rng)).permute(0, 3, 1, 2)
        large = F.interpolate(scene, size[::-1], mode="bilinear").permute(0, 2, 3, 1).numpy()
        grain = rng.integers(-6, 7, large.shape[:3], dtype=np.int16)[..., None]
        frames += [*np.clip(large + grain, 0, 255).astype(np.uint8)]
    write_video(
        path, np.stack(frames), Codec("libx264", GOP, {"preset": "veryfast", "sc_threshold": "0"}), FPS
    )
    return len(frames) / FPS
