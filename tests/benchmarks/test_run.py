"""One training and the rows scored with it, from the data to the files of a result."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from actloc_core.checkpoints import CheckpointError
from actloc_core.detector import ActionDetector
from benchmarks.experiments import TRAINING
from benchmarks.run import TooManyError, _refuse_too_many, run
from benchmarks.score.detections import SplitDetections, expand_rows
from benchmarks.score.evaluate import frame_ap
from benchmarks.score.predict import predict
from benchmarks.score.results import Result, read_result
from benchmarks.train.data import load_data
from benchmarks.train.models import build_model, weights_hash
from datasets import ava, synthetic
from evaluators.ava_csv import read_detections, read_persons
from evaluators.frame_map import Detections, EvalRules, frame_mAP
from evaluators.precision_recall import actor_precision_recall
from tests.benchmarks.shared import TINY, Recorder, context_of

EXP = replace(TINY, epochs=0.2)
STRICT = replace(EXP, theta=0.5, nms_iou=0.5)


def run_at(root, out, *experiments, callbacks=(), **options):
    return run(experiments, {experiments[0].dataset: root}, context_of(out, **options), callbacks)


@pytest.fixture(scope="module")
def finished(small_benchmark, tmp_path_factory):
    """A result, the folder of its run, and the recorded events. The row STRICT was run with it."""
    recorder, out = Recorder(), tmp_path_factory.mktemp("out")
    result, _ = run_at(small_benchmark, out, EXP, STRICT, callbacks=[recorder])
    return result, out / "runs" / EXP.hash, recorder


@pytest.fixture(scope="module")
def training(finished):
    """The folder of its training."""
    return finished[1].parents[1] / "trainings" / EXP.training_hash


def test_a_run_writes_its_files_and_a_result_that_reads_back(finished, training, small_benchmark):
    result, folder, recorder = finished
    excluded = load_data(EXP, {EXP.dataset: small_benchmark}).report.excluded
    assert {p.name for p in folder.iterdir()} == {
        "result.json", "analysis.json", "detections.csv", "persons.csv",
    }  # fmt: skip
    assert {p.name for p in training.iterdir()} == {"checkpoint.pt", "best.pt", "log.csv", "lock"}
    assert set(result.origin) == {"data", "weights", "code", "scoring"}
    assert read_result(folder / "result.json") == result
    assert result.hash == EXP.hash
    assert (result.split, result.protocol, result.clips) == ("test", "standard", 120 - len(excluded))
    last = recorder.steps[-1]
    assert last.step == last.steps
    assert last.mAP is not None
    lines = (training / "log.csv").read_text().splitlines()
    assert lines[0] == "step,lr,loss,l1,giou,actor,action,val_mAP"
    assert len(lines) == 1 + last.steps


def test_too_many_detections_are_refused_with_the_theta_that_would_do(finished, small_benchmark, monkeypatch):
    """A model that keeps every candidate at theta .02; its row of theta .9999 is scored all the same."""
    out = finished[1].parents[1]
    monkeypatch.setattr("benchmarks.run.MAX_ROWS", 1000)
    before = (finished[1] / "result.json").read_bytes()
    with pytest.raises(TooManyError, match=r"at theta 0.02 the model keeps [\d,]+ candidates") as refused:
        run_at(small_benchmark, out, EXP)
    enough = float(re.search(r"set theta to (\S+) or more", str(refused.value))[1])
    assert 0.02 < enough < 1
    [result] = run_at(small_benchmark, out, replace(EXP, theta=enough))
    persons = read_persons(out / "runs" / result.hash / "persons.csv")
    assert 0 < len(persons.video) <= 100, "ten actions each"
    assert (finished[1] / "result.json").read_bytes() == before
    strictest = replace(EXP, theta=0.9999)
    with pytest.raises(TooManyError):
        run_at(small_benchmark, out, EXP, strictest)
    scored = read_result(out / "runs" / strictest.hash / "result.json")
    assert scored.training == EXP.training_hash, "one row's theta is not another's"


def test_no_theta_is_named_where_none_below_one_would_do(monkeypatch):
    monkeypatch.setattr("benchmarks.run.MAX_ROWS", 100)
    zeros = np.zeros(200, np.int64)
    persons = Detections(("a",), zeros, zeros, np.zeros((200, 4)), zeros, np.full(200, 0.99999))
    detections = SplitDetections(persons, np.array([1]), np.zeros((200, 1)))
    with pytest.raises(TooManyError, match=r"train longer \(the training"):
        _refuse_too_many(detections, EXP, 100)
    persons = replace(persons, score=np.linspace(0.001, 0.2, 200))
    with pytest.raises(TooManyError, match=r"set theta to 0\.1 or more"):
        _refuse_too_many(replace(detections, persons=persons), EXP, 100)


def test_the_numbers_can_be_computed_again_from_the_files(finished, small_benchmark):
    result, folder, _ = finished
    test = ava.load(small_benchmark, "test", frames=4, stride=4, crop=32, fps=synthetic.FPS)
    detections = read_detections(folder / "detections.csv")
    rules = EvalRules(excluded=test.excluded)
    again = frame_mAP(test.ground_truth, detections, test.evaluated, rules=rules)
    assert again.mAP == pytest.approx(result.mAP, abs=1e-9)
    persons = read_persons(folder / "persons.csv")
    actors = actor_precision_recall(test.ground_truth, persons, test.evaluated, rules=rules)
    assert actors.recall == pytest.approx(result.recall)


def test_the_mAP_by_slowfast_is_of_the_candidates_in_the_models_order(finished, small_benchmark):
    """That protocol matches in the order of rows, which in the file is that of scores."""
    result, folder, _ = finished
    test = ava.load(small_benchmark, "test", frames=4, stride=4, crop=32, fps=synthetic.FPS)
    rules = EvalRules("slowfast", excluded=test.excluded)
    model = ActionDetector(folder, device="cpu").model
    detections = expand_rows(predict(model, test, EXP, context_of()))
    again = frame_mAP(test.ground_truth, detections, test.evaluated, rules=rules)
    assert again.mAP == pytest.approx(result.mAP_slowfast, abs=1e-9)
    assert abs(again.mAP - result.mAP) > 1e-6, "a model that has learned little has scores out of order"
    from_file = read_detections(folder / "detections.csv")
    sorted_by_score = frame_mAP(test.ground_truth, from_file, test.evaluated, rules=rules)
    assert sorted_by_score.mAP == pytest.approx(result.mAP, abs=1e-9)


def test_rows_of_one_training_share_a_prediction(finished, small_benchmark, monkeypatch):
    """And have the detections that they would have alone; only another NMS needs another pass."""
    result, folder, _ = finished
    out, passes = folder.parents[1], []
    rows = [replace(EXP, theta=0.01), replace(EXP, theta=0.3, score="action"), replace(EXP, nms_iou=0.5)]

    def counted(model, split, exp, *args):
        passes.append(exp)
        return predict(model, split, exp, *args)

    monkeypatch.setattr("benchmarks.run.predict", counted)
    recorder = Recorder()
    results = run_at(small_benchmark, out, *rows, callbacks=[recorder])
    assert [exp.theta for exp in passes] == [0.01, 0.02]
    assert recorder.batches == 2 * -(-result.clips // EXP.batch) + len(rows), "a sign of life after each row"
    model = ActionDetector(folder, device="cpu").model
    split = load_data(EXP, {EXP.dataset: small_benchmark}).report
    for row, one in zip(rows, results, strict=True):
        assert one.hash == row.hash
        alone = predict(model, split, row, context_of())
        persons = read_persons(out / "runs" / one.hash / "persons.csv")
        assert np.array_equal(np.sort(persons.score), np.sort(alone.persons.score))
        # To a float32's last digit: torch's sigmoid of a number depends on its place among the others.
        again = frame_ap(split, alone, "standard")
        assert one.mAP == pytest.approx(again.mAP, abs=1e-6)


def test_the_checkpoint_rebuilds_the_model_with_weights_only(training):
    checkpoint = torch.load(training / "checkpoint.pt", weights_only=True)
    assert checkpoint["experiment"]["selection"] == "two_c_t"
    assert list(checkpoint["classes"].values())[:2] == ["up", "down"]
    build_model(EXP, 10).load_state_dict(checkpoint["model"])


def test_rows_that_differ_in_inference_only_fields_share_a_training(finished, training, small_benchmark):
    """A higher theta: fewer persons of the same model. Run again later, nothing is trained."""
    result, folder, _ = finished
    out = folder.parents[1]
    strict = read_result(out / "runs" / STRICT.hash / "result.json")
    assert strict.training == result.training == EXP.training_hash
    assert strict.seconds_training == result.seconds_training
    assert [p.name for p in (out / "trainings").iterdir()] == [EXP.training_hash]
    persons = (folder / "persons.csv").read_text().splitlines()
    stricter = (out / "runs" / STRICT.hash / "persons.csv").read_text().splitlines()
    assert set(stricter) < set(persons)
    before = (training / "checkpoint.pt").stat().st_mtime_ns
    action, recorder = replace(EXP, score="action"), Recorder()
    [later] = run_at(small_benchmark, out, action, callbacks=[recorder])
    assert recorder.steps == []
    assert recorder.batches > 0, "of the evaluation"
    assert (training / "checkpoint.pt").stat().st_mtime_ns == before
    assert later.mAP_untrained == result.mAP_untrained
    assert (out / "runs" / action.hash / "persons.csv").read_text().splitlines() == persons
    with pytest.raises(ValueError, match="only experiments that differ in inference-only fields share"):
        run_at(small_benchmark, out, EXP, replace(EXP, seed=1))


def test_a_row_is_initialised_from_the_backbone_of_another_training(finished, training, small_benchmark):
    out = finished[1].parents[1]
    later = replace(EXP, weights=TRAINING + EXP.training_hash, lr=0.0)
    [result] = run_at(small_benchmark, out, later)
    assert result.origin["weights"] == weights_hash(training / "checkpoint.pt")
    path = out / "trainings" / later.training_hash / "checkpoint.pt"
    after, before = (torch.load(p, weights_only=True)["model"] for p in (path, training / "checkpoint.pt"))
    assert all(torch.equal(after[name], before[name]) for name in before if name.startswith("backbone."))
    assert not torch.equal(after["proj.weight"], before["proj.weight"])


@pytest.mark.parametrize("boxes", ["detector", pytest.param("ground_truth", marks=pytest.mark.slow)])
def test_the_two_stage_baseline_trains_and_scores_with_the_same_code(boxes, small_benchmark, tmp_path):
    """Untrained, true boxes score about what random classes do. A detector misses some actors."""
    exp = replace(EXP, method="two_stage", boxes=boxes)
    [result] = run_at(small_benchmark, tmp_path, exp)
    assert result.mAP_untrained == pytest.approx(result.mAP_random_classes, abs=0.06)
    if boxes == "ground_truth":
        assert (result.precision, result.recall) == (1.0, 1.0)
    else:
        assert 0.6 < result.precision < 0.95
        assert 0.7 < result.recall < 0.97


def test_detr_trains_and_scores_with_the_same_code(small_benchmark, tmp_path):
    [result] = run_at(small_benchmark, tmp_path, replace(EXP, method="detr", queries=16))
    assert result.clips > 100


def test_missing_or_damaged_initialisation_weights_are_named(small_benchmark, tmp_path):
    exp, file = replace(EXP, weights="mvitv2_s_k400"), tmp_path / "k400.pyth"
    with pytest.raises(ValueError, match=r"--weights mvitv2_s_k400=FILE; it is MViTv2_S_16x4 of PySlowFast"):
        run_at(small_benchmark, tmp_path, exp)
    with pytest.raises(FileNotFoundError, match="no such file"):
        run_at(small_benchmark, tmp_path, exp, weights={"mvitv2_s_k400": file})
    file.write_bytes(b"<html>")
    with pytest.raises(CheckpointError, match=r"k400\.pyth is a web page"):
        run_at(small_benchmark, tmp_path, exp, weights={"mvitv2_s_k400": file})


def test_the_fields_of_a_result_are_plain_json(finished):
    result, folder, _ = finished
    assert set(json.loads((folder / "result.json").read_text())) == set(Result.__dataclass_fields__)
    assert result.mAP_random_classes > 0.1
