"""Extended IoU loss."""

import torch
from torch import Tensor

from det_losses.boxes import BoxPair, box_pair
from det_losses.losses.core.base import check_argument
from det_losses.losses.core.box import IoUFamilyLoss
from det_losses.losses.smooth_l1 import smooth_l1_loss
from det_losses.registry import MODELS


def extended_iou_loss(
    pred: Tensor, target: Tensor, *, smooth_point: float = 0.1, eps: float = 1e-7
) -> Tensor:
    """Extended IoU loss of each box, ``[N]``; see :class:`ExtendedIoULoss`."""
    check_argument("smooth_point", smooth_point, smooth_point >= 0, "at least 0")
    return smoothed_overlap(box_pair(pred, target, eps).extended_iou, smooth_point)


def smoothed_overlap(iou: Tensor, smooth_point: float) -> Tensor:
    """Smooth L1 of one minus the IoU."""
    return smooth_l1_loss(1 - iou, torch.zeros_like(iou), beta=smooth_point)


@MODELS.register_module()
class ExtendedIoULoss(IoUFamilyLoss):
    r"""Smooth L1 of one minus an IoU that is negative for disjoint boxes.

    .. math::
        L = \begin{cases} x^2 / (2 s) & x < s \\ x - s / 2 & \text{otherwise} \end{cases},
        \qquad x = 1 - \frac{I}{U}, \qquad U = |B| + |G| - I

    For overlapping boxes I is their intersection. For disjoint boxes it is negative. Along x (y),
    let a (b) be the shared length, g (k) the gap between the boxes, and u (v) the distance from the
    start of the enclosing box to the overlap or gap. Then :math:`I = a b - g (2 v + b) - k (2 u +
    a) - 2 g k`, and :math:`I / U > -1`. The gradient vanishes at the target.

    Args:
        smooth_point: s, below which the loss is quadratic, at least 0; 0 gives L = x.
        eps: smallest denominator, an area in square pixels.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Use:
        One IoU term for overlapping and disjoint boxes, with a gradient that vanishes at the
        target.

    Shape:
        pred, target: ``[N, 4]`` decoded boxes, xyxy, pixels. Unreduced: ``[N]``.

    Disjoint:
        The gap counts as negative intersection. The gradient towards the target falls with
        distance.

    Raises:
        InputError: a negative smooth_point or eps, or mismatched shapes.

    Reference:
        Hanyang Peng, Shiqi Yu: A Systematic IoU-Related Method: Beyond Simplified Regression for
        Better Localization. arXiv 2112.01793, IEEE document 9429909, 2021. The formula follows
        mmdetection's code, which is taken from libfacedetection.train. It has not been compared
        with the paper.

    Note:
        This is mmdetection's EIoULoss; EIoULoss here is the Efficient IoU. The negative
        intersection is measured from the top left corner of the enclosing box, so the loss of
        disjoint boxes changes if both are mirrored. mmdetection gives a box that is inverted in
        both axes a positive area; here its area is 0. For all other boxes, both agree for equal
        ``smooth_point``.

    Example:
        >>> import torch
        >>> pred, target = torch.tensor([[20.0, 0, 30, 10]]), torch.tensor([[0.0, 0, 10, 10]])
        >>> ExtendedIoULoss()(pred, target)  # gap 10 x 10: 1 + 100 / (200 + 100) - 0.05
        tensor(1.2833)
    """

    paper = "Peng and Yu, A Systematic IoU-Related Method, arXiv 2112.01793, 2021"
    invariances = ("translation", "scale")

    def __init__(
        self,
        *,
        smooth_point: float = 0.1,
        eps: float = 1e-7,
        reduction: str = "mean",
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(eps=eps, reduction=reduction, loss_weight=loss_weight)
        check_argument("smooth_point", smooth_point, smooth_point >= 0, "at least 0")
        self.smooth_point = smooth_point

    def iou(self, pair: BoxPair) -> Tensor:
        """The extended IoU, in (-1, 1]."""
        return pair.extended_iou

    def overlap(self, iou: Tensor) -> Tensor:
        """Smooth L1 of one minus the IoU."""
        return smoothed_overlap(iou, self.smooth_point)
