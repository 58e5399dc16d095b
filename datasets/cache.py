"""Decoded small clips, kept in memory: a small row would decode for a fifth of its time.

Only clips of a few frames at a low resolution are kept, such as those of the synthetic data: a clip of AVA
at 256 has 4 MB. A process that trains several rows on the same data decodes it once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Clip = NDArray[np.uint8]

LARGEST = 256 * 2**10
"""Bytes of a clip that is kept."""
LIMIT = 600 * 2**20
"""Bytes that a process keeps."""

_clips: OrderedDict[tuple[object, ...], Clip] = OrderedDict()
_bytes = 0


def read_once(file: Path, frames: NDArray[np.generic], read: Callable[[], Clip]) -> Clip:
    """What `read` returns, (T, H, W, 3) uint8, from memory where it was read before.

    frames: numbers or times that say which of the file's frames are read. A file that has changed is read
    again. The clips used longest ago are forgotten first. Raises what `read` raises.
    """
    global _bytes
    try:
        stat = file.stat()
    except OSError:
        return read()  # which says what is wrong with it
    key = (file, stat.st_mtime_ns, stat.st_size, frames.dtype.str, frames.tobytes())
    if (kept := _clips.get(key)) is not None:
        _clips.move_to_end(key)
        return kept.copy()
    clip = read()
    if clip.nbytes <= LARGEST:
        _clips[key] = clip.copy()
        _bytes += clip.nbytes
        while _bytes > LIMIT:
            _bytes -= _clips.popitem(last=False)[1].nbytes
    return clip
