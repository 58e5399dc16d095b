"""Scores on other samples of the videos: drawing a video twice doubles its rows."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluators import EvalRules, Protocol, frame_mAP
from evaluators.frame_map import match_frames
from evaluators.resampling import resampled_ap, resampled_mAP
from tests.evaluators.shared import CLASSES, LEFT, WHOLE, detections, ground_truth

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

    expected = frame_mAP(
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
        expected = list(frame_mAP(gt, det, CLASSES, rules=EvalRules(protocol)).ap.values())
        for column in ap.T:
            np.testing.assert_allclose(column, expected, atol=1e-6)
        mAP = resampled_mAP(gt, det, CLASSES, number, np.ones((30, 2)), rules=EvalRules(protocol))
        score = frame_mAP(gt, det, CLASSES, rules=EvalRules(protocol))
        np.testing.assert_allclose(mAP, score.mAP, atol=1e-6)
