"""`python -m benchmarks.train` is `benchmarks.own`, run by name: this package knows no commands."""

import runpy

if __name__ == "__main__":
    runpy.run_module("benchmarks.own", run_name="__main__")
