"""The error budget: each cause, mAP gains worked out as fractions, a slow reference implementation."""

import math
import random
from collections import defaultdict
from dataclasses import asdict
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluators import Detections, EvalRules, GroundTruth, Protocol, error_budget, frame_mAP
from evaluators.errors import CAUSES, without_duplicates
from tests.evaluators.reference import slow_iou

WHOLE, HALF, THIRD, CORNER = (0, 0, 12, 12), (0, 0, 6, 12), (0, 0, 4, 12), (0, 0, 1, 1)
CLASSES = {1: "run", 2: "sit", 3: "wave"}


def ground_truth(*rows):
    """From (frame, box, label)."""
    return GroundTruth(*columns(rows))


def detections(*rows):
    return Detections(*columns(rows), score=np.array([row[3] for row in rows], dtype=float))


def columns(rows):
    frame = np.array([row[0] for row in rows], dtype=int)
    box = np.array([row[1] for row in rows], dtype=float).reshape(-1, 4)
    return ("a",), np.zeros(len(rows), int), frame, box, np.array([row[2] for row in rows], dtype=int)


def nonzero(budget):
    return {cause: n for cause, n in budget.count.items() if n}


# --- each cause ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("box", "label", "cause"),
    [
        (WHOLE, 1, "duplicate"),
        (HALF, 1, "duplicate"),  # IoU of exactly one half
        (WHOLE, 2, "wrong class"),
        (HALF, 2, "wrong class"),
        (THIRD, 1, "poor box"),
        (THIRD, 2, "both"),
        (CORNER, 1, "background"),
        (CORNER, 2, "background"),
        ((20, 20, 30, 30), 1, "background"),
    ],
)
def test_false_positive_has_one_cause(box, label, cause):
    gt = ground_truth((1, WHOLE, 1))
    budget = error_budget(gt, detections((1, WHOLE, 1, 0.9), (1, box, label, 0.8)), CLASSES)
    assert nonzero(budget) == {cause: 1}
    assert budget.class_count[label][cause] == 1


def test_detection_on_a_frame_without_ground_truth_is_background():
    budget = error_budget(
        ground_truth((1, WHOLE, 1)), detections((1, WHOLE, 1, 0.9), (2, WHOLE, 1, 0.8)), CLASSES
    )
    assert nonzero(budget) == {"background": 1}


def test_localisation_is_judged_before_the_class():
    # Fits a box that sits; another box, with an IoU of one third, runs.
    gt = ground_truth((1, WHOLE, 2), (1, (0, 0, 12, 4), 1), (1, (0, 0, 12, 4), 3))
    budget = error_budget(gt, detections((1, WHOLE, 1, 0.8)), CLASSES)
    assert budget.count["wrong class"] == 1


def test_duplicate_on_a_person_with_two_labels_is_not_a_wrong_class():
    # A second "run" on a person who runs and sits: a duplicate, not a wrong class for "sit".
    gt = ground_truth((1, WHOLE, 1), (1, WHOLE, 2))
    det = detections((1, WHOLE, 1, 0.9), (1, WHOLE, 1, 0.8))
    assert nonzero(error_budget(gt, det, CLASSES)) == {"duplicate": 1, "missed": 1}


def test_missed_is_only_what_no_correction_would_match():
    gt = ground_truth((1, WHOLE, 1), (2, WHOLE, 1), (3, WHOLE, 1), (4, WHOLE, 1))
    det = detections((1, WHOLE, 1, 0.9), (2, THIRD, 1, 0.8), (3, WHOLE, 2, 0.7))
    budget = error_budget(gt, det, CLASSES)
    assert nonzero(budget) == {"poor box": 1, "wrong class": 1, "missed": 1}  # only frame 4's
    assert budget.class_count[1]["missed"] == 1


def test_background_threshold_is_inclusive():
    gt, det = (
        ground_truth((1, WHOLE, 1)),
        detections((1, (0, 0, 3, 12), 1, 0.8)),
    )  # IoU of exactly one quarter
    assert nonzero(error_budget(gt, det, CLASSES, background=0.25)) == {"poor box": 1}
    assert nonzero(error_budget(gt, det, CLASSES, background=0.26)) == {"background": 1, "missed": 1}


@pytest.mark.parametrize(
    ("rules", "cause"),
    [
        ({"protocol": "act"}, "poor box"),
        ({"protocol": "annotated", "plus_one": True}, "poor box"),
        ({"protocol": "annotated"}, "background"),
    ],
)
def test_extra_pixel_makes_adjacent_boxes_overlap(rules, cause):
    # With the pixel, both boxes are 2 x 2 and share one of seven pixels; without, only a corner.
    budget = error_budget(
        ground_truth((1, (0, 0, 1, 1), 1)),
        detections((1, (1, 1, 2, 2), 1, 0.8)),
        CLASSES,
        rules=EvalRules(**rules),
    )
    assert budget.count[cause] == 1


# --- mAP gains -----------------------------------------------------------------------------------


def test_mAP_gain_of_a_wrong_class():
    # Frame 1's runner is detected as sitting. Corrected: "run" 0 -> 1, and "sit" 1/2 -> 1.
    gt = ground_truth((1, WHOLE, 1), (2, WHOLE, 2))
    budget = error_budget(gt, detections((1, WHOLE, 2, 0.9), (2, WHOLE, 2, 0.8)), CLASSES)
    assert budget.score.mAP == 1 / 4
    assert budget.mAP_gain["wrong class"] == 3 / 4
    assert sum(budget.mAP_gain.values()) == 3 / 4


def test_only_one_detection_is_corrected_per_ground_truth_box():
    # Three wrong classes on one runner: the best-scored is corrected, the others are removed.
    gt = ground_truth((1, WHOLE, 1), (2, WHOLE, 2))
    det = detections(*[(1, WHOLE, 2, score) for score in (0.9, 0.7, 0.6)], (2, WHOLE, 2, 0.8))
    assert error_budget(gt, det, CLASSES).mAP_gain["wrong class"] == 3 / 4


def test_wrong_class_is_corrected_to_the_unmatched_label_of_a_person():
    gt = ground_truth((1, WHOLE, 1), (1, WHOLE, 2))
    budget = error_budget(gt, detections((1, WHOLE, 1, 0.9), (1, WHOLE, 3, 0.8)), CLASSES)
    assert budget.mAP_gain["wrong class"] == 1 / 2  # "sit" 0 -> 1; no ground truth waves
    assert budget.count["missed"] == 0


def test_mAP_gain_of_a_poor_box():
    gt = ground_truth((1, WHOLE, 1), (2, WHOLE, 1))
    budget = error_budget(gt, detections((1, THIRD, 1, 0.9), (2, WHOLE, 1, 0.8)), CLASSES)
    assert budget.score.mAP == 1 / 4
    assert budget.mAP_gain["poor box"] == 3 / 4
    assert budget.count["missed"] == 0


@pytest.mark.parametrize(
    ("row", "cause"),
    [((1, WHOLE, 1, 0.8), "duplicate"), ((1, THIRD, 2, 0.8), "both"), ((9, WHOLE, 1, 0.8), "background")],
)
def test_mAP_gain_of_causes_that_are_deleted(row, cause):
    # "run": true, (false,) true of two: 1/2 + 1/2 x 2/3. "sit": (false,) true.
    gt = ground_truth((1, WHOLE, 1), (2, WHOLE, 1), (3, WHOLE, 2))
    det = detections((1, WHOLE, 1, 0.9), row, (2, WHOLE, 1, 0.7), (3, WHOLE, 2, 0.6))
    budget = error_budget(gt, det, CLASSES)
    lost = 1 / 6 if row[2] == 1 else 1 / 2
    assert budget.mAP_gain[cause] == pytest.approx(lost / 2)
    assert sum(budget.mAP_gain.values()) == pytest.approx(lost / 2)


def test_mAP_gain_of_missed_boxes():
    gt = ground_truth((1, WHOLE, 1), (2, WHOLE, 1), (3, WHOLE, 1), (4, WHOLE, 1))
    budget = error_budget(gt, detections((1, WHOLE, 1, 0.9)), CLASSES)
    assert (budget.score.mAP, budget.mAP_gain["missed"]) == (1 / 4, 3 / 4)


def test_class_that_is_missed_entirely_leaves_the_mean():
    gt = ground_truth((1, WHOLE, 1), (2, WHOLE, 2))
    budget = error_budget(gt, detections((1, WHOLE, 1, 0.9)), CLASSES)
    assert (budget.score.mAP, budget.mAP_gain["missed"]) == (1 / 2, 1 / 2)
    budget = error_budget(gt, detections((1, WHOLE, 1, 0.9)), CLASSES, rules=EvalRules("gurkirt"))
    assert (budget.score.mAP, budget.mAP_gain["missed"]) == (1 / 3, 0)  # its mean is over all classes


def test_mAP_gain_of_missed_is_nan_when_everything_is_missed():
    budget = error_budget(ground_truth((1, WHOLE, 1)), detections(), CLASSES)
    assert math.isnan(budget.mAP_gain["missed"])


def test_no_errors_give_no_gain():
    budget = error_budget(ground_truth((1, WHOLE, 1)), detections((1, WHOLE, 1, 0.9)), CLASSES)
    assert nonzero(budget) == {}
    assert set(budget.mAP_gain.values()) == {0}
    assert list(budget.count) == list(budget.mAP_gain) == list(CAUSES)


def test_no_detections_and_no_ground_truth():
    budget = error_budget(ground_truth((1, WHOLE, 1)), detections(), CLASSES)
    assert nonzero(budget) == {"missed": 1}
    budget = error_budget(ground_truth(), detections((1, WHOLE, 1, 0.9)), CLASSES)
    assert nonzero(budget) == {"background": 1}
    assert all(math.isnan(gain) for gain in budget.mAP_gain.values())


def test_excluded_frames_have_no_errors():
    gt, det = ground_truth((1, WHOLE, 1), (2, WHOLE, 1)), detections((1, WHOLE, 1, 0.9), (2, THIRD, 1, 0.8))
    assert nonzero(error_budget(gt, det, CLASSES, rules=EvalRules(excluded={("a", 2)}))) == {}


@pytest.mark.parametrize("background", [0, 0.5, 0.7, math.nan])
def test_background_out_of_range_is_refused(background):
    with pytest.raises(ValueError, match=r"background must be between 0 and iou \(0.5\)"):
        error_budget(ground_truth((1, WHOLE, 1)), detections(), CLASSES, background=background)


# --- reference implementation, with lists and fractions ------------------------------------------


def slow_budget(gt, det):
    """({cause: count}, {cause: mAP gain}) of the standard protocol; scores are all different."""
    det = sorted(det, key=lambda row: -row[3])
    matched, right = set(), set()
    for d, (frame, box, label, _) in enumerate(det):
        own = [(slow_iou(box, b), -i) for i, (f, b, n) in enumerate(gt) if (f, n) == (frame, label)]
        if own and max(own)[0] >= Fraction(1, 2) and -max(own)[1] not in matched:
            matched.add(-max(own)[1])
            right.add(d)
    cause = {}
    for d, (frame, box, label, _) in enumerate(det):
        if d in right:
            continue
        own = max([slow_iou(box, b) for f, b, n in gt if (f, n) == (frame, label)], default=0)
        best = max([slow_iou(box, b) for f, b, n in gt if f == frame], default=0)
        good, background = Fraction(1, 2), Fraction(1, 10)
        table = {True: ("duplicate", "wrong class"), False: ("poor box", "both")}
        if best < background:
            cause[d] = "background"
        else:
            enough = good if best >= good else background
            cause[d] = table[best >= good][0 if own >= enough else 1]
    base = slow_mean(gt, [(row[2], d in right) for d, row in enumerate(det)])
    gains, recoverable = {}, set()
    for name in CAUSES[:-1]:
        corrected, rows = set(), []
        for d, (frame, box, label, _) in enumerate(det):
            if cause.get(d) != name:
                rows.append((label, d in right))
                continue
            least = {"wrong class": Fraction(1, 2), "poor box": Fraction(1, 10)}.get(name, 2)
            free = [
                (slow_iou(box, b), -i)
                for i, (f, b, n) in enumerate(gt)
                if f == frame and i not in matched | corrected and (name == "wrong class" or n == label)
            ]
            if free and max(free)[0] >= least:
                corrected.add(-max(free)[1])
                rows.append((gt[-max(free)[1]][2], True))
        recoverable |= corrected
        gains[name] = slow_mean(gt, rows) - base
    missed = set(range(len(gt))) - matched - recoverable
    rows = [(row[2], d in right) for d, row in enumerate(det)]
    gains["missed"] = slow_mean([row for i, row in enumerate(gt) if i not in missed], rows) - base
    number = {name: list(cause.values()).count(name) for name in CAUSES}
    return {**number, "missed": len(missed)}, gains


def slow_mean(gt, rows):
    """Mean AP over the classes in `gt`, of (label, true positive) by descending score."""
    number = defaultdict(int)
    for _, _, label in gt:
        number[label] += 1
    areas = []
    for label, count in number.items():
        hits, curve = 0, []
        for rank, right in enumerate([right for of, right in rows if of == label], 1):
            hits += right
            curve.append((right, Fraction(hits, rank)))
        areas.append(
            sum(max(p for _, p in curve[i:]) for i, (right, _) in enumerate(curve) if right) / Fraction(count)
        )
    return sum(areas) / len(areas) if areas else math.nan


BOXES = [WHOLE, HALF, THIRD, CORNER, (0, 0, 12, 6), (2, 2, 14, 14), (6, 0, 18, 12), (0, 0, 10, 10)]
gt_rows = st.tuples(st.integers(1, 2), st.sampled_from(BOXES), st.integers(1, 3))
det_rows = st.tuples(st.integers(1, 3), st.sampled_from(BOXES), st.integers(1, 3), st.integers(0, 999))
gt_lists = st.lists(gt_rows, min_size=1, max_size=12)
det_lists = st.lists(det_rows, max_size=25, unique_by=lambda row: row[3])
quick = settings(max_examples=150, deadline=None, database=None, derandomize=True)


def assert_agrees(gt, det):
    budget = error_budget(ground_truth(*gt), detections(*det), CLASSES)
    number, gains = slow_budget(gt, det)
    assert budget.count == number
    for cause in CAUSES:
        assert budget.mAP_gain[cause] == pytest.approx(float(gains[cause]), abs=1e-12, nan_ok=True)


@quick
@given(gt_lists, det_lists)
def test_reference_implementation_agrees(gt, det):
    gt_kept = ground_truth(*gt)
    assert_agrees(
        [*zip(gt_kept.frame.tolist(), [r[1] for r in gt], gt_kept.label.tolist(), strict=True)], det
    )


def test_reference_implementation_agrees_in_a_crowd(monkeypatch):
    # Also when the detections are processed in many small chunks.
    monkeypatch.setitem(error_budget.__globals__, "_CHUNK", 7)
    for seed in range(4):
        rng = random.Random(seed)
        gt = [(rng.randint(1, 2), rng.choice(BOXES), rng.randint(1, 3)) for _ in range(25)]
        scores = rng.sample(range(1000), 120)
        assert_agrees(gt, [(rng.randint(1, 3), rng.choice(BOXES), rng.randint(1, 3), s) for s in scores])


@quick
@given(gt_lists, det_lists, st.sampled_from(list(Protocol)))
def test_properties_of_every_protocol(gt, det, protocol):
    budget = error_budget(ground_truth(*gt), detections(*det), CLASSES, rules=EvalRules(protocol))
    score = frame_mAP(ground_truth(*gt), detections(*det), CLASSES, rules=EvalRules(protocol))
    np.testing.assert_equal(asdict(budget.score), asdict(score))
    false = sum(budget.count[cause] for cause in CAUSES[:-1])
    assert false == score.num_detections - score.num_true_positives  # every one has one cause
    assert budget.count["missed"] <= score.num_ground_truth - score.num_true_positives
    for cause, gain in budget.mAP_gain.items():
        undefined = cause == "missed" or math.isnan(score.mAP)
        assert -1e-6 < gain <= 1 - score.mAP + 1e-6 or (math.isnan(gain) and undefined)
        assert sum(of[cause] for of in budget.class_count.values()) == budget.count[cause]
        if budget.count[cause] == 0:
            assert gain == pytest.approx(score.mAP - score.mAP, abs=1e-12, nan_ok=True)
    rest = without_duplicates(ground_truth(*gt), detections(*det), CLASSES, rules=EvalRules(protocol))
    assert len(det) - len(rest.score) == budget.count["duplicate"]
    again = frame_mAP(ground_truth(*gt), rest, CLASSES, rules=EvalRules(protocol))
    assert again.mAP == pytest.approx(score.mAP + budget.mAP_gain["duplicate"], abs=1e-6, nan_ok=True)
