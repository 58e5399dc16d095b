"""As sitecustomize, which Python imports first, in the trials too: selections that fail in different ways."""

import os
import time
from typing import NoReturn

from torch import Tensor

from actloc_core import selection


def leaves_no_time(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """As on a machine that has no time for the thread of a trial to end."""
    os.environ["TUNE_FUNCTION_THREAD_TIMEOUT_S"] = "0"
    return selection.two_c_t(tokens)


def kills_its_process(tokens: Tensor) -> NoReturn:
    """Without an exception."""
    print("the last line of the log", flush=True)
    os._exit(7)


def hangs(tokens: Tensor) -> None:
    """For longer than any watchdog waits in the tests."""
    time.sleep(1000)


def wants_all_memory(tokens: Tensor) -> None:
    """400 TB."""
    tokens.new_empty(10**14)


for planted in (leaves_no_time, kills_its_process, hangs, wants_all_memory):
    setattr(selection, planted.__name__, planted)
