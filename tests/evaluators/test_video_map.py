"""Linking to tubes and video-mAP: stories on short films, and the rules again in plain loops."""

import math
import random
from fractions import Fraction

import numpy as np
import pytest

from evaluators import Detections, Linking, Tubes, TubeTruth, link, video_map
from evaluators.video_map import _chunks

CLASSES = {0: "run", 1: "sit"}
BOX, FAR = (0, 0, 99, 99), (200, 0, 299, 99)


def films(found, *told):
    """Rows (video, frame, box, label, tube or score)."""
    videos = tuple(dict.fromkeys(row[0] for row in told))
    columns = (
        videos,
        np.array([videos.index(row[0]) for row in told], dtype=int),
        np.array([row[1] for row in told], dtype=int),
        np.array([row[2] for row in told], dtype=float).reshape(-1, 4),
        np.array([row[3] for row in told], dtype=int),
    )
    last = np.array([row[4] for row in told])
    return Detections(*columns, last.astype(float)) if found else TubeTruth(*columns, last.astype(int))


def person(frames, box=BOX, last=0.9, *, video="a", label=0):
    """Somebody who stands still; `last` is the tube's number or the score."""
    return [(video, frame, box, label, last) for frame in frames]


def truth(*people):
    return films(False, *[row for rows in people for row in rows])


def found(*people):
    return films(True, *[row for rows in people for row in rows])


def shape(tubes):
    """[(first frame, last frame, score rounded)] of every tube."""
    return [
        (int(frames[0]), int(frames[-1]), round(float(score), 6))
        for t, score in enumerate(tubes.score)
        for frames in [tubes.frame[tubes.tube == t]]
    ]


# --- rows of one video and class meet no others ---------------------------------------------------


def test_the_last_class_of_a_video_is_not_the_first_of_the_next():
    """The same person at the same place: who runs in a is not who sits in b, whatever the numbers."""
    there = truth(person(range(1, 21), last=1, label=1), person(range(1, 21), last=2, video="b", label=0))
    swapped = found(person(range(1, 21), label=1), person(range(1, 21), video="b", label=0))
    assert video_map(there, swapped, CLASSES).mAP[0.5] == 1
    there = truth(person(range(1, 21), last=1, label=1), person(range(1, 21), FAR, 2, video="b", label=0))
    assert video_map(there, found(person(range(1, 21), video="b", label=0)), CLASSES).mAP[0.5] == 0


def test_a_box_suppresses_none_of_another_class_or_frame():
    """Who runs for frames 1 to 20 and sits from 2 to 21, at one place, is two tubes."""
    tubes = link(found(person(range(1, 21)), person(range(2, 22), label=1)))
    assert shape(tubes) == [(1, 20, 0.9), (2, 21, 0.9)]
    rules = Linking(least_frames=1)
    assert shape(link(found(person([1]), person([2], label=1)), rules)) == [(1, 1, 0.9), (2, 2, 0.9)]


def test_a_true_box_that_is_inside_out_is_never_found():
    """The published annotations have a few; the tools people use count them as missed."""
    wrong = (99, 0, 0, 99)
    there = truth(person(range(1, 21), last=1), person(range(1, 21), wrong, last=2, video="b"))
    seen = found(person(range(1, 21)), person(range(1, 21), video="b", last=0.5))
    score = video_map(there, seen, CLASSES)
    assert score.ap[0.5][0] == 0.5
    assert score.num_ground_truth == 2


def test_tubes_compared_in_parts_score_as_all_at_once(monkeypatch):
    rng = random.Random(4)
    frames = [range(first, first + rng.randint(15, 40)) for first in range(1, 30, 3)]
    boxes = [BOX, FAR, (30, 0, 129, 99)]
    there = truth(*[person(f, rng.choice(boxes), i, video="ab"[i % 2]) for i, f in enumerate(frames)])
    seen = found(*[person(f, rng.choice(boxes), rng.random(), video=rng.choice("ab")) for f in frames * 3])
    whole = video_map(there, seen, CLASSES)
    assert 0 < whole.mAP[0.2] < 1
    for size in (1, 50, 333):
        monkeypatch.setitem(video_map.__globals__, "_CHUNK", size)
        assert video_map(there, seen, CLASSES) == whole


def test_parts_hold_so_many_frames_or_a_single_pair(monkeypatch):
    monkeypatch.setitem(video_map.__globals__, "_CHUNK", 6)
    parts = list(_chunks(np.array([3, 3, 1, 9, 2, 2, 2, 1])))
    assert parts == [slice(0, 2), slice(2, 3), slice(3, 4), slice(4, 7), slice(7, 8)]
    assert list(_chunks(np.zeros(0, int))) == []


# --- linking -------------------------------------------------------------------------------------


def test_a_person_found_on_every_frame_is_one_tube():
    tubes = link(found(person(range(1, 21))))
    assert shape(tubes) == [(1, 20, 0.9)]
    assert (tubes.videos, tubes.video.tolist(), tubes.label.tolist()) == (("a",), [0], [0])
    assert tubes.box.tolist() == [list(BOX)] * 20


def test_a_tube_shorter_than_fifteen_frames_is_dropped():
    assert shape(link(found(person(range(1, 15))))) == []
    assert shape(link(found(person(range(1, 16))))) == [(1, 15, 0.9)]


def test_a_tube_of_hardly_any_score_is_dropped():
    assert shape(link(found(person(range(1, 16), last=0.0099)))) == []
    assert shape(link(found(person(range(1, 16), last=0.01)))) == [(1, 15, 0.01)]


def test_a_gap_of_four_frames_is_bridged_with_a_straight_line_and_one_of_five_is_not():
    moved = (50, 0, 149, 99)
    tubes = link(found(person(range(1, 16)), person(range(20, 31), moved)))
    assert shape(tubes) == [(1, 30, 0.9)]
    assert tubes.box[15:19].tolist() == [
        [10, 0, 109, 99],
        [20, 0, 119, 99],
        [30, 0, 129, 99],
        [40, 0, 139, 99],
    ]
    assert shape(link(found(person(range(1, 16)), person(range(21, 36))))) == [(1, 15, 0.9), (21, 35, 0.9)]


def test_a_box_that_overlaps_the_last_by_less_than_a_fifth_begins_another_tube():
    # 100 columns against 100 shifted by 66 share 34 of 166, by 67 they share 33 of 167.
    near, far = (66, 0, 165, 99), (67, 0, 166, 99)
    assert len(shape(link(found(person(range(1, 16)), person(range(16, 31), near))))) == 1
    assert len(shape(link(found(person(range(1, 16)), person(range(16, 31), far))))) == 2


def test_of_two_boxes_a_tube_takes_the_surer_and_of_two_tubes_the_surer_takes():
    # Two people stand at a distance; on frame 16 one box is left, between them, near enough to both.
    left, right, middle = (0, 0, 99, 99), (90, 0, 189, 99), (45, 0, 144, 99)
    tubes = link(
        found(person(range(1, 16), left, 0.5), person(range(1, 16), right, 0.75), person([16], middle, 0.25))
    )
    assert shape(tubes) == [(1, 15, 0.5), (1, 16, round((15 * 0.75 + 0.25) / 16, 6))]
    # And the other way round: one tube, two boxes.
    tubes = link(
        found(
            person(range(1, 16), middle, 0.5),
            person(range(16, 31), left, 0.25),
            person(range(16, 31), right, 0.75),
        )
    )
    assert shape(tubes) == [(1, 30, 0.625), (16, 30, 0.25)]


def test_boxes_that_overlap_a_surer_one_by_more_than_three_tenths_are_dropped_frame_by_frame():
    near, far = (53, 0, 152, 99), (54, 0, 153, 99)  # 47 of 153 columns shared; 46 of 154, under 0.3
    assert len(shape(link(found(person(range(1, 16)), person(range(1, 16), near, 0.5))))) == 1
    assert len(shape(link(found(person(range(1, 16)), person(range(1, 16), far, 0.5))))) == 2


def test_ten_boxes_a_frame_are_kept():
    rows = [person(range(1, 16), (200 * i, 0, 200 * i + 99, 99), 0.9 - 0.01 * i) for i in range(12)]
    assert [score for *_, score in shape(link(found(*rows)))] == [round(0.9 - 0.01 * i, 6) for i in range(10)]


def test_tubes_that_overlap_a_surer_one_are_dropped():
    # The same place at almost the same time: the boxes never meet in one frame, the tubes do.
    odd, even = person(range(1, 40, 2), last=0.9), person(range(2, 41, 2), (40, 0, 139, 99), 0.5)
    apart = Linking(link_iou=0.9)  # so that they stay two
    assert shape(link(found(odd, even), apart)) == [(1, 39, 0.9)]
    assert len(shape(link(found(odd, even), Linking(link_iou=0.9, tube_nms=0.5)))) == 2


def test_classes_and_videos_are_linked_apart():
    rows = (
        person(range(1, 16)),
        person(range(1, 16), last=0.8, label=1),
        person(range(1, 16), last=0.7, video="b"),
        person(range(16, 31), last=0.6, label=1, video="b"),
    )
    assert shape(link(found(*rows))) == [(1, 15, 0.9), (1, 15, 0.8), (1, 15, 0.7), (16, 30, 0.6)]


def test_nothing_links_to_nothing():
    tubes = link(found())
    assert (len(tubes.video), tubes.box.shape) == (0, (0, 4))
    assert video_map(truth(person(range(1, 20), last=0)), found(), CLASSES).mAP[0.5] == 0


# --- scoring -------------------------------------------------------------------------------------


def test_a_perfect_tube_is_right_at_every_threshold():
    score = video_map(truth(person(range(1, 21), last=7)), found(person(range(1, 21))), {0: "run"})
    assert set(score.mAP.values()) == {1.0}
    assert score.mAP_50_95 == 1
    assert (score.num_ground_truth, score.num_detections, score.num_classes) == (1, 1, 1)
    assert list(score.mAP) == [0.2, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]


def test_the_overlap_of_tubes_is_that_of_their_boxes_times_that_of_their_frames():
    # Boxes of 100 x 50 in 100 x 100 pixels, on frames 1-20 of 11-30: 1/2 x 10/30 = 1/6.
    there = truth(person(range(11, 31), BOX, 0))
    seen = found(person(range(1, 21), (0, 0, 99, 49)))
    score = video_map(there, seen, {0: "run"}, thresholds=(1 / 6 - 1e-9, 1 / 6 + 1e-9))
    assert list(score.mAP.values()) == [1, 0]
    assert math.isnan(score.mAP_50_95)


def test_a_tube_takes_the_next_best_person_where_the_best_is_taken():
    # Two people in one place, as annotated; two tubes of it that NMS is told to leave.
    there = truth(person(range(1, 21), last=0), person(range(1, 21), last=1))
    seen = found(person(range(1, 21)), person(range(1, 21), (0, 0, 99, 89), 0.8))
    both = Linking(box_nms=1, tube_nms=1)
    assert video_map(there, seen, {0: "run"}, linking=both).mAP[0.5] == 1
    assert video_map(there, seen, {0: "run"}).mAP[0.5] == 1 / 2


def test_the_mean_is_over_all_classes_and_ap_is_the_raw_area():
    # One false tube, surer, then the right one: from (0, 0) to (1, 1/2).
    there = truth(person(range(1, 21), last=0))
    seen = found(person(range(1, 21), FAR, 0.95), person(range(1, 21)))
    score = video_map(there, seen, CLASSES)
    assert score.ap[0.5] == {0: 1 / 4, 1: 0}
    assert score.mAP[0.5] == 1 / 8


def test_tubes_of_classes_that_are_not_evaluated_are_left_out():
    there = truth(person(range(1, 21), last=0), person(range(1, 21), last=1, label=9))
    seen = found(person(range(1, 21)), person(range(1, 21), last=0.95, label=9))
    score = video_map(there, seen, {0: "run"})
    assert (score.mAP[0.5], score.num_ground_truth, score.num_detections) == (1, 1, 1)
    ready = link(seen)
    score = video_map(there, ready, {0: "run"})
    assert (score.mAP[0.5], score.num_detections, score.linking) == (1, 1, None)


def test_a_detection_in_an_unheard_of_video_is_a_false_tube():
    there = truth(person(range(1, 21), last=0))
    seen = found(person(range(1, 21), video="elsewhere", last=0.95), person(range(1, 21)))
    assert video_map(there, seen, {0: "run"}).mAP[0.5] == 1 / 4


def test_ground_truth_with_a_hole_counts_the_frames_it_has():
    there = truth(person([*range(1, 11), *range(21, 31)], last=0))
    score = video_map(there, found(person(range(1, 31))), {0: "run"}, thresholds=(0.666, 0.667))
    assert list(score.mAP.values()) == [1, 0]  # 20 of 30 frames


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (person([1], last=3) + person([2], last=3, video="b"), "tube 3 has rows of more than one video"),
        (person([1], last=3) + person([2], last=3, label=1), "tube 3 has rows of more than one label"),
        (person([1], last=3) + person([1], FAR, 3), "tube 3 has two boxes on frame 1"),
    ],
)
def test_ground_truth_tubes_that_are_none(rows, message):
    with pytest.raises(ValueError, match=message):
        video_map(truth(rows), found(), CLASSES)


def test_rules_that_are_none():
    with pytest.raises(ValueError, match="iou must lie above 0"):
        video_map(truth(), found(), CLASSES, thresholds=(0.5, 0))
    with pytest.raises(ValueError, match="no classes"):
        video_map(truth(), found(), {})


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
def test_tubes_that_do_not_fit_together(change, message):
    Tubes(**GOOD)
    with pytest.raises(ValueError, match=message):
        Tubes(**{**GOOD, **change})


# --- a second opinion: METRICS.md's rules in plain loops -----------------------------------------


def slow_iou(a, b):
    sides = [max(min(a[i + 2], b[i + 2]) + 1 - max(a[i], b[i]), 0) for i in (0, 1)]
    both = Fraction(sides[0]) * Fraction(sides[1])
    area = [Fraction(c[2] - c[0] + 1) * Fraction(c[3] - c[1] + 1) for c in (a, b)]
    return both / (sum(area) - both)


def mean_score(tube):
    return sum(Fraction(score) for _, _, score in tube) / len(tube)


def slow_link(rows, rules):
    """[(score, {frame: box})] of one class of one video, from [(frame, box, score)] in file order."""
    done, going = [], []
    for frame in range(1, max(row[0] for row in rows) + 1):
        kept = []
        for row in sorted((row for row in rows if row[0] == frame), key=lambda row: -row[2]):
            overlaps = [slow_iou(row[1], other[1]) for other in kept]
            if len(kept) < rules.keep and all(o <= Fraction(3, 10) for o in overlaps):
                kept.append(row)
        going.sort(key=lambda tube: -mean_score(tube))
        for tube in list(going):
            near = [row for row in kept if slow_iou(tube[-1][1], row[1]) >= Fraction(1, 5)]
            if near:
                tube.append(max(near, key=lambda row: row[2]))
                kept.remove(tube[-1])
            elif frame - tube[-1][0] >= rules.gap:
                done.append(tube)
                going.remove(tube)
        going += [[row] for row in kept]
    good = [
        tube
        for tube in done + going
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
    spatial = sum(slow_iou(a[frame], b[frame]) for frame in both) / len(both)
    return spatial * Fraction(len(both), len(a.keys() | b.keys()))


def slow_map(there, tubes, threshold):
    """Mean over the classes, from {(video, label): [tube]} and {(video, label): [(score, tube)]}."""
    areas = []
    for label in CLASSES:
        number = sum(len(people) for (_, of), people in there.items() if of == label)
        ranked = [(score, video, t) for (video, of), ts in tubes.items() if of == label for score, t in ts]
        taken, hits, area, before = [], 0, Fraction(0), Fraction(1)
        for rank, (_, video, tube) in enumerate(sorted(ranked, key=lambda row: -row[0]), 1):
            free = [p for p in there.get((video, label), []) if all(p is not t for t in taken)]
            best = max(free, key=lambda p: slow_tube_iou(p, tube), default=None)
            right = best is not None and slow_tube_iou(best, tube) >= threshold
            if right:
                taken.append(best)
                hits += 1
                area += (before + Fraction(hits, rank)) / 2 / number
            before = Fraction(hits, rank)
        areas.append(area)
    return sum(areas) / len(areas)


def world(seed, length=30):
    """People who walk about, found with gaps, doubles and strangers; scores and boxes are exact."""
    rng = random.Random(seed)
    there, seen = [], []
    for video in ("a", "b"):
        for number in range(rng.randint(1, 3)):
            label, tube = rng.choice([0, 0, 1]), len({row[4] for row in there}) + 100 * number
            x, y, step = rng.randint(0, 60), rng.randint(0, 60), rng.randint(-2, 2)
            first, last = rng.randint(1, 6), rng.randint(length - 8, length)
            for frame in range(first, last + 1):
                box = (x + step * frame, y, x + step * frame + 40, y + 60)
                there.append((video, frame, box, label, tube + (500 if video == "b" else 0)))
                for _ in range(rng.choice([0, 1, 1, 1, 2])):
                    wobble = [rng.randint(-9, 9) for _ in range(4)]
                    guess = label if rng.random() < 0.9 else 1 - label
                    seen.append((video, frame, tuple(c + w for c, w in zip(box, wobble, strict=True)), guess))
        for _ in range(rng.randint(0, 80)):
            x, y = rng.randint(0, 100), rng.randint(0, 100)
            seen.append((video, rng.randint(1, length), (x, y, x + 40, y + 50), rng.choice([0, 1])))
    rng.shuffle(seen)
    scores = rng.sample(range(1, 4096), len(seen))
    return there, [(*row, score / 4096) for row, score in zip(seen, scores, strict=True)]


def keyed(rows):
    groups = {}
    for video, frame, box, label, last in rows:
        groups.setdefault((video, label), []).append((frame, box, last))
    return groups


@pytest.mark.parametrize("seed", range(12))
def test_the_second_opinion_agrees(seed):
    rules = Linking(least_frames=5) if seed % 2 else Linking()
    there, seen = world(seed)
    expected = {key: slow_link(rows, rules) for key, rows in keyed(seen).items()}
    tubes = link(films(True, *seen), rules)
    for key, ours in keyed_tubes(tubes).items():
        theirs = expected[key]
        assert len(ours) == len(theirs)
        for (score, boxes), (slow_score, slow_boxes) in zip(ours, theirs, strict=True):
            assert score == pytest.approx(float(slow_score), abs=1e-12)
            assert list(boxes) == list(slow_boxes)
            np.testing.assert_allclose(
                np.array(list(boxes.values())), np.array(list(slow_boxes.values()), dtype=float), atol=1e-9
            )
    assert sum(map(len, expected.values())) == len(tubes.video) > 0

    people = {}
    for (video, label), rows in keyed(there).items():
        by_tube = {}
        for frame, box, number in rows:
            by_tube.setdefault(number, {})[frame] = box
        people[video, label] = list(by_tube.values())
    score = video_map(films(False, *there), films(True, *seen), CLASSES, linking=rules)
    for threshold in (0.2, 0.5, 0.75):
        slow = slow_map(people, expected, Fraction(str(threshold)))
        assert score.mAP[threshold] == pytest.approx(float(slow), abs=1e-6)
    assert video_map(films(False, *there), tubes, CLASSES).mAP == score.mAP
    assert np.mean([score.mAP[round(0.5 + 0.05 * i, 2)] for i in range(10)]) == score.mAP_50_95


def keyed_tubes(tubes):
    """{(video, label): [(score, {frame: box})]}, surest first."""
    groups = {}
    for t in np.argsort(-tubes.score, kind="stable").tolist():
        rows = tubes.tube == t
        boxes = dict(zip(tubes.frame[rows].tolist(), tubes.box[rows].tolist(), strict=True))
        key = tubes.videos[tubes.video[t]], int(tubes.label[t])
        groups.setdefault(key, []).append((float(tubes.score[t]), boxes))
    return groups


def test_the_worlds_are_no_trivial_ones():
    scores = [video_map(films(False, *t), films(True, *s), CLASSES).mAP for t, s in map(world, range(12))]
    assert len({score[0.5] for score in scores}) > 4
    assert any(0 < score[0.5] < score[0.2] for score in scores)


def test_the_order_of_the_rows_changes_nothing():
    there, seen = world(3)
    before = video_map(films(False, *there), films(True, *seen), CLASSES)
    random.Random(1).shuffle(seen)
    random.Random(2).shuffle(there)
    assert video_map(films(False, *there), films(True, *seen), CLASSES).ap == before.ap
