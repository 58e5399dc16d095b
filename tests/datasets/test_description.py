"""dataset.json: from where seconds count, and which classes a mirrored clip exchanges."""

import json
from pathlib import Path

import pytest

from datasets.description import (
    mirror_note,
    mirror_pairs,
    opposite,
    read_description,
    sided,
)


def described(folder, **fields):
    (folder / "dataset.json").write_text(json.dumps(fields))
    return read_description(folder)


def test_a_folder_without_a_description_has_an_empty_one(tmp_path):
    assert (read_description(tmp_path).start_second, read_description(tmp_path).mirrored) == (None, {})


def test_a_pair_is_exchanged_in_both_directions(tmp_path):
    both = {"to the left": "to the right", "to the right": "to the left"}
    assert described(tmp_path, mirrored={"to the left": "to the right"}).mirrored == both
    assert described(tmp_path, mirrored=both).mirrored == both


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (["left", "right"], "dataset.json: mirrored: .*give pairs of class names"),
        ({"left": 3}, "give pairs of class names"),
        ({"left": "right", "up": "right"}, "'right' is in a pair with 'left' and with 'up'"),
    ],
)
def test_what_is_no_pair_is_refused(tmp_path, value, message):
    with pytest.raises(ValueError, match=message):
        described(tmp_path, mirrored=value)


def test_all_that_is_wrong_in_a_description_is_told_at_once(tmp_path):
    with pytest.raises(ValueError, match="unknown field") as error:
        described(tmp_path, start=0, start_second=-1, mirrored=["left"], fps=25)
    assert str(error.value).removeprefix(f"{tmp_path / 'dataset.json'}: ").splitlines() == [
        "unknown field 'fps'; its fields are start_second, mirrored",
        "unknown field 'start'",
        "start_second -1: give a whole number of seconds, at least 0",
        'mirrored: [\'left\']: give pairs of class names, such as {"to the left": "to the right"}',
    ]


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("to the left", "to the right"),
        ("Turn Right", "Turn Left"),
        ("left_hand_up", "right_hand_up"),
        ("leftwards", "rightwards"),
        ("left-handed pass", "right-handed pass"),
        ("clockwise", "counterclockwise"),
        ("turn anti-clockwise", "turn clockwise"),
    ],
)
def test_names_of_a_side_have_an_opposite(name, other):
    assert sided([name, other]) == [name, other]
    assert opposite(name) == other


def test_other_words_name_no_side():
    assert sided(["bright", "cleft", "leftover", "upright", "clock", "copyright", "lefty"]) == []


def test_the_note_says_what_to_write(tmp_path):
    names = ["run", "to the left", "to the right"]
    note = mirror_note(Path("mine"), names, {})
    assert "'to the left', 'to the right' labelled as before" in note
    assert '{"mirrored": {"to the left": "to the right"}} into mine/dataset.json' in note
    assert mirror_note(Path("mine"), names, mirror_pairs({"to the left": "to the right"}, "")) is None
    assert mirror_note(Path("mine"), ["run", "bright"], {}) is None
