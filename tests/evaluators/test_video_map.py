"""Linking to tubes and video-mAP: cases worked out, and a reference implementation in plain loops."""

import itertools
import math
import random
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from evaluators import LINKINGS, Detections, GroundTruthTubes, Linking, Tubes, Viterbi, link, video_mAP
from evaluators import linking as linking_module
from evaluators import tubes as tubes_module
from evaluators.tubes import _chunks, tube_iou
from evaluators.video_map import EVERY_THRESHOLD, VIDEO_RULES
from tests.evaluators.reference import slow_iou

CLASSES = {0: "run", 1: "sit"}
BOX, FAR = (0, 0, 99, 99), (200, 0, 299, 99)


def columns(rows):
    """Columns of rows (video, frame, box, label, tube or score), without the last."""
    videos = tuple(dict.fromkeys(row[0] for row in rows))
    return (
        videos,
        np.array([videos.index(row[0]) for row in rows], dtype=int),
        np.array([row[1] for row in rows], dtype=int),
        np.array([row[2] for row in rows], dtype=float).reshape(-1, 4),
        np.array([row[3] for row in rows], dtype=int),
    )


def person(frames, box=BOX, last=0.9, *, video="a", label=0):
    """Rows of a person who does not move; `last` is the tube's number or the score."""
    return [(video, frame, box, label, last) for frame in frames]


def ground_truth(*persons):
    rows = [row for person in persons for row in person]
    return GroundTruthTubes(*columns(rows), np.array([row[4] for row in rows], dtype=int))


def detections(*persons):
    rows = [row for person in persons for row in person]
    return Detections(*columns(rows), np.array([row[4] for row in rows], dtype=float))


def shape(tubes):
    """[(first frame, last frame, score rounded)] of every tube."""
    return [
        (int(frames[0]), int(frames[-1]), round(float(score), 6))
        for t, score in enumerate(tubes.score)
        for frames in [tubes.frame[tubes.tube == t]]
    ]


# --- rows of one video and class are separate ----------------------------------------------------


def test_videos_and_classes_are_not_confused_by_their_numbers():
    """The same box in both videos: class 1 of a and class 0 of b have adjacent group numbers."""
    gt = ground_truth(person(range(1, 21), last=1, label=1), person(range(1, 21), last=2, video="b", label=0))
    swapped = detections(person(range(1, 21), label=1), person(range(1, 21), video="b", label=0))
    assert video_mAP(gt, swapped, CLASSES).mAP[0.5] == 1
    gt = ground_truth(person(range(1, 21), last=1, label=1), person(range(1, 21), FAR, 2, video="b", label=0))
    assert video_mAP(gt, detections(person(range(1, 21), video="b", label=0)), CLASSES).mAP[0.5] == 0


def test_box_nms_applies_within_one_class_and_frame():
    """One place, class 0 on frames 1 to 20 and class 1 on frames 2 to 21: two tubes."""
    tubes = link(detections(person(range(1, 21)), person(range(2, 22), label=1)))
    assert shape(tubes) == [(1, 20, 0.9), (2, 21, 0.9)]
    rules = Linking(least_frames=1)
    assert shape(link(detections(person([1]), person([2], label=1)), rules)) == [(1, 1, 0.9), (2, 2, 0.9)]


def test_inverted_ground_truth_box_is_missed():
    """The published annotations have a few; the public tools count them as missed."""
    wrong = (99, 0, 0, 99)
    gt = ground_truth(person(range(1, 21), last=1), person(range(1, 21), wrong, last=2, video="b"))
    det = detections(person(range(1, 21)), person(range(1, 21), video="b", last=0.5))
    score = video_mAP(gt, det, CLASSES)
    assert score.ap[0.5][0] == 0.5
    assert score.num_ground_truth == 2


def test_chunk_size_does_not_change_the_score(monkeypatch):
    rng = random.Random(4)
    frames = [range(first, first + rng.randint(15, 40)) for first in range(1, 30, 3)]
    boxes = [BOX, FAR, (30, 0, 129, 99)]
    gt = ground_truth(*[person(f, rng.choice(boxes), i, video="ab"[i % 2]) for i, f in enumerate(frames)])
    det = detections(
        *[person(f, rng.choice(boxes), rng.random(), video=rng.choice("ab")) for f in frames * 3]
    )
    whole = video_mAP(gt, det, CLASSES)
    assert 0 < whole.mAP[0.2] < 1
    for size in (1, 50, 333):
        monkeypatch.setattr(tubes_module, "_CHUNK", size)
        assert video_mAP(gt, det, CLASSES) == whole


def test_chunks_hold_at_most_the_given_frames_or_one_pair(monkeypatch):
    monkeypatch.setattr(tubes_module, "_CHUNK", 6)
    parts = list(_chunks(np.array([3, 3, 1, 9, 2, 2, 2, 1])))
    assert parts == [slice(0, 2), slice(2, 3), slice(3, 4), slice(4, 7), slice(7, 8)]
    assert list(_chunks(np.zeros(0, int))) == []


# --- linking -------------------------------------------------------------------------------------


def test_detection_on_every_frame_gives_one_tube():
    tubes = link(detections(person(range(1, 21))))
    assert shape(tubes) == [(1, 20, 0.9)]
    assert (tubes.videos, tubes.video.tolist(), tubes.label.tolist()) == (("a",), [0], [0])
    assert tubes.box.tolist() == [list(BOX)] * 20


def test_tube_shorter_than_fifteen_frames_is_dropped():
    assert shape(link(detections(person(range(1, 15))))) == []
    assert shape(link(detections(person(range(1, 16))))) == [(1, 15, 0.9)]


def test_tube_of_mean_score_below_the_least_is_dropped():
    assert shape(link(detections(person(range(1, 16), last=0.0099)))) == []
    assert shape(link(detections(person(range(1, 16), last=0.01)))) == [(1, 15, 0.01)]


def test_gap_of_four_frames_is_interpolated_and_one_of_five_ends_the_tube():
    moved = (50, 0, 149, 99)
    tubes = link(detections(person(range(1, 16)), person(range(20, 31), moved)))
    assert shape(tubes) == [(1, 30, 0.9)]
    assert tubes.box[15:19].tolist() == [
        [10, 0, 109, 99],
        [20, 0, 119, 99],
        [30, 0, 129, 99],
        [40, 0, 139, 99],
    ]
    assert shape(link(detections(person(range(1, 16)), person(range(21, 36))))) == [
        (1, 15, 0.9),
        (21, 35, 0.9),
    ]


def test_box_below_the_link_iou_starts_another_tube():
    # 100 columns against 100 shifted by 66 share 34 of 166, by 67 they share 33 of 167.
    near, far = (66, 0, 165, 99), (67, 0, 166, 99)
    assert len(shape(link(detections(person(range(1, 16)), person(range(16, 31), near))))) == 1
    assert len(shape(link(detections(person(range(1, 16)), person(range(16, 31), far))))) == 2


def test_better_scored_tube_chooses_first_and_takes_the_better_scored_box():
    # Two persons at a distance; on frame 16 one box is between them, above the link IoU with both.
    left, hit, middle = (0, 0, 99, 99), (90, 0, 189, 99), (45, 0, 144, 99)
    tubes = link(
        detections(
            person(range(1, 16), left, 0.5), person(range(1, 16), hit, 0.75), person([16], middle, 0.25)
        )
    )
    assert shape(tubes) == [(1, 15, 0.5), (1, 16, round((15 * 0.75 + 0.25) / 16, 6))]
    # Conversely: one tube, two boxes.
    tubes = link(
        detections(
            person(range(1, 16), middle, 0.5),
            person(range(16, 31), left, 0.25),
            person(range(16, 31), hit, 0.75),
        )
    )
    assert shape(tubes) == [(1, 30, 0.625), (16, 30, 0.25)]


def test_box_nms_drops_boxes_above_the_threshold_in_each_frame():
    near, far = (53, 0, 152, 99), (54, 0, 153, 99)  # 47 of 153 columns shared; 46 of 154, under 0.3
    assert len(shape(link(detections(person(range(1, 16)), person(range(1, 16), near, 0.5))))) == 1
    assert len(shape(link(detections(person(range(1, 16)), person(range(1, 16), far, 0.5))))) == 2


def test_box_nms_keeps_ten_boxes_per_frame():
    rows = [person(range(1, 16), (200 * i, 0, 200 * i + 99, 99), 0.9 - 0.01 * i) for i in range(12)]
    assert [score for *_, score in shape(link(detections(*rows)))] == [
        round(0.9 - 0.01 * i, 6) for i in range(10)
    ]


def test_tube_nms_drops_tubes_that_overlap_a_better_scored_one():
    # The same place on alternate frames: the boxes never share a frame, the interpolated tubes do.
    odd, even = person(range(1, 40, 2), last=0.9), person(range(2, 41, 2), (40, 0, 139, 99), 0.5)
    strict_linking = Linking(link_iou=0.9)  # keeps them separate
    assert shape(link(detections(odd, even), strict_linking)) == [(1, 39, 0.9)]
    assert len(shape(link(detections(odd, even), Linking(link_iou=0.9, tube_nms=0.5)))) == 2


def test_classes_and_videos_are_linked_separately():
    rows = (
        person(range(1, 16)),
        person(range(1, 16), last=0.8, label=1),
        person(range(1, 16), last=0.7, video="b"),
        person(range(16, 31), last=0.6, label=1, video="b"),
    )
    assert shape(link(detections(*rows))) == [(1, 15, 0.9), (1, 15, 0.8), (1, 15, 0.7), (16, 30, 0.6)]


def test_no_detections_give_no_tubes():
    tubes = link(detections())
    assert (len(tubes.video), tubes.box.shape) == (0, (0, 4))
    assert video_mAP(ground_truth(person(range(1, 20), last=0)), detections(), CLASSES).mAP[0.5] == 0


# --- scoring -------------------------------------------------------------------------------------


def test_perfect_tube_is_a_true_positive_at_every_threshold():
    score = video_mAP(
        ground_truth(person(range(1, 21), last=7)), detections(person(range(1, 21))), {0: "run"}
    )
    assert set(score.mAP.values()) == {1.0}
    assert score.mAP_50_95 == 1
    assert (score.num_ground_truth, score.num_detections, score.num_classes) == (1, 1, 1)
    assert list(score.mAP) == [0.2, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]


def test_tube_overlap_is_mean_box_iou_times_temporal_iou():
    # Boxes of 100 x 50 in 100 x 100 pixels, on frames 1-20 of 11-30: 1/2 x 10/30 = 1/6.
    gt = ground_truth(person(range(11, 31), BOX, 0))
    det = detections(person(range(1, 21), (0, 0, 99, 49)))
    score = video_mAP(gt, det, {0: "run"}, thresholds=(1 / 6 - 1e-9, 1 / 6 + 1e-9))
    assert list(score.mAP.values()) == [1, 0]
    assert math.isnan(score.mAP_50_95)


def test_tube_matches_the_best_unmatched_ground_truth_tube():
    # Two ground-truth tubes at one place; two detected tubes that NMS is set to keep.
    gt = ground_truth(person(range(1, 21), last=0), person(range(1, 21), last=1))
    det = detections(person(range(1, 21)), person(range(1, 21), (0, 0, 99, 89), 0.8))
    both = Linking(box_nms=1, tube_nms=1)
    assert video_mAP(gt, det, {0: "run"}, linking=both).mAP[0.5] == 1
    assert video_mAP(gt, det, {0: "run"}).mAP[0.5] == 1 / 2


def test_mean_is_over_all_classes_and_ap_is_the_raw_area():
    # A false positive of higher score, then the true positive: from (0, 0) to (1, 1/2).
    gt = ground_truth(person(range(1, 21), last=0))
    det = detections(person(range(1, 21), FAR, 0.95), person(range(1, 21)))
    score = video_mAP(gt, det, CLASSES)
    assert score.ap[0.5] == {0: 1 / 4, 1: 0}
    assert score.mAP[0.5] == 1 / 8


def test_tubes_of_classes_that_are_not_evaluated_are_left_out():
    gt = ground_truth(person(range(1, 21), last=0), person(range(1, 21), last=1, label=9))
    det = detections(person(range(1, 21)), person(range(1, 21), last=0.95, label=9))
    score = video_mAP(gt, det, {0: "run"})
    assert (score.mAP[0.5], score.num_ground_truth, score.num_detections) == (1, 1, 1)
    ready = link(det)
    score = video_mAP(gt, ready, {0: "run"})
    assert (score.mAP[0.5], score.num_detections, score.linking) == (1, 1, None)


def test_tube_in_an_unknown_video_is_a_false_positive():
    gt = ground_truth(person(range(1, 21), last=0))
    det = detections(person(range(1, 21), video="elsewhere", last=0.95), person(range(1, 21)))
    assert video_mAP(gt, det, {0: "run"}).mAP[0.5] == 1 / 4


def test_ground_truth_tube_with_a_gap_counts_only_its_own_frames():
    gt = ground_truth(person([*range(1, 11), *range(21, 31)], last=0))
    score = video_mAP(gt, detections(person(range(1, 31))), {0: "run"}, thresholds=(0.666, 0.667))
    assert list(score.mAP.values()) == [1, 0]  # 20 of 30 frames


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (person([1], last=3) + person([2], last=3, video="b"), "tube 3 has rows of more than one video"),
        (person([1], last=3) + person([2], last=3, label=1), "tube 3 has rows of more than one label"),
        (person([1], last=3) + person([1], FAR, 3), "tube 3 has two boxes on frame 1"),
    ],
)
def test_inconsistent_ground_truth_tubes_are_refused(rows, message):
    with pytest.raises(ValueError, match=message):
        video_mAP(ground_truth(rows), detections(), CLASSES)


def test_invalid_threshold_and_empty_class_list_are_refused():
    with pytest.raises(ValueError, match="iou must be above 0"):
        video_mAP(ground_truth(), detections(), CLASSES, thresholds=(0.5, 0))
    with pytest.raises(ValueError, match="no classes"):
        video_mAP(ground_truth(), detections(), {})


GOOD = {
    "videos": ("a",),
    "video": np.array([0, 0]),
    "label": np.array([0, 1]),
    "score": np.array([0.5, 0.6]),
    "tube": np.array([0, 0, 1]),
    "frame": np.array([1, 2, 1]),
    "box": np.zeros((3, 4)),
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": np.array([0.5])}, "2 videos, 2 labels, 1 scores"),
        ({"box": np.zeros((2, 4))}, r"3 tube numbers, 3 frames and boxes of shape \(2, 4\)"),
        ({"score": np.array([0.5, np.nan])}, "a score or box is NaN"),
        ({"tube": np.array([0, 0, 0])}, "must number the 2 tubes from 0, each with a box"),
        ({"frame": np.array([2, 1, 1])}, "row 1: rows must go up by tube, then by frame"),
        ({"tube": np.array([0, 1, 0])}, "row 2: rows must go up by tube"),
    ],
)
def test_inconsistent_tubes_are_refused(change, message):
    Tubes(**GOOD)
    with pytest.raises(ValueError, match=message):
        Tubes(**{**GOOD, **change})


# --- reference implementation in plain loops -----------------------------------------------------


def mean_score(tube):
    return sum(Fraction(score) for _, _, score in tube) / len(tube)


def slow_link(rows, rules):
    """[(score, {frame: box})] of one class of one video, from [(frame, box, score)] in file order."""
    ended, active = [], []
    for frame in range(1, max(row[0] for row in rows) + 1):
        kept = []
        for row in sorted((row for row in rows if row[0] == frame), key=lambda row: -row[2]):
            overlaps = [slow_iou(row[1], other[1], 1) for other in kept]
            if len(kept) < rules.keep and all(o <= Fraction(3, 10) for o in overlaps):
                kept.append(row)
        active.sort(key=lambda tube: -mean_score(tube))
        for tube in list(active):
            near = [row for row in kept if slow_iou(tube[-1][1], row[1], 1) >= Fraction(1, 5)]
            if near:
                tube.append(max(near, key=lambda row: row[2]))
                kept.remove(tube[-1])
            elif frame - tube[-1][0] >= rules.gap:
                ended.append(tube)
                active.remove(tube)
        active += [[row] for row in kept]
    good = [
        tube
        for tube in ended + active
        if mean_score(tube) >= Fraction(1, 100) and tube[-1][0] - tube[0][0] + 1 >= rules.least_frames
    ]
    left = []
    for tube in sorted(good, key=lambda tube: -mean_score(tube)):
        filled = slow_fill(tube)
        if all(slow_tube_iou(filled, other) <= Fraction(3, 10) for _, other in left):
            left.append((mean_score(tube), filled))
    return left


def slow_fill(tube):
    boxes = {}
    for (f0, b0, _), (f1, b1, _) in zip(tube, [*tube[1:], tube[-1]], strict=True):
        boxes[f0] = tuple(map(Fraction, b0))
        for frame in range(f0 + 1, f1):
            share = Fraction(frame - f0, f1 - f0)
            boxes[frame] = tuple(Fraction(x) + share * (y - x) for x, y in zip(b0, b1, strict=True))
    return boxes


def slow_tube_iou(a, b):
    both = a.keys() & b.keys()
    if not both:
        return Fraction(0)
    spatial = sum(slow_iou(a[frame], b[frame], 1) for frame in both) / len(both)
    return spatial * Fraction(len(both), len(a.keys() | b.keys()))


def slow_map(gt, tubes, threshold):
    """Mean over the classes, from {(video, label): [tube]} and {(video, label): [(score, tube)]}."""
    areas = []
    for label in CLASSES:
        number = sum(len(ground_truth_tubes) for (_, of), ground_truth_tubes in gt.items() if of == label)
        ranked = [(score, video, t) for (video, of), ts in tubes.items() if of == label for score, t in ts]
        matched, hits, area, before = [], 0, Fraction(0), Fraction(1)
        for rank, (_, video, tube) in enumerate(sorted(ranked, key=lambda row: -row[0]), 1):
            free = [p for p in gt.get((video, label), []) if all(p is not t for t in matched)]
            best = max(free, key=lambda p: slow_tube_iou(p, tube), default=None)
            hit = best is not None and slow_tube_iou(best, tube) >= threshold
            if hit:
                matched.append(best)
                hits += 1
                area += (before + Fraction(hits, rank)) / 2 / number
            before = Fraction(hits, rank)
        areas.append(area)
    return sum(areas) / len(areas)


def random_case(seed, length=30):
    """Rows of moving persons, detected with gaps, duplicates and false positives; all numbers exact."""
    rng = random.Random(seed)
    gt, det = [], []
    for video in ("a", "b"):
        for number in range(rng.randint(1, 3)):
            label, tube = rng.choice([0, 0, 1]), len({row[4] for row in gt}) + 100 * number
            x, y, step = rng.randint(0, 60), rng.randint(0, 60), rng.randint(-2, 2)
            first, last = rng.randint(1, 6), rng.randint(length - 8, length)
            for frame in range(first, last + 1):
                box = (x + step * frame, y, x + step * frame + 40, y + 60)
                gt.append((video, frame, box, label, tube + (500 if video == "b" else 0)))
                for _ in range(rng.choice([0, 1, 1, 1, 2])):
                    wobble = [rng.randint(-9, 9) for _ in range(4)]
                    label_guess = label if rng.random() < 0.9 else 1 - label
                    det.append(
                        (video, frame, tuple(c + w for c, w in zip(box, wobble, strict=True)), label_guess)
                    )
        for _ in range(rng.randint(0, 80)):
            x, y = rng.randint(0, 100), rng.randint(0, 100)
            det.append((video, rng.randint(1, length), (x, y, x + 40, y + 50), rng.choice([0, 1])))
    rng.shuffle(det)
    scores = rng.sample(range(1, 4096), len(det))
    return gt, [(*row, score / 4096) for row, score in zip(det, scores, strict=True)]


def keyed(rows):
    groups = {}
    for video, frame, box, label, last in rows:
        groups.setdefault((video, label), []).append((frame, box, last))
    return groups


@pytest.mark.parametrize("seed", range(12))
def test_reference_implementation_agrees(seed):
    rules = Linking(least_frames=5) if seed % 2 else Linking()
    gt, det = random_case(seed)
    reference = {key: slow_link(rows, rules) for key, rows in keyed(det).items()}
    tubes = link(detections(det), rules)
    for key, ours in keyed_tubes(tubes).items():
        expected_tubes = reference[key]
        assert len(ours) == len(expected_tubes)
        for (score, boxes), (slow_score, slow_boxes) in zip(ours, expected_tubes, strict=True):
            assert score == pytest.approx(float(slow_score), abs=1e-12)
            assert list(boxes) == list(slow_boxes)
            np.testing.assert_allclose(
                np.array(list(boxes.values())), np.array(list(slow_boxes.values()), dtype=float), atol=1e-9
            )
    assert sum(map(len, reference.values())) == len(tubes.video) > 0

    ground_truth_tubes = {}
    for (video, label), rows in keyed(gt).items():
        by_tube = {}
        for frame, box, number in rows:
            by_tube.setdefault(number, {})[frame] = box
        ground_truth_tubes[video, label] = list(by_tube.values())
    score = video_mAP(ground_truth(gt), detections(det), CLASSES, linking=rules)
    for threshold in (0.2, 0.5, 0.75):
        slow = slow_map(ground_truth_tubes, reference, Fraction(str(threshold)))
        assert score.mAP[threshold] == pytest.approx(float(slow), abs=1e-6)
    assert video_mAP(ground_truth(gt), tubes, CLASSES).mAP == score.mAP
    assert np.mean([score.mAP[round(0.5 + 0.05 * i, 2)] for i in range(10)]) == score.mAP_50_95


def keyed_tubes(tubes):
    """{(video, label): [(score, {frame: box})]}, by descending score."""
    groups = {}
    for t in np.argsort(-tubes.score, kind="stable").tolist():
        rows = tubes.tube == t
        boxes = dict(zip(tubes.frame[rows].tolist(), tubes.box[rows].tolist(), strict=True))
        key = tubes.videos[tubes.video[t]], int(tubes.label[t])
        groups.setdefault(key, []).append((float(tubes.score[t]), boxes))
    return groups


def test_random_cases_are_not_trivial():
    scores = [video_mAP(ground_truth(t), detections(s), CLASSES).mAP for t, s in map(random_case, range(12))]
    assert len({score[0.5] for score in scores}) > 4
    assert any(0 < score[0.5] < score[0.2] for score in scores)


def test_order_of_the_rows_changes_nothing():
    gt, det = random_case(3)
    before = video_mAP(ground_truth(gt), detections(det), CLASSES)
    random.Random(1).shuffle(det)
    random.Random(2).shuffle(gt)
    assert video_mAP(ground_truth(gt), detections(det), CLASSES).ap == before.ap


# --- MultiSports' protocol and tubes that are linked already -------------------------------------


def slow_multisports_overlap(a, b):
    """Of two tubes of rows (frame, box): the mean IoU over the common time, times that time's share."""
    first, last = max(a[0][0], b[0][0]), min(a[-1][0], b[-1][0])
    if last < first:
        return 0
    boxes = {row[0]: row[1:] for row in b}
    ious = [slow_box_iou(row[1:], boxes[row[0]]) for row in a if row[0] in boxes]
    either = max(a[-1][0], b[-1][0]) - min(a[0][0], b[0][0])
    return sum(ious) / len(ious) * Fraction(int(last - first), int(either))


def slow_box_iou(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return Fraction(0)
    inter = Fraction(width) * Fraction(height)
    area_a, area_b = (Fraction(x2 - x1) * Fraction(y2 - y1) for x1, y1, x2, y2 in (a, b))
    return inter / (area_a + area_b - inter)


def test_a_tube_lasts_from_its_first_to_its_last_frame_in_multisports():
    """Frames 1 to 11 and 6 to 16: 5 of 15 in common there, 6 of 16 in ACT, whose boxes are a pixel more."""
    one, rows = np.zeros(1, np.int64), np.zeros(11, np.int64)
    whole, half = np.tile([0.0, 0, 10, 10], (11, 1)), np.tile([0.0, 0, 10, 5], (11, 1))
    truth = Tubes(("a",), one, one, np.ones(1), rows, np.arange(1, 12), whole)
    det = Tubes(("a",), one, one, np.ones(1), rows, np.arange(6, 17), half)
    rules = VIDEO_RULES["multisports"].overlap
    assert tube_iou(det, one, truth, one, rules)[0] == pytest.approx(0.5 * 5 / 15)
    assert tube_iou(det, one, truth, one)[0] == pytest.approx((11 * 6) / (11 * 11) * 6 / 16)


def test_multisports_matches_the_best_of_all_and_averages_classes_with_truth():
    """The second detection's best tube is taken: false here, and true in ACT, where the other is left."""
    box, near = (0.0, 0.0, 10.0, 10.0), (1.0, 0.0, 11.0, 10.0)
    frames = np.arange(1, 21)
    gt = GroundTruthTubes(
        ("a",), np.zeros(40, int), np.tile(frames, 2), np.repeat([box, near], 20, 0), np.zeros(40, int),
        np.repeat([0, 1], 20),
    )  # fmt: skip
    det = Tubes(
        ("a",), np.zeros(2, int), np.zeros(2, int), np.array([0.9, 0.8]), np.repeat([0, 1], 20),
        np.tile(frames, 2), np.tile(box, (40, 1)),
    )  # fmt: skip
    classes = {0: "run", 1: "sit"}
    theirs = video_mAP(gt, det, classes, protocol="multisports", thresholds=EVERY_THRESHOLD)
    act = video_mAP(gt, det, classes)
    assert theirs.mAP[0.5] == 0.5, "one of two tubes"
    assert (act.ap[0.5][0], act.mAP[0.5]) == (1, 0.5), "two of two, and a class without ground truth"
    assert math.isnan(theirs.ap[0.5][1])
    assert (theirs.num_classes, act.num_classes) == (1, 2)
    assert theirs.means == {"0.05:0.45": 0.5, "0.1:0.9": 0.5, "0.5:0.95": 0.5}
    assert list(act.means) == ["0.5:0.95"]


def test_overlaps_equal_the_slow_rule_for_random_tubes():
    rng = np.random.default_rng(3)
    boxes = rng.integers(0, 40, (12, 2))
    tubes = []
    for corner in boxes:
        first = int(rng.integers(1, 10))
        frames = np.arange(first, first + int(rng.integers(2, 12)))
        size = rng.integers(5, 30, 2)
        stays = np.tile([*corner, *(corner + size)], (len(frames), 1))
        tubes.append(np.column_stack([frames, stays]).astype(float))
    sizes = [len(tube) for tube in tubes]
    rows = np.concatenate(tubes)
    whole = Tubes(
        ("a",), np.zeros(12, int), np.zeros(12, int), np.ones(12), np.repeat(np.arange(12), sizes),
        rows[:, 0].astype(int), rows[:, 1:],
    )  # fmt: skip
    a, b = (index.ravel() for index in np.meshgrid(np.arange(12), np.arange(12)))
    found = tube_iou(whole, a, whole, b, VIDEO_RULES["multisports"].overlap)
    lists = [tube.tolist() for tube in tubes]
    expected = [slow_multisports_overlap(lists[i], lists[j]) for i, j in zip(a, b, strict=True)]
    np.testing.assert_allclose(found, np.array(expected, float), atol=1e-12)
    assert 0 < np.count_nonzero(found) < len(found)


def test_a_protocol_without_rules_for_tubes_is_refused():
    gt, det = ground_truth(person([1])), detections(person([1]))
    known = "'annotated' has no rules for tubes; known are act, gurkirt, yowo, multisports"
    with pytest.raises(ValueError, match=known):
        video_mAP(gt, det, CLASSES, protocol="annotated")


# --- gurkirt's rules, MOC's linking, YOWO's ------------------------------------------------------


def test_gurkirt_wants_more_than_the_threshold_and_two_shared_frames():
    gt = ground_truth(person(range(1, 21), last=0), person([40], FAR, 1))
    half = (0, 0, 99, 49.5)  # x2 - x1 wide: half of BOX
    tubes = link(detections(person(range(1, 21), half), person([40], FAR, 0.5)), Linking(least_frames=1))
    score = video_mAP(gt, tubes, {0: "run"}, protocol="gurkirt", thresholds=(0.5 - 1e-9, 0.5))
    assert list(score.mAP.values()) == [1 / 2, 0], "the tube of one frame overlaps nothing"
    assert video_mAP(gt, tubes, {0: "run"}, thresholds=(0.5,)).mAP == {0.5: 1}


def test_moc_lowers_scores_of_overlapping_boxes_and_a_lowered_box_lowers_none():
    # IoU of the first with the second .8, of the second with the third .75, of the first with the third .6.
    boxes = [(0, 0, 99, 99), (0, 0, 79, 99), (0, 0, 59, 99)]
    det = detections(*[person([1], box, score) for box, score in zip(boxes, (0.9, 0.8, 0.7), strict=True)])
    rules = replace(LINKINGS["moc"], least_frames=1, tube_nms=1)
    assert sorted(float(s) for s in link(det, rules).score) == pytest.approx([0.8 * (1 - 0.8), 0.7, 0.9])
    # The two best of the new scores are the first and the third.
    kept = link(det, replace(rules, keep=2))
    assert sorted(float(s) for s in kept.score) == pytest.approx([0.7, 0.9])


def test_moc_links_at_half_iou_over_up_to_six_missing_frames():
    rules = replace(LINKINGS["moc"], least_frames=1)
    assert shape(link(detections(person([1, 8])), rules)) == [(1, 8, 0.9)]
    assert shape(link(detections(person([1, 9])), rules)) == [(1, 1, 0.9), (9, 9, 0.9)]
    moved = (0, 0, 99, 48)
    assert len(link(detections(person([1]), person([2], moved)), rules).score) == 2
    assert len(link(detections(person([1], last=0.004)), rules).score) == 0


def test_yowo_tubes_last_as_long_as_their_video_and_copy_the_nearest_boxes():
    det = detections(person([3], BOX, 0.4), person([6], FAR, 0.8))
    tubes = link(det, LINKINGS["yowo"], lengths={"a": 8})
    # Frames 1, 2 and 4 have the box of frame 3, the others that of frame 6.
    assert shape(tubes) == [(1, 8, pytest.approx((4 * 0.4 + 4 * 0.8) / 8))]
    assert tubes.box.tolist() == [list(BOX)] * 4 + [list(FAR)] * 4
    assert shape(link(det, LINKINGS["yowo"])) == [(1, 6, pytest.approx((4 * 0.4 + 2 * 0.8) / 6))]
    # Frame 4 is as near to 3 as to 5: the earlier.
    near = link(detections(person([3], BOX, 0.4), person([5], FAR, 0.8)), LINKINGS["yowo"])
    assert near.box.tolist() == [list(BOX)] * 4 + [list(FAR)]


def test_yowo_takes_at_most_three_paths_and_stops_where_a_frame_is_empty():
    apart = [(100 * i, 0, 100 * i + 50, 99) for i in range(4)]
    det = detections(*[person(range(1, 4), box, 0.9 - i / 10) for i, box in enumerate(apart)])
    assert shape(link(det, LINKINGS["yowo"])) == [(1, 3, 0.9), (1, 3, 0.8), (1, 3, 0.7)]
    two = detections(person(range(1, 4), apart[0]), person([1, 2], apart[1], 0.5))
    assert shape(link(two, LINKINGS["yowo"])) == [(1, 3, 0.9)]
    gt = ground_truth(person(range(1, 4), apart[0], 0))
    assert video_mAP(gt, det, {0: "run"}, protocol="yowo").mAP == dict.fromkeys(
        (0.05, 0.1, 0.2, 0.3, 0.5, 0.75), 1
    )


def slow_paths(frames, most=3):
    """YOWO's paths by trying all: frames of [(box, score), ..], none empty -> [(box, score) per frame]."""
    frames, paths = [list(frame) for frame in frames], []
    while len(paths) < most and all(frames):

        def worth(path):
            return sum(
                float(slow_box_iou(a, b)) + s + t + s * t / 2 for (a, s), (b, t) in itertools.pairwise(path)
            )  # fmt: skip

        best = max(itertools.product(*frames), key=worth)
        for frame, taken in zip(frames, best, strict=True):
            frame.remove(taken)
        paths.append(best)
    return paths


@pytest.mark.parametrize("seed", range(8))
def test_yowo_paths_are_the_best_of_all_paths(seed):
    rng = random.Random(seed)
    videos, rows = {"a": rng.randint(2, 5), "b": rng.randint(2, 5), "c": 1}, []
    for video, length in videos.items():
        for label in range(2):
            for frame in range(1, length + 1):
                for _ in range(rng.randint(1, 4)):
                    x, y = rng.randint(0, 40), rng.randint(0, 40)
                    box = (x, y, x + rng.randint(20, 60), y + rng.randint(20, 60))
                    rows.append((video, frame, box, label, rng.random()))
    found = link(detections(rows), Viterbi(tube_nms=1))
    lists = {}
    for t in range(len(found.score)):
        here = found.tube == t
        lists.setdefault((found.videos[found.video[t]], int(found.label[t])), []).append(
            ([tuple(box) for box in found.box[here].tolist()], float(found.score[t]))
        )
    for video, length in videos.items():
        for label in range(2):
            frames = [
                [(row[2], row[4]) for row in rows if (row[0], row[1], row[3]) == (video, frame, label)]
                for frame in range(1, length + 1)
            ]
            expected = [
                ([box for box, _ in path], pytest.approx(sum(s for _, s in path) / length))
                for path in slow_paths(frames)
            ]
            assert lists[video, label] == expected


def test_paths_of_long_and_crowded_videos_do_not_depend_on_the_chunks(monkeypatch):
    rng = random.Random(5)
    rows = []
    for number, length in enumerate((3, 30, 7, 12, 30)):
        for frame in range(1, length + 1):
            for _ in range(rng.randint(1, 1 + number)):
                x = rng.randint(0, 200)
                rows.append((f"v{number}", frame, (x, 0, x + 90, 99), rng.randint(0, 1), rng.random()))
    whole = link(detections(rows), Viterbi(tube_nms=1))
    for size in (1, 400):
        monkeypatch.setattr(linking_module, "_CHUNK", size)
        parts = link(detections(rows), Viterbi(tube_nms=1))
        assert shape(parts) == shape(whole)
        np.testing.assert_array_equal(parts.box, whole.box)
    assert len(whole.score) > 9
