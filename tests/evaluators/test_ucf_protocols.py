"""UCF101-24's and JHMDB's frame-mAP: METRICS.md's table told as stories, a slow second opinion, laws."""

import math
import random
from collections import defaultdict
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluators import UCF_PROTOCOLS, Detections, GroundTruth, frame_map

CLASSES = {0: "Basketball", 1: "Biking", 2: "Diving"}
BIG, HALF, SMALL = (0, 0, 100, 100), (0, 0, 50, 100), (0, 0, 10, 10)
INSIDE_OUT = (100, 0, 0, 100)
VIDEOS = ("a", "b")


def truth(*told):
    """From (frame, box, label) in video a; a frame of 1000 or more is in video b."""
    return GroundTruth(*columns(told))


def found(*told):
    return Detections(*columns(told), score=np.array([row[3] for row in told], dtype=float))


def columns(told):
    frame = np.array([row[0] for row in told], dtype=int)
    box = np.array([row[1] for row in told], dtype=float).reshape(-1, 4)
    return VIDEOS, frame // 1000, frame, box, np.array([row[2] for row in told], dtype=int)


def ap(there, seen, protocol, label=0, **rules):
    return frame_map(there, seen, CLASSES, protocol=protocol, **rules).ap[label]


# --- what sets the four apart --------------------------------------------------------------------


def test_a_second_best_box_is_tried_where_the_best_is_taken():
    # Both overlap BIG most. HALF, overlapped by 1/2 and by 50/90, is free for the second.
    there = truth((1, BIG, 0), (1, HALF, 0))
    seen = found((1, BIG, 0, 0.9), (1, (0, 0, 90, 100), 0, 0.8))
    assert ap(there, seen, "gurkirt") == 1
    assert ap(there, seen, "act") == pytest.approx(1)
    assert ap(there, seen, "multisports") == 1 / 2
    assert ap(there, seen, "annotated") == 1 / 2


def test_of_two_equal_boxes_each_can_be_found_where_boxes_are_used_up():
    there = truth((1, BIG, 0), (1, BIG, 0))
    seen = found((1, BIG, 0, 0.9), (1, BIG, 0, 0.8))
    assert [ap(there, seen, protocol) for protocol in UCF_PROTOCOLS] == [1, 1, 1 / 2, 1 / 2]


def test_a_third_detection_of_two_people_is_false_everywhere():
    there = truth((1, BIG, 0), (1, BIG, 0), (2, BIG, 0))
    seen = found(*[(1, BIG, 0, score) for score in (0.9, 0.8, 0.7)], (2, BIG, 0, 0.6))
    assert ap(there, seen, "gurkirt") == pytest.approx(1 / 3 + 1 / 3 + 1 / 3 * 3 / 4)


def test_act_counts_a_pixel_more_and_yowo_is_an_option():
    # 10 x 10 against 10 x 4 pixels is 40/100; with a pixel more each way it is 55/121.
    there, seen = truth((1, SMALL, 0)), found((1, (0, 0, 10, 4), 0, 0.9))
    for protocol in UCF_PROTOCOLS:
        assert ap(there, seen, protocol, iou=0.4) == 1
        assert ap(there, seen, protocol, iou=55 / 121) == (protocol == "act")
    assert ap(there, seen, "annotated", iou=55 / 121, plus_one=True) == 1
    assert ap(there, seen, "annotated", iou=0.46, plus_one=True) == 0
    assert frame_map(there, seen, CLASSES, protocol="annotated", plus_one=True).plus_one
    assert not frame_map(there, seen, CLASSES, protocol="act").plus_one


def test_overlap_of_exactly_one_half_is_enough_in_either_measure():
    seen = found((1, HALF, 0, 0.9))
    for protocol in ("gurkirt", "multisports", "annotated"):
        assert ap(truth((1, BIG, 0)), seen, protocol) == 1
    # 51 x 101 of 101 x 101 pixels is a little more than half; 51 of 102 columns is half of it.
    assert ap(truth((1, BIG, 0)), seen, "act") == 1
    assert ap(truth((1, (0, 0, 101, 100), 0)), seen, "act") == 1
    assert ap(truth((1, (0, 0, 102, 100), 0)), seen, "act") == 0


def test_the_area_under_the_raw_curve_and_under_its_envelope():
    # Surest first: miss, hit, hit, miss, hit of four boxes. The raw curve runs through (recall,
    # precision) (0, 1) (0, 0) (1/4, 1/2) (2/4, 2/3) (2/4, 2/4) (3/4, 3/5).
    there = truth(*[(frame, BIG, 0) for frame in (1, 2, 3, 4)])
    seen = found(
        (9, BIG, 0, 0.9), (1, BIG, 0, 0.8), (2, BIG, 0, 0.7), (8, BIG, 0, 0.6), (3, BIG, 0, 0.5)
    )  # fmt: skip
    raw = Fraction(1, 4) * (
        (0 + Fraction(1, 2)) / 2
        + (Fraction(1, 2) + Fraction(2, 3)) / 2
        + (Fraction(2, 4) + Fraction(3, 5)) / 2
    )
    envelope = Fraction(1, 4) * (Fraction(2, 3) + Fraction(2, 3) + Fraction(3, 5))
    assert ap(there, seen, "act") == pytest.approx(float(raw), abs=1e-7)
    assert ap(there, seen, "gurkirt") == pytest.approx(float(envelope))
    assert ap(there, seen, "multisports") == pytest.approx(float(envelope))


def test_a_first_hit_of_one_box_is_a_whole_trapezoid():
    assert ap(truth((1, BIG, 0)), found((1, BIG, 0, 0.5)), "act") == 1
    # Miss, then hit: from (0, 0) to (1, 1/2).
    assert ap(truth((1, BIG, 0)), found((2, BIG, 0, 0.9), (1, BIG, 0, 0.5)), "act") == 1 / 4


def test_a_class_without_ground_truth_counts_as_zero_or_not_at_all():
    there, seen = truth((1, BIG, 0)), found((1, BIG, 0, 0.9), (1, BIG, 1, 0.8))
    for protocol in ("gurkirt", "act"):
        score = frame_map(there, seen, CLASSES, protocol=protocol)
        assert (score.mAP, score.num_classes) == (pytest.approx(1 / 3), 3)
        assert score.ap == {0: 1, 1: 0, 2: 0}
    for protocol in ("multisports", "annotated"):
        score = frame_map(there, seen, CLASSES, protocol=protocol)
        assert (score.mAP, score.num_classes) == (1, 1)
        assert math.isnan(score.ap[1])


def test_a_frame_without_annotation_counts_or_does_not():
    # Frame 2 is annotated, though for another class; frames 3 and 1001 are not.
    there = truth((1, BIG, 0), (2, BIG, 1))
    for frame, expected in ((2, 1 / 2), (3, 1), (1001, 1)):
        seen = found((frame, BIG, 0, 0.9), (1, BIG, 0, 0.8))
        for protocol in ("gurkirt", "multisports"):
            assert ap(there, seen, protocol) == 1 / 2
        assert ap(there, seen, "act") == 1 / 4
        assert ap(there, seen, "annotated") == expected


def test_a_box_inside_out_is_a_false_positive():
    there = truth((1, BIG, 0))
    for box in (INSIDE_OUT, (0, 100, 100, 0), (100, 100, 0, 0)):
        seen = found((1, box, 0, 0.9), (1, BIG, 0, 0.8))
        assert [ap(there, seen, protocol) for protocol in UCF_PROTOCOLS] == [1 / 2, 1 / 4, 1 / 2, 1 / 2]


def test_a_box_without_width_is_a_pixel_wide_for_act():
    there, seen = truth((1, (5, 0, 5, 10), 0)), found((1, (5, 0, 5, 10), 0, 0.9))
    assert [ap(there, seen, protocol) for protocol in UCF_PROTOCOLS] == [0, 1, 0, 0]


def test_ground_truth_inside_out_is_there_to_be_missed():
    there, seen = truth((1, INSIDE_OUT, 0), (2, BIG, 0)), found((1, INSIDE_OUT, 0, 0.8), (2, BIG, 0, 0.9))
    for protocol in ("gurkirt", "multisports", "annotated"):
        assert ap(there, seen, protocol) == 1 / 2


def test_no_detections_and_no_ground_truth():
    for protocol in UCF_PROTOCOLS:
        assert frame_map(truth((1, BIG, 0)), found(), CLASSES, protocol=protocol).mAP == 0
        nothing = frame_map(truth(), found((1, BIG, 0, 0.9)), CLASSES, protocol=protocol)
        assert nothing.mAP == 0 if protocol in ("gurkirt", "act") else math.isnan(nothing.mAP)


def test_plus_one_belongs_to_one_protocol():
    for protocol in ("gurkirt", "act", "multisports"):
        with pytest.raises(ValueError, match=f"{protocol} has no such option"):
            frame_map(truth((1, BIG, 0)), found(), CLASSES, protocol=protocol, plus_one=True)


# --- a second opinion: the same table in plain loops ---------------------------------------------

TABLE = {  # protocol -> (pixel, used-up boxes, raw curve, every class, annotated frames alone)
    "gurkirt": (0, True, False, True, False),
    "act": (1, True, True, True, False),
    "multisports": (0, False, False, False, False),
    "annotated": (0, False, False, False, True),
    "yowo": (1, False, False, False, True),
}


def slow_iou(a, b, pixel):
    a, b = [Fraction(x) for x in a], [Fraction(x) for x in b]
    sides = [max(min(a[i + 2], b[i + 2]) - max(a[i], b[i]) + pixel, 0) for i in (0, 1)]
    both = sides[0] * sides[1]
    area = [(c[2] - c[0] + pixel) * (c[3] - c[1] + pixel) for c in (a, b)]
    union = sum(area) - both
    return both / union if union > 0 else Fraction(0)


def slow_map(there, seen, protocol, threshold=Fraction(1, 2)):
    """(class -> AP or None, mean), from lists of (frame, box, label[, score])."""
    pixel, used_up, raw, every_class, annotated = TABLE[protocol]
    frames = {row[0] for row in there}
    answer = {}
    for label in CLASSES:
        boxes = defaultdict(list)
        for frame, box, of in there:
            if of == label:
                boxes[frame].append(box)
        number = sum(map(len, boxes.values()))
        curve, hits, rank, taken = [(Fraction(0), Fraction(1))], 0, 0, set()
        for frame, box, of, _ in sorted(seen, key=lambda row: -row[3]):
            if of != label or (annotated and frame not in frames):
                continue
            rank += 1
            best, target = Fraction(-1), None
            for i, other in enumerate(boxes[frame]):
                overlap = slow_iou(box, other, pixel)
                if overlap > best and not (used_up and (frame, i) in taken):
                    best, target = overlap, (frame, i)
            if best >= threshold and target not in taken:
                taken.add(target)
                hits += 1
            curve.append((Fraction(hits, number) if number else Fraction(0), Fraction(hits, rank)))
        answer[label] = slow_area(curve, raw) if number or every_class else None
    known = [value for value in answer.values() if value is not None]
    return answer, (sum(known) / len(known) if known else None)


def slow_area(curve, raw):
    """The area under [(recall, precision), ..]; recall goes up, the first point is (0, 1)."""
    area = Fraction(0)
    for i in range(1, len(curve)):
        width = curve[i][0] - curve[i - 1][0]
        if width:
            height = (curve[i - 1][1] + curve[i][1]) / 2 if raw else max(p for _, p in curve[i:])
            area += width * height
    return area


def fast(there, seen, protocol, **rules):
    plus_one = protocol == "yowo"
    name = "annotated" if plus_one else protocol
    return frame_map(truth(*there), found(*seen), CLASSES, protocol=name, plus_one=plus_one, **rules)


def same(score, reference, exactly):
    answer, mean = reference
    for label, expected in answer.items():
        if expected is None:
            assert math.isnan(score.ap[label])
        else:
            assert score.ap[label] == pytest.approx(float(expected), abs=exactly)
    assert math.isnan(score.mAP) if mean is None else score.mAP == pytest.approx(float(mean), abs=exactly)


# Small whole numbers: overlaps are exact, ties are ties, and many are just one half.
BOXES = [
    (0, 0, 8, 8), (0, 0, 8, 7), (1, 0, 8, 8), (0, 0, 8, 4), (0, 0, 4, 8), (0, 0, 8, 3), (2, 2, 9, 9),
    (0, 0, 16, 8), (8, 8, 16, 16), (4, 4, 12, 12), (3, 3, 4, 4), (3, 3, 3, 9), (8, 0, 0, 8),
]  # fmt: skip
FRAMES = [1, 2, 3, 1001]
truths = st.lists(
    st.tuples(st.sampled_from(FRAMES[:3]), st.sampled_from(BOXES[:11]), st.integers(0, 1)), max_size=15
)
found_rows = st.tuples(
    st.sampled_from(FRAMES),
    st.sampled_from(BOXES),
    st.integers(0, 2),
    st.integers(0, 1000).map(lambda n: n / 1000),
)
founds = st.lists(found_rows, max_size=30)
protocols = st.sampled_from(list(TABLE))
quick = settings(max_examples=100, deadline=None, database=None, derandomize=True)


@quick
@given(truths, founds, protocols)
def test_the_second_opinion_agrees_on_small_worlds(there, seen, protocol):
    same(fast(there, seen, protocol), slow_map(there, seen, protocol), 1e-6 if protocol == "act" else 1e-12)


def crowd(seed):
    """Ten people of one class in a frame, and about ninety detections of them."""
    rng = random.Random(seed)
    there = [(f, rng.choice(BOXES[:10]), rng.choice([0, 0, 1])) for f in FRAMES[:3] for _ in range(10)]
    scores = rng.sample(range(10_000), 360)
    seen = [(rng.choice(FRAMES), rng.choice(BOXES), rng.choice([0, 0, 1, 2]), s / 10_000) for s in scores]
    return there, seen


@pytest.mark.parametrize("protocol", TABLE)
def test_the_second_opinion_agrees_in_a_crowd(protocol):
    for seed in range(6):
        there, seen = crowd(seed)
        score = fast(there, seen, protocol)
        same(score, slow_map(there, seen, protocol), 1e-6 if protocol == "act" else 1e-12)
        assert 0 < score.num_true_positives < score.num_detections


def test_no_two_rows_of_the_table_are_the_same():
    numbers = {protocol: fast(*crowd(3), protocol, iou=0.45).mAP for protocol in TABLE}
    assert len(set(numbers.values())) == len(TABLE)


def test_the_second_opinion_agrees_at_another_threshold():
    there, seen = crowd(7)
    for protocol in ("gurkirt", "yowo"):
        same(fast(there, seen, protocol, iou=0.75), slow_map(there, seen, protocol, Fraction(3, 4)), 1e-12)


def test_acts_float32_is_followed_digit_by_digit():
    # Long enough that the last digits of float32 matter: the exact area is off by more than 1e-9.
    rng = np.random.default_rng(0)
    frames, count = np.arange(1, 901), 5000
    there = truth(*[(f, BIG, 0) for f in frames])
    seen = found(
        *[(f, BIG, 0, s) for f, s in zip(rng.integers(1, 999, count), rng.permutation(count), strict=True)]
    )
    order, first, hits = np.argsort(-seen.score), set(), []
    for frame in seen.frame[order].tolist():
        hits.append(frame <= 900 and frame not in first)
        first.add(frame)
    precision, recall = [np.float32(1)], [np.float32(0)]
    for rank, right in enumerate(np.cumsum(hits).tolist(), 1):
        precision.append(np.float32(right / rank))
        recall.append(np.float32(right / 900))
    steps = [
        np.float32(np.float32(r1 - r0) * np.float32(p0 + p1)) * np.float32(0.5)
        for r0, r1, p0, p1 in zip(recall, recall[1:], precision, precision[1:], strict=False)
    ]
    expected = float(np.sum(np.array(steps, dtype=np.float32)))
    assert ap(there, seen, "act") == expected
    assert abs(expected - float(np.sum(np.array(steps, dtype=np.float64)))) > 1e-9


# --- laws ----------------------------------------------------------------------------------------


@quick
@given(truths, founds, protocols)
def test_every_number_lies_between_nothing_and_one(there, seen, protocol):
    score = fast(there, seen, protocol)
    for value in (score.mAP, *score.ap.values()):
        assert math.isnan(value) or 0 <= value <= 1 + 1e-6


@quick
@given(truths, protocols)
def test_finding_exactly_what_is_there_gives_one(there, protocol):
    there = [row for row in dict.fromkeys(there) if row[1][0] < row[1][2]]
    there += [(1, BIG, label) for label in CLASSES]
    score = fast(there, [(*row, 0.5) for row in there], protocol)
    assert score.mAP == pytest.approx(1, abs=1e-6)


@quick
@given(truths, st.lists(found_rows, max_size=30, unique_by=lambda row: row[3]), protocols, st.randoms())
def test_without_ties_the_order_of_the_file_changes_nothing(there, seen, protocol, rng):
    before = fast(there, seen, protocol)
    shuffled = list(seen)
    rng.shuffle(shuffled)
    np.testing.assert_equal(fast(there, shuffled, protocol).ap, before.ap)


@quick
@given(truths, founds)
def test_with_one_box_a_frame_and_class_it_does_not_matter_whether_boxes_are_used_up(there, seen):
    there = [*there, *[(1, BIG, label) for label in CLASSES]]
    there = [*{(row[0], row[2]): row for row in there}.values()]
    np.testing.assert_equal(fast(there, seen, "gurkirt").ap, fast(there, seen, "multisports").ap)


@quick
@given(truths, founds)
def test_using_boxes_up_finds_at_least_as_many(there, seen):
    assert (
        fast(there, seen, "gurkirt").num_true_positives >= fast(there, seen, "multisports").num_true_positives
    )
