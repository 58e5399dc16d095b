"""A mirror of OUT at a URI: here in another folder of this machine."""

import os

import pytest

from benchmarks.sweep.storage import fetch, send


@pytest.fixture
def out(tmp_path):
    folder = tmp_path / "out" / "runs" / "a"
    folder.mkdir(parents=True)
    for name, text in {"result.json": "{}", "detections.csv": "1,2", "trial.log": "here", "lock": ""}.items():
        (folder / name).write_text(text)
    (folder / ".half.part").write_text("not yet")
    return tmp_path / "out"


@pytest.fixture
def uri(tmp_path):
    return (tmp_path / "mirror").as_uri()


def names(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_what_one_machine_sends_another_fetches(out, uri, tmp_path):
    send(uri, out, "runs/a")
    assert names(tmp_path / "mirror") == ["detections.csv", "result.json"]
    there = tmp_path / "there"
    fetch(uri, there, "runs/a")
    assert names(there) == ["detections.csv", "result.json"]
    assert (there / "runs/a/detections.csv").read_text() == "1,2"


def test_only_what_is_another_goes_again(out, uri, tmp_path):
    send(uri, out, "runs/a")
    mirrored = tmp_path / "mirror/runs/a"
    mirrored.joinpath("result.json").chmod(0o400)
    before = {path.name: path.stat().st_ino for path in mirrored.iterdir()}
    (out / "runs/a/detections.csv").write_text("3,4")  # as many bytes
    send(uri, out, "runs/a")
    after = {path.name: path.stat().st_ino for path in mirrored.iterdir()}
    assert (mirrored / "detections.csv").read_text() == "3,4"
    assert after["result.json"] == before["result.json"]
    assert after["detections.csv"] != before["detections.csv"]


def test_what_is_gone_here_goes_there(out, uri, tmp_path):
    send(uri, out, "runs/a")
    (out / "runs/a/detections.csv").unlink()
    send(uri, out, "runs/a")
    assert names(tmp_path / "mirror") == ["result.json"]


def test_what_is_newer_here_is_not_overwritten_and_what_is_newer_there_is_fetched(out, uri):
    send(uri, out, "runs/a")
    result = out / "runs/a/result.json"
    sent = result.stat().st_mtime_ns
    result.write_text("[]")
    os.utime(result, ns=(sent + 10**9, sent + 10**9))
    fetch(uri, out, "runs/a")
    assert result.read_text() == "[]"
    os.utime(result, ns=(sent - 10**9, sent - 10**9))
    fetch(uri, out, "runs/a")
    assert result.read_text() == "{}"


def test_a_mirror_without_the_folder_gives_nothing(uri, tmp_path):
    fetch(uri, tmp_path / "out", "runs/none")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("bad", ["nosuch://bucket/x", "not a uri"])
def test_a_uri_nobody_knows_is_named(out, bad):
    with pytest.raises(ValueError, match=r"cannot be written .* give a --mirror you may write to"):
        send(bad, out, "runs/a")
    with pytest.raises(ValueError, match=r"cannot be read .* is the --mirror right"):
        fetch(bad, out, "runs/a")


def test_where_nobody_may_write_it_is_said(out, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ValueError, match="cannot be written"):
        send((tmp_path / "file").as_uri(), out, "runs/a")
