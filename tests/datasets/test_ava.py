"""Loading AVA from files written by hand, and the errors of invalid files."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from actloc_core.boxes import cxcywh_to_xyxy
from actloc_core.clip import clip_indices, read_frames
from actloc_core.pixels import to_tensor
from datasets import ava, synthetic
from datasets.split import subsample, with_detected_boxes

FULL = "".join(
    f'label {{\n  name: "{n}"\n  label_id: {i}\n  label_type: PERSON_MOVEMENT\n}}\n'
    for i, n in ((11, "sit"), (12, "stand"), (80, "watch"))
)
EVALUATED = 'item {\n  name: "stand"\n  id: 12\n}\nitem {\n  name: "watch"\n  id: 80\n}\n'
ROWS = (
    "movie,0902,0.100,0.200,0.300,0.600,12,0\n"
    "movie,0902,0.100,0.200,0.300,0.600,80,0\n"
    "movie,0902,0.500,0.200,0.900,0.600,11,1\n"
    "movie,0904,0.000,0.000,1.000,1.000,80,0\n"
)


@pytest.fixture
def root(tmp_path, small_benchmark):
    """One video of the synthetic benchmark under another name, with its own annotations."""
    (tmp_path / "videos").mkdir()
    (tmp_path / "annotations").mkdir()
    shutil.copy(small_benchmark / "videos" / "train_000.mp4", tmp_path / "videos" / "movie.mp4")
    write(tmp_path, ROWS)
    return tmp_path


def write(root, rows, excluded="", labels=FULL):
    folder = root / "annotations"
    for split in ("train", "val"):
        (folder / f"ava_{split}_v2.2.csv").write_text(rows)
        (folder / f"ava_{split}_excluded_timestamps_v2.2.csv").write_text(excluded)
    (folder / "ava_action_list_v2.2.pbtxt").write_text(labels)
    (folder / "ava_action_list_v2.2_for_activitynet_2019.pbtxt").write_text(EVALUATED)


def load(root, split="train", **kwargs):
    return ava.load(root, split, **{"frames": 4, "stride": 1, "crop": 32, "fps": synthetic.FPS} | kwargs)


def test_rows_of_one_person_become_one_target(root):
    split = load(root)
    assert split.classes == {11: "sit", 12: "stand", 80: "watch"}
    assert split.evaluated == {12: "stand", 80: "watch"}
    assert split.keyframes == (("movie", 902), ("movie", 904))
    clip, targets = split[0]
    assert clip.shape == (3, 4, 32, 32)
    assert clip.dtype == torch.float32
    assert 0 <= clip.min() <= clip.max() <= 1
    assert targets.boxes.tolist() == [
        pytest.approx([0.2, 0.4, 0.2, 0.4]),
        pytest.approx([0.7, 0.4, 0.4, 0.4]),
    ]
    assert targets.labels.tolist() == [[0, 1, 1], [1, 0, 0]]


def test_persons_with_equal_boxes_stay_separate_targets(root):
    write(root, "movie,0902,0.1,0.2,0.3,0.6,12,0\nmovie,0902,0.1,0.2,0.3,0.6,80,1\n")
    assert load(root)[0][1].labels.tolist() == [[0, 1, 0], [0, 0, 1]]


def test_evaluation_keyframes_are_all_seconds_of_the_video(root):
    """The video has 30 scenes: seconds 902..931, annotated or not."""
    split = load(root, "val")
    assert split.keyframes == tuple(("movie", s) for s in range(902, 932))
    assert split[1][1].boxes.shape == (0, 4)
    assert split[1][1].labels.shape == (0, 3)


def test_excluded_seconds_are_no_keyframes(root):
    write(root, ROWS, excluded="movie,0904\nmovie,0910\n")
    assert load(root).keyframes == (("movie", 902),)
    assert ("movie", 910) not in load(root, "val").keyframes


def test_clip_is_centred_on_its_second(root):
    """Second 902 of a 16 fps cut from second 900 is its frame 32."""
    clip, _ = load(root)[0]
    frames = read_frames(root / "videos" / "movie.mp4", np.array([30, 31, 32, 33]))
    torch.testing.assert_close(clip, to_tensor(frames, (32, 32)))


def test_clip_at_30_fps_is_sampled_from_a_file_at_16_fps(root):
    """Every second frame of 30 fps: 1/15 s apart, which at 16 fps are frames 30 to 33."""
    clip, _ = load(root, fps=30, stride=2)[0]
    frames = read_frames(root / "videos" / "movie.mp4", np.array([30, 31, 32, 33]))
    torch.testing.assert_close(clip, to_tensor(frames, (32, 32)))


def test_extracted_frames_give_the_same_clips_as_the_video(root):
    """Image number 1 is second 900."""
    from_video = load(root)
    whole = read_frames(root / "videos" / "movie.mp4", np.arange(504))
    folder = root / "frames" / "movie"
    folder.mkdir(parents=True)
    for number, frame in enumerate(whole, 1):
        Image.fromarray(frame).save(folder / f"movie_{number:06d}.png")
        (folder / f"movie_{number:06d}.png").rename(folder / f"movie_{number:06d}.jpg")  # lossless
    (root / "videos" / "movie.mp4").unlink()
    from_images = load(root)
    assert from_images.keyframes == from_video.keyframes
    assert len(load(root, "val")) == 30, "504 frames, 16 a second: seconds 902 to 931"
    shutil.rmtree(root / "videos")
    for index in range(2):
        videos = clip_indices(32 + 32 * index, 504, frames=4, stride=1)
        torch.testing.assert_close(from_images[index][0], to_tensor(whole[videos], (32, 32)))


def test_whole_movie_starts_at_second_0_and_a_cut_at_900(root, monkeypatch):
    """A file that reaches the last annotated second is the movie, a shorter one is the cut."""
    path = root / "videos" / "movie.mp4"
    begin, end = ava.span(path, 16)
    assert (begin, round(end, 2)) == (900, 931.5)
    monkeypatch.setattr(ava, "LAST_SECOND", 30)
    assert ava.span(path, 16)[0] == 0


def test_person_boxes_are_filtered_by_score_and_sorted(tmp_path):
    """The public formats: action id empty or -1, the score in column 8. Used at 0.8 and above."""
    path = tmp_path / "ava_detection_val_boxes_and_labels.csv"
    path.write_text(
        "a,0902,0.1,0.1,0.5,0.9,,0.85\na,0902,0.2,0.1,1.001,0.9,,0.99\n"
        "a,0902,0.3,0.1,0.5,0.9,-1,0.79\nb,0903,0.1,0.1,0.5,0.9,,0.8\n"
    )
    boxes = ava.person_boxes(path)
    assert set(boxes) == {("a", 902), ("b", 903)}
    assert boxes["a", 902].boxes.tolist() == [[0.2, 0.1, 1, 0.9], [0.1, 0.1, 0.5, 0.9]]
    assert boxes["a", 902].scores.tolist() == [0.99, 0.85]
    assert len(ava.person_boxes(path, threshold=0.5)["a", 902].boxes) == 3
    assert ava.person_boxes(path, threshold=1.0) == {}


@pytest.mark.parametrize("name", ["../movie", "/movie", "a//b", ".", ".."])
def test_video_name_outside_the_data_folder_is_refused(root, name):
    write(root, f"{name},0902,0.1,0.2,0.3,0.6,12,0\n")
    with pytest.raises(ValueError, match="not a path inside the data folder"):
        load(root)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("movie,0902,0.1,0.2,0.3,0.6,99,0\n", r"ava_train_v2\.2\.csv.*1.*99"),
        (ROWS + "movie,0905,0.5,0.2,0.4,0.6,12,0\n", r"ava_train_v2\.2\.csv.*5"),
        (ROWS + "movie,0905,0.5,0.2,1.4,0.6,12,0\n", r"ava_train_v2\.2\.csv.*5.*1\.4"),
        (ROWS + "movie,0905,0.5\n", r"ava_train_v2\.2\.csv.*5"),
        (ROWS + "movie,0905,a,0.2,0.4,0.6,12,0\n", r"ava_train_v2\.2\.csv.*5.*a"),
        ("", r"ava_train_v2\.2\.csv"),
        (
            "other,0902,0.1,0.2,0.3,0.6,12,0\n",
            r"names video 'other', but none of its files exists: .*other_000001.jpg, .*videos/other",
        ),
        (
            "movie,1200,0.1,0.2,0.3,0.6,12,0\n",
            r"annotated at second 1200, but .*movie\.mp4 covers seconds 900 to 931\.5",
        ),
    ],
)
def test_error_of_invalid_annotations_names_file_and_line(root, rows, message):
    write(root, rows)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load(root)


def test_error_names_a_video_that_cannot_be_read(root):
    (root / "videos" / "movie.mp4").write_bytes(b"")
    with pytest.raises(ValueError, match=r"movie\.mp4: not a readable video"):
        load(root)


def test_error_names_a_missing_folder_or_label_map(root, tmp_path):
    with pytest.raises(FileNotFoundError, match="no such data folder; give it as --data ava=FOLDER"):
        load(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="no folder annotations/"):
        load(root / "videos")
    (root / "annotations" / "ava_action_list_v2.2.pbtxt").unlink()
    with pytest.raises(FileNotFoundError, match=r"ava_action_list_v2\.2\.pbtxt"):
        load(root)


def test_annotations_v2_2_is_accepted_as_folder_name(root):
    (root / "annotations").rename(root / "annotations_v2.2")
    assert len(load(root)) == 2


def test_files_of_version_2_1_are_read_where_there_are_none_of_2_2(root):
    plain = load(root, "val")
    for path in list((root / "annotations").iterdir()):
        path.rename(path.with_name(path.name.replace("v2.2", "v2.1").replace("2019", "2018")))
    older = load(root, "val")
    assert older.keyframes == plain.keyframes
    assert (older.evaluated, older.excluded) == (plain.evaluated, plain.excluded)
    assert older.notes == plain.notes == ()
    write(root, ROWS.replace("0904", "0903"))
    assert ("movie", 904) not in load(root, "train").annotations.rows, "2.2 where there are both"


def test_a_missing_evaluation_label_map_or_exclusion_file_is_noted(root):
    folder = root / "annotations"
    (folder / "ava_action_list_v2.2_for_activitynet_2019.pbtxt").unlink()
    (folder / "ava_val_excluded_timestamps_v2.2.csv").unlink()
    split = load(root, "val")
    assert list(split.evaluated) == [11, 12, 80]
    assert split.excluded == frozenset()
    first, second = split.notes
    assert first.endswith("activitynet_2019.pbtxt does not exist: all 3 classes of training are evaluated")
    assert second.endswith("ava_val_excluded_timestamps_v2.2.csv does not exist: no second is excluded")


def test_boxes_a_hair_outside_are_clipped_for_training_and_kept_for_scoring(root):
    write(root, ROWS.replace("movie,0904,0.000,0.000,1.000,1.000", "movie,0904,-0.0019,0.5,1.0017,0.9"))
    split = load(root)
    assert split.annotations.at(("movie", 904)).boxes[0].tolist() == pytest.approx([0.5, 0.7, 1.0, 0.4])
    assert split.ground_truth.box[-1].tolist() == [-0.0019, 0.5, 1.0017, 0.9]
    [note] = split.notes
    assert "1 rows have boxes that leave the frame, by up to 0.0019 of its side: they are scored as" in note


@pytest.mark.parametrize("suffix", [".MP4", ".mov", ".MOV", ".Mp4"])
def test_suffixes_of_videos_in_capitals_and_mov(root, suffix):
    (root / "videos" / "movie.mp4").rename(root / "videos" / f"movie{suffix}")
    if suffix == ".Mp4":
        with pytest.raises(FileNotFoundError, match=r"movie\{\.mp4,"):
            load(root)
    else:
        assert load(root)[0][0].shape == (3, 4, 32, 32)


def test_fingerprint_changes_with_the_annotations(root):
    before = ava.fingerprint(root)
    assert ava.fingerprint(root) == before
    write(root, ROWS + "movie,0905,0.5,0.2,0.9,0.6,12,0\n")
    assert ava.fingerprint(root) != before


def test_subsample_keeps_only_the_ground_truth_of_its_keyframes(root):
    """Actors of the other keyframes must not count as missed."""
    subset = subsample(load(root), 1)
    assert subset.keyframes == (("movie", 902),)
    assert subset.ground_truth.label.tolist() == [12, 80, 11]
    assert len(load(root).ground_truth.label) == 4


def test_detected_boxes_have_the_labels_of_the_actor_they_overlap_by_half(root):
    """One is moved by a fifth of the actor's width (IoU .67), twice, one by half (.33), one is alone."""
    split = load(root)
    key, other = split.keyframes[0], split.keyframes[-1]
    before = split.annotations.at(key)
    x1, y1, x2, y2 = cxcywh_to_xyxy(before.boxes)[0].double().tolist()
    w = x2 - x1
    near, far = [x1 + w / 5, y1, x2 + w / 5, y2], [x1 + w / 2, y1, x2 + w / 2, y2]
    detected = {key: np.array([near, far, [0, 0, 1e-3, 1e-3], near])}
    both = with_detected_boxes(split, detected)
    after = both.annotations.at(key)
    count = len(before.boxes)
    assert len(after.boxes) == count + 3
    assert torch.equal(after.boxes[:count], before.boxes)
    assert torch.equal(after.labels[:count], before.labels)
    of_near = [i for i in range(count, count + 3) if after.boxes[i, 0] == pytest.approx(x1 + 0.7 * w)]
    assert torch.equal(after.labels[of_near[0]], before.labels[0])
    assert after.labels[count:].sum() == before.labels[0].sum()
    assert torch.equal(both.annotations.at(other).boxes, split.annotations.at(other).boxes)
    assert both.ground_truth is split.ground_truth


def test_of_the_training_split_the_person_boxes_with_negatives_come_first(root):
    folder = root / "annotations"
    for name in ("", "_include_negative", "_include_negative_v2.2"):
        path = folder / f"ava_detection_train_boxes_and_labels{name}.csv"
        path.write_text("")
        assert ava.find_person_boxes(root, "train") == path
