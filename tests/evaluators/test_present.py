"""Summaries and plots of every result."""

import html
import io

import numpy as np
import pytest

from evaluators import (
    Detections,
    EvalRules,
    GroundTruth,
    GroundTruthTubes,
    actor_curve,
    actor_precision_recall,
    compare,
    error_budget,
    frame_mAP,
    intervals,
    plot,
    summarise,
    video_mAP,
)
from tests.evaluators.shared import run_program

CLASSES = {1: "run", 2: "sit", 3: "fly"}
N = 40
COLUMNS = (
    ("a", "b"),
    np.arange(N) % 2,
    np.arange(N) // 2,
    np.tile([0.0, 0, 1, 1], (N, 1)),
    np.arange(N) // 2 % 2 + 1,
)
GROUND_TRUTH = GroundTruth(*COLUMNS)
TUBES = GroundTruthTubes(*COLUMNS, COLUMNS[1] * 10 + COLUMNS[4])
DETECTIONS = Detections(*COLUMNS, np.linspace(0.2, 0.9, N))
WORSE = Detections(*COLUMNS[:4], COLUMNS[4] % 3 + 1, np.linspace(0.2, 0.9, N))
NO_DETECTIONS = Detections((), *(np.zeros(0, int),) * 2, np.zeros((0, 4)), np.zeros(0, int), np.zeros(0))

RESULTS = {
    "frame_map": frame_mAP(GROUND_TRUTH, DETECTIONS, CLASSES),
    "another protocol": frame_mAP(
        GROUND_TRUTH, DETECTIONS, CLASSES, rules=EvalRules("annotated", plus_one=True)
    ),
    "no detections": frame_mAP(GROUND_TRUTH, NO_DETECTIONS, {3: "fly"}),
    "video_map": video_mAP(TUBES, DETECTIONS, CLASSES),
    "video_map at one threshold": video_mAP(TUBES, DETECTIONS, CLASSES, thresholds=(0.3,)),
    "actors": actor_precision_recall(GROUND_TRUTH, DETECTIONS, CLASSES),
    "actors without detections": actor_precision_recall(GROUND_TRUTH, NO_DETECTIONS, CLASSES),
    "curve": actor_curve(GROUND_TRUTH, DETECTIONS, CLASSES),
    "curve without detections": actor_curve(GROUND_TRUTH, NO_DETECTIONS, CLASSES),
    "intervals": intervals(GROUND_TRUTH, DETECTIONS, CLASSES),
    "compare": compare(GROUND_TRUTH, (DETECTIONS, WORSE), CLASSES),
    "errors": error_budget(GROUND_TRUTH, WORSE, CLASSES),
    "errors without detections": error_budget(GROUND_TRUTH, NO_DETECTIONS, CLASSES),
}


@pytest.mark.parametrize("name", RESULTS)
def test_every_result_has_a_summary_and_a_plot(name):
    text = summarise(RESULTS[name])
    assert text == text.strip("\n")
    assert "nan" not in text
    figure = plot(RESULTS[name])
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=30)
    assert image.getvalue().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("frame_map", "frame-mAP 100.00 %   (protocol standard, IoU 0.5, mean of 2 classes)"),
        ("another protocol", "(protocol annotated with +1 pixel, IoU 0.5, mean of 2 classes)"),
        ("no detections", "frame-mAP - %"),
        # The annotated frames are ten of nineteen: 10/19 reaches 0.5 and not 0.55.
        ("video_map", "video-mAP @0.2 66.67   @0.5 66.67   @0.75 0.00   @0.5:0.95 6.67 %   (protocol act"),
        ("video_map at one threshold", "video-mAP @0.3 66.67 %"),
        ("actors", "actors at theta 0.2: precision 100.00 %, recall 97.50 %"),
        ("actors without detections", "precision - %, recall 0.00 %"),
        ("curve", "  0.2000     100.00      97.50"),
        ("intervals", "frame-mAP, 95 % interval: 15.81 to 100.00   (jackknife over 2 videos)\nnote"),
        ("compare", "100.00 -> 0.00 %   (protocol standard, IoU 0.5)\ndifference -100.00, 95 % interval"),
        ("errors", "  wrong class  +100.00 mAP            40 detections\n"),
        ("errors without detections", "  missed             - mAP            40 ground-truth boxes"),
    ],
)  # fmt: skip
def test_summary_texts(name, expected):
    assert expected in summarise(RESULTS[name])


def test_other_objects_are_refused():
    for verb in (summarise, plot):
        with pytest.raises(TypeError, match="int is not a result of an evaluator"):
            verb(7)


def test_plot_needs_no_display_and_does_not_import_pyplot():
    done = run_program("plot_without_pyplot.py")
    assert (done.returncode, done.stdout, done.stderr) == (0, "False False\n", "")


# --- in a notebook -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RESULTS)
def test_every_result_is_a_frame_and_shown_as_html(name):
    result = RESULTS[name]
    frame, shown = result.to_frame(), result._repr_html_()
    assert list(frame.columns)
    assert f"<th>{frame.index.name}</th>" in shown
    assert shown.count("<tr>") == 1 + len(frame)
    assert html.escape(summarise(result)) in shown
    assert "nan" not in shown


def test_frames_hold_the_numbers_of_the_result():
    frame = RESULTS["intervals"].to_frame()
    assert list(frame.columns) == ["class", "AP", "low", "high", "videos"]
    assert frame.loc[1].tolist() == ["run", 1, pytest.approx(0.025 ** (1 / 2)), 1, 2]
    assert frame.loc[3, ["AP", "low", "high"]].isna().all()
    frame = RESULTS["compare"].to_frame()
    assert frame.loc[2, "difference"] == -1
    assert frame.loc[2, "p_value"] == 0.5
    frame = RESULTS["video_map"].to_frame()
    assert frame.loc[0.5, ["mAP", "run", "fly"]].tolist() == [pytest.approx(2 / 3), 1, 0]
    assert RESULTS["errors"].to_frame().loc["wrong class"].tolist() == [1, 40]
    assert RESULTS["actors"].to_frame().loc[0.2, "recall"] == 0.975


def test_html_is_in_per_cent_escaped_and_of_a_hundred_rows():
    score = frame_mAP(GROUND_TRUTH, DETECTIONS, {1: "<b>run</b> & jump", 3: "fly"})
    shown = score._repr_html_()
    assert "<td>&lt;b&gt;run&lt;/b&gt; &amp; jump</td><td>100.00</td>" in shown
    assert "<td>fly</td><td>-</td>" in shown
    many = Detections(
        *(column.repeat(9, 0) if i else column for i, column in enumerate(COLUMNS)), np.linspace(0, 1, 9 * N)
    )
    curve = actor_curve(GROUND_TRUTH, many, CLASSES)
    assert len(curve.theta) > 300
    assert curve._repr_html_().count("<tr>") == 101
    assert f".. and {len(curve.theta) - 100:,} more" in curve._repr_html_()


def test_figures_show_themselves_without_pyplot():
    assert plot(RESULTS["frame_map"])._repr_png_().startswith(b"\x89PNG")
