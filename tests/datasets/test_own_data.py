"""Data sets of one's own in the trees and with the habits that people's have."""

import pickle
import shutil
from functools import partial

import numpy as np
import pytest
from PIL import Image

from actloc_core.clip import read_frames
from datasets import ava, kinetics, synthetic
from datasets.__main__ import main
from datasets.check import inspect
from datasets.description import read_description
from datasets.proposals import read_proposals
from datasets.ucf24 import UCF24
from tests.datasets.test_ava import write

ROWS = "movie,2,0.1,0.2,0.3,0.6,12,0\nmovie,3,0.1,0.2,0.3,0.6,80,0\n"
MAP = 'item { name: "stand" id: 12 }\nitem { name: "watch" id: 80 }\n'


@pytest.fixture
def video(tmp_path, small_benchmark):
    """A folder with one video of six seconds and more, 16 frames a second, and no annotations."""
    (tmp_path / "videos").mkdir()
    shutil.copy(small_benchmark / "videos" / "train_000.mp4", tmp_path / "videos" / "movie.mp4")
    return tmp_path


def load(root, split="train", **more):
    return ava.load(root, split, frames=4, stride=1, crop=32, fps=synthetic.FPS, **more)


def save_frames(video, folder, name, first, count=96):
    """Extract the first frames of a video, without loss whatever the suffix."""
    folder.mkdir(parents=True)
    for i, frame in enumerate(read_frames(video, np.arange(count)), first):
        with open(folder / (name % i), "wb") as file:
            Image.fromarray(frame).save(file, "PNG")


def test_seconds_of_own_data_count_from_where_their_description_says(video):
    (video / "annotations").mkdir()
    write(video, ROWS, labels=MAP)
    with pytest.raises(ValueError, match=r'is annotated at second 2, but .* write {"start_second": 0}'):
        load(video)
    first = ava.fingerprint(video)
    (video / "dataset.json").write_text('{"start_second": 0}')
    split = load(video)
    assert split.keyframes == (("movie", 2), ("movie", 3))
    whole = read_frames(video / "videos" / "movie.mp4", np.arange(64))
    np.testing.assert_array_equal(split.keyframe(0), whole[32], "second 2 is frame 32")
    held_out = load(video, "val")
    assert held_out.keyframes[:3] == (("movie", 0), ("movie", 1), ("movie", 2)), "every second is scored"
    assert len(held_out) == 32, "of 31.5 seconds"
    assert ava.fingerprint(video) != first


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "not an object; its fields are start_second"),
        ('{"start": 0}', "unknown field 'start'; its fields are start_second"),
        ('{"start_second": 0.5}', "start_second 0.5: give a whole number"),
        ('{"start_second": true}', "start_second True: give a whole number"),
        ('{"start_second": -1}', "start_second -1: give a whole number"),
    ],
)
def test_a_broken_description_is_refused_by_file_and_field(tmp_path, text, message):
    assert read_description(tmp_path).start_second is None
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(ValueError, match=r"dataset\.json: ") as error:
        read_description(tmp_path)
    assert message in str(error.value)


def test_the_check_tries_a_start_second_and_says_where_to_write_it(video, capsys):
    (video / "annotations").mkdir()
    write(video, ROWS, labels=MAP)
    options = ["check", "--dataset", "ava", "--root", str(video), "--sample", "0"]
    assert main(options) == 1
    assert 'write {"start_second": 0} into' in capsys.readouterr().out
    assert main([*options, "--start-second", "0"]) == 0
    assert (
        f'to train with it: write {{"start_second": 0}} into {video / "dataset.json"}'
        in capsys.readouterr().out
    )
    assert main([*options, "--start-second", "-1"]) == 2
    (video / "dataset.json").write_text('{"start_second": 0}')
    assert main(options) == 0


def test_mmaction2s_tree_is_read_as_it_stands(video):
    """rawframes/, train.csv, label_map.txt and proposals, here beside one another in the data folder."""
    movie = video / "videos" / "movie.mp4"
    save_frames(movie, video / "rawframes" / "movie", "img_%05d.jpg", first=1)
    whole = read_frames(movie, np.arange(96))
    shutil.rmtree(video / "videos")
    for split in ("train", "val"):
        (video / f"{split}.csv").write_text(ROWS.replace("movie,", "movie,090"))
    (video / "val_excluded_timestamps.csv").write_text("movie,0903\n")
    (video / "label_map.txt").write_text("12: stand\n80: watch\n")
    split = load(video)
    assert split.classes == split.evaluated == {12: "stand", 80: "watch"}
    assert split.keyframes == (("movie", 902), ("movie", 903))
    np.testing.assert_array_equal(split.keyframe(0), whole[32])
    assert load(video, "val").keyframes == (("movie", 902), ("movie", 904), ("movie", 905))
    proposals = {"movie,0902": np.array([[0.1, 0.1, 0.5, 0.9, 0.95], [0, 0, 1, 1, 0.3]], np.float32)}
    (video / "dense_proposals_val.FAIR.recall_93.9.pkl").write_bytes(pickle.dumps(proposals))
    boxes = ava.person_boxes(ava.find_person_boxes(video, "val"))
    assert list(boxes) == [("movie", 902)]
    np.testing.assert_allclose(boxes["movie", 902].boxes, [[0.1, 0.1, 0.5, 0.9]], atol=1e-7)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "a list, but proposals are a dict"),
        ({"movie": np.zeros((1, 5))}, "key 'movie': it should be the video, a comma and the second"),
        ({"movie,0902": np.zeros((1, 7))}, r"shape \(1, 7\); rows are x1, y1, x2, y2, score"),
        ({"movie,0902": "boxes"}, "rows are x1, y1, x2, y2, score"),
        ({"movie,0902": [[0, 0, 320, 240, 0.9]]}, "fractions of the frame, in .0, 1., not pixels"),
    ],
)
def test_proposals_of_another_form_are_refused(tmp_path, content, message):
    path = tmp_path / "dense_proposals_val.pkl"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match=rf"dense_proposals_val\.pkl: .*{message}"):
        read_proposals(path)


def test_all_wrong_proposals_are_told_at_once(tmp_path):
    path = tmp_path / "dense_proposals_val.pkl"
    huge = "9" * 30
    content = {"movie": [], "movie,0902": [[0, 0, 1, 1]], f"a,{huge}": [], "a,0902": [[0, 0, 9, 9]], "b,1": 3}
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match="key 'movie'") as error:
        read_proposals(path)
    assert str(error.value).removeprefix(f"{path}: ").splitlines() == [
        "key 'movie': it should be the video, a comma and the second",
        f"key 'a,{huge}': it should be the video, a comma and the second",
        "'a,0902': sides of 0 to 9; boxes are fractions of the frame, in [0, 1], not pixels",
        "'b,1': shape (); rows are x1, y1, x2, y2, score, finite",
    ]


def test_a_keyframe_without_proposals_has_none(tmp_path):
    path = tmp_path / "p.pkl"
    path.write_bytes(pickle.dumps({"a,0902": np.zeros((0, 5)), "a,0903": [], "a,0904": [[0, 0, 1, 1]]}))
    read = read_proposals(path)
    assert (read.frame.tolist(), read.score.tolist()) == ([904], [1.0])


def test_keyframes_without_a_person_are_trained_on_as_such(video):
    """AVA-Kinetics' rows of two columns, and its seconds with decimals."""
    (video / "annotations").mkdir()
    write(video, ROWS.replace(",2,", ",902.0,").replace(",3,", ",903.5,") + "movie,904.25\n", labels=MAP)
    split = load(video)
    assert split.keyframes == (("movie", 902), ("movie", 903), ("movie", 904))
    assert [len(split.targets(i).boxes) for i in range(3)] == [1, 1, 0]


def test_images_that_count_from_0_are_the_same_frames(made_ucf, tmp_path):
    act = UCF24.read_annotations(made_ucf)
    video = act.test_videos[0][0]
    numbered_from_1 = UCF24.find_source(made_ucf, video)
    root = shutil.copytree(made_ucf, tmp_path / "from0")
    folder = root / numbered_from_1.folder.relative_to(made_ucf)
    for path in sorted(folder.iterdir()):
        path.rename(folder / f"{int(path.stem) - 1:05d}.jpg")
    source = UCF24.find_source(root, video)
    assert (source.first, source.count) == (0, numbered_from_1.count)
    frames = np.array([0, 3, source.count - 1])
    np.testing.assert_array_equal(source.read(frames), numbered_from_1.read(frames))
    assert not [error for report in inspect("ucf24", root) for error in report.errors]


@pytest.fixture(scope="module")
def made_ucf(tmp_path_factory):
    """A small tree in UCF101-24's format, with extracted frames."""
    out = tmp_path_factory.mktemp("own") / "ucf"
    assert main(["make", "--shape", "ucf24", "--out", str(out), "--clips", "6", "--images", "frames"]) == 0
    return out


def test_an_image_that_is_missing_in_the_middle_fails_the_check(made_ucf, tmp_path):
    root = shutil.copytree(made_ucf, tmp_path / "hole")
    act = UCF24.read_annotations(root)
    folder = UCF24.find_source(root, act.test_videos[0][0]).folder
    gone = sorted(folder.iterdir())[4]
    gone.unlink()
    errors = [error for report in inspect("ucf24", root) for error in report.errors]
    assert any(f"{gone}: no such image, and 0 more of 1 to" in error for error in errors)


def test_frames_of_another_size_are_a_warning_and_drawn_in_proportion(made_ucf, tmp_path):
    root = shutil.copytree(made_ucf, tmp_path / "small")
    video = UCF24.read_annotations(root).test_videos[0][0]
    for path in UCF24.find_source(root, video).folder.iterdir():
        with Image.open(path) as image:
            small = image.resize((32, 24))
        small.save(path)
    (root / "dataset.json").write_text('{"mirrored": {"left": "right"}}')
    reports = inspect("ucf24", root)
    [warning] = {text for report in reports for text in report.warnings}
    assert f"{video}: frames of 32 x 24, but its boxes are in pixels of" in warning
    [report] = [report for report in reports if video in report.sizes and report.name == "test 1"]
    assert report.sizes[video] != (32, 24)


def test_every_reader_exchanges_the_labels_that_dataset_json_pairs(small_benchmark, made_ucf, tmp_path):
    clips = {"frames": 4, "stride": 1, "crop": 32}
    for name, source, read in (
        ("ava", small_benchmark, partial(ava.load, fps=synthetic.FPS)),
        ("ucf24", made_ucf, UCF24.load),
    ):
        root = tmp_path / name
        root.mkdir()
        for path in source.iterdir():
            if path.name != "dataset.json":
                (root / path.name).symlink_to(path)
        before = benchmark_fingerprint(name, root)
        split = read(root, "train", **clips)
        assert split.mirrored["left"] == "left"
        (root / "dataset.json").write_text('{"mirrored": {"left": "right"}}')
        split = read(root, "train", **clips)
        assert (split.mirrored["left"], split.mirrored["right"], split.mirrored["up"]) == (
            "right",
            "left",
            "up",
        )
        assert benchmark_fingerprint(name, root) != before, "a training follows from it"
        assert read(root, "train", **clips, mirrored={}).mirrored["left"] == "left", "as it is told"
        (root / "dataset.json").write_text('{"mirrored": {"left": "rigth"}}')
        with pytest.raises(ValueError, match=r"dataset.json: mirrored: 'rigth' is none of the classes"):
            read(root, "train", **clips)
        with pytest.raises(ValueError, match=r"dataset.json: mirrored: 'rigth' is none of the classes"):
            inspect(name, root)


def benchmark_fingerprint(name, root):
    return ava.fingerprint(root) if name == "ava" else UCF24.fingerprint(root)


def test_classes_that_name_a_side_are_a_warning_where_no_pair_is_given(made_ucf, tmp_path):
    root = shutil.copytree(made_ucf, tmp_path / "ucf")
    (root / "dataset.json").unlink()
    assert any(
        "with 'left', 'right' labelled as before" in text for text in inspect("ucf24", root)[0].warnings
    )


def test_a_video_in_both_splits_is_a_warning(video):
    (video / "annotations").mkdir()
    write(video, ROWS.replace(",2,", ",902,").replace(",3,", ",903,"), labels=MAP)
    _, val = inspect("ava", video)
    assert any("1 videos are in train and in val, the first 'movie'" in text for text in val.warnings)
    assert not val.errors


# --- videos that are gone ------------------------------------------------------------------------


def test_ava_without_the_movies_that_are_gone(video, capsys):
    """Their ground truth goes, too; the others are as before."""
    (video / "annotations").mkdir()
    rows = ROWS.replace(",2,", ",902,").replace(",3,", ",903,")
    write(video, rows + rows.replace("movie", "gone"), labels=MAP)
    with pytest.raises(
        FileNotFoundError, match=r"'gone', but .*; --leave-out-missing does without such videos"
    ):
        load(video)
    for split in ("train", "val"):
        loaded = load(video, split, leave_out_missing=True)
        assert loaded.left_out == ("gone",)
        assert loaded.ground_truth.videos == ("movie",)
        assert len(loaded.ground_truth.label) == 2
        assert any("1 of 2 videos are missing and left out, first 'gone'" in note for note in loaded.notes)
    assert loaded.keyframes[:2] == (("movie", 902), ("movie", 903))
    options = ["check", "--dataset", "ava", "--root", str(video), "--sample", "0"]
    assert main(options) == 1
    capsys.readouterr()
    assert main([*options, "--leave-out-missing"]) == 0
    assert "warning: train: 1 videos are missing and left out, first 'gone'" in capsys.readouterr().out
    write(video, rows + rows.replace("movie", "gone") + rows.replace("movie", "lost"), labels=MAP)
    with pytest.raises(FileNotFoundError, match=r"video 'gone', .*; so are 'lost'; --leave-out-missing"):
        load(video)
    shutil.rmtree(video / "videos")
    with pytest.raises(FileNotFoundError, match="none of the 3 videos is there"):
        load(video, leave_out_missing=True)
    assert main([*options, "--leave-out-missing"]) == 1, "nothing is there"


def test_tubes_without_the_videos_that_are_gone(made_ucf, tmp_path):
    root = shutil.copytree(made_ucf, tmp_path / "part")
    gone = UCF24.read_annotations(root).test_videos[0][0]
    shutil.rmtree(UCF24.find_source(root, gone).folder)
    for path in (root / "videos").rglob(f"{gone.rpartition('/')[2]}.*"):
        path.unlink()
    clips = {"frames": 4, "stride": 1, "crop": 32}
    with pytest.raises(FileNotFoundError):
        UCF24.load(root, "test", **clips)
    whole, part = (
        UCF24.load(made_ucf, "test", **clips),
        UCF24.load(root, "test", leave_out_missing=True, **clips),
    )
    assert part.left_out == (gone,)
    assert set(part.ground_truth.videos) == set(whole.ground_truth.videos) - {gone}
    assert set(part.keyframes) == {key for key in whole.keyframes if key[0] != gone}


def test_listed_clips_that_are_gone_are_left_out(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"is there")
    (tmp_path / "train.csv").write_text("a.mp4 0\nb.mp4 1\n")
    (tmp_path / "classes.txt").write_text("run\nsit\n")
    clips = {"frames": 4, "stride": 1, "crop": 32}
    with pytest.raises(FileNotFoundError, match=r"train\.csv, line 2: .*b\.mp4 does not exist; --leave-out"):
        kinetics.load(tmp_path, "train", **clips)
    part = kinetics.load(tmp_path, "train", leave_out_missing=True, **clips)
    assert (set(part.sources), part.left_out) == ({"a.mp4"}, ("b.mp4",))


# --- names and suffixes --------------------------------------------------------------------------


def test_a_video_name_with_its_suffix_is_the_file(video):
    (video / "annotations").mkdir()
    write(
        video, ROWS.replace(",2,", ",902,").replace(",3,", ",903,").replace("movie", "movie.mp4"), labels=MAP
    )
    assert load(video).keyframes == (("movie.mp4", 902), ("movie.mp4", 903))


@pytest.mark.parametrize("name", ["img_%05d.png", "img_%05d.jpeg", "img_%05d.JPG", "img_%06d.jpg"])
def test_frames_of_another_suffix_are_found(video, name):
    suffix = f".{name.rpartition('.')[2]}"
    save_frames(video / "videos" / "movie.mp4", video / "rawframes" / "movie", name, first=1)
    source = ava.find_source(video, "movie", video / "train.csv")
    assert (source.count, source.image(0).suffix) == (96, suffix)


def test_an_action_id_of_0_is_a_class_like_any_other(video):
    """Label maps of one's own may count from 0."""
    (video / "annotations").mkdir()
    rows = ROWS.replace(",2,", ",902,").replace(",3,", ",903,").replace(",12,", ",0,").replace(",80,", ",1,")
    write(video, rows, labels='item { name: "stand" id: 0 }\nitem { name: "watch" id: 1 }\n')
    (video / "annotations" / "ava_action_list_v2.2_for_activitynet_2019.pbtxt").unlink()
    split = load(video)
    assert split.classes == {0: "stand", 1: "watch"}
    assert [split.targets(i).labels.tolist() for i in range(2)] == [[[1, 0]], [[0, 1]]]
    assert not [error for report in inspect("ava", video) for error in report.errors]


# --- maps and exclusions that do not belong ------------------------------------------------------


def test_evaluated_classes_that_training_lacks_or_calls_otherwise(video, capsys):
    (video / "annotations").mkdir()
    rows = ROWS.replace(",2,", ",902,").replace(",3,", ",903,")
    write(video, rows, labels=MAP.replace('"stand"', '"walk"'))
    assert any("12: 'stand', there 'walk'; do the ids agree?" in note for note in load(video).notes)
    write(video, rows, labels=MAP + 'item { name: "sit" id: 7 }\n')
    evaluated = video / "annotations" / "ava_action_list_v2.2_for_activitynet_2019.pbtxt"
    evaluated.write_text('item { name: "fly" id: 8 }\n')
    with pytest.raises(
        ValueError, match=r"2019\.pbtxt: class 8 \('fly'\) is not among the 3 classes of training"
    ):
        load(video)
    assert main(["check", "--dataset", "ava", "--root", str(video), "--sample", "0"]) == 2


def test_exclusions_of_everything_or_of_nothing(video):
    (video / "annotations").mkdir()
    rows = ROWS.replace(",2,", ",902,").replace(",3,", ",903,")
    write(video, rows, excluded="movie,0902\nmovie,0903\n", labels=MAP)
    train, _ = inspect("ava", video)
    assert "train: every annotated second is excluded; nothing is left" in train.errors
    write(video, rows, excluded="movie.mp4,0902\n", labels=MAP)
    train, _ = inspect("ava", video)
    assert any(
        "none of the 1 exclusions is of a video of the ground truth" in text for text in train.warnings
    )


# --- pickles that lack something -----------------------------------------------------------------


def change_pickle(root, change):
    path = root / "UCF101v2-GT.pkl"
    content = pickle.loads(path.read_bytes())
    change(content)
    path.write_bytes(pickle.dumps(content, 2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("train_videos"), "no train videos in split 1"),
        (lambda c: c["nframes"].pop(c["train_videos"][0][0]), "nframes has no video"),
        (
            lambda c: c["train_videos"][0].append(c["test_videos"][0][0]),
            "is in both train_videos and test_videos",
        ),
    ],
)
def test_what_fails_in_training_fails_the_check(made_ucf, tmp_path, change, message):
    root = shutil.copytree(made_ucf, tmp_path / "changed")
    change_pickle(root, change)
    errors = [error for report in inspect("ucf24", root) for error in report.errors]
    assert any(message in error for error in errors)
    with pytest.raises(ValueError, match="UCF101v2-GT"):
        UCF24.load(root, "train", frames=4, stride=1, crop=32)


def test_sizes_may_be_arrays_of_numpy(made_ucf, tmp_path):
    root = shutil.copytree(made_ucf, tmp_path / "arrays")
    change_pickle(
        root, lambda c: c["resolution"].update({v: np.array(s) for v, s in c["resolution"].items()})
    )
    assert UCF24.read_annotations(root).resolution == UCF24.read_annotations(made_ucf).resolution


def test_an_empty_image_fails_the_check(made_ucf, tmp_path):
    root = shutil.copytree(made_ucf, tmp_path / "empty")
    folder = UCF24.find_source(root, UCF24.read_annotations(root).test_videos[0][0]).folder
    empty = sorted(folder.iterdir())[5]
    empty.write_bytes(b"")
    errors = [error for report in inspect("ucf24", root) for error in report.errors]
    assert f"{empty}: an empty file, one of 1; extract the frames again" in errors


@pytest.mark.parametrize(("name", "file"), [("movie", "movie.M4V"), ("movie.MP4", "movie.mp4")])
def test_videos_of_another_suffix_or_case_are_found(video, name, file):
    (video / "videos" / "movie.mp4").rename(video / "videos" / file)
    assert ava.find_source(video, name, video / "train.csv") == video / "videos" / file
