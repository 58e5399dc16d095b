"""Video-mAP of tubes, by ACT's and MOC's rules: link frame detections, score tubes against tubes.

`video_map` is the whole of it, `link` its first half. Letters: T tubes, R rows of tubes (one per
frame), P pairs. Boxes count as in ACT, a pixel wider and higher than x2 - x1 and y2 - y1.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import nan

import numpy as np

from evaluators.frame_map import (
    FRAME_LIMIT,
    RULES,
    Detections,
    Floats,
    Ints,
    Protocol,
    TubeTruth,
    box_iou,
    check_task,
    claim_remaining,
    class_ap,
    lookup,
    meetings,
    pairs,
    starts,
)

AVERAGED = tuple(round(0.5 + 0.05 * i, 2) for i in range(10))  # 0.5:0.95
THRESHOLDS = (0.2, *AVERAGED)
_CHUNK = 2_000_000  # frames of tube pairs looked at together; bounds the memory


@dataclass(frozen=True, kw_only=True)
class Linking:
    """How frame detections become tubes, class by class. The defaults are ACT's.

    From frame to frame the tube with the best mean score chooses first: of the detections that
    overlap its last box by link_iou, the surest. What no tube takes begins one. A tube found on no
    frame for `gap` frames has ended. Frames without a detection inside a tube get the box half way
    (a third, ..) between its neighbours; ACT has none such, its detector gives six frames at once.
    """

    box_nms: float = 0.3  # in a frame, boxes that overlap a surer one by more are dropped
    keep: int = 10  # and of the others these many are kept, the surest
    link_iou: float = 0.2
    gap: int = 5
    least_score: float = 0.01  # of a tube: the mean over its detections
    least_frames: int = 15  # of a tube, from its first to its last
    tube_nms: float = 0.3  # in a video, tubes that overlap a surer one by more are dropped


@dataclass(frozen=True, eq=False)
class Tubes:
    """What was found, linked over time: T tubes of R boxes.

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
    """Video-mAP at each overlap of tubes asked for. Fractions in [0, 1], not per cent."""

    mAP: dict[float, float]  # by threshold
    mAP_50_95: float  # over 0.5, 0.55, .., 0.95 ("0.5:0.95"); NaN unless all ten were asked for
    ap: dict[float, dict[int, float]]  # by threshold, then class id; 0 without ground truth
    classes: dict[int, str]
    num_classes: int
    num_ground_truth: int  # tubes
    num_detections: int  # tubes, after all of the linking
    linking: Linking | None = field(default_factory=Linking)  # None: the tubes came ready made
    protocol: Protocol = Protocol.ACT


def video_map(
    truth: TubeTruth,
    found: Detections | Tubes,
    classes: Mapping[int, str],
    *,
    thresholds: tuple[float, ...] = THRESHOLDS,
    linking: Linking | None = None,
) -> VideoMap:
    """Video-mAP of frame detections, which are linked here, or of tubes.

    classes     id -> name of the evaluated classes
    thresholds  least overlap of tubes that are the same; the overlap is the mean IoU of their
                boxes over the frames both have, times the IoU of their frames
    linking     for frame detections; None is ACT's. Tubes are taken as they are

    A tube claims the best of the ground-truth tubes still free, surest first; AP is the area under
    the raw curve, and the mean is over all classes, as in frame-mAP's protocol ACT.

    ValueError: no classes, a threshold out of range, rows of a tube in several videos or classes.
    """
    for threshold in thresholds:
        check_task(truth, classes, threshold, inside_out=True)
    ids = np.array(sorted(classes), dtype=np.int64)
    there = _truth_tubes(truth, ids)
    if isinstance(found, Detections):
        linking = linking or Linking()
        found = link(_of_labels(found, ids), linking)
    else:
        linking = None

    number = {name: i for i, name in enumerate(dict.fromkeys(truth.videos + found.videos))}
    groups = []
    for tubes in (there, found):
        video = np.array([number[name] for name in tubes.videos], dtype=np.int64)[tubes.video]
        groups.append(video * (len(ids) + 1) + lookup(ids, tubes.label) + 1)
    counted = np.flatnonzero(lookup(ids, found.label) >= 0)  # tubes of other classes are left out
    found_class = lookup(ids, found.label)[counted]
    group, score = groups[1][counted], found.score[counted]
    found_row, truth_row = meetings(groups[0], group)
    overlap = tube_iou(found, counted[found_row], there, truth_row)

    num_truth = np.bincount(lookup(ids, there.label), minlength=len(ids))
    ap = {}
    for threshold in thresholds:
        claimed = claim_remaining(found_row, truth_row, overlap, group, score, iou=threshold)
        values = class_ap(num_truth, found_class, score, claimed >= 0, RULES[Protocol.ACT])
        ap[threshold] = dict(zip(ids.tolist(), values.tolist(), strict=True))
    mean_ap = {threshold: float(np.mean(list(values.values()))) for threshold, values in ap.items()}
    averaged = [mean_ap[threshold] for threshold in AVERAGED if threshold in mean_ap]
    return VideoMap(
        mAP=mean_ap,
        mAP_50_95=float(np.mean(averaged)) if len(averaged) == len(AVERAGED) else nan,
        ap=ap,
        classes={class_id: classes[class_id] for class_id in ids.tolist()},
        num_classes=len(ids),
        num_ground_truth=len(there.video),
        num_detections=len(counted),
        linking=linking,
    )


def link(found: Detections, linking: Linking | None = None) -> Tubes:
    """Frame detections to tubes, each class of each video by itself. See `Linking` for the rules.

    All videos advance together, frame by frame: that is what makes it quick. Equal scores keep the
    order of the rows, equal tubes the order they began in.
    """
    rules = linking or Linking()
    group = _class_of_video(found)
    kept = _suppress_boxes(found, group, rules)
    group, frame, score = group[kept], found.frame[kept], found.score[kept]
    tube = _link_rows(group, frame, found.box[kept], score, rules)

    order = np.lexsort((frame, tube))
    rows, tube, frame, score = kept[order], tube[order], frame[order], score[order]
    first = np.flatnonzero(starts(tube))
    last = np.append(first[1:], len(tube)) - 1 if len(first) else first
    size = last - first + 1
    mean = np.add.reduceat(score, first) / size if len(first) else np.zeros(0)
    good = (mean >= rules.least_score) & (frame[last] - frame[first] + 1 >= rules.least_frames)
    of_good = np.repeat(good, size)
    tubes = _filled(
        Tubes(
            found.videos,
            found.video[rows[first[good]]],
            found.label[rows[first[good]]],
            mean[good],
            np.repeat(np.arange(int(good.sum())), size[good]),
            frame[of_good],
            found.box[rows[of_good]],
        )
    )
    return _suppress_tubes(tubes, rules.tube_nms)


def tube_iou(a: Tubes, a_tube: Ints, b: Tubes, b_tube: Ints) -> Floats:
    """Overlap of pairs of tubes, (P,): a_tube (P,) of `a` with b_tube (P,) of `b`.

    Mean IoU over the shared frames, times shared frames over all frames of either, which is the
    sum of the IoUs over all frames of either.
    """
    stride = 1 + max(int(tubes.frame.max(initial=0)) for tubes in (a, b))
    b_key = b.tube * stride + b.frame
    size_a, size_b = (np.bincount(t.tube, minlength=len(t.video)) for t in (a, b))
    start_a = np.cumsum(size_a) - size_a
    overlap = np.zeros(len(a_tube))
    for part in _chunks(size_a[a_tube]):
        of_a, of_b = a_tube[part], b_tube[part]
        n = size_a[of_a]
        pair = np.repeat(np.arange(len(of_a)), n)
        row_a = np.repeat(start_a[of_a] - (np.cumsum(n) - n), n) + np.arange(len(pair))
        row_b = lookup(b_key, of_b[pair] * stride + a.frame[row_a])
        both = np.flatnonzero(row_b >= 0)
        iou = box_iou(a.box[row_a[both]], b.box[row_b[both]], plus_one=True)
        shared = np.bincount(pair[both], minlength=len(of_a))
        total = np.bincount(pair[both], weights=iou, minlength=len(of_a))
        overlap[part] = total / (n + size_b[of_b] - shared)
    return overlap


def _truth_tubes(truth: TubeTruth, ids: Ints) -> Tubes:
    """The ground truth of the evaluated classes, tube by tube."""
    kept = np.flatnonzero(lookup(ids, truth.label) >= 0)
    order = kept[np.lexsort((truth.frame[kept], truth.tube[kept]))]
    number = truth.tube[order]
    first = starts(number)
    for name, values in (("video", truth.video[order]), ("label", truth.label[order])):
        moved = np.flatnonzero(~first & (values != np.roll(values, 1)))
        if len(moved):
            raise ValueError(f"ground-truth tube {number[moved[0]]} has rows of more than one {name}")
    twice = np.flatnonzero(~first & (truth.frame[order] == np.roll(truth.frame[order], 1)))
    if len(twice):
        row = order[twice[0]]
        raise ValueError(f"ground-truth tube {truth.tube[row]} has two boxes on frame {truth.frame[row]}")
    begins = order[first]
    return Tubes(
        truth.videos,
        truth.video[begins],
        truth.label[begins],
        np.ones(len(begins)),
        np.cumsum(first) - 1,
        truth.frame[order],
        truth.box[order],
    )


def _of_labels(found: Detections, ids: Ints) -> Detections:
    kept = np.flatnonzero(lookup(ids, found.label) >= 0)
    return Detections(
        found.videos,
        found.video[kept],
        found.frame[kept],
        found.box[kept],
        found.label[kept],
        found.score[kept],
    )


def _suppress_boxes(found: Detections, group: Ints, rules: Linking) -> Ints:
    """The rows that box NMS leaves, in file order. In round k every frame keeps its k-th box."""
    order = np.lexsort((-found.score, found.frame, group))
    place = group[order] * (1 + int(found.frame.max(initial=0))) + found.frame[order]
    left = np.arange(len(order))
    kept = [left[:0]]
    for _ in range(rules.keep):
        if len(left) == 0:
            break
        best, of_best = _leaders(place[left])
        kept.append(order[left[best]])
        overlap = box_iou(found.box[order[left]], found.box[order[left[of_best]]], plus_one=True)
        left = left[(overlap <= rules.box_nms) & ~best]
    return np.sort(np.concatenate(kept))


def _link_rows(group: Ints, frame: Ints, box: Floats, score: Floats, rules: Linking) -> Ints:
    """The tube of each detection, (K,)."""
    tube = np.full(len(group), -1, dtype=np.int64)
    by_frame = np.argsort(frame, kind="stable")
    borders = np.flatnonzero(starts(frame[by_frame]))
    # The tubes that may go on, one entry each: their last row, the sum and number of their scores.
    last, total, count = np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.int64)
    begun = 0
    for rows in np.split(by_frame, borders[1:]) if len(borders) else []:
        going = frame[rows[0]] - frame[last] <= rules.gap
        last, total, count = last[going], total[going], count[going]
        new, old, overlap = pairs(group[last], box[last], group[rows], box[rows], plus_one=True)
        good = overlap >= rules.link_iou
        new, old = _agreed(new[good], old[good], -score[rows], -total / count)
        tube[rows[new]] = tube[last[old]]
        last[old] = rows[new]
        total[old] += score[rows[new]]
        count[old] += 1

        fresh = rows[tube[rows] < 0]
        tube[fresh] = begun + np.arange(len(fresh))
        begun += len(fresh)
        last = np.concatenate([last, fresh])
        total = np.concatenate([total, score[fresh]])
        count = np.concatenate([count, np.ones(len(fresh), np.int64)])
    return tube


def _agreed(new: Ints, old: Ints, new_key: Floats, old_key: Floats) -> tuple[Ints, Ints]:
    """Of the pairs (new, old) that may link, those that do: old by old in order of its key, each
    takes what is left with the least new key; equal keys in order of number.

    All olds want the same news first and all news would go to the same olds first. So a pair that
    is the first choice of both is settled, and rounds of settling give what going one by one does.
    """
    rank_new, rank_old = _ranks(new_key), _ranks(old_key)
    settled = [np.stack([new[:0], old[:0]])]
    while len(new):
        choice_new = np.lexsort((rank_old[old], new))
        choice_old = np.lexsort((rank_new[new], old))
        both = np.zeros(len(new), dtype=np.int64)
        both[choice_new[starts(new[choice_new])]] += 1
        both[choice_old[starts(old[choice_old])]] += 1
        done = both == 2
        settled.append(np.stack([new[done], old[done]]))
        left = ~np.isin(new, new[done]) & ~np.isin(old, old[done])
        new, old = new[left], old[left]
    together = np.concatenate(settled, axis=1)
    return together[0], together[1]


def _filled(tubes: Tubes) -> Tubes:
    """Tubes without holes: a box on every frame from the first to the last, straight in between."""
    if len(tubes.tube) == 0:
        return tubes
    after = np.minimum(np.arange(len(tubes.tube)) + 1, len(tubes.tube) - 1)
    goes_on = tubes.tube[after] == tubes.tube
    goes_on[-1] = False
    step = np.where(goes_on, tubes.frame[after] - tubes.frame, 1)
    row = np.repeat(np.arange(len(step)), step)
    along = np.arange(len(row)) - np.repeat(np.cumsum(step) - step, step)
    share = (along / step[row])[:, None]
    box = tubes.box[row] + share * (tubes.box[after[row]] - tubes.box[row])
    return Tubes(
        tubes.videos, tubes.video, tubes.label, tubes.score, tubes.tube[row], tubes.frame[row] + along, box
    )


def _suppress_tubes(tubes: Tubes, least: float) -> Tubes:
    """The tubes that NMS over space and time leaves; in round k every class keeps its k-th."""
    group = _class_of_video(tubes)
    left = np.lexsort((-tubes.score, group))
    kept = [left[:0]]
    while len(left):
        best, of_best = _leaders(group[left])
        kept.append(left[best])
        left, leader = left[~best], left[of_best[~best]]
        left = left[tube_iou(tubes, left, tubes, leader) <= least]
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


def _class_of_video(rows: Detections | Tubes) -> Ints:
    """One number per (video, label)."""
    labels, label = np.unique(rows.label, return_inverse=True)
    return rows.video * len(labels) + label


def _leaders(ordered: Ints) -> tuple[np.ndarray, Ints]:
    """Of runs of equal numbers: which entries begin one (K,), and each entry's run's beginning (K,)."""
    best = starts(ordered)
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
        upto = max(at + 1, int(np.searchsorted(ends, done + _CHUNK, side="right")))
        yield slice(at, upto)
        at = upto
