"""The wheel: what it holds, and that the evaluators run from it with NumPy, SciPy and pyarrow alone."""

import importlib
import os
import pkgutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy
import pyarrow
import pytest
import scipy

import evaluators
from tests.console import ROOT

NEEDED = (numpy, pyarrow, scipy)
GT = "a,0902,0,0,1,1,1,7\n"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The project's wheel, built from a copy of the tracked files without the network."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in listed.stdout.split("\0"):
        if name and (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    build = "import setuptools.build_meta as b; print(b.build_wheel('..'))"
    done = subprocess.run(
        [sys.executable, "-c", build], cwd=source, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    [built] = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def light(wheel, tmp_path_factory):
    """A folder with the wheel's content and links to its dependencies: what a light installation has."""
    folder = tmp_path_factory.mktemp("light")
    install = ["pip", "install", "--quiet", "--no-index", "--no-deps", "--target", str(folder), str(wheel)]
    subprocess.run([sys.executable, "-m", *install], check=True)
    for package in NEEDED:
        installed = Path(package.__file__).parent
        for part in (installed, installed.with_name(f"{installed.name}.libs")):
            if part.is_dir():
                (folder / part.name).symlink_to(part)
    return folder


def isolated(folder, code, cwd):
    """Run code in an interpreter that finds nothing but the standard library and this folder."""
    code = f"import sys; sys.path.insert(0, {str(folder)!r}); {code}"
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], cwd=cwd, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_the_wheel_has_the_libraries_and_their_types(wheel):
    with zipfile.ZipFile(wheel) as content:
        names = content.namelist()
        [metadata] = [name for name in names if name.endswith("METADATA")]
        text = content.read(metadata).decode()
    assert {"evaluators/py.typed", "actloc_core/py.typed", "actloc_core/backbones/mvit.py"} <= set(names)
    shipped = ("README.md", "checkpoint.pt", "synthetic.mp4", "ground_truth.csv", "detections.csv")
    assert {f"actloc_core/shipped/{name}" for name in (*shipped, "classes.pbtxt")} <= set(names)
    assert not [
        name for name in names if name.split("/")[0] in ("tests", "benchmarks", "datasets", "reports")
    ]
    always = [
        line for line in text.splitlines() if line.startswith("Requires-Dist") and "extra ==" not in line
    ]
    assert always == [f"Requires-Dist: {what}" for what in ("numpy>=2.0", "pyarrow>=17", "scipy>=1.13")]


@pytest.mark.slow
def test_the_evaluators_run_with_their_three_dependencies_alone(light, tmp_path):
    rows = GT + GT.replace("a,", "b,")
    (tmp_path / "gt.csv").write_text(rows)
    (tmp_path / "det.csv").write_text(rows.replace(",7", ",0.5"))
    (tmp_path / "map.pbtxt").write_text('item { name: "run" id: 1 }')
    assert isolated(light, "import torch", tmp_path).returncode != 0, "nothing else is found"
    command = "from evaluators.__main__ import main; sys.exit(main(sys.argv[1:] or ARGS))"
    arguments = ["ava", "--groundtruth", "gt.csv", "--detections", "det.csv", "--labelmap", "map.pbtxt"]
    arguments += ["--intervals", "--errors", "--per-class"]
    done = isolated(light, f"ARGS = {arguments!r}; {command}", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "frame-mAP 100.00 %" in done.stdout
    done = isolated(light, f"ARGS = {[*arguments, '--plot', 'a.svg']!r}; {command}", tmp_path)
    assert done.returncode == 2
    assert "matplotlib, which is not installed: pip install matplotlib" in done.stderr


@pytest.mark.slow
def test_the_installed_script_is_the_command(light, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(light)}
    done = subprocess.run(
        [sys.executable, str(light / "bin" / "actloc-eval"), "--version"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, f"actloc {evaluators.__version__}\n", "")


def test_a_module_of_the_package_is_reached_by_its_name():
    """No function has the name of a module: `import evaluators.frame_map` gives the module."""
    for module in pkgutil.iter_modules(evaluators.__path__):
        if module.name != "__main__":
            imported = importlib.import_module(f"evaluators.{module.name}")
            assert getattr(evaluators, module.name) is imported, module.name
