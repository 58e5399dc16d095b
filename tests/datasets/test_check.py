"""`python -m datasets check` on complete, incomplete, damaged and missing datasets."""

import re
import shutil

import numpy as np
import pytest
from PIL import Image

from datasets import ava, synthetic, synthetic_clips, synthetic_tubes
from datasets.__main__ import main
from datasets.check import PUBLISHED_COUNTS, contact_sheet, inspect, summary
from datasets.scenes import ACTIONS
from tests.actloc_core.numbered import write_numbered


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("made")
    size = synthetic_tubes.TubeSize(4, 2, 0)
    synthetic_tubes.make_at(root / "jhmdb", "jhmdb", size)
    synthetic_tubes.make_at(root / "ucf24", "ucf24", size)
    synthetic.make_at(root / "ava", synthetic.Size(train=4, val=2, test=1))
    synthetic_clips.make_at(root / "kinetics", synthetic_clips.ClipsSize(40, 30, 1, seed=1))
    for folder in root.iterdir():
        (folder / "dataset.json").write_text('{"mirrored": {"left": "right"}}')
    return root


@pytest.fixture
def jhmdb(made, tmp_path):
    return shutil.copytree(made / "jhmdb", tmp_path / "jhmdb")


def check(capsys, tmp_path, dataset, root, *more):
    status = main(
        ["check", "--dataset", dataset, "--root", str(root), "--picture", str(tmp_path / "c.png"), *more]
    )
    out, err = capsys.readouterr()
    return status, out, err


@pytest.mark.parametrize("dataset", ["ava", "ucf24", "jhmdb", "kinetics"])
def test_complete_dataset_is_usable_and_drawn(made, capsys, tmp_path, dataset):
    status, out, _ = check(capsys, tmp_path, dataset, made / dataset, "--sample", "4")
    assert status == 0
    assert "verdict: complete" in out, "with a dataset.json it is no part of the published data"
    image = np.asarray(Image.open(tmp_path / "c.png"))
    assert image.shape == (480, 640, 3)
    assert ((image == [255, 255, 0]).all(-1).sum(1) > 30).any(), "a yellow box is drawn"


def test_counts_equal_those_of_the_annotations(made):
    reports = inspect("ava", made / "ava")
    lines = (made / "ava/annotations/ava_train_v2.2.csv").read_text().splitlines()
    assert reports[0].counts["labels"] == len(lines)
    assert reports[0].counts["keyframes"] == len({line.split(",")[1] for line in lines}) == 4
    assert reports[0].counts["boxes"] == len({tuple(line.split(",")[1:6]) for line in lines})
    # 2 seconds from 900 to 902, then 4 scenes of a second, the first half a second early
    assert reports[0].counts["frames"] == round(5.5 * synthetic.FPS)
    by_name = {report.name: report for report in inspect("jhmdb", made / "jhmdb")}
    assert set(by_name) == set(PUBLISHED_COUNTS["jhmdb"])
    assert by_name["train 1"].counts["videos"] + by_name["test 1"].counts["videos"] == 6
    assert by_name["test 2"].counts["frames"] == by_name["test 2"].counts["boxes"]


def test_differences_from_the_published_counts_are_reported(made):
    (report,) = (r for r in inspect("jhmdb", made / "jhmdb") if r.name == "test 3")
    assert report.differences({"videos": 265}) == [f"test 3: {report.counts['videos']} videos, published 265"]
    report.counts.update(PUBLISHED_COUNTS["jhmdb"]["test 3"])
    assert report.differences(PUBLISHED_COUNTS["jhmdb"]["test 3"]) == []
    assert summary("jhmdb", [report])[0].endswith("verdict: complete")


def test_kinetics_counts_clips_and_names_broken_videos_and_classes_without_a_clip(made, capsys, tmp_path):
    root = shutil.copytree(made / "kinetics", tmp_path / "kinetics")
    lines = (root / "train.csv").read_text().splitlines()
    broken, *labels = lines[0].split()
    (root / broken).write_bytes(b"no video")
    others = [line for line in lines[1:] if "9" not in line.split()[1:]]
    (root / "train.csv").write_text("\n".join([f"{broken} 0", *others]))
    train, val = inspect("kinetics", root)
    labels = (root / "val.csv").read_text().split()
    of_each = {"videos": 30, "keyframes": 30, "boxes": 30}
    assert val.counts == of_each | {"classes": 10, "frames": 30 * 16, "labels": len(labels) - 30}
    assert len(train.sources) == train.counts["videos"] - 1 == len(others)
    status, out, _ = check(capsys, tmp_path, "kinetics", root)
    assert status == 1
    assert f"error: {root / broken}" in out
    assert f"train: classes without a clip: 1, the first {ACTIONS[9]!r}" in out


def test_missing_and_truncated_videos_are_errors(jhmdb, capsys, tmp_path):
    first, second, *_ = sorted((jhmdb / "Frames").glob("*/*"))
    shutil.rmtree(first)
    max(second.iterdir()).unlink()
    status, out, _ = check(capsys, tmp_path, "jhmdb", jhmdb)
    name = f"{first.parent.name}/{first.name}"
    assert status == 1
    assert f"names video '{name}', but none of its files exists" in out
    assert f"{second.parent.name}/{second.name}: " in out
    assert "truncated?" in out
    assert out.count(f"names video '{name}'") == 1, "once, though it is in three splits"
    assert "verdict: not usable yet, 2 error(s)" in out


def test_damaged_frame_of_the_sample_is_an_error(jhmdb, capsys, tmp_path):
    for path in (jhmdb / "Frames").glob("*/*/*.png"):
        path.write_bytes(b"x")
    status, out, _ = check(capsys, tmp_path, "jhmdb", jhmdb, "--sample", "3")
    assert status == 1
    assert "not a readable image" in out
    assert not (tmp_path / "c.png").exists()


def test_boxes_outside_the_image_are_warnings(jhmdb):
    """The images are 80 pixels wide, the annotations say 40."""
    from evaluators.act_pickle import load_plain

    content = load_plain(jhmdb / "JHMDB-GT.pkl")
    content["resolution"] = dict.fromkeys(content["resolution"], (64, 40))
    import pickle

    plain = {
        **content,
        "gttubes": {
            v: {int(k): [np.array(t) for t in ts] for k, ts in of.items()}
            for v, of in content["gttubes"].items()
        },
    }
    (jhmdb / "JHMDB-GT.pkl").write_bytes(pickle.dumps(plain, protocol=2))
    warnings = [text for report in inspect("jhmdb", jhmdb) for text in report.warnings]
    assert any("boxes leave the image" in text for text in warnings)


def test_truncated_video_is_an_error(made, capsys, tmp_path):
    root = shutil.copytree(made / "ava", tmp_path / "ava")
    shutil.copy(root / "videos" / "val_000.mp4", root / "videos" / "train_000.mp4")
    status, out, _ = check(capsys, tmp_path, "ava", root)
    assert status == 1
    assert "train_000: annotated up to second 905, but it ends at 903.5: truncated?" in out


def test_damage_inside_a_transport_stream_is_a_warning(made, capsys, tmp_path):
    root = shutil.copytree(made / "ava", tmp_path / "ava")
    old = root / "videos" / "val_000.mp4"
    data = write_numbered(tmp_path / "whole.ts", 96, options={"g": "8"}).read_bytes()
    lost = len(data) // 188 // 2 * 188
    old.write_bytes(data[:lost] + data[lost + 3 * 188 :])
    _, out, _ = check(capsys, tmp_path, "ava", root)
    assert re.search(r"warning: .*val_000\.mp4: \d+ damaged packets: frames there are missing or wrong", out)


def test_invalid_annotations_exit_with_code_2(made, capsys, tmp_path):
    root = shutil.copytree(made / "ava", tmp_path / "ava")
    with open(root / "annotations" / "ava_val_v2.2.csv", "a") as file:
        file.write("val_000,0902,0.1,0.2,1.3,0.6,1,0\n")
    status, _, err = check(capsys, tmp_path, "ava", root)
    assert status == 2
    assert "error: " in err
    assert "ava_val_v2.2.csv" in err
    assert "1.3" in err
    none = tmp_path / "none"
    assert check(capsys, tmp_path, "ucf24", none)[::2] == (2, f"error: --root {none}: no such folder\n")
    assert check(capsys, tmp_path, "ava", root, "--sample", "-1")[0] == 2


def test_seconds_that_count_from_0_are_an_error_as_in_training(made, capsys, tmp_path):
    root = shutil.copytree(made / "ava", tmp_path / "ava")
    for path in (root / "annotations").glob("ava_*_v2.2.csv"):
        if "excluded" not in path.name:
            rows = [line.split(",") for line in path.read_text().splitlines()]
            path.write_text("".join(",".join([r[0], str(int(r[1]) - 900), *r[2:]]) + "\n" for r in rows))
    status, out, _ = check(capsys, tmp_path, "ava", root)
    assert status == 1
    assert "annotated from second 2, but its first frame is second 900: AVA's seconds count from 900" in out
    with pytest.raises(ValueError, match="is annotated at second 2, but"):
        ava.load(root, "train", frames=4, stride=1, crop=32)


def test_class_names_in_other_letters_are_drawn(jhmdb):
    """By a font that has them: two names that differ in their letters alone do not look alike."""
    reports = inspect("jhmdb", jhmdb)
    sheets = []
    for letter in "ЖЩ":
        for report in reports:
            report.classes = dict.fromkeys(report.classes, 5 * letter)
        sheets.append(np.asarray(contact_sheet(reports, 4, 0)))
    assert (sheets[0] != sheets[1]).any()
