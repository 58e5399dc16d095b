"""AVA 2.2 and datasets in its formats, such as the synthetic benchmark, from frames or video files.

<root>/frames/<video>/<video>_%06d.jpg       30 per second, number 1 is second 900; or
<root>/rawframes/<video>/img_%05d.jpg        the same in MMAction2's tree; or else
<root>/videos/<video>.{mp4,mkv,webm,avi,mov} whole movies, or their cuts from second 900
<root>/annotations/ava_<split>_v2.2.csv                      video,second,x1,y1,x2,y2,action,person
<root>/annotations/ava_<split>_excluded_timestamps_v2.2.csv      if missing, none is excluded
<root>/annotations/ava_action_list_v2.2.pbtxt                    all actions: the classes of training
<root>/annotations/ava_action_list_v2.2_for_activitynet_2019.pbtxt   the evaluated ones; if missing, all
<root>/annotations/**/ava_detection_<split>_boxes_and_labels.csv     person boxes of a detector

Where there are none of 2.2 the files of 2.1 are read, and where there are none of these those of MMAction2's
own sets: <split>.csv, <split>_excluded_timestamps.csv, a label map, dense_proposals_<split>.pkl. They may lie
in <root> itself. <root>/dataset.json says from where own data count their seconds (datasets.description).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from actloc_core.clip import clip_indices, clip_times, duration, read_times
from datasets import description
from datasets.cache import read_once
from datasets.description import read_description
from datasets.proposals import read_proposals
from datasets.split import (
    ActorAnnotations,
    FrameFolder,
    Key,
    Split,
    VideoSource,
    columns_after_flip,
    find_present,
    find_video,
    group_by_actor,
    missing_note,
)
from evaluators.ava_csv import (
    NOBODY,
    outside,
    read_annotations,
    read_exclusions,
    read_label_map,
    read_persons,
)
from evaluators.frame_map import GroundTruth
from evaluators.hints import exclusions_that_match_nothing

FIRST_SECOND, LAST_SECOND = 902, 1798
"""The annotated range of a movie, one keyframe per second."""
START_SECOND = 900
"""Time 0 of extracted frames, and of video files that are the 15-minute cuts."""
FPS = 30
"""Frame rate of the extracted frames and of a clip's stride."""


@dataclass(frozen=True, kw_only=True)
class AvaSplit(Split):
    """A split whose keyframes are seconds and whose boxes are fractions of the frame."""

    starts: dict[str, int]
    """Video -> the annotations' second at the first frame of its file or folder."""
    fps: float
    """Clips are sampled as from a video of this constant frame rate, whatever the file's own rate."""

    def read(self, index: int) -> NDArray[np.uint8]:
        """Read the frames of a clip, (T, H, W, 3) uint8 RGB."""
        video, second = self.keyframes[index]
        source, time = self.sources[video], second - self.starts[video]
        if isinstance(source, FrameFolder):
            keyframe = round(time * self.fps)
            return source.read(clip_indices(keyframe, source.count, frames=self.frames, stride=self.stride))
        times = clip_times(time, frames=self.frames, stride=self.stride, fps=self.fps)
        return read_once(source, times, lambda: read_times(source, times, fps=self.fps))

    def box_unit(self, video: str) -> tuple[float, float]:
        """(1, 1): AVA's boxes are fractions of the frame."""
        return 1.0, 1.0


class PersonBoxes(NamedTuple):
    """The boxes of a person detector at one keyframe."""

    boxes: NDArray[np.float64]
    """(N, 4) xyxy in [0, 1]."""
    scores: NDArray[np.float64]
    """(N,) p(person)."""


def load(
    root: Path,
    split: str,
    *,
    frames: int,
    stride: int,
    crop: int,
    fps: float = FPS,
    mirrored: Mapping[str, str] | None = None,
    leave_out_missing: bool = False,
) -> AvaSplit:
    """Load one split: read its annotations and find each of its videos. No file is converted.

    Items of the training split are the annotated seconds. Items of other splits are all seconds of the
    annotated range that the videos hold: a detection at a second without annotations is a false positive.
    fps: the frame rate that `stride` refers to. Extracted frames have this rate; a video file of another
    or a variable rate is sampled at the times that frames of this rate would have.
    mirrored: class name -> the name that it gets in a mirrored clip; None: what dataset.json says.
    leave_out_missing: do without videos that are not there, and without their ground truth.
    Raises FileNotFoundError or ValueError naming file, line and field.
    """
    read = read_files(root, split)
    sources, missing = find_present(
        read.ground_truth.videos,
        lambda video: find_source(root, video, read.csv),
        leave_out_missing=leave_out_missing,
    )
    read = read.of_videos(sources)
    csv, classes, ground_truth, excluded = read.csv, read.classes, read.ground_truth, read.excluded
    start = read_description(root).start_second
    spans = {video: span(source, fps, start) for video, source in sources.items()}
    # The person id distinguishes persons with equal boxes; older files have none.
    ids = np.full(len(ground_truth.label), -1) if read.person is None else read.person
    seen = ground_truth.label != NOBODY
    people = ground_truth.take(seen)
    # A box that leaves the frame is scored as it is, and trained on as far as it is seen.
    annotations = group_by_actor(people, ids[seen], people.box.clip(0, 1), tuple(classes))
    for video, second in zip(ground_truth.video[~seen], ground_truth.frame[~seen], strict=True):
        annotations.rows.setdefault((ground_truth.videos[video], int(second)), (0, 0))
    _check_spans(annotations, sources, spans, csv)
    keys = annotations.rows if split == "train" else _evaluated_keyframes(spans, start)
    return AvaSplit(
        classes=classes,
        evaluated=read.evaluated,
        notes=(*read.notes, *missing_note(csv, missing, len(sources))),
        left_out=missing,
        ground_truth=ground_truth,
        excluded=excluded,
        keyframes=tuple(sorted(key for key in keys if key not in excluded)),
        sources=sources,
        annotations=annotations,
        flipped_columns=columns_after_flip(classes, mirrored, root),
        frames=frames,
        stride=stride,
        crop=crop,
        starts={video: begin for video, (begin, _) in spans.items()},
        fps=fps,
    )


class AvaFiles(NamedTuple):
    """What the annotation files of a split hold."""

    csv: Path
    classes: dict[int, str]
    """Of training."""
    evaluated: dict[int, str]
    ground_truth: GroundTruth
    person: NDArray[np.int64] | None
    """(N,) person id of each row of the ground truth, where the file has them."""
    excluded: frozenset[Key]
    notes: tuple[str, ...]
    """What is unusual about them, in words."""

    def of_videos(self, videos: Collection[str]) -> AvaFiles:
        """The same with the ground truth of these videos alone."""
        if len(videos) == len(self.ground_truth.videos):
            return self
        gt = self.ground_truth
        kept = np.isin(gt.video, [i for i, video in enumerate(gt.videos) if video in videos])
        person = None if self.person is None else self.person[kept]
        return self._replace(ground_truth=gt.in_videos(list(videos)), person=person)


class FileNames(NamedTuple):
    """Names of a split's annotation files in one of the trees; of each the first that exists is read."""

    csv: str
    label_map: tuple[str, ...]
    evaluated: str | None
    """None: the tree has none, all classes are evaluated."""
    exclusions: str


def file_names(split: str) -> tuple[FileNames, ...]:
    """The names of a split's annotation files in each tree: AVA 2.2, 2.1, MMAction2's of own sets."""
    ava = [
        FileNames(
            f"ava_{split}_v{version}.csv",
            (f"ava_action_list_v{version}.pbtxt",),
            f"ava_action_list_v{version}_for_activitynet_{year}.pbtxt",
            f"ava_{split}_excluded_timestamps_v{version}.csv",
        )
        for version, year in (("2.2", "2019"), ("2.1", "2018"))
    ]
    maps = ("label_map.txt", "label_map.pbtxt", "action_list.pbtxt")
    return *ava, FileNames(f"{split}.csv", maps, None, f"{split}_excluded_timestamps.csv")


def read_files(root: Path, split: str) -> AvaFiles:
    """Read the annotation files of a split: of the first tree of `file_names` that has its csv.

    Raises FileNotFoundError or ValueError naming file, line and field.
    """
    folder, notes = annotations_folder(root), []
    trees = file_names(split)
    names = next((tree for tree in trees if (folder / tree.csv).is_file()), trees[0])
    maps = [folder / name for name in names.label_map]
    classes = read_label_map(next((file for file in maps if file.is_file()), maps[0]))
    csv = folder / names.csv
    ground_truth, person = read_annotations(csv, known_ids=frozenset(classes))
    evaluated, excluded = classes, frozenset[Key]()
    if names.evaluated is None:
        pass
    elif (file := folder / names.evaluated).is_file():
        evaluated = read_label_map(file)
        notes += _check_evaluated(file, evaluated, classes)
    else:
        notes.append(f"{file} does not exist: all {len(classes)} classes of training are evaluated")
    if (file := folder / names.exclusions).is_file():
        excluded = read_exclusions(file)
        notes += [f"{file}: {note}" for note in exclusions_that_match_nothing(ground_truth, excluded)]
    else:
        notes.append(f"{file} does not exist: no second is excluded")
    boxes, most = outside(ground_truth)
    if boxes:
        notes.append(
            f"{csv}: {boxes:,} rows have boxes that leave the frame, by up to {most:.4f} of its side: they "
            "are scored as they are, and clipped for training"
        )
    return AvaFiles(csv, classes, evaluated, ground_truth, person, excluded, tuple(notes))


def _check_evaluated(file: Path, evaluated: dict[int, str], classes: dict[int, str]) -> list[str]:
    """Notes on evaluated classes of another name. ValueError for one that no training class is."""
    unknown = sorted(evaluated.keys() - classes.keys())
    if unknown:
        raise ValueError(
            f"{file}: class {unknown[0]} ({evaluated[unknown[0]]!r}) is not among the {len(classes)} classes "
            "of training: give the two label maps the same ids"
        )
    other = [i for i, name in evaluated.items() if name != classes[i]]
    if not other:
        return []
    first = other[0]
    return [
        f"{file}: {len(other)} classes have another name than in training, the first {first}: "
        f"{evaluated[first]!r}, there {classes[first]!r}; do the ids agree?"
    ]


def _check_spans(
    annotations: ActorAnnotations,
    sources: dict[str, VideoSource],
    spans: dict[str, tuple[int, float]],
    csv: Path,
) -> None:
    """Raise ValueError naming a video that does not hold a second it is annotated at."""
    for video, second in annotations.rows:
        begin, end = spans[video]
        if not begin <= second < end:
            source = sources[video]
            path = source.folder if isinstance(source, FrameFolder) else source
            raise ValueError(
                f"{csv}: {video} is annotated at second {second}, but {path} covers seconds "
                f"{begin} to {end:.1f}; is it cut from second {START_SECOND}? If the seconds of yours "
                f'count from another, 0 say, write {{"start_second": 0}} into dataset.json in the data folder'
            )


def _evaluated_keyframes(spans: dict[str, tuple[int, float]], start: int | None) -> list[Key]:
    """All seconds that each video holds, annotated or not; of AVA those of the annotated range."""
    return [
        (video, second)
        for video, (begin, end) in spans.items()
        for second in range(begin, math.ceil(end))
        if start is not None or FIRST_SECOND <= second <= LAST_SECOND
    ]


def person_boxes(path: Path, *, threshold: float = 0.8) -> dict[Key, PersonBoxes]:
    """Read a detector's person boxes for the two-stage baseline: keyframe (video, second) -> boxes.

    path: a file like ava_detection_val_boxes_and_labels.csv, whose last column is the score, or MMAction2's
    dense_proposals_val.pkl.
    threshold: boxes with this score or a higher one are used; 0.8 is usual in two-stage methods.
    A keyframe's boxes are sorted by score, best first. Keyframes without boxes are left out.
    Raises FileNotFoundError, or ValueError naming file and line.
    """
    persons = read_proposals(path) if path.suffix == ".pkl" else read_persons(path)
    used = np.flatnonzero(persons.score >= threshold)
    order = used[np.lexsort((-persons.score[used], persons.frame[used], persons.video[used]))]
    keys = np.column_stack([persons.video[order], persons.frame[order]])
    _, begins = np.unique(keys, axis=0, return_index=True)
    return {
        (persons.videos[persons.video[rows[0]]], int(persons.frame[rows[0]])): PersonBoxes(
            persons.box[rows].clip(0, 1), persons.score[rows]
        )
        for rows in np.split(order, begins[1:])
        if len(rows)
    }


def find_person_boxes(root: Path, split: str) -> Path:
    """Find the person-box file of a split. FileNotFoundError names the file and its publisher.

    Of the training split the published one that has boxes without an action, too, comes first.
    """
    stem, annotations = f"ava_detection_{split}_boxes_and_labels", annotations_folder(root)
    names = [f"{stem}{kind}.csv" for kind in ("_include_negative_v2.2", "_include_negative", "")]
    names.append(f"dense_proposals_{split}*.pkl")
    paths = [path for name in names for path in sorted(annotations.rglob(name))]
    if not paths:
        raise FileNotFoundError(
            f"{annotations}: no {stem}.csv in it or below it. It holds the boxes of a person detector, and "
            "is published with SlowFast; or choose rows that use ground-truth boxes or none"
        )
    return paths[0]


def annotations_folder(root: Path) -> Path:
    """Find the annotation folder of a data folder. FileNotFoundError: one of the two is missing."""
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such data folder; give it as --data ava=FOLDER")
    for name in ("annotations", "annotations_v2.2"):
        if (root / name).is_dir():
            return root / name
    if any((root / tree.csv).is_file() for split in ("train", "val") for tree in file_names(split)):
        return root
    raise FileNotFoundError(f"{root}: no folder annotations/ (or annotations_v2.2/) in it")


def find_source(root: Path, video: str, csv: Path) -> VideoSource:
    """Find a video's extracted frames or else its file. Raises as `datasets.split.find_video`."""
    name = f"{video.replace('%', '%%')}_%06d.jpg"
    frames = [(f"frames/{video}", name)]
    frames += [(f"rawframes/{video}", f"img_%0{digits}d.jpg") for digits in (5, 6)]
    return find_video(root, video, frames, csv)


def span(source: VideoSource, fps: float, start: int | None = None) -> tuple[int, float]:
    """First second of the movie that a file or its frames hold, and their end as the file states it.

    start: the first second of own data. None: AVA's. Of it a file that reaches the last annotated second is
    the whole movie, a shorter one the cut from second 900: movies are longer than half an hour, cuts have 15
    minutes.
    """
    if isinstance(source, FrameFolder):
        begin = START_SECOND if start is None else start
        return begin, begin + source.count / fps
    seconds = duration(source)
    begin = start if start is not None else 0 if seconds > LAST_SECOND else START_SECOND
    return begin, begin + seconds


def fingerprint(root: Path) -> str:
    """Hash of the annotation files, 16 hex digits; the videos' bytes (200 GB) are not read."""
    digest, folder = hashlib.sha256(), annotations_folder(root)
    own: list[Path] = [root / description.FILE]
    for split in ("train", "val"):
        names = file_names(split)[-1]
        own += [folder / name for name in (names.csv, names.exclusions, *names.label_map)]
    for path in sorted(folder.glob("ava_*")) + [path for path in own if path.is_file()]:
        digest.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]
