"""Two processes that share a run do what one does: this one and another, which talk through gloo."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import distributed, multiprocessing

from actloc_core.two_stage import ground_truth_boxes
from benchmarks.distributed import all_gather, all_reduce, barrier, rank, world_size
from benchmarks.score.predict import predict
from benchmarks.train import loop
from benchmarks.train.models import build_model
from datasets import ava, synthetic
from tests.benchmarks.shared import TINY, Recorder, context_of, fit_new

EXP = replace(TINY, epochs=1, lr=1e-3)
VARIANTS = {
    "single_stage": EXP,
    "micro-batches": replace(EXP, accumulate=2),
    "aspect kept": replace(EXP, crop=64, short_sides=(32, 48)),
    "averaged": replace(EXP, ema=0.9),
    "losses read late": EXP,
    "two_stage": replace(EXP, method="two_stage"),
    "detr": replace(EXP, method="detr", queries=16),
}


def split_of(root, name, crop=32):
    """49 training or 17 validation clips: no multiple of two processes."""
    whole = ava.load(root, name, frames=4, stride=4, crop=crop, fps=synthetic.FPS, mirrored=synthetic.FLIPPED)
    return replace(whole, keyframes=whole.keyframes[: 49 if name == "train" else 17])


def train_all(root):
    """Train and evaluate each variant; all processes of the group do it together."""
    outcomes = {}
    for name, exp in VARIANTS.items():
        train, val = split_of(root, "train", exp.crop), split_of(root, "val", exp.crop)
        recorder = Recorder()
        loop.READ_EVERY["cpu"] = 2 if name == "losses read late" else 1
        model, steps = fit_new(train, exp, [recorder], checkpoint_every=0)
        asked = replace(exp, theta=1e-5, score="product", batch=4)
        boxes = {key: ground_truth_boxes(val.annotations.at(key)) for key in val.keyframes}
        detections = predict(model, val, asked, context_of(), boxes)
        outcomes[name] = {
            "losses": [{"loss": step.loss, **step.losses} for step in steps],
            "seconds": [step.seconds for step in steps],
            "weights": [p.detach() for p in model.parameters()],
            "generators": len(recorder.checkpoints[0]["generators"]),
            "frames": detections.persons.frame,
            "boxes": detections.persons.box,
            "scores": detections.scores,
            "persons": detections.persons.score,
        }
    loop.READ_EVERY["cpu"] = 1
    return outcomes


def second_process(index, root, folder):
    torch.set_num_threads(1)
    process(1, root, folder)


def process(index, root, folder):
    """Train and evaluate as one of two processes, and save what it has."""
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=index, world_size=2)
    collectives = {
        "rank": rank(),
        "world_size": world_size(),
        "sum": all_reduce(torch.tensor([1.0 + index, 10.0])).tolist(),
        "gathered": all_gather({"rank": index}),
    }
    barrier()
    torch.save(train_all(root) | {"collectives": collectives}, folder / f"{index}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def alone(small_benchmark):
    return train_all(small_benchmark)


@pytest.fixture(scope="module")
def both(small_benchmark, tmp_path_factory):
    """What each of two processes has: this one is the first."""
    folder = tmp_path_factory.mktemp("both")
    second = multiprocessing.spawn(second_process, args=(small_benchmark, folder), join=False)
    process(0, small_benchmark, folder)
    assert second.join()
    return [torch.load(folder / f"{index}.pt", weights_only=False) for index in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_two_processes_have_the_losses_of_one_with_the_whole_batch(alone, both, name):
    one, (first, second) = alone[name], [each[name] for each in both]
    assert len(one["losses"]) == 3
    for losses, others in zip(one["losses"], first["losses"], strict=True):
        # A two-stage clip is padded to its process's most boxes; only the actor term sees the padding.
        terms = [term for term in losses if name != "two_stage" or term in ("action", "l1", "giou")]
        assert [others[t] for t in terms] == pytest.approx([losses[t] for t in terms], rel=1e-5, abs=1e-7)
    assert first["losses"] == second["losses"]
    assert first["seconds"] == second["seconds"], "one clock, so that all decide alike"
    for a, b in zip(first["weights"], second["weights"], strict=True):
        assert torch.equal(a, b)
    for a, b in zip(one["weights"], first["weights"], strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-4)  # AdamW's first steps are of size lr, 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_an_evaluation_in_two_processes_has_every_clip_once(alone, both, name):
    one, (first, second) = alone[name], [each[name] for each in both]
    assert np.array_equal(first["frames"], one["frames"])
    for key in ("boxes", "scores", "persons"):
        assert np.array_equal(first[key], second[key])
        np.testing.assert_allclose(first[key], one[key], atol=2e-3)


@pytest.mark.slow
def test_a_checkpoint_holds_the_generators_of_all_processes(both, alone):
    assert both[0]["single_stage"]["generators"] == 2
    assert alone["single_stage"]["generators"] == 1


@pytest.mark.slow
def test_collectives_sum_and_gather_over_the_processes(both):
    for index, each in enumerate(both):
        assert each["collectives"] == {
            "rank": index, "world_size": 2, "sum": [3.0, 20.0], "gathered": [{"rank": 0}, {"rank": 1}],
        }  # fmt: skip


def test_a_single_process_needs_no_process_group():
    assert (rank(), world_size()) == (0, 1)
    assert all_reduce(torch.tensor([1.5])).tolist() == [1.5]
    assert all_gather("x") == ["x"]
    barrier()


def test_a_batch_that_processes_cannot_share_evenly_is_refused(small_benchmark, monkeypatch):
    monkeypatch.setattr(loop, "world_size", lambda: 3)
    train = split_of(small_benchmark, "train")
    with pytest.raises(ValueError, match="16 clips cannot be shared evenly by 3 processes"):
        fit_new(train, EXP, model=build_model(EXP, len(train.classes)))
