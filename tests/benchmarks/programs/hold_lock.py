"""Holds a lock for a second, and prints when it lets go, on the clock that processes share: FILE."""

import sys
import time

from filelock import FileLock

with FileLock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(1)
    print(time.monotonic(), flush=True)
