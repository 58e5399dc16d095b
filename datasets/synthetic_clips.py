"""A small Kinetics made from a seed: short videos with the actions of one large person, and no boxes.

What backbones of the small rows are pre-trained on. Every video is one scene of `datasets.scenes` with a
single actor; its movement and the other changes are its labels, several a clip, none of them rare, as
Kinetics' classes are not. The files are those of `datasets.kinetics`:

<root>/videos/<split>_<n>.mp4, <root>/{train,val,test}.csv, <root>/classes.txt
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from datasets.generate import Progress, Recipe, map_in_processes, write_video
from datasets.scenes import (
    ACTIONS,
    ASPECT,
    CHANGES,
    FAST,
    FAST_SHARE,
    FPS,
    HEIGHT,
    MOVEMENTS,
    SPEED,
    WIDTH,
    Person,
    draw_scene,
    sample_scene,
    sample_shade,
    sample_stripes,
)
from datasets.synthetic import H264

SMALLEST, LARGEST = 0.45 * HEIGHT, 0.9 * HEIGHT
"""Heights of the persons, pixels."""
CHANGE_SHARE = 0.25
"""Of clips with each of the actions that are not movements; less for those that exclude one another."""
VERSION = 1
"""Part of every cached copy's name: raise it with a change of what is drawn or written."""


@dataclass(frozen=True)
class ClipsSize:
    """Number of clips of each split."""

    train: int = 3000
    val: int = 300
    test: int = 600
    seed: int = 0


SIZES = {
    "synthetic_kinetics": ClipsSize(),
    "synthetic_kinetics_smoke": ClipsSize(train=64, val=30, test=30),
}
"""The sizes that experiments name."""


def make(root: Path, size: ClipsSize | None = None, *, progress: Progress | None = None) -> Path:
    """Return the folder of these clips, made under `root` if it does not exist yet; see `synthetic.make`."""
    return _recipe(size or ClipsSize()).make(root, progress)


def make_at(target: Path, size: ClipsSize, *, progress: Progress | None = None) -> None:
    """Make these clips in `target`, a folder that is empty or does not exist."""
    _recipe(size).make_at(target, progress)


def folder_of(root: Path, size: ClipsSize) -> Path:
    """Where `make` puts the clips of this size."""
    return _recipe(size).folder(root)


def _recipe(size: ClipsSize) -> Recipe:
    return Recipe("synthetic-kinetics", asdict(size), VERSION, partial(_write, size))


def _write(size: ClipsSize, root: Path, progress: Progress) -> None:
    """Write videos, lists and names of classes into an empty folder."""
    (root / "videos").mkdir()
    (root / "classes.txt").write_text("".join(f"{name}\n" for name in ACTIONS))
    jobs = [
        (root / "videos", split, (size.seed, 2, part), first, min(first + 100, getattr(size, split)))
        for part, split in enumerate(("train", "val", "test"))
        for first in range(0, getattr(size, split), 100)
    ]
    made = map_in_processes(_write_videos, jobs, progress)
    for split in ("train", "val", "test"):
        lines = [
            line for (_, name, *_), lines in zip(jobs, made, strict=True) if name == split for line in lines
        ]
        (root / f"{split}.csv").write_text("".join(lines))


def _write_videos(folder: Path, split: str, seed: tuple[int, int, int], first: int, end: int) -> list[str]:
    """Write videos number `first` to `end`; -> their lines of the csv."""
    lines = []
    for number in range(first, end):
        rng = np.random.default_rng((*seed, number))
        person = sample_person(rng)
        name = f"{split}_{number:05d}.mp4"
        write_video(folder / name, draw_scene(with_distractor(person, rng), rng), H264, FPS)
        labels = " ".join(str(ACTIONS.index(action)) for action in person.actions)
        lines.append(f"videos/{name} {labels}\n")
    return lines


def with_distractor(person: Person, rng: np.random.Generator) -> list[Person]:
    """The actor, and in half of the clips a distractor behind it."""
    if rng.random() < 0.5:
        return [person]
    others = [other for other in sample_scene(rng) if other.core == "blue"]
    return [*others[:1], person]


def sample_person(rng: np.random.Generator) -> Person:
    """Sample a large actor somewhere in the frame."""
    wanted = [name for name in CHANGES if rng.random() < CHANGE_SHARE]
    for pair in (("vanish", "appear"), ("grow", "shrink")):
        if set(pair) <= set(wanted):
            wanted.remove(str(rng.choice(pair)))
    size = rng.uniform(SMALLEST, LARGEST)
    return Person(
        x=rng.uniform(size * ASPECT / 2 + 1, WIDTH - size * ASPECT / 2 - 1),
        y=rng.uniform(size / 2 + 1, HEIGHT - size / 2 - 1),
        size=size,
        shade=sample_shade(rng),
        stripes=sample_stripes(rng),
        angle=rng.uniform(0, np.pi),
        core="red",
        actions=(str(rng.choice(MOVEMENTS)), *wanted),
        speed=FAST if rng.random() < FAST_SHARE else SPEED,
    )
