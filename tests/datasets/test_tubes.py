"""Loading UCF101-24 and JHMDB from files written by hand: items, actors, frames and errors."""

import pickle

import numpy as np
import pytest
from PIL import Image

from actloc_core.clip import VideoError
from datasets import jhmdb, ucf24

HEIGHT, WIDTH = 24, 32
CLIP = {"frames": 4, "stride": 1, "crop": 8}


def tube(first, boxes):
    return np.array([[first + i, *box] for i, box in enumerate(boxes)], np.float32)


def write(root, file, *, gttubes, nframes, train, test, labels=("run", "jump")):
    content = {
        "labels": list(labels),
        "gttubes": gttubes,
        "nframes": nframes,
        "resolution": dict.fromkeys(nframes, (HEIGHT, WIDTH)),
        "train_videos": train,
        "test_videos": test,
    }
    (root / file).write_bytes(pickle.dumps(content, protocol=2))


def write_images(folder, name, count):
    """Write images; image n has brightness n."""
    folder.mkdir(parents=True)
    for n in range(1, count + 1):
        Image.new("RGB", (WIDTH, HEIGHT), (n, n, n)).save(folder / (name % n))


@pytest.fixture
def jhmdb_root(tmp_path):
    box = (8, 6, 16, 18)
    videos = {f"run/v{i}": 5 + i for i in range(3)}
    write(
        tmp_path,
        jhmdb.JHMDB.file,
        gttubes={v: {0: [tube(1, [box] * n)]} for v, n in videos.items()},
        nframes=videos,
        train=[["run/v0", "run/v1"], ["run/v1", "run/v2"], ["run/v0", "run/v2"]],
        test=[["run/v2"], ["run/v0"], ["run/v1"]],
    )
    for video, count in videos.items():
        write_images(tmp_path / "Frames" / video, "%05d.png", count)
    return tmp_path


@pytest.fixture
def ucf_root(tmp_path):
    """A training video with actors on frames 3-5 and 4; a test video of 6 frames, 2 annotated."""
    write(
        tmp_path,
        ucf24.UCF24.file,
        gttubes={
            "Run/a": {0: [tube(3, [(0, 0, 16, 12)] * 3), tube(4, [(16, 12, 32, 24)])]},
            "Jump/b": {1: [tube(2, [(0, 0, 8, 24)] * 2)]},
        },
        nframes={"Run/a": 8, "Jump/b": 6},
        train=[["Run/a"]],
        test=[["Jump/b"]],
    )
    for video, count in (("Run/a", 8), ("Jump/b", 6)):
        write_images(tmp_path / "rgb-images" / video, "%05d.jpg", count)
    return tmp_path


def brightness(split, index):
    return split.read(index)[:, 0, 0, 0].tolist()


def test_image_n_is_annotation_frame_n_and_the_keyframe_is_central(jhmdb_root):
    split = jhmdb.load(jhmdb_root, "test", **CLIP)
    assert split.keyframes == tuple(("run/v2", frame) for frame in range(1, 8))
    assert brightness(split, 3) == [2, 3, 4, 5], "frame 4 at index 2, two frames before and one after"
    assert brightness(split, 0) == [1, 1, 1, 2]
    assert brightness(split, 6) == [5, 6, 7, 7]
    assert split.keyframe(3)[0, 0].tolist() == [4, 4, 4]


def test_boxes_are_fractions_for_the_model_and_pixels_for_evaluation(jhmdb_root):
    split = jhmdb.load(jhmdb_root, "train", **CLIP)
    clip, targets = split[0]
    assert clip.shape == (3, 4, 8, 8)
    assert targets.boxes.tolist() == [[12 / 32, 12 / 24, 8 / 32, 12 / 24]]
    assert targets.labels.tolist() == [[1, 0]]
    assert split.ground_truth.box[0].tolist() == [8, 6, 16, 18]
    assert split.box_unit("run/v0") == (WIDTH, HEIGHT)


def test_split_number_selects_one_of_three_splits(jhmdb_root):
    tests = [jhmdb.load(jhmdb_root, "test", number=n, **CLIP).ground_truth.videos for n in (1, 2, 3)]
    assert tests == [("run/v2",), ("run/v0",), ("run/v1",)]
    with pytest.raises(ValueError, match="no split 4; its splits are 1 to 3"):
        jhmdb.load(jhmdb_root, "test", number=4, **CLIP)
    with pytest.raises(ValueError, match="'train' and 'test', not 'val'"):
        jhmdb.load(jhmdb_root, "val", **CLIP)


def test_training_items_are_annotated_frames_and_test_items_all_frames(ucf_root):
    train, test = ucf24.load(ucf_root, "train", **CLIP), ucf24.load(ucf_root, "test", **CLIP)
    assert train.keyframes == (("Run/a", 3), ("Run/a", 4), ("Run/a", 5))
    assert [len(train.targets(i).boxes) for i in range(3)] == [1, 2, 1]
    assert test.keyframes == tuple(("Jump/b", n) for n in range(1, 7))
    assert [len(test.targets(i).boxes) for i in range(6)] == [0, 1, 1, 0, 0, 0]
    assert test.targets(0).labels.shape == (0, 2)
    assert test.targets(1).labels.tolist() == [[0, 1]]


def test_every_subsamples_training_frames_only(ucf_root):
    assert ucf24.load(ucf_root, "train", every=2, **CLIP).keyframes == (("Run/a", 3), ("Run/a", 5))
    assert len(ucf24.load(ucf_root, "test", every=2, **CLIP)) == 6
    with pytest.raises(ValueError, match="every 0-th frame"):
        ucf24.load(ucf_root, "train", every=0, **CLIP)


def test_invalid_boxes_are_left_out_of_training_only(ucf_root):
    """An inverted box, one that leaves the image, one past the video's end."""
    bad = tube(6, [(20, 0, 10, 12), (-4, 0, 40, 12), (0, 0, 8, 8)])
    good = [tube(1, [(0, 0, 8, 8)] * 8) for _ in range(20)]  # few invalid boxes among many
    write(
        ucf_root, ucf24.UCF24.file, gttubes={"Run/a": {0: [bad, *good]}, "Jump/b": {1: good[:1]}},
        nframes={"Run/a": 7, "Jump/b": 6}, train=[["Run/a"]], test=[["Jump/b"]],
    )  # fmt: skip
    split = ucf24.load(ucf_root, "train", **CLIP)
    assert ("Run/a", 8) not in split.keyframes
    counts = {frame: len(split.targets(i).boxes) for i, (_, frame) in enumerate(split.keyframes)}
    assert (counts[5], counts[6], counts[7]) == (20, 20, 21)
    clipped = split.targets(split.keyframes.index(("Run/a", 7))).boxes[0]
    assert clipped.tolist() == [0.5, 0.25, 1, 0.5], "clipped to the image"
    assert len(split.ground_truth.label) == 20 * 8 + 3


def test_error_names_a_missing_or_truncated_video(ucf_root):
    (ucf_root / "rgb-images" / "Jump" / "b" / "00006.jpg").unlink()
    with pytest.raises(ValueError, match=r"Jump/b: 5 images, but .*UCF101v2-GT.pkl says 6 .*00006\.jpg"):
        ucf24.load(ucf_root, "test", **CLIP)
    (ucf_root / "rgb-images" / "Run" / "a" / "00005.jpg").unlink()
    split = ucf24.load(ucf_root, "train", **CLIP)  # training replaces unreadable clips and counts them
    with pytest.raises(VideoError, match=r"00005\.jpg: no such image"):
        split.read(2)
    (ucf_root / "rgb-images" / "Run" / "a").rename(ucf_root / "elsewhere")
    with pytest.raises(
        FileNotFoundError, match=r"names video 'Run/a', but none of its files exists: .*videos/Run/a"
    ):
        ucf24.load(ucf_root, "train", **CLIP)


def test_error_names_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such data folder"):
        ucf24.load(tmp_path / "no", "train", **CLIP)
    with pytest.raises(FileNotFoundError, match=r"no UCF101v2-GT\.pkl in it"):
        ucf24.load(tmp_path, "train", **CLIP)


def test_error_names_an_image_that_is_damaged_or_of_another_size(ucf_root):
    folder = ucf_root / "rgb-images" / "Run" / "a"
    split = ucf24.load(ucf_root, "train", **CLIP)
    Image.new("RGB", (4, 4)).save(folder / "00002.jpg")
    with pytest.raises(VideoError, match=r"00002\.jpg|00003\.jpg"):
        split.read(0)
    (folder / "00002.jpg").write_bytes((folder / "00003.jpg").read_bytes()[:100])
    with pytest.raises(VideoError, match=r"00002\.jpg: not a readable image"):
        split.read(0)


@pytest.mark.parametrize("name", ["../a", "Run/../../a", "/Run/a"])
def test_video_name_outside_the_data_folder_is_refused(ucf_root, name):
    one = {0: [tube(1, [(0, 0, 8, 8)])]}
    write(
        ucf_root, ucf24.UCF24.file, gttubes={name: one, "Jump/b": one}, nframes={name: 8, "Jump/b": 6},
        train=[[name]], test=[["Jump/b"]],
    )  # fmt: skip
    with pytest.raises(ValueError, match="not a path inside the data folder"):
        ucf24.load(ucf_root, "train", **CLIP)


def test_pickle_with_code_is_refused_and_not_executed(ucf_root, tmp_path):
    class Hostile:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    (ucf_root / ucf24.UCF24.file).write_bytes(pickle.dumps({"labels": Hostile()}, protocol=2))
    with pytest.raises(ValueError, match=r"UCF101v2-GT\.pkl"):
        ucf24.load(ucf_root, "train", **CLIP)
    assert not (tmp_path / "ran").exists()


def test_video_in_both_train_and_test_is_refused(ucf_root):
    one = {0: [tube(1, [(0, 0, 8, 8)])]}
    write(
        ucf_root,
        ucf24.UCF24.file,
        gttubes={"Run/a": one},
        nframes={"Run/a": 8},
        train=[["Run/a"]],
        test=[["Run/a"]],
    )
    with pytest.raises(ValueError, match="'Run/a' is in both train_videos and test_videos"):
        ucf24.load(ucf_root, "train", **CLIP)


def test_fingerprint_changes_with_the_annotations(ucf_root):
    before = ucf24.fingerprint(ucf_root)
    assert before == ucf24.fingerprint(ucf_root)
    (ucf_root / ucf24.UCF24.file).write_bytes(b"other")
    assert ucf24.fingerprint(ucf_root) != before
