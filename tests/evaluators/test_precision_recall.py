"""Actor precision and recall: is the person found, whatever they do?"""

import math
from collections import defaultdict
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluators import Detections, GroundTruth, actor_curve, actor_precision_recall

WHOLE, LEFT, RIGHT = (0, 0, 1, 1), (0, 0, 0.5, 1), (0.5, 0, 1, 1)
CLASSES = {1: "run", 2: "sit"}
VIDEOS = ("f", "g")


def people(*told):
    """Ground truth from (second, box, label) in video f; a second of 1000 or more is in video g."""
    return GroundTruth(*columns(told), label=np.array([row[2] for row in told], dtype=int))


def predictions(*told, label=0):
    """Persons from (second, box, p(alpha))."""
    score = np.array([row[2] for row in told], dtype=float)
    return Detections(*columns(told), label=np.full(len(told), label), score=score)


def columns(told):
    second = np.array([row[0] for row in told], dtype=int)
    box = np.array([row[1] for row in told], dtype=float).reshape(-1, 4)
    return VIDEOS, second // 1000, second, box


def test_two_of_three_people_found_and_one_prediction_in_the_air():
    there = people((1, LEFT, 1), (1, RIGHT, 1), (2, WHOLE, 2))
    seen = predictions((1, LEFT, 0.9), (2, WHOLE, 0.8), (2, LEFT, 0.7), (1, RIGHT, 0.1))
    score = actor_precision_recall(there, seen, CLASSES)
    assert (score.true_positives, score.false_positives, score.actors) == (2, 1, 3)
    assert (score.precision, score.recall) == (2 / 3, 2 / 3)
    assert (score.theta, score.iou) == (0.2, 0.5)


def test_a_person_doing_three_things_is_one_actor():
    there = people((1, WHOLE, 1), (1, LEFT, 1), (1, WHOLE, 2), (1, WHOLE, 9), (2, WHOLE, 1))
    score = actor_precision_recall(there, predictions((1, WHOLE, 0.9)), CLASSES)
    assert score.actors == 3
    assert (score.precision, score.recall) == (1, 1 / 3)


def test_a_person_who_does_nothing_evaluated_is_no_actor():
    there = people((1, LEFT, 9), (1, RIGHT, 1))
    seen = predictions((1, LEFT, 0.9), (1, RIGHT, 0.8))
    score = actor_precision_recall(there, seen, CLASSES)
    assert (score.actors, score.true_positives, score.false_positives) == (1, 1, 1)


def test_theta_is_strict():
    there, seen = people((1, WHOLE, 1)), predictions((1, WHOLE, 0.2))
    assert actor_precision_recall(there, seen, CLASSES, theta=0.2).recall == 0
    assert actor_precision_recall(there, seen, CLASSES, theta=0.1999).recall == 1


def test_a_second_claimant_of_a_person_is_a_false_positive():
    there = people((1, WHOLE, 1))
    seen = predictions((1, WHOLE, 0.3), (1, LEFT, 0.9))  # the surer one overlaps by just one half
    score = actor_precision_recall(there, seen, CLASSES)
    assert (score.true_positives, score.false_positives) == (1, 1)
    assert actor_precision_recall(there, seen, CLASSES, theta=0.5).precision == 1


def test_of_two_people_overlapped_alike_the_first_in_the_file_is_the_target():
    seen = predictions((1, WHOLE, 0.9), (1, LEFT, 0.8))  # WHOLE overlaps either by one half
    left_first = people((1, LEFT, 1), (1, RIGHT, 1))
    assert actor_precision_recall(left_first, seen, CLASSES).true_positives == 1
    right_first = people((1, RIGHT, 1), (1, LEFT, 1))
    assert actor_precision_recall(right_first, seen, CLASSES).true_positives == 2


def test_the_labels_of_the_predictions_play_no_part():
    there, told = people((1, WHOLE, 1)), (1, WHOLE, 0.9)
    for label in (0, 1, 2, 9):
        assert actor_precision_recall(there, predictions(told, label=label), CLASSES).precision == 1


def test_excluded_seconds_and_boxes_turned_inside_out_are_left_out():
    there = people((1, WHOLE, 1), (2, WHOLE, 1), (1002, WHOLE, 1))
    seen = predictions((1, WHOLE, 0.9), (2, LEFT, 0.9), (2, WHOLE, 0.9), (1, (1, 0, 0, 1), 0.9))
    score = actor_precision_recall(there, seen, CLASSES, excluded={("f", 2)})
    assert (score.true_positives, score.false_positives, score.actors) == (1, 0, 2)


def test_a_prediction_where_nobody_is_counts_against_precision():
    score = actor_precision_recall(people((1, WHOLE, 1)), predictions((5, WHOLE, 0.9)), CLASSES)
    assert (score.precision, score.recall) == (0, 0)


def test_without_predictions_there_is_no_precision_and_without_actors_no_recall():
    there, seen = people((1, WHOLE, 1)), predictions((1, WHOLE, 0.9))
    nothing = actor_precision_recall(there, predictions(), CLASSES)
    assert math.isnan(nothing.precision)
    assert nothing.recall == 0
    nobody = actor_precision_recall(people(), seen, CLASSES)
    assert nobody.precision == 0
    assert math.isnan(nobody.recall)


def test_the_curve_by_hand():
    there = people((1, WHOLE, 1), (2, WHOLE, 1))
    seen = predictions((1, WHOLE, 0.9), (1, WHOLE, 0.5), (2, WHOLE, 0.5), (7, WHOLE, 0.3))
    theta, precision, recall = actor_curve(there, seen, CLASSES)
    assert theta.tolist() == [0.3, 0.5, 0.9]
    np.testing.assert_array_equal(precision, [2 / 3, 1, math.nan])
    assert recall.tolist() == [1, 1 / 2, 0]


def test_the_curve_of_nothing_is_empty_and_of_nobody_has_no_recall():
    for array in actor_curve(people((1, WHOLE, 1)), predictions(), CLASSES):
        assert array.shape == (0,)
    _, precision, recall = actor_curve(people(), predictions((1, WHOLE, 0.9)), CLASSES)
    assert np.isnan(precision).all()
    assert np.isnan(recall).all()


@pytest.mark.parametrize(
    ("rules", "message"),
    [({"theta": math.nan}, "theta is NaN"), ({"iou": 2}, "iou must lie above 0")],
)
def test_rules_that_are_none(rules, message):
    with pytest.raises(ValueError, match=message):
        actor_precision_recall(people(), predictions(), CLASSES, **rules)


def test_ground_truth_must_be_the_right_way_round():
    there = people((1, WHOLE, 1), (1003, (0.5, 0, 0.2, 1), 1))
    for score in (actor_precision_recall, actor_curve):
        with pytest.raises(ValueError, match=r"ground-truth row 1 \(g, frame 1003\)"):
            score(there, predictions(), CLASSES)
        with pytest.raises(ValueError, match="no classes"):
            score(people(), predictions(), {})


# --- a second opinion: METRICS.md, "Actor precision and recall at theta", in plain loops ---------

# Sixteenths, so that overlaps and their ties are exact.
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
INSIDE_OUT = [(0.5, 0, 0.25, 1)]
SECONDS = [1, 2, 3, 1001]
EXCLUDED = frozenset({("f", 2), ("nowhere", 2)})


def slow_score(there, seen, theta):
    """(true positives, false positives, actors), with no other tool than lists."""
    actors = defaultdict(list)
    for second, box, label in there:
        scored = label in CLASSES and (VIDEOS[second // 1000], second) not in EXCLUDED
        if scored and box not in actors[second]:
            actors[second].append(box)
    hits, misses, taken = 0, 0, []
    for second, box, score in sorted(seen, key=lambda row: -row[2]):
        skipped = score <= theta or (VIDEOS[second // 1000], second) in EXCLUDED
        if skipped or box in INSIDE_OUT:
            continue
        overlaps = [slow_iou(box, actor) for actor in actors[second]]
        best = max(overlaps, default=Fraction(0))
        target = (second, overlaps.index(best)) if overlaps else None
        if best >= Fraction(1, 2) and target not in taken:
            taken.append(target)
            hits += 1
        else:
            misses += 1
    return hits, misses, sum(map(len, actors.values()))


def slow_iou(a, b):
    a, b = [Fraction(x) for x in a], [Fraction(x) for x in b]
    both = max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


truths = st.lists(st.tuples(st.sampled_from(SECONDS), st.sampled_from(BOXES), st.integers(1, 3)), max_size=15)
persons = st.lists(
    st.tuples(
        st.sampled_from([*SECONDS, 4]),
        st.sampled_from(BOXES + INSIDE_OUT),
        st.integers(0, 20).map(lambda n: n / 20),  # coarse: ties are common
    ),
    max_size=25,
)
quick = settings(max_examples=100, deadline=None, database=None, derandomize=True)


@quick
@given(truths, persons, st.sampled_from([-1.0, 0.0, 0.2, 0.5, 1.0]))
def test_the_second_opinion_agrees(there, seen, theta):
    score = actor_precision_recall(
        people(*there), predictions(*seen), CLASSES, theta=theta, excluded=EXCLUDED
    )
    counts = (score.true_positives, score.false_positives, score.actors)
    assert counts == slow_score(there, seen, theta)


@quick
@given(truths, persons)
def test_the_curve_is_the_score_at_every_theta(there, seen):
    there, seen = people(*there), predictions(*seen)
    theta, precision, recall = actor_curve(there, seen, CLASSES, excluded=EXCLUDED)
    kept = [
        score
        for video, second, box, score in zip(
            seen.video, seen.frame, seen.box.tolist(), seen.score, strict=True
        )
        if (VIDEOS[video], second) not in EXCLUDED and tuple(box) not in INSIDE_OUT
    ]
    assert theta.tolist() == sorted(set(kept))
    for t, p, r in zip(theta, precision, recall, strict=True):
        at = actor_precision_recall(there, seen, CLASSES, theta=t, excluded=EXCLUDED)
        np.testing.assert_array_equal([p, r], [at.precision, at.recall])
    assert (np.diff(recall) <= 0).all() or np.isnan(recall).all()
