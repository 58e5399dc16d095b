from dataclasses import replace

import pytest

from datasets import ava, synthetic
from tests.benchmarks.shared import decode_once


@pytest.fixture(scope="session", autouse=True)
def clips_are_decoded_once():
    with pytest.MonkeyPatch.context() as patch:
        decode_once(patch)
        yield


@pytest.fixture(scope="session")
def small_split(small_benchmark):
    """64 training clips of 4 frames at 32 x 32."""
    whole = ava.load(
        small_benchmark, "train", frames=4, stride=4, crop=32, fps=synthetic.FPS, flipped=synthetic.FLIPPED
    )
    return replace(whole, keyframes=whole.keyframes[:64])
