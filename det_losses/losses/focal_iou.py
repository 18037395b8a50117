"""Focal weights by IoU, for any loss of the IoU family."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from det_losses.boxes import BoxPair
from det_losses.losses.core.base import check_argument
from det_losses.losses.core.box import IoUWrapper
from det_losses.losses.core.state import sum_and_weight
from det_losses.registry import MODELS


def iou_focus(
    iou: Tensor, gamma: float, weight: Tensor | None = None, *, shared: bool = False
) -> Tensor:
    """Return IoU^gamma, detached, and normalised to keep the sum of the sample weights.

    With W = IoU^gamma and sample weights s, the factor is W sum(s) / sum(s W). So the unweighted
    mean of factor times E is sum(W E) / sum(W). If all W are 0, the factor is 0.

    Args:
        iou: IoU of the boxes, ``[N]``.
        gamma: the exponent, at least 0.
        weight: sample weights s, ``[N]``; None means ones.
        shared: whether the sums include the boxes of all ranks.
    """
    w = iou.detach() ** gamma
    total, samples = sum_and_weight(w, weight, shared)
    return w / torch.where(total > 0, total, 1.0) * samples


@MODELS.register_module()
class FocalIoU(IoUWrapper):
    r"""Weights the boxes of a loss by a power of their IoU, normalised by the sum of the weights.

    .. math:: L = \frac{\sum_i W_i L_i}{\sum_i W_i}, \qquad W_i = IoU_i^\gamma

    :math:`L_i` is the wrapped loss of a box. IoU is computed from the unchanged boxes, also inside
    other wrappers. With sample weights s, W is scaled by :math:`\sum s / \sum s W`, and the result
    is reduced like any other loss. W is constant in the gradient. In training, the sums are over
    the boxes of all ranks. FocalIoU of EIoULoss is FocalEIoULoss.

    Args:
        loss: a loss of the IoU family: a name, a config or a loss module.
        gamma: exponent of IoU, at least 0; 0 is the wrapped loss.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Use:
        More weight on boxes that overlap well. The paper applies it to EIoU.

    Shape:
        pred, target: ``[N, 4]`` decoded boxes, xyxy, pixels. Unreduced: ``[N]``.

    Disjoint:
        W is 0, so the loss is 0, with zero gradient. W falls with the overlap, so the loss may fall
        as a box moves away.

    Raises:
        InputError: a negative gamma, a wrapped loss that is not of the IoU family or has its own
            loss_weight or reduction, or mismatched shapes.

    Reference:
        Yi-Fan Zhang, Weiqiang Ren, Zhang Zhang, Zhen Jia, Liang Wang, Tieniu Tan: Focal and
        Efficient IOU Loss for Accurate Bounding Box Regression. arXiv 2101.08158, 2021,
        Eqn. (10) and (11).

    Example:
        >>> import torch
        >>> pred = torch.tensor([[0.0, 0, 10, 10], [50, 50, 60, 60]])
        >>> target = torch.tensor([[0.0, 0, 20, 10], [0, 0, 20, 10]])
        >>> FocalIoU("GIoULoss")(pred, target)  # the disjoint box has weight 0: GIoU of the first
        tensor(0.5000)
    """

    paper = "Zhang et al., Focal and Efficient IOU Loss, arXiv 2101.08158, 2021"
    example: ClassVar[Mapping[str, Any]] = {"loss": "CIoULoss"}
    constant_in_gradient = ("the weight W",)
    monotone_in_distance = False

    def __init__(
        self,
        loss: str | Mapping[str, Any] | nn.Module,
        *,
        gamma: float = 0.5,
        reduction: str = "mean",
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(loss, reduction=reduction, loss_weight=loss_weight)
        check_argument("gamma", gamma, gamma >= 0, "at least 0")
        self.gamma = gamma

    def factor(self, pair: BoxPair, weight: Tensor | None = None) -> Tensor:
        """The wrapped factor times the normalised IoU^gamma."""
        focus = iou_focus(pair.iou, self.gamma, weight, shared=self.training)
        return self.loss.factor(pair, weight) * focus
