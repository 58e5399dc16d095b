"""A video through a trained model: `python -m actloc_core.predict clip.mp4 --checkpoint out/runs/<hash>`.

One pass: every frame is decoded once, the clips around the keyframes share decoded frames and go through the
model in batches, and what is found is written as soon as it is known. What is held does not grow with the
video's length.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
import re
import resource
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
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

from actloc_core.clip import TIE, Shown, VideoError, clip_times, header, play
from actloc_core.detector import ActionDetector, Actor

HELD = 256 * 2**20
"""Bytes of pictures that wait for their keyframe's result; where there are more, a batch runs unfilled."""
SIDES = (640, 1280)
"""Of the annotated video, its longer side: smaller videos are enlarged to this, larger ones shrunk."""
TICKS = 90_000
"""A second's, in the annotated video: any frame rate, also a variable one."""
LINE_EVERY = 30.0
"""Seconds between lines of progress in a pipe."""
TOP = 3
"""Actions in an actor's label, the best ones."""
INTERRUPTED = "interrupted"
COLOURS = ("#ffd23f", "#3bceac", "#ee4266", "#5ab1ff", "#ff8c42", "#c77dff")


@dataclass(frozen=True)
class Found:
    """Who is there at one keyframe."""

    second: float
    """Of the keyframe, since the video's first frame."""
    actors: list[Actor]


@dataclass
class _Clip:
    """A keyframe's clip while its frames come in."""

    second: float
    until: NDArray[np.float64]
    """(T,) of each of its frames: the last one shown before this is meant, as in `clip.read_times`."""
    frames: list[NDArray[np.uint8]] = field(default_factory=list)


@dataclass(frozen=True)
class Summary:
    """Of one video's prediction."""

    seconds: float
    """From the first frame to the last."""
    frames: int
    clips: int
    actors: int
    took: float
    """Seconds of computing."""
    stopped: str | None
    """Why the video was not played to the end that its header promises; None where it was."""


def found_in(
    detector: ActionDetector, video: Path, *, every: float, theta: float = 0.2, batch: int = 4
) -> Generator[Shown | Found, bool | None]:
    """Play a video through the model: -> its frames in order, and between them what was found.

    every: seconds between keyframes; the first one is at 0. theta: see `ActionDetector`. batch: clips that go
    through the model at once.
    A keyframe's Found follows, at the latest, the frames of its clip and of batch - 1 further ones; after a
    frame the caller may send True for those that are whole to be computed now.
    Raises VideoError where nothing more of the video can be read, after all that was found before.
    """
    cut: dict[str, Any] = {"frames": detector.frames, "stride": detector.stride, "fps": detector.fps}
    coming: deque[_Clip] = deque()
    ready: list[_Clip] = []
    number, shown, small, trouble = 0, None, None, None
    size: tuple[int, int] | None = None  # of the first frame: a clip's have one, whatever the video's do

    def computed() -> Iterator[Found]:
        people = detector.batch([np.stack(clip.frames) for clip in ready], theta=theta) if ready else []
        yield from (Found(clip.second, actors) for clip, actors in zip(ready, people, strict=True))
        ready.clear()

    frames = play(video)
    while True:
        try:
            after = next(frames, None)
        except VideoError as error:
            if shown is None:
                raise
            after, trouble = None, error
        # `shown` stays on until `after` comes: it is what every time between the two is of.
        end = float("inf") if after is None else after.seconds
        while shown is not None and (number * every <= shown.seconds or after is not None):
            until = np.maximum(clip_times(number * every, **cut) + (0.5 - TIE) / detector.fps, 0)
            if until[0] >= end:
                break
            coming.append(_Clip(number * every, until))
            number += 1
        if shown is not None and after is None:  # keyframes that the video does not reach
            coming = deque(clip for clip in coming if clip.second <= shown.seconds)
        for clip in coming:
            wanted = int(np.searchsorted(clip.until, end)) - len(clip.frames)
            if wanted > 0 and shown is not None:
                size = size or detector.size(*shown.size)
                small = shown.picture(size) if small is None else small
                clip.frames += [small] * wanted
        while coming and len(coming[0].frames) == detector.frames:
            ready.append(coming.popleft())
            if len(ready) == batch:
                yield from computed()
        if after is None:
            yield from computed()
            break
        shown, small = after, None
        if (yield shown):
            yield from computed()
    if trouble is not None:
        raise trouble


def predict(
    detector: ActionDetector,
    video: Path,
    out: Path,
    *,
    every: float,
    theta: float = 0.2,
    batch: int = 4,
    on_progress: Callable[[float], object] = lambda seconds: None,
    enough: Callable[[], bool] = lambda: False,
) -> Summary:
    """Write OUT/annotated.mp4, OUT/detections.csv and OUT/detections.json of a video.

    every, theta, batch: see `found_in`. on_progress: called with the second that is reached. enough: asked
    after each frame whether to stop there.
    A video that ends early or is stopped leaves the files of what was seen until then, and a Summary that
    says so. Raises VideoError where there is not one frame, OSError where `out` cannot be written.
    """
    begun, said = time.monotonic(), header(video)
    stopped, last, count, clips, actors = None, 0.0, 0, 0, 0
    with contextlib.ExitStack() as files:
        table = csv.writer(files.enter_context(_whole(out / "detections.csv")), lineterminator="\n")
        listing = files.enter_context(_whole(out / "detections.json"))
        movie = files.enter_context(_movie(out / "annotated.mp4", said.fps))
        begin = {"video": video.name, "checkpoint": str(detector.file), "every": every, "theta": theta}
        listing.write(json.dumps(begin, ensure_ascii=False)[:-1] + ', "keyframes": [')
        waiting: deque[tuple[float, NDArray[np.uint8]]] = deque()
        known: deque[Found] = deque()
        stream = found_in(detector, video, every=every, theta=theta, batch=batch)
        hurry = None
        while True:
            try:
                event = stream.send(hurry)
            except StopIteration:
                break
            except VideoError as error:
                if not count:
                    raise
                stopped = str(error)
                break
            hurry = None
            if isinstance(event, Found):
                known.append(event)
                clips, actors = clips + 1, actors + len(event.actors)
                _tell(event, video, detector, table, listing, first=clips == 1)
            else:
                last, count = event.seconds, count + 1
                waiting.append((last, event.sketch(_shown_size(event.size))))
                hurry = sum(picture.nbytes for _, picture in waiting) > HELD or None
                on_progress(last)
                if enough():
                    stopped = INTERRUPTED
                    break
            while waiting and known and waiting[0][0] < known[-1].second + every / 2:
                _draw(movie, *waiting.popleft(), known)
        while waiting:
            _draw(movie, *waiting.popleft(), known)
        promised = said.seconds or 0.0
        if stopped is None and promised > last + max(1.0, 0.02 * promised):
            stopped = f"{video}: cut short? Its header promises {promised:.1f} s, it ends after {last:.1f} s"
        listing.write("\n]" + f', "seconds": {last:.3f}, "stopped": {json.dumps(stopped)}' + "}\n")
    return Summary(last, count, clips, actors, time.monotonic() - begun, stopped)


def _tell(
    found: Found, video: Path, detector: ActionDetector, table: Any, listing: IO[str], *, first: bool
) -> None:
    """AVA's rows (video, second, x1, y1, x2, y2, action id, score), and one keyframe of the JSON."""
    ids = {name: number for number, name in detector.classes.items()}
    actors = []
    for actor in found.actors:
        box = [f"{x:.4f}" for x in actor.box]
        table.writerows(
            [video.stem, f"{found.second:g}", *box, ids[name], f"{score:.6f}"]
            for name, score in actor.actions.items()
        )
        scores = {name: round(score, 6) for name, score in actor.actions.items()}
        box_of = [round(x, 4) for x in actor.box]
        actors.append({"box": box_of, "p_actor": round(actor.p_actor, 6), "actions": scores})
    keyframe = json.dumps({"second": round(found.second, 6), "actors": actors}, ensure_ascii=False)
    listing.write(("\n" if first else ",\n") + keyframe)


@contextlib.contextmanager
def _part(path: Path) -> Iterator[Path]:
    """A file beside `path`, which takes its place when the context ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[IO[str]]:
    with _part(path) as part, open(part, "w", encoding="utf-8", newline="") as file:
        yield file


@dataclass
class _Movie:
    """The annotated video; its size is that of the first picture."""

    container: av.container.OutputContainer
    stream: VideoStream
    size: tuple[int, int] | None = None
    """(height, width)"""
    last: int = -1
    of: Found | None = None
    """The keyframe whose overlay this is: all pictures about it share it."""
    overlay: Image.Image = field(default_factory=lambda: Image.new("RGBA", (1, 1)))

    def add(self, second: float, picture: NDArray[np.uint8]) -> None:
        if self.size is None:
            self.size = picture.shape[:2]
            self.stream.height, self.stream.width = self.size
        if picture.shape[:2] != self.size:  # of a video whose size changes
            picture = np.asarray(Image.fromarray(picture).resize(self.size[::-1]))
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame.time_base = Fraction(1, TICKS)
        self.last = frame.pts = max(round(second * TICKS), self.last + 1)
        self.container.mux(self.stream.encode(frame))


@contextlib.contextmanager
def _movie(path: Path, fps: float) -> Iterator[_Movie]:
    """H.264 as every player takes it (yuv420p), playable from its first bytes on."""
    with (
        _part(path) as part,
        av.open(str(part), "w", format="mp4", options={"movflags": "+faststart"}) as container,
    ):
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.codec_context.time_base = Fraction(1, TICKS)
        stream.pix_fmt, stream.options = "yuv420p", {"preset": "veryfast", "crf": "20"}
        movie = _Movie(container, stream)
        yield movie
        if movie.size is not None:
            container.mux(stream.encode())


def _shown_size(size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) in the annotated video: within SIDES, both even, which H.264's colours ask for."""
    longer = max(size)
    scale = min(max(longer, SIDES[0]), SIDES[1]) / longer
    height, width = (max(2 * round(side * scale / 2), 16) for side in size)
    return height, width


def _draw(movie: _Movie, second: float, picture: NDArray[np.uint8], known: deque[Found]) -> None:
    """Add a picture with who is there at the keyframe nearest to it; forget keyframes before that one."""
    while len(known) > 1 and abs(known[1].second - second) <= abs(known[0].second - second):
        known.popleft()
    if known and known[0].actors:
        if movie.of is not known[0]:
            movie.of, movie.overlay = known[0], overlay(known[0].actors, picture.shape[0], picture.shape[1])
        picture = _over(picture, movie.overlay)
    movie.add(second, picture)


def annotated(picture: NDArray[np.uint8], actors: Sequence[Actor]) -> NDArray[np.uint8]:
    """A picture (H, W, 3) uint8 RGB with each actor's box, p(alpha) and best actions."""
    return _over(picture, overlay(actors, picture.shape[0], picture.shape[1]))


def _over(picture: NDArray[np.uint8], drawn: Image.Image) -> NDArray[np.uint8]:
    image = Image.fromarray(np.ascontiguousarray(picture))
    image.paste(drawn, mask=drawn)
    return np.asarray(image)


def overlay(actors: Sequence[Actor], height: int, width: int) -> Image.Image:
    """Boxes and labels on nothing, RGBA. No label covers a surer actor's."""
    image = Image.new("RGBA", (width, height))
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=max(12, round(min(height, width) / 36)))
    line = max(2, min(height, width) // 240)
    taken: list[tuple[float, float, float, float]] = []
    for number, actor in enumerate(actors):
        colour = COLOURS[number % len(COLOURS)]
        x1, y1, x2, y2 = (x * side for x, side in zip(actor.box, (width, height) * 2, strict=True))
        draw.rectangle((x1, y1, max(x2, x1), max(y2, y1)), outline=colour, width=line)
        best = list(actor.actions.items())[:TOP]
        text = "\n".join([f"actor {actor.p_actor:.2f}", *(f"{name} {score:.2f}" for name, score in best)])
        _, _, right, bottom = draw.multiline_textbbox((0, 0), text, font=font, spacing=1)
        right, bottom = right + 2 * line, bottom + 2 * line
        # Beside the box on the side with more room, inside the picture, below what is in the way.
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


def seconds_of(every: str, fps: float) -> float:
    """ "1s", "0.5 s", "500ms": seconds; "8", "8 frames": frames of a video of this rate. -> seconds.

    Raises ValueError for anything else.
    """
    said = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|f|frames?|)", every.lower().replace(" ", ""))
    if said is None:
        raise ValueError(f"--every {every!r}: say seconds, such as 1s or 0.5s, or frames, such as 8")
    seconds = float(said[1]) * {"ms": 1e-3, "s": 1.0}.get(said[2], 1 / fps)
    if seconds * fps < 0.999:
        raise ValueError(f"--every {every}: a video of {fps:g} frames a second has no keyframes so near")
    return seconds


def peak_memory() -> int:
    """Bytes, the most that this process has had in memory so far."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line's options."""
    parser = argparse.ArgumentParser(
        prog="python -m actloc_core.predict",
        description="Find who acts in a video and what they do: an annotated video, CSV and JSON.",
    )
    parser.add_argument("video", type=Path, help="the file to look through")
    parser.add_argument(
        "--checkpoint", type=Path, required=True, metavar="RUN_OR_FILE",
        help="a run's folder (out/runs/...), a training's, or a checkpoint.pt",
    )  # fmt: skip
    parser.add_argument(
        "--every", default="1s", metavar="1s|N",
        help="time between keyframes, or their distance in frames (default: 1s)",
    )  # fmt: skip
    parser.add_argument(
        "--theta", type=float, default=0.2, help="keep candidates with p(alpha) above this (default: 0.2)"
    )
    parser.add_argument("--out", type=Path, help="folder of what is made (default: out/predictions/VIDEO)")
    parser.add_argument("--batch", type=int, default=4, help="clips at once (default: 4)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 (default: a GPU where there is one)")
    parser.add_argument("--half", action="store_true", help="compute in bfloat16; on a GPU, for speed")
    parser.add_argument(
        "--compile", action="store_true", help="torch.compile: slow to start, faster on a GPU"
    )
    args = parser.parse_args(argv)
    if not 0 <= args.theta < 1:
        parser.error(f"--theta {args.theta}: a probability in [0, 1)")
    if args.batch < 1:
        parser.error(f"--batch {args.batch}: at least 1")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """0: done; 3: done as far as the video goes, which is less than it promises; 2: an error; 130: Ctrl-C."""
    args = parse_args(argv)
    out = args.out or Path("out/predictions") / args.video.stem
    try:
        said = header(args.video)
        every = seconds_of(args.every, said.fps)
        detector = ActionDetector(args.checkpoint, device=args.device, half=args.half, compile=args.compile)
        with _shown_progress(said.seconds) as on_progress, _ctrl_c() as enough:
            summary = predict(
                detector,
                args.video,
                out,
                every=every,
                theta=args.theta,
                batch=args.batch,
                on_progress=on_progress,
                enough=enough,
            )
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    if summary.stopped is not None:
        print(f"warning: {summary.stopped}; predicted up to {summary.seconds:.1f} s", file=sys.stderr)
    memory = f"peak memory {peak_memory() / 2**20:,.0f} MiB"
    if detector.device.type == "cuda":
        memory += f", {torch.cuda.max_memory_allocated(detector.device) / 2**20:,.0f} MiB of the GPU"
    print(
        f"{args.video}: {summary.seconds:.1f} s, {summary.frames} frames, {summary.clips} keyframes, "
        f"{summary.actors} actors\n"
        f"took {summary.took:.1f} s, {summary.seconds / summary.took:.2f} x real time; {memory}\n"
        f"{out}: annotated.mp4, detections.csv, detections.json"
    )
    return 0 if summary.stopped is None else 130 if summary.stopped == INTERRUPTED else 3


@contextlib.contextmanager
def _ctrl_c() -> Iterator[Callable[[], bool]]:
    """-> tells whether Ctrl-C was pressed meanwhile; pressed twice, it interrupts as ever."""
    pressed, before = False, signal.getsignal(signal.SIGINT)

    def press(number: int, frame: object) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    if before is not signal.default_int_handler:  # ignored, or somebody else's
        yield lambda: False
        return
    signal.signal(signal.SIGINT, press)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _shown_progress(seconds: float | None) -> Iterator[Any]:
    """A bar on a terminal, now and then a line in a pipe. -> called with the second that is reached."""
    console, begun = Console(stderr=True), time.monotonic()
    printed = begun
    of = f" of {seconds:.0f}" if seconds else ""
    if console.is_terminal:
        columns = (BarColumn(), TextColumn("{task.completed:.0f}" + of + " s"), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task("", total=seconds)
            yield lambda reached: bar.update(task, completed=reached)
        return

    def line(reached: float) -> None:
        nonlocal printed
        if time.monotonic() - printed > LINE_EVERY:
            printed = time.monotonic()
            print(f"[{printed - begun:.0f} s] {reached:.0f}{of} s of the video", file=sys.stderr, flush=True)

    yield line


if __name__ == "__main__":
    sys.exit(main())
