"""Exported programs, run with torch.export and onnxruntime, against outputs computed by hand."""

import json
import os

import pytest
import torch

from actloc_core import export as command
from actloc_core.assemble import FIELDS, assemble
from actloc_core.boxes import cxcywh_to_xyxy
from actloc_core.checkpoints import CheckpointError
from actloc_core.detector import load_checkpoint
from actloc_core.export import export, main
from tests.actloc_core.checkpoints_of import CLASSES, TINY, checkpoint_content, write_checkpoint

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
    speeds = export(load_checkpoint(write_checkpoint(tmp_path / "c.pt", **fields)), out, batch=2)
    assert [speed.name for speed in speeds] == ["PyTorch", "torch.export", "ONNX Runtime"]
    assert all(speed.difference <= 1e-4 and speed.latency > 0 and speed.throughput > 0 for speed in speeds)
    assert sorted(os.listdir(out)) == ["model.json", "model.onnx", "model.pt2"]

    onnx.checker.check_model(out / "model.onnx")
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
    with pytest.raises(SystemExit):
        main(["--checkpoint", str(file), "--batch", "65"])

    # A program that computes something else is discarded and does not replace the files of before.
    before = (out / "model.onnx").read_bytes()
    real = command._save_onnx

    def wrong(program, path):
        run = real(program, path)
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
