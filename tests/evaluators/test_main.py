"""The command line: what it prints and writes, and its errors."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import evaluators
from evaluators.__main__ import main
from evaluators.frame_map import AVA_PROTOCOLS

# Two persons in two videos: both run, one of them sits, too. The first "run" is a true positive, the
# second its duplicate, the third true: 1/2 + 1/2 x 2/3. "sit" is missed.
LABELMAP = 'item { name: "run" id: 1 }\nitem { name: "sit" id: 2 }\nitem { name: "fly" id: 3 }\n'
GT = "a,0902,0,0,1,1,1,7\na,0902,0,0,1,1,2,7\nb,0903,0,0,1,1,1,3\n"
DET = "a,0902,0,0,1,1,1,0.9\na,0902,0,0,1,1,1,0.8\nb,0903,0,0,1,1,1,0.7\n"
BETTER = "a,0902,0,0,1,1,1,0.9\nb,0903,0,0,1,1,1,0.7\na,0902,0,0,1,1,2,0.6\n"
PERSONS = "a,0902,0,0,1,1,0.9\nb,0903,0,0,0.4,1,0.5\nb,0903,0,0,1,1,0.2\n"
RUN = 1 / 2 + 1 / 2 * 2 / 3


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working folder, with one file of each kind."""
    files = {"gt.csv": GT, "det.csv": DET, "map.pbtxt": LABELMAP, "better.csv": BETTER}
    for name, text in {**files, "persons.csv": PERSONS, "ex.csv": "b,0903\n", "none.csv": ""}.items():
        (tmp_path / name).write_text(text)
    tube = np.column_stack([np.arange(1, 21), np.tile([0, 0, 99, 99], (20, 1))]).astype(np.float32)
    content = {
        "labels": ["run", "sit"],
        "gttubes": {"run/a": {0: [tube]}, "sit/b": {1: [tube]}, "run/c": {0: [tube]}},
        "nframes": dict.fromkeys(["run/a", "sit/b", "run/c"], 20),
        "resolution": dict.fromkeys(["run/a", "sit/b", "run/c"], (240, 320)),
        "train_videos": [["run/c"], ["run/a"]],
        "test_videos": [["run/a", "sit/b"], ["sit/b", "run/c"]],
    }
    (tmp_path / "GT.pkl").write_bytes(pickle.dumps(content, 2))
    # Split 1: "run" is detected on all frames, "sit" on the first 15 of 20. Split 2: "run" alone.
    rows = [[0, f, 0, 0.9, 0, 0, 99, 99] for f in range(1, 21)]
    np.save(tmp_path / "1.npy", np.array(rows + [[1, f, 1, 0.5, 0, 0, 99, 99] for f in range(1, 16)]))
    lines = [f"run/c,{f},0,0.9,0,0,99,99" for f in range(1, 21)]
    (tmp_path / "2.csv").write_text("\n".join(lines) + "\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


AVA = ["ava", "--groundtruth", "gt.csv", "--detections", "det.csv", "--labelmap", "map.pbtxt"]
UCF = ["ucf24", "--groundtruth", "GT.pkl", "--detections", "1.npy"]
ALL = ["jhmdb", "--groundtruth", "GT.pkl", "--split", "all", "--detections", "1.npy", "2.csv"]
ACTORS = ["actors", "--groundtruth", "gt.csv", "--detections", "persons.csv", "--labelmap", "map.pbtxt"]
COMPARE = ["compare", "det.csv", "better.csv", "--groundtruth", "gt.csv", "--labelmap", "map.pbtxt"]


def run(*arguments):
    """The JSON file that the command writes."""
    assert main([*arguments, "--json", "out.json"]) == 0
    return json.loads(Path("out.json").read_text())


# --- ava -----------------------------------------------------------------------------------------


def test_ava(folder, capsys):
    result = run(*AVA)
    expected = {
        "dataset": "ava",
        "metric": "frame-mAP",
        "protocol": "standard",
        "plus_one": False,
        "iou": 0.5,
        "mAP": pytest.approx(RUN / 2),
        "per_class": {"1": pytest.approx(RUN), "2": 0, "3": None},
        "classes": {"1": "run", "2": "sit", "3": "fly"},
        "num_classes": 2,
        "num_ground_truth": 3,
        "num_detections": 3,
        "num_true_positives": 2,
        "files": {"groundtruth": "gt.csv", "detections": "det.csv", "labelmap": "map.pbtxt"},
    }
    assert {key: result[key] for key in expected} == expected
    text, errors = capsys.readouterr()
    assert text.splitlines()[0] == "frame-mAP 41.67 %   (protocol standard, IoU 0.5, mean of 2 classes)"
    assert errors == ""


def test_ava_with_all_options(folder, capsys):
    result = run(
        *AVA, "--per-class", "--intervals", "--errors", "--exclusions", "none.csv", "--plot", "o.svg"
    )
    assert result["intervals"]["num_videos"] == 2
    low, high = result["intervals"]["mAP"]
    assert low <= result["mAP"] <= high
    assert result["intervals"]["per_class"]["3"] == [None, None]
    assert result["errors"]["count"]["duplicate"] == 1
    assert result["errors"]["mAP_gain"]["duplicate"] == pytest.approx(1 / 12)
    assert result["errors"]["per_class"]["2"]["missed"] == 1
    text = capsys.readouterr().out
    assert "    1  run       83.33" in text
    assert "    3  fly           -         -         -" in text
    assert "  duplicate      +8.33 mAP             1 detections" in text
    assert Path("o.svg").read_text().lstrip().startswith("<?xml")


@pytest.mark.parametrize("protocol", [*map(str, AVA_PROTOCOLS)])
def test_ava_by_every_protocol(folder, protocol, capsys):
    result = run(*AVA, "--protocol", protocol, "--iou", "0.75", "--exclusions", "ex.csv")
    head = protocol == "activitynet_head"
    assert (result["protocol"], result["iou"], result["num_ground_truth"]) == (
        protocol,
        0.75,
        2 if protocol in ("standard", "activitynet_2019", "slowfast") else 3,
    )
    treatment = "scored: this protocol reads no exclusions" if head else "left out"
    assert f"note: detections on excluded frames: 1, {treatment}" in capsys.readouterr().out


def test_no_detections_give_an_mAP_of_zero(folder, capsys):
    result = run(*AVA[:4], "none.csv", *AVA[5:])
    assert (result["mAP"], result["num_detections"]) == (0, 0)
    assert "note: there are no detections" in capsys.readouterr().out


def test_unusual_rows_are_counted_and_noted(folder, capsys):
    (folder / "det.csv").write_text(
        DET
        + "c,0902,0,0,1,1,1,0.5\n"  # unknown video
        + "a,0999,0,0,1,1,1,0.5\n"  # frame without ground truth
        + "a,0902,0,0,1,1,99,0.5\n"  # unknown class
        + "a,0902,1,0,0,1,1,0.5\n"
        + "a,0902,0,0,1,1,1,0.9\n"  # repeated
    )
    result = run(*AVA)
    assert result["rows"] == {
        "other_classes_truth": 0,
        "other_classes_found": 1,
        "unknown_classes": 1,
        "unknown_class_ids": [99],
        "unknown_videos": 1,
        "unknown_video_names": ["c"],
        "unannotated_frames": 1,
        "excluded_truth": 0,
        "excluded_found": 0,
        "inside_out": 1,
        "duplicate_truth": 0,
        "duplicate_found": 1,
    }
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("note")] == [
        "note: detections of classes that are not evaluated: 1, left out",
        "note: of these, of classes that are not in the ground truth (99): 1",
        "note: detections in videos that are not in the ground truth (c): 1, scored as false positives",
        "note: detections on frames without ground truth: 1, scored as false positives",
        "note: detections with x1 >= x2 or y1 >= y2: 1, dropped",
        "note: detections that repeat another: 1, scored like any other",
    ]


def test_boxes_in_the_wrong_unit_are_noted(folder, capsys):
    (folder / "det.csv").write_text("a,0902,0,0,320,240,1,0.9\n")
    assert main(AVA) == 0
    assert "note: box coordinates reach 320; are they pixels? Fractions of 1" in capsys.readouterr().out
    np.save("1.npy", np.array([[0, 1, 0, 0.9, 0, 0, 0.5, 1]]))
    assert main(UCF) == 0
    assert "note: no box coordinate is above 1; are they fractions? Pixels" in capsys.readouterr().out


def test_ground_truth_given_as_detections_is_noted(folder, capsys):
    """Its eighth column is the person id, which is read as a score and gives 100 %."""
    hint = "note: all scores are whole numbers; are they person ids? Ground truth has those there"
    (folder / "det.csv").write_text("a,0902,0,0,0.5,0.5,1,0\na,0902,0,0,0.5,0.5,1,3\n")
    assert main(AVA) == 0
    assert hint in capsys.readouterr().out
    (folder / "det.csv").write_text("a,0902,0,0,0.5,0.5,1,0\na,0902,0,0,0.5,0.5,1,0.5\n")
    assert main(AVA) == 0
    assert hint not in capsys.readouterr().out


# --- ucf24 and jhmdb -----------------------------------------------------------------------------


def test_ucf24(folder, capsys):
    result = run(*UCF, "--video-map")
    assert (result["dataset"], result["protocol"], result["split"]) == ("ucf24", "gurkirt", 1)
    assert result["per_class"] == {"0": 1, "1": 0.75}
    assert result["mAP"] == 0.875
    video = result["video_map"]
    assert (video["0.2"], video["0.75"], video["0.8"]) == (1, 1, 0.5)  # "sit" overlaps by 15/20
    assert video["0.5:0.95"] == pytest.approx((6 * 1 + 4 * 0.5) / 10)
    assert video["per_class"]["0.8"] == {"0": 1, "1": 0}
    assert video["linking"]["link_iou"] == 0.2
    text = capsys.readouterr().out
    assert "frame-mAP 87.50 %   (protocol gurkirt, IoU 0.5, mean of 2 classes)" in text
    assert "video-mAP @0.2 100.00   @0.5 100.00   @0.75 100.00   @0.5:0.95 80.00 %" in text
    assert "note: video-mAP: by act's tool; frame-mAP is by gurkirt's" in text
    assert text.count("note") == 1  # UCF101-24 is reported on split 1, JHMDB on the mean
    assert main(["jhmdb", *UCF[1:]]) == 0
    assert "note: split 1 of 2; JHMDB's number is the mean of all" in capsys.readouterr().out


def test_jhmdb_is_the_mean_of_the_splits(folder, capsys):
    result = run(*ALL, "--video-map", "--per-class")
    assert (result["split"], result["mAP"]) == ("all", (0.875 + 0.5) / 2)
    assert [one["mAP"] for one in result["splits"]] == [0.875, 0.5]
    assert result["per_class"] == {"0": 1, "1": 0.375}
    assert result["num_ground_truth"] == 80
    assert result["video_map"]["0.5"] == 0.75
    text = capsys.readouterr().out.splitlines()
    assert text[0] == "split 1 of 2, 1.npy"
    assert text[-1] == "mean of the splits: frame-mAP 68.75, video-mAP@0.5 75.00 %"


def test_split_by_its_number(folder):
    result = run("jhmdb", "--groundtruth", "GT.pkl", "--split", "2", "--detections", "2.csv")
    assert (result["split"], result["mAP"]) == (2, 0.5)


@pytest.mark.parametrize("protocol", ["gurkirt", "act", "multisports", "annotated", "yowo"])
def test_ucf24_by_every_protocol(folder, protocol):
    result = run(*UCF, "--protocol", protocol, "--errors", "--intervals")
    assert (result["protocol"], result["mAP"]) == (protocol, pytest.approx(0.875))
    assert result["errors"]["count"]["missed"] == 5


@pytest.mark.parametrize(
    ("options", "name", "half", "thresholds"),
    [
        ([], "act", 1, 11),
        (["--linking", "moc"], "moc", 1, 11),
        (["--video-protocol", "gurkirt"], "act", 1, 11),
        (["--video-protocol", "yowo"], "yowo", 1, 6),
        (["--video-protocol", "yowo", "--linking", "act"], "act", 1, 6),
        (["--video-protocol", "multisports", "--linking", "yowo"], "yowo", 1, 19),
    ],
)
def test_tubes_are_linked_and_scored_as_asked(folder, capsys, options, name, half, thresholds):
    video = run(*UCF, "--video-map", *options)["video_map"]
    assert (video["linking"]["name"], video["0.5"], len(video["per_class"])) == (name, half, thresholds)
    assert f"linked from frame detections by {name}'s rules" in capsys.readouterr().out
    if name == "yowo":  # its tubes last as long as the video, where the others end with the detections
        assert video["0.75"] == 1


def test_classes_are_chosen_by_name_or_id(folder, capsys):
    assert run(*AVA, "--classes", "sit")["per_class"] == {"2": 0}
    assert run(*AVA, "--classes", "3", "run")["per_class"] == {"1": pytest.approx(RUN), "3": None}
    assert run(*ACTORS, "--classes", "sit")["actors"] == 1
    assert list(run(*COMPARE, "--classes", "run")["classes"]) == ["1"]
    result = run(*UCF, "--video-map", "--classes", "sit")
    assert result["per_class"] == {"1": 0.75}
    assert list(result["video_map"]["per_class"]["0.5"]) == ["1"]
    capsys.readouterr()
    assert main([*AVA, "--classes", "sat"]) == 2
    assert capsys.readouterr().err == (
        "evaluators ava: --classes: 'sat' is not among the 3 classes, of which one is 'sit'\n"
    )


def test_plus_one_is_an_option_protocol_rules_annotated(folder, capsys):
    assert run(*UCF, "--protocol", "annotated", "--plus-one")["plus_one"]
    assert "protocol annotated with +1 pixel" in capsys.readouterr().out
    assert main([*UCF, "--plus-one"]) == 2
    assert (
        "plus_one is an option of protocol annotated (YOWO's tool); not of gurkirt" in capsys.readouterr().err
    )


def test_rows_outside_the_split_are_counted(folder, capsys):
    result = run("ucf24", "--groundtruth", "GT.pkl", "--detections", "2.csv")
    assert (result["num_outside_split"], result["num_detections"], result["mAP"]) == (20, 0, 0)
    assert "note: detections in videos outside split 1: 20, not scored" in capsys.readouterr().out


def test_corrected_annotations_are_read_as_xywh_by_their_type(folder, capsys):
    content = pickle.loads((folder / "GT.pkl").read_bytes())
    for tubes in content["gttubes"].values():
        for of_class in tubes.values():
            of_class[0] = of_class[0].astype(np.uint8)
    (folder / "GT.pkl").write_bytes(pickle.dumps(content, 2))
    assert run(*UCF)["mAP"] == run(*UCF, "--boxes", "xywh")["mAP"] == 0.875


def test_tubes_that_are_linked_already(folder, capsys):
    """The ground truth's own tubes are perfect; classes that MultiSports leaves out are noted."""
    content = pickle.loads((folder / "GT.pkl").read_bytes())
    tubes = {label: [] for label in range(len(content["labels"]))}
    for video, of_video in content["gttubes"].items():
        for label, of_label in of_video.items():
            tubes[label] += [(video, 0.5, rows) for rows in of_label if video in content["test_videos"][0]]
    (folder / "tubes.pkl").write_bytes(pickle.dumps(tubes))
    options = ("tubes", "--groundtruth", "GT.pkl", "--tubes", "tubes.pkl", "--per-class")
    result = run(*options)
    assert (result["metric"], result["protocol"], result["0.5"], result["0.05:0.45"]) == (
        "video-mAP", "multisports", 1, 1,
    )  # fmt: skip
    printed = capsys.readouterr().out
    assert "@0.1:0.9 100.00" in printed
    assert "as given" in printed
    assert run(*options, "--protocol", "act")["protocol"] == "act"
    content["labels"][0] = "basketball save"
    (folder / "GT.pkl").write_bytes(pickle.dumps(content, 2))
    assert run(*options)["num_detections"] < result["num_detections"]
    assert "classes that MultiSports' own tool does not evaluate: 1, left out" in capsys.readouterr().out


# --- actors and compare --------------------------------------------------------------------------


def test_actors(folder, capsys):
    result = run(*ACTORS, "--theta", "0.2", "--curve", "curve.csv", "--plot", "o.pdf")
    assert (result["theta"], result["iou"], result["precision"], result["recall"]) == (0.2, 0.5, 1 / 2, 1 / 2)
    assert (result["actors"], result["true_positives"], result["false_positives"]) == (2, 1, 1)
    assert result["num_detections_at_any_theta"] == 3
    assert capsys.readouterr().out.splitlines()[0] == (
        "actors at theta 0.2: precision 50.00 %, recall 50.00 %   (IoU 0.5)"
    )
    assert Path("curve.csv").read_text().splitlines() == [
        "theta,precision,recall",
        "0.2,0.5,0.5",
        "0.5,1.0,0.5",
        "0.9,,0.0",
    ]
    assert Path("o.pdf").read_bytes().startswith(b"%PDF")
    assert run(*ACTORS, "--theta", "0.1")["recall"] == 1
    assert run(*ACTORS, "--theta", "1")["precision"] is None


def test_compare(folder, capsys):
    result = run(*COMPARE, "--plot", "o.svg")
    against = result["against"][0]
    assert (result["first"], against["second"], against["num_videos"]) == ("det.csv", "better.csv", 2)
    assert against["difference"] == pytest.approx(1 - RUN / 2)
    assert against["per_class"]["2"]["difference"] == 1
    assert against["per_class"]["3"] == {
        "AP": [None, None],
        "difference": None,
        "interval": [None, None],
        "p_value": None,
    }
    text = capsys.readouterr().out.splitlines()
    assert text[0] == "det.csv -> better.csv"
    assert text[2] == "    2  sit      0.00  100.00  +100.00                  -       -"
    assert "note: 2 videos are too few for an interval that holds what it says" in text
    assert "note: classes with ground truth in one video alone: 1, without an interval" in text
    assert text[4] == "frame-mAP 41.67 -> 100.00 %   (protocol standard, IoU 0.5)"


def test_compare_accepts_several_runs_and_scores_ucf_too(folder, capsys):
    result = run(*COMPARE[:2], "det.csv", *COMPARE[2:])
    assert [one["second"] for one in result["against"]] == ["det.csv", "better.csv"]
    assert result["against"][0]["difference"] == 0
    capsys.readouterr()
    result = run("compare", "2.csv", "2.csv", "--groundtruth", "GT.pkl", "--split", "2")
    assert (result["protocol"], result["against"][0]["mAP"]) == ("gurkirt", [0.5, 0.5])


# --- bad input -----------------------------------------------------------------------------------

BAD_INPUT = [
    (AVA, {"det.csv": "a,0902,0,0,1\n"}, "det.csv, line 1: found 5 columns instead of 8"),
    (AVA, {"det.csv": DET + "a,0902,0,0,1,1,1\n"}, "det.csv, line 4: found 7 columns instead of 8"),
    (AVA, {"det.csv": DET + "a,0902,0,0,1,1,1,0.9,1\n"}, "det.csv, line 4: found 9 columns"),
    (AVA, {"det.csv": DET + "a,0902,0,left,1,1,1,0.9\n"}, "det.csv, line 4, column 4 (y1): found 'left'"),
    (AVA, {"det.csv": DET + "a,0902,0,0,1,1,1,nan\n"}, "det.csv, line 4, column 8 (score): found 'nan'"),
    (AVA, {"det.csv": DET + "a,0902,0,0,1,1,0,0.9\n"}, "line 4, column 7 (action id): found '0'"),
    (AVA, {"gt.csv": GT + "b,0903,1,0,0,1,1,3\n"}, "gt.csv, line 4, column 5 (x2): found '0'; a box"),
    (AVA, {"gt.csv": ""}, "gt.csv: the file is empty"),
    (AVA, {"map.pbtxt": "run {\n"}, "map.pbtxt, line 1: cannot read an entry"),
    ([*AVA, "--exclusions", "ex.csv"], {"ex.csv": "b\n"}, "ex.csv, line 1: found 1 column instead of 2"),
    (UCF, {"GT.pkl": "not a pickle"}, "GT.pkl: cannot be unpickled"),
    (UCF, {"GT.pkl": "cos\nsystem\n(S'touch executed'\ntR."}, "GT.pkl: the pickle asks for 'os.system'"),
    (UCF, {"GT.pkl": "(dp0\nS'labels'\n(lp1\ns."}, "GT.pkl, the file: it has no gttubes, nframes, test"),
    (UCF, {"1.npy": "no array"}, "1.npy: cannot be read as an .npy array"),
    ([*UCF, "--split", "3"], {}, "GT.pkl has no split 3; its splits are 1 to 2"),
    ([*UCF, "--split", "one"], {}, "--split is a number from 1 or, for ucf24 and jhmdb, all; found 'one'"),
    ([*UCF, "--split", "all"], {}, "--split all needs the detections of 2 models, one file per split"),
    ([*UCF, "2.csv"], {}, "one split takes one detection file; found 2"),
    (["ucf24", "--groundtruth", "GT.pkl", "--detections", "2.csv"], {"2.csv": "run/a,21,0,1,0,0,1,1\n"},
     "2.csv, line 1, column 2 (frame): found '21'; run/a ends with frame 20"),
    (ACTORS, {"persons.csv": DET}, "persons.csv, line 1, column 7 (action id): found '1'; person boxes"),
    ([*ACTORS, "--theta", "nan"], {}, "theta is NaN"),
    (COMPARE[:2] + COMPARE[3:], {}, "compare needs at least two detection files"),
    (COMPARE[:5], {}, "--labelmap is needed with AVA's ground truth"),
    ([*AVA, "--plot", "nowhere/o.svg"], {}, "nowhere/o.svg: the folder nowhere does not exist"),
    ([*ACTORS, "--curve", "c.csv", "--plot", "o.xyz"], {}, "Format 'xyz' is not supported"),
    ([*AVA[:4], "nowhere.csv", *AVA[5:]], {}, "nowhere.csv: file not found; check the path"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "files", "message"), BAD_INPUT)
def test_bad_input_gives_one_line_status_2_and_writes_nothing(folder, capsys, arguments, files, message):
    for name, text in files.items():
        (folder / name).write_bytes(text.encode())
    (folder / "out.json").write_text("older")
    before = set(folder.iterdir())
    assert main([*arguments, "--json", "out.json"]) == 2
    text, errors = capsys.readouterr()
    assert text == ""
    assert errors.startswith(f"evaluators {arguments[0]}: ")
    assert message in errors
    assert errors.count("\n") == 1 + errors.count("\nline ")
    assert (folder / "out.json").read_text() == "older"
    assert set(folder.iterdir()) == before


@pytest.mark.parametrize(
    "option",
    [
        ["--protocol", "coco"],
        ["--protocol", "gurkirt"],
        ["--iou", "0"],
        ["--iou", "50"],
        ["--iou", "half"],
        ["--classes"],
    ],
)
def test_invalid_options_are_refused(folder, capsys, option):
    with pytest.raises(SystemExit) as caught:
        main([*AVA, *option])
    assert caught.value.code == 2
    assert f"argument {option[0]}" in capsys.readouterr().err


def test_options_of_the_bootstrap_say_what_replaced_them(folder, capsys):
    for option in (["--bootstrap", "1000"], ["--seed", "0"]):
        with pytest.raises(SystemExit):
            main([*AVA, *option])
        expected = f"{option[0]}: intervals are by a jackknife, without samples or seed; give --intervals"
        assert expected in capsys.readouterr().err


def test_full_disk_leaves_the_older_result(folder, capsys, monkeypatch):
    (folder / "out.json").write_text("older")
    before = set(folder.iterdir())

    def disk_full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", disk_full)
    assert main([*AVA, "--json", "out.json"]) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert (folder / "out.json").read_text() == "older"
    assert set(folder.iterdir()) == before


def test_plot_without_matplotlib_is_an_error(folder, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert main([*AVA, "--plot", "o.svg", "--json", "out.json"]) == 2
    assert "plot draws with matplotlib, which is not installed: pip install" in capsys.readouterr().err
    assert not Path("out.json").exists()


def test_package_runs_as_a_module(folder):
    root = str(Path(evaluators.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": root}
    process = subprocess.run(
        [sys.executable, "-W", "error", "-m", "evaluators", *AVA],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert (process.returncode, process.stderr) == (0, "")
    assert process.stdout.startswith("frame-mAP 41.67 %")
    process = subprocess.run(
        [sys.executable, "-m", "evaluators", "ava", "--help"], capture_output=True, text=True, env=environment
    )
    assert process.returncode == 0
    assert "--exclusions" in process.stdout


def test_interrupt_gives_status_130_and_writes_nothing(folder, capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setitem(main.__globals__, "read_label_map", interrupted)
    assert main([*AVA, "--json", "out.json"]) == 130
    assert capsys.readouterr().err == "evaluators ava: interrupted\n"
    assert not Path("out.json").exists()


def test_a_label_map_that_counts_from_0(folder):
    (folder / "map.pbtxt").write_text('item { name: "run" id: 0 }\nitem { name: "sit" id: 1 }\n')
    for name in ("gt.csv", "det.csv"):
        rows = [row.split(",") for row in (folder / name).read_text().splitlines()]
        (folder / name).write_text(
            "".join(",".join([*r[:6], str(int(r[6]) - 1), *r[7:]]) + "\n" for r in rows)
        )
    assert run(*AVA)["per_class"] == {"0": RUN, "1": 0}


# --- where outputs go ----------------------------------------------------------------------------


def evaluators_process(*arguments, **options):
    command = [sys.executable, "-m", "evaluators", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(Path(evaluators.__file__).parents[1])}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, **options
    )


@pytest.mark.parametrize("name", ["-", "/dev/stdout", "a.json"])
def test_numbers_on_standard_output_send_the_text_to_standard_error(folder, name):
    os.symlink("/dev/stdout", folder / "a.json")
    text, error = evaluators_process(*AVA, "--json", name).communicate()
    assert json.loads(text)["per_class"]["1"] == RUN
    assert b"frame-mAP 41.67 %" in error
    assert os.readlink(folder / "a.json") == "/dev/stdout"
    assert os.path.islink("/dev/stdout")


def test_an_output_file_that_is_appended_to_keeps_what_it_has(folder):
    (folder / "all.json").write_text("before\n")
    with open(folder / "all.json", "ab") as file:
        subprocess.run(
            [sys.executable, "-m", "evaluators", *AVA, "--json", "/dev/stdout"],
            env={**os.environ, "PYTHONPATH": str(Path(evaluators.__file__).parents[1])},
            stdout=file, stderr=subprocess.DEVNULL, check=True,
        )  # fmt: skip
    assert (folder / "all.json").read_text().startswith("before\n{\n")


def test_a_pipe_and_a_device_are_written_into_and_stay(folder):
    os.mkfifo(folder / "pipe")
    process = evaluators_process(*AVA, "--json", "pipe", "--plot", "/dev/null")
    assert json.loads((folder / "pipe").read_text())["per_class"]["1"] == RUN
    process.communicate()
    assert process.returncode == 0
    assert (folder / "pipe").is_fifo()
    assert Path("/dev/null").is_char_device()


def test_a_link_stays_and_its_file_is_replaced(folder):
    (folder / "numbers").mkdir()
    (folder / "a.json").symlink_to("numbers/a.json")
    run(*AVA)
    main([*AVA, "--json", "a.json"])
    assert (folder / "a.json").is_symlink()
    assert json.loads((folder / "numbers" / "a.json").read_text())["per_class"]["1"] == RUN


def test_two_outputs_cannot_share_standard_output(folder, capsys):
    assert main([*AVA, "--json", "-", "--plot", "/dev/stdout"]) == 2
    assert "- and /dev/stdout are both standard output; give one of them a file" in capsys.readouterr().err


def test_a_reader_that_has_seen_enough_ends_the_command_quietly(folder):
    process = evaluators_process(*AVA, "--per-class")
    process.stdout.close()
    assert process.communicate()[1] == b""
    assert process.returncode == 141


def test_a_full_device_is_told(folder, capsys):
    assert main([*AVA, "--json", "/dev/full"]) == 2
    assert "No space left on device" in capsys.readouterr().err
