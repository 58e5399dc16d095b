"""Read AVA's text files and similar ones strictly, and write them atomically.

    ground truth     video,second,x1,y1,x2,y2,action id[,person id]      or video,second: nobody is there
    detections       video,second,x1,y1,x2,y2,action id,score
    persons          video,second,x1,y1,x2,y2,score      or 8 columns, the action id EMPTY or -1
    frame detections video,frame,label,score,x1,y1,x2,y2        UCF101-24 and JHMDB, boxes in pixels
    exclusions       video,second
    label map        pbtxt: `item { name id }` or `label { name label_id label_type }`; or a list of names

A second may have decimals, as AVA-Kinetics' have, and counts as the whole number below, as in ActivityNet's
tool. Commas, no quotes, UTF-8; AVA's boxes in [0, 1] of the frame's width and height, of ground truth up to
OUTSIDE beyond it. Windows line ends, a byte order mark, blank lines at the end and a first line that names
the columns, of which the first is the video, are accepted. Anything else unusual raises
an `AvaFileError` that names file, line, field, value and what to do: a file read wrongly would
still give a number.

Valid files are parsed by Arrow's CSV reader: whole numbers as such, and if that fails, as text that
`_Table.integers` parses. Its messages name no line, so a file that it rejects twice is parsed again in
Python, which decides. Column 1 stays text: a video may be called 007, 1e5, NA, nan or -5KQ66BBWC4.
"""

import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import IO, Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from evaluators.files import (
    MOST_TOLD,
    DataFileError,
    Invalid,
    PathLike,
    Problems,
    atomic_write,
    decode,
    open_data,
)
from evaluators.frame_map import FRAME_LIMIT, Detections, GroundTruth
from evaluators.matching import Bools, Floats, Ints, lookup

AVA_IDS = range(1, 81)  # the 80 actions of AVA 2.2, evaluated or not

OUTSIDE = 0.1
"""How far a box of ground truth may leave the frame: annotation tools draw a hair outside it. Such boxes are
scored as they are, as the public tools do. What is further out are pixels, or a slip."""
NOBODY = -1
"""The label of ground truth's rows of two columns: keyframes without a person, where detections are false."""
COLUMN_NAMES = {
    "video": {"video", "video_id", "videoid", "video_name", "vid", "video_path", "filename", "movie"},
    "second": {"second", "seconds", "sec", "timestamp", "time", "ts", "middle_frame_timestamp"},
    "frame": {"frame", "frame_id", "frame_number"},
    "x1": {"x1", "xmin", "x_min", "left"},
    "y1": {"y1", "ymin", "y_min", "top"},
    "x2": {"x2", "xmax", "x_max", "right"},
    "y2": {"y2", "ymax", "y_max", "bottom"},
    "action id": {"action_id", "action", "label", "label_id", "class", "class_id", "category", "category_id"},
    "label": {"label", "label_id", "action", "action_id", "class", "class_id", "category", "category_id"},
    "person id": {"person_id", "person", "entity_id", "actor_id", "actor", "track_id", "track"},
    "score": {"score", "confidence", "conf", "prob", "probability"},
}
"""What a line of headings calls each column; the first must be the video."""

_BOX = ("x1", "y1", "x2", "y2")
_NUMBERS = (*_BOX, "score")
_MARK = b"\xef\xbb\xbf"  # the byte order mark of UTF-8
_BLOCK = 2**20  # bytes that are looked at at a time
_ROWS_PER_WRITE = 1_000_000  # bounds the memory of the columns being written

_EXCLUSION = ("video", "second")
_GROUND_TRUTH = ("video", "second", *_BOX, "action id", "person id")
_DETECTION = ("video", "second", *_BOX, "action id", "score")
_PERSON = ("video", "second", *_BOX, "score")
_FRAME_DETECTION = ("video", "frame", "label", "score", *_BOX)

_INTEGER = re.compile(r"[ \t]*0*(\d{1,18})(?:\.0*)?[ \t]*", re.ASCII)
_SECOND = re.compile(r"[ \t]*0*(\d{1,18})(\.\d*)?[ \t]*", re.ASCII)
_NUMBER = re.compile(
    r"[ \t]*[+-]?(nan|inf(inity)?|(\d+\.?\d*|\.\d+)(e[+-]?\d+)?)[ \t]*", re.ASCII | re.IGNORECASE
)
_STRING = r""""(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'"""
_GAP = re.compile(r"(?:\s|#[^\n]*)*")
_OPENING = re.compile(r"(?:item|label)\s*:?\s*[{<]")
_FIELD = re.compile(rf"(\w+)\s*:\s*({_STRING}|[\w.+-]+)[\s,;]*")
_NUMBERED = re.compile(r"(\d+)\s*[ \t:,.)]\s*(\S.*)")
_NUMBER_LAST = re.compile(r"(\S.*?)\s*[\t:,]\s*(\d+)")
_ESCAPE = re.compile(r"\\(?:([0-7]{1,3})|x([0-9a-fA-F]{1,2})|(.))")
_NO_NAME = re.compile(r""",[\d.]+,|\b(?:display_name|name|id|label_id)\s*:|^(?:item|label)$""")
"""In a line that is no name of a list: a row of a csv, or protobuf text whose braces are lost."""


class AvaFileError(DataFileError):
    """An invalid text file. The message names line and column."""


def read_label_map(path: PathLike) -> dict[int, str]:
    """Read class id -> name, in file order, from protobuf text in either form, or a plain list of names.

    Of an item's names display_name counts before name. Strings may have single quotes, comments stand
    anywhere, other fields are ignored. A plain list has a name a line, of the ids 1, 2, ..., or `12 stand`,
    `12: stand`, `12. stand` or `stand,12` in every line.

    FileNotFoundError. AvaFileError: not a label map, an entry without name or id, a repeated id or name.
    """
    path = Path(path)
    with _open(path) as file:
        data = file.read()
    text = decode(path, data, AvaFileError).rstrip().replace("\r\n", "\n")
    at = _after_gap(text, 0)
    if at == len(text):
        _fail(path, None, "the file is empty", "a label map lists the classes to evaluate")
    if "{" not in text and "<" not in text and (listed := _plain_list(text)):
        entries = listed
    else:
        entries = list(_items(path, text, at))
    classes: dict[int, str] = {}
    ids: dict[str, int] = {}
    wrong = _Wrong(path)
    for line, number, name in entries:
        if number in classes:
            found = f"id {number} stands for {classes[number]!r} and for {name!r}"
            wrong.add(line, 0, "", found, "give every class its own id")
        elif name in ids:
            found = f"{name!r} has the ids {ids[name]} and {number}"
            wrong.add(line, 0, "", found, "give every class its own name, or one id to all of its rows")
        classes[number] = name
        ids.setdefault(name, number)
    wrong.refuse()
    return classes


def _after_gap(text: str, at: int) -> int:
    """Where the next word begins, behind spaces and comments."""
    gap = _GAP.match(text, at)
    return gap.end() if gap else at


def _items(path: Path, text: str, at: int) -> Iterator[tuple[int, int, str]]:
    """The line, id and name of each entry of protobuf text, of which the first begins at `at`."""
    while at < len(text):
        line, begin = text.count("\n", 0, at) + 1, at
        fields: dict[str, str] = {}
        opening = _OPENING.match(text, at)
        at = opening.end() if opening else at
        while opening:
            at = _after_gap(text, at)
            if text[at : at + 1] in ("}", ">"):
                at = _after_gap(text, at + 1)
                break
            opening = _FIELD.match(text, at)
            if opening:
                fields[opening[1]] = opening[2]
                at = opening.end()
        if opening is None:
            found = f"cannot read an entry that begins with {text[begin : begin + 30].splitlines()[0]!r}"
            _fail(path, line, found, 'write it as `item { name: "stand" id: 12 }`')
        name = fields.get("display_name", fields.get("name", ""))
        number = fields.get("id", fields.get("label_id", ""))
        if name[:1] not in ('"', "'") or not _INTEGER.fullmatch(number):
            found = f"the entry has name {name or 'missing'} and id {number or 'missing'}"
            _fail(path, line, found, "give it a quoted name and a whole-number id")
        yield line, int(number.split(".")[0]), _unescaped(name[1:-1])


def _unescaped(text: str) -> str:
    """A string of protobuf text without its escapes, of which octal ones are bytes of UTF-8."""
    control = {"n": "\n", "t": "\t", "r": "\r"}

    def one(match: re.Match[str]) -> str:
        if match[3] is not None:
            return control.get(match[3], match[3])
        return bytes([int(match[1], 8) % 256 if match[1] else int(match[2], 16)]).decode("latin-1")

    if "\\" not in text:
        return text
    # Bytes as characters, so that several escapes make one character.
    raw = _ESCAPE.sub(one, text.encode("utf-8").decode("latin-1"))
    return raw.encode("latin-1").decode("utf-8", "replace")


def _plain_list(text: str) -> list[tuple[int, int, str]]:
    """The line, id and name of each line of a list; [] for text that is none, such as a csv."""
    lines = [(line, name.strip()) for line, name in enumerate(text.splitlines(), 1)]
    lines = [
        (line, name.removeprefix("- ").strip()) for line, name in lines if name and not name.startswith("#")
    ]
    last = [_NUMBER_LAST.fullmatch(name) for _, name in lines]
    if lines and all(last):  # stand,12 in every line
        lines = [
            (line, f"{match[2]} {match[1]}") for (line, _), match in zip(lines, last, strict=True) if match
        ]
    numbered = [_NUMBERED.fullmatch(name) for _, name in lines]
    names = [match[2] if match else name for match, (_, name) in zip(numbered, lines, strict=True)]
    names = [
        name[1:-1] if len(name) > 2 and name[0] == name[-1] and name[0] in "\"'" else name for name in names
    ]
    if any(_NO_NAME.search(name) or not re.search(r"[^\W\d_]", name) for name in names):
        return []
    numbers = [int(match[1]) for match in numbered if match] or list(range(1, 1 + len(lines)))
    if len(numbers) < len(lines):  # some have a number
        return []
    return [(line, number, name) for (line, _), number, name in zip(lines, numbers, names, strict=True)]


def read_exclusions(path: PathLike) -> frozenset[tuple[str, int]]:
    """Read the excluded (video, second) pairs; none for an empty file.

    FileNotFoundError. AvaFileError: not two columns, a second that is not a whole number.
    """
    table = _read(path, _EXCLUSION, (2,))
    videos, video = table.videos()
    seconds = table.seconds().tolist()
    table.refuse()
    return frozenset(zip([videos[i] for i in video.tolist()], seconds, strict=True))


def read_annotations(
    path: PathLike, known_ids: Collection[int] | None = None
) -> tuple[GroundTruth, Ints | None]:
    """Read ground truth and, where the file has column 8, the person id of each row, (N,) int64.

    known_ids: the action ids a row may have; None allows AVA's own, 1 to 80. Person ids are unique
    within one video. Rows keep the file's order.

    A person id of -1 is nobody's in particular. A row of two columns is a keyframe without a person: it comes
    behind the others, with label NOBODY and the whole frame as its box. Boxes may leave [0, 1] by up to
    OUTSIDE and stay as they are: `outside` counts them.

    FileNotFoundError. AvaFileError: the file is empty, or a row is malformed, has a box that leaves [0, 1] by
    more, that lies beyond the frame, or is inverted or empty (x1 >= x2 or y1 >= y2), or an unknown action id.
    """
    table, empty = _read_with_empty_keyframes(Path(path))
    if len(table.columns["x1"]) == 0:
        _fail(table.path, None, "the file is empty", "ground truth needs one row per (box, action)")
    videos, video = table.videos()
    second = table.seconds()
    box = table.floats(_BOX)
    for i, name in enumerate(_BOX):
        far = (box[:, i] < -OUTSIDE) | (box[:, i] > 1 + OUTSIDE)
        table.check(far, name, "box coordinates are fractions of the frame, in [0, 1], not pixels")
    label = table.action_ids(known_ids)
    inverted = (box[:, 0] >= box[:, 2]) | (box[:, 1] >= box[:, 3])
    widths = inverted.mean() > 0.02 and (box[:, :2] + box[:, 2:] <= 1 + OUTSIDE).all()
    for low, high in ((0, 2), (1, 3)):
        advice = f"a box needs {_BOX[low]} < {_BOX[high]}; correct or delete the row"
        if widths:
            advice += (
                f" ({inverted.mean():.0%} of the rows are so; read as x,y,width,height none would be, and "
                "all boxes lie in the frame)"
            )
        empty_side = box[:, low] >= box[:, high]
        table.check(empty_side, _BOX[high], advice)
        beyond = ~empty_side & ((box[:, low] >= 1) | (box[:, high] <= 0))
        table.check(beyond, _BOX[low], "the box lies beyond the frame; correct or delete the row")
    person = None
    if "person id" in table.columns:
        advice = "column 8 of ground truth is the person id; of detections, the score"
        person = table.integers("person id", advice, least=-1)
    table.refuse()
    people = GroundTruth(videos, video, second, box, label)
    if empty is None:
        return people, person
    return _with_empty_keyframes(people, empty), None if person is None else np.append(
        person, np.full(len(empty.seconds()), -1)
    )


def _with_empty_keyframes(people: GroundTruth, empty: "_Table") -> GroundTruth:
    """Ground truth with a row of NOBODY for each (video, second) of the table."""
    names, code = empty.videos()
    second = empty.seconds()
    empty.refuse()
    videos = tuple(dict.fromkeys((*people.videos, *names)))
    number = {name: i for i, name in enumerate(videos)}
    return GroundTruth(
        videos,
        np.append(people.video, np.array([number[name] for name in names], np.int64)[code]),
        np.append(people.frame, second),
        np.concatenate([people.box, np.tile([0.0, 0.0, 1.0, 1.0], (len(second), 1))]),
        np.append(people.label, np.full(len(second), NOBODY)),
    )


def outside(ground_truth: GroundTruth) -> tuple[int, float]:
    """-> how many boxes of AVA's ground truth leave the frame, and by how much at most."""
    beyond = np.maximum(-ground_truth.box, ground_truth.box - 1).max(1, initial=0.0)
    return int((beyond > 0).sum()), float(beyond.max(initial=0.0))


def read_groundtruth(path: PathLike, known_ids: Collection[int] | None = None) -> GroundTruth:
    """Read ground truth without the person ids; arguments and errors as `read_annotations`."""
    return read_annotations(path, known_ids)[0]


def read_detections(path: PathLike, known_ids: Collection[int] | None = None) -> Detections:
    """Read detections, 8 columns, the last the score; an empty file has none.

    Rows keep the file's order, which the `slowfast` protocol uses. Boxes may leave [0, 1] or be
    inverted: they are kept here, and scoring decides. known_ids as in `read_annotations`.

    FileNotFoundError. AvaFileError: a row is malformed or has an unknown action id.
    """
    with _other_order_named(path, _FRAME_DETECTION, _DETECTION):
        table = _read(path, _DETECTION, (8,))
        videos, video = table.videos()
        second, box = table.seconds(), table.floats(_BOX)
        label, score = table.action_ids(known_ids), table.scores()
        table.refuse()
        return Detections(videos, video, second, box, label, score)


def read_persons(path: PathLike) -> Detections:
    """Read person boxes, score p(person); labels are all 0. An empty file has none.

    Accepts the 7 columns that `write_persons` writes, and the 8 of AVA's public person-box files,
    whose action id is empty or -1.

    FileNotFoundError. AvaFileError: a row is malformed or has an action.
    """
    path = Path(path)
    data = _read_buffer(path)
    public = _first_line(data).count(b",") == 7  # of headings, too
    table = _parse(path, data, _DETECTION if public else _PERSON, (8,) if public else (7,))
    if public:
        # Empty in the files of boxes and labels, -1 in those of predicted boxes.
        column = table.columns["action id"]
        if isinstance(column, tuple):
            texts, codes = column
            has_action = np.array([text.strip() not in ("", "-1") for text in texts], dtype=np.bool_)[codes]
        else:
            has_action = column != -1
        advice = "person boxes have no action; if this is a detections file, use read_detections"
        table.check(has_action, "action id", advice)
    videos, video = table.videos()
    second, box, score = table.seconds(), table.floats(_BOX), table.scores()
    table.refuse()
    return Detections(videos, video, second, box, np.zeros(len(video), np.int64), score)


def read_frame_detections(
    path: PathLike,
    *,
    num_labels: int | None = None,
    last_frames: Mapping[str, int] | None = None,
) -> Detections:
    """Read detections of UCF101-24 and JHMDB, 8 columns; an empty file has none.

    Frames count from 1 and labels from 0. num_labels and last_frames (by video) are upper bounds;
    videos that last_frames does not name are accepted, for the caller to drop.

    FileNotFoundError. AvaFileError: a row is malformed or out of bounds.
    """
    with _other_order_named(path, _DETECTION, _FRAME_DETECTION):
        return _frame_detections(_read(path, _FRAME_DETECTION, (8,)), num_labels, last_frames)


def _frame_detections(
    table: "_Table", num_labels: int | None, last_frames: Mapping[str, int] | None
) -> Detections:
    videos, video = table.videos()
    advice = "frames are whole numbers and count from 1"
    frame = table.integers("frame", advice, FRAME_LIMIT)
    table.check(frame < 1, "frame", advice)
    label = table.integers("label", "labels are whole numbers and count from 0")
    if num_labels is not None:
        table.check(label >= num_labels, "label", f"the {num_labels} labels count from 0")
    if last_frames is not None:
        last = np.array([last_frames.get(name, FRAME_LIMIT) for name in videos], dtype=np.int64)
        late = frame > last[video]
        for v in np.unique(video[late]).tolist():
            table.check(late & (video == v), "frame", f"{videos[v]} ends with frame {last_frames[videos[v]]}")
    box, score = table.floats(_BOX), table.scores()
    table.refuse()
    return Detections(videos, video, frame, box, label, score)


def write_detections(path: PathLike, detections: Detections) -> None:
    """Write the 8 columns atomically, highest score first; equal scores keep their order.

    PySlowFast's tool matches in FILE order inside a frame; sorted by score, the file gives the
    standard number there. The sort is over the whole file and stable, so reading the file back
    scores exactly as `detections` did.

    Numbers have the digits needed to read back the same float64 (float32 values, too, come back
    exactly).

    ValueError: a video name the format cannot hold, or an action id below 0. OSError: missing
    folder, full disk; an older file then stays untouched.
    """
    _check_labels(detections, "action id")
    _write(path, detections, _DETECTION)


def write_frame_detections(path: PathLike, detections: Detections) -> None:
    """Write the 8 columns of UCF101-24 and JHMDB; order, digits, safety as in `write_detections`.

    ValueError: a video name the format cannot hold, or a label below 0.
    """
    _check_labels(detections, "label")
    _write(path, detections, _FRAME_DETECTION)


def write_persons(path: PathLike, persons: Detections) -> None:
    """Write the 7 columns, without labels; order, digits, safety as in `write_detections`."""
    _write(path, persons, _PERSON)


# --- from bytes to columns -----------------------------------------------------------------------


@contextmanager
def _other_order_named(path: PathLike, other: tuple[str, ...], names: tuple[str, ...]) -> Iterator[None]:
    """In the context: an error about a file that has the columns of another format says so."""
    try:
        yield
    except AvaFileError as error:
        if not Path(path).is_file():
            raise
        with open(path, "rb") as file:
            rows = [
                line.decode("utf-8", "replace").strip().split(",") for line in file.read(2**16).splitlines()
            ]
        if rows[:-1] and all(_fits(row, other) for row in rows[:-1]):
            wanted, found = (",".join(order).replace("action id", "label") for order in (names, other))
            found = found.replace(f",{other[1]},", f",{names[1]},", 1)
            advice = f"the columns look like {found}: put them in the order {wanted}"
            raise AvaFileError(f"{str(error).splitlines()[0]}; {advice}") from None
        raise


def _fits(fields: list[str], names: tuple[str, ...]) -> bool:
    """Whether a row can have these columns: a whole label, a score in [0, 1], a box with an area."""
    if len(fields) != len(names):
        return False
    row = dict(zip(names, fields, strict=True))
    label = row.get("label", row.get("action id", ""))
    if not _INTEGER.fullmatch(label) or not all(_NUMBER.fullmatch(row[name]) for name in _NUMBERS):
        return False
    x1, y1, x2, y2, score = (float(row[name]) for name in _NUMBERS)
    return 0 <= score <= 1 and x1 < x2 and y1 < y2


def _read(path: PathLike, names: tuple[str, ...], widths: tuple[int, ...]) -> "_Table":
    path = Path(path)
    return _parse(path, _read_buffer(path), names, widths)


def _read_with_empty_keyframes(path: Path) -> tuple["_Table", "_Table | None"]:
    """Ground truth's rows of boxes, and its rows of two columns, if there are any."""
    data = _read_buffer(path)
    commas, ends = _count(data, b","), _count(data, b"\n")
    if commas == (ends + 1) * _first_line(data).count(b","):
        return _parse(path, data, _GROUND_TRUTH, (7, 8)), None  # rows of one width, as usual
    lines = data.to_pybytes().splitlines()
    bare = np.array([line.count(b",") == 1 for line in lines], np.bool_)
    if not bare.any() or bare.all():
        return _parse(path, data, _GROUND_TRUTH, (7, 8)), None
    tables = []
    for chosen, names, widths in ((~bare, _GROUND_TRUTH, (7, 8)), (bare, _EXCLUSION, (2,))):
        rows = np.flatnonzero(chosen)
        part = _own(b"\n".join(lines[i] for i in rows.tolist()))
        tables.append(_parse(path, part, names, widths, lines=rows + 1))
    return tables[0], tables[1]


def _open(path: Path) -> IO[bytes]:
    form = "text, one line for each row or class,"
    return open_data(path, AvaFileError, form=form, refused=("pickle", "array", "zip", "JSON"))


def _read_buffer(path: Path) -> Any:
    """The file as a buffer of Arrow's, without byte order mark and without blank lines at the end.

    Read straight into Arrow's own memory: one of its threads may release the text last, and a thread that
    releases a Python object while the interpreter exits aborts the process.
    """
    pa, _ = _arrow()
    with _open(path) as file:
        size = os.fstat(file.fileno()).st_size
        data = pa.allocate_buffer(size)
        read = file.readinto(_bytes_of(data).data) if size else 0  # type: ignore[attr-defined]
        rest = file.read()
    if rest or read < size:  # a pipe has no size
        data = _own(data[:read].to_pybytes() + rest)
    head = data[:3].to_pybytes()
    if head[:1] in (b"\xff", b"\xfe"):  # of UTF-16, or of no text
        decode(path, head, AvaFileError)
    begin, end = len(_MARK) if head == _MARK else 0, data.size
    while end > begin:
        window = max(begin, end - 2**12)
        if tail := data[window:end].to_pybytes().rstrip():
            end = window + len(tail)
            break
        end = window
    return data[begin:end]


def _own(data: bytes) -> Any:
    """A copy in Arrow's own memory."""
    pa, _ = _arrow()
    buffer = pa.allocate_buffer(len(data))
    _bytes_of(buffer)[:] = np.frombuffer(data, np.uint8)
    return buffer


def _bytes_of(buffer: Any) -> NDArray[np.uint8]:
    return np.frombuffer(buffer, np.uint8) if buffer.size else np.zeros(0, np.uint8)


def _count(data: Any, byte: bytes) -> int:
    """How often a byte is in a buffer; block by block, which stays in the cache."""
    return sum(int(np.count_nonzero(block == ord(byte))) for block in _blocks(data))


def _blocks(data: Any, shared: int = 0) -> Iterator[NDArray[np.uint8]]:
    """The bytes of a buffer in blocks, each with this number of bytes of the next."""
    view = _bytes_of(data)
    for begin in range(0, len(view), _BLOCK):
        yield view[begin : begin + _BLOCK + shared]


def _parse(
    path: Path,
    data: Any,
    names: tuple[str, ...],
    widths: tuple[int, ...],
    *,
    lines: Ints | None = None,
) -> "_Table":
    """Split a buffer into its columns, with Arrow if it accepts it.

    names: of the columns, left to right; widths: how many of them a file may have. All rows of a
    file have the width of its first, and row i is line i + 1, or line lines[i] of a part of a file.
    """
    first_line, begin = _first_line(data), 1
    first = first_line.decode("utf-8", "replace").split(",")
    if len(first) > 1 and all(field.strip(' \t"')[:1].isalpha() for field in first[1:]):
        order = _columns_by_name(path, first, names, widths)
        end = data[len(first_line) : len(first_line) + 2].to_pybytes()
        ends = len(end) - len(end.removeprefix(b"\r").removeprefix(b"\n"))
        data = data[len(first_line) + ends :]
        if order != sorted(order):
            rows = data.to_pybytes().splitlines()
            data = _own(b"\n".join(_reordered(row, order) for row in rows))
        lines, begin = None if lines is None else lines[1:], 2
        first = _first_line(data).decode("utf-8", "replace").split(",")
    columns = None
    if data.size and len(first) in widths:
        columns = _arrow_columns(data, names[: len(first)])
    if columns is not None:
        return _Table(path, data, columns, None, _Wrong(path), begin, lines)
    numbers = count(begin) if lines is None else lines.tolist()
    return _Table(path, data, *_python_columns(path, data.to_pybytes(), names, widths, numbers), begin, lines)


def _columns_by_name(
    path: Path, headings: list[str], names: tuple[str, ...], widths: tuple[int, ...]
) -> list[int]:
    """The place of each wanted column in a line of headings. AvaFileError for headings that name others."""
    found = [re.sub(r"[\s-]+", "_", heading.strip(' \t"').lower()) for heading in headings]
    if found[0] not in COLUMN_NAMES["video"]:
        what = f"{','.join(headings)[:80]!r} looks like a header"
        _fail(path, 1, what, "delete the line, or call its first column video")
    if len(found) not in widths:
        return list(range(len(found)))  # the number of columns is refused with the first row
    wanted = names[: len(found)]
    advice = f"call the columns {','.join(wanted)}, in any order, or delete the line and order them so"
    order = []
    for name in wanted:
        places = [i for i, heading in enumerate(found) if heading in COLUMN_NAMES[name]]
        if len(places) != 1:
            what = "none" if not places else "more than one"
            _fail(path, 1, f"of the headings {','.join(headings)[:80]!r} {what} is the {name}", advice)
        order += places
    return order


def _reordered(row: bytes, order: list[int]) -> bytes:
    """A row with its columns in this order; one of another width as it is, to be refused by its line."""
    fields = row.split(b",")
    return b",".join(fields[i] for i in order) if len(fields) == len(order) else row


def _arrow_columns(data: Any, names: tuple[str, ...]) -> dict[str, Any] | None:
    """Columns by Arrow, or None where it rejects the file. It accepts no number that Python rejects.

    It reads 0x1F and -0 as whole numbers: a file that may have them is read with these as text.
    """
    pa, _ = _arrow()
    text = pa.dictionary(pa.int32(), pa.utf8())
    for whole in (pa.int64(), text):
        types = {name: pa.float64() if name in _NUMBERS else whole for name in names}
        try:
            columns = _stream(data, types | {"video": text})
        except pa.ArrowInvalid:
            continue
        if whole == text or not _strange(data, columns):
            return columns
    return None


def _stream(data: Any, types: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of a buffer by their types, as `_Table` has them. ArrowInvalid.

    Block by block into arrays of their final size: files have gigabytes.
    """
    pa, csv = _arrow()
    reader = csv.open_csv(
        pa.BufferReader(data),
        read_options=csv.ReadOptions(column_names=list(types)),
        parse_options=csv.ParseOptions(quote_char=False, double_quote=False, ignore_empty_lines=False),
        convert_options=csv.ConvertOptions(
            column_types=dict(types),
            null_values=[],  # NA is a valid video name
            strings_can_be_null=False,
        ),
    )
    rows = 1 + (_count(data, b"\n") or _count(data, b"\r"))
    boxes = [name for name in types if name in _BOX]
    box = np.empty((rows, len(boxes)))
    texts: dict[str, dict[str, int]] = {name: {} for name, of in types.items() if hasattr(of, "index_type")}
    columns: dict[str, Any] = {
        name: np.empty(rows, np.float64 if name in _NUMBERS else np.int64)
        for name in types
        if name not in boxes
    }
    at = 0
    for batch in reader:
        end = at + len(batch)
        if end > rows:
            raise pa.ArrowInvalid("line ends of two kinds")
        if boxes:
            parts = [_values(batch[name], np.float64) for name in boxes]
            np.stack(parts, axis=1, out=box[at:end])
        for name, column in columns.items():
            if name in texts:
                column[at:end] = _codes(batch[name], texts[name])
            else:
                column[at:end] = _values(batch[name], column.dtype.type)
        at = end
    columns = {name: column[:at] for name, column in columns.items()}
    columns |= {name: (list(known), columns[name]) for name, known in texts.items()}
    columns |= {name: box[:at, i] for i, name in enumerate(boxes)}
    return {name: columns[name] for name in types}


def _codes(array: Any, known: dict[str, int]) -> Ints:
    """The numbers of the texts of a block, (K,); of texts that are not known yet, the next."""
    texts = array.dictionary.to_pylist()
    code = np.array([known.setdefault(text, len(known)) for text in texts], np.int64)
    return code[_values(array.indices, np.int32)]


def _values(array: Any, dtype: type[np.generic]) -> NDArray[Any]:
    """Arrow's array of numbers, none missing, without a copy: its own way there imports pandas."""
    return np.frombuffer(array.buffers()[1], dtype)[array.offset : array.offset + len(array)]


def _strange(data: Any, columns: Mapping[str, Any]) -> bool:
    """Whether a number of these that were read as whole ones may be like 0x1F, or -0, in the text."""
    read = [
        column for column in columns.values() if not isinstance(column, tuple) and column.dtype == np.int64
    ]
    zero = any(not column.all() for column in read)
    for block in _blocks(data, shared=2):
        before, at, after = block[:-2], block[1:-1], block[2:]
        if (((after | 32) == ord("x")) & (at == ord("0")) & (before <= ord(","))).any():
            return True
        if zero and ((before == ord("-")) & (at == ord("0")) & (after != ord("."))).any():
            return True
    return False


def _python_columns(
    path: Path, data: bytes, names: tuple[str, ...], widths: tuple[int, ...], lines: Iterable[int]
) -> tuple[dict[str, Any], Ints, "_Wrong"]:
    """The same line by line in Python, of rows that can be read; -> columns, these rows, what is wrong."""
    rows: list[list[str]] = []
    width, begin = widths[-1], 1
    wrong = _Wrong(path)
    kept: list[int] = []
    for row, (line, raw) in enumerate(zip(lines, data.splitlines(), strict=False)):
        text = decode(path, raw, AvaFileError, line)
        fields = text.split(",")
        if not rows and len(fields) in widths:
            width = len(fields)
        if not text.strip():
            wrong.add(line, 0, "", "the line is empty", "delete it")
        elif len(fields) != width:
            wanted = f"{width}, as line {begin} has" if rows else " or ".join(map(str, widths))
            advice = f"separate {','.join(names[:width])} by commas"
            if '"' in text:
                advice += " and leave out the quotes"
            plural = "s" if len(fields) > 1 else ""
            wrong.add(line, 0, "", f"found {len(fields)} column{plural} instead of {wanted}", advice)
        else:
            begin = begin if rows else line
            bad = [
                (column, name)
                for column, name in enumerate(names[:width])
                if name in _NUMBERS and not _NUMBER.fullmatch(fields[column])
            ]
            for column, name in bad:
                wrong.add(line, column, name, *_described(fields[column], "a number is needed"))
            if not bad:
                kept.append(row)
                rows.append(fields)
    if not rows:
        wrong.refuse()

    columns: dict[str, Any] = {}
    for i, name in enumerate(names[:width]):
        values = [row[i] for row in rows]
        if name in _NUMBERS:
            columns[name] = np.array([float(value) for value in values], dtype=np.float64)
        else:
            code = {text: i for i, text in enumerate(dict.fromkeys(values))}
            columns[name] = (list(code), np.array([code[text] for text in values], dtype=np.int64))
    return columns, np.array(kept, np.int64), wrong


def _arrow() -> tuple[Any, Any]:
    """pyarrow and its csv module, imported at the first file: `import evaluators` stays fast."""
    import pyarrow  # type: ignore[import-untyped]
    import pyarrow.csv  # type: ignore[import-untyped]

    return pyarrow, pyarrow.csv


def _first_line(data: Any) -> bytes:
    """The first line of a buffer, without its end."""
    size = 2**12
    while True:
        head: bytes = data[:size].to_pybytes()
        ends = [at for at in (head.find(b"\n"), head.find(b"\r")) if at >= 0]
        if ends or len(head) < size:
            return head[: min(ends, default=len(head))]
        size *= 16


# --- from columns to checked arrays --------------------------------------------------------------


@dataclass(frozen=True)
class _Table:
    """A parsed file: path and bytes for messages, and the columns left to right, by name.

    A number column is (N,) float64 or int64; a text column is a pair, its distinct values and the (N,) codes
    of the rows.
    """

    path: Path
    data: Any
    columns: dict[str, Any]
    kept: Ints | None
    """Which row of the data each row is; None: all of them."""
    wrong: "_Wrong"
    """What is wrong in the file, in words. Readers look at all of it and then `refuse` the file."""
    begin: int
    """The line of the first row of the data,"""
    lines: Ints | None
    """or, of a part of a file, that of each."""

    def videos(self) -> tuple[tuple[str, ...], Ints]:
        """The video names and each row's index into them, (N,)."""
        names, codes = self.columns["video"]
        bad = np.array([not _is_name(name) for name in names], dtype=np.bool_)[codes]
        advice = "a video needs a name, without quotes, control characters or spaces around it"
        self.check(bad, "video", advice)
        return tuple(names), codes

    def integers(self, name: str, advice: str, limit: int = 10**18, *, least: int = 0) -> Ints:
        """A column as whole numbers, least (0 or -1) to limit - 1; each distinct text is parsed once."""
        if not isinstance(self.columns[name], tuple):
            read: Ints = self.columns[name]
            self.check((read < least) | (read >= limit), name, advice)
            return read
        texts, codes = self.columns[name]
        parsed = [_INTEGER.fullmatch(text) for text in texts]
        values = [int(match[1]) if match else -2 for match in parsed]
        if least == -1:
            values = [-1 if text.strip() == "-1" else v for text, v in zip(texts, values, strict=True)]
        value: Ints = np.array([v if v < limit else -2 for v in values], dtype=np.int64)[codes]
        self.check(value < least, name, advice)
        return value

    def seconds(self) -> Ints:
        """The seconds, (N,): of decimals the whole number below."""
        advice = "the second is a number, such as 0902"
        if not isinstance(self.columns["second"], tuple):
            return self.integers("second", advice, FRAME_LIMIT)
        texts, codes = self.columns["second"]
        parsed = [_SECOND.fullmatch(text) for text in texts]
        values = [int(match[1]) if match else -1 for match in parsed]
        value: Ints = np.array([v if v < FRAME_LIMIT else -1 for v in values], dtype=np.int64)[codes]
        self.check(value < 0, "second", advice)
        if any(match and (match[2] or "").strip(".0") for match in parsed):
            exact = [float(text) if match else -1.0 for text, match in zip(texts, parsed, strict=True)]
            self._check_decimals(np.array(exact)[codes], value)
        return value

    def _check_decimals(self, exact: Floats, value: Ints) -> None:
        """Note where two seconds of a video are the same whole number."""
        _, video = self.columns["video"]
        order = np.lexsort((exact, value, video))
        same = (np.diff(video[order]) == 0) & (np.diff(value[order]) == 0) & (np.diff(exact[order]) > 0)
        wrong = np.zeros(len(value), np.bool_)
        wrong[order[1:][same]] = True
        advice = "another second of the video has the same whole number; a video has one keyframe a second"
        self.check(wrong, "second", advice)

    def action_ids(self, known_ids: Collection[int] | None) -> Ints:
        """The action ids, (N,), all known."""
        if isinstance(self.columns["action id"], tuple):
            texts, codes = self.columns["action id"]
            empty = np.array([not text.strip() for text in texts], dtype=np.bool_)[codes]
            self.check(empty, "action id", "this looks like a person-box file; read those with read_persons")
        label = self.integers("action id", "an action id is a whole number, such as 12")
        ids = np.array(sorted(AVA_IDS if known_ids is None else known_ids), dtype=np.int64)
        listed = f"{ids[0]} to {ids[-1]}" if len(ids) else "none"
        if len(ids) and ids[-1] - ids[0] != len(ids) - 1:
            listed = ", ".join(map(str, ids[:5].tolist())) + (", .." if len(ids) > 5 else "")
        counted = "" if len(ids) and ids[0] == 0 else "; ids count from 1, not from 0"
        advice = f"the known action ids are {listed}{counted}"
        if len(ids) and ids[-1] - ids[0] == len(ids) - 1:
            unknown = (label < ids[0]) | (label > ids[-1])
        else:
            unknown = lookup(ids, label) < 0
        self.check(unknown, "action id", advice)
        return label

    def floats(self, names: tuple[str, ...]) -> Floats:
        """Number columns side by side, (N, K), all finite."""
        for name in names:
            bad = ~np.isfinite(self.columns[name])
            self.check(bad, name, "a finite number is needed; was it 0 / 0?")
        columns = [self.columns[name] for name in names]
        whole = columns[0].base
        if whole is not None and whole.ndim == 2 and whole.shape[1] == len(names):
            return whole[: len(columns[0])]  # the columns are its own
        return np.stack(columns, axis=1)

    def scores(self) -> Floats:
        """The scores, (N,), all finite."""
        return self.floats(("score",))[:, 0]

    def check(self, wrong: Bools, name: str, advice: str) -> None:
        """Note the wrong rows, (N,), with the text of the column there, bar those whose column is noted."""
        if not wrong.any():
            return
        noted = self.wrong.rows.setdefault(name, np.zeros(len(wrong), np.bool_))
        rows = np.flatnonzero(wrong & ~noted)
        noted |= wrong
        if self.kept is not None:
            rows = self.kept[rows]
        column, text = list(self.columns).index(name), self.data.to_pybytes().splitlines()
        for row in rows[:MOST_TOLD].tolist():
            line = self.begin + row if self.lines is None else int(self.lines[row])
            fields = text[row].decode("utf-8").split(",")
            if column < len(fields):
                self.wrong.add(line, column, name, *_described(fields[column], advice))
            else:  # an empty line, which Arrow reads as empty fields
                self.wrong.add(line, 0, "", "the line is empty", "delete it")
        self.wrong.count += len(rows[MOST_TOLD:])

    def refuse(self) -> None:
        """AvaFileError of all that was noted, if there is anything."""
        self.wrong.refuse()


def _is_name(name: str) -> bool:
    """Whether a video name can be written and read back."""
    return bool(name) and name.isprintable() and name == name.strip() and not set(name) & set(',"')


class _Wrong:
    """What is wrong in a file, for one error that tells it all."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.noted: dict[tuple[int, int], Invalid] = {}
        """(line, column) -> what is wrong there."""
        self.count = 0
        """Of all, those that are not noted in words, too."""
        self.rows: dict[str, Bools] = {}
        """Column -> whether a row of the table is counted."""

    def add(self, line: int, column: int, name: str, found: str, advice: str) -> None:
        """Note what is wrong in a line, at a column, from 0, or with an empty name in all of it."""
        where = f"line {line}, column {column + 1} ({name})" if name else f"line {line}"
        self.count += (line, column) not in self.noted
        self.noted[line, column] = Invalid(f"{where}: {found}", advice)

    def refuse(self) -> None:
        """AvaFileError of the first MOST_TOLD, in the order of the file, if there are any."""
        problems = Problems()
        for key in sorted(self.noted):
            problems.add(self.noted[key])
        problems.count = self.count
        problems.refuse(AvaFileError, f"{self.path}, ")


def _described(field: str, advice: str) -> tuple[str, str]:
    """What was found in a field, and what to do."""
    if '"' in field:
        advice = "the format has no quotes: write the bare value"
    return f"found {field[:60]!r}" if field else "the field is empty", advice


def _fail(path: Path, line: int | str | None, found: str, advice: str) -> NoReturn:
    where = f"{path}, line {line}" if line else f"{path}"
    raise AvaFileError(f"{where}: {found}; {advice}")


# --- writing -------------------------------------------------------------------------------------


def _check_labels(detections: Detections, name: str) -> None:
    wrong = np.flatnonzero(detections.label < 0)
    if len(wrong):
        raise ValueError(
            f"detection row {wrong[0]} has {name} {detections.label[wrong[0]]}; at least 0 is needed"
        )


def _write(path: PathLike, rows: Detections, names: tuple[str, ...]) -> None:
    pa, csv = _arrow()
    for name in rows.videos:
        if not _is_name(name):
            raise ValueError(f"the video name {name!r} cannot be written to an AVA csv file")
    order = np.argsort(-rows.score, kind="stable")
    plain = csv.WriteOptions(include_header=False, quoting_style="none")
    with atomic_write(path) as file:
        for first in range(0, len(order), _ROWS_PER_WRITE):
            chunk = rows.take(order[first : first + _ROWS_PER_WRITE])
            seconds, second = np.unique(chunk.frame, return_inverse=True)
            columns = {
                "video": _text_column(list(rows.videos), chunk.video),
                "second": _text_column([f"{s:04d}" for s in seconds.tolist()], second),
                "frame": pa.array(chunk.frame),
                **{name: pa.array(chunk.box[:, i]) for i, name in enumerate(_BOX)},
                "action id": pa.array(chunk.label),
                "label": pa.array(chunk.label),
                "score": pa.array(chunk.score),
            }
            csv.write_csv(pa.table({name: columns[name] for name in names}), file, plain)


def _text_column(texts: list[str], index: Ints) -> Any:
    """One text per row as an Arrow column."""
    pa, _ = _arrow()
    coded = pa.DictionaryArray.from_arrays(pa.array(index), pa.array(texts, pa.utf8()))
    return coded.cast(pa.utf8())
