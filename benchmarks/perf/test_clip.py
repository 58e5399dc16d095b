"""Clips per CPU second out of H.264 files, against decoding from the start.

`nox -s perf`. The plain way opens the file and turns every frame up to the last one needed into RGB. Both
are measured in turn in one process, in CPU time, so that a busy machine changes little. Thresholds are
floors below what was measured; the measured ratios are in the output and in the saved JSON.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from actloc_core.clip import clip_indices, clip_times, read_frames, read_times

FPS, FRAMES, STRIDE = 30, 16, 4
SIZES = {"320x240": (320, 240), "854x480": (854, 480)}
SECONDS = {"10 s": 10, "2 min": 120}
CLIPS = {"10 s": 6, "2 min": 2}
FLOORS = {"10 s": 1.3, "2 min": 4.0}
"""Times the plain way's clips, for read_frames and read_times alike."""


def write_moving(path: Path, seconds: int, size: tuple[int, int]) -> Path:
    """Blurred noise sliding over blurred noise: residuals and motion as in a real video."""
    width, height = size
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (height // 16 + 1, width // 8 + 1, 3), dtype=np.uint8)
    ground = av.VideoFrame.from_ndarray(coarse, format="rgb24").reformat(
        width=2 * width, height=2 * height, interpolation="BICUBIC"
    )
    scene = ground.to_ndarray(format="rgb24")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"preset": "veryfast", "g": "250"}
        for n in range(seconds * FPS):
            x = round(width * (0.5 + 0.5 * np.sin(n / 60)))
            y = round(height * (0.5 + 0.5 * np.sin(n / 43)))
            image = scene[y : y + height, x : x + width].copy()
            patch = image[height // 3 : 2 * height // 3, width // 3 : 2 * width // 3]
            patch[:] = scene[n % height : n % height + patch.shape[0], : patch.shape[1]]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def plain_read(path: Path, indices: np.ndarray) -> np.ndarray:
    images = {}
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        for number, frame in enumerate(container.decode(video=0)):
            image = frame.to_ndarray(format="rgb24")
            if number in indices:
                images[number] = image
            if number == indices.max():
                break
    return np.stack([images[number] for number in indices.tolist()])


def cpu_seconds(read: Callable[[int], object], keyframes: list[int]) -> float:
    began = time.process_time()
    for keyframe in keyframes:
        read(keyframe)
    return (time.process_time() - began) / len(keyframes)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("length", SECONDS)
def test_clips_a_second_against_decoding_from_the_start(benchmark, tmp_path, size, length):
    path = write_moving(tmp_path / "movie.mp4", SECONDS[length], SIZES[size])
    frames = SECONDS[length] * FPS
    keyframes = np.random.default_rng(1).integers(frames // 10, frames, CLIPS[length]).tolist()

    def numbers(keyframe):
        return clip_indices(keyframe, frames, frames=FRAMES, stride=STRIDE)

    def by_number(keyframe):
        return read_frames(path, numbers(keyframe))

    def by_time(keyframe):
        return read_times(path, clip_times(keyframe / FPS, frames=FRAMES, stride=STRIDE, fps=FPS), fps=FPS)

    def plain(keyframe):
        return plain_read(path, numbers(keyframe))

    expected = plain(keyframes[0])
    np.testing.assert_array_equal(by_number(keyframes[0]), expected)
    np.testing.assert_array_equal(by_time(keyframes[0]), expected)
    spent = {read: cpu_seconds(read, keyframes) for read in (plain, by_number, by_time)}
    ratios = {read.__name__: spent[plain] / spent[read] for read in (by_number, by_time)}
    print(f"\n{size}, {length}: plain {1 / spent[plain]:.1f} clips a CPU second", end="")
    for read in (by_number, by_time):
        print(f", {read.__name__} {1 / spent[read]:.1f} ({ratios[read.__name__]:.1f}x)", end="")
    benchmark.extra_info |= {"size": size, "length": length, "plain_cpu_s": spent[plain], **ratios}
    benchmark.pedantic(by_time, args=(keyframes[0],), rounds=1)
    assert min(ratios.values()) > FLOORS[length]
