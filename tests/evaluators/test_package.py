"""The source distribution and the wheel: what they hold, and that they run where they are installed.

The evaluators with NumPy, SciPy and pyarrow alone.
"""

import importlib
import json
import os
import pkgutil
import subprocess
import sys
import tarfile
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


def build(kind, source, folder):
    """What setuptools makes of a folder, "sdist" or "wheel", without the network."""
    code = f"import setuptools.build_meta as b; print(b.build_{kind}({str(folder)!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=source, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return folder / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    """The project's source distribution, of a copy of the tracked files."""
    folder = tmp_path_factory.mktemp("sdist")
    source = folder / "source"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in listed.stdout.split("\0"):
        if name and (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    return build("sdist", source, folder)


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory):
    """The project's wheel, built from the source distribution, as installers do."""
    folder = tmp_path_factory.mktemp("wheel")
    with tarfile.open(sdist) as content:
        content.extractall(folder, filter="data")
    return build("wheel", folder / sdist.name.removesuffix(".tar.gz"), folder)


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


def script(folder, cwd, name, *arguments):
    """Run an installed console script; what the folder lacks, such as torch, is this Python's."""
    return subprocess.run(
        [sys.executable, str(folder / "bin" / name), *arguments],
        cwd=cwd, env={**os.environ, "PYTHONPATH": str(folder)}, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_the_wheel_has_the_libraries_and_their_types(wheel):
    with zipfile.ZipFile(wheel) as content:
        names = content.namelist()
        [metadata] = [name for name in names if name.endswith("METADATA")]
        text = content.read(metadata).decode()
    assert wheel.name == f"actloc-{evaluators.__version__}-py3-none-any.whl"
    assert {"actloc_version.py", "actloc_core/backbones/mvit.py"} <= set(names)
    assert {"evaluators/py.typed", "actloc_core/py.typed"} <= set(names)
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
def test_the_sdist_has_the_libraries_and_what_one_reads_first_and_no_tests(sdist):
    with tarfile.open(sdist) as content:
        files = [member.name.partition("/")[2] for member in content.getmembers() if member.isfile()]
    top = {name for name in files if "/" not in name}
    assert {"README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "pyproject.toml"} <= top
    assert {name.split("/")[0] for name in files} - top == {"actloc_core", "evaluators", "actloc.egg-info"}
    tracked = {str(path.relative_to(ROOT)) for path in (ROOT / "actloc_core" / "shipped").iterdir()}
    assert tracked <= set(files)


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
    done = script(light, tmp_path, "actloc-eval", "--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"actloc {evaluators.__version__}, Python 3.")


@pytest.mark.slow
def test_the_installed_demo_runs_the_shipped_model_on_the_shipped_video(light, tmp_path):
    done = script(light, tmp_path, "actloc-predict", "--demo", "--device", "cpu", "--quiet", "--out", "demo")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "demo" / "annotated.mp4").stat().st_size > 0
    about = json.loads((tmp_path / "demo" / "detections.json").read_text())
    assert Path(about["checkpoint"]).is_relative_to(light), "not the checkout's"


def test_a_module_of_the_package_is_reached_by_its_name():
    """No function has the name of a module: `import evaluators.frame_map` gives the module."""
    for module in pkgutil.iter_modules(evaluators.__path__):
        if module.name != "__main__":
            imported = importlib.import_module(f"evaluators.{module.name}")
            assert getattr(evaluators, module.name) is imported, module.name
