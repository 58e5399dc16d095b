"""RoI align against values worked by hand, and the baseline's promises."""

import pytest
import torch
from torch import nn

from actloc_core.loss import set_loss
from actloc_core.matcher import match
from actloc_core.structures import Targets
from actloc_core.two_stage import GivenBoxes, TwoStageLocalizer, roi_align


class Grid(nn.Module):
    """A backbone of known tokens: averages 2x8x8 patches, D = 3."""

    out_dim = 3

    def forward(self, clip):
        return nn.functional.avg_pool3d(clip, (2, 8, 8)).movedim(1, -1)


def centres(size):
    return (torch.arange(size) + 0.5) / size


def test_roi_align_of_a_ramp_is_the_ramp_at_the_middle_of_each_bin():
    """Features that are their own x: bilinear samples of a ramp are exact, so a bin's mean is its middle."""
    features = centres(4).expand(1, 1, 4, 4)
    bins = roi_align(features, torch.tensor([[[0.25, 0.0, 0.75, 1.0], [0.2, 0.3, 0.4, 0.5]]]), 2)
    assert bins.shape == (1, 2, 1, 2, 2)
    torch.testing.assert_close(bins[0, 0, 0], torch.tensor([[0.375, 0.625]] * 2))
    torch.testing.assert_close(bins[0, 1, 0], torch.tensor([[0.25, 0.35]] * 2))


def test_roi_align_of_numbered_cells():
    """5 x 5 cells numbered by rows, the box from (1, 1) to (3, 3) in cells, 4 x 4 bins: the first bin's
    middle is at 1.25, which is 0.75 cells beyond the first centre: 5 * 0.75 + 0.75."""
    bins = roi_align(torch.arange(25.0).view(1, 1, 5, 5), torch.tensor([[[1, 1, 3, 3]]]) / 5, 4)
    rows = [[y + x for x in (0, 0.5, 1, 1.5)] for y in (4.5, 7, 9.5, 12)]
    torch.testing.assert_close(bins[0, 0, 0], torch.tensor(rows))


def test_beyond_the_outermost_centres_their_value_holds():
    """Of four cells 0, 0, 0, 8 in a row the last centre is at 7/8: samples at 15/16 are 8, not less."""
    features = torch.tensor([0.0, 0, 0, 8]).expand(1, 1, 1, 4)
    bins = roi_align(features, torch.tensor([[[0.875, 0, 1, 1]]]), 1)
    assert bins.item() == 8
    half = roi_align(features, torch.tensor([[[0.625, 0, 0.875, 1]]]), 1, samples=1)
    assert half.item() == 4, "in the middle between two centres"


def test_each_box_is_cut_from_its_own_clip():
    features = torch.tensor([1.0, 2.0]).view(2, 1, 1, 1).expand(2, 3, 4, 4)
    bins = roi_align(features, torch.tensor([[[0.0, 0, 1, 1]], [[0.0, 0, 1, 1]]]), 7)
    assert bins[0].unique().tolist() == [1]
    assert bins[1].unique().tolist() == [2]


def boxes(*rows, scores=None):
    return GivenBoxes(
        torch.tensor(rows, dtype=torch.float32).view(-1, 4), torch.tensor(scores or [1.0] * len(rows))
    )


def small():
    torch.manual_seed(0)
    return TwoStageLocalizer(Grid(), num_classes=5)


def test_a_candidate_for_each_box_and_nobody_elsewhere():
    clip = torch.randn(3, 3, 4, 16, 32)
    one, two = [0.5, 0.5, 0.5, 0.5], [0.25, 0.25, 0.1, 0.2]
    found = small()(clip, [boxes(one, two, scores=[0.9, 0.3]), boxes(one), boxes()])
    assert found.boxes.shape == (3, 2, 4)
    assert found.action_logits.shape == (3, 2, 5)
    torch.testing.assert_close(found.boxes[0], torch.tensor([one, two]))
    expected = torch.tensor([[0.9, 0.3], [1, 0], [0, 0]])
    torch.testing.assert_close(found.p_actor, expected, atol=2e-6, rtol=0)


def test_what_somebody_does_depends_on_their_box_alone():
    model, clip = small(), torch.randn(1, 3, 4, 16, 32)
    one, two = [0.5, 0.5, 0.5, 0.5], [0.25, 0.25, 0.1, 0.2]
    both = model(clip, [boxes(one, two)]).action_logits[0]
    torch.testing.assert_close(model(clip, [boxes(two)]).action_logits[0, 0], both[1])


def test_nobody_at_all_still_gives_a_batch_that_trains():
    """No box in any clip: one candidate that is nobody, and a loss that is finite."""
    found = small()(torch.randn(2, 3, 4, 16, 32), [boxes(), boxes()])
    assert found.boxes.shape == (2, 1, 4)
    targets = [Targets(torch.zeros(0, 4), torch.zeros(0, 5))] * 2
    loss = set_loss(found, targets, match(found, targets))["loss"]
    loss.backward()
    assert torch.isfinite(loss)


def test_the_matching_gives_each_person_their_own_box():
    rows = [[0.2, 0.2, 0.2, 0.2], [0.7, 0.7, 0.2, 0.2], [0.5, 0.5, 0.9, 0.9]]
    truth = torch.tensor([[rows[2], rows[0], rows[1]]])[0]
    targets = [Targets(truth, torch.eye(3, 5))]
    found = small()(torch.randn(1, 3, 4, 16, 32), [boxes(*rows)])
    matches = match(found, targets)
    order = {int(p): int(c) for p, c in zip(matches.person, matches.candidate, strict=True)}
    assert order == {0: 2, 1: 0, 2: 1}
    losses = set_loss(found, targets, matches)
    assert losses["l1"].item() == pytest.approx(0, abs=1e-6)
    assert losses["giou"].item() == pytest.approx(0, abs=1e-5)


def test_dropout_acts_in_training_alone():
    torch.manual_seed(0)
    model = TwoStageLocalizer(Grid(), num_classes=5, dropout=0.5)
    given, clip = [boxes([0.5, 0.5, 0.6, 0.6])], torch.rand(1, 3, 4, 16, 16)
    model.eval()
    once, again = (model(clip, given).action_logits for _ in range(2))
    assert torch.equal(once, again)
    model.train()
    once, again = (model(clip, given).action_logits for _ in range(2))
    assert not torch.equal(once, again)
