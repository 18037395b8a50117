"""IoU loss."""

from torch import Tensor

from det_losses.boxes import box_pair
from det_losses.errors import InputError
from det_losses.losses.core.base import check_argument
from det_losses.losses.core.box import IoUFamilyLoss
from det_losses.registry import MODELS

MODES = ("log", "linear", "square")


def iou_loss(pred: Tensor, target: Tensor, *, mode: str = "log", eps: float = 1e-6) -> Tensor:
    """IoU loss of each box, ``[N]``; see :class:`IoULoss`."""
    _check(mode)
    return overlap_term(box_pair(pred, target, eps).iou, mode=mode, eps=eps)


def overlap_term(iou: Tensor, *, mode: str, eps: float) -> Tensor:
    """Loss of an IoU in the given mode."""
    if mode == "log":
        return -iou.clamp(min=eps).log()
    return 1 - (iou**2 if mode == "square" else iou)


@MODELS.register_module()
class IoULoss(IoUFamilyLoss):
    r"""Overlap only: the negative logarithm of IoU, one minus IoU, or one minus its square.

    .. math::
        L = -\ln \max(IoU, \epsilon) \quad (\text{log}), \qquad L = 1 - IoU \quad
        (\text{linear}), \qquad L = 1 - IoU^2 \quad (\text{square})

    Args:
        mode: ``"log"`` (the paper), ``"linear"`` or ``"square"``.
        linear: same as ``mode="linear"``, for configs of mmdetection.
        eps: lower bound of the IoU in the logarithm, and smallest denominator. The default 1e-6,
            as in mmdetection, makes the loss of disjoint boxes 13.8.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Use:
        When predictions already overlap their targets, as in a second stage or for points inside
        the object (FCOS).

    Shape:
        pred, target: ``[N, 4]`` decoded boxes, xyxy, pixels. Unreduced: ``[N]``.

    Disjoint:
        The loss is constant, -ln eps (13.8 by default) or 1, with zero gradient: disjoint boxes are
        not trained.

    Raises:
        InputError: an unknown mode, ``linear`` with mode ``"square"``, a negative eps, or
            mismatched shapes.

    Reference:
        Jiahui Yu, Yuning Jiang, Zhangyang Wang, Zhimin Cao, Thomas Huang: UnitBox: An Advanced
        Object Detection Network. arXiv 1608.01471, 2016.

    Note:
        The gradient of the logarithm is the inverse of the overlap's width: for widths below 1.5e-5
        px it overflows float16.

    Published:
        RetinaNet R50-FPN, COCO AP / AP75 in arXiv 2101.08158: 36.5 / 38.9; Smooth L1 35.9 / 38.4.
        mmdetection 3.3.0, Faster R-CNN R50-FPN, 12 epochs: AP 37.9 at weight 10; L1 37.4.

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
        _check(mode)
        if linear and mode == "square":
            raise InputError("linear=True contradicts mode='square'; give the mode alone")
        self.mode = "linear" if linear else mode
        self.linear = linear

    def overlap(self, iou: Tensor) -> Tensor:
        """The overlap term in the chosen mode."""
        return overlap_term(iou, mode=self.mode, eps=self.eps)


def _check(mode: str) -> None:
    check_argument("mode", mode, mode in MODES, f"one of {', '.join(MODES)}")
