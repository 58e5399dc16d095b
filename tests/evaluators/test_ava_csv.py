"""AVA's files: what is read, what is refused with which message, and what is written."""

import os
import re
import sys
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluators import (
    AvaFileError,
    Detections,
    EvalRules,
    GroundTruth,
    frame_mAP,
    read_annotations,
    read_detections,
    read_exclusions,
    read_frame_detections,
    read_groundtruth,
    read_label_map,
    read_persons,
    write_detections,
    write_frame_detections,
    write_persons,
)
from evaluators.ava_csv import NOBODY, outside
from tests.evaluators.shared import run_program

GROUND_TRUTH = b"""\
1j20qq1JyX4,0902,0.002,0.118,0.714,0.977,12,1
1j20qq1JyX4,0902,0.002,0.118,0.714,0.977,79,1
-5KQ66BBWC4,1798,0,.25,1.0,1,80,0
"""
DETECTIONS = b"""\
a,0902,0.1,0.2,0.3,0.4,12,0.9
b,0903,-0.1,0.2,1.3,0.4,80,1e-3
a,0902,0.5,0.2,0.3,0.4,1,-2.5
"""
PERSONS = b"a,0902,0.1,0.2,0.3,0.4,0.9\nb,0903,0.5,0.2,0.3,0.4,0.7\n"
PUBLIC_PERSONS = b"a,0902,0.1,0.2,0.3,0.4,,0.9\nb,0903,0.5,0.2,0.3,0.4,,0.7\n"


@pytest.fixture(params=["arrow", "python"])
def parser(request, monkeypatch):
    """Each test that uses it runs twice: Arrow parses, and Arrow rejects the file."""
    module = sys.modules[read_groundtruth.__module__]
    if request.param == "python":
        monkeypatch.setattr(module, "_arrow_columns", lambda data, names: None)
    return request.param


@pytest.fixture
def file(tmp_path):
    def write(data):
        path = tmp_path / "file.csv"
        path.write_bytes(data)
        return path

    return write


def names(rows):
    return [rows.videos[i] for i in rows.video]


# --- what is read --------------------------------------------------------------------------------


def test_ground_truth_with_person_ids(parser, file):
    ground_truth, person = read_annotations(file(GROUND_TRUTH))
    assert ground_truth.videos == ("1j20qq1JyX4", "-5KQ66BBWC4")
    assert ground_truth.video.tolist() == [0, 0, 1]
    assert ground_truth.frame.tolist() == [902, 902, 1798]
    first = [0.002, 0.118, 0.714, 0.977]
    assert ground_truth.box.tolist() == [first, first, [0, 0.25, 1, 1]]
    assert ground_truth.label.tolist() == [12, 79, 80]
    assert person.tolist() == [1, 1, 0]


def test_older_ground_truth_has_seven_columns(parser, file):
    ground_truth, person = read_annotations(file(b"a,0902,0.1,0.2,0.3,0.4,12\n"))
    assert person is None
    assert ground_truth.label.tolist() == [12]
    assert read_groundtruth(file(GROUND_TRUTH)).label.tolist() == [12, 79, 80]


def test_detections_are_read_unchanged(parser, file):
    det = read_detections(file(DETECTIONS))
    assert names(det) == ["a", "b", "a"]
    assert det.frame.tolist() == [902, 903, 902]
    assert det.box.tolist() == [
        [0.1, 0.2, 0.3, 0.4],
        [-0.1, 0.2, 1.3, 0.4],
        [0.5, 0.2, 0.3, 0.4],  # inverted: scoring decides
    ]
    assert det.label.tolist() == [12, 80, 1]
    assert det.score.tolist() == [0.9, 0.001, -2.5]


@pytest.mark.parametrize("data", [PERSONS, PUBLIC_PERSONS])
def test_persons_in_seven_and_in_eight_columns(parser, file, data):
    persons = read_persons(file(data))
    assert names(persons) == ["a", "b"]
    assert persons.box.tolist() == [[0.1, 0.2, 0.3, 0.4], [0.5, 0.2, 0.3, 0.4]]
    assert persons.score.tolist() == [0.9, 0.7]
    assert persons.label.tolist() == [0, 0]


def test_leading_zeros_of_a_second_do_not_matter(parser, file):
    ground_truth = read_groundtruth(file(b"a,0902,0.1,0.2,0.3,0.4,12\nb,902,0.1,0.2,0.3,0.4,12\n"))
    det = read_detections(file(b"a,902,0.1,0.2,0.3,0.4,12,0.9\nb,00902,0.1,0.2,0.3,0.4,12,0.8\n"))
    assert frame_mAP(ground_truth, det, {12: "stand"}).mAP == 1
    excluded = read_exclusions(file(b"b,902\n"))
    assert (
        frame_mAP(ground_truth, det, {12: "stand"}, rules=EvalRules(excluded=excluded)).num_ground_truth == 1
    )


def test_exclusions(parser, file):
    excluded = read_exclusions(file(b"a,0902\n-FLn0aeA6EU,0913\na,1184\na,902\n"))
    assert excluded == {("a", 902), ("-FLn0aeA6EU", 913), ("a", 1184)}


@pytest.mark.parametrize("name", ["007", "1e5", "NA", "nan", "-5KQ66BBWC4", "null", "True", "0x1", "#"])
def test_video_name_stays_text_even_if_it_looks_like_a_number(parser, file, name):
    row = f"{name},0902,0.1,0.2,0.3,0.4,12".encode()
    assert read_groundtruth(file(row)).videos == (name,)
    assert read_detections(file(row + b",0.5")).videos == (name,)
    assert read_persons(file(row[:-2] + b"0.5")).videos == (name,)
    assert read_exclusions(file(row[: row.index(b",0.1")])) == {(name, 902)}


@pytest.mark.parametrize("read", [read_detections, read_persons])
@pytest.mark.parametrize("data", [b"", b"\n\r\n", b"\xef\xbb\xbf"])
def test_empty_file_has_no_detections(parser, file, read, data):
    det = read(file(data))
    assert det.videos == ()
    assert det.box.shape == (0, 4)
    assert read_exclusions(file(data)) == frozenset()


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.replace(b"\n", b"\r\n"),
        lambda data: data.replace(b"\n", b"\r"),
        lambda data: b"\xef\xbb\xbf" + data,
        lambda data: data + b"\n\r\n  \n",
        lambda data: data.rstrip(b"\n"),
        lambda data: data.replace(b",0.", b", 0."),
        lambda data: data.replace(b",0.", b",\t+0."),
    ],
    ids=["CRLF", "CR", "BOM", "blank lines at the end", "no last line end", "spaces", "signs"],
)
def test_line_ends_byte_order_mark_spaces_and_signs_are_accepted(parser, file, change):
    plain, changed = read_detections(file(DETECTIONS)), read_detections(file(change(DETECTIONS)))
    assert change(DETECTIONS) != DETECTIONS
    assert changed.videos == plain.videos
    for field in ("video", "frame", "box", "label", "score"):
        np.testing.assert_array_equal(getattr(changed, field), getattr(plain, field))


def test_valid_files_are_parsed_by_arrow(file, monkeypatch):
    def not_allowed(*_):
        raise AssertionError("parsed in Python")

    monkeypatch.setattr(sys.modules[read_groundtruth.__module__], "_python_columns", not_allowed)
    assert len(read_groundtruth(file(GROUND_TRUTH)).video) == 3
    assert len(read_detections(file(DETECTIONS.replace(b"\n", b"\r\n") + b"\n")).video) == 3
    assert len(read_persons(file(PUBLIC_PERSONS)).video) == 2


def test_file_longer_than_one_block_of_arrow(parser, file):
    rows = [f"video {i // 4000},{i % 1800},0.1,0.2,0.3,0.4,{i % 80 + 1},{i}" for i in range(36_000)]
    det = read_detections(file("\n".join(rows).encode()))
    assert det.videos == tuple(f"video {i}" for i in range(9))
    expected = np.arange(36_000)
    np.testing.assert_array_equal(det.video, expected // 4000)
    np.testing.assert_array_equal(det.frame, expected % 1800)
    np.testing.assert_array_equal(det.label, expected % 80 + 1)
    np.testing.assert_array_equal(det.score, expected)
    rows[35_000] = rows[35_000].replace(",0.1,", ",?,")
    assert ", line 35001, column 3 (x1)" in refusal(read_detections, file("\n".join(rows).encode()))


def test_other_action_ids_can_be_allowed(parser, file):
    row = b"a,0902,0.1,0.2,0.3,0.4,%d"
    assert read_groundtruth(file(row % 100), known_ids={5, 100}).label.tolist() == [100]
    assert read_detections(file(row % 0 + b",0.5"), known_ids=range(3)).label.tolist() == [0]


ITEMS = b"""\
item {
  name: "bend/bow (at the waist)"
  id: 1
}
# a note { of someone
item {  id: 80  name: "say \\"{#}\\""  note: "x" }
"""
LABELS = b"""\
label {
  name: "crawl"
  label_id: 2
  label_type: PERSON_MOVEMENT
}
label {
  name: "bend"
  label_id: 1
  label_type: PERSON_MOVEMENT
}"""


def test_both_forms_of_label_map(file):
    assert read_label_map(file(ITEMS)) == {1: "bend/bow (at the waist)", 80: 'say "{#}"'}
    assert list(read_label_map(file(LABELS)).items()) == [(2, "crawl"), (1, "bend")]
    assert read_label_map(file(b"\xef\xbb\xbf" + LABELS.replace(b"\n", b"\r\n")))[2] == "crawl"


# --- invalid files -------------------------------------------------------------------------------

ROW = "a,0902,0.1,0.2,0.3,0.4,12,1"


def row(**change):
    """A good ground-truth row with some fields changed: x1="0.9"."""
    columns = ("video", "second", "x1", "y1", "x2", "y2", "id", "last")
    return ",".join({**dict(zip(columns, ROW.split(","), strict=True)), **change}.values())


EVERYWHERE = [
    (row(x1="abc"), "column 3 (x1): found 'abc'; a number is needed"),
    (row(y2=""), "column 6 (y2): the field is empty; a number is needed"),
    (row(x1="1_0"), "column 3 (x1): found '1_0'; a number is needed"),
    (row(y1="nan"), "column 4 (y1): found 'nan'; a finite number is needed"),
    (row(x2="inf"), "column 5 (x2): found 'inf'; a finite number is needed"),
    (row(x2="-Infinity"), "column 5 (x2): found '-Infinity'; a finite number is needed"),
    (row(x2="1e999"), "column 5 (x2): found '1e999'; a finite number is needed"),
    (row(second="-902"), "column 2 (second): found '-902'; the second is a number, such as 0902"),
    (row(second="0x10"), "column 2 (second): found '0x10'; the second is a number, such as 0902"),
    (row(second="9" * 12), "column 2 (second): found '999999999999'; the second is a number"),
    (row(second=""), "column 2 (second): the field is empty; the second is a number, such as 0902"),
    (row(id="1.5"), "column 7 (action id): found '1.5'; an action id is a whole number"),
    (row(id="run"), "column 7 (action id): found 'run'; an action id is a whole number"),
    (row(id="81"), "column 7 (action id): found '81'; the known action ids are 1 to 80"),
    (row(id="0"), "column 7 (action id): found '0'; the known action ids are 1 to 80; ids count"),
    (row(id=""), "column 7 (action id): the field is empty; this looks like a person-box file"),
    (row(video=""), "column 1 (video): the field is empty; a video needs a name"),
    (row(video=" a"), "column 1 (video): found ' a'; a video needs a name, without quotes"),
    (row(video='"a"'), "column 1 (video): found '\"a\"'; the format has no quotes"),
    (row(x1='"0.1"'), "column 3 (x1): found '\"0.1\"'; the format has no quotes"),
    (row(video='"a,b"'), "found 9 columns instead of 8, as line 1 has; separate video,second,x1"),
    (row(video='"a,b"'), "and leave out the quotes"),
    (ROW + ",7", "found 9 columns instead of 8, as line 1 has; separate video,second,x1"),
    (ROW[:-2], "found 7 columns instead of 8, as line 1 has; separate video,second,x1"),
    (ROW.replace(",", " "), "found 1 column instead of 8, as line 1 has; separate video,second"),
    ("", "the line is empty; delete it"),
]
GROUND_TRUTH_ONLY = [
    (row(x1="-0.101"), "column 3 (x1): found '-0.101'; box coordinates are fractions of the frame, in"),
    (row(x1="-0.1", x2="-0.01"), "column 3 (x1): found '-0.1'; the box lies beyond the frame"),
    (row(y1="1.0", y2="1.05"), "column 4 (y1): found '1.0'; the box lies beyond the frame"),
    (row(last="-2"), "column 8 (person id): found '-2'; column 8 of ground truth is the pers"),
    (
        row(y2="320"),
        "column 6 (y2): found '320'; box coordinates are fractions of the frame, in [0, 1], not pixels",
    ),
    (row(x1="0.3"), "column 5 (x2): found '0.3'; a box needs x1 < x2; correct or delete the row"),
    (row(y1="0.9"), "column 6 (y2): found '0.4'; a box needs y1 < y2; correct or delete the row"),
    (row(last="0.93"), "column 8 (person id): found '0.93'; column 8 of ground truth is the pers"),
]
DETECTIONS_ONLY = [
    (row(last="?"), "column 8 (score): found '?'; a number is needed"),
    (row(last="nan"), "column 8 (score): found 'nan'; a finite number is needed"),
]


def refusal(read, path):
    with pytest.raises(AvaFileError) as caught:
        read(path)
    assert isinstance(caught.value, ValueError)
    assert str(caught.value).startswith(str(path))
    return str(caught.value).removeprefix(str(path))


@pytest.mark.parametrize(
    ("read", "bad", "message"),
    [
        *[(read_groundtruth, *case) for case in EVERYWHERE + GROUND_TRUTH_ONLY],
        *[(read_detections, *case) for case in EVERYWHERE + DETECTIONS_ONLY],
    ],
)
def test_malformed_row_is_named_with_line_and_field(parser, file, read, bad, message):
    path = file(f"{ROW}\n{ROW}\n{bad}\n{ROW}\n".encode())
    message_found = refusal(read, path)
    assert message_found.startswith(", line 3")
    assert message in message_found


def test_detections_accept_boxes_that_ground_truth_refuses(parser, file):
    for bad, _ in GROUND_TRUTH_ONLY:
        assert len(read_detections(file(bad.encode())).video) == 1


@pytest.mark.parametrize(
    ("read", "data", "message"),
    [
        (read_groundtruth, b"", ": the file is empty; ground truth needs one row per (box, action"),
        (read_groundtruth, b"\n\n", ": the file is empty"),
        (read_groundtruth, PERSONS[:27], ", line 1, column 7 (action id): found '0.9'"),
        (read_groundtruth, PUBLIC_PERSONS, ", line 1, column 7 (action id): the field is empty; t"),
        (read_groundtruth, b"a,0902\n", ", line 1: found 2 columns instead of 7 or 8; separate vi"),
        (read_detections, GROUND_TRUTH.replace(b",1\n", b"\n"), ", line 1: found 7 columns instead of 8;"),
        (read_detections, PUBLIC_PERSONS, "this looks like a person-box file; read those with"),
        (
            read_detections,
            b"v,s,x1,y1,x2,y2,id,score\n" + DETECTIONS,
            "looks like a header; delete the line, or",
        ),
        (read_detections, b'"v","s","x","y","x","y","id","p"\n', "looks like a header"),
        (read_detections, b"\n" + DETECTIONS, ", line 1: the line is empty; delete it"),
        (read_persons, DETECTIONS, ", line 1, column 7 (action id): found '12'; person boxes have no a"),
        (read_persons, PERSONS + b"a,0902\n", ", line 3: found 2 columns instead of 7"),
        (read_persons, PERSONS + b"a,x,0,0,1,1,0.1", ", line 3, column 2 (second): found 'x'; the"),
        (read_persons, PERSONS + b"a,2147483648,0,0,1,1,0.1", ", line 3, column 2 (second): foun"),
        (read_persons, PERSONS + b"a,1,0,0,1,1,inf", ", line 3, column 7 (score): found 'inf'; a "),
        (read_exclusions, b"clip,timestamp\na,0902\n", ", line 1: 'clip,timestamp' looks like a"),
        (read_exclusions, b"video,timestamp\na,0902\nb,9s\n", ", line 3, column 2 (second): found '9s'"),
        (read_persons, b"video_id,second,x1,y1,x2,y2,score\na,1\n", ", line 2: found 2 columns instead of 7"),
        (read_exclusions, b"a,0902\nb\n", ", line 2: found 1 column instead of 2, as line 1 has"),
        (read_exclusions, b"a,0902\nb,9s\n", ", line 2, column 2 (second): found '9s'; the second"),
        (read_exclusions, b"a,0902\n,7\n", ", line 2, column 1 (video): the field is empty; a vid"),
    ],
)
def test_file_of_another_kind_is_recognised(parser, file, read, data, message):
    assert message in refusal(read, file(data))


@pytest.mark.parametrize("read", [read_groundtruth, read_detections, read_persons, read_exclusions])
def test_text_that_is_not_utf8_is_refused(parser, file, read):
    good = PERSONS if read is read_persons else ROW.encode() + b"\n"
    good = b"a,0902\n" if read is read_exclusions else good
    bad = good.replace(b"a", b"caf\xe9", 1)
    message_found = refusal(read, file(good + bad + good))
    line = good.count(b"\n") + 1
    assert f", line {line}: the byte 0xe9 is not UTF-8; save the file as UTF-8" in message_found
    assert "UTF-16, not UTF-8; save" in refusal(read, file(good.decode().encode("utf-16")))


def test_action_ids_outside_a_given_list_are_refused(parser, file):
    path = file(ROW.encode())
    for read in (read_groundtruth, read_detections):
        with pytest.raises(AvaFileError, match=r"found '12'; the known action ids are 3, 5, 9; ids"):
            read(path, {9, 3, 5})
        with pytest.raises(AvaFileError, match=r"the known action ids are 1, 3, 5, 7, 9, \.\.; ids"):
            read(path, range(1, 80, 2))


ENTRY = b'item { name: "a" id: 1 }\n'


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", ": the file is empty; a label map lists the classes to evaluate"),
        (b"# nothing\n\n", ": the file is empty"),
        (ENTRY + b"\n\nitem { id: 2 }", ", line 4: the entry has name missing and id 2; give it a"),
        (ENTRY + b'item {\n name: "b"\n}', ', line 2: the entry has name "b" and id missing; give'),
        (ENTRY + b'item { name: "b" id: x }', ', line 2: the entry has name "b" and id x; give'),
        (ENTRY + b"item { name: b id: 2 }", ", line 2: the entry has name b and id 2; give it a q"),
        (ENTRY + b'item { name: "b" id: 1 }', ", line 2: id 1 stands for 'a' and for 'b'; give ev"),
        (ENTRY + b'item { name: "b" id: 2', ", line 2: cannot read an entry that begins with 'ite"),
        (GROUND_TRUTH, ", line 1: cannot read an entry that begins with '1j20qq1JyX4,0902"),
        (ENTRY + b'item { name: "\xe9" id: 2 }', ", line 2: the byte 0xe9 is not UTF-8; save the"),
    ],
)
def test_malformed_label_maps_are_refused(file, data, message):
    assert message in refusal(read_label_map, file(data))


READERS = [read_groundtruth, read_detections, read_persons, read_exclusions, read_label_map]


@pytest.mark.parametrize(
    ("text", "classes"),
    [
        ("item {\n  id: 12\n  name: 'stand'\n}\nitem { name: 'it\\'s' id: 1 }", {12: "stand", 1: "it's"}),
        ('item { # the first\n name: "a # b" # its name\n id: 1 } # over', {1: "a # b"}),
        ('item: { name: "/m/01g317" id: 1 display_name: "person" }', {1: "person"}),
        ("item < name: 'a', id: 1; >", {1: "a"}),
        ("stand\nsit, or lie\n\n# a note\ntalk to (e.g., self, a person)\n", {
            1: "stand", 2: "sit, or lie", 3: "talk to (e.g., self, a person)"}),
        ("12: stand\n11: sit", {12: "stand", 11: "sit"}),
        ("0 ApplyEyeMakeup\n1 Archery", {0: "ApplyEyeMakeup", 1: "Archery"}),
        ("12,stand\n11, sit", {12: "stand", 11: "sit"}),
    ],
)  # fmt: skip
def test_label_maps_as_people_have_them(file, text, classes):
    assert list(read_label_map(file(text.encode())).items()) == list(classes.items())


def test_a_line_of_headings_is_skipped(parser, file):
    heads = b"video_id,timestamp,x1,y1,x2,y2,action_id,person_id"
    for end in (b"\n", b"\r\n"):
        read = read_groundtruth(file(heads + end + GROUND_TRUTH))
        plain = read_groundtruth(file(GROUND_TRUTH))
        assert (read.videos, read.label.tolist()) == (plain.videos, plain.label.tolist())
        assert np.array_equal(read.box, plain.box)
    persons = read_persons(file(b"video,second,x1,y1,x2,y2,score\n" + PERSONS))
    assert np.array_equal(persons.box, read_persons(file(PERSONS)).box)
    assert read_exclusions(file(b"video,timestamp\na,0902\n")) == {("a", 902)}


def test_boxes_a_hair_outside_the_frame_stay_as_they_are_and_are_counted(parser, file):
    rows = [row(x1="-0.0019"), row(y2="1.0017"), row(x1="-0.1", y2="1.1"), ROW]
    gt, _ = read_annotations(file("\n".join(rows).encode()))
    assert gt.box[:3].tolist() == [[-0.0019, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 1.0017], [-0.1, 0.2, 0.3, 1.1]]
    assert outside(gt) == (3, pytest.approx(0.1))
    assert outside(gt.take(np.array([3]))) == (0, 0.0)
    assert read_annotations(file(row(last="-1").encode()))[1].tolist() == [-1]


@pytest.mark.parametrize("read", READERS)
def test_missing_file_and_folder_are_refused(tmp_path, read):
    with pytest.raises(FileNotFoundError, match=r"nowhere.csv: file not found; check the p"):
        read(tmp_path / "nowhere.csv")
    assert "cannot be read" in refusal(read, tmp_path)


# --- what is written -----------------------------------------------------------------------------


def detections(*rows):
    """Detections from (video, second, box, label, score)."""
    videos = tuple(dict.fromkeys(r[0] for r in rows))
    return Detections(
        videos,
        np.array([videos.index(r[0]) for r in rows], dtype=int),
        np.array([r[1] for r in rows], dtype=int),
        np.array([r[2] for r in rows], dtype=float).reshape(-1, 4),
        np.array([r[3] for r in rows], dtype=int),
        np.array([r[4] for r in rows], dtype=float),
    )


def test_rows_are_written_by_descending_score_and_ties_in_order(tmp_path):
    box = (0, 0.25, 0.5, 1)
    rows = [("b", 7, box, 3, 0.5), ("a", 902, box, 80, 0.75), ("a", 12345, box, 1, 0.5)]
    write_detections(tmp_path / "d.csv", detections(*rows))
    assert (tmp_path / "d.csv").read_text() == (
        "a,0902,0,0.25,0.5,1,80,0.75\nb,0007,0,0.25,0.5,1,3,0.5\na,12345,0,0.25,0.5,1,1,0.5\n"
    )
    write_persons(tmp_path / "p.csv", detections(*rows))
    assert (tmp_path / "p.csv").read_text() == (
        "a,0902,0,0.25,0.5,1,0.75\nb,0007,0,0.25,0.5,1,0.5\na,12345,0,0.25,0.5,1,0.5\n"
    )


def test_file_written_in_chunks_is_identical(tmp_path, monkeypatch):
    random = np.random.default_rng(2)
    rows = [(v, int(s), (0, 0, 0.5, 1), 3, float(x)) for v in "ba" for s, x in zip(
        random.integers(900, 999, 40), random.integers(9, size=40) / 8, strict=True)]  # fmt: skip
    write_detections(tmp_path / "one.csv", detections(*rows))
    monkeypatch.setattr(sys.modules[write_detections.__module__], "_ROWS_PER_WRITE", 7)
    write_detections(tmp_path / "parts.csv", detections(*rows))
    assert (tmp_path / "parts.csv").read_bytes() == (tmp_path / "one.csv").read_bytes()
    assert (tmp_path / "one.csv").read_text().count("\n") == 80


@pytest.mark.parametrize("write", [write_detections, write_frame_detections])
def test_negative_class_id_is_not_written(tmp_path, write):
    zero, negative = (detections(("a", 7, (0, 0, 1, 1), i, 0.5)) for i in (0, -1))
    write(tmp_path / "d.csv", zero)
    with pytest.raises(ValueError, match=r"detection row 0 has (action id|label) -1"):
        write(tmp_path / "d.csv", negative)
    assert len((tmp_path / "d.csv").read_text().splitlines()) == 1


float32s = st.floats(width=32, allow_nan=False, allow_infinity=False)
any_rows = st.lists(
    st.tuples(
        st.sampled_from(["007", "NA", "-x", "\N{SNOWMAN}"]),
        st.integers(0, 2**31 - 1),
        st.tuples(float32s, float32s, float32s, float32s),
        st.integers(1, 80),
        st.floats(allow_nan=False, allow_infinity=False) | float32s,
    ),
    max_size=8,
)
quick = settings(max_examples=50, deadline=None, database=None, derandomize=True)


@quick
@given(any_rows)
def test_every_number_is_read_back_exactly(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("written") / "file.csv"
    expected = sorted(rows, key=lambda r: -r[4])
    write_detections(path, detections(*rows))
    for back in (read_detections(path), read_in_python(read_detections, path)):
        box, second = map(tuple, back.box.tolist()), back.frame.tolist()
        columns = (names(back), second, box, back.label.tolist(), back.score.tolist())
        assert list(zip(*columns, strict=True)) == expected
    write_persons(path, detections(*rows))
    assert read_persons(path).score.tolist() == [r[4] for r in expected]


def read_in_python(read, path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules[read.__module__], "_arrow_columns", lambda data, names: None)
        return read(path)


def test_written_file_scores_as_the_arrays_and_slowfast_agrees(tmp_path):
    rng = np.random.default_rng(0)
    boxes = np.array([(0, 0, 1, 1), (0, 0, 0.8, 1), (0.1, 0, 1, 0.9)])
    ground_truth = GroundTruth(
        ("a",), np.zeros(60, int), np.arange(60) // 2, boxes[rng.integers(3, size=60)],
        rng.integers(1, 3, size=60),
    )  # fmt: skip
    det = Detections(
        ("b", "a"), rng.integers(2, size=400), rng.integers(30, size=400),
        boxes[rng.integers(3, size=400)].astype(np.float32), rng.integers(1, 3, size=400),
        rng.integers(50, size=400).astype(np.float32) / 50,  # many ties
    )  # fmt: skip
    classes = {1: "run", 2: "sit"}
    write_detections(tmp_path / "d.csv", det)
    back = read_detections(tmp_path / "d.csv")
    standard = frame_mAP(ground_truth, det, classes)
    assert 0 < standard.mAP < 1
    assert frame_mAP(ground_truth, back, classes).ap == standard.ap
    assert frame_mAP(ground_truth, back, classes, rules=EvalRules("slowfast")).ap == standard.ap
    assert frame_mAP(ground_truth, det, classes, rules=EvalRules("slowfast")).ap != standard.ap


@pytest.mark.parametrize("name", ["", "a,b", 'a"b', "a\nb", " a", "a\r"])
def test_video_name_that_the_format_cannot_hold_is_not_written(tmp_path, name):
    for write in (write_detections, write_persons):
        with pytest.raises(ValueError, match="cannot be written to an AVA csv file"):
            write(tmp_path / "d.csv", detections((name, 1, (0, 0, 1, 1), 1, 0.5)))
    assert list(tmp_path.iterdir()) == []


def test_negative_action_id_is_named_with_its_row(tmp_path):
    with pytest.raises(ValueError, match="detection row 0 has action id -1"):
        write_detections(tmp_path / "d.csv", detections(("a", 1, (0, 0, 1, 1), -1, 0.5)))


def test_failed_write_leaves_the_older_file_untouched(tmp_path, monkeypatch):
    path = tmp_path / "d.csv"
    path.write_text("older")

    def disk_full(_):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.raises(OSError, match="no space left"):
        write_detections(path, detections(("a", 1, (0, 0, 1, 1), 1, 0.5)))
    assert path.read_text() == "older"
    assert list(tmp_path.iterdir()) == [path]


def test_writing_replaces_an_older_file_and_leaves_no_other_file(tmp_path):
    path = tmp_path / "d.csv"
    path.write_text("older")
    write_detections(path, detections())
    assert path.read_bytes() == b""
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(FileNotFoundError):
        write_detections(tmp_path / "nowhere" / "d.csv", detections())


# --- the package ---------------------------------------------------------------------------------


def test_importing_the_package_loads_no_heavy_module():
    done = run_program("heavy_modules.py")
    assert (done.returncode, done.stdout, done.stderr) == (0, "\n", "")


def test_decimal_seconds_count_as_the_whole_number_below(file, parser):
    """As in ActivityNet's tool, for AVA-Kinetics: int(timestamp)."""
    read = read_groundtruth(
        file(b"a,5.05,0.1,0.2,0.3,0.4,12\nb,6.95,0.1,0.2,0.3,0.4,12\nb,902.0,0.1,0.2,0.3,0.4,12\n")
    )
    assert read.frame.tolist() == [5, 6, 902]
    assert read_exclusions(file(b"a,5.05\nb,12.\n")) == {("a", 5), ("b", 12)}


def test_two_seconds_of_a_video_with_one_whole_number_are_refused(file, parser):
    rows = b"".join(b"%s,0.1,0.2,0.3,0.4,12\n" % key for key in (b"a,5.0", b"a,5.0", b"b,5.5", b"a,5.5"))
    message = refusal(read_groundtruth, file(rows))
    assert message.startswith(
        ", line 4, column 2 (second): found '5.5'; another second of the video has the same"
    )


def test_rows_of_two_columns_are_keyframes_without_a_person(file, parser):
    rows = b"a,3.5\na,0902,0.1,0.2,0.3,0.4,12,1\nc,7\na,0903,0.1,0.2,0.3,0.4,80,1\n"
    ground_truth, person = read_annotations(file(rows))
    assert ground_truth.videos == ("a", "c")
    assert ground_truth.video.tolist() == [0, 0, 0, 1]
    assert ground_truth.frame.tolist() == [902, 903, 3, 7]
    assert ground_truth.label.tolist() == [12, 80, NOBODY, NOBODY]
    assert person.tolist() == [1, 1, -1, -1]


def test_an_error_among_rows_of_two_widths_names_the_line_of_the_file(file, parser):
    heading, box = b"video,second,x1,y1,x2,y2,label,person\n", b"0.1,0.2,0.3,0.4"
    rows = heading + b"a,3.5\na,0902,%s,12,1\nc,7\na,0903,%s,812,1\n" % (box, box)
    assert refusal(read_groundtruth, file(rows)).startswith(", line 5, column 7 (action id): found '812'")
    assert refusal(read_groundtruth, file(rows + b"c,x\n")).startswith(", line 5")
    rows = rows.replace(b"812", b"12") + b"c,x\n"
    assert refusal(read_groundtruth, file(rows)).startswith(", line 6, column 2 (second): found 'x'")


def test_detections_on_a_keyframe_without_a_person_are_false_positives(file):
    """ActivityNet's present tool: of frames outside its files nothing counts, of these all."""
    ground_truth = read_groundtruth(file(b"a,0902,0.1,0.2,0.3,0.4,12\nb,3.5\n"))
    det = read_detections(
        file(b"a,0902,0.1,0.2,0.3,0.4,12,0.5\nb,3.5,0.1,0.2,0.3,0.4,12,0.9\nb,4.5,0.1,0.2,0.3,0.4,12,0.9\n")
    )
    classes = {12: "stand"}
    head = frame_mAP(ground_truth, det, classes, rules=EvalRules("activitynet_head"))
    assert (head.mAP, head.num_detections) == (0.5, 2)
    standard = frame_mAP(ground_truth, det, classes)
    assert (standard.mAP, standard.num_detections) == (pytest.approx(1 / 3), 3)


def test_columns_in_the_order_of_the_other_format_are_named(file):
    """HIT writes the box before the class, as AVA does; others write AVA's in the order of UCF101-24."""
    box_first = b"run/a,3,10.5,20,110,220,1,0.9\nrun/a,4,10.5,20,110,220,0,0.25\nrun/a,5,1,2,30,40,0,0.5\n"
    assert refusal(read_frame_detections, file(box_first)) == (
        ", line 1, column 3 (label): found '10.5'; labels are whole numbers and count from 0; the columns "
        "look like video,frame,x1,y1,x2,y2,label,score: put them in the order "
        "video,frame,label,score,x1,y1,x2,y2"
    )
    label_first = b"a,0902,12,0.9,0.1,0.2,0.3,0.4\n" * 3
    assert refusal(read_detections, file(label_first)).endswith(
        "the columns look like video,second,label,score,x1,y1,x2,y2: put them in the order "
        "video,second,x1,y1,x2,y2,label,score"
    )
    neither = b"a,3,run,0.9,0.1,0.2,0.3,0.4\n" * 3
    assert "look like" not in refusal(read_frame_detections, file(neither))


def test_ground_truth_as_x_y_width_height_is_recognised(file):
    rows = b"a,0902,0.1,0.2,0.3,0.4,12\na,0903,0.6,0.2,0.3,0.4,12\nb,0902,0.5,0.5,0.25,0.5,12\n"
    assert refusal(read_groundtruth, file(rows)).startswith(
        ", line 2, column 5 (x2): found '0.3'; a box needs x1 < x2; correct or delete the row (67% of the "
        "rows are so; read as x,y,width,height none would be"
    )
    one = b"a,0902,0.1,0.2,0.3,0.4,12\n" * 99 + b"a,0903,0.6,0.2,0.3,0.4,12\n"
    assert "width" not in refusal(read_groundtruth, file(one)), "a slip is a slip"


def test_columns_are_taken_by_the_names_of_their_headings(parser, file):
    rows = b"a,0902,0.2,0.1,0.4,0.3,7,12\nb,0903,0.25,0.5,0.75,1,8,80\n"
    heads = b"Video ID,timestamp,ymin,xmin,y_max,x_max,person_id,action_id\n"
    ground_truth, person = read_annotations(file(heads + rows))
    assert ground_truth.box.tolist() == [[0.1, 0.2, 0.3, 0.4], [0.5, 0.25, 1, 0.75]]
    assert (ground_truth.label.tolist(), person.tolist()) == ([12, 80], [7, 8])
    message = refusal(read_groundtruth, file(heads + rows + b"b,x,0.25,0.5,0.75,1,8,80\n"))
    assert message.startswith(", line 4, column 2 (second): found 'x'")
    detections = read_detections(
        file(b"video,score,label,second,x1,y1,x2,y2\na,0.5,12,0902,0.1,0.2,0.3,0.4\n")
    )
    assert (detections.score.tolist(), detections.box[0].tolist()) == ([0.5], [0.1, 0.2, 0.3, 0.4])


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        (
            "video,second,x,y,w,h,action_id,person_id",
            "of the headings 'video,second,x,y,w,h,action_id,person_id' none is the x1",
        ),
        ("video,second,x1,y1,x2,y2,action_id,score", "none is the person id"),
        ("video,second,x1,x1,x2,y2,action_id,person_id", "more than one is the x1"),
        ("clip_nr,second,x1,y1,x2,y2,action_id,person_id", "looks like a header"),
    ],
)
def test_headings_of_other_columns_are_refused(file, heads, message):
    refused = refusal(read_groundtruth, file(f"{heads}\n{ROW}\n".encode()))
    assert refused.startswith(", line 1: ")
    assert message in refused


@pytest.mark.parametrize(
    "text",
    [
        "stand,2\nwalk,1\n",
        "stand: 2\nwalk: 1\n",
        "2. stand\n1. walk\n",
        "2) stand\n1) walk\n",
        '2: "stand"\n1: "walk"\n',
    ],
)
def test_plain_lists_with_numbers_on_either_side(file, text):
    assert read_label_map(file(text.encode())) == {2: "stand", 1: "walk"}


def test_dashes_and_quotes_of_a_plain_list_are_no_part_of_its_names(file):
    assert read_label_map(file(b'- stand\n- "walk"\n')) == {1: "stand", 2: "walk"}


def test_escapes_of_protobuf_text_are_bytes_of_utf_8(file):
    """As protobuf's own printer writes what is not ASCII."""
    text = rb'item { name: "caf\303\251 \"x\" \\ \xe2\x82\xac" id: 1 }'
    assert read_label_map(file(text)) == {1: 'caf\u00e9 "x" \\ \u20ac'}


def test_whole_numbers_may_end_with_a_point_and_zeros(parser, file):
    """As pandas writes a column that had gaps."""
    ground_truth, person = read_annotations(file(b"a,902.0,0.1,0.2,0.3,0.4,12.0,3.0\n"))
    assert (ground_truth.label.tolist(), person.tolist()) == ([12], [3])
    assert "found '12.5'" in refusal(read_groundtruth, file(b"a,902,0.1,0.2,0.3,0.4,12.5,3\n"))


# --- whole numbers as Arrow would read them ------------------------------------------------------


@pytest.mark.parametrize("number", ["0x1F", "0X1f", "-0", "-00", "+5", "1e1"])
@pytest.mark.parametrize("column", [1, 6])
def test_numbers_that_arrow_would_take_for_whole_ones_are_refused(file, number, column):
    fields = ["a", "0902", "0.1", "0.1", "0.5", "0.5", "12", "0.9"]
    fields[column] = number
    path = file(("b,0902,0.1,0.1,0.5,0.5,12,0.8\n" + ",".join(fields) + "\n").encode())
    with pytest.raises(AvaFileError, match=rf"line 2, column {column + 1} .*found '{re.escape(number)}'"):
        read_detections(path)


def test_names_and_boxes_like_such_numbers_are_accepted(file):
    path = file(b"0x1F,0902,-0,-0,0.5,0.5,12,0.9\n0X2,0902,-0.0,0,0.5,0.5,12,0.9\n")
    found = read_detections(path)
    assert found.videos == ("0x1F", "0X2")
    assert found.box[:, :2].tolist() == [[0, 0], [0, 0]]
    assert found.label.tolist() == [12, 12]


def test_a_pipe_is_read_whole(tmp_path):
    """A file without a size: process substitution, or standard input."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    text = "".join(f"v{i},0902,0.1,0.1,0.5,0.5,12,0.9\n" for i in range(5000))
    writer = threading.Thread(target=path.write_text, args=(text,))
    writer.start()
    assert len(read_detections(path).video) == 5000
    writer.join()


# --- several errors ------------------------------------------------------------------------------


def test_all_that_is_wrong_in_a_file_is_told_at_once(file, parser):
    """What cannot be read as a number, and what can but is out of bounds."""
    text = file(
        b"a,0902,0.1,0.2,0.3,0.4,12,0.9\n"
        b"a,0902,0.1,0.2,0.3,O.4,12,0.9\n"
        b"a,9s,0.1,0.2,0.3,0.4,99,0.9\n"
        b"a,0902,0.1,0.2,0.3,0.4\n"
        b"a,0903,0.1,0.2,0.3,0.4,98,high\n"
    )
    assert refusal(read_detections, text).splitlines() == [
        ", line 2, column 6 (y2): found 'O.4'; a number is needed",
        "line 3, column 2 (second): found '9s'; the second is a number, such as 0902",
        "line 3, column 7 (action id): found '99'; the known action ids are 1 to 80; "
        "ids count from 1, not from 0",
        "line 4: found 6 columns instead of 8, as line 1 has; separate "
        "video,second,x1,y1,x2,y2,action id,score by commas",
        "line 5, column 8 (score): found 'high'",
    ]


def test_twenty_errors_are_told_and_the_others_counted(file, parser):
    rows = b"".join(b"a,%04d,0.1,0.2,0.3,0.4,99,0.9\n" % second for second in range(1000, 6000))
    lines = refusal(read_detections, file(rows)).splitlines()
    assert len(lines) == 21
    assert lines[1] == "line 2, column 7 (action id): found '99'"
    assert lines[19:] == ["line 20, column 7 (action id): found '99'", ".. and 4,980 more"]


def test_a_label_map_with_ids_or_names_in_two_places_is_told_whole(file):
    items = [(1, "run"), (2, "sit"), (3, "run"), (2, "lie")]
    text = "".join(f'item {{ name: "{name}" id: {number} }}\n' for number, name in items)
    assert refusal(read_label_map, file(text.encode())).splitlines() == [
        ", line 3: 'run' has the ids 1 and 3; give every class its own name, or one id to all of its rows",
        "line 4: id 2 stands for 'sit' and for 'lie'; give every class its own id",
    ]


def test_an_empty_line_in_the_middle_is_one_error(file, parser):
    assert refusal(read_exclusions, file(b"a,0902\n\nb,0903\n")).splitlines() == [
        ", line 2: the line is empty; delete it"
    ]
    rows = b"a,0902,0.1,0.2,0.3,0.4,12,0.9\n"
    assert refusal(read_detections, file(rows + b"\n" + rows)).startswith(", line 2: ")
