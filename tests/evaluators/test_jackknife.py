"""Intervals over videos and paired comparison: values worked out, and coverage by simulation."""

import math
from dataclasses import asdict, replace

import numpy as np
import pytest
from scipy.stats import t

from evaluators import EvalRules, Protocol, compare, frame_mAP, intervals, jackknife, summarise
from tests.evaluators.shared import CLASSES, WHOLE, as_tuples, detections, ground_truth, half_detected


def logit(p):
    return math.log(p / (1 - p))


def shares(values, videos):
    """The interval of a share from those without each video, by hand."""
    left = [logit(value) for value in values[1:]]
    mean = sum(left) / len(left)
    deviation = math.sqrt((len(left) - 1) / len(left) * sum((x - mean) ** 2 for x in left))
    half = t.ppf(0.975, videos - 1) * deviation
    return [1 / (1 + math.exp(-(logit(values[0]) + sign * half))) for sign in (-1, 1)]


# --- values --------------------------------------------------------------------------------------


def test_interval_is_that_of_the_scores_without_each_video():
    # Without false positives AP is recall: 3 of 5 boxes in four videos of 1, 1, 1 and 2.
    gt = ground_truth(("a", WHOLE, 1), ("b", WHOLE, 1), ("c", WHOLE, 1), ("d", WHOLE, 1), ("d", WHOLE, 1))
    gt = replace(gt, frame=np.array([7, 7, 7, 7, 8]))
    det = detections(("a", WHOLE, 1, 0.9), ("b", WHOLE, 1, 0.8), ("d", WHOLE, 1, 0.7))
    result = intervals(gt, det, CLASSES)
    expected = pytest.approx(shares([3 / 5, 2 / 4, 2 / 4, 3 / 4, 2 / 3], 4))
    assert [result.low, result.high] == expected
    assert [result.class_low[1], result.class_high[1]] == expected
    assert (result.num_videos, result.level) == (4, 0.95)
    assert result.class_videos == {1: 4, 2: 0, 3: 0}


def test_interval_equals_that_of_a_proportion_when_ap_is_recall():
    # 0.5 of 200 +- 1.96 sqrt(1/4 / 200).
    result = intervals(*half_detected(), CLASSES)
    assert result.score.mAP == 0.5
    assert result.high - result.low == pytest.approx(2 * 1.96 * math.sqrt(0.25 / 200), rel=0.02)
    wider = intervals(*half_detected(), CLASSES, level=0.99)
    assert wider.high - wider.low == pytest.approx(2 * 2.576 * math.sqrt(0.25 / 200), rel=0.03)


def test_whole_videos_are_left_out():
    # Ten boxes per video, all detected or none: a proportion of 20, not of 200.
    gt, det = half_detected(20)
    gt, det = (replace(rows, **{n: np.repeat(getattr(rows, n), 10, axis=0) for n in names})
               for rows, names in ((gt, ("video", "frame", "box", "label")),
                                   (det, ("video", "frame", "box", "label", "score"))))  # fmt: skip
    frames = np.tile(np.arange(10), 20)
    gt, det = replace(gt, frame=frames), replace(det, frame=frames[: len(det.frame)])
    result = intervals(gt, det, CLASSES)
    assert result.score.mAP == 0.5
    assert result.high - result.low == pytest.approx(2 * 2.09 * math.sqrt(0.25 / 20), rel=0.1)


@pytest.mark.parametrize("share", [0, 1])
def test_perfect_or_empty_scores_have_the_interval_of_a_proportion_of_videos(share):
    gt, det = half_detected(videos=12, share=share)
    result = intervals(gt, det, CLASSES)
    bound = 0.025 ** (1 / 12)  # 12 videos are all perfect with half of 5 % if each is with this
    assert [result.low, result.high] == pytest.approx([bound, 1] if share else [0, 1 - bound])
    assert result.class_low[1] == result.low


def test_a_score_of_zero_or_one_that_a_video_changes_is_an_end_itself():
    gt = ground_truth(("a", WHOLE, 1), ("b", WHOLE, 1), ("c", WHOLE, 1))
    det = detections(("a", WHOLE, 1, 0.9), ("d", WHOLE, 1, 0.95))
    result = intervals(gt, det, CLASSES)
    assert 0 < result.low < result.score.mAP < result.high < 1


def test_class_in_one_video_has_no_interval_and_leaves_the_mean_with_it():
    gt = ground_truth(("a", WHOLE, 2), ("b", WHOLE, 1), ("c", WHOLE, 1), ("d", WHOLE, 1))
    det = detections(("a", WHOLE, 2, 0.9), ("b", WHOLE, 1, 0.9), ("c", WHOLE, 1, 0.8))
    for protocol in ("standard", "gurkirt"):
        result = intervals(gt, det, {1: "run", 2: "sit"}, rules=EvalRules(protocol))
        assert result.class_videos == {1: 3, 2: 1}
        assert math.isnan(result.class_low[2])
        assert math.isnan(result.class_high[2])
        assert not math.isnan(result.class_low[1])
        # Without a, the mean is that of "run" alone; without b, c, d it is of both.
        run, left = 2 / 3, [2 / 3, (1 / 2 + 1) / 2, (1 / 2 + 1) / 2]
        values = [(run + 1) / 2, *left[:1], *left[1:], (1 - 1e-3 + 1 - 1e-3) / 2]
        assert [result.low, result.high] == pytest.approx(shares(values, 4), abs=1e-9)


def test_videos_with_only_detections_are_left_out_too_but_do_not_count():
    gt = ground_truth(("a", WHOLE, 1), ("b", WHOLE, 1))
    det = detections(("a", WHOLE, 1, 0.5), ("no ground truth", WHOLE, 1, 0.9))
    result = intervals(gt, det, CLASSES)
    assert result.num_videos == 2
    # All: a false positive, then one of two: 1/4. Without a: 0; without b: 1/2; without the third: 1/2.
    least = 1e-3
    assert [result.low, result.high] == pytest.approx(shares([1 / 4, least, 1 / 2, 1 / 2], 2))


def test_more_videos_than_groups_are_left_out_several_at_a_time(monkeypatch):
    one = intervals(*half_detected(), CLASSES)
    monkeypatch.setattr(jackknife, "_MOST_GROUPS", 50)
    some = intervals(*half_detected(), CLASSES)
    assert some.num_videos == 200
    assert some.high - some.low == pytest.approx(one.high - one.low, rel=0.25)


def test_rules_apply_to_the_intervals():
    gt, det = half_detected(20)
    excluded = {(name, 7) for name in gt.videos[:10]}
    rules = EvalRules("activitynet_2019", iou=0.75, excluded=excluded)
    result = intervals(gt, det, CLASSES, rules=rules)
    np.testing.assert_equal(asdict(result.score), asdict(frame_mAP(gt, det, CLASSES, rules=rules)))
    assert result.num_videos == 10


@pytest.mark.parametrize("protocol", list(Protocol))
def test_every_protocol_scores_what_is_left_as_frame_map_does(protocol):
    rng = np.random.default_rng(0)
    names = [f"v{i}" for i in range(5)]
    rows = [(name, WHOLE, int(c)) for name in names for c in rng.integers(1, 3, 4)]
    gt = replace(ground_truth(*rows), frame=np.tile(np.arange(4), 5))
    det = replace(
        detections(*[(*row, s) for row, s in zip(rows, rng.permutation(20) / 20, strict=True)]),
        frame=(np.tile(np.arange(4), 5) + rng.integers(0, 2, 20)) % 4,
    )
    rules = EvalRules(protocol)
    values = [frame_mAP(gt, det, CLASSES, rules=rules).mAP]
    for name in names:
        rest = [other for other in names if other != name]
        values.append(frame_mAP(gt.in_videos(rest), det.in_videos(rest), CLASSES, rules=rules).mAP)
    result = intervals(gt, det, CLASSES, rules=rules)
    assert [result.low, result.high] == pytest.approx(shares(values, 5), abs=1e-5)


# --- comparison ----------------------------------------------------------------------------------


def test_run_compared_with_itself_has_no_difference():
    gt, det = half_detected()
    result = compare(gt, (det, det), CLASSES)
    assert (result.difference, result.low, result.high, result.p_value) == (0, 0, 0, 1)
    assert result.class_difference[1] == 0
    assert math.isnan(result.class_difference[3])
    assert math.isnan(result.class_p_value[3])


def test_difference_and_p_value_are_those_of_students_t():
    gt, det = half_detected(20)
    more = detections(*[(*row, 0.9) for row in as_tuples(gt)[:15]])
    result = compare(gt, (det, more), CLASSES)
    first = np.isin(np.arange(20), [int(name[1:]) for name in det.videos]).astype(float)
    second = (np.arange(20) < 15).astype(float)
    paired = second - first  # AP is recall, so this is the paired t-test of the videos' differences
    error = paired.std(ddof=1) / math.sqrt(20)
    assert result.difference == pytest.approx(paired.mean())
    half = t.ppf(0.975, 19) * error
    assert (result.low, result.high) == pytest.approx((paired.mean() - half, paired.mean() + half))
    assert result.p_value == pytest.approx(2 * t.sf(abs(paired.mean()) / error, 19))
    back = compare(gt, (more, det), CLASSES)
    assert (back.difference, back.p_value) == pytest.approx((-result.difference, result.p_value))
    assert (back.low, back.high) == pytest.approx((-result.high, -result.low))


def test_run_better_by_the_same_on_every_video_has_the_probability_of_their_signs():
    gt = ground_truth(*[(f"v{i}", WHOLE, 1) for i in range(6)])
    result = compare(gt, (detections(), detections(*[(*row, 0.5) for row in as_tuples(gt)])), CLASSES)
    assert (result.difference, result.low, result.high) == (1, 1, 1)
    assert result.p_value == 2 / 2**6


def test_paired_comparison_resolves_what_overlapping_intervals_do_not():
    # The second detects a tenth more, in addition to what the first detects.
    gt, det = half_detected()
    detected_rows = set(as_tuples(det))
    more = [row for row in as_tuples(gt) if row not in detected_rows][:20]
    second = detections(*[(*row, 0.9) for row in [*detected_rows, *more]])
    one, two = (intervals(gt, run, CLASSES) for run in (det, second))
    assert two.low < one.high  # the intervals overlap,
    result = compare(gt, (det, second), CLASSES)
    assert result.difference == pytest.approx(0.1)
    assert result.low > 0  # and yet the difference is significant
    assert result.p_value < 0.01


@pytest.mark.parametrize("level", [0, 1, 95])
def test_invalid_levels_are_refused(level):
    gt, det = half_detected(4)
    message = f"level must be between 0 and 1, such as 0.95; found {level}"
    with pytest.raises(ValueError, match=message):
        intervals(gt, det, CLASSES, level=level)
    with pytest.raises(ValueError, match=message):
        compare(gt, (det, det), CLASSES, level=level)


@pytest.mark.parametrize("videos", [0, 1])
def test_without_a_video_to_leave_out_there_is_a_score_and_no_interval(videos):
    gt = ground_truth(*[("a", WHOLE, 1)] * videos) if videos else ground_truth(("a", WHOLE, 77))
    det = detections(("a", WHOLE, 1, 0.5), ("b", WHOLE, 1, 0.4))
    result = intervals(gt, det, CLASSES)
    assert result.score.mAP == 1 if videos else np.isnan(result.score.mAP)
    assert np.isnan([result.low, result.high, *result.class_low.values()]).all()
    assert f"no interval: ground truth is in {videos} video" in summarise(result)
    both = compare(gt, (det, det), CLASSES)
    assert np.isnan([both.low, both.high, both.p_value]).all()
    assert "no interval and no p-value" in summarise(both)


# --- simulation ----------------------------------------------------------------------------------

FREQUENT = (0.4, 0.25, 0.15, 0.1, 0.06, 0.04)
"""Share of the actors that do each of six actions: skewed, as AVA's."""


def population(videos, rng):
    """Rows of videos and of two runs' detections.

    A video is hard or easy for both runs, and for each by its own luck; it has from one to some hundred
    actors, most of them of its favourite action; a hard video has higher-scored false positives.
    """
    hard = rng.normal(size=videos)
    size = np.maximum(1, rng.lognormal(1.6, 1.0, videos)).astype(int)
    video = np.repeat(np.arange(videos), size)
    favourite = rng.choice(6, videos, p=FREQUENT)
    label = np.where(rng.random(len(video)) < 0.6, favourite[video], rng.choice(6, len(video), p=FREQUENT))
    runs = []
    for _ in range(2):
        luck = hard + 0.5 * rng.normal(size=videos)
        found = rng.random(len(video)) < 1 / (1 + np.exp(-1 - luck[video]))
        wrong = np.repeat(np.arange(videos), rng.poisson(3 * size))
        rows = np.concatenate([np.flatnonzero(found), np.full(len(wrong), -1)])
        of = np.concatenate([video[found], wrong])
        guess = np.concatenate([label[found], rng.choice(6, len(wrong))])
        mean = np.concatenate([1 + 0.6 * luck[video[found]], -0.3 - 0.3 * luck[wrong]])
        runs.append((rows, of, guess, rng.normal(mean)))
    return video, label, runs


def as_arrays(population, chosen):
    """Ground truth and two runs of the chosen videos; an actor per frame, false positives on another."""
    video, label, runs = population
    new = np.full(video.max() + 1, -1)
    new[chosen] = np.arange(len(chosen))
    names = tuple(f"v{i}" for i in range(len(chosen)))
    here = new[video] >= 0
    frame = np.arange(len(video))
    box = np.tile(np.array(WHOLE, float), (here.sum(), 1))
    base = ground_truth(("v0", WHOLE, 1))
    gt = replace(base, videos=names, video=new[video[here]], frame=frame[here], box=box, label=label[here])
    found = []
    for rows, of, guess, score in runs:
        kept = new[of] >= 0
        frames = np.where(rows[kept] >= 0, rows[kept], len(video))
        boxes = np.tile(np.array(WHOLE, float), (kept.sum(), 1))
        det = detections(("v0", WHOLE, 1, 0.5))
        found.append(
            replace(
                det, videos=names, video=new[of[kept]], frame=frames, box=boxes, label=guess[kept],
                score=score[kept],
            )
        )  # fmt: skip
    return gt, found


@pytest.mark.slow
@pytest.mark.parametrize(("videos", "trials"), [(6, 500), (12, 500), (30, 400), (100, 200)])
def test_intervals_cover_what_they_say_and_p_values_are_as_rare_as_they_say(videos, trials):
    """Percentiles of a bootstrap cover 76, 83, 88 and 92 % of mAPs there."""
    rng = np.random.default_rng(videos)
    whole = population(5000, rng)
    gt, runs = as_arrays(whole, np.arange(5000))
    classes = {i: str(i) for i in range(6)}
    truth = [np.array(list(frame_mAP(gt, run, classes).ap.values())) for run in runs]
    covered = {"mAP": [], "class": [], "difference": [], "class difference": [], "p": [], "class p": []}
    for _ in range(trials):
        gt, runs = as_arrays(whole, rng.choice(5000, videos, replace=False))
        ends = intervals(gt, runs[0], classes)
        change = compare(gt, (runs[0], runs[1]), classes)
        known = [i for i, n in ends.class_videos.items() if n]
        covered["mAP"].append(ends.low <= truth[0][known].mean() <= ends.high)
        difference = truth[1] - truth[0]
        covered["difference"].append(change.low <= difference[known].mean() <= change.high)
        covered["p"].append(change.p_value >= 0.05)
        for i in known:
            if ends.class_videos[i] > 1:
                covered["class"].append(ends.class_low[i] <= truth[0][i] <= ends.class_high[i])
                covered["class difference"].append(
                    change.class_low[i] <= difference[i] <= change.class_high[i]
                )
                covered["class p"].append(change.class_p_value[i] >= 0.05)
    for name, values in covered.items():
        print(f"{videos} videos, {name}: {100 * np.mean(values):.1f} %")
        assert 0.91 < np.mean(values) < 0.99, name
