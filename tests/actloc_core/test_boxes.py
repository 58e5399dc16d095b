import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from actloc_core.boxes import cxcywh_to_xyxy, iou_and_giou, nms, xyxy_to_cxcywh

unit = st.floats(0, 1, width=32)


def test_box_formats_convert_both_ways():
    assert cxcywh_to_xyxy(torch.tensor([0.5, 0.25, 0.5, 0.5])).tolist() == [0.25, 0.0, 0.75, 0.5]
    assert xyxy_to_cxcywh(torch.tensor([0.25, 0.0, 0.75, 0.5])).tolist() == [0.5, 0.25, 0.5, 0.5]


def test_iou_and_giou_of_half_shifted_squares():
    """Unit squares half a side apart: 1/2 shared of 3/2; their hull of 3/2 is full."""
    iou, giou = iou_and_giou(torch.tensor([0.0, 0, 1, 1]), torch.tensor([0.5, 0, 1.5, 1]))
    assert iou.item() == pytest.approx(1 / 3)
    assert giou.item() == pytest.approx(1 / 3)


def test_giou_of_disjoint_squares_is_negative():
    """Unit squares with a unit gap: hull 3, union 2, so 0 - 1/3."""
    iou, giou = iou_and_giou(torch.tensor([0.0, 0, 1, 1]), torch.tensor([2.0, 0, 3, 1]))
    assert iou.item() == 0
    assert giou.item() == pytest.approx(-1 / 3)


def test_boxes_without_area_give_finite_values():
    point = torch.zeros(4, requires_grad=True)
    iou, giou = iou_and_giou(point, point)
    (iou + giou).sum().backward()
    assert iou.item() == 0
    assert torch.isfinite(giou)
    assert torch.isfinite(point.grad).all()


@given(st.lists(unit, min_size=8, max_size=8))
def test_iou_is_symmetric_and_bounds_giou(values):
    a, b = torch.tensor(values, dtype=torch.float64).view(2, 2, 2).sort(1).values.flatten(1)
    iou, giou = iou_and_giou(a, b)
    assert torch.equal(torch.stack(iou_and_giou(b, a)), torch.stack([iou, giou]))
    assert 0 <= iou <= 1
    assert -1 <= giou <= iou + 1e-12


def test_nms_keeps_the_best_box_of_each_cluster():
    """b overlaps a with IoU 1/3, c overlaps b with 1/3 and a not at all; d is far away."""
    boxes = torch.tensor([[0, 0, 2, 1], [1, 0, 3, 1], [2, 0, 4, 1], [8, 8, 9, 9]], dtype=torch.float32)
    scores = torch.tensor([0.9, 0.8, 0.7, 0.95])
    assert nms(boxes, scores, 0.3).tolist() == [3, 0, 2], "b is suppressed, so c is kept"
    assert nms(boxes, scores, 0.4).tolist() == [3, 0, 1, 2]
    assert nms(boxes[[0, 0]], torch.tensor([0.5, 0.5]), 0.5).tolist() == [0], "the first of equal scores"
    assert nms(boxes[:0], scores[:0], 0.5).tolist() == []
