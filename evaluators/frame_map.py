"""Frame-mAP from plain NumPy arrays: ground truth and detections in, one AP per class out.

`frame_mAP` is the entry point: `match_frames` decides which detections are true positives, `pool`
turns that into average precision. Bootstrap and error budget use the same two steps.

Letters in the shapes: N ground-truth rows, M detection rows, C evaluated classes. A *frame* is one
video at one whole number: the second in AVA, the frame number in UCF101-24 and JHMDB.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import KW_ONLY, dataclass, fields, replace
from enum import StrEnum
from math import nan
from typing import Literal, Self

import numpy as np

from evaluators.matching import Bools, Floats, Ints, has_positive_area, lookup, match, run_starts
from evaluators.notebook import Shown

FRAME_LIMIT = 2**31  # frames are below this, so that (video, frame, class) packs into one int64


class Protocol(StrEnum):
    """Evaluation protocol: the public tool that a number is computed by.

    AVA
    STANDARD           AVA's rules of 2018; STMixer's tool agrees.
    ACTIVITYNET_2019   only the 50 best detections of a frame count, over all evaluated classes.
    ACTIVITYNET_HEAD   the same 50; exclusions are not read; detections on frames that have no
                       ground-truth row of any class, evaluated or not, are ignored.
    SLOWFAST           inside a frame, detections are matched in file order, not by score: a
                       low-scored duplicate written first takes the match. Use it to explain
                       published numbers, not to report new ones.
    MMACTION2          only frames with ground truth of an evaluated class that are not excluded are
                       looked at, but ground truth on excluded frames is missed; the mean is over the
                       classes with ground truth of which there is a detection on these frames.

    UCF101-24 and JHMDB. None of them drops a detection with an inverted box: it overlaps nothing
    and is a false positive.
    GURKIRT            a detection is matched with its best unmatched box; the mean is over all
                       classes, with AP 0 for one without ground truth. The MViT-matching paper
                       cites it.
    ACT                (MOC, too) the same, with boxes one pixel wider and higher than x2 - x1 and
                       y2 - y1, and the area under the raw curve by trapezoids, in float32.
    MULTISPORTS        STANDARD's matching, curve and mean.
    ANNOTATED          (YOWOv2, TubeR) the same, only on frames with ground truth of any class.
    YOWO               ANNOTATED with ACT's pixel: YOWO's own tool.
    YOWOV3             ANNOTATED, without the ground truth of frames that have no detection at all; the
                       area under the envelope is taken by trapezoids, from precision 1 at recall 0 to
                       precision 0 at recall 1: it is above that of every other protocol.
    """

    STANDARD = "standard"
    ACTIVITYNET_2019 = "activitynet_2019"
    ACTIVITYNET_HEAD = "activitynet_head"
    SLOWFAST = "slowfast"
    MMACTION2 = "mmaction2"
    GURKIRT = "gurkirt"
    ACT = "act"
    MULTISPORTS = "multisports"
    ANNOTATED = "annotated"
    YOWO = "yowo"
    YOWOV3 = "yowov3"


AVA_PROTOCOLS = (
    Protocol.STANDARD,
    Protocol.ACTIVITYNET_2019,
    Protocol.ACTIVITYNET_HEAD,
    Protocol.SLOWFAST,
    Protocol.MMACTION2,
)
UCF_PROTOCOLS = (
    Protocol.GURKIRT,
    Protocol.ACT,
    Protocol.MULTISPORTS,
    Protocol.ANNOTATED,
    Protocol.YOWO,
    Protocol.YOWOV3,
)


Curve = Literal["envelope", "raw", "sloped"]
"""The envelope, in steps; the raw curve, by trapezoids; the envelope, by trapezoids down to (recall 1, 0)."""


@dataclass(frozen=True, kw_only=True)
class ProtocolRules:
    """What a protocol does. The defaults are STANDARD."""

    keep_inverted: bool = False  # score detections with x1 >= x2 or y1 >= y2; else drop them
    max_per_frame: int | None = None  # the best-scored rows of a frame that count, over all classes
    use_exclusions: bool = True  # leave out excluded frames
    keep_excluded_truth: bool = False  # ground truth on excluded frames counts, as missed
    annotated_frames_only: bool = False  # leave out frames without any ground truth
    evaluated_frames_only: bool = False  # leave out frames without ground truth of an evaluated class
    detected_frames_only: bool = False  # leave out frames without any detection
    by_score: bool = True  # match by descending score; else in file order
    unmatched_only: bool = False  # match with the best unmatched box; else with the best of all
    plus_one: bool = False  # boxes are one pixel wider and higher than their coordinates say
    curve: Curve = "envelope"  # what AP is the area under
    all_classes: bool = False  # AP is 0 without ground truth; else NaN, and not in the mean
    detected_classes_only: bool = False  # AP is NaN without detections; else 0


_HEAD = ProtocolRules(max_per_frame=50, use_exclusions=False, annotated_frames_only=True)
_GURKIRT = ProtocolRules(keep_inverted=True, unmatched_only=True, all_classes=True)
_ANNOTATED = ProtocolRules(keep_inverted=True, annotated_frames_only=True)
PROTOCOL_RULES = {
    Protocol.STANDARD: ProtocolRules(),
    Protocol.ACTIVITYNET_2019: ProtocolRules(max_per_frame=50),
    Protocol.ACTIVITYNET_HEAD: _HEAD,
    Protocol.SLOWFAST: ProtocolRules(by_score=False),
    Protocol.MMACTION2: ProtocolRules(
        keep_inverted=True, keep_excluded_truth=True, evaluated_frames_only=True, detected_classes_only=True
    ),
    Protocol.GURKIRT: _GURKIRT,
    Protocol.ACT: replace(_GURKIRT, plus_one=True, curve="raw"),
    Protocol.MULTISPORTS: ProtocolRules(keep_inverted=True),
    Protocol.ANNOTATED: _ANNOTATED,
    Protocol.YOWO: replace(_ANNOTATED, plus_one=True),
    Protocol.YOWOV3: replace(_ANNOTATED, detected_frames_only=True, curve="sloped"),
}


def check_iou(iou: float) -> None:
    """Check a threshold. ValueError unless 0 < iou <= 1."""
    if not 0 < iou <= 1:
        raise ValueError(f"iou must be above 0 and at most 1; found {iou}")


@dataclass(frozen=True)
class EvalRules:
    """The rules a score is computed by: a protocol and its options. Every evaluator takes them.

    protocol  a `Protocol` or its name, such as "gurkirt"
    iou       least IoU of a true positive, 0 < iou <= 1
    excluded  (video, frame) pairs left out on both sides; ACTIVITYNET_HEAD ignores them
    plus_one  ANNOTATED only: boxes one pixel wider and higher, as in YOWO's own tool

    ValueError: unknown protocol, iou out of range, plus_one with another protocol.
    """

    protocol: Protocol | str = Protocol.STANDARD
    _: KW_ONLY
    iou: float = 0.5
    excluded: Set[tuple[str, int]] = frozenset()
    plus_one: bool = False

    def __post_init__(self) -> None:
        if self.protocol not in list(Protocol):
            raise ValueError(f"unknown protocol {self.protocol!r}; known are: {', '.join(Protocol)}")
        object.__setattr__(self, "protocol", Protocol(self.protocol))
        object.__setattr__(self, "excluded", frozenset(self.excluded))
        check_iou(self.iou)
        if self.plus_one and self.protocol != Protocol.ANNOTATED:
            raise ValueError(
                f"plus_one is an option of protocol annotated (YOWO's tool); not of {self.protocol}"
            )

    @property
    def protocol_rules(self) -> ProtocolRules:
        """What the protocol does."""
        return PROTOCOL_RULES[Protocol(self.protocol)]

    @property
    def iou_plus_one(self) -> bool:
        """Whether boxes count one pixel more, by the protocol or by the option."""
        return self.protocol_rules.plus_one or self.plus_one


STANDARD_RULES = EvalRules()


@dataclass(frozen=True, eq=False)
class _Rows:
    """Columns that ground truth and detections share. Validated and cast when made."""

    videos: tuple[str, ...]
    video: Ints
    frame: Ints
    box: Floats
    label: Ints

    def __post_init__(self) -> None:
        _check_names(f"{type(self).__name__}.videos", tuple(self.videos))
        object.__setattr__(self, "videos", tuple(self.videos))
        for field in self._columns():
            object.__setattr__(self, field, _cast(self, field))
        _check_range(self, "video", len(self.videos))
        _check_range(self, "frame", FRAME_LIMIT)

    def take(self, rows: Ints | Bools) -> Self:
        """The given rows, by index or by mask (N,), in that order; `videos` stays."""
        return replace(self, **{field: getattr(self, field)[rows] for field in self._columns()})

    def in_videos(self, videos: Sequence[str]) -> Self:
        """The rows in the named videos, in their order; `videos` becomes the given list."""
        number = {name: i for i, name in enumerate(videos)}
        new = np.array([number.get(name, -1) for name in self.videos], dtype=np.int64)
        kept = self.take(new[self.video] >= 0)
        return replace(kept, videos=tuple(videos), video=new[kept.video])

    def _columns(self) -> list[str]:
        return [field.name for field in fields(self) if field.name != "videos"]


@dataclass(frozen=True, eq=False)
class GroundTruth(_Rows):
    """Ground-truth annotations: N rows, one per (box, label). A person doing three things is three rows.

    videos  names; no name twice
    video   (N,) int64, index into `videos`
    frame   (N,) int64, 0 .. 2**31-1 (AVA: the second)
    box     (N, 4) float64, x1 y1 x2 y2, in one unit throughout (AVA: 0..1 of width and height)
    label   (N,) int64, class id as the annotations number it

    Narrower integers and floats are cast. ValueError when lengths, shapes, types or ranges do not fit.
    """


@dataclass(frozen=True, eq=False)
class Detections(_Rows):
    """Scored boxes: M rows, one per (box, label, score), in file order.

    Fields as in `GroundTruth`, and score (M,) float64, finite. `videos` need not be the ground
    truth's: videos are compared by name. Inverted boxes (x1 >= x2 or y1 >= y2) are allowed here;
    the protocol says whether they are dropped or false positives.
    """

    score: Floats


@dataclass(frozen=True, eq=False)
class GroundTruthTubes(GroundTruth):
    """Ground truth whose boxes are linked to tubes: UCF101-24's and JHMDB's, for video-mAP.

    tube    (N,) int64, the rows of one tube share a number that no other tube has
    """

    tube: Ints


@dataclass(frozen=True)
class FrameMap(Shown):
    """Frame-mAP and what it was computed over. Fractions in [0, 1], not per cent."""

    mAP: float  # mean of `ap` over `num_classes` of them; NaN when there is none
    ap: dict[int, float]  # by class id; without ground truth NaN or 0, by the protocol
    classes: dict[int, str]  # id -> name, the evaluated classes
    protocol: Protocol
    iou: float
    num_classes: int  # classes in the mean
    num_ground_truth: int  # rows of evaluated classes on frames that are not excluded
    num_detections: int  # the same, without those that the protocol drops
    num_true_positives: int
    plus_one: bool  # the option of ANNOTATED


@dataclass(frozen=True, eq=False)
class Matching:
    """The rows that count and their assignment: all that pooling needs.

    n of the N ground-truth rows and m of the M detections are left, in their order.
    """

    classes: dict[int, str]  # id -> name, ids ascending
    rules: EvalRules
    gt_row: Ints  # (n,) rows of the ground truth
    gt_class: Ints  # (n,) index into `classes`
    gt_frame: Ints  # (n,) one number per (video, frame)
    det_row: Ints  # (m,) and the same of the detections
    det_class: Ints  # (m,)
    det_frame: Ints  # (m,)
    score: Floats  # (m,)
    assigned: Ints  # (m,) index of the matched ground truth among the n; -1 for a false positive

    @property
    def true_positive(self) -> Bools:
        """(m,): which detections are matched."""
        return self.assigned >= 0

    @property
    def num_gt(self) -> Ints:
        """(C,): ground-truth rows of each class."""
        return np.bincount(self.gt_class, minlength=len(self.classes))


def frame_mAP(
    ground_truth: GroundTruth,
    detections: Detections,
    classes: Mapping[int, str],
    *,
    rules: EvalRules = STANDARD_RULES,
) -> FrameMap:
    """Compute frame-mAP under one of the named protocols.

    classes   id -> name of the evaluated classes (AVA: 60 of 80); rows of other ids are left out
    rules     protocol, IoU threshold and excluded frames

    Tied scores keep the order of the rows, in the matching, in the pooled ranking and at the cap per
    frame, so a number does not depend on the machine. Where scores tie, other tools' order is
    arbitrary. Source of the rules: the tools that `Protocol` names, as read from their code.

    ValueError: no classes; for the AVA protocols an inverted or empty ground-truth box.
    """
    return pool(match_frames(ground_truth, detections, classes, rules=rules))


def match_frames(
    ground_truth: GroundTruth,
    detections: Detections,
    classes: Mapping[int, str],
    *,
    rules: EvalRules = STANDARD_RULES,
) -> Matching:
    """Select the rows that count and match them: the first half of `frame_mAP`. ValueError as there."""
    protocol = rules.protocol_rules
    check_inputs(ground_truth, classes, allow_inverted=protocol.keep_inverted)
    ids = np.array(sorted(classes), dtype=np.int64)  # (C,)
    gt_class, det_class = lookup(ids, ground_truth.label), lookup(ids, detections.label)
    gt_frame, det_frame, excluded_frame = frame_keys(ground_truth, detections, rules.excluded)

    # The order of these steps is that of the public tools.
    gt_kept, det_kept = gt_class >= 0, det_class >= 0
    if protocol.max_per_frame is not None:  # inverted boxes take places, too: they are dropped below
        det_kept = _best_per_frame(det_frame, detections.score, det_kept, protocol.max_per_frame)
    if protocol.annotated_frames_only:  # a row of any class, evaluated or not, annotates a frame
        det_kept &= lookup(np.unique(gt_frame), det_frame) >= 0
    if protocol.evaluated_frames_only:
        det_kept &= lookup(np.unique(gt_frame[gt_kept]), det_frame) >= 0
    if protocol.detected_frames_only:
        gt_kept &= lookup(np.unique(det_frame), gt_frame) >= 0
    if protocol.use_exclusions:
        if not protocol.keep_excluded_truth:
            gt_kept &= lookup(excluded_frame, gt_frame) < 0
        det_kept &= lookup(excluded_frame, det_frame) < 0
    if not protocol.keep_inverted:
        det_kept &= has_positive_area(detections.box)

    gt_row, det_row = np.flatnonzero(gt_kept), np.flatnonzero(det_kept)
    gt_class, gt_frame = gt_class[gt_row], gt_frame[gt_row]
    box, score = detections.box, detections.score
    if len(det_row) < len(score):  # else they would be copied as they are
        box, score = box[det_row], score[det_row]
        det_class, det_frame = det_class[det_row], det_frame[det_row]
    # A detection can only match ground truth of its own frame and class.
    assigned = match(
        gt_frame * len(ids) + gt_class,
        ground_truth.box[gt_row],
        det_frame * len(ids) + det_class,
        box,
        score if protocol.by_score else None,
        iou=rules.iou,
        plus_one=rules.iou_plus_one,
        unmatched_only=protocol.unmatched_only,
    )
    named = {class_id: classes[class_id] for class_id in ids.tolist()}
    return Matching(named, rules, gt_row, gt_class, gt_frame, det_row, det_class, det_frame, score, assigned)


def pool(matching: Matching) -> FrameMap:
    """Pool the detections of each class over all frames to one AP, and average: the second half."""
    hit, rules = matching.true_positive, matching.rules
    ap = class_ap(matching.num_gt, matching.det_class, matching.score, hit, rules.protocol_rules)
    return FrameMap(
        mAP=mean_ap(ap),
        ap=dict(zip(matching.classes, ap.tolist(), strict=True)),
        classes=matching.classes,
        protocol=Protocol(rules.protocol),
        iou=rules.iou,
        num_classes=int((~np.isnan(ap)).sum()),
        num_ground_truth=len(matching.gt_row),
        num_detections=len(matching.det_row),
        num_true_positives=int(hit.sum()),
        plus_one=rules.plus_one,
    )


def class_ap(num_gt: Ints, det_class: Ints, score: Floats, hit: Bools, protocol: ProtocolRules) -> Floats:
    """AP of each class, (C,). num_gt (C,); det_class, score, hit (true positive) (m,), in any order."""
    # Keys of 8 or 16 bits are sorted by radix, which makes this stable sort cheap.
    by_class = np.argsort(det_class.astype(np.min_scalar_type(len(num_gt))), kind="stable")
    first = np.concatenate([[0], np.cumsum(np.bincount(det_class, minlength=len(num_gt)))])
    area = _AREAS[protocol.curve]
    ap = np.full(len(num_gt), 0.0 if protocol.all_classes else nan)
    for c in np.flatnonzero(num_gt):
        rows = by_class[first[c] : first[c + 1]]
        if protocol.detected_classes_only and not len(rows):
            continue
        ap[c] = area(hit[rows], score[rows], int(num_gt[c]))
    return ap


def mean_ap(ap: Floats) -> float:
    """Mean of the AP (C,) that are not NaN; NaN when all are."""
    known = ap[~np.isnan(ap)]
    return float(known.mean()) if len(known) else nan


def average_precision(true_positive: Bools, score: Floats, num_ground_truth: int) -> float:
    """Area under the all-point interpolated precision-recall curve (PASCAL VOC from 2010), 0..1.

    true_positive (M,), score (M,): the detections of one class, pooled over frames, in any order;
    equal scores rank in row order. NaN when num_ground_truth is 0.

    The interpolated precision at a recall is the best precision at that recall or beyond. Recall
    changes only at true positives, and precision peaks there, so it is enough to sum over them,
    each adding 1/num_ground_truth to the recall.

    ValueError: lengths that differ, or more true positives than ground-truth boxes.
    """
    if true_positive.shape != score.shape or score.ndim != 1:
        raise ValueError(
            f"average_precision needs two (M,) arrays of one length; true_positive is "
            f"{true_positive.shape} and score is {score.shape}"
        )
    if num_ground_truth < int(true_positive.sum()):
        raise ValueError(
            f"{int(true_positive.sum())} true positives for {num_ground_truth} ground-truth boxes: "
            f"a box was counted twice"
        )
    if num_ground_truth == 0:
        return nan
    rank = _ranks(true_positive, score)
    precision = np.arange(1, len(rank) + 1) / rank
    interpolated = np.maximum.accumulate(precision[::-1])
    return float(interpolated.sum() / num_ground_truth)


def _ranks(true_positive: Bools, score: Floats) -> Ints:
    """The ranks by score of the true positives, ascending, from 1; equal scores rank in row order.

    The scores of both kinds are sorted by themselves, which is several times as fast as finding the order of
    all: a rank is that among its kind, and the number of false positives above.
    """
    found, wrong = np.sort(score[true_positive])[::-1], np.sort(score[~true_positive])
    above = len(wrong) - np.searchsorted(wrong, found, side="right")
    if (above != len(wrong) - np.searchsorted(wrong, found, side="left")).any():  # equal scores of both kinds
        order = np.argsort(-score, kind="stable")
        return np.flatnonzero(true_positive[order]) + 1
    return above + np.arange(1, len(found) + 1)


def raw_average_precision(true_positive: Bools, score: Floats, num_ground_truth: int) -> float:
    """Area under the raw precision-recall curve, by trapezoids, from (recall 0, precision 1).

    Arguments as for `average_precision`. In float32, as ACT and MOC compute it: with 100,000
    detections float32 and float64 differ in the fifth digit.
    """
    order = np.argsort(-score, kind="stable")
    hits = np.cumsum(true_positive[order])
    precision = np.ones(len(hits) + 1, dtype=np.float32)
    recall = np.zeros(len(hits) + 1, dtype=np.float32)
    precision[1:] = hits / np.arange(1, len(hits) + 1)
    recall[1:] = hits / num_ground_truth
    widths, heights = recall[1:] - recall[:-1], precision[1:] + precision[:-1]
    return float(np.sum(widths * heights * np.float32(0.5)))


def sloped_average_precision(true_positive: Bools, score: Floats, num_ground_truth: int) -> float:
    """Area under the envelope by trapezoids, from (recall 0, precision 1) to (recall 1, precision 0).

    Arguments as for `average_precision`. As YOWOv3 computes it; 0 without detections, as there.
    """
    if not len(score):
        return 0.0
    hits = np.cumsum(true_positive[np.argsort(-score, kind="stable")])
    recall = np.concatenate([[0], hits / num_ground_truth, [1]])
    precision = np.concatenate([[1], hits / np.arange(1, len(hits) + 1), [0]])
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall) * (envelope[1:] + envelope[:-1])) / 2)


_AREAS = {
    "envelope": average_precision,
    "raw": raw_average_precision,
    "sloped": sloped_average_precision,
}


def frame_keys(
    ground_truth: GroundTruth, detections: GroundTruth | Detections, excluded: Set[tuple[str, int]]
) -> tuple[Ints, Ints, Ints]:
    """One whole number per (video name, frame), the same on both sides: (N,), (M,), sorted (E,).

    Excluded frames of videos that occur on neither side are left out.
    """
    number = {name: i for i, name in enumerate(dict.fromkeys(ground_truth.videos + detections.videos))}
    gt_video, det_video = (
        np.array([number[name] for name in rows.videos], dtype=np.int64)[rows.video]
        for rows in (ground_truth, detections)
    )
    # The least possible stride: `lookup` is fastest on dense numbers.
    stride = 1 + max(int(rows.frame.max(initial=0)) for rows in (ground_truth, detections))
    keys = sorted(
        number[name] * stride + frame for name, frame in excluded if name in number and 0 <= frame < stride
    )
    return (
        gt_video * stride + ground_truth.frame,
        det_video * stride + detections.frame,
        np.array(keys, dtype=np.int64),
    )


def check_inputs(
    ground_truth: GroundTruth, classes: Mapping[int, str], *, allow_inverted: bool = False
) -> None:
    """Check what is scored. ValueError: no classes; unless allowed, an inverted or empty ground-truth box."""
    if not classes:
        raise ValueError("no classes to evaluate: give the label map, a dict of class id to name")
    inverted = np.flatnonzero(~has_positive_area(ground_truth.box))
    if len(inverted) and not allow_inverted:
        i = int(inverted[0])
        raise ValueError(
            f"ground-truth row {i} ({ground_truth.videos[ground_truth.video[i]]}, frame "
            f"{ground_truth.frame[i]}) has the inverted or empty box {ground_truth.box[i].tolist()}; "
            "x1 < x2 and y1 < y2 is needed"
        )


def _best_per_frame(frame: Ints, score: Floats, among: Bools, limit: int) -> Bools:
    """(M,): the `limit` best-scored rows of each frame, of the rows in `among`; ties by row."""
    rows = np.flatnonzero(among)
    rows = rows[np.argsort(frame[rows], kind="stable")]
    start = np.flatnonzero(run_starts(frame[rows]))
    size = np.diff(np.append(start, len(rows)))
    rows = rows[np.repeat(size > limit, size)]  # only crowded frames need the second sort
    size = size[size > limit]

    rows = rows[np.lexsort((-score[rows], frame[rows]))]
    rank = np.arange(len(rows)) - np.repeat(np.cumsum(size) - size, size)
    kept = among.copy()
    kept[rows[rank >= limit]] = False
    return kept


# --- validation of rows --------------------------------------------------------------------------


def _check_names(where: str, names: tuple[object, ...]) -> None:
    if not all(isinstance(name, str) for name in names):
        raise ValueError(f"{where} must hold names (str); found {names[:3]}")
    if len(set(names)) != len(names):
        repeated = next(name for i, name in enumerate(names) if name in names[:i])
        raise ValueError(f"{where} has {repeated!r} twice; every video is listed once")


def _cast(rows: _Rows, field: str) -> Ints | Floats:
    """One column as int64 or float64. ValueError: another kind or shape, NaN, infinity."""
    where = f"{type(rows).__name__}.{field}"
    values = np.asarray(getattr(rows, field))
    whole = field not in ("box", "score")
    if values.dtype.kind not in ("iu" if whole else "fiu") and values.size:
        kind = "whole numbers" if whole else "numbers"
        raise ValueError(f"{where} must hold {kind}; its dtype is {values.dtype}")
    length = len(np.atleast_1d(rows.video))
    shape = (length, 4) if field == "box" else (length,)
    if values.shape != shape:
        raise ValueError(
            f"{where} has shape {values.shape}; {shape} is needed, one entry per row of "
            f"{type(rows).__name__}.video"
        )
    if whole:
        return values.astype(np.int64, copy=False)
    values = values.astype(np.float64, copy=False)
    if not np.isfinite(values).all():
        row = int(np.argwhere(~np.isfinite(values))[0, 0])
        raise ValueError(f"{where} row {row} is NaN or infinite: {values[row].tolist()}")
    return values


def _check_range(rows: _Rows, field: str, limit: int) -> None:
    values: Ints = getattr(rows, field)
    wrong = np.flatnonzero((values < 0) | (values >= limit))
    if len(wrong):
        raise ValueError(
            f"{type(rows).__name__}.{field} row {wrong[0]} is {values[wrong[0]]}; 0 to {limit - 1} is needed"
        )
