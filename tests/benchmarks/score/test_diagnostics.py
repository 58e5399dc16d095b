"""What is told beside the mAP of a row: twins, boxes and classes, each on its own."""

from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.score.detections import SplitDetections, expand_rows
from benchmarks.score.diagnostics import diagnose, twin_law
from evaluators.frame_map import Detections, GroundTruth, frame_mAP
from evaluators.matching import box_iou

A, B = (0.1, 0.1, 0.3, 0.5), (0.6, 0.1, 0.8, 0.5)
"""Two actors; A runs (1), B sits (2)."""


def split_of(*actors, evaluated=(1, 2), excluded=()):
    """A split of frames of video v. actors: (frame, box, label)."""
    frame, box, label = zip(*actors, strict=True)
    zeros = np.zeros(len(actors), np.int64)
    gt = GroundTruth(("v",), zeros, np.array(frame), np.array(box), np.array(label))
    return SimpleNamespace(
        ground_truth=gt, evaluated={i: str(i) for i in evaluated}, excluded=frozenset(excluded)
    )


def detections_of(*candidates):
    """candidates: (frame, box, p(alpha), score of class 1, score of class 2)."""
    frame, box, p, *scores = zip(*candidates, strict=True)
    zeros = np.zeros(len(candidates), np.int64)
    persons = Detections(("v",), zeros, np.array(frame), np.array(box, float), zeros, np.array(p, float))
    return SplitDetections(persons, np.array([1, 2]), np.array(scores, np.float32).T)


def moved(box, by):
    return (box[0] + by, box[1], box[2] + by, box[3])


def diagnosed(split, detections, *, product=False):
    return diagnose(split, detections, detections, product=product)


BOTH = split_of((1, A, 1), (1, B, 2))


def test_twins_are_counted_per_detected_actor():
    """A has two candidates above 0.2 and one below, B one, the background one, and frame 2 has no actor."""
    detections = detections_of(
        (1, A, 0.9, 1, 0), (1, moved(A, 0.02), 0.8, 1, 0), (1, A, 0.1, 1, 0),
        (1, B, 0.7, 0, 1), (1, (0.4, 0.6, 0.5, 0.9), 0.6, 0, 0), (2, A, 0.95, 1, 0),
    )  # fmt: skip
    found = diagnosed(BOTH, detections)
    assert found.candidates_per_actor == 1.5
    assert found.p_actor == pytest.approx(0.8)


def test_an_actor_that_no_candidate_overlaps_by_half_counts_in_neither_number():
    detections = detections_of((1, A, 0.9, 1, 0), (1, moved(B, 0.15), 0.9, 0, 1))
    assert diagnosed(BOTH, detections).candidates_per_actor == 1
    none = diagnosed(BOTH, detections_of((1, moved(A, 0.15), 0.9, 1, 0)))
    assert (none.candidates_per_actor, none.p_actor) == (None, None)


def test_a_person_with_two_labels_is_one_actor():
    split = split_of((1, A, 1), (1, A, 2))
    assert diagnosed(split, detections_of((1, A, 0.9, 1, 1))).candidates_per_actor == 1


def test_coarse_boxes_lower_the_actor_ap_at_the_higher_overlap_alone():
    """Boxes of IoU 0.6 with their actors, all classes right."""
    coarse = detections_of((1, moved(A, 0.05), 0.9, 1, 0), (1, moved(B, 0.05), 0.8, 0, 1))
    assert box_iou(np.array([A]), np.array([moved(A, 0.05)])) == pytest.approx(0.6)
    found = diagnosed(BOTH, coarse)
    assert (found.actor_ap_50, found.actor_ap_75, found.class_ap_true_boxes) == (1, 0, 1)


def test_wrong_classes_lower_the_class_ap_alone():
    """Each actor's own class is scored below the other actor's: AP 1/2 of two."""
    wrong = detections_of((1, A, 0.9, 0.2, 0.7), (1, B, 0.8, 0.7, 0.2))
    found = diagnosed(BOTH, wrong)
    assert (found.actor_ap_50, found.actor_ap_75, found.class_ap_true_boxes) == (1, 1, 0.5)


def test_the_class_ap_takes_p_alpha_out_of_product_scores():
    """p(a) is right, 0.9 against 0.5, but B's p(alpha) is higher: p(alpha) p(a) is 0.27 against 0.5."""
    split = split_of((1, A, 1), (1, B, 2))
    product = detections_of((1, A, 0.3, 0.27, 0.03), (1, B, 1.0, 0.5, 0.9))
    assert diagnosed(split, product, product=True).class_ap_true_boxes == 1
    assert diagnosed(split, product).class_ap_true_boxes == 0.75


def test_an_actor_without_any_overlap_is_missed_by_the_class_ap():
    found = diagnosed(BOTH, detections_of((1, A, 0.9, 1, 0)))
    assert found.class_ap_true_boxes == 0.5
    assert found.actor_ap_50 == 0.5


def test_excluded_frames_and_classes_that_are_not_evaluated_have_no_actors():
    split = split_of((1, A, 1), (2, A, 1), (1, B, 3), excluded={("v", 2)})
    detections = detections_of((1, A, 0.9, 1, 0), (2, A, 0.8, 1, 0), (2, A, 0.7, 1, 0), (1, B, 0.6, 0, 0))
    found = diagnosed(split, detections)
    assert found.candidates_per_actor == 1
    assert found.actor_ap_50 == 1


def test_numbers_of_random_detections_are_those_of_plain_loops():
    rng = np.random.default_rng(3)
    corner = rng.uniform(0, 0.6, (30, 2))
    actors = [(i % 6, (*c, *(c + 0.3)), 1 + i % 2) for i, c in enumerate(corner)]
    shifts = rng.uniform(-0.1, 0.1, (90, 2))
    candidates = []
    for i, shift in enumerate(shifts):
        frame, box, label = actors[i % 30]
        p, right, wrong = rng.uniform(0.05, 1, 3)
        box = np.array(box) + np.tile(shift, 2)
        candidates.append((frame, tuple(box), p, *((right, wrong) if label == 1 else (wrong, right))))
    split, detections = split_of(*actors), detections_of(*candidates)
    found = diagnosed(split, detections)

    on_actors, detected = [], set()
    for frame, box, p, *_ in candidates:
        ious = [
            box_iou(np.array([box]), np.array([other]))[0] if at == frame else 0.0 for at, other, _ in actors
        ]
        if p > 0.2 and max(ious) >= 0.5:
            on_actors.append(p)
            detected.add(int(np.argmax(ious)))
    assert found.candidates_per_actor == pytest.approx(len(on_actors) / len(detected))
    assert found.p_actor == pytest.approx(np.median(on_actors))
    assert 0 < found.actor_ap_75 < found.actor_ap_50 < 1
    assert (
        frame_mAP(split.ground_truth, expand_rows(detections), split.evaluated).mAP
        < found.class_ap_true_boxes
    )


@pytest.mark.parametrize(("k", "published"), [(1, 1), (2, 0.909), (8, 0.588)])
def test_the_twin_law_is_where_the_weighted_cross_entropy_is_least(k, published):
    p = np.linspace(0.001, 0.999, 999)
    loss = -np.log(p) / k - 0.1 * (1 - 1 / k) * np.log(1 - p)
    assert twin_law(k, 0.1) == pytest.approx(published, abs=5e-4)
    assert p[loss.argmin()] == pytest.approx(min(twin_law(k, 0.1), 0.999), abs=1e-3)
