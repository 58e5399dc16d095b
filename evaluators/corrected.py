"""The corrected UCF101-24 annotations as they were published first: a dict of videos, without splits.

    {video: {"annotations": [{"label", "sf", "ef", "boxes"}, ..], "numf": frames}}

with boxes (ef - sf, 4) of x, y, width, height, often in uint8, frames sf to ef - 1 counted from 0, and class
names only as the videos' folders. Splits are UCF101's lists, testlist01.txt and trainlist01.txt, which are
read from beside the pickle, or from a folder splitfiles or ucfTrainTestlist there.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from evaluators.files import Invalid, Problems, invalid

FOLDERS = (".", "splitfiles", "ucfTrainTestlist")
SIZE = (240, 320)
"""Height and width of all videos of UCF101."""


def is_corrected(content: object) -> bool:
    """Whether a pickle's content is of this form."""
    first = next(iter(content.values()), None) if isinstance(content, Mapping) else None
    return isinstance(first, Mapping) and "annotations" in first


def to_act(path: Path, content: Mapping[Any, Any]) -> dict[str, Any]:
    """Bring corrected annotations into ACT's schema, tubes as float64.

    Raises Invalid saying what is missing or wrong, and where.
    """
    wrong = Problems()
    names: dict[int, str] = {}
    tubes: dict[str, dict[int, list[Any]]] = {}
    nframes = {}
    for video, entry in content.items():
        tubes[video] = {}
        with wrong.noting():
            nframes[video] = _field(str(video), entry, "numf")
        with wrong.noting():
            annotations = _field(str(video), entry, "annotations")
            if not isinstance(annotations, (list, tuple)):
                invalid(f"{video!r}, annotations", f"a {type(annotations).__name__}", "a list is needed")
            for number, one in enumerate(annotations):
                with wrong.noting():
                    label, tube = _tube(f"{video!r}, annotation {number}", one)
                    folder = str(video).partition("/")[0]
                    if names.setdefault(label, folder) != folder:
                        raise Invalid(f"label {label} is {names[label]!r} and {folder!r} (in {video!r})")
                    tubes[video].setdefault(label, []).append(tube)
    wrong.refuse()
    missing = next((label for label in range(len(names)) if label not in names), None)
    if missing is not None:
        raise Invalid(f"no video has label {missing}, so that its name is unknown")
    return {
        "labels": [names[label] for label in sorted(names)],
        "gttubes": tubes,
        "nframes": nframes,
        "resolution": dict.fromkeys(content, SIZE),
        "train_videos": [_listed(path, "trainlist01.txt", content, least=0)],
        "test_videos": [_listed(path, "testlist01.txt", content, least=1)],
    }


def _tube(where: str, one: object) -> tuple[int, Any]:
    """The label of an annotation, and its rows of frame, x1, y1, x2, y2."""
    try:
        label, first, end = (int(_field(where, one, name)) for name in ("label", "sf", "ef"))
        boxes = np.asarray(_field(where, one, "boxes"), np.float64)  # x + width overflows in uint8
    except (ValueError, TypeError, OverflowError) as error:
        raise Invalid(f"{where}: {error}") from None
    if boxes.shape != (end - first, 4):
        invalid(where, f"boxes of shape {boxes.shape} for frames {first} to {end}", "(frames, 4) are needed")
    frames = np.arange(first, end)[:, None] + 1
    return label, np.hstack([frames, boxes[:, :2], boxes[:, :2] + boxes[:, 2:]])


def _field(where: str, value: Any, name: str) -> Any:
    if not isinstance(value, Mapping) or name not in value:
        raise Invalid(f"{where}: it has no {name!r}")
    return value[name]


def _listed(path: Path, name: str, content: Mapping[Any, Any], *, least: int) -> list[str]:
    """The videos of a list, without suffix and class number, that are annotated."""
    files = [path.parent / folder / name for folder in FOLDERS]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        if least == 0:
            return []
        raise Invalid(
            f"these are the corrected annotations (sf, ef, boxes), which have no splits: put UCF101's {name} "
            f"beside the file"
        )
    lines = [line.split()[0] for line in file.read_text().splitlines() if line.strip()]
    videos = [line.removesuffix(".avi") for line in lines]
    chosen = [video for video in videos if video in content]
    if len(chosen) < least:
        raise Invalid(f"{file} lists none of its videos; the first listed is {(videos or ['none'])[0]!r}")
    return chosen
