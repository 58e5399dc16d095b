"""A copy of what a sweep makes at a URI (s3://, gs://, hdfs://, file://): machines then share no folder.

Each machine then has an OUT of its own; what belongs to a training is fetched before it and sent behind it.
Nothing here locks: one sweep at a time over one mirror.
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path

from pyarrow import ArrowException  # type: ignore[import-untyped]
from pyarrow.fs import FileInfo, FileSelector, FileSystem, FileType  # type: ignore[import-untyped]

CHUNK = 1 << 20
LOCAL = ("lock", "trial.log")
"""Files of a folder that mean something on one machine alone."""


def send(uri: str, out: Path, folder: str) -> None:
    """Make the mirror's `folder` what OUT's is: copy what is another, remove what is gone.

    Files go in the order of their names, so that a run's result.json comes behind what it stands for.
    Raises ValueError naming the URI where it cannot be written.
    """
    try:
        system, root = FileSystem.from_uri(uri)
        there = _files(system, f"{root}/{folder}")
        here = {str(p.relative_to(out / folder)): p for p in sorted((out / folder).rglob("*")) if _travels(p)}
        for name, path in here.items():
            info = there.get(name)
            if info is None or (info.size, info.mtime_ns) != (path.stat().st_size, path.stat().st_mtime_ns):
                system.create_dir(os.path.dirname(f"{root}/{folder}/{name}"), recursive=True)
                part = f"{root}/{folder}/{name}.{uuid.uuid4().hex}.part"
                with open(path, "rb") as source, system.open_output_stream(part) as target:
                    while chunk := source.read(CHUNK):
                        target.write(chunk)
                system.move(part, f"{root}/{folder}/{name}")
                _same_time(path, system.get_file_info(f"{root}/{folder}/{name}"))
        for name in there.keys() - here.keys():
            system.delete_file(f"{root}/{folder}/{name}")
    except (ArrowException, OSError) as error:
        raise ValueError(f"{uri}: cannot be written ({error}); give a --mirror you may write to") from error


def fetch(uri: str, out: Path, folder: str) -> None:
    """Copy into OUT's `folder` what the mirror has there and OUT has not, or has from an earlier time.

    Raises ValueError naming the URI where it cannot be read.
    """
    try:
        system, root = FileSystem.from_uri(uri)
        for name, info in sorted(_files(system, f"{root}/{folder}").items()):
            path = out / folder / name
            if path.exists() and (info.mtime_ns or 0) <= path.stat().st_mtime_ns:
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
            try:
                with system.open_input_stream(info.path) as source, open(part, "wb") as target:
                    while chunk := source.read(CHUNK):
                        target.write(chunk)
                part.replace(path)
                _same_time(path, info)
            finally:
                part.unlink(missing_ok=True)
    except (ArrowException, OSError) as error:
        raise ValueError(f"{uri}: cannot be read ({error}); is the --mirror right?") from error


def _files(system: FileSystem, folder: str) -> dict[str, FileInfo]:
    """Path below the folder -> what is known of it."""
    found = system.get_file_info(FileSelector(folder, allow_not_found=True, recursive=True))
    return {
        info.path[len(folder) + 1 :]: info
        for info in found
        if info.type == FileType.File and not info.path.endswith(".part")
    }


def _travels(path: Path) -> bool:
    return path.is_file() and path.name not in LOCAL and not path.name.endswith(".part")


def _same_time(path: Path, info: FileInfo) -> None:
    """Give a file the time of its copy in the mirror: what is of another time is then another."""
    if info.mtime_ns is not None:
        os.utime(path, ns=(info.mtime_ns, info.mtime_ns))
