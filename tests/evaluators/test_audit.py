"""The odd rows: counted one by one, whatever else is wrong with them."""

from collections import Counter
from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluators import Detections, GroundTruth, Protocol, audit
from evaluators.audit import Audit, notes

CLASSES = {1: "run", 2: "sit"}
WHOLE, LEFT = (0, 0, 1, 1), (0, 0, 0.5, 1)


def rows(told):
    """(video, frame, box, label[, score]) as columns."""
    videos = tuple(dict.fromkeys(row[0] for row in told))
    columns = (
        videos,
        np.array([videos.index(row[0]) for row in told], dtype=int),
        np.array([row[1] for row in told], dtype=int),
        np.array([row[2] for row in told], dtype=float).reshape(-1, 4),
        np.array([row[3] for row in told], dtype=int),
    )
    return columns


def truth(*told):
    return GroundTruth(*rows(told))


def found(*told):
    return Detections(*rows(told), score=np.array([row[4] for row in told], dtype=float))


def odd(counts):
    return {name: value for name, value in vars(counts).items() if value not in (0, ())}


THERE = (("a", 1, WHOLE, 1), ("a", 2, WHOLE, 7))


def test_nothing_odd():
    assert odd(audit(truth(THERE[0]), found(("a", 1, WHOLE, 1, 0.5)), CLASSES)) == {}
    assert odd(audit(truth(), found(), CLASSES)) == {}


def test_each_oddity_is_counted():
    seen = [("a", 1, WHOLE, 1, 0.5)]
    for row, expected in (
        (("a", 1, WHOLE, 7, 0.5), {"other_classes_found": 1}),
        (
            ("a", 1, WHOLE, 9, 0.5),
            {"other_classes_found": 1, "unknown_classes": 1, "unknown_class_ids": (9,)},
        ),
        (("b", 1, WHOLE, 1, 0.5), {"unknown_videos": 1, "unknown_video_names": ("b",)}),
        (("a", 3, WHOLE, 1, 0.5), {"unannotated_frames": 1}),
        (("a", 1, (1, 0, 0, 1), 1, 0.5), {"inside_out": 1}),
        (("a", 1, WHOLE, 1, 0.5), {"duplicate_found": 1}),
        (("a", 1, WHOLE, 1, 0.4), {}),
    ):
        counts = odd(audit(truth(*THERE), found(*seen, row), CLASSES))
        assert counts == {"other_classes_truth": 1, **expected}


def test_excluded_frames_are_counted_on_both_sides():
    seen = found(("a", 1, WHOLE, 1, 0.5), ("a", 1, LEFT, 1, 0.5))
    counts = audit(truth(*THERE), seen, CLASSES, excluded={("a", 1)})
    assert (counts.excluded_truth, counts.excluded_found) == (1, 2)


def test_a_frame_is_annotated_also_by_a_class_that_is_not_evaluated():
    assert audit(truth(*THERE), found(("a", 2, WHOLE, 1, 0.5)), CLASSES).unannotated_frames == 0


def test_three_names_are_enough():
    seen = found(*[(name, 1, WHOLE, label, 0.5) for label, name in enumerate("bcdefg", 10)])
    assert audit(truth(*THERE), seen, CLASSES).unknown_class_ids == (10, 11, 12)
    seen = found(*[(name, 1, WHOLE, 1, 0.5) for name in "bcdefg"])
    assert audit(truth(*THERE), seen, CLASSES).unknown_video_names == ("b", "c", "d")


def test_nought_is_nought_whatever_its_sign():
    seen = found(("a", 1, (0.0, 0, 1, 1), 1, 0.0), ("a", 1, (-0.0, 0, 1, 1), 1, -0.0))
    assert audit(truth(*THERE), seen, CLASSES).duplicate_found == 1


def test_the_first_class_of_the_ground_truth_is_as_known_as_the_others():
    there = truth(("a", 1, WHOLE, 0), ("a", 1, WHOLE, 1))
    assert audit(there, found(("a", 1, WHOLE, 0, 0.5)), CLASSES).unknown_classes == 0


CLEAN = Audit(0, 0, 0, (), 0, (), 0, 0, 0, 0, 0, 0)


def test_what_is_not_odd_is_not_spoken_of():
    assert notes(CLEAN, "standard") == []
    one = replace(CLEAN, unannotated_frames=1234)
    assert notes(one, "standard") == [
        "detections on frames without ground truth: 1,234, scored as false positives"
    ]


def test_names_are_listed_and_the_third_is_not_the_last():
    """At most three are kept, so behind three there may be more."""
    one = replace(CLEAN, unknown_videos=5, unknown_video_names=("b", "c"))
    assert notes(one, "standard") == [
        "detections in videos the ground truth has not (b, c): 5, scored as false positives"
    ]
    one = replace(one, unknown_video_names=("b", "c", "d"))
    assert "(b, c, d, ..): 5" in notes(one, "standard")[0]
    one = replace(CLEAN, unknown_classes=7, unknown_class_ids=(81, 90))
    assert notes(one, "standard") == ["among these, of classes the ground truth has not either (81, 90): 7"]
    one = replace(one, unknown_class_ids=(81, 90, 99))
    assert "(81, 90, 99, ..): 7" in notes(one, "standard")[0]


def test_what_becomes_of_odd_rows_is_the_protocols_word():
    every = Audit(1, 1, 1, (9,), 1, ("b",), 1, 1, 1, 1, 1, 1)
    told = {protocol: [note.rpartition(", ")[2] for note in notes(every, protocol)] for protocol in Protocol}
    false, ignored, out = "scored as false positives", "not scored", "left out"
    only, like = "only the first is ever a target", "scored like any other"
    assert told[Protocol.STANDARD][3:] == [false, false, out, out, "dropped", only, like]
    unread = "scored: this protocol reads no exclusions"
    assert told[Protocol.ACTIVITYNET_HEAD][3:] == [ignored, ignored, unread, unread, "dropped", only, like]
    assert told[Protocol.GURKIRT][3:] == [false, false, out, out, false, like, like]
    assert told[Protocol.ANNOTATED][3:] == [ignored, ignored, out, out, false, only, like]


few = st.tuples(
    st.sampled_from("ab"), st.integers(1, 2), st.sampled_from([WHOLE, LEFT]), st.integers(1, 3),
    st.sampled_from([0.25, 0.5]),
)  # fmt: skip


@settings(max_examples=100, deadline=None, database=None, derandomize=True)
@given(st.lists(few, max_size=40))
def test_repeats_are_counted_as_a_dictionary_would(seen):
    evaluated = [row for row in seen if row[3] in CLASSES]
    expected = sum(n - 1 for n in Counter(evaluated).values())
    assert audit(truth(*[row[:4] for row in seen]), found(*seen), CLASSES).duplicate_found == expected
    expected = sum(n - 1 for n in Counter(row[:4] for row in evaluated).values())
    assert audit(truth(*[row[:4] for row in seen]), found(*seen), CLASSES).duplicate_truth == expected


def test_many_rows_that_are_all_different():
    rng = np.random.default_rng(0)
    n = 50_000
    box, ones = np.tile(WHOLE, (n, 1)), np.ones(n, int)
    seen = Detections(("a",), 0 * ones, rng.integers(0, 50, n), box, ones, rng.random(n))
    assert audit(truth(*THERE), seen, CLASSES).duplicate_found == 0
