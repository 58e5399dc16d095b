"""AVA frame-mAP: small cases with the answer worked out, a slow reference implementation, properties."""

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
    EvalRules,
    GroundTruth,
    Protocol,
    average_precision,
    frame_mAP,
    match,
)
from evaluators.frame_map import _best_per_frame, raw_average_precision
from evaluators.matching import lookup
from tests.evaluators.reference import slow_iou

WHOLE, LEFT, RIGHT, TOP = (0, 0, 1, 1), (0, 0, 0.5, 1), (0.5, 0, 1, 1), (0, 0, 1, 0.5)
INVERTED = (1, 0, 0, 1)
ACTIONS = {"run": 3, "sit": 11, "wave": 69, "knit": 80}
CLASSES = {3: "run", 11: "sit", 69: "wave"}  # knitting is not evaluated
PROTOCOLS = AVA_PROTOCOLS


def columns(rows):
    """Rows (frame, box, action[, score]) as columns; frame "f1" is second 1 of the video "f"."""
    videos = tuple(dict.fromkeys(row[0].rstrip("0123456789") for row in rows))
    return (
        videos,
        np.array([videos.index(row[0].rstrip("0123456789")) for row in rows], dtype=int),
        np.array([int(row[0].lstrip("fgh")) for row in rows], dtype=int),
        np.array([row[1] for row in rows], dtype=float).reshape(-1, 4),
        np.array([ACTIONS[row[2]] for row in rows], dtype=int),
    )


def ground_truth(*rows):
    return GroundTruth(*columns(rows))


def detections(*rows):
    return Detections(*columns(rows), score=np.array([row[3] for row in rows], dtype=float))


def ap(gt, det, **rules):
    return frame_mAP(gt, det, CLASSES, rules=EvalRules(**rules)).ap[ACTIONS["run"]]


def frac(numerator, denominator):
    return pytest.approx(numerator / denominator, abs=1e-15)


# --- cases ---------------------------------------------------------------------------------------


def test_duplicate_detection_is_a_false_positive():
    gt = ground_truth(("f1", WHOLE, "run"), ("f2", WHOLE, "run"))
    det = detections(("f1", WHOLE, "run", 0.9), ("f1", WHOLE, "run", 0.8), ("f2", WHOLE, "run", 0.7))
    assert ap(gt, det) == pytest.approx(1 / 2 * 1 + 1 / 2 * 2 / 3)


def test_ap_interpolates_the_curve_over_all_points():
    # By score: false, true, true, false, true; precision at the true 1/2, 2/3, 3/5, of 4 boxes.
    gt = ground_truth(*[(f"f{i}", WHOLE, "run") for i in range(1, 5)])
    det = detections(
        ("f9", WHOLE, "run", 0.9),
        ("f1", WHOLE, "run", 0.8),
        ("f2", WHOLE, "run", 0.7),
        ("f8", WHOLE, "run", 0.6),
        ("f3", WHOLE, "run", 0.5),
    )
    assert ap(gt, det) == pytest.approx(1 / 4 * (2 / 3 + 2 / 3 + 3 / 5))


def test_second_best_box_is_never_matched():
    # Both detections overlap WHOLE most; LEFT, with an IoU of exactly one half, stays unmatched.
    gt = ground_truth(("f1", WHOLE, "run"), ("f1", LEFT, "run"))
    det = detections(("f1", WHOLE, "run", 0.9), ("f1", (0, 0, 0.9, 1), "run", 0.8))
    assert ap(gt, det) == frac(1, 2)


def test_only_the_first_of_two_equal_boxes_can_be_matched():
    gt = ground_truth(("f1", WHOLE, "run"), ("f1", WHOLE, "run"))
    det = detections(("f1", WHOLE, "run", 0.9), ("f1", WHOLE, "run", 0.8))
    assert ap(gt, det) == frac(1, 2)
    assigned = match(np.zeros(2, int), gt.box, np.zeros(2, int), det.box, det.score, iou=0.5)
    assert assigned.tolist() == [0, -1]


def test_iou_of_exactly_one_half_matches_and_no_pixel_is_added():
    gt = ground_truth(("f1", WHOLE, "run"))
    assert ap(gt, detections(("f1", LEFT, "run", 0.9))) == 1
    assert ap(gt, detections(("f1", (0, 0, 0.5 - 1e-9, 1), "run", 0.9))) == 0
    # 10 x 10 against 10 x 4 is 40/100; counting one pixel more each way would make it 55/121.
    gt, det = ground_truth(("f1", (0, 0, 10, 10), "run")), detections(("f1", (0, 0, 10, 4), "run", 0.9))
    assert ap(gt, det, iou=0.42) == 0
    assert ap(gt, det, iou=0.4) == 1


def test_highest_score_matches_wherever_it_is_in_the_file():
    # LEFT has the higher score and is matched; WHOLE, though a perfect fit, is a duplicate.
    gt = ground_truth(("f1", WHOLE, "run"))
    det = detections(("f1", WHOLE, "run", 0.3), ("f1", LEFT, "run", 0.6))
    assert ap(gt, det) == 1
    assigned = match(np.zeros(1, int), gt.box, np.zeros(2, int), det.box, det.score, iou=0.5)
    assert assigned.tolist() == [-1, 0]


def test_slowfast_matches_in_file_order_so_a_low_scored_duplicate_can_match():
    gt = ground_truth(("f1", WHOLE, "run"), ("f2", WHOLE, "run"))
    det = detections(("f1", WHOLE, "run", 0.3), ("f1", WHOLE, "run", 0.9), ("f2", WHOLE, "run", 0.6))
    assert ap(gt, det) == 1  # true, true, false
    assert ap(gt, det, protocol="slowfast") == frac(2, 3)  # false, true, true: 2/3 at both


def test_tied_scores_keep_the_order_of_the_rows():
    gt = ground_truth(("f1", WHOLE, "run"), ("f2", WHOLE, "run"))
    hit, miss = ("f1", WHOLE, "run", 0.5), ("f9", WHOLE, "run", 0.5)
    assert ap(gt, detections(hit, miss)) == frac(1, 2)
    assert ap(gt, detections(miss, hit)) == frac(1, 4)


def test_other_class_frame_or_video_never_matches():
    gt = ground_truth(("f1", WHOLE, "run"))
    assert ap(gt, detections(("f1", WHOLE, "sit", 0.9))) == 0
    assert ap(gt, detections(("f2", WHOLE, "run", 0.9))) == 0
    assert ap(gt, detections(("g1", WHOLE, "run", 0.9))) == 0


def test_videos_are_compared_by_name_not_by_index():
    gt = ground_truth(("f1", WHOLE, "run"), ("g1", LEFT, "run"))
    det = detections(("g1", LEFT, "run", 0.9), ("h1", LEFT, "run", 0.8), ("f1", WHOLE, "run", 0.7))
    assert gt.videos != det.videos
    assert ap(gt, det) == pytest.approx(1 / 2 * 1 + 1 / 2 * 2 / 3)


def test_mean_is_over_the_classes_with_ground_truth():
    gt = ground_truth(("f1", WHOLE, "run"), ("f1", WHOLE, "sit"), ("f1", WHOLE, "knit"))
    det = detections(("f1", WHOLE, "run", 0.9), ("f1", WHOLE, "wave", 0.8), ("f1", LEFT, "knit", 0.7))
    score = frame_mAP(gt, det, CLASSES)
    assert score.ap[ACTIONS["run"]] == 1
    assert score.ap[ACTIONS["sit"]] == 0  # ground truth without detections
    assert math.isnan(score.ap[ACTIONS["wave"]])  # no ground truth
    assert score.mAP == frac(1, 2)
    assert list(score.ap) == list(score.classes) == [3, 11, 69]
    assert (score.num_classes, score.num_ground_truth, score.num_detections) == (2, 2, 2)
    assert score.num_true_positives == 1


def test_excluded_second_is_dropped_on_both_sides():
    gt = ground_truth(("f1", WHOLE, "run"), ("f2", WHOLE, "run"))
    det = detections(("f2", LEFT, "run", 0.9), ("f2", WHOLE, "run", 0.8), ("f1", WHOLE, "run", 0.7))
    assert ap(gt, det) == pytest.approx(1 / 2 * 1 + 1 / 2 * 2 / 3)
    score = frame_mAP(gt, det, CLASSES, rules=EvalRules(excluded={("f", 2), ("unknown", 1), ("g", 1)}))
    assert score.mAP == 1
    assert (score.num_ground_truth, score.num_detections) == (1, 1)


def test_detection_on_a_frame_without_ground_truth_is_a_false_positive():
    gt = ground_truth(("f1", WHOLE, "run"), ("f2", WHOLE, "knit"))
    det = detections(("f5", WHOLE, "run", 0.9), ("f1", WHOLE, "run", 0.8))
    assert ap(gt, det) == frac(1, 2)
    assert ap(gt, det, protocol="activitynet_2019") == frac(1, 2)
    assert ap(gt, det, protocol="activitynet_head") == 1  # not a frame of the ground truth


def test_head_scores_frames_whose_only_actions_are_not_evaluated():
    gt = ground_truth(("f1", WHOLE, "run"), ("f2", WHOLE, "knit"))
    det = detections(("f2", WHOLE, "run", 0.9), ("f1", WHOLE, "run", 0.8))
    assert ap(gt, det, protocol="activitynet_head") == frac(1, 2)


def test_head_ignores_exclusions():
    gt, det = ground_truth(("f1", WHOLE, "run")), detections(("f1", WHOLE, "run", 0.8))
    rules = {"excluded": {("f", 1)}}
    assert ap(gt, det, protocol="activitynet_head", **rules) == 1
    for protocol in ("standard", "activitynet_2019", "slowfast"):
        assert math.isnan(ap(gt, det, protocol=protocol, **rules))
        assert math.isnan(frame_mAP(gt, det, CLASSES, rules=EvalRules(protocol, **rules)).mAP)


def test_mmaction2_looks_at_frames_with_evaluated_truth_and_misses_excluded_truth():
    """One runs, another knits (not evaluated), a third runs on an excluded frame; nobody finds who sits."""
    gt = ground_truth(("f1", WHOLE, "run"), ("f2", WHOLE, "knit"), ("f3", WHOLE, "run"), ("g1", WHOLE, "sit"))
    det = detections(
        ("f2", WHOLE, "run", 0.9),
        ("f5", WHOLE, "run", 0.8),
        ("f3", WHOLE, "run", 0.7),
        ("f1", WHOLE, "run", 0.6),
    )
    rules = EvalRules("mmaction2", excluded={("f", 3)})
    score = frame_mAP(gt, det, CLASSES, rules=rules)
    assert (score.num_ground_truth, score.num_detections, score.num_true_positives) == (3, 1, 1)
    run, sit = (next(i for i, name in CLASSES.items() if name == action) for action in ("run", "sit"))
    assert score.ap[run] == frac(1, 2), "the excluded one is missed"
    assert math.isnan(score.ap[sit]), "no detection of it, so not in the mean"
    assert score.mAP == frac(1, 2)
    standard = frame_mAP(gt, det, CLASSES, rules=EvalRules(excluded={("f", 3)}))
    assert (standard.ap[run], standard.ap[sit]) == (frac(1, 3), 0)


def test_inverted_detection_is_dropped_and_not_a_false_positive():
    gt = ground_truth(("f1", WHOLE, "run"))
    for box in (INVERTED, (0, 1, 1, 0), (0.5, 0, 0.5, 1), (0, 0.5, 1, 0.5)):
        det = detections(("f1", box, "run", 0.9), ("f1", WHOLE, "run", 0.8))
        assert ap(gt, det) == 1


@pytest.mark.parametrize("protocol", ["activitynet_2019", "activitynet_head"])
@pytest.mark.parametrize(
    ("higher_scored", "kept"),
    [
        ([("f1", WHOLE, "sit", 0.9)] * 49, True),
        ([("f1", WHOLE, "sit", 0.9)] * 50, False),  # rows of any evaluated action count,
        ([("f1", INVERTED, "sit", 0.9)] * 50, False),  # inverted ones too,
        ([("f1", WHOLE, "knit", 0.9)] * 50, True),  # those of other actions do not,
        ([("f2", WHOLE, "sit", 0.9)] * 50, True),  # and every frame has its own fifty;
        ([("f1", WHOLE, "sit", 0.5)] * 50, False),  # among ties the first rows are kept.
    ],
)
def test_later_activitynet_tools_score_fifty_detections_per_frame(protocol, higher_scored, kept):
    gt = ground_truth(("f1", WHOLE, "run"), ("f2", WHOLE, "wave"))
    det = detections(*higher_scored, ("f1", WHOLE, "run", 0.5))
    assert ap(gt, det, protocol=protocol) == (1 if kept else 0)
    assert ap(gt, det) == ap(gt, det, protocol="slowfast") == 1


def test_no_detections_give_zero_and_no_ground_truth_gives_nan():
    gt, det = ground_truth(("f1", WHOLE, "run")), detections(("f1", WHOLE, "run", 0.9))
    for protocol in PROTOCOLS:
        nothing = frame_mAP(gt, detections(), CLASSES, rules=EvalRules(protocol)).mAP
        assert math.isnan(nothing) if protocol == "mmaction2" else nothing == 0
        assert math.isnan(frame_mAP(ground_truth(), det, CLASSES, rules=EvalRules(protocol)).mAP)
        assert math.isnan(frame_mAP(ground_truth(), detections(), CLASSES, rules=EvalRules(protocol)).mAP)


def test_result_records_protocol_and_iou():
    score = frame_mAP(ground_truth(), detections(), CLASSES, rules=EvalRules("slowfast", iou=0.75))
    assert (score.protocol, score.iou) == (Protocol.SLOWFAST, 0.75)
    assert frame_mAP(ground_truth(), detections(), CLASSES).protocol == "standard"


def test_average_precision_worked_by_hand():
    hits, score = np.array([True, False, True]), np.array([0.1, 0.2, 0.3])
    assert average_precision(hits, score, 4) == pytest.approx(1 / 4 * (1 + 2 / 3))
    assert average_precision(hits[:0], score[:0], 4) == 0
    assert math.isnan(average_precision(hits[:0], score[:0], 0))


# --- invalid input -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"protocol": "coco"}, "unknown protocol 'coco'; known are: standard, activitynet_2019"),
        ({"iou": 0}, "iou must be above 0 and at most 1; found 0"),
        ({"iou": 50}, "iou must be above 0 and at most 1; found 50"),
        ({"iou": math.nan}, "found nan"),
        ({"plus_one": True}, "plus_one is an option of protocol annotated .*; not of standard"),
    ],
)
def test_invalid_rules_are_refused(rules, message):
    with pytest.raises(ValueError, match=message):
        frame_mAP(ground_truth(), detections(), CLASSES, rules=EvalRules(**rules))


def test_empty_class_list_is_refused():
    with pytest.raises(ValueError, match="no classes to evaluate: give the label map"):
        frame_mAP(ground_truth(), detections(), {})


def test_inverted_ground_truth_box_is_an_error_naming_row_and_frame():
    gt = ground_truth(("f1", WHOLE, "run"), ("g7", INVERTED, "knit"))
    with pytest.raises(ValueError, match=r"ground-truth row 1 \(g, frame 7\).*\[1.0, 0.0, 0.0, 1"):
        frame_mAP(gt, detections(), CLASSES)


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
        ({"videos": ("a", "a")}, "Detections.videos has 'a' twice"),
        ({"videos": (1, 2)}, "Detections.videos must hold names"),
    ],
)
def test_inconsistent_columns_are_refused_by_name(change, message):
    Detections(**GOOD)
    with pytest.raises(ValueError, match=message):
        Detections(**{**GOOD, **change})


def test_narrow_arrays_are_cast_and_ground_truth_is_validated_too():
    narrow = Detections(**{**GOOD, "box": np.float32(GOOD["box"]), "video": np.int8([0, 1])})
    assert [getattr(narrow, f.name).dtype for f in fields(narrow)[1:]] == [
        np.int64, np.int64, np.float64, np.int64, np.float64,
    ]  # fmt: skip
    gt = {name: value for name, value in GOOD.items() if name != "score"}
    assert GroundTruth(**gt).box.shape == (2, 4)
    with pytest.raises(ValueError, match=r"GroundTruth\.frame row 0 is -5"):
        GroundTruth(**{**gt, "frame": [-5, 1]})


@pytest.mark.parametrize(
    ("hits", "score", "num_gt", "message"),
    [
        ([True, True], [0.1, 0.2], 1, "2 true positives for 1 ground-truth boxes"),
        ([True], [0.1, 0.2], 1, "two .* arrays of one length"),
    ],
)
def test_average_precision_refuses_inconsistent_input(hits, score, num_gt, message):
    with pytest.raises(ValueError, match=message):
        average_precision(np.array(hits), np.array(score), num_gt)


def test_rules_accept_a_name_and_record_what_applies():
    rules = EvalRules("act", iou=0.75, excluded={("a", 1)})
    assert (rules.protocol, rules.excluded) == (Protocol.ACT, frozenset({("a", 1)}))
    assert rules.protocol_rules.curve == "raw"
    assert rules.iou_plus_one
    assert not rules.plus_one
    assert EvalRules(Protocol.ANNOTATED, plus_one=True).iou_plus_one
    assert EvalRules() == EvalRules("standard", iou=0.5, excluded=frozenset())
    with pytest.raises(TypeError):
        EvalRules("act", 0.75)  # options are keywords


def test_take_selects_rows_by_index_and_by_mask():
    det = Detections(**GOOD)
    swapped = det.take(np.array([1, 0]))
    assert (swapped.videos, swapped.video.tolist(), swapped.score.tolist()) == (
        ("a", "b"),
        [1, 0],
        [0.2, 0.1],
    )
    assert det.take(np.array([False, True])).box.tolist() == [list(LEFT)]
    assert type(det.take(np.zeros(0, int))) is Detections


def test_in_videos_selects_rows_by_video_name_and_numbers_them_anew():
    det = Detections(**GOOD).in_videos(["b", "c"])
    assert (det.videos, det.video.tolist(), det.label.tolist()) == (("b", "c"), [0], [2])


# --- reference implementation: the same rules in plain loops and exact fractions -----------------


def as_tuples(rows):
    """The rows as (video name, frame, box, label[, score]) tuples."""
    names = [rows.videos[v] for v in rows.video]
    columns = [names, rows.frame.tolist(), [tuple(b) for b in rows.box.tolist()], rows.label]
    if isinstance(rows, Detections):
        columns.append(rows.score.tolist())
    return list(zip(*columns, strict=True))


def slow_frame_ap(gt, det, classes, excluded, protocol, threshold=Fraction(1, 2)):
    """class id -> AP as a Fraction, None without ground truth."""
    annotated = {row[:2] for row in as_tuples(gt)}
    gt = [row for row in as_tuples(gt) if row[3] in classes]
    det = [row for row in as_tuples(det) if row[3] in classes]
    if protocol in ("activitynet_2019", "activitynet_head"):
        per_frame = defaultdict(list)
        for row in det:
            per_frame[row[:2]].append(row)
        det = [r for rs in per_frame.values() for r in sorted(rs, key=lambda r: -r[4])[:50]]
    if protocol == "activitynet_head":
        det = [row for row in det if row[:2] in annotated]
    elif protocol == "mmaction2":
        seen = {row[:2] for row in gt} - excluded
        det = [row for row in det if row[:2] in seen]
    else:
        gt = [row for row in gt if row[:2] not in excluded]
        det = [row for row in det if row[:2] not in excluded]
    if protocol != "mmaction2":
        det = [row for row in det if row[2][0] < row[2][2] and row[2][1] < row[2][3]]

    answer = {}
    for label in classes:
        boxes = defaultdict(list)
        for row in gt:
            if row[3] == label:
                boxes[row[:2]].append(row[2])
        of_label = [row for row in det if row[3] == label]
        ordered = of_label if protocol == "slowfast" else sorted(of_label, key=lambda r: -r[4])
        matched, scored = set(), []
        for video, frame, box, _, score in ordered:
            overlaps = [slow_iou(box, other) for other in boxes[video, frame]]
            hit = False
            if overlaps and max(overlaps) >= threshold:
                target = (video, frame, overlaps.index(max(overlaps)))
                hit = target not in matched
                matched.add(target)
            scored.append((score, hit))
        answer[label] = slow_ap(scored, sum(map(len, boxes.values())))
        if protocol == "mmaction2" and not scored:
            answer[label] = None
    return answer


def slow_ap(scored, num_gt):
    """[(score, hit)] -> area under the curve whose precision is the best at that recall or more."""
    if num_gt == 0:
        return None
    curve, hits = [], 0  # (recall, precision)
    for rank, (_, hit) in enumerate(sorted(scored, key=lambda s: -s[0]), 1):
        hits += hit
        curve.append((Fraction(hits, num_gt), Fraction(hits, rank)))
    area, reached = Fraction(0), Fraction(0)
    for recall, _ in curve:
        if recall > reached:
            area += (recall - reached) * max(p for r, p in curve if r >= recall)
            reached = recall
    return area


def assert_same(score, reference):
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

gt_rows = st.tuples(st.sampled_from(FRAMES[:4]), st.sampled_from(BOXES), st.sampled_from(list(ACTIONS)))
det_rows = st.tuples(
    st.sampled_from(FRAMES),
    st.sampled_from(BOXES + BAD_BOXES),
    st.sampled_from(list(ACTIONS)),
    st.integers(0, 1000).map(lambda n: n / 1000),
)
gt_lists = st.lists(gt_rows, max_size=15)
det_lists = st.lists(det_rows, max_size=30)
untied_lists = st.lists(det_rows, max_size=30, unique_by=lambda row: row[3])
quick = settings(max_examples=100, deadline=None, database=None, derandomize=True)


@quick
@given(gt_lists, det_lists, st.sampled_from(PROTOCOLS))
def test_reference_implementation_agrees_on_small_cases(gt, det, protocol):
    gt, det = ground_truth(*gt), detections(*det)
    reference = slow_frame_ap(gt, det, CLASSES, EXCLUDED, protocol)
    assert_same(frame_mAP(gt, det, CLASSES, rules=EvalRules(protocol, excluded=EXCLUDED)), reference)


def crowd(seed):
    """About 90 detections per frame, most of them near a ground-truth box."""
    rng = random.Random(seed)
    actions = ["run", "run", "sit", "wave", "knit"]
    gt = [(f, rng.choice(BOXES), rng.choice(actions)) for f in FRAMES[:4] for _ in range(12)]
    scores = rng.sample(range(10_000), 450)
    det = [
        (rng.choice(FRAMES), rng.choice(BOXES + BAD_BOXES[:1]), rng.choice(actions), s / 10_000)
        for s in scores
    ]
    return ground_truth(*gt), detections(*det)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_reference_implementation_agrees_in_a_crowd(protocol):
    apart = 0
    for seed in range(6):
        gt, det = crowd(seed)
        reference = slow_frame_ap(gt, det, CLASSES, EXCLUDED, protocol)
        score = frame_mAP(gt, det, CLASSES, rules=EvalRules(protocol, excluded=EXCLUDED))
        assert_same(score, reference)
        assert 0 < score.num_true_positives < score.num_detections  # not a trivial case
        apart += score.mAP != frame_mAP(gt, det, CLASSES, rules=EvalRules(excluded=EXCLUDED)).mAP
    assert (apart > 0) == (protocol != "standard")  # and the protocols do differ in it


def test_reference_implementation_agrees_at_another_threshold():
    gt, det = crowd(7)
    reference = slow_frame_ap(gt, det, CLASSES, set(), "standard", Fraction(3, 4))
    assert 0 < reference[3] < slow_frame_ap(gt, det, CLASSES, set(), "standard")[3]
    assert_same(frame_mAP(gt, det, CLASSES, rules=EvalRules(iou=0.75)), reference)


def test_equal_scores_rank_in_the_order_of_rows_however_many_there_are():
    """More rows than a sort that is not stable would leave in their order."""
    rng = np.random.default_rng(0)
    hits, score = rng.random(400) < 0.5, rng.integers(0, 3, 400) / 2
    ranked = [hit for level in (1.0, 0.5, 0.0) for hit, s in zip(hits, score, strict=True) if s == level]
    distinct = np.linspace(1, 0, 400)
    for measure in (average_precision, raw_average_precision):
        assert measure(hits, score, 300) == measure(np.array(ranked), distinct, 300)


def test_the_cap_of_a_frame_keeps_the_first_of_equal_scores_in_frames_out_of_order():
    rng = np.random.default_rng(1)
    frame, score = rng.integers(0, 5, 300), rng.integers(0, 3, 300) / 2
    kept = _best_per_frame(frame, score, np.ones(300, bool), 20)
    for number in range(5):
        rows = np.flatnonzero(frame == number)
        best = sorted(rows.tolist(), key=lambda row: -score[row])[:20]  # Python's sort is stable
        assert np.flatnonzero(kept & (frame == number)).tolist() == sorted(best)


# --- properties ----------------------------------------------------------------------------------


@quick
@given(gt_lists, det_lists, st.sampled_from(PROTOCOLS))
def test_every_number_is_between_zero_and_one(gt, det, protocol):
    score = frame_mAP(ground_truth(*gt), detections(*det), CLASSES, rules=EvalRules(protocol))
    for value in (score.mAP, *score.ap.values()):
        assert math.isnan(value) or 0 <= value <= 1


@quick
@given(gt_lists, st.sampled_from(PROTOCOLS))
def test_detecting_exactly_the_ground_truth_gives_one(gt, protocol):
    gt = [*dict.fromkeys(gt), ("f1", WHOLE, "run")]  # without repeats, which cannot both be matched
    det = detections(*[(*row, 0.5) for row in gt])
    assert frame_mAP(ground_truth(*gt), det, CLASSES, rules=EvalRules(protocol)).mAP == pytest.approx(1)


@quick
@given(gt_lists, untied_lists, st.randoms(use_true_random=False))
def test_file_order_changes_nothing_without_ties(gt, det, rng):
    before = frame_mAP(ground_truth(*gt), detections(*det), CLASSES)
    rng.shuffle(det)
    after = frame_mAP(ground_truth(*gt), detections(*det), CLASSES)
    np.testing.assert_equal(after.ap, before.ap)


@quick
@given(gt_lists, det_lists, st.sampled_from(PROTOCOLS))
def test_only_the_order_of_the_scores_matters(gt, det, protocol):
    stretched = [(*row[:3], 7 * row[3] ** 3 - 2) for row in det]
    before = frame_mAP(ground_truth(*gt), detections(*det), CLASSES, rules=EvalRules(protocol))
    after = frame_mAP(ground_truth(*gt), detections(*stretched), CLASSES, rules=EvalRules(protocol))
    np.testing.assert_equal(after.ap, before.ap)


@quick
@given(gt_lists, det_lists, st.sampled_from(PROTOCOLS), st.sampled_from([0.25, 2.0, 1024.0]))
def test_unit_of_the_boxes_does_not_matter(gt, det, protocol, unit):
    def scaled(rows):
        return [(row[0], tuple(unit * x for x in row[1]), *row[2:]) for row in rows]

    before = frame_mAP(ground_truth(*gt), detections(*det), CLASSES, rules=EvalRules(protocol))
    after = frame_mAP(ground_truth(*scaled(gt)), detections(*scaled(det)), CLASSES, rules=EvalRules(protocol))
    np.testing.assert_equal(after.ap, before.ap)


@quick
@given(gt_lists, det_lists, st.lists(det_rows, max_size=5))
def test_false_positives_below_every_score_change_nothing(gt, det, more):
    gt = [*gt, ("f1", WHOLE, "run")]
    unannotated = [("h9", *row[1:3], -1 - row[3]) for row in more]  # no ground truth there
    before = frame_mAP(ground_truth(*gt), detections(*det), CLASSES)
    after = frame_mAP(ground_truth(*gt), detections(*det, *unannotated), CLASSES)
    np.testing.assert_equal(after.ap, before.ap)


@quick
@given(gt_lists, det_lists, det_rows)
def test_detection_of_lowest_score_never_lowers_ap(gt, det, last):
    gt = [*gt, ("f1", WHOLE, "run")]
    before = frame_mAP(ground_truth(*gt), detections(*det), CLASSES)
    after = frame_mAP(ground_truth(*gt), detections(*det, (*last[:3], -1.0)), CLASSES)
    gained = after.num_true_positives - before.num_true_positives
    assert gained in (0, 1)
    for label in CLASSES:
        if gained and label == ACTIONS[last[2]]:
            assert after.ap[label] > before.ap[label]
        else:  # earlier matches are unchanged, and a false positive adds no recall
            np.testing.assert_equal(after.ap[label], before.ap[label])


@quick
@given(gt_lists, det_lists)
def test_matching_is_one_to_one_and_above_the_iou_threshold(gt, det):
    gt = ground_truth(*gt)
    det = detections(*[row for row in det if row[1] in BOXES])
    group = {name: i for i, name in enumerate("fgh")}
    groups = [
        np.array([1000 * group[r.videos[v]] + f for v, f in zip(r.video, r.frame, strict=True)], int)
        for r in (gt, det)
    ]
    assigned = match(groups[0], gt.box, groups[1], det.box, det.score, iou=0.5)
    matched_rows = np.flatnonzero(assigned >= 0)
    assert len(set(assigned[matched_rows].tolist())) == len(matched_rows)
    for i in matched_rows:
        assert groups[0][assigned[i]] == groups[1][i]
        assert slow_iou(gt.box[assigned[i]], det.box[i]) >= Fraction(1, 2)


# --- found by mutation testing -------------------------------------------------------------------


def two_videos():
    """The same box at frame 0 of videos a and b, detected in both."""
    zero, box = np.zeros(2, int), np.array([[0, 0, 1, 1.0]] * 2)
    rows = (("a", "b"), np.arange(2), zero, box, zero + 1)
    return GroundTruth(*rows), Detections(*rows, np.array([0.9, 0.8]))


def test_exclusion_applies_to_its_own_video_only():
    gt, det = two_videos()
    assert frame_mAP(gt, det, {1: "run"}, rules=EvalRules(excluded={("a", 0)})).num_ground_truth == 1
    # Beyond the last frame of a, where the numbering of b's frames begins.
    assert frame_mAP(gt, det, {1: "run"}, rules=EvalRules(excluded={("a", 1)})).num_ground_truth == 2


def test_iou_threshold_is_at_most_one():
    gt, det = two_videos()
    assert frame_mAP(gt, det, {1: "run"}, rules=EvalRules(iou=1.0)).mAP == 1
    with pytest.raises(ValueError, match="iou"):
        frame_mAP(gt, det, {1: "run"}, rules=EvalRules(iou=1.5))
    assert frame_mAP(gt, det, {1: "run"}).iou == 0.5
    assert not frame_mAP(gt, det, {1: "run"}).plus_one


@pytest.mark.parametrize("far", [9, 9000])
def test_lookup_gives_the_index_or_minus_one(far):
    """By an index table where the numbers are dense, by search where they are not."""
    table = np.array([3, 5, far])
    assert lookup(table, np.array([far, 3, 4, 5, 2, far + 1, -far])).tolist() == [2, 0, -1, 1, -1, -1, -1]
    assert lookup(np.array([], np.int64), np.array([3])).tolist() == [-1]
