"""Loader processes read as far ahead as shared memory has room, or say what is missing."""

import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from benchmarks import loading
from benchmarks.context import RunContext
from benchmarks.experiments import OURS
from benchmarks.loading import MIB, batch_bytes, loader_options, prefetch, use_short_temporary_folder
from datasets.transforms import EvaluationView, collate
from tests.benchmarks.shared import TINY


def reading(workers, readers=1):
    return RunContext(torch.device("cpu"), Path(), workers=workers, readers=readers)


def test_a_batch_has_a_byte_for_each_number(small_split):
    exp = replace(TINY, batch=4, crop=small_split.crop, frames=small_split.frames)
    [batch] = DataLoader(EvaluationView(small_split), 4, sampler=range(4), collate_fn=collate)
    assert batch_bytes(exp) == batch.groups[0].clips.numel() * batch.groups[0].clips.element_size()
    assert batch_bytes(OURS) == 48 * MIB, "16 clips of 16 frames of 256 x 256; 192 MiB in float32"
    assert batch_bytes(replace(OURS, short_sides=(240, 340))) == 16 * 3 * 16 * 340 * 604


@pytest.mark.parametrize(
    ("room", "workers", "readers", "batches"),
    [
        (64 * 1024, 15, 8, 4),  # 64 GiB: half of it for training, and four batches each take 22.5 GiB
        (24 * 1024, 15, 8, 2),
        (24 * 1024, 15, 1, 4),
        (96, 1, 1, 1),
    ],
)
def test_processes_read_ahead_as_far_as_there_is_room(room, workers, readers, batches):
    assert prefetch(OURS, reading(workers, readers), room * MIB) == batches


def test_no_room_is_an_error_that_says_what_to_do():
    """The 64 MiB of a container that was not given more."""
    message = (
        r"15 loader processes for each of 8 .* batches of 48 MiB in /dev/shm, which has 64 MiB free of the "
        r"11,520 needed: .*--shm-size=16g\), or fewer --workers"
    )
    with pytest.raises(ValueError, match=message):
        prefetch(OURS, reading(15, 8), 64 * MIB)


def test_options_of_a_loader_follow_and_a_shorter_prefetch_is_said(monkeypatch, capsys):
    assert loader_options(OURS, reading(0)) == {"num_workers": 0, "pin_memory": False}
    monkeypatch.setattr(loading, "free_shared_memory", lambda: 600 * MIB)
    options = loader_options(OURS, reading(2))
    assert (options["num_workers"], options["prefetch_factor"]) == (2, 3)
    assert capsys.readouterr().err == "shared memory has room for 3 of 4 batches ahead\n"
    monkeypatch.setattr(loading, "free_shared_memory", lambda: None)
    assert loader_options(OURS, reading(2))["prefetch_factor"] == 4


def test_a_temporary_folder_too_long_for_sockets_is_replaced_and_told(monkeypatch, capsys):
    long = "/scratch/" + "job" * 20
    for name in ("TMPDIR", "RAY_TMPDIR"):
        monkeypatch.setenv(name, long)
    monkeypatch.setattr(tempfile, "tempdir", long)
    monkeypatch.setattr(sys, "platform", "linux")
    use_short_temporary_folder()
    assert os.environ["TMPDIR"] == tempfile.gettempdir() == "/tmp"
    assert "RAY_TMPDIR" not in os.environ
    message = f"the temporary folder {long} is too long for sockets: using /tmp\n"
    assert capsys.readouterr().err == message
    use_short_temporary_folder()
    assert capsys.readouterr().err == "", "said once"


def test_no_short_temporary_folder_is_an_error(monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/scratch/" + "job" * 20)
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(loading, "SHORT_FOLDERS", ("/nowhere",))
    with pytest.raises(
        ValueError, match="nothing can be written to /nowhere: set TMPDIR to a folder of at most 36"
    ):
        use_short_temporary_folder()
