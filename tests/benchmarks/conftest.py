from dataclasses import replace

import pytest

from datasets import ava, synthetic

FRAMES = {}
"""(source, keyframe) -> frames of a clip; all splits of these tests have clips of 4 frames with stride 4."""


class DecodedOnce(ava.AvaSplit):
    """A split that keeps the frames of its clips: tests of training read the same few many times."""

    def read(self, index):
        video, second = self.keyframes[index]
        key = (self.sources[video], second)
        if key not in FRAMES:
            FRAMES[key] = super().read(index)
        return FRAMES[key]


@pytest.fixture(scope="session")
def small_split(small_benchmark):
    """64 training clips of 4 frames at 32 x 32."""
    whole = ava.load(
        small_benchmark, "train", frames=4, stride=4, crop=32, fps=synthetic.FPS, flipped=synthetic.FLIPPED
    )
    return DecodedOnce(**vars(replace(whole, keyframes=whole.keyframes[:64])))
