"""Unusual rows: each kind is counted, whatever other kinds a row belongs to."""

from collections import Counter
from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluators import Detections, EvalRules, GroundTruth, Protocol, audit_rows
from evaluators.audit import Audit, notes

CLASSES = {1: "run", 2: "sit"}
WHOLE, LEFT = (0, 0, 1, 1), (0, 0, 0.5, 1)


def columns(rows):
    """(video, frame, box, label[, score]) as columns."""
    videos = tuple(dict.fromkeys(row[0] for row in rows))
    return (
        videos,
        np.array([videos.index(row[0]) for row in rows], dtype=int),
        np.array([row[1] for row in rows], dtype=int),
        np.array([row[2] for row in rows], dtype=float).reshape(-1, 4),
        np.array([row[3] for row in rows], dtype=int),
    )


def ground_truth(*rows):
    return GroundTruth(*columns(rows))


def detections(*rows):
    return Detections(*columns(rows), score=np.array([row[4] for row in rows], dtype=float))


def nonzero(counts):
    return {name: value for name, value in vars(counts).items() if value not in (0, ())}


GT_ROWS = (("a", 1, WHOLE, 1), ("a", 2, WHOLE, 7))


def test_usual_rows_are_not_counted():
    assert nonzero(audit_rows(ground_truth(GT_ROWS[0]), detections(("a", 1, WHOLE, 1, 0.5)), CLASSES)) == {}
    assert nonzero(audit_rows(ground_truth(), detections(), CLASSES)) == {}


def test_each_kind_of_unusual_row_is_counted():
    det = [("a", 1, WHOLE, 1, 0.5)]
    for row, expected in (
        (("a", 1, WHOLE, 7, 0.5), {"other_class_detections": 1}),
        (
            ("a", 1, WHOLE, 9, 0.5),
            {"other_class_detections": 1, "unknown_classes": 1, "unknown_class_ids": (9,)},
        ),
        (("b", 1, WHOLE, 1, 0.5), {"unknown_videos": 1, "unknown_video_names": ("b",)}),
        (("a", 3, WHOLE, 1, 0.5), {"unannotated_frames": 1}),
        (("a", 1, (1, 0, 0, 1), 1, 0.5), {"inverted_detections": 1}),
        (("a", 1, WHOLE, 1, 0.5), {"repeated_detections": 1}),
        (("a", 1, WHOLE, 1, 0.4), {}),
    ):
        counts = nonzero(audit_rows(ground_truth(*GT_ROWS), detections(*det, row), CLASSES))
        assert counts == {"other_class_ground_truth": 1, **expected}


def test_excluded_frames_are_counted_on_both_sides():
    det = detections(("a", 1, WHOLE, 1, 0.5), ("a", 1, LEFT, 1, 0.5))
    counts = audit_rows(ground_truth(*GT_ROWS), det, CLASSES, rules=EvalRules(excluded={("a", 1)}))
    assert (counts.excluded_ground_truth, counts.excluded_detections) == (1, 2)


def test_frame_is_annotated_also_by_a_class_that_is_not_evaluated():
    det = detections(("a", 2, WHOLE, 1, 0.5))
    assert audit_rows(ground_truth(*GT_ROWS), det, CLASSES).unannotated_frames == 0


def test_at_most_three_names_and_ids_are_listed():
    det = detections(*[(name, 1, WHOLE, label, 0.5) for label, name in enumerate("bcdefg", 10)])
    assert audit_rows(ground_truth(*GT_ROWS), det, CLASSES).unknown_class_ids == (10, 11, 12)
    det = detections(*[(name, 1, WHOLE, 1, 0.5) for name in "bcdefg"])
    assert audit_rows(ground_truth(*GT_ROWS), det, CLASSES).unknown_video_names == ("b", "c", "d")


def test_zero_and_negative_zero_are_equal():
    det = detections(("a", 1, (0.0, 0, 1, 1), 1, 0.0), ("a", 1, (-0.0, 0, 1, 1), 1, -0.0))
    assert audit_rows(ground_truth(*GT_ROWS), det, CLASSES).repeated_detections == 1


def test_class_id_zero_of_the_ground_truth_is_known():
    gt = ground_truth(("a", 1, WHOLE, 0), ("a", 1, WHOLE, 1))
    assert audit_rows(gt, detections(("a", 1, WHOLE, 0, 0.5)), CLASSES).unknown_classes == 0


CLEAN = Audit(0, 0, 0, (), 0, (), 0, 0, 0, 0, 0, 0)


def test_zero_counts_give_no_note():
    assert notes(CLEAN) == []
    one = replace(CLEAN, unannotated_frames=1234)
    assert notes(one) == ["detections on frames without ground truth: 1,234, scored as false positives"]


def test_notes_list_names_and_mark_that_there_may_be_more_than_three():
    """At most three are stored, so with three there may be more."""
    one = replace(CLEAN, unknown_videos=5, unknown_video_names=("b", "c"))
    assert notes(one) == [
        "detections in videos that are not in the ground truth (b, c): 5, scored as false positives"
    ]
    one = replace(one, unknown_video_names=("b", "c", "d"))
    assert "(b, c, d, ..): 5" in notes(one)[0]
    one = replace(CLEAN, unknown_classes=7, unknown_class_ids=(81, 90))
    assert notes(one) == ["of these, of classes that are not in the ground truth (81, 90): 7"]
    one = replace(one, unknown_class_ids=(81, 90, 99))
    assert "(81, 90, 99, ..): 7" in notes(one)[0]


def test_notes_say_how_each_protocol_treats_the_rows():
    one_of_each = Audit(1, 1, 1, (9,), 1, ("b",), 1, 1, 1, 1, 1, 1)
    treatments = {
        protocol: [note.rpartition(", ")[2] for note in notes(one_of_each, EvalRules(protocol))]
        for protocol in Protocol
    }
    fp, ignored, out = "scored as false positives", "not scored", "left out"
    first, alike = "only the first can be matched", "scored like any other"
    assert treatments[Protocol.STANDARD][3:] == [fp, fp, out, out, "dropped", first, alike]
    not_read = "scored: this protocol reads no exclusions"
    head = [ignored, ignored, not_read, not_read, "dropped", first, alike]
    assert treatments[Protocol.ACTIVITYNET_HEAD][3:] == head
    assert treatments[Protocol.MMACTION2][3:] == [
        ignored,
        ignored,
        "counted as missed",
        out,
        fp,
        first,
        alike,
    ]
    assert treatments[Protocol.GURKIRT][3:] == [fp, fp, out, out, fp, alike, alike]
    assert treatments[Protocol.ANNOTATED][3:] == [ignored, ignored, out, out, fp, first, alike]


few = st.tuples(
    st.sampled_from("ab"), st.integers(1, 2), st.sampled_from([WHOLE, LEFT]), st.integers(1, 3),
    st.sampled_from([0.25, 0.5]),
)  # fmt: skip


@settings(max_examples=100, deadline=None, database=None, derandomize=True)
@given(st.lists(few, max_size=40))
def test_repeated_rows_are_counted_as_with_a_dictionary(det):
    evaluated = [row for row in det if row[3] in CLASSES]
    counts = audit_rows(ground_truth(*[row[:4] for row in det]), detections(*det), CLASSES)
    assert counts.repeated_detections == sum(n - 1 for n in Counter(evaluated).values())
    assert counts.repeated_ground_truth == sum(n - 1 for n in Counter(r[:4] for r in evaluated).values())


def test_many_different_rows_have_no_repeats():
    rng = np.random.default_rng(0)
    n = 50_000
    box, ones = np.tile(WHOLE, (n, 1)), np.ones(n, int)
    det = Detections(("a",), 0 * ones, rng.integers(0, 50, n), box, ones, rng.random(n))
    assert audit_rows(ground_truth(*GT_ROWS), det, CLASSES).repeated_detections == 0
