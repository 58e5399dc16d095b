"""ActionDetector on frames, and the errors of every file that is no checkpoint."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from actloc_core.assemble import FIELDS, assemble
from actloc_core.boxes import cxcywh_to_xyxy
from actloc_core.checkpoints import CheckpointError
from actloc_core.detector import FORMAT, ActionDetector, load_checkpoint
from actloc_core.pixels import normalise
from tests.actloc_core.checkpoints_of import CLASSES, TINY, checkpoint_content, write_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("model") / "any name")


def noise(frames, height=32, width=32):
    return np.random.default_rng(frames).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


def test_detections_of_a_clip_match_a_computation_by_hand(checkpoint):
    content, clip = torch.load(checkpoint, weights_only=True), noise(8)
    model = assemble(3, **{name: TINY[name] for name in FIELDS}).eval()
    model.load_state_dict(content["model"])
    inputs = (torch.from_numpy(clip).permute(3, 0, 1, 2).float() / 255 - 0.45) / 0.225
    torch.testing.assert_close(inputs, normalise(torch.from_numpy(clip).permute(3, 0, 1, 2) / 255))
    with torch.no_grad():
        out = model(inputs[None])
    p = out.actor_logits[0].softmax(-1)[:, 0]
    theta = p.median().item()
    order = [i for i in p.argsort(descending=True, stable=True).tolist() if p[i] > theta]
    scores = out.action_logits[0].sigmoid() * p[:, None]

    actors = ActionDetector(checkpoint, device="cpu")(clip, theta=theta)
    assert len(actors) == len(order) > 5
    for actor, i in zip(actors, order, strict=True):
        box = cxcywh_to_xyxy(out.boxes[0, i]).clamp(0, 1).tolist()
        assert actor.box == pytest.approx(box, abs=1e-5)
        assert actor.p_actor == pytest.approx(p[i].item(), abs=1e-5)
        for score, name in zip(scores[i].tolist(), CLASSES.values(), strict=True):
            assert actor.actions[name] == pytest.approx(score, abs=1e-5)
        assert list(actor.actions.values()) == sorted(actor.actions.values(), reverse=True)


def test_clip_is_sampled_from_a_longer_video_of_another_frame_rate(checkpoint):
    """T=8, stride 2 at 16 fps: at 32 fps every fourth frame around the keyframe."""
    detector = ActionDetector(checkpoint, device="cpu")
    video = noise(100)
    whole = detector(video[50 - 16 : 50 + 16 : 4])
    assert detector(video, fps=32) == whole
    assert detector(list(video), fps=32, keyframe=50) == whole
    assert detector(video, fps=8, keyframe=50) == detector(video[46:54])
    at_start = detector(video, fps=16, keyframe=0)
    assert at_start == detector(video[[0, 0, 0, 0, 0, 2, 4, 6]])
    assert detector(video[:1], fps=30) == detector(video[[0] * 8])


def test_batch_equals_single_clips_and_sizes_equal_the_evaluations(checkpoint, tmp_path):
    detector = ActionDetector(checkpoint, device="cpu")
    clips = [noise(8, 48, 64), noise(8, 48, 64)[::-1]]
    for one, alone in zip(detector.batch(clips), map(detector, clips), strict=True):
        torch.testing.assert_close([actor.box for actor in one], [actor.box for actor in alone])
    assert detector.size(48, 64) == (32, 32)
    keeping = ActionDetector(write_checkpoint(tmp_path / "c", short_sides=(30, 40)), device="cpu")
    assert keeping.size(48, 64) == (32, 40), "42.7; a token is 8 pixels wide"
    assert keeping(noise(8, 48, 96), theta=0.0)


@pytest.mark.parametrize(
    ("frames", "options", "message"),
    [
        (np.zeros((8, 32, 32), np.uint8), {}, "uint8 RGB, got .8, 32, 32."),
        (np.zeros((8, 32, 32, 4), np.uint8), {}, "uint8 RGB"),
        (np.zeros((8, 32, 32, 3), np.float32), {}, "float32"),
        (np.zeros((0, 32, 32, 3), np.uint8), {}, "uint8 RGB"),
        (np.zeros((7, 32, 32, 3), np.uint8), {}, "8 frames, 0.125 s apart, with the keyframe at 4; got 7"),
        (np.zeros((8, 32, 32, 3), np.uint8), {"keyframe": 2}, "keyframe at 4"),
        (np.zeros((8, 32, 32, 3), np.uint8), {"keyframe": 8, "fps": 16}, "no keyframe 8 in 8 frames"),
        (np.zeros((8, 32, 32, 3), np.uint8), {"fps": 0}, "no frame rate"),
    ],
)
def test_frames_that_are_no_clip_raise_value_error(checkpoint, frames, options, message):
    with pytest.raises(ValueError, match=message):
        ActionDetector(checkpoint, device="cpu")(frames, **options)


def test_checkpoint_is_found_by_run_training_or_file(tmp_path):
    """A run's result decides the score; its training holds the model."""
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
    with pytest.raises(FileNotFoundError, match=r"checkpoint.pt: the checkpoint of .*def is missing"):
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
    ("change", "message"),
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
        ({"experiment": TINY | {"backbone": "resnet"}}, "has no 'resnet'; known are"),
        ({"experiment": TINY | {"backbone": "os"}}, "has no 'os'"),
        ({"experiment": TINY | {"selection": "torch"}}, "has no 'torch'"),
        ({"experiment": TINY | {"method": "three_stage"}}, "unknown method 'three_stage'"),
        ({"experiment": TINY | {"frames": "8"}}, "experiment's frames is '8', not int"),
        ({"experiment": TINY | {"frames": 0}}, "CheckpointError|frames"),
        ({"experiment": TINY | {"stride": -1}}, "stride is -1"),
        ({"experiment": TINY | {"score": "luck"}}, "score 'luck'"),
        ({"experiment": TINY | {"dim": 24}}, "size mismatch"),
        ({"experiment": TINY | {"dim": -1}}, "does not describe a model"),
    ],
)
def test_changed_checkpoint_or_another_version_is_refused(tmp_path, change, message):
    torch.save(checkpoint_content() | change, tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(tmp_path / "c.pt")
    assert str(caught.value).startswith(str(tmp_path / "c.pt"))


def test_error_describes_a_file_that_is_no_checkpoint(tmp_path):
    file = tmp_path / "file.pt"

    def message():
        with pytest.raises(CheckpointError) as caught:
            load_checkpoint(file)
        assert str(file) in str(caught.value)
        return str(caught.value)

    whole = checkpoint_content()
    torch.save({"model_state": whole["model"]}, file)
    assert "holds weights alone, such as a backbone's" in message()
    torch.save({name: whole[name] for name in ("experiment", "classes", "model")} | {"origin": {}}, file)
    assert "written by an older actloc" in message()
    torch.save({"optimizer": {}, "generators": [], "model": {}, "step": 3}, file)
    assert "the state of an unfinished training" in message()
    torch.save([1, 2], file)
    assert "a list, not a mapping" in message()
    file.write_bytes(write_checkpoint(tmp_path / "whole.pt").read_bytes()[:-300])
    assert "no readable PyTorch checkpoint" in message()
    whole_file = bytearray((tmp_path / "whole.pt").read_bytes())
    offset = whole_file.index(checkpoint_content()["model"]["proj.weight"].numpy().tobytes())
    whole_file[offset] ^= 1  # a single bit
    file.write_bytes(whole_file)
    assert "does not match its checksum" in message()
    file.write_bytes(b"<html>not found</html>")
    assert "is a web page" in message()
    file.write_bytes(b"")
    assert "no readable PyTorch checkpoint" in message()
    torch.save({"format": FORMAT, "experiment": replace}, file)
    assert "not unpickled here" in message()


def test_two_stage_model_is_refused_and_detr_is_accepted(tmp_path):
    with pytest.raises(CheckpointError, match=r"a two-stage model.*detects no actors itself"):
        ActionDetector(write_checkpoint(tmp_path / "c.pt", method="two_stage"))
    detector = ActionDetector(write_checkpoint(tmp_path / "c.pt", method="detr", dim=32), device="cpu")
    assert len(detector(noise(8), theta=0.0)) == 4


def test_loading_leaves_the_callers_generator_unchanged(checkpoint):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    load_checkpoint(checkpoint)
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch._inductor's own
def test_compiled_model_gives_the_same_detections(checkpoint):
    clip = noise(8)
    plain = ActionDetector(checkpoint, device="cpu")
    compiled = ActionDetector(checkpoint, device="cpu", compile=True)
    for one, other in zip(plain(clip), compiled(clip), strict=True):
        assert one.box == pytest.approx(other.box, abs=1e-4)


def test_a_checkpoint_of_before_dropout_was_a_field_is_read(tmp_path):
    content = checkpoint_content()
    del content["experiment"]["dropout"]
    torch.save(content, tmp_path / "old.pt")
    assert ActionDetector(tmp_path / "old.pt", device="cpu").crop == 32
