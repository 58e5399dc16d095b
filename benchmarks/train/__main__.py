"""`python -m benchmarks.train`, see `benchmarks.own`."""

import sys

from benchmarks.own import command

if __name__ == "__main__":
    sys.exit(command())
