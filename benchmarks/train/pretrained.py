"""Published weights by download: `--pretrained` of the commands that train."""

from __future__ import annotations

import hashlib
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.score.results import save

CHUNK = 1 << 20
WAIT = 30.0
"""Seconds without a byte after which a download is given up."""


@dataclass(frozen=True)
class Published:
    """A file of weights that others have published."""

    what: str
    url: str
    sha256: str | None = None
    """None where we have not had the file: it is then recorded at the first download, and held to."""


WEIGHTS = {
    "mvitv2_s_k400": Published(
        "MViTv2_S_16x4 of PySlowFast's model zoo (Kinetics-400), a .pyth file",
        "https://dl.fbaipublicfiles.com/pyslowfast/model_zoo/mvitv2/pysf_video_models/"
        "MViTv2_S_16x4_k400_f302660347.pyth",
    ),
    "hiera_l_k400": Published(
        "hiera_large_16x224 of the Hiera repository (MAE, then Kinetics-400), a .pth file",
        "https://dl.fbaipublicfiles.com/hiera/hiera_large_16x224.pth",
    ),
}
"""Names that `Experiment.weights` gives to published files."""


def download(
    name: str,
    published: Published,
    folder: Path,
    *,
    progress: Callable[[int, int | None], None] = lambda done, total: None,
) -> Path:
    """-> the file in `folder`, downloaded where it is not there yet, its checksum right either way.

    A checksum that is not known is written beside the file at the first download, and the file is held to it
    from then on. progress: called with bytes so far and in all (None where the server does not say).
    Raises ValueError naming what to do where the checksum is another, the file is cut short, or there is
    no way to it.
    """
    file = folder / published.url.rpartition("/")[2]
    beside = file.with_name(file.name + ".sha256")
    expected = published.sha256 or (beside.read_text().split()[0] if beside.exists() else None)
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        save(file, lambda part: _fetch(name, published.url, part, expected, progress))
    found = sha256_of(file)
    if expected is None:
        print(f"{file}: SHA-256 {found}, recorded in {beside.name}", file=sys.stderr, flush=True)
        save(beside, lambda part: part.write_text(f"{found}  {file.name}\n"))
    elif found != expected:
        raise ValueError(
            f"{file}: its SHA-256 is {found}, not {expected}; delete the file, and it is downloaded again"
        )
    return file


def _fetch(
    name: str, url: str, part: Path, expected: str | None, progress: Callable[[int, int | None], None]
) -> None:
    """Download to `part`; raises as `download` does, before it is renamed."""
    otherwise = f"get the file in another way and name it: --weights {name}=FILE"
    digest, done = hashlib.sha256(), 0
    try:
        with urllib.request.urlopen(url, timeout=WAIT) as answer, open(part, "wb") as file:
            length = answer.headers.get("Content-Length")
            total = int(length) if length else None
            while chunk := answer.read(CHUNK):
                file.write(chunk)
                digest.update(chunk)
                done += len(chunk)
                progress(done, total)
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise ValueError(f"{url}: no way to it ({reason or type(error).__name__}); {otherwise}") from error
    if total is not None and done != total:
        raise ValueError(f"{url}: cut short after {done} of {total} bytes; try again, or {otherwise}")
    if expected is not None and digest.hexdigest() != expected:
        raise ValueError(
            f"{url}: its SHA-256 is {digest.hexdigest()}, not {expected}: not the file we know; {otherwise}"
        )


def sha256_of(file: Path) -> str:
    """The hash of the file's bytes, in hex digits."""
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
