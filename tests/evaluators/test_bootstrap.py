"""Intervals over videos and paired comparison: drawing a video twice is having it twice."""

import math
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluators import Detections, GroundTruth, Protocol, bootstrap, compare, frame_map
from evaluators.bootstrap import resampled_ap
from evaluators.frame_map import match_frames

WHOLE, LEFT = (0, 0, 1, 1), (0, 0, 0.5, 1)
CLASSES = {1: "run", 2: "sit", 3: "fly"}  # nobody flies


def truth(*told):
    """From (video, box, label)."""
    return GroundTruth(*columns(told))


def found(*told):
    return Detections(*columns(told), score=np.array([row[3] for row in told], dtype=float))


def columns(told):
    videos = tuple(dict.fromkeys(row[0] for row in told))
    video = np.array([videos.index(row[0]) for row in told], dtype=int)
    box = np.array([row[1] for row in told], dtype=float).reshape(-1, 4)
    return videos, video, np.full(len(told), 7), box, np.array([row[2] for row in told], dtype=int)


def half_found(videos=200, share=0.5, seed=0):
    """One person in each video, found or not, and nothing else."""
    lucky = np.random.default_rng(seed).permutation(videos) < share * videos
    there = truth(*[(f"v{i}", WHOLE, 1) for i in range(videos)])
    return there, found(*[(f"v{i}", WHOLE, 1, 0.5 + i / 1000) for i in np.flatnonzero(lucky)])


# --- stories -------------------------------------------------------------------------------------


def test_where_everything_is_found_there_is_no_doubt():
    there = truth(("a", WHOLE, 1), ("b", WHOLE, 1), ("b", WHOLE, 2))
    result = bootstrap(there, found(*[(*row, 0.5) for row in told(there)]), CLASSES, samples=50)
    assert (result.score.mAP, result.low, result.high) == (1, 1, 1)
    assert result.class_low[1] == result.class_high[2] == 1
    assert math.isnan(result.class_low[3])
    assert (result.num_videos, result.samples, result.seed, result.level) == (2, 50, 0, 0.95)


def test_a_single_draw_is_a_draw():
    there, seen = half_found(videos=10)
    result = bootstrap(there, seen, CLASSES, samples=1)
    assert result.low == result.high
    with pytest.raises(ValueError, match="samples"):
        bootstrap(there, seen, CLASSES, samples=0)


def told(rows):
    return [
        (rows.videos[v], tuple(b), int(n)) for v, b, n in zip(rows.video, rows.box, rows.label, strict=True)
    ]


def test_the_interval_is_that_of_a_share_where_ap_is_a_share():
    # Without false positives AP is recall, the mean of 200 coins: 0.5 +- 1.96 sqrt(1/4 / 200).
    result = bootstrap(*half_found(), CLASSES, samples=4000)
    assert result.score.mAP == 0.5
    assert result.high - result.low == pytest.approx(2 * 1.96 * math.sqrt(0.25 / 200), rel=0.05)
    wider = bootstrap(*half_found(), CLASSES, samples=4000, level=0.99)
    assert wider.high - wider.low == pytest.approx(2 * 2.576 * math.sqrt(0.25 / 200), rel=0.07)


def test_videos_are_drawn_whole():
    # The same coins, ten people to a video, all found or none: 20 coins, not 200.
    there, seen = half_found(20)
    there, seen = (replace(rows, **{n: np.repeat(getattr(rows, n), 10, axis=0) for n in names})
                   for rows, names in ((there, ("video", "frame", "box", "label")),
                                       (seen, ("video", "frame", "box", "label", "score"))))  # fmt: skip
    frames = np.tile(np.arange(10), 20)
    there = replace(there, frame=frames)
    seen = replace(seen, frame=frames[: len(seen.frame)])
    result = bootstrap(there, seen, CLASSES, samples=4000)
    assert result.score.mAP == 0.5
    assert result.high - result.low == pytest.approx(2 * 1.96 * math.sqrt(0.25 / 20), rel=0.1)


def test_the_same_seed_gives_the_same_numbers():
    task = (*half_found(), CLASSES)
    np.testing.assert_equal(asdict(bootstrap(*task, seed=3)), asdict(bootstrap(*task, seed=3)))
    assert bootstrap(*task, seed=3).low != bootstrap(*task, seed=4).low


def test_a_run_against_itself_differs_in_nothing():
    there, seen = half_found()
    result = compare(there, (seen, seen), CLASSES, samples=100)
    assert (result.difference, result.low, result.high, result.p_value) == (0, 0, 0, 1)
    assert result.class_difference[1] == 0
    assert math.isnan(result.class_difference[3])
    assert math.isnan(result.class_p_value[3])


def test_a_run_that_is_better_everywhere_is_surely_better():
    there, seen = half_found()
    everything = found(*[(*row, 0.5) for row in told(there)])
    result = compare(there, (seen, everything), CLASSES, samples=999)
    assert (result.first.mAP, result.second.mAP, result.difference) == (0.5, 1, 0.5)
    assert result.p_value == 2 / 1000  # not once in 999 draws
    assert 0.4 < result.low < 0.5 < result.high < 0.6
    back = compare(there, (everything, seen), CLASSES, samples=999)
    assert (back.difference, back.p_value) == (-0.5, 2 / 1000)
    assert (back.low, back.high) == pytest.approx((-result.high, -result.low))


def test_pairing_sees_what_two_intervals_would_not():
    # The second finds a tenth more, on top of what the first finds.
    there, seen = half_found()
    have = set(told(seen))
    more = [row for row in told(there) if row not in have][:20]
    second = found(*[(*row, 0.9) for row in [*have, *more]])
    one, two = (bootstrap(there, run, CLASSES) for run in (seen, second))
    assert two.low < one.high  # the intervals overlap,
    result = compare(there, (seen, second), CLASSES)
    assert result.difference == pytest.approx(0.1)
    assert result.low > 0  # and yet the difference is sure
    assert result.p_value < 0.01


def test_a_draw_without_a_class_leaves_it_out_of_the_mean():
    # Only video a has somebody who sits, found; b and c run, not found.
    there = truth(("a", WHOLE, 2), ("b", WHOLE, 1), ("c", WHOLE, 1))
    seen = found(("a", WHOLE, 2, 0.9))
    result = bootstrap(there, seen, CLASSES, samples=500)
    assert result.score.mAP == 1 / 2
    assert (result.low, result.high) == (0, 1)  # without a, nothing; with a alone, all
    assert result.class_low[2] == result.class_high[2] == 1  # whenever somebody sits


def test_videos_of_the_detections_alone_are_drawn_too():
    there = truth(("a", WHOLE, 1))
    seen = found(("a", WHOLE, 1, 0.5), ("nobody there", WHOLE, 1, 0.9))
    result = bootstrap(there, seen, CLASSES, samples=500)
    assert result.num_videos == 2
    assert (result.low, result.high) == (1 / 2, 1)


def test_excluded_frames_and_other_rules_are_heeded():
    there, seen = half_found(20)
    excluded = {(name, 7) for name in there.videos[:10]}
    rules = {"excluded": excluded, "protocol": "activitynet_2019", "iou": 0.75}
    result = bootstrap(there, seen, CLASSES, **rules, samples=10)
    np.testing.assert_equal(asdict(result.score), asdict(frame_map(there, seen, CLASSES, **rules)))
    assert result.num_videos == 10


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"samples": 0}, "samples must be at least 1; found 0"),
        ({"level": 1}, "level must lie between 0 and 1, such as 0.95; found 1"),
        ({"protocol": "coco"}, "unknown protocol"),
    ],
)
def test_rules_that_are_none(rules, message):
    there, seen = half_found(4)
    with pytest.raises(ValueError, match=message):
        bootstrap(there, seen, CLASSES, **rules)
    with pytest.raises(ValueError, match=message):
        compare(there, (seen, seen), CLASSES, **rules)


def test_one_video_cannot_be_drawn_from():
    there = truth(("a", WHOLE, 1))
    with pytest.raises(ValueError, match="draws videos again and needs at least two; there is 1"):
        bootstrap(there, found(("a", WHOLE, 1, 0.5)), CLASSES)


# --- the law: a draw is the score of the videos drawn, copied out --------------------------------

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
def test_a_draw_is_the_score_of_copies(there, seen, weights, protocol):
    matched = match_frames(truth(*there), found(*seen), CLASSES, protocol=protocol)
    number = {name: i for i, name in enumerate("abcd")}
    sides = [np.array([number[row[0]] for row in told], dtype=int) for told in (there, seen)]
    videos = sides[0][matched.truth_row], sides[1][matched.found_row]
    drawn = resampled_ap(matched, *videos, np.array(weights, dtype=float)[:, None])[:, 0]

    def copied(told):
        return [(f"{row[0]} {i}", *row[1:]) for row in told for i in range(weights[number[row[0]]])]

    expected = frame_map(truth(*copied(there)), found(*copied(seen)), CLASSES, protocol=protocol)
    np.testing.assert_allclose(drawn, list(expected.ap.values()), atol=1e-6 if protocol == "act" else 1e-12)


def test_drawing_every_video_once_is_the_score_itself():
    rng = np.random.default_rng(0)
    names = [f"v{i}" for i in range(30)]
    there = truth(*[(rng.choice(names), WHOLE, 1) for _ in range(40)])
    seen = found(*[(rng.choice(names), WHOLE, 1, s) for s in rng.permutation(200) / 200])
    for protocol in ("standard", "gurkirt", "act"):
        matched = match_frames(there, seen, CLASSES, protocol=protocol)
        number = {name: i for i, name in enumerate(names)}
        videos = [
            np.array([number[rows.videos[v]] for v in rows.video[kept]])
            for rows, kept in ((there, matched.truth_row), (seen, matched.found_row))
        ]
        ap = resampled_ap(matched, *videos, np.ones((30, 2)))
        expected = list(frame_map(there, seen, CLASSES, protocol=protocol).ap.values())
        for column in ap.T:
            np.testing.assert_allclose(column, expected, atol=1e-6)
