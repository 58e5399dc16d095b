"""Run a trained model on videos: `python -m actloc_core.predict clip.mp4 --checkpoint out/runs/<hash>`.

One pass: every frame is decoded once, and detections are written as soon as they are computed. Memory does
not grow with the length of the video.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import math
import re
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from actloc_core import cli
from actloc_core.clip import Video, VideoError, open_video
from actloc_core.detector import SHIPPED, SHIPPED_MODEL, SHIPPED_VIDEO, ActionDetector
from actloc_core.drawing import Labels, choose_labels
from actloc_core.files import atomic_path, is_standard_output, text_beside
from actloc_core.keyframes import KeyframeDetections, Settings, iter_detections, lead
from actloc_core.results import Outputs, ResultWriter, check_folder, format_seconds
from actloc_core.sources import NamedVideo, find_videos, is_one_video

__all__ = ["KeyframeDetections", "Settings", "iter_detections", "predict"]

T = TypeVar("T")

PROGRESS_INTERVAL_S = 30.0
"""Time between lines of progress where standard error is no terminal."""
INTERRUPTED = "interrupted"
ENDS_EARLY = 3
"""Exit code where a video ends before its stated end."""
DRY_RUN_BATCHES = 3
"""Batches of clips that --dry-run measures, after one to warm up."""


@dataclass(frozen=True)
class Summary:
    """Numbers of one video's prediction."""

    seconds: float
    """From the first to the last frame."""
    last: float
    """Time of the last frame in the video."""
    frames: int
    clips: int
    actors: int
    tracks: int
    damaged: int
    """Damaged packets, which were skipped."""
    elapsed: float
    """Seconds of computing, of which:"""
    decoding: float
    model: float
    stopped: str | None
    """Why prediction ended before the video's stated end; None where it did not."""


class _Clock:
    """Measures the time that iterating takes."""

    elapsed = 0.0

    def measure(self, items: Iterable[T]) -> Iterator[T]:
        iterator = iter(items)
        while True:
            started = time.perf_counter()
            try:
                item = next(iterator)
            except StopIteration:
                return
            finally:
                self.elapsed += time.perf_counter() - started
            yield item


def predict(
    detector: ActionDetector,
    named: NamedVideo,
    video: Video,
    outputs: Outputs,
    settings: Settings,
    *,
    on_progress: Callable[[float], object] = lambda seconds: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Summary:
    """Predict an opened video and write its results.

    on_progress: called with the time of each frame in seconds.
    should_stop: called after each frame; True ends the prediction there.
    Where a video ends early or prediction is stopped, the files hold the results up to there and the Summary
    gives the reason. Raises VideoError where no frame can be decoded or none is in the span of the settings,
    OSError where results cannot be written.
    """
    started, decoding, events = time.perf_counter(), _Clock(), _Clock()
    stopped: str | None = None
    with contextlib.ExitStack() as files:
        if outputs.folder is not None:
            files.enter_context(_writing_to(outputs.folder))
        writer = ResultWriter(files, detector, named, outputs, settings, fps=video.header.fps)
        frames = decoding.measure(video.frames(settings.start - lead(detector)))
        detections = iter_detections(detector, frames, settings, should_flush=writer.is_full)
        try:
            for event in events.measure(detections):
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
        if not writer.frames:
            raise VideoError(
                f"{named}: ends before {format_seconds(settings.start)} s; give an earlier --start"
            )
        last, stated = writer.last_second, min(video.header.seconds or 0.0, settings.end)
        if stopped is None and stated > last + max(1.0, 0.02 * stated):
            states, ends = (format_seconds(round(second, 3)) for second in (stated, last))
            stopped = f"{named}: truncated? Its header states {states} s, but it ends after {ends} s"
        writer.finish(stopped, video.damaged)
    return Summary(
        seconds=max(last - settings.start, 0.0),
        last=last,
        frames=writer.frames,
        clips=writer.clips,
        actors=writer.actors,
        tracks=len(writer.tracks),
        damaged=video.damaged,
        elapsed=time.perf_counter() - started,
        decoding=decoding.elapsed,
        model=events.elapsed - decoding.elapsed,
        stopped=stopped,
    )


@contextlib.contextmanager
def _writing_to(path: Path) -> Iterator[None]:
    """OSErrors within the context, FFmpeg's too, name the file or folder."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(f"{path}: cannot be written ({reason}); free space, or write elsewhere") from error


def parse_interval(text: str, fps: float) -> float:
    """Parse "1s", "0.5 s" or "500ms", or "8" or "8 frames" of a video of this frame rate; -> seconds.

    Raises ValueError for other text and for less than one frame.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|f|frames?|)", text.lower().replace(" ", ""))
    if match is None or float(match[1]) == 0:
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
    description = "Detect actors and their actions in videos: an annotated video, CSV and JSON for each."
    parser = cli.command_parser("actloc_core.predict", description)
    parser.add_argument(
        "videos", nargs="*", metavar="VIDEO",
        help="file, folder, quoted pattern ('films/*.mp4'), - for standard input, address (http://, rtsp://) "
        "or camera (/dev/video0)",
    )  # fmt: skip
    parser.add_argument(
        "--checkpoint", type=Path, default=Path(SHIPPED_MODEL), metavar="RUN_OR_FILE",
        help="folder of a run (out/runs/...) or of a training, or a checkpoint.pt (default: tiny, the "
        "shipped model, which knows synthetic people only)",
    )  # fmt: skip
    parser.add_argument("--demo", action="store_true", help="predict the shipped synthetic video")
    _add_detection_options(parser)
    _add_output_options(parser)
    parser.add_argument("--batch", type=int, default=4, help="clips per batch (default: 4)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 (default: a GPU if available)")
    parser.add_argument("--half", action="store_true", help="compute in bfloat16, faster on a GPU")
    parser.add_argument(
        "--compile", action="store_true", help="torch.compile: slow to start, faster on a GPU"
    )
    args = parser.parse_args(argv)
    if args.demo == bool(args.videos):
        parser.error("give videos, or --demo for the shipped synthetic one")
    if args.demo:
        args.videos = [str(SHIPPED_VIDEO)]
    if not 0 <= args.theta < 1:
        parser.error(f"--theta {args.theta}: give a probability in [0, 1)")
    if args.start_second < 0:
        parser.error(f"--start-second {args.start_second}: give at least 0")
    if args.batch < 1:
        parser.error(f"--batch {args.batch}: give at least 1")
    if args.duration is not None:
        args.end = args.start + args.duration
    if not args.start < args.end:
        parser.error(f"--end {format_seconds(args.end)}: give a time after --start")
    return args


def _add_detection_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--every", default="1s", metavar="1s|N",
        help="time between keyframes, or their distance in frames (default: 1s)",
    )  # fmt: skip
    parser.add_argument(
        "--theta", type=float, default=0.2,
        help="score threshold: candidates with p(alpha) above it are actors (default: 0.2)",
    )  # fmt: skip
    parser.add_argument(
        "--start", type=parse_time, default=0.0, metavar="TIME",
        help="begin here, in seconds or as 1:23:45; the times of keyframes stay those of the whole video",
    )  # fmt: skip
    end = parser.add_mutually_exclusive_group()
    end.add_argument("--end", type=parse_time, default=math.inf, metavar="TIME", help="end before this time")
    end.add_argument("--duration", type=parse_time, metavar="TIME", help="end this long after --start")
    parser.add_argument(
        "--start-second", type=int, default=0, metavar="S",
        help="second of the first frame in the results, as your annotations count it: 900 for AVA's files "
        "(default: 0)",
    )  # fmt: skip
    parser.add_argument("--no-tracks", action="store_true", help="do not link detections to tracks")


def _add_output_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=Path,
        help="output directory; with several videos each has its own in it (default: out/predictions/VIDEO)",
    )  # fmt: skip
    parser.add_argument(
        "--overwrite", action="store_true", help="replace results of another video or checkpoint"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE",
        help="write the detections as JSON lines, one keyframe a line, - for standard output; without --out "
        "nothing else is written",
    )  # fmt: skip
    parser.add_argument("--no-video", action="store_true", help="write no annotated video")
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    parser.add_argument(
        "--dry-run", action="store_true", help="measure the speed on a few clips and write nothing"
    )


def parse_time(text: str) -> float:
    """Parse "83.5", "1:23.5" or "0:01:23.5"; -> seconds. Raises ValueError for other text."""
    if re.fullmatch(r"(\d+:)?(\d+:)?\d+(\.\d+)?", text) is None:
        raise argparse.ArgumentTypeError(f"{text!r}: give seconds, such as 83.5, or 1:23.5 or 0:01:23.5")
    seconds = 0.0
    for part in text.split(":"):
        seconds = 60 * seconds + float(part)
    return seconds


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; -> exit code.

    0; 3 where a video ends before its stated end; 2 for an error, also if other videos were predicted; 130
    for Ctrl-C.
    """
    return cli.exit_code(lambda: run(parse_args(argv)))


def run(args: argparse.Namespace) -> int:
    """Predict the videos and print a summary of each; -> exit code. ValueError or OSError: bad input."""
    parse_interval(args.every, 1e9)  # a mistake here would be an error of every video
    videos = find_videos(args.videos)
    one = is_one_video(args.videos, videos)
    summaries: list[Summary] = []
    failed, stopped = 0, False
    with _open_lines(args.json) as lines, text_beside(args.json):
        detector = ActionDetector(args.checkpoint, device=args.device, half=args.half, compile=args.compile)
        if detector.file.parent == SHIPPED:
            print("model tiny, as shipped: it knows synthetic people only, no real ones", file=sys.stderr)
        movie = not args.no_video and (args.dry_run or args.json is None or args.out is not None)
        labels = _choose_labels(detector) if movie else None
        with _catch_interrupt() as should_stop:
            for number, named in enumerate(videos, start=1):
                title = "" if one else f"{number}/{len(videos)} {named.name}: "
                outputs = Outputs(_folder(args, named, one=one), movie, lines, labels)
                job = _Job(detector, named, outputs, args, title, should_stop)
                try:
                    if args.dry_run:
                        _measure(job)
                    else:
                        summaries.append(_predict_one(job, one=one))
                except BrokenPipeError:
                    raise
                except (ValueError, OSError) as error:
                    if lines is not None and getattr(error, "errno", None) == errno.ENOSPC:
                        raise  # the file of all videos is lost
                    print(f"error: {error}", file=sys.stderr)
                    failed += 1
                stopped = should_stop()
                if stopped:
                    break
        if summaries:
            _print_total(summaries, detector, failed=failed, one=one)
    if stopped:
        return cli.INTERRUPTED
    if failed:
        return cli.BAD_INPUT
    return ENDS_EARLY if any(summary.stopped for summary in summaries) else 0


@dataclass(frozen=True)
class _Job:
    """One video of the command line."""

    detector: ActionDetector
    named: NamedVideo
    outputs: Outputs
    args: argparse.Namespace
    title: str
    """Of its progress."""
    should_stop: Callable[[], bool]

    def settings(self, video: Video, *, keyframes: float = math.inf) -> Settings:
        """Settings for the opened video. keyframes: how many at most."""
        args = self.args
        every = parse_interval(args.every, video.header.fps)
        end = min(args.end, args.start + keyframes * every)
        return Settings(
            every, args.theta, args.batch, args.start_second, args.start, end, tracks=not args.no_tracks
        )


def _folder(args: argparse.Namespace, named: NamedVideo, *, one: bool) -> Path | None:
    """The folder of a video's results; None for no files."""
    if args.dry_run or (args.json is not None and args.out is None):
        return None
    if args.out is None:
        return Path("out/predictions") / named.name
    out: Path = args.out
    return out if one else out / named.name


def _choose_labels(detector: ActionDetector) -> Labels:
    labels = choose_labels(detector.classes)
    for name in labels.missing:
        shown = labels.texts[name]
        print(f"warning: no font here has all characters of {name!r}: drawn as {shown!r}", file=sys.stderr)
    return labels


def _predict_one(job: _Job, *, one: bool) -> Summary:
    """Predict a video and print its warnings and summary."""
    named, folder = job.named, job.outputs.folder
    if folder is not None and not job.args.overwrite:
        check_folder(folder, named, job.detector.file)
    with open_video(named.source) as video:
        settings = job.settings(video)
        with _report_progress(video.header.seconds, job) as on_progress:
            summary = predict(
                job.detector, named, video, job.outputs, settings,
                on_progress=on_progress, should_stop=job.should_stop,
            )  # fmt: skip
    last = format_seconds(round(summary.last, 3))
    if summary.damaged:
        print(f"warning: {named}: {summary.damaged} damaged packets were skipped", file=sys.stderr)
    if summary.stopped is not None:
        print(f"warning: {summary.stopped}; predicted up to {last} s", file=sys.stderr)
    tracks = "" if job.args.no_tracks else f", {summary.tracks} tracks"
    text = f"{named}: {last} s, {summary.frames} frames, {summary.clips} keyframes, {summary.actors} actors"
    text += tracks
    if not one:
        text += f", {summary.seconds / summary.elapsed:.2f} x real time"
    print(text)
    if folder is not None:
        names = ", ".join(job.outputs.names(tracks=settings.tracks))
        print(f"{folder}: {names}" if one else f"  {folder}")
    return summary


def _print_total(summaries: Sequence[Summary], detector: ActionDetector, *, failed: int, one: bool) -> None:
    """Print the speed, the memory and where the time went."""
    seconds, elapsed = (sum(getattr(each, name) for each in summaries) for name in ("seconds", "elapsed"))
    memory = f"peak memory {peak_memory() / 2**20:,.0f} MiB"
    if detector.device.type == "cuda":
        memory += f", GPU {torch.cuda.max_memory_allocated(detector.device) / 2**20:,.0f} MiB"
    count = "" if one else f"{len(summaries)} videos, {failed} failed: "
    print(f"{count}took {elapsed:.1f} s, {seconds / elapsed:.2f} x real time; {memory}\n{_shares(summaries)}")


def _shares(summaries: Sequence[Summary]) -> str:
    """Say where the time went."""
    elapsed, decoding, model = (
        sum(getattr(each, name) for each in summaries) for name in ("elapsed", "decoding", "model")
    )
    parts = {"decode": decoding, "model": model, "draw and encode": elapsed - decoding - model}
    return "time: " + ", ".join(f"{name} {part / elapsed:.0%}" for name, part in parts.items())


def _measure(job: _Job) -> None:
    """Print how fast a few clips of a video are predicted, and write nothing."""
    if not isinstance(job.named.source, Path):
        raise ValueError(f"{job.named}: --dry-run reads a video twice; give a file")
    for batches in (1, DRY_RUN_BATCHES):  # the first to warm up
        with open_video(job.named.source) as video:
            settings = job.settings(video, keyframes=batches * job.args.batch)
            outputs = Outputs(None, job.outputs.movie, None, job.outputs.labels)
            summary = predict(job.detector, job.named, video, outputs, settings, should_stop=job.should_stop)
            stated = video.header.seconds
    speed = max(summary.seconds, settings.every) / summary.elapsed
    text = f"{job.named}: about {speed:.2f} x real time on {job.detector.device}, by {summary.clips} clips"
    if stated is not None:
        whole = max(min(stated, job.args.end) - job.args.start, 0.0)
        text += f"; {whole:.0f} s take about {whole / speed:.0f} s"
    print(f"{text}\n{_shares([summary])}")


@contextlib.contextmanager
def _open_lines(path: Path | None) -> Iterator[IO[str] | None]:
    """Open the file of --json: a pipe gets each line at once, a file appears when it is complete."""
    if path is None:
        yield None
    elif is_standard_output(path):
        yield sys.stdout
    else:
        streamed = path.exists() and not path.is_file()
        with (
            _writing_to(path),
            contextlib.nullcontext(path) if streamed else atomic_path(path) as part,
            open(part, "w", encoding="utf-8") as file,
        ):
            yield file


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
def _report_progress(seconds: float | None, job: _Job) -> Iterator[Any]:
    """Yield a function to call with the time reached: a bar on a terminal, otherwise a line at intervals."""
    console, started = Console(stderr=True), time.monotonic()
    printed = started
    until = min(seconds or math.inf, job.args.end)
    of = f" of {until:.0f}" if until < math.inf else ""
    if job.args.quiet:
        yield lambda reached: None
        return
    if console.is_terminal:
        text = TextColumn("{task.description}{task.completed:.0f}" + of + " s", markup=False)
        with Progress(BarColumn(), text, TimeRemainingColumn(), console=console, transient=True) as bar:
            task = bar.add_task(job.title, total=until - job.args.start if of else None)
            yield lambda reached: bar.update(task, completed=reached - job.args.start)
        return

    def line(reached: float) -> None:
        nonlocal printed
        if time.monotonic() - printed > PROGRESS_INTERVAL_S:
            printed = time.monotonic()
            elapsed = f"[{printed - started:.0f} s]"
            print(f"{elapsed} {job.title}{reached:.0f}{of} s of the video", file=sys.stderr, flush=True)

    yield line


if __name__ == "__main__":
    sys.exit(main())
