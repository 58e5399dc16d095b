"""The file of a result: whole or not at all, and read with its types checked."""

import json
from dataclasses import asdict

import pytest

from benchmarks.score.results import Result, read_result, save

RESULT = Result(
    experiment={"theta": 0.2},
    hash="abc",
    training="def",
    split="test",
    protocol="standard",
    mAP=0.25,
    accuracy=None,
    mAP_curve_theta=0.25,
    mAP_slowfast=None,
    mAP_untrained=0.0,
    mAP_random_classes=0.125,
    precision=None,
    recall=0.0,
    candidates_per_actor=1.25,
    p_actor=0.9,
    actor_ap_50=0.75,
    actor_ap_75=0.5,
    class_ap_true_boxes=None,
    mAP_without_duplicates=0.3,
    per_class={"walk": 0.5, "talk": None},
    clips=3,
    substituted=0,
    gflops=1.0,
    parameters=100,
    seconds_training=1.0,
    seconds=2.0,
    started="2024-01-01T00:00:00+00:00",
    origin={"data": "x", "weights": None},
    commit="123",
    device="CPU",
    versions={"torch": "2"},
)


def write(path, **changes):
    path.write_text(json.dumps(asdict(RESULT) | changes))
    return path


def test_a_result_is_read_back(tmp_path):
    assert read_result(write(tmp_path / "result.json")) == RESULT


@pytest.mark.parametrize(
    ("field", "value"),
    [("mAP", "0.25"), ("mAP", True), ("clips", 0.5), ("per_class", {"walk": "x"}), ("origin", [])],
)
def test_a_field_of_another_type_is_named(tmp_path, field, value):
    with pytest.raises(ValueError, match=rf"result\.json: not a result .*{field} is"):
        read_result(write(tmp_path / "result.json", **{field: value}))


def test_a_truncated_result_is_named_with_what_to_do(tmp_path):
    path = tmp_path / "result.json"
    path.write_text('{"mAP": 0.')
    with pytest.raises(ValueError, match=r"result\.json: not a result"):
        read_result(path)
    path.write_text(json.dumps({"mAP": 0.5}))
    with pytest.raises(ValueError, match="run again"):
        read_result(path)


def test_a_write_that_fails_leaves_the_old_file_and_no_temporary_one(tmp_path):
    path = tmp_path / "result.json"
    save(path, lambda part: part.write_text("old"))

    def fails(part):
        part.write_text("ha")
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        save(path, fails)
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]
    assert path.read_text() == "old"
