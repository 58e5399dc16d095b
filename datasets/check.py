"""Validate a dataset on disk before training: counts, missing and truncated videos, boxes, a contact sheet.

`inspect` reads the annotations and probes every video they name. Only the sample keyframes of
`contact_sheet` are decoded.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from actloc_core.clip import VideoError, VideoInfo, probe, read_times
from actloc_core.drawing import Labels, choose_labels, load_font
from datasets import ava, kinetics
from datasets.description import FILE, check_known, mirror_note, read_description
from datasets.jhmdb import JHMDB
from datasets.split import FrameFolder, VideoSource, read_source
from datasets.tubes import TubeBenchmark, select_videos, videos_of
from datasets.ucf24 import UCF24
from evaluators.act_pickle import ActAnnotations
from evaluators.ava_csv import NOBODY
from evaluators.frame_map import GroundTruth

PUBLISHED_COUNTS: Mapping[str, Mapping[str, Mapping[str, int]]] = {
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
    "kinetics": {"train": {"classes": 400}, "val": {"classes": 400}},  # videos are gone, other ones each year
}
"""Dataset -> split -> counts of the published data. A difference is reported, not refused."""

TUBE_BENCHMARKS = {"ucf24": UCF24, "jhmdb": JHMDB}
MAX_LISTED = 5
"""Problems of a kind that are listed; the others are counted."""


@dataclass
class SplitReport:
    """Counts and problems of one split. Counts are those of its annotations."""

    name: str
    counts: dict[str, int]
    """classes, videos, frames (in the video files), keyframes (annotated), boxes, labels."""
    sources: dict[str, VideoSource]
    """The videos that exist."""
    ground_truth: GroundTruth
    classes: dict[int, str]
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    """UCF101-24, JHMDB: width and height in the unit of a video's boxes."""
    starts: dict[str, int] = field(default_factory=dict)
    """AVA: the movie's second at the first frame of each video."""
    missing: dict[str, str] = field(default_factory=dict)
    """Video that is not there -> the error about it."""
    errors: list[str] = field(default_factory=list)
    """Problems that make the split unusable."""
    warnings: list[str] = field(default_factory=list)

    def differences(self, published: Mapping[str, int]) -> list[str]:
        """Describe each count that differs from the published one."""
        return [
            f"{self.name}: {self.counts[name]:,} {name}, published {number:,}"
            for name, number in published.items()
            if self.counts[name] != number
        ]


Progress = Callable[[str, int, int], None]
"""Called with a split's name, the number of videos probed, and of all its videos."""


def inspect(
    dataset: str,
    root: Path,
    progress: Progress = lambda name, done, total: None,
    start: int | None = None,
    leave_out_missing: bool = False,
) -> list[SplitReport]:
    """Validate every split of a dataset: "ava", "ucf24", "jhmdb" or "kinetics".

    start: the annotations' second at each video's first frame, in place of dataset.json's, to try it.
    leave_out_missing: a video that is not there is a warning, unless none is.
    Raises FileNotFoundError or ValueError where the annotations themselves cannot be read.
    """
    reports = _inspect(dataset, root, progress, start)
    classes, mirrored = reports[0].classes.values(), read_description(root).mirrored
    check_known(mirrored, classes, f"{root / FILE}: mirrored")
    if note := mirror_note(root, classes, mirrored):
        reports[0].warnings.append(note)
    if leave_out_missing:
        for report in reports:
            _forgive_missing(report)
    return reports


def _inspect(dataset: str, root: Path, progress: Progress, start: int | None) -> list[SplitReport]:
    if dataset == "ava":
        reports = [_inspect_ava(root, split, progress, start) for split in ("train", "val")]
        _check_shared(*reports)
        return reports
    if dataset == "kinetics":
        return [_inspect_kinetics(root, split, progress) for split in ("train", "val")]
    benchmark = TUBE_BENCHMARKS[dataset]
    act = benchmark.read_annotations(root)
    reports = []
    for number in range(1, min(benchmark.splits, len(act.test_videos)) + 1):
        for split in ("train", "test"):
            errors, videos = [], list[str]()
            try:
                videos = list(videos_of(act, split, number, root / benchmark.file))
                if not videos:
                    errors.append(f"{root / benchmark.file}: no {split} videos in split {number}")
            except ValueError as error:  # as training and evaluation would end
                errors.append(str(error))
            name = f"{split} {number}"
            ground_truth = select_videos(act.ground_truth, videos)
            report = SplitReport(name, {}, {}, ground_truth, act.classes, errors=errors)
            frames = 0
            for done, video in enumerate(videos, 1):
                frames += _check_tube_video(report, benchmark, root, video, act)
                progress(name, done, len(videos))
            _count(report, len(videos), frames)
            _check_tube_boxes(report, act)
            reports.append(report)
    return reports


def _forgive_missing(report: SplitReport) -> None:
    """Videos that are not there become one warning, where there are others."""
    if report.missing and report.sources:
        gone = set(report.missing.values())
        report.errors = [error for error in report.errors if error not in gone]
        first = next(iter(report.missing))
        report.warnings.append(
            f"{report.name}: {len(report.missing):,} videos are missing and left out, first {first!r}"
        )


def _check_shared(train: SplitReport, test: SplitReport) -> None:
    """Warn of videos that are in both splits."""
    shared = sorted(set(train.ground_truth.videos) & set(test.ground_truth.videos))
    if shared:
        test.warnings.append(
            f"{len(shared):,} videos are in {train.name} and in {test.name}, the first {shared[0]!r}: scored "
            "on what is trained on"
        )


def _inspect_ava(root: Path, split: str, progress: Progress, start: int | None) -> SplitReport:
    # Errors of the readers, with file and line, are those of training.
    read = ava.read_files(root, split)
    gt, csv = read.ground_truth.take(read.ground_truth.label != NOBODY), read.csv
    report = SplitReport(split, {}, {}, gt, read.classes, warnings=[*read.notes])
    frames = 0
    seconds: dict[str, list[int]] = {video: [] for video in gt.videos}
    for video, second in zip(gt.video.tolist(), gt.frame.tolist(), strict=True):
        seconds[gt.videos[video]].append(second)
    start = read_description(root).start_second if start is None else start
    outside = (gt.frame < ava.FIRST_SECOND) | (gt.frame > ava.LAST_SECOND)
    if start is None and outside.any():
        report.warnings.append(
            f"{split}: {int(outside.sum()):,} labels outside seconds {ava.FIRST_SECOND}..{ava.LAST_SECOND}"
        )
    for done, video in enumerate(gt.videos, 1):
        try:
            source = ava.find_source(root, video, csv)
            begin, end = ava.span(source, ava.FPS, start)
            if isinstance(source, FrameFolder):
                frames += source.count
                _check_images(report, source)
            else:  # all packets are read: a header may state more than the file holds
                info = _probe(source, report.warnings)
                frames, end = frames + info.frames, begin + info.seconds
        except (FileNotFoundError, ValueError) as error:
            _add_error(report, video, error)
        else:
            report.sources[video], report.starts[video] = source, begin
            first, last = min(seconds[video]), max(seconds[video])
            if last >= end:
                report.errors.append(
                    f"{video}: annotated up to second {last}, but it ends at {end:.1f}: truncated?"
                )
            if first < begin:  # training refuses it, too
                report.errors.append(
                    f"{video}: annotated from second {first}, but its first frame is second {begin}: AVA's "
                    f"seconds count from {ava.START_SECOND}; if yours count from another, 0 say, write "
                    f'{{"start_second": 0}} into {root / FILE}, or try it with --start-second 0'
                )
        progress(split, done, len(gt.videos))
    left = {(gt.videos[v], s) for v, s in zip(gt.video, gt.frame.tolist(), strict=True)} - read.excluded
    if not left:
        report.errors.append(f"{split}: every annotated second is excluded; nothing is left")
    _count(report, len(gt.videos), frames)
    return report


def _inspect_kinetics(root: Path, split: str, progress: Progress) -> SplitReport:
    """A clip's keyframe is the middle of its video, its box the whole frame, as in training."""
    labels, names = kinetics.read_labels(root, split, leave_out_missing=True)
    videos, frames = tuple(labels), 0
    middles, sizes = np.zeros(len(videos), np.int64), np.ones((len(videos), 2))
    sources: dict[str, VideoSource] = {}
    errors: list[str] = []
    warnings: list[str] = []
    missing: dict[str, str] = {}
    for number, video in enumerate(videos):
        try:
            info = _probe(root / video, warnings)
        except ValueError as error:
            errors.append(str(error))
            if not (root / video).is_file():
                missing[video] = str(error)
        else:
            sources[video], frames = root / video, frames + info.frames
            middles[number], sizes[number] = 1 + info.frames // 2, (info.width, info.height)
        progress(split, number + 1, len(videos))
    counts = [len(labels[video]) for video in videos]
    rows = np.repeat(np.arange(len(videos)), counts)
    label = np.array([label + 1 for video in videos for label in labels[video]], np.int64)
    boxes = np.concatenate([np.zeros((len(rows), 2)), sizes[rows]], axis=1)
    gt = GroundTruth(videos, rows, middles[rows], boxes, label)
    report = SplitReport(split, {}, sources, gt, dict(enumerate(names, 1)), errors=errors, warnings=warnings)
    report.missing = missing
    unused = [name for number, name in report.classes.items() if number not in set(label.tolist())]
    if unused:
        report.warnings.append(f"{split}: classes without a clip: {len(unused):,}, the first {unused[0]!r}")
    _count(report, len(videos), frames)
    return report


def _add_error(report: SplitReport, video: str, error: Exception) -> None:
    """Count a video that cannot be used."""
    report.errors.append(str(error))
    if isinstance(error, FileNotFoundError):
        report.missing[video] = str(error)


def _probe(path: Path, warnings: list[str]) -> VideoInfo:
    """Measure a video; damage that its container tells is one more warning. Raises VideoError."""
    info = probe(path)
    if info.damaged:
        warnings.append(
            f"{path}: {info.damaged:,} damaged packets: frames there are missing or wrong; get the file again"
        )
    return info


def _check_tube_video(
    report: SplitReport, benchmark: TubeBenchmark, root: Path, video: str, act: ActAnnotations
) -> int:
    """Find a video and compare its length and size with the annotations'; -> its frames, 0 if missing."""
    expected, stated = act.nframes[video], act.resolution[video][::-1]
    try:
        source = benchmark.find_source(root, video)
        if isinstance(source, FrameFolder):
            _check_images(report, source)
            length, size = source.count, source.read(np.zeros(1, np.int64)).shape[2:0:-1]
        else:
            info = _probe(source, report.warnings)
            length, size = info.frames, (info.width, info.height)
    except (FileNotFoundError, ValueError) as error:
        _add_error(report, video, error)
        return 0
    report.sources[video], report.sizes[video] = source, stated
    if size != stated:
        report.warnings.append(
            f"{video}: frames of {size[0]} x {size[1]}, but its boxes are in pixels of {stated[0]} x "
            f"{stated[1]}, as annotated: they are drawn and trained on in proportion"
        )
    if length < expected:
        report.errors.append(f"{video}: {length} frames, annotations say {expected}: truncated?")
    elif length > expected:
        report.warnings.append(
            f"{video}: {length} frames, annotations say {expected}; are they numbered alike?"
        )
    return length


def _check_images(report: SplitReport, source: FrameFolder) -> None:
    """Every image must be there: one that is missing in the middle fails a training late."""
    before, after = (part.replace("%%", "%") for part in re.split(r"%0\dd", source.name))
    name = re.compile(rf"{re.escape(before)}(\d+){re.escape(after)}")
    there, empty = set(), []
    for entry in os.scandir(source.folder):
        if match := name.fullmatch(entry.name):
            there.add(int(match[1]))
            if not entry.stat().st_size:
                empty.append(entry.path)
    if empty:
        report.errors.append(f"{min(empty)}: an empty file, one of {len(empty):,}; extract the frames again")
    missing = sorted(set(range(source.first, max(there) + 1)) - there)
    if missing:
        report.errors.append(
            f"{source.folder / (source.name % missing[0])}: no such image, and {len(missing) - 1:,} more of "
            f"{source.first} to {max(there):,} are missing; extract the video's frames again"
        )


def _check_tube_boxes(report: SplitReport, act: ActAnnotations) -> None:
    """Warn of boxes that leave the image, have no area, or lie past their video's end."""
    gt = report.ground_truth
    sizes = np.array([act.resolution[video][::-1] * 2 for video in gt.videos], float).reshape(-1, 4)
    size = sizes[gt.video]
    last = np.array([act.nframes[video] for video in gt.videos])[gt.video]
    # Pixels count from 0 or from 1: a box may end one past the last.
    for problem, rows in (
        ("boxes leave the image", (gt.box < -1).any(1) | (gt.box > size + 1).any(1)),
        ("boxes are inverted or empty", (gt.box[:, 0] >= gt.box[:, 2]) | (gt.box[:, 1] >= gt.box[:, 3])),
        ("boxes are past their video's end", gt.frame > last),
    ):
        if rows.any():
            row = int(np.argmax(rows))
            report.warnings.append(
                f"{report.name}: {int(rows.sum()):,} {problem}, the first in {gt.videos[gt.video[row]]}, "
                f"frame {gt.frame[row]}"
            )


def _count(report: SplitReport, videos: int, frames: int) -> None:
    gt = report.ground_truth
    keys = np.unique(np.column_stack([gt.video, gt.frame]), axis=0)
    boxes = np.unique(np.column_stack([gt.video, gt.frame, gt.box]), axis=0)
    report.counts.update(
        classes=len(report.classes),
        videos=videos,
        frames=frames,
        keyframes=len(keys),
        boxes=len(boxes),
        labels=len(gt.label),
    )


def contact_sheet(
    reports: list[SplitReport], count: int, seed: int, *, tile: tuple[int, int] = (320, 240)
) -> Image.Image | None:
    """Draw `count` annotated keyframes with their boxes and labels as one image; None without keyframes.

    They are sampled evenly from the splits by the seed. An unreadable frame becomes an error of its split.
    """
    rng = np.random.default_rng(seed)
    tiles: list[Image.Image] = []
    labels = choose_labels(reports[0].classes)
    for i, report in enumerate(reports):
        gt = report.ground_truth
        available = np.isin(gt.video, [n for n, video in enumerate(gt.videos) if video in report.sources])
        keys = np.unique(np.column_stack([gt.video, gt.frame])[available], axis=0)
        samples = count // len(reports) + (i < count % len(reports))
        for video, frame in keys[rng.permutation(len(keys))[:samples]]:
            name = gt.videos[video]
            try:
                pixels = _read_keyframe(report, name, int(frame))
            except VideoError as error:
                report.errors.append(str(error))
                continue
            rows = (gt.video == video) & (gt.frame == frame)
            tiles.append(_draw_tile(pixels, report, name, int(frame), rows, tile, labels))
    if not tiles:
        return None
    columns = int(np.ceil(np.sqrt(len(tiles))))
    sheet = Image.new("RGB", (columns * tile[0], -(-len(tiles) // columns) * tile[1]), "white")
    for i, image in enumerate(tiles):
        sheet.paste(image, (i % columns * tile[0], i // columns * tile[1]))
    return sheet


def _read_keyframe(report: SplitReport, video: str, frame: int) -> NDArray[np.uint8]:
    """Read a frame, (H, W, 3): in AVA the one at second `frame`, else the one of this number from 1."""
    source = report.sources[video]
    if not report.starts:
        return read_source(source, np.array([frame - 1]))[0]
    time = frame - report.starts[video]
    if isinstance(source, FrameFolder):
        return source.read(np.array([time * ava.FPS]))[0]
    return read_times(source, np.array([float(time)]), fps=ava.FPS)[0]


def _draw_tile(
    pixels: NDArray[np.uint8],
    report: SplitReport,
    video: str,
    frame: int,
    rows: NDArray[np.bool_],
    size: tuple[int, int],
    style: Labels,
) -> Image.Image:
    """Draw a keyframe, its ground-truth rows and its name at this (width, height)."""
    image = Image.fromarray(pixels).resize(size)
    draw = ImageDraw.Draw(image)
    unit = (1.0, 1.0) if report.starts else report.sizes.get(video, pixels.shape[1::-1])
    scale = np.array([size[0] / unit[0], size[1] / unit[1]] * 2)
    gt = report.ground_truth
    for box in np.unique(gt.box[rows], axis=0):
        x1, y1, x2, y2 = np.sort((box * scale).reshape(2, 2), axis=0).clip(0, np.array(size) - 1).ravel()
        draw.rectangle((x1, y1, x2, y2), outline="yellow", width=2)
        labels = gt.label[rows & (gt.box == box).all(1)]
        text = ", ".join(style.texts[report.classes[int(label)]].split(" (")[0] for label in labels)
        font = load_font(style.font_file, 11)
        text = text[:40]
        x = max(2, min(x1 + 3, size[0] - 2 - draw.textlength(text, font=font)))
        draw.text((x, y1 + 2), text, fill="yellow", font=font, stroke_width=1, stroke_fill="black")
    draw.rectangle((0, size[1] - 13, size[0], size[1]), fill="black")
    draw.text((3, size[1] - 13), f"{report.name}: {video} {frame}", fill="white")
    return image


def summary(dataset: str, reports: list[SplitReport], *, own: bool = False) -> tuple[str, bool]:
    """Summarise reports; -> text for a terminal, and whether the data are usable.

    own: not the benchmark's data but one's own in its form, which are not compared with the published counts.
    """
    published: Mapping[str, Mapping[str, int]] = {} if own else PUBLISHED_COUNTS[dataset]
    columns = list(reports[0].counts)
    lines = [f"{'split':10}" + "".join(f"{name:>12}" for name in columns) + f"{'found':>9}"]
    for report in reports:
        counts = "".join(f"{report.counts[name]:>12,}" for name in columns)
        lines.append(f"{report.name:10}{counts}{len(report.sources):>9,}")
    different = [text for report in reports for text in report.differences(published.get(report.name, {}))]
    # JHMDB's splits share their videos: list each problem once.
    errors = list(dict.fromkeys(text for report in reports for text in report.errors))
    warnings = list(dict.fromkeys(text for report in reports for text in report.warnings))
    for title, texts in (
        ("error", errors),
        ("warning", warnings),
        ("differs from the published data", different),
    ):
        lines += [f"{title}: {text}" for text in texts[:MAX_LISTED]]
        if len(texts) > MAX_LISTED:
            lines.append(f"{title}: ... and {len(texts) - MAX_LISTED:,} more")
    if errors:
        lines.append(f"verdict: not usable yet, {len(errors):,} error(s)")
    elif warnings or different:
        subset = ", not the whole published data" if different else ""
        lines.append(f"verdict: usable, {len(warnings):,} warning(s){subset}")
    else:
        lines.append("verdict: complete")
    return "\n".join(lines), not errors
