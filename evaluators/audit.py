"""What in the rows deserves a second look before one believes the number.

No row is dropped in silence: each of these counts says how many there were and, in `notes`, what
scoring did with them.
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass

import numpy as np

from evaluators.frame_map import (
    RULES,
    Bools,
    Detections,
    GroundTruth,
    Protocol,
    frame_keys,
    lookup,
    right_way_round,
    starts,
)


@dataclass(frozen=True)
class Audit:
    """Counts of rows. All but those of other classes are of the evaluated ones."""

    other_classes_truth: int
    other_classes_found: int
    unknown_classes: int  # detections among these whose class the ground truth has not either
    unknown_class_ids: tuple[int, ...]  # at most three of their ids
    unknown_videos: int  # detections in videos that the ground truth does not name
    unknown_video_names: tuple[str, ...]  # at most three of these
    unannotated_frames: int  # detections on frames of known videos without any ground truth
    excluded_truth: int
    excluded_found: int
    inside_out: int  # detections with x1 >= x2 or y1 >= y2
    duplicate_truth: int  # rows that repeat an earlier one in everything
    duplicate_found: int


def audit(
    truth: GroundTruth,
    found: Detections,
    classes: Mapping[int, str],
    *,
    excluded: Set[tuple[str, int]] = frozenset(),
) -> Audit:
    """Count the odd rows. A row may be odd in several ways and is then counted in each."""
    ids = np.array(sorted(classes), dtype=np.int64)
    truth_frame, found_frame, excluded_frame = frame_keys(truth, found, excluded)
    there, seen = lookup(ids, truth.label) >= 0, lookup(ids, found.label) >= 0
    strange = ~seen & (lookup(np.unique(truth.label), found.label) < 0)
    known = set(truth.videos)
    unknown = np.array([name not in known for name in found.videos], dtype=np.bool_)
    of_unknown = unknown[found.video] & seen
    strangers = np.unique(found.video[of_unknown])[:3]
    annotated = lookup(np.unique(truth_frame), found_frame) >= 0
    return Audit(
        other_classes_truth=int((~there).sum()),
        other_classes_found=int((~seen).sum()),
        unknown_classes=int(strange.sum()),
        unknown_class_ids=tuple(np.unique(found.label[strange])[:3].tolist()),
        unknown_videos=int(of_unknown.sum()),
        unknown_video_names=tuple(found.videos[i] for i in strangers.tolist()),
        unannotated_frames=int((seen & ~annotated & ~of_unknown).sum()),
        excluded_truth=int((there & (lookup(excluded_frame, truth_frame) >= 0)).sum()),
        excluded_found=int((seen & (lookup(excluded_frame, found_frame) >= 0)).sum()),
        inside_out=int((seen & ~right_way_round(found.box)).sum()),
        duplicate_truth=_repeats([truth_frame, truth.label, *truth.box.T], there),
        duplicate_found=_repeats([found_frame, found.label, *found.box.T, found.score], seen),
    )


def notes(counts: Audit, protocol: Protocol | str) -> list[str]:
    """The counts that are not nothing, in words."""
    rules = RULES[Protocol(protocol)]
    names = ", ".join(counts.unknown_video_names) + (", .." if len(counts.unknown_video_names) > 2 else "")
    ids = ", ".join(map(str, counts.unknown_class_ids)) + (
        ", .." if len(counts.unknown_class_ids) > 2 else ""
    )
    everywhere = "not scored" if rules.truth_frames_only else "scored as false positives"
    excluded = "left out" if rules.exclusions else "scored: this protocol reads no exclusions"
    inside_out = "scored as false positives" if rules.inside_out else "dropped"
    repeated = "scored like any other" if rules.remaining else "only the first is ever a target"
    told = (
        ("ground-truth rows of classes that are not evaluated", counts.other_classes_truth, "left out"),
        ("detections of classes that are not evaluated", counts.other_classes_found, "left out"),
        (f"among these, of classes the ground truth has not either ({ids})", counts.unknown_classes, ""),
        (f"detections in videos the ground truth has not ({names})", counts.unknown_videos, everywhere),
        ("detections on frames without ground truth", counts.unannotated_frames, everywhere),
        ("ground-truth rows on excluded frames", counts.excluded_truth, excluded),
        ("detections on excluded frames", counts.excluded_found, excluded),
        ("detections with x1 >= x2 or y1 >= y2", counts.inside_out, inside_out),
        ("ground-truth rows that repeat another", counts.duplicate_truth, repeated),
        ("detections that repeat another", counts.duplicate_found, "scored like any other"),
    )
    return [f"{what}: {n:,}{f', {how}' if how else ''}" for what, n, how in told if n]


def _repeats(columns: list[np.ndarray], among: Bools) -> int:
    """How many rows of (K,) columns repeat an earlier one in all of them, of the rows in `among`."""
    rows = np.flatnonzero(among)
    mixed = np.zeros(len(rows), dtype=np.uint64)
    for column in columns:
        # The bits of the numbers, with 0.0 and -0.0 alike; the masses of rows are never side by side.
        mixed ^= (column[rows] + column.dtype.type(0)).view(np.uint64)
        mixed *= np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    order = np.argsort(mixed)
    again = ~starts(mixed[order].view(np.int64))
    if not again.any():
        return 0
    # Rows that mix alike are almost always alike; look at those few in full.
    alike = rows[order[again | np.append(again[1:], False)]]
    order = np.lexsort([column[alike] for column in columns])
    same = np.ones(len(alike) - 1, dtype=np.bool_)
    for column in columns:
        value = column[alike[order]]
        same &= value[1:] == value[:-1]
    return int(same.sum())
