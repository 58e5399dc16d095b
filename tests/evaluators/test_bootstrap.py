"""Bootstrap intervals over videos and paired comparison: drawing a video twice doubles its rows."""

import math
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluators import Detections, EvalRules, GroundTruth, Protocol, bootstrap, compare, frame_map
from evaluators.bootstrap import resampled_ap, resampled_mAP
from evaluators.frame_map import match_frames

WHOLE, LEFT = (0, 0, 1, 1), (0, 0, 0.5, 1)
CLASSES = {1: "run", 2: "sit", 3: "fly"}  # without ground truth


def ground_truth(*rows):
    """From (video, box, label)."""
    return GroundTruth(*columns(rows))


def detections(*rows):
    return Detections(*columns(rows), score=np.array([row[3] for row in rows], dtype=float))


def columns(rows):
    videos = tuple(dict.fromkeys(row[0] for row in rows))
    video = np.array([videos.index(row[0]) for row in rows], dtype=int)
    box = np.array([row[1] for row in rows], dtype=float).reshape(-1, 4)
    return videos, video, np.full(len(rows), 7), box, np.array([row[2] for row in rows], dtype=int)


def half_detected(videos=200, share=0.5, seed=0):
    """One ground-truth box per video, a share of them detected, no false positives."""
    detected = np.random.default_rng(seed).permutation(videos) < share * videos
    gt = ground_truth(*[(f"v{i}", WHOLE, 1) for i in range(videos)])
    return gt, detections(*[(f"v{i}", WHOLE, 1, 0.5 + i / 1000) for i in np.flatnonzero(detected)])


# --- cases ---------------------------------------------------------------------------------------


def test_interval_is_one_point_when_everything_is_detected():
    gt = ground_truth(("a", WHOLE, 1), ("b", WHOLE, 1), ("b", WHOLE, 2))
    result = bootstrap(gt, detections(*[(*row, 0.5) for row in as_tuples(gt)]), CLASSES, samples=50)
    assert (result.score.mAP, result.low, result.high) == (1, 1, 1)
    assert result.class_low[1] == result.class_high[2] == 1
    assert math.isnan(result.class_low[3])
    assert (result.num_videos, result.samples, result.seed, result.level) == (2, 50, 0, 0.95)


def test_a_single_sample_is_accepted_and_none_refused():
    gt, det = half_detected(videos=10)
    result = bootstrap(gt, det, CLASSES, samples=1)
    assert result.low == result.high
    with pytest.raises(ValueError, match="samples"):
        bootstrap(gt, det, CLASSES, samples=0)


def as_tuples(rows):
    return [
        (rows.videos[v], tuple(b), int(n)) for v, b, n in zip(rows.video, rows.box, rows.label, strict=True)
    ]


def test_interval_equals_that_of_a_proportion_when_ap_is_recall():
    # Without false positives AP is recall, a proportion of 200: 0.5 +- 1.96 sqrt(1/4 / 200).
    result = bootstrap(*half_detected(), CLASSES, samples=4000)
    assert result.score.mAP == 0.5
    assert result.high - result.low == pytest.approx(2 * 1.96 * math.sqrt(0.25 / 200), rel=0.05)
    wider = bootstrap(*half_detected(), CLASSES, samples=4000, level=0.99)
    assert wider.high - wider.low == pytest.approx(2 * 2.576 * math.sqrt(0.25 / 200), rel=0.07)


def test_whole_videos_are_resampled():
    # Ten boxes per video, all detected or none: a proportion of 20, not of 200.
    gt, det = half_detected(20)
    gt, det = (replace(rows, **{n: np.repeat(getattr(rows, n), 10, axis=0) for n in names})
                   for rows, names in ((gt, ("video", "frame", "box", "label")),
                                       (det, ("video", "frame", "box", "label", "score"))))  # fmt: skip
    frames = np.tile(np.arange(10), 20)
    gt = replace(gt, frame=frames)
    det = replace(det, frame=frames[: len(det.frame)])
    result = bootstrap(gt, det, CLASSES, samples=4000)
    assert result.score.mAP == 0.5
    assert result.high - result.low == pytest.approx(2 * 1.96 * math.sqrt(0.25 / 20), rel=0.1)


def test_same_seed_gives_the_same_numbers():
    task = (*half_detected(), CLASSES)
    np.testing.assert_equal(asdict(bootstrap(*task, seed=3)), asdict(bootstrap(*task, seed=3)))
    assert bootstrap(*task, seed=3).low != bootstrap(*task, seed=4).low


def test_run_compared_with_itself_has_no_difference():
    gt, det = half_detected()
    result = compare(gt, (det, det), CLASSES, samples=100)
    assert (result.difference, result.low, result.high, result.p_value) == (0, 0, 0, 1)
    assert result.class_difference[1] == 0
    assert math.isnan(result.class_difference[3])
    assert math.isnan(result.class_p_value[3])


def test_run_better_on_every_video_has_the_least_p_value():
    gt, det = half_detected()
    all_detected = detections(*[(*row, 0.5) for row in as_tuples(gt)])
    result = compare(gt, (det, all_detected), CLASSES, samples=999)
    assert (result.first.mAP, result.second.mAP, result.difference) == (0.5, 1, 0.5)
    assert result.p_value == 2 / 1000  # not once in 999 samples
    assert 0.4 < result.low < 0.5 < result.high < 0.6
    back = compare(gt, (all_detected, det), CLASSES, samples=999)
    assert (back.difference, back.p_value) == (-0.5, 2 / 1000)
    assert (back.low, back.high) == pytest.approx((-result.high, -result.low))


def test_paired_comparison_resolves_what_overlapping_intervals_do_not():
    # The second detects a tenth more, in addition to what the first detects.
    gt, det = half_detected()
    detected_rows = set(as_tuples(det))
    more = [row for row in as_tuples(gt) if row not in detected_rows][:20]
    second = detections(*[(*row, 0.9) for row in [*detected_rows, *more]])
    one, two = (bootstrap(gt, run, CLASSES) for run in (det, second))
    assert two.low < one.high  # the intervals overlap,
    result = compare(gt, (det, second), CLASSES)
    assert result.difference == pytest.approx(0.1)
    assert result.low > 0  # and yet the difference is significant
    assert result.p_value < 0.01


def test_sample_without_a_class_leaves_it_out_of_the_mean():
    # Only video a has "sit", detected; b and c have "run", not detected.
    gt = ground_truth(("a", WHOLE, 2), ("b", WHOLE, 1), ("c", WHOLE, 1))
    det = detections(("a", WHOLE, 2, 0.9))
    result = bootstrap(gt, det, CLASSES, samples=500)
    assert result.score.mAP == 1 / 2
    assert (result.low, result.high) == (0, 1)  # without a 0; with a alone 1
    assert result.class_low[2] == result.class_high[2] == 1  # whenever the class is in the sample


def test_videos_with_only_detections_are_resampled_too():
    gt = ground_truth(("a", WHOLE, 1))
    det = detections(("a", WHOLE, 1, 0.5), ("no ground truth", WHOLE, 1, 0.9))
    result = bootstrap(gt, det, CLASSES, samples=500)
    assert result.num_videos == 2
    assert (result.low, result.high) == (1 / 2, 1)


def test_rules_apply_to_the_bootstrap():
    gt, det = half_detected(20)
    excluded = {(name, 7) for name in gt.videos[:10]}
    rules = EvalRules("activitynet_2019", iou=0.75, excluded=excluded)
    result = bootstrap(gt, det, CLASSES, rules=rules, samples=10)
    np.testing.assert_equal(asdict(result.score), asdict(frame_map(gt, det, CLASSES, rules=rules)))
    assert result.num_videos == 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 0}, "samples must be at least 1; found 0"),
        ({"level": 1}, "level must be between 0 and 1, such as 0.95; found 1"),
    ],
)
def test_invalid_options_are_refused(options, message):
    gt, det = half_detected(4)
    with pytest.raises(ValueError, match=message):
        bootstrap(gt, det, CLASSES, **options)
    with pytest.raises(ValueError, match=message):
        compare(gt, (det, det), CLASSES, **options)


def test_one_video_is_refused():
    gt = ground_truth(("a", WHOLE, 1))
    with pytest.raises(ValueError, match="resamples videos and needs at least two; found 1"):
        bootstrap(gt, detections(("a", WHOLE, 1, 0.5)), CLASSES)


# --- property: a sample is the score of the sampled videos, copied -------------------------------

rows = st.tuples(st.sampled_from("abcd"), st.sampled_from([WHOLE, LEFT]), st.integers(1, 2))
scored = st.lists(
    st.tuples(rows, st.integers(0, 999)).map(lambda r: (*r[0], r[1] / 1000)),
    max_size=25,
    unique_by=lambda row: row[3],
)


@settings(max_examples=150, deadline=None, database=None, derandomize=True)
@given(
    st.lists(rows, min_size=1, max_size=15),
    scored,
    st.lists(st.integers(0, 3), min_size=4, max_size=4),
    st.sampled_from(list(Protocol)),
)
def test_sample_equals_the_score_of_copied_videos(gt, det, weights, protocol):
    matching = match_frames(ground_truth(*gt), detections(*det), CLASSES, rules=EvalRules(protocol))
    number = {name: i for i, name in enumerate("abcd")}
    sides = [np.array([number[row[0]] for row in rows], dtype=int) for rows in (gt, det)]
    videos = sides[0][matching.gt_row], sides[1][matching.det_row]
    resampled = resampled_ap(matching, *videos, np.array(weights, dtype=float)[:, None])[:, 0]

    def copied(rows):
        return [(f"{row[0]} {i}", *row[1:]) for row in rows for i in range(weights[number[row[0]]])]

    expected = frame_map(
        ground_truth(*copied(gt)), detections(*copied(det)), CLASSES, rules=EvalRules(protocol)
    )
    np.testing.assert_allclose(
        resampled, list(expected.ap.values()), atol=1e-6 if protocol == "act" else 1e-12
    )


def test_sample_of_every_video_once_equals_the_score():
    rng = np.random.default_rng(0)
    names = [f"v{i}" for i in range(30)]
    gt = ground_truth(*[(rng.choice(names), WHOLE, 1) for _ in range(40)])
    det = detections(*[(rng.choice(names), WHOLE, 1, s) for s in rng.permutation(200) / 200])
    for protocol in ("standard", "gurkirt", "act"):
        matching = match_frames(gt, det, CLASSES, rules=EvalRules(protocol))
        number = {name: i for i, name in enumerate(names)}
        videos = [
            np.array([number[rows.videos[v]] for v in rows.video[kept]])
            for rows, kept in ((gt, matching.gt_row), (det, matching.det_row))
        ]
        ap = resampled_ap(matching, *videos, np.ones((30, 2)))
        expected = list(frame_map(gt, det, CLASSES, rules=EvalRules(protocol)).ap.values())
        for column in ap.T:
            np.testing.assert_allclose(column, expected, atol=1e-6)
        mAP = resampled_mAP(gt, det, CLASSES, number, np.ones((30, 2)), rules=EvalRules(protocol))
        score = frame_map(gt, det, CLASSES, rules=EvalRules(protocol))
        np.testing.assert_allclose(mAP, score.mAP, atol=1e-6)
