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
dead = replace(good, selection="kills_its_process")
hung = replace(good, selection="hangs")
root, out = map(Path, sys.argv[1:])
rows = {"good": good, "bad": bad, "dead": dead, "hung": hung}
sweep({e.training_hash: [e] for e in rows.values()}, {good.dataset: root}, out, Heard(), gpus=False, hang=8)
for name, exp in rows.items():
    print(name, exp.training_hash, (out / "runs" / exp.hash / "result.json").exists())
"""


PLANTED = """
import os, sys, time
from actloc_core import selection
def kills_its_process(tokens):
    print("what was said last", flush=True)
    os._exit(7)
def hangs(tokens):
    time.sleep(1000)
selection.kills_its_process, selection.hangs = kills_its_process, hangs
"""


def test_a_failing_trial_fails_alone(small_benchmark, tmp_path):
    """One raises, one dies at once, one hangs: each is named with its reason, and the fourth is done."""
    (tmp_path / "sitecustomize.py").write_text(PLANTED)  # what Python imports first, in the trials too
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{CHECKOUT}"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(small_benchmark), str(tmp_path / "out")],
        cwd=CHECKOUT, capture_output=True, text=True, env=environment, timeout=280, check=False,
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
    keys = {w[0]: w[1] for w in words if w and w[0] in ("good", "bad", "dead", "hung")}
    told = {key: done.stdout.split(f"failed {key} ")[1].splitlines() for key in list(keys.values())[1:]}
    assert "no_such_selection" in told[keys["bad"]][0]
    assert told[keys["dead"]][0] == "its process died"
    assert "what was said last" in told[keys["dead"]][1]
    assert told[keys["hung"]][0] == "it hung: no batch for 0:00:08"
    assert any("in hangs" in line for line in told[keys["hung"]][:6]), "where it hung"
