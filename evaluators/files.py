"""Opening data files with clear errors, and writing files atomically."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from uuid import uuid4

PathLike = str | os.PathLike[str]


class DataFileError(ValueError):
    """An invalid data file. The message says where, what was found and what to do."""


def open_data(path: Path, error: type[DataFileError]) -> IO[bytes]:
    """Open a file for reading. FileNotFoundError; `error` when it cannot be read, such as a folder."""
    try:
        return open(path, "rb")
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: file not found; check the path") from None
    except OSError as reason:
        raise error(f"{path}: cannot be read ({reason.strerror})") from reason


@contextmanager
def atomic_write(path: PathLike) -> Iterator[IO[bytes]]:
    """Open a file that replaces `path` when the block succeeds; on an error `path` stays as it was."""
    path = Path(path)
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
