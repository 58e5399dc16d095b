"""Download of published initialisation weights: `--pretrained` of the commands that train."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.score.results import save

TIMEOUT_S = 30.0
"""Seconds without a byte after which a download is given up."""


@dataclass(frozen=True)
class Published:
    """A published file of weights."""

    what: str
    url: str
    sha256: str | None = None
    """None: unknown. It is then recorded at the first download, and checked from then on."""


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


def download(name: str, published: Published, folder: Path, *, show_progress: bool = False) -> Path:
    """Download a file to `folder` unless it is there, and check its checksum; -> the file.

    An unknown checksum is written beside the file at the first download, and checked from then on.
    Raises ValueError naming what to do where the checksum differs, or the file is not available as a whole.
    """
    import pooch  # here, for models are built where it is missing, too

    file = folder / published.url.rpartition("/")[2]
    record = file.with_name(file.name + ".sha256")
    expected = published.sha256 or (record.read_text().split()[0] if record.exists() else None)
    if not file.exists():
        pooch.get_logger().setLevel("WARNING")
        try:
            pooch.retrieve(
                published.url,
                f"sha256:{expected}" if expected else None,
                fname=file.name,
                path=folder,
                downloader=pooch.HTTPDownloader(progressbar=show_progress, timeout=TIMEOUT_S),
            )
        except (OSError, ValueError) as error:  # of the connection; of the checksum
            raise ValueError(
                f"{published.url}: not downloaded ({error}); get the file in another way and give "
                f"--weights {name}=FILE"
            ) from error
    actual = pooch.file_hash(str(file), alg="sha256")
    if expected is None:
        print(f"{file}: SHA-256 {actual}, recorded in {record.name}", file=sys.stderr, flush=True)
        save(record, lambda part: part.write_text(f"{actual}  {file.name}\n"))
    elif actual != expected:
        raise ValueError(
            f"{file}: its SHA-256 is {actual}, not {expected}; delete the file to download it again"
        )
    return file
