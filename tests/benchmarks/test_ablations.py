"""The command from its options to the tables: without Ray, and in slow tests with it, as a user runs it."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace

import pytest

from benchmarks import ablations, experiments, jobs
from benchmarks.experiments import ROWS, TABLES, TRAINING, rows_at
from benchmarks.inputs import chosen_rows, exit_code
from benchmarks.jobs import Job
from benchmarks.run import run
from reports.__main__ import main as report
from tests.benchmarks.shared import CHECKOUT, context_of

SMOKE = rows_at("smoke")


def command(*args, out):
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.ablations", "--scale", "smoke", "--out", str(out), *args],
        cwd=CHECKOUT, capture_output=True, text=True, env=os.environ, timeout=900, check=False,
    )  # fmt: skip


@contextmanager
def machines(address):
    """A cluster of one laptop, without Ray."""
    yield [{"Resources": {"CPU": 2.0}}]


def sweep_in_turn(trainings, roots, out, observer, options):
    """`benchmarks.sweep.trials.sweep` without Ray: one training after the other, in this process."""
    for training, rows in trainings.items():
        observer.started(training)
        run(rows, roots, context_of(out, weights=options.weights, fresh=options.fresh))
        observer.finished(training)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("out with spaces")


CHOSEN = ["ours/two_c_t_frame_embedding", "ours/two_c_t_frame_embedding_nms", "4/jhmdb_1"]
"""Three runs, two of them of one training, all initialised from one pre-training."""
INITIAL, LATER = SMOKE["pretraining/mvitv2_s"], SMOKE["4/jhmdb_1"]


@pytest.fixture(scope="module")
def first(out):
    """What the command printed for the chosen rows."""
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as printed:
        patch.setattr("benchmarks.sweep.cluster.cluster", machines)
        patch.setattr("benchmarks.sweep.trials.sweep", sweep_in_turn)
        patch.setattr("benchmarks.score.predict.SMALL_VALIDATION_CLIPS", 4)
        assert ablations.main(["--scale", "smoke", "--out", str(out), "--only", *CHOSEN]) == 0
    return printed.getvalue()


def hashes(folder):
    return {path.name for path in folder.iterdir()}


def results_in(out):
    return [json.loads(path.read_text()) for path in (out / "runs").glob("*/result.json")]


def test_every_chosen_row_is_run_once(first, out):
    rows = [INITIAL, *(SMOKE[name] for name in CHOSEN)]
    assert hashes(out / "runs") == {exp.hash for exp in rows}
    assert hashes(out / "trainings") == {exp.training_hash for exp in rows}
    assert len(hashes(out / "trainings")) == 3
    assert "4 of 4 runs have a result" in first
    results = results_in(out)
    assert all(result["mAP"] >= 0 for result in results)
    datasets = {result["experiment"]["dataset"] for result in results}
    assert datasets == {"synthetic_kinetics_smoke", "synthetic_ava_smoke", "synthetic_jhmdb_smoke"}


def test_pre_training_has_an_accuracy_and_the_other_rows_have_none(first, out):
    for result in results_in(out):
        if result["experiment"]["method"] == "classification":
            assert 0 <= result["accuracy"] <= 1
            assert (result["recall"], result["candidates_per_actor"]) == (1, 1), (
                "the whole frame, of each clip"
            )
        else:
            assert result["accuracy"] is None


def test_a_row_starts_after_the_training_it_is_initialised_from(first, out):
    initial, later = (out / "trainings" / exp.training_hash for exp in (INITIAL, LATER))
    assert (initial / "checkpoint.pt").stat().st_mtime < (later / "log.csv").stat().st_ctime
    result = json.loads((out / "runs" / LATER.hash / "result.json").read_text())
    assert result["origin"]["weights"]


RAY = ["2a/256_16", "2a/two_stage", "2a/two_stage_true_boxes", "2b/two_c_t"]
"""Three runs of two trainings, beside the one that all are initialised from."""


@pytest.fixture(scope="module")
def with_ray(tmp_path_factory, smoke_data):
    """An output directory, and what the command printed."""
    out = tmp_path_factory.mktemp("with ray")
    (out / "data").symlink_to(smoke_data)
    done = command("--only", *RAY, out=out)
    assert done.returncode == 0, done.stderr
    return out, done.stdout


@pytest.mark.slow
def test_the_command_runs_rows_side_by_side_with_ray(with_ray):
    out, printed = with_ray
    rows = [SMOKE[name] for name in RAY] + [INITIAL]
    assert hashes(out / "runs") == {exp.hash for exp in rows}
    assert hashes(out / "trainings") == {exp.training_hash for exp in rows}
    assert len(hashes(out / "trainings")) == 3
    assert printed.splitlines()[-1].endswith(f"4 of 4 runs have a result in {out / 'runs'}")
    assert all(result["mAP"] >= 0 for result in results_in(out))


@pytest.mark.slow
def test_the_whole_report_of_a_sweep(with_ray, capsys):
    out, _ = with_ray
    assert report(["--scale", "smoke", "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert not printed.err
    assert "| 2(C+T) " in printed.out
    assert "not run" in printed.out, "the rows that were not chosen"
    assert "Sanity check: does each method learn?" in printed.out
    assert (out / "report" / "table_2b.csv").read_text().startswith("method,")
    assert (out / "report" / "table_2b.md").read_text() in printed.out + "\n"
    not_run = [line for line in printed.out.splitlines() if line.startswith("No row was run")]
    assert not_run == ["No row was run; run them with `--only 4`."], "a row of every other table is done"
    figures = re.findall(r'<figure id="figure-([\w-]+)"', (out / "report" / "index.html").read_text())
    assert {"per-class", "pareto", "actors", "keyframes"} <= set(figures)


def test_a_second_call_skips_rows_that_are_up_to_date(first, out, capsys):
    before = {p: p.stat().st_mtime_ns for p in (out / "runs").rglob("*")}
    chosen = ["--only", "2b", "4", "--rows", "two_c_t_frame_embedding", "jhmdb_1"]
    assert ablations.main(["--scale", "smoke", "--out", str(out), *chosen]) == 0
    printed = capsys.readouterr().out
    assert printed.count("up to date") == 3
    assert "starting Ray" not in printed
    assert {p: p.stat().st_mtime_ns for p in (out / "runs").rglob("*")} == before


def test_a_row_is_due_when_data_or_initialisation_weights_changed(first, out, tmp_path):
    def why(exp, data, out=out, fresh=False):
        return jobs.why_run(out, exp, data, {}, fresh=fresh)

    def fingerprint(exp):
        return json.loads((out / "runs" / exp.hash / "result.json").read_text())["origin"]["data"]

    done = INITIAL
    assert why(SMOKE["2a/256_8"], "x") == "new"
    assert why(done, fingerprint(done)) is None
    assert why(done, fingerprint(done), fresh=True) == "--fresh"
    assert why(done, "another") == "the data changed"
    assert why(LATER, fingerprint(LATER)) is None
    shutil.copytree(out / "runs" / LATER.hash, tmp_path / "runs" / LATER.hash)
    missing = "the training it is initialised from is missing"
    assert why(LATER, fingerprint(LATER), out=tmp_path) == missing
    initial = tmp_path / "trainings" / LATER.weights.removeprefix(TRAINING)
    shutil.copytree(out / "trainings" / LATER.training_hash, initial)
    changed = "the initialisation weights changed"
    assert why(LATER, fingerprint(LATER), out=tmp_path) == changed


def test_a_row_is_due_when_its_code_changed_or_its_result_is_unreadable(first, out, tmp_path):
    exp = INITIAL
    shutil.copytree(out / "runs" / exp.hash, tmp_path / "runs" / exp.hash)
    path = tmp_path / "runs" / exp.hash / "result.json"
    result = json.loads(path.read_text())
    data = result["origin"]["data"]

    def why():
        return jobs.why_run(tmp_path, exp, data, {}, fresh=False)

    for parts, reason in (
        (("code",), "the training code changed"),
        (("scoring",), "the scoring code changed"),
        (("code", "scoring"), "the training code and the scoring code changed"),
    ):
        path.write_text(json.dumps(result | {"origin": result["origin"] | dict.fromkeys(parts, "old")}))
        assert why() == reason
    path.write_text("{}")
    assert why() == "its result is of another version"
    path.unlink()
    assert why() == "new"
    training = tmp_path / "trainings" / exp.training_hash
    training.mkdir(parents=True)
    (training / "state_000000003.pt").touch()
    assert why() == "not finished"
    (training / "checkpoint.pt").touch()
    assert why() == "trained, not scored"


@pytest.mark.slow
def test_another_row_of_a_finished_training_is_only_scored(with_ray):
    out, _ = with_ray
    name = "ours/theta_0.3"
    done = command("--only", name, out=out)
    assert done.returncode == 0, done.stderr
    lines = [re.sub(r"^\[\d+:\d+\] ", "", line) for line in done.stdout.splitlines()]
    assert lines == [
        *lines[:2],  # the data
        f"pretraining/mvitv2_s [{INITIAL.hash}]: up to date",
        f"{name} [{SMOKE[name].hash}]: to run (trained, not scored)",
        "starting Ray for 1 training ...",
        f"{name}: started",
        f"{name}: done",
        f"2 of 2 runs have a result in {out / 'runs'}",
    ]
    assert all(line.startswith("data: ") for line in lines[:2])
    assert not done.stderr


def test_trainings_run_in_waves_after_those_they_are_initialised_from():
    names = ("2b/tubelet", "fig1/detr", "pretraining/mvitv2_s", "3/hiera_l", "pretraining/hiera_l")
    rows = [SMOKE[name] for name in names]
    first, second = jobs.waves({exp.training_hash: [exp] for exp in rows})
    assert {group[0].method for group in first.values()} == {"classification"}
    assert next(iter(second.values()))[0].method == "detr", "the longest first"
    assert len(second) == 3
    alone = jobs.waves({rows[0].training_hash: [rows[0]]})
    assert len(alone) == 1, "the training it is initialised from is there already"


@pytest.fixture
def two_waves(tmp_path, monkeypatch):
    """A job whose second row is initialised from the first, and its arguments; no Ray is started."""
    monkeypatch.setattr("benchmarks.sweep.cluster.cluster", machines)
    rows = [INITIAL, SMOKE["4/ucf24"]]
    job = Job(
        names={exp.hash: exp.dataset for exp in rows},
        experiments={exp.hash: exp for exp in rows},
        roots={}, weights={}, out=tmp_path,
    )  # fmt: skip
    args = ablations.parser().parse_args(["--out", str(tmp_path)])
    return {exp.training_hash: [exp] for exp in rows}, job, args


def test_an_interrupted_sweep_does_not_start_the_next_wave(two_waves, monkeypatch):
    """A sweep that ends without results and without failures was interrupted."""
    missing, job, args = two_waves
    swept = []
    monkeypatch.setattr("benchmarks.sweep.trials.sweep", lambda wave, *args, **options: swept.append(wave))
    failures = jobs.run_missing(missing, job, args)
    assert [list(wave) for wave in swept] == [[next(iter(missing))]]
    assert failures == dict.fromkeys(missing, "interrupted; rerun the same command to resume")


def test_a_row_fails_where_the_training_it_is_initialised_from_failed(two_waves, monkeypatch):
    missing, job, args = two_waves
    first, second = missing

    def fails(wave, roots, out, observer, options):
        for training in wave:
            observer.failed(training, "out of memory")

    monkeypatch.setattr("benchmarks.sweep.trials.sweep", fails)
    assert jobs.run_missing(missing, job, args) == {
        first: "out of memory", second: "the training it is initialised from has failed",
    }  # fmt: skip


def test_a_batch_that_processes_cannot_share_evenly_ends_before_ray_starts(two_waves):
    missing, job, args = two_waves
    args.processes = 3
    with pytest.raises(ValueError, match="16 clips cannot be shared evenly by 3 processes"):
        jobs.run_missing(missing, job, args)


@pytest.mark.parametrize(
    ("trainings", "options", "line"),
    [
        (20, [], "0 of them idle: 20 trainings, 1 processes each (--processes), 7 loader"),
        (3, [], "2 of them idle: 3 trainings, 2 processes each (--processes), 7 loader"),
        (1, ["--processes", "4"], "4 of them idle: 1 trainings, 4 processes each (--processes), 7 loader"),
        (1, ["--workers", "2"], "0 of them idle: 1 trainings, 8 processes each (--processes), 2 loader"),
    ],
)
def test_no_gpu_is_idle_that_a_run_could_use_and_idle_ones_are_said(trainings, options, line, capsys):
    args = ablations.parser().parse_args(options)
    processes, resources, at_once = jobs._arrange([16] * trainings, [{"CPU": 64.0, "GPU": 8.0}], args)
    assert capsys.readouterr().out.startswith(f"8 GPUs, {line}")
    assert processes * at_once == 8
    assert resources.num_gpus == 1


def test_resources_that_no_machine_has_are_refused_before_anything_runs(first, out, monkeypatch):
    monkeypatch.setattr("benchmarks.sweep.cluster.cluster", machines)
    monkeypatch.setattr("benchmarks.sweep.trials.sweep", sweep_in_turn)
    options = ["--scale", "smoke", "--only", "ours/drawn_weights", "--out", str(out), "--gpus-each", "1"]
    with pytest.raises(ValueError, match=r"insufficient resources: a run asks for .*1 GPUs"):
        ablations.main(options)
    assert not (out / "runs" / SMOKE["ours/drawn_weights"].hash).exists()


def test_chosen_rows_bring_the_pre_training_along_that_they_are_initialised_from():
    """Once for all seeds, and not where it is chosen already or the weights are published."""
    rows = chosen_rows(["4/ucf24", "3"], [], "tiny", 2)
    assert list(rows) == [
        "pretraining/mvitv2_s", "pretraining/hiera_l",
        "3/mvitv2_s seed 0", "3/hiera_l seed 0", "4/ucf24 seed 0",
        "3/mvitv2_s seed 1", "3/hiera_l seed 1", "4/ucf24 seed 1",
    ]  # fmt: skip
    assert [exp.seed for exp in rows.values()] == [0, 0, 0, 0, 0, 1, 1, 1]
    assert rows["4/ucf24 seed 1"].weights == TRAINING + rows["pretraining/mvitv2_s"].training_hash
    both = ["2b/tubelet", "pretraining/mvitv2_s"]
    assert sorted(chosen_rows(both, [], "tiny", 1)) == sorted(both)
    assert list(chosen_rows(["4/ucf24"], [], "paper", 1)) == ["4/ucf24"]


def test_rows_with_fields_set_are_initialised_from_the_pre_training_of_all():
    rows = chosen_rows(["2b/c_t"], [], "tiny --set batch=4", 1)
    plain = chosen_rows(["2b/c_t"], [], "tiny", 1)
    assert list(rows) == ["pretraining/mvitv2_s", "2b/c_t"]
    assert rows["pretraining/mvitv2_s"] == plain["pretraining/mvitv2_s"]
    assert rows["2b/c_t"] == replace(plain["2b/c_t"], batch=4)


def test_a_row_whose_weights_no_small_pre_training_stands_for_says_so(monkeypatch, capsys):
    monkeypatch.setitem(experiments.ROWS, "2b/c_t", replace(ROWS["2b/c_t"], weights="videomae_b"))
    experiments.rows_at.cache_clear()
    rows = chosen_rows(["2b/c_t", "2b/tubelet", "ours/drawn_weights"], [], "tiny", 2)
    experiments.rows_at.cache_clear()
    assert rows["2b/c_t seed 0"].weights is None
    [line] = capsys.readouterr().err.splitlines()
    assert line == (
        "2b/c_t: no small pre-training stands for its weights videomae_b (INITIAL_ROWS), "
        "so it starts from drawn ones"
    )


@pytest.mark.slow
def test_a_dry_run_reports_every_row_and_writes_nothing(with_ray):
    out, _ = with_ray
    before = sorted(p for p in out.rglob("*"))
    done = command("--dry-run", "--only", "2a/two_stage", out=out)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if "2a/" in line and "│" in line]
    assert [line.split("│")[-2].strip() for line in lines] == ["yes"]
    assert "device s/step" in done.stdout
    assert sorted(p for p in out.rglob("*")) == before


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--only", "2b/tublet"], "unknown table or row '2b/tublet'; nearest: 2b/tubelet"),
        (["--rows", "tublet"], "unknown row 'tublet'; nearest: 2b/tubelet"),
        (["--scale", "paper", "--only", "2b"], "no file for the initialisation weights 'mvitv2_s_k400'"),
        (["--scale", "paper", "--only", "2b", "--weights", "k400.pyth"], "write NAME=FILE"),
        (["--scale", "paper", "--only", "2b", "--weights", "k600=x"], "they use mvitv2_s_k400"),
        (
            ["--scale", "smoke", "--only", "2b", "--weights", "k600=x"],
            "they use none: small rows bring their pre-training",
        ),
        (["--scale", "paper", "--data", "/data/ava"], "write NAME=FOLDER"),
        (["--scale", "paper", "--data", "av=/data"], "no chosen row uses it; they use ava, jhmdb, ucf24"),
    ],
)
def test_bad_input_ends_with_exit_code_2_before_any_training(args, message, tmp_path, capsys):
    assert exit_code(lambda: ablations.main([*args, "--out", str(tmp_path)])) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert not (tmp_path / "runs").exists()


def test_a_paper_row_without_its_data_or_weights_ends_before_any_training(tmp_path, capsys):
    weights = tmp_path / "k400.pyth"
    paper = ["--scale", "paper", "--only", "2b/tubelet", "--out", str(tmp_path / "out")]

    def refused(*more):
        assert exit_code(lambda: ablations.main([*paper, *more])) == 2
        return capsys.readouterr().err

    named = ["--weights", f"mvitv2_s_k400={weights}"]
    assert f"{weights}: no such file" in refused(*named)
    assert "no file for the initialisation weights" in refused()
    weights.write_bytes(b"x")
    assert "no folder is given for dataset 'ava': --data ava=FOLDER" in refused(*named)
    assert "/no/such/folder: no such data folder" in refused(*named, "--data", "ava=/no/such/folder")


def test_ctrl_c_ends_with_exit_code_130_and_one_line(monkeypatch, capsys):
    def interrupted(argv=None):
        raise KeyboardInterrupt

    assert exit_code(interrupted) == 130
    assert capsys.readouterr().err == "interrupted; rerun the same command to resume\n"


def test_list_shows_rows_and_makes_nothing(tmp_path, capsys):
    assert ablations.main(["--list", "--out", str(tmp_path), "--only", *TABLES]) == 0
    printed = capsys.readouterr().out
    assert all(row in printed for row in ROWS)
    assert list(tmp_path.iterdir()) == []
