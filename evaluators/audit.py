"""Counts of unusual rows, to check before a number is trusted.

No row is dropped silently: each count says how many there are and, in `notes`, how the protocol
treats them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluators.frame_map import STANDARD_RULES, Detections, EvalRules, GroundTruth, frame_keys
from evaluators.matching import Bools, Ints, has_positive_area, lookup


@dataclass(frozen=True)
class Audit:
    """Counts of rows. Only rows of evaluated classes, except for the counts of other classes."""

    other_class_ground_truth: int
    other_class_detections: int
    unknown_classes: int  # detections among these whose class the ground truth does not have either
    unknown_class_ids: tuple[int, ...]  # at most three of their ids
    unknown_videos: int  # detections in videos that the ground truth does not name
    unknown_video_names: tuple[str, ...]  # at most three of these
    unannotated_frames: int  # detections on frames of known videos without any ground truth
    excluded_ground_truth: int
    excluded_detections: int
    inverted_detections: int  # detections with x1 >= x2 or y1 >= y2
    repeated_ground_truth: int  # rows that repeat an earlier one in all columns
    repeated_detections: int


def audit_rows(
    ground_truth: GroundTruth,
    detections: Detections,
    classes: Mapping[int, str],
    *,
    rules: EvalRules = STANDARD_RULES,
) -> Audit:
    """Count unusual rows. A row with several properties is counted in each. Of rules, `excluded` applies."""
    ids = np.array(sorted(classes), dtype=np.int64)
    gt_frame, det_frame, excluded_frame = frame_keys(ground_truth, detections, rules.excluded)
    gt_kept, det_kept = lookup(ids, ground_truth.label) >= 0, lookup(ids, detections.label) >= 0
    unknown_class = ~det_kept & (lookup(np.unique(ground_truth.label), detections.label) < 0)
    known = set(ground_truth.videos)
    unknown = np.array([name not in known for name in detections.videos], dtype=np.bool_)
    in_unknown = unknown[detections.video] & det_kept
    unknown_videos = np.unique(detections.video[in_unknown])[:3]
    annotated = lookup(np.unique(gt_frame), det_frame) >= 0
    return Audit(
        other_class_ground_truth=int((~gt_kept).sum()),
        other_class_detections=int((~det_kept).sum()),
        unknown_classes=int(unknown_class.sum()),
        unknown_class_ids=tuple(np.unique(detections.label[unknown_class])[:3].tolist()),
        unknown_videos=int(in_unknown.sum()),
        unknown_video_names=tuple(detections.videos[i] for i in unknown_videos.tolist()),
        unannotated_frames=int((det_kept & ~annotated & ~in_unknown).sum()),
        excluded_ground_truth=int((gt_kept & (lookup(excluded_frame, gt_frame) >= 0)).sum()),
        excluded_detections=int((det_kept & (lookup(excluded_frame, det_frame) >= 0)).sum()),
        inverted_detections=int((det_kept & ~has_positive_area(detections.box)).sum()),
        repeated_ground_truth=_repeats(gt_frame, ground_truth, gt_kept),
        repeated_detections=_repeats(det_frame, detections, det_kept),
    )


def notes(counts: Audit, rules: EvalRules = STANDARD_RULES) -> list[str]:
    """The counts above zero in words, with what the protocol does with such rows."""
    protocol = rules.protocol_rules
    names = ", ".join(counts.unknown_video_names) + (", .." if len(counts.unknown_video_names) > 2 else "")
    ids = ", ".join(map(str, counts.unknown_class_ids)) + (
        ", .." if len(counts.unknown_class_ids) > 2 else ""
    )
    annotated_only = protocol.annotated_frames_only or protocol.evaluated_frames_only
    unannotated = "not scored" if annotated_only else "scored as false positives"
    excluded = "left out" if protocol.use_exclusions else "scored: this protocol reads no exclusions"
    inverted = "scored as false positives" if protocol.keep_inverted else "dropped"
    repeated = "scored like any other" if protocol.unmatched_only else "only the first can be matched"
    lines = (
        ("ground-truth rows of classes that are not evaluated", counts.other_class_ground_truth, "left out"),
        ("detections of classes that are not evaluated", counts.other_class_detections, "left out"),
        (f"of these, of classes that are not in the ground truth ({ids})", counts.unknown_classes, ""),
        (
            f"detections in videos that are not in the ground truth ({names})",
            counts.unknown_videos,
            unannotated,
        ),
        ("detections on frames without ground truth", counts.unannotated_frames, unannotated),
        (
            "ground-truth rows on excluded frames",
            counts.excluded_ground_truth,
            "counted as missed" if protocol.keep_excluded_truth else excluded,
        ),
        ("detections on excluded frames", counts.excluded_detections, excluded),
        ("detections with x1 >= x2 or y1 >= y2", counts.inverted_detections, inverted),
        ("ground-truth rows that repeat another", counts.repeated_ground_truth, repeated),
        ("detections that repeat another", counts.repeated_detections, "scored like any other"),
    )
    return [f"{what}: {n:,}{f', {treatment}' if treatment else ''}" for what, n, treatment in lines if n]


def _repeats(frame: Ints, rows: GroundTruth | Detections, among: Bools) -> int:
    """How many rows repeat an earlier one in all columns, of those in `among`."""
    columns = [rows.label, frame, *rows.box.T] + ([rows.score] if isinstance(rows, Detections) else [])
    kept = np.flatnonzero(among)
    # Few columns tell most rows apart; sorting whole rows would be slow.
    mixed = np.zeros(len(kept), dtype=np.uint64)
    for column in (columns[0], columns[1], columns[-1], columns[2]):
        value = column if len(kept) == len(column) else column[kept]
        mixed ^= (value + value.dtype.type(0)).view(np.uint64)  # 0.0 and -0.0 have different bits
        mixed *= np.uint64(0x9E3779B97F4A7C15)
    order, again = _neighbours((mixed >> np.uint64(32)).astype(np.uint32))
    if not again.any():
        return 0
    # Compare those whose hash is not alone in full.
    alike = kept[order[again | np.append(again[1:], False)]]
    order = np.lexsort([column[alike] for column in columns])
    same = np.ones(len(alike) - 1, dtype=np.bool_)
    for column in columns:
        value = column[alike[order]]
        same &= value[1:] == value[:-1]
    return int(same.sum())


def _neighbours(number: NDArray[np.uint32]) -> tuple[Ints, Bools]:
    """The order of numbers (K,), and which is equal to the one before it: by 16 bits and 16 bits, whose
    stable sort is by radix, and ten times as fast as that of wider numbers."""
    order = np.argsort(number.astype(np.uint16), kind="stable")
    order = order[np.argsort((number >> np.uint32(16)).astype(np.uint16)[order], kind="stable")]
    ordered, again = number[order], np.zeros(len(number), np.bool_)
    again[1:] = ordered[1:] == ordered[:-1]
    return order, again
