"""Complete-IoU loss."""

import math

import torch
from torch import Tensor

from det_losses.boxes import BoxPair, box_pair
from det_losses.losses.core.base import check_argument
from det_losses.losses.core.box import IoUFamilyLoss
from det_losses.losses.diou import diou_penalty
from det_losses.registry import MODELS


def ciou_loss(
    pred: Tensor, target: Tensor, *, alpha_gate: float = 0.0, eps: float = 1e-7
) -> Tensor:
    """Complete-IoU loss of each box, ``[N]``; see :class:`CIoULoss`."""
    _check(alpha_gate)
    pair = box_pair(pred, target, eps)
    distance, aspect = ciou_penalties(pair, alpha_gate=alpha_gate)
    return 1 - pair.iou + distance + aspect


def ciou_penalties(pair: BoxPair, *, alpha_gate: float = 0.0) -> tuple[Tensor, Tensor]:
    """Distance of the centres, and difference of the aspect ratios, each ``[N]``."""
    v = 4 / math.pi**2 * pair.angle_gap**2
    alpha = (v / (1 - pair.iou + v).clamp(min=pair.eps)).detach()
    if alpha_gate:
        alpha = torch.where(pair.iou < alpha_gate, 0.0, alpha)
    return diou_penalty(pair), alpha * v


@MODELS.register_module()
class CIoULoss(IoUFamilyLoss):
    r"""Overlap, the distance of the centres and the difference of the aspect ratios.

    .. math::
        L = 1 - IoU + \frac{\rho^2}{c^2} + \alpha v, \qquad
        v = \frac{4}{\pi^2} \left(\arctan\frac{w_g}{h_g} - \arctan\frac{w}{h}\right)^2, \qquad
        \alpha = \frac{v}{(1 - IoU) + v}

    :math:`\rho` is the distance of the centres, :math:`c` the diagonal of the smallest enclosing
    box. :math:`\alpha` is constant in the gradient, and 0 where IoU is below ``alpha_gate``.

    Args:
        alpha_gate: IoU below which alpha is 0. The conference paper and torchvision use 0, the
            journal version (arXiv 2005.03572) and mmdetection 0.5.
        eps: smallest denominator, including that of alpha, so alpha is 0 for identical boxes.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Use:
        Like DIoU, when the aspect ratio matters too.

    Shape:
        pred, target: ``[N, 4]`` decoded boxes, xyxy, pixels. Unreduced: ``[N]``.

    Disjoint:
        As in DIoU, the loss rises as the prediction moves straight away from a target of equal
        size, and may fall if it moves sideways. The aspect-ratio term has a gradient too, unless
        alpha_gate is above 0.

    Raises:
        InputError: alpha_gate outside [0, 1], a negative eps, or mismatched shapes.

    Reference:
        Zhaohui Zheng, Ping Wang, Wei Liu, Jinze Li, Rongguang Ye, Dongwei Ren: Distance-IoU Loss:
        Faster and Better Learning for Bounding Box Regression. arXiv 1911.08287, 2019.

    Note:
        For stable training the paper replaces the factor :math:`1 / (w^2 + h^2)` in the gradient of
        v by 1. Here, as in torchvision and mmdetection, the gradient follows the formula. In
        float32, mmdetection's loss of identical boxes can be NaN; torchvision's gradient of a box
        without height is NaN.

    Published:
        RetinaNet R50-FPN, COCO AP / AP75 in arXiv 2101.08158: 36.7 / 39.2; Smooth L1 35.9 / 38.4.
        Faster R-CNN R50-FPN in arXiv 1911.08287: AP 38.65; IoU loss 37.93. torchvision's RetinaNet
        R50-FPN v2 (pull request 5984): AP 41.1, with GIoU 41.5.

    Example:
        >>> import torch
        >>> pred, target = torch.tensor([[0.0, 0, 10, 20]]), torch.tensor([[0.0, 0, 20, 10]])
        >>> CIoULoss()(pred, target)  # 2/3, centres 50/800, v = 0.1678 and alpha = 0.2011
        tensor(0.7629)
    """

    paper = "Zheng et al., Distance-IoU Loss, arXiv 1911.08287, 2019"
    constant_in_gradient = ("alpha",)

    def __init__(
        self,
        *,
        alpha_gate: float = 0.0,
        eps: float = 1e-7,
        reduction: str = "mean",
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(eps=eps, reduction=reduction, loss_weight=loss_weight)
        _check(alpha_gate)
        self.alpha_gate = alpha_gate

    def penalties(self, pair: BoxPair) -> tuple[Tensor, ...]:
        """Distance of the centres, and difference of the aspect ratios."""
        return ciou_penalties(pair, alpha_gate=self.alpha_gate)


def _check(alpha_gate: float) -> None:
    check_argument("alpha_gate", alpha_gate, 0 <= alpha_gate <= 1, "in [0, 1]")
