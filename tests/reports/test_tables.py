import numpy as np
import pandas as pd
import pytest
from scipy import stats

from benchmarks.experiments import ROWS, rows_at
from benchmarks.train.gflops import ROWS as CLASSIFIERS
from benchmarks.train.gflops import Count
from reports import tables
from reports.tables import MEANS, REFERENCE, TITLES, compared, markdown, published, sanity


def table(name, scale, runs):
    """With every model counted as 120 GFLOPs of backbone and 1.5 of the rest."""
    return tables.table(name, scale, runs, count=lambda row: Count(121.5, {"backbone": 120.0}, 35_740_000))


def test_published_numbers_are_the_papers():
    paper = published()
    assert paper.loc["2b/two_c_t", ["map", "precision", "recall"]].tolist() == [30.0, 80.0, 92.0]
    assert paper.loc["2b/singleton", ["map", "precision", "recall"]].tolist() == [28.5, 84.2, 90.4]
    assert paper.loc["2a/256_8", ["gflops", "map"]].tolist() == [90.7, 27.5]
    assert paper.loc["2a/two_stage", ["gflops", "detector_gflops", "map"]].tolist() == [64, 246, 26.8]
    assert paper.loc["2c/variable", "map"] == 28.5
    assert pd.isna(paper.loc["2b/two_c_t_frame_embedding", "map"]), "ours: not in the paper"
    assert paper["source"].notna().all()
    three = paper[paper.index.str.startswith("3/")]
    assert len(three) == 18
    assert three["map"].sum() == pytest.approx(222.7 + 180.3 + 166.0), "K400 alone; with MAE, UMT; the rest"
    assert three["gflops"].sum() == 1278 + 1966 + 1128, "the 16 that are printed"
    four = paper[paper.index.str.startswith("4/")]
    assert four.groupby("dataset")["map"].agg(["count", "sum"]).round(1).to_dict("index") == {
        "JHMDB": {"count": 10, "sum": 792.8},
        "UCF101-24": {"count": 10, "sum": 803.9},
    }


def test_every_row_of_ours_has_a_line_and_every_line_is_known():
    paper = published()
    ours = set(ROWS) | set(MEANS)
    assert ours <= set(paper.index), "a row without a line"
    assert {row.split("/")[0] for row in paper.index} == set(TITLES)
    assert set(REFERENCE.values()) <= set(ROWS)
    others = paper.drop(index=list(ours))
    assert set(others["counted"].dropna()) <= set(CLASSIFIERS)
    assert {row.split("/")[0] for row in others.index} == {"3", "4"}
    assert paper.index.is_unique


def test_models_are_counted_at_the_papers_size_whatever_the_scale():
    assert tables.counted("2a/256_16").gflops == pytest.approx(121.516, abs=1e-3)
    assert tables.counted("3/videomae_b").gflops == pytest.approx(180.495, abs=1e-3)
    assert tables.counted("3/acar") is None
    assert tables.counted("4/jhmdb").gflops == tables.counted("2a/256_16").gflops


def test_ours_stands_beside_the_papers_with_the_difference(store, tmp_path):
    store(tmp_path, "2b/tubelet", mAP=0.3, recall=0.9)
    cells = table("2b", "tiny", tmp_path).cells.set_index("method")
    row = cells.loc["Tubelet"]
    assert row["our mAP"] == pytest.approx(30)
    assert row["difference"] == pytest.approx(30 - 28.7)
    assert row["our recall"] == pytest.approx(90)
    assert (row["protocol"], row["scale"], row["seeds"], row["split"]) == ("standard", "tiny", 1, "test")
    assert row["run"] == rows_at("tiny")["2b/tubelet"].hash
    assert (row["counted GFLOPs"], row["after backbone"], row["parameters M"]) == (121.5, 1.5, 35.74)


def test_rows_that_were_not_run_say_so(store, tmp_path):
    store(tmp_path, "2b/tubelet")
    text = markdown(table("2b", "tiny", tmp_path))
    lines = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("|")}
    assert "not run" in lines["Singleton"]
    assert "not run" not in lines["Tubelet"]
    assert len(lines) == 2 + 6
    assert not table("2b", "tiny", tmp_path / "none").has_results


def test_nobody_found_leaves_precision_empty(store, tmp_path):
    store(tmp_path, "2b/tubelet", precision=None)
    assert pd.isna(table("2b", "tiny", tmp_path).cells.loc[1, "our precision"])


def test_tiny_numbers_come_with_the_warning_and_the_reference(store, tmp_path):
    store(tmp_path, "2b/tubelet")
    text = markdown(table("2b", "tiny", tmp_path))
    assert "do not confirm or refute the paper's order" in text
    assert "perfect boxes with random classes 25.0 mAP" in text
    assert "of 600 clips" in text
    assert "protocol `standard`" in text
    assert "stood in" not in text


def test_clips_that_were_replaced_are_told(store, tmp_path):
    store(tmp_path, "2b/tubelet", substituted=3)
    assert "3 training clips could not be read" in markdown(table("2b", "tiny", tmp_path))


def test_paper_scale_has_no_such_warning(store, tmp_path):
    store(tmp_path, "2b/tubelet", scale="paper")
    assert "tiny-scale" not in markdown(table("2b", "paper", tmp_path))


def test_a_result_of_one_run_stands_in_both_tables(store, tmp_path):
    store(tmp_path, "2b/two_c_t", mAP=0.123)
    for name, row in (("2a", 5), ("2b", 4), ("2c", 1), ("fig1", 1), ("3", 7)):
        assert table(name, "tiny", tmp_path).cells.loc[row, "our mAP"] == pytest.approx(12.3), name


def test_jhmdb_is_the_mean_of_its_three_splits_once_all_have_run(store, tmp_path):
    for split, mAP in ((1, 0.2), (2, 0.3)):
        store(tmp_path, f"4/jhmdb_{split}", mAP=mAP, split=f"test {split}", protocol="gurkirt")
    row = table("4", "tiny", tmp_path).cells.set_index("method").loc["Ours, mean of three splits"]
    assert pd.isna(row["our mAP"])
    assert row["paper mAP"] == 80.7
    store(tmp_path, "4/jhmdb_3", mAP=0.7, split="test 3", protocol="gurkirt")
    made = table("4", "tiny", tmp_path)
    row = made.cells.set_index("method").loc["Ours, mean of three splits"]
    assert row["our mAP"] == pytest.approx(40)
    assert row["difference"] == pytest.approx(40 - 80.7)
    assert (row["protocol"], row["split"], row["seeds"]) == ("gurkirt", "mean", 1)
    assert len(row["run"].split()) == 3
    assert "protocol `gurkirt`" in markdown(made)


def test_the_mean_of_splits_has_a_deviation_over_seeds_alone(store, tmp_path):
    """Seed 0: .1, .2, .3; seed 1: .3, .4, .5. Means 20 and 40, and so 30 and sqrt(200)."""
    for seed in (0, 1):
        for split in (1, 2, 3):
            store(tmp_path, f"4/jhmdb_{split}", seed=seed, mAP=(split + 2 * seed) / 10)
    row = table("4", "tiny", tmp_path).cells.set_index("method").loc["Ours, mean of three splits"]
    assert row["our mAP"] == pytest.approx(30)
    assert row["std"] == pytest.approx(200**0.5)
    assert row["seeds"] == 2


def test_seeds_give_mean_and_deviation_and_small_differences_are_marked_as_noise(store, tmp_path):
    """The reference 40, 42, 44; C+T 39, 42, 45 is within the noise, singleton 10, 11, 12 is not."""
    for row, mAPs in (("two_c_t", (40, 42, 44)), ("c_t", (39, 42, 45)), ("singleton", (10, 11, 12))):
        for seed, mAP in enumerate(mAPs):
            store(tmp_path, f"2b/{row}", seed=seed, mAP=mAP / 100)
    store(tmp_path, "2b/tubelet", mAP=0.2)
    made = table("2b", "tiny", tmp_path)
    cells = made.cells.set_index("method")
    assert cells.loc["2(C+T)", ["our mAP", "std", "seeds"]].tolist() == pytest.approx([42, 2, 3])
    assert cells.loc["Singleton", "to reference"] == pytest.approx(-31)
    assert cells.loc["Singleton", "p-value"] < 0.001
    assert cells.loc["C + T", "p-value"] == pytest.approx(1)
    lines = {line.split("|")[1].strip(): line for line in markdown(made).splitlines() if line[:2] == "| "}
    assert "42.0 ± 2.0" in lines["2(C+T)"]
    assert " -31.0 |" in lines["Singleton"]
    assert "(+0.0)" in lines["C + T"]
    assert "(-22.0)" in lines["Tubelet"], "one seed cannot tell"
    assert 'of "2(C+T)"' in "".join(made.notes)


def test_welchs_test_worked_by_hand():
    """1, 2, 3 against 4, 6, 8: means -4 apart, variances 1 and 4, so t = -4 / sqrt(5 / 3)."""
    difference, p = compared(np.array([1.0, 2, 3]), np.array([4.0, 6, 8]))
    assert difference == -4
    t, degrees = 4 / (5 / 3) ** 0.5, (1 / 3 + 4 / 3) ** 2 / ((1 / 3) ** 2 / 2 + (4 / 3) ** 2 / 2)
    assert p == pytest.approx(2 * stats.t.sf(t, degrees))
    assert np.isnan(compared(np.array([1.0]), np.array([4.0, 6]))[1])
    assert np.isnan(compared(np.array([]), np.array([4.0]))[0])


def test_published_rows_of_others_are_shown_without_a_number_of_ours(tmp_path):
    text = markdown(tables.table("3", "tiny", tmp_path, count=lambda row: None))
    lines = {line.split("|")[1].strip(): line for line in text.splitlines() if line[:2] == "| "}
    assert "205 + 246" in lines["ACAR-Net"]
    assert "not run" not in lines["ACAR-Net"]
    assert "not run" in lines["Ours"]
    assert "counted GFLOPs" not in text, "none was counted here"


def test_whose_boxes_the_two_stage_baseline_had_is_told(store, tmp_path):
    store(tmp_path, "2a/two_stage")
    text = markdown(table("2a", "tiny", tmp_path))
    assert "The detector's boxes (simulated, on this synthetic data)" in text
    assert "on the true boxes" in text


def test_sanity_shows_the_three_ways_and_the_best_selection(store, tmp_path):
    store(tmp_path, "2a/two_stage_true_boxes", mAP=0.6, mAP_untrained=0.3)
    store(tmp_path, "2b/tubelet", mAP=0.2)
    store(tmp_path, "2b/max_pooling", mAP=0.5)
    text = sanity("tiny", tmp_path)
    lines = {line.split("|")[1].strip(): line for line in text.splitlines() if line[:2] == "| "}
    assert "60.0" in lines["RoI align on the true boxes"]
    assert "30.0" in lines["RoI align on the true boxes"]
    assert "2b/max_pooling" in lines["best single-stage selection"]
    assert "not run" in lines["encoder-decoder (DETR)"]
