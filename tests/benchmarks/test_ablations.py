"""The command as a user runs it, from a checkout, in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import ablations
from benchmarks.experiments import ROWS, at_scale

CHECKOUT = Path(__file__).resolve().parents[2]


def command(module, *args, out):
    return subprocess.run(
        [sys.executable, "-m", module, "--scale", "smoke", "--out", str(out), *args],
        cwd=CHECKOUT, capture_output=True, text=True, env=os.environ, timeout=280, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("out with spaces")


@pytest.fixture(scope="module")
def first(out):
    return command("benchmarks.ablations", "--only", "2a", "2b/two_c_t", out=out)


def test_the_rehearsal_runs_every_chosen_row_once(first, out):
    """Three rows of two tables, two of them the same run."""
    assert first.returncode == 0, first.stderr
    runs = sorted(p.name for p in (out / "runs").iterdir())
    assert runs == sorted({at_scale(ROWS[r], "smoke").hash for r in ("2a/256_8", "2a/256_16")})
    assert "2a/256_16 = 2b/two_c_t" in first.stdout
    assert "2 of 2 runs have a result" in first.stdout
    assert "done" in first.stdout
    for run in runs:
        result = json.loads((out / "runs" / run / "result.json").read_text())
        assert result["mAP"] >= 0
        assert result["experiment"]["dataset"] == "synthetic_ava_smoke"


def test_the_tables_show_them(first, out):
    shown = command("reports", out=out)
    assert shown.returncode == 0, shown.stderr
    assert "| 2(C+T) " in shown.stdout
    assert "not run" in shown.stdout, "the rows that were not chosen"
    assert (out / "report" / "table_2b.csv").read_text().startswith("method,")
    assert (out / "report" / "table_2b.md").read_text() in shown.stdout + "\n"


def test_a_second_call_keeps_what_is_done(first, out):
    before = {p: p.stat().st_mtime_ns for p in (out / "runs").rglob("*")}
    again = command("benchmarks.ablations", "--only", "2a", out=out)
    assert again.returncode == 0
    assert again.stdout.count("done before, kept") == 2
    assert "starting Ray" not in again.stdout
    assert {p: p.stat().st_mtime_ns for p in (out / "runs").rglob("*")} == before


def test_why_a_run_is_due(first, out):
    folder = out / "runs" / ROWS["2a/256_8"].hash
    done = out / "runs" / at_scale(ROWS["2a/256_8"], "smoke").hash
    fingerprint = json.loads((done / "result.json").read_text())["data_fingerprint"]
    assert ablations.why_run(folder, "x", fresh=False) == "new"
    assert ablations.why_run(done, fingerprint, fresh=False) is None
    assert ablations.why_run(done, fingerprint, fresh=True) == "asked to run it afresh"
    assert ablations.why_run(done, "another", fresh=False) == "the data changed"


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--only", "2b/tublet"], "no experiment is called '2b/tublet'; nearest: 2b/tubelet"),
        (["--scale", "paper"], "no folder is given for dataset 'ava': --data ava=FOLDER"),
        (["--scale", "paper", "--data", "ava=/no/such/folder"], "/no/such/folder: no such data folder"),
        (["--scale", "paper", "--data", "/data/ava"], "write NAME=FOLDER"),
        (["--scale", "paper", "--data", "av=/data"], "no chosen row uses it; they use ava"),
    ],
)
def test_bad_input_ends_before_any_training(args, says, tmp_path, capsys):
    assert ablations.main([*args, "--out", str(tmp_path)]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_list_shows_rows_and_makes_nothing(tmp_path, capsys):
    assert ablations.main(["--list", "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert all(row in shown for row in ROWS)
    assert list(tmp_path.iterdir()) == []
