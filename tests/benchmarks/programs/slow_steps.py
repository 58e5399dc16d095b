"""As sitecustomize, which Python imports first, in the trials too: slow steps."""

import time

from torch import Tensor

from actloc_core import selection

fast = selection.two_c_t


def two_c_t(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """2(C+T), a little later."""
    time.sleep(0.3)
    return fast(tokens)


selection.two_c_t = two_c_t
