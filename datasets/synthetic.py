"""A small AVA-shaped benchmark made from a seed: H.264 videos, AVA csv, label maps, exclusions.

Every annotated second of a video is one scene of `datasets.scenes`. A person-box file comes with
each split, as a person detector might have written it, for the two-stage baseline, and
`synthetic_<split>_fast_movers.csv`, video,second,person of the actors that leave their cell of an 8 x 8 grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from datasets.generate import Codec, Progress, Recipe, map_in_processes, write_video
from datasets.generate import check as check
from datasets.generate import fingerprint as fingerprint
from datasets.scenes import ACTIONS as ACTIONS
from datasets.scenes import FLIPPED as FLIPPED
from datasets.scenes import FPS as FPS
from datasets.scenes import HEIGHT, WIDTH, Box, Person, render, sample_detections, sample_scene

FIRST_SECOND = 902  # of AVA's annotated range; a file starts at second 900
VERSION = 5
"""Part of every cached copy's name: raise it with a change of what is drawn or written."""

H264 = Codec(
    "libx264",
    gop=FPS // 2,  # scenes start on multiples of half a second: cheap seeks
    # Without x264's look-ahead: with its macroblock tree, 2 of 552 videos came out as other bytes.
    options={
        "preset": "veryfast", "crf": "18", "sc_threshold": "0", "x264-params": "mbtree=0:rc-lookahead=0",
    },
)  # fmt: skip


@dataclass(frozen=True)
class Size:
    """Number of annotated seconds of each split. The default is what the tiny scale trains and reports on."""

    train: int = 3000
    val: int = 300
    test: int = 600
    seed: int = 0
    scenes_per_video: int = 30


SIZES = {"synthetic_ava": Size(), "synthetic_ava_smoke": Size(train=64, val=30, test=30)}
"""The sizes that experiments name."""


def make(root: Path, size: Size | None = None, *, progress: Progress | None = None) -> Path:
    """Return the folder of the benchmark of this size, made under `root` if it does not exist yet.

    An existing copy is used only if every file has the hash its manifest records; ValueError names
    the first file that has not.
    """
    return _recipe(size or Size()).make(root, progress)


def make_at(target: Path, size: Size, *, progress: Progress | None = None) -> None:
    """Make the benchmark in `target`, which does not exist yet or is empty."""
    _recipe(size).make_at(target, progress)


def folder_of(root: Path, size: Size) -> Path:
    """Where `make` puts the benchmark of this size."""
    return _recipe(size).folder(root)


def _recipe(size: Size) -> Recipe:
    return Recipe("synthetic-ava", asdict(size), VERSION, partial(_write, size))


def _write(size: Size, root: Path, progress: Progress) -> None:
    """Write label maps, videos and each split's annotations into an empty folder."""
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

    jobs: list[tuple[Path, str, tuple[int, int, int], int]] = []
    # Numbers of earlier test splits, whose scores were seen while recipes were tuned, are not used again.
    for name, split in (("train", 0), ("val", 1), ("test", 5)):
        left, number = getattr(size, name), 0
        while left > 0:
            scenes = min(left, size.scenes_per_video)
            jobs.append((root / "videos", name, (size.seed, split, number), scenes))
            left, number = left - scenes, number + 1
    made = map_in_processes(_write_video, jobs, progress)
    for name in ("train", "val", "test"):
        videos = [video for (_, split, *_), video in zip(jobs, made, strict=True) if split == name]
        for file, kind in (
            (f"ava_{name}_v2.2.csv", 0),
            (f"ava_{name}_excluded_timestamps_v2.2.csv", 1),
            (f"ava_detection_{name}_boxes_and_labels.csv", 2),
            (f"synthetic_{name}_fast_movers.csv", 3),
        ):
            (annotations / file).write_text("".join(line for video in videos for line in video[kind]))


def _write_video(
    folder: Path, split: str, seed: tuple[int, int, int], scenes: int
) -> tuple[list[str], list[str], list[str], list[str]]:
    """Write one video; -> csv lines: annotations, excluded seconds, person boxes, fast movers."""
    rng = np.random.default_rng(seed)
    detector_rng = np.random.default_rng((*seed, 1))
    video = f"{split}_{seed[2]:03d}"
    rows, excluded, detections, fast, clips = [], [], [], [], []
    for second in range(FIRST_SECOND, FIRST_SECOND + scenes):
        persons = sample_scene(rng)
        clips.append(render(persons, rng))
        key = f"{video},{second:04d}"
        actors = [person for person in persons if person.is_actor]
        rows += _annotation_rows(key, actors)
        fast += [f"{key},{i}\n" for i, actor in enumerate(actors) if actor.is_fast]
        for box, score in sample_detections(persons, detector_rng):
            x1, y1, x2, y2 = _fractions(box)
            detections.append(f"{key},{x1:.3f},{y1:.3f},{x2:.3f},{y2:.3f},,{score:.6f}\n")
        if rng.random() < 0.01:  # a few seconds that evaluation must leave out, as in AVA
            excluded.append(f"{key}\n")
    # Second s is frame (s - 900) * FPS and a scene starts FPS / 2 earlier: a plain lead-in.
    lead_in = np.full(((FIRST_SECOND - 900) * FPS - FPS // 2, HEIGHT, WIDTH, 3), 96, np.uint8)
    write_video(folder / f"{video}.mp4", np.concatenate([lead_in, *clips]), H264, FPS)
    return rows, excluded, detections, fast


def _annotation_rows(key: str, actors: Sequence[Person]) -> list[str]:
    """AVA's csv lines of one keyframe, "video,second": one for each action of each actor."""
    rows = []
    for person_id, person in enumerate(actors):
        x1, y1, x2, y2 = _fractions(person.box).round(3)
        rows += [
            f"{key},{x1:.3f},{y1:.3f},{x2:.3f},{y2:.3f},{ACTIONS.index(action) + 1},{person_id}\n"
            for action in person.actions
        ]
    return rows


def _fractions(box: Box) -> np.ndarray:
    """A box in pixels, xyxy, as fractions of the frame, clipped to it, (4,)."""
    return np.clip(np.array(box) / (WIDTH, HEIGHT, WIDTH, HEIGHT), 0, 1)
