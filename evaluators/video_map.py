"""Video-mAP of tubes: link frame detections to tubes by ACT's rules, then score tubes by a protocol's.

`video_map` is the entry point, `link` its first half. Letters: T tubes, R rows of tubes (one per
frame), P pairs. In linking, boxes are one pixel wider and higher than x2 - x1 and y2 - y1, as in ACT.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import nan

import numpy as np

from evaluators.frame_map import (
    FRAME_LIMIT,
    PROTOCOL_RULES,
    Detections,
    GroundTruthTubes,
    Protocol,
    ProtocolRules,
    check_inputs,
    check_iou,
    class_ap,
    mean_ap,
)
from evaluators.matching import (
    Bools,
    Floats,
    Ints,
    Pairs,
    box_iou,
    candidate_pairs,
    lookup,
    match_best,
    match_unmatched,
    pair_groups,
    run_starts,
)

AVERAGED = tuple(round(0.5 + 0.05 * i, 2) for i in range(10))  # 0.5:0.95
LOW = tuple(round(0.05 + 0.05 * i, 2) for i in range(9))  # 0.05:0.45
TENTHS = tuple(round(0.1 + 0.1 * i, 1) for i in range(9))  # 0.1:0.9
MEANS = {"0.05:0.45": LOW, "0.1:0.9": TENTHS, "0.5:0.95": AVERAGED}
"""The means over thresholds that MultiSports, HIT and OpenMixer publish, by name."""
THRESHOLDS = (0.2, *AVERAGED)
EVERY_THRESHOLD = tuple(sorted({*LOW, *TENTHS, *AVERAGED}))
"""Those of all three means."""
_CHUNK = 2_000_000  # frames of tube pairs per step; bounds the memory


@dataclass(frozen=True, kw_only=True)
class VideoRules:
    """How a protocol scores tubes. The defaults are ACT's."""

    plus_one: bool = True  # boxes are one pixel wider and higher than their coordinates say
    whole_frames: bool = True  # a tube from frame 3 to 5 lasts three frames; else two
    unmatched_only: bool = True  # match with the best unmatched tube; else with the best of all
    curve: ProtocolRules = PROTOCOL_RULES[Protocol.ACT]  # how AP and its mean are taken


VIDEO_RULES = {
    Protocol.ACT: VideoRules(),
    Protocol.MULTISPORTS: VideoRules(
        plus_one=False,
        whole_frames=False,
        unmatched_only=False,
        curve=PROTOCOL_RULES[Protocol.MULTISPORTS],
    ),
}
"""Protocols of video-mAP. MULTISPORTS is HIT's and OpenMixer's, too."""


@dataclass(frozen=True, kw_only=True)
class Linking:
    """How frame detections are linked to tubes, class by class. The defaults are ACT's.

    From frame to frame, tubes choose in order of their mean score: each takes the best-scored
    detection that overlaps its last box by link_iou. A detection that no tube takes starts one. A
    tube ends when it takes no detection for `gap` frames. Frames without a detection inside a tube
    get the box interpolated linearly between its neighbours; ACT needs none, since its detector
    outputs six frames at once.
    """

    box_nms: float = 0.3  # in a frame, drop boxes whose IoU with a better-scored one is above this
    keep: int = 10  # and keep at most this many of the others, best first
    link_iou: float = 0.2
    gap: int = 5
    least_score: float = 0.01  # of a tube: the mean over its detections
    least_frames: int = 15  # of a tube, from its first to its last
    tube_nms: float = 0.3  # in a video, drop tubes whose overlap with a better-scored one is above this


@dataclass(frozen=True, eq=False)
class Tubes:
    """Detected tubes, boxes linked over time: T tubes of R boxes.

    videos              names
    video, label        (T,) int64, index into `videos`; class id
    score               (T,) float64
    tube                (R,) int64, which of the T a box belongs to, ascending
    frame               (R,) int64, ascending inside a tube, none twice
    box                 (R, 4) float64, x1 y1 x2 y2 in pixels

    ValueError when these do not fit together.
    """

    videos: tuple[str, ...]
    video: Ints
    label: Ints
    score: Floats
    tube: Ints
    frame: Ints
    box: Floats

    def __post_init__(self) -> None:
        number = len(self.video)
        if not len(self.label) == len(self.score) == number:
            raise ValueError(f"Tubes: {number} videos, {len(self.label)} labels, {len(self.score)} scores")
        if not np.isfinite(self.score).all() or not np.isfinite(self.box).all():
            raise ValueError("Tubes: a score or box is NaN or infinite")
        if self.box.shape != (len(self.tube), 4) or len(self.frame) != len(self.tube):
            raise ValueError(
                f"Tubes: {len(self.tube)} tube numbers, {len(self.frame)} frames and boxes of shape "
                f"{self.box.shape}; one of each per row is needed"
            )
        if not np.array_equal(np.unique(self.tube), np.arange(number)):
            raise ValueError(f"Tubes.tube must number the {number} tubes from 0, each with a box")
        key = self.tube * FRAME_LIMIT + self.frame
        if (np.diff(key) <= 0).any():
            row = int(np.argmax(np.diff(key) <= 0)) + 1
            raise ValueError(f"Tubes row {row}: rows must go up by tube, then by frame")


@dataclass(frozen=True)
class VideoMap:
    """Video-mAP at each threshold of tube overlap. Fractions in [0, 1], not per cent."""

    mAP: dict[float, float]  # by threshold
    mAP_50_95: float  # mean over 0.5, 0.55, .., 0.95 ("0.5:0.95"); NaN unless all ten were requested
    means: dict[str, float]  # each of MEANS whose thresholds were all requested, that one among them
    ap: dict[float, dict[int, float]]  # by threshold, class id; without ground truth 0 or NaN, by protocol
    classes: dict[int, str]
    num_classes: int
    num_ground_truth: int  # tubes
    num_detections: int  # tubes, after linking
    linking: Linking | None = field(default_factory=Linking)  # None: tubes were given
    protocol: Protocol = Protocol.ACT


def video_map(
    ground_truth: GroundTruthTubes,
    detections: Detections | Tubes,
    classes: Mapping[int, str],
    *,
    thresholds: tuple[float, ...] = THRESHOLDS,
    linking: Linking | None = None,
    protocol: Protocol | str = Protocol.ACT,
) -> VideoMap:
    """Compute video-mAP of frame detections, which are linked first, or of given tubes.

    classes     id -> name of the evaluated classes
    thresholds  least overlap of a true positive; the overlap of two tubes is the mean IoU of their
                boxes over the frames both have, times the IoU of their frames
    linking     for frame detections; None is ACT's. Given tubes are used as they are
    protocol    one of VIDEO_RULES

    ACT: by descending score, a tube is matched with the best ground-truth tube that is still
    unmatched; AP is the area under the raw curve, and the mean is over all classes, as in frame-mAP's
    protocol of that name. MULTISPORTS: a tube is matched with its best of all; boxes are x2 - x1 wide,
    and a tube lasts from its first to its last frame, one frame less than it has; curve and mean are
    those of frame-mAP's protocol of that name.

    ValueError: no classes, a threshold out of range, rows of a tube in several videos or classes, a
    protocol without rules for tubes.
    """
    rules = _rules_of(protocol)
    check_inputs(ground_truth, classes, allow_inverted=True)
    for threshold in thresholds:
        check_iou(threshold)
    ids = np.array(sorted(classes), dtype=np.int64)
    gt = _ground_truth_tubes(ground_truth, ids)
    if isinstance(detections, Detections):
        linking = linking or Linking()
        det = link(detections.take(lookup(ids, detections.label) >= 0), linking)
    else:
        linking, det = None, detections

    det_class = lookup(ids, det.label)
    counted = np.flatnonzero(det_class >= 0)  # given tubes of other classes are left out
    det_class, score = det_class[counted], det.score[counted]
    gt_group, det_group = _class_groups(gt, det, ids)
    det_group = det_group[counted]
    # The overlaps do not depend on the threshold: compute them once for all pairs of a class and video.
    row, gt_row = pair_groups(gt_group, det_group)
    pairs = Pairs(row, gt_row, tube_iou(det, counted[row], gt, gt_row, rules))

    num_gt = np.bincount(lookup(ids, gt.label), minlength=len(ids))
    ap = {}
    for threshold in thresholds:
        if rules.unmatched_only:
            hit = match_unmatched(pairs, det_group, score, iou=threshold) >= 0
        else:
            hit = match_best(pairs, len(score), score, iou=threshold) >= 0
        values = class_ap(num_gt, det_class, score, hit, rules.curve)
        ap[threshold] = dict(zip(ids.tolist(), values.tolist(), strict=True))
    mAP = {threshold: mean_ap(np.array(list(values.values()))) for threshold, values in ap.items()}
    means = _means(mAP)
    return VideoMap(
        mAP=mAP,
        mAP_50_95=means.get("0.5:0.95", nan),
        means=means,
        ap=ap,
        classes={class_id: classes[class_id] for class_id in ids.tolist()},
        num_classes=len(ids) if rules.curve.all_classes else int((num_gt > 0).sum()),
        num_ground_truth=len(gt.video),
        num_detections=len(counted),
        linking=linking,
        protocol=Protocol(protocol),
    )


def _rules_of(protocol: Protocol | str) -> VideoRules:
    if protocol not in VIDEO_RULES:
        known = ", ".join(VIDEO_RULES)
        raise ValueError(f"protocol {str(protocol)!r} has no rules for tubes; known are {known}")
    return VIDEO_RULES[Protocol(protocol)]


def _means(mAP: Mapping[float, float]) -> dict[str, float]:
    """Each of MEANS whose thresholds are all there."""
    return {
        name: float(np.mean([mAP[threshold] for threshold in of_mean]))
        for name, of_mean in MEANS.items()
        if mAP.keys() >= set(of_mean)
    }


def link(detections: Detections, linking: Linking | None = None) -> Tubes:
    """Link frame detections to tubes, each class of each video by itself. See `Linking` for the rules.

    All videos advance together, frame by frame, which is what makes it fast. Equal scores keep the
    order of the rows, equal tubes the order in which they started.
    """
    rules = linking or Linking()
    group = _class_of_video(detections)
    kept = _suppress_boxes(detections, group, rules)
    dets, group = detections.take(kept), group[kept]
    tube = _link_rows(group, dets, rules)

    # Rows tube by tube: the score of a tube is the mean over its detections, before interpolation.
    order = np.lexsort((dets.frame, tube))
    dets, tube = dets.take(order), tube[order]
    first = np.flatnonzero(run_starts(tube))
    last = np.append(first[1:], len(tube)) - 1 if len(first) else first
    size = last - first + 1
    mean = np.add.reduceat(dets.score, first) / size if len(first) else np.zeros(0)
    length = dets.frame[last] - dets.frame[first] + 1
    good = (mean >= rules.least_score) & (length >= rules.least_frames)
    of_good = np.repeat(good, size)
    tubes = Tubes(
        dets.videos,
        dets.video[first[good]],
        dets.label[first[good]],
        mean[good],
        np.repeat(np.arange(int(good.sum())), size[good]),
        dets.frame[of_good],
        dets.box[of_good],
    )
    return _suppress_tubes(_interpolate(tubes), rules.tube_nms)


def tube_iou(
    a: Tubes, a_tube: Ints, b: Tubes, b_tube: Ints, rules: VideoRules = VIDEO_RULES[Protocol.ACT]
) -> Floats:
    """Overlap of pairs of tubes, (P,): a_tube (P,) of `a` with b_tube (P,) of `b`.

    Mean IoU over the shared frames, times the share of shared frames among the frames of either. In
    whole frames that is the sum of the IoUs divided by the number of frames of either; otherwise
    times are differences of the first and last frames, and tubes of one frame overlap nothing.
    """
    stride = 1 + max(int(tubes.frame.max(initial=0)) for tubes in (a, b))
    b_key = b.tube * stride + b.frame
    size_a, size_b = (np.bincount(t.tube, minlength=len(t.video)) for t in (a, b))
    start_a, start_b = (np.cumsum(size) - size for size in (size_a, size_b))
    first_a, first_b = a.frame[start_a], b.frame[start_b]
    last_a, last_b = a.frame[start_a + size_a - 1], b.frame[start_b + size_b - 1]
    overlap = np.zeros(len(a_tube))
    for part in _chunks(size_a[a_tube]):
        of_a, of_b = a_tube[part], b_tube[part]
        n = size_a[of_a]
        pair = np.repeat(np.arange(len(of_a)), n)
        row_a = np.repeat(start_a[of_a] - (np.cumsum(n) - n), n) + np.arange(len(pair))
        row_b = lookup(b_key, of_b[pair] * stride + a.frame[row_a])
        both = np.flatnonzero(row_b >= 0)
        iou = box_iou(a.box[row_a[both]], b.box[row_b[both]], plus_one=rules.plus_one)
        shared = np.bincount(pair[both], minlength=len(of_a))
        total = np.bincount(pair[both], weights=iou, minlength=len(of_a))
        if rules.whole_frames:
            overlap[part] = total / (n + size_b[of_b] - shared)
            continue
        both_last = np.minimum(last_a[of_a], last_b[of_b])
        both_first = np.maximum(first_a[of_a], first_b[of_b])
        either = np.maximum(last_a[of_a], last_b[of_b]) - np.minimum(first_a[of_a], first_b[of_b])
        time = np.maximum(both_last - both_first, 0) / np.maximum(either, 1)
        overlap[part] = total / np.maximum(shared, 1) * time
    return overlap


def _ground_truth_tubes(ground_truth: GroundTruthTubes, ids: Ints) -> Tubes:
    """The ground truth of the evaluated classes, tube by tube."""
    kept = ground_truth.take(lookup(ids, ground_truth.label) >= 0)
    rows = kept.take(np.lexsort((kept.frame, kept.tube)))
    first = run_starts(rows.tube)
    for name, values in (("video", rows.video), ("label", rows.label)):
        changed = np.flatnonzero(~first & (values != np.roll(values, 1)))
        if len(changed):
            raise ValueError(f"ground-truth tube {rows.tube[changed[0]]} has rows of more than one {name}")
    repeated = np.flatnonzero(~first & (rows.frame == np.roll(rows.frame, 1)))
    if len(repeated):
        row = repeated[0]
        raise ValueError(f"ground-truth tube {rows.tube[row]} has two boxes on frame {rows.frame[row]}")
    score = np.ones(int(first.sum()))
    return Tubes(
        rows.videos, rows.video[first], rows.label[first], score, np.cumsum(first) - 1, rows.frame, rows.box
    )


def _suppress_boxes(detections: Detections, group: Ints, rules: Linking) -> Ints:
    """The rows that box NMS leaves, in file order. In round k every frame keeps its k-th box."""
    order = np.lexsort((-detections.score, detections.frame, group))
    stride = 1 + int(detections.frame.max(initial=0))
    frame = group[order] * stride + detections.frame[order]  # one number per class of a frame
    left = np.arange(len(order))
    kept = [left[:0]]
    for _ in range(rules.keep):
        if len(left) == 0:
            break
        best, leader = _leaders(frame[left])
        kept.append(order[left[best]])
        iou = box_iou(detections.box[order[left]], detections.box[order[left[leader]]], plus_one=True)
        left = left[(iou <= rules.box_nms) & ~best]
    return np.sort(np.concatenate(kept))


def _link_rows(group: Ints, dets: Detections, rules: Linking) -> Ints:
    """The tube of each detection, (K,)."""
    frame, score = dets.frame, dets.score
    tube = np.full(len(group), -1, dtype=np.int64)
    by_frame = np.argsort(frame, kind="stable")
    borders = np.flatnonzero(run_starts(frame[by_frame]))
    # Active tubes, one entry each: their last row, the sum and the number of their scores.
    last, total, count = np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.int64)
    num_tubes = 0
    for rows in np.split(by_frame, borders[1:]) if len(borders) else []:
        active = frame[rows[0]] - frame[last] <= rules.gap
        last, total, count = last[active], total[active], count[active]
        # Detections of this frame against the last box of each active tube of the same class and video.
        pairs = candidate_pairs(group[last], dets.box[last], group[rows], dets.box[rows], plus_one=True)
        near = pairs.iou >= rules.link_iou
        new, old = _link_pairs(pairs.det[near], pairs.gt[near], -score[rows], -total / count)
        tube[rows[new]] = tube[last[old]]
        last[old] = rows[new]
        total[old] += score[rows[new]]
        count[old] += 1

        started = rows[tube[rows] < 0]  # detections that no tube took
        tube[started] = num_tubes + np.arange(len(started))
        num_tubes += len(started)
        last = np.concatenate([last, started])
        total = np.concatenate([total, score[started]])
        count = np.concatenate([count, np.ones(len(started), np.int64)])
    return tube


def _link_pairs(new: Ints, old: Ints, new_key: Floats, old_key: Floats) -> tuple[Ints, Ints]:
    """Of the pairs (new detection, old tube) that may link, those that do.

    The rule is sequential: tube by tube in order of its key, each takes the remaining detection of
    least key; equal keys in order of number. All tubes rank the detections alike and all detections
    rank the tubes alike, so a pair that is the first choice of both is final, and rounds of such
    pairs give the sequential result.
    """
    rank_new, rank_old = _ranks(new_key), _ranks(old_key)
    linked = [np.stack([new[:0], old[:0]])]
    while len(new):
        by_new = np.lexsort((rank_old[old], new))
        by_old = np.lexsort((rank_new[new], old))
        first_choices = np.zeros(len(new), dtype=np.int64)
        first_choices[by_new[run_starts(new[by_new])]] += 1
        first_choices[by_old[run_starts(old[by_old])]] += 1
        final = first_choices == 2
        linked.append(np.stack([new[final], old[final]]))
        left = ~np.isin(new, new[final]) & ~np.isin(old, old[final])
        new, old = new[left], old[left]
    pairs = np.concatenate(linked, axis=1)
    return pairs[0], pairs[1]


def _interpolate(tubes: Tubes) -> Tubes:
    """Tubes with a box on every frame from the first to the last, linear between detections."""
    if len(tubes.tube) == 0:
        return tubes
    after = np.minimum(np.arange(len(tubes.tube)) + 1, len(tubes.tube) - 1)
    continues = tubes.tube[after] == tubes.tube
    continues[-1] = False
    step = np.where(continues, tubes.frame[after] - tubes.frame, 1)
    row = np.repeat(np.arange(len(step)), step)
    along = np.arange(len(row)) - np.repeat(np.cumsum(step) - step, step)
    share = (along / step[row])[:, None]
    box = tubes.box[row] + share * (tubes.box[after[row]] - tubes.box[row])
    return replace(tubes, tube=tubes.tube[row], frame=tubes.frame[row] + along, box=box)


def _suppress_tubes(tubes: Tubes, threshold: float) -> Tubes:
    """The tubes that NMS over space and time leaves; in round k every class keeps its k-th."""
    group = _class_of_video(tubes)
    left = np.lexsort((-tubes.score, group))
    kept = [left[:0]]
    while len(left):
        best, of_best = _leaders(group[left])
        kept.append(left[best])
        left, leader = left[~best], left[of_best[~best]]
        left = left[tube_iou(tubes, left, tubes, leader) <= threshold]
    keep = np.sort(np.concatenate(kept))
    number = lookup(keep, tubes.tube)
    rows = number >= 0
    return Tubes(
        tubes.videos,
        tubes.video[keep],
        tubes.label[keep],
        tubes.score[keep],
        number[rows],
        tubes.frame[rows],
        tubes.box[rows],
    )


def _class_groups(gt: Tubes, det: Tubes, ids: Ints) -> tuple[Ints, Ints]:
    """One number per (video name, class), the same on both sides; other classes count as class -1."""
    number = {name: i for i, name in enumerate(dict.fromkeys(gt.videos + det.videos))}
    gt_group, det_group = (
        np.array([number[name] for name in tubes.videos], dtype=np.int64)[tubes.video] * (len(ids) + 1)
        + lookup(ids, tubes.label)
        + 1
        for tubes in (gt, det)
    )
    return gt_group, det_group


def _class_of_video(rows: Detections | Tubes) -> Ints:
    """One number per (video, label)."""
    labels, label = np.unique(rows.label, return_inverse=True)
    return rows.video * len(labels) + label


def _leaders(ordered: Ints) -> tuple[Bools, Ints]:
    """Of runs of equal numbers: which entries begin a run (K,), and where the run of each begins (K,)."""
    best = run_starts(ordered)
    return best, np.flatnonzero(best)[np.cumsum(best) - 1]


def _ranks(key: Floats) -> Ints:
    rank = np.empty(len(key), dtype=np.int64)
    rank[np.argsort(key, kind="stable")] = np.arange(len(key))
    return rank


def _chunks(sizes: Ints) -> Iterator[slice]:
    """Slices of consecutive entries whose sizes sum to about _CHUNK."""
    ends = np.cumsum(sizes)
    at = 0
    while at < len(sizes):
        done = ends[at - 1] if at else 0
        end = max(at + 1, int(np.searchsorted(ends, done + _CHUNK, side="right")))
        yield slice(at, end)
        at = end
