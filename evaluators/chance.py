"""The chance level of frame-mAP: what ground-truth boxes with random classes score.

A number is worth something by how far it lies above this: with two classes that are about equally frequent,
perfect boxes whose classes are guessed have about 50 %, with AVA's sixty a few.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from evaluators.ava_csv import NOBODY
from evaluators.frame_map import STANDARD_RULES, EvalRules, GroundTruth, frame_keys
from evaluators.matching import Floats, Ints, lookup


def chance_level(
    ground_truth: GroundTruth, classes: Mapping[int, str], *, rules: EvalRules = STANDARD_RULES
) -> float:
    """The expected mAP when each ground-truth box is detected once with every class, scored at random.

    AP is the mean precision at the true positives, without an envelope; in [0, 1], NaN without ground truth
    of these classes. Of rules, `excluded` applies, and which classes the mean is over. A box that several
    rows have, one for each of its classes, is one box.
    """
    keys, _, excluded = frame_keys(ground_truth, ground_truth, rules.excluded)
    kept = (lookup(excluded, keys) < 0) & (ground_truth.label != NOBODY)
    box = _numbered(keys[kept], ground_truth.box[kept])
    ids = np.array(sorted(classes), np.int64)
    column = lookup(ids, ground_truth.label[kept])
    evaluated = column >= 0
    of_box = box[evaluated] + column[evaluated].astype(np.uint64)
    column = column[evaluated]
    if len(np.unique(of_box)) < len(of_box):  # rows that repeat others
        column = column[np.unique(of_box, return_index=True)[1]]
    counts, number = np.bincount(column, minlength=len(ids)).tolist(), len(np.unique(box))
    aps = [random_ap(count, number) for count in counts if count or rules.protocol_rules.all_classes]
    return float(np.mean(aps)) if aps else float("nan")


def _numbered(keys: Ints, box: Floats) -> NDArray[np.uint64]:
    """A number for each (frame, box), (N,): equal rows have equal ones."""
    mixed = keys.astype(np.uint64)
    for side in box.T:
        mixed *= np.uint64(0x9E3779B97F4A7C15)
        mixed ^= (side + 0.0).view(np.uint64)  # 0.0 and -0.0 have different bits
        mixed ^= mixed >> np.uint64(29)
    return mixed


def random_ap(positives: int, number: int) -> float:
    """The mean precision at the positives of a ranking, averaged over all rankings of that number.

    At rank k precision is (1 + the positives among the other k - 1) / k where there is a positive, and of the
    other k - 1 ranks each has one with probability (positives - 1) / (number - 1).
    """
    if not positives:
        return 0.0
    harmonic = float((1 / np.arange(1, number + 1)).sum())
    others = (positives - 1) / (number - 1) if number > 1 else 0.0
    return (harmonic + others * (number - harmonic)) / number
