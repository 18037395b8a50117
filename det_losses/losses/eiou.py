"""Efficient IoU loss."""

import warnings

from torch import Tensor

from det_losses.boxes import BoxPair
from det_losses.losses.core.box import IoUFamilyLoss
from det_losses.registry import MODELS


@MODELS.register_module()
class EIoULoss(IoUFamilyLoss):
    r"""Efficient IoU: overlap, and the differences of centre, width and height.

    .. math::
        L = 1 - IoU + \frac{\rho^2}{C_w^2 + C_h^2} + \frac{(w - w_g)^2}{C_w^2}
        + \frac{(h - h_g)^2}{C_h^2}

    :math:`\rho` is the distance of the two centres, :math:`C_w, C_h` the sizes of the smallest
    box that encloses both. Disjoint boxes attract each other; but the size terms shrink as the
    enclosing box grows, so for boxes of unequal size the loss may fall with distance.

    Args:
        eps: the smallest denominator, an area in square pixels.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.
        smooth_point: for configs of mmdetection, whose EIoULoss is another loss; without effect,
            and answered by a warning.

    Use:
        Where width and height should be drawn to the target's each for itself, which CIoU's aspect
        ratio does not do.

    Shape:
        pred, target: ``[N, 4]`` decoded boxes, xyxy, pixels. Unreduced: ``[N]``.

    Disjoint:
        Attracts by the distance of the centres; where the sizes differ, their terms may outweigh
        it, for they shrink as the enclosing box grows.

    Raises:
        ValueError: a negative eps, or shapes that do not fit.

    Reference:
        Yi-Fan Zhang, Weiqiang Ren, Zhang Zhang, Zhen Jia, Liang Wang, Tieniu Tan: Focal and
        Efficient IOU Loss for Accurate Bounding Box Regression. arXiv 2101.08158, 2021, Eqn. (7).

    Note:
        mmdetection's EIoULoss is another loss, the Extended IoU with ``smooth_point``; here it is
        ExtendedIoULoss.

    Published:
        RetinaNet R50-FPN, COCO AP / AP75 in arXiv 2101.08158: 37.0 / 39.5; Smooth L1 there 35.9 /
        38.4.

    Example:
        >>> import torch
        >>> pred, target = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[0.0, 0, 20, 10]])
        >>> EIoULoss()(pred, target)  # 1/2, centres 5 apart: 25/500, width half the hull's: 1/4
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
                "smooth_point belongs to mmdetection's EIoULoss, the Extended IoU, which is "
                "ExtendedIoULoss here; EIoULoss is the Efficient IoU and has no use for it",
                stacklevel=2,
            )
        self.smooth_point = smooth_point

    def penalties(self, pair: BoxPair) -> tuple[Tensor, ...]:
        """The differences of centre, width and height."""
        return (
            pair.center_distance2 / pair.hull_diagonal2,  # Eqn. (7)
            pair.dw2 / pair.hull_w2,
            pair.dh2 / pair.hull_h2,
        )


def eiou_loss(pred: Tensor, target: Tensor, *, eps: float = 1e-7) -> Tensor:
    """Efficient IoU loss of each box, ``[N]``; see :class:`EIoULoss`."""
    return EIoULoss(eps=eps).unreduced(pred, target)
