"""What a core reads: clips a second from video files, decoded and resized as for training."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from actloc_core.clip import clip_times, read_times
from actloc_core.pixels import resize
from benchmarks.profile.measure import experiment
from datasets import scenes

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
