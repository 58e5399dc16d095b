"""Export a trained model: `python -m actloc_core.export --checkpoint out/runs/<hash> --out DIR`.

Writes DIR/model.onnx, DIR/model.pt2 (torch.export) and DIR/model.json, which describes inputs and outputs:

    clip (B, 3, T, H, W) float32 RGB in [0, 1], any B -> boxes (B, L, 4) xyxy in [0, 1], p_actor (B, L),
    scores (B, L, C)

Outputs are all L candidates of a clip; those with p_actor above theta are actors (`model.keep_actors`). Both
files are run on clips other than the traced ones and compared with PyTorch, number for number. model.onnx
holds what is in model.json, too: each key of it is one of the file's metadata_props, its value JSON.
--half and --int8 change model.onnx alone, and say what that costs on clips of a video.
Needs `pip install "actloc[export]"`: onnx, onnxscript and onnxruntime.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import io
import json
import logging
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from actloc_core import cli
from actloc_core.boxes import cxcywh_to_xyxy
from actloc_core.checkpoints import CheckpointError
from actloc_core.clip import clip_times, probe, read_times
from actloc_core.detector import SHIPPED, TrainedModel, load_checkpoint
from actloc_core.pixels import normalise, to_tensor
from actloc_core.structures import Predictions, backbone_of

if TYPE_CHECKING:
    import onnx

OUTPUT_NAMES = ("boxes", "p_actor", "scores")
TOLERANCES = {"float32": 1e-4, "float16": 2e-2, "int8": 1.0}
"""Precision of model.onnx -> largest accepted difference of an output in [0, 1] from PyTorch's. int8 has
none: what it costs depends on the weights and is printed."""
OPSET, OLDEST_OPSET = 20, 18
"""ONNX operator set that is written by default, and the oldest that torch.onnx writes."""
MAX_PROTOBUF_BYTES = 1.8e9
"""Weights above this are in a file beside model.onnx, for a protobuf holds 2 GB."""
THETA = 0.2
"""Score threshold of a `Comparison`."""
COMPARED_CLIPS = 16
"""Clips of a video that programs are compared on."""
MAX_BATCH = 64
"""Clips in a batch that the exported programs accept."""
TIMING_ROUNDS, MAX_TIMING_S = 7, 4.0
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
    """Largest difference of an output from PyTorch's, on clips of noise."""


@dataclass(frozen=True)
class Comparison:
    """Outputs of model.onnx beside PyTorch's, on the clips of a video."""

    boxes: float
    """Largest difference of a coordinate, as a fraction of the frame."""
    p_actor: float
    scores: float
    actors: int
    """Candidates with p(alpha) above THETA in PyTorch."""
    lost: int
    """Those of them that are not above it in model.onnx."""
    gained: int
    """Candidates that are above it in model.onnx alone."""


def export(
    trained: TrainedModel,
    out: Path,
    *,
    precision: str = "float32",
    opset: int = OPSET,
    batch: int = 8,
    clips: Tensor | None = None,
    on_step: Callable[[str], object] = lambda step: None,
) -> tuple[list[Speed], Comparison | None]:
    """Write the three files, compare them with PyTorch and time them.

    precision: of model.onnx, a key of TOLERANCES. batch: batch size for the throughput.
    clips: (N, 3, T, H, W) in 0..1 to compare model.onnx on, such as those of `clips_of`.
    on_step: called with a description of each step.
    -> a Speed of each program, PyTorch's first; and the Comparison, None without clips.
    The files appear in `out` only when both programs agree with PyTorch.
    Raises CheckpointError for a two-stage model, ImportError where onnx is missing, ValueError for an opset
    that cannot be written or where an exported program differs, OSError where `out` cannot be written.
    """
    _check(trained, out, opset)
    model = ExportableModel(trained.model, str(trained.experiment["score"])).eval()
    frames, crop = int(trained.experiment["frames"]), int(trained.experiment["crop"])
    noise = torch.rand(max(batch, 3), 3, frames, crop, crop, generator=torch.Generator().manual_seed(0))
    about = describe(trained, precision)
    with _complete_files(out) as folder:
        runs = {"PyTorch": _without_gradients(model)}
        on_step("torch.export")
        program = _trace(model, noise[:2])
        runs["torch.export"] = _save_program(program, folder / "model.pt2")
        on_step("ONNX, which takes minutes for a large model")
        runs["ONNX Runtime"] = _save_onnx(_convert(program, opset), folder / "model.onnx", about)
        on_step("comparing")
        expected = {count: runs["PyTorch"](noise[-count:]) for count in (1, 2, 3)}
        differences = {name: _largest_difference(run, expected, noise) for name, run in runs.items()}
        for name, difference in differences.items():
            if not difference <= TOLERANCES[precision if name == "ONNX Runtime" else "float32"]:
                raise ValueError(
                    f"{name} differs from PyTorch by {difference:.2g}; nothing was written to {out}"
                )
        comparison = None if clips is None else _compare(runs["PyTorch"], runs["ONNX Runtime"], clips, batch)
        (folder / "model.json").write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n")
    on_step("timing")
    latency, batch_time = _time_in_turn(runs, noise[:1]), _time_in_turn(runs, noise[:batch])
    speeds = [
        Speed(name, latency[name], min(batch, len(noise)) / batch_time[name], differences[name])
        for name in runs
    ]
    return speeds, comparison


def _check(trained: TrainedModel, out: Path, opset: int) -> None:
    """Raise for what cannot be exported, before minutes of work."""
    if trained.experiment["method"] == "two_stage":
        raise CheckpointError(
            f"{trained.file} is a two-stage model, which needs boxes beside the clip; export a detector"
        )
    for needed in ("onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(needed) is None:
            raise ImportError(f'{needed} is not installed: pip install "actloc[export]"')
    from onnx.defs import onnx_opset_version

    if not OLDEST_OPSET <= opset <= onnx_opset_version():
        raise ValueError(
            f"--opset {opset}: give {OLDEST_OPSET} to {onnx_opset_version()}, the newest that this onnx knows"
        )
    if out.exists() and not out.is_dir():
        raise NotADirectoryError(f"--out {out} is a file; give a folder, which is made where it is missing")


@contextmanager
def _complete_files(out: Path) -> Iterator[Path]:
    """Yield a temporary folder, whose files are moved to `out` when the context ends without an error."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out, prefix=".export-") as folder:
            yield Path(folder)
            for path in sorted(Path(folder).iterdir()):
                path.replace(out / path.name)
    except OSError as error:
        raise OSError(f"{out}: {error.strerror or error}; nothing was written") from error


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
    content = io.BytesIO()  # torch's own writing ends the process when the disk is full
    torch.export.save(program, content)
    path.write_bytes(content.getbuffer())
    return _without_gradients(torch.export.load(path).module())


def _convert(traced: torch.export.ExportedProgram, opset: int) -> onnx.ModelProto:
    """The ONNX model of a torch.export program, with a batch axis that is called so. Raises ValueError."""
    from onnx_ir.passes import common
    from onnxscript import optimizer

    with _suppress_output():
        program = torch.onnx.export(
            traced,
            dynamo=True,
            input_names=["clip"],
            output_names=list(OUTPUT_NAMES),
            opset_version=opset,
            optimize=False,
            verbose=False,
        )
        assert program is not None
        # Of onnxscript's optimisations these take a tenth of the time, and the others make nothing faster.
        optimizer.fold_constants(program.model, onnx_shape_inference=False)
        common.CommonSubexpressionEliminationPass()(program.model)
        optimizer.remove_unused_nodes(program.model)
        common.LiftConstantsToInitializersPass()(program.model)
        common.ClearMetadataAndDocStringPass()(program.model)
        proto = program.model_proto
    written = {imported.domain: imported.version for imported in proto.opset_import}[""]
    if written != opset:
        raise ValueError(
            f"--opset {opset}: this torch.onnx cannot write it; {OPSET} is what it is tested with"
        )
    graph = proto.graph
    traced_name = graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = dim.dim_param.replace(traced_name, "batch")
    return proto


def _with_precision(proto: onnx.ModelProto, precision: str) -> onnx.ModelProto:
    """The model with weights and computation in this precision, and inputs and outputs in float32."""
    import onnx

    if precision == "float16":
        from onnxruntime.transformers.float16 import convert_float_to_float16

        return convert_float_to_float16(proto, keep_io_types=True)
    if precision == "int8":
        from onnxruntime.quantization import quantize_dynamic

        with tempfile.TemporaryDirectory() as folder:
            # Matrix products alone: integer convolutions are slower than float ones, with a larger loss.
            quantize_dynamic(proto, Path(folder) / "int8.onnx", op_types_to_quantize=["MatMul"])
            return onnx.load(Path(folder) / "int8.onnx")
    return proto


def _save_onnx(proto: onnx.ModelProto, path: Path, about: Mapping[str, object]) -> Run:
    """Write an ONNX file in `about`'s precision, with `about` as metadata; -> it, read back by onnxruntime.

    Raises ValueError for a model that cannot have that precision or that onnxruntime cannot run.
    """
    import onnx
    import onnxruntime

    large = sum(len(weights.raw_data) for weights in proto.graph.initializer) > MAX_PROTOBUF_BYTES
    if large and about["precision"] != "float32":
        raise ValueError(f"weights of over {MAX_PROTOBUF_BYTES:.2g} bytes are exported in float32 only")
    with _suppress_output():
        proto = _with_precision(proto, str(about["precision"]))
    onnx.helper.set_model_props(
        proto, {key: json.dumps(value, ensure_ascii=False) for key, value in about.items()}
    )
    onnx.save(proto, path, save_as_external_data=large, location=f"{path.name}.data")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors alone: it warns of what float16 cannot be computed in advance
    try:
        session = onnxruntime.InferenceSession(str(path) if large else path.read_bytes(), options)
    except Exception as error:  # one of onnxruntime's own, which have no common class
        raise ValueError(
            f"onnxruntime {onnxruntime.__version__} cannot run the model; another --opset may help: {error}"
        ) from error

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


def clips_of(video: Path, trained: TrainedModel) -> Tensor:
    """COMPARED_CLIPS clips of a video at regular intervals: (N, 3, T, H, W) in 0..1, as the model takes them.

    Raises VideoError where it cannot be decoded.
    """
    exp, info = trained.experiment, probe(video)
    size = (int(exp["crop"]),) * 2
    clips = []
    for second in np.linspace(0, info.seconds, COMPARED_CLIPS):
        times = clip_times(second, frames=exp["frames"], stride=exp["stride"], fps=trained.fps)
        clips.append(to_tensor(read_times(video, times, fps=trained.fps, size=size), size))
    return torch.stack(clips)


def _compare(reference: Run, run: Run, clips: Tensor, batch: int) -> Comparison:
    """Compare a program's outputs on clips (N, 3, T, H, W), computed in batches, with the reference's."""
    expected, given = (
        [torch.cat(parts) for parts in zip(*map(program, clips.split(batch)), strict=True)]
        for program in (reference, run)
    )
    boxes, p_actor, scores = (
        float((one - other).abs().max()) for one, other in zip(given, expected, strict=True)
    )
    before, after = expected[1] > THETA, given[1] > THETA
    lost, gained = int((before & ~after).sum()), int((~before & after).sum())
    return Comparison(boxes, p_actor, scores, int(before.sum()), lost, gained)


def describe(trained: TrainedModel, precision: str = "float32") -> dict[str, object]:
    """Content of model.json and of model.onnx's metadata: all a program needs to run them without actloc."""
    exp, by = trained.experiment, backbone_of(trained.model).normalisation
    return {
        "input": {
            "name": "clip",
            "shape": ["batch", 3, exp["frames"], exp["crop"], exp["crop"]],
            "frames": exp["frames"],
            "height": exp["crop"],
            "width": exp["crop"],
            "keyframe": exp["frames"] // 2,
            "stride": exp["stride"],
            "fps": trained.fps,
            "seconds_between_frames": exp["stride"] / trained.fps,
            "values": "RGB in [0, 1], float32; normalised inside, (x - mean) / std",
            "mean": list(by.mean),
            "std": list(by.std),
            "resize": "to this height and width, the aspect not kept, antialiased bilinear"
            + (" (this model was scored with the aspect kept)" if exp["short_sides"] else ""),
        },
        "outputs": {
            "boxes": "(batch, candidates, 4) xyxy, fractions of width and height, at the keyframe",
            "p_actor": "(batch, candidates) keep those above a threshold, such as 0.2",
            "scores": f"(batch, candidates, classes); {exp['score']}",
        },
        "most_clips_in_a_batch": MAX_BATCH,
        "classes": [{"id": number, "name": name} for number, name in trained.classes.items()],
        "precision": precision,
        "experiment": exp,
        "versions": _versions(),
    }


def _versions() -> dict[str, str]:
    """Version of each package that takes part, without those that are not installed (a checkout's actloc)."""
    versions = {}
    for name in ("actloc", "torch", "onnx", "onnxscript", "onnxruntime"):
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


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
    parser.add_argument(
        "--opset", type=int, default=OPSET, metavar="N",
        help=f"ONNX operator set, {OLDEST_OPSET} or newer (default: {OPSET})",
    )  # fmt: skip
    precisions = parser.add_mutually_exclusive_group()
    precisions.add_argument(
        "--half", action="store_const", dest="precision", const="float16", default="float32",
        help="model.onnx with weights and computation in float16; inputs and outputs stay float32",
    )  # fmt: skip
    precisions.add_argument(
        "--int8", action="store_const", dest="precision", const="int8",
        help="model.onnx with matrix products in int8 (dynamic quantisation)",
    )  # fmt: skip
    parser.add_argument(
        "--video", type=Path,
        help="compare on clips of this video, too (with --half and --int8 by default the shipped one)",
    )  # fmt: skip
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    return cli.exit_code(lambda: run_export(parser.parse_args(argv)))


def run_export(args: argparse.Namespace) -> int:
    """Export and print a table of speeds; -> exit code. ValueError, OSError or ImportError as `export`."""
    if not 1 <= args.batch <= MAX_BATCH:
        raise ValueError(f"--batch {args.batch}: give 1 to {MAX_BATCH}")
    trained = load_checkpoint(args.checkpoint)
    video = args.video or (None if args.precision == "float32" else SHIPPED / "synthetic.mp4")
    speeds, comparison = export(
        trained,
        args.out,
        precision=args.precision,
        opset=args.opset,
        batch=args.batch,
        clips=None if video is None else clips_of(video, trained),
        on_step=lambda step: None if args.quiet else print(f"{step} ...", file=sys.stderr, flush=True),
    )
    print(f"{'':14}{'latency':>12}{f'batch of {args.batch}':>18}{'differs by':>12}")
    for speed in speeds:
        print(
            f"{speed.name:14}{1e3 * speed.latency:>9.1f} ms{speed.throughput:>10.2f} clips/s"
            f"{speed.difference:>12.1e}"
        )
    if comparison is not None:
        print(
            f"{args.precision} on {COMPARED_CLIPS} clips of {video}, largest differences: boxes "
            f"{comparison.boxes:.4f}, p(alpha) {comparison.p_actor:.4f}, scores {comparison.scores:.4f}\n"
            f"of {comparison.actors} candidates with p(alpha) > {THETA}, {comparison.lost} lost, "
            f"{comparison.gained} gained"
        )
    files = ", ".join(
        f"{path.name} {path.stat().st_size / 2**20:.2f} MiB" for path in sorted(args.out.glob("model.*"))
    )
    print(f"on {torch.get_num_threads()} CPU threads\n{args.out}: {files}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
