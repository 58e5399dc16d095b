"""An interrupted training, however it was interrupted, ends as if it had not been."""

import os
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from filelock import FileLock

from benchmarks.score.evaluate import random_classes
from benchmarks.train import checkpoints
from benchmarks.train.checkpoints import finished, latest
from benchmarks.train.data import load_data
from benchmarks.train.training import origin_of, train
from datasets.split import subsample
from tests.benchmarks.shared import CHECKOUT, TINY, Recorder, StopAt, Stopped, context_of, equal_weights

PROGRAMS = CHECKOUT / "tests" / "benchmarks" / "programs"
# Stochastic depth draws from torch's generator, whose state has to be saved as well.
EXP = replace(TINY, backbone="hiera_tiny", epochs=0.5, drop_path=0.5)  # 2.5 times as fast as the MViT


@pytest.fixture(scope="module")
def data(small_benchmark):
    whole = load_data(EXP, {EXP.dataset: small_benchmark})
    return replace(whole, val=subsample(whole.val, 8), report=subsample(whole.report, 8))


@pytest.fixture(scope="module")
def seen():
    """Records the events of `uninterrupted`."""
    return Recorder()


@pytest.fixture(scope="module")
def uninterrupted(data, seen, tmp_path_factory):
    """A finished training, and its folder."""
    context = context_of(tmp_path_factory.mktemp("out"))
    return train(EXP, data, context, [seen]), context.trainings / EXP.training_hash


def folder_of(out):
    return out / "trainings" / EXP.training_hash


def interrupt(data, out, step, **options):
    """Train until a step, with a checkpoint after each step before; -> the steps taken."""
    recorder = Recorder()
    with pytest.raises(Stopped):
        train(EXP, data, context_of(out, checkpoint_every=0, **options), [recorder, StopAt(step)])
    return recorder.numbers


def saved_steps(folder):
    return [int(path.stem.removeprefix("state_")) for path in checkpoints.intermediate(folder)]


def test_an_interrupted_training_resumes_and_ends_bit_for_bit_the_same(data, uninterrupted, tmp_path, capsys):
    """Interrupted twice, once before and once after the first validation."""
    whole, whole_folder = uninterrupted
    folder = folder_of(tmp_path)
    for step in (2, 8):
        interrupt(data, tmp_path, step)
    assert saved_steps(folder) == [6, 7], "the last two, and none of the step that was interrupted"
    recorder = Recorder()
    resumed = train(EXP, data, context_of(tmp_path), [recorder])
    assert "resuming from step 7" in capsys.readouterr().err
    assert recorder.numbers == list(range(8, recorder.steps[-1].steps + 1))
    assert equal_weights(resumed.model, whole.model)
    assert (folder / "log.csv").read_text() == (whole_folder / "log.csv").read_text()
    assert resumed.record.mAP_untrained == whole.record.mAP_untrained
    assert saved_steps(folder) == []


@pytest.mark.slow
def test_an_interruption_between_two_reads_of_losses_loses_no_line_of_the_log(
    data, uninterrupted, tmp_path, monkeypatch
):
    """Losses are read after steps 3, 5, 6, 8, 10 and 11, the validations and every fifth."""
    monkeypatch.setattr("benchmarks.train.loop.READ_EVERY", {"cpu": 5})
    whole, whole_folder = uninterrupted

    class StopAtBatch(Recorder):
        def on_step(self, step):
            super().on_step(step)
            if step.step == 10:  # with step 9, which was not read when it was taken
                raise Stopped

    stopped = StopAtBatch()
    with pytest.raises(Stopped):
        train(EXP, data, context_of(tmp_path, checkpoint_every=0), [stopped])
    assert saved_steps(folder_of(tmp_path)) == [6, 8]
    recorder = Recorder()
    resumed = train(EXP, data, context_of(tmp_path), [recorder])
    assert recorder.numbers == [9, 10, 11]
    assert equal_weights(resumed.model, whole.model)
    assert (folder_of(tmp_path) / "log.csv").read_text() == (whole_folder / "log.csv").read_text()


def test_a_damaged_last_checkpoint_costs_one_step(data, uninterrupted, tmp_path, capsys):
    whole, _ = uninterrupted
    folder = folder_of(tmp_path)
    interrupt(data, tmp_path, 6)
    damaged = folder / "state_000000005.pt"
    damaged.write_bytes(damaged.read_bytes()[:1000])
    recorder = Recorder()
    resumed = train(EXP, data, context_of(tmp_path), [recorder])
    assert recorder.numbers[0] == 5
    assert "state_000000005.pt: unreadable, ignored" in capsys.readouterr().err
    assert equal_weights(resumed.model, whole.model)


def test_a_full_disk_costs_checkpoints_and_not_the_training(
    data, uninterrupted, tmp_path, monkeypatch, capsys
):
    def full(content, part):
        if ".state_" in part.name:  # as torch says it; test_interrupted has a real full disk
            raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 128 vs 0")
        save(content, part)

    save = torch.save
    monkeypatch.setattr(checkpoints.torch, "save", full)
    trained = train(EXP, data, context_of(tmp_path, checkpoint_every=0))
    assert equal_weights(trained.model, uninterrupted[0].model)
    assert "no checkpoint was saved (No space left on device for" in capsys.readouterr().err


def test_another_error_of_torch_save_is_not_taken_for_a_full_disk(tmp_path, monkeypatch):
    def fails(content, part):
        raise RuntimeError("something else")

    monkeypatch.setattr(checkpoints.torch, "save", fails)
    with pytest.raises(RuntimeError, match="something else"):
        checkpoints.save_tensors(tmp_path / "x.pt", {})


def test_a_checkpoint_of_another_origin_is_not_resumed_from(data, tmp_path):
    """Other data, other weights or other code: the training starts anew, and the old checkpoints are gone."""
    interrupt(data, tmp_path, 4)
    folder = folder_of(tmp_path)
    origin = origin_of(EXP, data.fingerprint, None)
    assert latest(folder, origin)["step"] == 3
    for part in origin:
        assert latest(folder, origin | {part: "other"}) is None
    recorder = Recorder()
    with pytest.raises(Stopped):
        train(EXP, replace(data, fingerprint="other"), context_of(tmp_path), [recorder, StopAt(2)])
    assert recorder.numbers == [1, 2]
    assert saved_steps(folder) == []


def test_a_finished_training_is_loaded_unless_its_origin_is_another(data, uninterrupted):
    whole, folder = uninterrupted
    recorder = Recorder()
    loaded = train(EXP, data, context_of(folder.parents[1]), [recorder])
    assert recorder.steps == []
    assert equal_weights(loaded.model, whole.model)
    assert loaded.record.seconds == whole.record.seconds
    assert loaded.record.started == whole.record.started
    assert finished(folder, whole.origin) is not None
    assert finished(folder, whole.origin | {"code": "other"}) is None
    assert finished(folder.with_name("none"), whole.origin) is None


@pytest.mark.slow
def test_a_fresh_request_trains_anew_and_resumes_its_own_checkpoints(data, tmp_path):
    """Whatever the clock says: here the old training's files are from tomorrow."""
    train(EXP, data, context_of(tmp_path))
    folder = folder_of(tmp_path)
    for path in folder.iterdir():
        os.utime(path, (time.time() + 86400,) * 2)
    steps = []
    for request, stop in (("one", 2), ("one", 3), ("two", 1)):
        steps += interrupt(data, tmp_path, stop, fresh=request)
        assert not (folder / "checkpoint.pt").exists()
    assert steps == [1, 2, 2, 3, 1], "the second resumes from the checkpoint of step 1"


def test_a_validation_has_the_chance_level_of_its_keyframes(data, seen, uninterrupted):
    """All of the split's, which are fewer than a validation takes at most; other steps have none."""
    chance = random_classes(data.val, "standard").mAP
    assert [step.chance for step in seen.validations] == [chance] * 4
    assert {step.chance for step in seen.steps if step.mAP is None} == {None}


def test_best_pt_is_the_model_of_the_best_validation(data, uninterrupted):
    _, folder = uninterrupted
    best = torch.load(folder / "best.pt", weights_only=True)
    lines = [line.split(",") for line in (folder / "log.csv").read_text().splitlines()[1:]]
    mAPs = {int(line[0]): float(line[-1]) for line in lines if line[-1]}
    assert len(mAPs) == 4
    assert mAPs[best["step"]] == max(mAPs.values()) == pytest.approx(best["val_mAP"], abs=1e-4)


@pytest.mark.slow
def test_a_second_process_waits_for_the_lock_and_loads_the_finished_training(data, uninterrupted):
    _, folder = uninterrupted
    with subprocess.Popen(
        [sys.executable, PROGRAMS / "hold_lock.py", folder / "lock"], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "held\n"
        train(EXP, data, context_of(folder.parents[1]))
        assert time.monotonic() > float(other.stdout.readline())
    with FileLock(folder / "lock", timeout=0):
        pass  # released


@pytest.mark.slow
def test_a_run_killed_with_signal_9_ends_with_the_same_model(small_benchmark, tmp_path):
    def start(out):
        return subprocess.Popen(
            [sys.executable, PROGRAMS / "interrupted_run.py", small_benchmark, out],
            cwd=CHECKOUT, stdout=subprocess.PIPE, text=True,
            env=os.environ | {"PYTHONPATH": str(CHECKOUT)},
        )  # fmt: skip

    with start(tmp_path / "killed") as process:
        for line in process.stdout:
            if line == "5\n":
                process.kill()
                break
    with start(tmp_path / "killed") as process:
        steps = process.stdout.read().split()
    assert process.returncode == 0
    assert int(steps[0]) >= 5, "it resumed"
    with start(tmp_path / "whole") as process:
        assert process.stdout.read().split()[0] == "1"
    killed, whole = (
        torch.load(folder_of(tmp_path / out) / "checkpoint.pt", weights_only=True)["model"]
        for out in ("killed", "whole")
    )
    assert all(torch.equal(killed[name], whole[name]) for name in whole)
