"""`nox -s predict`: run a trained tiny model on a synthetic test video, and make the picture in the README.

Uses what `nox -s ablations` wrote: the model of one row, and a video of the synthetic test split. With
--checkpoint it is actloc_core.predict: nox -s predict -- VIDEO --checkpoint RUN
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from actloc_core.cli import command_parser, exit_code
from actloc_core.clip import probe, read_times
from actloc_core.predict import main as predict
from benchmarks.experiments import ROWS, rows_at
from benchmarks.inputs import make_synthetic
from benchmarks.score.results import save
from datasets import ava

AVA_ROWS = [name for name, exp in ROWS.items() if exp.dataset == "ava"]
ROW = "2b/two_c_t"
COLUMNS, SHOWN, WIDTH = 3, 6, 480
"""Of the picture: its columns, its number of keyframes, their width in pixels."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; -> the exit code, 2 for bad input."""
    p = command_parser("reports.demo", __doc__)
    p.add_argument("--out", type=Path, default=Path("out"), help="of nox -s ablations (default: out)")
    p.add_argument("--scale", default="tiny", choices=("tiny", "smoke"), help="default: tiny")
    p.add_argument("--row", default=ROW, choices=AVA_ROWS, metavar="ROW", help=f"default: {ROW}")
    p.add_argument("--video", type=int, default=0, metavar="N", help="of the test split (default: 0)")
    p.add_argument("--theta", type=float, default=0.2, help="score threshold (default: 0.2)")

    def run() -> int:
        args = p.parse_args(argv)
        return demo(args.out, args.scale, args.row, args.video, args.theta)

    return exit_code(run)


def demo(out: Path, scale: str, row: str, video: int, theta: float) -> int:
    """Run a trained row on test video number `video`; -> the exit code of `actloc_core.predict`.

    Raises ValueError where the row is not trained or there is no such video.
    """
    exp = rows_at(scale)[row]
    run = out / "runs" / exp.hash
    if not (run / "result.json").exists():
        train = "nox -s ablations" + ("" if scale == "tiny" else f" -- --scale {scale}")
        raise ValueError(f"{row} is not trained yet in {out}: {train}")
    videos = sorted((make_synthetic(out / "data", exp.dataset) / "videos").glob("test_*"))
    if not 0 <= video < len(videos):
        raise ValueError(f"--video {video}: the test split has videos 0 to {len(videos) - 1}")
    folder = out / "predictions" / videos[video].stem
    options = ["--checkpoint", str(run), "--out", str(folder), "--theta", str(theta), "--overwrite"]
    status = predict([str(videos[video]), *options])
    if status == 0:
        picture = Image.fromarray(keyframes_of(folder / "annotated.mp4", SHOWN))
        save(folder / "keyframes.png", partial(picture.save, format="PNG", optimize=True))
        print(f"{folder / 'keyframes.png'}: {SHOWN} keyframes at regular intervals")
    return status


def keyframes_of(annotated: Path, count: int) -> NDArray[np.uint8]:
    """One picture (H, W, 3) uint8 RGB of keyframes of an annotated video, COLUMNS side by side.

    Keyframes are whole seconds at regular intervals, not chosen by their detections.
    """
    info = probe(annotated)
    first = ava.FIRST_SECOND - ava.START_SECOND  # the first keyframe of a video
    seconds = np.linspace(first, int(info.seconds - 1 / info.fps), count).round()
    size = (round(WIDTH * info.height / info.width), WIDTH)
    pictures = read_times(annotated, seconds, fps=info.fps, size=size)
    rows = [np.hstack(list(pictures[i : i + COLUMNS])) for i in range(0, count, COLUMNS)]
    return np.vstack(rows)


if __name__ == "__main__":
    sys.exit(main())
