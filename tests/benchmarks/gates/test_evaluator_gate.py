"""The regression gate of the evaluators: no two protocols agree on its task, and a swapped one is noticed."""

from itertools import combinations

import pytest

from benchmarks.gates import measure
from benchmarks.regression import compared, read
from evaluators.frame_map import PROTOCOL_RULES, Protocol


@pytest.fixture(scope="module")
def numbers():
    return measure.evaluators()


def test_no_two_protocols_agree_on_the_task(numbers):
    mAP = {protocol: numbers[f"evaluator/{protocol}"]["number mAP"] for protocol in Protocol}
    assert min(abs(mAP[a] - mAP[b]) for a, b in combinations(Protocol, 2)) > 1e-4


def test_the_numbers_are_the_committed_ones(numbers):
    assert [f for f in compared(read("evaluators"), numbers) if f.fails and f.what != "time_ratio"] == []


@pytest.mark.parametrize(("one", "other"), list(combinations(Protocol, 2)))
def test_two_swapped_protocols_are_a_regression_of_both(one, other, numbers, monkeypatch):
    rules = PROTOCOL_RULES[one], PROTOCOL_RULES[other]
    for protocol, swapped in zip((other, one), rules, strict=True):
        monkeypatch.setitem(PROTOCOL_RULES, protocol, swapped)
    monkeypatch.setattr(measure, "ratio", lambda timed, plain: 0.0)  # the time is not the matter here
    failed = {f.subject for f in compared(numbers, measure.evaluators()) if f.fails}
    assert failed == {f"evaluator/{one}", f"evaluator/{other}"}
