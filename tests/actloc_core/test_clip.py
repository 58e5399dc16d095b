import io
import struct
from fractions import Fraction
from functools import cache

import av
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from actloc_core import clip
from actloc_core.clip import VideoError, clip_indices, clip_times, duration, probe, read_frames, read_times
from tests.actloc_core.numbered import bars_of, numbers, write_numbered

needs_decord = pytest.mark.skipif(clip.decord is None, reason="no decord here")


@pytest.fixture(params=[pytest.param("decord", marks=needs_decord), "av"])
def reader(request, monkeypatch):
    """Run the test with decord and with PyAV alone."""
    if request.param == "av":
        monkeypatch.setattr(clip, "decord", None)
    return request.param


class Pipe(io.RawIOBase):
    """A file without seek, in which a muxer cannot fill in length and index afterwards."""

    def __init__(self, path):
        self.file = open(path, "wb")  # noqa: SIM115

    def writable(self):
        return True

    def seekable(self):
        return False

    def write(self, data):
        return self.file.write(data)

    def close(self):
        self.file.close()
        super().close()


def decoded(path):
    """All frames, decoded sequentially by PyAV: (n, H, W, 3)."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


GOP = {"options": {"g": "12"}}
OPEN_GOP = {
    "options": {"x264-params": "open-gop=1:bframes=3:keyint=10:min-keyint=5:scenecut=0:b-adapt=0"},
    "bframes": 3,
}
HEVC = {"codec": "libx265", "options": {"x265-params": "log-level=none:pools=1:keyint=12"}}
QUICK = {"g": "12", "deadline": "realtime", "cpu-used": "8"}
VP8 = {"codec": "libvpx", "bframes": None, "options": QUICK}
VP9 = {"codec": "libvpx-vp9", "bframes": None, "options": QUICK}
MPEG4 = {"codec": "mpeg4"}
LATE = {**GOP, "times": lambda n: 5000 + 62 * n}
UNEVEN = {"times": lambda n: 40 * n + n // 7 * 100 + n % 3 * 10}
MJPEG = {"codec": "mjpeg", "bframes": None}
KINDS = {
    "h264.mp4": GOP,
    "h264.mkv": GOP,
    "h264.avi": GOP,
    "h264.ts": GOP,
    "h264.flv": GOP,
    "h264.264": {**GOP, "form": "h264"},
    "open_gop.mp4": OPEN_GOP,
    "open_gop.mkv": OPEN_GOP,
    "pyramid.mp4": {"options": {"g": "30", "x264-params": "bframes=8:b-adapt=0"}, "bframes": 8},
    "intra_refresh.mp4": {"options": {"x264-params": "intra-refresh=1:keyint=20"}},
    "hevc.mp4": HEVC,
    "hevc.mkv": HEVC,
    "mpeg4.mp4": MPEG4,
    "mpeg4.mkv": MPEG4,
    "mpeg4.avi": MPEG4,
    "mpeg4_no_b.avi": {**MPEG4, "bframes": 0},
    "xvid.avi": {**MPEG4, "tag": "XVID"},
    "mpeg2.mp4": {"codec": "mpeg2video", "fps": 25},
    "mpeg2.mpg": {"codec": "mpeg2video", "fps": 25, "form": "mpeg"},
    "wmv2.asf": {"codec": "wmv2", "bframes": 0},
    "mjpeg.avi": {**MJPEG, "pix_fmt": "yuvj420p"},
    "mjpeg_odd.avi": {**MJPEG, "pix_fmt": "yuvj444p", "size": (65, 49)},
    "odd.mp4": {"pix_fmt": "yuv444p", "size": (65, 49)},
    "vp8.webm": VP8,
    "vp9.webm": VP9,
    "late.mp4": LATE,
    "late.mkv": LATE,
    "uneven.mp4": {**GOP, **UNEVEN},
    "uneven.mkv": {**GOP, **UNEVEN},
    "uneven.webm": {**VP9, **UNEVEN},
    "ntsc.mp4": {**GOP, "fps": Fraction(30000, 1001)},
    "no_edit_list.mp4": {**GOP, "muxer": {"use_editlist": "0"}},
    "fragmented.mp4": {**GOP, "muxer": {"movflags": "frag_keyframe+empty_moov"}},
    "piped.mp4": {**GOP, "muxer": {"movflags": "frag_keyframe+empty_moov"}, "form": "mp4"},
    "piped.mkv": {**GOP, "form": "matroska"},
    "piped_mpeg4.mkv": {**MPEG4, "form": "matroska"},
    "piped.avi": {**MPEG4, "form": "avi"},
}
COMMON = (
    "h264.mp4",
    "h264.mkv",
    "hevc.mp4",
    "xvid.avi",
    "mjpeg.avi",
    "vp9.webm",
    "late.mp4",
    "uneven.mkv",
    "piped.mp4",
)
EVERY_KIND = [pytest.param(k, marks=() if k in COMMON else pytest.mark.slow) for k in KINDS]
"""The common ones before every commit, the others in the slow session."""
LENGTH = 100


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    """Return a function: name -> a video of LENGTH numbered frames, written on first use."""
    folder = tmp_path_factory.mktemp("zoo")

    def get(name):
        path = folder / name
        if not path.exists():
            to = Pipe(path) if name.startswith("piped") else None
            write_numbered(path, LENGTH, to=to, **KINDS[name])
            if to is not None:
                to.close()
        return path

    return get


@pytest.fixture(scope="module")
def all_frames(zoo):
    """Return a function: name -> all frames of that video, decoded on first use."""
    return cache(lambda name: decoded(zoo(name)))


def test_keyframe_is_at_clip_index_t_half():
    indices = clip_indices(100, 1000, frames=16, stride=4)
    assert indices.tolist() == list(range(68, 132, 4))
    assert indices[8] == 100


def test_clip_repeats_the_edge_frame_and_never_shifts():
    assert clip_indices(1, 6, frames=8, stride=1).tolist() == [0, 0, 0, 0, 1, 2, 3, 4]
    assert clip_indices(5, 6, frames=8, stride=2).tolist() == [0, 0, 1, 3, 5, 5, 5, 5]


def test_keyframe_outside_the_video_raises_index_error():
    with pytest.raises(IndexError, match="keyframe 6 is not in a video of 6 frames"):
        clip_indices(6, 6, frames=8, stride=1)


def test_keyframe_time_is_at_clip_index_t_half():
    times = clip_times(2.0, frames=4, stride=3, fps=30.0)
    np.testing.assert_allclose(times, [1.8, 1.9, 2.0, 2.1])
    assert times.dtype == np.float64


@pytest.mark.parametrize("name", EVERY_KIND)
def test_read_frames_returns_the_requested_frames(zoo, all_frames, reader, name):
    """In each kind of file, alone and together, from all positions in and around its GOPs."""
    path, whole = zoo(name), all_frames(name)
    assert numbers(whole) == list(range(LENGTH))
    for wanted in [3, 50, 51, 99, 0, 77, 50], [9], [10], [11], [12], [24], [29, 30], [95], [98, 60]:
        np.testing.assert_array_equal(read_frames(path, np.array(wanted)), whole[wanted])


@pytest.mark.parametrize("name", EVERY_KIND)
def test_read_times_follows_the_timestamps(zoo, name):
    path, spec = zoo(name), KINDS[name]
    rate = 25 if name.endswith("264") else float(spec.get("fps", 16))  # a bare stream has no rate
    uneven = spec.get("times", lambda n: 1000 * n / rate)
    shown = np.array([uneven(n) - uneven(0) for n in range(LENGTH)]) / 1000
    exactly = np.concatenate([shown[[0, 9, 10, 11, 12, 13, 59, 60]] + 0.001, [-3.0, shown[-1] + 9]])
    wanted = [0, 9, 10, 11, 12, 13, 59, 60, 0, 99]
    for one, n in zip(exactly, wanted, strict=True):
        assert numbers(read_times(path, np.array([one]), fps=1000.0)) == [n]
    assert numbers(read_times(path, exactly[::-1], fps=1000.0)) == wanted[::-1]


@pytest.mark.parametrize("name", ["h264.mp4", "open_gop.mkv", "mpeg4.avi", "piped.mkv"])
def test_probe_measures_length_rate_and_size(zoo, reader, name):
    info = probe(zoo(name))
    assert (info.frames, info.fps, info.height, info.width) == (LENGTH, 16.0, 48, 64)
    assert info.seconds == pytest.approx(6.25, abs=0.001)


def test_probe_of_a_variable_frame_rate(zoo):
    info = probe(zoo("uneven.mkv"))
    end = 40 * 99 + 99 // 7 * 100
    assert info.fps == pytest.approx(1000 * 99 / end)
    assert info.seconds == pytest.approx(end / 1000, abs=0.07)


@pytest.mark.parametrize("length", [1, 2, 3])
@pytest.mark.parametrize("kind", ["h264.mp4", "h264.mkv", "mpeg4.avi", "mpeg4.mp4", "vp9.webm"])
def test_videos_of_one_to_three_frames(tmp_path, reader, kind, length):
    path = write_numbered(tmp_path / kind, length, **KINDS[kind])
    wanted = clip_indices(0, length, frames=4, stride=2)
    assert probe(path).frames == length
    assert numbers(read_frames(path, wanted)) == wanted.tolist()
    assert numbers(read_times(path, wanted / 16, fps=16.0)) == wanted.tolist()


def test_frames_cut_by_an_edit_list_are_not_counted(zoo, tmp_path, reader):
    """As when a movie is cut without re-encoding: decoded from the sync frame, presented from later on."""
    path = tmp_path / "cut.mp4"
    with (
        av.open(str(zoo("h264.mp4"))) as movie,
        av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as container,
    ):
        stream = container.add_stream_from_template(movie.streams.video[0])
        for packet in movie.demux(video=0):
            if packet.dts is not None:
                cut = round(18 / 16 / packet.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts - cut, packet.dts - cut, stream
                container.mux(packet)
    assert numbers(decoded(path))[:2] == [18, 19]
    assert (probe(path).frames, probe(path).seconds) == (82, pytest.approx(82 / 16))
    wanted = np.array([0, 3, 7, 81, 40])
    assert numbers(read_frames(path, wanted)) == (wanted + 18).tolist()
    assert numbers(read_times(path, wanted / 16, fps=16.0)) == (wanted + 18).tolist()


def rewritten(source, path, packets):
    """Write a file with these (bytes, is keyframe) as its packets, at 16 per second."""
    with av.open(str(source)) as like, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(like.streams.video[0])
        for n, (data, key) in enumerate(packets):
            packet = av.Packet(data)
            packet.pts = packet.dts = round(n / 16 / stream.time_base)
            packet.time_base, packet.stream, packet.is_keyframe = stream.time_base, stream, key
            container.mux(packet)
    return path


def stored(path):
    with av.open(str(path)) as container:
        return [(bytes(packet), packet.is_keyframe) for packet in container.demux(video=0) if packet.size]


def test_hidden_vp8_frames_are_not_counted(zoo, tmp_path, reader):
    packets = stored(zoo("vp8.webm"))
    data, key = packets[50]
    packets[50] = bytes([data[0] & ~0x10]) + data[1:], key  # the bit that shows a frame
    path = rewritten(zoo("vp8.webm"), tmp_path / "hidden.webm", packets)
    assert numbers(decoded(path)) == [n for n in range(LENGTH) if n != 50]
    assert probe(path).frames == LENGTH - 1
    assert numbers(read_frames(path, np.array([49, 50, 98]))) == [49, 51, 99]
    assert numbers(read_times(path, np.array([49, 50, 51]) / 16, fps=16.0)) == [49, 49, 51]


def test_packed_bitstream_is_read_in_presentation_order(tmp_path, reader):
    """XviD in AVI: a B-frame shares the packet of the frame before it; an empty packet follows."""
    plain = {"codec": "mpeg4", "bframes": 1, "tag": "XVID", "options": {"b_strategy": "0"}}
    loose = stored(write_numbered(tmp_path / "loose.avi", 60, **plain))
    packets = []
    for data, key in loose:
        kind = data[data.find(b"\0\0\1\xb6") + 4] >> 6  # 0 I, 1 P, 2 B
        if kind == 2:
            packets[-1] = packets[-1][0] + data, packets[-1][1]
            packets.append((b"\0\0\1\xb6\x50\x9f", False))
        else:
            packets.append((data, key))
    # The marker by which decoders recognise a packed bitstream of XviD and DivX.
    packets[0] = packets[0][0].replace(b"\0\0\1\xb3", b"\0\0\1\xb2DivX503b1393p\0\0\1\xb3", 1), True
    path = rewritten(tmp_path / "loose.avi", tmp_path / "packed.avi", packets)
    assert numbers(decoded(path)) == list(range(60))
    assert probe(path).frames == 60
    wanted = np.array([13, 0, 59, 30, 12])
    assert numbers(read_frames(path, wanted)) == wanted.tolist()
    assert numbers(read_times(path, wanted / 16, fps=16.0)) == wanted.tolist()


@pytest.mark.parametrize(("matrix", "turns"), [((0, 1, -1, 0), -1), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 1)])
def test_rotated_video_is_read_upright(zoo, tmp_path, reader, matrix, turns):
    path = tmp_path / "turned.mp4"
    data = bytearray(zoo("h264.mp4").read_bytes())
    at = data.find(b"tkhd") + 44
    a, b, c, d = (65536 * entry for entry in matrix)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    upright = np.rot90(decoded(zoo("h264.mp4"))[[77]], turns, (1, 2))
    np.testing.assert_array_equal(read_frames(path, np.array([77])), upright)
    np.testing.assert_array_equal(read_times(path, np.array([77 / 16]), fps=16.0), upright)
    assert (probe(path).height, probe(path).width) == upright.shape[1:3]
    frame = [*clip.iter_frames(path)][77]
    height, width = frame.size
    shown = av.VideoFrame.from_ndarray(frame.planes(frame.size), format="yuv420p")
    assert (shown.height, shown.width) == (height, width) == upright.shape[1:3]
    assert np.abs(shown.to_ndarray(format="rgb24").astype(int) - upright[0]).mean() < 6


def test_frames_for_display_are_in_the_limited_range(tmp_path):
    """White and black are 235 and 16, also of a camera's full range (MJPEG), at any size."""

    def halves(n, width, height):
        image = np.zeros((height, width, 3), np.uint8)
        image[:, : width // 2] = 255
        return image

    for codec, pix_fmt in (("mjpeg", "yuvj420p"), ("mpeg4", "yuv420p")):
        path = write_numbered(
            tmp_path / f"{codec}.avi", 3, codec=codec, pix_fmt=pix_fmt, bframes=0, draw=halves
        )
        frame = next(clip.iter_frames(path))
        assert frame.planes((48, 64))[20, [5, 60]].tolist() == [235, 16]
        assert frame.planes((24, 32))[10, [3, 29]].tolist() == [235, 16]


@pytest.mark.parametrize("fps", [15, 24, Fraction(24000, 1001), 25, 30, 60])
def test_read_times_resamples_like_ffmpegs_fps_filter(tmp_path, fps):
    """Compared with the frames of ffmpeg's fps=30 filter."""
    path = write_numbered(tmp_path / "movie.mp4", 120, fps=fps, options={"g": "24"})
    expected = []
    with av.open(str(path)) as container:
        graph = av.filter.Graph()
        source = graph.add_buffer(template=container.streams.video[0])
        graph.link_nodes(source, graph.add("fps", "fps=30"), graph.add("buffersink")).configure()
        for frame in [*container.decode(video=0), None]:
            graph.push(frame)
            while True:
                try:
                    expected.append(graph.pull().to_ndarray(format="rgb24"))
                except (BlockingIOError, av.EOFError):
                    break
    expected = numbers(np.stack(expected))
    assert numbers(read_times(path, np.arange(len(expected)) / 30, fps=30.0)) == expected
    if fps == 30:
        assert expected == list(range(120))
    middle = clip_times(1.0, frames=4, stride=4, fps=30.0)
    assert numbers(read_times(path, middle, fps=30.0)) == [expected[n] for n in (22, 26, 30, 34)]


class SeeksLate:
    """A container whose first seek lands half the video too late."""

    def __init__(self, container):
        self.container = container
        self.sought = []

    def seek(self, offset, *, stream):
        self.sought.append(offset)
        late = stream.duration // 2 if len(self.sought) == 1 else 0
        self.container.seek(offset + late, stream=stream)

    def demux(self, stream):
        return self.container.demux(stream)


def test_seek_that_lands_too_late_is_repeated_from_earlier(zoo):
    with av.open(str(zoo("h264.mp4"))) as container:
        late = SeeksLate(container)
        packets = list(clip._seek(late, container.streams.video[0], 0, 30 * 1024, 33 * 1024))
    assert len(late.sought) == 2
    assert packets[0].is_keyframe
    assert packets[0].pts <= 30 * 1024
    assert {n * 1024 for n in range(30, 34)} <= {packet.pts for packet in packets}


def waves(n, width, height):
    """Smooth, coloured, moving frames, on which errors of chroma and scaling show."""
    y, x = np.mgrid[:height, :width]
    channels = [np.sin(x / 9 + n / 5), np.cos(y / 7 - n / 4), np.sin((x + y) / 11 + n / 3)]
    return (127.5 + 120 * np.stack(channels, -1)).astype(np.uint8)


@pytest.mark.parametrize(("name", "codec"), [("waves.mp4", "libx264"), ("waves.avi", "mpeg4")])
def test_both_readers_resize_alike(tmp_path, monkeypatch, name, codec):
    path = write_numbered(tmp_path / name, 20, codec=codec, size=(160, 120), draw=waves)
    wanted = np.array([4, 17])
    first = read_frames(path, wanted, size=(64, 48))
    monkeypatch.setattr(clip, "decord", None)
    second = read_frames(path, wanted, size=(64, 48))
    by_time = read_times(path, wanted / 16, fps=16.0, size=(64, 48))
    assert first.shape == second.shape == (2, 64, 48, 3)
    assert np.abs(first.astype(int) - second).max() <= 2
    np.testing.assert_array_equal(by_time, second)
    whole = torch.from_numpy(decoded(path)[wanted]).permute(0, 3, 1, 2).float()
    right = F.interpolate(whole, (64, 48), mode="bilinear", antialias=True).permute(0, 2, 3, 1).numpy()
    assert np.abs(first - right).max() <= 2


def test_frames_own_their_memory_and_files_are_closed(zoo):
    frames = read_frames(zoo("h264.mp4"), np.array([5, 5]))
    frames[0] = 0
    assert numbers(frames) == [0, 5]


@pytest.mark.parametrize("content", [b"", b"not a video at all"])
def test_error_names_a_file_that_is_no_video(tmp_path, reader, content):
    path = tmp_path / "bad.mp4"
    path.write_bytes(content)
    for read in (
        probe,
        lambda path: read_frames(path, np.array([0])),
        lambda path: read_times(path, np.array([0.0]), fps=30.0),
    ):
        with pytest.raises(VideoError, match=r"bad\.mp4: not a readable video"):
            read(path)
        with pytest.raises(VideoError, match=r"gone\.mp4: no such video file"):
            read(tmp_path / "gone.mp4")


def test_audio_file_has_no_video_stream(tmp_path):
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(VideoError, match=r"sound\.mp4: the file has no video stream"):
        probe(path)


@pytest.mark.parametrize("name", ["h264.mp4", "mpeg4.avi", "open_gop.mkv"])
@pytest.mark.parametrize("outside", [LENGTH, -1])
def test_frame_outside_the_video_raises_video_error(zoo, reader, name, outside):
    with pytest.raises(VideoError, match=f"frame {outside} is outside the video, which has {LENGTH} frames"):
        read_frames(zoo(name), np.array([9, outside]))


def truncated(path, tmp_path):
    cut = tmp_path / f"cut{path.suffix}"
    data = path.read_bytes()
    cut.write_bytes(data[: len(data) * 3 // 5])
    return cut


@pytest.mark.parametrize(
    "name", ["h264.mp4", "h264.mkv", "vp9.webm", "mpeg4.avi", "mjpeg.avi", "fragmented.mp4"]
)
def test_truncated_file_gives_the_right_frame_or_an_error(zoo, tmp_path, reader, name):
    path = truncated(zoo(name), tmp_path)
    for n in [0, 20, 97]:
        try:
            assert numbers(read_frames(path, np.array([n]))) == [n]
        except VideoError as error:
            assert str(path) in str(error)  # noqa: PT017
    with pytest.raises(VideoError, match=r"cut\."):
        read_frames(path, np.array([97]))


def test_error_of_a_truncated_avi_gives_its_number_of_frames(zoo, tmp_path, reader):
    path = truncated(zoo("mpeg4.avi"), tmp_path)
    length = probe(path).frames
    assert 10 < length < LENGTH
    with pytest.raises(VideoError, match=f"frame 97 is outside the video, which has {length} frames"):
        read_frames(path, np.array([97]))


def test_truncated_movie_does_not_repeat_its_last_frame(tmp_path, reader):
    whole = write_numbered(tmp_path / "a.mp4", LENGTH, **GOP, muxer={"movflags": "faststart"})
    path = truncated(whole, tmp_path)
    assert numbers(read_times(path, np.array([0.25]), fps=16.0)) == [4]
    with pytest.raises(VideoError, match=r"cut\.mp4"):
        read_times(path, np.array([6.0]), fps=16.0)
    with pytest.raises(VideoError, match=r"cut\.mp4: truncated after 1\.\d s"):
        probe(path)


def test_damaged_middle_raises_video_error(zoo, tmp_path, reader):
    data = bytearray(zoo("h264.mp4").read_bytes())
    data[300:2500] = bytes(2200)
    path = tmp_path / "damaged.mp4"
    path.write_bytes(data)
    with pytest.raises(VideoError, match=r"damaged\.mp4"):
        read_frames(path, np.array([10]))


def test_duration_comes_from_the_header_or_else_from_probe(tmp_path, monkeypatch):
    stated = write_numbered(tmp_path / "a.mp4", 40, fps=25)
    silent = tmp_path / "b.mkv"
    pipe = io.BytesIO()
    pipe.seekable = lambda: False
    write_numbered(silent, 40, fps=25, to=pipe, form="matroska")
    silent.write_bytes(pipe.getvalue())
    assert duration(silent) == pytest.approx(1.6, abs=2e-3)
    monkeypatch.setattr(clip, "probe", None)  # the header suffices, no frame is read
    assert duration(stated) == pytest.approx(1.6)
    with pytest.raises(VideoError, match="no such video file"):
        duration(tmp_path / "none.mp4")


@pytest.mark.parametrize("form", ["mp4", "matroska", "mpegts", "flv"])
@pytest.mark.parametrize("sound", [False, True])
def test_a_video_that_begins_late_is_as_long_as_from_its_first_frame_to_its_end(tmp_path, form, sound):
    """Forty frames of 25 a second from second 10 on, as segmenters cut them; or sound before them."""
    path = tmp_path / "late"
    with av.open(str(path), "w", format=form) as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.max_b_frames = 64, 48, 0
        silence = container.add_stream("aac", rate=48000) if sound else None
        for n in range(40):
            frame = av.VideoFrame.from_ndarray(bars_of(n, 64, 48), format="rgb24")
            frame.pts, frame.time_base = 250 + n, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        for n in range(11 * 48 if silence else 0):
            samples = av.AudioFrame("fltp", "mono", 1000)
            samples.planes[0].update(bytes(samples.planes[0].buffer_size))
            samples.rate, samples.pts, samples.time_base = 48000, 1000 * n, Fraction(1, 48000)
            container.mux(silence.encode(samples))
    assert duration(path) == pytest.approx(1.6, abs=0.05)
    assert probe(path).seconds == pytest.approx(1.6, abs=0.05)
    times = np.array([-1.0, 0.0, 1.0, 1.56, 9.0])
    assert numbers(read_times(path, times, fps=25)) == [0, 0, 25, 39, 39]


def test_damaged_packets_of_mpeg_ts_are_counted(tmp_path):
    """A packet of the transport stream is lost: the container's counter has a gap, the decoder no error."""
    path = write_numbered(tmp_path / "whole.ts", 64, options={"g": "8"})
    assert probe(path).damaged == 0
    data = path.read_bytes()
    packets = [data[i : i + 188] for i in range(0, len(data), 188)]
    path.write_bytes(b"".join(packets[: len(packets) // 2] + packets[len(packets) // 2 + 3 :]))
    assert probe(path).damaged >= 1


def test_title_in_latin_1_is_ignored(tmp_path):
    """Some Windows programs write titles in Latin-1 where the container requires UTF-8."""
    path = tmp_path / "title.mkv"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "caf_"
        stream = container.add_stream("libx264", rate=16)
        stream.width, stream.height, stream.pix_fmt = 32, 24, "yuv420p"
        for n in range(4):
            frame = av.VideoFrame.from_ndarray(np.full((24, 32, 3), 60 * n, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    path.write_bytes(path.read_bytes().replace(b"caf_", b"caf\xe9"))
    assert probe(path).frames == 4
    assert len(read_frames(path, np.arange(4))) == 4


def test_every_reader_raises_for_a_video_without_decodable_frames(tmp_path):
    """A VP8 stream whose packets are all damaged, found by fuzzing."""
    whole = write_numbered(tmp_path / "v.webm", 12, codec="libvpx", size=(32, 24), bframes=None).read_bytes()
    with av.open(str(tmp_path / "v.webm")) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    damaged = tmp_path / "damaged.webm"
    data = whole
    for packet in packets:
        data = data.replace(packet, b"\xff" * len(packet))
    damaged.write_bytes(data)
    for reader in (
        probe,
        lambda path: read_frames(path, np.array([0])),
        lambda path: read_times(path, np.array([0.0]), fps=16.0),
        lambda path: list(clip.iter_frames(path)),
    ):
        with pytest.raises(VideoError, match=r"damaged.webm: "):
            reader(damaged)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n", "a Git LFS pointer"),
    ],
)
def test_what_is_saved_in_place_of_a_video_is_named(tmp_path, content, what):
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    with pytest.raises(VideoError, match=rf"a\.mp4: this is {what}, not a video; get the file itself"):
        probe(path)
