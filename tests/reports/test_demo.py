"""`nox -s predict` with an untrained model of the smoke scale."""

import json
import os
from dataclasses import asdict

import numpy as np
import pytest
import torch
from PIL import Image

from actloc_core.detector import pack_checkpoint
from benchmarks.experiments import rows_at
from benchmarks.train.data import clip_rate
from benchmarks.train.models import build_model
from datasets import synthetic
from reports.demo import ROW, keyframes_of, main
from tests.actloc_core.numbered import numbers, write_numbered


@pytest.mark.slow
def test_a_trained_row_predicts_a_test_video(tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["--out", str(out), "--scale", "smoke"]) == 2
    assert (
        f"error: {ROW} is not trained yet in {out}: nox -s ablations -- --scale smoke"
        in capsys.readouterr().err
    )

    exp = rows_at("smoke")[ROW]
    classes = dict(enumerate(synthetic.ACTIONS, 1))
    torch.manual_seed(0)
    trained = pack_checkpoint(build_model(exp, 10), asdict(exp), classes, fps=clip_rate(exp))
    training, run = out / "trainings" / exp.training_hash, out / "runs" / exp.hash
    training.mkdir(parents=True)
    run.mkdir(parents=True)
    torch.save(trained, training / "checkpoint.pt")
    (run / "result.json").write_text(json.dumps({"training": exp.training_hash, "experiment": asdict(exp)}))

    assert main(["--out", str(out), "--scale", "smoke", "--video", "1"]) == 2
    assert "the test split has videos 0 to 0" in capsys.readouterr().err
    assert main(["--out", str(out), "--scale", "smoke", "--theta", "0.45"]) == 0
    made = out / "predictions" / "test_000"
    names = ["annotated.mp4", "detections.csv", "detections.json", "keyframes.png", "tracks.csv"]
    assert sorted(os.listdir(made)) == names
    written = json.loads((made / "detections.json").read_text())
    assert len(written["keyframes"]) == 32
    with Image.open(made / "keyframes.png") as picture:
        assert picture.size == (3 * 480, 2 * 384)


def test_the_picture_shows_whole_seconds_at_regular_intervals(tmp_path):
    """200 frames at 16 a second: seconds 2 to 12, which are frames 32, 64, .., 192."""
    path = write_numbered(tmp_path / "v.mp4", 200, size=(480, 384))
    picture = keyframes_of(path, 6)
    shown = [picture[y : y + 384, x : x + 480] for y in (0, 384) for x in (0, 480, 960)]
    assert numbers(np.stack(shown)) == [32, 64, 96, 128, 160, 192]
