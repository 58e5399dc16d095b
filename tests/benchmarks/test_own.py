"""Training on own data: which form it has, what it starts from, and how long it trains."""

from pathlib import Path

import pytest

from benchmarks import jobs, own
from benchmarks.experiments import OURS
from benchmarks.inputs import exit_code


def made(folder, *files):
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


@pytest.mark.parametrize(
    ("file", "form"),
    [
        ("annotations/ava_train_v2.2.csv", "ava"),
        ("annotations/ava_train_v2.1.csv", "ava"),
        ("train.csv", "ava"),
        ("UCF101v2-GT.pkl", "ucf24"),
        ("JHMDB-GT.pkl", "jhmdb"),
    ],
)
def test_the_form_of_data_is_told_by_their_files(tmp_path, file, form):
    assert own.form_of(made(tmp_path, file)) == form


def test_no_form_and_two_forms_are_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="datasets convert writes the first"):
        own.form_of(made(tmp_path, "videos/a.mp4"))
    with pytest.raises(ValueError, match="has files of ucf24 and jhmdb; choose with --dataset"):
        own.form_of(made(tmp_path, "UCF101v2-GT.pkl", "JHMDB-GT.pkl"))
    with pytest.raises(FileNotFoundError, match="no such folder"):
        own.form_of(tmp_path / "nowhere")


def test_initialisation_weights_are_none_a_file_or_downloaded():
    assert own.initial_weights(None, "tiny", pretrained=False) == (None, [])
    assert own.initial_weights("none", "paper", pretrained=False) == (None, [])
    assert own.initial_weights("mine=a=b.pt", "tiny", pretrained=False) == ("mine", ["mine=a=b.pt"])
    assert own.initial_weights(None, "paper", pretrained=True) == (OURS.weights, [])
    for given, scale, message in (
        ("k400.pyth", "paper", "such as mvitv2_s_k400=k400.pyth"),
        ("tiny", "paper", "does not fit --scale paper"),
        (None, "paper", "starts from Kinetics weights: give --init"),
    ):
        with pytest.raises(ValueError, match=message):
            own.initial_weights(given, scale, pretrained=False)


def test_data_of_two_names_are_two_runs_and_published_rows_have_no_name():
    first, second = (own.own_experiment("ava", name, "tiny", None) for name in ("shop", "street"))
    assert first.hash != second.hash
    assert "own" not in OURS._values()
    paper = own.own_experiment("ucf24", "shop", "paper", OURS.weights)
    assert (paper.backbone, paper.dataset, paper.keyframe_stride) == (OURS.backbone, "ucf24", 4)


def test_a_small_data_set_is_passed_more_often():
    """900 steps of 8 clips: 18 times 400 clips; of a large one the recipe's own 1.8 epochs."""
    exp = own.own_experiment("ava", "shop", "tiny", None)
    few = own.with_enough_steps(exp, 400)
    assert (few.epochs, few.warmup_epochs) == (18, 2.5)
    assert own.with_enough_steps(exp, 100_000).epochs == exp.epochs == 1.8
    assert own.with_enough_steps(exp, 10).epochs == own.MOST_EPOCHS


def test_two_seeds_are_two_rows_of_one_job(small_benchmark, tmp_path, monkeypatch):
    jobs = []
    monkeypatch.setattr(own, "run_job", lambda job, *rest: jobs.append(job) or 0)
    options = ["--data", str(small_benchmark), "--no-check", "--seeds", "2", "--out", str(tmp_path)]
    assert own.main([*options, "--name", "shop", "--set", "stride=2", "--set", "epochs=3"]) == 0
    [job] = jobs
    assert [*job.names.values()] == ["own/shop seed 0", "own/shop seed 1"]
    assert {(exp.stride, exp.epochs, exp.own) for exp in job.experiments.values()} == {(2, 3, "shop")}
    assert job.roots == {"ava": small_benchmark}


def test_data_that_cannot_be_read_are_not_trained_on(tmp_path, capsys):
    folder = made(tmp_path / "mine", "annotations/ava_train_v2.2.csv", "annotations/ava_val_v2.2.csv")
    assert exit_code(lambda: own.main(["--data", str(folder), "--out", str(tmp_path / "out")])) == 2
    assert "ava_action_list_v2.2.pbtxt: file not found" in capsys.readouterr().err
    assert not Path(tmp_path / "out" / "runs").exists()


def test_loggers_that_cannot_log_are_refused(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(jobs.importlib.util, "find_spec", lambda name: None)
    jobs._check_loggers(["tensorboard"])
    with pytest.raises(ValueError, match=r"wandb: it is not installed: pip install 'actloc\[wandb\]'"):
        jobs._check_loggers(["wandb"])
    monkeypatch.setattr(jobs.importlib.util, "find_spec", lambda name: "there")
    jobs._check_loggers(["wandb"])
    with pytest.raises(ValueError, match="--log-to mlflow: set MLFLOW_TRACKING_URI"):
        jobs._check_loggers(["mlflow"])
