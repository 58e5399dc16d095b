"""Speed at AVA val's size, against a straightforward implementation measured in the same run.

    python -m pytest benchmarks/perf/test_evaluators.py -s

Seconds are CPU seconds of one thread, which mean something on a busy machine, too.
"""

import csv
import os
import resource
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

import evaluators
from evaluators import (
    UCF_PROTOCOLS,
    Detections,
    EvalRules,
    GroundTruth,
    GroundTruthTubes,
    audit_rows,
    error_budget,
    frame_mAP,
    intervals,
    read_detections,
    read_groundtruth,
    video_mAP,
    write_detections,
)
from evaluators.matching import box_iou, pair_groups

VIDEOS, SECONDS = 64, np.arange(902, 1799)  # 57,408 keyframes
CLASSES = {i: f"action {i}" for i in range(1, 61)}


def ava_like(frames=None, rows_per_box=16, seed=0):
    """(gt, detections) like AVA val's: skewed classes, frames with one to five actors, boxes anywhere."""
    rng = np.random.default_rng(seed)
    videos = tuple(f"video{i:02d}" for i in range(VIDEOS))
    video, second = (x.ravel() for x in np.meshgrid(np.arange(VIDEOS), SECONDS, indexing="ij"))
    if frames is not None:
        kept = np.sort(rng.choice(len(video), frames, replace=False))
        video, second = video[kept], second[kept]
    popularity = np.log(1 / np.arange(1, 61) ** 1.2)

    def actions(people, most):  # different ones for each person, the common ones more often
        drawn = popularity + rng.gumbel(size=(people, 60))
        return np.argpartition(-drawn, most, axis=1)[:, :most] + 1

    actors = rng.choice([1, 2, 3, 5], len(video), p=[0.4, 0.35, 0.15, 0.1])
    frame = np.repeat(np.arange(len(video)), actors)
    corner = rng.uniform(0, 0.6, (len(frame), 2))
    box = np.concatenate([corner, corner + rng.uniform(0.1, 0.4, corner.shape)], axis=1)
    does = actions(len(frame), 3)
    person, which = np.nonzero(rng.random(does.shape) < [1.0, 0.75, 0.36])
    gt = GroundTruth(
        videos, video[frame][person], second[frame][person], box[person].round(3), does[person, which]
    )

    # Each actor is detected once, a little off, a tenth of them twice, and one box in ten is anywhere.
    of = np.concatenate([np.arange(len(frame)), np.flatnonzero(rng.random(len(frame)) < 1 / 10)])
    seen_box = box[of] + rng.normal(0, 0.02, (len(of), 4))
    wild = rng.random(len(of)) < 0.1
    seen_box[wild] = box[rng.integers(len(box), size=wild.sum())]
    guess = actions(len(of), rows_per_box)
    known = rng.random(len(of)) < 0.8
    guess[known, 0] = does[of[known], 0]
    truly = (guess[:, :, None] == does[of][:, None, :2]).any(axis=2)
    score = np.where(truly, rng.beta(1.5, 3, guess.shape), rng.beta(0.4, 4, guess.shape))
    # Ranks for scores: no ties, which every implementation breaks in its own way.
    score = ((score.ravel().argsort().argsort() + 1) / (score.size + 1)).round(8).reshape(score.shape)
    row, column = np.divmod(rng.permutation(guess.size), rows_per_box)
    where = frame[of[row]]
    detections = Detections(
        videos,
        video[where],
        second[where],
        seen_box[row].round(4),
        guess[row, column],
        score[row, column],
    )
    return gt, detections


def ucf_like(videos=910, length=175, seed=0):
    """(gt, detections) like UCF101-24's test videos: 159,250 frames, 24 classes, one or two tubes."""
    rng = np.random.default_rng(seed)
    names = tuple(f"v{i:03d}" for i in range(videos))
    people = rng.choice([1, 2], videos, p=[0.8, 0.2])
    tube_video = np.repeat(np.arange(videos), people)
    frames = int(0.87 * length)
    first = rng.integers(1, length - frames, len(tube_video))
    row = np.repeat(np.arange(len(tube_video)), frames)
    frame = first[row] + np.tile(np.arange(frames), len(tube_video))
    corner = rng.uniform(0, 150, (len(tube_video), 2))
    box = np.concatenate([corner, corner + rng.uniform(40, 90, corner.shape)], axis=1)[row]
    label = (tube_video % 24)[row]
    gt = GroundTruthTubes(names, tube_video[row], frame, box, label, row)

    of = np.repeat(np.arange(len(row)), 6)
    seen_box = box[of] + rng.normal(0, 6, (len(of), 4))
    right = rng.random(len(of)) < 0.5
    guess = np.where(right, label[of], rng.integers(0, 24, len(of)))
    score = np.where(right, rng.beta(3, 2, len(of)), rng.beta(1, 3, len(of)))
    return gt, Detections(names, gt.video[of], frame[of], seen_box, guess, score)


# --- plain implementations ------------------------------------------------------------------------------


def per_image_map(gt, detections, least=0.5):
    """mAP by the standard rules as one writes it down, and as the public tools are built: image by
    image, in each class by class, in each detection by detection."""
    number = {label: int((gt.label == label).sum()) for label in CLASSES}
    pooled = {label: [] for label in CLASSES}
    gt_rows, rows_of = by_image(gt), by_image(detections)
    for image, rows in rows_of.items():
        boxes, labels, scores = detections.box[rows], detections.label[rows], detections.score[rows]
        valid = (boxes[:, 0] < boxes[:, 2]) & (boxes[:, 1] < boxes[:, 3])
        boxes, labels, scores = boxes[valid], labels[valid], scores[valid]
        true_rows = gt_rows.get(image, [])
        true_boxes, true_labels = gt.box[true_rows], gt.label[true_rows]
        for label in CLASSES:
            mine, theirs = boxes[labels == label], true_boxes[true_labels == label]
            score = scores[labels == label]
            order = np.argsort(-score)
            hit = np.zeros(len(mine), dtype=bool)
            if len(mine) and len(theirs):
                overlap = iou_matrix(mine[order], theirs)
                best, taken = overlap.argmax(axis=1), np.zeros(len(theirs), dtype=bool)
                for i in range(len(mine)):
                    if overlap[i, best[i]] >= least and not taken[best[i]]:
                        hit[i] = taken[best[i]] = True
            pooled[label].append((score[order], hit))
    areas = []
    for label, parts in pooled.items():
        if not number[label]:
            continue
        score, hit = (np.concatenate(column) for column in zip(*parts, strict=True))
        hits = np.cumsum(hit[np.argsort(-score, kind="stable")])
        precision = np.maximum.accumulate((hits / np.arange(1, len(hits) + 1))[::-1])[::-1]
        areas.append(float((np.diff(hits, prepend=0) * precision).sum() / number[label]))
    return sum(areas) / len(areas)


def by_image(rows):
    images = defaultdict(list)
    for i, image in enumerate(zip(rows.video.tolist(), rows.frame.tolist(), strict=True)):
        images[image].append(i)
    return images


def iou_matrix(a, b):
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    sides = np.maximum(np.minimum(a[:, None, 2:], b[None, :, 2:]) - low, 0)
    both = sides.prod(axis=2)
    area = [np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (a, b)]
    return both / (area[0][:, None] + area[1][None, :] - both)


def lean_map(gt_rows, detection_rows, least=0.5):
    """The same in plain Python, without a step too many; from (video, second, box, label[, score])."""
    there, seen, number, pooled = defaultdict(list), defaultdict(list), defaultdict(int), defaultdict(list)
    for video, second, box, label in gt_rows:
        there[video, second, label].append(box)
        number[label] += 1
    for video, second, box, label, score in detection_rows:
        if box[0] < box[2] and box[1] < box[3]:
            seen[video, second, label].append((score, box))
    for key, detections in seen.items():
        taken = set()
        for score, box in sorted(detections, key=lambda d: -d[0]):
            overlaps = [plain_iou(box, other) for other in there.get(key, ())]
            best = max(overlaps, default=0)
            hit = best >= least and overlaps.index(best) not in taken
            if hit:
                taken.add(overlaps.index(best))
            pooled[key[2]].append((score, hit))
    areas = []
    for label, count in number.items():
        hits, curve = 0, []
        for rank, (_, hit) in enumerate(sorted(pooled[label], key=lambda d: -d[0]), 1):
            hits += hit
            if hit:
                curve.append(hits / rank)
        best, area = 0.0, 0.0
        for precision in reversed(curve):
            best = max(best, precision)
            area += best / count
        areas.append(area)
    return sum(areas) / len(areas)


def plain_iou(a, b):
    both = max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def as_rows(rows):
    names = [rows.videos[v] for v in rows.video.tolist()]
    columns = [names, rows.frame.tolist(), rows.box.tolist(), rows.label.tolist()]
    columns += [rows.score.tolist()] if isinstance(rows, Detections) else []
    return list(zip(*columns, strict=True))


def csv_rows(path, scored):
    with open(path, newline="") as file:
        for row in csv.reader(file):
            fields = (row[0], int(row[1]), [float(x) for x in row[2:6]], int(row[6]))
            yield (*fields, float(row[7])) if scored else fields


def cpu(function, *arguments, times=1, **options):
    """The least CPU seconds of some runs, and what the last gave."""
    best = np.inf
    for _ in range(times):
        started = time.process_time()
        result = function(*arguments, **options)
        best = min(best, time.process_time() - started)
    return best, result


def test_the_plain_implementations_compute_the_same_mAP():
    gt, detections = ava_like(frames=300)
    score = frame_mAP(gt, detections, CLASSES).mAP
    assert per_image_map(gt, detections) == pytest.approx(score, abs=1e-12)
    assert lean_map(as_rows(gt), as_rows(detections)) == pytest.approx(score, abs=1e-12)


# --- the measurements ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole():
    return ava_like()


@pytest.fixture(scope="module")
def files(whole, tmp_path_factory):
    """Ground gt, detections, four times the detections, and the label map as files."""
    folder = tmp_path_factory.mktemp("ava")
    gt, detections = whole
    columns = ("video", "frame", "box", "label")
    ids = Detections(gt.videos, *(getattr(gt, c) for c in columns), np.arange(len(gt.video)))
    write_detections(folder / "gt.csv", ids)
    write_detections(folder / "det.csv", detections)
    rng = np.random.default_rng(1)
    row = np.repeat(np.arange(len(detections.video)), 4)
    box = (detections.box[row] + rng.normal(0, 0.01, (len(row), 4))).round(5)
    score = (detections.score[row] * rng.random(len(row))).round(6)
    many = Detections(
        detections.videos, detections.video[row], detections.frame[row], box, detections.label[row], score
    )
    write_detections(folder / "many.csv", many)
    lines = [f'item {{ name: "{name}" id: {i} }}' for i, name in CLASSES.items()]
    (folder / "map.pbtxt").write_text("\n".join(lines))
    return folder


@pytest.mark.benchmark(group="AVA val, arrays", timer=time.process_time)
def test_two_million_rows_take_less_than_a_second(whole, benchmark):
    gt, detections = whole
    score = benchmark(frame_mAP, gt, detections, CLASSES)
    seconds = benchmark.stats.stats.min
    print(f"\n{len(gt.video):,} label rows, {len(detections.video):,} detections: {seconds:.2f} CPU s")
    part = ava_like(frames=57_408 // 16)
    fast, ours = cpu(frame_mAP, *part, CLASSES, times=5)
    for what, (slow, theirs) in {
        "image by image, class by class": cpu(per_image_map, *part),
        "in lean Python": cpu(lean_map, *map(as_rows, part)),
    }.items():
        print(f"on a sixteenth: {what} {slow:.2f} s, ours {fast:.4f} s, ratio {slow / fast:.0f}")
        assert ours.mAP == pytest.approx(theirs, abs=1e-12)
        assert slow > 10 * fast
    assert score.num_detections > 2_000_000
    assert seconds < 1


@pytest.mark.benchmark(group="AVA val, csv", timer=time.process_time)
def test_two_million_rows_from_csv_take_less_than_three_seconds(files, benchmark):
    def whole_way():
        gt, detections = read_groundtruth(files / "gt.csv"), read_detections(files / "det.csv")
        return frame_mAP(gt, detections, CLASSES)

    score = benchmark.pedantic(whole_way, rounds=3)
    seconds = benchmark.stats.stats.min
    runs = [(bare_read(files), command(files, "det.csv")) for _ in range(3)]
    bare = min(seconds for seconds, _ in runs)
    process, done = min(run for _, run in runs)
    slow, slow_map = cpu(
        lambda: lean_map(csv_rows(files / "gt.csv", False), csv_rows(files / "det.csv", True))
    )
    print(
        f"\nread and score {seconds:.2f} CPU s, the whole command {process:.2f} s, {process / bare:.2f} "
        f"times a bare read ({bare:.2f} s); in lean Python {slow:.1f} s: ratio {slow / seconds:.0f}\n{done}"
    )
    assert score.mAP == pytest.approx(slow_map, abs=1e-12)
    assert seconds < 3
    assert slow > 10 * seconds
    assert slow > 4 * process
    assert process < 3 * bare


def test_eight_million_rows_take_the_time_of_parsing_them_and_less_than_two_gigabytes(files):
    """Compared with `float` of the first 200,000 lines' fields, times forty for all eight million."""
    lines = (files / "many.csv").read_text()[: 200_000 * 70].splitlines()[:200_000]
    began = time.process_time()
    for line in lines:
        [float(field) for field in line.split(",")[1:]]
    parse = 40 * (time.process_time() - began)
    seconds, done = command(files, "many.csv")
    gigabytes = int(done.rsplit(None, 1)[1]) / 2**20
    print(f"\nwhole command: {seconds:.1f} CPU s, {gigabytes:.2f} GiB; plain parsing {parse:.1f} s\n{done}")
    assert seconds < 1.25 * parse
    assert gigabytes < 2


def bare_read(folder):
    """CPU seconds of a process that reads the two files with pyarrow, and does nothing else."""
    code = (
        "import sys, pyarrow as pa, pyarrow.csv as csv\n"
        "types = dict.fromkeys(['x1', 'y1', 'x2', 'y2', 'score'], pa.float64())\n"
        "types |= {'second': pa.int64(), 'action': pa.int64()}\n"
        "types |= {'video': pa.dictionary(pa.int32(), pa.utf8())}\n"
        "names = ['video', 'second', 'x1', 'y1', 'x2', 'y2', 'action', 'score']\n"
        "for path in sys.argv[1:]:\n"
        "    csv.read_csv(path, read_options=csv.ReadOptions(column_names=names),\n"
        "                 convert_options=csv.ConvertOptions(column_types=types))\n"
    )
    return in_a_process([code, str(folder / "gt.csv"), str(folder / "det.csv")])[0]


def command(folder, detections):
    """`python -m evaluators ava` in a process of its own: CPU seconds; its text, and its memory in KiB last.

    By VmHWM: ru_maxrss has what the process that started it took before.
    """
    code = (
        "import re, sys; from evaluators.__main__ import command; code = command();"
        "print(re.search(r'VmHWM:\\s*(\\d+)', open('/proc/self/status').read())[1]); sys.exit(code)"
    )
    paths = {"groundtruth": "gt.csv", "detections": detections, "labelmap": "map.pbtxt"}
    options = [text for name, file in paths.items() for text in (f"--{name}", str(folder / file))]
    return in_a_process([code, "ava", *options])


def in_a_process(arguments):
    """CPU seconds and output of `python -c` with these arguments."""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    root = Path(evaluators.__file__).parents[1]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", *arguments],
        capture_output=True, text=True, cwd=root, env=environment, check=True,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, done.stdout.strip()


def test_intervals_error_budget_and_audit_take_seconds(whole):
    gt, detections = whole
    without, ends = cpu(intervals, gt, detections, CLASSES)
    budget, _ = cpu(error_budget, gt, detections, CLASSES)
    counts, _ = cpu(audit_rows, gt, detections, CLASSES)
    once, _ = cpu(frame_mAP, gt, detections, CLASSES, times=3)
    print(
        f"\nintervals {without:.1f} CPU s ({VIDEOS * once / without:.0f} times quicker than {VIDEOS} times "
        f"{once:.2f} s), error budget {budget:.1f} s, audit {counts:.2f} s"
    )
    assert ends.num_videos == VIDEOS
    assert max(without, budget) < 15


def test_ucf101_24_at_its_size_takes_seconds():
    gt, detections = ucf_like()
    classes = {i: str(i) for i in range(24)}
    print(f"\n{len(gt.video):,} boxes, {len(detections.video):,} detections")
    for protocol in UCF_PROTOCOLS:
        seconds, score = cpu(frame_mAP, gt, detections, classes, rules=EvalRules(protocol), times=3)
        print(f"{protocol:12} {seconds:.2f} CPU s, mAP {score.mAP:.4f}")
        assert seconds < 2
    seconds, score = cpu(video_mAP, gt, detections, classes)
    print(f"video-mAP    {seconds:.2f} CPU s, @0.5 {score.mAP[0.5]:.4f}, {score.num_detections:,} tubes")
    assert seconds < 30


def test_iou_in_numpy_is_faster_than_pycocotools_frame_by_frame(whole):
    mask = pytest.importorskip("pycocotools.mask")
    gt, detections = whole
    kept = detections.video < 4
    group = [rows.video * 10_000_000 + rows.frame * 100 + rows.label for rows in (gt, detections)]
    seen = np.flatnonzero(kept)

    def in_numpy():
        detection_row, gt_row = pair_groups(group[0], group[1][seen])
        return box_iou(detections.box[seen][detection_row], gt.box[gt_row])

    def in_c():
        there, here = defaultdict(list), defaultdict(list)
        for i in np.flatnonzero(gt.video < 4).tolist():
            there[group[0][i]].append(i)
        for i in seen.tolist():
            if group[1][i] in there:
                here[group[1][i]].append(i)
        wide = [
            np.column_stack([rows.box[:, :2], rows.box[:, 2:] - rows.box[:, :2]]) for rows in (gt, detections)
        ]
        return [
            mask.iou(wide[1][rows], wide[0][there[key]], [0] * len(there[key])) for key, rows in here.items()
        ]

    numpy_seconds, ours = cpu(in_numpy, times=3)
    c_seconds, theirs = cpu(in_c)
    inside_c = sum(cpu(mask.iou, np.zeros((1, 4)), np.zeros((1, 4)), [0])[0] for _ in theirs)
    print(
        f"\n{len(ours):,} pairs in {len(theirs):,} frames and classes: NumPy on all {numpy_seconds:.3f} s; "
        f"pycocotools frame by frame {c_seconds:.3f} s, of it about {inside_c:.3f} s in its own calls"
    )
    assert len(ours) == sum(matrix.size for matrix in theirs)
    assert sum(matrix.sum() for matrix in theirs) == pytest.approx(ours.sum(), rel=1e-6)
    assert numpy_seconds < c_seconds
