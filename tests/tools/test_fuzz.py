"""Every reader meets damaged files, and the fuzzer meets readers that do wrong."""

import time

import pytest

from tests import fuzz


def test_damaged_and_hostile_files_are_read_rightly_or_refused(tmp_path, capsys):
    status = fuzz.main(["--inputs", "500", "--seed", "11", "--keep", str(tmp_path)])
    assert status == 0, capsys.readouterr().out


@pytest.mark.slow
def test_a_hundred_thousand_of_them(tmp_path, capsys):
    status = fuzz.main(["--inputs", "100000", "--seed", "12", "--keep", str(tmp_path)])
    assert status == 0, capsys.readouterr().out


def test_what_counts_as_wrong(tmp_path, monkeypatch):
    path, data = tmp_path / "input", b"1,2\n"
    path.write_bytes(data)

    def said(read, again=None):
        return fuzz.judge(fuzz.Kind("planted", "", [data], read, (ValueError,), again), path, data)

    def refuses(text):
        def read(path):
            raise ValueError(text)

        return read

    assert said(lambda path: [1, 2], again=lambda data: [1, 2]) is None
    assert said(refuses(f"{path}: no")) == ""
    assert said(refuses("no")) == "the message names no file: no"
    assert "it was read as [1, 3], and says [1, 2]" in said(lambda path: [1, 3], again=lambda data: [1, 2])
    assert "it was read, but cannot be" in said(lambda path: 1, again=lambda data: int("x"))
    assert said(lambda path: {}["a"]) == "KeyError: 'a'"
    monkeypatch.setattr(fuzz, "SECONDS", 1)
    assert said(lambda path: time.sleep(5)) == "took more than 1 s"

    def runs(path):
        fuzz._listen("os.system", ("true",))

    assert said(runs) == "ran os.system('true',)"
    fuzz.HEARD.clear()


def test_mutations_follow_from_the_seed_and_are_many():
    import numpy as np

    seeds = [b"video,0902,0.1,0.2\n" * 3, b"other"]

    def some(seed):
        rng = np.random.default_rng(seed)
        return [fuzz.mutated(rng, seeds) for _ in range(200)]

    assert some(1) == some(1)
    assert len(set(some(1))) > 150
