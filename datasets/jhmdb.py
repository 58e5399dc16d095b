"""JHMDB-21 as it lies on disk: 21 classes of trimmed videos, one person each, in three splits.

<root>/JHMDB-GT.pkl                                 annotations in ACT's schema
<root>/Frames/<class>/<video>/%05d.png              extracted frames, number 1 first; or else
<root>/videos/<class>/<video>.{avi,mp4,mkv,webm}    the videos
"""

from __future__ import annotations

from pathlib import Path

from datasets import tubes
from datasets.tubes import TubeSplit

FILE = "JHMDB-GT.pkl"
IMAGES = (("Frames", "%05d.png"),)
SPLITS = 3
"""A result is the mean over the three."""


def load(
    root: Path,
    split: str,
    *,
    frames: int,
    stride: int,
    crop: int,
    number: int = 1,
    every: int = 1,
    flipped: dict[str, str] | None = None,
) -> TubeSplit:
    """Read "train" or "test" of a split, 1 to 3, and look for each of its videos.

    Image n is annotation frame n. every, stride, flipped: `datasets.ucf24.load`'s.
    Raises FileNotFoundError or ValueError naming file and entry.
    """
    return tubes.load(
        root, FILE, split, number=number, images=IMAGES, frames=frames, stride=stride, crop=crop,
        every=every, flipped=flipped,
    )  # fmt: skip


def fingerprint(root: Path) -> str:
    """A hash of the annotation file, 16 hex digits; the frames' bytes are not read."""
    return tubes.fingerprint(root, FILE)
