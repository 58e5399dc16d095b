"""ACT's pickle and MOC's array: what is read, what is refused with which message; nothing is executed."""

import copyreg
import pickle
from collections import OrderedDict, defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluators import (
    ActFileError,
    AvaFileError,
    Detections,
    EvalRules,
    frame_mAP,
    read_act,
    read_act_detections,
    split_ground_truth,
    split_videos,
    write_frame_detections,
)
from evaluators.act_pickle import load_plain, read_tubes


def tube(first, last, box=(10, 20, 110, 220), dtype=np.float32):
    frames = np.arange(first, last + 1)
    return np.column_stack([frames, np.tile(box, (len(frames), 1))]).astype(dtype)


def annotations(**change):
    """Three videos of two classes in two splits; the second video has two tubes."""
    content = {
        "labels": ["run", "sit"],
        "gttubes": {
            "run/a": {0: [tube(1, 4)]},
            "run/b": {0: [tube(2, 3), tube(1, 5, (0, 0, 50, 50))]},
            "sit/c": {1: [tube(1, 2)]},
        },
        "nframes": {"run/a": 4, "run/b": 5, "sit/c": 2},
        "resolution": {"run/a": (240, 320), "run/b": (240, 320), "sit/c": (240, 320)},
        "train_videos": [["run/a"], ["run/b"]],
        "test_videos": [["run/b", "sit/c"], ["sit/c", "run/a"]],
    }
    return {**content, **change}


@pytest.fixture
def pickled(tmp_path):
    def write(content, protocol=2):
        path = tmp_path / "GT.pkl"
        path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol))
        return path

    return write


# --- what is read --------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_split_has_its_test_videos_in_the_order_of_the_file(pickled, protocol):
    act = read_act(pickled(annotations(), protocol))
    assert act.classes == {0: "run", 1: "sit"}
    assert act.resolution["run/a"] == (240, 320)
    ground_truth = split_ground_truth(act, 1)
    assert ground_truth.videos == split_videos(act, 1) == ("run/b", "sit/c")
    assert ground_truth.video.tolist() == [0] * 7 + [1] * 2
    assert ground_truth.frame.tolist() == [2, 3, 1, 2, 3, 4, 5, 1, 2]
    assert ground_truth.label.tolist() == [0] * 7 + [1] * 2
    assert ground_truth.tube.tolist() == [1, 1, 2, 2, 2, 2, 2, 3, 3]
    assert ground_truth.box[0].tolist() == [10, 20, 110, 220]
    assert type(ground_truth.box) is np.ndarray
    assert split_ground_truth(act, 2).videos == ("sit/c", "run/a")
    assert split_ground_truth(act, 2).video.tolist() == [0] * 2 + [1] * 4


PYTHON_2 = rb"""(dp0
S'labels'
p1
(lp2
S'caf\xe9'
p3
asS'gttubes'
p4
(dp5
S'v'
p6
(dp7
I0
(lp8
cnumpy.core.multiarray
_reconstruct
p9
(cnumpy
ndarray
p10
(I0
tp11
S'b'
p12
tp13
Rp14
(I1
(I1
I5
tp15
cnumpy
dtype
p16
(S'i2'
p17
I0
I1
tp18
Rp19
(I3
S'>'
p20
NNNI-1
I-1
I0
tp21
bI00
S'\x00\x03\x00\x01\x00\x02\x01\x00\x00\xff'
p22
tp23
basssS'nframes'
p24
(dp25
g6
I9
ssS'resolution'
p26
(dp27
g6
(I240
I320
tp28
ssS'train_videos'
p29
(lp30
(lp31
S'u'
p32
aasS'test_videos'
p33
(lp34
(lp35
g6
aas."""


def test_pickle_of_python_2_is_read_as_latin_1(pickled):
    act = read_act(pickled(PYTHON_2))
    assert act.labels == ("café",)
    ground_truth = split_ground_truth(act)
    assert (ground_truth.frame.tolist(), ground_truth.box.tolist()) == ([3], [[1, 2, 256, 255]])  # big-endian


def test_uint8_boxes_are_cast_before_x_and_width_are_added(pickled):
    # 200 + 100 is 44 in uint8: the box would be inverted.
    content = annotations(
        gttubes={video: {0: [tube(1, 2, (200, 20, 100, 40), np.uint8)]} for video in annotations()["nframes"]}
    )
    for boxes in ("xywh", None):
        act = read_act(pickled(content), boxes=boxes)
        assert act.ground_truth.box[0].tolist() == [200, 20, 300, 60]


def test_wrong_box_columns_are_recognised_by_the_share_of_inverted_boxes(pickled):
    widths = annotations(
        gttubes={video: {0: [tube(1, 50, (200, 20, 100, 40))]} for video in annotations()["nframes"]}
    )
    with pytest.raises(ActFileError, match=r"150 of 150 boxes have x2 < x1 .* with boxes \"xywh\""):
        read_act(pickled(widths))
    tube_with_error = tube(1, 200)
    tube_with_error[7, 3] = 5  # an error as in the published files
    content = annotations()
    content["gttubes"]["run/a"] = {0: [tube_with_error]}
    assert read_act(pickled(content)).ground_truth.box[7].tolist() == [10, 20, 5, 220]


def test_tube_may_end_after_its_video(pickled):
    content = annotations()
    content["gttubes"]["run/a"] = {0: [tube(1, 9)]}
    assert split_ground_truth(read_act(pickled(content)), 2).frame.max() == 9


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_content_as_people_pickle_it_is_that_of_the_published_form(pickled, protocol):
    """Text as NumPy's, dicts with default factories, tubes as lists of rows, no list of training videos."""
    plain = annotations()
    del plain["train_videos"]
    of_people = {
        "labels": np.array(plain["labels"]),
        "gttubes": defaultdict(dict),
        "nframes": {np.str_(video): np.int64(number) for video, number in plain["nframes"].items()},
        "resolution": {np.str_(video): list(size) for video, size in plain["resolution"].items()},
        "test_videos": np.array(plain["test_videos"]),
    }
    for video, of_video in plain["gttubes"].items():
        tubes = defaultdict(list)
        for label, of_label in of_video.items():
            tubes[label] = [of_label[0].tolist(), *of_label[1:]]
        of_people["gttubes"][np.str_(video)] = tubes
    read, expected = read_act(pickled(of_people, protocol)), read_act(pickled(annotations()))
    assert (read.labels, read.nframes) == (expected.labels, expected.nframes)
    assert read.resolution == expected.resolution
    assert read.test_videos == expected.test_videos
    assert read.train_videos == ((), ())
    assert {type(name) for names in read.test_videos for name in names} == {str}
    for field in ("video", "frame", "box", "label", "tube"):
        assert np.array_equal(getattr(read.ground_truth, field), getattr(expected.ground_truth, field)), field


def test_text_of_other_byte_orders_is_read_and_text_of_no_characters_refused(pickled):
    content = annotations(labels=np.array(["run", "sit"], dtype=">U3"))
    assert read_act(pickled(content)).labels == ("run", "sit")
    broken = pickle.dumps(np.array(["run"]), 4).replace(b"r\x00\x00\x00", b"\xff\xff\xff\x7f")
    with pytest.raises(ActFileError, match="text with characters that there are not"):
        load_plain(pickled(broken))


def test_detections_may_be_a_list_of_rows(act, tmp_path):
    rows = [[0, 2, 0, 0.5, 10, 20, 30, 40], (1, 1, 1, np.float64(0.25), 1, 2, 3, 4), np.arange(1, 9) % 2]
    rows[2] = np.array([0, 3, 1, 0.1, 0, 0, 5, 5])
    (tmp_path / "d.pkl").write_bytes(pickle.dumps(rows))
    read = read_act_detections(tmp_path / "d.pkl", act, 1)
    assert read.score.tolist() == [0.5, 0.25, 0.1]
    assert read.box[1].tolist() == [1, 2, 3, 4]


def test_number_may_be_an_array_of_one_element(pickled):
    """As in MATLAB's files; two elements are not a number."""
    act = read_act(pickled(annotations(nframes={"run/a": np.array([[4]]), "run/b": 5, "sit/c": np.array(2)})))
    assert act.nframes == {"run/a": 4, "run/b": 5, "sit/c": 2}
    with pytest.raises(ActFileError, match=r"nframes\['run/a'\]: found array\(\[4, 4\]\)"):
        read_act(pickled(annotations(nframes={"run/a": np.array([4, 4]), "run/b": 5, "sit/c": 2})))


def test_training_list_may_be_empty(pickled):
    assert read_act(pickled(annotations(train_videos=[[], []]))).train_videos == ((), ())


def test_plain_data_of_every_type_is_loaded_by_every_pickle_protocol(pickled):
    content = {
        "sets": [{1, 2}, frozenset({"a"})],
        "ordered": OrderedDict(a=1, b=None),
        "scalars": [np.float32(0.5), np.int64(-7), np.bool_(True)],
        "numbers": [1.5, 10**30, True, b"bytes", b"", "text"],
        "arrays": [np.arange(6, dtype=">i4").reshape(2, 3), np.asfortranarray(np.eye(3)), np.zeros((0, 5))],
    }
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        back = load_plain(pickled(content, protocol))
        assert back["sets"] == content["sets"]
        assert back["ordered"] == {"a": 1, "b": None}
        assert back["scalars"] == [0.5, -7, True]
        assert type(back["scalars"][0]) is float
        assert back["numbers"] == content["numbers"]
        for loaded, expected in zip(back["arrays"], content["arrays"], strict=True):
            np.testing.assert_array_equal(loaded, expected)
            assert loaded.dtype.newbyteorder("=") == expected.dtype.newbyteorder("=")


# --- nothing is executed -------------------------------------------------------------------------


class CallsOnLoad:
    """An object that pickles as a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def touch(path):
    Path(path).write_text("executed")


def called(module, name, *arguments):
    """A pickle that calls module.name(*arguments), whether or not it exists."""
    pushed = b"".join(pickle.dumps(argument, 0)[:-1] for argument in arguments)
    return b"c" + f"{module}\n{name}\n".encode() + b"(" + pushed + b"tR."


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "hidden_in", [lambda x: x, lambda x: [{"labels": (1, x)}], lambda x: annotations(labels=x)]
)
def test_call_is_refused_by_name_and_not_executed(pickled, tmp_path, protocol, hidden_in):
    proof = tmp_path / "executed"
    for function, argument, name in (
        (eval, f"open({str(proof)!r}, 'w')", r"'(builtins|__builtin__)\.eval'"),
        (exec, f"open({str(proof)!r}, 'w')", r"'(builtins|__builtin__)\.exec'"),
        (__import__("os").system, f"touch {proof}", r"'(posix|nt)\.system'"),
        (__import__("subprocess").getoutput, f"touch {proof}", r"'(subprocess|commands)\.getoutput'"),
        (np.load, str(proof), r"'numpy\.load'"),
        (getattr, "x", r"'(builtins|__builtin__)\.getattr'"),
    ):
        arguments = (argument, "upper") if function is getattr else (argument,)
        path = pickled(hidden_in(CallsOnLoad(function, *arguments)), protocol)
        with pytest.raises(ActFileError, match=f"GT.pkl: the pickle asks for {name}; annotations are plain"):
            read_act(path)
    assert not proof.exists()


@pytest.mark.parametrize(
    ("data", "asked_for"),
    [
        (called("os", "system", "true"), "'os.system'"),
        (b"(S'true'\nios\nsystem\n.", "'os.system'"),  # INST, an opcode of Python 1
        (b"cbuiltins\ngetattr\n.", "'builtins.getattr'"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "'os.system'"),  # STACK_GLOBAL
        (b"\x80\x04\x8c\x08builtins\x8c\x0eeval.__class__\x93.", "'builtins.eval.__class__'"),
        (called("numpy", "fromfile", "x"), "'numpy.fromfile'"),
        (called("numpy.core.multiarray", "fromstring", "x"), "'numpy.core.multiarray.fromstring'"),
        (called("_codecs", "encode", "x", "rot13"), "_codecs.encode to 'rot13'"),
        (called("_codecs", "decode", "x", "hex"), "'_codecs.decode'"),
        (called("numpy", "dtype", "O"), "an array of dtype 'O', which is not a number's"),
        (called("numpy", "dtype", "V8"), "an array of dtype 'V8', which is not a number's"),
        (called("numpy", "dtype", "f8,O"), "an array of dtype 'f8,O', which is not a number's"),
        (called("numpy", "dtype", "<M8[s]"), "an array of dtype '<M8[s]', which is not a number's"),
        (called("numpy", "dtype", 7), "an array of dtype 7, which is not a number's"),
        (called("numpy.core.multiarray", "scalar", "f8", b"12345678"), "an array in an unknown state"),
        (b"\x80\x02X\x01\x00\x00\x00aQ.", "an object outside the file"),
        (b"Pname\n.", "an object outside the file"),
    ],
)
def test_other_requests_of_a_pickle_are_refused_by_name(pickled, data, asked_for):
    with pytest.raises(ActFileError) as caught:
        load_plain(pickled(data))
    assert f"the pickle asks for {asked_for}; annotations are plain data" in str(caught.value)


def array_with(state):
    """A pickle of an array with the given state, in opcodes."""
    return (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR" + state + b"b."
    )  # fmt: skip


F8 = b"cnumpy\ndtype\n(S'f8'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntb"


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (b"(I1\n(I3\nt" + F8 + b"I00\nS'12345678'\nt", "of shape (3,) and 8 bytes, which do not fit"),
        (b"(I1\n(I-1\nt" + F8 + b"I00\nS'12345678'\nt", "an array without a valid shape"),
        (b"(I1\n(L99999999999999999999L\nt" + F8 + b"I00\nS'12345678'\nt", "which do not fit"),
        (b"(I1\nS'12'\n" + F8 + b"I00\nS'12345678'\nt", "an array without a valid shape"),
        (b"(I1\n(I1\nt" + F8 + b"I00\n(lI1\nat", "an array of objects, which is not plain data"),
        (b"(I1\n(I1\ntS'f8'\nI00\nS'12345678'\nt", "an array in an unknown state"),
        (b"(I1\nt", "an array in an unknown state"),
        (b"I7\n", "an array in an unknown state"),
        (b"(I1\n(I1\nt" + F8.replace(b"S'<'", b"S'x'") + b"I00\nS'12345678'\nt", "a dtype in an unknown"),
    ],
)
def test_array_with_inconsistent_state_is_refused(pickled, state, message):
    good = array_with(b"(I1\n(I1\nt" + F8 + b"I00\nS'12345678'\nt")
    assert load_plain(pickled(good)).shape == (1,)
    with pytest.raises(ActFileError, match="the pickle asks for") as caught:
        load_plain(pickled(array_with(state)))
    assert message in str(caught.value)


def test_array_of_objects_is_refused(pickled):
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(ActFileError, match="an array of dtype 'O8', which is not a number's"):
            load_plain(pickled(np.array([CallsOnLoad(touch, "x")], dtype=object), protocol))


def test_registered_extension_is_refused(pickled):
    copyreg.add_extension("os", "system", 0x70)
    try:
        with pytest.raises(ActFileError, match=r"the pickle asks for 'os\.system'"):
            load_plain(pickled(b"\x80\x02\x82\x70U\x04trueq\x00\x85R."))
    finally:
        copyreg.remove_extension("os", "system", 0x70)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a pickle",
        pickle.dumps(annotations())[:-40],
        pickle.dumps(annotations())[:100],
        b"\x80\x63.",
        b"\x80\x02.",
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.",  # a frame longer than any file
        b"cnumpy\nndarray\n(I3\ntR.",  # calls numpy.ndarray
        b"cnumpy\nndarray\n(dS'x'\nI1\nsb.",  # sets its attributes
        b"c__builtin__\nset\n(I1\nI2\ntR.",
        b"(dp0\ng0\nI1\ns.",  # a dict for a key
        b"cnumpy\ndtype\nI1\n\x81.",
        called("builtins", "bytes", 10**15),
        b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x7f.",  # a bytearray longer than any file
    ],
)  # fmt: skip
def test_damaged_files_give_one_clear_error(pickled, data):
    with pytest.raises(ActFileError, match=r"GT\.pkl: (cannot be unpickled|the pickle asks for)"):
        load_plain(pickled(data))


def test_file_declaring_a_billion_memos_allocates_nothing(pickled):
    assert load_plain(pickled(b"\x80\x02Nr\xff\xff\xff\x7f.")) is None


def test_maliciously_nested_lists_are_shown_in_short(pickled):
    inner = []
    for _ in range(100):
        inner = [inner, inner]  # 2**100 lists to whoever prints it
    for content in (annotations(labels=[inner]), annotations(resolution={"run/a": inner})):
        with pytest.raises(ActFileError, match=r"found \["):
            read_act(pickled(content))


@settings(max_examples=300, deadline=None, database=None, derandomize=True)
@given(
    st.binary(max_size=60)
    | st.integers(0, 1500).flatmap(lambda at: st.tuples(st.just(at), st.binary(min_size=1, max_size=4)))
)
def test_random_bytes_give_the_error_or_plain_data(tmp_path_factory, noise):
    if isinstance(noise, tuple):
        at, bytes_ = noise
        good = pickle.dumps(annotations(), 2)
        noise = good[: at % len(good)] + bytes_ + good[at % len(good) + len(bytes_) :]
    path = tmp_path_factory.mktemp("noise") / "GT.pkl"
    path.write_bytes(noise)
    try:
        read_act(path)
    except ActFileError as error:
        assert str(error).startswith(str(path))  # noqa: PT017


# --- corrected annotations -----------------------------------------------------------------------


def corrected():
    """Two videos of two classes in the form in which the corrected annotations were published."""
    boxes = np.array([[200, 20, 100, 40], [201, 20, 100, 40]], np.uint8)
    return {
        "Run/v_Run_g01_c01": {
            "annotations": [{"label": 0, "sf": 3, "ef": 5, "boxes": boxes}],
            "numf": 9,
            "label": 0,
        },
        "Sit/v_Sit_g01_c01": {
            "annotations": [{"label": 1, "sf": 0, "ef": 1, "boxes": np.array([[1, 2, 3, 4]], np.int16)}],
            "numf": 4,
        },
    }


def test_corrected_annotations_are_read_with_ucf101s_lists_of_splits(pickled, tmp_path):
    """Frames counted from 0, x, y, width, height in uint8, names from folders; the lists have suffixes."""
    path = pickled(corrected())
    with pytest.raises(ActFileError, match=r"have no splits: put UCF101's testlist01\.txt beside the file"):
        read_act(path)
    (tmp_path / "splitfiles").mkdir()
    (tmp_path / "splitfiles" / "testlist01.txt").write_text("Run/v_Run_g01_c01.avi\nFly/v_Fly_g01_c01.avi\n")
    (tmp_path / "trainlist01.txt").write_text("Sit/v_Sit_g01_c01.avi 2\n")
    act = read_act(path)
    assert act.labels == ("Run", "Sit")
    assert (act.test_videos, act.train_videos) == ((("Run/v_Run_g01_c01",),), (("Sit/v_Sit_g01_c01",),))
    assert act.resolution["Run/v_Run_g01_c01"] == (240, 320)
    ground_truth = split_ground_truth(act)
    assert ground_truth.frame.tolist() == [4, 5]
    assert ground_truth.box.tolist() == [[200, 20, 300, 60], [201, 20, 301, 60]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ef": 6}, "'Run/v_Run_g01_c01', annotation 0: boxes of shape (2, 4) for frames 3 to 6"),
        ({"label": 1}, "label 1 is 'Run' and 'Sit' (in 'Sit/v_Sit_g01_c01')"),
        ({"label": 7}, "no video has label 0, so that its name is unknown"),
        ({"boxes": "none"}, "could not convert string to float"),
        ({"sf": None}, "int() argument must be"),
    ],
)
def test_broken_corrected_annotations_are_refused(pickled, tmp_path, change, message):
    content = corrected()
    content["Run/v_Run_g01_c01"]["annotations"][0] |= change
    (tmp_path / "testlist01.txt").write_text("Run/v_Run_g01_c01\n")
    with pytest.raises(ActFileError) as error:
        read_act(pickled(content))
    assert message in str(error.value)
    assert str(error.value).startswith(str(tmp_path / "GT.pkl"))


def test_a_list_of_other_videos_is_refused(pickled, tmp_path):
    (tmp_path / "testlist01.txt").write_text("v_Run_g01_c01.avi\n")
    with pytest.raises(
        ActFileError, match=r"testlist01.txt lists none of its videos; the first .* 'v_Run_g01"
    ):
        read_act(pickled(corrected()))


def test_an_annotation_without_a_field_is_named(pickled):
    content = corrected()
    del content["Sit/v_Sit_g01_c01"]["numf"]
    with pytest.raises(ActFileError, match="Sit/v_Sit_g01_c01: it has no 'numf'"):
        read_act(pickled(content))


# --- the schema ----------------------------------------------------------------------------------


def nested(change):
    content = annotations()
    change(content)
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1], "the file: it holds a list; ACT's annotations are a dict"),
        ({}, "the file: it has no labels, gttubes, nframes, test_videos, resolution"),
        (nested(lambda c: c.pop("nframes")), "the file: it has no nframes; it has labels, gttubes, reso"),
        (annotations(labels="run"), "labels: found str; it is a list of names"),
        (annotations(labels=["run", 3]), "labels[1]: found 3; a name is needed"),
        (annotations(labels=["run", "run"]), "labels: 'run' is listed twice"),
        (annotations(nframes={"run/a": "4"}), "nframes['run/a']: found '4'; a whole number from 1"),
        (annotations(nframes={"run/a": 0}), "nframes['run/a']: found 0; a whole number from 1"),
        (annotations(nframes=[4]), "nframes: found list; it is a dict"),
        (annotations(nframes={7: 4}), "nframes: its key 7 is a int; a video's name is needed"),
        (annotations(resolution={"run/a": 240}), "resolution['run/a']: found 240; it is the pair (height"),
        (annotations(test_videos=[]), "test_videos: found list; it is a list with one list of videos per"),
        (annotations(test_videos=[[]]), "test_videos[0]: found list; it is a list of names"),
        (annotations(test_videos=["run/b"]), "test_videos[0]: found str; it is a list of names"),
        (annotations(test_videos=[["nowhere"]]), "gttubes: video 'nowhere' of test_videos[0] is not among"),
        (nested(lambda c: c["nframes"].pop("sit/c")), "nframes: video 'sit/c' of test_videos[0] is not"),
        (annotations(gttubes=[]), "gttubes: found list; it is a dict"),
        (annotations(gttubes={"run/a": []}), "gttubes['run/a']: found list; it is a dict"),
        (annotations(gttubes={"run/a": {"run": []}}), "gttubes['run/a']: its key 'run' is a str; a label"),
        (annotations(gttubes={"run/a": {2: []}}), "gttubes['run/a'][2]: found 2; the 2 labels count from 0"),
        (annotations(gttubes={"run/a": {0: 5}}), "gttubes['run/a'][0]: found int; it is a list of tubes"),
        (annotations(gttubes={"run/a": {0: [[1, 2]]}}), "gttubes['run/a'][0][0]: found list; a tube is an"),
        (annotations(gttubes={"run/a": {0: [np.eye(4)]}}), "its shape is (4, 4) and not (N, 5)"),
        (annotations(gttubes={"run/a": {0: [np.zeros((0, 5))]}}), "its shape is (0, 5) and not (N, 5)"),
        (annotations(gttubes={"run/a": {0: [tube(0, 3)]}}), "row 0 is of frame 0; frames are whole numbers"),
        (annotations(gttubes={"run/a": {0: [tube(1, 3)[::-1]]}}), "row 1 is of frame 2; frames are whole"),
        (annotations(gttubes={"run/a": {0: [tube(1, 3) + 0.5]}}), "row 0 is of frame 1.5; frames are whole"),
        (annotations(gttubes={"run/a": {0: [tube(1, 2, (0, 0, np.nan, 1))]}}), "row 0 is [1.0, 0.0, 0.0, n"),
    ],
)  # fmt: skip
def test_another_schema_is_refused_naming_the_entry(pickled, content, message):
    path = pickled(content)
    with pytest.raises(ActFileError) as caught:
        read_act(path)
    assert str(caught.value).startswith(f"{path}, ")
    assert message in str(caught.value)


def told(error, path):
    """The lines of an error, without the file's name."""
    return str(error.value).replace(f"{path}, ", "").splitlines()


def test_all_that_is_wrong_in_annotations_is_told_at_once(pickled):
    content = annotations()
    content["nframes"] |= {"run/a": 0, "run/b": "five"}
    del content["nframes"]["sit/c"]
    content["gttubes"]["run/b"][0][1][2, 0] = 9.5
    content["gttubes"]["sit/c"] = {1: [tube(0, 2), None], 2: []}
    path = pickled(content)
    with pytest.raises(ActFileError) as error:
        read_act(path)
    lost = "is not among its 2 videos"
    assert told(error, path) == [
        "nframes['run/a']: found 0; a whole number from 1 is needed",
        "nframes['run/b']: found 'five'",
        "gttubes['run/b'][0][1]: row 2 is of frame 9.5; frames are whole numbers, count from 1 and increase "
        "from row to row",
        "gttubes['sit/c'][1][0]: row 0 is of frame 0",
        "gttubes['sit/c'][1][1]: found NoneType; a tube is an array of numbers, (N, 5)",
        "gttubes['sit/c'][2]: found 2; the 2 labels count from 0",
    ]
    content["gttubes"] = annotations()["gttubes"]
    content["nframes"] = {"run/a": 4, "run/b": 5}
    path = pickled(content)
    with pytest.raises(ActFileError) as error:
        read_act(path)
    assert told(error, path) == [
        f"nframes: video 'sit/c' of test_videos[0] {lost}; the file is incomplete; get the whole one",
        f"nframes: video 'sit/c' of test_videos[1] {lost}",
    ]


def test_of_many_errors_the_first_twenty_are_told_and_the_rest_counted(pickled):
    content = annotations()
    content["nframes"] |= {f"video {i}": -i for i in range(1034)}
    path = pickled(content)
    with pytest.raises(ActFileError) as error:
        read_act(path)
    lines = told(error, path)
    assert lines[0] == "nframes['video 0']: found 0; a whole number from 1 is needed"
    assert lines[19:] == ["nframes['video 19']: found -19", ".. and 1,014 more"]


def test_all_wrong_corrected_annotations_are_told_at_once(pickled):
    content = corrected()
    content["Sit/v_Sit_g01_c01"] = {"annotations": [{"label": 0}, {"label": "x"}]}
    path = pickled(content)
    with pytest.raises(ActFileError) as error:
        read_act(path)
    assert str(error.value).removeprefix(f"{path}: ").splitlines() == [
        "Sit/v_Sit_g01_c01: it has no 'numf'",
        "'Sit/v_Sit_g01_c01', annotation 0: it has no 'sf'",
        "'Sit/v_Sit_g01_c01', annotation 1: invalid literal for int() with base 10: 'x'",
    ]


def test_missing_file_and_folder_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere.pkl: file not found; check the path"):
        read_act(tmp_path / "nowhere.pkl")
    with pytest.raises(ActFileError, match="cannot be read"):
        read_act(tmp_path)


def test_first_and_last_frame_are_accepted(act, tmp_path):
    """run/b has five; frame 0 and 6 are refused below."""
    rows = [[0, frame, 0, 0.5, 1, 2, 3, 4] for frame in (1, 5)]
    assert read_act_detections(saved(tmp_path / "d.npy", rows), act).frame.tolist() == [1, 5]


def test_unknown_split_is_refused(pickled):
    act = read_act(pickled(annotations()))
    for split in (0, 3):
        with pytest.raises(ValueError, match=rf"GT.pkl has no split {split}; its splits are 1 to 2"):
            split_ground_truth(act, split)


# --- detections ----------------------------------------------------------------------------------

ROWS = [[0, 2, 0, 0.9, 10, 20, 110, 220], [1, 1, 1, 0.8, 10, 20, 110, 220], [1, 2, 0, 0.25, -5, 0, 8, 8]]
TEXT = "run/b,2,0,0.9,10,20,110,220\nsit/c,1,1,0.8,10,20,110,220\nsit/c,2,0,0.25,-5,0,8,8\n"


@pytest.fixture
def act(pickled):
    return read_act(pickled(annotations()))


def saved(path, rows, dtype=np.float32):
    np.save(path, np.array(rows, dtype=dtype))
    return path


def test_array_and_text_give_the_same_detections(act, tmp_path):
    (tmp_path / "d.csv").write_text(TEXT)
    (tmp_path / "d.pkl").write_bytes(pickle.dumps(np.array(ROWS, dtype=np.float32), 4))
    saved(tmp_path / "d.npy", ROWS)
    for name in ("d.csv", "d.npy", "d.pkl"):
        det = read_act_detections(tmp_path / name, act)
        assert [det.videos[i] for i in det.video] == ["run/b", "sit/c", "sit/c"]
        assert (det.frame.tolist(), det.label.tolist()) == ([2, 1, 2], [0, 1, 0])
        np.testing.assert_allclose(det.score, [0.9, 0.8, 0.25], rtol=1e-7)
        assert det.box[2].tolist() == [-5, 0, 8, 8]
        assert (
            frame_mAP(
                split_ground_truth(act), det, act.classes, rules=EvalRules("gurkirt")
            ).num_true_positives
            == 2
        )


def test_video_index_is_into_the_list_of_the_split(act, tmp_path):
    path = saved(tmp_path / "d.npy", ROWS[1:2])
    assert read_act_detections(path, act, 2).videos[1] == "run/a"


def test_empty_file_has_no_detections(act, tmp_path):
    (tmp_path / "d.csv").write_text("")
    for path in (tmp_path / "d.csv", saved(tmp_path / "d.npy", np.zeros((0, 8)))):
        det = read_act_detections(path, act)
        assert len(det.video) == 0
        assert frame_mAP(split_ground_truth(act), det, act.classes, rules=EvalRules("gurkirt")).mAP == 0


def test_detections_in_videos_of_other_splits_are_dropped(act, tmp_path):
    (tmp_path / "d.csv").write_text(TEXT + "run/a,1,0,0.5,0,0,9,9\nelsewhere,99,0,0.5,0,0,9,9\n")
    det = read_act_detections(tmp_path / "d.csv", act)
    assert len(det.video) == 5
    det = det.in_videos(split_videos(act, 1))
    assert (len(det.video), det.videos) == (3, ("run/b", "sit/c"))


def row(**change):
    names = ("video", "frame", "label", "score", "x1", "y1", "x2", "y2")
    return [change.get(name, value) for name, value in zip(names, ROWS[0], strict=True)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"video": 2}, "row 1, column 0 (video index): found 2; split 1 has 2 test videos, counted from 0"),
        ({"video": -1}, "row 1, column 0 (video index): found -1; split 1 has 2 test"),
        ({"video": 0.5}, "row 1, column 0 (video index): found 0.5; split 1 has 2 test"),
        ({"frame": 0}, "row 1, column 1 (frame): found 0; frames are whole numbers and count from 1"),
        ({"frame": 2.5}, "row 1, column 1 (frame): found 2.5; frames are whole numbers"),
        ({"frame": 6}, "row 1, column 1 (frame): found 6; run/b ends with frame 5; does the array"),
        ({"label": 2}, "row 1, column 2 (label): found 2; the 2 labels count from 0"),
        ({"score": np.nan}, "row 1, column 3 (score): found nan; the score must be a finite number"),
        ({"y2": np.inf}, "row 1, column 7 (y2): found inf; the y2 must be a finite number"),
    ],
)  # fmt: skip
def test_malformed_row_of_an_array_is_named(act, tmp_path, change, message):
    path = saved(tmp_path / "d.npy", [ROWS[0], row(**change)])
    with pytest.raises(ActFileError) as caught:
        read_act_detections(path, act)
    assert str(caught.value).startswith(f"{path}, {message}")


def test_all_malformed_rows_of_an_array_are_told_at_once(act, tmp_path):
    rows = [row(), row(video=7), row(), row(label=2.5), row(label=-1)]
    path = saved(tmp_path / "detections.npy", rows)
    with pytest.raises(ActFileError) as error:
        read_act_detections(path, act)
    assert told(error, path) == [
        "row 1, column 0 (video index): found 7; split 1 has 2 test videos, counted from 0",
        "row 3, column 2 (label): found 2.5; the 2 labels count from 0",
        "row 4, column 2 (label): found -1",
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("run/b,0,0,0.9,1,2,3,4", "line 2, column 2 (frame): found '0'; frames are whole numbers and count"),
        ("run/b,6,0,0.9,1,2,3,4", "line 2, column 2 (frame): found '6'; run/b ends with frame 5"),
        ("run/b,2,2,0.9,1,2,3,4", "line 2, column 3 (label): found '2'; the 2 labels count from 0"),
        ("run/b,2,run,0.9,1,2,3,4", "line 2, column 3 (label): found 'run'; labels are whole numbers"),
        ("run/b,2,0,nan,1,2,3,4", "line 2, column 4 (score): found 'nan'; a finite number"),
        ("run/b,2,0,0.9,1,2,3", "line 2: found 7 columns instead of 8, as line 1 has"),
        ("run/b,2,0,0.9,1,2,3,x", "line 2, column 8 (y2): found 'x'; a number is needed"),
    ],
)  # fmt: skip
def test_malformed_line_of_text_is_named(act, tmp_path, line, message):
    path = tmp_path / "d.csv"
    path.write_text(TEXT.splitlines()[0] + "\n" + line + "\n")
    with pytest.raises(AvaFileError) as caught:
        read_act_detections(path, act)
    assert str(caught.value).startswith(f"{path}, {message}")


def test_files_that_are_not_an_array_of_detections_are_refused(act, tmp_path):
    path = tmp_path / "d.npy"
    for content, message in (
        (
            np.zeros((3, 7)),
            r"the array: its shape is \(3, 7\) and not \(M, 8\); it is one row per detection: vid",
        ),
        (np.zeros(8), r"the array: its shape is \(8,\)"),
        (np.full((1, 8), "x"), "the array: its dtype is <U1; numbers are needed"),
    ):
        np.save(path, content)
        with pytest.raises(ActFileError, match=message):
            read_act_detections(path, act)
    np.save(path, np.array([CallsOnLoad(touch, "x")], dtype=object), allow_pickle=True)
    with pytest.raises(
        ActFileError, match=r"cannot be read as an .npy array \(Object arrays cannot be loaded"
    ):
        read_act_detections(path, act)
    for data in (b"", b"garbage", b"\x93NUMPY"):
        path.write_bytes(data)
        with pytest.raises(
            ActFileError, match=r"cannot be read as an .npy array .*numpy\.save, numbers only"
        ):
            read_act_detections(path, act)
    np.savez(tmp_path / "d", np.zeros((1, 8)))
    (tmp_path / "d.npz").rename(path)
    with pytest.raises(ActFileError, match=r"it is an \.npz archive"):
        read_act_detections(path, act)
    (tmp_path / "d.pkl").write_bytes(pickle.dumps([1]))
    with pytest.raises(ActFileError, match="it holds a list; MOC's detections are one array"):
        read_act_detections(tmp_path / "d.pkl", act)
    with pytest.raises(FileNotFoundError, match="check the path"):
        read_act_detections(tmp_path / "nowhere.npy", act)


def test_written_detections_are_read_back_by_descending_score(act, tmp_path):
    box = np.array([[0, 0.1, 7, 8], [1, 2, 3, 4]], np.float32)
    det = Detections(("sit/c", "run/b"), [0, 1], [1, 2], box, [1, 0], [0.1, 0.7])
    write_frame_detections(tmp_path / "d.csv", det)
    assert (tmp_path / "d.csv").read_text().splitlines()[0] == "run/b,2,0,0.7,1,2,3,4"
    back = read_act_detections(tmp_path / "d.csv", act)
    assert back.box.tolist() == det.box[::-1].tolist()
    with pytest.raises(ValueError, match="detection row 0 has label -1"):
        write_frame_detections(tmp_path / "d.csv", Detections(("v",), [0], [1], [[0, 0, 1, 1]], [-1], [0.5]))


# --- tubes that are linked already ---------------------------------------------------------------


def test_tubes_are_read_as_multisports_writes_them(pickled, tmp_path):
    """Rows may end with the score of the box; a video without ground truth is kept."""
    act = read_act(pickled(annotations()))
    longer = np.column_stack([tube(2, 3), [0.5, 0.6]])
    content = {0: [("run/a", 0.9, tube(1, 4)), ["elsewhere", np.float32(0.5), longer]], 1: []}
    path = tmp_path / "tubes.pkl"
    path.write_bytes(pickle.dumps(content))
    read = read_tubes(path, act)
    assert [read.videos[i] for i in read.video] == ["run/a", "elsewhere"]
    assert (read.label.tolist(), read.score.tolist()) == ([0, 0], [0.9, 0.5])
    assert (read.tube.tolist(), read.frame.tolist()) == ([0, 0, 0, 0, 1, 1], [1, 2, 3, 4, 2, 3])
    assert read.box[4].tolist() == [10, 20, 110, 220]
    path.write_bytes(pickle.dumps({}))
    assert len(read_tubes(path, act).video) == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1], "the file: found list; it is a dict"),
        ({2: []}, "[2]: found 2; labels count from 0"),
        ({0: 3}, "[0]: found int; it is a list of tubes"),
        ({0: [("run/a", 0.9)]}, "[0][0]: found ('run/a', 0.9); a tube is its video, its score and its rows"),
        ({0: [(3, 0.9, [])]}, "[0][0]: found (3, 0.9, []); a tube is its video"),
        ({0: [("run/a", "high", [])]}, "[0][0]: its score is 'high'; a number is needed"),
        ({0: [("run/a", float("nan"), [])]}, "[0][0]: its score is nan; a finite number"),
        ({0: [("run/a", 0.9, [[1, 2, 3]])]}, "[0][0]: its shape is (1, 3) and not (N, 5)"),
        ({0: [("run/a", 0.9, tube(1, 4)[::-1])]}, "[0][0]: row 1 is of frame 3; frames are whole numbers"),
    ],
)
def test_broken_tubes_are_refused_by_entry(pickled, tmp_path, content, message):
    act = read_act(pickled(annotations()))
    path = tmp_path / "tubes.pkl"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(ActFileError) as error:
        read_tubes(path, act)
    assert str(error.value).startswith(f"{path}, ")
    assert message in str(error.value)


def test_all_broken_tubes_are_told_at_once(pickled, tmp_path):
    act = read_act(pickled(annotations()))
    content = {0: [("run/a", 0.9), ("run/a", 0.9, tube(1, 4)), ("run/a", "high", [])], "run": []}
    path = tmp_path / "tubes.pkl"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(ActFileError) as error:
        read_tubes(path, act)
    assert told(error, path) == [
        "[0][0]: found ('run/a', 0.9); a tube is its video, its score and its rows",
        "[0][2]: its score is 'high'; a number is needed",
        "the file: its key 'run' is a str; a label index is needed",
    ]


def test_uint8_boxes_that_leave_their_images_as_widths_are_refused(pickled):
    """Corners in uint8, of small videos: as x, y, width, height they would reach beyond 100 x 100."""
    content = annotations(
        gttubes={video: {0: [tube(1, 2, (40, 30, 90, 95), np.uint8)]} for video in annotations()["nframes"]},
        resolution=dict.fromkeys(annotations()["nframes"], (100, 100)),
    )
    with pytest.raises(
        ActFileError, match=r'100% of the boxes leave their images; if they are .* boxes "xyxy"'
    ):
        read_act(pickled(content))
    assert read_act(pickled(content), boxes="xyxy").ground_truth.box[0].tolist() == [40, 30, 90, 95]
