"""The files of a prediction: annotated video, AVA's rows, tracks and JSON, written as they are computed."""

from __future__ import annotations

import contextlib
import csv
import json
import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

import av
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray

from actloc_core.clip import DecodedFrame
from actloc_core.detector import ActionDetector, Actor
from actloc_core.drawing import Labels, Person, choose_labels, draw
from actloc_core.files import atomic_path
from actloc_core.keyframes import KeyframeDetections, Settings
from actloc_core.sources import ANNOTATED, DETECTIONS, NamedVideo
from actloc_core.tracks import Linker, interpolate

ROWS, TRACKS = "detections.csv", "tracks.csv"
TRACK_COLUMNS = ("video", "second", "track", "x1", "y1", "x2", "y2", "p_actor", "action", "score")
MAX_PENDING_BYTES = 128 * 2**20
"""Frames that wait for detections; above this, an incomplete batch is computed, and above twice this the
oldest frames are drawn with the detections known so far."""
MIN_SIDE, MAX_SIDE = 640, 1280
"""Pixels of the annotated video's longer side: smaller videos are enlarged, larger ones shrunk."""
TICKS_PER_SECOND = 90_000
"""Time base of the annotated video, fine enough for any frame rate, also a variable one."""
ENCODER: dict[str, object] = {
    "preset": "veryfast",
    "crf": "22",
    "x264-params": "rc-lookahead=10:bframes=0:weightp=0",
}
"""Options of x264: a third faster than the preset alone, for a tenth more bytes, and few frames in memory."""
LABEL_ACTIONS = 3
"""Number of actions in an actor's label, the best ones."""


@dataclass(frozen=True)
class Outputs:
    """Where the results of one video go."""

    folder: Path | None = None
    """None: no files."""
    movie: bool = True
    """Annotate the video. Without a folder it is encoded and discarded, to measure the speed."""
    lines: IO[str] | None = None
    """Gets a JSON object per keyframe, a line each, at once."""
    labels: Labels | None = None
    """How class names are drawn; None: the writer chooses it."""

    def names(self, *, tracks: bool) -> list[str]:
        """The files of the folder."""
        return [ANNOTATED] * self.movie + [ROWS, DETECTIONS] + [TRACKS] * tracks


def format_seconds(second: float) -> str:
    """Seconds to the microsecond, without trailing zeros: 10000.04, 900."""
    return f"{second:.6f}".rstrip("0").rstrip(".")


def check_folder(folder: Path, video: NamedVideo, checkpoint: Path) -> None:
    """Raise ValueError if a folder holds results of another video or checkpoint, or of unknown origin.

    A stream or a camera is another video each time.
    """
    names = [name for name in (ANNOTATED, ROWS, DETECTIONS, TRACKS) if (folder / name).exists()]
    if not names:
        return
    head: dict[str, Any] = {}
    # An unreadable file is described like one of another origin.
    with contextlib.suppress(OSError, ValueError), open(folder / DETECTIONS, encoding="utf-8") as file:
        head = json.loads(file.readline() + "]}")
    of = (head.get("source"), head.get("checkpoint"))
    if not video.is_file or of != (video.identity, os.path.abspath(checkpoint)):
        what = f"results of {of[0]} by {of[1]}" if all(of) else f"{', '.join(names)} of unknown origin"
        raise ValueError(f"{folder}: has {what}; give another --out, or --overwrite")


@dataclass(frozen=True)
class _Keyframe:
    second: float
    persons: dict[int, Person]
    """By track id, or by rank without tracks."""


class ResultWriter:
    """The files of one video. Frames wait here until the detections around them are known."""

    def __init__(
        self,
        files: contextlib.ExitStack,
        detector: ActionDetector,
        video: NamedVideo,
        outputs: Outputs,
        settings: Settings,
        *,
        fps: float,
    ) -> None:
        """files: closes the files; on an exception none appears. fps: the video's stated frame rate."""
        self.video, self.settings, self.outputs = video.name, settings, outputs
        self.labels = outputs.labels or choose_labels(detector.classes if outputs.movie else {})
        self.ids = {name: number for number, name in detector.classes.items()}
        opened = {name: files.enter_context(_open_text(outputs.folder, name)) for name in (ROWS, DETECTIONS)}
        self.rows, self.listing = csv.writer(opened[ROWS], lineterminator="\n"), opened[DETECTIONS]
        self.linker: Linker | None = None
        if settings.tracks:
            self.linker = Linker()
            table = files.enter_context(_open_text(outputs.folder, TRACKS))
            self.track_rows = csv.writer(table, lineterminator="\n")
            self.track_rows.writerow(TRACK_COLUMNS)
        path = None if outputs.folder is None else outputs.folder / ANNOTATED
        self.movie = files.enter_context(_open_movie(path, fps)) if outputs.movie else None
        self.waiting: deque[tuple[float, NDArray[np.uint8]]] = deque()
        self.known: deque[_Keyframe] = deque()
        self.waiting_bytes = self.frames = self.clips = self.actors = 0
        self.tracks: set[int] = set()
        self.last_second = 0.0
        chosen = {name: getattr(settings, name) for name in ("every", "theta", "start_second")}
        shown = video.source.name if isinstance(video.source, Path) else str(video)
        head = {
            "video": shown,
            "source": video.identity,
            "checkpoint": os.path.abspath(detector.file),
            **chosen,
        }
        self.listing.write(json.dumps(head, ensure_ascii=False)[:-1] + ', "keyframes": [')

    def is_full(self) -> bool:
        """Whether the waiting frames take more than MAX_PENDING_BYTES."""
        return self.waiting_bytes > MAX_PENDING_BYTES

    def add_frame(self, frame: DecodedFrame) -> None:
        """Queue a frame for the annotated video."""
        self.frames, self.last_second = self.frames + 1, frame.seconds
        if self.movie is None:
            return
        image = frame.planes(self.movie.size_for(frame))
        self.waiting.append((frame.seconds, image))
        self.waiting_bytes += image.nbytes
        while self.waiting_bytes > 2 * MAX_PENDING_BYTES:
            self._draw_next()
        self._draw_known()

    def add_detections(self, detections: KeyframeDetections) -> None:
        """Write AVA's rows (video, second, x1, y1, x2, y2, action id, score), tracks' rows and the JSON."""
        boxes = [actor.box for actor in detections.actors]
        numbers = self.linker.link(detections.second, boxes) if self.linker else range(1, len(boxes) + 1)
        second, actors = round(self.settings.start_second + detections.second, 6), []
        for number, actor in zip(numbers, detections.actors, strict=True):
            place = [self.video, format_seconds(second)]
            box = [f"{x:.4f}" for x in actor.box]
            scores = [(name, f"{score:.6f}") for name, score in actor.actions.items()]
            self.rows.writerows([*place, *box, self.ids[name], score] for name, score in scores)
            if self.linker:
                self.tracks.add(number)
                self.track_rows.writerow([*place, number, *box, f"{actor.p_actor:.6f}", *scores[0]])
            actors.append(({"track": number} if self.linker else {}) | _as_json(actor))
        keyframe = {"second": second, "actors": actors}
        self.listing.write((",\n" if self.clips else "\n") + json.dumps(keyframe, ensure_ascii=False))
        if self.outputs.lines is not None:
            line = json.dumps({"video": self.video, **keyframe})
            print(line, file=self.outputs.lines, flush=True)
        self.clips, self.actors = self.clips + 1, self.actors + len(actors)
        if self.movie is not None:
            pairs = zip(numbers, detections.actors, strict=True)
            persons = {number: self._person(number, actor) for number, actor in pairs}
            self.known.append(_Keyframe(detections.second, persons))
            self._draw_known()

    def finish(self, stopped: str | None, damaged: int) -> None:
        """Draw the frames that still wait, end the JSON and remove results that this run does not write."""
        while self.waiting:
            self._draw_next()
        tail = {"seconds": round(self.last_second, 6), "damaged": damaged, "stopped": stopped}
        self.listing.write("\n], " + json.dumps(tail, ensure_ascii=False)[1:] + "\n")
        if self.outputs.folder is not None:
            for name in {ANNOTATED, TRACKS} - set(self.outputs.names(tracks=self.settings.tracks)):
                (self.outputs.folder / name).unlink(missing_ok=True)

    def _person(self, number: int, actor: Actor) -> Person:
        best = list(actor.actions.items())[:LABEL_ACTIONS]
        title = f"actor {actor.p_actor:.2f}"
        return Person(
            actor.box,
            number - 1,
            f"#{number} {title}" if self.linker else title,
            tuple((self.labels.texts[name], score) for name, score in best),
        )

    def _draw_known(self) -> None:
        """Draw the frames before the last known keyframe, without tracks half an interval further."""
        if self.known:
            until = self.known[-1].second + (0 if self.linker else self.settings.every / 2)
            while self.waiting and self.waiting[0][0] < until:
                self._draw_next()

    def _draw_next(self) -> None:
        """Draw the oldest frame and forget keyframes before those around it."""
        second, image = self.waiting.popleft()
        self.waiting_bytes -= image.nbytes
        while len(self.known) > 1 and self.known[1].second <= second:
            self.known.popleft()
        draw(image, self._persons_at(second), self.labels.font_file)
        assert self.movie is not None
        self.movie.add(second - self.settings.start, image)

    def _persons_at(self, second: float) -> list[Person]:
        """The persons of the nearest keyframe; boxes of tracks in both keyframes around are interpolated."""
        around = [self.known[i] for i in range(min(2, len(self.known)))]
        if not around:
            return []
        nearest = min(around, key=lambda keyframe: abs(keyframe.second - second))
        before, after = around[0], around[-1]
        if self.linker is None or not before.second < second < after.second:
            return list(nearest.persons.values())
        at = (second - before.second) / (after.second - before.second)
        return [
            replace(person, box=interpolate(before.persons[n].box, after.persons[n].box, at))
            if n in before.persons and n in after.persons
            else person
            for n, person in nearest.persons.items()
        ]


def _as_json(actor: Actor) -> dict[str, Any]:
    actions = {name: round(score, 6) for name, score in actor.actions.items()}
    box = [round(x, 4) for x in actor.box]
    return {"box": box, "p_actor": round(actor.p_actor, 6), "actions": actions}


@contextlib.contextmanager
def _open_text(folder: Path | None, name: str) -> Iterator[IO[str]]:
    """Open a file of the folder, which appears when it is complete; without a folder, one that discards."""
    if folder is None:
        with open(os.devnull, "w", encoding="utf-8") as file:
            yield file
        return
    with atomic_path(folder / name) as part, open(part, "w", encoding="utf-8", newline="") as file:
        yield file


@dataclass
class _Movie:
    """The annotated video."""

    container: av.container.OutputContainer
    stream: VideoStream
    size: tuple[int, int] | None = None
    """(height, width): that of the first frame, also in a video whose size changes."""
    last: int = -1
    """Timestamp of the last frame in ticks."""

    def size_for(self, frame: DecodedFrame) -> tuple[int, int]:
        """(height, width) of the video; at its first frame it is set, as is how colours are stored."""
        if self.size is None:
            self.size = self.stream.height, self.stream.width = _display_size(frame.size)
            self.stream.codec_context.colorspace = frame.frame.colorspace
        return self.size

    def add(self, second: float, image: NDArray[np.uint8]) -> None:
        """Append a frame (1.5 H, W) yuv420p."""
        frame = av.VideoFrame.from_ndarray(image, format="yuv420p")
        frame.time_base = Fraction(1, TICKS_PER_SECOND)
        self.last = frame.pts = max(round(second * TICKS_PER_SECOND), self.last + 1)
        self.container.mux(self.stream.encode(frame))


@contextlib.contextmanager
def _open_movie(path: Path | None, fps: float) -> Iterator[_Movie]:
    """Open an H.264 video that all players read (yuv420p, index first). path None: discard it."""
    with contextlib.ExitStack() as stack:
        part = Path(os.devnull)
        if path is not None:
            part = stack.enter_context(atomic_path(path))
        options = {} if path is None else {"movflags": "+faststart"}
        container = stack.enter_context(
            av.open(str(part), "w", format="null" if path is None else "mp4", options=options)
        )
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.codec_context.time_base = Fraction(1, TICKS_PER_SECOND)
        stream.pix_fmt, stream.options = "yuv420p", dict(ENCODER)
        movie = _Movie(container, stream)
        yield movie
        if movie.last >= 0:
            container.mux(stream.encode())


def _display_size(size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) in the annotated video: the longer side in range, both even, as yuv420p requires."""
    longer = max(size)
    scale = min(max(longer, MIN_SIDE), MAX_SIDE) / longer
    height, width = (max(2 * round(side * scale / 2), 16) for side in size)
    return height, width
