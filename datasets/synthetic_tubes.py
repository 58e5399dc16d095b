"""Small benchmarks in the formats of UCF101-24 and JHMDB-21, made from a seed.

Eight motions that need time; every video shows one of them. A video holds

- actors: a body with a bright bar that does the video's motion, with a red core while it acts;
- distractors: the same with a blue core, in any of the motions, not annotated;
- idle persons: a red core now and then, no motion, not annotated.

The two shapes are

    ucf24   30-50 frames, untrimmed: 1-3 actors, each acts for a part of the video (its tube), and
            stands still with a grey core before and after
                <root>/videos/<Class>/<video>.avi, <root>/rgb-images/<Class>/<video>/%05d.jpg,
                <root>/UCF101v2-GT.pkl with one split
    jhmdb   15-25 frames, trimmed: one actor, whose tube covers every frame
                <root>/Frames/<class>/<video>/%05d.png or <root>/videos/<class>/<video>.avi,
                <root>/JHMDB-GT.pkl with three splits

The videos are MPEG-4 in AVI with B-frames, like UCF101's, which random access reads wrongly.
Nobody leaves the image or walks through another, so that a box tells the truth at every frame. Sizes,
places and opacities are alike whatever the motion is, so that a single frame does not tell it.
"""

from __future__ import annotations

import pickle
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import av
import numpy as np
from PIL import Image

from datasets import synthetic
from datasets.synthetic import ASPECT, CORES, HEIGHT, SPIN, WIDTH, Progress, Track

MOTIONS = ("left", "right", "up", "down", "grow", "shrink", "blink", "rotate")
"""The labels' names; label l of the annotations is MOTIONS[l]."""

Shape = Literal["ucf24", "jhmdb"]
Images = Literal["frames", "videos"]
SHAPES: tuple[Shape, ...] = ("ucf24", "jhmdb")
ANNOTATIONS: dict[Shape, str] = {"ucf24": "UCF101v2-GT.pkl", "jhmdb": "JHMDB-GT.pkl"}
"""The annotation file's name."""
USUAL_IMAGES: dict[Shape, Images] = {"ucf24": "videos", "jhmdb": "frames"}

FPS = 25
SPLITS = 3  # of JHMDB
CLIPS_PER_GROUP = 4  # the g and c in v_left_g01_c02
SMALLEST, LARGEST = 12.0, 30.0  # a body's height, pixels
FAINT = 0.55  # opacity of a body that blinks, in the frames where it is off, and of half the others
GREY = (0.5, 0.5, 0.5)
VERSION = 2
"""Part of every cached copy's name: to be raised by a change of what is drawn or written."""


@dataclass(frozen=True)
class TubeSize:
    """How many videos a split trains and tests on. ValueError where it has none of either."""

    train: int = 240
    test: int = 80
    seed: int = 0

    def __post_init__(self) -> None:
        if self.train < 1 or self.test < 1 or self.seed < 0:
            raise ValueError(f"{self}: at least one video to train on, one to test on, and a seed from 0")


SIZES: dict[str, tuple[Shape, TubeSize]] = {
    "synthetic_ucf24": ("ucf24", TubeSize(train=240, test=32)),
    "synthetic_jhmdb": ("jhmdb", TubeSize(train=400, test=60)),
    "synthetic_ucf24_smoke": ("ucf24", TubeSize(train=8, test=2)),
    "synthetic_jhmdb_smoke": ("jhmdb", TubeSize(train=6, test=3)),
}
"""Those that experiments name. Every frame of a test video is evaluated, so they are few."""


def make(
    root: Path,
    shape: Shape,
    size: TubeSize | None = None,
    *,
    images: Images | None = None,
    progress: Progress | None = None,
) -> Path:
    """The folder of this benchmark, made under `root` where it is not there yet.

    images: see `make_at`. A copy is used again only if every file has the hash its manifest says; a
    damaged one is an error that names the file.
    """
    size = size or TubeSize()
    target = folder_of(root, shape, size, images=images)
    if target.exists():
        synthetic.check(target)
    else:
        make_at(target, shape, size, images=images, progress=progress)
    return target


def make_at(
    target: Path,
    shape: Shape,
    size: TubeSize,
    *,
    images: Images | None = None,
    progress: Progress | None = None,
) -> None:
    """Make the benchmark in this very folder, which is not there yet or empty.

    images: "videos" are .avi files alone. "frames" are extracted ones: beside the videos in ucf24,
    in their place in jhmdb. None is the shape's usual, videos in ucf24 and frames in jhmdb.
    """
    spec = _spec(shape, size, images)
    report = progress or (lambda done, total: None)
    synthetic.build(
        target,
        {"spec": spec, "version": VERSION},
        lambda folder: _write(folder, shape, size, images or USUAL_IMAGES[shape], report),
    )


def folder_of(root: Path, shape: Shape, size: TubeSize, *, images: Images | None = None) -> Path:
    """Where `make` puts this benchmark."""
    spec = {"version": VERSION, **_spec(shape, size, images)}
    return root / synthetic.hashed_name(f"synthetic-{shape}", spec)


def _spec(shape: Shape, size: TubeSize, images: Images | None) -> dict[str, str | int]:
    return {"shape": shape, "images": images or USUAL_IMAGES[shape], **asdict(size)}


# --- files ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Video:
    key: str  # "left/v_left_g01_c01"
    motion: str
    seed: tuple[int, ...]


def _write(root: Path, shape: Shape, size: TubeSize, images: Images, progress: Progress) -> None:
    if shape == "ucf24":
        videos, train, test = _ucf24_videos(size)
    else:
        videos, train, test = _jhmdb_videos(size)
    jobs = [(root, shape, images, video) for video in videos]
    made = dict(
        sorted(
            (video.key, (MOTIONS.index(video.motion), length, tubes))
            for video, (length, tubes) in zip(
                videos, synthetic.in_processes(_make_video, jobs, progress), strict=True
            )
        )
    )
    content = {
        "labels": list(MOTIONS),
        "gttubes": {key: {label: tubes} for key, (label, _, tubes) in made.items()},
        "nframes": {key: length for key, (_, length, _) in made.items()},
        "train_videos": train,
        "test_videos": test,
        "resolution": dict.fromkeys(made, (HEIGHT, WIDTH)),
    }
    # Python 2 wrote the published files; their readers know its protocol.
    (root / ANNOTATIONS[shape]).write_bytes(pickle.dumps(content, protocol=2))


def _ucf24_videos(size: TubeSize) -> tuple[list[_Video], list[list[str]], list[list[str]]]:
    """All videos, and the names that each split trains and tests on. No group is in both."""
    videos: list[_Video] = []
    names = []
    first_group = 1
    for split, count in ((1, size.test), (0, size.train)):
        mine = []
        for number in range(count):
            motion, of_motion = MOTIONS[number % len(MOTIONS)], number // len(MOTIONS)
            group, clip = first_group + of_motion // CLIPS_PER_GROUP, of_motion % CLIPS_PER_GROUP + 1
            key = f"{motion}/v_{motion}_g{group:02d}_c{clip:02d}"
            mine.append(_Video(key, motion, (size.seed, 0, split, number)))
        videos += mine
        names.append(sorted(video.key for video in mine))
        first_group += -(-count // (len(MOTIONS) * CLIPS_PER_GROUP))
    test, train = names
    return videos, [train], [test]


def _jhmdb_videos(size: TubeSize) -> tuple[list[_Video], list[list[str]], list[list[str]]]:
    """The same; each split tests on other videos, as far as there are enough of them."""
    videos = []
    for number in range(size.train + size.test):
        motion = MOTIONS[number % len(MOTIONS)]
        key = f"{motion}/{motion}_{number // len(MOTIONS) + 1:03d}"
        videos.append(_Video(key, motion, (size.seed, 1, 0, number)))
    train, test = [], []
    for split in range(SPLITS):
        tested = {(split * size.test + i) % len(videos) for i in range(size.test)}
        test.append(sorted(video.key for i, video in enumerate(videos) if i in tested))
        train.append(sorted(video.key for i, video in enumerate(videos) if i not in tested))
    return videos, train, test


def _make_video(root: Path, shape: Shape, images: Images, video: _Video) -> tuple[int, list[np.ndarray]]:
    """Write one video; -> its length in frames and its tubes."""
    rng = np.random.default_rng(video.seed)
    scene = sample_scene(rng, shape, video.motion)
    pixels = synthetic.draw(scene.tracks, scene.length, rng)
    if images == "frames":
        kind, suffix = ("rgb-images", "jpg") if shape == "ucf24" else ("Frames", "png")
        folder = root / kind / video.key
        folder.mkdir(parents=True)
        for number, image in enumerate(pixels, 1):
            Image.fromarray(image).save(folder / f"{number:05d}.{suffix}", quality=95)
    if images == "videos" or shape == "ucf24":
        path = root / "videos" / f"{video.key}.avi"
        path.parent.mkdir(parents=True, exist_ok=True)
        _encode(path, pixels)
    return scene.length, scene.tubes


def _encode(path: Path, frames: np.ndarray) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.codec_tag = "XVID"
        stream.gop_size, stream.max_b_frames = 12, 2
        stream.thread_count = 1  # the encoder's output depends on the number of its threads
        stream.options = {"flags": "+bitexact", "qmin": "2", "qmax": "3"}
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


# --- what is drawn -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scene:
    """What a video shows, and what is annotated of it."""

    length: int  # frames
    tracks: list[Track]
    tubes: list[np.ndarray]
    """One per actor, (N, 5) float32: frame from 1, x1, y1, x2, y2 in pixels."""


def sample_scene(rng: np.random.Generator, shape: Shape, motion: str) -> Scene:
    """Actors of the motion, up to two distractors and now and then an idle person, all apart."""
    length = int(rng.integers(30, 51) if shape == "ucf24" else rng.integers(15, 26))
    kinds = ["actor"] * (rng.integers(1, 4) if shape == "ucf24" else 1)
    kinds += ["distractor"] * rng.integers(0, 3) + ["idle"] * int(rng.random() < 0.3)
    tracks: list[Track] = []
    tubes = []
    for kind in kinds:
        does = {"actor": motion, "distractor": str(rng.choice(MOTIONS)), "idle": ""}[kind]
        colour = CORES["blue" if kind == "distractor" else "red"]
        for _ in range(50):
            begin, end = _sample_span(rng, length) if shape == "ucf24" else (0, length)
            track = sample_track(rng, does, colour, length, begin, end)
            if all(_overlap(track.boxes, other.boxes) < 0.1 for other in tracks):
                tracks.append(track)
                if kind == "actor":
                    numbers = np.arange(begin, end)
                    boxes = np.clip(track.boxes[begin:end], 0, (WIDTH, HEIGHT, WIDTH, HEIGHT))
                    tubes.append(np.column_stack([numbers + 1, boxes]).astype(np.float32))
                break
    return Scene(length, tracks, tubes)


def _sample_span(rng: np.random.Generator, length: int) -> tuple[int, int]:
    """First frame, from 0, and the end of a tube: 20 to 40 frames, with two or more on both sides."""
    frames = int(rng.integers(20, min(40, length - 8) + 1))
    begin = int(rng.integers(2, length - frames - 1))
    return begin, begin + frames


def sample_track(
    rng: np.random.Generator, does: str, colour: tuple[float, float, float], length: int, begin: int, end: int
) -> Track:
    """Somebody who does one of MOTIONS, or nothing (""), in the frames begin .. end - 1 of a video.

    Still and with a grey core in the others. Its box is inside the image at every frame.
    """
    frame = np.arange(length)
    acting = (frame >= begin) & (frame < end)
    steps = end - begin - 1
    done = np.clip(frame - begin, 0, steps)  # frames acted so far
    blinks = acting & (does == "blink")

    growth = min(rng.uniform(0.03, 0.045), np.log(LARGEST / SMALLEST) / steps)  # relative, a frame
    growth *= (does == "grow") * 1.0 - (does == "shrink")
    size = np.exp(_start(rng, np.log(SMALLEST), np.log(LARGEST), growth * steps) + growth * done)

    def sample_places(room: float, half: float, towards: float) -> np.ndarray:
        speed = towards * min(rng.uniform(0.6, 1.1), (room - 2 * half) / steps)  # pixels a frame
        return _start(rng, half, room - half, speed * steps) + speed * done

    half = size.max() / 2
    return Track(
        x=sample_places(WIDTH, half * ASPECT + 1, (does == "right") * 1.0 - (does == "left")),
        y=sample_places(HEIGHT, half + 1, (does == "down") * 1.0 - (does == "up")),
        size=size,
        angle=rng.uniform(0, np.pi) + SPIN * done * (does == "rotate"),
        seen=np.where(blinks, synthetic.blinking(done + rng.integers(4), FAINT), rng.choice([1, FAINT])),
        shade=tuple(rng.uniform(0.35, 0.8, 3)),
        core=np.where(acting[:, None], colour, GREY),
    )


def _start(rng: np.random.Generator, low: float, high: float, change: float) -> float:
    """A value that, like itself with the change, is between low and high."""
    least, most = low - min(change, 0), high - max(change, 0)
    return float(rng.uniform(least, max(least, most)))  # where the change takes it all, they may be rounded


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    """The most, over the frames of two (T, 4) xyxy tracks, of intersection over the smaller box."""
    sides = np.clip(np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2]), 0, None)
    smaller = np.minimum(*((x[:, 2:] - x[:, :2]).prod(1) for x in (a, b)))
    return float((sides.prod(1) / smaller).max())
