"""The synthetic AVA benchmark: reproducible bytes, real formats, and actions that need time."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from actloc_core.boxes import cxcywh_to_xyxy
from actloc_core.clip import probe
from datasets import ava, synthetic
from evaluators.frame_map import average_precision

TINY = synthetic.Size(train=40, val=6, test=5, scenes_per_video=15)


@pytest.mark.slow
def test_equal_seeds_give_equal_bytes_and_other_seeds_other_bytes(tmp_path):
    first = synthetic.make(tmp_path / "a", TINY)
    again = synthetic.make(tmp_path / "b", TINY)
    assert first.name == again.name
    assert synthetic.fingerprint(first) == synthetic.fingerprint(again)
    other = synthetic.make(tmp_path / "a", synthetic.Size(train=40, val=6, test=5, seed=1))
    assert synthetic.fingerprint(other) != synthetic.fingerprint(first)


def test_existing_copy_is_reused_and_a_damaged_file_is_named(tmp_path):
    calls = []
    root = synthetic.make(tmp_path, TINY, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (5, 5), "3 + 1 + 1 videos"
    assert [p.name for p in tmp_path.iterdir()] == [root.name], "no temporary folder is left"
    calls.clear()
    assert synthetic.make(tmp_path, TINY, progress=lambda *x: calls.append(x)) == root
    assert calls == []
    video = root / "videos" / "test_000.mp4"
    video.write_bytes(video.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"test_000\.mp4: changed, missing.*delete"):
        synthetic.make(tmp_path, TINY)
    (root / "manifest.json").unlink()
    with pytest.raises(ValueError, match="no manifest"):
        synthetic.check(root)


def test_interruption_leaves_no_files(tmp_path):
    def stop(done, total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthetic.make(tmp_path, TINY, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_it_is_loaded_as_ava(small_benchmark):
    split = ava.load(
        small_benchmark, "train", frames=16, stride=1, crop=64, fps=synthetic.FPS, mirrored=synthetic.FLIPPED
    )
    assert tuple(split.classes.values()) == synthetic.ACTIONS
    assert split.flipped_columns.tolist() == [0, 1, 2, 4, 3, *range(5, 10)]
    actors = [len(split.targets(i).boxes) for i in range(len(split))]
    assert set(actors) == {1, 2, 3}
    labels = split.annotations.labels.float()
    assert (labels[:, :5].sum(1) == 1).all(), "one movement, as one of AVA's poses"
    assert 1.5 < labels.sum(1).mean() < 1.9
    shares = labels.mean(0)
    assert shares[:5].tolist() == pytest.approx([0.438, 0.219, 0.146, 0.109, 0.088], abs=0.06), "1 / rank"
    assert shares[5] > 2.5 * shares[8:].max(), "the last are rare"
    assert split.excluded
    assert not set(split.keyframes) & split.excluded
    info = probe(next(iter(split.sources.values())))
    assert info.fps == synthetic.FPS
    assert json.loads((small_benchmark / "manifest.json").read_text())["spec"]["seed"] == 7


def test_boxes_are_centred_on_the_red_core(small_benchmark):
    """Independent of the drawing code: the centre of an actor's box is red at the keyframe."""
    split = ava.load(small_benchmark, "test", frames=2, stride=1, crop=64, fps=synthetic.FPS)
    red = []
    for i in range(60):
        clip, targets = split[i]
        for cx, cy, *_ in (targets.boxes * 64).tolist():
            r, g, b = clip[:, 1, min(int(cy), 63), min(int(cx), 63)].tolist()
            red.append(r > 0.5 and r > 2 * g and r > 2 * b)
    assert np.mean(red) > 0.9, "all but the few that another body covers"


@pytest.mark.slow
def test_a_single_frame_does_not_reveal_the_actions(small_benchmark):
    """Given the box, a network on one frame stays near chance and one on the clip does not.

    Chance level of average precision is the fraction of actors with the action.
    """

    def actor_crops(split_name):
        split = ava.load(small_benchmark, split_name, frames=16, stride=1, crop=64, fps=synthetic.FPS)
        crops, labels = [], []
        for i in range(len(split)):
            clip, targets = split[i]
            grey = nn.functional.pad(clip.mean(0), (16,) * 4)
            for box, label in zip(cxcywh_to_xyxy(targets.boxes) * 64 + 16, targets.labels, strict=True):
                x, y = int((box[0] + box[2]) / 2), int((box[1] + box[3]) / 2)
                crops.append(grey[:, y - 12 : y + 12, x - 12 : x + 12])
                labels.append(label)
        return torch.stack(crops), torch.stack(labels)

    def mean_ap(frames, train, test):
        torch.manual_seed(0)
        (x, y), (x_test, y_test) = train, test
        net = nn.Sequential(nn.Flatten(), nn.Linear(len(frames) * 24 * 24, 64), nn.ReLU(), nn.Linear(64, 10))
        optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=0.1)
        for _ in range(12):
            for rows in torch.randperm(len(x)).split(32):
                loss = nn.functional.binary_cross_entropy_with_logits(net(x[rows][:, frames]), y[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        with torch.no_grad():
            scores = net(x_test[:, frames]).double().numpy()
        hits = y_test.numpy() > 0
        return np.mean([average_precision(hits[:, c], scores[:, c], hits[:, c].sum()) for c in range(10)])

    train, test = actor_crops("train"), actor_crops("test")
    chance = test[1].mean().item()
    one_frame, clip = mean_ap([8], train, test), mean_ap(list(range(16)), train, test)
    assert one_frame < chance + 0.06, f"one frame {one_frame:.3f}, chance {chance:.3f}"
    assert clip > chance + 0.4, f"clip {clip:.3f}, chance {chance:.3f}"
