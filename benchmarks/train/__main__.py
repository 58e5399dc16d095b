"""`python -m benchmarks.train`, see `benchmarks.own`: run by name, for this package knows nothing of commands."""

import runpy

if __name__ == "__main__":
    runpy.run_module("benchmarks.own", run_name="__main__")
