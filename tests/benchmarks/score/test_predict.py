"""What a video's prediction finds is what the evaluation of the same checkpoint finds, number for number."""

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from benchmarks.engine import predict

from actloc_core.detector import ActionDetector, pack_checkpoint
from actloc_core.predict import KeyframeDetections, iter_detections
from benchmarks.experiments import OURS, at_scale
from benchmarks.train.data import clip_rate
from benchmarks.train.models import build_model
from datasets import ava, synthetic

EXP = replace(at_scale(OURS, "tiny"), frames=8, crop=32)


@pytest.mark.parametrize("short_sides", [None, (30, 40)])
def test_prediction_of_a_video_is_its_evaluation(small_benchmark, tmp_path, short_sides):
    exp = replace(EXP, short_sides=short_sides, crop=EXP.crop if short_sides is None else 64)
    split = ava.load(small_benchmark, "val", frames=8, stride=1, crop=exp.crop, fps=clip_rate(exp))
    torch.manual_seed(0)
    model = build_model(exp, len(split.classes))
    persons = predict(
        model,
        split,
        torch.device("cpu"),
        theta=0.4,
        score=exp.score,
        batch=7,
        keep_aspect=short_sides is not None,
    ).persons
    file = tmp_path / "checkpoint.pt"
    torch.save(pack_checkpoint(model, asdict(exp), split.classes, fps=clip_rate(exp)), file)
    detector = ActionDetector(file, device="cpu")
    [video] = {video for video, _ in split.keyframes}
    events = iter_detections(detector, split.sources[video], every=1.0, theta=0.4, batch=3)
    found = {event.second: event.actors for event in events if isinstance(event, KeyframeDetections)}
    compared = 0
    for second in sorted(set(persons.frame.tolist())):
        mine = found[second - ava.START_SECOND]
        theirs = persons.frame == second
        order = np.argsort(-persons.score[theirs], kind="stable")
        assert [actor.p_actor for actor in mine] == pytest.approx(persons.score[theirs][order], abs=1e-5)
        np.testing.assert_allclose([a.box for a in mine], persons.box[theirs][order], atol=1e-4)
        compared += len(mine)
    assert compared > 300
    assert detector.fps == synthetic.FPS
