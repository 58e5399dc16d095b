"""A dry run of a row that cannot run here: it says why, before any training."""

import queue
from dataclasses import asdict, replace

import pytest

from benchmarks.gates import dry_run as module
from benchmarks.gates.dry_run import Findings, dry_run
from tests.benchmarks.shared import TINY

pytestmark = pytest.mark.slow


@pytest.fixture
def in_this_process(monkeypatch):
    """A row's process is this one: that starts no interpreter."""

    def run(exp, as_one):
        reports = queue.Queue()
        module._run(asdict(exp), as_one, reports)
        return Findings(**list(reports.queue)[-1])

    monkeypatch.setattr(module, "_in_own_process", run)


def test_a_batch_too_large_for_memory_is_predicted_from_two_clips(
    small_benchmark, in_this_process, monkeypatch, capsys
):
    """On a machine with 1000 bytes: the whole batch takes no step."""
    monkeypatch.setattr(module, "_free", lambda device: 1000.0)
    assert not dry_run({TINY.hash: TINY}, {TINY.hash: "a row"}, {TINY.dataset: small_benchmark}, {})
    printed = capsys.readouterr()
    assert "cannot run: a row: a batch of 16 clips needs about" in printed.err
    assert "this cpu has 0.0 GiB" in printed.err
    assert "a clip" in printed.out


def test_a_batch_of_more_clips_than_there_are_is_reported(small_benchmark, in_this_process, capsys):
    row = replace(TINY, batch=10**7)
    assert not dry_run({row.hash: row}, {row.hash: "a row"}, {row.dataset: small_benchmark}, {})
    assert "training clips do not fill one batch of 10000000" in capsys.readouterr().err


def test_a_row_that_raises_is_reported_with_its_error(small_benchmark, in_this_process, capsys):
    row = replace(TINY, backbone="mvitv9")
    assert not dry_run({row.hash: row}, {row.hash: "a row"}, {row.dataset: small_benchmark}, {})
    assert "has no 'mvitv9'" in capsys.readouterr().err


def test_a_row_that_runs_is_reported_with_what_it_takes(small_benchmark, capsys):
    assert dry_run({TINY.hash: TINY}, {TINY.hash: "a row"}, {TINY.dataset: small_benchmark}, {})
    printed = capsys.readouterr()
    [line] = [line for line in printed.out.splitlines() if "│" in line and "a row" in line]
    assert line.split("│")[-2].strip() == "yes"
    assert "device s/step" in printed.out
    assert "loader s/step" in printed.out
    assert "read by itself, before the step" in printed.out.replace("\n", " ")
    assert printed.err == ""


def test_a_process_of_four_has_a_quarter_of_the_batch(small_benchmark, in_this_process, capsys):
    row = replace(TINY, batch=8)
    how = {"processes": 4, "workers": 1}
    assert dry_run({row.hash: row}, {row.hash: "a row"}, {row.dataset: small_benchmark}, {}, **how)
    text = capsys.readouterr().out.replace("\n", " ")
    assert "update of each of 4 processes, of its part of the batch" in text
    assert "read by 1 loader processes, beside it" in text
    row = replace(TINY, batch=6)
    assert not dry_run({row.hash: row}, {row.hash: "a row"}, {row.dataset: small_benchmark}, {}, **how)
    assert "a batch of 6 clips cannot be shared evenly by 4 processes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("step", "loader", "workers", "hours", "advice"),
    [
        (1.0, 4.0, 2, 400, "the loader is 4.0 times slower than the device; --workers 8 would feed it"),
        (1.0, 0.5, 2, 100, ""),
        (1.0, 1.0, 0, 200, "50% of the time it reads clips; --workers 1 would do that beside it"),
        (10.0, 0.5, 0, 1050, ""),
    ],
)
def test_the_slower_of_device_and_loader_decides(step, loader, workers, hours, advice):
    """360,000 steps, which are 100 hours where one takes a second, and no evaluation to speak of."""
    f = Findings(
        step_seconds=step, loader_seconds=loader, workers=workers, steps=360_000,
        clip_evaluation_seconds=0.0, clips=1,
    )  # fmt: skip
    assert f.hours == pytest.approx(hours)
    assert f.advice == advice
