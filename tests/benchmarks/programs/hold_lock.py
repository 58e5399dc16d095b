"""Holds a file's lock for one second: FILE."""

import sys
import time

from filelock import FileLock

with FileLock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(1)
