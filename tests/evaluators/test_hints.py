"""Notes on detections that would fit the ground truth if they were read otherwise, one kind each."""

import numpy as np
import pytest

from evaluators import Detections, GroundTruth
from evaluators.hints import exclusions_that_match_nothing, hints


def truth(videos=("a", "b"), frames=20, first=902, seed=0):
    """One or two boxes a frame, tall ones, so that no other reading fits by chance."""
    rng = np.random.default_rng(seed)
    count = len(videos) * frames
    video, frame = np.divmod(np.repeat(np.arange(count), rng.integers(1, 3, count)), frames)
    corner = rng.uniform(0.05, 0.6, (len(video), 2)) * (1, 0.5)
    box = np.concatenate([corner, corner + rng.uniform((0.1, 0.4), (0.2, 0.6), (len(video), 2))], axis=1)
    return GroundTruth(videos, video, first + frame, box, np.full(len(video), 1))


def detections_of(gt, box=None, *, videos=None, frame=None, noise=0.01):
    rng = np.random.default_rng(1)
    box = gt.box + rng.normal(0, noise, gt.box.shape) if box is None else box
    frame = gt.frame if frame is None else frame
    return Detections(videos or gt.videos, gt.video, frame, box, gt.label, np.full(len(gt.video), 0.5))


def test_detections_that_fit_have_no_note():
    gt = truth()
    assert hints(gt, detections_of(gt)) == []


@pytest.mark.parametrize(
    ("change", "how"),
    [
        (lambda box: box[:, [1, 0, 3, 2]], "read as y1,x1,y2,x2"),
        (lambda box: box[:, [0, 2, 1, 3]], "read as x1,x2,y1,y2"),
        (lambda box: np.c_[box[:, :2], box[:, 2:] - box[:, :2]], "read as x,y,w,h"),
        (
            lambda box: np.c_[(box[:, :2] + box[:, 2:]) / 2, box[:, 2:] - box[:, :2]],
            "read as x and y of the centre, w, h",
        ),
        (lambda box: box * (400, 200, 400, 200), "scaled by 0.0025 in x and 0.005 in y"),
    ],
)
def test_another_order_or_scale_of_columns_is_named(change, how):
    gt = truth()
    [note] = hints(gt, detections_of(gt, change(gt.box)))
    assert note.startswith(f"{how} the boxes would overlap 100% of the ground truth by half; as they are, ")


def test_boxes_that_fit_in_no_reading_have_no_note():
    gt = truth()
    assert hints(gt, detections_of(gt, np.tile([0.9, 0.9, 0.95, 0.95], (len(gt.video), 1)))) == []


@pytest.mark.parametrize("offset", [900, -21, -902])
def test_a_constant_offset_of_seconds_is_named(offset):
    gt = truth(first=2000)
    [note] = hints(gt, detections_of(gt, frame=gt.frame - offset))
    assert f"with {offset:+d} 40 of 40 frames (or seconds) would meet" in note


@pytest.mark.parametrize(
    ("name", "meant"),
    [("Dive/v_Dive_g01.avi", "Dive/v_Dive_g01"), ("v_Dive_g01", "Dive/v_Dive_g01"), ("clip.MP4", "clip")],
)
def test_names_with_a_suffix_or_without_their_folder_are_named(name, meant):
    gt = truth(videos=(meant, "other"))
    note, *_ = hints(gt, detections_of(gt, videos=(name, "other")))
    start = "1 of 2 videos of the detections are not in the ground truth; "
    assert note.startswith(f"{start}{name!r} may be its {meant!r}")


def test_no_detections_and_no_ground_truth_have_no_note():
    gt = truth()
    none = np.zeros(len(gt.video), bool)
    assert hints(gt, detections_of(gt).take(none)) == hints(gt.take(none), detections_of(gt)) == []


def test_a_scale_that_leaves_some_boxes_overlapping_is_named():
    """Frames of 256 x 256 for those of 320 x 240: a third of the boxes still overlap by half."""
    gt = truth(frames=60)
    half_way = gt.box * (256 / 320, 256 / 240, 256 / 320, 256 / 240)
    det = detections_of(gt, half_way)
    [note] = hints(gt, det)
    assert note.startswith("scaled by 1.2")
    assert "as they are, 0%" not in note, "some do overlap"
    assert hints(gt, detections_of(gt)) == []


@pytest.mark.parametrize("shift", [1, -1, 2])
def test_a_count_from_another_number_is_named_though_seconds_meet(shift):
    """Truth at 902 to 921, detections a second later: all but one have a partner, of another second."""
    gt = truth()
    [note] = hints(gt, detections_of(gt, frame=gt.frame + shift))
    assert note.startswith(f"with {-shift:+d} to their frames (or seconds) the boxes would overlap")
    assert note.endswith("do they count from another number?")


def test_exclusions_that_match_nothing_are_noted():
    gt = truth()
    assert exclusions_that_match_nothing(gt, {("a", 905), ("zzz", 3)}) == []
    assert exclusions_that_match_nothing(gt, set()) == []
    assert exclusions_that_match_nothing(gt, {("a.mp4", 905), ("b.mp4", 906)}) == [
        "none of the 2 exclusions is of a video of the ground truth; 'a.mp4' may be its 'a'"
    ]
    [note] = exclusions_that_match_nothing(gt, {("a", 5), ("b", 6)})
    assert "is within the seconds of the ground truth, 902 to 921" in note
    around = {("a", 900), ("a", 901), ("b", 922), ("b", 925)}
    assert exclusions_that_match_nothing(gt, around) == [], "the ends of a video that nobody annotated"
