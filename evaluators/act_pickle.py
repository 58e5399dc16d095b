"""Annotations of UCF101-24 and JHMDB in ACT's pickle, and detections in MOC's array.

A pickle is a program. This one is run by an unpickler that knows a dozen names, all of them harmless
stand-ins of ours, so that nothing in the file can call anything in Python or in NumPy; whatever
else a file asks for is refused by its name. What comes out is checked against the schema

    labels        [name, ..]                              train_videos, test_videos  [[video, ..], ..]
    gttubes       {video: {label index: [tube, ..]}}      one list per split
    nframes       {video: frames}                         resolution  {video: (height, width)}

with tubes as (N, 5) arrays: frame (from 1), x1, y1, x2, y2 in pixels. Errors say which entry.
"""

import io
import math
import pickle
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn, cast

import numpy as np
from numpy.typing import NDArray

from evaluators.ava_csv import DataFileError, PathLike, read_frame_detections
from evaluators.frame_map import FRAME_LIMIT, Bools, Detections, Floats, TubeTruth

BoxForm = Literal["xyxy", "xywh"]

_COLUMNS = ("video index", "frame", "label", "score", "x1", "y1", "x2", "y2")
_KEYS = ("labels", "gttubes", "nframes", "train_videos", "test_videos", "resolution")
_FEW = 0.01  # share of boxes inside out that may be slips; above it, the columns are something else


class ActFileError(DataFileError):
    """A pickle or array that is not what it should be. The message says where and what to do."""


@dataclass(frozen=True, eq=False)
class ActAnnotations:
    """One annotation file: all videos, and which of them each split trains and tests on.

    `split_truth` takes from it the ground truth that evaluators want.
    """

    path: str
    labels: tuple[str, ...]  # label l of the ground truth is labels[l]
    truth: TubeTruth  # every annotated video; frames count from 1, boxes in pixels
    nframes: dict[str, int]
    resolution: dict[str, tuple[int, int]]  # height, width
    train_videos: tuple[tuple[str, ...], ...]  # per split
    test_videos: tuple[tuple[str, ...], ...]

    @property
    def classes(self) -> dict[int, str]:
        """Label index -> name, as evaluators want them."""
        return dict(enumerate(self.labels))


def read_act(path: PathLike, *, boxes: BoxForm = "xyxy") -> ActAnnotations:
    """Read `UCF101v2-GT.pkl`, `JHMDB-GT.pkl` and their like. Nothing in the file is executed.

    boxes   "xywh" for the corrected-annotation variant, whose columns are x, y, width, height. It
            keeps them in uint8, where x + width overflows; all is widened before any sum.

    Tubes may end after the video does, and a few boxes may be inside out, for the published files
    have such slips and the tools people use count these boxes as never found. So do we.

    FileNotFoundError. ActFileError: not a pickle, one that asks for more than data, or not ACT's
    schema; then the entry is named.
    """
    path = Path(path)
    content = load_plain(path)
    if not isinstance(content, dict):
        _refuse(path, "the file", f"it holds a {_kind(content)}", "ACT's annotations are a dict")
    _check_keys(path, content)
    labels = _names(path, "labels", content["labels"])
    nframes = {
        video: _whole(path, f"nframes[{video!r}]", number, 1, FRAME_LIMIT - 1)
        for video, number in _dict(path, "nframes", content["nframes"]).items()
    }
    resolution = {}
    for video, size in _dict(path, "resolution", content["resolution"]).items():
        where = f"resolution[{video!r}]"
        if not isinstance(size, (tuple, list, np.ndarray)) or len(size) != 2:
            _refuse(path, where, f"found {_shown(size)}", "it is the pair (height, width)")
        resolution[video] = cast(tuple[int, int], tuple(_whole(path, where, side, 1, 10**6) for side in size))
    splits = []
    for key in ("train_videos", "test_videos"):
        lists = content[key]
        if not isinstance(lists, (list, tuple)) or not lists:
            _refuse(path, key, f"found {_kind(lists)}", "it is a list with one list of videos per split")
        splits.append(
            tuple(
                _names(path, f"{key}[{i}]", names, least=int(key == "test_videos"))
                for i, names in enumerate(lists)
            )
        )
    truth = _tubes(path, content["gttubes"], len(labels), boxes)
    for i, names in enumerate(splits[1]):
        for video in names:
            for key, known in (("gttubes", truth.videos), ("nframes", nframes)):
                if video not in content[key]:
                    found = f"video {video!r} of test_videos[{i}] is not among its {len(known)} videos"
                    _refuse(path, key, found, "the file is incomplete; get the whole one")
    return ActAnnotations(str(path), labels, truth, nframes, resolution, splits[0], splits[1])


def split_truth(annotations: ActAnnotations, split: int = 1) -> TubeTruth:
    """The ground truth of a split's test videos, split 1 being the first.

    `videos` is the split's list in the file's order, so that MOC's video indices fit.
    """
    names = split_videos(annotations, split)
    truth = annotations.truth
    number = {name: i for i, name in enumerate(names)}
    new = np.array([number.get(name, -1) for name in truth.videos], dtype=np.int64)
    video = new[truth.video]
    kept = np.flatnonzero(video >= 0)
    kept = kept[np.argsort(video[kept], kind="stable")]
    return TubeTruth(
        names, video[kept], truth.frame[kept], truth.box[kept], truth.label[kept], truth.tube[kept]
    )


def split_videos(annotations: ActAnnotations, split: int) -> tuple[str, ...]:
    """ValueError when there is no such split."""
    count = len(annotations.test_videos)
    if not 1 <= split <= count:
        there = "1" if count == 1 else f"1 to {count}"
        raise ValueError(f"{annotations.path} has no split {split}; its splits are {there}")
    return annotations.test_videos[split - 1]


def read_act_detections(path: PathLike, annotations: ActAnnotations, split: int = 1) -> Detections:
    """Detections on a split's test videos, from an array (.npy, .pkl) or a text file (any other).

    array   MOC's, (M, 8): video index, frame, label, score, x1, y1, x2, y2. The index is into
            `split_videos(annotations, split)`; frames count from 1, labels from 0.
    text    the same eight columns with the video's name for its index; commas, no header. Rows of
            videos outside the split are kept, for the caller to count and drop (`only_videos`).

    FileNotFoundError. DataFileError: with row or line, and field.
    """
    path = Path(path)
    names = split_videos(annotations, split)
    last = _last_frames(annotations)
    if path.suffix.lower() not in (".npy", ".pkl"):
        return read_frame_detections(path, num_labels=len(annotations.labels), last_frames=last)
    rows = _array(path)
    if rows.ndim != 2 or rows.shape[1] != 8:
        advice = f"it is one row per detection: {', '.join(_COLUMNS)}"
        _refuse(path, "the array", f"its shape is {rows.shape} and not (M, 8)", advice)
    if rows.dtype.kind not in "fiu":
        _refuse(path, "the array", f"its dtype is {rows.dtype}", "numbers are needed")
    rows = rows.astype(np.float64)
    for column, name in enumerate(_COLUMNS):
        bad = ~np.isfinite(rows[:, column])
        _check_rows(path, rows, column, bad, f"the {name} must be a finite number; was it 0 / 0?")
    last_frame = np.array([last[name] for name in names], dtype=np.float64)
    for column, least, most, advice in (
        (0, 0, len(names) - 1, f"split {split} has {len(names)} test videos, counted from 0"),
        (1, 1, FRAME_LIMIT - 1, "frames are whole numbers and count from 1"),
        (2, 0, len(annotations.labels) - 1, f"the {len(annotations.labels)} labels count from 0"),
    ):
        value = rows[:, column]
        bad = (value != np.floor(value)) | (value < least) | (value > most)
        _check_rows(path, rows, column, bad, advice)
    video, frame, label = rows[:, :3].astype(np.int64).T
    late = frame > last_frame[video] if len(frame) else np.zeros(0, dtype=np.bool_)
    if late.any():
        i = int(np.argmax(late))
        name = names[video[i]]
        advice = f"{name} ends with frame {last[name]}; does the array belong to split {split}?"
        _check_rows(path, rows, 1, late, advice)
    return Detections(names, video, frame, rows[:, 4:], label, rows[:, 3])


def only_videos(found: Detections, videos: tuple[str, ...]) -> tuple[Detections, int]:
    """The detections in these videos, and how many were in others."""
    number = {name: i for i, name in enumerate(videos)}
    new = np.array([number.get(name, -1) for name in found.videos], dtype=np.int64)
    video = new[found.video]
    kept = np.flatnonzero(video >= 0)
    rows = Detections(
        videos, video[kept], found.frame[kept], found.box[kept], found.label[kept], found.score[kept]
    )
    return rows, len(video) - len(kept)


def load_plain(path: PathLike) -> Any:
    """Unpickle plain data: containers, numbers, text, and NumPy arrays and scalars of numbers.

    Text that Python 2 wrote is read as Latin-1. ActFileError: whatever else the file asks for, and
    a file that is damaged or no pickle. FileNotFoundError.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: there is no such file; check the path") from None
    except OSError as error:
        raise ActFileError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        return _PlainUnpickler(io.BytesIO(data), encoding="latin1").load()
    except _Refused as refused:
        advice = "annotations are plain data; the file is something else, or not to be trusted"
        raise ActFileError(f"{path}: the pickle asks for {refused}; {advice}") from None
    except MemoryError:
        raise ActFileError(f"{path}: the pickle asks for more memory than there is; it is damaged") from None
    except Exception as error:  # a damaged pickle may fail in any way, and none of them is ours
        advice = "it is no pickle, or damaged; copy it anew"
        raise ActFileError(f"{path}: cannot be unpickled ({error}); {advice}") from error


# --- the unpickler -------------------------------------------------------------------------------


class _Refused(Exception):
    """What the pickle asked for, in words."""


class _Dtype:
    """Stands in for numpy.dtype: a number type by its code, such as 'f4'. Its state is the byte order."""

    def __init__(self, code: object, *_: object) -> None:
        self.code = code.decode("ascii", "replace") if isinstance(code, bytes) else code
        self.order = "="
        # A code is read here and never by NumPy before it is known to be a number's.
        if not isinstance(self.code, str) or self.code.lstrip("<>=|") not in _NUMBER_CODES:
            raise _Refused(f"an array of dtype {self.code!r:.40}, which is not a number's")

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "=", "|"):
            raise _Refused("a dtype in an unknown state")
        self.order = state[1]

    @property
    def real(self) -> np.dtype[Any]:
        dtype = np.dtype(cast(str, self.code))
        return dtype if self.order in "=|" else dtype.newbyteorder(cast(Literal["<", ">"], self.order))


_SIZED = [kind + size for kind in "iu" for size in "1248"]
_NUMBER_CODES = frozenset([*_SIZED, "b1", "f2", "f4", "f8", *"?bBhHiIlLqQefd"])


class _PlainArray(np.ndarray):
    """Stands in for numpy.ndarray: takes shape, dtype and bytes, and checks that they fit together."""

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise _Refused("an array in an unknown state")
        _, shape, dtype, fortran, raw = state
        values = _from_bytes(raw, dtype, shape, "F" if fortran in (True, 1) else "C")
        checked: Any = (1, values.shape, values.dtype, False, values.tobytes())
        super().__setstate__(checked)


def _from_bytes(raw: object, dtype: object, shape: object, order: object) -> NDArray[Any]:
    raw = raw.encode("latin1") if isinstance(raw, str) else raw  # Python 2's str
    if not isinstance(raw, (bytes, bytearray)):
        raise _Refused("an array of objects, which is not plain data")
    if not isinstance(dtype, _Dtype) or order not in ("C", "F"):
        raise _Refused("an array in an unknown state")
    if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
        raise _Refused("an array of no shape")
    if math.prod(shape) * dtype.real.itemsize != len(raw):
        raise _Refused(f"an array of shape {shape} and {len(raw)} bytes, which do not fit")
    return np.frombuffer(bytes(raw), dtype.real).reshape(shape, order=order)


def _reconstruct(*_: object) -> _PlainArray:
    """Stands in for NumPy's: an empty array that __setstate__ will fill."""
    return np.ndarray.__new__(_PlainArray, (0,))


def _scalar(dtype: object, raw: object) -> Any:
    """Stands in for numpy.core.multiarray.scalar: the bare Python number."""
    return _from_bytes(raw, dtype, (), "C").item()


def _frombuffer(raw: object, dtype: object, shape: object, order: object) -> NDArray[Any]:
    """Stands in for NumPy's way of writing arrays in pickle protocol 5."""
    return _from_bytes(raw, dtype, shape, order)


def _encode(text: object, encoding: object) -> bytes:
    """Stands in for _codecs.encode, by which Python 3 writes bytes for Python 2."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise _Refused(f"_codecs.encode to {encoding!r:.40}")
    return text.encode("latin1")


def _empty_bytes(*arguments: object) -> bytes:
    """Stands in for bytes, which Python 3 calls for b"" where Python 2 is to read it."""
    if arguments:
        raise _Refused("a call of bytes")
    return b""


class _NotCalled:
    """Stands in for a class that is only ever handed to `_reconstruct`."""

    __slots__ = ()


_KNOWN = {
    "_codecs.encode": _encode,
    "numpy.dtype": _Dtype,
    "numpy.ndarray": _NotCalled(),
    "collections.OrderedDict": dict,
    **{
        f"{module}.{name}": stand_in
        for module in ("builtins", "__builtin__")
        for name, stand_in in (("set", set), ("frozenset", frozenset), ("bytes", _empty_bytes))
    },
    **{
        f"numpy.{core}.{name}": stand_in
        for core in ("core", "_core")
        for name, stand_in in (
            ("multiarray._reconstruct", _reconstruct),
            ("multiarray.scalar", _scalar),
            ("numeric._frombuffer", _frombuffer),
        )
    },
}


class _PlainUnpickler(pickle._Unpickler):
    """Python's own, not the C one: that makes room for as many memos as the file says it has."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        name = f"{module_name}.{global_name}"
        if name not in _KNOWN:
            raise _Refused(f"{name!r:.80}")
        return _KNOWN[name]

    def persistent_load(self, pid: object) -> Any:
        raise _Refused("an object outside the file")


# --- the schema ----------------------------------------------------------------------------------


def _check_keys(path: Path, content: dict[Any, Any]) -> None:
    missing = [key for key in _KEYS if key not in content]
    if not missing:
        return
    first = next(iter(content.values()), None)
    if isinstance(first, dict) and "annotations" in first:
        found = "this is the list of corrected annotations (sf, ef, boxes), which has no splits"
        _refuse(path, "the file", found, "use the pickle that ACT and MOC made of it, UCF101v2-GT.pkl")
    there = ", ".join(str(key) for key in list(content)[:6]) or "nothing"
    found = f"it has no {', '.join(missing)}; it has {there[:80]}"
    _refuse(path, "the file", found, "is it ACT's annotation pickle?")


def _tubes(path: Path, gttubes: object, num_labels: int, boxes: BoxForm) -> TubeTruth:
    """All tubes of all videos as rows."""
    videos: list[str] = []
    tubes: list[Floats] = []
    index: list[tuple[int, int]] = []  # per tube: video, label
    for video, of_video in _dict(path, "gttubes", gttubes).items():
        for label, of_label in _dict(path, f"gttubes[{video!r}]", of_video, key=int).items():
            where = f"gttubes[{video!r}][{label}]"
            _whole(path, where, label, 0, num_labels - 1, f"the {num_labels} labels count from 0")
            if not isinstance(of_label, (list, tuple)):
                _refuse(path, where, f"found {_kind(of_label)}", "it is a list of tubes")
            for number, tube in enumerate(of_label):
                tubes.append(_tube(path, f"{where}[{number}]", tube, boxes))
                index.append((len(videos), label))
        videos.append(video)
    sizes = [len(tube) for tube in tubes]
    rows = np.concatenate([np.empty((0, 5)), *tubes])
    video_of, label_of = np.array(index, dtype=np.int64).reshape(-1, 2).T
    if boxes == "xywh":
        rows[:, 3:] += rows[:, 1:3]
    inverted = (rows[:, 1] > rows[:, 3]) | (rows[:, 2] > rows[:, 4])
    if inverted.sum() > _FEW * len(rows):
        found = f"{int(inverted.sum())} of {len(rows)} boxes have x2 < x1 or y2 < y1"
        advice = 'if the columns are x, y, width, height, read the file with boxes "xywh"'
        _refuse(path, "gttubes", found, advice)
    return TubeTruth(
        videos=tuple(videos),
        video=np.repeat(video_of, sizes),
        frame=rows[:, 0].astype(np.int64),
        box=rows[:, 1:],
        label=np.repeat(label_of, sizes),
        tube=np.repeat(np.arange(len(tubes)), sizes),
    )


def _tube(path: Path, where: str, tube: object, boxes: BoxForm) -> Floats:
    """(N, 5) float64, checked."""
    if not isinstance(tube, np.ndarray) or tube.dtype.kind not in "fiu":
        _refuse(path, where, f"found {_kind(tube)}", "a tube is an array of numbers, (N, 5)")
    if tube.ndim != 2 or tube.shape[1] != 5 or not len(tube):
        found = f"its shape is {tube.shape} and not (N, 5)"
        _refuse(path, where, found, "a tube has a row per frame: frame, x1, y1, x2, y2")
    if tube.dtype == np.uint8 and boxes != "xywh":
        found = "it is of uint8, as in the corrected annotations, whose boxes are x, y, width, height"
        _refuse(path, where, found, 'read the file with boxes "xywh"')
    rows = np.asarray(tube, dtype=np.float64)  # before any sum
    if not np.isfinite(rows).all():
        row = int(np.argwhere(~np.isfinite(rows))[0, 0])
        _refuse(path, where, f"row {row} is {rows[row].tolist()}", "finite numbers are needed")
    frame = rows[:, 0]
    wrong = (frame != np.floor(frame)) | (frame < 1) | (frame >= FRAME_LIMIT)
    wrong[1:] |= frame[1:] <= frame[:-1]
    if wrong.any():
        row = int(np.argmax(wrong))
        advice = "frames are whole numbers, count from 1 and rise from row to row"
        _refuse(path, where, f"row {row} is of frame {frame[row]:g}", advice)
    return rows


def _last_frames(annotations: ActAnnotations) -> dict[str, int]:
    """The last frame of each video by its length or its tubes, whichever ends later."""
    truth = annotations.truth
    last = np.zeros(len(truth.videos), dtype=np.int64)
    np.maximum.at(last, truth.video, truth.frame)
    ends = dict(zip(truth.videos, last.tolist(), strict=True))
    return {video: max(number, ends.get(video, 0)) for video, number in annotations.nframes.items()}


def _array(path: Path) -> NDArray[Any]:
    if path.suffix.lower() == ".pkl":
        content = load_plain(path)
        if not isinstance(content, np.ndarray):
            _refuse(
                path, "the file", f"it holds a {_kind(content)}", "MOC's detections are one array, (M, 8)"
            )
        return np.asarray(content)
    try:
        array: NDArray[Any] = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: there is no such file; check the path") from None
    except Exception as error:  # numpy parses the header as Python, which fails in many ways
        advice = "write it with numpy.save, numbers only"
        raise ActFileError(f"{path}: cannot be read as an .npy array ({error}); {advice}") from error
    if not isinstance(array, np.ndarray):
        _refuse(path, "the file", "it is an .npz archive", "write the one array with numpy.save")
    return array


def _check_rows(path: Path, rows: Floats, column: int, wrong: Bools, advice: str) -> None:
    if wrong.any():
        row = int(np.argmax(wrong))
        _refuse(
            path, f"row {row}, column {column} ({_COLUMNS[column]})", f"found {rows[row, column]:g}", advice
        )


def _names(path: Path, where: str, names: object, *, least: int = 1) -> tuple[str, ...]:
    if not isinstance(names, (list, tuple)) or len(names) < least:
        _refuse(path, where, f"found {_kind(names)}", "it is a list of names")
    for i, name in enumerate(names):
        if not isinstance(name, str):
            _refuse(path, f"{where}[{i}]", f"found {_shown(name)}", "a name is needed")
    if len(set(names)) != len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        _refuse(path, where, f"{twice!r} stands there twice", "every name stands there once")
    return tuple(names)


def _dict(path: Path, where: str, value: object, key: type = str) -> Mapping[Any, Any]:
    if not isinstance(value, dict):
        _refuse(path, where, f"found {_kind(value)}", "it is a dict")
    for name in value:
        if not isinstance(name, key):
            what = "a video's name" if key is str else "a label index"
            _refuse(path, where, f"its key {_shown(name)} is a {_kind(name)}", f"{what} is needed")
    return value


def _whole(path: Path, where: str, value: object, least: int, most: int, advice: str = "") -> int:
    number = value.item() if isinstance(value, np.ndarray) and value.size == 1 else value
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    if not isinstance(number, int) or not least <= number <= most:
        _refuse(path, where, f"found {_shown(value)}", advice or f"a whole number from {least} is needed")
    return number


def _shown(value: object) -> str:
    """What stands there, in short; repr would take for ever on lists nested with malice."""
    few = reprlib.Repr()
    few.maxlevel = 1
    return few.repr(np.asarray(value) if isinstance(value, np.ndarray) else value)


def _kind(value: object) -> str:
    return "array" if isinstance(value, np.ndarray) else type(value).__name__


def _refuse(path: Path, where: str, found: str, advice: str) -> NoReturn:
    raise ActFileError(f"{path}, {where}: {found}; {advice}")
