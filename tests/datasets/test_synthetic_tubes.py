"""Synthetic UCF101-24 and JHMDB: real formats, reproducible bytes, and boxes on every frame."""

import numpy as np
import pytest
from PIL import Image

from actloc_core.clip import probe, read_frames
from datasets import synthetic, synthetic_tubes
from datasets.__main__ import main
from datasets.scenes import ASPECT, HEIGHT, WIDTH
from datasets.synthetic_tubes import TubeSize
from datasets.tube_scenes import MOTIONS, sample_tube_scene
from evaluators.act_pickle import load_plain, read_act, split_ground_truth

SIZE = TubeSize(train=16, test=8, seed=3)


@pytest.fixture(scope="module")
def ucf24(tmp_path_factory):
    """ucf24 with extracted frames beside the videos."""
    return synthetic_tubes.make(tmp_path_factory.mktemp("ucf24"), "ucf24", SIZE, images="frames")


@pytest.fixture(scope="module")
def jhmdb(tmp_path_factory):
    return synthetic_tubes.make(tmp_path_factory.mktemp("jhmdb"), "jhmdb", SIZE)


@pytest.fixture(scope="module")
def jhmdb_videos(tmp_path_factory):
    return synthetic_tubes.make(tmp_path_factory.mktemp("jhmdb"), "jhmdb", SIZE, images="videos")


def tubes_of(annotations):
    """(video, label, frames, boxes) of every tube."""
    gt = annotations.ground_truth
    for tube in np.unique(gt.tube):
        rows = gt.tube == tube
        first = int(np.argmax(rows))
        yield gt.videos[gt.video[first]], gt.label[first], gt.frame[rows], gt.box[rows]


def images_of(folder, suffix, count):
    paths = [folder / f"{number:05d}.{suffix}" for number in range(1, count + 1)]
    assert sorted(folder.iterdir()) == paths, "numbered from 1, one per frame"
    return np.stack([np.array(Image.open(path)) for path in paths])


def video_of(path, count):
    assert probe(path).frames == count
    return read_frames(path, np.arange(count))


def red_off_centre(image, box):
    """Distance in pixels from the centre of the box to that of the reddest pixels in it."""
    x1, y1, x2, y2 = box
    ys, xs = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    inside = (xs > x1) & (xs < x2) & (ys > y1) & (ys < y2)
    red = image[..., 0] - image[..., 1:].max(axis=-1).astype(float)
    core = inside & (red > (np.median(red[inside]) + red[inside].max()) / 2)
    return np.hypot(xs[core].mean() - (x1 + x2) / 2, ys[core].mean() - (y1 + y2) / 2)


@pytest.mark.parametrize(
    ("made", "annotations", "read"),
    [
        ("ucf24", "UCF101v2-GT.pkl", lambda root, v, n: video_of(root / "videos" / f"{v}.avi", n)),
        ("ucf24", "UCF101v2-GT.pkl", lambda root, v, n: images_of(root / "rgb-images" / v, "jpg", n)),
        ("jhmdb", "JHMDB-GT.pkl", lambda root, v, n: images_of(root / "Frames" / v, "png", n)),
        ("jhmdb_videos", "JHMDB-GT.pkl", lambda root, v, n: video_of(root / "videos" / f"{v}.avi", n)),
    ],
    ids=["ucf24 videos", "ucf24 frames", "jhmdb frames", "jhmdb videos"],
)
def test_image_n_matches_the_boxes_of_frame_n(made, annotations, read, request):
    """Independent of the drawing code: the red core is at the centre of the box in every frame."""
    root = request.getfixturevalue(made)
    act = read_act(root / annotations)
    pixels = {video: read(root, video, act.nframes[video]) for video in act.nframes}
    off = [
        red_off_centre(pixels[video][frame - 1], box)
        for video, _, frames, boxes in tubes_of(act)
        for frame, box in zip(frames[::5], boxes[::5], strict=True)
    ]
    assert len(off) > 60
    assert np.quantile(off, 0.95) < 1.5
    late = [
        red_off_centre(pixels[video][frame], box)
        for video, label, frames, boxes in tubes_of(act)
        if MOTIONS[label] in ("left", "right", "up", "down")
        for frame, box in zip(frames[:-1:5], boxes[:-1:5], strict=True)
    ]
    assert np.mean(late) > np.mean(off) + 0.2, "an offset of one image is noticed"


def test_ucf24_tubes_are_parts_of_their_videos(ucf24):
    act = read_act(ucf24 / "UCF101v2-GT.pkl")
    assert act.labels == MOTIONS
    tubes = list(tubes_of(act))
    per_video = [sum(video == tube[0] for tube in tubes) for video in act.ground_truth.videos]
    assert set(per_video) == {1, 2, 3}
    for video, label, frames, _ in tubes:
        assert video.startswith(f"{MOTIONS[label]}/v_{MOTIONS[label]}_g"), "a video shows one class"
        assert frames.tolist() == list(range(frames[0], frames[-1] + 1))
        assert 30 <= act.nframes[video] <= 50
        assert frames[0] > 1
        assert frames[-1] < act.nframes[video]
        assert 20 <= len(frames) <= 40


def test_jhmdb_has_one_tube_over_every_frame(jhmdb):
    act = read_act(jhmdb / "JHMDB-GT.pkl")
    tubes = list(tubes_of(act))
    assert [tube[0] for tube in tubes] == list(act.nframes), "one per video"
    for video, label, frames, _ in tubes:
        assert video.startswith(f"{MOTIONS[label]}/")
        assert 15 <= act.nframes[video] <= 25
        assert frames.tolist() == list(range(1, act.nframes[video] + 1))


def test_splits_have_disjoint_groups_and_all_classes(ucf24, jhmdb):
    act = read_act(ucf24 / "UCF101v2-GT.pkl")
    (train,), (test,) = act.train_videos, act.test_videos
    assert (len(train), len(test)) == (16, 8)
    assert set(train) | set(test) == set(act.nframes)
    assert not {v.rsplit("_", 1)[0] for v in train} & {v.rsplit("_", 1)[0] for v in test}, "a group in both"
    assert "left/v_left_g01_c01" in test

    act = read_act(jhmdb / "JHMDB-GT.pkl")
    assert len(act.train_videos) == len(act.test_videos) == 3
    for train, test in zip(act.train_videos, act.test_videos, strict=True):
        assert (len(train), len(test)) == (16, 8)
        assert set(train) | set(test) == set(act.nframes)
        assert {v.split("/")[0] for v in test} == set(MOTIONS), "no class is without test videos"
    assert len(set(act.test_videos)) == 3, "each split tests on other videos"
    assert len(split_ground_truth(act, 2).box) == sum(act.nframes[v] for v in act.test_videos[1])


def test_pickle_has_acts_schema_and_protocol(ucf24):
    path = ucf24 / "UCF101v2-GT.pkl"
    assert path.read_bytes()[:2] == b"\x80\x02", "protocol 2"
    content = load_plain(path)
    video = content["test_videos"][0][0]
    assert content["resolution"][video] == (64, 80), "height, width"
    ((label, tubes),) = content["gttubes"][video].items()
    assert content["labels"][label] == video.split("/")[0]
    assert {(tube.dtype.str, tube.shape[1]) for tube in tubes} == {("<f4", 5)}


@pytest.mark.parametrize("shape", synthetic_tubes.SHAPES)
def test_bodies_stay_in_the_image_and_apart(shape):
    """All bodies, annotated or not, in all frames of many videos."""
    for number in range(80):
        rng = np.random.default_rng(number)
        scene = sample_tube_scene(rng, shape, MOTIONS[number % 8])
        assert len(scene.tubes) >= 1
        boxes = np.stack([track.boxes for track in scene.tracks])
        assert boxes.shape == (len(scene.tracks), scene.length, 4)
        assert boxes[..., :2].min() > 0.99, "a pixel of margin"
        assert (boxes[..., 2:] < (WIDTH - 0.99, HEIGHT - 0.99)).all()
        for i, one in enumerate(boxes):
            for other in boxes[:i]:
                sides = np.minimum(one[:, 2:], other[:, 2:]) - np.maximum(one[:, :2], other[:, :2])
                assert (sides.clip(0).prod(1) < 0.1 * (one[:, 2:] - one[:, :2]).prod(1)).all()


def test_boxes_of_a_tube_move_as_its_label_says():
    """Velocity and growth, measured from the boxes."""
    for number in range(80):
        motion = MOTIONS[number % 8]
        scene = sample_tube_scene(np.random.default_rng(number), "jhmdb", motion)
        (_, *first), (_, *last) = scene.tubes[0][[0, -1]].astype(float)
        width, height = first[2] - first[0], first[3] - first[1]
        steps = scene.length - 1
        right = (last[0] + last[2] - first[0] - first[2]) / 2 / steps
        down = (last[1] + last[3] - first[1] - first[3]) / 2 / steps
        growth = np.log((last[3] - last[1]) / height) / steps
        assert width / height == pytest.approx(ASPECT, rel=1e-4)
        for value, minimum, forward, backward in (
            (right, 0.4, "right", "left"),
            (down, 0.4, "down", "up"),
            (growth, 0.02, "grow", "shrink"),
        ):
            if motion in (forward, backward):
                assert value * (1 if motion == forward else -1) > minimum
            else:
                assert value == pytest.approx(0, abs=1e-4)


def test_random_access_by_decord_reads_the_videos_wrongly(ucf24):
    decord = pytest.importorskip("decord")
    path = min((ucf24 / "videos" / "right").iterdir())
    assert b"XVID" in path.read_bytes()[:300]
    count = probe(path).frames
    expected = read_frames(path, np.arange(count)).astype(int)
    wrong = [
        abs(decord.VideoReader(str(path), num_threads=1).get_batch([i]).asnumpy()[0] - expected[i]).max() > 60
        for i in range(count)
    ]
    assert sum(wrong) > count / 4


@pytest.mark.slow
def test_equal_seeds_give_equal_bytes_and_other_seeds_other_bytes(jhmdb_videos, ucf24, tmp_path):
    again = synthetic_tubes.make(tmp_path, "jhmdb", SIZE, images="videos")
    assert again.name == jhmdb_videos.name
    assert synthetic.fingerprint(again) == synthetic.fingerprint(jhmdb_videos)
    again = synthetic_tubes.make(tmp_path, "ucf24", SIZE, images="frames")
    assert synthetic.fingerprint(again) == synthetic.fingerprint(ucf24)
    other = synthetic_tubes.make(tmp_path, "jhmdb", TubeSize(train=1, test=1, seed=4), images="videos")
    first = "videos/left/left_001.avi"
    assert (other / first).read_bytes() != (jhmdb_videos / first).read_bytes()


def test_existing_copy_is_reused_and_a_damaged_file_is_named(tmp_path):
    calls = []
    size = TubeSize(train=3, test=1)
    root = synthetic_tubes.make(tmp_path, "jhmdb", size, progress=lambda *x: calls.append(x))
    assert calls[0] == (0, 4)
    assert calls[-1] == (4, 4)
    assert [p.name for p in tmp_path.iterdir()] == [root.name], "no temporary folder is left"
    assert synthetic_tubes.make(tmp_path, "jhmdb", size, images="frames", progress=calls.clear) == root
    assert calls
    (root / "Frames" / "left" / "left_001" / "00001.png").unlink()
    with pytest.raises(ValueError, match=r"00001\.png: changed, missing.*delete"):
        synthetic_tubes.make(tmp_path, "jhmdb", size)


@pytest.mark.parametrize("numbers", [(0, 1, 0), (1, 0, 0), (1, 1, -1)])
def test_sizes_without_videos_raise_value_error(numbers):
    with pytest.raises(ValueError, match="at least one video"):
        TubeSize(*numbers)


# --- python -m datasets make -------------------------------------------------------------------------


def test_make_writes_into_the_folder_and_prints_counts(tmp_path, capsys):
    out = tmp_path / "new" / "ucf24"
    assert main(["make", "--shape", "ucf24", "--out", str(out), "--clips", "9", "--seed", "3"]) == 0
    act = read_act(out / "UCF101v2-GT.pkl")
    assert [len(act.train_videos[0]), len(act.test_videos[0])] == [9, 3]
    assert not (out / "rgb-images").exists()
    text = capsys.readouterr().out
    assert f"videos 12, frames {sum(act.nframes.values())}, annotated" in text
    assert f"boxes {len(act.ground_truth.box)} in {act.ground_truth.tube.max() + 1} tubes, classes 8" in text
    assert synthetic.fingerprint(out) in text
    assert f"--data ucf24={out}" in text
    assert [p.name for p in out.parent.iterdir()] == ["ucf24"], "no temporary folder is left"


def test_make_accepts_an_empty_folder_and_an_image_kind(tmp_path, capsys):
    arguments = ["make", "--shape", "jhmdb", "--out", str(tmp_path), "--clips", "1", "--images", "videos"]
    assert main(arguments) == 0
    made = {"videos", "JHMDB-GT.pkl", "manifest.json", "dataset.json"}
    assert {p.name for p in tmp_path.iterdir()} == made
    assert "videos 2," in capsys.readouterr().out


def test_make_of_the_ava_shape_equals_the_benchmark_of_its_size(tmp_path, capsys):
    assert main(["make", "--shape", "ava", "--out", str(tmp_path / "a"), "--clips", "12", "--seed", "5"]) == 0
    same = synthetic.make(tmp_path, synthetic.Size(train=12, val=1, test=2, seed=5))
    assert synthetic.fingerprint(tmp_path / "a") == synthetic.fingerprint(same)
    assert "videos 3, keyframes 15, boxes" in capsys.readouterr().out


def test_failure_leaves_no_files(tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(synthetic_tubes, "_write", full)
    assert main(["make", "--shape", "jhmdb", "--out", str(tmp_path / "a")]) == 2
    assert capsys.readouterr().err.strip() == "error: [Errno 28] No space left on device"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("shape", "more", "message"),
    [
        ("jhmdb", ["--clips", "0"], "--clips 0: give at least 1"),
        ("ava", ["--seed", "-1"], "--seed -1: give at least 0"),
        ("ava", ["--images", "frames"], "--images frames: the ava shape"),
    ],
)
def test_make_names_an_invalid_argument(shape, more, message, tmp_path, capsys):
    assert main(["make", "--shape", shape, "--out", str(tmp_path / "a"), *more]) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")
    assert list(tmp_path.iterdir()) == []


def test_make_refuses_a_folder_that_is_not_empty(tmp_path, capsys):
    file = tmp_path / "mine.txt"
    file.write_text("mine")
    for out, why in ((tmp_path, "is not empty"), (file, "is a file")):
        assert main(["make", "--shape", "ava", "--out", str(out)]) == 2
        assert capsys.readouterr().err == f"error: --out {out}: {why}; give a new or empty folder\n"
    assert file.read_text() == "mine"
