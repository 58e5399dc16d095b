"""Commands, code, links, files and options in the documents work as written."""

import importlib
import re
from contextlib import redirect_stdout
from io import StringIO

import numpy as np
import pytest

from evaluators import Detections, read_act, split_ground_truth, write_frame_detections
from tests.console import ROOT, blocks, examples, printed, shell

OWN_DATA, REAL_DATA = ROOT / "docs" / "own_data.md", ROOT / "docs" / "real_data.md"
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])

FOLDERS = "actloc_core|benchmarks|datasets|evaluators|reports|tests|tools"
SESSIONS = {
    "ablations": "benchmarks.ablations",
    "predict": "reports.demo",
    "regression": "benchmarks.regression",
    "report": "reports",
    "search": "benchmarks.search",
    "train": "benchmarks.own",
}
"""nox session -> the module that it runs with the arguments after --."""
RUN_BY_NAME = {"benchmarks.train": "benchmarks.own"}

GROUND_TRUTH = """film1,0902,0.1,0.2,0.4,0.8,12,0
film1,0903,0.1,0.2,0.4,0.8,12,0
film2,0902,0.5,0.2,0.9,0.8,11,1
"""


def test_commands_of_the_faq_print_what_it_shows(tmp_path):
    (tmp_path / "gt.csv").write_text(GROUND_TRUTH)
    detections = re.sub(r",\d$", ",0.9", GROUND_TRUTH, flags=re.MULTILINE)
    (tmp_path / "paths.csv").write_text(re.sub(r"(film\d)", r"\1.mp4", detections))
    (tmp_path / "ids.csv").write_text(re.sub(r",1[12],", ",3,", detections))
    (tmp_path / "map.pbtxt").write_text('item { name: "stand" id: 12 }\nitem { name: "sit" id: 11 }\n')
    commands = [*examples(ROOT / "docs" / "faq.md")]
    assert len(commands) == 4
    for command, expected in commands:
        assert printed(command, tmp_path) == expected, command


def test_the_faq_has_fifteen_answers():
    assert len(re.findall(r"^\*\*[A-Z]", (ROOT / "docs" / "faq.md").read_text(), re.MULTILINE)) == 15


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_anchors_exist(page):
    text = page.read_text()
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http:", "https:")):
            continue
        file, _, anchor = target.partition("#")
        linked = (page.parent / file).resolve() if file else page
        assert linked.exists(), f"{page}: {target}"
        if anchor:
            heads = re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE)
            anchors = [re.sub(r"[^\w\- ]", "", head).lower().replace(" ", "-") for head in heads]
            assert anchor in anchors, target


def test_the_index_links_every_page_once_and_readme_links_the_index():
    linked = re.findall(r"^- \[(.*)\]\((.*)\): \S", (ROOT / "docs" / "index.md").read_text(), re.MULTILINE)
    pages = {path.name for path in (ROOT / "docs").iterdir() if path.suffix in (".md", ".ipynb")}
    assert sorted(target for _, target in linked) == sorted(pages - {"index.md"})
    assert [name for name, target in linked if name != target] == []
    assert "(docs/index.md)" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_modules_and_files_exist(page):
    """`python -m x.y`, and paths of this repository."""
    text = page.read_text()
    for module in set(re.findall(rf"python -m ((?:{FOLDERS})[\w.]*)", text)):
        path = ROOT / module.rstrip(".").replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module
    for path in set(re.findall(rf"`((?:{FOLDERS}|docs)/[\w./-]+)`", text)):
        if page.name != "CHANGELOG.md":  # which is about earlier versions, too
            assert (ROOT / path).exists(), path


def help_of(module, verb):
    """What `python -m module verb --help` prints, without a process for each."""
    found = importlib.import_module(RUN_BY_NAME.get(module, module))
    command = importlib.import_module(f"{module}.__main__") if hasattr(found, "__path__") else found
    text = StringIO()
    with redirect_stdout(text), pytest.raises(SystemExit) as ended:
        command.main([*([verb] if verb else []), "--help"])
    assert ended.value.code in (0, None), f"{module} {verb}"
    return text.getvalue()


def test_named_options_exist():
    """In every `python -m ... --option` and `nox -s ... -- --option` of every page."""
    helps = {}
    for page in PAGES:
        if page.name == "CHANGELOG.md":
            continue
        text = page.read_text().replace("\\\n", " ")
        commands = re.findall(rf"python -m ((?:{FOLDERS})[\w.]*)( \w+)?([^\n`]*)", text)
        commands += [
            (SESSIONS[name], "", rest)
            for name, rest in re.findall(r"nox (?:-R )?-s (\w+) --( [^\n`]*)", text)
            if name in SESSIONS and "--checkpoint" not in rest
        ]
        for module, word, rest in commands:
            verb = word.strip() if module in ("datasets", "evaluators", "reports") else ""
            if (module, verb) not in helps:
                helps[module, verb] = help_of(module, verb)
            for option in re.findall(r"(?<!\w)--[a-z][\w-]*", rest.partition("#")[0]):
                assert option in helps[module, verb], f"{page}: {module} {verb} {option}"
    assert len(helps) > 8


@pytest.mark.slow
def test_own_data_md_goes_from_videos_to_a_table(tmp_path):
    make, convert, check, train, predict, compare = (text for text in blocks(OWN_DATA, ""))
    [annotate] = blocks(OWN_DATA, "python")
    (tmp_path / "annotate.py").write_text(annotate)
    # Fewer clips and epochs than on the page, which take minutes.
    for command in (make.replace("--clips 400", "--clips 60"), "python annotate.py", convert, check):
        done = shell(command, tmp_path)
        assert done.returncode == 0, done.stdout
    assert "verdict: usable" in done.stdout
    quick = "--data mine --no-check --set epochs=3 --set warmup_epochs=1"
    done = shell(train.replace("--data mine", quick.replace("--no-check ", "")), tmp_path)
    assert done.returncode == 0, done.stdout
    [row] = re.findall(r"^\| mine .*", done.stdout, re.MULTILINE)
    mAP, chance, untrained = (float(row.split("|")[column]) for column in (6, 8, 9))
    assert mAP > untrained
    assert 50 < chance < 65, "two classes, about equally frequent"
    assert re.search(r"^upwards +[\d.-]+ +\d", done.stdout, re.MULTILINE)
    assert (tmp_path / "out" / "report" / "index.html").exists()
    assert "python -m actloc_core.predict VIDEO --checkpoint out/runs/" in done.stdout
    done = shell(train.replace("--data mine", quick), tmp_path)
    assert "up to date" in done.stdout, done.stdout
    done = shell(predict, tmp_path)
    assert done.returncode == 0, done.stdout
    assert (tmp_path / "out" / "predictions" / "val_000" / "annotated.mp4").exists()
    done = shell(compare.replace("--data mine", quick), tmp_path)
    assert done.returncode == 0, done.stdout
    assert re.search(r"^difference [+-][\d.]+", done.stdout, re.MULTILINE)


@pytest.mark.slow
def test_real_data_md_works_on_small_datasets(tmp_path):
    """All but the paper's size: the check, the small network, the evaluators."""
    for shape in ("ava", "ucf24", "jhmdb"):
        command = f"python -m datasets make --shape {shape} --out data/{shape} --clips 24"
        assert shell(command, tmp_path).returncode == 0
    page = [text.replace("/data/", f"{tmp_path}/data/") for text in blocks(REAL_DATA, "")]
    [check] = [text for text in page if "datasets check" in text]
    done = shell(check, tmp_path)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("verdict: complete") == 3

    [train] = (text.replace("/data/", f"{tmp_path}/data/") for text in blocks(REAL_DATA, "python"))
    (tmp_path / "train.py").write_text(train)
    done = shell("python train.py", tmp_path)
    [mAP] = re.search(r"frame-mAP ([\d.]+),", done.stdout).groups()
    [detections] = tmp_path.glob("out/runs/*/detections.csv")

    ava, ucf24, jhmdb = re.findall(r"python -m evaluators (?:[^\\\n]|\\\n)*", "\n".join(page))
    detections.rename(tmp_path / "detections.csv")
    done = shell(ucf24, tmp_path)
    assert float(re.search(r"frame-mAP ([\d.]+) %", done.stdout)[1]) == pytest.approx(float(mAP), abs=0.06)
    assert "video-mAP @0.2" in done.stdout

    gt = (tmp_path / "data/ava/annotations/ava_val_v2.2.csv").read_text().splitlines()
    perfect = "".join(f"{row.rpartition(',')[0]},0.5\n" for row in gt)
    (tmp_path / "detections.csv").write_text(perfect)
    assert "frame-mAP 100.00 %" in shell(ava, tmp_path).stdout

    annotations = read_act(tmp_path / "data/jhmdb/JHMDB-GT.pkl")
    for split in (1, 2, 3):
        gt = split_ground_truth(annotations, split)
        scores = np.full(len(gt.video), 0.5)
        rows = Detections(gt.videos, gt.video, gt.frame, gt.box, gt.label, scores)
        write_frame_detections(tmp_path / f"{split}.csv", rows)
    assert "mean of the splits: frame-mAP 100.00, video-mAP@0.5 100.00 %" in shell(jhmdb, tmp_path).stdout
