"""The picture of keyframes, for runs with no, one or many detections."""

import io
from types import SimpleNamespace

import numpy as np
import pytest

from evaluators import Detections, GroundTruth
from evaluators.ava_csv import write_detections, write_persons
from reports.figures import LISTED, keyframes


def ints(*values):
    return np.array(values, dtype=np.int64)


@pytest.fixture
def split():
    """Two keyframes; the first has one actor, who moves left."""
    actor = np.array([[0.2, 0.2, 0.4, 0.6]])

    class Split(SimpleNamespace):
        def __len__(self):
            return len(self.keyframes)

    return Split(
        keyframes=[("film", 902), ("film", 903)],
        classes={1: "left"},
        ground_truth=GroundTruth(("film",), ints(0), ints(902), actor, ints(1)),
        keyframe=lambda index: np.full((48, 64, 3), 90 + index, np.uint8),
    )


def titles(folder, split, scores):
    """Draw and save two keyframes with detections of these scores in the first; -> the lists above them."""
    n = len(scores)
    x = np.linspace(0, 0.6, n)
    box = np.stack([x, x, x + 0.2, x + 0.3], 1)
    rows = (("film",), np.zeros(n, np.int64), np.full(n, 902), box)
    score = np.array(scores, dtype=float)
    write_persons(folder / "persons.csv", Detections(*rows, np.zeros(n, np.int64), score))
    write_detections(folder / "detections.csv", Detections(*rows, np.ones(n, np.int64), score))
    result = SimpleNamespace(
        experiment={"selection": "c_t", "frame_embedding": False}, mAP=0.5, clips=2, split="test"
    )
    figure = keyframes(result, folder, split, every=1, count=2)
    figure.savefig(io.BytesIO(), format="png")  # a layout that does not fit warns, and warnings are errors
    return [axes.get_title(loc="left") for axes in figure.axes]


def test_detections_are_listed_by_descending_score(tmp_path, split):
    assert titles(tmp_path, split, [0.25, 0.9]) == ["1: left 0.90\n2: -", "no detections"]


def test_long_lists_are_cut(tmp_path, split):
    """After a few training steps a keyframe has many detections: all have a box, five are listed."""
    first, second = titles(tmp_path, split, np.linspace(0.5, 0.9, 40))
    assert first.splitlines()[0] == "1: left 0.90"
    assert first.splitlines()[LISTED:] == ["and 35 more"]
    assert second == "no detections"


def test_detections_at_most_theta_are_hidden(tmp_path, split):
    assert titles(tmp_path, split, [0.2, 0.1]) == ["no detections", "no detections"]
