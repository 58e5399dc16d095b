"""Clips from video files: the T frames around a keyframe, the keyframe at clip index T // 2.

A frame's number is its index, from 0, in presentation order. Its time is its timestamp minus the first
one. MP4, MOV, Matroska and WebM files store both with every packet, so they are looked up without
decoding; then the file is decoded from the sync frame before the first frame needed. Other containers
(AVI, MPEG-TS, ...) have missing or guessed timestamps and are decoded and counted from their start.

decord reads only files in which every GOP is closed (see _Index.closed_gops). In other files its random
access silently returns wrong frames: in AVI, ASF and MPEG-TS, after an open GOP (the default of HEVC,
MPEG-4 and MPEG-2 encoders) and in MP4 cut by an edit list; some AVI files abort the process. read_times
never uses decord: on a 15-minute H.264 movie of 27,000 frames decord reads the whole file, 180-240
CPU-ms per clip, where seeking takes 45.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F

# Both are optional, since extracted frames are read without a video decoder. av comes first: after
# decord, whose own FFmpeg libraries then take precedence, its VP8 encoder fails.
try:
    import av
except ImportError:
    av = None  # type: ignore[assignment]
try:
    import decord
except ImportError:  # no wheel for arm64
    decord = None

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

TIMED_CONTAINERS = {"mov", "matroska"}
"""Containers that store each packet's presentation time (the names cover MP4 and WebM)."""
ONE_PACKET_ONE_FRAME = {"h264", "hevc", "mpeg4", "mjpeg", "vp8", "vp9", "av1", "libdav1d"}
"""Decoders whose packets in those containers hold one presented frame each (VP8: see _is_presented)."""
REORDER_WINDOW = 32
"""Packets that surely include the first presented frame: no codec reorders over more."""
NO_VIDEOS = (
    (rb"\s*<(!doctype html|html|head|body)", "a web page"),
    (rb"version https://git-lfs", "a Git LFS pointer"),
)
"""First bytes of what is saved in place of a video."""
NO_STREAMS = (
    "check the address, or download the video",
    "an MP4 whose index is at its end cannot be read from a pipe: give the file",
)
"""What to do where an address, or a pipe, cannot be read."""
TIMEOUT_S = 20.0
"""Seconds without data after which an address counts as unreachable."""
LATE = 0.1
"""Seconds after which a video begins late in its file, so that the file's stated end is not its length."""
TIE = 1e-6
"""Tolerance in frames: a timestamp this close below a boundary is on it, as times are floats."""


class VideoError(ValueError):
    """A video whose frames cannot be read. The message names the file and what to do."""


@dataclass(frozen=True)
class VideoInfo:
    """Measured properties of a video file."""

    frames: int
    fps: float
    """Average frame rate. Frames need not be evenly spaced."""
    seconds: float
    """From the first frame's timestamp to the end of the last frame."""
    height: int
    width: int
    damaged: int = 0
    """Packets that arrived damaged, as MPEG-TS can tell: frames there are missing or wrong."""


def clip_indices(keyframe: int, length: int, *, frames: int, stride: int) -> np.ndarray:
    """Frame numbers c - T/2 s, .., c, .., c + (T/2 - 1) s of a clip around keyframe c, (T,) int64.

    Numbers outside the video are clamped to its first or last frame. The clip is never shifted, which
    would move the keyframe away from the middle. Raises IndexError for a keyframe outside the video.
    """
    if not 0 <= keyframe < length:
        raise IndexError(f"keyframe {keyframe} is not in a video of {length} frames")
    offsets = (np.arange(frames) - frames // 2) * stride
    return np.clip(keyframe + offsets, 0, length - 1)


def clip_times(keyframe: float, *, frames: int, stride: int, fps: float) -> np.ndarray:
    """Times in seconds of a clip's frames around a keyframe, stride / fps apart, (T,) float64.

    They are not clamped: read_times repeats the edge frame.
    """
    return keyframe + (np.arange(frames) - frames // 2) * stride / fps


def probe(path: Path) -> VideoInfo:
    """Measure length, frame rate and size from all packets of a file.

    The file is decoded where its packets lack timestamps. Raises VideoError for a missing or damaged
    file, one without a video, or one without frames.
    """
    with _open(path) as (container, stream):
        tick, stated = _tick(stream), _stated_rate(path, stream)
        index = _index(path, container, stream)
    damaged = 0
    if index is None:
        seconds, damaged = _decoded_seconds(path)
    else:
        seconds = (index.timestamps - index.timestamps[0]) * tick
    with _open(path) as (container, stream):
        first = next(container.decode(stream), None)
        if first is None:
            raise _no_frames(path)
        height, width = _to_array(first, None).shape[:2]
    fps = (len(seconds) - 1) / seconds[-1] if len(seconds) > 1 else stated
    # Matroska rounds timestamps to milliseconds: where it agrees, the header has the exact rate.
    if abs(fps / stated - 1) < 0.02:
        fps = stated
    last = index.last * tick if index is not None and index.last else 1 / fps
    return VideoInfo(len(seconds), float(fps), float(seconds[-1] + last), height, width, damaged)


def duration(path: Path) -> float:
    """Duration in seconds as the file's header states it, or as `probe` measures it where it states none.

    The header of a truncated file may state more than it holds. In a file whose video begins late, of a
    segmenter or beside sound, the stated one may count from another time, so that it is measured.
    Raises VideoError for a missing file or one without a video.
    """
    with _open(path) as (container, stream):
        stated = _stated_seconds(container, stream)
    return probe(path).seconds if stated is None else stated


def read_frames(path: Path, indices: np.ndarray, *, size: tuple[int, int] | None = None) -> np.ndarray:
    """Read frames by number, in any order and with repeats: (len(indices), H, W, 3) uint8 RGB.

    size: (height, width) to resize to, antialiased bilinear; None keeps the stored size.
    Raises VideoError for a number outside the video or a frame that cannot be decoded.
    """
    numbers = np.asarray(indices, dtype=np.int64)
    with _open(path) as (container, stream):
        index = _index(path, container, stream)
        if index is not None:
            _check_range(path, numbers, len(index.timestamps))
            if index.closed_gops:
                images = _read_with_decord(path, numbers, len(index.timestamps), size)
                if images is not None:
                    return images
            wanted = index.timestamps[numbers]
            lo, hi = int(wanted.min()), int(wanted.max())
            packets = _seek(container, stream, int(index.timestamps[0]), lo, hi)
            return _decode_timestamps(path, stream, packets, wanted, size)
    return _decode_numbers(path, numbers, size)


def read_times(
    path: Path, times: np.ndarray, *, fps: float, size: tuple[int, int] | None = None
) -> np.ndarray:
    """Read the frames of a resampling to constant `fps` at these times: (len(times), H, W, 3) uint8 RGB.

    times: seconds since the first frame's timestamp, in any order and with repeats. The frame at time t
    is the last one whose time is below t + 0.5 / fps, as in ffmpeg's fps filter; times outside the video
    give its first or last frame. In a video of `fps` frames per second it is frame round(t * fps).
    size: as in read_frames. Raises VideoError for a frame that cannot be decoded.
    """
    boundaries = np.maximum(np.asarray(times, dtype=np.float64) + (0.5 - TIE) / fps, 0)
    with _open(path) as (container, stream):
        first = _first_timestamp(container, stream)
        if first is not None:
            boundaries = first + boundaries / float(stream.time_base or 1)
            lo, hi = int(boundaries.min()), int(boundaries.max())
            packets = list(_seek(container, stream, first, lo, hi))
            stored = [packet.pts for packet in packets if _is_presented(packet)]
            if stored and None not in stored and len(set(stored)) == len(stored):
                timestamps = np.unique(np.array(stored, dtype=np.int64))
                begin = 0 if "matroska" in container.format.name else first  # of what the file states
                _check_end(path, stream, packets, min(hi, begin + (stream.duration or 0)), slack=1)
                wanted = timestamps[_last_up_to(timestamps, boundaries)]
                return _decode_timestamps(path, stream, packets, wanted, size)
    return _decode_numbers(path, _last_up_to(_decoded_seconds(path)[0], boundaries), size)


@dataclass(frozen=True)
class DecodedFrame:
    """One frame of a video that is decoded from start to end."""

    seconds: float
    """Time since the first frame."""
    frame: VideoFrame

    @property
    def size(self) -> tuple[int, int]:
        """(height, width), upright."""
        height, width = self.frame.height, self.frame.width
        return (width, height) if self.frame.rotation % 180 else (height, width)

    def image(self, size: tuple[int, int] | None = None) -> np.ndarray:
        """Pixels for a model, (H, W, 3) uint8 RGB, upright. size: (height, width), as in read_frames."""
        return _to_array(self.frame, size)

    def planes(self, size: tuple[int, int]) -> np.ndarray:
        """Pixels for display, upright, resized by the decoder's fast scaler: (1.5 H, W) uint8 yuv420p.

        size: (height, width), both even. White has Y 235, whatever range the video is stored in.
        """
        turns = self.frame.rotation // 90 % 4
        height, width = size[::-1] if turns % 2 else size
        frame = self.frame.reformat(
            width, height, "yuv420p", interpolation="BILINEAR", dst_color_range="MPEG", threads=1
        )
        image: np.ndarray = frame.to_ndarray()
        if turns == 0:
            return image
        planes = np.split(image.ravel(), [width * height, width * height * 5 // 4])
        shapes = [(height, width)] + 2 * [(height // 2, width // 2)]
        turned = [np.rot90(plane.reshape(shape), turns) for plane, shape in zip(planes, shapes, strict=True)]
        return np.concatenate([plane.ravel() for plane in turned]).reshape(-1, size[1])


@dataclass(frozen=True)
class Header:
    """What a file states about its video. It may be wrong."""

    fps: float
    seconds: float | None
    """None where the file states no duration, as some containers do, or its video begins late."""


Source = Path | str
"""A video file; or, as a string, what else FFmpeg reads: an address, "pipe:0" or a camera, /dev/video0."""


def read_header(path: Path) -> Header:
    """Read what a file states, without decoding. Raises VideoError: missing, no video, no frame rate."""
    with _open(path) as (container, stream):
        return Header(_stated_rate(path, stream), _stated_seconds(container, stream))


@dataclass
class Video:
    """A video that is decoded once, from start to end."""

    source: Source
    container: InputContainer
    stream: VideoStream
    header: Header
    damaged: int = 0
    """Damaged packets so far: marked so, as MPEG-TS can, not decodable, or decoded to a damaged frame."""

    def frames(self, start: float = 0.0) -> Iterator[DecodedFrame]:
        """Decode the frames in presentation order, whatever the container; damaged ones are skipped.

        start: seconds since the first frame. Frames from the last sync frame before it are decoded, or all
        where the container does not store the timestamps that a seek needs.
        A timestamp that is missing or not after the frame before it is replaced by that frame's plus one
        frame at the stated rate. Raises VideoError where reading cannot continue, after the frames before
        it, or where there are none.
        """
        tick, spacing = _tick(self.stream), 1 / self.header.fps
        last: float | None = None
        with _readable(self.source):
            first, sync, packets = self._packets(start)
            for frame in self._decode(packets):
                # Frames presented before the sync frame that a seek found may refer to frames before it.
                if sync is not None and frame.pts is not None and frame.pts < sync:
                    continue
                first = (frame.pts or 0) if first is None else first
                seconds = 0.0 if last is None else last + spacing
                if frame.pts is not None and (last is None or (frame.pts - first) * tick > last):
                    seconds = (frame.pts - first) * tick
                last = seconds
                yield DecodedFrame(seconds, frame)
        if last is None and self.damaged:
            raise VideoError(f"{self.source}: all {self.damaged} packets are damaged; get the video again")
        if last is None:
            raise _no_frames(self.source)

    def _packets(self, start: float) -> tuple[int | None, int | None, Iterable[Packet[VideoStream]]]:
        """Seek if possible; -> timestamps of the first and of the sync frame, and the packets from there.

        The timestamps are None without a seek.
        """
        if start > 0 and isinstance(self.source, Path):
            with _open(self.source) as (container, stream):
                first = _first_timestamp(container, stream)
            if first is not None:
                wanted = first + int(start / _tick(self.stream))
                packets = _seek(self.container, self.stream, first, wanted, sys.maxsize)
                leading = list(islice(packets, 1))
                return first, leading[0].pts if leading else None, chain(leading, packets)
        return None, None, self.container.demux(self.stream)

    def _decode(self, packets: Iterable[Packet[VideoStream]]) -> Iterator[VideoFrame]:
        for packet in packets:
            if packet.size:
                yield from self._decode_packet(packet)
        yield from self._decode_packet(None)

    def _decode_packet(self, packet: Packet[VideoStream] | None) -> list[VideoFrame]:
        try:
            frames = self.stream.codec_context.decode(packet)
        except av.FFmpegError:
            self.damaged += 1
            return []
        intact = [frame for frame in frames if not frame.is_corrupt]
        self.damaged += (packet is not None and packet.is_corrupt) or len(intact) < len(frames)
        return intact


@contextmanager
def open_video(source: Source) -> Iterator[Video]:
    """Open a video to decode it once. Raises VideoError as `read_header` does, or if it cannot be reached."""
    header = read_header(source) if isinstance(source, Path) else None
    with _open(source) as (container, stream):
        if header is None:
            # What cannot be read twice states its length only if that takes no reading.
            sized = not {"mov", "avi"}.isdisjoint(container.format.name.split(","))
            seconds = _stated_seconds(container, stream) if sized else None
            header = Header(_stated_rate(source, stream), seconds)
        # Threads that decode frames ahead lose those after a damaged one at the file's end.
        stream.codec_context.thread_count, stream.thread_type = 0, "SLICE"
        yield Video(source, container, stream, header)


def iter_frames(path: Path) -> Iterator[DecodedFrame]:
    """Decode all frames of a file once; see `Video.frames`."""
    with open_video(path) as video:
        yield from video.frames()


@dataclass(frozen=True)
class _Index:
    """The frames of a file as its packets list them, without decoding."""

    timestamps: np.ndarray
    """In presentation order, (n,) int64 ticks, strictly increasing."""
    last: int | None
    """Duration of the last frame in ticks, where the file states it."""
    closed_gops: bool
    """No frame crosses a sync frame, neither in storage nor in presentation order, and no edit list cuts
    frames away. decord's random access requires it."""


def _index(path: Path, container: InputContainer, stream: VideoStream) -> _Index | None:
    """Index a file by its packets; None where timestamps are missing, repeated or unreliable."""
    if not _has_timestamps(container, stream):
        return None
    packets = [packet for packet in container.demux(stream) if packet.size]
    presented = [packet for packet in packets if _is_presented(packet)]
    stored = [packet.pts for packet in presented]
    if not stored or None in stored or len(set(stored)) < len(stored):
        return None
    in_file = np.array(stored, dtype=np.int64)
    if len(packets) < stream.frames:  # the end is missing, or an edit list cuts GOPs at the start
        frame = 1 / _stated_rate(path, stream)
        _check_end(path, stream, presented, int(in_file.min()) + (stream.duration or 0), slack=frame)
    keys = np.array([packet.is_keyframe for packet in presented])
    so_far, to_come = np.maximum.accumulate(in_file), np.minimum.accumulate(in_file[::-1])[::-1]
    closed = (so_far == in_file) & (to_come == in_file)
    return _Index(
        timestamps=np.sort(in_file),
        last=presented[int(in_file.argmax())].duration,
        closed_gops=bool(keys[0] and closed[keys].all() and len(presented) == len(packets)),
    )


def _has_timestamps(container: InputContainer, stream: VideoStream) -> bool:
    """Whether each packet is one frame with a stored presentation time."""
    containers = container.format.name.split(",")
    return stream.codec_context.name in ONE_PACKET_ONE_FRAME and not TIMED_CONTAINERS.isdisjoint(containers)


def _is_presented(packet: Packet[VideoStream]) -> bool:
    """False for frames that an edit list cuts away and for VP8's hidden reference frames."""
    if not packet.size or packet.is_discard:
        return False
    return packet.stream.codec_context.name != "vp8" or bool(memoryview(packet)[0] & 0x10)


def _first_timestamp(container: InputContainer, stream: VideoStream) -> int | None:
    """Timestamp of the first presented frame in ticks; None where _index would return None."""
    if not _has_timestamps(container, stream):
        return None
    leading: list[int | None] = []
    for packet in container.demux(stream):
        if _is_presented(packet):
            leading.append(packet.pts)
        if len(leading) == REORDER_WINDOW:
            break
    known = [pts for pts in leading if pts is not None]
    return min(known) if known and len(known) == len(leading) else None


def _seek(
    container: InputContainer, stream: VideoStream, first: int, lo: int, hi: int
) -> Iterator[Packet[VideoStream]]:
    """Yield the stored packets that decode to the frames of ticks lo..hi and the frame before lo."""
    back, second = 0, round(1 / _tick(stream))
    while True:
        start = max(lo - back, first)
        container.seek(start, stream=stream)
        packets = (packet for packet in container.demux(stream) if packet.size)
        key = next(packets, None)
        # A seek goes by decoding time and may land on a later sync frame, whose leading frames cannot be
        # decoded. Then it is repeated from earlier.
        if key is not None and key.pts is not None and key.is_keyframe and key.pts <= lo:
            break
        if start == first:
            break
        back = 2 * back + second
    for packet in chain([] if key is None else [key], packets):
        yield packet
        # No frame is presented before its decoding time, so no frame up to hi can follow.
        if packet.dts is not None and packet.dts > hi:
            break


def _decode_timestamps(
    path: Path,
    stream: VideoStream,
    packets: Iterable[Packet[VideoStream]],
    wanted: np.ndarray,
    size: tuple[int, int] | None,
) -> np.ndarray:
    """Decode the frames with these timestamps from the packets, or else from the file's start."""
    missing = set(wanted.tolist())
    images: dict[int, np.ndarray] = {}
    codec = stream.codec_context
    for packet in chain(packets, [None]):
        if codec.name == "h264":
            # A third faster and exact: no other frame refers to the skipped ones.
            needed = packet is None or packet.pts in missing
            codec.skip_frame = "DEFAULT" if needed else "NONREF"
        for frame in codec.decode(packet):
            if frame.pts in missing and frame.pts is not None:
                images[frame.pts] = _check_and_convert(path, frame, size)
                missing.remove(frame.pts)
        if not missing:
            break
    if missing:  # the sync frame could not be decoded by itself
        with _open(path) as (container, stream):
            for frame in container.decode(stream):
                if frame.pts in missing and frame.pts is not None:
                    images[frame.pts] = _check_and_convert(path, frame, size)
                    missing.remove(frame.pts)
                if not missing:
                    break
            seconds = [pts * _tick(stream) for pts in missing]
        if missing:
            raise VideoError(f"{path}: no frame at {min(seconds):.3f} s; the file is damaged, get it again")
    return _stack(path, [images[pts] for pts in wanted.tolist()])


def _decode_numbers(path: Path, numbers: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    """Decode frames by number, counting from the start."""
    missing = set(numbers.tolist())
    images: dict[int, np.ndarray] = {}
    number = -1
    with _open(path) as (container, stream):
        for number, frame in enumerate(container.decode(stream)):
            if number in missing:
                images[number] = _check_and_convert(path, frame, size)
                missing.remove(number)
            if not missing:
                break
    if missing:
        _check_range(path, numbers, number + 1)
    return _stack(path, [images[number] for number in numbers.tolist()])


def _decoded_seconds(path: Path) -> tuple[np.ndarray, int]:
    """Decode all; -> each frame's time since the first, (n,) seconds, and the number of damaged packets."""
    stored, damaged = [], 0
    with _open(path) as (container, stream):
        for packet in container.demux(stream):
            damaged += packet.is_corrupt
            stored += [frame.pts for frame in packet.decode()]
        tick, rate = _tick(stream), _stated_rate(path, stream)
    if not stored:
        raise _no_frames(path)
    known = np.array([pts for pts in stored if pts is not None], dtype=np.int64)
    if len(known) == len(stored) and (np.diff(known) > 0).all():
        return (known - known[0]) * tick, damaged
    return np.arange(len(stored)) / rate, damaged


def _read_with_decord(
    path: Path, numbers: np.ndarray, length: int, size: tuple[int, int] | None
) -> np.ndarray | None:
    """Read frames by number; None where decord is not installed, fails or counts other frames.

    The reader is opened here and dropped at the end: decord's readers do not survive a fork, must not
    be shared by threads, and grow while they are kept.
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
    return images if size is None else np.stack([_resize(image, size) for image in images])


def _check_and_convert(path: Path, frame: VideoFrame, size: tuple[int, int] | None) -> np.ndarray:
    if frame.is_corrupt:
        raise VideoError(f"{path}: the frame at {frame.time} s is damaged; get the file again")
    return _to_array(frame, size)


def _to_array(frame: VideoFrame, size: tuple[int, int] | None) -> np.ndarray:
    """Convert a frame to (H, W, 3) uint8 RGB, rotated as the file states."""
    # One thread, like the decoder: starting threads for a frame takes longer than the frame.
    image: np.ndarray = frame.to_ndarray(format="rgb24", threads=1)
    if frame.rotation % 360:
        image = np.ascontiguousarray(np.rot90(image, frame.rotation // 90))
    return image if size is None else _resize(image, size)


def _resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize (H, W, 3) to (*size, 3), antialiased bilinear, independent of the reader.

    16 frames of 854x480 to 256x256 take 8 CPU-ms, and their decoding 90. The readers' own scaling takes
    about as long, but scales subsampled colours: its pixels differ by 2 levels, up to 86 at coloured edges.
    """
    if image.shape[:2] == size:
        return image
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None]
    return F.interpolate(pixels, size, mode="bilinear", antialias=True)[0].permute(1, 2, 0).numpy()


def _stack(path: Path, images: list[np.ndarray]) -> np.ndarray:
    if len({image.shape for image in images}) > 1:
        raise VideoError(f"{path}: the frame size changes within the video; resize with size=(height, width)")
    return np.stack(images)


def _last_up_to(sorted_times: np.ndarray, boundaries: np.ndarray) -> np.ndarray:
    """Index of the last time at or below each boundary, at least 0."""
    return np.maximum(np.searchsorted(sorted_times, boundaries, side="right") - 1, 0)


def _tick(stream: VideoStream) -> float:
    """Length of a tick in seconds."""
    return float(stream.time_base or 1)


def _stated_rate(path: Source, stream: VideoStream) -> float:
    rate = stream.average_rate or stream.base_rate
    if not rate:
        raise VideoError(f"{path}: the file states no frame rate; re-encode it with ffmpeg")
    return float(rate)


def _stated_seconds(container: InputContainer, stream: VideoStream) -> float | None:
    """The video's length as the file states it; None where it states none, or that of something else.

    MP4, MOV and AVI state each stream's own length. The others state where the file ends: Matroska and FLV
    since time 0, MPEG-TS since the first packet of any stream. Reads the file's beginning.
    """
    if {"mov", "avi"}.isdisjoint(container.format.name.split(",")):
        first = next((packet.pts for packet in container.demux(stream) if packet.pts is not None), 0)
        counted_from = (container.start_time or 0) / av.time_base if "mpeg" in container.format.name else 0.0
        if first * _tick(stream) - counted_from > LATE:
            return None
    if stream.duration:
        return float(stream.duration * _tick(stream))
    return float(container.duration / av.time_base) if container.duration else None


def _check_range(path: Path, numbers: np.ndarray, length: int) -> None:
    if length == 0:
        raise _no_frames(path)
    outside = numbers[(numbers < 0) | (numbers >= length)]
    if len(outside):
        raise VideoError(f"{path}: frame {outside[0]} is outside the video, which has {length} frames")


def _check_end(
    path: Path, stream: VideoStream, packets: list[Packet[VideoStream]], until: int, *, slack: float
) -> None:
    """Raise VideoError where packets end more than `slack` seconds before the stated end, a tick.

    The last frame of a truncated file must not be repeated for the missing ones.
    """
    end = max((packet.pts or 0) + (packet.duration or 0) for packet in packets)
    if (until - end) * _tick(stream) > slack:
        raise VideoError(f"{path}: truncated after {end * _tick(stream):.1f} s; get the file again")


def _no_frames(path: Source) -> VideoError:
    return VideoError(f"{path}: the video has no frames; download or cut it again")


@contextmanager
def _open(source: Source) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a video and its main stream. FFmpeg's errors within the context become VideoErrors."""
    if av is None:
        raise ImportError("av is not installed: pip install av")
    if isinstance(source, Path) and not source.is_file():
        raise VideoError(f"{source}: no such video file")
    address = str(source)
    options = {"rtsp_flags": "prefer_tcp"} if address.startswith("rtsp") else {}
    with (
        _readable(source),
        av.open(
            address,
            format="v4l2" if address.startswith("/dev/video") else None,
            timeout=TIMEOUT_S if "://" in address else None,
            options=options,
            metadata_errors="replace",  # titles in any encoding
        ) as container,
    ):
        stream = container.streams.best("video")
        if not isinstance(stream, av.VideoStream) or stream.disposition & av.stream.Disposition.attached_pic:
            raise VideoError(f"{source}: the file has no video stream")
        if stream.codec_context is None:
            raise VideoError(f"{source}: no decoder for the video's codec; re-encode it as H.264")
        if container.format.name == "tty":
            raise VideoError(f"{source}: the file is text, not a video")
        # More threads would cost as much in total, and data loaders have a process for each core.
        stream.codec_context.thread_count = 1
        yield container, stream


@contextmanager
def _readable(source: Source) -> Iterator[None]:
    """FFmpeg's errors within the context become VideoErrors that say what the source is or what to do."""
    try:
        yield
    except av.FFmpegError as error:
        if not isinstance(source, Path):
            shown = "standard input" if source == "pipe:0" else source
            hint = NO_STREAMS[source == "pipe:0"]
            raise VideoError(f"{shown}: no readable video ({error.strerror}); {hint}") from error
        with source.open("rb") as file:
            head = file.read(64)
        what = next((what for pattern, what in NO_VIDEOS if re.match(pattern, head, re.IGNORECASE)), None)
        if what is not None:
            raise VideoError(f"{source}: this is {what}, not a video; get the file itself") from error
        raise VideoError(
            f"{source}: not a readable video ({error.strerror}); get it again, or run ffmpeg -i on it"
        ) from error
