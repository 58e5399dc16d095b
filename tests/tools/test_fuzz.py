"""Readers meet damaged files, and the fuzzer meets readers with planted faults."""

import time

import pytest

from tools import fuzz
from tools.fuzz import REPEATS, Finding, Kind, Mutation, judge


@pytest.mark.slow
def test_five_thousand_damaged_files_of_all_kinds(tmp_path, capsys):
    status = fuzz.main(["--inputs", "5000", "--seed", "12", "--keep", str(tmp_path)])
    assert status == 0, capsys.readouterr().out


@pytest.fixture
def verdict(tmp_path):
    """verdict(read): `judge` of a reader of a small file."""

    def judged(read, reference=None):
        path, data = tmp_path / "input", b"1,2\n"
        path.write_bytes(data)
        return judge(Kind("planted", "", [data], read, (ValueError,), reference), path, data)

    return judged


def raises(text):
    def read(path):
        raise ValueError(text.format(path))

    return read


def test_values_and_refusals_are_no_findings(verdict):
    assert verdict(lambda path: [1, 2], reference=lambda data: [1, 2])
    assert not verdict(raises("{}: no"))


def test_wrong_values_and_other_errors_are_findings(verdict):
    with pytest.raises(Finding, match="the message names no file: no"):
        verdict(raises("no"))
    with pytest.raises(Finding, match=r"it was read as \[1, 3\], expected \[1, 2\]"):
        verdict(lambda path: [1, 3], reference=lambda data: [1, 2])
    with pytest.raises(Finding, match="it was read, but is invalid"):
        verdict(lambda path: 1, reference=lambda data: int("x"))
    with pytest.raises(KeyError):
        verdict(lambda path: {}["a"])
    with pytest.raises(Finding, match=r"SystemExit\(3\)"):
        verdict(lambda path: exit(3))


def test_a_hang_is_a_finding(verdict, monkeypatch):
    monkeypatch.setattr(fuzz, "TIMEOUT_S", 0.1)
    with pytest.raises(Finding, match=r"took more than 0\.1 s"):
        verdict(lambda path: time.sleep(5))


def test_a_call_is_a_finding(verdict):
    with pytest.raises(Finding, match=r"ran os.system\('true',\)"):
        verdict(lambda path: fuzz._record_calls("os.system", ("true",)))
    fuzz.CALLS.clear()


def test_a_planted_fault_is_found_and_shrunk(tmp_path):
    def read(path):
        if b"nan" in path.read_bytes():
            return {}["nan"]
        return None

    report = fuzz.fuzz(Kind("planted", "", [b"video,0902,0.1,0.2\n" * 3], read, ()), 500, 1, tmp_path)
    [(message, data)] = report.findings.values()
    assert message == "KeyError: 'nan'"
    assert b"nan" in data
    assert len(data) <= 3 + 19 * 3, "one mutation is enough"
    assert report.inputs > report.values > 0


def test_mutations_by_hand():
    def applied(where, position, length, new):
        return Mutation(where, position, length, new).applied(b"ab,cd\nef\n")

    assert applied("bytes", 1, 2, b"X") == b"aXcd\nef\n"
    assert applied("word", 4, 0, b"nan") == b"ab,nan\nef\n", "the fourth modulo three words"
    assert applied("line", 1, 0, 2) == b"ab,cd\nef\nef\n"
    assert applied("rest", 4, 0, b"") == b"ab,c"
    assert applied("bytes", 0, 1, REPEATS + 0) == b"`b,cd\nef\n", "the lowest bit of a"
    assert applied("bytes", 0, 0, REPEATS + 3) == b"ab,cd\nef\n", "an empty slice has no bit"
    assert Mutation("word", 0, 0, b"x").applied(b",") == b"x,", "a file without words"


@pytest.mark.takes_long("three times 80 inputs")
def test_inputs_follow_from_the_seed(tmp_path):
    def inputs(start):
        seen = []
        kind = Kind(
            "all", "", [b"video,0902,0.1\n" * 3, b"other"], lambda path: seen.append(path.read_bytes()), ()
        )
        fuzz.fuzz(kind, 80, start, tmp_path)
        return seen

    first = inputs(1)
    assert inputs(1) == first
    assert len(set(first)) > 40
    assert inputs(2) != first
