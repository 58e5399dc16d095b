"""What the slow reference implementations of the tests share."""

from fractions import Fraction
from functools import cache


def slow_iou(a, b, pixel=0):
    """IoU of two boxes x1 y1 x2 y2 as a Fraction; with pixel=1, boxes are one pixel wider and higher."""
    return _slow_iou(tuple(a), tuple(b), pixel)


@cache  # the tests' boxes are few
def _slow_iou(a, b, pixel):
    a, b = [Fraction(x) for x in a], [Fraction(x) for x in b]
    sides = [max(min(a[i + 2], b[i + 2]) - max(a[i], b[i]) + pixel, 0) for i in (0, 1)]
    intersection = sides[0] * sides[1]
    areas = [(c[2] - c[0] + pixel) * (c[3] - c[1] + pixel) for c in (a, b)]
    union = sum(areas) - intersection
    return intersection / union if union > 0 else Fraction(0)
