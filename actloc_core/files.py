"""Atomic writing: a file appears under its name only when it is complete."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

STANDARD_OUTPUT = Path("-")


def is_standard_output(path: Path) -> bool:
    """Whether a path is STANDARD_OUTPUT, or the file that this process has for it, such as /dev/stdout."""
    if path == STANDARD_OUTPUT:
        return True
    try:
        return os.path.samestat(path.stat(), os.fstat(1))
    except OSError:
        return False


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, which replaces it when the context ends without an error.

    The folder is created where it is missing. Links are followed and stay. A pipe or a device is never
    replaced but gets the content at the end, and so does standard output, which is also called -.
    OSError: it cannot be written.
    """
    printed = is_standard_output(path)
    if printed or (path.exists() and not stat.S_ISREG(path.stat().st_mode)):
        with tempfile.TemporaryDirectory() as folder:
            part = Path(folder) / "part"
            yield part
            sys.stdout.flush()
            with (
                open(part, "rb") as content,
                os.fdopen(os.dup(1), "wb") if printed else open(path, "wb") as target,
            ):
                shutil.copyfileobj(content, target)
        return
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def text_beside(*outputs: Path | None) -> Iterator[None]:
    """In the context: what is printed goes to standard error if one of these files is standard output.

    ValueError: two of them are.
    """
    printed = [path for path in outputs if path is not None and is_standard_output(path)]
    if len(printed) > 1:
        raise ValueError(f"{printed[0]} and {printed[1]} are both standard output; give one of them a file")
    with contextlib.redirect_stdout(sys.stderr) if printed else contextlib.nullcontext():
        yield
