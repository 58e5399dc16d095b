"""The page of a sweep with complete, broken and hostile results; in a real browser where there is one."""

import json
import re
import shutil
import subprocess
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from benchmarks.experiments import TABLES, rows_at
from benchmarks.own import own_experiment
from benchmarks.score.analysis import THETAS, Analysis
from benchmarks.score.resampled import METRICS
from benchmarks.train.gflops import Count
from reports import __main__ as command
from reports import counts, own, page, runs, tables

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HOSTILE = '<img src=x onerror="alert(1)">&amp;'


@pytest.fixture(scope="module")
def add_run(store):
    """add_run(out, row, ...): write a run's result, analysis and training log."""

    def add(out, row, *, classes=("left", "right"), seed=0, **numbers):
        exp = rows_at("tiny", seed=seed)[row]
        per_class = dict.fromkeys(classes, 0.5) | {"never": None}
        store(out / "runs", row, seed=seed, per_class=per_class, training=exp.training_hash, **numbers)
        analysis = Analysis(
            mAP_low=0.25, mAP_high=0.75, boxes=dict(zip(classes, (10, 11), strict=False)) | {"never": 0},
            precision=[0.5] * len(THETAS), recall=[0.25] * len(THETAS),
            errors={"wrong class": 0.1, "missed": None},
            confusion=[[0.5] * (len(classes) + 1)] * (len(classes) + 1),
            sampled={metric: [0.4, 0.6] for metric in METRICS},
        )  # fmt: skip
        (out / "runs" / exp.hash / "analysis.json").write_text(json.dumps(asdict(analysis)))
        training = out / "trainings" / exp.training_hash
        training.mkdir(parents=True, exist_ok=True)
        (training / "log.csv").write_text("step,lr,loss,val_mAP\n1,0.1,5.0,\n2,0.1,4.0,0.25\n")
        return exp

    return add


def counted(row):
    """Stub: counting the real models is slow."""
    return Count(121.5, {"backbone": 120.0}, 35_740_000)


def render(out):
    every = [tables.build_table(name, "tiny", out / "runs", count=counted) for name in TABLES]
    return page.page(out, "tiny", every)


@pytest.fixture(scope="module")
def out(add_run, tmp_path_factory):
    """An output directory with four runs; the tests add reports, and nothing else."""
    out = tmp_path_factory.mktemp("out")
    for row, mAP in (("2a/two_stage", 0.4), ("2a/256_16", 0.5), ("2b/tubelet", 0.3), ("fig1/detr", 0.2)):
        add_run(out, row, mAP=mAP)
    return out


@pytest.fixture(scope="module")
def html(out):
    """The page of the four runs."""
    return render(out)


@pytest.fixture
def without_charts(monkeypatch):
    """Pages have an empty element in the place of each chart: drawing is slow."""
    monkeypatch.setattr(page.charts, "svg", lambda figure, name, alt: "<svg></svg>")


def test_our_numbers_link_to_their_runs(html):
    exp = rows_at("tiny")["2a/256_16"]
    assert html.count(f'<a href="#run-{exp.hash}">50.0</a>') == 8, "in each table but 4, three times in ours"
    details = html[html.index(f'<details id="run-{exp.hash}">') :]
    details = details[: details.index("</details>")]
    for text in (
        "50.0 mAP",
        "25.0 to 75.0",
        "fingerprint of data",
        "nox -s ablations -- --only 2a/256_16",
        "<svg",
    ):
        assert text in details
    assert "25.0 to 75.0" in html[: html.index('id="figures"')]


@pytest.mark.slow
def test_the_page_is_reproducible_and_needs_no_network(out, html):
    assert html == render(out)
    addresses = set(re.findall(r'(?:src|href)="([^"]*)"', html))
    assert all(a.startswith(("#", "data:")) for a in addresses)
    assert "http" not in re.sub(r'xmlns(:xlink)?="[^"]*"', "", html)


def test_the_page_has_every_figure_whose_results_are_there(html):
    names = re.findall(r'<figure id="figure-([\w-]+)"', html)
    of_charts = ["per-class", "pareto", "actors", "twins", "trainings", "errors", "confusion"]
    assert names == ["rivals", *of_charts]
    assert "ours is better in 0 of 2 classes" in html
    assert "Here 0 of 2 classes improve. In the paper, on AVA, 44 of 60 do" in html


def test_classes_that_improve_over_the_baseline_are_counted_and_the_most_named():
    baseline, ours = {"a": 0.1, "b": 0.5, "c": None, "d": 0.2}, {"a": 0.3, "b": 0.4, "c": 0.9, "d": 0.25}
    assert page._improved(baseline, ours) == "Here 2 of 3 classes improve, a by 20.0 and d by 5.0."


@pytest.mark.slow
def test_a_single_class_with_a_hostile_name_and_one_without_ground_truth(add_run, tmp_path):
    hostile = {"classes": (HOSTILE,), "commit": HOSTILE, "device": HOSTILE}
    add_run(tmp_path, "2a/two_stage", **hostile)
    exp = add_run(tmp_path, "2a/256_16", **hostile)
    other = rows_at("tiny")["2b/tubelet"]
    (tmp_path / "trainings" / other.training_hash).mkdir()
    (tmp_path / "trainings" / other.training_hash / "trial.log").write_text(f"</pre>{HOSTILE}")
    html = render(tmp_path)
    assert "<img" not in html
    assert f'id="run-{exp.hash}"' in html
    assert "&lt;img src=x" in html
    assert "of 1 classes" in html
    assert re.search(r"never</th><td[^>]*>none of 0 boxes", html)


def test_unreadable_results_and_unfinished_trainings_are_listed(out, tmp_path, without_charts):
    out = shutil.copytree(out, tmp_path / "out")
    rows = rows_at("tiny")
    old = out / "runs" / rows["2b/c_t"].hash
    old.mkdir()
    (old / "result.json").write_text('{"mAP": 0.5}')
    stopped = out / "trainings" / rows["2b/max_pooling"].training_hash
    stopped.mkdir()
    (stopped / "log.csv").write_text("step,lr,loss,val_mAP\n1,0.1,5.0,\n")
    (stopped / "trial.log").write_text("line\n" * 100 + "the last line\n")
    cut = out / "trainings" / rows["2b/singleton"].training_hash
    cut.mkdir()
    (cut / "log.csv").write_text("")
    (out / "runs" / rows["2b/tubelet"].hash / "analysis.json").write_text("{")
    (out / "trainings" / rows["fig1/detr"].training_hash / "log.csv").unlink()
    html = render(out)
    assert "2b/c_t" in html[html.index("Unreadable results") : html.index('id="tables"')]
    unfinished = html[html.index('id="unfinished"') :]
    assert "Stopped at step 1." in unfinished
    assert "the last line" in unfinished
    assert unfinished.count("line\n") == runs.LOG_LINES - 1
    assert "Stopped before its first step." in unfinished


def test_a_page_without_results(tmp_path):
    html = render(tmp_path)
    assert "No row of the paper&#39;s tables was run at scale tiny." in html
    assert "<figure" not in html, "no empty panels"
    assert "No run has a result." in html


def test_every_seed_has_its_details_and_command(add_run, tmp_path, without_charts):
    add_run(tmp_path, "2b/tubelet", mAP=0.3)
    exp = add_run(tmp_path, "2b/tubelet", seed=2, mAP=0.5)
    html = render(tmp_path)
    details = html[html.index(f'<details id="run-{exp.hash}">') :]
    assert "2b/tubelet seed 2" in details
    assert "--only 2b/tubelet --seeds 3 --scale tiny" in details


def test_the_command_writes_every_table_and_the_page(out, capsys, monkeypatch, without_charts):
    monkeypatch.setattr(command, "kept_counts", lambda folder: counted)
    assert command.main(["--out", str(out)]) == 0
    assert "index.html" in capsys.readouterr().out
    names = {path.name for path in (out / "report").iterdir()}
    assert {"index.html", "sanity.md", "table_2a.tex", "table_2a.md", "table_2a.csv"} <= names
    tex = (out / "report" / "table_2b.tex").read_text()
    assert r"\toprule" in tex
    assert r"2(C+T) + frame embedding & " in tex
    assert tex.partition(r"\end{tabular}")[0].count(r"\\") == 1 + 6


@pytest.mark.slow
def test_clips_of_an_unknown_run_or_dataset_are_errors(out, capsys):
    assert command.main(["figures", "--out", str(out), "--run", "zzz", "--clips", "a:1"]) == 2
    assert "error: run zzz: no runs in" in capsys.readouterr().err
    run = rows_at("tiny")["2b/tubelet"].hash
    assert command.main(["figures", "--out", str(out), "--run", run, "--clips", "a:1"]) == 2
    assert (
        "synthetic_ava is not there; give its folder, --data synthetic_ava=FOLDER" in capsys.readouterr().err
    )


@pytest.mark.slow
def test_compare_draws_the_ap_of_each_class_of_two_runs(out, capsys):
    rows = rows_at("tiny")
    hashes = [rows[name].hash for name in ("2a/two_stage", "2b/tubelet")]
    assert command.main(["compare", "--out", str(out), *(h[:8] for h in hashes)]) == 0
    [line] = capsys.readouterr().out.splitlines()
    assert line.endswith(f"compare_{hashes[0]}_{hashes[1]}.png")
    assert (out / "report" / f"compare_{hashes[0]}_{hashes[1]}.png").read_bytes().startswith(b"\x89PNG")
    assert command.main(["compare", "--out", str(out), hashes[0], "none"]) == 2


def test_out_is_accepted_before_and_after_a_subcommand():
    for words in (["--out", "x", "compare", "a", "b"], ["compare", "a", "b", "--out", "x"]):
        assert command.parser().parse_args(words).out == Path("x")
    assert command.parser().parse_args(["compare", "a", "b"]).out == Path("out")


BROWSE = """
<script>
addEventListener("load", () => {
  const table = document.querySelector("#table-2a table"), seen = {};
  const shown = () => [...table.tBodies[0].rows].filter(r => !r.hidden).map(r => r.cells[0].textContent);
  const heads = [...table.tHead.rows[0].cells].map(h => h.textContent);
  const at = heads.indexOf("our mAP"), boxes = table.tHead.querySelectorAll("input");
  const press = i => table.tHead.rows[0].cells[i].querySelector("button").click();
  const type = (i, text) => { boxes[i].value = text; boxes[i].dispatchEvent(new Event("input")); };
  seen.before = shown(); press(at); seen.up = shown(); press(at); seen.down = shown();
  seen.sorted = table.tHead.rows[0].cells[at].getAttribute("aria-sort");
  type(at, ">=45"); seen.compared = shown(); type(at, ""); type(0, "roi"); seen.words = shown(); type(0, "");
  seen.wide = document.documentElement.scrollWidth <= innerWidth;
  seen.open = [...document.querySelectorAll("details[open]")].map(d => d.id);
  seen.focus = document.activeElement.tagName;
  document.title = JSON.stringify(seen);
});
</script></body>
"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("width", [1280, pytest.param(390, marks=pytest.mark.slow)])
def test_tables_sort_and_filter_and_links_open_runs_in_a_browser(html, tmp_path, width):
    run = rows_at("tiny")["2a/256_16"].hash
    file = tmp_path / "page.html"
    file.write_text(html.replace("</body>", BROWSE))
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},900",
         "--virtual-time-budget=5000", "--dump-dom", f"{file.as_uri()}#run-{run}"],
        capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr
    seen = json.loads(re.search(r"<title>(.*?)</title>", done.stdout, re.S).group(1).replace("&gt;", ">"))
    ours, two_stage = "16x256² in, 8x16² out: 2(C+T)", "MViTv2-S + RoI align on a detector's boxes"
    assert len(seen["before"]) == 6
    assert seen["up"][:2] == [two_stage, ours], "rows without a number come last"
    assert seen["down"][:2] == [ours, two_stage]
    assert seen["sorted"] == "descending"
    assert seen["compared"] == [ours]
    assert seen["words"] == [two_stage, "MViTv2-S + RoI align on the true boxes"]
    assert seen["wide"], "the page itself does not scroll sideways"
    assert seen["open"] == [f"run-{run}"]
    assert seen["focus"] == "SUMMARY"


# --- the first screen ----------------------------------------------------------------------------


def test_the_first_screen_says_what_was_run_and_what_failed(add_run, tmp_path, without_charts):
    add_run(tmp_path, "2b/two_c_t", mAP=0.5)
    add_run(tmp_path, "2b/tubelet", mAP=0.3)
    other = rows_at("tiny")["2b/c_t"]
    (tmp_path / "trainings" / other.training_hash).mkdir()
    html = render(tmp_path)
    top = html[: html.index('id="tables"')]
    assert "2 runs of 2 methods at scale tiny, 1 seed, on synthetic_ava." in top
    assert re.search(r"claims that small runs can show: \d undetermined, \d+ not run", top)
    assert "Trainings without a result: 2b/c_t" in top


def test_the_papers_method_has_one_name_in_whatever_table_it_stands():
    names = ("2a/256_16", "2b/two_c_t", "2c/fixed", "3/mvitv2_s", "fig1/ours")
    assert {runs.label(name) for name in names} == {"2(C+T)"}
    assert runs.label("3/hiera_l seed 1") == "2(C+T), Hiera-L, seed 1"


def test_notes_of_several_tables_stand_once(add_run, tmp_path, without_charts):
    add_run(tmp_path, "2b/two_c_t")
    html = render(tmp_path)
    assert html.count("by a jackknife over the test videos") == 1
    assert html.count("Untrained mAP: the same network before its first step") == 1


def test_runs_of_other_scales_are_listed(add_run, tmp_path, without_charts):
    exp = add_run(tmp_path, "2b/tubelet")
    (tmp_path / "runs" / exp.hash).rename(tmp_path / "runs" / "0123456789ab")
    html = render(tmp_path)
    assert "1 other runs in this store" in html
    what = "synthetic_ava, single_stage, mvitv2_tiny, tubelet, seed 0: 50.0 mAP"
    assert f"<li><code>{exp.hash}</code> {what}</li>" in html


def test_counts_are_kept_as_long_as_the_code_is_the_same(tmp_path, monkeypatch):
    asked = []

    def count(row):
        asked.append(row)
        return None if row == "3/acar" else Count(2.5, {"backbone": 2.0}, 7)

    monkeypatch.setattr(counts, "count_paper_model", count)
    for _ in range(2):
        kept = counts.kept_counts(tmp_path)
        assert kept("2b/two_c_t") == Count(2.5, {"backbone": 2.0}, 7)
        assert kept("3/acar") is None
    assert asked == ["2b/two_c_t", "3/acar"]
    monkeypatch.setattr(counts, "counting_code", lambda: "another")
    counts.kept_counts(tmp_path)("2b/two_c_t")
    (tmp_path / "counts.json").write_text("half")
    counts.kept_counts(tmp_path)("2b/two_c_t")
    assert len(asked) == 4


def test_own_data_stand_first_where_nothing_else_was_run(store, tmp_path, without_charts):
    exp = own_experiment("ava", "shop", "tiny", None)
    store(tmp_path / "runs", exp, mAP=0.4)
    html = render(tmp_path)
    assert "Your own data, shop: 40.0 mAP in the last run, where ground-truth boxes with" in html
    assert html.index('id="table-own"') < html.index('id="tables"')
    assert 'id="table-hypotheses"' not in html
    assert "nox -s train -- --data FOLDER --name shop --fresh" in html


def test_the_table_of_own_data_has_a_line_for_an_experiment_and_its_seeds(store, tmp_path, capsys):
    for seed, mAP in ((0, 0.4), (1, 0.5)):
        store(tmp_path / "runs", replace(own_experiment("ava", "shop", "tiny", None), seed=seed), mAP=mAP)
    store(tmp_path / "runs", own_experiment("ava", "street", "tiny", "tiny"), mAP=0.7)
    found, problems = own.own_runs(tmp_path)
    shop, street = own.text_rows(found)
    assert (shop["data"], shop["seeds"], shop["mAP"]) == ("shop", "2", "45.0 ± 7.1")
    assert (shop["initialised from"], street["initialised from"]) == ("random weights", "tiny")
    assert (street["chance"], problems) == ("25.0", [])
    assert command.main(["own", "--out", str(tmp_path / "nowhere")]) == 2
    assert "no run on own data" in capsys.readouterr().err
