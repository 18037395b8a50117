"""Extended IoU loss."""

import torch
from torch import Tensor

from det_losses.boxes import BoxPair
from det_losses.losses.core.base import check_argument
from det_losses.losses.core.box import IoUFamilyLoss
from det_losses.losses.smooth_l1 import smooth_l1_loss
from det_losses.registry import MODELS


@MODELS.register_module()
class ExtendedIoULoss(IoUFamilyLoss):
    r"""One minus an IoU that goes on below 0 for disjoint boxes, through a smooth L1.

    .. math::
        L = \begin{cases} x^2 / (2 s) & x < s \\ x - s / 2 & \text{otherwise} \end{cases},
        \qquad x = 1 - \frac{I}{U}, \qquad U = |B| + |G| - I

    For boxes that overlap I is their intersection, and the gradient of L vanishes at the target.
    For disjoint ones I is negative: along an axis let a (b) be the length that they share, g (k)
    the gap between them and u (v) what the enclosing box has before either, along x (y); then
    :math:`I = a b - g (2 v + b) - k (2 u + a) - 2 g k`, so that :math:`I / U > -1`.

    Args:
        smooth_point: s, below which the loss is quadratic; at least 0, and 0 is the plain x.
        eps: the smallest denominator, an area in square pixels.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Use:
        One IoU for boxes near and far, with a gradient that fades at the target.

    Shape:
        pred, target: ``[N, 4]`` decoded boxes, xyxy, pixels. Unreduced: ``[N]``.

    Disjoint:
        Attracts, less the further: the gap counts as negative intersection.

    Raises:
        ValueError: a negative smooth_point or eps, or shapes that do not fit.

    Reference:
        Hanyang Peng, Shiqi Yu: A Systematic IoU-Related Method: Beyond Simplified Regression for
        Better Localization. arXiv 2112.01793, IEEE document 9429909, 2021. The formula is that of
        mmdetection's code, which takes it from libfacedetection.train; that of the paper is not
        verified.

    Note:
        This is mmdetection's EIoULoss; EIoULoss here is the Efficient IoU. The negative
        intersection refers to the top left corner of the enclosing box, so the loss of disjoint
        boxes is another when both are mirrored. mmdetection counts the area of a box that is
        inverted in both axes, and its hull by the first corners; here such a box has no area.
        For all others both agree, with ``smooth_point`` as it is there.

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
        """The smooth L1 of what is missing."""
        return smooth_l1_loss(1 - iou, torch.zeros_like(iou), beta=self.smooth_point)


def extended_iou_loss(
    pred: Tensor, target: Tensor, *, smooth_point: float = 0.1, eps: float = 1e-7
) -> Tensor:
    """Extended IoU loss of each box, ``[N]``; see :class:`ExtendedIoULoss`."""
    return ExtendedIoULoss(smooth_point=smooth_point, eps=eps).unreduced(pred, target)
