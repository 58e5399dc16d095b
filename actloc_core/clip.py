"""From a video file to the T frames around a keyframe, the keyframe at clip index T // 2.

A frame's number is its place, from 0, in the order in which a decode of the whole file shows frames;
a frame's time is its timestamp less the first one's. Both are looked up in the timestamps that MP4,
MOV, Matroska and WebM files store with every packet, which takes no decoding; then the file is
decoded from the keyframe before the first frame wanted. Other containers (AVI, MPEG-TS, ...) have
timestamps that are missing or guessed, and are decoded from their start, counting.

decord reads only what it reads right: files whose every keyframe starts anew (see _Index.plain).
Elsewhere its random access gives the wrong frames without a word: in AVI or ASF, in MPEG-TS, after an
open GOP (HEVC, MPEG-4 and MPEG-2 encoders make them by default), in MP4 cut by an edit list; and some
AVI make it abort the process. read_times never uses it: on a 15-minute H.264 movie of 27,000 frames
it must read the whole file, 180-240 CPU-ms a clip, where seeking takes 45.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F

if TYPE_CHECKING:  # av itself is imported by _opened alone: readers of extracted frames do without it
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

try:
    import decord
except ImportError:  # no wheel for arm64
    decord = None

TIMED_CONTAINERS = {"mov", "matroska"}
"""Containers that store each packet's presentation time (the names cover MP4 and WebM)."""
ONE_PACKET_ONE_FRAME = {"h264", "hevc", "mpeg4", "mjpeg", "vp8", "vp9", "av1", "libdav1d"}
"""Decoders of the codecs whose packets in those containers hold one shown frame each (VP8: see _shown)."""
REORDERED = 32
"""More packets than any of these codecs lets pass before the one to be shown first."""
TIE = 1e-6
"""In frames. Times reach us as floats: a timestamp this close below a boundary is on it."""
CONTAINER_TICKS = 1_000_000
"""Of a container's duration, in a second (AV_TIME_BASE)."""


class VideoError(ValueError):
    """A video that cannot give its frames. The message names the file and what to do."""


@dataclass(frozen=True)
class VideoInfo:
    """What a file holds."""

    frames: int
    fps: float
    """Average rate. The frames need not be evenly spaced."""
    seconds: float
    """From the first frame's timestamp to the end of the last frame."""
    height: int
    width: int


def clip_indices(keyframe: int, length: int, *, frames: int, stride: int) -> np.ndarray:
    """Frame numbers c - T/2 s, .., c, .., c + (T/2 - 1) s of a clip around keyframe c, (T,) int64.

    Numbers before the first or after the last frame repeat that frame; the clip is never shifted,
    for that would move the keyframe away from the middle. IndexError: no such keyframe.
    """
    if not 0 <= keyframe < length:
        raise IndexError(f"keyframe {keyframe} is not in a video of {length} frames")
    offsets = (np.arange(frames) - frames // 2) * stride
    return np.clip(keyframe + offsets, 0, length - 1)


def clip_times(keyframe: float, *, frames: int, stride: int, fps: float) -> np.ndarray:
    """Seconds of a clip's frames around a keyframe at that second, stride / fps apart, (T,) float64.

    Not clamped: read_times repeats the edge frame.
    """
    return keyframe + (np.arange(frames) - frames // 2) * stride / fps


def probe(path: Path) -> VideoInfo:
    """Length, rate and size. Reads the whole file, and decodes it where its packets do not say enough.

    VideoError: no such file, no video, no frames, or damaged.
    """
    with _opened(path) as (container, stream):
        tick, stated = _tick(stream), _stated_rate(path, stream)
        index = _index(path, container, stream)
    seconds = _decoded_seconds(path) if index is None else (index.timestamps - index.timestamps[0]) * tick
    with _opened(path) as (container, stream):
        begin = next(container.decode(stream), None)
        if begin is None:
            raise _no_frames(path)
        height, width = _picture(begin, None).shape[:2]
    fps = (len(seconds) - 1) / seconds[-1] if len(seconds) > 1 else stated
    # Matroska rounds timestamps to milliseconds: where it agrees, the header has the exact rate.
    if abs(fps / stated - 1) < 0.02:
        fps = stated
    last = index.last * tick if index is not None and index.last else 1 / fps
    return VideoInfo(len(seconds), float(fps), float(seconds[-1] + last), height, width)


def duration(path: Path) -> float:
    """Seconds, as the file's header states them; as `probe` finds them where it states none.

    The header of a file that was cut short may promise more than there is. VideoError: no such file, or no
    video.
    """
    with _opened(path) as (container, stream):
        if stream.duration:
            return float(stream.duration * _tick(stream))
        if container.duration:
            return float(container.duration / CONTAINER_TICKS)
    return probe(path).seconds


def read_frames(path: Path, indices: np.ndarray, *, size: tuple[int, int] | None = None) -> np.ndarray:
    """Frames by number, in any order and with repeats, (len(indices), H, W, 3) uint8 RGB.

    size: (height, width) to resize to, antialiased bilinear; None keeps the stored size.
    VideoError: a number outside the video, or a frame that cannot be decoded.
    """
    numbers = np.asarray(indices, dtype=np.int64)
    with _opened(path) as (container, stream):
        index = _index(path, container, stream)
        if index is not None:
            _check_range(path, numbers, len(index.timestamps))
            if index.plain and (images := _by_decord(path, numbers, len(index.timestamps), size)) is not None:
                return images
            wanted = index.timestamps[numbers]
            lo, hi = int(wanted.min()), int(wanted.max())
            packets = _window(container, stream, int(index.timestamps[0]), lo, hi)
            return _at(path, stream, packets, wanted, size)
    return _counted(path, numbers, size)


def read_times(
    path: Path, times: np.ndarray, *, fps: float, size: tuple[int, int] | None = None
) -> np.ndarray:
    """The frames that a resampling to constant `fps` shows at these times, (len(times), H, W, 3) uint8 RGB.

    times: seconds since the first frame's timestamp, in any order and with repeats. The frame at time t
    is the last whose time is below t + 0.5 / fps, as ffmpeg's fps filter chooses; the first or last frame
    of the video before its begin or after its end. Of an `fps` video it is frame round(t * fps).
    size: as in read_frames. VideoError: a frame that cannot be decoded.
    """
    boundaries = np.maximum(np.asarray(times, dtype=np.float64) + (0.5 - TIE) / fps, 0)
    with _opened(path) as (container, stream):
        first = _first_timestamp(container, stream)
        if first is not None:
            boundaries = first + boundaries / float(stream.time_base or 1)
            lo, hi = int(boundaries.min()), int(boundaries.max())
            packets = list(_window(container, stream, first, lo, hi))
            found = [packet.pts for packet in packets if _shown(packet)]
            if found and None not in found and len(set(found)) == len(found):
                shown = np.unique(np.array(found, dtype=np.int64))
                _check_end(path, stream, packets, min(hi, first + (stream.duration or 0)), slack=1)
                return _at(path, stream, packets, shown[_last_up_to(shown, boundaries)], size)
    return _counted(path, _last_up_to(_decoded_seconds(path), boundaries), size)


@dataclass(frozen=True)
class Shown:
    """A frame of a video that is played."""

    seconds: float
    """Since the first frame."""
    frame: VideoFrame

    @property
    def size(self) -> tuple[int, int]:
        """(height, width), upright."""
        height, width = self.frame.height, self.frame.width
        return (width, height) if self.frame.rotation % 180 else (height, width)

    def picture(self, size: tuple[int, int] | None = None) -> np.ndarray:
        """(H, W, 3) uint8 RGB, upright. size: (height, width), as in read_frames."""
        return _picture(self.frame, size)

    def sketch(self, size: tuple[int, int]) -> np.ndarray:
        """`picture` of this (height, width) for eyes, by the decoder's fast scaler: (H, W, 3) uint8 RGB."""
        turns = self.frame.rotation // 90
        height, width = size[::-1] if turns % 2 else size
        image = self.frame.to_ndarray(format="rgb24", width=width, height=height, interpolation="BILINEAR")
        return np.rot90(image, turns) if turns % 4 else image


@dataclass(frozen=True)
class Header:
    """What a file says of its video, which need not be so."""

    fps: float
    seconds: float | None
    """None where it says nothing, as some containers do."""


def header(path: Path) -> Header:
    """Read no frame. VideoError: no such file, or no video."""
    with _opened(path) as (container, stream):
        ticks = stream.duration * _tick(stream) if stream.duration else None
        whole = container.duration / CONTAINER_TICKS if container.duration else None
        return Header(_stated_rate(path, stream), ticks if ticks is not None else whole)


def play(path: Path) -> Iterator[Shown]:
    """All frames in the order in which they are shown, each decoded once, whatever the container.

    Damaged frames are left out. Timestamps that are missing or go back follow on at the stated rate.
    VideoError: as soon as nothing more can be decoded; the frames before it have been given.
    """
    last: float | None = None
    with _opened(path) as (container, stream):
        stream.codec_context.thread_count = 0  # of one file at a time: as many as there are cores
        stream.thread_type = "AUTO"
        first, tick, spacing = 0, _tick(stream), 1 / _stated_rate(path, stream)
        for frame in container.decode(stream):
            if frame.is_corrupt:
                continue
            if last is None:
                first, seconds = frame.pts or 0, 0.0
            else:
                seconds = last + spacing if frame.pts is None else (frame.pts - first) * tick
                if seconds <= last:
                    seconds = last + spacing
            last = seconds
            yield Shown(seconds, frame)
    if last is None:
        raise _no_frames(path)


@dataclass(frozen=True)
class _Index:
    """What the packets say of a file, without decoding."""

    timestamps: np.ndarray
    """Of the frames in the order shown, (n,) int64 ticks, strictly increasing."""
    last: int | None
    """Ticks that the last frame is shown, where the file says it."""
    plain: bool
    """Every keyframe comes, in the file and on the screen, after all frames before it and before all
    after it, and nothing is cut by an edit list. decord takes this for granted."""


def _index(path: Path, container: InputContainer, stream: VideoStream) -> _Index | None:
    """None where timestamps are missing, repeated or not to be trusted."""
    if not _timed(container, stream):
        return None
    packets = [packet for packet in container.demux(stream) if packet.size]
    shown = [packet for packet in packets if _shown(packet)]
    stored = [packet.pts for packet in shown]
    if not stored or None in stored or len(set(stored)) < len(stored):
        return None
    in_file = np.array(stored, dtype=np.int64)
    if len(packets) < stream.frames:  # the end is missing, or an edit list cuts GOPs from the begin
        frame = 1 / _stated_rate(path, stream)
        _check_end(path, stream, shown, int(in_file.min()) + (stream.duration or 0), slack=frame)
    keys = np.array([packet.is_keyframe for packet in shown])
    so_far, to_come = np.maximum.accumulate(in_file), np.minimum.accumulate(in_file[::-1])[::-1]
    closed = (so_far == in_file) & (to_come == in_file)
    return _Index(
        timestamps=np.sort(in_file),
        last=shown[int(in_file.argmax())].duration,
        plain=bool(keys[0] and closed[keys].all() and len(shown) == len(packets)),
    )


def _timed(container: InputContainer, stream: VideoStream) -> bool:
    containers = container.format.name.split(",")
    return stream.codec_context.name in ONE_PACKET_ONE_FRAME and not TIMED_CONTAINERS.isdisjoint(containers)


def _shown(packet: Packet[VideoStream]) -> bool:
    """False for what an edit list cuts away, and for VP8's hidden reference frames."""
    if not packet.size or packet.is_discard:
        return False
    return packet.stream.codec_context.name != "vp8" or bool(memoryview(packet)[0] & 0x10)


def _first_timestamp(container: InputContainer, stream: VideoStream) -> int | None:
    """Of the frame shown first, in ticks; None where _index would say None."""
    if not _timed(container, stream):
        return None
    begin: list[int | None] = []
    for packet in container.demux(stream):
        if _shown(packet):
            begin.append(packet.pts)
        if len(begin) == REORDERED:
            break
    known = [pts for pts in begin if pts is not None]
    return min(known) if known and len(known) == len(begin) else None


def _window(
    container: InputContainer, stream: VideoStream, first: int, lo: int, hi: int
) -> Iterator[Packet[VideoStream]]:
    """Packets, as stored, that decode to the frames shown during the ticks lo..hi and the one before lo."""
    back, second = 0, round(1 / _tick(stream))
    while True:
        start = max(lo - back, first)
        container.seek(start, stream=stream)
        packets = (packet for packet in container.demux(stream) if packet.size)
        key = next(packets, None)
        # A seek may land on a later keyframe (they are found by decoding time), whose leading frames
        # cannot be decoded.
        if key is not None and key.pts is not None and key.is_keyframe and key.pts <= lo:
            break
        if start == first:
            break
        back = 2 * back + second
    for packet in chain([] if key is None else [key], packets):
        yield packet
        # No packet is shown before its decoding time, so nothing up to hi can follow.
        if packet.dts is not None and packet.dts > hi:
            break


def _at(
    path: Path,
    stream: VideoStream,
    packets: Iterable[Packet[VideoStream]],
    wanted: np.ndarray,
    size: tuple[int, int] | None,
) -> np.ndarray:
    """The frames with these timestamps, decoded from the packets, or else from the file's start."""
    missing = set(wanted.tolist())
    found: dict[int, np.ndarray] = {}
    codec = stream.codec_context
    for packet in chain(packets, [None]):
        if codec.name == "h264":
            # Exact, and a third less time: no other frame refers to those left out.
            needed = packet is None or packet.pts in missing
            codec.skip_frame = "DEFAULT" if needed else "NONREF"
        for frame in codec.decode(packet):
            if frame.pts in missing and frame.pts is not None:
                found[frame.pts] = _checked(path, frame, size)
                missing.remove(frame.pts)
        if not missing:
            break
    if missing:  # the keyframe was none
        with _opened(path) as (container, stream):
            for frame in container.decode(stream):
                if frame.pts in missing and frame.pts is not None:
                    found[frame.pts] = _checked(path, frame, size)
                    missing.remove(frame.pts)
                if not missing:
                    break
            seconds = [pts * _tick(stream) for pts in missing]
        if missing:
            raise VideoError(f"{path}: no frame at {min(seconds):.3f} s; the file is damaged, get it again")
    return _stacked(path, [found[pts] for pts in wanted.tolist()])


def _counted(path: Path, numbers: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    """Frames by number, decoding from the start."""
    missing = set(numbers.tolist())
    found: dict[int, np.ndarray] = {}
    number = -1
    with _opened(path) as (container, stream):
        for number, frame in enumerate(container.decode(stream)):
            if number in missing:
                found[number] = _checked(path, frame, size)
                missing.remove(number)
            if not missing:
                break
    if missing:
        _check_range(path, numbers, number + 1)
    return _stacked(path, [found[number] for number in numbers.tolist()])


def _decoded_seconds(path: Path) -> np.ndarray:
    """When each frame is shown, counted from the first one, (n,) seconds, by decoding them all."""
    with _opened(path) as (container, stream):
        stored = [frame.pts for frame in container.decode(stream)]
        tick, rate = _tick(stream), _stated_rate(path, stream)
    if not stored:
        raise _no_frames(path)
    known = np.array([pts for pts in stored if pts is not None], dtype=np.int64)
    if len(known) == len(stored) and (np.diff(known) > 0).all():
        return (known - known[0]) * tick
    return np.arange(len(stored)) / rate


def _by_decord(
    path: Path, numbers: np.ndarray, length: int, size: tuple[int, int] | None
) -> np.ndarray | None:
    """Frames by number, or None where decord is not there, refuses the file or counts otherwise.

    The reader is opened here and dropped at the end: decord's neither survives a fork nor may be
    shared by threads, and grows while it is kept.
    """
    if decord is None:
        return None
    try:
        reader = decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=1)
        if len(reader) != length:
            return None
        images = reader.get_batch(numbers).asnumpy()
    except (RuntimeError, decord.DECORDError):
        return None
    return images if size is None else np.stack([_resized(image, size) for image in images])


def _checked(path: Path, frame: VideoFrame, size: tuple[int, int] | None) -> np.ndarray:
    if frame.is_corrupt:
        raise VideoError(f"{path}: the frame at {frame.time} s is damaged; get the file again")
    return _picture(frame, size)


def _picture(frame: VideoFrame, size: tuple[int, int] | None) -> np.ndarray:
    """(H, W, 3) uint8 RGB, turned upright as the file asks."""
    # One thread, like the decoder: starting more for a frame takes longer than the frame.
    image: np.ndarray = frame.to_ndarray(format="rgb24", threads=1)
    if frame.rotation % 360:
        image = np.ascontiguousarray(np.rot90(image, frame.rotation // 90))
    return image if size is None else _resized(image, size)


def _resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Antialiased bilinear, the same whichever reader it was.

    16 frames of 854x480 to 256x256 take 8 CPU-ms, beside the 90 of their decoding. To let the readers
    scale takes about as much, and gives pixels that differ by 2 levels (up to 86 at coloured edges) from
    this, as they scale the subsampled colours.
    """
    if image.shape[:2] == size:
        return image
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None]
    return F.interpolate(pixels, size, mode="bilinear", antialias=True)[0].permute(1, 2, 0).numpy()


def _stacked(path: Path, images: list[np.ndarray]) -> np.ndarray:
    if len({image.shape for image in images}) > 1:
        raise VideoError(f"{path}: the picture's size changes within the file; ask for one with size=")
    return np.stack(images)


def _last_up_to(sorted_times: np.ndarray, boundaries: np.ndarray) -> np.ndarray:
    return np.maximum(np.searchsorted(sorted_times, boundaries, side="right") - 1, 0)


def _tick(stream: VideoStream) -> float:
    """Seconds."""
    return float(stream.time_base or 1)


def _stated_rate(path: Path, stream: VideoStream) -> float:
    rate = stream.average_rate or stream.base_rate
    if not rate:
        raise VideoError(f"{path}: the file states no frame rate; write it anew with ffmpeg")
    return float(rate)


def _check_range(path: Path, numbers: np.ndarray, length: int) -> None:
    if length == 0:
        raise _no_frames(path)
    outside = numbers[(numbers < 0) | (numbers >= length)]
    if len(outside):
        raise VideoError(f"{path}: frame {outside[0]} asked of a video of {length} frames")


def _check_end(
    path: Path, stream: VideoStream, packets: list[Packet[VideoStream]], until: int, *, slack: float
) -> None:
    """VideoError where packets end over `slack` seconds before the tick until which the file says it goes.

    A truncated file must not stand still at its last frame.
    """
    end = max((packet.pts or 0) + (packet.duration or 0) for packet in packets)
    if (until - end) * _tick(stream) > slack:
        raise VideoError(f"{path}: truncated after {end * _tick(stream):.1f} s; get the file again")


def _no_frames(path: Path) -> VideoError:
    return VideoError(f"{path}: the video has no frames; download or cut it again")


@contextmanager
def _opened(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The file and its main video stream; what goes wrong meanwhile is a VideoError."""
    import av
    from av.stream import Disposition
    from av.video.stream import VideoStream

    if not path.is_file():
        raise VideoError(f"{path}: no such video file")
    try:
        with av.open(str(path), metadata_errors="replace") as container:  # titles in whatever letters
            stream = container.streams.best("video")
            if not isinstance(stream, VideoStream) or stream.disposition & Disposition.attached_pic:
                raise VideoError(f"{path}: the file has no video stream")
            if stream.codec_context is None:
                raise VideoError(f"{path}: the video's codec is not one we can decode")
            if container.format.name == "tty":
                raise VideoError(f"{path}: the file is a text, not a video")
            # More would cost as much in all, and data loaders have a process for each core.
            stream.codec_context.thread_count = 1
            yield container, stream
    except av.FFmpegError as error:
        raise VideoError(
            f"{path}: not a readable video ({error.strerror}); get it again, or see what ffmpeg says of it"
        ) from error
