"""A checkpoint on frames: the library's door, and every file that is no such checkpoint."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from actloc_core.assemble import FIELDS, assemble
from actloc_core.boxes import cxcywh_to_xyxy
from actloc_core.checkpoints import CheckpointError
from actloc_core.detector import FORMAT, ActionDetector, load_trained
from actloc_core.pixels import normalise
from tests.actloc_core.checkpoints_of import CLASSES, TINY, held, write_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("model") / "any name")


def noise(frames, height=32, width=32):
    return np.random.default_rng(frames).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


def test_a_clip_by_the_plain_road(checkpoint):
    """Built, filled, normalised and read out by hand."""
    told, clip = torch.load(checkpoint, weights_only=True), noise(8)
    model = assemble(3, **{name: TINY[name] for name in FIELDS}).eval()
    model.load_state_dict(told["model"])
    given = (torch.from_numpy(clip).permute(3, 0, 1, 2).float() / 255 - 0.45) / 0.225
    torch.testing.assert_close(given, normalise(torch.from_numpy(clip).permute(3, 0, 1, 2) / 255))
    with torch.no_grad():
        out = model(given[None])
    p = out.actor_logits[0].softmax(-1)[:, 0]
    theta = p.median().item()
    best = [i for i in p.argsort(descending=True, stable=True).tolist() if p[i] > theta]
    scores = out.action_logits[0].sigmoid() * p[:, None]

    actors = ActionDetector(checkpoint, device="cpu")(clip, theta=theta)
    assert len(actors) == len(best) > 5
    for actor, i in zip(actors, best, strict=True):
        box = cxcywh_to_xyxy(out.boxes[0, i]).clamp(0, 1).tolist()
        assert actor.box == pytest.approx(box, abs=1e-5)
        assert actor.p_actor == pytest.approx(p[i].item(), abs=1e-5)
        for score, name in zip(scores[i].tolist(), CLASSES.values(), strict=True):
            assert actor.actions[name] == pytest.approx(score, abs=1e-5)
        assert list(actor.actions.values()) == sorted(actor.actions.values(), reverse=True)


def test_the_clip_of_a_longer_video_and_of_another_rate(checkpoint):
    """T=8, stride 2 at 16 a second: at 32 a second every fourth frame around the keyframe."""
    detector = ActionDetector(checkpoint, device="cpu")
    video = noise(100)
    whole = detector(video[50 - 16 : 50 + 16 : 4])
    assert detector(video, fps=32) == whole
    assert detector(list(video), fps=32, keyframe=50) == whole
    assert detector(video, fps=8, keyframe=50) == detector(video[46:54])
    at_begin = detector(video, fps=16, keyframe=0)
    assert at_begin == detector(video[[0, 0, 0, 0, 0, 2, 4, 6]])
    assert detector(video[:1], fps=30) == detector(video[[0] * 8])


def test_several_clips_are_each_as_alone_and_sizes_are_the_evaluation_s(checkpoint, tmp_path):
    detector = ActionDetector(checkpoint, device="cpu")
    clips = [noise(8, 48, 64), noise(8, 48, 64)[::-1]]
    for one, alone in zip(detector.batch(clips), map(detector, clips), strict=True):
        torch.testing.assert_close([actor.box for actor in one], [actor.box for actor in alone])
    assert detector.size(48, 64) == (32, 32)
    keeping = ActionDetector(write_checkpoint(tmp_path / "c", short_sides=(30, 40)), device="cpu")
    assert keeping.size(48, 64) == (32, 44)
    assert keeping(noise(8, 48, 96), theta=0.0)


@pytest.mark.parametrize(
    ("frames", "options", "said"),
    [
        (np.zeros((8, 32, 32), np.uint8), {}, "uint8 RGB, not .8, 32, 32."),
        (np.zeros((8, 32, 32, 4), np.uint8), {}, "uint8 RGB"),
        (np.zeros((8, 32, 32, 3), np.float32), {}, "float32"),
        (np.zeros((0, 32, 32, 3), np.uint8), {}, "uint8 RGB"),
        (np.zeros((7, 32, 32, 3), np.uint8), {}, "8 frames, 0.125 s apart, with the keyframe at 4; got 7"),
        (np.zeros((8, 32, 32, 3), np.uint8), {"keyframe": 2}, "keyframe at 4"),
        (np.zeros((8, 32, 32, 3), np.uint8), {"keyframe": 8, "fps": 16}, "no keyframe 8 in 8 frames"),
        (np.zeros((8, 32, 32, 3), np.uint8), {"fps": 0}, "no rate"),
    ],
)
def test_frames_that_are_no_clip(checkpoint, frames, options, said):
    with pytest.raises(ValueError, match=said):
        ActionDetector(checkpoint, device="cpu")(frames, **options)


def test_a_run_a_training_or_a_file(tmp_path):
    """A run's row decides the score; its training holds the model."""
    training, run = tmp_path / "trainings" / "abc", tmp_path / "runs" / "def"
    training.mkdir(parents=True)
    run.mkdir(parents=True)
    file = write_checkpoint(training / "checkpoint.pt")
    (run / "result.json").write_text(json.dumps({"training": "abc", "experiment": {"score": "action"}}))
    assert ActionDetector(training).score == ActionDetector(file).score == "product"
    detector = ActionDetector(run)
    assert (detector.score, detector.file) == ("action", file)
    assert detector.classes == CLASSES

    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"checkpoint.pt: the trained model of .*def is gone"):
        ActionDetector(run)
    with pytest.raises(FileNotFoundError, match="neither a run"):
        ActionDetector(training)
    with pytest.raises(FileNotFoundError, match="no such checkpoint"):
        ActionDetector(tmp_path / "absent")
    for text in ("", "[]", '{"training": "abc"}'):
        (run / "result.json").write_text(text)
        with pytest.raises(CheckpointError, match=r"result.json: not a run's result"):
            ActionDetector(run)
    (run / "result.json").write_text(
        json.dumps({"training": "../../../etc", "experiment": {"score": "action"}})
    )
    with pytest.raises(FileNotFoundError, match=r"trainings/etc/checkpoint.pt"):
        ActionDetector(run)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": FORMAT + 1}, f"has format {FORMAT + 1}, this actloc reads format {FORMAT}"),
        ({"format": None}, "has format None"),
        ({"format": "1"}, "has format '1'"),
        ({"classes": {}}, "0 classes"),
        ({"classes": {1: "only one"}}, "RuntimeError.*size mismatch"),
        ({"classes": 3}, "AttributeError"),
        ({"fps": 0}, "fps is 0"),
        ({"fps": "fast"}, "ValueError"),
        ({"fps": float("nan")}, "fps is nan"),
        ({"model": {}}, "Missing key"),
        ({"model": 1}, "TypeError"),
        ({"experiment": {}}, "experiment's method is None"),
        ({"experiment": TINY | {"backbone": "resnet"}}, "has no 'resnet'; there are"),
        ({"experiment": TINY | {"backbone": "os"}}, "has no 'os'"),
        ({"experiment": TINY | {"selection": "torch"}}, "has no 'torch'"),
        ({"experiment": TINY | {"method": "three_stage"}}, "no method is called 'three_stage'"),
        ({"experiment": TINY | {"frames": "8"}}, "experiment's frames is '8', not int"),
        ({"experiment": TINY | {"frames": 0}}, "CheckpointError|frames"),
        ({"experiment": TINY | {"stride": -1}}, "stride is -1"),
        ({"experiment": TINY | {"score": "luck"}}, "score 'luck'"),
        ({"experiment": TINY | {"dim": 24}}, "size mismatch"),
        ({"experiment": TINY | {"dim": -1}}, "does not describe a model"),
    ],
)
def test_a_checkpoint_that_was_changed_or_is_of_another_version(tmp_path, change, said):
    torch.save(held() | change, tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match=said) as caught:
        load_trained(tmp_path / "c.pt")
    assert str(caught.value).startswith(str(tmp_path / "c.pt"))


def test_files_that_are_something_else(tmp_path):
    file = tmp_path / "file.pt"

    def said():
        with pytest.raises(CheckpointError) as caught:
            load_trained(file)
        assert str(file) in str(caught.value)
        return str(caught.value)

    whole = held()
    torch.save({"model_state": whole["model"]}, file)
    assert "holds weights alone, a backbone's perhaps" in said()
    torch.save({name: whole[name] for name in ("experiment", "classes", "model")} | {"origin": {}}, file)
    assert "written by an older actloc" in said()
    torch.save({"optimizer": {}, "generators": [], "model": {}, "step": 3}, file)
    assert "the state of a training under way" in said()
    torch.save([1, 2], file)
    assert "a list, not a mapping" in said()
    file.write_bytes(write_checkpoint(tmp_path / "whole.pt").read_bytes()[:-300])
    assert "no readable PyTorch checkpoint" in said()
    whole_file = bytearray((tmp_path / "whole.pt").read_bytes())
    place = whole_file.index(held()["model"]["proj.weight"].numpy().tobytes())
    whole_file[place] ^= 1  # the smallest damage there is
    file.write_bytes(whole_file)
    assert "is not what its checksum says" in said()
    file.write_bytes(b"<html>not found</html>")
    assert "no readable PyTorch checkpoint" in said()
    file.write_bytes(b"")
    assert "no readable PyTorch checkpoint" in said()
    torch.save({"format": FORMAT, "experiment": replace}, file)
    assert "not unpickled here" in said()


def test_a_two_stage_model_is_refused_and_the_other_baseline_is_not(tmp_path):
    with pytest.raises(CheckpointError, match=r"a two-stage model.*finds nobody itself"):
        ActionDetector(write_checkpoint(tmp_path / "c.pt", method="two_stage"))
    detector = ActionDetector(write_checkpoint(tmp_path / "c.pt", method="detr", dim=32), device="cpu")
    assert len(detector(noise(8), theta=0.0)) == 4


def test_building_draws_nothing_from_the_caller_s_generator(checkpoint):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    load_trained(checkpoint)
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch._inductor's own
def test_compiled_it_finds_the_same(checkpoint):
    clip = noise(8)
    plain = ActionDetector(checkpoint, device="cpu")
    compiled = ActionDetector(checkpoint, device="cpu", compile=True)
    for one, other in zip(plain(clip), compiled(clip), strict=True):
        assert one.box == pytest.approx(other.box, abs=1e-4)
