"""The gates themselves: each kind of regression, planted, is caught and named."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from actloc_core.backbones.factorised import factorised_tiny
from benchmarks import contract, measure, regression
from benchmarks.gates.contract import Subject, broken, subjects
from benchmarks.regression import Finding, compared, conclusions, main
from evaluators.frame_map import frame_map

BASE = {
    "backbone/a": {
        "parameters": 100,
        "gflops": 1.0,
        "peak_mib": 10.0,
        "time_ratio": 2.0,
        "mAP": 0.3,
        "mAP_std": 0.01,
    },
    "backbone/b": {"parameters": 50, "gflops": 2.0, "peak_mib": 10.0, "mAP": 0.2, "mAP_std": 0.01},
}


def but(**changes):
    return {**BASE, "backbone/a": BASE["backbone/a"] | changes}


def said(now):
    return [(finding.subject, finding.what, finding.fails) for finding in compared(BASE, now)]


def test_what_is_as_it_was_is_no_finding():
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
    ],
)
def test_what_is_worse_fails_and_what_is_better_is_told(changes, fails):
    [what] = changes
    assert said(but(**changes)) == [("backbone/a", what, fails)]


def test_a_finding_says_by_how_much():
    [finding] = compared(BASE, but(parameters=110))
    assert finding == Finding("backbone/a", "parameters", "100 -> 110 (+10.00%)", True)
    [finding] = compared(BASE, but(mAP=0.25))
    assert finding.said == "30.0 -> 25.0 mAP, noise 3.0"


def test_what_vanished_and_what_appeared_is_named():
    now = {"backbone/a": BASE["backbone/a"], "backbone/c": {"parameters": 1}}
    assert said(now) == [("backbone/b", "", True), ("backbone/c", "", True)]
    less = {k: v for k, v in BASE["backbone/a"].items() if k != "peak_mib"}
    assert said({**BASE, "backbone/a": less}) == [("backbone/a", "peak_mib", True)]
    assert said(but(new_number=1.0)) == [("backbone/a", "new_number", True)]


def test_conclusions_are_those_beyond_the_noise():
    assert conclusions(BASE) == {"backbone/a has a better mAP than backbone/b"}
    assert conclusions(but(mAP=0.22)) == set()


def test_a_dropped_test_is_caught_and_a_new_one_is_not():
    before = {"tests/test_x.py": {"tests": 3}}
    assert compared(before, {"tests/test_x.py": {"tests": 4}}) == []
    [finding] = compared(before, {"tests/test_x.py": {"tests": 2}})
    assert finding.fails
    assert finding.said == "3 -> 2 (-33.33%)"


def test_every_backbone_method_and_selection_is_a_subject():
    known = subjects()
    assert {f"backbone/{name}" for name in ("mvitv2_tiny", "hiera_h", "vit_l", "factorised_tiny")} <= set(
        known
    )
    assert {"method/two_c_t", "method/max_pooling", "method/two_stage", "method/detr"} <= set(known)
    assert [name for name, subject in known.items() if subject.trained] == [
        "backbone/factorised_tiny", "backbone/hiera_tiny", "backbone/mvitv2_tiny",
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["backbone/factorised_tiny", "backbone/mvitv2_tiny", "backbone/hiera_tiny", "method/two_c_t",
             "method/two_stage", "method/detr"]
)  # fmt: skip
def test_ours_keep_the_contract(name):
    assert broken(subjects()[name]) == {}


class Broken(nn.Module):
    """A backbone with one promise broken."""

    def __init__(self, how, **size):
        super().__init__()
        self.how, self.inner = how, factorised_tiny(**size)
        self.out_dim, self.checkpointing = self.inner.out_dim, False
        self.idle = nn.Parameter(torch.ones(1))
        if how == "a checkpoint brings it back":
            self.hidden = torch.randn(1)

    def forward(self, clip):
        out = self.inner(clip)
        if self.how != "gradients reach every parameter":
            out = out * self.idle
        if self.how == "shapes at 224, 256, other aspects and lengths":
            out = out.flatten(2, 3)
        if self.how == "a batch of one is a batch of many":
            out = out + out.mean(0, keepdim=True)
        if self.how == "the same seed, the same numbers" and not out.is_meta:
            out = out + torch.randn(1, generator=torch.Generator().manual_seed(torch.seed() % 2**31))
        if self.how == "float64 in, float64 out":
            out = out.float()
        if self.how == "torch.compile takes it whole" and not out.is_meta:
            out = out + 1 if out.sum() > 0 else out - 1
        if self.how == "a checkpoint brings it back":
            out = out + self.hidden.to(out)
        return out


@pytest.mark.parametrize(
    "promise",
    [
        "shapes at 224, 256, other aspects and lengths",
        "a batch of one is a batch of many",
        "gradients reach every parameter",
        "the same seed, the same numbers",
        "float64 in, float64 out",
        "torch.compile takes it whole",
        "a checkpoint brings it back",
    ],
)
def test_a_broken_promise_is_named(promise, monkeypatch):
    monkeypatch.setattr(contract, "Backbone", (contract.Backbone, Broken))
    subject = Subject("method/broken", lambda **size: Broken(promise, **size), True, False)
    assert promise in broken(subject)


def test_an_extra_layer_is_seen_in_parameters_gflops_and_memory(monkeypatch):
    subject = subjects()["backbone/factorised_tiny"]
    monkeypatch.setattr(measure, "time_ratio", lambda subject: 1.0)
    before = {subject.name: measure.of_model(subject)}

    def deeper(**size):
        model = factorised_tiny(**size)
        model.blocks.append(type(model.blocks[0])(64, 2, 0.0))
        return model

    after = {subject.name: measure.of_model(replace(subject, make=deeper))}
    assert [f.what for f in compared(before, after) if f.fails] == ["gflops", "parameters", "peak_mib"]


def test_peak_memory_is_what_a_hand_counts():
    """y = relu(x W^T): the product, the relu, on the way back a gradient of their size, and the weight's."""
    model = nn.Sequential(nn.Linear(64, 4096, bias=False), nn.ReLU()).to("meta")
    x = torch.empty(256, 64, device="meta")
    big, weight = 256 * 4096 * 4 / 2**20, 64 * 4096 * 4 / 2**20
    assert measure.peak_mib(model, x) == pytest.approx(3 * big + weight, rel=0.35)
    wider = nn.Sequential(nn.Linear(64, 8192, bias=False), nn.ReLU()).to("meta")
    assert measure.peak_mib(wider, x) == pytest.approx(2 * measure.peak_mib(model, x), rel=0.01)


def test_a_shifted_class_index_is_seen_in_the_evaluators_numbers(monkeypatch):
    monkeypatch.setattr(measure, "ratio", lambda timed, plain: 1.0)
    before = measure.evaluators()
    real = measure.frame_map

    def shifted(truth, found, classes, **rules):
        return real(truth, replace(found, label=found.label % 10 + 1), classes, **rules)

    monkeypatch.setattr(measure, "frame_map", shifted)
    fails = compared(before, measure.evaluators())
    assert {f.subject for f in fails} == {
        f"evaluator/{p}" for p in ("standard", "slowfast", "gurkirt", "act", "multisports")
    }
    assert "number mAP" in {f.what for f in fails}


def test_a_slower_evaluator_is_seen(monkeypatch):
    truth, found, _ = measure.task(60)
    classes = {i: str(i) for i in range(1, 11)}

    def ratio(times):
        return measure.ratio(
            lambda: [frame_map(truth, found, classes) for _ in range(times)],
            lambda: measure._plain_ious(truth, found),
        )

    before, after = {"e": {"time_ratio": ratio(1)}}, {"e": {"time_ratio": ratio(20)}}
    assert [f.what for f in compared(before, after) if f.fails] == ["time_ratio"]


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
    assert main(["--no-training"]) == 0
    assert main(["--backbone", "no_such"]) == 2
    assert "there are factorised_tiny" in capsys.readouterr().err


def test_one_backbone_alone_updates_its_own_baseline_and_no_other(quick):
    quick.folder.mkdir()
    (quick.folder / "models.json").write_text(json.dumps(BASE))
    assert main(["--backbone", "factorised_tiny", "--update"]) == 0
    after = json.loads((quick.folder / "models.json").read_text())
    assert {"backbone/a", "backbone/b", "backbone/factorised_tiny"} == set(after)
    assert not (quick.folder / "tests.json").exists()


def test_an_update_says_which_conclusions_change(quick, capsys):
    quick.folder.mkdir()
    old = {"backbone/factorised_tiny": BASE["backbone/a"] | {"mAP": 0.1}, "backbone/b": BASE["backbone/b"]}
    (quick.folder / "models.json").write_text(json.dumps(old))
    main(["--backbone", "factorised_tiny", "--update"])
    text = capsys.readouterr().out
    assert "no longer: backbone/b has a better mAP than backbone/factorised_tiny" in text
    assert "new: backbone/factorised_tiny has a better mAP than backbone/b" in text
