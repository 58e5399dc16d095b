"""Opening data files with clear errors, and writing files atomically."""

import os
import re
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NoReturn
from uuid import uuid4

PathLike = str | os.PathLike[str]


class DataFileError(ValueError):
    """An invalid data file. The message says where, what was found and what to do."""


MOST_TOLD = 20
"""Errors of a file that are told in words."""


class Invalid(Exception):
    """One thing that is wrong in a file: where and what was found, and what to do."""

    def __init__(self, found: str, advice: str = "") -> None:
        super().__init__(f"{found}; {advice}" if advice else found)
        self.found, self.advice = found, advice


class Problems:
    """What is wrong in a file, collected, so that one error tells all of it."""

    def __init__(self) -> None:
        self.told: list[Invalid] = []
        """The first MOST_TOLD, in the order of the file."""
        self.count = 0

    @contextmanager
    def noting(self) -> Iterator[None]:
        """In the context: an Invalid ends the block and is noted."""
        try:
            yield
        except Invalid as invalid:
            self.add(invalid)

    def add(self, invalid: Invalid) -> None:
        """Note what is wrong."""
        self.count += 1
        if len(self.told) < MOST_TOLD:
            self.told.append(invalid)

    def refuse(self, error: type[Exception] = Invalid, prefix: str = "") -> None:
        """Raise `error` of all that was noted, behind a prefix, each advice once; nothing if nothing was."""
        if not self.count:
            return
        lines, given = [], {""}
        for one in self.told:
            lines.append(one.found if one.advice in given else str(one))
            given.add(one.advice)
        if rest := self.count - len(lines):
            lines.append(f".. and {rest:,} more")
        raise error(prefix + "\n".join(lines))


def invalid(where: str, found: str, advice: str) -> NoReturn:
    """Raise Invalid."""
    raise Invalid(f"{where}: {found}", advice)


ELSE = (
    (rb"\s*<(!doctype html|html|head|body)", "a web page", "fetch the file itself, as a browser would"),
    (rb"version https://git-lfs", "a Git LFS pointer", "run git lfs pull in its repository"),
    (rb"\x1f\x8b", "gzip", "unpack it with gunzip"),
    (rb"BZh\d", "bzip2", "unpack it with bunzip2"),
    (rb"\xfd7zXZ", "xz", "unpack it with unxz"),
    (rb"MATLAB 5\.0 MAT-file", "a MATLAB file", "read it with scipy.io.loadmat and write its content anew"),
    (rb"\x89HDF\r\n", "an HDF5 file, perhaps of MATLAB 7.3", "read it with h5py and write its content anew"),
)
"""First bytes of files of no form that is read here: what they are, and what to do."""
OTHER = {
    "pickle": (rb"\x80[\x02-\x05]", "a pickle"),
    "zip": (rb"PK\x03\x04", "a zip archive"),
    "array": (rb"\x93NUMPY", "an array of numpy.save"),
    "JSON": (rb'\s*(\{\s*"|\[\s*[\[{"]|\{\}|\[\])', "JSON"),
}
"""Forms of which some reader reads one and not the others."""


def open_data(
    path: Path, error: type[DataFileError], *, form: str = "", refused: Sequence[str] = ()
) -> IO[bytes]:
    """Open a file for reading.

    form: what it should be, in words. refused: forms of OTHER that it may not have.
    FileNotFoundError; `error` when it cannot be read, such as a folder, or is plainly something else.
    """
    try:
        file = open(path, "rb")  # noqa: SIM115  # the caller closes it
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: file not found; check the path") from None
    except OSError as reason:
        raise error(f"{path}: cannot be read ({reason.strerror})") from reason
    head = file.peek(512)[:512]
    for pattern, what, advice in (*ELSE, *((*OTHER[name], f"{form} is needed") for name in refused)):
        if re.match(pattern, head, re.IGNORECASE):
            file.close()
            raise error(f"{path}: this is {what}, whatever its name says; {advice}")
    return file


def decode(path: Path, raw: bytes, error: type[DataFileError], line: int = 1) -> str:
    """UTF-8 text, without a byte order mark, that begins at the given line of the file. Raises `error`."""
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise error(f"{path}, line 1: the text is UTF-16, not UTF-8; save the file as UTF-8")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as reason:
        line += raw.count(b"\n", 0, reason.start)
        found = f"the byte 0x{raw[reason.start]:02x} is not UTF-8"
        raise error(f"{path}, line {line}: {found}; save the file as UTF-8") from None


STANDARD_OUTPUT = Path("-")


def is_standard_output(path: PathLike) -> bool:
    """Whether a path is STANDARD_OUTPUT, or the file that this process has for it, such as /dev/stdout."""
    if Path(path) == STANDARD_OUTPUT:
        return True
    try:
        return os.path.samestat(os.stat(path), os.fstat(1))
    except OSError:
        return False


@contextmanager
def atomic_write(path: PathLike) -> Iterator[IO[bytes]]:
    """Open a file that replaces `path` when the block succeeds; on an error `path` stays as it was.

    Links are followed and stay. A pipe or a device is never replaced but written into, and so is standard
    output, which is also called -.
    """
    if is_standard_output(path):
        sys.stdout.flush()
        with os.fdopen(os.dup(1), "wb") as file:
            yield file
        return
    path = Path(os.path.realpath(path))
    if path.exists() and not stat.S_ISREG(path.stat().st_mode):
        with open(path, "wb") as file:
            yield file
        return
    # In the same folder, since a rename across file systems would be a copy; with a unique name,
    # since two runs may write the same file.
    part = path.with_name(f".{path.name}.{uuid4().hex[:12]}.part")
    try:
        with open(part, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)  # after the rename there is no file of this name
