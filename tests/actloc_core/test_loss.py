import math

import pytest
import torch

from actloc_core.loss import LossWeights, Totals, grouped_set_loss, set_loss, totals_of
from actloc_core.matcher import Matches, match
from actloc_core.structures import Predictions, Targets

BOX = [0.5, 0.5, 0.5, 0.5]


def one_clip(boxes, candidates_sure_of=(), classes=2):
    n = len(boxes)
    actor = torch.zeros(1, n, 2)
    for i in candidates_sure_of:
        actor[0, i, 0] = 20.0
    return Predictions(torch.tensor([boxes]), actor, torch.zeros(1, n, classes))


def test_worked_example():
    """One of two candidates is matched, a quarter to the right of the person; all logits 0.

    l1: 5 x 1/4. giou: boxes of side 1/2 a quarter apart share 1/8 of 3/8, hull 3/8, so 2 x (1 - 1/3).
    actor: both are coin flips, and a weighted mean of log 2 is log 2. action: log 2 for either class.
    """
    p = one_clip([[0.75, 0.5, 0.5, 0.5], [0.1, 0.1, 0.1, 0.1]])
    target = [Targets(torch.tensor([BOX]), torch.tensor([[1.0, 0.0]]))]
    found = Matches(torch.tensor([0]), torch.tensor([0]), torch.tensor([0]))
    terms = set_loss(p, target, found)
    assert terms["l1"].item() == pytest.approx(5 / 4)
    assert terms["giou"].item() == pytest.approx(2 * (1 - 1 / 3))
    assert terms["actor"].item() == pytest.approx(2 * math.log(2))
    assert terms["action"].item() == pytest.approx(6 * math.log(2))
    assert terms["loss"].item() == pytest.approx(sum(v.item() for k, v in terms.items() if k != "loss"))


def test_unmatched_candidates_weigh_eos_coef():
    """Matched one sure (loss 0), unmatched one at log 2 with weight e: e log 2 / (1 + e)."""
    p = one_clip([BOX, BOX], candidates_sure_of=[0])
    target = [Targets(torch.tensor([BOX]), torch.ones(1, 2))]
    found = Matches(torch.tensor([0]), torch.tensor([0]), torch.tensor([0]))
    for e in (0.1, 0.3, 1.0):
        actor = set_loss(p, target, found, LossWeights(eos_coef=e))["actor"]
        assert actor.item() == pytest.approx(2 * e * math.log(2) / (1 + e), rel=1e-5)


def test_three_candidates_and_a_single_class():
    """One sure of three is matched: the others weigh e each. One class, one person: a mean of one number."""
    p = one_clip([BOX, BOX, BOX], candidates_sure_of=[0], classes=1)
    target = [Targets(torch.tensor([BOX]), torch.ones(1, 1))]
    found = Matches(torch.tensor([0]), torch.tensor([0]), torch.tensor([0]))
    assert LossWeights() == LossWeights(l1=5, giou=2, actor=2, action=6, eos_coef=0.1), "section 4"
    terms = set_loss(p, target, found)
    assert terms["actor"].item() == pytest.approx(2 * 0.2 * math.log(2) / 1.2, rel=1e-5)
    assert terms["action"].item() == pytest.approx(6 * math.log(2))


def test_the_terms_are_added_so_a_better_answer_costs_less():
    """Eq. 4's printed signs would reward wrong actors and actions."""
    target = [Targets(torch.tensor([BOX]), torch.tensor([[1.0, 0.0]]))]
    found = Matches(torch.tensor([0]), torch.tensor([0]), torch.tensor([0]))
    unsure = one_clip([BOX])
    right = one_clip([BOX], candidates_sure_of=[0])
    right.action_logits[0, 0] = torch.tensor([9.0, -9.0])
    everything = one_clip([BOX], candidates_sure_of=[0])
    everything.action_logits[0, 0] = torch.tensor([9.0, 9.0])
    costs = [set_loss(p, target, found)["loss"].item() for p in (right, unsure, everything)]
    assert costs[0] < 0.01
    assert costs[0] < costs[1]
    assert costs[0] < costs[2], "all ones must not be the minimum"


def test_frames_without_actors_give_a_finite_loss_and_gradient():
    p = Predictions(
        torch.rand(2, 3, 4, requires_grad=True),
        torch.randn(2, 3, 2, requires_grad=True),
        torch.randn(2, 3, 5, requires_grad=True),
    )
    targets = [Targets(torch.zeros(0, 4), torch.zeros(0, 5))] * 2
    terms = set_loss(p, targets, match(p, targets))
    terms["loss"].backward()
    assert [terms[k].item() for k in ("l1", "giou", "action")] == [0, 0, 0]
    assert terms["actor"] > 0
    assert torch.isfinite(p.actor_logits.grad).all()


def test_box_terms_are_per_person_of_all_workers():
    p = one_clip([[0.75, 0.5, 0.5, 0.5]])
    target = [Targets(torch.tensor([BOX]), torch.ones(1, 2))]
    found = match(p, target)
    assert set_loss(p, target, found, num_boxes=4.0)["l1"].item() == pytest.approx(5 / 16)
    assert set_loss(p, target, found, num_boxes=0.25)["l1"].item() == pytest.approx(5 / 4)


def test_the_action_term_is_a_mean_or_as_eq_4_prints_it_a_sum_over_classes():
    """Two of two candidates are matched, three classes, all logits 0: log 2 a class."""
    boxes = [BOX, [0.25, 0.25, 0.1, 0.1]]
    p = Predictions(torch.tensor([boxes]), torch.zeros(1, 2, 2), torch.zeros(1, 2, 3))
    target = [Targets(torch.tensor(boxes), torch.tensor([[1.0, 0, 0], [0, 1.0, 1.0]]))]
    mean, summed = (
        set_loss(p, target, match(p, target), LossWeights(action_sum=how))["action"].item()
        for how in (False, True)
    )
    assert mean == pytest.approx(6 * math.log(2))
    assert summed == pytest.approx(6 * 3 * math.log(2))


def test_half_precision_predictions_are_scored_in_float32():
    p = Predictions(*(x.bfloat16() for x in one_clip([BOX])))
    target = [Targets(torch.tensor([BOX]), torch.ones(1, 2))]
    assert {v.dtype for v in set_loss(p, target, match(p, target)).values()} == {torch.float32}


def test_targets_refuse_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"\(3, 4\) and \(2, 5\)"):
        Targets(torch.zeros(3, 4), torch.zeros(2, 5))


def test_clips_with_different_numbers_of_candidates_weigh_as_if_in_one_batch():
    """3 and 2 candidates: the means run over all 5 candidates and both people, not group by group."""
    target = [Targets(torch.tensor([BOX]), torch.tensor([[1.0, 0.0]]))]
    found = Matches(torch.tensor([0]), torch.tensor([0]), torch.tensor([0]))
    wide, narrow = one_clip([[0.75, 0.5, 0.5, 0.5], BOX, BOX], [0]), one_clip([BOX, BOX])
    terms = grouped_set_loss([(wide, target, found), (narrow, target, found)], LossWeights(eos_coef=0.5))
    assert terms["l1"].item() == pytest.approx(5 * (1 / 4 + 0) / 2)
    assert terms["giou"].item() == pytest.approx(2 * (1 - 1 / 3) / 2)
    # Weights 1, 1/2, 1/2 and 1, 1/2; losses 0, log 2, log 2 and log 2, log 2.
    assert terms["actor"].item() == pytest.approx(2 * 2.5 * math.log(2) / 3.5, rel=1e-5)
    assert terms["action"].item() == pytest.approx(6 * math.log(2))


@pytest.mark.parametrize("action_sum", [False, True])
def test_the_losses_of_a_batchs_parts_add_up_to_the_batchs(action_sum):
    """Three clips with 2, 0 and 5 people on 4 candidates: the last has a person too many."""
    torch.manual_seed(0)
    weights = LossWeights(eos_coef=0.3, action_sum=action_sum)
    groups = []
    for people in (2, 0, 5):
        p = Predictions(torch.rand(1, 4, 4), torch.randn(1, 4, 2), torch.randn(1, 4, 3))
        targets = [Targets(torch.rand(people, 4), torch.ones(people, 3))]
        groups.append((p, targets, match(p, targets)))
    everybody = [target for _, targets, _ in groups for target in targets]
    totals = totals_of(everybody, 4, weights)
    assert totals == Totals(boxes=7, actors=pytest.approx(6 + 0.3 * 6), labels=18)
    whole = grouped_set_loss(groups, weights)
    parts = [grouped_set_loss([group], weights, totals=totals) for group in groups]
    for name, term in whole.items():
        assert sum(part[name] for part in parts).item() == pytest.approx(term.item(), rel=1e-6), name
