"""The picture of keyframes, of runs that find nobody, somebody or too many."""

import io
from types import SimpleNamespace

import numpy as np
import pytest

from evaluators import Detections, GroundTruth
from evaluators.ava_csv import write_detections, write_persons
from reports.figures import NAMED, keyframes


def ints(*values):
    return np.array(values, dtype=np.int64)


@pytest.fixture
def split():
    """Two keyframes; an actor stands at the first and moves left."""
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


def drawn(folder, split, people):
    """The titles of the two keyframes' pictures, where `people` were found at the first; saved, too."""
    n = len(people)
    x = np.linspace(0, 0.6, n)
    box = np.stack([x, x, x + 0.2, x + 0.3], 1)
    rows = (("film",), np.zeros(n, np.int64), np.full(n, 902), box)
    score = np.array(people, dtype=float)
    write_persons(folder / "persons.csv", Detections(*rows, np.zeros(n, np.int64), score))
    write_detections(folder / "detections.csv", Detections(*rows, np.ones(n, np.int64), score))
    result = SimpleNamespace(
        experiment={"selection": "c_t", "frame_embedding": False}, mAP=0.5, clips=2, split="test"
    )
    figure = keyframes(result, folder, split, every=1, count=2)
    figure.savefig(io.BytesIO(), format="png")  # warns where nothing fits, and a warning is an error
    return [axes.get_title(loc="left") for axes in figure.axes]


def test_the_surest_first_and_named(tmp_path, split):
    assert drawn(tmp_path, split, [0.25, 0.9]) == ["1: left 0.90\n2: -", "nobody"]


def test_a_run_that_finds_a_crowd(tmp_path, split):
    """As after a few steps of training: everybody has a box, and there is still room for the picture."""
    first, second = drawn(tmp_path, split, np.linspace(0.5, 0.9, 40))
    assert first.splitlines()[0] == "1: left 0.90"
    assert first.splitlines()[NAMED:] == ["and 35 more"]
    assert second == "nobody"


def test_below_theta_is_nobody(tmp_path, split):
    assert drawn(tmp_path, split, [0.2, 0.1]) == ["nobody", "nobody"]
