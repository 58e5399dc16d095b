"""The chance level: ground-truth boxes with random classes."""

from itertools import permutations

import numpy as np
import pytest

from evaluators import Detections, EvalRules, GroundTruth, chance_level, frame_mAP
from evaluators.ava_csv import NOBODY
from evaluators.chance import random_ap


@pytest.mark.parametrize(("positives", "number"), [(0, 3), (1, 1), (1, 4), (2, 5), (3, 5), (5, 5)])
def test_the_formula_is_the_mean_over_all_rankings(positives, number):
    hits = [1] * positives + [0] * (number - positives)
    areas = [
        sum(sum(ranking[: i + 1]) / (i + 1) for i, hit in enumerate(ranking) if hit) / max(positives, 1)
        for ranking in permutations(hits)
    ]
    assert random_ap(positives, number) == pytest.approx(np.mean(areas), abs=1e-12)


def annotated(rows, videos=("a",)):
    """Ground truth from (frame, left side of the box, label)."""
    frame, left, label = np.array(rows).T
    box = np.column_stack([left, 0 * left, left + 1, 0 * left + 1])
    return GroundTruth(videos, np.zeros(len(rows), int), frame.astype(int), box, label.astype(int))


def test_a_box_with_two_classes_is_one_box_and_a_frame_without_persons_none():
    """Two boxes; class 1 has both, class 2 one: 1 and (1 + 1/2) / 2, also with a class nobody shows."""
    rows = [(1, 0, 1), (1, 0, 2), (2, 0.0, 1), (3, 0, NOBODY)]
    assert chance_level(annotated(rows), {1: "run", 2: "sit", 3: "fly"}) == pytest.approx((1 + 3 / 4) / 2)
    rules = EvalRules("gurkirt")
    level = chance_level(annotated(rows), {1: "run", 2: "sit", 3: "fly"}, rules=rules)
    assert level == pytest.approx((1 + 3 / 4) / 3), "a class without ground truth has AP 0 there"
    assert np.isnan(chance_level(annotated(rows), {3: "fly"}))


def test_excluded_frames_do_not_count():
    rows = [(1, 0, 1), (2, 0, 2), (3, 0, 2)]
    rules = EvalRules(excluded={("a", 3), ("elsewhere", 1)})
    assert chance_level(annotated(rows), {1: "run", 2: "sit"}, rules=rules) == pytest.approx(3 / 4)


def test_random_scores_score_the_chance_level():
    rng = np.random.default_rng(0)
    people, classes = 3000, {1: "run", 2: "sit", 3: "fly"}
    label = rng.choice([1, 2, 3], people, p=[0.6, 0.3, 0.1])
    gt = annotated(np.column_stack([np.arange(people), np.zeros(people), label]))
    row, guess = np.repeat(np.arange(people), 3), np.tile([1, 2, 3], people)
    found = Detections(gt.videos, gt.video[row], gt.frame[row], gt.box[row], guess, rng.random(len(row)))
    score = frame_mAP(gt, found, classes).mAP
    assert score == pytest.approx(chance_level(gt, classes), abs=0.02), "and a little: the envelope"
