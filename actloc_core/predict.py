"""Run a trained model on a video: `python -m actloc_core.predict clip.mp4 --checkpoint out/runs/<hash>`.

One pass: every frame is decoded once, clips around neighbouring keyframes share decoded frames and go
through the model in batches, and detections are written as soon as they are computed. Memory does not grow
with the length of the video.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import re
import resource
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

import av
import numpy as np
import torch
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from actloc_core import cli
from actloc_core.clip import TIE, DecodedFrame, VideoError, clip_times, iter_frames, read_header
from actloc_core.detector import SHIPPED, SHIPPED_MODEL, ActionDetector, Actor
from actloc_core.files import atomic_path

MAX_PENDING_BYTES = 256 * 2**20
"""Frames that wait for their keyframe's detections; above this, an incomplete batch is computed."""
MIN_SIDE, MAX_SIDE = 640, 1280
"""Pixels of the annotated video's longer side: smaller videos are enlarged, larger ones shrunk."""
TICKS_PER_SECOND = 90_000
"""Time base of the annotated video, fine enough for any frame rate, also a variable one."""
PROGRESS_INTERVAL_S = 30.0
"""Time between lines of progress where standard error is no terminal."""
LABEL_ACTIONS = 3
"""Number of actions in an actor's label, the best ones."""
INTERRUPTED = "interrupted"
COLOURS = ("#ffd23f", "#3bceac", "#ee4266", "#5ab1ff", "#ff8c42", "#c77dff")


@dataclass(frozen=True)
class KeyframeDetections:
    """The actors detected at one keyframe."""

    second: float
    """Time of the keyframe since the video's first frame."""
    actors: list[Actor]


@dataclass
class _Clip:
    """A keyframe's clip while its frames are decoded."""

    second: float
    until: NDArray[np.float64]
    """(T,) seconds: clip frame t is the last video frame before until[t], as in `clip.read_times`."""
    frames: list[NDArray[np.uint8]] = field(default_factory=list)


class _ClipBuilder:
    """Assemble the clips around keyframes `every` seconds apart from frames in presentation order."""

    def __init__(self, detector: ActionDetector, every: float) -> None:
        self.detector, self.every = detector, every
        self.keyframes = 0
        """Number of keyframes so far."""
        self.pending: deque[_Clip] = deque()
        self.size: tuple[int, int] | None = None
        """(height, width) of all clips: the first frame's, even where the video's size changes."""

    def add(self, frame: DecodedFrame, end: float = float("inf")) -> Iterator[_Clip]:
        """Add a frame that is displayed until `end` seconds, by default the last one; -> complete clips."""
        self._begin_clips(frame, end)
        image = None
        for clip in self.pending:
            count = int(np.searchsorted(clip.until, end)) - len(clip.frames)
            if count > 0:
                self.size = self.size or self.detector.size(*frame.size)
                image = frame.image(self.size) if image is None else image
                clip.frames += [image] * count
        while self.pending and len(self.pending[0].frames) == self.detector.frames:
            yield self.pending.popleft()

    def _begin_clips(self, frame: DecodedFrame, end: float) -> None:
        """Begin all clips whose first frame is this one; drop keyframes after the last frame."""
        detector, is_last = self.detector, end == float("inf")
        while True:
            second = self.keyframes * self.every
            times = clip_times(second, frames=detector.frames, stride=detector.stride, fps=detector.fps)
            until = np.maximum(times + (0.5 - TIE) / detector.fps, 0)
            if until[0] >= end or (is_last and second > frame.seconds):
                break
            self.pending.append(_Clip(second, until))
            self.keyframes += 1
        if is_last:
            self.pending = deque(clip for clip in self.pending if clip.second <= frame.seconds)


def iter_detections(
    detector: ActionDetector,
    video: Path,
    *,
    every: float,
    theta: float = 0.2,
    batch: int = 4,
    should_flush: Callable[[], bool] = lambda: False,
) -> Iterator[DecodedFrame | KeyframeDetections]:
    """Iterate over a video's frames in presentation order, and between them over the detections.

    every: seconds between keyframes; the first one is at 0. theta: see `ActionDetector`.
    batch: number of clips that go through the model at once. A keyframe's detections follow, at the latest,
    the frames of its clip and of the next batch - 1 clips.
    should_flush: called after each frame; True computes the complete clips at once.
    Raises VideoError where decoding cannot continue, after the detections before that.
    """
    builder = _ClipBuilder(detector, every)
    ready: list[_Clip] = []

    def detect() -> Iterator[KeyframeDetections]:
        actors = detector.batch([np.stack(clip.frames) for clip in ready], theta=theta) if ready else []
        yield from (KeyframeDetections(clip.second, each) for clip, each in zip(ready, actors, strict=True))
        ready.clear()

    def detect_full_batches(clips: Iterable[_Clip]) -> Iterator[KeyframeDetections]:
        for clip in clips:
            ready.append(clip)
            if len(ready) == batch:
                yield from detect()

    previous: DecodedFrame | None = None
    failure: VideoError | None = None
    try:
        for frame in iter_frames(video):
            # A frame is displayed until the next one, so it is added to clips when that one is decoded.
            if previous is not None:
                yield from detect_full_batches(builder.add(previous, frame.seconds))
            previous = frame
            yield frame
            if should_flush():
                yield from detect()
    except VideoError as error:
        failure = error
    if previous is not None:
        yield from detect_full_batches(builder.add(previous))
        yield from detect()
    if failure is not None:
        raise failure


@dataclass(frozen=True)
class Summary:
    """Numbers of one video's prediction."""

    seconds: float
    """Time from the first to the last frame."""
    frames: int
    clips: int
    actors: int
    elapsed: float
    """Seconds of computing."""
    stopped: str | None
    """Why prediction ended before the video's stated end; None where it did not."""


@dataclass(frozen=True)
class Settings:
    """How a video is predicted."""

    every: float
    """Seconds between keyframes; the first one is at 0."""
    theta: float = 0.2
    """See `ActionDetector`."""
    batch: int = 4
    """Clips that go through the model at once."""
    start_second: int = 0
    """Of the first frame, as annotations count; AVA's files of 15 minutes begin with 900."""


def predict(
    detector: ActionDetector,
    video: Path,
    out: Path,
    settings: Settings,
    *,
    on_progress: Callable[[float], object] = lambda seconds: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Summary:
    """Write OUT/annotated.mp4, OUT/detections.csv and OUT/detections.json of a video.

    on_progress: called with the time of each frame in seconds.
    should_stop: called after each frame; True ends the prediction there.
    Where a video ends early or prediction is stopped, the files hold the results up to there and the Summary
    gives the reason. Raises VideoError where no frame can be decoded, OSError where `out` cannot be written.
    """
    started, header, stopped = time.monotonic(), read_header(video), None
    with contextlib.ExitStack() as files:
        writer = _ResultWriter(files, detector, video, out, settings, fps=header.fps)
        events = iter_detections(
            detector,
            video,
            every=settings.every,
            theta=settings.theta,
            batch=settings.batch,
            should_flush=writer.is_full,
        )
        try:
            for event in events:
                if isinstance(event, KeyframeDetections):
                    writer.add_detections(event)
                    continue
                writer.add_frame(event)
                on_progress(event.seconds)
                if should_stop():
                    stopped = INTERRUPTED
                    break
        except VideoError as error:
            if not writer.frames:
                raise
            stopped = str(error)
        last, stated = writer.last_second, header.seconds or 0.0
        if stopped is None and stated > last + max(1.0, 0.02 * stated):
            stopped = f"{video}: truncated? Its header states {stated:.1f} s, but it ends after {last:.1f} s"
        writer.finish(stopped)
    elapsed = time.monotonic() - started
    return Summary(last, writer.frames, writer.clips, writer.actors, elapsed, stopped)


class _ResultWriter:
    """The three output files. Frames wait here until the detections of the nearest keyframe are known."""

    def __init__(
        self,
        files: contextlib.ExitStack,
        detector: ActionDetector,
        video: Path,
        out: Path,
        settings: Settings,
        *,
        fps: float,
    ) -> None:
        self.video, self.every, self.start = video, settings.every, settings.start_second
        self.ids = {name: number for number, name in detector.classes.items()}
        table = files.enter_context(_open_atomic(out / "detections.csv"))
        self.table = csv.writer(table, lineterminator="\n")
        self.listing = files.enter_context(_open_atomic(out / "detections.json"))
        self.movie = files.enter_context(_open_movie(out / "annotated.mp4", fps))
        self.waiting: deque[tuple[float, NDArray[np.uint8]]] = deque()
        self.known: deque[KeyframeDetections] = deque()
        self.frames = self.clips = self.actors = 0
        self.last_second = 0.0
        chosen = {name: getattr(settings, name) for name in ("every", "theta", "start_second")}
        head = {"video": video.name, "checkpoint": str(detector.file), **chosen}
        self.listing.write(json.dumps(head, ensure_ascii=False)[:-1] + ', "keyframes": [')

    def is_full(self) -> bool:
        """Whether the waiting frames take more than MAX_PENDING_BYTES."""
        return sum(image.nbytes for _, image in self.waiting) > MAX_PENDING_BYTES

    def add_frame(self, frame: DecodedFrame) -> None:
        """Queue a frame for the annotated video."""
        self.frames, self.last_second = self.frames + 1, frame.seconds
        self.waiting.append((frame.seconds, frame.thumbnail(_display_size(frame.size))))
        self._draw_known()

    def add_detections(self, detections: KeyframeDetections) -> None:
        """Write AVA's rows (video, second, x1, y1, x2, y2, action id, score) and the keyframe's JSON."""
        actors, second = [], round(self.start + detections.second, 6)
        for actor in detections.actors:
            box = [f"{x:.4f}" for x in actor.box]
            self.table.writerows(
                [
                    self.video.stem,
                    f"{second:.6f}".rstrip("0").rstrip("."),
                    *box,
                    self.ids[name],
                    f"{score:.6f}",
                ]
                for name, score in actor.actions.items()
            )
            actions = {name: round(score, 6) for name, score in actor.actions.items()}
            rounded = [round(x, 4) for x in actor.box]
            actors.append({"box": rounded, "p_actor": round(actor.p_actor, 6), "actions": actions})
        keyframe = {"second": second, "actors": actors}
        self.listing.write((",\n" if self.clips else "\n") + json.dumps(keyframe, ensure_ascii=False))
        self.clips, self.actors = self.clips + 1, self.actors + len(actors)
        self.known.append(detections)
        self._draw_known()

    def finish(self, stopped: str | None) -> None:
        """Draw the frames that still wait and end the JSON."""
        while self.waiting:
            self._draw(*self.waiting.popleft())
        tail = f', "seconds": {self.last_second:.3f}, "stopped": {json.dumps(stopped)}'
        self.listing.write("\n]" + tail + "}\n")

    def _draw_known(self) -> None:
        """Draw the frames whose nearest keyframe is known."""
        while self.waiting and self.known and self.waiting[0][0] < self.known[-1].second + self.every / 2:
            self._draw(*self.waiting.popleft())

    def _draw(self, second: float, image: NDArray[np.uint8]) -> None:
        """Append a frame with the actors of the nearest keyframe; forget earlier keyframes."""
        known = self.known
        while len(known) > 1 and abs(known[1].second - second) <= abs(known[0].second - second):
            known.popleft()
        self.movie.add(second, image, known[0] if known else None)


@contextlib.contextmanager
def _open_atomic(path: Path) -> Iterator[IO[str]]:
    with atomic_path(path) as part, open(part, "w", encoding="utf-8", newline="") as file:
        yield file


@dataclass
class _Movie:
    """The annotated video. Its size is that of the first frame."""

    container: av.container.OutputContainer
    stream: VideoStream
    size: tuple[int, int] | None = None
    """(height, width)"""
    last: int = -1
    """Timestamp of the last frame in ticks."""
    drawn: KeyframeDetections | None = None
    """The keyframe whose actors are in `overlay`; all frames around it share the overlay."""
    overlay: Image.Image = field(default_factory=lambda: Image.new("RGBA", (1, 1)))

    def add(
        self, second: float, image: NDArray[np.uint8], detections: KeyframeDetections | None = None
    ) -> None:
        if detections is not None and detections.actors:
            if self.drawn is not detections:
                self.drawn = detections
                self.overlay = draw_overlay(detections.actors, image.shape[0], image.shape[1])
            image = _blend(image, self.overlay)
        if self.size is None:
            self.size = image.shape[:2]
            self.stream.height, self.stream.width = self.size
        if image.shape[:2] != self.size:  # in a video whose size changes
            image = np.asarray(Image.fromarray(image).resize(self.size[::-1]))
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        frame.time_base = Fraction(1, TICKS_PER_SECOND)
        self.last = frame.pts = max(round(second * TICKS_PER_SECOND), self.last + 1)
        self.container.mux(self.stream.encode(frame))


@contextlib.contextmanager
def _open_movie(path: Path, fps: float) -> Iterator[_Movie]:
    """Open an H.264 video that all players read (yuv420p, index first)."""
    with (
        atomic_path(path) as part,
        av.open(str(part), "w", format="mp4", options={"movflags": "+faststart"}) as container,
    ):
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.codec_context.time_base = Fraction(1, TICKS_PER_SECOND)
        stream.pix_fmt, stream.options = "yuv420p", {"preset": "veryfast", "crf": "20"}
        movie = _Movie(container, stream)
        yield movie
        if movie.size is not None:
            container.mux(stream.encode())


def _display_size(size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) in the annotated video: the longer side in range, both even, as yuv420p requires."""
    longer = max(size)
    scale = min(max(longer, MIN_SIDE), MAX_SIDE) / longer
    height, width = (max(2 * round(side * scale / 2), 16) for side in size)
    return height, width


def annotate(image: NDArray[np.uint8], actors: Sequence[Actor]) -> NDArray[np.uint8]:
    """Draw each actor's box, p(alpha) and best actions on an image (H, W, 3) uint8 RGB."""
    return _blend(image, draw_overlay(actors, image.shape[0], image.shape[1]))


def _blend(image: NDArray[np.uint8], overlay: Image.Image) -> NDArray[np.uint8]:
    blended = Image.fromarray(np.ascontiguousarray(image))
    blended.paste(overlay, mask=overlay)
    return np.asarray(blended)


def draw_overlay(actors: Sequence[Actor], height: int, width: int) -> Image.Image:
    """Draw boxes and labels on a transparent image, RGBA. No label covers that of an actor before it."""
    image = Image.new("RGBA", (width, height))
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=max(12, round(min(height, width) / 36)))
    line = max(2, min(height, width) // 240)
    taken: list[tuple[float, float, float, float]] = []
    for number, actor in enumerate(actors):
        colour = COLOURS[number % len(COLOURS)]
        x1, y1, x2, y2 = (x * side for x, side in zip(actor.box, (width, height) * 2, strict=True))
        draw.rectangle((x1, y1, max(x2, x1), max(y2, y1)), outline=colour, width=line)
        best = list(actor.actions.items())[:LABEL_ACTIONS]
        text = "\n".join([f"actor {actor.p_actor:.2f}", *(f"{name} {score:.2f}" for name, score in best)])
        _, _, right, bottom = draw.multiline_textbbox((0, 0), text, font=font, spacing=1)
        right, bottom = right + 2 * line, bottom + 2 * line
        # Beside the box on the side with more room, inside the image, below the labels in the way.
        x = x2 + line if width - x2 >= x1 else x1 - right - line
        x, y = min(max(x, 0), max(width - right, 0)), min(max(y1, 0), max(height - bottom, 0))
        for left_, top_, right_, bottom_ in sorted(taken, key=lambda label: label[1]):
            if x < right_ and left_ < x + right and y < bottom_ and top_ < y + bottom:
                y = bottom_ + 1
        if y + bottom > height:
            continue
        taken.append((x, y, x + right, y + bottom))
        draw.rectangle(taken[-1], fill=(0, 0, 0, 150))
        draw.multiline_text((x + line, y + line), text, fill=colour, font=font, spacing=1)
    return image


def parse_interval(text: str, fps: float) -> float:
    """Parse "1s", "0.5 s" or "500ms", or "8" or "8 frames" of a video of this frame rate; -> seconds.

    Raises ValueError for other text and for less than one frame.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|f|frames?|)", text.lower().replace(" ", ""))
    if match is None:
        raise ValueError(f"--every {text!r}: give seconds, such as 1s or 0.5s, or frames, such as 8")
    seconds = float(match[1]) * {"ms": 1e-3, "s": 1.0}.get(match[2], 1 / fps)
    if seconds * fps < 0.999:
        raise ValueError(f"--every {text}: less than one frame of a video of {fps:g} frames per second")
    return seconds


def peak_memory() -> int:
    """Peak resident memory of this process in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m actloc_core.predict",
        description="Detect actors and their actions in a video: an annotated video, CSV and JSON.",
    )
    parser.add_argument("video", type=Path, help="video file")
    parser.add_argument(
        "--checkpoint", type=Path, default=Path(SHIPPED_MODEL), metavar="RUN_OR_FILE",
        help="folder of a run (out/runs/...) or of a training, or a checkpoint.pt (default: tiny, the "
        "shipped model, which knows synthetic people only)",
    )  # fmt: skip
    parser.add_argument(
        "--every", default="1s", metavar="1s|N",
        help="time between keyframes, or their distance in frames (default: 1s)",
    )  # fmt: skip
    parser.add_argument(
        "--theta", type=float, default=0.2,
        help="score threshold: candidates with p(alpha) above it are actors (default: 0.2)",
    )  # fmt: skip
    parser.add_argument(
        "--start-second", type=int, default=0, metavar="S",
        help="second of the first frame in detections.csv and .json, as your annotations count it: 900 for "
        "AVA's files (default: 0)",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, help="output directory (default: out/predictions/VIDEO)")
    parser.add_argument("--batch", type=int, default=4, help="clips per batch (default: 4)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 (default: a GPU if available)")
    parser.add_argument("--half", action="store_true", help="compute in bfloat16, faster on a GPU")
    parser.add_argument(
        "--compile", action="store_true", help="torch.compile: slow to start, faster on a GPU"
    )
    args = parser.parse_args(argv)
    if not 0 <= args.theta < 1:
        parser.error(f"--theta {args.theta}: give a probability in [0, 1)")
    if args.start_second < 0:
        parser.error(f"--start-second {args.start_second}: give at least 0")
    if args.batch < 1:
        parser.error(f"--batch {args.batch}: give at least 1")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; -> 0, 3 where the video ends before its stated end, 2 for an error, 130 for Ctrl-C."""
    return cli.exit_code(lambda: run(parse_args(argv)))


def run(args: argparse.Namespace) -> int:
    """Predict a video and print a summary; -> exit code. ValueError or OSError: bad input."""
    out = args.out or Path("out/predictions") / args.video.stem
    header = read_header(args.video)
    every = parse_interval(args.every, header.fps)
    settings = Settings(every, args.theta, args.batch, args.start_second)
    detector = ActionDetector(args.checkpoint, device=args.device, half=args.half, compile=args.compile)
    if detector.file.parent == SHIPPED:
        print("model tiny, as shipped: it knows synthetic people only, no real ones", file=sys.stderr)
    with _report_progress(header.seconds) as on_progress, _catch_interrupt() as should_stop:
        summary = predict(
            detector, args.video, out, settings, on_progress=on_progress, should_stop=should_stop
        )
    if summary.stopped is not None:
        print(f"warning: {summary.stopped}; predicted up to {summary.seconds:.1f} s", file=sys.stderr)
    memory = f"peak memory {peak_memory() / 2**20:,.0f} MiB"
    if detector.device.type == "cuda":
        memory += f", GPU {torch.cuda.max_memory_allocated(detector.device) / 2**20:,.0f} MiB"
    print(
        f"{args.video}: {summary.seconds:.1f} s, {summary.frames} frames, {summary.clips} keyframes, "
        f"{summary.actors} actors\n"
        f"took {summary.elapsed:.1f} s, {summary.seconds / summary.elapsed:.2f} x real time; {memory}\n"
        f"{out}: annotated.mp4, detections.csv, detections.json"
    )
    return 0 if summary.stopped is None else cli.INTERRUPTED if summary.stopped == INTERRUPTED else 3


@contextlib.contextmanager
def _catch_interrupt() -> Iterator[Callable[[], bool]]:
    """Yield a function: was Ctrl-C pressed? A second Ctrl-C raises KeyboardInterrupt."""
    pressed, before = False, signal.getsignal(signal.SIGINT)

    def press(number: int, frame: object) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    if before is not signal.default_int_handler:  # the signal is ignored, or another handler is installed
        yield lambda: False
        return
    signal.signal(signal.SIGINT, press)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _report_progress(seconds: float | None) -> Iterator[Any]:
    """Yield a function to call with the time reached: a bar on a terminal, otherwise a line at intervals."""
    console, started = Console(stderr=True), time.monotonic()
    printed = started
    of = f" of {seconds:.0f}" if seconds else ""
    if console.is_terminal:
        columns = (BarColumn(), TextColumn("{task.completed:.0f}" + of + " s"), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task("", total=seconds)
            yield lambda reached: bar.update(task, completed=reached)
        return

    def line(reached: float) -> None:
        nonlocal printed
        if time.monotonic() - printed > PROGRESS_INTERVAL_S:
            printed = time.monotonic()
            elapsed = printed - started
            print(f"[{elapsed:.0f} s] {reached:.0f}{of} s of the video", file=sys.stderr, flush=True)

    yield line


if __name__ == "__main__":
    sys.exit(main())
