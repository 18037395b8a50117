"""Efficient IoU loss."""

import warnings

from torch import Tensor

from det_losses.boxes import BoxPair, box_pair
from det_losses.losses.core.box import IoUFamilyLoss
from det_losses.losses.diou import diou_penalty
from det_losses.registry import MODELS


def eiou_loss(pred: Tensor, target: Tensor, *, eps: float = 1e-7) -> Tensor:
    """Efficient IoU loss of each box, ``[N]``; see :class:`EIoULoss`."""
    pair = box_pair(pred, target, eps)
    distance, width, height = eiou_penalties(pair)
    return 1 - pair.iou + distance + width + height  # Eqn. (7)


def eiou_penalties(pair: BoxPair) -> tuple[Tensor, Tensor, Tensor]:
    """Differences of centre, width and height, each ``[N]``."""
    return diou_penalty(pair), pair.dw2 / pair.hull_w2, pair.dh2 / pair.hull_h2


@MODELS.register_module()
class EIoULoss(IoUFamilyLoss):
    r"""Efficient IoU: overlap, and the differences of centre, width and height.

    .. math::
        L = 1 - IoU + \frac{\rho^2}{C_w^2 + C_h^2} + \frac{(w - w_g)^2}{C_w^2}
        + \frac{(h - h_g)^2}{C_h^2}

    :math:`\rho` is the distance of the centres, :math:`C_w, C_h` the sides of the smallest
    enclosing box.

    Args:
        eps: smallest denominator, an area in square pixels.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.
        smooth_point: accepted for configs of mmdetection, whose EIoULoss is a different loss; it
            has no effect and raises a warning.

    Use:
        When width and height should be regressed independently, unlike in CIoU's aspect ratio term.

    Shape:
        pred, target: ``[N, 4]`` decoded boxes, xyxy, pixels. Unreduced: ``[N]``.

    Disjoint:
        The distance of the centres moves the prediction towards the target. For boxes of unequal
        size the loss may fall with distance, because the size terms shrink as the enclosing box
        grows.

    Raises:
        InputError: a negative eps, or mismatched shapes.

    Reference:
        Yi-Fan Zhang, Weiqiang Ren, Zhang Zhang, Zhen Jia, Liang Wang, Tieniu Tan: Focal and
        Efficient IOU Loss for Accurate Bounding Box Regression. arXiv 2101.08158, 2021, Eqn. (7).

    Note:
        mmdetection's EIoULoss, with ``smooth_point``, is the Extended IoU, which is ExtendedIoULoss
        here.

    Published:
        RetinaNet R50-FPN, COCO AP / AP75 in arXiv 2101.08158: 37.0 / 39.5; Smooth L1 35.9 / 38.4.

    Example:
        >>> import torch
        >>> pred, target = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[0.0, 0, 20, 10]])
        >>> # 1/2; centres 5 apart: 25/500; the width differs by half the enclosing box's: 1/4
        >>> EIoULoss()(pred, target)
        tensor(0.8000)
    """

    paper = "Zhang et al., Focal and Efficient IOU Loss, arXiv 2101.08158, 2021"

    def __init__(
        self,
        *,
        eps: float = 1e-7,
        reduction: str = "mean",
        loss_weight: float = 1.0,
        smooth_point: float | None = None,
    ) -> None:
        super().__init__(eps=eps, reduction=reduction, loss_weight=loss_weight)
        if smooth_point is not None:
            warnings.warn(
                "smooth_point is an argument of mmdetection's EIoULoss, the Extended IoU, which is "
                "ExtendedIoULoss here; EIoULoss is the Efficient IoU and ignores it",
                stacklevel=2,
            )
        self.smooth_point = smooth_point

    def penalties(self, pair: BoxPair) -> tuple[Tensor, ...]:
        """Differences of centre, width and height."""
        return eiou_penalties(pair)
