import pytest
import torch

from actloc_core.backbones import mvitv2_tiny
from actloc_core.classifier import ClipClassifier
from actloc_core.loss import LossWeights, set_loss
from actloc_core.matcher import CostWeights, match
from actloc_core.structures import Targets


@pytest.fixture
def model():
    torch.manual_seed(0)
    return ClipClassifier(mvitv2_tiny(frames=4, crop=32, last_pool=True), num_classes=3)


def test_a_clip_has_one_candidate_the_whole_frame_with_the_mean_tokens_logits(model):
    clip = torch.randn(2, 3, 4, 32, 32)
    predictions = model(clip)
    assert predictions.boxes.tolist() == [[[0.5, 0.5, 1, 1]]] * 2
    assert predictions.p_actor.tolist() == [[pytest.approx(1, abs=1e-5)]] * 2
    tokens = model.backbone(clip)
    assert tokens.shape[1:4] == (2, 2, 2)
    by_hand = model.head(tokens.reshape(2, 8, -1).mean(1))
    torch.testing.assert_close(predictions.action_logits[:, 0], by_hand)


def test_its_loss_is_the_binary_cross_entropy_of_the_labels(model):
    """Box and actor terms of Eq. 4 are 0: the box is the frame's, and its candidate always the actor."""
    clip, labels = torch.randn(2, 3, 4, 32, 32), torch.tensor([[1.0, 0, 1], [0, 1, 0]])
    targets = [Targets(torch.tensor([[0.5, 0.5, 1, 1]]), row[None]) for row in labels]
    predictions = model(clip)
    terms = set_loss(predictions, targets, match(predictions, targets, CostWeights()), LossWeights(action=6))
    bce = torch.nn.functional.binary_cross_entropy_with_logits(predictions.action_logits[:, 0], labels)
    assert terms["loss"].item() == pytest.approx(6 * bce.item(), rel=1e-5)
    terms["loss"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
