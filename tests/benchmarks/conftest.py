from dataclasses import replace

import pytest

from datasets import ava, synthetic


@pytest.fixture(scope="session")
def small_split(small_benchmark):
    """64 training clips of 4 frames at 32 x 32."""
    whole = ava.load(
        small_benchmark, "train", frames=4, stride=4, crop=32, fps=synthetic.FPS, mirrored=synthetic.FLIPPED
    )
    return replace(whole, keyframes=whole.keyframes[:64])
