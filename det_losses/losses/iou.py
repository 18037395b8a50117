"""IoU loss."""

from torch import Tensor

from det_losses.losses.core.base import check_argument
from det_losses.losses.core.box import IoUFamilyLoss
from det_losses.registry import MODELS

MODES = ("log", "linear", "square")


@MODELS.register_module()
class IoULoss(IoUFamilyLoss):
    r"""Overlap alone: minus its logarithm, one minus it, or one minus its square.

    .. math::
        L = -\ln \max(IoU, \epsilon) \quad (\text{log}), \qquad L = 1 - IoU \quad
        (\text{linear}), \qquad L = 1 - IoU^2 \quad (\text{square})

    Disjoint boxes have the constant loss :math:`-\ln \epsilon` or 1, with zero gradient.

    Args:
        mode: ``"log"`` (the paper), ``"linear"`` or ``"square"``.
        linear: another way to write ``mode="linear"``, for configs of mmdetection.
        eps: the smallest IoU whose logarithm is taken, and the smallest denominator; 1e-6 as in
            mmdetection, because the value is the loss of disjoint boxes (13.8).
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Use:
        Where predictions overlap their targets already, as in a second stage or with a point
        inside the object (FCOS).

    Shape:
        pred, target: ``[N, 4]`` decoded boxes, xyxy, pixels. Unreduced: ``[N]``.

    Disjoint:
        The constant loss -ln eps (13.8 with the default) or 1, without gradient: such boxes are
        not trained.

    Raises:
        ValueError: an unknown mode, ``linear`` with mode ``"square"``, a negative eps, or shapes
            that do not fit.

    Reference:
        Jiahui Yu, Yuning Jiang, Zhangyang Wang, Zhimin Cao, Thomas Huang: UnitBox: An Advanced
        Object Detection Network. arXiv 1608.01471, 2016.

    Note:
        The logarithm's gradient is the inverse of the overlap's width: below 1.5e-5 px it does
        not fit float16.

    Published:
        RetinaNet R50-FPN, COCO AP / AP75 in arXiv 2101.08158: 36.5 / 38.9; Smooth L1 there 35.9 /
        38.4. mmdetection 3.3.0, Faster R-CNN R50-FPN, 12 epochs: AP 37.9 at weight 10; L1 there
        37.4.

    Example:
        >>> import torch
        >>> pred, target = torch.tensor([[0.0, 0, 20, 10]]), torch.tensor([[10.0, 0, 30, 10]])
        >>> IoULoss(mode="linear")(pred, target)  # 100 of 300 square pixels overlap
        tensor(0.6667)
    """

    paper = "Yu et al., UnitBox, arXiv 1608.01471, 2016"

    def __init__(
        self,
        *,
        mode: str = "log",
        linear: bool = False,
        eps: float = 1e-6,
        reduction: str = "mean",
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(eps=eps, reduction=reduction, loss_weight=loss_weight)
        check_argument("mode", mode, mode in MODES, f"one of {', '.join(MODES)}")
        if linear and mode == "square":
            raise ValueError("linear=True contradicts mode='square'; give the mode alone")
        self.mode = "linear" if linear else mode
        self.linear = linear

    def overlap(self, iou: Tensor) -> Tensor:
        """The overlap in the chosen mode."""
        if self.mode == "log":
            return -iou.clamp(min=self.eps).log()
        return 1 - (iou**2 if self.mode == "square" else iou)


def iou_loss(pred: Tensor, target: Tensor, *, mode: str = "log", eps: float = 1e-6) -> Tensor:
    """IoU loss of each box, ``[N]``; see :class:`IoULoss`."""
    return IoULoss(mode=mode, eps=eps).unreduced(pred, target)
