"""A training that is stopped, however it is stopped, ends as if nobody had stopped it."""

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from benchmarks.training import finished, last_state, origin_of, train
from filelock import FileLock

from benchmarks import training
from benchmarks.experiments import OURS, at_scale
from benchmarks.train.data import load_data
from datasets.split import subsample

CHECKOUT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")
# Dropped paths draw from torch's generator, whose state has to be kept as well.
EXP = replace(at_scale(OURS, "smoke"), frames=4, stride=4, crop=32, epochs=0.25, drop_path=0.5)


class Stopped(Exception):
    pass


@pytest.fixture(scope="module")
def data(small_benchmark):
    whole = load_data(EXP, {EXP.dataset: small_benchmark})
    return replace(whole, val=subsample(whole.val, 8), report=subsample(whole.report, 8))


@pytest.fixture(scope="module")
def uninterrupted(data, tmp_path_factory):
    trainings = tmp_path_factory.mktemp("trainings")
    return train(EXP, data, trainings, device=CPU), trainings / EXP.training_hash


def stop_at(step):
    def heard(progress):
        if progress.step == step:
            raise Stopped

    return heard


def same(trained, other):
    return all(
        torch.equal(a, b) for a, b in zip(trained.model.parameters(), other.model.parameters(), strict=True)
    )


def states(folder):
    return [int(path.stem.removeprefix("state_")) for path in sorted(folder.glob("state_*.pt"))]


def test_what_is_stopped_goes_on_and_ends_bit_for_bit_the_same(data, uninterrupted, tmp_path):
    """Stopped twice, once before and once behind the first look at the validation split."""
    whole, whole_folder = uninterrupted
    folder = tmp_path / EXP.training_hash
    for step in (2, 8):
        with pytest.raises(Stopped):
            train(EXP, data, tmp_path, device=CPU, state_every=0, on_progress=stop_at(step))
    assert states(folder) == [6, 7], "the last two, and none of the step that was stopped"
    heard = []
    again = train(EXP, data, tmp_path, device=CPU, on_progress=heard.append)
    assert [progress.step for progress in heard] == list(range(8, heard[-1].steps + 1))
    assert same(again, whole)
    assert (folder / "log.csv").read_text() == (whole_folder / "log.csv").read_text()
    assert again.mAP_untrained == whole.mAP_untrained
    assert states(folder) == []


def test_a_damaged_last_state_costs_a_step_and_no_more(data, uninterrupted, tmp_path, capsys):
    whole, _ = uninterrupted
    folder = tmp_path / EXP.training_hash
    with pytest.raises(Stopped):
        train(EXP, data, tmp_path, device=CPU, state_every=0, on_progress=stop_at(6))
    (folder / "state_000000005.pt").write_bytes((folder / "state_000000005.pt").read_bytes()[:1000])
    heard = []
    again = train(EXP, data, tmp_path, device=CPU, on_progress=heard.append)
    assert heard[0].step == 5
    assert "state_000000005.pt: not readable" in capsys.readouterr().err
    assert same(again, whole)


def test_a_full_disk_costs_states_and_not_the_training(data, uninterrupted, tmp_path, monkeypatch, capsys):
    def full(held, part):
        if ".state_" in part.name:  # as torch says it, see test_interrupted for a real one
            raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 128 vs 0")
        real(held, part)

    real = torch.save
    monkeypatch.setattr(training.torch, "save", full)
    again = train(EXP, data, tmp_path, device=CPU, state_every=0)
    assert same(again, uninterrupted[0])
    assert "no state was saved (No space left on device for" in capsys.readouterr().err


def test_a_state_of_another_origin_is_not_gone_on_from(data, tmp_path):
    """Other data, other weights or other code: the training begins anew, and the old states are gone."""
    with pytest.raises(Stopped):
        train(EXP, data, tmp_path, device=CPU, state_every=0, on_progress=stop_at(4))
    folder = tmp_path / EXP.training_hash
    origin = origin_of(EXP, data.fingerprint, None)
    assert last_state(folder, origin)["step"] == 3
    for part in origin:
        assert last_state(folder, origin | {part: "other"}) is None
    heard = []
    with pytest.raises(Stopped):
        train(
            EXP, replace(data, fingerprint="other"), tmp_path, device=CPU,
            on_progress=lambda progress: (heard.append(progress.step), stop_at(2)(progress)),
        )  # fmt: skip
    assert heard == [1, 2]
    assert states(folder) == []


def test_a_finished_training_is_found_unless_it_is_too_old(data, uninterrupted):
    whole, folder = uninterrupted
    heard = []
    found = train(EXP, data, folder.parent, device=CPU, on_progress=heard.append)
    assert heard == []
    assert same(found, whole)
    assert found.seconds == whole.seconds
    assert finished(folder, whole.origin) is not None
    assert finished(folder, whole.origin | {"code": "other"}) is None
    assert finished(folder.with_name("none"), whole.origin) is None


def test_a_fresh_training_does_not_take_an_old_one(data, tmp_path):
    """Whatever the clock says: here the old one's files are of tomorrow. The same wish goes on, though."""
    train(EXP, data, tmp_path, device=CPU)
    folder = tmp_path / EXP.training_hash
    for path in folder.iterdir():
        os.utime(path, (time.time() + 86400,) * 2)
    heard = []

    def stop_after(step):
        return lambda progress: (heard.append(progress.step), stop_at(step)(progress))

    for wish, stop in (("one", 2), ("one", 3), ("two", 1)):
        with pytest.raises(Stopped):
            train(EXP, data, tmp_path, device=CPU, fresh=wish, state_every=0, on_progress=stop_after(stop))
        assert not (folder / "checkpoint.pt").exists()
    assert heard == [1, 2, 2, 3, 1], "the state after step 1 is gone on from"


def test_the_best_look_is_kept(data, uninterrupted):
    _, folder = uninterrupted
    best = torch.load(folder / "best.pt", weights_only=True)
    lines = [line.split(",") for line in (folder / "log.csv").read_text().splitlines()[1:]]
    looks = {int(line[0]): float(line[-1]) for line in lines if line[-1]}
    assert looks[best["step"]] == max(looks.values()) == pytest.approx(best["val_mAP"], abs=1e-4)


def test_two_processes_do_not_train_the_same_at_once(data, uninterrupted):
    """The second waits for the lock, and then finds the training finished."""
    _, folder = uninterrupted
    script = (
        "import sys, time; from filelock import FileLock\n"
        "with FileLock(sys.argv[1]):\n print('held', flush=True); time.sleep(3)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(folder / "lock")], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "held\n"
        began = time.monotonic()
        train(EXP, data, folder.parent, device=CPU)
        assert time.monotonic() - began > 2
    with FileLock(folder / "lock", timeout=0):
        pass  # given back


KILLED = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from dataclasses import replace
from benchmarks.experiments import OURS, at_scale
from benchmarks.run import run
exp = replace(at_scale(OURS, "smoke"), frames=4, stride=4, crop=32, epochs=0.25, drop_path=0.5)
root, out = map(Path, sys.argv[1:])
def show(progress):
    print(progress.step, flush=True)
run([exp], {exp.dataset: root}, out, device=torch.device("cpu"), state_every=0, on_progress=show)
"""


@pytest.mark.slow
def test_kill_9_and_the_same_command_again_gives_the_same_model(small_benchmark, tmp_path):
    def start(out):
        return subprocess.Popen(
            [sys.executable, "-c", KILLED, str(small_benchmark), str(out)],
            cwd=CHECKOUT, stdout=subprocess.PIPE, text=True, env=os.environ,
        )  # fmt: skip

    with start(tmp_path / "killed") as process:
        for line in process.stdout:
            if line == "5\n":
                process.kill()
                break
    with start(tmp_path / "killed") as process:
        said = process.stdout.read().split()
    assert process.returncode == 0
    assert int(said[0]) >= 5, "it did not begin anew"
    with start(tmp_path / "whole") as process:
        assert process.stdout.read().split()[0] == "1"
    models = [
        torch.load(tmp_path / out / "trainings" / EXP.training_hash / "checkpoint.pt", weights_only=True)[
            "model"
        ]
        for out in ("killed", "whole")
    ]
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[1])
