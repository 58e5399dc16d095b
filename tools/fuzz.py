"""Fuzz every reader with damaged and hostile files: `python -m tools.fuzz --inputs 100000`.

Hypothesis damages valid files of each kind (bits, slices, words that parsers confuse, parts of other files)
and shrinks what fails. Files are read in a separate process, where calls that would run something are
recorded. A reader returns a value or raises its own error, which names the file. Values of text readers are
compared with those of a simple reference reader: a silently wrong value is a finding, like a crash, a hang or
a call.
"""

from __future__ import annotations

import faulthandler
import io
import json
import multiprocessing
import os
import pickle
import re
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from actloc_core.cli import command_parser

TIMEOUT_S = 60
"""A read that takes longer is a finding."""
MEMORY = 8 * 2**30
"""Bytes of address space of the reading process."""
WORDS = (
    b"nan", b"inf", b"-inf", b"1e999", b"-0", b"0", b"-1", b"1.5", b"99999999999999999999", b"0x1p4", b"1_0",
    b"\x00", b"\xef\xbb\xbf", b"\xff\xfe", b"\r\n", b"\n\n", b",", b",,", b'"', b"'", b"\\", b"{", b"}", b"#",
    b"../../etc/passwd", b"/", b" ", b"\t", b"\xc2\xa0", b"\xd9\xa1", b"id:", b"name:", b"True", b"",
)  # fmt: skip
"""What parsers confuse."""
MAX_SLICE = 40
"""Bytes that a mutation replaces, unless it replaces a word, a line or the rest of the file."""


@dataclass(frozen=True)
class Kind:
    """A reader, and valid or hostile files for it."""

    name: str
    suffix: str
    seeds: list[bytes]
    read: Callable[[Path], object]
    allowed: tuple[type[Exception], ...]
    """The reader's own errors."""
    reference: Callable[[bytes], object] | None = None
    """A reference reader: equal wherever `read` returns a value."""
    weight: float = 1.0
    """Number of inputs relative to the other kinds of the group."""


@dataclass
class Report:
    """The findings of one reader."""

    name: str
    inputs: int = 0
    values: int = 0
    """Inputs that were read."""
    findings: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    """Origin of a failure -> its message and its smallest input."""


class Finding(AssertionError):
    """A reader did something else than return a right value or raise its own error."""


@dataclass(frozen=True)
class Mutation:
    """Replace a slice of a file."""

    where: str
    """"bytes", or the "word", the "line" or the "rest" of the file at the position."""
    position: int
    """Modulo the number of such slices."""
    length: int
    """Of a slice of bytes."""
    new: bytes | int
    """What replaces it; n below REPEATS means itself n times, another number itself with one bit flipped."""

    def applied(self, data: bytes) -> bytes:
        """The file after the mutation."""
        start, end = self._slice(data)
        old, new = data[start:end], self.new
        if isinstance(new, int):
            new = old * new if new < REPEATS or not old else _flipped(old, (new - REPEATS) % (8 * len(old)))
        return data[:start] + new + data[end:]

    def _slice(self, data: bytes) -> tuple[int, int]:
        if self.where in PATTERNS:
            spans = [match.span() for match in re.finditer(PATTERNS[self.where], data[:4000])]
            return spans[self.position % len(spans)] if spans else (0, 0)
        start = self.position % (len(data) + 1)
        return start, len(data) if self.where == "rest" else min(start + self.length, len(data))


PATTERNS = {"word": rb"[\w.+-]+", "line": rb"[^\n]*\n"}
REPEATS = 5


def _flipped(data: bytes, bit: int) -> bytes:
    """The bytes with one bit flipped."""
    return data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :]


def damaged(seeds: list[bytes]) -> st.SearchStrategy[bytes]:
    """One of the seeds after one to four mutations."""
    lengths, positions = st.integers(0, MAX_SLICE), st.integers(0, 2**16)
    parts = st.builds(
        lambda data, at, length: data[at % (len(data) + 1) :][:length],
        st.sampled_from(seeds),
        positions,
        lengths,
    )
    new = st.one_of(
        st.sampled_from(WORDS), st.binary(max_size=MAX_SLICE), parts, st.integers(2, REPEATS + 8 * MAX_SLICE)
    )
    places = st.sampled_from(("bytes", "word", "line", "bytes", "word", "line", "rest"))
    mutation = st.builds(Mutation, places, positions, lengths, new)
    several = st.lists(mutation, min_size=1, max_size=4)
    return st.builds(
        lambda data, mutations: reduce(lambda data, mutation: mutation.applied(data), mutations, data),
        st.sampled_from(seeds),
        several,
    )


def rows_of(data: bytes) -> list[list[str]]:
    """Fields of the lines of a CSV text without quotes, with any line ends."""
    text = data.removeprefix(b"\xef\xbb\xbf").rstrip().decode().replace("\r\n", "\n").replace("\r", "\n")
    return [line.split(",") for line in text.split("\n") if line]


def reference_table(columns: int, score: bool) -> Callable[[bytes], object]:
    """A reference reader of tables with so many columns, with or without a score in the last."""

    def read(data: bytes) -> object:
        rows = rows_of(data)
        # Ground truth's rows of two columns are keyframes without a person, and come behind.
        empty = [row for row in rows if len(row) == 2 and not score]
        return [
            (row[0], whole(row[1]), *(float(x) for x in row[2:6]), whole(row[6]))
            + ((float(row[columns - 1]),) if score else ())
            for row in rows
            if row not in empty
        ] + [(row[0], whole(row[1]), 0.0, 0.0, 1.0, 1.0, -1) for row in empty]

    return read


def whole(text: str) -> int:
    """The whole number below a number without an exponent. Raises ValueError for another text."""
    number, _, decimals = text.strip().partition(".")
    if decimals.strip("0123456789"):
        raise ValueError(f"{text!r} is no number")
    return int(number)


def table(rows: Any) -> object:
    """Rows of annotations or detections as `reference_table` reads them."""
    scores = getattr(rows, "score", None)
    columns = [rows.video, rows.frame, rows.box, rows.label]
    return [
        (rows.videos[v], int(f), *map(float, b), int(k)) + (() if scores is None else (float(scores[i]),))
        for i, (v, f, b, k) in enumerate(zip(*columns, strict=True))
    ]


def text_kinds() -> list[Kind]:
    """Readers of AVA's text files."""
    from evaluators import ava_csv, files

    rows = [(f"v{i % 3}", 902 + i, 0.1 + i / 100, 0.2, 0.5 + i / 100, 0.75, 1 + i % 80) for i in range(9)]
    annotations = "".join(",".join(map(str, row)) + f",{i}\n" for i, row in enumerate(rows)).encode()
    detections = "".join(",".join(map(str, row)) + f",0.{i}1\n" for i, row in enumerate(rows)).encode()
    frames = b"".join(b"%d,%d,0,0.5,10,20.5,110,220\n" % (i, i + 1) for i in range(8))
    mapping = (
        b'item {\n  name: "stand"\n  id: 12\n}\n# a comment\n'
        b'label { name: "say \\"no\\"" label_id: 7 label_type: X }\n'
    )
    data_error = (files.DataFileError,)
    return [
        Kind("ground truth", ".csv", [annotations, annotations.replace(b"\n", b"\r\n")],
             lambda path: table(ava_csv.read_groundtruth(path)), data_error, reference_table(8, False), 3),
        Kind("detections", ".csv", [detections], lambda path: table(ava_csv.read_detections(path)),
             data_error, reference_table(8, True), 3),
        Kind("exclusions", ".csv", [b"v0,0902\nv1,0903\n"], ava_csv.read_exclusions, data_error,
             lambda data: frozenset((row[0], whole(row[1])) for row in rows_of(data)), 2),
        Kind("persons", ".csv", [detections.replace(b",1,", b",,"), b"v,0902,0.1,0.2,0.3,0.4,0.9\n"],
             ava_csv.read_persons, data_error),
        Kind("frame detections", ".txt", [frames], ava_csv.read_frame_detections, data_error),
        Kind("label map", ".pbtxt", [mapping], ava_csv.read_label_map, data_error, weight=2),
    ]  # fmt: skip


class _Call:
    """Pickles as a call, which an unsafe reader runs."""

    def __init__(self, call: Callable[..., object], *args: object) -> None:
        self.call, self.args = call, args

    def __reduce__(self) -> tuple[object, ...]:
        return self.call, self.args


def pickle_kinds() -> list[Kind]:
    """Readers of ACT's pickles and of arrays of detections."""
    from evaluators.act_pickle import read_act, read_act_detections
    from evaluators.files import DataFileError

    tube = np.column_stack([np.arange(1, 5), np.tile([10, 20, 110, 220], (4, 1))]).astype(np.float32)
    content = {
        "labels": ["run", "sit"],
        "gttubes": {"run/a": {0: [tube]}, "sit/b": {1: [tube, tube + 1]}},
        "nframes": {"run/a": 4, "sit/b": 5},
        "resolution": {"run/a": (240, 320), "sit/b": (240, 320)},
        "train_videos": [["run/a"]],
        "test_videos": [["sit/b"]],
    }
    hostile = [pickle.dumps(_Call(os.system, "true")), pickle.dumps({"labels": _Call(eval, "1 + 1")})]
    written = [pickle.dumps(content, protocol) for protocol in (0, 2, 4)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "GT.pkl")
        path.write_bytes(written[1])
        annotations = read_act(path)
    array = io.BytesIO()
    np.save(array, np.array([[0, 1, 1, 0.5, 10, 20, 110, 220], [0, 2, 0, 0.25, 10, 20, 110, 220]]))
    return [
        Kind("annotations", ".pkl", [*written, *hostile], read_act, (DataFileError,), weight=2),
        Kind("array", ".npy", [array.getvalue()], lambda path: read_act_detections(path, annotations),
             (DataFileError,)),
        Kind("pickled array", ".pkl", [pickle.dumps(np.load(io.BytesIO(array.getvalue()))), *hostile],
             lambda path: read_act_detections(path, annotations), (DataFileError,)),
    ]  # fmt: skip


def data_kinds() -> list[Kind]:
    """Readers of what lies in data folders beside annotations, and of annotation tools' files."""
    from datasets import description, kinetics, proposals
    from evaluators.files import DataFileError
    from tests.datasets import test_convert as made

    def listed(path: Path) -> object:
        (path.parent / "train.csv").write_bytes(path.read_bytes())
        with _naming(path):
            return kinetics.read_labels(path.parent, "train", leave_out_missing=True)

    def described(path: Path) -> object:
        (path.parent / description.FILE).write_bytes(path.read_bytes())
        with _naming(path):
            return description.read_description(path.parent)

    clips = b"".join(b"train/a clip %d.mp4 %d\n" % (i, i % 3) for i in range(6))
    folder = b'{"start_second": 900, "mirrored": {"to the left": "to the right"}}'
    boxes = {"v,0902": np.array([[0.1, 0.2, 0.5, 0.75, 0.9]]), "v,0903": [[0, 0, 1, 1]], "w,1000": []}
    own = (DataFileError,)
    tools: dict[str, list[bytes]] = {tool: [] for tool, *_ in made.CASES.values()}
    for tool, _, content, _ in made.CASES.values():
        text: str | bytes = content()  # type: ignore[no-untyped-call]
        tools[tool].append(text if isinstance(text, bytes) else text.encode())
    return [
        Kind("list of clips", ".csv", [clips, clips.replace(b" 1", b",1,2")], listed, own),
        Kind("dataset.json", ".json", [folder], described, (ValueError,)),
        Kind("proposals", ".pkl", [pickle.dumps(boxes, 2)], proposals.read_proposals, (ValueError,)),
        *(
            Kind(tool, ".x", seeds, _converted(tool), (DataFileError,), weight=2)
            for tool, seeds in tools.items()
        ),
    ]


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """In the context: an error that names a file of the same folder names this one, too."""
    try:
        yield
    except ValueError as error:
        if str(path.parent) not in str(error):
            raise Finding(f"the message names no file: {error}") from error
        raise type(error)(f"{path}: {error}") from error


def _converted(tool: str) -> Callable[[Path], object]:
    """A reader that converts a tool's file to AVA's csv, which has to be read back with as many rows."""
    from datasets import annotation_tools, convert
    from evaluators import ava_csv

    def read(path: Path) -> object:
        timing = annotation_tools.Timing(fps=10 if tool in ("coco", "ucf", "cvat") else None)
        content = annotation_tools.read_tool_file(tool, path, timing)
        with tempfile.TemporaryDirectory() as name:
            csv = Path(name, "annotations", "ava_train_v2.2.csv")
            csv.parent.mkdir()
            try:
                written = convert.convert(content, csv, timing, size=(160, 120))
            except annotation_tools.ToolFileError as error:  # of all files that were given, and names none
                raise annotation_tools.ToolFileError(f"{path}: {error}") from error
            classes = ava_csv.read_label_map(convert.beside(csv)[0])
            rows = ava_csv.read_groundtruth(csv, known_ids=classes)
            if len(rows.label) != written.rows + written.empty:
                raise Finding(f"{written.rows} rows were written, and {len(rows.label)} read")
        return content

    return read


def model_kinds() -> list[Kind]:
    """Readers of checkpoints and results."""
    import torch

    from actloc_core.checkpoints import CheckpointError
    from actloc_core.detector import load_checkpoint
    from benchmarks.score.results import Result, read_result
    from tests.actloc_core.checkpoints_of import checkpoint_content

    torch.set_num_threads(1)
    small = checkpoint_content(dim=8)
    seeds = []
    for old in (False, True):
        file = io.BytesIO()
        torch.save(small, file, _use_new_zipfile_serialization=not old)
        seeds.append(file.getvalue())
    seeds.append(pickle.dumps(_Call(os.system, "true")))
    right = {name: tensor.clone() for name, tensor in small["model"].items()}

    def load(path: Path) -> object:
        model = load_checkpoint(path).model.state_dict()
        if path.read_bytes()[:2] == b"PK":  # the older form has no checksums
            assert all(torch.equal(model[name], tensor) for name, tensor in right.items()), "wrong weights"
        return None

    empty = {"float": 0.25, "str": "x", "int": 3, "float | None": None, "dict[str, Any]": {"a": [1, "b"]}}
    empty |= {"dict[str, float | None]": {"run": 0.5, "sit": None}, "dict[str, str | None]": {"data": "d"}}
    empty["dict[str, str]"] = {"torch": "2"}
    result = json.dumps({field.name: empty[str(field.type)] for field in fields(Result)}).encode()
    return [
        Kind("checkpoint", ".pt", seeds, load, (CheckpointError,), weight=0.3),
        Kind("result", ".json", [result], read_result, (ValueError,), weight=0.5),
    ]


def video_kinds() -> list[Kind]:
    """Readers of videos in four containers."""
    import torch

    from actloc_core.clip import VideoError
    from tests.actloc_core.numbered import write_numbered

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seeds = [
            write_numbered(folder / "a.mp4", 12, size=(32, 24)).read_bytes(),
            write_numbered(folder / "b.mkv", 12, size=(32, 24), bframes=0).read_bytes(),
            write_numbered(folder / "c.avi", 12, codec="mpeg4", size=(32, 24), bframes=0).read_bytes(),
            write_numbered(folder / "d.webm", 12, codec="libvpx", size=(32, 24), bframes=None).read_bytes(),
        ]
    return [Kind("video", ".bin", seeds, _read_video, (VideoError,), weight=0.4)]


def _read_video(path: Path) -> None:
    """Read a video with every function. Raises VideoError if all do."""
    from actloc_core import clip

    def decode(path: Path) -> None:
        for frame, _ in zip(clip.iter_frames(path), range(100), strict=False):
            assert frame.image((8, 8)).shape == (8, 8, 3)
            assert frame.planes((8, 8)).shape == (12, 8)

    readers: tuple[Callable[[Path], object], ...] = (
        clip.probe, clip.duration, clip.read_header, decode,
        lambda path: clip.read_frames(path, np.array([3, 0, 5])),
        lambda path: clip.read_times(path, np.array([0.0, 0.3]), fps=16.0),
    )  # fmt: skip
    refusals: list[clip.VideoError] = []
    for reader in readers:
        try:
            reader(path)
        except clip.VideoError as error:
            if str(path) not in str(error):
                raise Finding(f"the message names no file: {error}") from error
            refusals.append(error)
    if len(refusals) == len(readers):
        raise refusals[0]


KINDS: dict[str, Callable[[], list[Kind]]] = {
    "text": text_kinds,
    "pickle": pickle_kinds,
    "data": data_kinds,
    "model": model_kinds,
    "video": video_kinds,
}
WEIGHTS = {"text": 0.6, "pickle": 0.2, "data": 0.1, "model": 0.05, "video": 0.05}
"""Group -> its share of the inputs."""
CALLS: list[str] = []
"""Audit events of calls that run something, since the last input."""


def _record_calls(event: str, args: tuple[object, ...]) -> None:
    if event in ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.fork", "socket.connect"):
        CALLS.append(f"{event}{args!r}")


def isolate(folder: Path) -> None:
    """Prepare the reading process: memory limit, audit hook, standard error of libraries to a file."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    sys.stderr = open(folder / "stderr", "w")  # noqa: SIM115  open until the process ends
    os.dup2(sys.stderr.fileno(), 2)
    faulthandler.enable()
    sys.addaudithook(_record_calls)


def fuzz_group(group: str, inputs: int, start: int, folder: Path) -> list[Report]:
    """Fuzz all kinds of a group. The current input is a file in `folder`, where a crash leaves it."""
    kinds = KINDS[group]()
    total = sum(kind.weight for kind in kinds)
    return [fuzz(kind, max(round(inputs * kind.weight / total), 1), start, folder) for kind in kinds]


def fuzz(kind: Kind, inputs: int, start: int, folder: Path) -> Report:
    """Fuzz one reader. start: the seed of the mutations."""
    path, report = folder / f"input{kind.suffix}", Report(kind.name)

    @settings(
        max_examples=inputs, deadline=None, database=None, phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @seed(start)
    @given(damaged(kind.seeds))
    def check(data: bytes) -> None:
        report.inputs += 1
        path.write_bytes(data)
        try:
            report.values += judge(kind, path, data)
        except Exception as error:
            # Hypothesis only tries smaller inputs once one has failed: the last of an origin is the smallest.
            report.findings[_origin(error)] = (f"{type(error).__name__}: {error}", data)
            raise

    try:
        check()
    except Exception:
        if not report.findings:
            raise
    return report


def _origin(error: Exception) -> str:
    """Type and place of an error, by which Hypothesis, too, tells failures apart."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    place = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else ""
    return f"{type(error).__name__} {place}"


def judge(kind: Kind, path: Path, data: bytes) -> bool:
    """Read a file; -> whether it has a value, False for a reader's own error that names the file.

    Raises Finding for a hang, a call, a wrong value or an error without the file's name. Any other error of
    the reader propagates.
    """
    CALLS.clear()

    def hang(number: int, frame: object) -> None:
        raise Finding(f"took more than {TIMEOUT_S} s")

    signal.signal(signal.SIGALRM, hang)
    signal.setitimer(signal.ITIMER_REAL, TIMEOUT_S)
    refusal: Exception | None = None
    try:
        value = kind.read(path)
    except kind.allowed as error:
        refusal = error
    except (SystemExit, GeneratorExit) as error:
        raise Finding(repr(error)) from error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    if CALLS:
        raise Finding(f"ran {CALLS[0]}")
    if refusal is not None:
        if str(path) not in str(refusal):
            raise Finding(f"the message names no file: {refusal}")
        return False
    if kind.reference is not None:
        try:
            expected = kind.reference(data)
        except (ValueError, IndexError) as error:
            raise Finding(f"it was read, but is invalid: {error}") from error
        if value != expected:
            raise Finding(f"it was read as {value!r:.300}, expected {expected!r:.300}")
    return True


def main(argv: list[str] | None = None) -> int:
    """Run the command; -> 1 if there are findings, else 0."""
    p = command_parser("tools.fuzz", __doc__)
    p.add_argument("--inputs", type=int, default=100_000, help="number of inputs (default: 100000)")
    p.add_argument("--seed", type=int, default=0, help="of the mutations (default: 0)")
    p.add_argument("--only", choices=list(KINDS), nargs="+", default=list(KINDS), help="groups of readers")
    p.add_argument("--keep", type=Path, default=Path("out/fuzz"), help="directory of inputs that fail")
    args = p.parse_args(argv)
    total = sum(WEIGHTS[group] for group in args.only)
    findings = 0
    for group in args.only:
        began = time.monotonic()
        findings += run_group(group, round(args.inputs * WEIGHTS[group] / total), args.seed, args.keep)
        print(f"{group}: {time.monotonic() - began:.0f} s", flush=True)
    return 1 if findings else 0


def run_group(group: str, inputs: int, start: int, keep: Path) -> int:
    """Fuzz a group in a process, print its reports and save inputs that fail; -> the number of findings."""
    findings = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=spawn, initializer=isolate, initargs=(folder,)) as pool:
            try:
                reports = pool.submit(fuzz_group, group, inputs, start, folder).result()
            except BrokenProcessPool as error:
                keep.mkdir(parents=True, exist_ok=True)
                for file in folder.iterdir():
                    (keep / f"crash-{group}-{file.name}").write_bytes(file.read_bytes())
                print(f"{group}: {error}; its input and standard error are in {keep}")
                return 1
    for report in reports:
        count = len(report.findings)
        print(
            f"{report.name}: {report.inputs:,} inputs, {report.values:,} read, {count} findings", flush=True
        )
        for number, (message, data) in enumerate(report.findings.values()):
            keep.mkdir(parents=True, exist_ok=True)
            file = keep / f"{report.name.replace(' ', '-')}-{number}"
            file.write_bytes(data)
            print(f"  {file}: {message:.500}")
        findings += count
    return findings


if __name__ == "__main__":
    sys.exit(main())
