"""The measurements of a GPU, with small models on the CPU."""

import json
import os
import subprocess
import sys

import pytest

from benchmarks import gpu
from benchmarks.profile import page
from tests.benchmarks.shared import CHECKOUT

PROGRAMS = CHECKOUT / "tests" / "benchmarks" / "programs"


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """The command's output directory, from an interpreter in which most packages are missing."""
    out = tmp_path_factory.mktemp("gpu")
    done = subprocess.run(
        [sys.executable, PROGRAMS / "gpu_with_few_packages.py", out],
        cwd=CHECKOUT, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(CHECKOUT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return out / "gpu"


@pytest.mark.slow
def test_gpu_json_has_every_section_measured_with_few_packages(measured):
    figures = json.loads((measured / "gpu.json").read_text())
    sections = set(gpu.SECTIONS) - set(gpu.ON_REQUEST)
    assert set(figures) == sections | {"machine", "commits"}
    assert set(figures["commits"]) == sections
    assert figures["machine"]["quick"]
    for name in sections:
        rows = figures[name] if isinstance(figures[name], list) else [figures[name]]
        assert rows, name
        assert not [row for row in rows if "error" in row], name
    assert [row["model"] for row in figures["accuracy"]] == ["MViTv2-S", "Hiera-L", "DETR on MViTv2-S"]
    assert all(row["float32 tokens"] < 1e-5 for row in figures["accuracy"])
    assert figures["processes"]["two"] == pytest.approx(figures["processes"]["one"], rel=1e-6)
    assert figures["graphs"]["graphs"] == pytest.approx(figures["graphs"]["eager"], rel=1e-6)
    assert figures["trains"]["steps"] >= len(figures["trains"]["curve"]) > 0
    assert 0 < figures["trains"]["mAP_random_classes"] < 1


@pytest.mark.slow
def test_gpu_md_has_a_heading_for_every_section(measured):
    text = (measured / "gpu.md").read_text()
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert len(headings) == len(page.SECTIONS)
    assert "failed" not in text


@pytest.mark.slow
def test_a_core_reads_clips_and_the_cores_that_a_gpu_needs_follow(tmp_path):
    options = ["--device", "cpu", "--quick", "--out", str(tmp_path), "--only"]
    assert gpu.main([*options, "loader", "feeding"]) == 0
    figures = json.loads((tmp_path / "gpu" / "gpu.json").read_text())
    for row in figures["feeding"]:
        assert min(row["read_clips_s"], row["trained_clips_s"], row["alone_clips_s"]) > 0
    small, large = figures["loader"]
    assert (small["file"], large["file"]) == ("320 x 240", "640 x 480")
    assert small["clips_s"] > large["clips_s"] > 0
    assert small["clip_mib"] == 16 * 256 * 256 * 3 / 2**20
    figures["speed"] = [
        {"model": "m", "batch": 16, "clips_s": 10 * small["clips_s"], "gmac": 1, "step_ms_clip": 1}
    ]
    text = page.markdown(figures)
    line, _ = [line for line in text.splitlines() if line.startswith("| 320 x 240")]  # the other is feeding's
    assert line.split("|")[5].strip() == "10.0"


def test_a_section_that_fails_is_reported_and_the_others_are_measured(tmp_path, monkeypatch, capsys):
    def fails(device, quick, seconds):
        raise RuntimeError("out of memory")

    monkeypatch.setitem(gpu.SECTIONS, "speed", fails)
    options = ["--device", "cpu", "--quick", "--out", str(tmp_path), "--only", "speed", "kernels"]
    assert gpu.main(options) == 1
    figures = json.loads((tmp_path / "gpu" / "gpu.json").read_text())
    assert "RuntimeError: out of memory" in figures["speed"]["error"]
    assert figures["kernels"] == {"note": "needs a GPU"}
    assert "failed" in capsys.readouterr().out


def test_measuring_one_section_keeps_the_figures_of_the_others(tmp_path, capsys):
    options = ["--device", "cpu", "--quick", "--out", str(tmp_path), "--only"]
    assert gpu.main([*options, "kernels"]) == 0
    assert capsys.readouterr().out.startswith("kernels: 0 s\n")
    assert gpu.main([*options, "ceilings", "--quiet"]) == 0
    assert capsys.readouterr().out.startswith("#"), "the page alone"
    figures = json.loads((tmp_path / "gpu" / "gpu.json").read_text())
    assert {"kernels", "ceilings"} <= set(figures)
