"""Remote storage at a URI: here another folder of this machine."""

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


def test_files_sent_by_one_machine_are_fetched_by_another(out, uri, tmp_path):
    send(uri, out, "runs/a")
    assert names(tmp_path / "mirror") == ["detections.csv", "result.json"]
    other = tmp_path / "other"
    fetch(uri, other, "runs/a")
    assert names(other) == ["detections.csv", "result.json"]
    assert (other / "runs/a/detections.csv").read_text() == "1,2"


def test_only_files_that_differ_are_sent_again(out, uri, tmp_path):
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


def test_files_removed_here_are_removed_in_the_mirror(out, uri, tmp_path):
    send(uri, out, "runs/a")
    (out / "runs/a/detections.csv").unlink()
    send(uri, out, "runs/a")
    assert names(tmp_path / "mirror") == ["result.json"]


def test_fetching_overwrites_older_files_only(out, uri):
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


def test_a_folder_missing_in_the_mirror_fetches_nothing(uri, tmp_path):
    fetch(uri, tmp_path / "out", "runs/none")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("bad", ["nosuch://bucket/x", "not a uri"])
def test_an_unknown_uri_is_refused_with_the_option_to_change(out, bad):
    with pytest.raises(ValueError, match=r"cannot be written .* give a --mirror you may write to"):
        send(bad, out, "runs/a")
    with pytest.raises(ValueError, match=r"cannot be read .* check --mirror"):
        fetch(bad, out, "runs/a")


def test_a_mirror_that_cannot_be_written_is_refused(out, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ValueError, match="cannot be written"):
        send((tmp_path / "file").as_uri(), out, "runs/a")
