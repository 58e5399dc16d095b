"""`nox -s regression`: backbones and heads meet the contract and their baselines before they meet a reader.

Of every backbone and method: the contract (`benchmarks.gates.contract`), parameters, GFLOPs and peak memory
at the paper's size; of small ones also the time of a step, as a ratio to a plain workload in the same
process, and the mAPs of two short trainings (`measure.trained`). Of the evaluators: the numbers and the time
of a fixed task. Of the tests: their number in each file. All are compared with
benchmarks/gates/baselines/*.json: numbers that are worse, that have vanished or appeared are listed, and the
exit code is 1 then. `--update` writes the baselines anew and prints which conclusions change.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from actloc_core.cli import command_parser
from benchmarks.gates import contract, measure
from benchmarks.inputs import exit_code
from benchmarks.score.results import save

BASELINES = Path(__file__).with_name("gates") / "baselines"
CHECKOUT = Path(__file__).resolve().parent.parent
SIGMAS = 3.0
"""Standard deviations over seeds by which an mAP may be below its baseline."""

MAPS, NOISE = ("clip_mAP", "mAP"), "_std"
"""The numbers that follow from a training, and the suffix of the standard deviation of each over seeds."""

Numbers = dict[str, Any]
"""Name of what was measured -> number."""


@dataclass(frozen=True)
class Gate:
    """How far a number may be from its baseline, as shares of the baseline."""

    up: float
    down: float = math.inf
    """Largest decrease without a regression; inf where less is better, and only noted."""


GATES = {
    "parameters": Gate(0, 0),
    "gflops": Gate(0.001, 0.001),
    "peak_mib": Gate(0.02),
    "time_ratio": Gate(0.6),  # a noisy machine's; medians of several
    "number": Gate(1e-9, 1e-9),
    "tests": Gate(math.inf, 0),
}


@dataclass(frozen=True)
class Finding:
    """A number that differs from its baseline."""

    subject: str
    what: str
    text: str
    fails: bool


def gate_of(what: str) -> Gate:
    """The gate of a number, by the first word of its name."""
    return GATES[what.partition(" ")[0]]


def compared(baseline: Mapping[str, Numbers], now: Mapping[str, Numbers]) -> list[Finding]:
    """Compare subject by subject. Numbers that neither side has are no finding."""
    new = "has appeared and has no baseline: --update gives it one"
    findings = [Finding(name, "", "has vanished", True) for name in sorted(baseline.keys() - now.keys())]
    findings += [Finding(name, "", new, True) for name in sorted(now.keys() - baseline.keys())]
    for subject in sorted(now.keys() & baseline.keys()):
        before, after = baseline[subject], now[subject]
        for what in sorted(before.keys() | after.keys()):
            if what.endswith(NOISE):
                continue
            if what not in after:
                findings.append(Finding(subject, what, "was not measured any more", True))
            elif what not in before:
                findings.append(Finding(subject, what, f"{after[what]:.6g}, and has no baseline", True))
            elif what in MAPS:
                findings += _of_map(subject, what, before, after)
            elif (finding := _of(subject, what, before[what], after[what])) is not None:
                findings.append(finding)
    return findings


def _of(subject: str, what: str, before: float, after: float) -> Finding | None:
    gate = gate_of(what)
    by = (after - before) / before if before else math.copysign(math.inf, after - before) if after else 0.0
    text = f"{before:.6g} -> {after:.6g} ({by:+.2%})"
    if by > gate.up or -by > gate.down:
        return Finding(subject, what, text, True)
    if by < 0 and gate.down == math.inf and -by > gate.up:
        return Finding(subject, what, f"{text}: better; --update keeps it", False)
    return None


def _of_map(subject: str, what: str, before: Numbers, after: Numbers) -> list[Finding]:
    allowed = SIGMAS * before[what + NOISE]
    by = after[what] - before[what]
    text = f"{100 * before[what]:.1f} -> {100 * after[what]:.1f} mAP, noise {100 * allowed:.1f}"
    if by < -allowed:
        return [Finding(subject, what, text, True)]
    if by > allowed:
        return [Finding(subject, what, f"{text}: better; --update keeps it", False)]
    return []


def without_effect(baseline: Mapping[str, Numbers]) -> list[str]:
    """The mAPs that no model could be below by more than their noise, in words: such a gate never fails."""
    return [
        f"{name}: {what} {100 * numbers[what]:.1f} is within its noise, "
        f"{100 * SIGMAS * numbers[what + NOISE]:.1f}: nothing can fail this gate"
        for name, numbers in baseline.items()
        for what in MAPS
        if what in numbers and numbers[what] <= SIGMAS * numbers[what + NOISE]
    ]


def conclusions(baseline: Mapping[str, Numbers]) -> set[str]:
    """The pairs of which one has the better mAP by more than the noise of both, in words."""
    better = set()
    scored = {name: numbers for name, numbers in baseline.items() if "mAP" in numbers}
    for a, one in scored.items():
        for b, other in scored.items():
            noise = SIGMAS * math.hypot(one["mAP_std"], other["mAP_std"])
            if one["mAP"] - other["mAP"] > noise:
                better.add(f"{a} has a better mAP than {b}")
    return better


def read(name: str) -> dict[str, Numbers]:
    """Read the baselines of one file; empty where there is none."""
    path = BASELINES / f"{name}.json"
    if not path.exists():
        return {}
    numbers: dict[str, Numbers] = json.loads(path.read_text())
    return numbers


def main(argv: list[str] | None = None) -> int:
    """Run the command; -> 0, or 1 where something regressed. Raises ValueError for an unknown backbone."""
    args = parser().parse_args(argv)
    known = contract.subjects()
    wanted = {
        name: subject
        for name, subject in known.items()
        if not args.backbone or name in {f"backbone/{given}" for given in args.backbone}
    }
    for given in args.backbone:
        if f"backbone/{given}" not in known:
            names = ", ".join(sorted(n.removeprefix("backbone/") for n in known if n.startswith("backbone/")))
            raise ValueError(f"unknown backbone {given!r}; known are {names}")
    torch.set_num_threads(1)
    findings: list[Finding] = []
    now: dict[str, Numbers] = {}
    before = {
        name: numbers for name, numbers in read("models").items() if not args.backbone or name in wanted
    }
    for name, subject in wanted.items():
        broken = contract.broken(subject)
        findings += [Finding(name, f"contract: {check}", how, True) for check, how in broken.items()]
        numbers = measure.of_model(subject)
        if subject.trained and not args.no_training:
            numbers |= measure.trained(subject, args.out, seeds=args.seeds if args.update else 1)
            if not args.update:
                numbers |= {k: v for k, v in before.get(name, {}).items() if k.endswith(NOISE)}
        elif name in before:  # not asked for
            numbers |= {k: v for k, v in before[name].items() if k.removesuffix(NOISE) in MAPS}
        now[name] = numbers
        shown = ", ".join(f"{what} {value:.6g}" for what, value in numbers.items())
        if not args.quiet:
            print(f"{name}: contract {'BROKEN' if broken else 'kept'}; {shown}", flush=True)
    files: dict[str, tuple[dict[str, Numbers], dict[str, Numbers]]] = {"models": (before, now)}
    if not args.backbone:
        if not args.quiet:
            print("evaluators, and counting the tests ...", flush=True)
        files["evaluators"] = (read("evaluators"), measure.evaluators())
        files["tests"] = (read("tests"), collected_tests())
    for old, new in files.values():
        findings += compared(old, new)
    if args.update:
        return update(files, findings, whole=not args.backbone)
    for finding in findings:
        print(f"{'FAILS' if finding.fails else 'note '} {finding.subject} {finding.what}: {finding.text}")
    failed = [finding for finding in findings if finding.fails]
    print(f"{len(failed)} regressions" if failed else "no regression")
    return 1 if failed else 0


def update(
    files: Mapping[str, tuple[dict[str, Numbers], dict[str, Numbers]]],
    findings: list[Finding],
    *,
    whole: bool,
) -> int:
    """Write the baselines. A broken contract has no baseline and stays a failure."""
    broken = [finding for finding in findings if finding.what.startswith("contract")]
    for finding in findings:
        print(f"{finding.subject} {finding.what}: {finding.text}")
    BASELINES.mkdir(exist_ok=True)
    for name, (_, now) in files.items():
        before = read(name)
        after = dict(sorted((now if whole else before | now).items()))
        for gone in sorted(conclusions(before) - conclusions(after)):
            print(f"no longer: {gone}")
        for new in sorted(conclusions(after) - conclusions(before)):
            print(f"new: {new}")
        for weak in without_effect(after):
            print(weak)
        text = json.dumps(after, indent=1) + "\n"
        save(BASELINES / f"{name}.json", partial(Path.write_text, data=text))
        print(f"written: {BASELINES / f'{name}.json'}")
    return 1 if broken else 0


def collected_tests() -> dict[str, Numbers]:
    """The number of tests in each file, slow ones included: a dropped test is noticed.

    Raises RuntimeError where they cannot be collected.
    """
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:benchmark",
         "-m", "slow or not slow"],
        cwd=CHECKOUT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"the tests cannot be collected:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    counts: dict[str, Numbers] = {}
    for line in done.stdout.splitlines():
        if "::" in line:
            counts.setdefault(line.split("::")[0], {"tests": 0})["tests"] += 1
    return counts


def parser() -> argparse.ArgumentParser:
    """The options."""
    p = command_parser("benchmarks.regression", __doc__)
    p.add_argument("--backbone", nargs="+", default=[], metavar="NAME", help="only these")
    p.add_argument("--no-training", action="store_true", help="do not measure the mAP")
    p.add_argument("--update", action="store_true", help="write the numbers measured now as the baseline")
    p.add_argument(
        "--seeds", type=int, default=5, help="seeds of an mAP's baseline, for its noise (default: 5)"
    )
    p.add_argument("--out", type=Path, default=Path("out"), help="output directory (default: out)")
    p.add_argument("--quiet", action="store_true", help="show no progress, only what differs")
    return p


if __name__ == "__main__":
    sys.exit(exit_code(main))
