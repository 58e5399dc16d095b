import json
from dataclasses import asdict

import pandas as pd
import pytest

from benchmarks.experiments import ROWS, TABLES, at_scale
from benchmarks.run import Result
from reports.tables import MEANS, markdown, published, table


def store(runs, row, *, scale="tiny", **numbers):
    exp = at_scale(ROWS[row], scale)
    values = {
        "experiment": asdict(exp), "hash": exp.hash, "split": "test", "protocol": "standard",
        "mAP": 0.5, "mAP_curve_theta": 0.5, "mAP_untrained": 0.01, "mAP_random_classes": 0.25,
        "precision": 0.75, "recall": 0.5, "per_class": {"left": 0.5}, "clips": 600, "substituted": 0,
        "seconds_training": 1.0, "seconds": 2.0, "started": "2026-01-01T00:00:00+00:00",
        "parameters": 1, "data_fingerprint": "f", "commit": "c", "device": "d", "versions": {},
    } | numbers  # fmt: skip
    folder = runs / exp.hash
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(asdict(Result(**values))))


def test_published_numbers_are_the_papers():
    paper = published()
    means = {f"{table}/{row}" for table, rows in MEANS.items() for row in rows}
    assert set(paper.index) == set(ROWS) | means, "a row without a paper line, or a line without a row"
    assert paper.loc["2b/two_c_t", ["map", "precision", "recall"]].tolist() == [30.0, 80.0, 92.0]
    assert paper.loc["2b/singleton", ["map", "precision", "recall"]].tolist() == [28.5, 84.2, 90.4]
    assert paper.loc["2a/256_8", ["gflops", "map"]].tolist() == [90.7, 27.5]
    assert pd.isna(paper.loc["2b/two_c_t_frame_embedding", "map"]), "ours: not in the paper"
    assert paper["source"].notna().all()


def test_ours_stands_beside_the_papers_with_the_difference(tmp_path):
    store(tmp_path, "2b/tubelet", mAP=0.3, recall=0.9)
    cells = table("2b", "tiny", tmp_path).cells.set_index("method")
    row = cells.loc["Tubelet"]
    assert row["our mAP"] == pytest.approx(30)
    assert row["difference"] == pytest.approx(30 - 28.7)
    assert row["our recall"] == pytest.approx(90)
    assert (row["protocol"], row["scale"], row["seeds"], row["split"]) == ("standard", "tiny", 1, "test")
    assert row["run"] == at_scale(ROWS["2b/tubelet"], "tiny").hash


def test_rows_that_were_not_run_say_so(tmp_path):
    store(tmp_path, "2b/tubelet")
    text = markdown(table("2b", "tiny", tmp_path))
    lines = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("|")}
    assert "not run" in lines["Singleton"]
    assert "not run" not in lines["Tubelet"]
    assert len(lines) == 2 + len(TABLES["2b"])


def test_nobody_found_leaves_precision_empty(tmp_path):
    store(tmp_path, "2b/tubelet", precision=None)
    assert pd.isna(table("2b", "tiny", tmp_path).cells.loc[1, "our precision"])


def test_tiny_numbers_come_with_the_warning_and_the_reference(tmp_path):
    store(tmp_path, "2b/tubelet")
    text = markdown(table("2b", "tiny", tmp_path))
    assert "do not confirm or refute the paper's order" in text
    assert "perfect boxes with random classes 25.0 mAP" in text
    assert "of 600 clips" in text
    assert "protocol `standard`" in text
    assert "stood in" not in text


def test_clips_that_were_replaced_are_told(tmp_path):
    store(tmp_path, "2b/tubelet", substituted=3)
    assert "3 training clips could not be read" in markdown(table("2b", "tiny", tmp_path))


def test_paper_scale_has_no_such_warning(tmp_path):
    store(tmp_path, "2b/tubelet", scale="paper")
    assert "tiny-scale" not in markdown(table("2b", "paper", tmp_path))


def test_a_result_of_one_run_stands_in_both_tables(tmp_path):
    store(tmp_path, "2b/two_c_t", mAP=0.123)
    for name, row in (("2a", 1), ("2b", 4)):
        assert table(name, "tiny", tmp_path).cells.loc[row, "our mAP"] == pytest.approx(12.3)


def test_jhmdb_is_the_mean_of_its_three_splits_once_all_have_run(tmp_path):
    for split, mAP in ((1, 0.2), (2, 0.3)):
        store(tmp_path, f"4/jhmdb_{split}", mAP=mAP, split=f"test {split}", protocol="gurkirt")
    row = table("4", "tiny", tmp_path).cells.set_index("method").loc["JHMDB, mean of its three splits"]
    assert pd.isna(row["our mAP"])
    assert row["paper mAP"] == 80.7
    store(tmp_path, "4/jhmdb_3", mAP=0.7, split="test 3", protocol="gurkirt")
    made = table("4", "tiny", tmp_path)
    row = made.cells.set_index("method").loc["JHMDB, mean of its three splits"]
    assert row["our mAP"] == pytest.approx(40)
    assert row["difference"] == pytest.approx(40 - 80.7)
    assert (row["protocol"], row["split"]) == ("gurkirt", "mean")
    assert len(row["run"].split()) == 3
    assert "protocol `gurkirt`" in markdown(made)
