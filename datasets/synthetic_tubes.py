"""Small benchmarks in the formats of UCF101-24 and JHMDB-21, made from a seed.

Every video shows one scene of `datasets.tube_scenes`. The two shapes are

    ucf24   30-50 frames, untrimmed: each actor's tube is a part of the video
                <root>/videos/<Class>/<video>.avi, <root>/rgb-images/<Class>/<video>/%05d.jpg,
                <root>/UCF101v2-GT.pkl with one split
    jhmdb   15-25 frames, trimmed: one actor, whose tube covers every frame
                <root>/Frames/<class>/<video>/%05d.png or <root>/videos/<class>/<video>.avi,
                <root>/JHMDB-GT.pkl with three splits

The videos are MPEG-4 in AVI with B-frames, like UCF101's, which random access reads wrongly.
"""

from __future__ import annotations

import pickle
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from datasets.generate import Codec, Progress, Recipe, map_in_processes, write_video
from datasets.scenes import HEIGHT, WIDTH, draw
from datasets.tube_scenes import MOTIONS, sample_tube_scene
from datasets.tube_scenes import Shape as Shape

Images = Literal["frames", "videos"]
SHAPES: tuple[Shape, ...] = ("ucf24", "jhmdb")
ANNOTATIONS: dict[Shape, str] = {"ucf24": "UCF101v2-GT.pkl", "jhmdb": "JHMDB-GT.pkl"}
"""The annotation file's name."""
DEFAULT_IMAGES: dict[Shape, Images] = {"ucf24": "videos", "jhmdb": "frames"}

FPS = 25
SPLITS = 3  # of JHMDB
CLIPS_PER_GROUP = 4  # the g and c in v_left_g01_c02
XVID = Codec(
    "mpeg4", gop=12, options={"flags": "+bitexact", "qmin": "2", "qmax": "3"}, b_frames=2, tag="XVID"
)
VERSION = 3
"""Part of every cached copy's name: raise it with a change of what is drawn or written."""


@dataclass(frozen=True)
class TubeSize:
    """Number of training and test videos of a split. ValueError where one of them is none."""

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
"""The sizes that experiments name. Every frame of a test video is evaluated, so test videos are few."""


def make(
    root: Path,
    shape: Shape,
    size: TubeSize | None = None,
    *,
    images: Images | None = None,
    progress: Progress | None = None,
) -> Path:
    """Return the folder of this benchmark, made under `root` if it does not exist yet.

    images: see `make_at`. An existing copy is used only if every file has the hash its manifest
    records; ValueError names the first file that has not.
    """
    return _recipe(shape, size or TubeSize(), images).make(root, progress)


def make_at(
    target: Path,
    shape: Shape,
    size: TubeSize,
    *,
    images: Images | None = None,
    progress: Progress | None = None,
) -> None:
    """Make the benchmark in `target`, which does not exist yet or is empty.

    images: "videos" writes .avi files alone; "frames" writes extracted frames, beside the videos in
    ucf24 and instead of them in jhmdb. None is the shape's default: videos in ucf24, frames in jhmdb.
    """
    _recipe(shape, size, images).make_at(target, progress)


def folder_of(root: Path, shape: Shape, size: TubeSize, *, images: Images | None = None) -> Path:
    """Where `make` puts this benchmark."""
    return _recipe(shape, size, images).folder(root)


def _recipe(shape: Shape, size: TubeSize, images: Images | None) -> Recipe:
    images = images or DEFAULT_IMAGES[shape]
    spec = {"shape": shape, "images": images, **asdict(size)}
    return Recipe(f"synthetic-{shape}", spec, VERSION, partial(_write, shape, size, images))


@dataclass(frozen=True)
class _Video:
    key: str  # "left/v_left_g01_c01"
    motion: str
    seed: tuple[int, ...]


def _write(shape: Shape, size: TubeSize, images: Images, root: Path, progress: Progress) -> None:
    """Write videos, frames and ACT's annotation pickle into an empty folder."""
    if shape == "ucf24":
        videos, train, test = _ucf24_videos(size)
    else:
        videos, train, test = _jhmdb_videos(size)
    jobs = [(root, shape, images, video) for video in videos]
    made = dict(
        sorted(
            (video.key, (MOTIONS.index(video.motion), length, tubes))
            for video, (length, tubes) in zip(
                videos, map_in_processes(_write_video, jobs, progress), strict=True
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
    """List all videos and each split's training and test names. No group is in both."""
    videos: list[_Video] = []
    names = []
    first_group = 1
    for split, count in ((1, size.test), (0, size.train)):
        split_videos = []
        for number in range(count):
            motion, of_motion = MOTIONS[number % len(MOTIONS)], number // len(MOTIONS)
            group, clip = first_group + of_motion // CLIPS_PER_GROUP, of_motion % CLIPS_PER_GROUP + 1
            key = f"{motion}/v_{motion}_g{group:02d}_c{clip:02d}"
            split_videos.append(_Video(key, motion, (size.seed, 0, split, number)))
        videos += split_videos
        names.append(sorted(video.key for video in split_videos))
        first_group += -(-count // (len(MOTIONS) * CLIPS_PER_GROUP))
    test, train = names
    return videos, [train], [test]


def _jhmdb_videos(size: TubeSize) -> tuple[list[_Video], list[list[str]], list[list[str]]]:
    """List all videos and each split's names. Splits test on different videos, if there are enough."""
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


def _write_video(root: Path, shape: Shape, images: Images, video: _Video) -> tuple[int, list[np.ndarray]]:
    """Write one video; -> its length in frames and its tubes."""
    rng = np.random.default_rng(video.seed)
    scene = sample_tube_scene(rng, shape, video.motion)
    pixels = draw(scene.tracks, scene.length, rng)
    if images == "frames":
        kind, suffix = ("rgb-images", "jpg") if shape == "ucf24" else ("Frames", "png")
        folder = root / kind / video.key
        folder.mkdir(parents=True)
        for number, image in enumerate(pixels, 1):
            Image.fromarray(image).save(folder / f"{number:05d}.{suffix}", quality=95)
    if images == "videos" or shape == "ucf24":
        path = root / "videos" / f"{video.key}.avi"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, pixels, XVID, FPS)
    return scene.length, scene.tubes
