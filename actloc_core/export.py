"""Export a trained model: `python -m actloc_core.export --checkpoint out/runs/<hash> --out DIR`.

Writes DIR/model.onnx, DIR/model.pt2 (torch.export) and DIR/model.json, which describes inputs and outputs:

    clip (B, 3, T, H, W) float32 RGB in [0, 1], any B -> boxes (B, L, 4) xyxy in [0, 1], p_actor (B, L),
    scores (B, L, C)

Outputs are all L candidates of a clip; those with p_actor above theta are actors (`model.keep_actors`). Both
files are run on clips other than the traced ones and compared with PyTorch, number for number.
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

from actloc_core import cli
from actloc_core.boxes import cxcywh_to_xyxy
from actloc_core.checkpoints import CheckpointError
from actloc_core.detector import TrainedModel, load_checkpoint
from actloc_core.pixels import normalise
from actloc_core.structures import Predictions, backbone_of

OUTPUT_NAMES = ("boxes", "p_actor", "scores")
TOLERANCE = 1e-4
"""Largest accepted difference of an output in [0, 1] from PyTorch's."""
MAX_BATCH = 64
"""Clips in a batch that the exported programs accept."""
TIMING_ROUNDS, MAX_TIMING_S = 7, 20.0
"""How often each program is timed, and seconds after which two rounds are enough."""

Outputs = Sequence[Tensor]
Run = Callable[[Tensor], Outputs]


class ExportableModel(nn.Module):
    """A model with normalisation and box conversion inside: clip -> (boxes xyxy, p_actor, scores).

    Inputs and outputs are in [0, 1]. score: "action" or "product", see `keep_actors`.
    """

    def __init__(self, model: nn.Module, score: str) -> None:
        super().__init__()
        self.model, self.score = model, score

    def forward(self, clip: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 3, T, H, W) in 0..1 -> boxes (B, L, 4) xyxy in 0..1, p(alpha) (B, L), scores (B, L, C)."""
        predictions: Predictions = self.model(normalise(clip, backbone_of(self.model).normalisation))
        p_actor, scores = predictions.p_actor, predictions.action_logits.float().sigmoid()
        if self.score == "product":
            scores = scores * p_actor[..., None]
        return cxcywh_to_xyxy(predictions.boxes.float()).clamp(0, 1), p_actor, scores


@dataclass(frozen=True)
class Speed:
    """Speed and accuracy of one program on this machine's CPU."""

    name: str
    latency: float
    """Seconds for one clip."""
    throughput: float
    """Clips per second in a batch."""
    difference: float
    """Largest difference of an output from PyTorch's."""


def export(
    trained: TrainedModel, out: Path, *, batch: int = 8, on_step: Callable[[str], object] = lambda step: None
) -> list[Speed]:
    """Write the three files, compare them with PyTorch and time them; -> a Speed of each, PyTorch's first.

    batch: batch size for the throughput. on_step: called with a description of each step. The files appear
    in `out` only when both programs agree with PyTorch.
    Raises CheckpointError for a two-stage model, ImportError where onnx is missing, ValueError where an
    exported program differs, OSError where `out` cannot be written.
    """
    if trained.experiment["method"] == "two_stage":
        raise CheckpointError(
            f"{trained.file} is a two-stage model, which needs boxes beside the clip; export a detector"
        )
    for needed in ("onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(needed) is None:
            raise ImportError(f'{needed} is not installed: pip install "actloc[export]"')
    model = ExportableModel(trained.model, str(trained.experiment["score"])).eval()
    frames, crop = int(trained.experiment["frames"]), int(trained.experiment["crop"])
    clips = torch.rand(max(batch, 3), 3, frames, crop, crop, generator=torch.Generator().manual_seed(0))
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".export-") as temporary:
        folder = Path(temporary)
        runs = {"PyTorch": _without_gradients(model)}
        on_step("torch.export")
        program = _trace(model, clips[:2])
        runs["torch.export"] = _save_program(program, folder / "model.pt2")
        on_step("ONNX, which takes minutes for a large model")
        runs["ONNX Runtime"] = _save_onnx(program, folder / "model.onnx")
        on_step("comparing")
        expected = {count: runs["PyTorch"](clips[-count:]) for count in (1, 2, 3)}
        differences = {name: _largest_difference(run, expected, clips) for name, run in runs.items()}
        for name, difference in differences.items():
            if not difference <= TOLERANCE:
                raise ValueError(
                    f"{name} differs from PyTorch by {difference:.2g}; nothing was written to {out}"
                )
        (folder / "model.json").write_text(
            json.dumps(_model_card(trained), indent=1, ensure_ascii=False) + "\n"
        )
        for path in sorted(folder.iterdir()):
            path.replace(out / path.name)
    on_step("timing")
    latency, batch_time = _time_in_turn(runs, clips[:1]), _time_in_turn(runs, clips[:batch])
    return [
        Speed(name, latency[name], min(batch, len(clips)) / batch_time[name], differences[name])
        for name in runs
    ]


def _without_gradients(model: nn.Module) -> Run:
    @torch.no_grad()
    def run(clip: Tensor) -> Outputs:
        return model(clip)

    return run


def _trace(model: nn.Module, example: Tensor) -> torch.export.ExportedProgram:
    """Trace the model as a graph for any batch of 1 to MAX_BATCH clips."""
    batch = torch.export.Dim("batch", min=1, max=MAX_BATCH)
    with torch.no_grad():
        return torch.export.export(model, (example,), dynamic_shapes={"clip": {0: batch}})


def _save_program(program: torch.export.ExportedProgram, path: Path) -> Run:
    """Write a torch.export program; -> it, read back from the file."""
    torch.export.save(program, path)
    return _without_gradients(torch.export.load(path).module())


def _save_onnx(traced: torch.export.ExportedProgram, path: Path) -> Run:
    """Write an ONNX file; -> it, read back by onnxruntime."""
    import onnxruntime

    with _suppress_output():
        program = torch.onnx.export(
            traced, dynamo=True, input_names=["clip"], output_names=list(OUTPUT_NAMES), verbose=False
        )
    assert program is not None
    large = sum(weights.nbytes for weights in traced.state_dict.values()) > 1.8e9  # a protobuf holds 2 GB
    program.save(str(path), external_data=large)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path.read_bytes() if not large else str(path), options)

    def run(clip: Tensor) -> Outputs:
        outputs = session.run(list(OUTPUT_NAMES), {"clip": clip.numpy()})
        return [torch.from_numpy(output) for output in outputs]

    return run


@contextmanager
def _suppress_output() -> Iterator[None]:
    """Silence the exporter, which reports its steps by print, warnings and logging."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _largest_difference(run: Run, expected: Mapping[int, Outputs], clips: Tensor) -> float:
    """Largest difference of an output over batches of the last one, two, ... clips; inf for other shapes."""
    differences = [0.0]
    for count, references in expected.items():
        for output, reference in zip(run(clips[-count:]), references, strict=True):
            if output.shape != reference.shape or not output.isfinite().all():
                return float("inf")
            differences.append(float((output - reference).abs().max()))
    return max(differences)


def _time_in_turn(runs: Mapping[str, Run], clips: Tensor) -> dict[str, float]:
    """Median seconds of each program. All are run once per round, after one round to warm up."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    started = time.perf_counter()
    for number in range(TIMING_ROUNDS + 1):
        for name, run in runs.items():
            began = time.perf_counter()
            run(clips)
            times[name].append(time.perf_counter() - began)
        if number >= 2 and time.perf_counter() - started > MAX_TIMING_S:
            break
    return {name: median(seconds[1:]) for name, seconds in times.items()}


def _model_card(trained: TrainedModel) -> dict[str, object]:
    """Content of model.json: everything a program needs to run the files without actloc."""
    exp, by = trained.experiment, backbone_of(trained.model).normalisation
    return {
        "input": {
            "name": "clip",
            "shape": ["batch", 3, exp["frames"], exp["crop"], exp["crop"]],
            "values": f"RGB in [0, 1], float32; normalised inside, (x - {list(by.mean)}) / {list(by.std)}",
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
        "most_clips_in_a_batch": MAX_BATCH,
        "classes": [{"id": number, "name": name} for number, name in trained.classes.items()],
        "experiment": exp,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; -> 0, 2 for bad input or an exported program that differs, 130 for Ctrl-C."""
    parser = cli.command_parser("actloc_core.export", __doc__)
    parser.add_argument(
        "--checkpoint", type=Path, required=True, metavar="RUN_OR_FILE",
        help="folder of a run (out/runs/...) or of a training, or a checkpoint.pt",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, default=Path("out/export"), help="output directory (default: out/export)"
    )
    parser.add_argument(
        "--batch", type=int, default=8, help=f"batch size for the throughput, 1 to {MAX_BATCH} (default: 8)"
    )
    return cli.exit_code(lambda: run_export(parser.parse_args(argv)))


def run_export(args: argparse.Namespace) -> int:
    """Export and print a table of speeds; -> exit code. ValueError, OSError or ImportError as `export`."""
    if not 1 <= args.batch <= MAX_BATCH:
        raise ValueError(f"--batch {args.batch}: give 1 to {MAX_BATCH}")
    speeds = export(
        load_checkpoint(args.checkpoint),
        args.out,
        batch=args.batch,
        on_step=lambda step: print(f"{step} ...", file=sys.stderr, flush=True),
    )
    print(f"{'':14}{'latency':>12}{f'batch of {args.batch}':>18}{'differs by':>12}")
    for speed in speeds:
        print(
            f"{speed.name:14}{1e3 * speed.latency:>9.1f} ms{speed.throughput:>10.2f} clips/s"
            f"{speed.difference:>12.1e}"
        )
    files = ", ".join(
        f"{path.name} {path.stat().st_size / 2**20:.1f} MiB" for path in sorted(args.out.glob("model.*"))
    )
    print(f"on {torch.get_num_threads()} CPU threads\n{args.out}: {files}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
