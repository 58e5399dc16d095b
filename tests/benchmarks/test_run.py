import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from actloc_core.checkpoints import CheckpointError
from benchmarks.experiments import OURS, TRAINING, at_scale
from benchmarks.run import TooManyError, _refuse_masses, run
from benchmarks.score.detections import FoundActors
from benchmarks.score.results import Result, read_result, save
from benchmarks.train.data import given_boxes, load_data, random_classes
from benchmarks.train.models import build_model, weights_hash
from datasets import ava, synthetic
from evaluators.ava_csv import read_detections, read_persons
from evaluators.frame_map import Detections, EvalRules, frame_map
from evaluators.precision_recall import actor_precision_recall

EXP = replace(at_scale(OURS, "smoke"), frames=4, stride=4, crop=32, epochs=0.1)


STRICT = replace(EXP, theta=0.5, nms_iou=0.5)


def run_at(root, out, *experiments, **options):
    exp = experiments[0]
    return run(experiments, {exp.dataset: root}, out, device=torch.device("cpu"), **options)


@pytest.fixture(scope="module")
def finished(small_benchmark, tmp_path_factory):
    heard = []
    out = tmp_path_factory.mktemp("out")
    result, _ = run_at(small_benchmark, out, EXP, STRICT, on_progress=heard.append)
    return result, out / "runs" / EXP.hash, heard


@pytest.fixture(scope="module")
def training(finished):
    return finished[1].parents[1] / "trainings" / EXP.training_hash


def test_a_run_leaves_everything_and_result_json_reads_back(finished, training, small_benchmark):
    result, folder, heard = finished
    excluded = load_data(EXP, {EXP.dataset: small_benchmark}).report.excluded
    names = {p.name for p in folder.iterdir()}
    assert names == {"result.json", "analysis.json", "detections.csv", "persons.csv"}
    assert {p.name for p in training.iterdir()} == {"checkpoint.pt", "best.pt", "log.csv", "lock"}
    assert set(result.origin) == {"data", "weights", "code", "scoring"}
    assert read_result(folder / "result.json") == result
    assert result.hash == EXP.hash
    assert (result.split, result.protocol, result.clips) == ("test", "standard", 240 - len(excluded))
    assert heard[-1].step == heard[-1].steps
    assert heard[-1].mAP is not None
    lines = (training / "log.csv").read_text().splitlines()
    assert lines[0] == "step,lr,loss,l1,giou,actor,action,val_mAP"
    assert len(lines) == 1 + heard[-1].steps


def test_masses_of_detections_are_refused_with_what_to_do(finished, small_benchmark, monkeypatch):
    """A model that keeps every candidate at theta .02; its row of theta .9999 is scored all the same."""
    out = finished[1].parents[1]
    monkeypatch.setattr("benchmarks.run.MOST_ROWS", 1000)
    before = (finished[1] / "result.json").read_bytes()
    with pytest.raises(
        ValueError, match=r"at theta 0.02 the model keeps [\d,]+ cand.* a higher theta"
    ) as told:
        run_at(small_benchmark, out, EXP)
    enough = float(re.search(r"higher theta, (\S+) or more", str(told.value))[1])
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


def test_no_theta_is_named_where_none_would_do(monkeypatch):
    monkeypatch.setattr("benchmarks.run.MOST_ROWS", 100)
    nothing = np.zeros(200, np.int64)
    persons = Detections(("a",), nothing, nothing, np.zeros((200, 4)), nothing, np.full(200, 0.99999))
    found = FoundActors(persons, np.array([1]), np.zeros((200, 1)))
    with pytest.raises(TooManyError, match=r"train longer \(the training"):
        _refuse_masses(found, EXP, 100)
    persons = replace(persons, score=np.linspace(0.001, 0.2, 200))
    with pytest.raises(TooManyError, match=r"higher theta, 0\.1 or more"):
        _refuse_masses(replace(found, persons=persons), EXP, 100)


def test_the_numbers_can_be_had_again_from_the_files(finished, small_benchmark):
    result, folder, _ = finished
    test = ava.load(small_benchmark, "test", frames=4, stride=4, crop=32, fps=synthetic.FPS)
    found = read_detections(folder / "detections.csv")
    again = frame_map(test.ground_truth, found, test.evaluated, rules=EvalRules(excluded=test.excluded))
    assert again.mAP == pytest.approx(result.mAP, abs=1e-9)
    persons, rules = read_persons(folder / "persons.csv"), EvalRules(excluded=test.excluded)
    actors = actor_precision_recall(test.ground_truth, persons, test.evaluated, rules=rules)
    assert actors.recall == pytest.approx(result.recall)


def test_the_checkpoint_rebuilds_the_model_without_running_anything_from_it(training):
    checkpoint = torch.load(training / "checkpoint.pt", weights_only=True)
    assert checkpoint["experiment"]["selection"] == "two_c_t"
    assert list(checkpoint["classes"].values())[:2] == ["left", "right"]
    build_model(EXP, 10).load_state_dict(checkpoint["model"])


def test_rows_that_differ_in_inference_share_the_training(finished, training, small_benchmark):
    """A stricter theta: fewer persons of the same model. Asked again later, nothing is trained."""
    result, folder, _ = finished
    out = folder.parents[1]
    strict = read_result(out / "runs" / STRICT.hash / "result.json")
    assert strict.training == result.training == EXP.training_hash
    assert strict.seconds_training == result.seconds_training
    assert [p.name for p in (out / "trainings").iterdir()] == [EXP.training_hash]
    kept = (out / "runs" / STRICT.hash / "persons.csv").read_text().splitlines()
    every = (folder / "persons.csv").read_text().splitlines()
    assert set(kept) < set(every)
    before = (training / "checkpoint.pt").stat().st_mtime_ns
    action, heard = replace(EXP, score="action"), []
    [later] = run_at(small_benchmark, out, action, on_progress=heard.append)
    assert heard == []
    assert (training / "checkpoint.pt").stat().st_mtime_ns == before
    assert later.mAP_untrained == result.mAP_untrained
    assert (out / "runs" / action.hash / "persons.csv").read_text().splitlines() == every
    with pytest.raises(ValueError, match="differ in inference alone"):
        run_at(small_benchmark, out, EXP, replace(EXP, seed=1))


def test_a_run_can_begin_with_the_backbone_of_another(finished, training, small_benchmark):
    _, folder, _ = finished
    later = replace(EXP, weights=TRAINING + EXP.training_hash, lr=0.0)
    [result] = run_at(small_benchmark, folder.parents[1], later)
    assert result.origin["weights"] == weights_hash(training / "checkpoint.pt")
    path = folder.parents[1] / "trainings" / later.training_hash / "checkpoint.pt"
    mine, before = (torch.load(p, weights_only=True)["model"] for p in (path, training / "checkpoint.pt"))
    assert all(torch.equal(mine[name], before[name]) for name in before if name.startswith("backbone."))
    assert not torch.equal(mine["proj.weight"], before["proj.weight"])


@pytest.mark.parametrize("boxes", ["detector", "ground_truth"])
def test_the_two_stage_baseline_is_trained_and_scored_by_the_same_engine(boxes, small_benchmark, tmp_path):
    """Untrained, true boxes score about what random classes do. A detector's are fewer, and idle people's."""
    exp = replace(EXP, method="two_stage", boxes=boxes)
    [result] = run_at(small_benchmark, tmp_path, exp)
    assert result.mAP_untrained == pytest.approx(result.mAP_random_classes, abs=0.06)
    if boxes == "ground_truth":
        assert (result.precision, result.recall) == (1.0, 1.0)
    else:
        assert 0.6 < result.precision < 0.95
        assert 0.7 < result.recall < 0.97


def test_boxes_that_are_not_there_are_named_before_the_training(small_benchmark, tmp_path):
    exp = replace(EXP, method="two_stage")
    data = load_data(exp, {exp.dataset: small_benchmark})
    with pytest.raises(ValueError, match="not 'guessed'"):
        given_boxes(replace(exp, boxes="guessed"), data.report, small_benchmark)
    with pytest.raises(ValueError, match="give boxes='ground_truth'"):
        given_boxes(replace(exp, dataset="jhmdb"), data.report, small_benchmark)
    (tmp_path / "annotations").mkdir()
    with pytest.raises(FileNotFoundError, match="no ava_detection_test_boxes_and_labels"):
        given_boxes(exp, data.report, tmp_path)


def test_detr_is_trained_and_scored_by_the_same_engine(small_benchmark, tmp_path):
    [result] = run_at(small_benchmark, tmp_path, replace(EXP, method="detr", queries=16))
    assert result.clips > 200


def test_published_weights_have_to_be_given(small_benchmark, tmp_path):
    exp = replace(EXP, weights="mvitv2_s_k400")
    with pytest.raises(ValueError, match=r"--weights mvitv2_s_k400=FILE; it is MViTv2_S_16x4 of PySlowFast"):
        run_at(small_benchmark, tmp_path, exp)
    with pytest.raises(FileNotFoundError, match="no such file"):
        run_at(small_benchmark, tmp_path, exp, weights={"mvitv2_s_k400": tmp_path / "k400.pyth"})
    (tmp_path / "k400.pyth").write_bytes(b"<html>")
    with pytest.raises(CheckpointError, match="no readable PyTorch checkpoint"):
        run_at(small_benchmark, tmp_path, exp, weights={"mvitv2_s_k400": tmp_path / "k400.pyth"})


def test_an_unknown_method_is_named():
    with pytest.raises(ValueError, match="'three_stage'; there are single_stage, two_stage, detr"):
        build_model(replace(EXP, method="three_stage"), 10)


def test_random_classes_on_perfect_boxes_score_the_share_of_each_class(small_benchmark):
    """AP of random scores is the class's share among the boxes, give or take the draw."""
    data = load_data(EXP, {EXP.dataset: small_benchmark})
    score = random_classes(data.report, "standard")
    labels = np.concatenate([data.report.annotations.at(key).labels.numpy() for key in data.report.keyframes])
    assert score.mAP == pytest.approx(labels.mean(), abs=0.05)


def test_a_dataset_without_a_folder_is_named():
    with pytest.raises(ValueError, match="--data ava=FOLDER"):
        load_data(OURS, {})


def test_a_torn_result_is_named(tmp_path):
    path = tmp_path / "result.json"
    path.write_text('{"mAP": 0.')
    with pytest.raises(ValueError, match=r"result\.json: not a result"):
        read_result(path)
    path.write_text(json.dumps({"mAP": 0.5}))
    with pytest.raises(ValueError, match="run again"):
        read_result(path)


def test_a_write_that_fails_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "result.json"
    save(path, lambda p: p.write_text("old"))

    def fails(part):
        part.write_text("ha")
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        save(path, fails)
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]
    assert path.read_text() == "old"


def test_result_fields_are_plain_json(finished):
    result, folder, _ = finished
    assert set(json.loads((folder / "result.json").read_text())) == set(Result.__dataclass_fields__)
    assert result.mAP_random_classes > 0.1
