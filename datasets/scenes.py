"""Scenes of the synthetic AVA benchmark: moving bodies and the frames that they are drawn on.

NumPy only: no files and no video codec, so scenes can be drawn wherever NumPy is installed.
`datasets.synthetic` writes them as videos with annotations. A scene is `FPS` frames long with the
keyframe in the middle, and holds

- actors: a body with a red core, a bright bar and actions, annotated. One action is a movement, one of
  MOVEMENTS as one of AVA's 14 poses; of the others an actor may do several. Frequencies fall as 1 / rank;
- idle persons: the same look without any action, so they are not actors and not annotated;
- distractors: bodies with a blue core that move and change like actors, and are not annotated.

Bodies are 0.3 to 0.9 of the frame's height and mostly stay within a cell of an 8 x 8 grid during a scene; one
in ten is a fast mover. In some scenes bodies cover each other, in some the picture is cut to another one.

The ten actions need time: no single frame distinguishes them. Everything an action changes (position,
size, opacity, the bar's angle) has the same distribution at the keyframe whatever the action is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MOVEMENTS = ("up", "down", "rotate", "left", "right")
"""Of these an actor does exactly one."""
MOVEMENT_SHARES = np.array([1, 1 / 2, 1 / 3, 1 / 4, 1 / 5]) / (137 / 60)
CHANGES = {"grow": 0.3, "shrink": 0.15, "blink": 0.1, "vanish": 0.075, "appear": 0.06}
"""Other actions -> the share of actors that do them, 0.3 / rank. No actor both appears and vanishes, or
grows and shrinks."""
ACTIONS = (*MOVEMENTS, *CHANGES)
"""Names of the action ids 1..10."""
FLIPPED = {"left": "right", "right": "left"}
"""Actions that a horizontal flip exchanges."""

FPS = 16
WIDTH, HEIGHT = 80, 64  # pixels
CORES = {"red": (0.95, 0.05, 0.05), "blue": (0.1, 0.2, 0.95)}  # RGB in [0, 1]
ASPECT = 0.5  # a body's width over its height
SMALLEST, LARGEST = 0.3 * HEIGHT, 0.9 * HEIGHT
"""Heights of bodies, pixels."""
SPEED = 0.5
"""Pixels per frame: 7.5 in a scene, where a cell of an 8 x 8 grid is 10 x 8."""
FAST, FAST_SHARE = 1.25, 0.1
"""Pixels per frame of the fast movers, and their share."""
GROWTH = 0.03  # relative size per frame
SPIN = 0.22  # radians per frame
FADING = 0.1  # of its opacity a frame, of a body that appears or vanishes
MAX_OVERLAP, MAX_OCCLUSION, OCCLUSION_SHARE = 0.1, 0.4, 0.15
"""Intersection over the smaller box, below which two bodies count as apart; the same in scenes with
occlusion, and the share of these."""
CUT_SHARE = 0.1
"""Share of scenes that are cut to another one, before or after the keyframe, `CUT_AT` frames away from it."""
CUT_AT = (4, 7)
ATTEMPTS = 50
"""Positions tried for a body before it is left out of a crowded scene."""

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Person:
    """One body: its state at the keyframe and its actions. Lengths are in pixels."""

    x: float
    y: float
    size: float
    shade: tuple[float, float, float]
    stripes: tuple[float, float, float]
    """Of the body: cycles a body's height along x and along y, and the phase in radians."""
    angle: float
    core: str  # "red" | "blue"
    actions: tuple[str, ...]
    speed: float = SPEED
    """Pixels per frame."""

    @property
    def is_actor(self) -> bool:
        """Whether the body is annotated."""
        return self.core == "red" and bool(self.actions)

    @property
    def is_fast(self) -> bool:
        """Whether this actor is a fast mover: it may leave its cell of an 8 x 8 grid during a scene."""
        return self.is_actor and self.speed > SPEED and "rotate" not in self.actions

    @property
    def box(self) -> Box:
        """xyxy in pixels at the keyframe."""
        return (
            self.x - self.size * ASPECT / 2,
            self.y - self.size / 2,
            self.x + self.size * ASPECT / 2,
            self.y + self.size / 2,
        )


@dataclass(frozen=True)
class Track:
    """One body as it is drawn over T frames. The arrays are (T,), lengths in pixels."""

    x: np.ndarray
    y: np.ndarray
    size: np.ndarray  # the body's height
    angle: np.ndarray  # radians
    opacity: np.ndarray  # 0 to 1
    shade: tuple[float, float, float]
    stripes: tuple[float, float, float]
    core: np.ndarray  # RGB in [0, 1], (T, 3)

    @property
    def boxes(self) -> np.ndarray:
        """xyxy in pixels, (T, 4)."""
        half_w, half_h = self.size * ASPECT / 2, self.size / 2
        return np.stack([self.x - half_w, self.y - half_h, self.x + half_w, self.y + half_h], axis=1)


def sample_scene(rng: np.random.Generator) -> list[Person]:
    """Sample 1-3 actors, 0-2 distractors and sometimes an idle person, at their places at the keyframe."""
    kinds = ["actor"] * rng.integers(1, 4) + ["distractor"] * rng.integers(0, 3)
    kinds += ["idle"] * int(rng.random() < 0.3)
    most = MAX_OCCLUSION if rng.random() < OCCLUSION_SHARE else MAX_OVERLAP
    persons: list[Person] = []
    for kind in kinds:
        actions = () if kind == "idle" else sample_actions(rng)
        for _ in range(ATTEMPTS):
            size = np.exp(rng.uniform(np.log(SMALLEST), np.log(LARGEST)))
            person = Person(
                x=rng.uniform(size * ASPECT / 2 + 1, WIDTH - size * ASPECT / 2 - 1),
                y=rng.uniform(size / 2 + 1, HEIGHT - size / 2 - 1),
                size=size,
                shade=sample_shade(rng),
                stripes=sample_stripes(rng),
                angle=rng.uniform(0, np.pi),
                core="blue" if kind == "distractor" else "red",
                actions=actions,
                speed=FAST if rng.random() < FAST_SHARE else SPEED,
            )
            if all(overlap([person.box], [other.box]) < most for other in persons):
                persons.append(person)
                break
    return persons


def sample_shade(rng: np.random.Generator) -> tuple[float, float, float]:
    """Sample a body's colour, RGB in [0, 1]."""
    return tuple(rng.uniform(0.35, 0.7, 3))


def sample_stripes(rng: np.random.Generator) -> tuple[float, float, float]:
    """Sample a body's stripes, of any direction: without a texture motion would be seen at edges alone."""
    cycles, direction, phase = rng.uniform((1.5, 0, 0), (3, 2 * np.pi, 2 * np.pi))
    return cycles * np.cos(direction), cycles * np.sin(direction), phase


def sample_actions(rng: np.random.Generator) -> tuple[str, ...]:
    """Sample a movement and up to three other actions, 1.7 in all on average."""
    names = list(CHANGES)
    wanted = {name for name, draw in zip(names, rng.random(len(names)), strict=True) if draw < CHANGES[name]}
    for one, other in (("vanish", "appear"), ("grow", "shrink")):
        if one in wanted:
            wanted.discard(other)
    return (str(rng.choice(MOVEMENTS, p=MOVEMENT_SHARES)), *(name for name in names if name in wanted))


def sample_detections(persons: Sequence[Person], rng: np.random.Generator) -> list[tuple[Box, float]]:
    """Sample the output of a person detector at the keyframe: boxes, xyxy in pixels, with scores.

    It detects 95 % of the bodies with a red core, both actors and idle persons. One in ten of the
    others is a false positive with a lower score. Box edges are off by 4 % of the body's side, one
    standard deviation.
    """
    detections = []
    for person in persons:
        is_person = person.core == "red"
        if rng.random() < (0.95 if is_person else 0.1):
            noise = rng.normal(0, 0.04 * person.size, 4) * (ASPECT, 1, ASPECT, 1)
            x1, y1, x2, y2 = np.array(person.box) + noise
            score = 1 - rng.exponential(0.06) if is_person else rng.uniform(0.3, 0.95)
            detections.append(((x1, y1, x2, y2), max(score, 0.05)))
    return detections


def overlap(a: np.ndarray | Sequence[Box], b: np.ndarray | Sequence[Box]) -> float:
    """Return the largest overlap, over T frames, of two (T, 4) xyxy tracks.

    The overlap of two boxes is their intersection over the smaller box.
    """
    a, b = np.asarray(a), np.asarray(b)
    sides = np.clip(np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2]), 0, None)
    smaller = np.minimum(*((x[:, 2:] - x[:, :2]).prod(1) for x in (a, b)))
    return float((sides.prod(1) / smaller).max())


def render(persons: Sequence[Person], rng: np.random.Generator) -> np.ndarray:
    """Draw a scene: (FPS, HEIGHT, WIDTH, 3) uint8 RGB; the keyframe is frame FPS // 2.

    A CUT_SHARE of scenes is cut to another scene before or after it.
    """
    frames = draw_scene(persons, rng)
    if rng.random() < CUT_SHARE:
        at = int(rng.integers(*CUT_AT))
        cut = slice(FPS // 2 + at, None) if rng.random() < 0.5 else slice(0, FPS // 2 - at)
        frames[cut] = draw_scene(sample_scene(rng), rng)[cut]
    return frames


def draw_scene(persons: Sequence[Person], rng: np.random.Generator) -> np.ndarray:
    """Draw a scene without a cut: (FPS, HEIGHT, WIDTH, 3) uint8 RGB."""
    time = np.arange(FPS) - FPS // 2
    return draw([_track(person, time) for person in persons], FPS, rng)


def _track(person: Person, time: np.ndarray) -> Track:
    """Move a person through time, (T,) frames from the keyframe."""
    actions = person.actions
    step = time * person.speed
    opacity = blinking(time) if "blink" in actions else np.ones(len(time))
    # As at the keyframe for one half of the scene, and nearly gone at the end of the other half.
    if "appear" in actions:
        opacity = opacity * (1 + FADING * np.minimum(time, 0))
    if "vanish" in actions:
        opacity = opacity * (1 - FADING * np.maximum(time, 0))
    return Track(
        x=person.x + step * (("right" in actions) - ("left" in actions)),
        y=person.y + step * (("down" in actions) - ("up" in actions)),
        size=person.size * (1 + GROWTH * time * (("grow" in actions) * 1.0 - ("shrink" in actions))),
        angle=person.angle + SPIN * time * ("rotate" in actions),
        opacity=opacity,
        shade=person.shade,
        stripes=person.stripes,
        core=np.tile(CORES[person.core], (len(time), 1)),
    )


def blinking(time: np.ndarray, off: float = 0.25) -> np.ndarray:
    """Opacity, (T,): three frames on (1), three frames off, on at time 0."""
    return np.where((time + 1) // 3 % 2 == 0, 1.0, off)


def draw(tracks: Sequence[Track], length: int, rng: np.random.Generator) -> np.ndarray:
    """Draw tracks on a smooth background sampled from `rng`: (length, HEIGHT, WIDTH, 3) uint8 RGB.

    Later tracks cover earlier ones.
    """
    ys, xs = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32) + 0.5
    low, high = rng.uniform(0.1, 0.6, (2, 3))
    ramp = (np.cos(rng.uniform(0, np.pi)) * xs / WIDTH + ys / HEIGHT)[..., None]
    background = np.clip(low + (high - low) * ramp, 0.05, 0.7).astype(np.float32)
    frames = np.repeat(background[None], length, axis=0)
    for track in tracks:
        _draw_track(frames, track, xs, ys)
    return (frames * 255).round().astype(np.uint8)


def _draw_track(frames: np.ndarray, track: Track, xs: np.ndarray, ys: np.ndarray) -> None:
    """Paint one body into frames (T, H, W, 3) in place; xs and ys (H, W) are pixel centres.

    Each of its parts in the region alone that it ever covers: its mask is 0 in the rest, most of the image.
    """
    size = track.size
    half_w, half_h = _per_frame(size * ASPECT / 2), _per_frame(size / 2)
    opacity = _per_frame(track.opacity)

    reach = track.boxes[:, 2:].max(axis=0), track.boxes[:, :2].min(axis=0)
    part, dx, dy = _region(frames, track, xs, ys, *reach)
    body = np.clip(0.5 + np.minimum(half_w - np.abs(dx), half_h - np.abs(dy)), 0, 1)
    across_x, along_y, phase = track.stripes
    waves = np.sin(2 * np.pi * (across_x * dx + along_y * dy) / _per_frame(size) + phase)
    _paint(part, body * opacity, (1 + 0.35 * waves[..., None]) * track.shade)

    thickness = np.maximum(1.2, 0.08 * half_h)
    radius = float(np.hypot(half_w * 0.95 + 0.5, thickness + 0.5).max())
    part, dx, dy = _region(frames, track, xs, ys, *_square(track, radius))
    cos, sin = _per_frame(np.cos(track.angle)), _per_frame(np.sin(track.angle))
    along, across = np.abs(dx * cos + dy * sin), np.abs(dx * sin - dy * cos)
    bar = np.clip(0.5 + np.minimum(half_w * 0.95 - along, thickness - across), 0, 1)
    _paint(part, bar * opacity, np.array((0.95, 0.95, 0.9)))

    part, dx, dy = _region(frames, track, xs, ys, *_square(track, float(size.max()) * 0.1 + 0.5))
    core = np.clip(0.5 + size[:, None, None] * 0.1 - np.hypot(dx, dy), 0, 1)
    _paint(part, core * opacity, track.core[:, None, None])


def _per_frame(values: np.ndarray) -> np.ndarray:
    """(T,) -> (T, 1, 1) float32."""
    return values.astype(np.float32)[:, None, None]


def _square(track: Track, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """The highest and the lowest x, y that are within a radius of the body's centre in any frame."""
    centre = np.stack([track.x, track.y], axis=1)
    return centre.max(axis=0) + radius, centre.min(axis=0) - radius


def _region(
    frames: np.ndarray, track: Track, xs: np.ndarray, ys: np.ndarray, highest: np.ndarray, lowest: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The part of the frames between two corners; its pixels' distances from the body's centre in x and y."""
    left, top = np.floor(lowest).astype(int) - 1
    right, bottom = np.ceil(highest).astype(int) + 1
    region = slice(max(top, 0), max(bottom, 0)), slice(max(left, 0), max(right, 0))
    return frames[:, *region], xs[region] - _per_frame(track.x), ys[region] - _per_frame(track.y)


def _paint(frames: np.ndarray, mask: np.ndarray, colour: np.ndarray) -> None:
    """Blend a colour into frames (T, h, w, 3) in place, by a mask (T, h, w) in [0, 1]."""
    mask = mask.astype(np.float32)[..., None]
    frames *= 1 - mask
    frames += mask * colour.astype(np.float32)
