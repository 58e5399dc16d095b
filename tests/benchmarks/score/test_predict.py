"""Prediction of a split: rows of the right clip, and the same numbers as the prediction of a video."""

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from torch import nn

from actloc_core.detector import ActionDetector, pack_checkpoint
from actloc_core.predict import KeyframeDetections, iter_detections
from actloc_core.structures import Backbone, Predictions
from benchmarks.experiments import OURS, at_scale
from benchmarks.score.detections import expand_rows
from benchmarks.score.predict import predict
from benchmarks.train.data import clip_rate
from benchmarks.train.models import build_model
from datasets import ava, synthetic
from datasets.transforms import EvaluationView, collate
from tests.benchmarks.shared import TINY, Recorder, context_of

CONTEXT = context_of()


@pytest.mark.parametrize("short_sides", [None, (30, 40)])
def test_prediction_of_a_video_is_its_evaluation(small_benchmark, tmp_path, short_sides):
    """A checkpoint's detector on the video, and the evaluation of its split: number for number."""
    tiny = replace(at_scale(OURS, "tiny"), stride=1, theta=0.4, batch=7)
    exp = replace(tiny, crop=32, short_sides=short_sides)
    exp = exp if short_sides is None else replace(exp, crop=64)
    split = ava.load(small_benchmark, "val", frames=8, stride=1, crop=exp.crop, fps=clip_rate(exp))
    torch.manual_seed(0)
    model = build_model(exp, len(split.classes))
    persons = predict(model, split, exp, CONTEXT).persons
    file = tmp_path / "checkpoint.pt"
    torch.save(pack_checkpoint(model, asdict(exp), split.classes, fps=clip_rate(exp)), file)
    detector = ActionDetector(file, device="cpu")
    [video] = {video for video, _ in split.keyframes}
    events = iter_detections(detector, split.sources[video], every=1.0, theta=0.4, batch=3)
    by_second = {event.second: event.actors for event in events if isinstance(event, KeyframeDetections)}
    compared = 0
    for second in sorted(set(persons.frame.tolist())):
        actors = by_second[second - ava.START_SECOND]
        rows = np.flatnonzero(persons.frame == second)
        rows = rows[np.argsort(-persons.score[rows], kind="stable")]
        assert [actor.p_actor for actor in actors] == pytest.approx(persons.score[rows], abs=1e-5)
        np.testing.assert_allclose([actor.box for actor in actors], persons.box[rows], atol=1e-4)
        compared += len(actors)
    assert compared > 300
    assert detector.fps == synthetic.FPS


class Brightness(nn.Module):
    """Gives the clip's brightness as p(alpha), of one candidate."""

    def __init__(self):
        super().__init__()
        self.backbone = Backbone()

    def forward(self, clips, boxes=None):
        mean = clips.mean((1, 2, 3, 4))
        actor = torch.stack([mean, torch.zeros_like(mean)], -1)[:, None]
        box = torch.tensor([0.5, 0.5, 0.5, 0.5]).expand(len(clips), 1, 4)
        return Predictions(box, actor, torch.arange(10.0).expand(len(clips), 1, 10))


def test_predictions_become_rows_of_their_own_clip(small_split):
    exp = replace(TINY, theta=0.0, score="action", batch=7)
    detections = predict(Brightness(), small_split, exp, CONTEXT)
    persons, rows = detections.persons, expand_rows(detections)
    assert len(persons.score) == 64
    assert len(rows.score) == 640
    for row in (0, 6, 7, 63):
        key = persons.videos[persons.video[row]], int(persons.frame[row])
        index = small_split.keyframes.index(key)
        assert index == row
        brightness = (small_split[index][0].mean() - 0.45) / 0.225
        assert persons.score[row] == pytest.approx(brightness.sigmoid().item(), abs=1e-5)
    assert rows.label[:10].tolist() == list(small_split.classes)
    assert rows.score[:10] == pytest.approx(torch.arange(10.0).sigmoid().numpy())
    assert rows.box[0].tolist() == [0.25, 0.25, 0.75, 0.75]


def test_a_split_without_any_kept_candidate_gives_no_rows(small_split):
    detections = predict(Brightness(), small_split, replace(TINY, theta=0.9999), CONTEXT)
    assert len(detections.persons.score) == 0
    assert detections.scores.shape == (0, 10)


def test_prediction_leaves_the_model_in_its_mode_and_counts_batches(small_split):
    model, recorder = Brightness().train(), Recorder()
    predict(model, small_split, replace(TINY, batch=10), CONTEXT, callbacks=[recorder])
    assert model.training
    assert recorder.batches == 7


def test_clips_of_several_sizes_are_predicted_as_if_each_were_alone(small_split):
    """Landscape and portrait clips in one batch: nothing of one reaches the other, no padding counts."""

    class Mixed(type(small_split)):
        def read(self, index):
            frames = super().read(index)
            return frames if index % 3 else frames.swapaxes(1, 2)

    mixed = Mixed(**{**vars(small_split), "keyframes": small_split.keyframes[:8]})
    torch.manual_seed(0)
    model = build_model(TINY, 10).eval()
    exp = replace(TINY, theta=0.0, score="product", short_sides=(30, 40))
    together = predict(model, mixed, replace(exp, batch=8), CONTEXT).persons
    alone = predict(model, mixed, replace(exp, batch=1), CONTEXT).persons
    views = EvaluationView(mixed, short_side=32, multiple=4)
    assert len(collate([views[i] for i in range(8)]).groups) == 2

    def rows(persons):
        order = np.lexsort((persons.box[:, 0], persons.score, persons.frame, persons.video))
        return np.column_stack([persons.video, persons.frame, persons.score, persons.box])[order]

    assert rows(together) == pytest.approx(rows(alone), abs=1e-5)
