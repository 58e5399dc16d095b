import av
import numpy as np
import pytest

from actloc_core.clip import VideoError, clip_indices, probe, read_frames


def write_numbered(path, length, *, codec="libx264", fps=16, size=(64, 48), bframes=2):
    """A video whose frame n shows n in binary: eight vertical bars, white for 1."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.max_b_frames = bframes
        for n in range(length):
            image = np.zeros((size[1], size[0], 3), np.uint8)
            for bit in range(8):
                image[:, bit * size[0] // 8 : (bit + 1) * size[0] // 8] = 255 * (n >> bit & 1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def numbers(frames):
    width = frames.shape[2]
    centres = [(2 * bit + 1) * width // 16 for bit in range(8)]
    bits = frames[:, frames.shape[1] // 2, centres].mean(-1) > 127
    return (bits * 2 ** np.arange(8)).sum(-1).tolist()


def test_the_keyframe_is_clip_index_half():
    indices = clip_indices(100, 1000, frames=16, stride=4)
    assert indices.tolist() == list(range(68, 132, 4))
    assert indices[8] == 100


def test_the_ends_repeat_the_edge_frame_and_never_shift():
    assert clip_indices(1, 6, frames=8, stride=1).tolist() == [0, 0, 0, 0, 1, 2, 3, 4]
    assert clip_indices(5, 6, frames=8, stride=2).tolist() == [0, 0, 1, 3, 5, 5, 5, 5]


def test_a_keyframe_outside_the_video_is_refused():
    with pytest.raises(IndexError, match="keyframe 6 is not in a video of 6 frames"):
        clip_indices(6, 6, frames=8, stride=1)


@pytest.mark.parametrize("name", ["clip.mp4", "clip.avi"])
def test_frames_are_the_ones_asked_for(tmp_path, name):
    """B-frames in both; in AVI decord's random access is wrong and must be worked around."""
    codec = "mpeg4" if name.endswith("avi") else "libx264"
    path = write_numbered(tmp_path / name, 120, codec=codec)
    wanted = np.array([3, 50, 51, 119, 0, 77, 50])
    assert numbers(read_frames(path, wanted)) == wanted.tolist()


def test_probe_says_length_and_rate(tmp_path):
    info = probe(write_numbered(tmp_path / "a.mp4", 40, fps=25))
    assert (info.frames, info.fps, info.seconds) == (40, 25.0, 1.6)


def test_one_frame(tmp_path):
    path = write_numbered(tmp_path / "a.mp4", 1)
    assert numbers(read_frames(path, clip_indices(0, 1, frames=4, stride=2))) == [0, 0, 0, 0]


@pytest.mark.parametrize("content", [b"", b"not a video at all"])
def test_what_is_no_video_is_named(tmp_path, content):
    path = tmp_path / "bad.mp4"
    path.write_bytes(content)
    with pytest.raises(VideoError, match=r"bad\.mp4"):
        probe(path)
    with pytest.raises(VideoError, match=r"gone\.mp4: no such video file"):
        probe(tmp_path / "gone.mp4")


def test_a_frame_past_the_end_is_refused(tmp_path):
    path = write_numbered(tmp_path / "a.mp4", 10)
    with pytest.raises(VideoError, match="frame 10 asked of a video of 10 frames"):
        read_frames(path, np.array([9, 10]))


def test_a_damaged_middle_is_an_error_or_the_right_frame(tmp_path):
    whole = write_numbered(tmp_path / "a.mp4", 60)
    data = bytearray(whole.read_bytes())
    path = tmp_path / "cut.mp4"
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(VideoError, match=r"cut\.mp4"):
        read_frames(path, np.array([50]))
