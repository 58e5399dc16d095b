import re

import numpy as np
import pandas as pd
import pytest

from reports import charts

COUNTS = {"rare": 3, "often": 90, "never": 0, "middle": 20}


def texts(figure):
    return [text.get_text() for axis in figure.axes for text in axis.texts]


def test_paired_bars_are_sorted_by_frequency_and_show_coloured_differences():
    figure = charts.per_class_ap(
        {"rare": 0.5, "often": 0.25, "never": None, "middle": 0.3},
        {"rare": 0.4, "often": 0.75, "never": None, "middle": 0.3},
        COUNTS,
        names=("a", "b"),
    )
    [axis] = figure.axes
    assert [label.get_text() for label in axis.get_xticklabels()] == ["often (90)", "middle (20)", "rare (3)"]
    assert texts(figure) == ["+50.0", "+0.0", "-10.0"]
    assert [text.get_color() for text in axis.texts] == [charts.BETTER, charts.INK, charts.WORSE]
    assert axis.get_title(loc="left") == "b is better in 1 of 3 classes, worse in 1"
    heights = [[bar.get_height() for bar in bars] for bars in axis.containers]
    assert heights == [pytest.approx([25, 30, 50]), pytest.approx([75, 30, 40])]


def test_width_grows_with_classes_and_an_empty_chart_has_a_message():
    names = [f"class {i}" for i in range(60)]
    figure = charts.per_class_ap(dict.fromkeys(names, 0.5), dict.fromkeys(names, 0.6), {}, names=("a", "b"))
    assert figure.get_figwidth() / 60 > 0.3
    empty = charts.per_class_ap({"a": None}, {"a": None}, {}, names=("a", "b"))
    assert texts(empty) == ["no class with ground truth"]


def test_the_line_joins_the_pareto_front():
    rows = pd.DataFrame(
        {"label": list("abcde"), "gflops": [10, 20, 20, 30, 40], "map": [20.0, 25, 24, 22, 30]}
    )
    figure = charts.mAP_against_gflops(rows, rows.iloc[:0], scale="tiny")
    [left] = figure.axes  # ours have no points, and no empty panel
    assert left.lines[0].get_xydata().tolist() == [[10, 20], [20, 25], [40, 30]]
    assert sorted(text.get_text() for text in left.texts) == list("abcde")


def test_labels_of_points_do_not_overlap():
    crowd = pd.DataFrame(
        {"label": [f"method {i}" for i in range(12)], "gflops": np.linspace(100, 110, 12), "map": [30.0] * 12}
    )
    figure = charts.mAP_against_gflops(crowd, crowd, scale="tiny")
    places = [(round(t.get_position()[0], 4), round(t.get_position()[1], 4)) for t in figure.axes[0].texts]
    assert len(set(places)) == 12


def test_svg_is_reproducible_with_unique_ids_and_the_pages_colour():
    def drawn(name):
        with charts.style():
            log = pd.DataFrame({"step": [1, 2], "loss": [5.0, 4.0], "val_mAP": [None, 0.25]})
            return charts.svg(charts.training_curves({"a": log}), name, 'what is "seen" <here>')

    one = drawn("x")
    assert one == drawn("x")
    assert charts.INK not in one
    assert "currentColor" in one
    ids = re.findall(r'\bid="([^"]+)"', one)
    assert all(name.startswith("x-") for name in ids)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', one)) <= set(ids)
    assert not set(ids) & set(re.findall(r'\bid="([^"]+)"', drawn("y")))
    assert 'aria-label="what is &quot;seen&quot; &lt;here&gt;"' in one


def test_charts_of_errors_actors_and_confusion_accept_missing_values():
    figure = charts.error_gains(
        {"a": {"wrong class": 0.2, "missed": float("nan")}, "b": {"wrong class": 0.1, "missed": 0.0}}
    )
    assert [[bar.get_width() for bar in bars] for bars in figure.axes[0].containers] == [
        pytest.approx([20, 10]),
        pytest.approx([0, 0]),
    ]
    nan = float("nan")
    figure = charts.actor_curves({"a": ([0.0, 0.5, 1.0], [0.5, 0.75, nan], [1.0, 0.5, 0.0])})
    assert len(figure.axes) == 3
    points = pd.DataFrame({"label": ["a", "b"], "candidates": [1.0, 2.5], "p": [0.99, 0.8]})
    [axis] = charts.twins(points, 0.1).axes
    x, law = axis.lines[0].get_data()
    assert (x[0], law[0], x[-1]) == (1, 1, pytest.approx(2.75))
    assert law[-1] == pytest.approx(1 / 1.175)
    shares = pd.DataFrame([[1.0, 0.0], [0.25, 0.75]], ["x", "y"], ["x", "y"])
    assert texts(charts.confusion(shares, "title")) == ["1.00", "0.00", "0.25", "0.75"]
