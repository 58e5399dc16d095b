"""Ray for real, in a process of its own: a failing trial fails alone, and says why."""

import os
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]

SCRIPT = """
import sys
from dataclasses import replace
from pathlib import Path
from benchmarks.experiments import OURS, at_scale
from benchmarks.sweep import sweep

class Heard:
    def started(self, key): print("started", key)
    def progressed(self, key, progress): print("progressed", key, progress.step, progress.steps)
    def finished(self, key): print("finished", key)
    def failed(self, key, reason): print("failed", key, reason)

good = replace(at_scale(OURS, "smoke"), frames=4, stride=4, crop=32, epochs=0.1)
bad = replace(good, selection="no_such_selection")
root, out = map(Path, sys.argv[1:])
sweep({exp.training_hash: [exp] for exp in (good, bad)}, {good.dataset: root}, out, Heard(), gpus=False)
for name, exp in (("good", good), ("bad", bad)):
    print(name, exp.training_hash, (out / "runs" / exp.hash / "result.json").exists())
"""


def test_a_failing_trial_fails_alone(small_benchmark, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(small_benchmark), str(tmp_path / "out")],
        cwd=CHECKOUT, capture_output=True, text=True, env=os.environ, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    words = [line.split() for line in done.stdout.splitlines()]
    good = next(w[1] for w in words if w[0] == "good")
    bad = next(w[1] for w in words if w[0] == "bad")
    assert ["good", good, "True"] in words
    assert ["bad", bad, "False"] in words
    assert ["started", good] in words
    assert ["finished", good] in words
    assert [w for w in words if w[:2] == ["progressed", good]][-1][2:] == ["4", "4"]
    failure = next(line for line in done.stdout.splitlines() if line.startswith(f"failed {bad}"))
    assert "no_such_selection" in failure
