"""What the regression gate measures: a heavier model, more memory, other or slower numbers are seen."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from actloc_core.backbones.factorised import factorised_tiny
from benchmarks.gates import measure
from benchmarks.gates.contract import subjects
from benchmarks.regression import compared
from evaluators.frame_map import Protocol


@pytest.mark.slow
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


@pytest.mark.slow
def test_peak_memory_is_what_one_counts_by_hand():
    """y = relu(x W^T): the product, the relu, and backward a gradient of their size, and the weight's."""
    model = nn.Sequential(nn.Linear(64, 4096, bias=False), nn.ReLU()).to("meta")
    x = torch.empty(256, 64, device="meta")
    activation, weight = 256 * 4096 * 4 / 2**20, 64 * 4096 * 4 / 2**20
    assert measure.peak_mib(model, x) == pytest.approx(3 * activation + weight, rel=0.35)
    wider = nn.Sequential(nn.Linear(64, 8192, bias=False), nn.ReLU()).to("meta")
    assert measure.peak_mib(wider, x) == pytest.approx(2 * measure.peak_mib(model, x), rel=0.01)


def test_a_shifted_class_index_is_seen_in_the_numbers_of_every_protocol(monkeypatch):
    monkeypatch.setattr(measure, "ratio", lambda timed, plain: 1.0)
    before = measure.evaluators()
    unshifted = measure.frame_mAP

    def shifted(gt, detections, classes, **rules):
        return unshifted(gt, replace(detections, label=detections.label % 10 + 1), classes, **rules)

    monkeypatch.setattr(measure, "frame_mAP", shifted)
    fails = [finding for finding in compared(before, measure.evaluators()) if finding.fails]
    assert {finding.subject for finding in fails} == {f"evaluator/{protocol}" for protocol in Protocol}
    assert "number mAP" in {finding.what for finding in fails}


def test_a_slower_evaluator_is_seen(monkeypatch):
    """By a clock of the test's own: seven turns and one to warm up, in which the plain loop takes 2 s."""
    now = 0.0
    monkeypatch.setattr(measure, "time", SimpleNamespace(perf_counter=lambda: now))

    def takes(seconds):
        nonlocal now
        now += seconds

    def ratio(seconds):
        return measure.ratio(lambda: takes(seconds), lambda: takes(2.0))

    assert ratio(3.0) == 1.5
    before, after = {"e": {"time_ratio": ratio(3.0)}}, {"e": {"time_ratio": ratio(6.0)}}
    assert [f.what for f in compared(before, after) if f.fails] == ["time_ratio"]
