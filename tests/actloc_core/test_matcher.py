from itertools import permutations

import pytest
import torch

from actloc_core.boxes import cxcywh_to_xyxy, iou_and_giou
from actloc_core.matcher import CostWeights, match, pairwise_cost
from actloc_core.structures import Predictions, Targets

C = 3
LEFT, RIGHT = [0.25, 0.5, 0.5, 1.0], [0.75, 0.5, 0.5, 1.0]


def predictions(boxes, actor=0.0, action=None):
    boxes = torch.tensor(boxes)[None]
    n = boxes.shape[1]
    actor_logits = torch.stack([torch.full((1, n), actor), torch.zeros(1, n)], -1)
    return Predictions(boxes, actor_logits, torch.zeros(1, n, C) if action is None else action)


def random_batch(clips=3, candidates=6, people=(2, 0, 3), seed=0):
    g = torch.Generator().manual_seed(seed)
    boxes = torch.rand(clips, candidates, 4, generator=g) * 0.5 + 0.1
    p = Predictions(
        boxes, torch.randn(clips, candidates, 2, generator=g), torch.randn(clips, candidates, C, generator=g)
    )
    targets = [
        Targets(torch.rand(n, 4, generator=g) * 0.5 + 0.1, (torch.rand(n, C, generator=g) > 0.5).float())
        for n in people
    ]
    return p, targets


def slow_cost(p, clip, candidate, target, person, w):
    """Eq. 3 for one pair, in float64, in plain words."""
    box, truth = p.boxes[clip, candidate].double(), target.boxes[person].double()
    _, giou = iou_and_giou(cxcywh_to_xyxy(box), cxcywh_to_xyxy(truth))
    alpha = p.actor_logits[clip, candidate].double().softmax(0)[0]
    probability = p.action_logits[clip, candidate].double().sigmoid()
    mine = [probability[c] for c in range(C) if target.labels[person, c]]
    action = sum(mine) / len(mine) if mine else 0.0
    cost = w.l1 * (box - truth).abs().sum() - w.giou * giou - w.actor * alpha - w.action * action
    return float(cost)


def test_each_person_gets_the_candidate_on_them():
    p = predictions([RIGHT, [0.5, 0.5, 0.1, 0.1], LEFT])
    found = match(p, [Targets(torch.tensor([LEFT, RIGHT]), torch.ones(2, C))])
    assert dict(zip(found.person.tolist(), found.candidate.tolist(), strict=True)) == {0: 2, 1: 0}


def test_of_twin_boxes_the_surer_actor_is_taken():
    p = predictions([LEFT, LEFT])
    p.actor_logits[0, 1, 0] = 3.0
    assert match(p, [Targets(torch.tensor([LEFT]), torch.ones(1, C))]).candidate.tolist() == [1]


def test_of_equal_candidates_a_tie_break_takes_the_first_and_of_others_the_better():
    target = [Targets(torch.tensor([LEFT]), torch.ones(1, C))]
    equal = predictions([RIGHT, LEFT, LEFT, LEFT])
    weights = CostWeights(tie_break=0.3)
    cost = pairwise_cost(equal, target, weights) - pairwise_cost(equal, target, CostWeights())
    assert cost.tolist() == [pytest.approx([0, 0.1, 0.2, 0.3])]
    assert match(equal, target, weights).candidate.tolist() == [1]
    better = predictions([RIGHT, [0.25, 0.5, 0.4, 1.0], [0.25, 0.5, 0.4, 1.0], LEFT])
    assert match(better, target, weights).candidate.tolist() == [3]


def test_of_twin_actors_the_one_with_the_right_action_is_taken_unless_switched_off():
    action = torch.zeros(1, 2, C)
    action[0, 1, 2] = 4.0
    p = predictions([LEFT, LEFT], action=action)
    target = [Targets(torch.tensor([LEFT]), torch.tensor([[0.0, 0, 1]]))]
    assert match(p, target).candidate.tolist() == [1]
    assert match(p, target, CostWeights(action=0)).candidate.tolist() == [0]


@pytest.mark.parametrize("seed", range(4))
def test_cost_equals_the_slow_reference(seed):
    p, targets = random_batch(seed=seed)
    targets[0].labels[:] = torch.eye(C)[:2]  # one label each: its whole share
    w = CostWeights(l1=5, giou=2, actor=2, action=1)
    assert w == CostWeights(), "the loss's lambdas, and 1 for the action"
    cost = pairwise_cost(p, targets, w)
    slow = [
        [slow_cost(p, clip, candidate, target, person, w) for candidate in range(p.boxes.shape[1])]
        for clip, target in enumerate(targets)
        for person in range(len(target.boxes))
    ]
    torch.testing.assert_close(cost, torch.tensor(slow))


@pytest.mark.parametrize("seed", range(5))
def test_total_cost_is_the_least_of_all_assignments(seed):
    p, targets = random_batch(seed=seed)
    cost = pairwise_cost(p, targets, CostWeights())
    found = match(p, targets)
    rows = cost.split([len(t.boxes) for t in targets])
    best = sum(
        min(
            (sum(r[i, c] for i, c in enumerate(choice)) for choice in permutations(range(6), len(r))),
            default=0.0,
        )
        for r in rows
        if len(r)
    )
    assert cost[found.person, found.candidate].sum().item() == pytest.approx(float(best), abs=1e-4)


def test_a_batch_matches_as_its_clips_do_alone():
    p, targets = random_batch()
    together, first = match(p, targets), 0
    for clip, target in enumerate(targets):
        alone = match(Predictions(*(x[clip : clip + 1] for x in p)), [target])
        mine = together.clip == clip
        assert together.candidate[mine].tolist() == alone.candidate.tolist()
        assert (together.person[mine] - first).tolist() == alone.person.tolist()
        first += len(target.boxes)


def test_nobody_in_the_batch():
    p, targets = random_batch(people=(0, 0, 0))
    assert [len(x) for x in match(p, targets)] == [0, 0, 0]


def test_more_people_than_candidates_leaves_some_out():
    p, targets = random_batch(clips=1, candidates=2, people=(4,))
    found = match(p, targets)
    assert sorted(found.candidate.tolist()) == [0, 1]
    assert len(set(found.person.tolist())) == 2


def test_a_cost_that_is_not_finite_names_the_clip():
    p, targets = random_batch()
    p.boxes[2, 0, 0] = float("nan")
    with pytest.raises(FloatingPointError, match=r"clips \[2\]"):
        match(p, targets)
