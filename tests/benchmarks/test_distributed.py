"""Two processes that share a run do what one does: real processes, which talk through gloo."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from benchmarks.engine import fit, predict, true_boxes
from torch import distributed, multiprocessing

from benchmarks import processes
from benchmarks.experiments import OURS, at_scale
from benchmarks.train.models import build_model
from datasets import ava, synthetic

CPU = torch.device("cpu")
EXP = replace(at_scale(OURS, "smoke"), frames=4, stride=4, crop=32, epochs=1, lr=1e-3)
VARIANTS = {
    "single_stage": EXP,
    "in parts": replace(EXP, accumulate=2),
    "aspect kept": replace(EXP, crop=64, short_sides=(32, 48)),
    "averaged": replace(EXP, ema=0.9),
    "two_stage": replace(EXP, method="two_stage"),
    "detr": replace(EXP, method="detr", queries=16),
}


def split_of(root, name, crop=32):
    whole = ava.load(root, name, frames=4, stride=4, crop=crop, fps=synthetic.FPS, flipped=synthetic.FLIPPED)
    return replace(whole, keyframes=whole.keyframes[:49])


def do_all(root):
    """Each variant's steps, weights and rows found; as many as there are processes do it together."""
    done = {}
    for name, exp in VARIANTS.items():
        train, val = split_of(root, "train", exp.crop), split_of(root, "val", exp.crop)
        torch.manual_seed(0)
        model, steps, states = build_model(exp, len(train.classes)), [], []
        fit(model, train, exp, CPU, on_step=steps.append, on_state=states.append, state_every=0)
        found = predict(
            model, val, CPU, theta=1e-5, score="product", batch=4, keep_aspect=exp.short_sides is not None,
            given={key: true_boxes(val.annotations.at(key)) for key in val.keyframes},
        )  # fmt: skip
        done[name] = {
            "losses": [step.losses for step in steps],
            "seconds": [step.seconds for step in steps],
            "weights": [p.detach() for p in model.parameters()],
            "generators": len(states[0]["generators"]),
            "frames": found.persons.frame,
            "boxes": found.persons.box,
            "scores": found.scores,
            "persons": found.persons.score,
        }
    return done


def member(place, count, root, folder):
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=place, world_size=count)
    torch.save(do_all(root), folder / f"{place}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def alone(small_benchmark):
    return do_all(small_benchmark)


@pytest.fixture(scope="module")
def both(small_benchmark, tmp_path_factory):
    folder = tmp_path_factory.mktemp("both")
    multiprocessing.spawn(member, args=(2, small_benchmark, folder), nprocs=2)
    return [torch.load(folder / f"{place}.pt", weights_only=False) for place in range(2)]


@pytest.mark.parametrize("name", VARIANTS)
def test_two_processes_have_the_losses_of_one_with_the_whole_batch(alone, both, name):
    one, (first, second) = alone[name], [each[name] for each in both]
    assert len(one["losses"]) == 3
    for mine, theirs in zip(one["losses"], first["losses"], strict=True):
        # A two-stage clip is filled up to its process's most boxes; what fills it up costs nothing.
        terms = [term for term in mine if name != "two_stage" or term in ("action", "l1", "giou")]
        assert [theirs[t] for t in terms] == pytest.approx([mine[t] for t in terms], rel=1e-5, abs=1e-7)
    assert first["losses"] == second["losses"]
    assert first["seconds"] == second["seconds"], "one clock, so that all decide alike"
    for a, b in zip(first["weights"], second["weights"], strict=True):
        assert torch.equal(a, b)
    for a, b in zip(one["weights"], first["weights"], strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-4)  # AdamW's first steps are of size lr, 1e-3


@pytest.mark.parametrize("name", VARIANTS)
def test_an_evaluation_in_two_processes_has_every_clip_once_and_both_have_all(alone, both, name):
    one, (first, second) = alone[name], [each[name] for each in both]
    assert np.array_equal(first["frames"], one["frames"])
    for key in ("boxes", "scores", "persons"):
        assert np.array_equal(first[key], second[key])
        np.testing.assert_allclose(first[key], one[key], atol=2e-3)


def test_a_state_holds_the_generators_of_all(both, alone):
    assert both[0]["single_stage"]["generators"] == 2
    assert alone["single_stage"]["generators"] == 1


def test_a_batch_that_cannot_be_shared_evenly_is_refused(small_benchmark, monkeypatch):
    monkeypatch.setattr(processes, "count", lambda: 3)
    monkeypatch.setattr(processes, "place", lambda: 0)
    train = split_of(small_benchmark, "train")
    with pytest.raises(ValueError, match="16 clips cannot be shared evenly by 3 processes"):
        fit(build_model(EXP, len(train.classes)), train, EXP, CPU)
