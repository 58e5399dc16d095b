"""Is a data set on disk what training will need? Counts, missing and short videos, boxes, a picture.

`inspect` reads annotations and looks at every video they name; nothing is decoded but the samples
of `contact_sheet`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from actloc_core.clip import VideoError, probe, read_times
from datasets import ava, jhmdb, tubes, ucf24
from datasets.split import Images, Source, read_source
from evaluators.act_pickle import split_videos
from evaluators.ava_csv import read_annotations, read_exclusions, read_label_map
from evaluators.frame_map import GroundTruth

KNOWN: Mapping[str, Mapping[str, Mapping[str, int]]] = {
    "ava": {"train": {"videos": 235}, "val": {"videos": 64}},
    "ucf24": {
        "train 1": {"classes": 24},
        "test 1": {"classes": 24, "videos": 910, "frames": 159_289, "keyframes": 138_527},
    },
    "jhmdb": {
        "train 1": {"classes": 21, "videos": 660},
        "test 1": {"classes": 21, "videos": 268},
        "train 2": {"classes": 21, "videos": 658},
        "test 2": {"classes": 21, "videos": 270},
        "train 3": {"classes": 21, "videos": 663},
        "test 3": {"classes": 21, "videos": 265},
    },
}
"""Dataset -> split -> what the published data hold. A subset differs, and is told so, not refused."""

SHOWN = 5
"""How many of a kind of problem are named; the rest are counted."""


@dataclass
class SplitReport:
    """What was found of one split. Counts are of what the annotations name."""

    name: str
    counts: dict[str, int]
    """classes, videos, frames (that the videos hold), keyframes (annotated), boxes, labels."""
    sources: dict[str, Source]
    """Of the videos that were found."""
    truth: GroundTruth
    classes: dict[int, str]
    starts: dict[str, int] = field(default_factory=dict)
    """AVA: the movie's second at time 0 of each video."""
    errors: list[str] = field(default_factory=list)
    """Each makes the split unusable."""
    warnings: list[str] = field(default_factory=list)

    def differences(self, known: Mapping[str, int]) -> list[str]:
        """How the counts differ from the published ones."""
        return [
            f"{self.name}: {self.counts[what]:,} {what}, published {number:,}"
            for what, number in known.items()
            if self.counts[what] != number
        ]


Progress = Callable[[str, int, int], None]
"""Called with a split's name, videos looked at, and all its videos."""


def inspect(
    dataset: str, root: Path, progress: Progress = lambda name, done, total: None
) -> list[SplitReport]:
    """Look at every split of a dataset: "ava", "ucf24" or "jhmdb".

    Raises FileNotFoundError or ValueError where the annotations themselves cannot be read.
    """
    if dataset == "ava":
        return [_inspect_ava(root, split, progress) for split in ("train", "val")]
    module = {"ucf24": ucf24, "jhmdb": jhmdb}[dataset]
    annotations = tubes.read_annotations(root, module.FILE)
    reports = []
    for number in range(1, min(module.SPLITS, len(annotations.test_videos)) + 1):
        for split in ("train", "test"):
            if split == "test":
                videos = split_videos(annotations, number)
            else:
                videos = annotations.train_videos[number - 1]
            name = f"{split} {number}"
            report = SplitReport(
                name, {}, {}, tubes.only(annotations.ground_truth, videos), annotations.classes
            )
            lengths: dict[str, int] = {}
            for done, video in enumerate(videos, 1):
                _look_at_tubes(report, root, module.FILE, module.IMAGES, video, annotations.nframes, lengths)
                progress(name, done, len(videos))
            _count(report, len(videos), sum(lengths.values()))
            _check_tube_boxes(report, annotations.resolution, annotations.nframes)
            reports.append(report)
    return reports


def _inspect_ava(root: Path, split: str, progress: Progress) -> SplitReport:
    annotations = ava.annotations_folder(root)
    classes = read_label_map(annotations / "ava_action_list_v2.2.pbtxt")
    csv = annotations / f"ava_{split}_v2.2.csv"
    # Boxes out of range and unknown actions stop the reader with file and line: training would too.
    truth, _ = read_annotations(csv, known_ids=frozenset(classes))
    read_exclusions(annotations / f"ava_{split}_excluded_timestamps_v2.2.csv")
    report = SplitReport(split, {}, {}, truth, classes)
    frames = 0
    last = dict.fromkeys(truth.videos, 0)
    for video, second in zip(truth.video, truth.frame, strict=True):
        last[truth.videos[video]] = max(last[truth.videos[video]], int(second))
    outside = (truth.frame < ava.FIRST_SECOND) | (truth.frame > ava.LAST_SECOND)
    if outside.any():
        report.warnings.append(
            f"{split}: {int(outside.sum()):,} labels outside seconds {ava.FIRST_SECOND}..{ava.LAST_SECOND}"
        )
    for done, video in enumerate(truth.videos, 1):
        try:
            source = ava.find_source(root, video, csv)
            begin, end = ava.span(source, ava.FPS)
            if isinstance(source, Images):
                frames += source.count
            else:  # every packet is looked at: a header may promise more than the file holds
                info = probe(source)
                frames, end = frames + info.frames, begin + info.seconds
        except (FileNotFoundError, ValueError) as error:
            report.errors.append(str(error))
        else:
            report.sources[video], report.starts[video] = source, begin
            if last[video] >= end:
                report.errors.append(
                    f"{video}: annotated up to second {last[video]}, but it ends at {end:.1f}: truncated?"
                )
        progress(split, done, len(truth.videos))
    _count(report, len(truth.videos), frames)
    return report


def _look_at_tubes(
    report: SplitReport,
    root: Path,
    file: str,
    images: tuple[tuple[str, str], ...],
    video: str,
    nframes: Mapping[str, int],
    lengths: dict[str, int],
) -> None:
    """Find one video and compare its length with the annotations'."""
    try:
        source = tubes.find_source(root, video, root / file, images)
        length = source.count if isinstance(source, Images) else probe(source).frames
    except (FileNotFoundError, ValueError) as error:
        report.errors.append(str(error))
        return
    report.sources[video], lengths[video] = source, length
    if length < nframes[video]:
        report.errors.append(f"{video}: {length} frames, annotations say {nframes[video]}: truncated?")
    elif length > nframes[video]:
        report.warnings.append(
            f"{video}: {length} frames, annotations say {nframes[video]}; are they numbered alike?"
        )


def _check_tube_boxes(
    report: SplitReport, resolution: Mapping[str, tuple[int, int]], nframes: Mapping[str, int]
) -> None:
    truth = report.truth
    size = np.array([resolution[video][::-1] * 2 for video in truth.videos], float).reshape(-1, 4)[
        truth.video
    ]
    last = np.array([nframes[video] for video in truth.videos])[truth.video]
    # Pixels count from 0 or from 1: a box may end one past the last.
    for what, bad in (
        ("boxes leave the image", (truth.box < -1).any(1) | (truth.box > size + 1).any(1)),
        ("boxes are inside out", (truth.box[:, 0] >= truth.box[:, 2]) | (truth.box[:, 1] >= truth.box[:, 3])),
        ("boxes are past their video's end", truth.frame > last),
    ):
        if bad.any():
            row = int(np.argmax(bad))
            report.warnings.append(
                f"{report.name}: {int(bad.sum()):,} {what}, the first in {truth.videos[truth.video[row]]}, "
                f"frame {truth.frame[row]}"
            )


def _count(report: SplitReport, videos: int, frames: int) -> None:
    truth = report.truth
    keys = np.unique(np.column_stack([truth.video, truth.frame]), axis=0)
    boxes = np.unique(np.column_stack([truth.video, truth.frame, truth.box]), axis=0)
    report.counts.update(
        classes=len(report.classes),
        videos=videos,
        frames=frames,
        keyframes=len(keys),
        boxes=len(boxes),
        labels=len(truth.label),
    )


def contact_sheet(
    reports: list[SplitReport], count: int, seed: int, *, tile: tuple[int, int] = (320, 240)
) -> Image.Image | None:
    """`count` annotated keyframes of the videos found, with their boxes and labels drawn, as one picture.

    Drawn evenly from the splits by the seed. A frame that cannot be read becomes an error of its split.
    None where there is no frame to draw.
    """
    rng = np.random.default_rng(seed)
    tiles: list[Image.Image] = []
    for i, report in enumerate(reports):
        truth = report.truth
        found = np.isin(truth.video, [n for n, video in enumerate(truth.videos) if video in report.sources])
        keys = np.unique(np.column_stack([truth.video, truth.frame])[found], axis=0)
        share = count // len(reports) + (i < count % len(reports))
        for video, frame in keys[rng.permutation(len(keys))[:share]]:
            name = truth.videos[video]
            try:
                pixels = _keyframe(report, name, int(frame))
            except VideoError as error:
                report.errors.append(str(error))
                continue
            rows = (truth.video == video) & (truth.frame == frame)
            tiles.append(_tile(pixels, report, name, int(frame), rows, tile))
    if not tiles:
        return None
    columns = int(np.ceil(np.sqrt(len(tiles))))
    sheet = Image.new("RGB", (columns * tile[0], -(-len(tiles) // columns) * tile[1]), "white")
    for i, drawn in enumerate(tiles):
        sheet.paste(drawn, (i % columns * tile[0], i // columns * tile[1]))
    return sheet


def _keyframe(report: SplitReport, video: str, frame: int) -> NDArray[np.uint8]:
    """(H, W, 3): of AVA the frame at a second, else the frame of this number from 1."""
    source = report.sources[video]
    if not report.starts:
        return read_source(source, np.array([frame - 1]))[0]
    time = frame - report.starts[video]
    if isinstance(source, Images):
        return source.read(np.array([time * ava.FPS]))[0]
    return read_times(source, np.array([float(time)]), fps=ava.FPS)[0]


def _tile(
    pixels: NDArray[np.uint8],
    report: SplitReport,
    video: str,
    frame: int,
    rows: NDArray[np.bool_],
    size: tuple[int, int],
) -> Image.Image:
    image = Image.fromarray(pixels).resize(size)
    draw = ImageDraw.Draw(image)
    unit = (1.0, 1.0) if report.starts else (float(pixels.shape[1]), float(pixels.shape[0]))
    scale = np.array([size[0] / unit[0], size[1] / unit[1]] * 2)
    truth = report.truth
    for box in np.unique(truth.box[rows], axis=0):
        x1, y1, x2, y2 = np.sort((box * scale).reshape(2, 2), axis=0).ravel()
        draw.rectangle((x1, y1, x2, y2), outline="yellow", width=2)
        labels = truth.label[rows & (truth.box == box).all(1)]
        text = ", ".join(report.classes[int(label)].split(" (")[0] for label in labels)
        draw.text((x1 + 3, y1 + 2), text[:40], fill="yellow", stroke_width=1, stroke_fill="black")
    draw.rectangle((0, size[1] - 13, size[0], size[1]), fill="black")
    draw.text((3, size[1] - 13), f"{report.name}: {video} {frame}", fill="white")
    return image


def summary(dataset: str, reports: list[SplitReport]) -> tuple[str, bool]:
    """The text for a terminal, and whether the data can be used."""
    columns = list(reports[0].counts)
    lines = [f"{'split':10}" + "".join(f"{name:>12}" for name in columns) + f"{'found':>9}"]
    for report in reports:
        counts = "".join(f"{report.counts[name]:>12,}" for name in columns)
        lines.append(f"{report.name:10}{counts}{len(report.sources):>9,}")
    different = [
        text for report in reports for text in report.differences(KNOWN[dataset].get(report.name, {}))
    ]
    # JHMDB's splits share their videos: each problem once.
    errors = list(dict.fromkeys(text for report in reports for text in report.errors))
    warnings = list(dict.fromkeys(text for report in reports for text in report.warnings))
    for title, texts in (
        ("error", errors),
        ("warning", warnings),
        ("differs from the published data", different),
    ):
        lines += [f"{title}: {text}" for text in texts[:SHOWN]]
        if len(texts) > SHOWN:
            lines.append(f"{title}: ... and {len(texts) - SHOWN:,} more")
    if errors:
        lines.append(f"verdict: not usable yet, {len(errors):,} error(s)")
    elif warnings or different:
        whole = "" if not different else ", not the whole published data"
        lines.append(f"verdict: usable, {len(warnings):,} warning(s){whole}")
    else:
        lines.append("verdict: complete")
    return "\n".join(lines), not errors
