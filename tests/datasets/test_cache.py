"""Small clips are decoded once; large ones, and those of files that have changed, each time."""

import os

import numpy as np
import pytest

from datasets import cache
from datasets.cache import read_once


@pytest.fixture
def decoded(tmp_path, monkeypatch):
    """read(frames, size): a clip of this many bytes by way of the cache; the decoded ones in a list."""
    monkeypatch.setattr(cache, "_clips", type(cache._clips)())
    monkeypatch.setattr(cache, "_bytes", 0)
    file, times = tmp_path / "video.mp4", []
    file.write_bytes(b"video")

    def read(frames, size=12):
        def decode():
            times.append(frames)
            return np.full((1, 1, size // 3, 3), len(times), np.uint8)

        return read_once(file, np.array([frames]), decode)

    read.file, read.times = file, times
    return read


def test_a_clip_is_decoded_once_and_nobody_can_change_what_is_kept(decoded):
    first = decoded(1)
    first += 1
    again = decoded(1)
    assert (again == 1).all()
    again += 1
    assert (decoded(1) == 1).all()
    assert (decoded(2) == 2).all(), "other frames"
    assert decoded.times == [1, 2]


def test_a_changed_file_is_decoded_again(decoded):
    decoded(1)
    os.utime(decoded.file, ns=(1, 1))
    assert (decoded(1) == 2).all()
    decoded.file.unlink()
    assert (decoded(1) == 3).all(), "the reader says what is wrong with a missing file"


def test_large_clips_are_not_kept_and_the_oldest_are_forgotten_first(decoded, monkeypatch):
    monkeypatch.setattr(cache, "LARGEST", 30)
    monkeypatch.setattr(cache, "LIMIT", 30)
    decoded(1, size=33)
    decoded(1, size=33)
    assert decoded.times == [1, 1]
    for frames in (2, 3, 2, 4, 2, 3):  # two clips of 12 bytes fit; 3 was used longest ago when 4 comes
        decoded(frames)
    assert decoded.times == [1, 1, 2, 3, 4, 3]
    assert cache._bytes == 24
