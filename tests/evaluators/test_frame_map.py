"""AVA frame-mAP: small stories with the answer worked out, a slow second opinion, and laws."""

import math
import random
from collections import defaultdict
from dataclasses import fields
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluators import (
    AVA_PROTOCOLS,
    Detections,
    GroundTruth,
    Protocol,
    average_precision,
    frame_map,
    match,
)
from evaluators.frame_map import lookup

# Names of frames, boxes and actions that the stories are told in.
WHOLE, LEFT, RIGHT, TOP = (0, 0, 1, 1), (0, 0, 0.5, 1), (0.5, 0, 1, 1), (0, 0, 1, 0.5)
INSIDE_OUT = (1, 0, 0, 1)
ACTIONS = {"run": 3, "sit": 11, "wave": 69, "knit": 80}
CLASSES = {3: "run", 11: "sit", 69: "wave"}  # nobody is scored on knitting
PROTOCOLS = AVA_PROTOCOLS


def rows(found, *told):
    """Rows (frame, box, action[, score]); frame "f1" is second 1 of the video "f"."""
    videos = tuple(dict.fromkeys(row[0].rstrip("0123456789") for row in told))
    arrays = {
        "video": np.array([videos.index(r[0].rstrip("0123456789")) for r in told], dtype=int),
        "frame": np.array([int(r[0].lstrip("fgh")) for r in told], dtype=int),
        "box": np.array([r[1] for r in told], dtype=float).reshape(-1, 4),
        "label": np.array([ACTIONS[r[2]] for r in told], dtype=int),
    }
    if found:
        return Detections(videos, **arrays, score=np.array([r[3] for r in told], dtype=float))
    return GroundTruth(videos, **arrays)


def truth(*told):
    return rows(False, *told)


def found(*told):
    return rows(True, *told)


def ap(there, seen, action="run", **rules):
    return frame_map(there, seen, CLASSES, **rules).ap[ACTIONS[action]]


def frac(numerator, denominator):
    return pytest.approx(numerator / denominator, abs=1e-15)


# --- stories -------------------------------------------------------------------------------------


def test_a_duplicate_counts_against_precision():
    there = truth(("f1", WHOLE, "run"), ("f2", WHOLE, "run"))
    seen = found(("f1", WHOLE, "run", 0.9), ("f1", WHOLE, "run", 0.8), ("f2", WHOLE, "run", 0.7))
    assert ap(there, seen) == pytest.approx(1 / 2 * 1 + 1 / 2 * 2 / 3)


def test_the_curve_is_interpolated_over_all_points():
    # Surest first: miss, hit, hit, miss, hit; precision at the hits 1/2, 2/3, 3/5, of 4 boxes.
    there = truth(*[(f"f{i}", WHOLE, "run") for i in range(1, 5)])
    seen = found(
        ("f9", WHOLE, "run", 0.9),
        ("f1", WHOLE, "run", 0.8),
        ("f2", WHOLE, "run", 0.7),
        ("f8", WHOLE, "run", 0.6),
        ("f3", WHOLE, "run", 0.5),
    )
    assert ap(there, seen) == pytest.approx(1 / 4 * (2 / 3 + 2 / 3 + 3 / 5))


def test_a_second_best_box_is_never_tried():
    # Both detections overlap the whole frame most; LEFT, overlapped by exactly half, stays free.
    there = truth(("f1", WHOLE, "run"), ("f1", LEFT, "run"))
    seen = found(("f1", WHOLE, "run", 0.9), ("f1", (0, 0, 0.9, 1), "run", 0.8))
    assert ap(there, seen) == frac(1, 2)


def test_of_two_equal_boxes_only_the_first_is_ever_a_target():
    there = truth(("f1", WHOLE, "run"), ("f1", WHOLE, "run"))
    seen = found(("f1", WHOLE, "run", 0.9), ("f1", WHOLE, "run", 0.8))
    assert ap(there, seen) == frac(1, 2)
    claimed = match(np.zeros(2, int), there.box, np.zeros(2, int), seen.box, seen.score, iou=0.5)
    assert claimed.tolist() == [0, -1]


def test_overlap_of_exactly_one_half_is_enough_and_pixels_add_nothing():
    there = truth(("f1", WHOLE, "run"))
    assert ap(there, found(("f1", LEFT, "run", 0.9))) == 1
    assert ap(there, found(("f1", (0, 0, 0.5 - 1e-9, 1), "run", 0.9))) == 0
    # 10 x 10 against 10 x 4 is 40/100; counting one pixel more each way would make it 55/121.
    there, seen = truth(("f1", (0, 0, 10, 10), "run")), found(("f1", (0, 0, 10, 4), "run", 0.9))
    assert ap(there, seen, iou=0.42) == 0
    assert ap(there, seen, iou=0.4) == 1


def test_the_surest_claimant_wins_wherever_it_stands_in_the_file():
    # LEFT, surer, takes the box; WHOLE, though a perfect fit, comes too late.
    there = truth(("f1", WHOLE, "run"))
    seen = found(("f1", WHOLE, "run", 0.3), ("f1", LEFT, "run", 0.6))
    assert ap(there, seen) == 1
    claimed = match(np.zeros(1, int), there.box, np.zeros(2, int), seen.box, seen.score, iou=0.5)
    assert claimed.tolist() == [-1, 0]


def test_slowfast_lets_a_low_scored_duplicate_written_first_steal_the_match():
    there = truth(("f1", WHOLE, "run"), ("f2", WHOLE, "run"))
    seen = found(("f1", WHOLE, "run", 0.3), ("f1", WHOLE, "run", 0.9), ("f2", WHOLE, "run", 0.6))
    assert ap(there, seen) == 1  # hit, hit, miss
    assert ap(there, seen, protocol="slowfast") == frac(2, 3)  # miss, hit, hit: 2/3 at both


def test_tied_scores_keep_the_order_of_the_rows():
    there = truth(("f1", WHOLE, "run"), ("f2", WHOLE, "run"))
    hit, miss = ("f1", WHOLE, "run", 0.5), ("f9", WHOLE, "run", 0.5)
    assert ap(there, found(hit, miss)) == frac(1, 2)
    assert ap(there, found(miss, hit)) == frac(1, 4)


def test_another_action_another_frame_another_video_never_meet():
    there = truth(("f1", WHOLE, "run"))
    assert ap(there, found(("f1", WHOLE, "sit", 0.9))) == 0
    assert ap(there, found(("f2", WHOLE, "run", 0.9))) == 0
    assert ap(there, found(("g1", WHOLE, "run", 0.9))) == 0


def test_videos_meet_by_name_not_by_number():
    there = truth(("f1", WHOLE, "run"), ("g1", LEFT, "run"))
    seen = found(("g1", LEFT, "run", 0.9), ("h1", LEFT, "run", 0.8), ("f1", WHOLE, "run", 0.7))
    assert there.videos != seen.videos
    assert ap(there, seen) == pytest.approx(1 / 2 * 1 + 1 / 2 * 2 / 3)


def test_the_mean_is_over_the_classes_with_ground_truth():
    there = truth(("f1", WHOLE, "run"), ("f1", WHOLE, "sit"), ("f1", WHOLE, "knit"))
    seen = found(("f1", WHOLE, "run", 0.9), ("f1", WHOLE, "wave", 0.8), ("f1", LEFT, "knit", 0.7))
    score = frame_map(there, seen, CLASSES)
    assert score.ap[ACTIONS["run"]] == 1
    assert score.ap[ACTIONS["sit"]] == 0  # there, and nobody found it
    assert math.isnan(score.ap[ACTIONS["wave"]])  # not there at all
    assert score.mAP == frac(1, 2)
    assert list(score.ap) == list(score.classes) == [3, 11, 69]
    assert (score.num_classes, score.num_ground_truth, score.num_detections) == (2, 2, 2)
    assert score.num_true_positives == 1


def test_an_excluded_second_is_dropped_on_both_sides():
    there = truth(("f1", WHOLE, "run"), ("f2", WHOLE, "run"))
    seen = found(("f2", LEFT, "run", 0.9), ("f2", WHOLE, "run", 0.8), ("f1", WHOLE, "run", 0.7))
    assert ap(there, seen) == pytest.approx(1 / 2 * 1 + 1 / 2 * 2 / 3)
    score = frame_map(there, seen, CLASSES, excluded={("f", 2), ("unheard of", 1), ("g", 1)})
    assert score.mAP == 1
    assert (score.num_ground_truth, score.num_detections) == (1, 1)


def test_a_detection_on_a_frame_without_ground_truth_is_a_false_positive():
    there = truth(("f1", WHOLE, "run"), ("f2", WHOLE, "knit"))
    seen = found(("f5", WHOLE, "run", 0.9), ("f1", WHOLE, "run", 0.8))
    assert ap(there, seen) == frac(1, 2)
    assert ap(there, seen, protocol="activitynet_2019") == frac(1, 2)
    assert ap(there, seen, protocol="activitynet_head") == 1  # not a frame of the ground truth


def test_head_counts_a_frame_whose_only_actions_are_not_evaluated():
    there = truth(("f1", WHOLE, "run"), ("f2", WHOLE, "knit"))
    seen = found(("f2", WHOLE, "run", 0.9), ("f1", WHOLE, "run", 0.8))
    assert ap(there, seen, protocol="activitynet_head") == frac(1, 2)


def test_head_reads_no_exclusions():
    there, seen = truth(("f1", WHOLE, "run")), found(("f1", WHOLE, "run", 0.8))
    rules = {"excluded": {("f", 1)}}
    assert ap(there, seen, protocol="activitynet_head", **rules) == 1
    for protocol in ("standard", "activitynet_2019", "slowfast"):
        assert math.isnan(ap(there, seen, protocol=protocol, **rules))
        assert math.isnan(frame_map(there, seen, CLASSES, protocol=protocol, **rules).mAP)


def test_an_inside_out_detection_is_dropped_and_not_a_false_positive():
    there = truth(("f1", WHOLE, "run"))
    for box in (INSIDE_OUT, (0, 1, 1, 0), (0.5, 0, 0.5, 1), (0, 0.5, 1, 0.5)):
        seen = found(("f1", box, "run", 0.9), ("f1", WHOLE, "run", 0.8))
        assert ap(there, seen) == 1


@pytest.mark.parametrize("protocol", ["activitynet_2019", "activitynet_head"])
@pytest.mark.parametrize(
    ("surer", "survives"),
    [
        ([("f1", WHOLE, "sit", 0.9)] * 49, True),
        ([("f1", WHOLE, "sit", 0.9)] * 50, False),  # rows of any evaluated action take places,
        ([("f1", INSIDE_OUT, "sit", 0.9)] * 50, False),  # inside-out ones too,
        ([("f1", WHOLE, "knit", 0.9)] * 50, True),  # those of other actions do not,
        ([("f2", WHOLE, "sit", 0.9)] * 50, True),  # and every frame has its own fifty;
        ([("f1", WHOLE, "sit", 0.5)] * 50, False),  # among ties the first rows stay.
    ],
)
def test_later_activitynet_tools_score_fifty_rows_a_frame(protocol, surer, survives):
    there = truth(("f1", WHOLE, "run"), ("f2", WHOLE, "wave"))
    seen = found(*surer, ("f1", WHOLE, "run", 0.5))
    assert ap(there, seen, protocol=protocol) == (1 if survives else 0)
    assert ap(there, seen) == ap(there, seen, protocol="slowfast") == 1


def test_no_detections_and_no_ground_truth():
    there, seen = truth(("f1", WHOLE, "run")), found(("f1", WHOLE, "run", 0.9))
    for protocol in PROTOCOLS:
        assert frame_map(there, found(), CLASSES, protocol=protocol).mAP == 0
        assert math.isnan(frame_map(truth(), seen, CLASSES, protocol=protocol).mAP)
        assert math.isnan(frame_map(truth(), found(), CLASSES, protocol=protocol).mAP)


def test_the_result_says_by_which_rules_it_was_made():
    score = frame_map(truth(), found(), CLASSES, protocol="slowfast", iou=0.75)
    assert (score.protocol, score.iou) == (Protocol.SLOWFAST, 0.75)
    assert frame_map(truth(), found(), CLASSES).protocol == "standard"


def test_average_precision_by_hand():
    hits, score = np.array([True, False, True]), np.array([0.1, 0.2, 0.3])
    assert average_precision(hits, score, 4) == pytest.approx(1 / 4 * (1 + 2 / 3))
    assert average_precision(hits[:0], score[:0], 4) == 0
    assert math.isnan(average_precision(hits[:0], score[:0], 0))


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"protocol": "coco"}, "unknown protocol 'coco'; known are: standard, activitynet_2019"),
        ({"iou": 0}, "iou must lie above 0 and at most at 1; found 0"),
        ({"iou": 50}, "iou must lie above 0 and at most at 1; found 50"),
        ({"iou": math.nan}, "found nan"),
        ({"plus_one": True}, "plus_one is YOWO's variant of protocol annotated; standard has no such"),
    ],
)
def test_rules_that_are_none(rules, message):
    with pytest.raises(ValueError, match=message):
        frame_map(truth(), found(), CLASSES, **rules)


def test_no_classes():
    with pytest.raises(ValueError, match="no classes to evaluate: give the label map"):
        frame_map(truth(), found(), {})


def test_an_inside_out_ground_truth_box_is_an_error_that_says_where():
    there = truth(("f1", WHOLE, "run"), ("g7", INSIDE_OUT, "knit"))
    with pytest.raises(ValueError, match=r"ground-truth row 1 \(g, frame 7\).*\[1.0, 0.0, 0.0, 1"):
        frame_map(there, found(), CLASSES)


GOOD = {
    "videos": ("a", "b"),
    "video": [0, 1],
    "frame": [902, 903],
    "box": [WHOLE, LEFT],
    "label": [1, 2],
    "score": [0.1, 0.2],
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"box": [WHOLE]}, r"Detections.box has shape \(1, 4\); \(2, 4\) is needed"),
        ({"box": [0, 1]}, r"Detections.box has shape \(2,\)"),
        ({"label": [1]}, r"Detections.label has shape \(1,\); \(2,\) is needed"),
        ({"score": [[0.1], [0.2]]}, r"Detections.score has shape \(2, 1\)"),
        ({"video": [0, 2]}, "Detections.video row 1 is 2; 0 to 1 is needed"),
        ({"video": [-1, 0]}, "Detections.video row 0 is -1"),
        ({"frame": [902, -1]}, "Detections.frame row 1 is -1"),
        ({"frame": [2**31, 902]}, "Detections.frame row 0 is 2147483648"),
        ({"frame": [902.0, 903.0]}, "Detections.frame must hold whole numbers; its dtype is float"),
        ({"score": ["0.1", "0.2"]}, "Detections.score must hold numbers; its dtype is <U3"),
        ({"score": [0.1, math.nan]}, "Detections.score row 1 is NaN or infinite: nan"),
        ({"box": [WHOLE, (0, 0, math.inf, 1)]}, r"Detections.box row 1 is NaN or infinite: \[0"),
        ({"video": 0}, r"Detections.video has shape \(\); \(1,\) is needed"),
        ({"videos": ("a", "a")}, "Detections.videos names 'a' twice"),
        ({"videos": (1, 2)}, "Detections.videos must hold names"),
    ],
)
def test_rows_that_do_not_fit_together(change, message):
    Detections(**GOOD)
    with pytest.raises(ValueError, match=message):
        Detections(**{**GOOD, **change})


def test_narrow_arrays_are_widened_and_ground_truth_is_checked_alike():
    narrow = Detections(**{**GOOD, "box": np.float32(GOOD["box"]), "video": np.int8([0, 1])})
    assert [getattr(narrow, f.name).dtype for f in fields(narrow)[1:]] == [
        np.int64, np.int64, np.float64, np.int64, np.float64,
    ]  # fmt: skip
    there = {name: value for name, value in GOOD.items() if name != "score"}
    assert GroundTruth(**there).box.shape == (2, 4)
    with pytest.raises(ValueError, match=r"GroundTruth\.frame row 0 is -5"):
        GroundTruth(**{**there, "frame": [-5, 1]})


@pytest.mark.parametrize(
    ("hits", "score", "num_truth", "message"),
    [
        ([True, True], [0.1, 0.2], 1, "2 true positives for 1 ground-truth boxes"),
        ([True], [0.1, 0.2], 1, "two .* arrays of one length"),
    ],
)
def test_average_precision_of_nonsense(hits, score, num_truth, message):
    with pytest.raises(ValueError, match=message):
        average_precision(np.array(hits), np.array(score), num_truth)


# --- a second opinion: the same rules in plain loops and exact fractions -------------------------


def slow_iou(a, b):
    a, b = [Fraction(x) for x in a], [Fraction(x) for x in b]
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    both = max(width, 0) * max(height, 0)
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def told(rows):
    """The rows back as (video name, frame, box, label[, score]) tuples."""
    names = [rows.videos[v] for v in rows.video]
    columns = [names, rows.frame.tolist(), [tuple(b) for b in rows.box.tolist()], rows.label]
    if isinstance(rows, Detections):
        columns.append(rows.score.tolist())
    return list(zip(*columns, strict=True))


def slow_frame_ap(there, seen, classes, excluded, protocol, threshold=Fraction(1, 2)):
    """class id -> AP as a Fraction, None without ground truth. METRICS.md, "AVA frame-mAP"."""
    annotated = {row[:2] for row in told(there)}
    there = [row for row in told(there) if row[3] in classes]
    seen = [row for row in told(seen) if row[3] in classes]
    if protocol in ("activitynet_2019", "activitynet_head"):
        per_frame = defaultdict(list)
        for row in seen:
            per_frame[row[:2]].append(row)
        seen = [r for rs in per_frame.values() for r in sorted(rs, key=lambda r: -r[4])[:50]]
    if protocol == "activitynet_head":
        seen = [row for row in seen if row[:2] in annotated]
    else:
        there = [row for row in there if row[:2] not in excluded]
        seen = [row for row in seen if row[:2] not in excluded]
    seen = [row for row in seen if row[2][0] < row[2][2] and row[2][1] < row[2][3]]

    answer = {}
    for label in classes:
        boxes = defaultdict(list)
        for row in there:
            if row[3] == label:
                boxes[row[:2]].append(row[2])
        of_label = [row for row in seen if row[3] == label]
        claims = of_label if protocol == "slowfast" else sorted(of_label, key=lambda r: -r[4])
        taken, scored = set(), []
        for video, frame, box, _, score in claims:
            overlaps = [slow_iou(box, other) for other in boxes[video, frame]]
            hit = False
            if overlaps and max(overlaps) >= threshold:
                target = (video, frame, overlaps.index(max(overlaps)))
                hit = target not in taken
                taken.add(target)
            scored.append((score, hit))
        answer[label] = slow_ap(scored, sum(map(len, boxes.values())))
    return answer


def slow_ap(scored, num_truth):
    """[(score, hit)] -> area under the curve whose precision is the best at that recall or more."""
    if num_truth == 0:
        return None
    curve, hits = [], 0  # (recall, precision)
    for rank, (_, hit) in enumerate(sorted(scored, key=lambda s: -s[0]), 1):
        hits += hit
        curve.append((Fraction(hits, num_truth), Fraction(hits, rank)))
    area, reached = Fraction(0), Fraction(0)
    for recall, _ in curve:
        if recall > reached:
            area += (recall - reached) * max(p for r, p in curve if r >= recall)
            reached = recall
    return area


def same(score, reference):
    assert score.ap.keys() == reference.keys()
    for label, expected in reference.items():
        if expected is None:
            assert math.isnan(score.ap[label])
        else:
            assert score.ap[label] == pytest.approx(float(expected), abs=1e-12)
    known = [x for x in reference.values() if x is not None]
    if known:
        assert score.mAP == pytest.approx(float(sum(known) / len(known)), abs=1e-12)
    else:
        assert math.isnan(score.mAP)


# Sixteenths are exact in binary, so that a tie is a tie and one half is one half on both sides.
# Few boxes, close together: many overlap, coincide, or reach exactly one half.
SIXTEENTHS = [
    (0, 0, 8, 8), (0, 0, 8, 7), (1, 0, 8, 8), (0, 0, 8, 4), (0, 0, 4, 8), (2, 2, 9, 9),
    (0, 0, 16, 8), (8, 8, 16, 16), (4, 4, 12, 12), (5, 4, 12, 12), (3, 3, 4, 4),
]  # fmt: skip
BOXES = [tuple(x / 16 for x in box) for box in SIXTEENTHS]
BAD_BOXES = [(0.5, 0, 0.5, 1), (0.5, 0.5, 0.25, 1), (0, 0.5, 1, 0.25)]
FRAMES = ["f1", "f2", "f3", "g1", "h2"]
EXCLUDED = frozenset({("f", 2), ("nowhere", 1)})

truth_rows = st.tuples(st.sampled_from(FRAMES[:4]), st.sampled_from(BOXES), st.sampled_from(list(ACTIONS)))
found_rows = st.tuples(
    st.sampled_from(FRAMES),
    st.sampled_from(BOXES + BAD_BOXES),
    st.sampled_from(list(ACTIONS)),
    st.integers(0, 1000).map(lambda n: n / 1000),
)
truths = st.lists(truth_rows, max_size=15)
founds = st.lists(found_rows, max_size=30)
untied = st.lists(found_rows, max_size=30, unique_by=lambda row: row[3])
quick = settings(max_examples=100, deadline=None, database=None, derandomize=True)


@quick
@given(truths, founds, st.sampled_from(PROTOCOLS))
def test_the_second_opinion_agrees_on_small_worlds(there, seen, protocol):
    there, seen = truth(*there), found(*seen)
    reference = slow_frame_ap(there, seen, CLASSES, EXCLUDED, protocol)
    same(frame_map(there, seen, CLASSES, excluded=EXCLUDED, protocol=protocol), reference)


def crowd(seed):
    """A busy world: about 90 detections a frame, most of them near a ground-truth box."""
    rng = random.Random(seed)
    actions = ["run", "run", "sit", "wave", "knit"]
    there = [(f, rng.choice(BOXES), rng.choice(actions)) for f in FRAMES[:4] for _ in range(12)]
    scores = rng.sample(range(10_000), 450)
    seen = [
        (rng.choice(FRAMES), rng.choice(BOXES + BAD_BOXES[:1]), rng.choice(actions), s / 10_000)
        for s in scores
    ]
    return truth(*there), found(*seen)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_second_opinion_agrees_in_a_crowd(protocol):
    apart = 0
    for seed in range(6):
        there, seen = crowd(seed)
        reference = slow_frame_ap(there, seen, CLASSES, EXCLUDED, protocol)
        score = frame_map(there, seen, CLASSES, excluded=EXCLUDED, protocol=protocol)
        same(score, reference)
        assert 0 < score.num_true_positives < score.num_detections  # the world is no trivial one
        apart += score.mAP != frame_map(there, seen, CLASSES, excluded=EXCLUDED).mAP
    assert (apart > 0) == (protocol != "standard")  # and the protocols do differ in it


def test_the_second_opinion_agrees_at_another_threshold():
    there, seen = crowd(7)
    reference = slow_frame_ap(there, seen, CLASSES, set(), "standard", Fraction(3, 4))
    assert 0 < reference[3] < slow_frame_ap(there, seen, CLASSES, set(), "standard")[3]
    same(frame_map(there, seen, CLASSES, iou=0.75), reference)


# --- laws ----------------------------------------------------------------------------------------


@quick
@given(truths, founds, st.sampled_from(PROTOCOLS))
def test_every_number_lies_between_nothing_and_one(there, seen, protocol):
    score = frame_map(truth(*there), found(*seen), CLASSES, protocol=protocol)
    for value in (score.mAP, *score.ap.values()):
        assert math.isnan(value) or 0 <= value <= 1


@quick
@given(truths, st.sampled_from(PROTOCOLS))
def test_finding_exactly_what_is_there_gives_one(there, protocol):
    there = [*dict.fromkeys(there), ("f1", WHOLE, "run")]  # without twins: the second is no target
    seen = found(*[(*row, 0.5) for row in there])
    assert frame_map(truth(*there), seen, CLASSES, protocol=protocol).mAP == pytest.approx(1)


@quick
@given(truths, untied, st.randoms(use_true_random=False))
def test_without_ties_the_order_of_the_file_changes_nothing(there, seen, rng):
    before = frame_map(truth(*there), found(*seen), CLASSES)
    rng.shuffle(seen)
    after = frame_map(truth(*there), found(*seen), CLASSES)
    np.testing.assert_equal(after.ap, before.ap)


@quick
@given(truths, founds, st.sampled_from(PROTOCOLS))
def test_only_the_order_of_the_scores_matters(there, seen, protocol):
    stretched = [(*row[:3], 7 * row[3] ** 3 - 2) for row in seen]
    before = frame_map(truth(*there), found(*seen), CLASSES, protocol=protocol)
    after = frame_map(truth(*there), found(*stretched), CLASSES, protocol=protocol)
    np.testing.assert_equal(after.ap, before.ap)


@quick
@given(truths, founds, st.sampled_from(PROTOCOLS), st.sampled_from([0.25, 2.0, 1024.0]))
def test_the_unit_of_the_boxes_does_not_matter(there, seen, protocol, unit):
    def scaled(rows):
        return [(row[0], tuple(unit * x for x in row[1]), *row[2:]) for row in rows]

    before = frame_map(truth(*there), found(*seen), CLASSES, protocol=protocol)
    after = frame_map(truth(*scaled(there)), found(*scaled(seen)), CLASSES, protocol=protocol)
    np.testing.assert_equal(after.ap, before.ap)


@quick
@given(truths, founds, st.lists(found_rows, max_size=5))
def test_false_positives_below_every_score_change_nothing(there, seen, more):
    there = [*there, ("f1", WHOLE, "run")]
    elsewhere = [("h9", *row[1:3], -1 - row[3]) for row in more]  # nobody is there
    before = frame_map(truth(*there), found(*seen), CLASSES)
    after = frame_map(truth(*there), found(*seen, *elsewhere), CLASSES)
    np.testing.assert_equal(after.ap, before.ap)


@quick
@given(truths, founds, found_rows)
def test_a_last_detection_takes_nothing_away(there, seen, last):
    there = [*there, ("f1", WHOLE, "run")]
    before = frame_map(truth(*there), found(*seen), CLASSES)
    after = frame_map(truth(*there), found(*seen, (*last[:3], -1.0)), CLASSES)
    gained = after.num_true_positives - before.num_true_positives
    assert gained in (0, 1)
    for label in CLASSES:
        if gained and label == ACTIONS[last[2]]:
            assert after.ap[label] > before.ap[label]
        else:  # nothing before it changed its fate, and a last miss widens no recall
            np.testing.assert_equal(after.ap[label], before.ap[label])


@quick
@given(truths, founds)
def test_a_claim_is_one_to_one_and_good_enough(there, seen):
    there = truth(*there)
    seen = found(*[row for row in seen if row[1] in BOXES])
    group = {name: i for i, name in enumerate("fgh")}
    groups = [
        np.array([1000 * group[r.videos[v]] + f for v, f in zip(r.video, r.frame, strict=True)], int)
        for r in (there, seen)
    ]
    claimed = match(groups[0], there.box, groups[1], seen.box, seen.score, iou=0.5)
    winners = np.flatnonzero(claimed >= 0)
    assert len(set(claimed[winners].tolist())) == len(winners)
    for i in winners:
        assert groups[0][claimed[i]] == groups[1][i]
        assert slow_iou(there.box[claimed[i]], seen.box[i]) >= Fraction(1, 2)


# --- what mutants survived -------------------------------------------------------------------------


def of_two_videos():
    """The same box at frame 0 of videos a and b, found in both."""
    zero, box = np.zeros(2, int), np.array([[0, 0, 1, 1.0]] * 2)
    rows = (("a", "b"), np.arange(2), zero, box, zero + 1)
    return GroundTruth(*rows), Detections(*rows, np.array([0.9, 0.8]))


def test_an_excluded_frame_is_that_of_its_video_and_no_other():
    there, seen = of_two_videos()
    assert frame_map(there, seen, {1: "run"}, excluded={("a", 0)}).num_ground_truth == 1
    # Beyond the last frame of a, where the numbering of b's frames begins.
    assert frame_map(there, seen, {1: "run"}, excluded={("a", 1)}).num_ground_truth == 2


def test_the_least_overlap_is_at_most_one():
    there, seen = of_two_videos()
    assert frame_map(there, seen, {1: "run"}, iou=1.0).mAP == 1
    with pytest.raises(ValueError, match="iou"):
        frame_map(there, seen, {1: "run"}, iou=1.5)
    assert frame_map(there, seen, {1: "run"}).iou == 0.5
    assert not frame_map(there, seen, {1: "run"}).plus_one


@pytest.mark.parametrize("far", [9, 9000])
def test_lookup_says_where_and_minus_one_for_nowhere(far):
    """By a table of places where the numbers lie close together, by search where they do not."""
    table = np.array([3, 5, far])
    assert lookup(table, np.array([far, 3, 4, 5, 2, far + 1, -far])).tolist() == [2, 0, -1, 1, -1, -1, -1]
    assert lookup(np.array([], np.int64), np.array([3])).tolist() == [-1]
