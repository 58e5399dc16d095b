import numpy as np
import pytest
import torch

from actloc_core.structures import Targets
from datasets.transforms import (
    Augmentation,
    EvaluationView,
    TrainingView,
    augment,
    collate,
    normalise,
    to_tensor,
)

OFF = Augmentation(flip=0, colour=0, box=0)
LEFT, RIGHT, JUMP = 0, 1, 2
FLIPPED = torch.tensor([RIGHT, LEFT, JUMP])


def one_person():
    return Targets(torch.tensor([[0.25, 0.5, 0.2, 0.4]]), torch.tensor([[1.0, 0.0, 1.0]]))


def test_a_clip_is_resized_not_cropped():
    frames = np.zeros((2, 4, 8, 3), np.uint8)
    frames[:, :, :4] = 255  # the left half is white, and stays so
    clip = to_tensor(frames, 4)
    assert clip.shape == (3, 2, 4, 4)
    assert clip[0, 0, 0].tolist() == pytest.approx([1, 1, 0, 0], abs=0.2)


def test_normalise():
    assert normalise(torch.tensor([0.45, 0.675])).tolist() == pytest.approx([0, 1])


def test_a_flip_mirrors_boxes_and_swaps_directions():
    clip = torch.arange(4.0).view(1, 1, 1, 4).expand(3, 2, 1, 4)
    rng = np.random.default_rng(0)
    flipped, targets = augment(
        clip, one_person(), Augmentation(flip=1, colour=0, box=0), rng, flipped_columns=FLIPPED
    )
    assert flipped[0, 0, 0].tolist() == [3, 2, 1, 0]
    assert targets.boxes[0].tolist() == pytest.approx([0.75, 0.5, 0.2, 0.4])
    assert targets.labels[0].tolist() == [0, 1, 1]


def test_box_jitter_moves_each_edge_by_at_most_its_share():
    moved = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        strength = Augmentation(flip=0, colour=0, box=0.05)
        _, targets = augment(torch.zeros(3, 1, 1, 1), one_person(), strength, rng, flipped_columns=FLIPPED)
        cx, cy, w, h = targets.boxes[0].tolist()
        moved += [abs(cx - w / 2 - 0.15) / 0.2, abs(cy + h / 2 - 0.7) / 0.4]
    assert 0.045 < max(moved) <= 0.05 + 1e-6


def test_colour_stays_in_range_and_off_leaves_all_alone():
    clip = torch.rand(3, 2, 4, 4)
    rng = np.random.default_rng(0)
    coloured, _ = augment(clip, one_person(), Augmentation(0, 0.9, 0), rng, flipped_columns=FLIPPED)
    assert coloured.min() >= 0
    assert coloured.max() <= 1
    assert not torch.equal(coloured, clip)
    same, targets = augment(clip, one_person(), OFF, rng, flipped_columns=FLIPPED)
    assert torch.equal(same, clip)
    assert torch.equal(targets.boxes, one_person().boxes)


class Split:
    flipped_columns = FLIPPED

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return torch.full((3, 2, 4, 4), index / 4), one_person()


def test_a_training_view_follows_from_seed_epoch_and_index():
    view = TrainingView(Split(), Augmentation(), seed=1)
    again = TrainingView(Split(), Augmentation(), seed=1)
    other = TrainingView(Split(), Augmentation(), seed=2)
    assert torch.equal(view[3, 1][0], again[3, 1][0])
    assert torch.equal(view[3, 1][1].boxes, again[3, 1][1].boxes)
    assert not torch.equal(view[3, 1][1].boxes, view[4, 1][1].boxes)
    assert not torch.equal(view[3, 1][1].boxes, other[3, 1][1].boxes)


def test_collate_stacks_clips_and_lists_targets():
    clips, targets = collate([EvaluationView(Split())[i] for i in range(3)])
    assert clips.shape == (3, 3, 2, 4, 4)
    assert len(targets) == 3
