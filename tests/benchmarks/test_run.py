import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.experiments import OURS, at_scale
from benchmarks.run import Result, load_data, random_classes, read_result, run, save
from datasets import ava, synthetic
from evaluators.ava_csv import read_detections, read_persons
from evaluators.frame_map import frame_map
from evaluators.precision_recall import actor_precision_recall

EXP = replace(at_scale(OURS, "smoke"), frames=4, stride=4, crop=32, epochs=0.1)


@pytest.fixture(scope="module")
def finished(small_benchmark, tmp_path_factory):
    heard = []
    folder = tmp_path_factory.mktemp("runs") / EXP.hash
    result = run(
        EXP, {EXP.dataset: small_benchmark}, folder, device=torch.device("cpu"), on_progress=heard.append
    )
    return result, folder, heard


def test_a_run_leaves_everything_and_result_json_reads_back(finished, small_benchmark):
    result, folder, heard = finished
    excluded = load_data(EXP, {EXP.dataset: small_benchmark}).report.excluded
    names = {p.name for p in folder.iterdir()}
    assert names == {"result.json", "detections.csv", "persons.csv", "checkpoint.pt", "log.csv"}
    assert read_result(folder / "result.json") == result
    assert result.hash == EXP.hash
    assert (result.split, result.protocol, result.clips) == ("test", "standard", 240 - len(excluded))
    assert heard[-1].step == heard[-1].steps
    assert heard[-1].mAP is not None
    lines = (folder / "log.csv").read_text().splitlines()
    assert lines[0] == "step,lr,loss,l1,giou,actor,action,val_mAP"
    assert len(lines) == 1 + heard[-1].steps


def test_the_numbers_can_be_had_again_from_the_files(finished, small_benchmark):
    result, folder, _ = finished
    test = ava.load(small_benchmark, "test", frames=4, stride=4, crop=32, fps=synthetic.FPS)
    found = read_detections(folder / "detections.csv")
    again = frame_map(test.ground_truth, found, test.evaluated, excluded=test.excluded)
    assert again.mAP == pytest.approx(result.mAP, abs=1e-9)
    actors = actor_precision_recall(
        test.ground_truth, read_persons(folder / "persons.csv"), test.evaluated, excluded=test.excluded
    )
    assert actors.recall == pytest.approx(result.recall)


def test_the_checkpoint_rebuilds_the_model_without_running_anything_from_it(finished):
    _, folder, _ = finished
    checkpoint = torch.load(folder / "checkpoint.pt", weights_only=True)
    assert checkpoint["experiment"]["selection"] == "two_c_t"
    assert list(checkpoint["classes"].values())[:2] == ["left", "right"]


def test_random_classes_on_perfect_boxes_score_the_share_of_each_class(small_benchmark):
    """AP of random scores is the class's share among the boxes, give or take the draw."""
    data = load_data(EXP, {EXP.dataset: small_benchmark})
    score = random_classes(data.report, "standard")
    labels = np.concatenate([data.report.people.at(key).labels.numpy() for key in data.report.keyframes])
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
