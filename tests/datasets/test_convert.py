"""Files as annotation tools write them become AVA's csv, which the readers of training read back."""

import json
import pickle
import re
import shutil
import zipfile

import numpy as np
import pytest
from PIL import Image

from datasets import ava, synthetic
from datasets.__main__ import main
from datasets.annotation_tools import Timing, ToolFileError, chosen_actions, read_tool_file
from evaluators.ava_csv import NOBODY, read_annotations, read_exclusions, read_label_map

# One video, two persons: Ann at (64, 24) to (128, 96) of 160 x 120 walks at second 2 and waves and walks at
# second 3, Bob at (0, 60) to (40, 120) sits at second 3. Second 4 was looked at, and nobody is there.
WIDTH, HEIGHT = 160, 120
ANN, BOB = (64, 24, 64, 72), (0, 60, 40, 60)
EXPECTED = {
    ("shop", 2, (0.4, 0.2, 0.8, 0.8), "walk"),
    ("shop", 3, (0.4, 0.2, 0.8, 0.8), "walk"),
    ("shop", 3, (0.4, 0.2, 0.8, 0.8), "wave"),
    ("shop", 3, (0.0, 0.5, 0.25, 1.0), "sit"),
}
SCENES = {2: [(ANN, ["walk"])], 3: [(ANN, ["walk", "wave"]), (BOB, ["sit"])], 4: []}


def via_2():
    """Images named by their second; the attribute is a checkbox with options of their own names."""
    images = {}
    for second, persons in SCENES.items():
        regions = [
            {
                "shape_attributes": {"name": "rect", "x": x, "y": y, "width": w, "height": h},
                "region_attributes": {"action": dict.fromkeys(actions, True) | {"fall": False}},
            }
            for (x, y, w, h), actions in persons
        ]
        if second == 2:
            regions += [{"shape_attributes": {"name": "point", "cx": 1, "cy": 1}, "region_attributes": {}}]
        images[f"shop_{second:04d}.jpg-1"] = {
            "filename": f"shop_{second:04d}.jpg",
            "size": -1,
            "regions": regions,
        }
    options = {"walk": "", "wave": "", "sit": "", "fall": ""}
    return json.dumps(
        {
            "_via_settings": {},
            "_via_img_metadata": images,
            "_via_attributes": {"region": {"action": {"type": "checkbox", "options": options}}, "file": {}},
        }
    )


def via_3():
    """A video annotated at times; options have numbers."""
    numbers = {"walk": "0", "wave": "1", "sit": "2"}
    metadata = {
        f"1_{second}{i}": {
            "vid": "1",
            "flg": 0,
            "z": [second + 0.01],
            "xy": [2, *box],
            "av": {"1": ",".join(numbers[action] for action in actions)},
        }
        for second, persons in SCENES.items()
        for i, (box, actions) in enumerate(persons)
    }
    metadata["1_t"] = {"vid": "1", "flg": 0, "z": [1.0, 3.5], "xy": [], "av": {"1": "0"}}  # a stretch of time
    return json.dumps(
        {
            "project": {"pid": "__VIA_PROJECT_ID__"},
            "config": {},
            "attribute": {
                "1": {"aname": "action", "type": 2, "options": {n: name for name, n in numbers.items()}}
            },
            "file": {"1": {"fid": "1", "fname": "shop.mp4", "type": 4, "loc": 1, "src": ""}},
            "metadata": metadata,
            "view": {"1": {"fid_list": ["1"]}},
        }
    )


def cvat_video():
    """CVAT writes a box for each frame of a track; 10 a second here, the actions are attributes."""

    def track(number, box, begin, end, actions_at):
        x, y, w, h = box
        boxes = "".join(
            f'<box frame="{frame}" outside="{int(frame == end)}" occluded="0" keyframe="1" xtl="{x}.00" '
            f'ytl="{y}.00" xbr="{x + w}.00" ybr="{y + h}.00" z_order="0">'
            + "".join(
                f'<attribute name="{name}">{str(name in actions_at(frame)).lower()}</attribute>'
                for name in ("walk", "wave", "sit")
            )
            + "</box>"
            for frame in range(begin, end + 1)
        )
        return f'<track id="{number}" label="person" source="manual">{boxes}</track>'

    ann = track(0, ANN, 15, 35, lambda frame: ["walk"] if frame < 25 else ["walk", "wave"])
    bob = track(1, BOB, 25, 35, lambda frame: ["sit"])
    return (
        '<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version><meta><task><size>60</size>'
        "<original_size><width>160</width><height>120</height></original_size><source>shop.mp4</source></task>"
        f"</meta>{ann}{bob}</annotations>"
    )


def cvat_images():
    """The label is the action; a person doing two things has two boxes."""
    images = "".join(
        f'<image id="{second}" name="shop/{second:06d}.png" width="160" height="120">'
        + "".join(
            f'<box label="{action}" xtl="{x}" ytl="{y}" xbr="{x + w}" ybr="{y + h}" z_order="0"></box>'
            for (x, y, w, h), actions in persons
            for action in actions
        )
        + "</image>"
        for second, persons in SCENES.items()
    )
    return f"<annotations><version>1.1</version>{images}</annotations>"


def coco():
    """Categories are actions; image names have numbers of frames from 1, ten a second."""
    names = ["walk", "wave", "sit"]
    annotations = [
        {"id": 0, "image_id": second, "category_id": 7 + names.index(action), "bbox": list(box), "iscrowd": 0}
        for second, persons in SCENES.items()
        for box, actions in persons
        for action in actions
    ]
    images = [
        {"id": second, "file_name": f"shop_{1 + 10 * second:06d}.jpg", "width": 160, "height": 120}
        for second in SCENES
    ]
    images.append({"id": 99, "file_name": "shop_000026.jpg", "width": 160, "height": 120})
    annotations.append({"id": 1, "image_id": 99, "category_id": 7, "bbox": list(ANN), "iscrowd": 0})
    categories = [{"id": 7 + i, "name": name} for i, name in enumerate(names)]
    return json.dumps({"images": images, "annotations": annotations, "categories": categories})


def per_cent(box):
    x, y, w, h = box
    return {"x": 100 * x / WIDTH, "y": 100 * y / HEIGHT, "width": 100 * w / WIDTH, "height": 100 * h / HEIGHT}


def labelstudio():
    """Rectangles of persons, whose actions are chosen for each region."""
    tasks = []
    for second, persons in SCENES.items():
        results = []
        for i, (box, actions) in enumerate(persons):
            shared = {"id": f"r{i}", "original_width": WIDTH, "original_height": HEIGHT, "to_name": "image"}
            results += [
                shared
                | {"type": "rectanglelabels", "value": per_cent(box) | {"rectanglelabels": ["Person"]}},
                shared | {"type": "choices", "value": per_cent(box) | {"choices": actions}},
            ]
        tasks.append(
            {
                "id": second,
                "data": {"image": f"/data/upload/1/0a1b2c3d-shop_{second:04d}.jpg"},
                "annotations": [{"was_cancelled": True, "result": []}, {"result": results}],
            }
        )
    return json.dumps(tasks)


def labelstudio_video():
    """Two regions in a video of 10 frames a second, marked where they begin and end."""

    def region(name, box, first, last, actions):
        marks = [
            per_cent(box) | {"frame": first, "enabled": True, "rotation": 0, "time": first / 10},
            per_cent(box) | {"frame": last, "enabled": False, "rotation": 0, "time": last / 10},
        ]
        value = {"framesCount": 60, "duration": 6.0, "sequence": marks, "labels": actions}
        return {"id": name, "type": "videorectangle", "from_name": "box", "to_name": "video", "value": value}

    results = [
        region("a", ANN, 20, 36, ["walk"]),
        region("b", ANN, 26, 36, ["wave"]),
        region("c", BOB, 26, 36, ["sit"]),
    ]
    return json.dumps([{"data": {"video": "/data/upload/1/shop.mp4"}, "annotations": [{"result": results}]}])


def ucf():
    """A tube a class; frames count from 1, ten a second."""

    def tube(box, first, last):
        x, y, w, h = box
        frames = np.arange(first, last + 1)
        return np.column_stack([frames, np.tile([x, y, x + w, y + h], (len(frames), 1))]).astype(np.float32)

    return pickle.dumps(
        {
            "labels": ["walk", "wave", "sit"],
            "gttubes": {"shop": {0: [tube(ANN, 20, 35)], 1: [tube(ANN, 26, 35)], 2: [tube(BOB, 26, 35)]}},
            "nframes": {"shop": 60},
            "resolution": {"shop": (HEIGHT, WIDTH)},
            "train_videos": [[]],
            "test_videos": [["shop"]],
        }
    )


CASES = {
    "via 2": ("via", "p.json", via_2, ["--size", "160x120"]),
    "via 3": ("via", "p.json", via_3, ["--fps", "10", "--size", "160x120"]),
    "cvat video": ("cvat", "annotations.xml", cvat_video, ["--fps", "10"]),
    "cvat images": ("cvat", "annotations.xml", cvat_images, []),
    "coco": ("coco", "instances.json", coco, ["--fps", "10"]),
    "labelstudio": ("labelstudio", "export.json", labelstudio, []),
    "labelstudio video": ("labelstudio", "export.json", labelstudio_video, []),
    "ucf": ("ucf", "GT.pkl", ucf, ["--fps", "10"]),
}
LOOKED_AT = ("via 2", "cvat images", "coco", "labelstudio")
"""Tools that list images without a person."""


def written(root):
    """What the csv says: (video, second, box, action), and the keyframes without a person."""
    csv = root / "annotations" / "ava_train_v2.2.csv"
    classes = read_label_map(csv.with_name("ava_action_list_v2.2.pbtxt"))
    gt, person = read_annotations(csv, known_ids=classes)
    rows = {
        (gt.videos[v], s, tuple(np.round(box, 5).tolist()), classes[label])
        for v, s, box, label in zip(gt.video, gt.frame.tolist(), gt.box, gt.label.tolist(), strict=True)
        if label != NOBODY
    }
    empty = {
        (gt.videos[v], s)
        for v, s in zip(gt.video[gt.label == NOBODY], gt.frame[gt.label == NOBODY], strict=True)
    }
    return rows, empty, person


@pytest.mark.parametrize("case", CASES)
def test_every_tools_file_becomes_the_same_csv(case, tmp_path, capsys):
    tool, name, content, options = CASES[case]
    data = content()
    (tmp_path / name).write_bytes(data if isinstance(data, bytes) else data.encode())
    out = tmp_path / "mine" / "annotations" / "ava_train_v2.2.csv"
    assert main(["convert", "--from", tool, str(tmp_path / name), "--out", str(out), *options]) == 0, case
    rows, empty, person = written(tmp_path / "mine")
    assert rows == EXPECTED
    assert empty == ({("shop", 4)} if case in LOOKED_AT else set())
    assert json.loads((tmp_path / "mine" / "dataset.json").read_text()) == {"start_second": 0}
    printed = capsys.readouterr().out
    assert f"{out}: 4 rows, 1 videos" in printed
    assert ("left out: 1 boxes between whole seconds" in printed) == (case == "coco")
    if case == "cvat video":  # tracks are persons
        assert sorted(person.tolist()) == [0, 0, 0, 1]


def test_a_converted_set_is_trained_on_and_scored_as_it_was_annotated(tmp_path, small_benchmark, capsys):
    """The whole road: a tool's file, the video beside it, the check, the loader."""
    root = tmp_path / "mine"
    (root / "videos").mkdir(parents=True)
    shutil.copy(small_benchmark / "videos" / "train_000.mp4", root / "videos" / "shop.mp4")
    (tmp_path / "p.json").write_text(coco())
    for split in ("train", "val"):
        out = root / "annotations" / f"ava_{split}_v2.2.csv"
        assert (
            main(["convert", "--from", "coco", str(tmp_path / "p.json"), "--out", str(out), "--fps", "10"])
            == 0
        )
    excluded = read_exclusions(root / "annotations" / "ava_val_excluded_timestamps_v2.2.csv")
    assert excluded == {("shop", second) for second in range(32)} - {("shop", 2), ("shop", 3), ("shop", 4)}
    assert main(["check", "--dataset", "ava", "--root", str(root), "--sample", "0"]) == 0
    for split in ("train", "val"):
        loaded = ava.load(root, split, frames=4, stride=1, crop=32, fps=synthetic.FPS)
        assert loaded.keyframes == (("shop", 2), ("shop", 3), ("shop", 4))
        assert [len(loaded.targets(i).boxes) for i in range(3)] == [1, 2, 0]
    assert list(loaded.classes.values()) == ["sit", "walk", "wave"]


def test_seconds_count_from_the_start_second(tmp_path):
    (tmp_path / "p.json").write_text(coco())
    out = tmp_path / "mine" / "annotations" / "ava_train_v2.2.csv"
    options = ["convert", "--from", "coco", str(tmp_path / "p.json"), "--out", str(out), "--fps", "10"]
    assert main([*options, "--start-second", "900"]) == 0
    assert {row[1] for row in written(tmp_path / "mine")[0]} == {902, 903}
    assert json.loads((tmp_path / "mine" / "dataset.json").read_text()) == {"start_second": 900}
    assert main([*options, "--start-second", "0"]) == 2, "a folder has one start"


def test_a_label_map_keeps_its_ids_and_gets_new_names(tmp_path):
    folder = tmp_path / "mine" / "annotations"
    folder.mkdir(parents=True)
    (folder / "ava_action_list_v2.2.pbtxt").write_text("item { name: 'wave' id: 4 }\n")
    (tmp_path / "p.json").write_text(coco())
    out = folder / "ava_train_v2.2.csv"
    assert (
        main(["convert", "--from", "coco", str(tmp_path / "p.json"), "--out", str(out), "--fps", "10"]) == 0
    )
    assert read_label_map(folder / "ava_action_list_v2.2.pbtxt") == {4: "wave", 5: "sit", 6: "walk"}
    assert written(tmp_path / "mine")[0] == EXPECTED


def test_sizes_are_those_of_images_beside_the_project_or_of_the_video(tmp_path, small_benchmark, capsys):
    (tmp_path / "p.json").write_text(via_2())
    out = tmp_path / "mine" / "annotations" / "ava_train_v2.2.csv"
    options = ["convert", "--from", "via", str(tmp_path / "p.json"), "--out", str(out)]
    assert main(options) == 2
    assert (
        "the size of 'shop''s frames is not in the file: give --size WIDTHxHEIGHT" in capsys.readouterr().err
    )
    for second in SCENES:
        Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / f"shop_{second:04d}.jpg")
    assert main(options) == 0
    assert written(tmp_path / "mine")[0] == EXPECTED
    (tmp_path / "mine" / "videos").mkdir()
    shutil.copy(small_benchmark / "videos" / "train_000.mp4", tmp_path / "mine" / "videos" / "shop.mp4")
    for second in SCENES:
        (tmp_path / f"shop_{second:04d}.jpg").unlink()
    assert main(options) == 0, "the video's size is another one, so the boxes are others"
    assert written(tmp_path / "mine")[0] != EXPECTED


@pytest.mark.parametrize(
    ("name", "timing", "expected"),
    [
        ("shop_0902.jpg", Timing(), ("shop", 902.0)),
        ("1_000031.jpg", Timing(fps=30), ("1", 1.0)),
        ("rawframes/movie/img_00061.jpg", Timing(fps=30), ("movie", 2.0)),
        ("movie_frame_000060.PNG", Timing(fps=30, first_frame=0), ("movie", 2.0)),
        ("frame_000060.PNG", Timing(fps=30, first_frame=0, video="a"), ("a", 2.0)),
        ("shop-12_0907.jpeg", Timing(start_second=900), ("shop-12", 7.0)),
    ],
)
def test_names_of_images_tell_video_and_time(name, timing, expected):
    assert timing.of_image(name) == expected


@pytest.mark.parametrize(
    ("name", "message"), [("shop.jpg", "does not end in the number"), ("frame_12.jpg", "tells no video")]
)
def test_names_that_tell_no_time_or_video_are_refused(name, message):
    with pytest.raises(ToolFileError, match=message):
        Timing().of_image(name)


def test_actions_of_a_box():
    assert chosen_actions("person", {"action": "walk, wave; sit"}, None) == ("walk", "wave", "sit")
    assert chosen_actions("Walk", {}, None) == ("Walk",)
    assert chosen_actions("person", {"sit": "true", "wave": "false", "mood": "happy"}, None) == (
        "sit",
        "happy",
    )
    assert chosen_actions("person", {"action": "sit", "mood": "happy"}, "action") == ("sit",)
    assert chosen_actions("person", {"action": {"sit": True, "wave": False}}, None) == ("sit",)
    assert chosen_actions("person", {"action": "__undefined__"}, None) == ()


@pytest.mark.parametrize(
    ("tool", "content", "message"),
    [
        ("via", "{", "not JSON"),
        ("via", "[]", "JSON, but a list where the tool writes another thing"),
        ("coco", "BZh91AY", "this is bzip2"),
        ("labelstudio", "<!DOCTYPE html><p>Sign in</p>", "this is a web page"),
        ("coco", '{"images": []}', "field 'categories' is missing"),
        ("labelstudio", '[{"data": {}}]', "export JSON, not JSON-MIN"),
        (
            "labelstudio",
            '[{"data": {"n": 1}, "annotations": [{"result": []}]}]',
            "names no image or video: n",
        ),
        ("cvat", "PK\x03\x04", "not xml"),
        ("cvat", '<?xml version="1.0" encoding="utf-88"?><a/>', "not xml .unknown encoding: utf-88"),
        ("cvat", '<?xml version="1.0" encoding="gb2312"?><a/>', "not xml .multi-byte encodings are not supp"),
        ("cvat", '<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', "a DOCTYPE or entities"),
        ("cvat", '<annotations><track id="0" label="x"></track></annotations>', "no original_size"),
        ("ucf", "not a pickle", "cannot be unpickled"),
    ],
)
def test_files_of_another_kind_are_refused_in_words(tool, content, message, tmp_path):
    path = tmp_path / "file"
    path.write_text(content)
    with pytest.raises(ValueError, match=message) as error:
        read_tool_file(tool, path, Timing())
    assert str(error.value).startswith(str(path))


NO_NUMBER = "its name does not end in the number of a second or frame"


@pytest.mark.parametrize(
    ("tool", "content", "changes", "lines"),
    [
        (
            "via",
            via_2,
            {
                '"filename": "shop_0002.jpg"': '"filename": "shop.jpg"',
                '"x": 0, ': "",
                '"regions": []': '"r": 1',
            },
            [
                f"image 'shop_0002.jpg-1': image 'shop.jpg': {NO_NUMBER}",
                "image 'shop_0003.jpg-1', region 1: field 'x' is missing",
                "image 'shop_0004.jpg-1': field 'regions' is missing",
            ],
        ),
        (
            "via",
            via_3,
            {"[2, 0, 60, 40, 60]": "[2, 0, 60, 40]", "[2.01]": '["two"]'},
            [
                "metadata 1_20: could not convert string to float: 'two'",
                "metadata 1_31: not enough values to unpack (expected 4, got 3)",
            ],
        ),
        (
            "cvat",
            cvat_images,
            {"000002.png": "two.png", 'xtl="0" ': "", 'label="wave" ': ""},
            [
                f"image 2: image 'shop/two.png': {NO_NUMBER}",
                "image 3, shape 1: field 'label' is missing",
                "image 3, shape 2: field 'xtl' is missing",
            ],
        ),
        (
            "coco",
            coco,
            {'"category_id": 9': '"category_id": 12', '"image_id": 99': '"image_id": 98'},
            [
                "annotations[3]: it has category_id 12, which categories do not list",
                "annotations[4]: it has image_id 98, which images do not list",
            ],
        ),
        (
            "coco",
            coco,
            {"shop_000021.jpg": "shop.jpg", '"id": 4, ': "", '"id": 9, "name"': '"id": 9, "n"'},
            [
                "categories[2]: field 'name' is missing",
                f"images[0]: image 'shop.jpg': {NO_NUMBER}",
                "images[2]: field 'id' is missing",
            ],
        ),
        (
            "labelstudio",
            labelstudio,
            {"-shop_0002.jpg": "-shop.jpg", '"x": 0.0, ': "", "/data/upload/1/0a1b2c3d-shop_0004.jpg": ""},
            [
                f"task 2: image 'shop.jpg': {NO_NUMBER}",
                "task 3, result r1: field 'x' is missing",
                "task 4: a task's data names no image or video: image",
            ],
        ),
    ],
)
def test_all_that_is_wrong_in_a_tools_file_is_told_at_once(tool, content, changes, lines, tmp_path):
    path, text = tmp_path / "file", content()
    for old, new in changes.items():
        assert text.count(old) >= 1, old
        text = text.replace(old, new)
    path.write_text(text)
    with pytest.raises(ToolFileError) as error:
        read_tool_file(tool, path, Timing(fps=10) if tool == "coco" else Timing())
    assert str(error.value).removeprefix(f"{path}: ").splitlines() == lines


def test_errors_of_several_files_are_told_at_once(tmp_path, capsys):
    for name, text in (("a", "{"), ("b", labelstudio()), ("c", '[{"id": 7, "data": {}}]')):
        (tmp_path / name).write_text(text)
    out = tmp_path / "annotations" / "ava_train_v2.2.csv"
    files = [str(tmp_path / name) for name in "abc"]
    assert main(["convert", *files, "--from", "labelstudio", "--out", str(out)]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f"error: {files[0]}: not JSON")
    assert second == f"{files[2]}: task 7: it has no annotations: export JSON, not JSON-MIN"
    assert not out.exists()


def test_an_option_that_is_missing_is_told_once(tmp_path):
    """Not once for each of the forty boxes whose frame it has to date."""
    path = tmp_path / "annotations.xml"
    path.write_text(cvat_video())
    with pytest.raises(ToolFileError) as error:
        read_tool_file("cvat", path, Timing())
    assert str(error.value) == (
        f"{path}: it counts frames of a video: give the video's frame rate with --fps"
    )


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--fps", "0"], "--fps 0.0: give frames a second"),
        (["--size", "160"], "--size 160: give width and height in pixels"),
        (["--start-second", "-1"], "count from 0"),
        ([], "no annotation is at a whole second"),
        (["--start-second", "900"], "no annotation is at a whole second"),
    ],
)
def test_wrong_options_end_with_code_2_and_write_nothing(more, message, tmp_path, capsys):
    images = [{"id": 1, "file_name": "shop_000016.jpg", "width": 160, "height": 120}]
    content = {"images": images, "annotations": [], "categories": []}
    (tmp_path / "p.json").write_text(json.dumps(content))
    out = tmp_path / "mine" / "annotations" / "ava_train_v2.2.csv"
    options = ["convert", "--from", "coco", str(tmp_path / "p.json"), "--out", str(out), "--fps", "10", *more]
    assert main(options) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "mine").exists()


# --- what tools write besides whole rectangles of persons ----------------------------------------


def converted(tmp_path, tool, content, *options):
    """The rows and keyframes without a person of a file, and what was printed is left to capsys."""
    path = tmp_path / "file"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    out = tmp_path / "mine" / "annotations" / "ava_train_v2.2.csv"
    assert main(["convert", "--from", tool, str(path), "--out", str(out), *options]) == 0
    return written(tmp_path / "mine")


def coco_of(images, annotations):
    """COCO's json of 160 x 120 images by name, and of (image, box, more fields), all walking."""
    listed = [{"id": i, "file_name": name, "width": WIDTH, "height": HEIGHT} for i, name in enumerate(images)]
    boxes = [{"image_id": i, "category_id": 1, "bbox": list(box), **more} for i, box, more in annotations]
    return json.dumps({"images": listed, "annotations": boxes, "categories": [{"id": 1, "name": "walk"}]})


def test_crowds_and_other_shapes_are_counted_and_no_keyframe_is_empty_of_them(tmp_path, capsys):
    content = coco_of(
        ["a_1.jpg", "a_2.jpg", "a_3.jpg"], [(0, ANN, {}), (0, BOB, {"iscrowd": 1}), (1, BOB, {"iscrowd": 1})]
    )
    rows, empty, _ = converted(tmp_path, "coco", content)
    assert {row[:2] for row in rows} == {("a", 1)}
    assert empty == {("a", 3)}, "at second 2 there is a crowd"
    assert "left out: 2 boxes of a crowd" in capsys.readouterr().out


def test_rotated_boxes_and_polygons_of_cvat_are_left_out_and_counted(tmp_path, capsys):
    box = 'xtl="64" ytl="24" xbr="128" ybr="96"'
    content = (
        '<annotations><image id="0" name="shop/000001.png" width="160" height="120">'
        f'<box label="walk" {box} rotation="30.00"></box></image>'
        '<image id="1" name="shop/000002.png" width="160" height="120">'
        '<polygon label="walk" points="1,1;2,2;1,2"/>'
        f'<box label="walk" {box}></box></image>'
        '<image id="2" name="shop/000003.png" width="160" height="120"></image></annotations>'
    )
    rows, empty, _ = converted(tmp_path, "cvat", content)
    assert {row[:2] for row in rows} == {("shop", 2)}
    assert empty == {("shop", 3)}
    printed = capsys.readouterr().out
    assert "left out: 1 boxes rotated" in printed
    assert "left out: 1 boxes of another shape than a rectangle" in printed


def test_tasks_of_label_studio_that_nobody_labelled_are_no_keyframes(tmp_path):
    def task(second, *annotations):
        return {
            "data": {"image": f"/data/upload/1/0a1b2c3d-my%20shop_{second}.jpg?x=1"},
            "annotations": [*annotations],
        }

    box = {"type": "rectangle", "id": "r", "value": per_cent(ANN)}
    walk = {"type": "choices", "id": "r", "value": {"choices": ["walk"]}}
    polygon = {"type": "polygonlabels", "id": "p", "value": {"points": [[1, 1]], "polygonlabels": ["walk"]}}
    relation = {"type": "relation", "from_id": "r", "to_id": "r"}
    content = [
        task(1, {"result": [box, walk, relation]}),
        task(2),
        task(3, {"was_cancelled": True, "result": []}),
        task(4, {"result": []}),
        task(5, {"result": [polygon]}),
    ]
    rows, empty, _ = converted(tmp_path, "labelstudio", json.dumps(content))
    assert {row[:2] for row in rows} == {("my shop", 1)}
    assert empty == {("my shop", 4)}


def test_tracks_of_two_files_are_two_persons(tmp_path):
    """As two annotators' jobs count each from 0; and two boxes of one track at once are two persons."""
    for name, box in (("a", ANN), ("b", BOB)):
        (tmp_path / f"{name}.json").write_text(coco_of(["shop_2.jpg"], [(0, box, {"track_id": 0})]))
    out = tmp_path / "mine" / "annotations" / "ava_train_v2.2.csv"
    files = [str(tmp_path / "a.json"), str(tmp_path / "b.json")]
    assert main(["convert", "--from", "coco", *files, "--out", str(out)]) == 0
    rows, _, person = written(tmp_path / "mine")
    assert {row[2] for row in rows} == {(0.4, 0.2, 0.8, 0.8), (0.0, 0.5, 0.25, 1.0)}
    assert sorted(person.tolist()) == [0, 1]
    twice = coco_of(["shop_2.jpg"], [(0, ANN, {"track_id": 0}), (0, BOB, {"track_id": 0})])
    assert len(converted(tmp_path, "coco", twice)[0]) == 2


def test_tasks_of_a_cvat_project_have_their_own_video_and_size(tmp_path):
    def task(number, name, width, height):
        size = f"<original_size><width>{width}</width><height>{height}</height></original_size>"
        return f"<task><id>{number}</id>{size}<source>{name}.mp4</source></task>"

    def track(number):
        box = '<box frame="10" outside="0" xtl="0" ytl="0" xbr="80" ybr="60"></box>'
        return f'<track id="0" label="walk" task_id="{number}">{box}</track>'

    tasks = task(1, "shop", 160, 120) + task(2, "yard", 320, 240)
    meta = f"<meta><project><tasks>{tasks}</tasks></project></meta>"
    content = f"<annotations>{meta}{track(1)}{track(2)}</annotations>"
    rows, _, _ = converted(tmp_path, "cvat", content, "--fps", "10")
    assert {(row[0], row[2][2:]) for row in rows} == {("shop", (0.5, 0.5)), ("yard", (0.25, 0.25))}
    (tmp_path / "file").write_text(content.replace(' task_id="2"', ""))
    with pytest.raises(ToolFileError, match="several tasks and does not tell of which a track is"):
        read_tool_file("cvat", tmp_path / "file", Timing(fps=10))


def test_cvats_own_zip_and_frames_named_by_number_alone(tmp_path):
    image = '<image id="0" name="frame_000010.png" width="160" height="120">'
    box = '<box label="walk" xtl="64" ytl="24" xbr="128" ybr="96"></box>'
    content = (
        f"<annotations><meta><task><source>shop.mp4</source></task></meta>{image}{box}</image></annotations>"
    )
    with zipfile.ZipFile(tmp_path / "cvat.zip", "w") as packed:
        packed.writestr("annotations.xml", content)
    read = read_tool_file("cvat", tmp_path / "cvat.zip", Timing(fps=10, first_frame=0))
    assert [(box.video, box.time) for box in read.boxes] == [("shop", 1.0)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("shop_0002_jpg.rf.8f14e45fceea167a5a36dedd4bea2543.jpg", ("shop", 2.0)),
        ("shop_12.5.jpg", ("shop", 12.5)),
        ("https://host/set/shop_0002.jpg?X-Amz-Signature=a1", ("shop", 2.0)),
        ("my%20shop_0002.jpg", ("my shop", 2.0)),
    ],
)
def test_names_that_services_give_images(name, expected):
    assert Timing().of_image(name) == expected


def test_images_of_two_folders_are_not_one_video():
    timing = Timing()
    timing.of_image("monday/cam1/0002.jpg")
    with pytest.raises(ToolFileError, match="'monday/cam1' and of 'tuesday/cam1' would both be video 'cam1'"):
        timing.of_image("tuesday/cam1/0002.jpg")
    named = Timing(video="shop")
    named.of_image("shop_0002.jpg")
    with pytest.raises(ToolFileError, match="would both be video 'shop'"):
        named.of_image("yard_0002.jpg")


def test_a_number_before_the_first_is_refused_with_the_option():
    with pytest.raises(ToolFileError, match="has number 0, and the first has 1: give --first-frame 0"):
        Timing(fps=25, video="shop").of_image("frame_000000.png")


def test_sizes_that_coco_lacks_are_given(tmp_path):
    content = json.loads(coco_of(["shop_2.jpg"], [(0, ANN, {})]))
    del content["images"][0]["width"]
    rows, _, _ = converted(tmp_path, "coco", json.dumps(content), "--size", "160x120")
    assert {row[2] for row in rows} == {(0.4, 0.2, 0.8, 0.8)}


def test_one_split_of_acts_pickle(tmp_path, capsys):
    content = pickle.loads(ucf())
    content["gttubes"]["yard"] = content["gttubes"]["shop"]
    content["train_videos"] = [["yard"]]
    for key in ("nframes", "resolution"):
        content[key]["yard"] = content[key]["shop"]
    packed = pickle.dumps(content)
    assert {row[0] for row in converted(tmp_path, "ucf", packed, "--fps", "10")[0]} == {"shop", "yard"}
    assert "the videos of all its splits; --split takes those of one" in capsys.readouterr().err
    for split, video in (("train", "yard"), ("test", "shop")):
        rows, _, _ = converted(tmp_path, "ucf", packed, "--fps", "10", "--split", split)
        assert {row[0] for row in rows} == {video}


def test_another_rate_than_the_videos_is_noted(tmp_path, small_benchmark, capsys):
    (tmp_path / "mine" / "videos").mkdir(parents=True)
    shutil.copy(small_benchmark / "videos" / "train_000.mp4", tmp_path / "mine" / "videos" / "shop.mp4")
    converted(tmp_path, "coco", coco(), "--fps", "10")
    assert "1 videos have another rate than --fps 10, 'shop' has 16" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "more", "message"),
    [
        (coco_of([], []), [], "no image or frame is annotated in it"),
        (coco_of(["a_2.jpg"], []), ["--start-second", "900"], "all its times are before second 900"),
        (coco_of(["a_2.jpg"], []), [], "nothing is left to write: there is no box"),
        (coco_of(["a_2.jpg"], [(0, (200, 0, 9, 9), {})]), [], "1 boxes beyond the image or without an area"),
    ],
)
def test_files_of_which_nothing_is_left_are_refused(tmp_path, content, more, message, capsys):
    (tmp_path / "p.json").write_text(content)
    out = tmp_path / "mine" / "annotations" / "ava_train_v2.2.csv"
    options = ["convert", "--from", "coco", str(tmp_path / "p.json"), "--out", str(out), *more]
    assert main(options) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not out.exists()


def test_a_csv_of_mmaction2s_tree_has_its_files_beside_it(tmp_path):
    (tmp_path / "p.json").write_text(coco())
    out = tmp_path / "mine" / "train.csv"
    options = ["convert", "--from", "coco", str(tmp_path / "p.json"), "--fps", "10", "--out"]
    assert main([*options, str(out)]) == 0
    assert {path.name for path in out.parent.iterdir()} == {
        "train.csv", "label_map.pbtxt", "train_excluded_timestamps.csv", "dataset.json",
    }  # fmt: skip
    assert main([*options, str(tmp_path / "mine" / "boxes.csv")]) == 2


def test_names_that_no_reader_takes_are_refused(tmp_path):
    (tmp_path / "p.json").write_text(coco_of(["a,b_2.jpg"], [(0, ANN, {})]))
    out = tmp_path / "mine" / "annotations" / "ava_train_v2.2.csv"
    assert main(["convert", "--from", "coco", str(tmp_path / "p.json"), "--out", str(out)]) == 2
    assert chosen_actions("person", {"action": "walk\n fast", "kind": "person"}, None) == ("walk fast",)
