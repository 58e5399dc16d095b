"""What a made scene holds, measured over many: sizes, displacements, occlusion, cuts and fast movers."""

import numpy as np
import pytest

from datasets import scenes, synthetic
from datasets.scenes import CHANGES, FPS, HEIGHT, SPEED, WIDTH, Person

CELL = WIDTH / 8, HEIGHT / 8
"""Of an 8 x 8 grid, the tokens of a small clip, pixels."""


def sampled(count, seed=3):
    rng = np.random.default_rng(seed)
    return [scenes.sample_scene(rng) for _ in range(count)]


def displacement(person):
    """(dx, dy) in pixels from the first frame of a scene to its last, as it is drawn."""
    track = scenes._track(person, np.arange(FPS) - FPS // 2)
    return abs(track.x[-1] - track.x[0]), abs(track.y[-1] - track.y[0])


def test_bodies_have_from_three_to_nine_tenths_of_the_height_and_several_sizes():
    heights = np.array([person.size for scene in sampled(300) for person in scene]) / HEIGHT
    assert 0.3 <= heights.min() < 0.33
    assert 0.85 < heights.max() <= 0.9
    thirds = np.histogram(heights, [0.3, 0.45, 0.6, 0.9])[0]
    assert thirds.min() > len(heights) / 10


def test_actors_stay_within_a_cell_but_for_the_fast_ones():
    actors = [person for scene in sampled(400) for person in scene if person.is_actor]
    for person in actors:
        (dx, dy), leaves = displacement(person), person.is_fast
        assert (dx > CELL[0] or dy > CELL[1]) == leaves, person
    assert np.mean([person.is_fast for person in actors]) == pytest.approx(0.1 * (1 - 0.146), abs=0.03)


def test_the_fast_movers_are_listed_by_their_annotation(tmp_path):
    """By video, second and person id, as in the annotations."""
    root = tmp_path / "made"
    synthetic.make_at(root, synthetic.Size(train=60, val=1, test=1))
    listed = (root / "annotations/synthetic_train_fast_movers.csv").read_text().split()
    rows = (root / "annotations/ava_train_v2.2.csv").read_text().split()
    persons = {(*row.split(",")[:2], row.rpartition(",")[2]) for row in rows}
    assert 2 <= len(listed) < len(persons) / 4
    assert {tuple(line.split(",")) for line in listed} <= persons


def test_bodies_overlap_now_and_then_and_by_less_than_half():
    occluded = 0
    for scene in sampled(400):
        most = max(
            (scenes.overlap([a.box], [b.box]) for i, a in enumerate(scene) for b in scene[:i]), default=0
        )
        assert most < 0.4
        occluded += most > 0.1
    assert 0.03 < occluded / 400 < 0.15, "of the 15 % that may, the bodies of some are apart all the same"


def test_a_body_that_comes_later_covers_an_earlier_one():
    """Two bodies at one place: the second is seen, the first only where it is larger."""
    rng = np.random.default_rng(0)
    body = {"x": 40.0, "y": 32.0, "stripes": (0.0, 0.0, 0.0), "angle": 0.0, "actions": ("up",), "speed": 0.0}
    large = Person(size=50.0, shade=(0.7, 0.35, 0.35), core="red", **body)
    small = Person(size=24.0, shade=(0.35, 0.35, 0.7), core="blue", **body)
    frame = scenes.draw_scene([large, small], rng)[FPS // 2].astype(int)
    centre, rim = frame[32, 40], frame[12, 40]
    assert centre[2] > centre[0]
    assert rim[0] > rim[2]


def test_a_tenth_of_scenes_is_cut_away_from_the_keyframe():
    """A cut is a change of the background, seen in a corner that no body covers."""
    rng, cuts = np.random.default_rng(5), []
    for _ in range(300):
        frames = scenes.render([], rng).astype(int)
        changes = np.abs(np.diff(frames, axis=0)).mean((1, 2, 3))
        if changes.max() > 20:
            cuts.append(int(changes.argmax()) + 1 - FPS // 2)
    assert len(cuts) / 300 == pytest.approx(scenes.CUT_SHARE, abs=0.05)
    assert all(4 <= abs(cut) <= 7 for cut in cuts), "the frames at the keyframe are of one scene"
    assert min(cuts) < 0 < max(cuts)


def test_an_actor_moves_in_one_way_and_changes_in_ways_that_fit_together():
    actors = [person for scene in sampled(300) for person in scene if person.actions]
    assert all(person.speed >= SPEED for person in actors)
    for person in actors:
        movement, *changes = person.actions
        assert movement in scenes.MOVEMENTS
        assert set(changes) <= set(CHANGES)
        assert not {"vanish", "appear"} <= set(changes)
        assert not {"grow", "shrink"} <= set(changes)
