"""A small AVA-shaped benchmark made from a seed: H.264 videos, AVA csv, label maps, exclusions.

Ten actions that need time: no single frame tells them apart. Every annotated second of a video is
a scene of its own, `FPS` frames long with the keyframe in the middle. A scene holds

- actors: a body with a red core, a bright bar and one or more of the ten actions, annotated;
- idle persons: the same look, but they do nothing, so they are not actors and not annotated;
- distractors: bodies with a blue core that move and change like actors, and are not annotated.

A person-box file comes with each split: what a detector might have found in the keyframes, for
the two-stage baseline.

Everything an action changes (position, size, visibility, the bar's angle) has at the keyframe the
same distribution whatever the action is.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import av
import numpy as np

ACTIONS = ("left", "right", "up", "down", "start", "stop", "grow", "shrink", "blink", "rotate")
"""Names of the action ids 1..10."""
FLIPPED = {"left": "right", "right": "left"}
"""What a horizontal flip makes of the actions that have a direction."""

Progress = Callable[[int, int], None]
"""Is told (videos done, videos in all)."""
T = TypeVar("T")

FPS = 16
WIDTH, HEIGHT = 80, 64
FIRST_SECOND = 902  # of AVA's annotated range; a file starts at second 900
VERSION = 4
"""Part of every cached copy's name: to be raised by a change of what is drawn or written."""


@dataclass(frozen=True)
class Size:
    """How much is made. The default is what the tiny scale trains and reports on."""

    train: int = 3000
    val: int = 300
    test: int = 600
    seed: int = 0
    scenes_per_video: int = 30


SIZES = {"synthetic_ava": Size(), "synthetic_ava_smoke": Size(train=64, val=30, test=30)}
"""The two that experiments name."""


@dataclass(frozen=True)
class Person:
    """One body: state at the keyframe, and what it does around it."""

    x: float
    y: float
    size: float
    shade: tuple[float, float, float]
    angle: float
    core: str  # "red" | "blue"
    actions: tuple[str, ...]

    @property
    def box(self) -> tuple[float, float, float, float]:
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
    seen: np.ndarray  # opacity, 0 to 1
    shade: tuple[float, float, float]
    core: np.ndarray  # RGB in [0, 1], (T, 3)

    @property
    def boxes(self) -> np.ndarray:
        """xyxy in pixels, (T, 4)."""
        half_w, half_h = self.size * ASPECT / 2, self.size / 2
        return np.stack([self.x - half_w, self.y - half_h, self.x + half_w, self.y + half_h], axis=1)


CORES = {"red": (0.95, 0.05, 0.05), "blue": (0.1, 0.2, 0.95)}
ASPECT = 0.75  # a body's width over its height
SPEED = 0.9  # pixels a frame
GROWTH = 0.045  # relative size a frame
SPIN = 0.22  # radians a frame


def make(root: Path, size: Size | None = None, *, progress: Progress | None = None) -> Path:
    """The folder of the benchmark of this size, made under `root` where it is not there yet.

    A copy is used again only if every file has the hash its manifest says; a damaged one is an
    error that names the file.
    """
    size = size or Size()
    target = folder_of(root, size)
    if target.exists():
        check(target)
    else:
        make_at(target, size, progress=progress)
    return target


def make_at(target: Path, size: Size, *, progress: Progress | None = None) -> None:
    """Make the benchmark in this very folder, which is not there yet or empty."""
    report = progress or (lambda done, total: None)
    build(target, {"spec": asdict(size), "version": VERSION}, lambda folder: _write(folder, size, report))


def folder_of(root: Path, size: Size) -> Path:
    """Where `make` puts the benchmark of this size."""
    return root / hashed_name("synthetic-ava", {"version": VERSION, **asdict(size)})


def hashed_name(name: str, spec: dict[str, Any]) -> str:
    """A folder name of its own for every spec."""
    return f"{name}-{hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:12]}"


def build(target: Path, manifest: dict[str, Any], write: Callable[[Path], None]) -> None:
    """Have `write` fill a temporary folder, add its manifest, and rename it to `target` when whole.

    target: not there yet or empty. manifest: what to record beside the files' hashes.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        write(building)
        manifest = {**manifest, "files": _hashes(building)}
        (building / "manifest.json").write_text(json.dumps(manifest, indent=1, sort_keys=True))
        building.chmod(0o755)  # mkdtemp's own is for nobody else's eyes
        try:
            building.rename(target)
        except OSError:
            if not (target / "manifest.json").is_file():
                raise
            check(target)  # another process finished the same benchmark first
    finally:
        shutil.rmtree(building, ignore_errors=True)


def in_processes(function: Callable[..., T], jobs: Sequence[tuple[Any, ...]], progress: Progress) -> list[T]:
    """function(*job) of every job, in the order of the jobs; all cores work on them."""
    results: dict[int, T] = {}
    progress(0, len(jobs))
    # Spawned, not forked: the caller may hold threads (torch, Ray), which do not survive a fork.
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(function, *job): i for i, job in enumerate(jobs)}
        try:
            for future in as_completed(futures):
                results[futures[future]] = future.result()
                progress(len(results), len(jobs))
        finally:
            pool.shutdown(cancel_futures=True)  # who stops the making does not wait for the rest
    return [results[i] for i in range(len(jobs))]


def fingerprint(root: Path) -> str:
    """The content hash of a made benchmark: of every file's name and SHA-256."""
    manifest = json.loads((root / "manifest.json").read_text())
    return hashlib.sha256(json.dumps(manifest["files"], sort_keys=True).encode()).hexdigest()[:16]


def check(root: Path) -> None:
    """Raise ValueError naming the first file that is not as its manifest says."""
    manifest = root / "manifest.json"
    if not manifest.is_file():
        raise ValueError(f"{root}: no manifest.json, so this copy is not whole; delete the folder")
    recorded, found = json.loads(manifest.read_text())["files"], _hashes(root)
    for name in sorted(recorded.keys() | found.keys()):
        if recorded.get(name) != found.get(name):
            raise ValueError(
                f"{root / name}: changed, missing or not part of the benchmark; "
                f"delete {root} and it will be made again"
            )


def _hashes(root: Path) -> dict[str, str]:
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.name != "manifest.json"
    }


def _write(root: Path, size: Size, progress: Progress) -> None:
    annotations = root / "annotations"
    annotations.mkdir()
    (root / "videos").mkdir()
    labels = "".join(
        f'label {{\n  name: "{name}"\n  label_id: {i}\n  label_type: PERSON_MOVEMENT\n}}\n'
        for i, name in enumerate(ACTIONS, 1)
    )
    (annotations / "ava_action_list_v2.2.pbtxt").write_text(labels)
    items = "".join(f'item {{\n  name: "{n}"\n  id: {i}\n}}\n' for i, n in enumerate(ACTIONS, 1))
    (annotations / "ava_action_list_v2.2_for_activitynet_2019.pbtxt").write_text(items)

    jobs = []  # (split, its number, video, scenes in it)
    # Number 2 was the test split of version 2, whose scores were seen while the recipe was tuned.
    for name, split in (("train", 0), ("val", 1), ("test", 3)):
        left, number = getattr(size, name), 0
        while left > 0:
            scenes = min(left, size.scenes_per_video)
            jobs.append((name, split, number, scenes))
            left, number = left - scenes, number + 1
    made = in_processes(
        _make_video,
        [(root / "videos", name, (size.seed, split, number), scenes) for name, split, number, scenes in jobs],
        progress,
    )
    for name in ("train", "val", "test"):
        videos = [video for (split, *_), video in zip(jobs, made, strict=True) if split == name]
        for file, kind in (
            (f"ava_{name}_v2.2.csv", 0),
            (f"ava_{name}_excluded_timestamps_v2.2.csv", 1),
            (f"ava_detection_{name}_boxes_and_labels.csv", 2),
        ):
            (annotations / file).write_text("".join(line for video in videos for line in video[kind]))


def _make_video(
    folder: Path, split: str, seed: tuple[int, int, int], scenes: int
) -> tuple[list[str], list[str], list[str]]:
    """Write one video; -> its annotation rows, its excluded seconds and its person boxes, as csv lines."""
    rng = np.random.default_rng(seed)
    detector = np.random.default_rng((*seed, 1))
    video = f"{split}_{seed[2]:03d}"
    rows, excluded, found = [], [], []
    clips = []
    for second in range(FIRST_SECOND, FIRST_SECOND + scenes):
        people = sample_scene(rng)
        clips.append(render(people, rng))
        for person_id, person in enumerate(p for p in people if p.core == "red" and p.actions):
            x1, y1, x2, y2 = np.clip(np.array(person.box) / (WIDTH, HEIGHT, WIDTH, HEIGHT), 0, 1).round(3)
            rows += [
                f"{video},{second:04d},{x1:.3f},{y1:.3f},{x2:.3f},{y2:.3f},"
                f"{ACTIONS.index(action) + 1},{person_id}\n"
                for action in person.actions
            ]
        for box, score in _detect(people, detector):
            x1, y1, x2, y2 = np.clip(np.array(box) / (WIDTH, HEIGHT, WIDTH, HEIGHT), 0, 1)
            found.append(f"{video},{second:04d},{x1:.3f},{y1:.3f},{x2:.3f},{y2:.3f},,{score:.6f}\n")
        if rng.random() < 0.01:  # a few seconds that evaluation must leave out, as in AVA
            excluded.append(f"{video},{second:04d}\n")
    # Second s is frame (s - 900) * FPS and a scene starts FPS / 2 earlier: a plain lead-in.
    lead_in = np.full(((FIRST_SECOND - 900) * FPS - FPS // 2, HEIGHT, WIDTH, 3), 96, np.uint8)
    _encode(folder / f"{video}.mp4", np.concatenate([lead_in, *clips]))
    return rows, excluded, found


def _detect(
    people: list[Person], rng: np.random.Generator
) -> list[tuple[tuple[float, float, float, float], float]]:
    """What a person detector might say: xyxy in pixels and score.

    It finds 95 in 100 of those with a red core, actors and idle ones alike, and takes one in ten of the
    others for a person, with less confidence. Edges are off by 4 % of the body's side, one deviation.
    """
    found = []
    for person in people:
        is_person = person.core == "red"
        if rng.random() < (0.95 if is_person else 0.1):
            off = rng.normal(0, 0.04 * person.size, 4) * (ASPECT, 1, ASPECT, 1)
            x1, y1, x2, y2 = np.array(person.box) + off
            score = 1 - rng.exponential(0.06) if is_person else rng.uniform(0.3, 0.95)
            found.append(((x1, y1, x2, y2), max(score, 0.05)))
    return found


def sample_scene(rng: np.random.Generator) -> list[Person]:
    """1-3 actors, 1-3 distractors and now and then an idle person, apart at the keyframe."""
    kinds = ["actor"] * rng.integers(1, 4) + ["distractor"] * rng.integers(1, 4)
    kinds += ["idle"] * int(rng.random() < 0.3)
    people: list[Person] = []
    for kind in kinds:
        actions = () if kind == "idle" else _sample_actions(rng)
        for _ in range(50):
            size = rng.uniform(13, 22)
            person = Person(
                x=rng.uniform(size * ASPECT / 2 + 1, WIDTH - size * ASPECT / 2 - 1),
                y=rng.uniform(size / 2 + 1, HEIGHT - size / 2 - 1),
                size=size,
                shade=tuple(rng.uniform(0.35, 0.8, 3)),
                angle=rng.uniform(0, np.pi),
                core="blue" if kind == "distractor" else "red",
                actions=actions,
            )
            if all(_overlap(person.box, other.box) < 0.1 for other in people):
                people.append(person)
                break
    return people


def _sample_actions(rng: np.random.Generator) -> tuple[str, ...]:
    """One to five actions that go together, about 2.3 on average."""
    actions: list[str] = []
    while not actions:
        across = rng.choice(["", "left", "right"], p=[0.4, 0.3, 0.3])
        along = rng.choice(["", "up", "down"], p=[0.4, 0.3, 0.3])
        timing = rng.choice(["", "start", "stop"], p=[0.4, 0.3, 0.3]) if across or along else ""
        scale = rng.choice(["", "grow", "shrink"], p=[0.64, 0.18, 0.18])
        blink = "blink" if rng.random() < 0.2 else ""
        rotate = "rotate" if rng.random() < 0.2 else ""
        actions = [str(a) for a in (across, along, timing, scale, blink, rotate) if a]
    return tuple(actions)


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Intersection over the smaller of two xyxy boxes."""
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    smaller = min((x[2] - x[0]) * (x[3] - x[1]) for x in (a, b))
    return width * height / smaller


def render(people: list[Person], rng: np.random.Generator) -> np.ndarray:
    """A scene's frames, (FPS, HEIGHT, WIDTH, 3) uint8 RGB; the keyframe is frame FPS // 2."""
    time = np.arange(FPS) - FPS // 2
    return draw([_track(person, time) for person in people], FPS, rng)


def draw(tracks: list[Track], length: int, rng: np.random.Generator) -> np.ndarray:
    """Bodies, the last in front, on a plain ramp of `rng`'s: (length, HEIGHT, WIDTH, 3) uint8 RGB."""
    ys, xs = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32) + 0.5
    low, high = rng.uniform(0.1, 0.6, (2, 3))
    ramp = (np.cos(rng.uniform(0, np.pi)) * xs / WIDTH + ys / HEIGHT)[..., None]
    still = np.clip(low + (high - low) * ramp, 0.05, 0.7).astype(np.float32)
    frames = np.repeat(still[None], length, axis=0)
    for track in tracks:
        _draw(frames, track, xs, ys)
    return (frames * 255).round().astype(np.uint8)


def _track(person: Person, time: np.ndarray) -> Track:
    """time: frames from the keyframe, (T,)."""
    does = person.actions
    moving = np.ones(len(time))
    if "start" in does:
        moving = (time > 0).astype(float)
    if "stop" in does:
        moving = (time < 0).astype(float)
    step = time * moving * SPEED
    return Track(
        x=person.x + step * (("right" in does) - ("left" in does)),
        y=person.y + step * (("down" in does) - ("up" in does)),
        size=person.size * (1 + GROWTH * time * (("grow" in does) * 1.0 - ("shrink" in does))),
        angle=person.angle + SPIN * time * ("rotate" in does),
        seen=blinking(time) if "blink" in does else np.ones(len(time)),
        shade=person.shade,
        core=np.tile(CORES[person.core], (len(time), 1)),
    )


def blinking(time: np.ndarray, off: float = 0.25) -> np.ndarray:
    """Opacity, (T,): two frames on (1), two frames off, on at time 0."""
    return np.where(time // 2 % 2 == 0, 1.0, off)


def _draw(frames: np.ndarray, track: Track, xs: np.ndarray, ys: np.ndarray) -> None:
    # Only where the body ever is: elsewhere its masks are 0, and elsewhere is most of the image.
    left, top = np.floor(track.boxes[:, :2].min(axis=0)).astype(int) - 1
    right, bottom = np.ceil(track.boxes[:, 2:].max(axis=0)).astype(int) + 1
    part = slice(max(top, 0), bottom), slice(max(left, 0), right)
    frames, xs, ys = frames[:, *part], xs[part], ys[part]
    size = track.size

    def per_frame(values: np.ndarray) -> np.ndarray:
        return values.astype(np.float32)[:, None, None]

    dx, dy = xs - per_frame(track.x), ys - per_frame(track.y)
    half_w, half_h = per_frame(size * ASPECT / 2), per_frame(size / 2)
    body = np.clip(0.5 + np.minimum(half_w - np.abs(dx), half_h - np.abs(dy)), 0, 1)
    cos, sin = per_frame(np.cos(track.angle)), per_frame(np.sin(track.angle))
    along, off = np.abs(dx * cos + dy * sin), np.abs(dx * sin - dy * cos)
    bar = np.clip(0.5 + np.minimum(half_w * 0.95 - along, 1.4 - off), 0, 1)
    core = np.clip(0.5 + size[:, None, None] * 0.17 - np.hypot(dx, dy), 0, 1)
    shade, white = np.asarray(track.shade), np.array((0.95, 0.95, 0.9))
    for mask, colour in ((body, shade), (bar, white), (core, track.core[:, None, None])):
        mask = (mask * per_frame(track.seen)).astype(np.float32)[..., None]
        frames *= 1 - mask
        frames += mask * colour.astype(np.float32)


def _encode(path: Path, frames: np.ndarray) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.gop_size = FPS // 2  # scenes start on multiples of half a second: cheap seeks
        stream.thread_count = 1  # the encoder's output depends on the number of its threads
        # Without x264's look-ahead: with its macroblock tree, 2 of 552 videos came out as other bytes.
        exact = "mbtree=0:rc-lookahead=0"
        stream.options = {"preset": "veryfast", "crf": "18", "sc_threshold": "0", "x264-params": exact}
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
