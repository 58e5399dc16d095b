"""Exported programs, run with torch.export and onnxruntime, against outputs computed by hand."""

import json
import os
import re
import resource
import sys

import pytest
import torch

from actloc_core import export as command
from actloc_core.assemble import FIELDS, assemble
from actloc_core.boxes import cxcywh_to_xyxy
from actloc_core.checkpoints import CheckpointError
from actloc_core.clip import read_frames
from actloc_core.detector import SHIPPED, ActionDetector, load_checkpoint
from actloc_core.export import export, main
from tests.actloc_core.checkpoints_of import CLASSES, TINY, checkpoint_content, write_checkpoint
from tests.console import ROOT, blocks

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
# raised inside torch.export and torch.onnx
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"
)


def by_hand(fields, clip):
    exp = TINY | fields
    model = assemble(3, **{name: exp[name] for name in FIELDS}).eval()
    model.load_state_dict(checkpoint_content(**fields)["model"])
    with torch.no_grad():
        out = model((clip - 0.45) / 0.225)
    p = out.actor_logits.softmax(-1)[..., 0]
    scores = out.action_logits.sigmoid() * (p[..., None] if exp["score"] == "product" else 1)
    return cxcywh_to_xyxy(out.boxes).clamp(0, 1), p, scores


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({}, marks=pytest.mark.slow),
        pytest.param({"selection": "c_t", "backbone": "hiera_tiny", "crop": 64}, marks=pytest.mark.slow),
        pytest.param({"method": "detr", "dim": 32}, marks=pytest.mark.slow),
        pytest.param({"score": "action", "selection": "max_pooling"}, marks=pytest.mark.slow),
        pytest.param(
            {"selection": "singleton", "frame_embedding": True, "anchor": "corner"}, marks=pytest.mark.slow
        ),
        pytest.param({"selection": "tubelet", "backbone": "mvitv2_tiny"}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_exported_programs_compute_what_the_model_computes(tmp_path, fields):
    out = tmp_path / "out"
    speeds, comparison = export(load_checkpoint(write_checkpoint(tmp_path / "c.pt", **fields)), out, batch=2)
    assert [speed.name for speed in speeds] == ["PyTorch", "torch.export", "ONNX Runtime"]
    assert all(speed.difference <= 1e-4 and speed.latency > 0 and speed.throughput > 0 for speed in speeds)
    assert comparison is None, "no clips to compare on"
    assert sorted(os.listdir(out)) == ["model.json", "model.onnx", "model.pt2"]

    onnx.checker.check_model(out / "model.onnx", full_check=True)
    session = onnxruntime.InferenceSession(out / "model.onnx")
    program = torch.export.load(out / "model.pt2").module()
    crop = (TINY | fields)["crop"]
    for count in (1, 4):  # batch sizes that were not traced
        clip = torch.rand(count, 3, 8, crop, crop, generator=torch.Generator().manual_seed(count))
        expected = by_hand(fields, clip)
        names = [output.name for output in session.get_outputs()]
        assert names == ["boxes", "p_actor", "scores"]
        for output, reference in zip(session.run(names, {"clip": clip.numpy()}), expected, strict=True):
            torch.testing.assert_close(torch.from_numpy(output), reference, rtol=0, atol=1e-4)
        with torch.no_grad():
            for output, reference in zip(program(clip), expected, strict=True):
                torch.testing.assert_close(output, reference, rtol=0, atol=1e-5)

    card = json.loads((out / "model.json").read_text())
    assert card["input"]["shape"] == ["batch", 3, 8, crop, crop]
    assert card["input"]["seconds_between_frames"] == 0.125
    assert [each.shape[0] for each in (*session.get_inputs(), *session.get_outputs())] == ["batch"] * 4
    metadata = session.get_modelmeta().custom_metadata_map
    assert {key: json.loads(value) for key, value in metadata.items()} == card
    assert card["versions"]["onnxruntime"] == onnxruntime.__version__
    assert card["classes"] == [{"id": number, "name": name} for number, name in CLASSES.items()]


@pytest.mark.slow
def test_command_prints_a_table_and_one_line_per_error(tmp_path, capsys, monkeypatch):
    file = write_checkpoint(tmp_path / "c.pt")
    out = tmp_path / "out"
    assert main(["--checkpoint", str(file), "--out", str(out), "--batch", "2"]) == 0
    printed = capsys.readouterr()
    assert [line.split()[0] for line in printed.out.splitlines()[:4]] == [
        "latency",
        "PyTorch",
        "torch.export",
        "ONNX",
    ]
    assert "model.onnx" in printed.out

    assert main(["--checkpoint", str(tmp_path / "absent"), "--out", str(out)]) == 2
    assert "no such checkpoint" in capsys.readouterr().err
    two = write_checkpoint(tmp_path / "two.pt", method="two_stage")
    with pytest.raises(CheckpointError, match="two-stage"):
        export(load_checkpoint(two), tmp_path / "two")

    # A program that computes something else is discarded and does not replace the files of before.
    before = (out / "model.onnx").read_bytes()
    real = command._save_onnx

    def wrong(*args):
        run = real(*args)
        return lambda clip: [output * 1.001 for output in run(clip)]

    monkeypatch.setattr(command, "_save_onnx", wrong)
    monkeypatch.setattr(
        command, "_save_program", lambda program, path: command._without_gradients(program.module())
    )
    assert main(["--checkpoint", str(file), "--out", str(out)]) == 2
    assert "ONNX Runtime differs from PyTorch by 0.0" in capsys.readouterr().err
    assert (out / "model.onnx").read_bytes() == before
    assert len(os.listdir(out)) == 3

    monkeypatch.setattr(command.importlib.util, "find_spec", lambda name: None)
    assert main(["--checkpoint", str(file), "--out", str(out)]) == 2
    assert 'onnx is not installed: pip install "actloc[export]"' in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("precision", "opset", "tolerance", "weights"),
    [("float16", 18, 0.005, "FLOAT16"), ("int8", 21, 0.1, "INT8")],
)
def test_half_and_int8_change_the_onnx_weights_and_little_else(
    tmp_path, precision, opset, tolerance, weights
):
    """Inputs and outputs stay float32, and the largest differences are those of the whole outputs."""
    trained = load_checkpoint(write_checkpoint(tmp_path / "c.pt"))
    clips = torch.rand(3, 3, 8, 32, 32, generator=torch.Generator().manual_seed(5))
    options = {"precision": precision, "opset": opset, "batch": len(clips)}  # scales of int8 are of a batch
    _, comparison = export(trained, tmp_path / "out", **options, clips=clips)

    proto = onnx.load(tmp_path / "out" / "model.onnx")
    assert {each.domain: each.version for each in proto.opset_import}[""] == opset
    types = {onnx.TensorProto.DataType.Name(each.data_type) for each in proto.graph.initializer}
    assert weights in types
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx")
    assert {each.type for each in (*session.get_inputs(), *session.get_outputs())} == {"tensor(float)"}
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["precision"]) == precision
    assert {*metadata} == {*json.loads((tmp_path / "out" / "model.json").read_text())}

    outputs = [torch.from_numpy(each) for each in session.run(None, {"clip": clips.numpy()})]
    expected = by_hand({}, clips)
    largest = [float((one - other).abs().max()) for one, other in zip(outputs, expected, strict=True)]
    assert [comparison.boxes, comparison.p_actor, comparison.scores] == pytest.approx(largest, abs=1e-5)
    assert 0 < max(largest) < tolerance
    assert comparison.actors == int((expected[1] > 0.2).sum())
    kept = int((outputs[1] > 0.2).sum())
    assert comparison.actors - comparison.lost + comparison.gained == kept


@pytest.mark.slow
def test_the_program_in_the_docs_needs_model_onnx_alone(tmp_path, monkeypatch, capsys):
    """It prints the actors that ActionDetector detects; it resizes by PIL, which is a little different."""
    assert (
        main(["--checkpoint", "tiny", "--out", str(tmp_path), "--video", str(SHIPPED / "synthetic.mp4")]) == 0
    )
    printed = capsys.readouterr().out
    assert "candidates with p(alpha) > 0.2, 0 lost, 0 gained" in printed
    [program] = [text for text in blocks(ROOT / "docs" / "predict.md", "python") if "onnxruntime" in text]
    assert "torch" not in program
    assert "actloc" not in program
    video = SHIPPED / "synthetic.mp4"
    monkeypatch.setattr(sys, "argv", ["program", str(tmp_path / "model.onnx"), str(video), "3"])
    exec(compile(program, "docs/predict.md", "exec"), {})
    lines = sorted(capsys.readouterr().out.splitlines(), reverse=True)
    frames = read_frames(video, range(128))
    actors = ActionDetector("tiny", device="cpu")(frames, fps=16, keyframe=48)
    assert len(lines) == len(actors) > 2
    for line, actor in zip(lines, actors, strict=True):
        p, name, score, *box = re.fullmatch(r"(\S+) (\w+) (\S+) at (\S+) (\S+) (\S+) (\S+)", line).groups()
        best, best_score = next(iter(actor.actions.items()))
        assert name == best
        numbers = [float(x) for x in (p, score, *box)]
        assert numbers == pytest.approx([actor.p_actor, best_score, *actor.box], abs=0.02)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--opset", "17"], "error: --opset 17: give 18 to"),
        (["--opset", "99"], "error: --opset 99: give 18 to"),
        (["--out", "FILE"], "FILE is a file; give a folder"),
        (["--out", "FILE/out"], "FILE/out: Not a directory; nothing was written"),
        (["--half", "--video", "absent.mp4"], "absent.mp4: no such video file"),
        (["--int8", "--video", "FILE"], "FILE: not a readable video"),
        (["--batch", "65"], "error: --batch 65: give 1 to 64"),
    ],
    ids=str,
)
def test_bad_options_are_one_line(tmp_path, capsys, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").write_text("text")
    assert main(["--checkpoint", "tiny", *options]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""
    assert os.listdir(tmp_path) == ["FILE"]


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_leaves_the_files_of_before(tmp_path, capsys):
    """torch's own writing would end the process. A limit of the size of files stands for the disk."""
    file, out = write_checkpoint(tmp_path / "c.pt"), tmp_path / "out"
    out.mkdir()
    (out / "model.onnx").write_text("of before")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**14, hard))
    try:
        status = main(["--checkpoint", str(file), "--out", str(out)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert status == 2
    assert capsys.readouterr().err == f"torch.export ...\nerror: {out}: File too large; nothing was written\n"
    assert os.listdir(out) == ["model.onnx"]
    assert (out / "model.onnx").read_text() == "of before"
