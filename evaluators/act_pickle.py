"""Read annotations of UCF101-24 and JHMDB from ACT's pickle, and detections from MOC's array.

A pickle is a program. This unpickler allows a dozen names, each a harmless function of this module,
so that nothing in the file can call anything in Python or in NumPy; any other name is refused.
The content is then checked against the schema

    labels        [name, ..]                              train_videos, test_videos  [[video, ..], ..]
    gttubes       {video: {label index: [tube, ..]}}      one list per split
    nframes       {video: frames}                         resolution  {video: (height, width)}

with tubes as (N, 5) arrays, or lists of such rows: frame (from 1), x1, y1, x2, y2 in pixels. Lists of names
may be arrays of text, dicts may be defaultdicts, and train_videos may be missing. Errors name the entry.
"""

import io
import math
import pickle
import re
import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from evaluators.ava_csv import read_frame_detections
from evaluators.corrected import is_corrected, to_act
from evaluators.files import DataFileError, Invalid, PathLike, Problems, invalid, open_data
from evaluators.frame_map import FRAME_LIMIT, Detections, GroundTruthTubes
from evaluators.matching import Bools, Floats
from evaluators.tubes import Tubes

BoxForm = Literal["xyxy", "xywh"]

MULTISPORTS_LEFT_OUT = {
    "aerobic kick jump",
    "aerobic off axis jump",
    "aerobic butterfly jump",
    "aerobic balance turn",
    "basketball save",
    "basketball jump ball",
}
"""Classes of MultiSports, of few examples, that its own tool does not evaluate."""

_COLUMNS = ("video index", "frame", "label", "score", "x1", "y1", "x2", "y2")
_KEYS = ("labels", "gttubes", "nframes", "train_videos", "test_videos", "resolution")
_INVERTED_SHARE = 0.01  # published files have a few inverted boxes; above this, the columns are others


class ActFileError(DataFileError):
    """An invalid pickle or array. The message says where and what to do."""


@dataclass(frozen=True, eq=False)
class ActAnnotations:
    """One annotation file: all videos, and which of them each split trains and tests on.

    `split_ground_truth` selects the ground truth of one split.
    """

    path: str
    labels: tuple[str, ...]  # label l of the ground truth is labels[l]
    ground_truth: GroundTruthTubes  # every annotated video; frames count from 1, boxes in pixels
    nframes: dict[str, int]
    resolution: dict[str, tuple[int, int]]  # height, width
    train_videos: tuple[tuple[str, ...], ...]  # per split
    test_videos: tuple[tuple[str, ...], ...]

    @property
    def classes(self) -> dict[int, str]:
        """Label index -> name, the `classes` argument of the evaluators."""
        return dict(enumerate(self.labels))


def read_act(path: PathLike, *, boxes: BoxForm | None = None) -> ActAnnotations:
    """Read `UCF101v2-GT.pkl`, `JHMDB-GT.pkl` and similar files. Nothing in the file is executed.

    boxes   "xywh" for columns x, y, width, height; None: of tubes in uint8, as the corrected annotations
            have them, xywh (a corner of theirs at 320 would not fit), else xyxy. x + width
            overflows in uint8: they are cast before any sum.

    Corrected annotations without ACT's schema are read, too, where UCF101's lists of splits lie beside
    them (evaluators.corrected).

    Tubes may end after the video does, and a few boxes may be inverted: the published files have
    such errors, and the public tools count these boxes as missed. So does this package.

    FileNotFoundError. ActFileError: not a pickle, a pickle that asks for more than data, or not
    ACT's schema; the message then names the entry.
    """
    path = Path(path)
    content = load_plain(path)
    if is_corrected(content):
        try:
            content = to_act(path, content)
        except Invalid as reason:
            raise ActFileError(f"{path}: {reason}") from None
    try:
        return _annotations(str(path), content, boxes)
    except Invalid as reason:
        raise ActFileError(f"{path}, {reason}") from None


def split_ground_truth(annotations: ActAnnotations, split: int = 1) -> GroundTruthTubes:
    """Select the ground truth of a split's test videos, counted from 1. ValueError: unknown split.

    `videos` is the split's list in the file's order, so that MOC's video indices fit.
    """
    rows = annotations.ground_truth.in_videos(split_videos(annotations, split))
    return rows.take(np.argsort(rows.video, kind="stable"))


def split_videos(annotations: ActAnnotations, split: int) -> tuple[str, ...]:
    """List the test videos of a split, counted from 1. ValueError: unknown split."""
    count = len(annotations.test_videos)
    if not 1 <= split <= count:
        known = "1" if count == 1 else f"1 to {count}"
        raise ValueError(f"{annotations.path} has no split {split}; its splits are {known}")
    return annotations.test_videos[split - 1]


def read_act_detections(path: PathLike, annotations: ActAnnotations, split: int = 1) -> Detections:
    """Read detections on a split's test videos, from an array (.npy, .pkl) or a text file (any other).

    array   MOC's, (M, 8): video index, frame, label, score, x1, y1, x2, y2. The index is into
            `split_videos(annotations, split)`; frames count from 1, labels from 0.
    text    the same eight columns with the video's name for its index; commas, no header. Rows of
            videos outside the split are kept, for the caller to drop (`Detections.in_videos`).

    FileNotFoundError. ActFileError, AvaFileError: with row or line, and field. ValueError: unknown split.
    """
    path = Path(path)
    split_videos(annotations, split)  # ValueError: unknown split
    if path.suffix.lower() not in (".npy", ".pkl"):
        num_labels, last_frames = len(annotations.labels), _last_frames(annotations)
        return read_frame_detections(path, num_labels=num_labels, last_frames=last_frames)
    rows = _array(path)
    try:
        return _detections(rows, annotations, split)
    except Invalid as reason:
        raise ActFileError(f"{path}, {reason}") from None


def read_tubes(path: PathLike, annotations: ActAnnotations) -> Tubes:
    """Read tubes that are linked already, as MultiSports has them: a pickle of

        {label index: [(video, score, rows of frame, x1, y1, x2, y2[, score of the box]), ..]}

    Frames increase within a tube. FileNotFoundError. ActFileError naming the entry.
    """
    path = Path(path)
    content = load_plain(path)
    try:
        return _detected_tubes(content, annotations)
    except Invalid as reason:
        raise ActFileError(f"{path}, {reason}") from None


# --- the unpickler -------------------------------------------------------------------------------


def load_plain(path: PathLike) -> Any:
    """Unpickle plain data: containers, numbers, text, and NumPy arrays and scalars of numbers.

    Text that Python 2 wrote is read as Latin-1. FileNotFoundError. ActFileError: a pickle that asks
    for anything else, a damaged file, not a pickle.
    """
    path = Path(path)
    with open_data(path, ActFileError, form="a pickle", refused=("array", "zip", "JSON")) as file:
        data = io.BytesIO(file.read())  # a read of more bytes than there are allocates nothing
    try:
        return _PlainUnpickler(data, encoding="latin1").load()
    except _Refused as refused:
        advice = "annotations are plain data; the file is something else, or not to be trusted"
        raise ActFileError(f"{path}: the pickle asks for {refused}; {advice}") from None
    except MemoryError:
        advice = "more memory than is available; it is damaged"
        raise ActFileError(f"{path}: the pickle asks for {advice}") from None
    except Exception as error:  # a damaged pickle may fail in any way
        advice = "it is not a pickle, or damaged; copy it again"
        raise ActFileError(f"{path}: cannot be unpickled ({error}); {advice}") from error


class _Refused(Exception):
    """What the pickle asked for, in words."""


class _PlainUnpickler(pickle._Unpickler):
    """Python's own unpickler, not the C one, which allocates as many memos as the file says it has."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        name = f"{module_name}.{global_name}"
        if name not in _ALLOWED:
            raise _Refused(f"{name!r:.80}")
        return _ALLOWED[name]

    def persistent_load(self, pid: object) -> Any:
        raise _Refused("an object outside the file")


_NUMBER_CODE = re.compile(r"[<>=|]?([iu][1248]|f[248]|b1|[?bBhHiIlLqQefd])")
_TEXT_CODE = re.compile(r"[<>=|]?[US][1-9]\d{0,4}")


class _Dtype:
    """In place of numpy.dtype: a type of numbers or text by its code, 'f4' or 'U12', and its byte order."""

    def __init__(self, code: object, *_: object) -> None:
        code = code.decode("ascii", "replace") if isinstance(code, bytes) else code
        # Checked before NumPy parses it: other codes stand for objects and structures.
        if not isinstance(code, str) or not (_NUMBER_CODE.fullmatch(code) or _TEXT_CODE.fullmatch(code)):
            raise _Refused(f"an array of dtype {code!r:.40}, which is not a number's")
        self.numpy = np.dtype(code)

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "=", "|"):
            raise _Refused("a dtype in an unknown state")
        if state[1] in "<>":
            self.numpy = self.numpy.newbyteorder(state[1])


class _PlainArray(np.ndarray):
    """In place of numpy.ndarray: an array that sets its state only after the checks of `_from_bytes`."""

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise _Refused("an array in an unknown state")
        _, shape, dtype, fortran, raw = state
        values = _from_bytes(raw, dtype, shape, "F" if fortran in (True, 1) else "C")
        checked: Any = (1, values.shape, values.dtype, False, values.tobytes())
        super().__setstate__(checked)


def _from_bytes(raw: object, dtype: object, shape: object, order: object) -> NDArray[Any]:
    """In place of NumPy's functions that build an array: shape and dtype must fit the bytes."""
    raw = raw.encode("latin1") if isinstance(raw, str) else raw  # Python 2's str
    if not isinstance(raw, (bytes, bytearray)):
        raise _Refused("an array of objects, which is not plain data")
    if not isinstance(dtype, _Dtype) or order not in ("C", "F"):
        raise _Refused("an array in an unknown state")
    if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
        raise _Refused("an array without a valid shape")
    if math.prod(shape) * dtype.numpy.itemsize != len(raw):
        raise _Refused(f"an array of shape {shape} and {len(raw)} bytes, which do not fit")
    if dtype.numpy.kind == "U":  # its bytes may stand for no text at all
        code = np.frombuffer(bytes(raw), np.dtype(np.uint32).newbyteorder(dtype.numpy.byteorder))
        if ((code > 0x10FFFF) | ((code >= 0xD800) & (code < 0xE000))).any():
            raise _Refused("an array of text with characters that there are not")
    return np.frombuffer(bytes(raw), dtype.numpy).reshape(shape, order=order)


def _encode(text: object, encoding: object) -> bytes:
    """In place of _codecs.encode, by which Python 3 writes bytes for Python 2."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise _Refused(f"_codecs.encode to {encoding!r:.40}")
    return text.encode("latin1")


_ALLOWED: dict[str, Any] = {
    "_codecs.encode": _encode,
    "collections.OrderedDict": dict,
    "collections.defaultdict": lambda *_: {},  # its factory is not needed
    "numpy.dtype": _Dtype,
    "numpy.ndarray": None,  # only an argument of _reconstruct, never called
}
for _core in ("numpy.core", "numpy._core"):
    _ALLOWED[f"{_core}.multiarray._reconstruct"] = lambda *_: _PlainArray(0)
    _ALLOWED[f"{_core}.multiarray.scalar"] = lambda dtype, raw: _from_bytes(raw, dtype, (), "C").item()
    _ALLOWED[f"{_core}.numeric._frombuffer"] = _from_bytes
for _builtins in ("builtins", "__builtin__"):
    # Python 3 calls bytes without arguments for b"" where Python 2 is to read it.
    _ALLOWED |= {
        f"{_builtins}.set": set,
        f"{_builtins}.frozenset": frozenset,
        f"{_builtins}.bytes": lambda: b"",
        # Factories of a defaultdict, never called.
        **{f"{_builtins}.{factory}": None for factory in ("list", "dict", "int", "float", "str", "tuple")},
    }


# --- the schema ----------------------------------------------------------------------------------


def _annotations(path: str, content: object, boxes: BoxForm | None) -> ActAnnotations:
    if not isinstance(content, dict):
        invalid("the file", f"it holds a {_kind(content)}", "ACT's annotations are a dict")
    _check_keys(content)
    labels = _names("labels", content["labels"])
    wrong = Problems()
    nframes, resolution = dict[str, int](), dict[str, tuple[int, int]]()
    for video, number in _items("nframes", content["nframes"], wrong):
        with wrong.noting():
            nframes[video] = _integer(f"nframes[{video!r}]", number, 1, FRAME_LIMIT - 1)
    for video, size in _items("resolution", content["resolution"], wrong):
        with wrong.noting():
            resolution[video] = _size(f"resolution[{video!r}]", size)
    test_videos = _splits("test_videos", content["test_videos"])
    train_videos: tuple[tuple[str, ...], ...] = ((),) * len(test_videos)
    if "train_videos" in content:
        train_videos = _splits("train_videos", content["train_videos"])
    ground_truth = _tubes(content["gttubes"], len(labels), boxes, wrong)
    if boxes is None:
        _check_widths(content["gttubes"], ground_truth, resolution)
    for i, names in enumerate(test_videos):
        for video in names:
            for key in ("gttubes", "nframes"):
                if video not in content[key]:
                    found = f"video {video!r} of test_videos[{i}] is not among its {len(content[key])} videos"
                    wrong.add(Invalid(f"{key}: {found}", "the file is incomplete; get the whole one"))
    wrong.refuse()
    return ActAnnotations(path, labels, ground_truth, nframes, resolution, train_videos, test_videos)


def _check_widths(
    gttubes: Mapping[Any, Any], ground_truth: GroundTruthTubes, resolution: Mapping[str, tuple[int, int]]
) -> None:
    """Refuse tubes in uint8 that were read as x, y, width, height and leave their images then."""
    first = next((tube for of in gttubes.values() for tubes in of.values() for tube in tubes), None)
    if not isinstance(first, np.ndarray) or first.dtype != np.uint8:
        return
    sizes = np.array([resolution.get(name, (np.inf, np.inf))[::-1] for name in ground_truth.videos])
    beyond = (ground_truth.box[:, 2:] > 1.05 * sizes[ground_truth.video]).any(1).mean()
    if beyond > 0.05:
        found = (
            f"read as x, y, width, height, as uint8 has them, {beyond:.0%} of the boxes leave their images"
        )
        invalid("gttubes", found, 'if they are x1, y1, x2, y2, read the file with boxes "xyxy"')


def _check_keys(content: dict[Any, Any]) -> None:
    missing = [key for key in _KEYS if key not in content and key != "train_videos"]
    if not missing:
        return
    present = ", ".join(str(key) for key in list(content)[:6]) or "nothing"
    found = f"it has no {', '.join(missing)}; it has {present[:80]}"
    invalid("the file", found, "is it ACT's annotation pickle?")


def _splits(key: str, lists: object) -> tuple[tuple[str, ...], ...]:
    if isinstance(lists, np.ndarray) and lists.ndim == 2:
        lists = list(lists)
    if not isinstance(lists, (list, tuple)) or not lists:
        invalid(key, f"found {_kind(lists)}", "it is a list with one list of videos per split")
    least = int(key == "test_videos")  # there may be nothing to train on
    return tuple(_names(f"{key}[{i}]", names, least=least) for i, names in enumerate(lists))


def _tubes(gttubes: object, num_labels: int, boxes: BoxForm | None, wrong: Problems) -> GroundTruthTubes:
    """All tubes of all videos as rows. Raises Invalid of these and all that is wrong already."""
    videos: list[str] = []
    tubes: list[Floats] = []
    index: list[tuple[int, int]] = []  # per tube: video, label
    for video, of_video in _items("gttubes", gttubes, wrong):
        for label, of_label in _items(f"gttubes[{video!r}]", of_video, wrong, key=int):
            where = f"gttubes[{video!r}][{label}]"
            with wrong.noting():
                _integer(where, label, 0, num_labels - 1, f"the {num_labels} labels count from 0")
                if not isinstance(of_label, (list, tuple)):
                    invalid(where, f"found {_kind(of_label)}", "it is a list of tubes")
                for number, tube in enumerate(of_label):
                    with wrong.noting():
                        tubes.append(_tube(f"{where}[{number}]", tube, boxes))
                        index.append((len(videos), label))
        videos.append(video)
    wrong.refuse()
    sizes = [len(tube) for tube in tubes]
    rows = np.concatenate([np.empty((0, 5)), *tubes])
    video_of, label_of = np.array(index, dtype=np.int64).reshape(-1, 2).T
    inverted = (rows[:, 1] > rows[:, 3]) | (rows[:, 2] > rows[:, 4])
    if inverted.sum() > _INVERTED_SHARE * len(rows):
        found = f"{int(inverted.sum())} of {len(rows)} boxes have x2 < x1 or y2 < y1"
        advice = 'if the columns are x, y, width, height, read the file with boxes "xywh"'
        invalid("gttubes", found, advice)
    return GroundTruthTubes(
        videos=tuple(videos),
        video=np.repeat(video_of, sizes),
        frame=rows[:, 0].astype(np.int64),
        box=rows[:, 1:],
        label=np.repeat(label_of, sizes),
        tube=np.repeat(np.arange(len(tubes)), sizes),
    )


def _tube(where: str, tube: object, boxes: BoxForm | None) -> Floats:
    """(N, 5) float64, checked, boxes as xyxy."""
    tube = _as_array(tube)
    if not isinstance(tube, np.ndarray) or tube.dtype.kind not in "fiu":
        invalid(where, f"found {_kind(tube)}", "a tube is an array of numbers, (N, 5)")
    if tube.ndim != 2 or tube.shape[1] != 5 or not len(tube):
        found = f"its shape is {tube.shape} and not (N, 5)"
        invalid(where, found, "a tube has a row per frame: frame, x1, y1, x2, y2")
    rows = np.array(tube, dtype=np.float64)  # before any sum
    if not np.isfinite(rows).all():
        row = int(np.argwhere(~np.isfinite(rows))[0, 0])
        invalid(where, f"row {row} is {rows[row].tolist()}", "finite numbers are needed")
    frame = rows[:, 0]
    wrong = (frame != np.floor(frame)) | (frame < 1) | (frame >= FRAME_LIMIT)
    wrong[1:] |= frame[1:] <= frame[:-1]
    if wrong.any():
        row = int(np.argmax(wrong))
        advice = "frames are whole numbers, count from 1 and increase from row to row"
        invalid(where, f"row {row} is of frame {frame[row]:g}", advice)
    if boxes == "xywh" or (boxes is None and tube.dtype == np.uint8):
        rows[:, 3:] += rows[:, 1:3]
    return rows


def _as_array(value: object) -> object:
    """An array of numbers for a list of rows of numbers, and what it is for anything else."""
    if not isinstance(value, (list, tuple)) or not value:
        return value
    rows = [row.tolist() if isinstance(row, np.ndarray) and row.ndim == 1 else row for row in value]
    if not all(isinstance(row, (list, tuple)) and len(row) == len(rows[0]) for row in rows):
        return value
    if not all(isinstance(number, (int, float)) and abs(number) < 1e300 for row in rows for number in row):
        return value
    return np.array(rows, dtype=np.float64)


def _last_frames(annotations: ActAnnotations) -> dict[str, int]:
    """The last frame of each video by its length or its tubes, whichever ends later."""
    rows = annotations.ground_truth
    last = np.zeros(len(rows.videos), dtype=np.int64)
    np.maximum.at(last, rows.video, rows.frame)
    ends = dict(zip(rows.videos, last.tolist(), strict=True))
    return {video: max(number, ends.get(video, 0)) for video, number in annotations.nframes.items()}


def _array(path: Path) -> NDArray[Any]:
    if path.suffix.lower() == ".pkl":
        content = _as_array(load_plain(path))
        if not isinstance(content, np.ndarray):
            advice = "MOC's detections are one array, (M, 8)"
            if isinstance(content, Mapping):
                advice += "; tubes that are linked already are scored by python -m evaluators tubes"
            raise ActFileError(f"{path}: it holds a {_kind(content)}; {advice}")
        return np.asarray(content)
    with open_data(path, ActFileError, form="an array of numpy.save", refused=("pickle", "JSON")) as file:
        try:
            array: NDArray[Any] = np.load(file, allow_pickle=False)
        except Exception as error:  # NumPy parses the header as Python, which fails in many ways
            advice = "write it with numpy.save, numbers only"
            raise ActFileError(f"{path}: cannot be read as an .npy array ({error}); {advice}") from error
    if not isinstance(array, np.ndarray):
        raise ActFileError(f"{path}: it is an .npz archive; write the one array with numpy.save")
    return array


def _detections(rows: NDArray[Any], annotations: ActAnnotations, split: int) -> Detections:
    names, num_labels = split_videos(annotations, split), len(annotations.labels)
    last = _last_frames(annotations)
    if rows.ndim != 2 or rows.shape[1] != 8:
        advice = f"it is one row per detection: {', '.join(_COLUMNS)}"
        invalid("the array", f"its shape is {rows.shape} and not (M, 8)", advice)
    if rows.dtype.kind not in "fiu":
        invalid("the array", f"its dtype is {rows.dtype}", "numbers are needed")
    rows = rows.astype(np.float64)
    wrong = Problems()
    for column, name in enumerate(_COLUMNS):
        bad = ~np.isfinite(rows[:, column])
        _check_rows(rows, column, bad, f"the {name} must be a finite number; was it 0 / 0?", wrong)
    wrong.refuse()
    last_frame = np.array([last[name] for name in names], dtype=np.float64)
    for column, least, most, advice in (
        (0, 0, len(names) - 1, f"split {split} has {len(names)} test videos, counted from 0"),
        (1, 1, FRAME_LIMIT - 1, "frames are whole numbers and count from 1"),
        (2, 0, num_labels - 1, f"the {num_labels} labels count from 0"),
    ):
        value = rows[:, column]
        bad = (value != np.floor(value)) | (value < least) | (value > most)
        _check_rows(rows, column, bad, advice, wrong)
    wrong.refuse()
    video, frame, label = rows[:, :3].astype(np.int64).T
    late = frame > last_frame[video] if len(frame) else np.zeros(0, dtype=np.bool_)
    if late.any():
        name = names[video[np.argmax(late)]]
        advice = f"{name} ends with frame {last[name]}; does the array belong to split {split}?"
        _check_rows(rows, 1, late, advice, wrong)
        wrong.refuse()
    return Detections(names, video, frame, rows[:, 4:], label, rows[:, 3])


def _detected_tubes(content: object, annotations: ActAnnotations) -> Tubes:
    wrong = Problems()
    videos: dict[str, int] = {name: i for i, name in enumerate(annotations.ground_truth.videos)}
    video, label, score, rows = [], [], [], [np.empty((0, 5))]
    for number, of_label in _items("the file", content, wrong, key=int):
        with wrong.noting():
            _integer(f"[{number}]", number, 0, len(annotations.labels) - 1, "labels count from 0")
            if not isinstance(of_label, (list, tuple)):
                invalid(f"[{number}]", f"found {_kind(of_label)}", "it is a list of tubes")
            for i, tube in enumerate(of_label):
                with wrong.noting():
                    rows.append(_detected_tube(f"[{number}][{i}]", tube))
                    video.append(videos.setdefault(str(tube[0]), len(videos)))
                    label.append(int(number))
                    score.append(float(tube[1]))
    wrong.refuse()
    table = np.concatenate(rows)
    return Tubes(
        tuple(videos),
        np.array(video, np.int64),
        np.array(label, np.int64),
        np.array(score, np.float64),
        np.repeat(np.arange(len(label)), [len(tube) for tube in rows[1:]]),
        table[:, 0].astype(np.int64),
        table[:, 1:],
    )


def _detected_tube(where: str, tube: Any) -> Floats:
    """The rows of a detected tube, (N, 5), checked."""
    if not isinstance(tube, (list, tuple)) or len(tube) != 3 or not isinstance(tube[0], str):
        invalid(where, f"found {_shown(tube)}", "a tube is its video, its score and its rows")
    if isinstance(tube[1], bool) or not isinstance(tube[1], (int, float, np.number)):
        invalid(where, f"its score is {_shown(tube[1])}", "a number is needed")
    if not math.isfinite(float(tube[1])):
        invalid(where, f"its score is {tube[1]}", "a finite number is needed; was it 0 / 0?")
    boxes = _as_array(tube[2])
    if isinstance(boxes, np.ndarray) and boxes.ndim == 2 and boxes.shape[1] == 6:
        boxes = boxes[:, :5]
    return _tube(where, boxes, "xyxy")


def _check_rows(rows: Floats, column: int, bad: Bools, advice: str, wrong: Problems) -> None:
    for row in np.flatnonzero(bad).tolist():
        where = f"row {row}, column {column} ({_COLUMNS[column]})"
        wrong.add(Invalid(f"{where}: found {rows[row, column]:g}", advice))


def _names(where: str, names: object, *, least: int = 1) -> tuple[str, ...]:
    if isinstance(names, np.ndarray) and names.ndim == 1:
        names = names.tolist()
    if not isinstance(names, (list, tuple)) or len(names) < least:
        invalid(where, f"found {_kind(names)}", "it is a list of names")
    for i, name in enumerate(names):
        if not isinstance(name, str):
            invalid(f"{where}[{i}]", f"found {_shown(name)}", "a name is needed")
    if len(set(names)) != len(names):
        repeated = next(name for i, name in enumerate(names) if name in names[:i])
        invalid(where, f"{repeated!r} is listed twice", "every name is listed once")
    return tuple(names)


def _items(where: str, value: object, wrong: Problems, key: type = str) -> Iterator[tuple[Any, Any]]:
    """The entries of a dict whose keys are of a type; what is something else is noted."""
    if not isinstance(value, dict):
        wrong.add(Invalid(f"{where}: found {_kind(value)}", "it is a dict"))
        return
    for name, entry in value.items():
        if isinstance(name, key):
            yield name, entry
        else:
            what = "a video's name" if key is str else "a label index"
            wrong.add(Invalid(f"{where}: its key {_shown(name)} is a {_kind(name)}", f"{what} is needed"))


def _integer(where: str, value: object, least: int, most: int, advice: str = "") -> int:
    plain = isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.size == 1)
    number = value.item() if plain else value  # type: ignore[attr-defined]
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    if not isinstance(number, int) or not least <= number <= most:
        invalid(where, f"found {_shown(value)}", advice or f"a whole number from {least} is needed")
    return number


def _size(where: str, size: object) -> tuple[int, int]:
    if not isinstance(size, (tuple, list, np.ndarray)) or len(size) != 2:
        invalid(where, f"found {_shown(size)}", "it is the pair (height, width)")
    height, width = (_integer(where, side, 1, 10**6) for side in size)
    return height, width


def _shown(value: object) -> str:
    """A value in short; `repr` would not end on maliciously nested lists."""
    short = reprlib.Repr()
    short.maxlevel = 1
    return short.repr(np.asarray(value) if isinstance(value, np.ndarray) else value)


def _kind(value: object) -> str:
    return "array" if isinstance(value, np.ndarray) else type(value).__name__
