"""What commands share: help from docstrings, errors in one line and exit codes."""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from actloc_core import __version__

BAD_INPUT, INTERRUPTED, UNREAD = 2, 130, 128 + signal.SIGPIPE
"""Exit codes. The latter two are a shell's own for a command ended by Ctrl-C, and by `| head`."""


def exit_code(command: Callable[[], int], *, interrupted: str = "interrupted") -> int:
    """Run a command and return its exit code, or BAD_INPUT, INTERRUPTED or UNREAD.

    ValueError, OSError and ImportError are printed to standard error as one line, "error: ..."; on Ctrl-C
    `interrupted` is. When nobody reads the output any more the command ends without a word.
    """
    try:
        try:
            return command()
        finally:
            if sys.stdout is not None:  # closed by >&-
                sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python's last flush complains
        return UNREAD
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        return INTERRUPTED


def command_parser(module: str, doc: str | None) -> argparse.ArgumentParser:
    """A parser whose help is the module's docstring, with --version."""
    summary, _, more = (doc or "").partition("\n\n")
    script = Path(sys.argv[0]).name
    parser = argparse.ArgumentParser(
        prog=script if script.startswith("actloc-") else f"python -m {module}",
        description=summary,
        epilog=more,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print versions and exit")
    return parser


class _Version(argparse.Action):
    """Prints what a report of a fault should say."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        names = ("torch", "numpy", "av", "ray", "pyarrow", "scipy")
        print(f"actloc {__version__}, Python {platform.python_version()}, {platform.platform()}")
        for name in names:
            try:
                print(f"{name} {version(name)}")
            except PackageNotFoundError:
                print(f"{name} is not installed")
        parser.exit()
