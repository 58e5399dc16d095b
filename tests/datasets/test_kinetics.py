"""Kinetics and its like: videos in folders by class or in a list, from real small video files."""

import numpy as np
import pytest

from datasets import kinetics, synthetic_clips
from datasets.generate import write_video
from datasets.scenes import ACTIONS, FLIPPED, FPS
from datasets.synthetic import H264

CLIP = {"frames": 4, "stride": 2, "crop": 16}


def video(path, brightness):
    """A video of 20 frames at 10 frames a second, frame i of grey brightness + i."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = np.empty((20, 16, 32, 3), np.uint8)
    frames[:] = (brightness + np.arange(20))[:, None, None, None]
    write_video(path, frames, H264, 10)


@pytest.fixture
def folders(tmp_path):
    """Two classes; the second has no clip in val."""
    for name in ("train/eat cake/a", "train/eat cake/b", "train/run/c", "val/eat cake/d"):
        video(tmp_path / f"{name}.mp4", 40)
    return tmp_path


def test_folders_are_classes_and_the_middle_of_a_video_is_its_clip(folders):
    split = kinetics.load(folders, "train", fps=10, **CLIP)
    assert split.classes == {1: "eat cake", 2: "run"}
    assert [key[0] for key in split.keyframes] == [
        "train/eat cake/a.mp4", "train/eat cake/b.mp4", "train/run/c.mp4",
    ]  # fmt: skip
    assert [split.targets(i).labels.tolist() for i in range(3)] == [[[1, 0]], [[1, 0]], [[0, 1]]]
    assert split.targets(0).boxes.tolist() == [[0.5, 0.5, 1, 1]], "the whole frame"
    clip = split.read(0)
    assert clip.shape == (4, 16, 32, 3)
    assert clip.mean((1, 2, 3)) == pytest.approx([46, 48, 50, 52], abs=2), "frames 6, 8, 10, 12 of 20"
    held_out = kinetics.load(folders, "val", fps=10, **CLIP)
    assert held_out.classes == split.classes
    assert held_out.targets(0).labels.tolist() == [[1, 0]]


def test_several_places_of_a_video_are_evenly_spaced(folders):
    split = kinetics.load(folders, "train", fps=10, places=5, **CLIP)
    assert len(split) == 15
    middles = [split.keyframe(i).mean() for i in range(5)]
    assert middles == pytest.approx([42, 46, 50, 54, 58], abs=2)


def test_stride_counts_in_frames_of_the_given_rate(folders):
    """At 5 frames a second a stride of 2 is four of the file's frames; the edges are repeated."""
    clip = kinetics.load(folders, "train", fps=5, **CLIP).read(0)
    assert clip.mean((1, 2, 3)) == pytest.approx([42, 46, 50, 54], abs=2)


@pytest.fixture
def listed(tmp_path):
    """A list with one clip of two classes, a path with a space, and one line with commas."""
    for name in ("v/a b", "v/c", "v/d"):
        video(tmp_path / f"{name}.mp4", 40)
    (tmp_path / "train.csv").write_text("v/a b.mp4 2 0\nv/c.mp4,1\n\n")
    (tmp_path / "val.csv").write_text("v/d.mp4 1\n")
    (tmp_path / "classes.txt").write_text("eat\nrun\nsleep\n")
    return tmp_path


def test_a_list_gives_paths_and_one_or_several_labels_from_0(listed):
    split = kinetics.load(listed, "train", **CLIP)
    assert split.classes == {1: "eat", 2: "run", 3: "sleep"}
    assert [split.targets(i).labels.tolist() for i in range(2)] == [[[1, 0, 1]], [[0, 1, 0]]]
    assert split.ground_truth.label.tolist() == [1, 3, 2]
    assert kinetics.load(listed, "val", **CLIP).targets(0).labels.tolist() == [[0, 1, 0]]
    (listed / "classes.txt").unlink()
    assert kinetics.load(listed, "val", **CLIP).classes == {1: "0", 2: "1", 3: "2"}, "those of train.csv"


def test_a_flip_exchanges_classes_with_a_direction(listed):
    split = kinetics.load(listed, "train", mirrored={"eat": "run", "run": "eat"}, **CLIP)
    assert split.flipped_columns.tolist() == [1, 0, 2]


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("train.csv", "v/c.mp4\n", r"train\.csv, line 1: 'v/c\.mp4' is not a path and its labels"),
        ("train.csv", "v/c.mp4 run\n", r"train\.csv, line 1: .*numbers from 0"),
        ("train.csv", "v/c.mp4 1\nv/x.mp4 1\n", r"train\.csv, line 2: .*x\.mp4 does not exist"),
        ("train.csv", "v/c.mp4 1\nv/c.mp4 2\n", r"line 2: v/c\.mp4 is there twice"),
        ("train.csv", "v/c.mp4 3\n", r"label 3, but .*classes\.txt has 3 names"),
        ("train.csv", "v/c.mp4 5000000000\n", "line 1: label 5000000000; at most 100,000 classes are read"),
        ("train.csv", "\n", "no clips in it"),
        ("classes.txt", "eat\neat\nrun\n", "a name is there twice"),
    ],
)
def test_a_broken_list_is_named_with_its_line(listed, file, text, message):
    (listed / file).write_text(text)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        kinetics.load(listed, "train", **CLIP)


def test_all_that_is_wrong_in_a_list_is_told_at_once(listed):
    (listed / "train.csv").write_text("v/c.mp4\nv/c.mp4 1\nv/gone.mp4 1\nv/c.mp4 2\nv/d.mp4 0 3\n")
    with pytest.raises(ValueError, match="line 1") as error:
        kinetics.load(listed, "train", **CLIP)
    assert str(error.value).removeprefix(f"{listed / 'train.csv'}, ").splitlines() == [
        "line 1: 'v/c.mp4' is not a path and its labels; labels are numbers from 0, with spaces or commas "
        "between them",
        "line 4: v/c.mp4 is there twice; give its labels in one line",
        f"line 5: label 3, but {listed / 'classes.txt'} has 3 names; labels count from 0",
    ]
    (listed / "train.csv").write_text("v/c.mp4 1\n" + "".join(f"v/{i}.mp4 1\n" for i in range(1030)))
    with pytest.raises(FileNotFoundError) as error:
        kinetics.load(listed, "train", **CLIP)
    lines = str(error.value).splitlines()
    assert lines[1] == f"line 3: {listed / 'v' / '1.mp4'} does not exist"
    assert (len(lines), lines[-1]) == (21, ".. and 1,010 more")


def test_a_list_may_have_a_byte_order_mark_and_is_utf_8(listed):
    (listed / "train.csv").write_bytes("\ufeffv/c.mp4 1\r\n".encode())
    assert kinetics.load(listed, "train", **CLIP).keyframes == (("v/c.mp4", 0),)
    (listed / "train.csv").write_bytes("v/d.mp4 1\nv/\xe9.mp4 1\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"train\.csv, line 2: the byte 0xe9 is not UTF-8; save the file as"):
        kinetics.load(listed, "train", **CLIP)


def test_a_set_with_clips_that_are_gone_has_a_fingerprint(listed):
    """The names of the list, whatever of it is there."""
    whole = kinetics.fingerprint(listed)
    (listed / "v" / "c.mp4").unlink()
    assert kinetics.fingerprint(listed) == whole


def test_a_missing_or_empty_tree_says_what_is_expected(folders, tmp_path):
    with pytest.raises(FileNotFoundError, match="no such data folder; give it as --data kinetics=FOLDER"):
        kinetics.load(tmp_path / "none", "train", **CLIP)
    with pytest.raises(FileNotFoundError, match=r"neither a folder test/<class>/ nor a file test\.csv"):
        kinetics.load(folders, "test", **CLIP)
    (folders / "test" / "run").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"no <class>/<video> in it that ends with \.mp4"):
        kinetics.load(folders, "test", **CLIP)
    video(folders / "test" / "swim" / "x.mp4", 40)
    with pytest.raises(ValueError, match=r"swim: a class that .*train does not have"):
        kinetics.load(folders, "test", **CLIP)


def test_the_fingerprint_follows_names_and_classes(folders):
    before = kinetics.fingerprint(folders)
    assert kinetics.fingerprint(folders) == before
    (folders / "train" / "run" / "c.mp4").rename(folders / "train" / "eat cake" / "c.mp4")
    assert kinetics.fingerprint(folders) != before


def test_synthetic_clips_are_a_list_of_short_videos_of_one_large_person(tmp_path):
    size = synthetic_clips.ClipsSize(train=80, val=2, test=2, seed=5)
    root = synthetic_clips.make(tmp_path, size)
    assert synthetic_clips.make(tmp_path, size) == root
    split = kinetics.load(root, "train", frames=8, stride=2, crop=64, fps=FPS, mirrored=FLIPPED)
    assert tuple(split.classes.values()) == ACTIONS
    assert len(split) == 80
    labels = split.annotations.labels.float()
    assert (labels[:, :5].sum(1) == 1).all(), "one movement each"
    assert (labels.mean(0) > 0.06).all(), "no class is rare"
    clip = split.read(0)
    assert clip.shape == (8, 64, 80, 3)
    red = (clip[4, ..., 0] > 200) & (clip[4, ..., 1] < 60) & (clip[4, ..., 2] < 60)
    assert red.any(), "the actor's core at the middle of the clip"
    names = {video for split in ("val", "test") for video, _ in kinetics.load(root, split, **CLIP).keyframes}
    assert len(names) == 4
