"""Remote storage of a sweep's files at a URI (s3://, gs://, hdfs://, file://): machines then share no folder.

Each machine has an output directory of its own; a training's files are fetched before it and sent after it.
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
"""Files that mean something on one machine alone, and are not synced."""


def send(uri: str, out: Path, folder: str) -> None:
    """Sync OUT's `folder` to the mirror: copy files that differ, remove those that are gone.

    Files are copied in the order of their names, so that a run's result.json is the last.
    Raises ValueError naming the URI where it cannot be written.
    """
    try:
        system, root = FileSystem.from_uri(uri)
        remote = _files(system, f"{root}/{folder}")
        local = {
            str(p.relative_to(out / folder)): p for p in sorted((out / folder).rglob("*")) if _is_synced(p)
        }
        for name, path in local.items():
            info = remote.get(name)
            if info is None or (info.size, info.mtime_ns) != (path.stat().st_size, path.stat().st_mtime_ns):
                system.create_dir(os.path.dirname(f"{root}/{folder}/{name}"), recursive=True)
                part = f"{root}/{folder}/{name}.{uuid.uuid4().hex}.part"
                with open(path, "rb") as source, system.open_output_stream(part) as target:
                    while chunk := source.read(CHUNK):
                        target.write(chunk)
                system.move(part, f"{root}/{folder}/{name}")
                _copy_time(path, system.get_file_info(f"{root}/{folder}/{name}"))
        for name in remote.keys() - local.keys():
            system.delete_file(f"{root}/{folder}/{name}")
    except (ArrowException, OSError) as error:
        raise ValueError(f"{uri}: cannot be written ({error}); give a --mirror you may write to") from error


def fetch(uri: str, out: Path, folder: str) -> None:
    """Copy into OUT's `folder` the files of the mirror that OUT lacks, or has in an older version.

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
                _copy_time(path, info)
            finally:
                part.unlink(missing_ok=True)
    except (ArrowException, OSError) as error:
        raise ValueError(f"{uri}: cannot be read ({error}); check --mirror") from error


def _files(system: FileSystem, folder: str) -> dict[str, FileInfo]:
    """Path below the folder -> its size and time."""
    infos = system.get_file_info(FileSelector(folder, allow_not_found=True, recursive=True))
    return {
        info.path[len(folder) + 1 :]: info
        for info in infos
        if info.type == FileType.File and not info.path.endswith(".part")
    }


def _is_synced(path: Path) -> bool:
    return path.is_file() and path.name not in LOCAL and not path.name.endswith(".part")


def _copy_time(path: Path, info: FileInfo) -> None:
    """Give a file the time of its copy in the mirror: files of different times then differ."""
    if info.mtime_ns is not None:
        os.utime(path, ns=(info.mtime_ns, info.mtime_ns))
