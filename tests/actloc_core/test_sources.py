"""What the command line's arguments name."""

import os
from pathlib import Path

import pytest

from actloc_core.clip import VideoError
from actloc_core.sources import NamedVideo, find_videos, is_one_video


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_a_folder_is_its_videos_sorted_and_without_results(tmp_path):
    touch(
        tmp_path / "b.MP4", tmp_path / "a" / "c.mkv", tmp_path / "notes.txt", tmp_path / ".hidden" / "d.mp4",
        tmp_path / "out" / "annotated.mp4", tmp_path / "out" / "detections.json",
    )  # fmt: skip
    videos = find_videos([str(tmp_path)])
    assert [video.source for video in videos] == [tmp_path / "a" / "c.mkv", tmp_path / "b.MP4"]
    assert not is_one_video([str(tmp_path)], videos[:1])
    (tmp_path / "none").mkdir()
    with pytest.raises(VideoError, match="no videos in this folder"):
        find_videos([str(tmp_path / "none")])


def test_patterns_names_and_repeats(tmp_path, monkeypatch):
    touch(tmp_path / "x" / "clip.mp4", tmp_path / "y" / "clip.mp4", tmp_path / "y" / "odd[1].dat")
    monkeypatch.chdir(tmp_path)
    videos = find_videos(["*/clip.mp4", "x/clip.mp4", "y/odd[1].dat", "**/*.dat"])
    assert [(str(video), video.name) for video in videos] == [
        ("x/clip.mp4", "clip"), ("y/clip.mp4", "clip-2"), ("y/odd[1].dat", "odd[1]"),
    ]  # fmt: skip
    with pytest.raises(VideoError, match=r"\*\.avi: no file matches"):
        find_videos(["*.avi"])
    assert find_videos(["absent.mp4"]) == [NamedVideo(Path("absent.mp4"), "absent")]


def test_addresses_cameras_and_pipes(tmp_path):
    addresses = ["rtsp://10.0.0.7:554/", "http://host/films/my%20film.mp4?key=1"]
    assert [video.name for video in find_videos(addresses)] == ["10.0.0.7", "my film"]
    os.mkfifo(tmp_path / "pipe.ts")
    [video] = find_videos([str(tmp_path / "pipe.ts")])
    assert (video.source, video.name) == (str(tmp_path / "pipe.ts"), "pipe")
    assert not video.is_file
    assert is_one_video([str(tmp_path / "pipe.ts")], [video])
