"""Scenes of the synthetic UCF101-24 and JHMDB benchmarks: bodies that move through a video.

NumPy only, like `datasets.scenes`, which draws the bodies; `datasets.synthetic_tubes` writes the scenes
as videos with annotations. Eight motions that need time; every video shows one of them. A video holds

- actors: a body with a bright bar that does the video's motion, with a red core while it acts;
- distractors: the same with a blue core, in any of the motions, not annotated;
- idle persons: a red core, no motion, not annotated.

In the ucf24 shape 1-3 actors each act for a part of the video, their tube, and stand still with a
grey core before and after. In the jhmdb shape one actor's tube covers every frame.

No body leaves the image or covers another, so every box of a tube is visible. Sizes, positions and
opacities have the same distribution whatever the motion is: a single frame does not reveal it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from datasets.scenes import (
    ASPECT,
    ATTEMPTS,
    CORES,
    HEIGHT,
    MAX_OVERLAP,
    SPIN,
    WIDTH,
    Track,
    blinking,
    overlap,
    sample_shade,
    sample_stripes,
)

MOTIONS = ("left", "right", "up", "down", "grow", "shrink", "blink", "rotate")
"""The labels' names; label l of the annotations is MOTIONS[l]."""
HEIGHTS = {"ucf24": (0.3 * HEIGHT, 0.6 * HEIGHT), "jhmdb": (0.45 * HEIGHT, 0.75 * HEIGHT)}
"""A body's smallest and largest height, pixels: still larger ones had no room to move."""
DISTRACTORS = {"ucf24": 2, "jhmdb": 1}
"""The largest number of distractors in a video."""
FAINT = 0.55  # opacity of a blinking body in its off frames, and of half of the other bodies
GREY = (0.5, 0.5, 0.5)

Shape = Literal["ucf24", "jhmdb"]


@dataclass(frozen=True)
class TubeScene:
    """The content of one video and its annotations."""

    length: int  # frames
    tracks: list[Track]
    tubes: list[np.ndarray]
    """One per actor, (N, 5) float32: frame from 1, x1, y1, x2, y2 in pixels."""


def sample_tube_scene(rng: np.random.Generator, shape: Shape, motion: str) -> TubeScene:
    """Sample actors of a motion, up to two distractors and sometimes an idle person, all apart."""
    length = int(rng.integers(30, 51) if shape == "ucf24" else rng.integers(15, 26))
    kinds = ["actor"] * (rng.integers(1, 4) if shape == "ucf24" else 1)
    kinds += ["distractor"] * rng.integers(0, DISTRACTORS[shape] + 1) + ["idle"] * int(rng.random() < 0.3)
    tracks: list[Track] = []
    tubes = []
    for kind in kinds:
        own_motion = {"actor": motion, "distractor": str(rng.choice(MOTIONS)), "idle": ""}[kind]
        core = CORES["blue" if kind == "distractor" else "red"]
        for _ in range(ATTEMPTS):
            span = _sample_span(rng, length) if shape == "ucf24" else (0, length)
            track = _sample_track(rng, own_motion, core, length, span, HEIGHTS[shape])
            if all(overlap(track.boxes, other.boxes) < MAX_OVERLAP for other in tracks):
                tracks.append(track)
                if kind == "actor":
                    tubes.append(_tube(track, span))
                break
    return TubeScene(length, tracks, tubes)


def _tube(track: Track, span: tuple[int, int]) -> np.ndarray:
    """The annotation of an actor, (N, 5) float32, over the frames of its span."""
    begin, end = span
    boxes = np.clip(track.boxes[begin:end], 0, (WIDTH, HEIGHT, WIDTH, HEIGHT))
    return np.column_stack([np.arange(begin, end) + 1, boxes]).astype(np.float32)


def _sample_span(rng: np.random.Generator, length: int) -> tuple[int, int]:
    """Sample a tube's first frame, from 0, and its end: 20 to 40 frames, at least two on both sides."""
    frames = int(rng.integers(20, min(40, length - 8) + 1))
    begin = int(rng.integers(2, length - frames - 1))
    return begin, begin + frames


def _sample_track(
    rng: np.random.Generator,
    motion: str,
    core: tuple[float, float, float],
    length: int,
    span: tuple[int, int],
    heights: tuple[float, float],
) -> Track:
    """Sample a body of one of MOTIONS, or none (""), that acts in frames span[0] .. span[1] - 1.

    heights: the smallest and the largest that it has in any frame, pixels.

    It is still, with a grey core, in the video's other frames. Its box is inside the image in all frames.
    """
    begin, end = span
    frame = np.arange(length)
    acting = (frame >= begin) & (frame < end)
    steps = end - begin - 1
    done = np.clip(frame - begin, 0, steps)  # frames acted so far
    blinks = acting & (motion == "blink")

    growth = min(rng.uniform(0.03, 0.045), np.log(heights[1] / heights[0]) / steps)  # relative, per frame
    growth *= (motion == "grow") * 1.0 - (motion == "shrink")
    size = np.exp(_sample_start(rng, np.log(heights[0]), np.log(heights[1]), growth * steps) + growth * done)

    def sample_positions(room: float, half: float, direction: float) -> np.ndarray:
        speed = direction * min(rng.uniform(0.45, 0.9), (room - 2 * half) / steps)  # pixels per frame
        return _sample_start(rng, half, room - half, speed * steps) + speed * done

    half = size.max() / 2
    return Track(
        x=sample_positions(WIDTH, half * ASPECT + 1, (motion == "right") * 1.0 - (motion == "left")),
        y=sample_positions(HEIGHT, half + 1, (motion == "down") * 1.0 - (motion == "up")),
        size=size,
        angle=rng.uniform(0, np.pi) + SPIN * done * (motion == "rotate"),
        opacity=np.where(blinks, blinking(done + rng.integers(6), FAINT), rng.choice([1, FAINT])),
        shade=sample_shade(rng),
        stripes=sample_stripes(rng),
        core=np.where(acting[:, None], core, GREY),
    )


def _sample_start(rng: np.random.Generator, low: float, high: float, change: float) -> float:
    """Sample a start value such that it and start + change both lie in [low, high]."""
    least, most = low - min(change, 0), high - max(change, 0)
    # A change over the whole range leaves one value, where rounding may put `most` below `least`.
    return float(rng.uniform(least, max(least, most)))
