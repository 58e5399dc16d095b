"""Damaged and hostile files for every reader: `python -m tests.fuzz --inputs 100000`.

Valid files of each kind are mutated (bits, bytes, slices, numbers, words that parsers trip over, parts of
another file) and read in a process of its own, where calls that would run something are listened to. Allowed
is a value, or an error of the reader's own kind that names the file. What a text reader returns is compared
with a slow reader that shares nothing with it: a wrong number without a word is a finding, like a crash, a
hang or code that ran.
"""

from __future__ import annotations

import argparse
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
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

SECONDS = 60
"""After which a read has hung."""
MEMORY = 8 * 2**30
WORDS = (
    b"nan", b"inf", b"-inf", b"1e999", b"-0", b"0", b"-1", b"1.5", b"99999999999999999999", b"0x1p4", b"1_0",
    b"\x00", b"\xef\xbb\xbf", b"\xff\xfe", b"\r\n", b"\n\n", b",", b",,", b'"', b"'", b"\\", b"{", b"}", b"#",
    b"../../etc/passwd", b"/", b" ", b"\t", b"\xc2\xa0", b"\xd9\xa1", b"id:", b"name:", b"True", b"",
)  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """One reader, and files that it reads."""

    name: str
    suffix: str
    seeds: list[bytes]
    read: Callable[[Path], object]
    allowed: tuple[type[Exception], ...]
    again: Callable[[bytes], object] | None = None
    """A slow reader of the same: equal wherever `read` returns a value."""
    share: float = 1.0
    """Of the inputs, relative to the other kinds'."""


def mutated(rng: np.random.Generator, seeds: list[bytes]) -> bytes:
    """One to four mutations of one of the seeds."""
    data = bytearray(seeds[rng.integers(len(seeds))])
    for _ in range(rng.integers(1, 5)):
        at = int(rng.integers(len(data) + 1))
        length = int(min(rng.geometric(0.1), len(data) - at))
        match int(rng.integers(9)):
            case 0 if at < len(data):
                data[at] ^= 1 << int(rng.integers(8))
            case 1:
                data[at : at + length] = rng.bytes(length)
            case 2:
                del data[at : at + length]
            case 3:
                data[at:at] = data[at : at + length] * int(rng.integers(1, 4))
            case 4:
                del data[at:]
            case 5:
                data[at:at] = WORDS[rng.integers(len(WORDS))]
            case 6:  # a number or word of the text becomes another one
                spots = [m.span() for m in re.finditer(rb"[\w.+-]+", bytes(data[:4000]))]
                if spots:
                    low, high = spots[rng.integers(len(spots))]
                    data[low:high] = WORDS[rng.integers(len(WORDS))]
            case 7:
                other = seeds[rng.integers(len(seeds))]
                start = int(rng.integers(len(other) + 1))
                data[at : at + length] = other[start : start + length]
            case 8:  # a whole line again, elsewhere
                lines = bytes(data).split(b"\n")
                lines.insert(int(rng.integers(len(lines) + 1)), lines[rng.integers(len(lines))])
                data = bytearray(b"\n".join(lines))
    return bytes(data)


def rows_of(data: bytes) -> list[list[str]]:
    """Lines of fields, as plain Python sees them; lines end as anybody's editor ends them."""
    text = data.removeprefix(b"\xef\xbb\xbf").rstrip().decode().replace("\r\n", "\n").replace("\r", "\n")
    return [line.split(",") for line in text.split("\n") if line]


def slow_table(columns: int, score: bool) -> Callable[[bytes], object]:
    def read(data: bytes) -> object:
        return [
            (row[0], int(row[1]), *(float(x) for x in row[2:6]), int(row[6]))
            + ((float(row[columns - 1]),) if score else ())
            for row in rows_of(data)
        ]

    return read


def table(found: Any) -> object:
    """Rows of what `evaluators` reads, in the form of `slow_table`."""
    scores = getattr(found, "score", None)
    columns = [found.video, found.frame, found.box, found.label]
    return [
        (found.videos[v], int(f), *map(float, b), int(k)) + (() if scores is None else (float(scores[i]),))
        for i, (v, f, b, k) in enumerate(zip(*columns, strict=True))
    ]


def text_kinds() -> list[Kind]:
    from evaluators import ava_csv, files

    rows = [(f"v{i % 3}", 902 + i, 0.1 + i / 100, 0.2, 0.5 + i / 100, 0.75, 1 + i % 80) for i in range(9)]
    truth = "".join(",".join(map(str, row)) + f",{i}\n" for i, row in enumerate(rows)).encode()
    found = "".join(",".join(map(str, row)) + f",0.{i}1\n" for i, row in enumerate(rows)).encode()
    frames = b"".join(b"%d,%d,0,0.5,10,20.5,110,220\n" % (i, i + 1) for i in range(8))
    mapping = (
        b'item {\n  name: "stand"\n  id: 12\n}\n# a comment\n'
        b'label { name: "say \\"no\\"" label_id: 7 label_type: X }\n'
    )
    data_error = (files.DataFileError,)
    return [
        Kind("ground truth", ".csv", [truth, truth.replace(b"\n", b"\r\n")],
             lambda path: table(ava_csv.read_groundtruth(path)), data_error, slow_table(8, False), 3),
        Kind("detections", ".csv", [found], lambda path: table(ava_csv.read_detections(path)),
             data_error, slow_table(8, True), 3),
        Kind("exclusions", ".csv", [b"v0,0902\nv1,0903\n"], ava_csv.read_exclusions, data_error,
             lambda data: frozenset((row[0], int(row[1])) for row in rows_of(data)), 2),
        Kind("persons", ".csv", [found.replace(b",1,", b",,"), b"v,0902,0.1,0.2,0.3,0.4,0.9\n"],
             ava_csv.read_persons, data_error),
        Kind("frame detections", ".txt", [frames], ava_csv.read_frame_detections, data_error),
        Kind("label map", ".pbtxt", [mapping], ava_csv.read_label_map, data_error, share=2),
    ]  # fmt: skip


class _Runs:
    """What a hostile pickle would have done."""

    def __init__(self, call: Callable[..., object], *args: object) -> None:
        self.call, self.args = call, args

    def __reduce__(self) -> tuple[object, ...]:
        return self.call, self.args


def pickle_kinds() -> list[Kind]:
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
    hostile = [pickle.dumps(_Runs(os.system, "true")), pickle.dumps({"labels": _Runs(eval, "1 + 1")})]
    written = [pickle.dumps(content, protocol) for protocol in (0, 2, 4)]
    folder = Path(tempfile.mkdtemp())
    (folder / "GT.pkl").write_bytes(written[1])
    annotations = read_act(folder / "GT.pkl")
    array = io.BytesIO()
    np.save(array, np.array([[0, 1, 1, 0.5, 10, 20, 110, 220], [0, 2, 0, 0.25, 10, 20, 110, 220]]))
    return [
        Kind("annotations", ".pkl", [*written, *hostile], read_act, (DataFileError,), share=2),
        Kind("array", ".npy", [array.getvalue()], lambda path: read_act_detections(path, annotations),
             (DataFileError,)),
        Kind("pickled array", ".pkl", [pickle.dumps(np.load(io.BytesIO(array.getvalue()))), *hostile],
             lambda path: read_act_detections(path, annotations), (DataFileError,)),
    ]  # fmt: skip


def model_kinds() -> list[Kind]:
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
    seeds.append(pickle.dumps(_Runs(os.system, "true")))
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
        Kind("checkpoint", ".pt", seeds, load, (CheckpointError,), share=0.3),
        Kind("result", ".json", [result], read_result, (ValueError,), share=0.5),
    ]


def video_kinds() -> list[Kind]:
    import torch

    from actloc_core.clip import (
        VideoError,
        duration,
        iter_frames,
        probe,
        read_frames,
        read_header,
        read_times,
    )
    from tests.actloc_core.numbered import write_numbered

    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp())
    seeds = [
        write_numbered(folder / "a.mp4", 12, size=(32, 24)).read_bytes(),
        write_numbered(folder / "b.mkv", 12, size=(32, 24), bframes=0).read_bytes(),
        write_numbered(folder / "c.avi", 12, codec="mpeg4", size=(32, 24), bframes=0).read_bytes(),
        write_numbered(folder / "d.webm", 12, codec="libvpx", size=(32, 24), bframes=None).read_bytes(),
    ]

    def played(path: Path) -> None:
        for frame, _ in zip(iter_frames(path), range(100), strict=False):
            assert frame.image((8, 8)).shape == frame.thumbnail((8, 8)).shape == (8, 8, 3)

    def look(path: Path) -> object:
        """All of the roads; each of them may refuse."""
        refusals: list[VideoError] = []
        roads = (
            probe, duration, read_header, played,
            lambda path: read_frames(path, np.array([3, 0, 5])),
            lambda path: read_times(path, np.array([0.0, 0.3]), fps=16.0),
        )  # fmt: skip
        for road in roads:
            try:
                road(path)
            except VideoError as error:
                if str(path) not in str(error):
                    raise ValueError(f"the message names no file: {error}") from error
                refusals.append(error)
        if len(refusals) == len(roads):
            raise refusals[0]
        return None

    return [Kind("video", ".bin", seeds, look, (VideoError,), share=0.4)]


KINDS: dict[str, Callable[[], list[Kind]]] = {
    "text": text_kinds,
    "pickle": pickle_kinds,
    "model": model_kinds,
    "video": video_kinds,
}
HEARD: list[str] = []
"""Events of calls that run something, since the last input."""


def _listen(event: str, args: tuple[object, ...]) -> None:
    if event in ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.fork", "socket.connect"):
        HEARD.append(f"{event}{args!r}")


def fuzz(group: str, inputs: int, seed: int, folder: Path, told: Any) -> None:
    """Runs in a process of its own. Puts (name of the kind, inputs, values, findings) into the queue `told`.

    The input at hand lies in `folder`, so that a crash leaves it there.
    """
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    sys.stderr = open(folder / "stderr", "w")  # noqa: SIM115  libraries complain of each damaged file
    os.dup2(sys.stderr.fileno(), 2)
    sys.addaudithook(_listen)
    kinds = KINDS[group]()
    whole = sum(kind.share for kind in kinds)
    rng = np.random.default_rng((seed, list(KINDS).index(group)))
    for kind in kinds:
        path, values, findings = folder / f"input{kind.suffix}", 0, []
        count = max(round(inputs * kind.share / whole), 1)
        for _ in range(count):
            data = mutated(rng, kind.seeds)
            path.write_bytes(data)
            if said := judge(kind, path, data):
                findings.append((said, data))
            elif said is None:
                values += 1
        told.put((kind.name, count, values, findings))


def judge(kind: Kind, path: Path, data: bytes) -> str | None:
    """What is wrong with how this input was read; "" where it was rightly refused, None rightly read."""
    HEARD.clear()

    def hang(number: int, frame: object) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, hang)
    signal.alarm(SECONDS)
    try:
        value = kind.read(path)
        refused = False
    except kind.allowed as error:
        value, refused = str(error), True
    except TimeoutError:
        return f"took more than {SECONDS} s"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    finally:
        signal.alarm(0)
    if HEARD:
        return f"ran {HEARD[0]}"
    if refused:
        return "" if str(path) in str(value) else f"the message names no file: {value}"
    if kind.again is not None:
        try:
            right = kind.again(data)
        except (ValueError, IndexError) as error:
            return f"it was read, but cannot be: {error}"
        if value != right:
            return f"it was read as {value!r:.300}, and says {right!r:.300}"
    return None


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--inputs", type=int, default=100_000, help="in all (default: 100000)")
    parser.add_argument("--seed", type=int, default=0, help="of the changes (default: 0)")
    parser.add_argument("--only", choices=list(KINDS), nargs="+", default=list(KINDS), help="these readers")
    parser.add_argument("--keep", type=Path, default=Path("out/fuzz"), help="where findings are kept")
    args = parser.parse_args(argv)
    shares = {"text": 0.7, "pickle": 0.2, "model": 0.05, "video": 0.05}
    whole = sum(shares[group] for group in args.only)
    context, bad = multiprocessing.get_context("spawn"), 0
    for group in args.only:
        clock = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            told = context.SimpleQueue()
            count = round(args.inputs * shares[group] / whole)
            process = context.Process(target=fuzz, args=(group, count, args.seed, Path(folder), told))
            process.start()
            results = []
            while process.is_alive() or not told.empty():
                if told.empty():
                    process.join(0.1)
                else:
                    results.append(told.get())
            for name, inputs, values, findings in results:
                print(
                    f"{name}: {inputs:,} inputs, {values:,} of them read, {len(findings)} findings",
                    flush=True,
                )
                for number, (said, data) in enumerate(findings[:20]):
                    args.keep.mkdir(parents=True, exist_ok=True)
                    file = args.keep / f"{name.replace(' ', '-')}-{number}"
                    file.write_bytes(data)
                    print(f"  {file}: {said:.500}")
                bad += len(findings)
            if process.exitcode:
                bad += 1
                args.keep.mkdir(parents=True, exist_ok=True)
                for file in Path(folder).iterdir():
                    (args.keep / f"crash-{group}-{file.name}").write_bytes(file.read_bytes())
                print(f"{group}: the process died with {process.exitcode}; its files are in {args.keep}")
            print(f"{group}: {time.monotonic() - clock:.0f} s", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
