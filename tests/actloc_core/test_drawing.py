"""Boxes and labels on the planes of a frame, and fonts that have the characters of class names."""

import numpy as np
import pytest

from actloc_core import drawing
from actloc_core.drawing import Labels, Person, choose_labels, draw

RUN = (("run", 0.8), ("wave", 0.1))


def blank(height=480, width=640):
    image = np.full((height * 3 // 2, width), 126, np.uint8)
    image[height:] = 128
    return image


def drawn(persons, height=480, width=640):
    """Y, U and V after drawing on grey."""
    image = blank(height, width)
    draw(image, persons)
    return drawing._planes(image)


def test_boxes_are_drawn_at_their_position():
    y, u, _ = drawn([Person((0.25, 0.25, 0.5, 0.75), 0, "actor 0.90", RUN), Person((0, 0, 1, 1), 1, "", ())])
    changed = y != 126
    assert changed[300, 160]
    assert changed[120, 200:300].all()
    assert changed[240, 319]
    assert not changed[240, 170:310].any(), "no pixel inside the box"
    assert changed[0].all()
    assert u[150, 80] != 128, "colours are at half the resolution"
    assert (drawn([])[0] == 126).all()


def test_boxes_at_and_beyond_the_edges_stay_in_the_picture():
    for box in ((-1, -1, 2, 2), (0.999, 0.999, 1, 1), (0.5, 0.5, 0.5, 0.5), (0.9, 0.9, 0.1, 0.1)):
        y, _, _ = drawn([Person(box, 3, "", ())], 34, 18)
        assert y.shape == (34, 18)
    crowd = [Person((x / 9, 0.4, x / 9 + 0.1, 0.9), x, "actor 0.50", RUN) for x in range(9)] * 4
    assert (drawn(crowd)[0] != 126).any()


def test_a_long_class_name_is_shortened_and_its_score_stays():
    """The label takes at most half of the picture, so that its end is not outside."""
    font = drawing.load_font(None, 13)
    name = "put the object that lies on the table into the drawer " * 4
    text = drawing._shorten(name, " 0.75", font, 320)
    assert text.startswith("put the object that lies")
    assert text.endswith("... 0.75")
    assert font.getlength(text) <= 320
    assert drawing._shorten("run", " 0.75", font, 320) == "run 0.75"
    _, (wide, _) = drawing._text("actor 0.90", ((name, 0.75),), None, 13, 640)
    assert 300 < wide <= 320 + 8


def test_colours_are_those_of_the_person():
    """Red has Y 82, U 90, V 240 in BT.601."""
    assert drawing._yuv((255, 0, 0)) == (82, 90, 240)
    assert len(set(map(drawing._yuv, drawing.COLOURS))) == len(drawing.COLOURS)


def test_the_font_has_the_characters_of_all_class_names():
    """Pillow's own font has no Cyrillic; DejaVu Sans, which comes with Matplotlib, has it."""
    pytest.importorskip("matplotlib")
    assert choose_labels({1: "run", 2: "hand shake"}).font_file is None
    labels = choose_labels({1: "run", 2: "Bälle jonglieren", 3: "прыгать"})
    assert labels.font_file.endswith("DejaVuSans.ttf")
    assert labels.missing == ()
    assert labels.texts["прыгать"] == "прыгать"
    pictures = {bytes(drawing.load_font(labels.font_file, 20).getmask(c)) for c in "прыгать"}
    assert len(pictures) == 7, "no two characters look alike, as squares would"


def test_names_that_no_font_has_are_drawn_as_their_id_and_named(monkeypatch):
    monkeypatch.setattr(drawing, "_font_files", lambda: iter([None]))
    labels = choose_labels({1: "run", 7: "走る", 9: "two\nlines"})
    texts = {"run": "run", "走る": "class 7", "two\nlines": "two lines"}
    assert labels == Labels(None, texts, ("走る",))
