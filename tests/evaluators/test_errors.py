"""The error budget: each cause told once, prices as fractions, and a slow second opinion."""

import math
import random
from collections import defaultdict
from dataclasses import asdict
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluators import Detections, GroundTruth, Protocol, error_budget, frame_map
from evaluators.errors import CAUSES

WHOLE, HALF, THIRD, CORNER = (0, 0, 12, 12), (0, 0, 6, 12), (0, 0, 4, 12), (0, 0, 1, 1)
CLASSES = {1: "run", 2: "sit", 3: "wave"}


def truth(*told):
    """From (frame, box, label)."""
    return GroundTruth(*columns(told))


def found(*told):
    return Detections(*columns(told), score=np.array([row[3] for row in told], dtype=float))


def columns(told):
    frame = np.array([row[0] for row in told], dtype=int)
    box = np.array([row[1] for row in told], dtype=float).reshape(-1, 4)
    return ("a",), np.zeros(len(told), int), frame, box, np.array([row[2] for row in told], dtype=int)


def counts(budget):
    return {cause: n for cause, n in budget.count.items() if n}


# --- each cause ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("box", "label", "cause"),
    [
        (WHOLE, 1, "duplicate"),
        (HALF, 1, "duplicate"),  # just good enough
        (WHOLE, 2, "wrong class"),
        (HALF, 2, "wrong class"),
        (THIRD, 1, "poor box"),
        (THIRD, 2, "both"),
        (CORNER, 1, "background"),
        (CORNER, 2, "background"),
        ((20, 20, 30, 30), 1, "background"),
    ],
)
def test_a_false_detection_has_one_cause(box, label, cause):
    there = truth((1, WHOLE, 1))
    budget = error_budget(there, found((1, WHOLE, 1, 0.9), (1, box, label, 0.8)), CLASSES)
    assert counts(budget) == {cause: 1}
    assert budget.class_count[label][cause] == 1


def test_on_a_frame_without_anybody_it_is_background():
    budget = error_budget(truth((1, WHOLE, 1)), found((1, WHOLE, 1, 0.9), (2, WHOLE, 1, 0.8)), CLASSES)
    assert counts(budget) == {"background": 1}


def test_the_box_is_judged_before_the_class():
    # Tight on somebody who sits; somebody else, whom it touches by a third, does run.
    there = truth((1, WHOLE, 2), (1, (0, 0, 12, 4), 1), (1, (0, 0, 12, 4), 3))
    budget = error_budget(there, found((1, WHOLE, 1, 0.8)), CLASSES)
    assert budget.count["wrong class"] == 1


def test_a_person_doing_two_things_is_touched_once_for_each():
    # A second "run" on somebody who runs and sits: a duplicate, not the class "sit" missed.
    there = truth((1, WHOLE, 1), (1, WHOLE, 2))
    seen = found((1, WHOLE, 1, 0.9), (1, WHOLE, 1, 0.8))
    assert counts(error_budget(there, seen, CLASSES)) == {"duplicate": 1, "missed": 1}


def test_what_is_not_found_and_would_not_be_is_missed():
    there = truth((1, WHOLE, 1), (2, WHOLE, 1), (3, WHOLE, 1), (4, WHOLE, 1))
    seen = found((1, WHOLE, 1, 0.9), (2, THIRD, 1, 0.8), (3, WHOLE, 2, 0.7))
    budget = error_budget(there, seen, CLASSES)
    assert counts(budget) == {"poor box": 1, "wrong class": 1, "missed": 1}  # only frame 4's
    assert budget.class_count[1]["missed"] == 1


def test_who_touches_just_enough_touches():
    there, seen = truth((1, WHOLE, 1)), found((1, (0, 0, 3, 12), 1, 0.8))  # a quarter, exactly
    assert counts(error_budget(there, seen, CLASSES, background=0.25)) == {"poor box": 1}
    assert counts(error_budget(there, seen, CLASSES, background=0.26)) == {"background": 1, "missed": 1}


@pytest.mark.parametrize(
    ("rules", "cause"),
    [
        ({"protocol": "act"}, "poor box"),
        ({"protocol": "annotated", "plus_one": True}, "poor box"),
        ({"protocol": "annotated"}, "background"),
    ],
)
def test_a_pixel_more_makes_neighbours_touch(rules, cause):
    # Two pixels wide each, counted so, they share one of seven; else they meet in a corner.
    budget = error_budget(truth((1, (0, 0, 1, 1), 1)), found((1, (1, 1, 2, 2), 1, 0.8)), CLASSES, **rules)
    assert budget.count[cause] == 1


# --- prices --------------------------------------------------------------------------------------


def test_the_price_of_a_wrong_class():
    # Sure that frame 1's runner sits. Put right: "run" 0 -> 1, and "sit" 1/2 -> 1.
    there = truth((1, WHOLE, 1), (2, WHOLE, 2))
    budget = error_budget(there, found((1, WHOLE, 2, 0.9), (2, WHOLE, 2, 0.8)), CLASSES)
    assert budget.score.mAP == 1 / 4
    assert budget.price["wrong class"] == 3 / 4
    assert sum(budget.price.values()) == 3 / 4


def test_only_one_detection_is_put_right_for_a_person():
    # Three wrong guesses at one runner: the surest becomes right, the others go.
    there = truth((1, WHOLE, 1), (2, WHOLE, 2))
    seen = found(*[(1, WHOLE, 2, score) for score in (0.9, 0.7, 0.6)], (2, WHOLE, 2, 0.8))
    assert error_budget(there, seen, CLASSES).price["wrong class"] == 3 / 4


def test_of_a_person_doing_two_things_the_free_one_is_taken():
    there = truth((1, WHOLE, 1), (1, WHOLE, 2))
    budget = error_budget(there, found((1, WHOLE, 1, 0.9), (1, WHOLE, 3, 0.8)), CLASSES)
    assert budget.price["wrong class"] == 1 / 2  # "sit" 0 -> 1; nobody waves
    assert budget.count["missed"] == 0


def test_the_price_of_a_poor_box():
    there = truth((1, WHOLE, 1), (2, WHOLE, 1))
    budget = error_budget(there, found((1, THIRD, 1, 0.9), (2, WHOLE, 1, 0.8)), CLASSES)
    assert budget.score.mAP == 1 / 4
    assert budget.price["poor box"] == 3 / 4
    assert budget.count["missed"] == 0


@pytest.mark.parametrize(
    ("row", "cause"),
    [((1, WHOLE, 1, 0.8), "duplicate"), ((1, THIRD, 2, 0.8), "both"), ((9, WHOLE, 1, 0.8), "background")],
)
def test_the_price_of_what_is_deleted(row, cause):
    # "run": hit, (false,) hit of two: 1/2 + 1/2 x 2/3. "sit": (false,) hit.
    there = truth((1, WHOLE, 1), (2, WHOLE, 1), (3, WHOLE, 2))
    seen = found((1, WHOLE, 1, 0.9), row, (2, WHOLE, 1, 0.7), (3, WHOLE, 2, 0.6))
    budget = error_budget(there, seen, CLASSES)
    lost = 1 / 6 if row[2] == 1 else 1 / 2
    assert budget.price[cause] == pytest.approx(lost / 2)
    assert sum(budget.price.values()) == pytest.approx(lost / 2)


def test_the_price_of_what_is_missed():
    there = truth((1, WHOLE, 1), (2, WHOLE, 1), (3, WHOLE, 1), (4, WHOLE, 1))
    budget = error_budget(there, found((1, WHOLE, 1, 0.9)), CLASSES)
    assert (budget.score.mAP, budget.price["missed"]) == (1 / 4, 3 / 4)


def test_a_class_missed_altogether_leaves_the_mean():
    there = truth((1, WHOLE, 1), (2, WHOLE, 2))
    budget = error_budget(there, found((1, WHOLE, 1, 0.9)), CLASSES)
    assert (budget.score.mAP, budget.price["missed"]) == (1 / 2, 1 / 2)
    budget = error_budget(there, found((1, WHOLE, 1, 0.9)), CLASSES, protocol="gurkirt")
    assert (budget.score.mAP, budget.price["missed"]) == (1 / 3, 0)  # whose mean is over all classes


def test_where_everything_is_missed_nothing_is_left_to_score():
    budget = error_budget(truth((1, WHOLE, 1)), found(), CLASSES)
    assert math.isnan(budget.price["missed"])


def test_nothing_wrong_costs_nothing():
    budget = error_budget(truth((1, WHOLE, 1)), found((1, WHOLE, 1, 0.9)), CLASSES)
    assert counts(budget) == {}
    assert set(budget.price.values()) == {0}
    assert list(budget.count) == list(budget.price) == list(CAUSES)


def test_no_detections_and_no_ground_truth():
    budget = error_budget(truth((1, WHOLE, 1)), found(), CLASSES)
    assert counts(budget) == {"missed": 1}
    budget = error_budget(truth(), found((1, WHOLE, 1, 0.9)), CLASSES)
    assert counts(budget) == {"background": 1}
    assert all(math.isnan(price) for price in budget.price.values())


def test_excluded_frames_have_no_errors():
    there, seen = truth((1, WHOLE, 1), (2, WHOLE, 1)), found((1, WHOLE, 1, 0.9), (2, THIRD, 1, 0.8))
    assert counts(error_budget(there, seen, CLASSES, excluded={("a", 2)})) == {}


@pytest.mark.parametrize("background", [0, 0.5, 0.7, math.nan])
def test_a_background_that_is_none(background):
    with pytest.raises(ValueError, match=r"background must lie between 0 and iou \(0.5\)"):
        error_budget(truth((1, WHOLE, 1)), found(), CLASSES, background=background)


# --- a second opinion, with lists and fractions --------------------------------------------------


def slow_iou(a, b):
    both = max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    return Fraction(both, (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def slow_budget(there, seen):
    """({cause: count}, {cause: price}) of the standard protocol; scores are all different."""
    seen = sorted(seen, key=lambda row: -row[3])
    claimed, right = set(), set()
    for d, (frame, box, label, _) in enumerate(seen):
        own = [(slow_iou(box, b), -i) for i, (f, b, n) in enumerate(there) if (f, n) == (frame, label)]
        if own and max(own)[0] >= Fraction(1, 2) and -max(own)[1] not in claimed:
            claimed.add(-max(own)[1])
            right.add(d)
    cause = {}
    for d, (frame, box, label, _) in enumerate(seen):
        if d in right:
            continue
        own = max([slow_iou(box, b) for f, b, n in there if (f, n) == (frame, label)], default=0)
        best = max([slow_iou(box, b) for f, b, n in there if f == frame], default=0)
        good, touched = Fraction(1, 2), Fraction(1, 10)
        table = {True: ("duplicate", "wrong class"), False: ("poor box", "both")}
        if best < touched:
            cause[d] = "background"
        else:
            enough = good if best >= good else touched
            cause[d] = table[best >= good][0 if own >= enough else 1]
    base = slow_mean(there, [(row[2], d in right) for d, row in enumerate(seen)])
    prices, saved = {}, set()
    for name in CAUSES[:-1]:
        given, rows = set(), []
        for d, (frame, box, label, _) in enumerate(seen):
            if cause.get(d) != name:
                rows.append((label, d in right))
                continue
            least = {"wrong class": Fraction(1, 2), "poor box": Fraction(1, 10)}.get(name, 2)
            free = [
                (slow_iou(box, b), -i)
                for i, (f, b, n) in enumerate(there)
                if f == frame and i not in claimed | given and (name == "wrong class" or n == label)
            ]
            if free and max(free)[0] >= least:
                given.add(-max(free)[1])
                rows.append((there[-max(free)[1]][2], True))
        saved |= given
        prices[name] = slow_mean(there, rows) - base
    missed = set(range(len(there))) - claimed - saved
    rows = [(row[2], d in right) for d, row in enumerate(seen)]
    prices["missed"] = slow_mean([row for i, row in enumerate(there) if i not in missed], rows) - base
    number = {name: list(cause.values()).count(name) for name in CAUSES}
    return {**number, "missed": len(missed)}, prices


def slow_mean(there, rows):
    """Mean AP over the classes in `there`, of (label, right) surest first."""
    number = defaultdict(int)
    for _, _, label in there:
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
there_rows = st.tuples(st.integers(1, 2), st.sampled_from(BOXES), st.integers(1, 3))
seen_rows = st.tuples(st.integers(1, 3), st.sampled_from(BOXES), st.integers(1, 3), st.integers(0, 999))
theres = st.lists(there_rows, min_size=1, max_size=12)
seens = st.lists(seen_rows, max_size=25, unique_by=lambda row: row[3])
quick = settings(max_examples=150, deadline=None, database=None, derandomize=True)


def agrees(there, seen):
    budget = error_budget(truth(*there), found(*seen), CLASSES)
    number, prices = slow_budget(there, seen)
    assert budget.count == number
    for cause in CAUSES:
        assert budget.price[cause] == pytest.approx(float(prices[cause]), abs=1e-12, nan_ok=True)


@quick
@given(theres, seens)
def test_the_second_opinion_agrees(there, seen):
    kept = truth(*there)
    agrees([*zip(kept.frame.tolist(), [r[1] for r in there], kept.label.tolist(), strict=True)], seen)


def test_the_second_opinion_agrees_in_a_crowd(monkeypatch):
    # Also where the detections are looked at in many small parts.
    monkeypatch.setitem(error_budget.__globals__, "_CHUNK", 7)
    for seed in range(4):
        rng = random.Random(seed)
        there = [(rng.randint(1, 2), rng.choice(BOXES), rng.randint(1, 3)) for _ in range(25)]
        scores = rng.sample(range(1000), 120)
        agrees(there, [(rng.randint(1, 3), rng.choice(BOXES), rng.randint(1, 3), s) for s in scores])


@quick
@given(theres, seens, st.sampled_from(list(Protocol)))
def test_laws_of_every_protocol(there, seen, protocol):
    budget = error_budget(truth(*there), found(*seen), CLASSES, protocol=protocol)
    score = frame_map(truth(*there), found(*seen), CLASSES, protocol=protocol)
    np.testing.assert_equal(asdict(budget.score), asdict(score))
    false = sum(budget.count[cause] for cause in CAUSES[:-1])
    assert false == score.num_detections - score.num_true_positives  # every one has one cause
    assert budget.count["missed"] <= score.num_ground_truth - score.num_true_positives
    for cause, price in budget.price.items():
        assert -1e-6 < price <= 1 - score.mAP + 1e-6 or (math.isnan(price) and cause == "missed")
        assert sum(of[cause] for of in budget.class_count.values()) == budget.count[cause]
        if budget.count[cause] == 0:
            assert price == pytest.approx(0, abs=1e-12)
