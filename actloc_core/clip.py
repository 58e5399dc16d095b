"""From a video file to the T frames around a keyframe, the keyframe at clip index T // 2."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import decord
import numpy as np


class VideoError(ValueError):
    """A video that cannot give its frames. The message names the file and what to do."""


@dataclass(frozen=True)
class VideoInfo:
    """What a file says of itself."""

    frames: int
    fps: float

    @property
    def seconds(self) -> float:
        return self.frames / self.fps


def clip_indices(keyframe: int, length: int, *, frames: int, stride: int) -> np.ndarray:
    """Frame numbers c - T/2 s, .., c, .., c + (T/2 - 1) s of a clip around keyframe c, (T,) int64.

    Numbers before the first or after the last frame repeat that frame; the clip is never shifted,
    for that would move the keyframe away from the middle.
    """
    if not 0 <= keyframe < length:
        raise IndexError(f"keyframe {keyframe} is not in a video of {length} frames")
    offsets = (np.arange(frames) - frames // 2) * stride
    return np.clip(keyframe + offsets, 0, length - 1)


def probe(path: Path) -> VideoInfo:
    """Number of frames and average frame rate. Raises VideoError where there are none."""
    reader = _open(path)
    return VideoInfo(len(reader), float(reader.get_avg_fps()))


def read_frames(path: Path, indices: np.ndarray) -> np.ndarray:
    """Frames by number, (len(indices), H, W, 3) uint8 RGB.

    The reader is opened here and dropped at the end: decord's neither survives a fork nor may be
    shared by threads, and grows while it is kept.
    """
    reader = _open(path)
    wanted = np.asarray(indices)
    if wanted.min() < 0 or wanted.max() >= len(reader):
        raise VideoError(f"{path}: frame {wanted.max()} asked of a video of {len(reader)} frames")
    try:
        if reader.get_frame_timestamp([0]).min() < 0:
            # Containers with B-frames and no presentation times (AVI): random access gives wrong
            # frames without a word, decoding from the start gives the right ones.
            return reader.get_batch(range(int(wanted.max()) + 1)).asnumpy()[wanted]
        return reader.get_batch(wanted).asnumpy()
    except (RuntimeError, decord.DECORDError) as error:
        raise VideoError(f"{path}: frames {wanted.min()}..{wanted.max()} cannot be decoded") from error


def _open(path: Path) -> decord.VideoReader:
    if not path.is_file():
        raise VideoError(f"{path}: no such video file")
    try:
        reader = decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=1)
    except (RuntimeError, decord.DECORDError) as error:
        raise VideoError(f"{path}: not a readable video; decode it once with ffmpeg to see why") from error
    if len(reader) == 0:
        raise VideoError(f"{path}: the video has no frames; download or cut it again")
    return reader
