"""Videos whose frames show their number, up to 255, in any codec and container."""

from fractions import Fraction

import av
import numpy as np


def bars_of(n, width, height):
    """n in binary: eight vertical bars, white for 1."""
    bars = 255 * (n >> (np.arange(width) * 8 // width) & 1).astype(np.uint8)
    return np.broadcast_to(bars[None, :, None], (height, width, 3)).copy()


def write_numbered(
    path,
    length,
    *,
    codec="libx264",
    fps=16,
    size=(64, 48),
    bframes=2,
    times=None,
    to=None,
    draw=bars_of,
    **more,
):
    """Write a video whose frame n shows n, at n / fps or at times(n) milliseconds.

    to: a file object to write to. more: pix_fmt, tag, form (the container), options of the codec, and
    muxer, options of the container.
    """
    target = str(path) if to is None else to
    with av.open(target, "w", format=more.get("form"), options=more.get("muxer", {})) as container:
        stream = container.add_stream(codec, rate=fps)
        stream.width, stream.height, stream.pix_fmt = *size, more.get("pix_fmt", "yuv420p")
        stream.codec_context.thread_count = 1
        stream.options = more.get("options", {})
        if bframes is not None:
            stream.max_b_frames = bframes
        if "tag" in more:
            stream.codec_context.codec_tag = more["tag"]
        if times is not None:
            stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for n in range(length):
            frame = av.VideoFrame.from_ndarray(draw(n, *size), format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times(n), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def numbers(frames):
    """Decode the numbers that frames (T, H, W, 3) show."""
    width = frames.shape[2]
    centres = [(2 * bit + 1) * width // 16 for bit in range(8)]
    bits = frames[:, frames.shape[1] // 2, centres].mean(-1) > 127
    return (bits * 2 ** np.arange(8)).sum(-1).tolist()
