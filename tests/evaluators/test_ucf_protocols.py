"""Frame-mAP of UCF101-24 and JHMDB: protocol differences, a slow reference implementation, properties."""

import math
import random
from collections import defaultdict
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluators import UCF_PROTOCOLS, Detections, EvalRules, GroundTruth, frame_mAP
from tests.evaluators.reference import slow_iou

CLASSES = {0: "Basketball", 1: "Biking", 2: "Diving"}
BIG, HALF, SMALL = (0, 0, 100, 100), (0, 0, 50, 100), (0, 0, 10, 10)
INVERTED = (100, 0, 0, 100)
VIDEOS = ("a", "b")


def ground_truth(*rows):
    """From (frame, box, label) in video a; a frame of 1000 or more is in video b."""
    return GroundTruth(*columns(rows))


def detections(*rows):
    return Detections(*columns(rows), score=np.array([row[3] for row in rows], dtype=float))


def columns(rows):
    frame = np.array([row[0] for row in rows], dtype=int)
    box = np.array([row[1] for row in rows], dtype=float).reshape(-1, 4)
    return VIDEOS, frame // 1000, frame, box, np.array([row[2] for row in rows], dtype=int)


def ap(gt, det, protocol, label=0, **rules):
    return frame_mAP(gt, det, CLASSES, rules=EvalRules(protocol, **rules)).ap[label]


def aps(gt, det, label=0):
    """By protocol: gurkirt, act, multisports, annotated, yowo, yowov3."""
    return [ap(gt, det, protocol, label) for protocol in UCF_PROTOCOLS]


# --- differences of the six ---------------------------------------------------------------------


def test_second_best_box_is_matched_when_the_best_is_already_matched():
    # Both overlap BIG most. HALF, with IoU 1/2 and 50/90, is unmatched for the second.
    gt = ground_truth((1, BIG, 0), (1, HALF, 0))
    det = detections((1, BIG, 0, 0.9), (1, (0, 0, 90, 100), 0, 0.8))
    assert ap(gt, det, "gurkirt") == 1
    assert ap(gt, det, "act") == pytest.approx(1)
    assert ap(gt, det, "multisports") == 1 / 2
    assert ap(gt, det, "annotated") == 1 / 2


def test_both_of_two_equal_boxes_can_be_matched_by_unmatched_only_protocols():
    gt = ground_truth((1, BIG, 0), (1, BIG, 0))
    det = detections((1, BIG, 0, 0.9), (1, BIG, 0, 0.8))
    # Half of the ground truth with precision 1, then 1/2: in YOWOv3 down from there to (1, 0).
    assert aps(gt, det) == [1, 1, 1 / 2, 1 / 2, 1 / 2, 1 / 2 + (1 / 2 * 1 / 2) / 2]


def test_third_detection_of_two_boxes_is_a_false_positive():
    gt = ground_truth((1, BIG, 0), (1, BIG, 0), (2, BIG, 0))
    det = detections(*[(1, BIG, 0, score) for score in (0.9, 0.8, 0.7)], (2, BIG, 0, 0.6))
    assert ap(gt, det, "gurkirt") == pytest.approx(1 / 3 + 1 / 3 + 1 / 3 * 3 / 4)


def test_act_adds_a_pixel_and_annotated_does_with_plus_one():
    # 10 x 10 against 10 x 4 pixels is 40/100; with a pixel more each way it is 55/121.
    gt, det = ground_truth((1, SMALL, 0)), detections((1, (0, 0, 10, 4), 0, 0.9))
    for protocol in UCF_PROTOCOLS:
        assert ap(gt, det, protocol, iou=0.4) == 1
        assert ap(gt, det, protocol, iou=55 / 121) == (protocol in ("act", "yowo"))
    assert ap(gt, det, "annotated", iou=55 / 121, plus_one=True) == 1
    assert ap(gt, det, "annotated", iou=0.46, plus_one=True) == 0
    assert frame_mAP(gt, det, CLASSES, rules=EvalRules("annotated", plus_one=True)).plus_one
    assert not frame_mAP(gt, det, CLASSES, rules=EvalRules("act")).plus_one


def test_iou_of_exactly_one_half_matches_with_and_without_the_pixel():
    det = detections((1, HALF, 0, 0.9))
    for protocol in ("gurkirt", "multisports", "annotated"):
        assert ap(ground_truth((1, BIG, 0)), det, protocol) == 1
    # 51 x 101 of 101 x 101 pixels is a little more than half; 51 of 102 columns is half of it.
    assert ap(ground_truth((1, BIG, 0)), det, "act") == 1
    assert ap(ground_truth((1, (0, 0, 101, 100), 0)), det, "act") == 1
    assert ap(ground_truth((1, (0, 0, 102, 100), 0)), det, "act") == 0


def test_act_uses_the_raw_curve_and_the_others_its_envelope():
    # By score: false, true, true, false, true, of four boxes. The raw curve runs through (recall,
    # precision) (0, 1) (0, 0) (1/4, 1/2) (2/4, 2/3) (2/4, 2/4) (3/4, 3/5).
    gt = ground_truth(*[(frame, BIG, 0) for frame in (1, 2, 3, 4)])
    det = detections(
        (9, BIG, 0, 0.9), (1, BIG, 0, 0.8), (2, BIG, 0, 0.7), (8, BIG, 0, 0.6), (3, BIG, 0, 0.5)
    )  # fmt: skip
    raw = Fraction(1, 4) * (
        (0 + Fraction(1, 2)) / 2
        + (Fraction(1, 2) + Fraction(2, 3)) / 2
        + (Fraction(2, 4) + Fraction(3, 5)) / 2
    )
    envelope = Fraction(1, 4) * (Fraction(2, 3) + Fraction(2, 3) + Fraction(3, 5))
    assert ap(gt, det, "act") == pytest.approx(float(raw), abs=1e-7)
    assert ap(gt, det, "gurkirt") == pytest.approx(float(envelope))
    assert ap(gt, det, "multisports") == pytest.approx(float(envelope))


def test_raw_curve_of_one_box_worked_by_hand():
    assert ap(ground_truth((1, BIG, 0)), detections((1, BIG, 0, 0.5)), "act") == 1
    # False, then true: from (0, 0) to (1, 1/2).
    assert ap(ground_truth((1, BIG, 0)), detections((2, BIG, 0, 0.9), (1, BIG, 0, 0.5)), "act") == 1 / 4


def test_class_without_ground_truth_is_zero_or_left_out_by_protocol():
    gt, det = ground_truth((1, BIG, 0)), detections((1, BIG, 0, 0.9), (1, BIG, 1, 0.8))
    for protocol in ("gurkirt", "act"):
        score = frame_mAP(gt, det, CLASSES, rules=EvalRules(protocol))
        assert (score.mAP, score.num_classes) == (pytest.approx(1 / 3), 3)
        assert score.ap == {0: 1, 1: 0, 2: 0}
    for protocol in ("multisports", "annotated"):
        score = frame_mAP(gt, det, CLASSES, rules=EvalRules(protocol))
        assert (score.mAP, score.num_classes) == (1, 1)
        assert math.isnan(score.ap[1])


def test_unannotated_frame_is_scored_except_by_annotated():
    # Frame 2 is annotated, though for another class; frames 3 and 1001 are not.
    gt = ground_truth((1, BIG, 0), (2, BIG, 1))
    for frame, expected in ((2, 1 / 2), (3, 1), (1001, 1)):
        det = detections((frame, BIG, 0, 0.9), (1, BIG, 0, 0.8))
        for protocol in ("gurkirt", "multisports"):
            assert ap(gt, det, protocol) == 1 / 2
        assert ap(gt, det, "act") == 1 / 4
        assert ap(gt, det, "annotated") == expected


def test_inverted_detection_is_a_false_positive():
    gt = ground_truth((1, BIG, 0))
    for box in (INVERTED, (0, 100, 100, 0), (100, 100, 0, 0)):
        det = detections((1, box, 0, 0.9), (1, BIG, 0, 0.8))
        # YOWOv3's envelope is 1/2 from recall 0, where it has precision 1, as well.
        assert aps(gt, det) == [1 / 2, 1 / 4, 1 / 2, 1 / 2, 1 / 2, 1 / 2]


def test_box_without_width_is_one_pixel_wide_for_act():
    gt, det = ground_truth((1, (5, 0, 5, 10), 0)), detections((1, (5, 0, 5, 10), 0, 0.9))
    assert aps(gt, det) == [0, 1, 0, 0, 1, 0]


def test_inverted_ground_truth_is_counted_and_missed():
    gt, det = ground_truth((1, INVERTED, 0), (2, BIG, 0)), detections((1, INVERTED, 0, 0.8), (2, BIG, 0, 0.9))
    for protocol in ("gurkirt", "multisports", "annotated"):
        assert ap(gt, det, protocol) == 1 / 2


def test_no_detections_give_zero_and_no_ground_truth_zero_or_nan():
    for protocol in UCF_PROTOCOLS:
        nothing = frame_mAP(ground_truth((1, BIG, 0)), detections(), CLASSES, rules=EvalRules(protocol))
        assert math.isnan(nothing.mAP) if protocol == "yowov3" else nothing.mAP == 0
        nothing = frame_mAP(ground_truth(), detections((1, BIG, 0, 0.9)), CLASSES, rules=EvalRules(protocol))
        assert nothing.mAP == 0 if protocol in ("gurkirt", "act") else math.isnan(nothing.mAP)


def test_yowo_is_annotated_with_the_pixel():
    gt, det = ground_truth((1, SMALL, 0)), detections((1, (0, 0, 10, 4), 0, 0.9), (1001, SMALL, 0, 0.95))
    for iou in (0.4, 55 / 121, 0.46):
        assert ap(gt, det, "yowo", iou=iou) == ap(gt, det, "annotated", iou=iou, plus_one=True)


def test_yowov3_forgets_ground_truth_on_frames_without_detections():
    gt = ground_truth((1, BIG, 0), (2, BIG, 0), (3, BIG, 0), (3, BIG, 1))
    det = detections((1, BIG, 0, 0.9), (3, SMALL, 0, 0.8), (7, BIG, 0, 0.95))
    score = frame_mAP(gt, det, CLASSES, rules=EvalRules("yowov3"))
    # Frame 2 has no detection and frame 7 is not annotated. Of two boxes one is found, then a false positive:
    # (0, 1) (1/2, 1) (1/2, 1/2) (1, 0).
    assert score.ap[0] == 1 / 2 + (1 / 2 * 1 / 2) / 2
    assert (score.ap[1], score.num_ground_truth, score.num_detections) == (0, 3, 2)
    assert score.mAP == score.ap[0] / 2


def test_yowov3_takes_the_area_under_the_envelope_by_trapezoids():
    # By score: false, true, true, false, true, of four boxes: precision 0 1/2 2/3 1/2 3/5. The envelope is
    # 1 at recall 0, then 2/3 to recall 2/4, 3/5 to 3/4, and falls to 0 at recall 1.
    gt = ground_truth(*[(f, BIG, 0) for f in (1, 2, 3, 4)], *[(f, BIG, 1) for f in (8, 9)])
    det = detections(
        (9, BIG, 0, 0.9), (1, BIG, 0, 0.8), (2, BIG, 0, 0.7), (8, BIG, 0, 0.6), (3, BIG, 0, 0.5),
        (4, BIG, 1, 0.1),
    )  # fmt: skip
    two, three = Fraction(2, 3), Fraction(3, 5)
    area = Fraction(1, 4) * (two + two + three + three / 2)
    assert ap(gt, det, "yowov3") == pytest.approx(float(area))


def test_plus_one_is_refused_by_other_protocols():
    for protocol in ("gurkirt", "act", "multisports"):
        with pytest.raises(ValueError, match=f"plus_one .* not of {protocol}"):
            frame_mAP(
                ground_truth((1, BIG, 0)), detections(), CLASSES, rules=EvalRules(protocol, plus_one=True)
            )


# --- reference implementation: the same table in plain loops -------------------------------------

TABLE = {  # protocol -> (pixel, unmatched boxes only, raw curve, all classes, annotated frames only)
    "gurkirt": (0, True, False, True, False),
    "act": (1, True, True, True, False),
    "multisports": (0, False, False, False, False),
    "annotated": (0, False, False, False, True),
    "yowo": (1, False, False, False, True),
}


def slow_map(gt, det, protocol, threshold=Fraction(1, 2)):
    """(class -> AP or None, mean), from lists of (frame, box, label[, score])."""
    pixel, unmatched_only, raw, all_classes, annotated = TABLE[protocol]
    frames = {row[0] for row in gt}
    answer = {}
    for label in CLASSES:
        boxes = defaultdict(list)
        for frame, box, of in gt:
            if of == label:
                boxes[frame].append(box)
        number = sum(map(len, boxes.values()))
        curve, hits, rank, matched = [(Fraction(0), Fraction(1))], 0, 0, set()
        for frame, box, of, _ in sorted(det, key=lambda row: -row[3]):
            if of != label or (annotated and frame not in frames):
                continue
            rank += 1
            best, target = Fraction(-1), None
            for i, other in enumerate(boxes[frame]):
                overlap = slow_iou(box, other, pixel)
                if overlap > best and not (unmatched_only and (frame, i) in matched):
                    best, target = overlap, (frame, i)
            if best >= threshold and target not in matched:
                matched.add(target)
                hits += 1
            curve.append((Fraction(hits, number) if number else Fraction(0), Fraction(hits, rank)))
        answer[label] = slow_area(curve, raw) if number or all_classes else None
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


def fast(gt, det, protocol, **rules):
    plus_one = protocol == "yowo"
    name = "annotated" if plus_one else protocol
    return frame_mAP(
        ground_truth(*gt), detections(*det), CLASSES, rules=EvalRules(name, plus_one=plus_one, **rules)
    )


def assert_same(score, reference, tolerance):
    answer, mean = reference
    for label, expected in answer.items():
        if expected is None:
            assert math.isnan(score.ap[label])
        else:
            assert score.ap[label] == pytest.approx(float(expected), abs=tolerance)
    assert math.isnan(score.mAP) if mean is None else score.mAP == pytest.approx(float(mean), abs=tolerance)


# Small whole numbers: IoUs are exact, ties are ties, and many are exactly one half.
BOXES = [
    (0, 0, 8, 8), (0, 0, 8, 7), (1, 0, 8, 8), (0, 0, 8, 4), (0, 0, 4, 8), (0, 0, 8, 3), (2, 2, 9, 9),
    (0, 0, 16, 8), (8, 8, 16, 16), (4, 4, 12, 12), (3, 3, 4, 4), (3, 3, 3, 9), (8, 0, 0, 8),
]  # fmt: skip
FRAMES = [1, 2, 3, 1001]
gt_lists = st.lists(
    st.tuples(st.sampled_from(FRAMES[:3]), st.sampled_from(BOXES[:11]), st.integers(0, 1)), max_size=15
)
det_rows = st.tuples(
    st.sampled_from(FRAMES),
    st.sampled_from(BOXES),
    st.integers(0, 2),
    st.integers(0, 1000).map(lambda n: n / 1000),
)
det_lists = st.lists(det_rows, max_size=30)
protocols = st.sampled_from(list(TABLE))
quick = settings(max_examples=100, deadline=None, database=None, derandomize=True)


@quick
@given(gt_lists, det_lists, protocols)
def test_reference_implementation_agrees_on_small_cases(gt, det, protocol):
    assert_same(fast(gt, det, protocol), slow_map(gt, det, protocol), 1e-6 if protocol == "act" else 1e-12)


def crowd(seed):
    """Ten ground-truth boxes and about ninety detections in each frame."""
    rng = random.Random(seed)
    gt = [(f, rng.choice(BOXES[:10]), rng.choice([0, 0, 1])) for f in FRAMES[:3] for _ in range(10)]
    scores = rng.sample(range(10_000), 360)
    det = [(rng.choice(FRAMES), rng.choice(BOXES), rng.choice([0, 0, 1, 2]), s / 10_000) for s in scores]
    return gt, det


@pytest.mark.parametrize("protocol", TABLE)
def test_reference_implementation_agrees_in_a_crowd(protocol):
    for seed in range(6):
        gt, det = crowd(seed)
        score = fast(gt, det, protocol)
        assert_same(score, slow_map(gt, det, protocol), 1e-6 if protocol == "act" else 1e-12)
        assert 0 < score.num_true_positives < score.num_detections


def test_all_protocols_give_different_numbers():
    numbers = {protocol: fast(*crowd(3), protocol, iou=0.45).mAP for protocol in TABLE}
    assert len(set(numbers.values())) == len(TABLE)


def test_reference_implementation_agrees_at_another_threshold():
    gt, det = crowd(7)
    for protocol in ("gurkirt", "yowo"):
        assert_same(fast(gt, det, protocol, iou=0.75), slow_map(gt, det, protocol, Fraction(3, 4)), 1e-12)


def test_act_matches_float32_arithmetic_to_the_last_digit():
    # Long enough that the last digits of float32 matter: the exact area is off by more than 1e-9.
    rng = np.random.default_rng(0)
    frames, count = np.arange(1, 901), 5000
    gt = ground_truth(*[(f, BIG, 0) for f in frames])
    det = detections(
        *[(f, BIG, 0, s) for f, s in zip(rng.integers(1, 999, count), rng.permutation(count), strict=True)]
    )
    order, seen_frames, hits = np.argsort(-det.score), set(), []
    for frame in det.frame[order].tolist():
        hits.append(frame <= 900 and frame not in seen_frames)
        seen_frames.add(frame)
    precision, recall = [np.float32(1)], [np.float32(0)]
    for rank, right in enumerate(np.cumsum(hits).tolist(), 1):
        precision.append(np.float32(right / rank))
        recall.append(np.float32(right / 900))
    steps = [
        np.float32(np.float32(r1 - r0) * np.float32(p0 + p1)) * np.float32(0.5)
        for r0, r1, p0, p1 in zip(recall, recall[1:], precision, precision[1:], strict=False)
    ]
    expected = float(np.sum(np.array(steps, dtype=np.float32)))
    assert ap(gt, det, "act") == expected
    assert abs(expected - float(np.sum(np.array(steps, dtype=np.float64)))) > 1e-9


# --- properties ----------------------------------------------------------------------------------


@quick
@given(gt_lists, det_lists, protocols)
def test_every_number_is_between_zero_and_one(gt, det, protocol):
    score = fast(gt, det, protocol)
    for value in (score.mAP, *score.ap.values()):
        assert math.isnan(value) or 0 <= value <= 1 + 1e-6


@quick
@given(gt_lists, protocols)
def test_detecting_exactly_the_ground_truth_gives_one(gt, protocol):
    gt = [row for row in dict.fromkeys(gt) if row[1][0] < row[1][2]]
    gt += [(1, BIG, label) for label in CLASSES]
    score = fast(gt, [(*row, 0.5) for row in gt], protocol)
    assert score.mAP == pytest.approx(1, abs=1e-6)


@quick
@given(gt_lists, st.lists(det_rows, max_size=30, unique_by=lambda row: row[3]), protocols, st.randoms())
def test_file_order_changes_nothing_without_ties(gt, det, protocol, rng):
    before = fast(gt, det, protocol)
    shuffled = list(det)
    rng.shuffle(shuffled)
    np.testing.assert_equal(fast(gt, shuffled, protocol).ap, before.ap)


@quick
@given(gt_lists, det_lists)
def test_both_matching_rules_agree_on_one_box_per_frame_and_class(gt, det):
    gt = [*gt, *[(1, BIG, label) for label in CLASSES]]
    gt = [*{(row[0], row[2]): row for row in gt}.values()]
    np.testing.assert_equal(fast(gt, det, "gurkirt").ap, fast(gt, det, "multisports").ap)


@quick
@given(gt_lists, det_lists)
def test_unmatched_only_finds_at_least_as_many_true_positives(gt, det):
    assert fast(gt, det, "gurkirt").num_true_positives >= fast(gt, det, "multisports").num_true_positives
