import pytest
from benchmarks.training import Progress

from benchmarks.sweep.display import SweepDisplay


@pytest.fixture
def display():
    return SweepDisplay({"a": "2b/tubelet", "b": "2b/c_t"}, at_once=1)


def test_a_pipe_gets_lines_with_everything_known(display, capsys):
    display.started("a")
    display.progressed(
        "a", Progress(step=50, steps=200, loss=4.321, mAP=0.125, seconds=30.0, lr=0.001, losses={})
    )
    display.progressed(
        "a", Progress(step=51, steps=200, loss=4.3, mAP=0.125, seconds=30.6, lr=0.001, losses={})
    )
    display.finished("a")
    display.failed("b", "out of memory")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("2b/tubelet: starts")
    assert lines[-1].endswith("2b/c_t: FAILED")
    assert "step 51/200, loss 4.30, val mAP 12.5" in lines[-2]
    assert display.failures == {"b": "out of memory"}


def test_time_left_comes_from_the_pace(display):
    """0.6 s a step: 150 steps of the one, 200 of the other still to come, one at a time."""
    assert display.left() is None
    display.progressed(
        "a", Progress(step=50, steps=200, loss=4.0, mAP=None, seconds=30.0, lr=0.001, losses={})
    )
    assert display.left() == pytest.approx(0.6 * (150 + 200))
    display.finished("a")
    assert display.left() == pytest.approx(0.6 * 200)


def test_the_live_table_has_a_row_for_each_trial(display):
    display.progressed(
        "a", Progress(step=50, steps=200, loss=4.0, mAP=None, seconds=30.0, lr=0.001, losses={})
    )
    table = display.table()
    assert table.row_count == 2
    assert list(table.columns[0].cells) == ["2b/tubelet", "2b/c_t"]
    assert list(table.columns[2].cells) == ["50/200", ""]
    assert list(table.columns[5].cells) == ["1:30", ""]
