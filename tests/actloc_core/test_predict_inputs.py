"""The command on several videos, streams, spans and damaged files, and where its results go."""

import csv
import functools
import http.server
import json
import os
import random
import threading
from contextlib import ExitStack

import av
import numpy as np
import pytest

from actloc_core.clip import iter_frames, open_video
from actloc_core.detector import ActionDetector, Actor
from actloc_core.keyframes import KeyframeDetections, Settings
from actloc_core.predict import main, parse_time
from actloc_core.results import Outputs, ResultWriter
from actloc_core.sources import NamedVideo
from evaluators.__main__ import main as evaluate
from tests.actloc_core.checkpoints_of import write_checkpoint
from tests.actloc_core.numbered import write_numbered


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A checkpoint of an untrained model, whose p(alpha) are all about one half."""
    return write_checkpoint(tmp_path_factory.mktemp("model") / "checkpoint.pt")


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """Ten seconds at 16 frames a second, with a sync frame each second."""
    path = tmp_path_factory.mktemp("video") / "ten seconds.mp4"
    options = {"muxer": {"movflags": "+faststart"}, "options": {"g": "16"}}
    return write_numbered(path, 160, size=(64, 48), **options)


def run(checkpoint, *arguments):
    return main(["--checkpoint", str(checkpoint), "--quiet", *map(str, arguments)])


def content(folder):
    return json.loads((folder / "detections.json").read_text())


def rows(folder, name="detections.csv"):
    return list(csv.reader((folder / name).read_text().splitlines()))


def spoil(path, target, packets):
    """Write the file with noise in place of these packets' content."""
    data, random_ = bytearray(path.read_bytes()), random.Random(0)
    with av.open(str(path)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    for position, size in (places[n] for n in packets):
        data[position + 4 : position + size] = random_.randbytes(size - 4)
    target.write_bytes(data)
    return target


def flag(path, target, packets):
    """Write the MPEG-TS file with its own mark of a damaged packet on every n-th packet of 188 bytes."""
    data = bytearray(path.read_bytes())
    for n in packets:
        assert data[188 * n] == 0x47
        data[188 * n + 1] |= 0x80
    target.write_bytes(data)
    return target


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_damaged_packets_are_skipped_and_counted(tmp_path, checkpoint, capsys, suffix):
    """Frames that nothing refers to, and the very last packet, which the decoder holds to the end."""
    whole = write_numbered(tmp_path / f"w.{suffix}", 280, bframes=0, options={"g": "1"})
    path = spoil(whole, tmp_path / f"bad.{suffix}", [33, 90, 279])
    frames = [round(frame.seconds * 16) for frame in iter_frames(path)]
    assert frames == [n for n in range(280) if n not in (33, 90, 279)]
    assert run(checkpoint, path, "--out", tmp_path / "out", "--no-video") == 0
    assert f"{path}: 3 damaged packets were skipped" in capsys.readouterr().err
    assert content(tmp_path / "out")["damaged"] == 3
    assert len(content(tmp_path / "out")["keyframes"]) == 18


def test_packets_that_mpeg_ts_marks_as_damaged_are_counted(tmp_path):
    whole = write_numbered(tmp_path / "w.ts", 60, size=(320, 240), bframes=0, options={"g": "1"})
    path = flag(whole, tmp_path / "bad.ts", [24, 66])
    with open_video(path) as opened:
        frames = len(list(opened.frames()))
    assert opened.damaged == 2
    assert 57 <= frames <= 60


def test_a_video_of_nothing_but_damage_is_an_error(tmp_path, checkpoint, capsys):
    whole = write_numbered(tmp_path / "w.mp4", 20, bframes=0)
    path = spoil(whole, tmp_path / "bad.mp4", range(20))
    assert run(checkpoint, path, "--out", tmp_path / "out") == 2
    assert "packets are damaged; get the video again" in capsys.readouterr().err


@pytest.mark.slow
def test_start_and_end_give_the_rows_of_the_whole_video(tmp_path, checkpoint, video):
    """Also in containers without random access. The annotated video begins at --start."""
    transport = write_numbered(tmp_path / "ten seconds.ts", 160, size=(64, 48), options={"g": "16"})
    for path, name in ((video, "mp4"), (transport, "ts")):
        options = ("--every", "0.5s", "--no-tracks", "--batch", 3)
        assert run(checkpoint, path, "--out", tmp_path / name, "--no-video", *options) == 0
        part = tmp_path / f"{name}-part"
        assert run(checkpoint, path, "--out", part, "--start", "0:03.3", "--end", "6", *options) == 0
        assert [keyframe["second"] for keyframe in content(part)["keyframes"]] == [3.5, 4, 4.5, 5, 5.5]
        assert rows(part) == [row for row in rows(tmp_path / name) if 3.3 <= float(row[1]) < 6]
        frames = list(iter_frames(part / "annotated.mp4"))
        assert len(frames) == 96 - 53, "frames 53 (3.3125 s) to 95"
        again = tmp_path / f"{name}-again"
        assert run(checkpoint, path, "--out", again, "--start", "3.3", "--duration", "2.7", *options) == 0
        assert rows(again) == rows(part)


def test_start_after_the_end_and_wrong_times_are_errors(tmp_path, checkpoint, video, capsys):
    assert run(checkpoint, video, "--out", tmp_path / "out", "--start", "11") == 2
    assert "ends before 11 s; give" in capsys.readouterr().err
    assert not list(tmp_path.glob("out/*"))
    for wrong in (("--start", "1h"), ("--start", "5", "--end", "5"), ("--end", "1", "--duration", "1")):
        with pytest.raises(SystemExit):
            run(checkpoint, video, *wrong)
    assert [parse_time(text) for text in ("83.5", "1:23.5", "0:01:23.5")] == [83.5] * 3


@pytest.mark.slow
def test_several_videos_have_a_folder_each_and_an_error_stops_no_other(tmp_path, checkpoint, capsys, video):
    folder = tmp_path / "films"
    (folder / "a").mkdir(parents=True)
    for name in ("one.mp4", "a/one.mp4"):
        (folder / name).write_bytes(video.read_bytes())
    (folder / "broken.mp4").write_text("no video")
    assert run(checkpoint, folder, "--out", tmp_path / "out", "--every", "2s") == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(f"error: {folder}/broken.mp4: not a readable video")
    assert len(printed.err.splitlines()) == 1
    assert sorted(os.listdir(tmp_path / "out")) == ["one", "one-2"]
    assert content(tmp_path / "out" / "one")["source"] == str(folder / "a" / "one.mp4")
    assert "x real time" in printed.out.splitlines()[0]
    assert "2 videos, 1 failed" in printed.out
    assert "time: decode " in printed.out


def test_results_of_another_video_or_checkpoint_are_not_replaced(tmp_path, checkpoint, video, capsys):
    out, options = tmp_path / "out", ("--every", "5s")
    other = write_numbered(tmp_path / "other.mp4", 20)
    assert run(checkpoint, video, "--out", out, *options) == 0
    assert run(checkpoint, video, "--out", out, *options, "--no-video", "--no-tracks") == 0
    assert sorted(os.listdir(out)) == ["detections.csv", "detections.json"], (
        "nothing of the run before is left"
    )
    second = write_checkpoint(tmp_path / "second.pt")
    for model, path in ((checkpoint, other), (second, video)):
        capsys.readouterr()
        assert run(model, path, "--out", out) == 2
        printed = capsys.readouterr().err
        assert f"{out}: has results of {video} by {checkpoint}; give another --out, or --overwrite" in printed
    assert content(out)["video"] == video.name
    assert run(checkpoint, other, "--out", out, "--overwrite", "--no-video") == 0
    assert content(out)["video"] == "other.mp4"
    (out / "detections.json").write_text("[]")
    assert run(checkpoint, other, "--out", out) == 2
    assert "detections.csv, detections.json, tracks.csv of unknown origin" in capsys.readouterr().err


def test_json_lines_on_standard_output_and_nothing_else(tmp_path, checkpoint, video, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(checkpoint, video, "--json", "-", "--every", "2s") == 0
    printed = capsys.readouterr()
    lines = [json.loads(line) for line in printed.out.splitlines()]
    assert [(line["video"], line["second"]) for line in lines] == [("ten seconds", 2 * n) for n in range(5)]
    assert "160 frames, 5 keyframes" in printed.err
    assert os.listdir(tmp_path) == [], "without --out nothing else is written"
    assert run(checkpoint, video, "--json", "all.jsonl", "--out", "out", "--every", "2s") == 0
    assert [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()] == lines
    assert content(tmp_path / "out")["keyframes"] == [
        {key: value for key, value in line.items() if key != "video"} for line in lines
    ]


def test_a_full_disk_is_one_line(tmp_path, checkpoint, video, capsys):
    assert run(checkpoint, video, "--json", "/dev/full") == 2
    line = "error: /dev/full: cannot be written (No space left on device); free space, or write elsewhere\n"
    assert capsys.readouterr().err == line


def test_a_closed_pipe_ends_the_command_without_a_word(tmp_path, checkpoint, video, capfd, monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    kept = os.dup(1)
    with open(writer, "w") as closed, monkeypatch.context() as patched:
        patched.setattr("sys.stdout", closed)
        try:
            assert run(checkpoint, video, "--json", "-") == 141
        finally:
            os.dup2(kept, 1)
            os.dup2(os.open(os.devnull, os.O_WRONLY), writer)
    assert capfd.readouterr().err == ""


def test_standard_input_from_a_pipe_and_from_a_file(tmp_path, checkpoint, video, capsys):
    reader, writer = os.pipe()
    feeding = threading.Thread(target=lambda: (os.write(writer, video.read_bytes()), os.close(writer)))
    kept = os.dup(0)
    try:
        os.dup2(reader, 0)
        feeding.start()
        assert run(checkpoint, "-", "--out", tmp_path / "pipe", "--no-video") == 0
        with open(video, "rb") as file:
            os.dup2(file.fileno(), 0)
            assert run(checkpoint, "-", "--out", tmp_path / "file", "--no-video") == 0
            assert run(checkpoint, "-", "--out", tmp_path / "file", "--no-video") == 2
    finally:
        os.dup2(kept, 0)
    feeding.join()
    assert "of standard input by" in capsys.readouterr().err, "it may be another video each time"
    assert rows(tmp_path / "pipe") == rows(tmp_path / "file")
    assert {row[0] for row in rows(tmp_path / "pipe")} == {"stdin"}


def test_a_video_is_read_over_http(tmp_path, checkpoint, video, capsys):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = functools.partial(Quiet, directory=str(video.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/ten%20seconds.mp4"
        assert run(checkpoint, address, "--out", tmp_path / "http", "--no-video") == 0
        missing = address.replace("ten", "no")
        assert run(checkpoint, missing, "--out", tmp_path / "none") == 2
        assert f"error: {missing}: no readable video" in capsys.readouterr().err
        server.shutdown()
    assert run(checkpoint, video, "--out", tmp_path / "file", "--no-video") == 0
    assert rows(tmp_path / "http") == rows(tmp_path / "file")


def test_dry_run_measures_and_writes_nothing(tmp_path, checkpoint, video, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(checkpoint, video, "--dry-run", "--every", "0.25s") == 0
    printed = capsys.readouterr().out
    assert "x real time on cpu, by 12 clips; 10 s take about" in printed
    assert os.listdir(tmp_path) == []


def test_tracks_are_the_same_in_csv_and_json(tmp_path, checkpoint, video):
    """The untrained model detects much the same boxes in all keyframes, so that tracks go on."""
    out, options = tmp_path / "out", ("--no-video", "--start-second", 10000)
    assert run(checkpoint, video, "--out", out, *options, "--every", "0.04s") == 2
    assert run(checkpoint, video, "--out", out, *options, "--every", "0.68s") == 0
    head, *tracks = rows(out, "tracks.csv")
    assert head[:3] == ["video", "second", "track"]
    actors = [(key["second"], actor) for key in content(out)["keyframes"] for actor in key["actors"]]
    assert [(float(row[1]), int(row[2])) for row in tracks] == [(s, actor["track"]) for s, actor in actors]
    assert [row[8] for row in tracks] == [next(iter(actor["actions"])) for _, actor in actors]
    assert {row[1] for row in tracks} >= {"10000", "10000.68", "10001.36"}, "decimals are kept"
    first, last = ({actor["track"] for s, actor in actors if s == second} for second in (10000, 10008.16))
    assert first
    assert first == last


def test_the_evaluator_reads_the_rows(tmp_path, checkpoint, video, capsys):
    assert run(checkpoint, video, "--out", tmp_path, "--no-video", "--start-second", 900) == 0
    labelmap, truth = tmp_path / "map.pbtxt", tmp_path / "gt.csv"
    labelmap.write_text("".join(f'item {{ name: "{n}" id: {n} }}\n' for n in (1, 7, 12)))
    truth.write_text("ten seconds,902,0.1,0.2,0.4,0.8,12,0\n")
    files = ("--groundtruth", truth, "--detections", tmp_path / "detections.csv", "--labelmap", labelmap)
    capsys.readouterr()
    assert evaluate(["ava", *map(str, files)]) == 0
    assert "frame-mAP" in capsys.readouterr().out


def test_boxes_of_a_track_move_between_keyframes(checkpoint, video):
    """A box at 0 and at 0.2 half a second later; then another actor, who is new."""
    left, right, far = (0.0, 0.2, 0.6, 0.8), (0.2, 0.2, 0.8, 0.8), (0.0, 0.0, 0.1, 0.1)
    with ExitStack() as files:
        detector = ActionDetector(checkpoint, device="cpu")
        writer = ResultWriter(files, detector, NamedVideo(video, "v"), Outputs(), Settings(0.5), fps=16)
        for second, box in ((0.0, left), (0.5, right), (1.0, far)):
            writer.add_detections(KeyframeDetections(second, [Actor(box, 0.9, {"stand": 0.1})]))
        seen = [writer._persons_at(second)[0] for second in (0.0, 0.125, 0.25, 0.375, 0.5)]
        writer.known.popleft()
        held = [writer._persons_at(second)[0] for second in (0.7, 0.8, 1.4)]
    np.testing.assert_allclose([person.box[0] for person in seen], [0, 0.05, 0.1, 0.15, 0.2])
    assert {person.title for person in seen} == {"#1 actor 0.90"}
    assert [person.box for person in held] == [right, far, far], "those of the nearest keyframe"
    assert [person.title for person in held] == ["#1 actor 0.90", "#2 actor 0.90", "#2 actor 0.90"]
    assert [person.colour for person in held] == [0, 1, 1]
