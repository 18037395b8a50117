"""Focal-EIoU loss."""

from torch import Tensor

from det_losses.boxes import BoxPair, box_pair
from det_losses.losses.core.base import check_argument
from det_losses.losses.eiou import EIoULoss, eiou_penalties
from det_losses.losses.focal_iou import iou_focus
from det_losses.registry import MODELS


def focal_eiou_loss(
    pred: Tensor, target: Tensor, *, gamma: float = 0.5, eps: float = 1e-7
) -> Tensor:
    """Focal-EIoU loss of each box, ``[N]``, normalised over them; see :class:`FocalEIoULoss`."""
    check_argument("gamma", gamma, gamma >= 0, "at least 0")
    pair = box_pair(pred, target, eps)
    distance, width, height = eiou_penalties(pair)
    return (1 - pair.iou + distance + width + height) * iou_focus(pair.iou, gamma)


@MODELS.register_module()
class FocalEIoULoss(EIoULoss):
    r"""EIoU weighted by a power of IoU, normalised by the sum of the weights.

    .. math:: L = \frac{\sum_i W_i \, E_i}{\sum_i W_i}, \qquad W_i = IoU_i^\gamma

    E is the EIoU loss of a box. With sample weights s, W is scaled by :math:`\sum s / \sum s W`,
    and the result is reduced like any other loss. Boxes of weight 0 do not contribute to the
    normaliser, which in training is that of all ranks. W is constant in the gradient, because its
    own gradient would be infinite at IoU = 0.

    Args:
        gamma: exponent of IoU, at least 0; 0 is EIoU.
        eps: smallest denominator, an area in square pixels.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Use:
        EIoU with more weight on boxes that overlap well. Suitable only if most predictions overlap
        their targets.

    Shape:
        pred, target: ``[N, 4]`` decoded boxes, xyxy, pixels. Unreduced: ``[N]``.

    Disjoint:
        W is 0, so the loss is 0, with zero gradient. W falls with the overlap, so the loss may fall
        as a box moves away.

    Raises:
        InputError: a negative gamma or eps, or mismatched shapes.

    Reference:
        Yi-Fan Zhang, Weiqiang Ren, Zhang Zhang, Zhen Jia, Liang Wang, Tieniu Tan: Focal and
        Efficient IOU Loss for Accurate Bounding Box Regression. arXiv 2101.08158, 2021,
        Eqn. (10) and (11). The paper does not say whether W is constant in the gradient.

    Published:
        RetinaNet R50-FPN, COCO AP / AP75 in arXiv 2101.08158: 37.5 / 40.0, EIoU 37.0 / 39.5; Smooth
        L1 35.9 / 38.4. Faster R-CNN R50 in the same paper: 38.9, with Smooth L1 37.3.

    Example:
        >>> import torch
        >>> pred = torch.tensor([[0.0, 0, 10, 10], [50, 50, 60, 60]])
        >>> target = torch.tensor([[0.0, 0, 20, 10], [0, 0, 20, 10]])
        >>> FocalEIoULoss()(pred, target)  # the disjoint box has weight 0: EIoU of the first
        tensor(0.8000)
    """

    constant_in_gradient = ("the weight W",)
    monotone_in_distance = False

    def __init__(
        self,
        *,
        gamma: float = 0.5,
        eps: float = 1e-7,
        reduction: str = "mean",
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(eps=eps, reduction=reduction, loss_weight=loss_weight)
        check_argument("gamma", gamma, gamma >= 0, "at least 0")
        self.gamma = gamma

    def factor(self, pair: BoxPair, weight: Tensor | None = None) -> Tensor:
        """The normalised weight IoU^gamma of each box."""
        return iou_focus(pair.iou, self.gamma, weight, shared=self.training)
