"""UCF101-24 as it lies on disk: 24 classes of untrimmed sports videos, labelled frame by frame.

<root>/UCF101v2-GT.pkl                              annotations in ACT's schema (corrected boxes)
<root>/rgb-images/<Class>/<video>/%05d.jpg          extracted frames, number 1 first; or else
<root>/videos/<Class>/<video>.{avi,mp4,mkv,webm}    the videos
"""

from __future__ import annotations

from pathlib import Path

from datasets import tubes
from datasets.tubes import TubeSplit

FILE = "UCF101v2-GT.pkl"
IMAGES = (("rgb-images", "%05d.jpg"),)
SPLITS = 1
"""The first split is the one that is reported."""


def load(
    root: Path,
    split: str,
    *,
    frames: int,
    stride: int,
    crop: int,
    every: int = 1,
    flipped: dict[str, str] | None = None,
) -> TubeSplit:
    """Read "train" or "test" of split 1 and look for each of its videos.

    every: training items are every `every`-th annotated frame of a video; neighbours are near-copies.
        Evaluation always takes every frame of every test video, annotated or not.
    stride: in frames of the video (25 or 29.97 a second). flipped: names a mirror image exchanges.
    Raises FileNotFoundError or ValueError naming file and entry.
    """
    return tubes.load(
        root, FILE, split, number=1, images=IMAGES, frames=frames, stride=stride, crop=crop,
        every=every, flipped=flipped,
    )  # fmt: skip


def fingerprint(root: Path) -> str:
    """A hash of the annotation file, 16 hex digits; the frames' bytes are not read."""
    return tubes.fingerprint(root, FILE)
