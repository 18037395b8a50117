"""Alpha-IoU: a power of the overlap and of each penalty, for any loss of the IoU family."""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from det_losses.boxes import BoxPair, box_pair
from det_losses.losses.core.base import check_argument
from det_losses.losses.core.box import IoUFamilyLoss, IoUWrapper
from det_losses.registry import MODELS


def alpha_iou_loss(
    pred: Tensor, target: Tensor, *, alpha: float = 3.0, eps: float = 1e-7
) -> Tensor:
    """Alpha-IoU loss of each box, ``[N]``; see :class:`AlphaIoULoss`."""
    _check(alpha)
    return 1 - box_pair(pred, target, eps).iou ** alpha


@MODELS.register_module()
class AlphaIoU(IoUWrapper):
    r"""Raises IoU and each penalty of a loss to the power alpha.

    .. math:: L_\alpha = 1 - IoU^\alpha + \sum_k P_k^\alpha

    :math:`P_k` are the penalties of the wrapped loss. Its overlap term is replaced, so AlphaIoU of
    IoULoss is AlphaIoULoss for every mode of the wrapped loss.

    Args:
        loss: a loss of the IoU family: a name, a config or a loss module.
        alpha: the exponent, at least 1; below 1 the gradient would be infinite at IoU = 0.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Use:
        With alpha above 1, boxes that overlap well get larger gradients; the aim is AP at high IoU
        thresholds.

    Shape:
        pred, target: ``[N, 4]`` decoded boxes, xyxy, pixels. Unreduced: ``[N]``.

    Disjoint:
        As the wrapped loss, with smaller gradients of penalties below 1.

    Raises:
        InputError: an alpha below 1, a wrapped loss that is not of the IoU family or has its own
            loss_weight or reduction, or mismatched shapes.

    Reference:
        Jiabo He, Sarah Erfani, Xingjun Ma, James Bailey, Ying Chi, Xian-Sheng Hua: Alpha-IoU: A
        Family of Power Intersection over Union Losses for Bounding Box Regression.
        arXiv 2110.13675, 2021.

    Example:
        >>> import torch
        >>> pred, target = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[20.0, 0, 30, 10]])
        >>> AlphaIoU("DIoULoss", alpha=2.0)(pred, target)  # 1 + (400 / 1000)^2
        tensor(1.1600)
    """

    paper = "He et al., Alpha-IoU, arXiv 2110.13675, 2021"
    example: ClassVar[Mapping[str, Any]] = {"loss": "CIoULoss"}

    def __init__(
        self,
        loss: str | Mapping[str, Any] | nn.Module,
        *,
        alpha: float = 3.0,
        reduction: str = "mean",
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(loss, reduction=reduction, loss_weight=loss_weight)
        _check(alpha)
        self.alpha = alpha

    def overlap(self, iou: Tensor) -> Tensor:
        """1 - IoU^alpha."""
        return 1 - iou.clamp(min=0) ** self.alpha  # the extended IoU can be negative

    def penalties(self, pair: BoxPair) -> tuple[Tensor, ...]:
        """Each wrapped penalty to the power alpha."""
        return tuple(penalty**self.alpha for penalty in self.loss.penalties(pair))


@MODELS.register_module()
class AlphaIoULoss(IoUFamilyLoss):
    r"""One minus a power of IoU.

    .. math:: L = 1 - IoU^\alpha

    Args:
        alpha: the exponent, at least 1; 1 is the linear IoU loss.
        eps: smallest denominator, an area in square pixels.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Use:
        With alpha above 1, boxes that overlap well get larger gradients; the aim is AP at high IoU
        thresholds. AlphaIoU applies the power to the penalties of another loss too.

    Shape:
        pred, target: ``[N, 4]`` decoded boxes, xyxy, pixels. Unreduced: ``[N]``.

    Disjoint:
        The loss is 1, with zero gradient.

    Raises:
        InputError: an alpha below 1, a negative eps, or mismatched shapes.

    Reference:
        Jiabo He, Sarah Erfani, Xingjun Ma, James Bailey, Ying Chi, Xian-Sheng Hua: Alpha-IoU: A
        Family of Power Intersection over Union Losses for Bounding Box Regression.
        arXiv 2110.13675, 2021, Eqn. (3).

    Example:
        >>> import torch
        >>> pred, target = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[0.0, 0, 20, 10]])
        >>> AlphaIoULoss()(pred, target)  # 1 - (1/2)^3
        tensor(0.8750)
    """

    paper = "He et al., Alpha-IoU, arXiv 2110.13675, 2021"

    def __init__(
        self,
        *,
        alpha: float = 3.0,
        eps: float = 1e-7,
        reduction: str = "mean",
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(eps=eps, reduction=reduction, loss_weight=loss_weight)
        _check(alpha)
        self.alpha = alpha

    def overlap(self, iou: Tensor) -> Tensor:
        """1 - IoU^alpha."""
        return 1 - iou**self.alpha


def _check(alpha: float) -> None:
    check_argument("alpha", alpha, alpha >= 1, "at least 1")
