"""A dry run of a row that cannot run here: it says why, before any training."""

import queue
from dataclasses import asdict, replace

import pytest

from benchmarks.gates import dry_run as module
from benchmarks.gates.dry_run import Findings, dry_run
from tests.benchmarks.shared import TINY

pytestmark = pytest.mark.slow


def test_a_batch_too_large_for_memory_is_predicted_from_two_clips(small_benchmark, monkeypatch, capsys):
    """On a machine with 1000 bytes: the whole batch takes no step."""

    def in_this_process(exp, roots, weights, device):
        reports = queue.Queue()
        module._run(asdict(exp), dict(roots), dict(weights), device, reports)
        return Findings(**list(reports.queue)[-1])

    monkeypatch.setattr(module, "_in_own_process", in_this_process)
    monkeypatch.setattr(module, "_free", lambda device: 1000.0)
    assert not dry_run({TINY.hash: TINY}, {TINY.hash: "a row"}, {TINY.dataset: small_benchmark}, {})
    printed = capsys.readouterr()
    assert "cannot run: a row: a batch of 16 clips needs about" in printed.err
    assert "this cpu has 0.0 GiB" in printed.err
    assert "a clip" in printed.out


def test_a_batch_of_more_clips_than_there_are_is_reported(small_benchmark, capsys):
    row = replace(TINY, batch=10**7)
    assert not dry_run({row.hash: row}, {row.hash: "a row"}, {row.dataset: small_benchmark}, {})
    assert "training clips do not fill one batch of 10000000" in capsys.readouterr().err


def test_a_row_that_raises_is_reported_with_its_error(small_benchmark, capsys):
    row = replace(TINY, backbone="mvitv9")
    assert not dry_run({row.hash: row}, {row.hash: "a row"}, {row.dataset: small_benchmark}, {})
    assert "has no 'mvitv9'" in capsys.readouterr().err


def test_a_row_that_runs_is_reported_with_what_it_takes(small_benchmark, capsys):
    assert dry_run({TINY.hash: TINY}, {TINY.hash: "a row"}, {TINY.dataset: small_benchmark}, {})
    printed = capsys.readouterr()
    [line] = [line for line in printed.out.splitlines() if "│" in line and "a row" in line]
    assert line.split("│")[-2].strip() == "yes"
    assert "step s" in printed.out
    assert printed.err == ""
