"""Video-mAP: frame detections are linked to tubes (`evaluators.linking`), then tubes are scored.

`video_mAP` is the entry point. Letters: T tubes, R rows of tubes (one per frame).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import nan

import numpy as np

from evaluators.frame_map import (
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
from evaluators.linking import LINKINGS, Linking, Viterbi, link
from evaluators.matching import Ints, Pairs, lookup, match_best, match_unmatched, pair_groups, run_starts
from evaluators.notebook import Shown
from evaluators.tubes import ACT_OVERLAP, OverlapRules, Tubes, tube_iou

AVERAGED = tuple(round(0.5 + 0.05 * i, 2) for i in range(10))  # 0.5:0.95
LOW = tuple(round(0.05 + 0.05 * i, 2) for i in range(9))  # 0.05:0.45
TENTHS = tuple(round(0.1 + 0.1 * i, 1) for i in range(9))  # 0.1:0.9
MEANS = {"0.05:0.45": LOW, "0.1:0.9": TENTHS, "0.5:0.95": AVERAGED}
"""The means over thresholds that MultiSports, HIT and OpenMixer publish, by name."""
THRESHOLDS = (0.2, *AVERAGED)
EVERY_THRESHOLD = tuple(sorted({*LOW, *TENTHS, *AVERAGED}))
"""Those of all three means."""
YOWO_THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75)


@dataclass(frozen=True, kw_only=True)
class VideoRules:
    """How a protocol scores tubes. The defaults are ACT's."""

    overlap: OverlapRules = ACT_OVERLAP
    unmatched_only: bool = True  # match with the best unmatched tube; else with the best of all
    above: bool = False  # a true positive overlaps by more than the threshold; else by as much
    curve: ProtocolRules = PROTOCOL_RULES[Protocol.ACT]  # how AP and its mean are taken
    linking: str = "act"  # how frame detections are linked if nothing else is said
    thresholds: tuple[float, ...] = THRESHOLDS  # those that are published


VIDEO_RULES = {
    Protocol.ACT: VideoRules(),
    Protocol.GURKIRT: VideoRules(
        overlap=OverlapRules(plus_one=False, least_shared=2),
        above=True,
        curve=PROTOCOL_RULES[Protocol.GURKIRT],
    ),
    Protocol.YOWO: VideoRules(
        overlap=OverlapRules(least_shared=2),
        curve=PROTOCOL_RULES[Protocol.GURKIRT],
        linking="yowo",
        thresholds=YOWO_THRESHOLDS,
    ),
    Protocol.MULTISPORTS: VideoRules(
        overlap=OverlapRules(plus_one=False, whole_frames=False),
        unmatched_only=False,
        curve=PROTOCOL_RULES[Protocol.MULTISPORTS],
        thresholds=EVERY_THRESHOLD,
    ),
}
"""Protocols of video-mAP. ACT is MOC's, too; MULTISPORTS is HIT's and OpenMixer's."""


@dataclass(frozen=True)
class VideoMap(Shown):
    """Video-mAP at each threshold of tube overlap. Fractions in [0, 1], not per cent."""

    mAP: dict[float, float]  # by threshold
    mAP_50_95: float  # mean over 0.5, 0.55, .., 0.95 ("0.5:0.95"); NaN unless all ten were requested
    means: dict[str, float]  # each of MEANS whose thresholds were all requested, that one among them
    ap: dict[float, dict[int, float]]  # by threshold, class id; without ground truth 0 or NaN, by protocol
    classes: dict[int, str]
    num_classes: int
    num_ground_truth: int  # tubes
    num_detections: int  # tubes, after linking
    linking: Linking | Viterbi | None  # None: tubes were given
    protocol: Protocol


def video_mAP(
    ground_truth: GroundTruthTubes,
    detections: Detections | Tubes,
    classes: Mapping[int, str],
    *,
    thresholds: tuple[float, ...] | None = None,
    linking: Linking | Viterbi | None = None,
    protocol: Protocol | str = Protocol.ACT,
    lengths: Mapping[str, int] | None = None,
) -> VideoMap:
    """Compute video-mAP of frame detections, which are linked first, or of given tubes.

    classes     id -> name of the evaluated classes
    thresholds  least overlap of a true positive; the overlap of two tubes is the mean IoU of their
                boxes over the frames both have, times the IoU of their frames. None: the protocol's
    linking     for frame detections; None is the protocol's. Given tubes are used as they are
    protocol    one of VIDEO_RULES
    lengths     video -> its frames: `evaluators.linking.link`

    ACT: by descending score, a tube is matched with the best ground-truth tube that is still
    unmatched; AP is the area under the raw curve, and the mean is over all classes, as in frame-mAP's
    protocol of that name. GURKIRT: boxes are x2 - x1 wide, tubes that share one frame overlap nothing, a
    true positive overlaps by more than the threshold; AP is the area under the envelope. YOWO: the same
    with ACT's boxes and thresholds, and its own linking. MULTISPORTS: a tube is matched with its best of all;
    boxes are x2 - x1 wide, and a tube lasts from its first to its last frame, one frame less than it has;
    curve and mean are those of frame-mAP's protocol of that name.

    ValueError: no classes, a threshold out of range, rows of a tube in several videos or classes, a
    protocol without rules for tubes.
    """
    rules = _rules_of(protocol)
    check_inputs(ground_truth, classes, allow_inverted=True)
    thresholds = thresholds or rules.thresholds
    for threshold in thresholds:
        check_iou(threshold)
    ids = np.array(sorted(classes), dtype=np.int64)
    gt = _ground_truth_tubes(ground_truth, ids)
    if isinstance(detections, Detections):
        linking = linking or LINKINGS[rules.linking]
        evaluated = lookup(ids, detections.label) >= 0
        det = link(detections if evaluated.all() else detections.take(evaluated), linking, lengths=lengths)
    else:
        linking, det = None, detections

    det_class = lookup(ids, det.label)
    counted = np.flatnonzero(det_class >= 0)  # given tubes of other classes are left out
    det_class, score = det_class[counted], det.score[counted]
    gt_group, det_group = _class_groups(gt, det, ids)
    det_group = det_group[counted]
    # The overlaps do not depend on the threshold: compute them once for all pairs of a class and video.
    row, gt_row = pair_groups(gt_group, det_group)
    pairs = Pairs(row, gt_row, tube_iou(det, counted[row], gt, gt_row, rules.overlap))

    num_gt = np.bincount(lookup(ids, gt.label), minlength=len(ids))
    ap = {}
    for threshold in thresholds:
        least = float(np.nextafter(threshold, 2)) if rules.above else threshold
        if rules.unmatched_only:
            hit = match_unmatched(pairs, det_group, score, iou=least) >= 0
        else:
            hit = match_best(pairs, len(score), score, iou=least) >= 0
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
