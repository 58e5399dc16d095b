"""Augmentation, the two views of a split, and batches of clips of different sizes."""

import numpy as np
import pytest
import torch

from actloc_core import backbones
from actloc_core.clip import VideoError
from actloc_core.pixels import IMAGENET, KINETICS, normalise, size_for, to_tensor
from actloc_core.structures import Targets
from datasets.transforms import (
    MAX_FALLBACKS,
    Augmentation,
    EvaluationView,
    TrainingView,
    View,
    collate,
    sample_view,
    to_input,
    unchanged,
)

OFF = Augmentation(flip=0, colour=0, box=0)
LEFT, RIGHT, JUMP = 0, 1, 2
FLIPPED = torch.tensor([RIGHT, LEFT, JUMP])


def one_actor():
    return Targets(torch.tensor([[0.25, 0.5, 0.2, 0.4]]), torch.tensor([[1.0, 0.0, 1.0]]))


def test_clip_is_resized_not_cropped():
    frames = np.zeros((2, 4, 8, 3), np.uint8)
    frames[:, :, :4] = 255  # the left half is white and stays white
    clip = to_tensor(frames, (4, 4))
    assert clip.shape == (3, 2, 4, 4)
    assert clip[0, 0, 0].tolist() == pytest.approx([1, 1, 0, 0], abs=0.2)


def test_normalise_maps_mean_to_zero_and_std_to_one():
    assert normalise(torch.tensor([0.45, 0.675])).tolist() == pytest.approx([0, 1])


def views(*each):
    return np.array(each, np.float32)


def test_weights_of_videomae_get_the_statistics_of_imagenet():
    """(x - mean) / std channel by channel, of one clip and of a batch."""
    clip = torch.rand(3, 2, 4, 4)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = (clip - mean.view(3, 1, 1, 1)) / std.view(3, 1, 1, 1)
    torch.testing.assert_close(normalise(clip, IMAGENET), expected)
    torch.testing.assert_close(normalise(clip[None], IMAGENET)[0], expected)
    with torch.device("meta"):
        used = {name: getattr(backbones, name)().normalisation for name in ("vit_b", "mvitv2_s", "hiera_b")}
    assert used == {"vit_b": IMAGENET, "mvitv2_s": KINETICS, "hiera_b": KINETICS}


def test_flip_mirrors_boxes_and_clip_and_swaps_directions():
    rng = np.random.default_rng(0)
    view, targets = sample_view(one_actor(), Augmentation(1, colour=0, box=0), rng, flipped_columns=FLIPPED)
    assert view == (True, 1, 1, 1)
    assert targets.boxes[0].tolist() == pytest.approx([0.75, 0.5, 0.2, 0.4])
    assert targets.labels[0].tolist() == [0, 1, 1]
    clips = torch.arange(4, dtype=torch.uint8).view(1, 1, 1, 1, 4).expand(2, 3, 2, 1, 4)
    kept, mirrored = to_input(clips, views((False, 1, 1, 1), view))
    torch.testing.assert_close(kept, normalise(clips[0] / 255))
    assert torch.equal(mirrored, kept.flip(-1))


def test_box_jitter_moves_each_edge_by_at_most_its_fraction():
    moved = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        strength = Augmentation(flip=0, colour=0, box=0.05)
        _, targets = sample_view(one_actor(), strength, rng, flipped_columns=FLIPPED)
        cx, cy, w, h = targets.boxes[0].tolist()
        moved += [abs(cx - w / 2 - 0.15) / 0.2, abs(cy + h / 2 - 0.7) / 0.4]
    assert 0.045 < max(moved) <= 0.05 + 1e-6


def plain_input(clip, flip, brightness, contrast, saturation):
    """`to_input` of one clip in float64, one step after the other."""
    x = clip.double() / 255
    x = x.flip(-1) if flip else x
    x = x * brightness
    x = x.mean() + contrast * (x - x.mean())
    grey = x.mean(0)
    return normalise((grey + saturation * (x - grey)).clamp(0, 1))


def test_inputs_are_those_of_a_plain_computation_clip_by_clip():
    """Mirrored, then brightness, then contrast, then saturation, then clamped, then normalised."""
    rng, strength = np.random.default_rng(5), Augmentation(flip=0.5, colour=0.6, box=0)
    chosen = [sample_view(one_actor(), strength, rng, flipped_columns=FLIPPED)[0] for _ in range(6)]
    assert {view.flip for view in chosen} == {True, False}
    clips = torch.from_numpy(rng.integers(0, 256, (6, 3, 2, 5, 4), np.uint8))
    given = to_input(clips, views(*chosen))
    assert given.dtype == torch.float32
    for clip, view, computed in zip(clips, chosen, given, strict=True):
        difference = (computed.double() - plain_input(clip, *view)) * KINETICS.std[0]
        assert difference.abs().max() < 1e-6, "of a colour in [0, 1]"


def test_the_factors_of_a_view_are_those_of_its_seed():
    strength = Augmentation(flip=0, colour=0.3, box=0)
    view, _ = sample_view(one_actor(), strength, np.random.default_rng(5), flipped_columns=FLIPPED)
    rng = np.random.default_rng(5)
    rng.random()  # whether to flip
    assert view == (False, *rng.uniform(0.7, 1.3, 3))


def test_a_view_without_augmentation_changes_nothing():
    view, targets = sample_view(one_actor(), OFF, np.random.default_rng(0), flipped_columns=FLIPPED)
    assert view == View()
    assert torch.equal(targets.boxes, one_actor().boxes)
    clips = torch.arange(48, dtype=torch.uint8).view(1, 3, 1, 4, 4)
    assert torch.equal(to_input(clips, unchanged(1)), normalise(clips.float() / 255))


class FakeSplit:
    """Clips of height 4; clip i has width 4 * (i + 1) and brightness i. Some may be unreadable."""

    flipped_columns = FLIPPED
    crop = 4

    def __init__(self, unreadable=()):
        self.unreadable = unreadable

    def __len__(self):
        return 3

    def read(self, index):
        if index in self.unreadable:
            raise VideoError(f"video{index}.mp4: not a readable video")
        return np.full((2, 4, 4 * (index + 1), 3), index, np.uint8)

    def targets(self, index):
        return one_actor()


def test_training_view_is_determined_by_seed_epoch_and_index():
    view = TrainingView(FakeSplit(), Augmentation(), seed=1)
    again = TrainingView(FakeSplit(), Augmentation(), seed=1)
    other = TrainingView(FakeSplit(), Augmentation(), seed=2)
    assert torch.equal(view[3, 1].clip, again[3, 1].clip)
    assert torch.equal(view[3, 1].targets.boxes, again[3, 1].targets.boxes)
    assert view[3, 1].view == again[3, 1].view != view[4, 1].view
    assert not torch.equal(view[3, 1].targets.boxes, view[4, 1].targets.boxes)
    assert not torch.equal(view[3, 1].targets.boxes, other[3, 1].targets.boxes)


def test_collate_stacks_clips_and_lists_targets():
    batch = collate([EvaluationView(FakeSplit())[i] for i in range(3)])
    (group,) = batch.groups
    assert group.clips.shape == (3, 3, 2, 4, 4)
    assert group.clips.dtype == torch.uint8, "a quarter of the bytes on the way to a GPU"
    assert group.inputs(torch.device("cpu"))[1].mean() == normalise(torch.tensor(1 / 255))
    assert group.take([2]).clips.unique().tolist() == [2]
    assert len(group.targets) == 3
    assert group.indices == [0, 1, 2]
    assert batch.problems == []


def test_size_for_keeps_the_aspect_up_to_rounding():
    assert size_for(240, 320, short_side=256, multiple=32) == (256, 352)  # 341.3 is nearest to 352
    assert size_for(320, 240, short_side=256, multiple=32) == (352, 256)
    assert size_for(360, 640, short_side=240, multiple=16) == (240, 432)  # 426.7
    assert size_for(1000, 10, short_side=4, multiple=8) == (400, 8), "never less than one multiple"


def test_scale_augmentation_samples_the_short_side_from_its_range():
    strength = Augmentation(flip=0, colour=0, box=0, short_sides=(8, 16), multiple=4)
    view = TrainingView(FakeSplit(), strength, seed=0)
    sizes = {tuple(view[epoch, 1].clip.shape[2:]) for epoch in range(40)}
    assert sizes == {(8, 16), (8, 20), (12, 20), (12, 24), (12, 28), (16, 28), (16, 32)} & sizes
    assert {rows for rows, _ in sizes} == {8, 12, 16}


def test_clips_of_different_sizes_are_grouped_and_never_padded():
    """Widths 4, 12, 8 and 12: the two clips of width 12 share a group."""
    view = EvaluationView(FakeSplit(), short_side=4, multiple=4)
    batch = collate([view[i] for i in (0, 2, 1, 2)])
    assert [tuple(group.clips.shape) for group in batch.groups] == [
        (1, 3, 2, 4, 4), (2, 3, 2, 4, 12), (1, 3, 2, 4, 8),
    ]  # fmt: skip
    assert [group.indices for group in batch.groups] == [[0], [1, 3], [2]]
    assert torch.equal(batch.groups[1].clips[0], view[2].clip)


def test_training_replaces_an_unreadable_clip_and_reports_it():
    view = TrainingView(FakeSplit(unreadable={1}), OFF, seed=0)
    item = view[0, 1]
    assert item.problem == "video1.mp4: not a readable video"
    assert set(item.clip.flatten().tolist()) in ({0}, {2})
    assert torch.equal(view[0, 1].clip, item.clip), "the fallback clip is reproducible"
    assert view[0, 2].problem is None
    assert collate([item, view[0, 2]]).problems == ["video1.mp4: not a readable video"]


def test_training_fails_after_too_many_unreadable_clips():
    with pytest.raises(VideoError, match=rf"{MAX_FALLBACKS} clips .*the first: video2\.mp4"):
        TrainingView(FakeSplit(unreadable={0, 1, 2}), OFF, seed=0)[0, 2]


def test_evaluation_raises_for_an_unreadable_clip():
    with pytest.raises(VideoError, match="video1"):
        EvaluationView(FakeSplit(unreadable={1}))[1]
