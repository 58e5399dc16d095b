"""Detections at a video's keyframes in one pass.

Every frame is decoded once, clips around neighbouring keyframes share decoded frames, and clips go through
the model in batches.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from actloc_core.clip import TIE, DecodedFrame, VideoError, clip_times, iter_frames
from actloc_core.detector import ActionDetector, Actor


@dataclass(frozen=True)
class KeyframeDetections:
    """The actors detected at one keyframe."""

    second: float
    """Time of the keyframe since the video's first frame."""
    actors: list[Actor]


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
    start: float = 0.0
    """Frames and keyframes before this many seconds of the video are left out."""
    end: float = math.inf
    """Frames and keyframes from here on are left out."""
    tracks: bool = True
    """Link detections to tracks."""


def lead(detector: ActionDetector) -> float:
    """Seconds that a clip begins before its keyframe, and one more frame."""
    return (detector.frames // 2 * detector.stride + 1) / detector.fps


@dataclass
class _Clip:
    """A keyframe's clip while its frames are decoded."""

    second: float
    until: NDArray[np.float64]
    """(T,) seconds: clip frame t is the last video frame before until[t], as in `clip.read_times`."""
    frames: list[NDArray[np.uint8]] = field(default_factory=list)


class _ClipBuilder:
    """Assemble the clips around keyframes `every` seconds apart from frames in presentation order."""

    def __init__(self, detector: ActionDetector, settings: Settings) -> None:
        self.detector, self.settings = detector, settings
        self.keyframe = math.ceil(settings.start / settings.every - 1e-9)
        """Number of the next keyframe."""
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

    def is_done(self) -> bool:
        """Whether the clips of all keyframes before the end are complete."""
        return not self.pending and self._second() >= self.settings.end

    def _second(self) -> float:
        return self.keyframe * self.settings.every

    def _begin_clips(self, frame: DecodedFrame, end: float) -> None:
        """Begin all clips whose first frame is this one; drop keyframes after the last frame."""
        detector, is_last = self.detector, end == float("inf")
        while (second := self._second()) < self.settings.end:
            times = clip_times(second, frames=detector.frames, stride=detector.stride, fps=detector.fps)
            until = np.maximum(times + (0.5 - TIE) / detector.fps, 0)
            if until[0] >= end or (is_last and second > frame.seconds):
                break
            self.pending.append(_Clip(second, until))
            self.keyframe += 1
        if is_last:
            self.pending = deque(clip for clip in self.pending if clip.second <= frame.seconds)


def iter_detections(
    detector: ActionDetector,
    video: Path | Iterable[DecodedFrame],
    settings: Settings | None = None,
    *,
    every: float = 1.0,
    theta: float = 0.2,
    batch: int = 4,
    should_flush: Callable[[], bool] = lambda: False,
) -> Iterator[DecodedFrame | KeyframeDetections]:
    """Iterate over a video's frames in presentation order, and between them over the detections.

    video: a file, or its frames, which begin at least `lead` before settings.start.
    settings: in place of every, theta and batch, which are its fields. A keyframe's detections follow, at the
    latest, the frames of its clip and of the next batch - 1 clips.
    should_flush: called after each frame; True computes the complete clips at once.
    Raises VideoError where decoding cannot continue, after the detections before that.
    """
    settings = settings or Settings(every, theta, batch)
    builder = _ClipBuilder(detector, settings)
    ready: list[_Clip] = []

    def detect() -> Iterator[KeyframeDetections]:
        clips = [np.stack(clip.frames) for clip in ready]
        actors = detector.batch(clips, theta=settings.theta) if ready else []
        yield from (KeyframeDetections(clip.second, each) for clip, each in zip(ready, actors, strict=True))
        ready.clear()

    def detect_full_batches(clips: Iterable[_Clip]) -> Iterator[KeyframeDetections]:
        for clip in clips:
            ready.append(clip)
            if len(ready) == settings.batch:
                yield from detect()

    previous: DecodedFrame | None = None
    failure: VideoError | None = None
    try:
        for frame in iter_frames(video) if isinstance(video, Path) else video:
            # A frame is displayed until the next one, so it is added to clips when that one is decoded.
            if previous is not None:
                yield from detect_full_batches(builder.add(previous, frame.seconds))
            previous = frame
            if settings.start <= frame.seconds < settings.end:
                yield frame
            elif frame.seconds >= settings.end and builder.is_done():
                break
            if should_flush():
                yield from detect()
    except VideoError as error:
        failure = error
    if previous is not None:
        yield from detect_full_batches(builder.add(previous))
        yield from detect()
    if failure is not None:
        raise failure
