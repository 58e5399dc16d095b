"""The regression gate: what is worse than its baseline is a finding, and the command says so."""

import json
from types import SimpleNamespace

import pytest

from benchmarks import regression
from benchmarks.gates import contract, measure
from benchmarks.gates.contract import subjects
from benchmarks.regression import Finding, compared, conclusions, main, without_effect

BASE = {
    "backbone/a": {
        "parameters": 100,
        "gflops": 1.0,
        "peak_mib": 10.0,
        "time_ratio": 2.0,
        "clip_mAP": 0.5,
        "clip_mAP_std": 0.02,
        "mAP": 0.3,
        "mAP_std": 0.01,
    },
    "backbone/b": {"parameters": 50, "gflops": 2.0, "peak_mib": 10.0, "mAP": 0.2, "mAP_std": 0.01},
}


def but(**changes):
    return {**BASE, "backbone/a": BASE["backbone/a"] | changes}


def findings(now):
    return [(finding.subject, finding.what, finding.fails) for finding in compared(BASE, now)]


def test_numbers_within_the_gates_are_no_finding():
    assert compared(BASE, BASE) == []
    assert compared(BASE, but(gflops=1.0009, peak_mib=10.1, time_ratio=3.0, mAP=0.275)) == []


@pytest.mark.parametrize(
    ("changes", "fails"),
    [
        ({"parameters": 101}, True),
        ({"parameters": 99}, True),
        ({"gflops": 1.002}, True),
        ({"gflops": 0.998}, True),
        ({"peak_mib": 10.5}, True),
        ({"peak_mib": 9.0}, False),
        ({"time_ratio": 3.3}, True),
        ({"time_ratio": 0.5}, False),
        ({"mAP": 0.269}, True),
        ({"mAP": 0.331}, False),
        ({"clip_mAP": 0.43}, True),
        ({"clip_mAP": 0.57}, False),
    ],
)
def test_worse_numbers_fail_and_better_ones_are_noted(changes, fails):
    [what] = changes
    assert findings(but(**changes)) == [("backbone/a", what, fails)]


def test_a_finding_states_both_numbers_and_their_difference():
    [finding] = compared(BASE, but(parameters=110))
    assert finding == Finding("backbone/a", "parameters", "100 -> 110 (+10.00%)", True)
    [finding] = compared(BASE, but(mAP=0.25))
    assert finding.text == "30.0 -> 25.0 mAP, noise 3.0"


def test_subjects_and_numbers_that_vanish_or_appear_fail():
    now = {"backbone/a": BASE["backbone/a"], "backbone/c": {"parameters": 1}}
    assert findings(now) == [("backbone/b", "", True), ("backbone/c", "", True)]
    less = {k: v for k, v in BASE["backbone/a"].items() if k != "peak_mib"}
    assert findings({**BASE, "backbone/a": less}) == [("backbone/a", "peak_mib", True)]
    assert findings(but(new_number=1.0)) == [("backbone/a", "new_number", True)]


def test_conclusions_are_differences_beyond_the_noise():
    assert conclusions(BASE) == {"backbone/a has a better mAP than backbone/b"}
    assert conclusions(but(mAP=0.22)) == set()


def test_an_mAP_within_its_noise_is_named_for_it_gates_nothing():
    assert without_effect(BASE) == []
    [weak] = without_effect(but(clip_mAP_std=0.17))
    assert weak == "backbone/a: clip_mAP 50.0 is within its noise, 51.0: nothing can fail this gate"


def test_a_dropped_test_fails_and_a_new_one_does_not():
    before = {"tests/test_x.py": {"tests": 3}}
    assert compared(before, {"tests/test_x.py": {"tests": 4}}) == []
    [finding] = compared(before, {"tests/test_x.py": {"tests": 2}})
    assert finding.fails
    assert finding.text == "3 -> 2 (-33.33%)"


@pytest.fixture
def quick(monkeypatch, tmp_path):
    """The command with one subject, and with its baselines elsewhere."""
    subject = subjects()["backbone/factorised_tiny"]
    monkeypatch.setattr(regression, "BASELINES", tmp_path / "baselines")
    monkeypatch.setattr(contract, "subjects", lambda: {subject.name: subject})
    monkeypatch.setattr(contract, "broken", lambda subject: {})
    scores = {"next": 0.30}
    monkeypatch.setattr(
        measure,
        "trained",
        lambda subject, out, seeds: {"mAP": scores["next"]} | ({"mAP_std": 0.01} if seeds > 1 else {}),
    )
    monkeypatch.setattr(measure, "time_ratio", lambda subject: 1.0)
    monkeypatch.setattr(measure, "evaluators", lambda: {"evaluator/standard": {"number mAP": 0.5}})
    monkeypatch.setattr(regression, "collected_tests", lambda: {"tests/test_x.py": {"tests": 3}})
    return SimpleNamespace(scores=scores, folder=tmp_path / "baselines")


@pytest.mark.slow
def test_the_command_from_no_baseline_to_a_regression(quick, capsys):
    assert main([]) == 1
    assert "backbone/factorised_tiny : has appeared and has no baseline" in capsys.readouterr().out
    assert main(["--update"]) == 0
    assert (
        json.loads((quick.folder / "models.json").read_text())["backbone/factorised_tiny"]["mAP_std"] == 0.01
    )
    capsys.readouterr()
    assert main([]) == 0
    assert "no regression" in capsys.readouterr().out
    quick.scores["next"] = 0.2
    assert main([]) == 1
    assert "FAILS backbone/factorised_tiny mAP: 30.0 -> 20.0 mAP, noise 3.0" in capsys.readouterr().out
    capsys.readouterr()
    assert main(["--no-training", "--quiet"]) == 0
    assert capsys.readouterr().out == "no regression\n"
    with pytest.raises(ValueError, match="unknown backbone 'no_such'; known are factorised_tiny"):
        main(["--backbone", "no_such"])


def test_updating_one_backbone_keeps_the_other_baselines(quick):
    quick.folder.mkdir()
    (quick.folder / "models.json").write_text(json.dumps(BASE))
    assert main(["--backbone", "factorised_tiny", "--update"]) == 0
    after = json.loads((quick.folder / "models.json").read_text())
    assert {"backbone/a", "backbone/b", "backbone/factorised_tiny"} == set(after)
    assert not (quick.folder / "tests.json").exists()


def test_an_update_prints_the_conclusions_that_change(quick, capsys):
    quick.folder.mkdir()
    old = {"backbone/factorised_tiny": BASE["backbone/a"] | {"mAP": 0.1}, "backbone/b": BASE["backbone/b"]}
    (quick.folder / "models.json").write_text(json.dumps(old))
    main(["--backbone", "factorised_tiny", "--update"])
    text = capsys.readouterr().out
    assert "no longer: backbone/b has a better mAP than backbone/factorised_tiny" in text
    assert "new: backbone/factorised_tiny has a better mAP than backbone/b" in text
