"""The display of a sweep: lines in a pipe, a table on a terminal, and the remaining time."""

import pytest

from benchmarks.context import Step
from benchmarks.sweep.display import SweepDisplay


@pytest.fixture
def display():
    return SweepDisplay({"a": "2b/tubelet", "b": "2b/c_t"}, at_once=1)


def step(number, *, loss=4.0, mAP=None):
    """A step of 200, at 0.6 seconds a step; random classes have 17.5."""
    chance = None if mAP is None else 0.175
    seconds = 0.6 * number
    return Step(number, 200, loss=loss, losses={}, lr=0.001, seconds=seconds, mAP=mAP, chance=chance)


def test_a_pipe_gets_lines_with_the_latest_numbers(display, capsys):
    display.started("a")
    display.progressed("a", step(50, loss=4.321, mAP=0.125))
    display.progressed("a", step(51, loss=4.3, mAP=0.125))
    display.finished("a")
    display.failed("b", "out of memory")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("2b/tubelet: started")
    assert lines[-1].endswith("2b/c_t: FAILED")
    assert "step 51/200, loss 4.30, val mAP 12.5, chance 17.5" in lines[-2]
    assert display.failures == {"b": "out of memory"}


def test_the_remaining_time_follows_from_the_pace(display):
    """0.6 s a step: 150 steps of one trial and 200 of the other are left, one after the other."""
    assert display.left() is None
    display.progressed("a", step(50))
    assert display.left() == pytest.approx(0.6 * (150 + 200))
    display.finished("a")
    assert display.left() == pytest.approx(0.6 * 200)


def test_the_live_table_has_a_row_for_each_trial(display):
    display.progressed("a", step(50, mAP=0.5))
    table = display.table()
    assert table.row_count == 2
    assert list(table.columns[0].cells) == ["2b/tubelet", "2b/c_t"]
    assert list(table.columns[2].cells) == ["50/200", ""]
    assert [list(column.cells) for column in table.columns[4:]] == [["50.0", ""], ["17.5", ""], ["1:30", ""]]


def test_a_quiet_display_prints_nothing_and_keeps_the_failures(capsys):
    display = SweepDisplay({"a": "2b/tubelet"}, at_once=1, quiet=True)
    with display:
        display.started("a")
        display.failed("a", "out of memory")
    assert capsys.readouterr() == ("", "")
    assert display.failures == {"a": "out of memory"}
