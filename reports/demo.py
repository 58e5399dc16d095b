"""`nox -s predict`: the trained tiny model on a video it has not seen, and the picture in the README.

Takes what `nox -s ablations` left: the model of one row, and a video of the synthetic test split.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from actloc_core.clip import probe, read_times
from actloc_core.predict import main as predict
from benchmarks.inputs import make_synthetic
from benchmarks.experiments import ROWS, rows_at
from benchmarks.score.results import save
from datasets import ava

ON_AVA = [name for name, exp in ROWS.items() if exp.dataset == "ava"]
ROW = "2b/two_c_t_frame_embedding"
COLUMNS, SHOWN, WIDTH = 3, 6, 480
"""Of the picture: its columns, how many keyframes it has, pixels of each."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; -> the exit status."""
    parser = argparse.ArgumentParser(
        prog="nox -s predict --",
        description="Run a trained row of the tables on a video of the synthetic test split.",
        epilog="With --checkpoint it is actloc_core.predict: nox -s predict -- VIDEO --checkpoint RUN",
    )
    parser.add_argument("--out", type=Path, default=Path("out"), help="of nox -s ablations (default: out)")
    parser.add_argument("--scale", default="tiny", choices=("tiny", "smoke"), help="default: tiny")
    parser.add_argument("--row", default=ROW, choices=ON_AVA, metavar="ROW", help=f"default: {ROW}")
    parser.add_argument("--video", type=int, default=0, metavar="N", help="of the test split (default: 0)")
    parser.add_argument("--theta", type=float, default=0.2, help="default: 0.2")
    args = parser.parse_args(argv)
    exp = rows_at(args.scale)[args.row]
    run = args.out / "runs" / exp.hash
    if not (run / "result.json").exists():
        again = "nox -s ablations" + ("" if args.scale == "tiny" else f" -- --scale {args.scale}")
        print(f"error: {args.row} is not trained yet in {args.out}: {again}", file=sys.stderr)
        return 2
    videos = sorted((make_synthetic(args.out / "data", exp.dataset) / "videos").glob("test_*"))
    if not 0 <= args.video < len(videos):
        last = len(videos) - 1
        print(f"error: --video {args.video}: the test split has videos 0 to {last}", file=sys.stderr)
        return 2
    video = videos[args.video]
    made = args.out / "predictions" / video.stem
    told = [str(video), "--checkpoint", str(run), "--out", str(made), "--theta", str(args.theta)]
    status = predict(told)
    if status == 0:
        picture = Image.fromarray(keyframes_of(made / "annotated.mp4", SHOWN))
        save(made / "keyframes.png", partial(picture.save, format="PNG", optimize=True))
        print(f"{made / 'keyframes.png'}: {SHOWN} of the keyframes, at even distances")
    return status


def keyframes_of(annotated: Path, count: int) -> NDArray[np.uint8]:
    """Whole seconds at even distances through an annotated video, not chosen by how well they look.

    -> one picture (H, W, 3) uint8 RGB, COLUMNS side by side.
    """
    info = probe(annotated)
    first = ava.FIRST_SECOND - ava.START_SECOND  # before it there is nothing
    seconds = np.linspace(first, int(info.seconds - 1 / info.fps), count).round()
    size = (round(WIDTH * info.height / info.width), WIDTH)
    pictures = read_times(annotated, seconds, fps=info.fps, size=size)
    rows = [np.hstack(list(pictures[i : i + COLUMNS])) for i in range(0, count, COLUMNS)]
    return np.vstack(rows)


if __name__ == "__main__":
    sys.exit(main())
