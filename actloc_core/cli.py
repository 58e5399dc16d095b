"""What commands share: help from docstrings, errors in one line and exit codes."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable

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
    """A parser whose help is the module's docstring."""
    summary, _, more = (doc or "").partition("\n\n")
    return argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=summary,
        epilog=more,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
