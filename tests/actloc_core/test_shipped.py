"""The shipped model: its files are those of its card, and it detects what it detected when they were made."""

import csv
import hashlib
import re
from collections import defaultdict

import pytest
import torch

from actloc_core.boxes import iou_and_giou
from actloc_core.detector import SHIPPED, ActionDetector, load_checkpoint
from actloc_core.predict import KeyframeDetections, iter_detections, main

VIDEO = SHIPPED / "synthetic.mp4"


@pytest.fixture(scope="module")
def detected():
    """Second -> the actors that the shipped model detects there in the shipped video."""
    events = iter_detections(ActionDetector("tiny", device="cpu"), VIDEO, every=1.0)
    return {event.second: event.actors for event in events if isinstance(event, KeyframeDetections)}


def rows(name):
    with open(SHIPPED / name, newline="") as file:
        return [(float(second), [float(x) for x in rest]) for _, second, *rest in csv.reader(file)]


def test_files_are_those_of_the_card_and_small():
    card = (SHIPPED / "README.md").read_text()
    sums = dict(re.findall(r"^\| `([\w.]+)` \| ([0-9a-f]{64}) \|$", card, re.MULTILINE))
    assert {path.name for path in SHIPPED.iterdir()} == {*sums, "README.md"}
    for name, expected in sums.items():
        assert hashlib.sha256((SHIPPED / name).read_bytes()).hexdigest() == expected, name
    assert (SHIPPED / "checkpoint.pt").stat().st_size < 2 * 2**20
    assert VIDEO.stat().st_size < 200 * 2**10


def test_the_model_is_the_one_that_the_card_describes():
    card, trained = (SHIPPED / "README.md").read_text(), load_checkpoint(SHIPPED / "checkpoint.pt")
    assert f"{sum(p.numel() for p in trained.model.parameters()):,} parameters" in card
    assert {p.dtype for p in trained.model.parameters()} == {torch.float32}
    assert ", ".join(trained.classes.values()) in re.sub(r"\s+", " ", card)
    names = re.findall(r'name: "(\w+)" id: (\d+)', (SHIPPED / "classes.pbtxt").read_text())
    assert {int(number): name for name, number in names} == trained.classes
    assert "it knows synthetic people only" in card.lower()


def test_every_annotated_actor_of_the_video_is_detected_with_its_actions(detected):
    """The best detection of an actor has IoU 0.5 or more; its best actions are the actor's 20 times of 22."""
    ids = {name: number for number, name in load_checkpoint(SHIPPED / "checkpoint.pt").classes.items()}
    actions = defaultdict(set)
    for second, [*box, action, _] in rows("ground_truth.csv"):
        actions[second, tuple(box)].add(action)
    right = 0
    for (second, box), expected in actions.items():
        boxes = torch.tensor([actor.box for actor in detected[second]])
        overlaps = iou_and_giou(torch.tensor([box]), boxes)[0]
        actor = next(a for a, iou in zip(detected[second], overlaps, strict=True) if iou >= 0.5)
        best = [ids[name] for name in list(actor.actions)[: len(expected)]]
        right += len(expected & {*best})
    assert (len(actions), right, sum(map(len, actions.values()))) == (12, 20, 22)


def test_detections_are_the_shipped_ones_to_four_decimals(detected):
    expected = rows("detections.csv")
    now = [
        (second, [*actor.box, score])
        for second, actors in detected.items()
        for actor in actors
        for score in actor.actions.values()
    ]
    assert len(now) == len(expected)
    for (second, numbers), (second_before, [*box, _, score]) in zip(now, expected, strict=True):
        assert second == second_before
        assert numbers == pytest.approx([*box, score], abs=1e-4)


def test_predict_takes_the_shipped_model_where_no_checkpoint_is_given(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["--demo", "--every", "4s", "--device", "cpu"]) == 0
    assert "tiny, as shipped: it knows synthetic people only" in capsys.readouterr().err
    assert (tmp_path / "out/predictions/synthetic/detections.csv").read_text().count(",4,") >= 20

    for wrong in ([], [str(VIDEO), "--demo"]):
        with pytest.raises(SystemExit, match="2"):
            main(wrong)
    assert "give videos, or --demo for the shipped synthetic one" in capsys.readouterr().err

    (tmp_path / "tiny").mkdir()
    assert main([str(VIDEO)]) == 2, "a folder of that name goes first"
    assert "error: tiny: neither a run" in capsys.readouterr().err
