"""The command as a user runs it, from a checkout, in a process of its own."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import ablations, rehearse
from benchmarks.experiments import ROWS, TABLES, TRAINING, rows_at
from reports.__main__ import main as report

CHECKOUT = Path(__file__).resolve().parents[2]


SMOKE = rows_at("smoke")


def command(*args, out):
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.ablations", "--scale", "smoke", "--out", str(out), *args],
        cwd=CHECKOUT, capture_output=True, text=True, env=os.environ, timeout=900, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("out with spaces")


CHOSEN = ["2a/256_16", "2a/two_stage", "2a/two_stage_true_boxes", "2b/two_c_t", "4/jhmdb_1"]
"""Four runs, two of them of one training, and one that begins with the weights of a fifth, not chosen."""


@pytest.fixture(scope="module")
def first(out):
    return command("--only", *CHOSEN, out=out)


def test_the_rehearsal_runs_every_chosen_row_once(first, out):
    assert first.returncode == 0, first.stderr
    rows = [SMOKE[name] for name in (*CHOSEN, "2b/two_c_t_frame_embedding")]
    runs = sorted(p.name for p in (out / "runs").iterdir())
    assert runs == sorted({exp.hash for exp in rows})
    trainings = sorted(p.name for p in (out / "trainings").iterdir())
    assert trainings == sorted({exp.training_hash for exp in rows})
    assert len(runs) == 5
    assert len(trainings) == 4
    assert "2a/256_16 = 2b/two_c_t" in first.stdout
    assert "5 of 5 runs have a result" in first.stdout
    assert "done" in first.stdout
    for run in runs:
        result = json.loads((out / "runs" / run / "result.json").read_text())
        assert result["mAP"] >= 0
        assert result["experiment"]["dataset"] in ("synthetic_ava_smoke", "synthetic_jhmdb_smoke")


def test_a_row_that_begins_with_anothers_weights_waits_for_it(first, out):
    begun = out / "trainings" / SMOKE["2b/two_c_t_frame_embedding"].training_hash
    later = out / "trainings" / SMOKE["4/jhmdb_1"].training_hash
    assert (begun / "checkpoint.pt").stat().st_mtime < (later / "log.csv").stat().st_ctime
    result = json.loads((out / "runs" / SMOKE["4/jhmdb_1"].hash / "result.json").read_text())
    assert result["origin"]["weights"]


def test_the_tables_show_them(first, out, capsys):
    assert report(["--scale", "smoke", "--out", str(out)]) == 0
    shown = capsys.readouterr()
    assert not shown.err
    assert "| 2(C+T) " in shown.out
    assert "not run" in shown.out, "the rows that were not chosen"
    assert "do all three ways learn?" in shown.out
    assert "No row was run" not in shown.out, "rows of every table are done, if not chosen there"
    assert (out / "report" / "table_2b.csv").read_text().startswith("method,")
    assert (out / "report" / "table_2b.md").read_text() in shown.out + "\n"


def test_a_second_call_keeps_what_is_done(first, out, capsys):
    before = {p: p.stat().st_mtime_ns for p in (out / "runs").rglob("*")}
    chosen = ["--only", "2a", "4", "--rows", "two_stage", "256_16", "jhmdb_1"]
    assert ablations.main(["--scale", "smoke", "--out", str(out), *chosen]) == 0
    again = capsys.readouterr().out
    assert again.count("done before, kept") == 4
    assert "starting Ray" not in again
    assert {p: p.stat().st_mtime_ns for p in (out / "runs").rglob("*")} == before


def test_why_a_run_is_due(first, out, tmp_path):
    def why(exp, data, out=out, fresh=False):
        return ablations.why_run(out, exp, data, {}, fresh=fresh)

    def fingerprint(exp):
        return json.loads((out / "runs" / exp.hash / "result.json").read_text())["origin"]["data"]

    done = SMOKE["2a/256_16"]
    assert why(SMOKE["2a/256_8"], "x") == "new"
    assert why(done, fingerprint(done)) is None
    assert why(done, fingerprint(done), fresh=True) == "asked to run it afresh"
    assert why(done, "another") == "the data changed"
    later = SMOKE["4/jhmdb_1"]
    assert why(later, fingerprint(later)) is None
    shutil.copytree(out / "runs" / later.hash, tmp_path / "runs" / later.hash)
    begins = tmp_path / "trainings" / later.weights.removeprefix(TRAINING)
    shutil.copytree(out / "trainings" / SMOKE["2a/256_16"].training_hash, begins)
    assert why(later, fingerprint(later), out=tmp_path) == "the weights it begins with changed"


@pytest.mark.slow
def test_another_row_of_a_training_is_scored_from_it(first, out):
    name = "ours/theta_0.3"
    done = command("--only", name, out=out)
    assert done.returncode == 0, done.stderr
    said = [re.sub(r"^\[\d+:\d+\] ", "", line) for line in done.stdout.splitlines()]
    assert said == [
        said[0],  # the data
        f"{name} [{SMOKE[name].hash}]: runs (trained, not scored)",
        "starting Ray for 1 trainings ...",
        f"{name}: starts",
        f"{name}: done",
        f"1 of 1 runs have a result in {out / 'runs'}",
    ]
    assert said[0].startswith("data: ")
    assert not done.stderr


def test_trainings_wait_for_those_they_begin_with():
    rows = [SMOKE[name] for name in ("4/ucf24", "2b/tubelet", "2b/two_c_t_frame_embedding", "4/jhmdb_2")]
    first, second = ablations.waves({exp.training_hash: [exp] for exp in rows})
    assert [group[0].selection for group in first.values()] == ["two_c_t", "tubelet"], "the longer one first"
    datasets = {group[0].dataset for group in second.values()}
    assert datasets == {"synthetic_ucf24_smoke", "synthetic_jhmdb_smoke"}
    alone = ablations.waves({rows[0].training_hash: [rows[0]]})
    assert len(alone) == 1, "what it begins with is there already"


def test_who_stops_the_sweep_stops_what_was_to_come_after_it(tmp_path, monkeypatch, capsys):
    """A sweep that ends without results and failures was interrupted: the second wave does not start."""
    swept = []
    monkeypatch.setattr("benchmarks.sweep.sweep", lambda trainings, *args, **kwargs: swept.append(trainings))
    rows = [SMOKE["2b/two_c_t_frame_embedding"], SMOKE["4/ucf24"]]
    missing = {exp.training_hash: [exp] for exp in rows}
    names = {exp.hash: exp.dataset for exp in rows}
    failures = ablations.run_missing(missing, names, {}, {}, tmp_path)
    assert [list(trainings) for trainings in swept] == [[rows[0].training_hash]]
    assert failures == dict.fromkeys(missing, "stopped before its end; the same command runs it again")


def test_a_row_brings_along_the_one_it_begins_with_and_seeds_are_rows():
    rows = ablations.chosen_rows(["4/ucf24"], [], "tiny", 2)
    assert list(rows) == [
        "2b/two_c_t_frame_embedding seed 0", "4/ucf24 seed 0",
        "2b/two_c_t_frame_embedding seed 1", "4/ucf24 seed 1",
    ]  # fmt: skip
    assert [exp.seed for exp in rows.values()] == [0, 0, 1, 1]
    assert (
        rows["4/ucf24 seed 1"].weights == TRAINING + rows["2b/two_c_t_frame_embedding seed 1"].training_hash
    )
    assert list(ablations.chosen_rows(["4/ucf24"], [], "paper", 1)) == ["4/ucf24"]


@pytest.mark.slow
def test_a_rehearsal_says_what_every_row_takes_and_leaves_nothing(out, first):
    before = sorted(p for p in out.rglob("*"))
    said = command("--dry-run", "--only", "2a/two_stage", out=out)
    assert said.returncode == 0, said.stderr
    lines = [line for line in said.stdout.splitlines() if "2a/" in line and "│" in line]
    assert [line.split("│")[-2].strip() for line in lines] == ["yes"]
    assert "step s" in said.stdout
    assert sorted(p for p in out.rglob("*")) == before


@pytest.mark.slow
def test_a_rehearsal_tells_a_row_that_cannot_run(out, first, monkeypatch, capsys):
    """A batch of more clips than the machine has memory for is found out with two of them."""
    row = replace(SMOKE["2a/256_8"], batch=10**7)
    roots = {row.dataset: ablations.synthetic_folder(out / "data", row.dataset)}
    assert not rehearse.rehearse({row.hash: row}, {row.hash: "a row"}, roots, {})
    said = capsys.readouterr()
    assert "cannot run: a row: a batch of 10000000 clips needs about" in said.err
    assert "a clip" in said.out
    broken = replace(row, backbone="mvitv9")
    assert not rehearse.rehearse({broken.hash: broken}, {broken.hash: "a row"}, roots, {})
    assert "has no 'mvitv9'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--only", "2b/tublet"], "no table or row is called '2b/tublet'; nearest: 2b/tubelet"),
        (["--rows", "tublet"], "no row is called 'tublet'; nearest: 2b/tubelet"),
        (["--scale", "paper", "--only", "2b"], "no file is given for the weights 'mvitv2_s_k400'"),
        (["--scale", "paper", "--only", "2b", "--weights", "k400.pyth"], "write NAME=FILE"),
        (["--scale", "paper", "--only", "2b", "--weights", "k600=x"], "they begin with mvitv2_s_k400"),
        (["--scale", "smoke", "--only", "2b", "--weights", "k600=x"], "they begin with drawn weights"),
        (["--scale", "paper", "--data", "/data/ava"], "write NAME=FOLDER"),
        (["--scale", "paper", "--data", "av=/data"], "no chosen row uses it; they use ava, jhmdb, ucf24"),
    ],
)
def test_bad_input_ends_before_any_training(args, says, tmp_path, capsys):
    assert ablations.main([*args, "--out", str(tmp_path)]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_paper_row_without_its_data_or_weights_ends_before_any_training(tmp_path, capsys):
    weights = tmp_path / "k400.pyth"
    paper = ["--scale", "paper", "--only", "2b/tubelet", "--out", str(tmp_path / "out")]
    for more, says in (
        (["--weights", f"mvitv2_s_k400={weights}"], f"{weights}: no such file"),
        ([], "no file is given for the weights"),
    ):
        assert ablations.main([*paper, *more]) == 2
        assert says in capsys.readouterr().err
    weights.write_bytes(b"x")
    paper += ["--weights", f"mvitv2_s_k400={weights}"]
    for more, says in (
        ([], "no folder is given for dataset 'ava': --data ava=FOLDER"),
        (["--data", "ava=/no/such/folder"], "/no/such/folder: no such data folder"),
    ):
        assert ablations.main([*paper, *more]) == 2
        assert says in capsys.readouterr().err


def test_list_shows_rows_and_makes_nothing(tmp_path, capsys):
    assert ablations.main(["--list", "--out", str(tmp_path), "--only", *TABLES]) == 0
    shown = capsys.readouterr().out
    assert all(row in shown for row in ROWS)
    assert list(tmp_path.iterdir()) == []
