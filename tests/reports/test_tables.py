import numpy as np
import pandas as pd
import pytest
from scipy import stats

from benchmarks.experiments import ROWS, rows_at
from benchmarks.train.gflops import ROWS as CLASSIFIERS
from benchmarks.train.gflops import Count
from reports import tables
from reports.runs import find_run
from reports.tables import (
    MEANS,
    REFERENCE,
    TITLES,
    compare_seeds,
    format_cells,
    latex,
    markdown,
    parts,
    published,
    sanity,
)


def table(name, scale, runs):
    """A table with a stub for the counts: 120 GFLOPs in the backbone and 1.5 behind it."""
    return tables.build_table(
        name, scale, runs, count=lambda row: Count(121.5, {"backbone": 120.0}, 35_740_000)
    )


def test_published_numbers_equal_the_papers():
    paper = published()
    assert paper.loc["2b/two_c_t", ["map", "precision", "recall"]].tolist() == [30.0, 80.0, 92.0]
    assert paper.loc["2b/singleton", ["map", "precision", "recall"]].tolist() == [28.5, 84.2, 90.4]
    assert paper.loc["2a/256_8", ["gflops", "map"]].tolist() == [90.7, 27.5]
    assert paper.loc["2a/two_stage", ["gflops", "detector_gflops", "map"]].tolist() == [64, 246, 26.8]
    assert paper.loc["2c/variable", "map"] == 28.5
    assert pd.isna(paper.loc["2b/two_c_t_frame_embedding", "map"]), "not in the paper"
    assert paper["source"].notna().all()
    three = paper[paper.index.str.startswith("3/")]
    assert len(three) == 18
    assert three["map"].sum() == pytest.approx(222.7 + 180.3 + 166.0), "K400; with MAE and UMT; the rest"
    assert three["gflops"].sum() == 1278 + 1966 + 1128, "of the 16 printed"
    four = paper[paper.index.str.startswith("4/")]
    assert four.groupby("dataset")["map"].agg(["count", "sum"]).round(1).to_dict("index") == {
        "JHMDB": {"count": 10, "sum": 792.8},
        "UCF101-24": {"count": 10, "sum": 803.9},
    }


def test_every_row_of_ours_has_a_line_and_no_line_is_unknown():
    paper = published()
    ours = set(ROWS) | set(MEANS)
    assert ours <= set(paper.index), "a row without a line"
    assert {row.split("/")[0] for row in paper.index} == set(TITLES)
    assert set(REFERENCE.values()) <= set(ROWS)
    others = paper.drop(index=list(ours))
    assert set(others["counted"].dropna()) <= set(CLASSIFIERS)
    assert {row.split("/")[0] for row in others.index} == {"3", "4"}
    assert paper.index.is_unique


def test_models_are_counted_at_the_papers_size():
    assert tables.count_paper_model("2a/256_16").gflops == pytest.approx(121.516, abs=1e-3)
    assert tables.count_paper_model("3/videomae_b").gflops == pytest.approx(180.495, abs=1e-3)
    assert tables.count_paper_model("3/acar") is None
    assert tables.count_paper_model("4/jhmdb").gflops == tables.count_paper_model("2a/256_16").gflops


def test_a_row_has_our_number_and_its_difference_to_the_papers(store, tmp_path):
    store(tmp_path, "2b/tubelet", mAP=0.3, recall=0.9)
    cells = table("2b", "tiny", tmp_path).cells.set_index("method")
    row = cells.loc["Tubelet"]
    assert row["our mAP"] == pytest.approx(30)
    assert row["difference"] == pytest.approx(30 - 28.7)
    assert row["our recall"] == pytest.approx(90)
    assert (row["protocol"], row["scale"], row["seeds"], row["split"]) == ("standard", "tiny", 1, "test")
    assert row["run"] == rows_at("tiny")["2b/tubelet"].hash
    assert (row["counted GFLOPs"], row["after backbone"], row["parameters M"]) == (121.5, 1.5, 35.74)


def test_headings_say_whose_and_on_what_data_a_small_number_is(store, tmp_path):
    store(tmp_path, "2b/tubelet", mAP=0.3)
    text = markdown(table("2b", "tiny", tmp_path))
    assert "paper, AVA: mAP" in text
    assert "ours, small, synthetic: mAP" in text
    assert "our mAP |" not in text
    assert "difference |" not in text, "to a number on other data"
    store(tmp_path, "2b/tubelet", scale="paper", mAP=0.3)
    text = markdown(table("2b", "paper", tmp_path))
    assert "our mAP" in text
    assert "difference |" in text


@pytest.mark.parametrize(("name", "row"), [("3", "3/hiera_l"), ("4", "4/ucf24")])
def test_small_results_are_apart_from_the_state_of_the_art(store, tmp_path, name, row):
    store(tmp_path, row, mAP=0.123)
    published_part, small = parts(table(name, "tiny", tmp_path))
    assert "our mAP" not in format_cells(published_part)
    assert "paper mAP" in format_cells(published_part)
    assert "paper mAP" not in format_cells(small)
    assert "12.3" in set(format_cells(small)["our mAP"])
    text = markdown(table(name, "tiny", tmp_path))
    assert text.count("\n## ") == 1, "two tables"
    assert "our small models on synthetic data" in text
    [whole] = parts(table(name, "paper", tmp_path))
    assert {"paper mAP", "our mAP"} <= set(format_cells(whole))


def test_pre_training_has_accuracy_and_no_columns_of_detection(store, tmp_path):
    store(tmp_path, "pretraining/mvitv2_s", mAP=0.9, accuracy=0.875)
    built = table("pretraining", "tiny", tmp_path)
    cells = format_cells(built)
    assert cells["our accuracy"].tolist() == ["87.5", ""]
    assert not {"our recall", "candidates per actor", "paper mAP"} & set(cells)
    assert any("Accuracy: clips whose highest-scored class" in note for note in built.notes)


def test_diagnostics_stand_beside_the_twin_law_of_the_rows_own_no_actor_weight(store, tmp_path):
    """1.5 candidates per actor at no-actor weight 0.1: 1 / 1.05."""
    store(tmp_path, "2b/tubelet")
    built = table("2b", "tiny", tmp_path)
    row = built.cells.set_index("method").loc["Tubelet"]
    assert row["candidates per actor"] == pytest.approx(1.5)
    assert row["their p(alpha)"] == pytest.approx(0.9)
    assert row["twin law"] == pytest.approx(1 / 1.05)
    assert row[["actor AP 0.5", "actor AP 0.75"]].tolist() == pytest.approx([80, 60])
    assert row[["class AP, true boxes", "mAP, no duplicates"]].tolist() == pytest.approx([70, 55])
    assert "1.50" in markdown(built)
    store(tmp_path, "2a/two_stage")
    two_stage = table("2a", "tiny", tmp_path).cells.iloc[0]
    assert pd.isna(two_stage["twin law"]), "its boxes are given"


def test_rows_without_a_result_are_marked_not_run(store, tmp_path):
    store(tmp_path, "2b/tubelet")
    text = markdown(table("2b", "tiny", tmp_path))
    lines = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("|")}
    assert "not run" in lines["Singleton"]
    assert "not run" not in lines["Tubelet"]
    assert len(lines) == 2 + 6
    assert not table("2b", "tiny", tmp_path / "none").has_results


def test_precision_is_empty_without_detections(store, tmp_path):
    store(tmp_path, "2b/tubelet", precision=None)
    assert pd.isna(table("2b", "tiny", tmp_path).cells.loc[1, "our precision"])


def test_notes_of_a_tiny_table_give_the_warning_chance_level_and_protocol(store, tmp_path):
    store(tmp_path, "2b/tubelet")
    text = markdown(table("2b", "tiny", tmp_path))
    assert "do not confirm or refute the paper's order" in text
    assert "ground-truth boxes with random classes 25.0 mAP" in text
    assert "of 600 clips" in text
    assert "protocol `standard`" in text
    assert "could not be read" not in text


def test_a_note_counts_replaced_clips(store, tmp_path):
    store(tmp_path, "2b/tubelet", substituted=3)
    assert "3 training clips could not be read and were replaced" in markdown(table("2b", "tiny", tmp_path))


def test_the_paper_scale_has_no_warning(store, tmp_path):
    store(tmp_path, "2b/tubelet", scale="paper")
    assert "tiny-scale" not in markdown(table("2b", "paper", tmp_path))


def test_one_result_appears_in_every_table_with_its_row(store, tmp_path):
    store(tmp_path, "2b/two_c_t", mAP=0.123)
    for name, row in (("2a", 5), ("2b", 4), ("2c", 1), ("fig1", 1), ("3", 7)):
        assert table(name, "tiny", tmp_path).cells.loc[row, "our mAP"] == pytest.approx(12.3), name


def test_jhmdb_is_the_mean_of_three_splits_when_all_have_results(store, tmp_path):
    for split, mAP in ((1, 0.2), (2, 0.3)):
        store(tmp_path, f"4/jhmdb_{split}", mAP=mAP, split=f"test {split}", protocol="gurkirt")
    row = table("4", "tiny", tmp_path).cells.set_index("method").loc["2(C+T), mean of three splits"]
    assert pd.isna(row["our mAP"])
    assert row["paper mAP"] == 80.7
    store(tmp_path, "4/jhmdb_3", mAP=0.7, split="test 3", protocol="gurkirt")
    made = table("4", "tiny", tmp_path)
    row = made.cells.set_index("method").loc["2(C+T), mean of three splits"]
    assert row["our mAP"] == pytest.approx(40)
    assert row["difference"] == pytest.approx(40 - 80.7)
    assert (row["protocol"], row["split"], row["seeds"]) == ("gurkirt", "mean", 1)
    assert len(row["run"].split()) == 3
    assert "protocol `gurkirt`" in markdown(made)


def test_the_deviation_of_a_mean_of_splits_is_over_seeds(store, tmp_path):
    """Seed 0: .1, .2, .3; seed 1: .3, .4, .5. Their means are 20 and 40: mean 30, deviation sqrt(200)."""
    for seed in (0, 1):
        for split in (1, 2, 3):
            store(tmp_path, f"4/jhmdb_{split}", seed=seed, mAP=(split + 2 * seed) / 10)
    row = table("4", "tiny", tmp_path).cells.set_index("method").loc["2(C+T), mean of three splits"]
    assert row["our mAP"] == pytest.approx(30)
    assert row["std"] == pytest.approx(200**0.5)
    assert row["seeds"] == 2


def test_mean_and_deviation_over_seeds_and_brackets_around_noise(store, tmp_path):
    """Reference 40, 42, 44: C+T with 39, 42, 45 is within noise, singleton with 10, 11, 12 is not."""
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
    assert "(-22.0)" in lines["Tubelet"], "one seed has no p-value"
    assert 'of "2(C+T)"' in "".join(made.notes)


def test_welchs_t_test_by_hand():
    """1, 2, 3 against 4, 6, 8: difference of means -4, variances 1 and 4, so t = -4 / sqrt(5 / 3)."""
    difference, p = compare_seeds(np.array([1.0, 2, 3]), np.array([4.0, 6, 8]))
    assert difference == -4
    t, degrees = 4 / (5 / 3) ** 0.5, (1 / 3 + 4 / 3) ** 2 / ((1 / 3) ** 2 / 2 + (4 / 3) ** 2 / 2)
    assert p == pytest.approx(2 * stats.t.sf(t, degrees))
    assert np.isnan(compare_seeds(np.array([1.0]), np.array([4.0, 6]))[1])
    assert np.isnan(compare_seeds(np.array([]), np.array([4.0]))[0])


def test_methods_of_others_have_published_numbers_only(tmp_path):
    text = markdown(tables.build_table("3", "tiny", tmp_path, count=lambda row: None))
    lines = {line.split("|")[1].strip(): line for line in text.splitlines() if line[:2] == "| "}
    assert "205 + 246" in lines["ACAR-Net"]
    assert "not run" not in lines["ACAR-Net"]
    assert "not run" in lines["2(C+T)"]
    assert "counted GFLOPs" not in text, "no count is given"


def test_a_note_gives_the_source_of_the_two_stage_baselines_boxes(store, tmp_path):
    store(tmp_path, "2a/two_stage")
    text = markdown(table("2a", "tiny", tmp_path))
    assert "The detector's boxes (simulated, on this synthetic data)" in text
    assert "on the true boxes" in text


def test_sanity_has_three_methods_and_the_best_selection(store, tmp_path):
    store(tmp_path, "2a/two_stage_true_boxes", mAP=0.6, mAP_untrained=0.3)
    store(tmp_path, "2b/tubelet", mAP=0.2)
    store(tmp_path, "2b/max_pooling", mAP=0.5)
    text = sanity("tiny", tmp_path)
    lines = {line.split("|")[1].strip(): line for line in text.splitlines() if line[:2] == "| "}
    assert "60.0" in lines["RoI align on the true boxes"]
    assert "30.0" in lines["RoI align on the true boxes"]
    assert "2b/max_pooling" in lines["best single-stage selection"]
    assert "not run" in lines["encoder-decoder (DETR)"]


def test_latex_escapes_text_and_has_booktabs_rules(store, tmp_path):
    store(tmp_path, "2b/two_c_t")
    store(tmp_path, "2b/two_c_t", seed=1, mAP=0.52)
    tex = latex(table("2b", "tiny", tmp_path))
    assert tex.count(r"\toprule") == tex.count(r"\midrule") == tex.count(r"\bottomrule") == 1
    assert r"51.0 $\pm$ 1.4" in tex
    assert r"p(alpha) $>$ 0.2" in tex
    assert "`" not in tex
    assert "16x256$^2$ in, 8x16$^2$ out" in latex(table("2a", "tiny", tmp_path))
    assert tex.count("{") == tex.count("}")


@pytest.mark.slow
def test_a_report_of_rows_with_fields_set_has_these_alone(store, tmp_path):
    """They are another scale, of the same size: no difference to the paper's numbers is shown."""
    scale = "tiny --set batch=4"
    store(tmp_path / "runs", "2b/tubelet", scale="tiny", mAP=0.3)
    store(tmp_path / "runs", "2b/tubelet", scale=scale, mAP=0.4)
    text = markdown(table("2b", scale, tmp_path / "runs"))
    assert "40.0" in text
    assert "30.0" not in text.replace("30.0 |", "", 1), "but the paper's"
    assert "Scale: tiny --set batch=4." in text
    assert "difference |" not in text
    run = find_run(tmp_path, rows_at(scale)["2b/tubelet"].hash[:8])
    assert run.experiment.batch == 4
    with pytest.raises(ValueError, match="no runs in"):
        find_run(tmp_path, "[0-9a-f]")
