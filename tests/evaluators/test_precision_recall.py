"""Actor precision and recall, whatever the action."""

import math
from collections import defaultdict
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluators import Detections, EvalRules, GroundTruth, actor_curve, actor_precision_recall
from tests.evaluators.reference import slow_iou

WHOLE, LEFT, RIGHT = (0, 0, 1, 1), (0, 0, 0.5, 1), (0.5, 0, 1, 1)
CLASSES = {1: "run", 2: "sit"}
VIDEOS = ("f", "g")


def ground_truth(*rows):
    """From (second, box, label) in video f; a second of 1000 or more is in video g."""
    return GroundTruth(*columns(rows), label=np.array([row[2] for row in rows], dtype=int))


def persons(*rows, label=0):
    """Persons from (second, box, p(alpha))."""
    score = np.array([row[2] for row in rows], dtype=float)
    return Detections(*columns(rows), label=np.full(len(rows), label), score=score)


def columns(rows):
    second = np.array([row[0] for row in rows], dtype=int)
    box = np.array([row[1] for row in rows], dtype=float).reshape(-1, 4)
    return VIDEOS, second // 1000, second, box


def test_precision_and_recall_of_two_true_positives_of_three_actors():
    gt = ground_truth((1, LEFT, 1), (1, RIGHT, 1), (2, WHOLE, 2))
    det = persons((1, LEFT, 0.9), (2, WHOLE, 0.8), (2, LEFT, 0.7), (1, RIGHT, 0.1))
    score = actor_precision_recall(gt, det, CLASSES)
    assert (score.true_positives, score.false_positives, score.actors) == (2, 1, 3)
    assert (score.precision, score.recall) == (2 / 3, 2 / 3)
    assert (score.theta, score.iou) == (0.2, 0.5)


def test_person_with_several_labels_is_one_actor():
    gt = ground_truth((1, WHOLE, 1), (1, LEFT, 1), (1, WHOLE, 2), (1, WHOLE, 9), (2, WHOLE, 1))
    score = actor_precision_recall(gt, persons((1, WHOLE, 0.9)), CLASSES)
    assert score.actors == 3
    assert (score.precision, score.recall) == (1, 1 / 3)


def test_person_without_evaluated_label_is_not_an_actor():
    gt = ground_truth((1, LEFT, 9), (1, RIGHT, 1))
    det = persons((1, LEFT, 0.9), (1, RIGHT, 0.8))
    score = actor_precision_recall(gt, det, CLASSES)
    assert (score.actors, score.true_positives, score.false_positives) == (1, 1, 1)


def test_theta_is_exclusive():
    gt, det = ground_truth((1, WHOLE, 1)), persons((1, WHOLE, 0.2))
    assert actor_precision_recall(gt, det, CLASSES, theta=0.2).recall == 0
    assert actor_precision_recall(gt, det, CLASSES, theta=0.1999).recall == 1


def test_duplicate_detection_of_an_actor_is_a_false_positive():
    gt = ground_truth((1, WHOLE, 1))
    det = persons((1, WHOLE, 0.3), (1, LEFT, 0.9))  # the one of higher score has an IoU of exactly one half
    score = actor_precision_recall(gt, det, CLASSES)
    assert (score.true_positives, score.false_positives) == (1, 1)
    assert actor_precision_recall(gt, det, CLASSES, theta=0.5).precision == 1


def test_first_actor_in_the_file_is_the_target_among_equal_ious():
    det = persons((1, WHOLE, 0.9), (1, LEFT, 0.8))  # WHOLE has an IoU of one half with either
    left_first = ground_truth((1, LEFT, 1), (1, RIGHT, 1))
    assert actor_precision_recall(left_first, det, CLASSES).true_positives == 1
    right_first = ground_truth((1, RIGHT, 1), (1, LEFT, 1))
    assert actor_precision_recall(right_first, det, CLASSES).true_positives == 2


def test_labels_of_the_detections_are_ignored():
    gt, row = ground_truth((1, WHOLE, 1)), (1, WHOLE, 0.9)
    for label in (0, 1, 2, 9):
        assert actor_precision_recall(gt, persons(row, label=label), CLASSES).precision == 1


def test_excluded_seconds_and_inverted_detections_are_left_out():
    gt = ground_truth((1, WHOLE, 1), (2, WHOLE, 1), (1002, WHOLE, 1))
    det = persons((1, WHOLE, 0.9), (2, LEFT, 0.9), (2, WHOLE, 0.9), (1, (1, 0, 0, 1), 0.9))
    score = actor_precision_recall(gt, det, CLASSES, rules=EvalRules(excluded={("f", 2)}))
    assert (score.true_positives, score.false_positives, score.actors) == (1, 0, 2)


def test_detection_on_a_frame_without_actors_is_a_false_positive():
    score = actor_precision_recall(ground_truth((1, WHOLE, 1)), persons((5, WHOLE, 0.9)), CLASSES)
    assert (score.precision, score.recall) == (0, 0)


def test_precision_is_nan_without_detections_and_recall_without_actors():
    gt, det = ground_truth((1, WHOLE, 1)), persons((1, WHOLE, 0.9))
    no_detections = actor_precision_recall(gt, persons(), CLASSES)
    assert math.isnan(no_detections.precision)
    assert no_detections.recall == 0
    no_actors = actor_precision_recall(ground_truth(), det, CLASSES)
    assert no_actors.precision == 0
    assert math.isnan(no_actors.recall)


def test_curve_worked_by_hand():
    gt = ground_truth((1, WHOLE, 1), (2, WHOLE, 1))
    det = persons((1, WHOLE, 0.9), (1, WHOLE, 0.5), (2, WHOLE, 0.5), (7, WHOLE, 0.3))
    theta, precision, recall = actor_curve(gt, det, CLASSES)
    assert theta.tolist() == [0.3, 0.5, 0.9]
    np.testing.assert_array_equal(precision, [2 / 3, 1, math.nan])
    assert recall.tolist() == [1, 1 / 2, 0]


def test_curve_is_empty_without_detections_and_recall_nan_without_actors():
    for array in actor_curve(ground_truth((1, WHOLE, 1)), persons(), CLASSES):
        assert array.shape == (0,)
    _, precision, recall = actor_curve(ground_truth(), persons((1, WHOLE, 0.9)), CLASSES)
    assert np.isnan(precision).all()
    assert np.isnan(recall).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"theta": math.nan}, "theta is NaN"),
        ({"rules": EvalRules("gurkirt")}, "matched by protocol standard, not by gurkirt"),
    ],
)
def test_invalid_rules_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        actor_precision_recall(ground_truth(), persons(), CLASSES, **options)


def test_inverted_ground_truth_box_and_empty_class_list_are_refused():
    gt = ground_truth((1, WHOLE, 1), (1003, (0.5, 0, 0.2, 1), 1))
    for score in (actor_precision_recall, actor_curve):
        with pytest.raises(ValueError, match=r"ground-truth row 1 \(g, frame 1003\)"):
            score(gt, persons(), CLASSES)
        with pytest.raises(ValueError, match="no classes"):
            score(ground_truth(), persons(), {})


# --- reference implementation in plain loops -----------------------------------------------------

# Sixteenths, so that IoUs and their ties are exact.
BOXES = [
    tuple(x / 16 for x in box)
    for box in [
        (0, 0, 8, 8),
        (0, 0, 8, 7),
        (1, 0, 8, 8),
        (0, 0, 8, 4),
        (4, 4, 12, 12),
        (0, 0, 16, 8),
    ]
]
INVERTED = [(0.5, 0, 0.25, 1)]
SECONDS = [1, 2, 3, 1001]
EXCLUDED = frozenset({("f", 2), ("nowhere", 2)})


def slow_score(gt, det, theta):
    """(true positives, false positives, actors), with lists only."""
    actors = defaultdict(list)
    for second, box, label in gt:
        scored = label in CLASSES and (VIDEOS[second // 1000], second) not in EXCLUDED
        if scored and box not in actors[second]:
            actors[second].append(box)
    hits, misses, matched = 0, 0, []
    for second, box, score in sorted(det, key=lambda row: -row[2]):
        skipped = score <= theta or (VIDEOS[second // 1000], second) in EXCLUDED
        if skipped or box in INVERTED:
            continue
        overlaps = [slow_iou(box, actor) for actor in actors[second]]
        best = max(overlaps, default=Fraction(0))
        target = (second, overlaps.index(best)) if overlaps else None
        if best >= Fraction(1, 2) and target not in matched:
            matched.append(target)
            hits += 1
        else:
            misses += 1
    return hits, misses, sum(map(len, actors.values()))


gt_lists = st.lists(
    st.tuples(st.sampled_from(SECONDS), st.sampled_from(BOXES), st.integers(1, 3)), max_size=15
)
person_lists = st.lists(
    st.tuples(
        st.sampled_from([*SECONDS, 4]),
        st.sampled_from(BOXES + INVERTED),
        st.integers(0, 20).map(lambda n: n / 20),  # coarse: ties are common
    ),
    max_size=25,
)
quick = settings(max_examples=100, deadline=None, database=None, derandomize=True)


@quick
@given(gt_lists, person_lists, st.sampled_from([-1.0, 0.0, 0.2, 0.5, 1.0]))
def test_reference_implementation_agrees(gt, det, theta):
    score = actor_precision_recall(
        ground_truth(*gt), persons(*det), CLASSES, theta=theta, rules=EvalRules(excluded=EXCLUDED)
    )
    counts = (score.true_positives, score.false_positives, score.actors)
    assert counts == slow_score(gt, det, theta)


@quick
@given(gt_lists, person_lists)
def test_curve_equals_the_score_at_every_theta(gt, det):
    gt, det = ground_truth(*gt), persons(*det)
    theta, precision, recall = actor_curve(gt, det, CLASSES, rules=EvalRules(excluded=EXCLUDED))
    kept = [
        score
        for video, second, box, score in zip(det.video, det.frame, det.box.tolist(), det.score, strict=True)
        if (VIDEOS[video], second) not in EXCLUDED and tuple(box) not in INVERTED
    ]
    assert theta.tolist() == sorted(set(kept))
    for t, p, r in zip(theta, precision, recall, strict=True):
        at = actor_precision_recall(gt, det, CLASSES, theta=t, rules=EvalRules(excluded=EXCLUDED))
        np.testing.assert_array_equal([p, r], [at.precision, at.recall])
    assert (np.diff(recall) <= 0).all() or np.isnan(recall).all()
