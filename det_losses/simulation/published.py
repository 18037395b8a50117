r"""The gradients that the public code of the DIoU paper follows, including its faults.

With the exact gradients the order of the losses differs from the paper's figure. The figure follows
from gradients with these differences, which this module describes by their mathematics:

1. All losses: the derivatives of the IoU and GIoU terms by w and h are twice as large, because
   :math:`\partial / \partial w = (\partial / \partial x_2 - \partial / \partial x_1) / 2` lacks the
   factor 1/2.
2. GIoU of disjoint boxes: the intersection is the product of the signed overlaps, so it is not 0,
   and is positive if the boxes are apart in both directions. The union changes with it.
3. DIoU, CIoU: in the derivative of :math:`\rho^2 / c^2` by x and y, the part due to
   :math:`c^2 = c_w^2 + c_h^2` has the wrong sign: it makes the enclosing box smaller.
4. DIoU, CIoU: :math:`c_w` and :math:`c_h` both change with each of x, y, w and h, at the rate of
   the one that does.
5. DIoU, CIoU: where the box exceeds the target on both sides, :math:`\partial c_w / \partial w` is
   -1 instead of 1, and :math:`\partial c_h / \partial h` likewise.
6. CIoU: the factor :math:`1 / (w^2 + h^2)` in the derivative of the aspect ratio is 1. The paper
   says so.
"""

import math

import torch
from torch import Tensor

from det_losses.boxes import box_pair

PUBLISHED = ("IoULoss(mode='linear')", "GIoULoss", "DIoULoss", "CIoULoss")


def published_gradient(name: str, boxes: Tensor, targets: Tensor) -> Tensor:
    """Return the gradient of a loss by x, y, w and h as in the paper's code, ``[4, N]``.

    Args:
        name: class of one of the losses ``PUBLISHED``.
        boxes: x, y, w, h of the boxes, ``[4, N]``.
        targets: of their targets.
    """
    gradient = _iou_part(boxes, targets)
    if name == "GIoULoss":
        return gradient + _hull_part(boxes, targets)
    if name != "IoULoss":
        gradient = gradient + _distance_part(boxes, targets)
    if name == "CIoULoss":
        gradient[2:] += _aspect_part(boxes, targets)
    return gradient


def corners(boxes: Tensor) -> Tensor:
    """Return x1, y1, x2, y2 of boxes given as x, y, w, h, both ``[4, N]``."""
    half = boxes[2:] / 2
    return torch.cat([boxes[:2] - half, boxes[:2] + half])


def _by_center_and_twice_size(first: Tensor, second: Tensor) -> Tensor:
    """Derivatives by x, y, w, h from those by the two corners, with the first difference."""
    return torch.cat([first + second, second - first])


def _overlaps(boxes: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Signed overlaps by axis, ``[2, N]``, and whether each corner of the box bounds them."""
    (first, second), (first_t, second_t) = corners(boxes).split(2), corners(targets).split(2)
    overlap = torch.minimum(second, second_t) - torch.maximum(first, first_t)
    return overlap, (first > first_t).to(boxes), (second < second_t).to(boxes)


def _areas(boxes: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
    """Signed intersection and union, then their derivatives by the two corners, ``[2, N]``."""
    overlap, bounds_first, bounds_second = _overlaps(boxes, targets)
    other = overlap.flip(0)  # the derivative by x is an overlap in y
    intersection = overlap.prod(0)
    union = boxes[2:].prod(0) + targets[2:].prod(0) - intersection
    d_first, d_second = -other * bounds_first, other * bounds_second
    sides = boxes[2:].flip(0)
    return intersection, union, d_first, d_second, -sides - d_first, sides - d_second


def _iou_part(boxes: Tensor, targets: Tensor) -> Tensor:
    """Gradient of 1 - IoU, 0 for disjoint boxes."""
    inter, union, di_first, di_second, du_first, du_second = _areas(boxes, targets)
    gradient = -_by_center_and_twice_size(
        (union * di_first - inter * du_first) / union**2,
        (union * di_second - inter * du_second) / union**2,
    )
    overlapping = (_overlaps(boxes, targets)[0] > 0).all(0)
    return torch.where(overlapping, gradient, 0.0)


def _hull_part(boxes: Tensor, targets: Tensor) -> Tensor:
    """Gradient of 1 - U / C, with the signed intersection in U also for disjoint boxes."""
    _, union, _, _, du_first, du_second = _areas(boxes, targets)
    hull, exceeds_first, exceeds_second = _hull(boxes, targets)
    area, other = hull.prod(0), hull.flip(0)
    return -_by_center_and_twice_size(
        (area * du_first + union * other * exceeds_first) / area**2,
        (area * du_second - union * other * exceeds_second) / area**2,
    )


def _hull(boxes: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sides of the enclosing box, ``[2, N]``, and whether each corner of the box is its own."""
    (first, second), (first_t, second_t) = corners(boxes).split(2), corners(targets).split(2)
    hull = torch.maximum(second, second_t) - torch.minimum(first, first_t)
    return hull, (first < first_t).to(boxes), (second > second_t).to(boxes)


def _distance_part(boxes: Tensor, targets: Tensor) -> Tensor:
    """Gradient of rho^2 / c^2, with faults 3 to 5."""
    offsets = boxes[:2] - targets[:2]
    distance2 = (offsets**2).sum(0)
    hull, first, second = _hull(boxes, targets)
    c2 = (hull**2).sum(0)
    by_center, by_size = second - first, (first + second) / 2  # of the side along the same axis
    own_by_size = torch.where(by_size == 1, -1.0, by_size)
    c2_by_center = 2 * hull.sum(0) * by_center
    c2_by_size = 2 * (hull * own_by_size + hull.flip(0) * by_size)
    return torch.cat(
        [
            (2 * offsets * c2 + c2_by_center * distance2) / c2**2,
            -c2_by_size * distance2 / c2**2,
        ]
    )


def _aspect_part(boxes: Tensor, targets: Tensor) -> Tensor:
    """Gradient of alpha v by w and h, with constant alpha, times w^2 + h^2."""
    gap = torch.atan(targets[2] / targets[3]) - torch.atan(boxes[2] / boxes[3])
    v = 4 / math.pi**2 * gap**2
    iou = box_pair(corners(boxes).t(), corners(targets).t()).iou
    alpha = v / (1 - iou + v + 1e-7)
    return alpha * 8 / math.pi**2 * gap * torch.stack([-boxes[3], boxes[2]])
