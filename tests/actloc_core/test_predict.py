"""One pass over a video: the frames of its clips, the files written, and unusual videos."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actloc_core import keyframes as one_pass
from actloc_core.clip import VideoError, clip_times, iter_frames, probe, read_header, read_times
from actloc_core.predict import KeyframeDetections, iter_detections, main, parse_interval
from tests.actloc_core.checkpoints_of import CLASSES, write_checkpoint
from tests.actloc_core.numbered import numbers, write_numbered

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A checkpoint of an untrained model, whose p(alpha) are all about one half."""
    return write_checkpoint(tmp_path_factory.mktemp("model") / "checkpoint.pt")


class Spy:
    """A detector that records its clips and detects no actors."""

    def __init__(self, frames, stride, fps, crop=(24, 32)):
        self.frames, self.stride, self.fps, self.crop = frames, stride, fps, crop
        self.clips, self.batches = [], []

    def size(self, height, width):
        return self.crop

    def batch(self, clips, *, theta):
        self.clips += clips
        self.batches.append(len(clips))
        return [[] for _ in clips]


def keyframe_seconds(spy, path, **options):
    events = iter_detections(spy, path, **options)
    return [event.second for event in events if isinstance(event, KeyframeDetections)]


@settings(max_examples=40, deadline=None)
@given(
    gaps=st.lists(st.integers(5, 180), min_size=1, max_size=40),
    frames=st.sampled_from([1, 4, 8]),
    stride=st.integers(1, 3),
    fps=st.sampled_from([8.0, 16.0, 29.97]),
    every=st.sampled_from([0.125, 0.3, 1.0]),
    batch=st.integers(1, 3),
)
def test_clips_equal_those_read_by_seeking_at_any_frame_rate(
    tmp_path_factory, gaps, frames, stride, fps, every, batch
):
    """A video with these milliseconds between its frames, against `read_times`, which seeks."""
    path = tmp_path_factory.mktemp("videos") / "v.mkv"
    times = np.concatenate([[0], np.cumsum(gaps)]).astype(int).tolist()
    write_numbered(path, len(times), times=times.__getitem__, size=(32, 24), bframes=0)
    spy = Spy(frames, stride, fps)
    keyframes = keyframe_seconds(spy, path, every=every, batch=batch)
    assert keyframes == [every * n for n in range(len(keyframes))]
    assert len(keyframes) == int(times[-1] / 1000 / every + 1e-9) + 1
    for second, clip in zip(keyframes, spy.clips, strict=True):
        wanted = clip_times(second, frames=frames, stride=stride, fps=fps)
        assert numbers(clip) == numbers(read_times(path, wanted, fps=fps, size=(24, 32)))
    assert set(spy.batches[:-1]) <= {batch}


def test_clip_times_around_the_first_frame():
    """T=8, stride 2 at 16 fps."""
    clip = clip_times(0.0, frames=8, stride=2, fps=16)
    assert clip.tolist() == [-0.5, -0.375, -0.25, -0.125, 0, 0.125, 0.25, 0.375]


def test_each_frame_is_decoded_once_and_resized_at_most_once(tmp_path, monkeypatch):
    path = write_numbered(tmp_path / "v.mp4", 200, size=(32, 24))
    counts = {"decoded": 0, "resized": 0}
    real_iter_frames, real_image = one_pass.iter_frames, one_pass.DecodedFrame.image

    def counted_iter_frames(video):
        for frame in real_iter_frames(video):
            counts["decoded"] += 1
            yield frame

    def counted_image(self, size=None):
        counts["resized"] += 1
        return real_image(self, size)

    monkeypatch.setattr(one_pass, "iter_frames", counted_iter_frames)
    monkeypatch.setattr(one_pass.DecodedFrame, "image", counted_image)
    spy = Spy(8, 2, 16)
    assert len(keyframe_seconds(spy, path, every=0.25)) == 50
    assert counts["decoded"] == 200
    assert counts["resized"] == 101, (
        "every second frame once, though four clips share it, and the repeated last one"
    )
    assert numbers(spy.clips[10]) == [32, 34, 36, 38, 40, 42, 44, 46]


def test_flush_computes_an_incomplete_batch(tmp_path):
    """Frames that wait for their keyframe's detections must not grow without limit."""
    path = write_numbered(tmp_path / "v.mp4", 64, size=(32, 24))
    spy = Spy(8, 2, 16)
    events = list(iter_detections(spy, path, every=0.5, batch=100, should_flush=lambda: True))
    assert spy.batches == [1] * 8
    first = next(i for i, event in enumerate(events) if isinstance(event, KeyframeDetections))
    assert first == 8, "the clip around 0 ends with frame 6 and is complete once frame 7 is decoded"


def run_on(path, checkpoint, out, *more):
    return main([str(path), "--checkpoint", str(checkpoint), "--out", str(out), *map(str, more)])


def detections(out):
    return json.loads((out / "detections.json").read_text())


def test_csv_json_and_video_agree(tmp_path, checkpoint, capsys):
    path = write_numbered(tmp_path / "two people.mp4", 40, size=(64, 48))
    assert run_on(path, checkpoint, tmp_path / "out", "--theta", 0.4, "--every", "0.5s", "--batch", 3) == 0
    out = tmp_path / "out"
    assert sorted(os.listdir(out)) == ["annotated.mp4", "detections.csv", "detections.json", "tracks.csv"]
    content = detections(out)
    assert content["video"] == "two people.mp4"
    assert (content["every"], content["theta"], content["stopped"]) == (0.5, 0.4, None)
    assert content["seconds"] == pytest.approx(39 / 16, abs=1e-3)
    assert [keyframe["second"] for keyframe in content["keyframes"]] == [0, 0.5, 1, 1.5, 2]
    rows = list(csv.reader((out / "detections.csv").read_text().splitlines()))
    expected = [
        ["two people", f"{keyframe['second']:g}", *(f"{x:.4f}" for x in actor["box"]),
         str({name: number for number, name in CLASSES.items()}[name]), f"{score:.6f}"]
        for keyframe in content["keyframes"]
        for actor in keyframe["actors"]
        for name, score in actor["actions"].items()
    ]  # fmt: skip
    assert len(rows) > 20
    assert rows == expected
    for actor in content["keyframes"][1]["actors"]:
        assert actor["p_actor"] > 0.4
        assert list(actor["actions"].values()) == sorted(actor["actions"].values(), reverse=True)
        assert set(actor["actions"]) == set(CLASSES.values())
    printed = capsys.readouterr().out
    assert "40 frames, 5 keyframes" in printed
    assert "x real time; peak memory" in printed

    with av.open(str(out / "annotated.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (stream.width, stream.height) == (640, 480), "small videos are enlarged to make labels legible"
        frames = list(container.decode(stream))
    assert [round(frame.time * 16) for frame in frames] == list(range(40))
    assert run_on(path, checkpoint, tmp_path / "again", "--theta", 0.4, "--every", "8 frames") == 0
    assert (tmp_path / "again" / "detections.csv").read_text() == (out / "detections.csv").read_text()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1.0),
        ("0.5 s", 0.5),
        ("250ms", 0.25),
        ("8", 0.5),
        ("8 frames", 0.5),
        ("1 frame", 1 / 16),
        ("2S", 2.0),
    ],
)
def test_interval_between_keyframes_is_parsed(text, seconds):
    assert parse_interval(text, 16.0) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "s", "-1s", "0", "0s", "1h", "nan", "1e3s", "0.01s", "half a frame", "1..2s"]
)
def test_invalid_interval_raises_value_error(text):
    with pytest.raises(ValueError, match="--every"):
        parse_interval(text, 16.0)


def sound(path):
    """Write a second of silence."""
    with av.open(str(path), "w") as container:
        audio = container.add_stream("mp3" if path.suffix == ".mp3" else "aac", rate=44100, layout="mono")
        for n in range(40):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1152), np.int16), format="s16p", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 44100, 1152 * n, Fraction(1, 44100)
            container.mux(audio.encode(frame))
        container.mux(audio.encode())
    return path


@pytest.mark.takes_long("eight videos from file to file")
def test_unusual_videos_are_predicted(tmp_path, checkpoint, capsys):
    def predicted(path, *more):
        capsys.readouterr()
        out = tmp_path / f"out-{path.name}"
        return run_on(path, checkpoint, out, *more), out, capsys.readouterr()

    # Portrait: the annotated video is upright.
    status, out, _ = predicted(write_numbered(tmp_path / "portrait.mp4", 20, size=(48, 96)))
    assert status == 0
    assert probe(out / "annotated.mp4").height == 640
    # A variable frame rate: frames keep their times.
    times = [0, 100, 130, 600, 640, 680, 1500, 1520]
    status, out, _ = predicted(
        write_numbered(tmp_path / "vfr.mkv", 8, times=times.__getitem__, size=(64, 48), bframes=0)
    )
    assert status == 0
    assert [round(1000 * frame.seconds) for frame in iter_frames(out / "annotated.mp4")] == times
    # Shorter than a clip, and a single frame.
    for length in (3, 1):
        status, out, _ = predicted(write_numbered(tmp_path / f"short{length}.mp4", length, size=(64, 48)))
        assert status == 0
        assert [keyframe["second"] for keyframe in detections(out)["keyframes"]] == [0]
        assert len(list(iter_frames(out / "annotated.mp4"))) == length
    # No actors: no rows, the complete video, valid files.
    status, out, printed = predicted(
        write_numbered(tmp_path / "empty.mp4", 20, size=(64, 48)), "--theta", 0.99
    )
    assert status == 0
    assert " 0 actors" in printed.out
    assert (out / "detections.csv").read_text() == ""
    assert [keyframe["actors"] for keyframe in detections(out)["keyframes"]] == [[], []]
    # A wrong extension, an odd size, other codecs and containers.
    odd = write_numbered(tmp_path / "odd.avi", 20, codec="mpeg4", size=(61, 47), bframes=0)
    assert predicted(odd)[0] == 0
    plain = write_numbered(tmp_path / "plain.mp4", 20, size=(64, 48))
    renamed = tmp_path / "renamed.jpg"
    renamed.write_bytes(plain.read_bytes())
    assert predicted(renamed)[0] == 0
    assert (tmp_path / "out-renamed.jpg" / "detections.csv").read_text().replace("renamed", "plain") == (
        predicted(plain)[1] / "detections.csv"
    ).read_text()


def test_truncated_video_is_predicted_up_to_its_end(tmp_path, checkpoint, capsys):
    whole = write_numbered(tmp_path / "whole.mkv", 160, size=(64, 48), options={"g": "8"})
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    assert run_on(cut, checkpoint, tmp_path / "out") == 3
    printed = capsys.readouterr()
    assert "warning:" in printed.err
    assert "predicted up to" in printed.err
    content = detections(tmp_path / "out")
    assert content["stopped"] is not None
    assert 2 < content["seconds"] < 8
    assert len(content["keyframes"]) == int(content["seconds"]) + 1
    frames = len(list(iter_frames(tmp_path / "out" / "annotated.mp4")))
    assert f"{frames} frames" in printed.out
    # Garbage in the middle: damaged frames are skipped or end the prediction, and nothing crashes.
    data = bytearray(whole.read_bytes())
    data[len(data) // 3 : len(data) // 2] = bytes(len(data) // 2 - len(data) // 3)
    damaged = tmp_path / "damaged.mkv"
    damaged.write_bytes(data)
    assert run_on(damaged, checkpoint, tmp_path / "out2") in (0, 3)
    assert detections(tmp_path / "out2")["keyframes"]


def test_video_whose_size_changes_keeps_its_first_size(tmp_path):
    """Two streams end to end: 64x48, then 96x32. The annotated video and the clips keep the first size."""
    parts = [
        write_numbered(tmp_path / f"{width}.h264", 20, size=(width, height), form="h264", bframes=0)
        for width, height in ((64, 48), (96, 32))
    ]
    path = tmp_path / "both.h264"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    keeping = write_checkpoint(tmp_path / "c.pt", short_sides=(30, 40), crop=64)
    assert {frame.size for frame in iter_frames(path)} == {(48, 64), (32, 96)}
    assert run_on(path, keeping, tmp_path / "out", "--theta", 0.0, "--every", "0.25s") == 0
    assert {frame.size for frame in iter_frames(tmp_path / "out" / "annotated.mp4")} == {(480, 640)}


def test_error_says_what_a_file_without_video_is(tmp_path, checkpoint, capsys):
    garbage = tmp_path / "garbage.mp4"
    garbage.write_bytes(os.urandom(5000))
    text = tmp_path / "notes.txt"
    text.write_text("no video\n" * 200)
    empty = tmp_path / "empty.mp4"
    empty.touch()
    for path, reason in (
        (tmp_path / "absent.mp4", "no such video file"),
        (garbage, "not a readable video"),
        (empty, "not a readable video"),
        (text, "text, not a video|not a readable video"),
        (sound(tmp_path / "sound.m4a"), "no video stream"),
        (sound(tmp_path / "sound.mp3"), "no video stream"),
    ):
        out = tmp_path / "nothing"
        assert run_on(path, checkpoint, out) == 2, path
        printed = capsys.readouterr().err
        assert printed.startswith(f"error: {path}: "), printed
        assert len(printed.splitlines()) == 1
        with pytest.raises(VideoError, match=reason):
            read_header(path)
        assert not out.exists() or not os.listdir(out)


def test_wrong_options_and_unwritable_folders_are_errors(tmp_path, checkpoint, capsys):
    path = write_numbered(tmp_path / "v.mp4", 10, size=(64, 48))
    for more in (("--theta", "2"), ("--batch", "0")):
        with pytest.raises(SystemExit):
            run_on(path, checkpoint, tmp_path / "out", *more)
    assert run_on(path, checkpoint, tmp_path / "out", "--every", "often") == 2
    assert run_on(path, checkpoint, tmp_path / "out", "--device", "cuda:99") == 2
    assert "no device 'cuda:99' here" in capsys.readouterr().err
    blocking = tmp_path / "file"
    blocking.touch()
    assert run_on(path, checkpoint, blocking / "out") == 2
    assert "error: " in capsys.readouterr().err
    assert not (tmp_path / "out").exists() or not os.listdir(tmp_path / "out")


def test_half_precision_gives_nearly_the_same_scores(tmp_path, checkpoint):
    path = write_numbered(tmp_path / "v.mp4", 20, size=(64, 48))
    for name, more in (("whole", ()), ("half", ("--half",))):
        assert run_on(path, checkpoint, tmp_path / name, "--theta", 0.0, *more) == 0
    whole, half = (detections(tmp_path / name)["keyframes"] for name in ("whole", "half"))
    assert whole != half, "half precision is used"
    for one, other in zip(whole, half, strict=True):
        p = [sorted(actor["p_actor"] for actor in keyframe["actors"]) for keyframe in (one, other)]
        assert len(p[0]) == 32
        np.testing.assert_allclose(*p, atol=0.02)


@pytest.mark.slow
def test_ctrl_c_keeps_the_results_so_far(tmp_path, checkpoint):
    path = write_numbered(tmp_path / "long.mp4", 1500, size=(320, 240))
    out = tmp_path / "out"
    running = subprocess.Popen(
        [sys.executable, "-m", "actloc_core.predict", path, "--checkpoint", checkpoint, "--out", out],
        cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    while not any(part.stat().st_size > 500 for part in out.glob(".detections.csv.*")):
        assert running.poll() is None, running.communicate()
        time.sleep(0.01)
    running.send_signal(signal.SIGINT)
    stdout, stderr = running.communicate(timeout=300)
    assert running.returncode == 130, stderr
    assert "interrupted; predicted up to" in stderr
    names = ["annotated.mp4", "detections.csv", "detections.json", "tracks.csv"]
    assert sorted(os.listdir(tmp_path / "out")) == names
    content = detections(tmp_path / "out")
    assert content["stopped"] == "interrupted"
    assert 0 < content["seconds"] < 93
    assert "Traceback" not in stderr + stdout


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length_of_the_video(tmp_path, checkpoint):
    """Peak memory of the process, by its own output, for a video five times as long."""
    peaks = []
    for length in (100, 500):
        path = write_numbered(tmp_path / f"{length}.mp4", length, size=(640, 480))
        done = subprocess.run(
            [sys.executable, "-m", "actloc_core.predict", path, "--checkpoint", checkpoint,
             "--out", tmp_path / str(length)],
            cwd=CHECKOUT, capture_output=True, text=True, check=True,
        )  # fmt: skip
        peaks.append(int(re.search(r"peak memory ([\d,]+) MiB", done.stdout)[1].replace(",", "")))
    assert peaks[1] < 1.1 * peaks[0], peaks


def test_seconds_count_from_where_the_annotations_count(tmp_path, checkpoint):
    """AVA's files begin with second 900; five digits and fractions are kept."""
    path = write_numbered(tmp_path / "movie.mp4", 24, size=(64, 48))
    out = tmp_path / "out"
    options = ("--theta", 0.2, "--every", "0.5s", "--start-second", 12900)
    assert run_on(path, checkpoint, out, *options) == 0
    assert [keyframe["second"] for keyframe in detections(out)["keyframes"]] == [12900, 12900.5, 12901]
    assert detections(out)["start_second"] == 12900
    seconds = {row[1] for row in csv.reader((out / "detections.csv").read_text().splitlines())}
    assert seconds == {"12900", "12900.5", "12901"}
    with pytest.raises(SystemExit) as ended:
        run_on(path, checkpoint, out, "--start-second", -1)
    assert ended.value.code == 2
