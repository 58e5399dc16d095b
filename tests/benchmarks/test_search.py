"""`nox -s search`: the winner it prints, and a search that resumes."""

import os
import re
import subprocess
import sys
from dataclasses import replace

import pytest

from benchmarks.experiments import OURS, ROWS, at_scale
from benchmarks.search import pasted, space_of
from tests.benchmarks.shared import CHECKOUT, TINY


def test_the_winner_is_an_experiment_to_paste():
    trial = {name: low for name, (low, _) in space_of(TINY).items()} | {"theta": 0.1, "mAP": 0.5}
    text = pasted("2b/two_c_t", TINY, trial, "tiny")
    assert text.startswith("# 2b/two_c_t at scale tiny: frame-mAP 50.0 on held-out training videos\n")
    names = {"replace": replace, "OURS": OURS, "ROWS": ROWS, "at_scale": at_scale}
    winner = {"l1": 1.0, "giou": 0.5, "actor": 0.5, "action": 1.5, "eos_coef": 0.02, "theta": 0.1}
    winner["lr"] = float(f"{TINY.lr / 4:.3g}")
    exp = eval(text.splitlines()[1], names)
    assert exp == replace(at_scale(OURS, "tiny"), **winner), "of the small model, which has its own recipe"
    paper = eval(pasted("2b/two_c_t", TINY, trial, "paper").splitlines()[1], names)
    assert paper == replace(OURS, **winner)
    tubelet = eval(pasted("2b/tubelet", TINY, trial, "tiny").splitlines()[1], names)
    assert tubelet == replace(at_scale(ROWS["2b/tubelet"], "tiny"), **winner)


@pytest.mark.slow
def test_a_search_ends_with_a_winner_and_resumes_from_its_log(smoke_data, tmp_path):
    (tmp_path / "data").symlink_to(smoke_data)

    def search(trials):
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.search", "--scale", "smoke", "--trials", str(trials),
             "--out", str(tmp_path)],
            cwd=CHECKOUT, capture_output=True, text=True, timeout=900, check=False,
            env=os.environ | {"PYTHONPATH": str(CHECKOUT)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    first = search(1)
    assert "pretraining/mvitv2_s: 2b/two_c_t is initialised from it; training it first" in first
    assert "0 trials done, 1 to run" in first
    assert len(re.findall(r"^trial \d: mAP", first, re.M)) == 1
    [log] = tmp_path.glob("search/*/trials.csv")
    one = log.read_text()
    again = search(2)
    assert "training it first" not in again
    assert "1 trials done, 1 to run" in again
    assert log.read_text().startswith(one)
    assert len(log.read_text().splitlines()) == 3
    winner = (log.parent / "winner.txt").read_text()
    assert winner in again
    best = max(float(line.rsplit(",", 1)[1]) for line in log.read_text().splitlines()[1:])
    assert f"frame-mAP {100 * best:.1f}" in winner
