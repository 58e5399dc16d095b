"""Tracks of people who cross, are missed for a while, come and leave."""

import pytest

from actloc_core.tracks import Linker, interpolate


def person(x, y=0.3, width=0.2):
    return (x, y, x + width, y + 0.4)


def linked(*keyframes, **options):
    """Track ids at keyframes a second apart."""
    linker = Linker(**options)
    return [linker.link(float(second), boxes) for second, boxes in enumerate(keyframes)]


def test_two_people_who_cross_keep_their_ids():
    """A walks to the right, B to the left, 0.1 a second; each is at 0.4 once, and the order changes."""
    keyframes = [[person(0.1 + 0.1 * t), person(0.7 - 0.1 * t)] for t in range(7)]
    keyframes[4:] = [[b, a] for a, b in keyframes[4:]]
    assert linked(*keyframes) == [[1, 2]] * 4 + [[2, 1]] * 3


def test_ids_follow_the_pairs_of_highest_summed_overlap_not_the_best_single_pair():
    """The first of the new boxes overlaps both: IoU 1 with B and 1/3 with A, but B's other choice is none."""
    first = [person(0.2), person(0.3)]
    assert linked(first, [person(0.3), person(0.4)]) == [[1, 2], [2, 3]], "1 + 0 beats 1/3 + 1/3"
    assert linked(first, [person(0.26), person(0.34)]) == [[1, 2], [1, 2]]


def test_a_person_missed_at_two_keyframes_keeps_the_id_and_at_three_does_not():
    walk = [[person(0.1)], [person(0.2)], [], [], [person(0.5)]]
    assert linked(*walk) == [[1], [1], [], [], [1]], "predicted at 0.5 by the velocity of 0.1 a second"
    assert linked(*walk[:2], [], [], [], [person(0.6)])[-1] == [2]
    assert linked(*walk, max_missed=1)[-1] == [2]


def test_a_new_person_gets_the_next_id_and_no_id_is_used_twice():
    a, b, c = person(0.0), person(0.4), person(0.8)
    keyframes = [[a], [b, a], [b], [b], [b], [b, c, a]]
    assert linked(*keyframes) == [[1], [2, 1], [2], [2], [2], [2, 3, 4]]


def test_a_person_who_stops_is_linked_by_the_last_box():
    """Predicted at 0.4 by 0.15 a second, where the IoU with 0.25 is 1/7; the last box overlaps fully."""
    assert linked([person(0.0)], [person(0.1)], [person(0.25)], [person(0.25)]) == [[1]] * 4


def test_people_who_jump_are_new_and_nobody_is_linked_to_an_empty_box():
    assert linked([person(0.0)], [person(0.5)]) == [[1], [2]]
    assert linked([(0.5, 0.5, 0.5, 0.5)], [(0.5, 0.5, 0.5, 0.5)]) == [[1], [2]]
    assert linked([], []) == [[], []]


def test_boxes_between_keyframes_are_interpolated():
    assert interpolate((0, 0, 0.2, 0.4), (0.4, 0, 0.8, 0.4), 0.25) == pytest.approx((0.1, 0, 0.35, 0.4))
