"""Console examples of the documents: a command and what it prints."""

import os
import re
import shlex
import subprocess
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

from evaluators.__main__ import main

ROOT = Path(__file__).parents[1]


def blocks(page, kind):
    """The texts of a page's fenced blocks of a kind, such as "python"; None: of every kind."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    return [text for language, text in fenced if kind in (None, language)]


def examples(page):
    """(command, what it prints) of a page's console blocks."""
    for block in blocks(page, "console"):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            yield part.split("\n", 1)


def shell(command, folder, *, warnings="default"):
    """Run commands up to the first that fails; `python` is this one, with our packages on its path."""
    script = 'set -e; python() { "$PYTHON" "$@"; }\n' + command
    names = {"PYTHONPATH": str(ROOT), "PYTHON": sys.executable, "PYTHONWARNINGS": warnings}
    return subprocess.run(
        ["bash", "-c", script], cwd=folder, text=True, check=False, env=os.environ | names,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def printed(command, folder):
    """What a command prints: one call of the evaluators in this process, all others in a shell."""
    words = shlex.split(command)
    if words[:3] != ["python", "-m", "evaluators"] or ";" in command:
        return shell(f"set +e\n{command}", folder, warnings="error").stdout
    text = StringIO()
    with chdir(folder), redirect_stdout(text), redirect_stderr(text):
        main(words[3:])
    return text.getvalue()
