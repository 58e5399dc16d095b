"""AVA's text files and their like, read strictly and written safely.

    ground truth     video,second,x1,y1,x2,y2,action id[,person id]
    detections       video,second,x1,y1,x2,y2,action id,score
    persons          video,second,x1,y1,x2,y2,score      or 8 columns, the action id EMPTY or -1
    frame detections video,frame,label,score,x1,y1,x2,y2        UCF101-24 and JHMDB, boxes in pixels
    exclusions       video,second
    label map        pbtxt: `item { name id }` or `label { name label_id label_type }`

Commas, no header, no quotes, UTF-8; AVA's boxes in [0, 1] of the frame's width and height. Windows line
ends, a byte order mark and blank lines at the end change nothing and are read past. Whatever else
is odd stops with an `AvaFileError` that names file, line and field, what stood there and what to
do: a file read wrongly would still give a number.

Good files take the fast road, Arrow's CSV reader. Its own messages name no line, so a file that it
refuses is split again in Python, and that slow road has the last word. On both, the whole-number
columns stay text until `_whole` reads them, and column 1 stays text for good: a video may be called
007, 1e5, NA, nan or -5KQ66BBWC4.
"""

import os
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NoReturn
from uuid import uuid4

import numpy as np

from evaluators.frame_map import (
    FRAME_LIMIT,
    Bools,
    Detections,
    Floats,
    GroundTruth,
    Ints,
    lookup,
)

PathLike = str | os.PathLike[str]
# A file's columns, left to right, by name: numbers as (N,) float64, text as a pair, its distinct
# values and the (N,) codes of the rows.
Columns = dict[str, Any]

AVA_IDS = range(1, 81)  # the 80 actions of AVA 2.2, evaluated or not

_BOX = ("x1", "y1", "x2", "y2")
_NUMBERS = (*_BOX, "score")
_WRITTEN_AT_ONCE = 1_000_000  # rows of a file: what their columns take stays small

_EXCLUSION = ("video", "second")
_GROUND_TRUTH = ("video", "second", *_BOX, "action id", "person id")
_DETECTION = ("video", "second", *_BOX, "action id", "score")
_PERSON = ("video", "second", *_BOX, "score")
_FRAME_DETECTION = ("video", "frame", "label", "score", *_BOX)

_WHOLE_TEXT = re.compile(r"[ \t]*0*\d{1,18}[ \t]*", re.ASCII)
_NUMBER_TEXT = re.compile(
    r"[ \t]*[+-]?(nan|inf(inity)?|(\d+\.?\d*|\.\d+)(e[+-]?\d+)?)[ \t]*", re.ASCII | re.IGNORECASE
)
_STRING = r'"(?:[^"\\\n]|\\.)*"'
_FIELD = re.compile(rf"(\w+)\s*:\s*({_STRING}|[\w.+-]+)[\s,;]*")
_ENTRY = re.compile(rf"(?:item|label)\s*\{{\s*((?:\w+\s*:\s*(?:{_STRING}|[\w.+-]+)[\s,;]*)*)\}}\s*")
_COMMENT_LINE = re.compile(r"^[ \t]*#.*$", re.MULTILINE)


class DataFileError(ValueError):
    """A file that is not what it should be. The message says where, what was found, what to do."""


class AvaFileError(DataFileError):
    """A text file that is not; named with its line and column."""


def read_label_map(path: PathLike) -> dict[int, str]:
    """Class id -> name, in file order, from either pbtxt form. Fields of other names are ignored.

    FileNotFoundError. AvaFileError: not such a list, an entry without name or id, an id twice.
    """
    path = Path(path)
    text = _COMMENT_LINE.sub("", _decoded(path, _bytes(path)).replace("\r\n", "\n"))
    at = len(text) - len(text.lstrip())
    if at == len(text):
        _refuse(path, None, "the file is empty", "a label map lists the classes to evaluate")
    classes: dict[int, str] = {}
    while at < len(text):
        line = text.count("\n", 0, at) + 1
        entry = _ENTRY.match(text, at)
        if entry is None:
            found = f"cannot read an entry that begins with {text[at : at + 30].splitlines()[0]!r}"
            _refuse(path, line, found, 'write it as `item { name: "stand" id: 12 }`')
        fields: dict[str, str] = dict(_FIELD.findall(entry[1]))
        name = fields.get("name", "")
        number = fields.get("id", fields.get("label_id", ""))
        if not name.startswith('"') or not _WHOLE_TEXT.fullmatch(number):
            found = f"the entry has name {name or 'missing'} and id {number or 'missing'}"
            _refuse(path, line, found, "give it a quoted name and a whole-number id")
        name = re.sub(r"\\(.)", r"\1", name[1:-1])
        if int(number) in classes:
            found = f"id {int(number)} stands for {classes[int(number)]!r} and for {name!r}"
            _refuse(path, line, found, "give every class its own id")
        classes[int(number)] = name
        at = entry.end()
    return classes


def read_exclusions(path: PathLike) -> frozenset[tuple[str, int]]:
    """The (video, second) pairs that are not to be scored; none for an empty file.

    FileNotFoundError. AvaFileError: not two columns, a second that is no whole number.
    """
    path = Path(path)
    data = _bytes(path)
    columns = _columns(path, data, _EXCLUSION, (2,))
    videos, video = _videos(path, data, columns)
    second = _seconds(path, data, columns)
    return frozenset(zip([videos[i] for i in video.tolist()], second.tolist(), strict=True))


def read_annotations(
    path: PathLike, known_ids: Collection[int] | None = None
) -> tuple[GroundTruth, Ints | None]:
    """Ground truth and, where the file has column 8, the person id of each row, (N,) int64.

    known_ids: the action ids a row may have; None allows AVA's own, 1 to 80. Person ids count
    within one video. Rows keep the file's order.

    FileNotFoundError. AvaFileError: the file is empty, or a row breaks the format, has a box that
    leaves [0, 1] or is inverted (x1 >= x2 or y1 >= y2), or an action id that is not known.
    """
    path = Path(path)
    data = _bytes(path)
    columns = _columns(path, data, _GROUND_TRUTH, (7, 8))
    if len(columns["x1"]) == 0:
        _refuse(path, None, "the file is empty", "ground truth needs one row per (box, action)")
    videos, video = _videos(path, data, columns)
    second = _seconds(path, data, columns)
    box = _numbers(path, data, columns, _BOX)
    for i, name in enumerate(_BOX):
        outside = (box[:, i] < 0) | (box[:, i] > 1)
        _check(path, data, columns, outside, name, "box coordinates lie in [0, 1], not in pixels")
    label = _action_ids(path, data, columns, known_ids)
    for low, high in ((0, 2), (1, 3)):
        advice = f"a box needs {_BOX[low]} < {_BOX[high]}; correct or delete the row"
        _check(path, data, columns, box[:, low] >= box[:, high], _BOX[high], advice)
    person = None
    if "person id" in columns:
        advice = "column 8 of ground truth is the person id; of detections, the score"
        person = _whole(path, data, columns, "person id", advice)
    return GroundTruth(videos, video, second, box, label), person


def read_groundtruth(path: PathLike, known_ids: Collection[int] | None = None) -> GroundTruth:
    """`read_annotations` for those who do not need the person ids."""
    return read_annotations(path, known_ids)[0]


def read_detections(path: PathLike, known_ids: Collection[int] | None = None) -> Detections:
    """Detections, 8 columns, the last the score; an empty file is no detections.

    Rows keep the file's order, which the `slowfast` protocol reads. Boxes may leave [0, 1] or be
    inverted: they are kept here, and scoring decides. known_ids as in `read_annotations`.

    FileNotFoundError. AvaFileError: a row breaks the format or has an unknown action id.
    """
    path = Path(path)
    data = _bytes(path)
    columns = _columns(path, data, _DETECTION, (8,))
    videos, video = _videos(path, data, columns)
    second = _seconds(path, data, columns)
    box = _numbers(path, data, columns, _BOX)
    label = _action_ids(path, data, columns, known_ids)
    score = _numbers(path, data, columns, ("score",))[:, 0]
    return Detections(videos, video, second, box, label, score)


def read_persons(path: PathLike) -> Detections:
    """Person boxes, score p(person); labels are all 0. An empty file is no persons.

    Reads the 7 columns that `write_persons` writes, and the 8 of AVA's public person-box files,
    whose action id is empty or -1.

    FileNotFoundError. AvaFileError: a row breaks the format, or has an action.
    """
    path = Path(path)
    data = _bytes(path)
    public = data[: _first_line_end(data)].count(b",") == 7
    columns = _columns(path, data, _DETECTION if public else _PERSON, (8,) if public else (7,))
    if public:
        texts, codes = columns["action id"]
        # Empty in the files of boxes and labels, -1 in those of predicted boxes.
        acting = np.array([text.strip() not in ("", "-1") for text in texts], dtype=np.bool_)[codes]
        advice = "person boxes have no action; if this is a detections file, use read_detections"
        _check(path, data, columns, acting, "action id", advice)
    videos, video = _videos(path, data, columns)
    second = _seconds(path, data, columns)
    box = _numbers(path, data, columns, _BOX)
    score = _numbers(path, data, columns, ("score",))[:, 0]
    return Detections(videos, video, second, box, np.zeros(len(video), np.int64), score)


def read_frame_detections(
    path: PathLike,
    *,
    num_labels: int | None = None,
    last_frames: Mapping[str, int] | None = None,
) -> Detections:
    """Detections of UCF101-24 and JHMDB, 8 columns; an empty file is no detections.

    Frames count from 1 and labels from 0. num_labels, and last_frames by video, are how far they
    may go; videos that last_frames does not name are read all the same, for the caller to judge.

    FileNotFoundError. AvaFileError: a row breaks the format or goes too far.
    """
    path = Path(path)
    data = _bytes(path)
    columns = _columns(path, data, _FRAME_DETECTION, (8,))
    videos, video = _videos(path, data, columns)
    frame = _whole(path, data, columns, "frame", "frames are whole numbers and count from 1", FRAME_LIMIT)
    _check(path, data, columns, frame < 1, "frame", "frames are whole numbers and count from 1")
    label = _whole(path, data, columns, "label", "labels are whole numbers and count from 0")
    if num_labels is not None:
        advice = f"the {num_labels} labels count from 0"
        _check(path, data, columns, label >= num_labels, "label", advice)
    if last_frames is not None:
        last = np.array([last_frames.get(name, FRAME_LIMIT) for name in videos], dtype=np.int64)
        late = frame > last[video]
        if late.any():
            name = videos[video[np.argmax(late)]]
            _check(path, data, columns, late, "frame", f"{name} ends with frame {last_frames[name]}")
    box = _numbers(path, data, columns, _BOX)
    score = _numbers(path, data, columns, ("score",))[:, 0]
    return Detections(videos, video, frame, box, label, score)


def write_detections(path: PathLike, detections: Detections) -> None:
    """Write the 8 columns, highest score first; equal scores keep their order.

    PySlowFast's tool lets the FILE order inside a frame claim boxes; written surest first, it
    gives the standard number. The sort is over the whole file and stable, so ties too stand as
    before, and reading the file back scores exactly as `detections` did.

    Numbers have the digits that reading them back to the same float64 needs (so float32 values
    come back exactly, too). The file appears whole or not at all, replacing an older one.

    ValueError: a video name the format cannot hold, or an action id below 0. OSError: no such
    folder, disk full; an older file then stands untouched.
    """
    wrong = np.flatnonzero(detections.label < 0)
    if len(wrong):
        raise ValueError(f"detection row {wrong[0]} has action id {detections.label[wrong[0]]}")
    _write(path, detections, _DETECTION)


def write_frame_detections(path: PathLike, detections: Detections) -> None:
    """Write the 8 columns of UCF101-24 and JHMDB; order, digits, safety as in `write_detections`.

    ValueError: a video name the format cannot hold, or a label below 0.
    """
    wrong = np.flatnonzero(detections.label < 0)
    if len(wrong):
        raise ValueError(f"detection row {wrong[0]} has label {detections.label[wrong[0]]}")
    _write(path, detections, _FRAME_DETECTION)


def write_persons(path: PathLike, persons: Detections) -> None:
    """Write the 7 columns, without labels; order, digits, safety as in `write_detections`."""
    _write(path, persons, _PERSON)


# --- from bytes to columns -----------------------------------------------------------------------


def _bytes(path: Path) -> bytes:
    """The file without byte order mark and without blank lines at the end."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: there is no such file; check the path") from None
    except OSError as error:
        raise AvaFileError(f"{path}: cannot be read ({error.strerror})") from error
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        _refuse(path, 1, "the text is UTF-16, not UTF-8", "save the file as UTF-8")
    return data.removeprefix(b"\xef\xbb\xbf").rstrip()


def _columns(path: Path, data: bytes, names: tuple[str, ...], widths: tuple[int, ...]) -> Columns:
    """Split a file into its columns, by the fast road if that goes.

    names: of the columns, left to right; widths: how many of them a file may have. All rows of a
    file have the width of its first, and row i is line i + 1.
    """
    first = data[: _first_line_end(data)].decode("utf-8", "replace").split(",")
    if len(first) > 1 and all(field.strip(' \t"')[:1].isalpha() for field in first[1:]):
        found = f"{','.join(first)[:80]!r} looks like a header"
        _refuse(path, 1, found, "the format has none: delete the line")
    if data and len(first) in widths:
        columns = _fast_columns(data, names[: len(first)])
        if columns is not None:
            return columns
    return _slow_columns(path, data, names, widths)


def _fast_columns(data: bytes, names: tuple[str, ...]) -> Columns | None:
    """Arrow's reading, or None where it refuses. It reads no number that the slow road does not."""
    pa, csv = _arrow()
    text = pa.dictionary(pa.int32(), pa.utf8())
    # In Arrow's own memory: one of its threads may let go of the text last, and while the interpreter
    # ends, a thread that lets go of a Python object aborts the process.
    own = pa.allocate_buffer(len(data))
    np.frombuffer(own, np.uint8)[:] = np.frombuffer(data, np.uint8)
    try:
        table = csv.read_csv(
            pa.BufferReader(own),
            read_options=csv.ReadOptions(column_names=names),
            parse_options=csv.ParseOptions(quote_char=False, double_quote=False, ignore_empty_lines=False),
            convert_options=csv.ConvertOptions(
                column_types={name: pa.float64() if name in _NUMBERS else text for name in names},
                null_values=[],  # NA is a video like any other
                strings_can_be_null=False,
            ),
        )
    except pa.ArrowInvalid:
        return None
    columns: Columns = {}
    for name in names:
        column = table[name]
        table = table.drop_columns(name)  # and with it the memory: files have gigabytes
        if name in _NUMBERS:
            columns[name] = column.to_numpy()
        else:
            whole = column.unify_dictionaries().combine_chunks()
            codes = whole.indices.to_numpy().astype(np.int64)
            columns[name] = (whole.dictionary.to_pylist(), codes)
            del whole
        del column
    pa.default_memory_pool().release_unused()
    return columns


def _slow_columns(path: Path, data: bytes, names: tuple[str, ...], widths: tuple[int, ...]) -> Columns:
    """The same line by line: stops at the first line that cannot be split and read."""
    rows = []
    width = widths[-1]
    for line, raw in enumerate(data.splitlines(), 1):
        text = _decoded(path, raw, line)
        fields = text.split(",")
        if line == 1 and len(fields) in widths:
            width = len(fields)
        if not text.strip():
            _refuse(path, line, "the line is empty", "delete it")
        if len(fields) != width:
            wanted = f"{width}, as line 1 has" if line > 1 else " or ".join(map(str, widths))
            advice = f"separate {','.join(names[:width])} by commas"
            if '"' in text:
                advice += " and leave out the quotes"
            plural = "s" if len(fields) > 1 else ""
            _refuse(path, line, f"found {len(fields)} column{plural} instead of {wanted}", advice)
        for name, field in zip(names, fields, strict=False):
            if name in _NUMBERS and not _NUMBER_TEXT.fullmatch(field):
                _refuse_field(path, line, names.index(name), name, field, "a number is needed")
        rows.append(fields)

    columns: Columns = {}
    for i, name in enumerate(names[:width]):
        values = [row[i] for row in rows]
        if name in _NUMBERS:
            columns[name] = np.array([float(value) for value in values], dtype=np.float64)
        else:
            code = {text: i for i, text in enumerate(dict.fromkeys(values))}
            columns[name] = (list(code), np.array([code[text] for text in values], dtype=np.int64))
    return columns


def _arrow() -> tuple[Any, Any]:
    """pyarrow and its csv module, imported at the first file: `import evaluators` stays quick."""
    import pyarrow  # type: ignore[import-untyped]
    import pyarrow.csv  # type: ignore[import-untyped]

    return pyarrow, pyarrow.csv


def _first_line_end(data: bytes) -> int:
    ends = (data.find(end) for end in (b"\n", b"\r"))
    return min((end for end in ends if end >= 0), default=len(data))


def _decoded(path: Path, raw: bytes, line: int = 1) -> str:
    """UTF-8 text that begins at a line of the file."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line += raw.count(b"\n", 0, error.start)
        found = f"the byte 0x{raw[error.start]:02x} is not UTF-8"
        _refuse(path, line, found, "save the file as UTF-8")


# --- from columns to checked arrays --------------------------------------------------------------


def _videos(path: Path, data: bytes, columns: Columns) -> tuple[tuple[str, ...], Ints]:
    """The video names and each row's index into them."""
    names, codes = columns["video"]
    bad = np.array([not _is_name(name) for name in names], dtype=np.bool_)[codes]
    advice = "a video needs a name, without quotes, control characters or spaces around it"
    _check(path, data, columns, bad, "video", advice)
    return tuple(names), codes


def _whole(path: Path, data: bytes, columns: Columns, name: str, advice: str, limit: int = 10**18) -> Ints:
    """A text column as whole numbers, 0 to limit - 1; each distinct text is read once."""
    texts, codes = columns[name]
    values = [int(text) if _WHOLE_TEXT.fullmatch(text) else -1 for text in texts]
    value: Ints = np.array([v if v < limit else -1 for v in values], dtype=np.int64)[codes]
    _check(path, data, columns, value < 0, name, advice)
    return value


def _seconds(path: Path, data: bytes, columns: Columns) -> Ints:
    advice = "the second is a whole number, such as 0902"
    return _whole(path, data, columns, "second", advice, FRAME_LIMIT)


def _action_ids(path: Path, data: bytes, columns: Columns, known_ids: Collection[int] | None) -> Ints:
    texts, codes = columns["action id"]
    empty = np.array([not text.strip() for text in texts], dtype=np.bool_)[codes]
    advice = "this looks like a person-box file; those are read with read_persons"
    _check(path, data, columns, empty, "action id", advice)
    known = AVA_IDS if known_ids is None else known_ids
    label = _whole(path, data, columns, "action id", "an action id is a whole number, such as 12")
    ids = np.array(sorted(known), dtype=np.int64)
    listed = f"{ids[0]} to {ids[-1]}" if len(ids) else "none"
    if len(ids) and ids[-1] - ids[0] != len(ids) - 1:
        listed = ", ".join(map(str, ids[:5].tolist())) + (", .." if len(ids) > 5 else "")
    advice = f"the known action ids are {listed}; ids count from 1, not from 0"
    _check(path, data, columns, lookup(ids, label) < 0, "action id", advice)
    return label


def _numbers(path: Path, data: bytes, columns: Columns, names: tuple[str, ...]) -> Floats:
    """Number columns side by side, (N, K), all finite."""
    for name in names:
        bad = ~np.isfinite(columns[name])
        _check(path, data, columns, bad, name, "a finite number is needed; was it 0 / 0?")
    return np.stack([columns[name] for name in names], axis=1)


def _is_name(name: str) -> bool:
    """Whether a video name survives a trip through a file."""
    return bool(name) and name.isprintable() and name == name.strip() and not set(name) & set(',"')


def _check(path: Path, data: bytes, columns: Columns, wrong: Bools, name: str, advice: str) -> None:
    """Stop at the first wrong row, with the text that stands there in the column."""
    if wrong.any():
        row, column = int(np.argmax(wrong)), list(columns).index(name)
        field = data.splitlines()[row].decode("utf-8").split(",")[column]
        _refuse_field(path, row + 1, column, name, field, advice)


def _refuse_field(path: Path, line: int, column: int, name: str, field: str, advice: str) -> NoReturn:
    if '"' in field:
        advice = "the format has no quotes: write the bare value"
    found = f"found {field[:60]!r}" if field else "the field is empty"
    _refuse(path, f"{line}, column {column + 1} ({name})", found, advice)


def _refuse(path: Path, line: int | str | None, found: str, advice: str) -> NoReturn:
    where = f"{path}, line {line}" if line else f"{path}"
    raise AvaFileError(f"{where}: {found}; {advice}")


# --- writing -------------------------------------------------------------------------------------


def _write(path: PathLike, rows: Detections, names: tuple[str, ...]) -> None:
    pa, csv = _arrow()
    for name in rows.videos:
        if not _is_name(name):
            raise ValueError(f"the video name {name!r} cannot stand in an AVA csv file")
    order = np.argsort(-rows.score, kind="stable")
    plain = csv.WriteOptions(include_header=False, quoting_style="none")
    with replacing(path) as file:
        for first in range(0, len(order), _WRITTEN_AT_ONCE):
            some = order[first : first + _WRITTEN_AT_ONCE]
            seconds, second = np.unique(rows.frame[some], return_inverse=True)
            columns = {
                "video": _texts(list(rows.videos), rows.video[some]),
                "second": _texts([f"{s:04d}" for s in seconds.tolist()], second),
                "frame": pa.array(rows.frame[some]),
                **{name: pa.array(rows.box[some, i]) for i, name in enumerate(_BOX)},
                "action id": pa.array(rows.label[some]),
                "label": pa.array(rows.label[some]),
                "score": pa.array(rows.score[some]),
            }
            csv.write_csv(pa.table({name: columns[name] for name in names}), file, plain)


@contextmanager
def replacing(path: PathLike) -> Iterator[IO[bytes]]:
    """A file to write that takes the place of `path` when all is well, and is gone when it is not."""
    path = Path(path)
    # In the same folder, or the rename would be a copy; its own name, or two runs would share it.
    part = path.with_name(f".{path.name}.{uuid4().hex[:12]}.part")
    try:
        with open(part, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)  # after the rename there is nothing left under this name


def _texts(texts: list[str], index: Ints) -> Any:
    """One text per row as an Arrow column."""
    pa, _ = _arrow()
    coded = pa.DictionaryArray.from_arrays(pa.array(index), pa.array(texts, pa.utf8()))
    return coded.cast(pa.utf8())
