"""A trained model for other programs: `python -m actloc_core.export --checkpoint out/runs/<hash> --out DIR`.

DIR/model.onnx, DIR/model.pt2 (torch.export) and DIR/model.json, which says what goes in and what comes out:

    clip (B, 3, T, H, W) float32 RGB in [0, 1], any B -> boxes (B, L, 4) xyxy in [0, 1], p_actor (B, L),
    scores (B, L, C)

All L candidates of a clip come out; those with p_actor above theta are people (`model.keep_actors`). Both
files are run here on clips they have not been made with and compared with PyTorch, number for number.
Needs `pip install "actloc[export]"`: onnx, onnxscript and onnxruntime.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import logging
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn

from actloc_core.boxes import cxcywh_to_xyxy
from actloc_core.checkpoints import CheckpointError
from actloc_core.detector import Trained, load_trained
from actloc_core.pixels import MEAN, STD, normalise
from actloc_core.structures import Predictions

NAMES = ("boxes", "p_actor", "scores")
TOLERANCE = 1e-4
"""The most a number in [0, 1] may differ from PyTorch's."""
MOST = 64
"""Clips in a batch that the files are made for."""
TURNS, LONG = 7, 20.0
"""How often each is timed, and seconds after which two times are enough."""

Outputs = Sequence[Tensor]
Run = Callable[[Tensor], Outputs]


class Deployed(nn.Module):
    """Clip in [0, 1] -> (boxes xyxy, p_actor, scores), all of them in [0, 1].

    score: as `keep_actors` says.
    """

    def __init__(self, model: nn.Module, score: str) -> None:
        super().__init__()
        self.model, self.score = model, score

    def forward(self, clip: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 3, T, H, W) in 0..1 -> boxes (B, L, 4) xyxy in 0..1, p(alpha) (B, L), scores (B, L, C)."""
        found: Predictions = self.model(normalise(clip))
        p_actor, scores = found.p_actor, found.action_logits.float().sigmoid()
        if self.score == "product":
            scores = scores * p_actor[..., None]
        return cxcywh_to_xyxy(found.boxes.float()).clamp(0, 1), p_actor, scores


@dataclass(frozen=True)
class Speed:
    """Of one way to run the model, on this machine's CPU."""

    name: str
    latency: float
    """Seconds, of one clip alone."""
    throughput: float
    """Clips a second, in a batch."""
    difference: float
    """The most that an output differs from PyTorch's."""


def export(
    trained: Trained, out: Path, *, batch: int = 8, on_step: Callable[[str], object] = lambda what: None
) -> list[Speed]:
    """Write the three files, compare them with PyTorch and time them; -> a Speed of each, PyTorch's first.

    batch: clips at once for the throughput. on_step: told in words what comes next. The files appear in `out`
    only when both agree with PyTorch.
    Raises CheckpointError for a two-stage model, ImportError where onnx is missing, ValueError where an
    exported program differs, OSError where `out` cannot be written.
    """
    if trained.experiment["method"] == "two_stage":
        raise CheckpointError(f"{trained.file} is a two-stage model, which asks for boxes beside the clip")
    for needed in ("onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(needed) is None:
            raise ImportError(f'{needed} is not installed: pip install "actloc[export]"')
    model = Deployed(trained.model, str(trained.experiment["score"])).eval()
    frames, crop = int(trained.experiment["frames"]), int(trained.experiment["crop"])
    clips = torch.rand(max(batch, 3), 3, frames, crop, crop, generator=torch.Generator().manual_seed(0))
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".export-") as made:
        folder = Path(made)
        runs = {"PyTorch": _without_gradients(model)}
        on_step("torch.export")
        program = _traced(model, clips[:2])
        runs["torch.export"] = _saved(program, folder / "model.pt2")
        on_step("ONNX, which takes minutes for a large model")
        runs["ONNX Runtime"] = _onnx(program, folder / "model.onnx")
        on_step("comparing")
        right = {count: runs["PyTorch"](clips[-count:]) for count in (1, 2, 3)}
        differences = {name: _difference(run, right, clips) for name, run in runs.items()}
        for name, difference in differences.items():
            if not difference <= TOLERANCE:
                raise ValueError(
                    f"{name} differs from PyTorch by {difference:.2g}; nothing was written to {out}"
                )
        (folder / "model.json").write_text(json.dumps(_card(trained), indent=1, ensure_ascii=False) + "\n")
        for path in sorted(folder.iterdir()):
            path.replace(out / path.name)
    on_step("timing")
    alone, together = _in_turn(runs, clips[:1]), _in_turn(runs, clips[:batch])
    return [
        Speed(name, alone[name], min(batch, len(clips)) / together[name], differences[name]) for name in runs
    ]


def _without_gradients(model: nn.Module) -> Run:
    @torch.no_grad()
    def run(clip: Tensor) -> Outputs:
        return model(clip)

    return run


def _traced(model: nn.Module, example: Tensor) -> torch.export.ExportedProgram:
    """The model as a graph for any batch of 1 to MOST clips."""
    batch = torch.export.Dim("batch", min=1, max=MOST)
    with torch.no_grad():
        return torch.export.export(model, (example,), dynamic_shapes={"clip": {0: batch}})


def _saved(program: torch.export.ExportedProgram, path: Path) -> Run:
    """Write a torch.export program, and read it again."""
    torch.export.save(program, path)
    return _without_gradients(torch.export.load(path).module())


def _onnx(traced: torch.export.ExportedProgram, path: Path) -> Run:
    """Write an ONNX file, and read it with onnxruntime."""
    import onnxruntime

    with _quiet():
        program = torch.onnx.export(
            traced, dynamo=True, input_names=["clip"], output_names=list(NAMES), verbose=False
        )
    assert program is not None
    large = sum(weights.nbytes for weights in traced.state_dict.values()) > 1.8e9  # a protobuf holds 2 GB
    program.save(str(path), external_data=large)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path.read_bytes() if not large else str(path), options)

    def run(clip: Tensor) -> Outputs:
        return [torch.from_numpy(made) for made in session.run(list(NAMES), {"clip": clip.numpy()})]

    return run


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter tells of each of its steps, by print, warnings and logging."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _difference(run: Run, right: Mapping[int, Outputs], clips: Tensor) -> float:
    """The most by which an output differs, of batches of the last one, two, ... clips."""
    differences = [0.0]
    for count, wanted in right.items():
        for made, true in zip(run(clips[-count:]), wanted, strict=True):
            if made.shape != true.shape or not made.isfinite().all():
                return float("inf")
            differences.append(float((made - true).abs().max()))
    return max(differences)


def _in_turn(runs: Mapping[str, Run], clips: Tensor) -> dict[str, float]:
    """Median seconds of each, one after the other in every turn, after one turn to warm up."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    clock = time.perf_counter()
    for turn in range(TURNS + 1):
        for name, run in runs.items():
            began = time.perf_counter()
            run(clips)
            taken[name].append(time.perf_counter() - began)
        if turn >= 2 and time.perf_counter() - clock > LONG:
            break
    return {name: median(seconds[1:]) for name, seconds in taken.items()}


def _card(trained: Trained) -> dict[str, object]:
    """What a program must know that runs the files without us."""
    exp = trained.experiment
    return {
        "input": {
            "name": "clip",
            "shape": ["batch", 3, exp["frames"], exp["crop"], exp["crop"]],
            "values": f"RGB in [0, 1], float32; normalised inside, (x - {MEAN}) / {STD}",
            "resize": "to this height and width, the aspect not kept, antialiased bilinear"
            + (" (this model was scored with the aspect kept)" if exp["short_sides"] else ""),
            "keyframe": exp["frames"] // 2,
            "seconds_between_frames": exp["stride"] / trained.fps,
        },
        "outputs": {
            "boxes": "(batch, candidates, 4) xyxy, fractions of width and height, at the keyframe",
            "p_actor": "(batch, candidates) keep those above a threshold, such as 0.2",
            "scores": f"(batch, candidates, classes); {exp['score']}",
        },
        "most_clips_in_a_batch": MOST,
        "classes": [{"id": number, "name": name} for number, name in trained.classes.items()],
        "experiment": exp,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; -> 0, or 2 for bad input and where a program differs from the model."""
    summary, _, more = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m actloc_core.export",
        description=summary,
        epilog=more,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--checkpoint", type=Path, required=True, metavar="RUN_OR_FILE",
        help="a run's folder (out/runs/...), a training's, or a checkpoint.pt",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=Path("out/export"), help="default: out/export")
    parser.add_argument(
        "--batch", type=int, default=8, help=f"clips at once for the throughput, up to {MOST} (default: 8)"
    )
    args = parser.parse_args(argv)
    if not 1 <= args.batch <= MOST:
        parser.error(f"--batch {args.batch}: 1 to {MOST}")
    try:
        speeds = export(
            load_trained(args.checkpoint),
            args.out,
            batch=args.batch,
            on_step=lambda what: print(f"{what} ...", file=sys.stderr, flush=True),
        )
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{'':14}{'latency':>12}{f'batch of {args.batch}':>18}{'differs by':>12}")
    for speed in speeds:
        print(
            f"{speed.name:14}{1e3 * speed.latency:>9.1f} ms{speed.throughput:>10.2f} clips/s"
            f"{speed.difference:>12.1e}"
        )
    files = ", ".join(
        f"{path.name} {path.stat().st_size / 2**20:.1f} MiB" for path in sorted(args.out.glob("model.*"))
    )
    print(f"on {torch.get_num_threads()} threads of this CPU\n{args.out}: {files}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
