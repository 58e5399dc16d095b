"""The videos that a command line names: files, folders, patterns, standard input, addresses, cameras."""

from __future__ import annotations

import glob
import os
import re
import stat
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from actloc_core.clip import Source, VideoError

STANDARD_INPUT = Path("/dev/stdin")
"""A file that is redirected to standard input."""
ANNOTATED, DETECTIONS = "annotated.mp4", "detections.json"
"""Names of results. They lie together, and a folder's annotated videos are not predicted again."""
SUFFIXES = tuple(
    f".{name}"
    for name in re.findall(r"\w+", "3gp avi flv h264 m2ts m4v mkv mov mp4 mpeg mpg mts ogv ts webm wmv")
)
"""Files with these suffixes are a folder's videos. A file that is named itself may have any."""


@dataclass(frozen=True)
class NamedVideo:
    """A video and what its results are called."""

    source: Source
    name: str
    """Unique among the videos of a command: the file's name without its suffix."""

    def __str__(self) -> str:
        return "standard input" if self.source in ("pipe:0", STANDARD_INPUT) else str(self.source)

    @property
    def is_file(self) -> bool:
        """Whether it can be read again and is then the same."""
        return isinstance(self.source, Path) and self.source != STANDARD_INPUT

    @property
    def identity(self) -> str:
        """The source for comparison: a file's absolute path."""
        return os.path.abspath(self.source) if self.is_file else str(self)


def find_videos(arguments: Sequence[str]) -> list[NamedVideo]:
    """Return the videos that arguments name, each once, in the arguments' order and sorted within a folder.

    An argument is a file, a folder (its videos and those of its folders, by SUFFIXES, results excepted), a
    pattern such as 'films/*.mp4' or '**/*.mkv', - for standard input, an address such as rtsp://..., or a
    camera such as /dev/video0. Videos of the same name are called name, name-2, name-3, ...
    Raises VideoError for a folder without videos and for a pattern that matches nothing.
    """
    named: dict[Source, str] = {}
    for source in dict.fromkeys(source for argument in arguments for source in _sources(argument)):
        stem = name = _stem(source)
        number = 1
        while name in named.values():
            number += 1
            name = f"{stem}-{number}"
        named[source] = name
    return [NamedVideo(source, name) for source, name in named.items()]


def is_one_video(arguments: Sequence[str], videos: Sequence[NamedVideo]) -> bool:
    """Whether the arguments name one video itself, by no folder or pattern."""
    return len(arguments) == 1 and videos[0].source in (
        arguments[0],
        Path(arguments[0]),
        *(("pipe:0", STANDARD_INPUT) if arguments[0] == "-" else ()),
    )


def _sources(argument: str) -> list[Source]:
    if argument == "-":
        # A file that is redirected here can be read at any position, a pipe cannot.
        redirected = stat.S_ISREG(os.fstat(0).st_mode)
        return [STANDARD_INPUT if redirected else "pipe:0"]
    if re.match(r"[a-z][a-z0-9+.-]+://", argument, re.IGNORECASE):
        return [argument]
    path = Path(argument)
    if path.is_dir():
        return _videos_in(path)
    if path.exists() and not path.is_file():  # a camera or a named pipe
        return [argument]
    if path.exists() or not glob.has_magic(argument):
        return [path]
    matches = [Path(match) for match in sorted(glob.glob(argument, recursive=True))]
    if not matches:
        raise VideoError(f"{argument}: no file matches this pattern")
    files: list[Source] = [path for path in matches if path.is_file()]
    # '**' matches folders and what is in them.
    return files or [video for path in matches for video in _videos_in(path)]


def _videos_in(folder: Path) -> list[Source]:
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    videos = [
        path
        for path in files
        if not any(part[0] == "." for part in path.relative_to(folder).parts)
        and not (path.name == ANNOTATED and path.with_name(DETECTIONS).exists())
    ]
    if not videos:
        raise VideoError(f"{folder}: no videos in this folder ({', '.join(SUFFIXES)})")
    return list(videos)


def _stem(source: Source) -> str:
    if isinstance(source, Path):
        return "stdin" if source == STANDARD_INPUT else source.stem
    if source == "pipe:0":
        return "stdin"
    address = urllib.parse.urlsplit(source)
    last = Path(urllib.parse.unquote(address.path)).stem
    # A camera's address is often all host and port: rtsp://10.0.0.7:554/
    return last or re.sub(r"[^\w.-]", "_", address.hostname or "video")
