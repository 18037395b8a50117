"""Focaler-IoU: linear mapping of an IoU interval to [0, 1], for any loss of the IoU family."""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from det_losses.boxes import BoxPair
from det_losses.losses.core.base import check_argument
from det_losses.losses.core.box import IoUWrapper
from det_losses.registry import MODELS


@MODELS.register_module()
class FocalerIoU(IoUWrapper):
    r"""Maps an interval of IoU linearly to [0, 1]; outside it, the overlap term is constant.

    .. math::
        L_{focaler} = L + IoU - IoU_{focaler}, \qquad
        IoU_{focaler} = \min\left(\max\left(\frac{IoU - d}{u - d}, 0\right), 1\right)

    Only the IoU in the overlap term changes; the penalties do not.

    Args:
        loss: a loss of the IoU family: a name, a config or a loss module.
        d: lower end of the interval, in [0, u).
        u: upper end, in (d, 1].
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Use:
        A low ``u`` focuses training on boxes with little overlap, a high ``d`` on boxes that
        overlap well.

    Shape:
        pred, target: ``[N, 4]`` decoded boxes, xyxy, pixels. Unreduced: ``[N]``.

    Disjoint:
        As the wrapped loss; the overlap term is constant below an IoU of ``d``.

    Raises:
        InputError: d and u do not form an interval, a wrapped loss that is not of the IoU family or
            has its own loss_weight or reduction, or mismatched shapes.

    Reference:
        Hao Zhang, Shuaijie Zhang: Focaler-IoU: More Focused Intersection over Union Loss.
        arXiv 2401.10525, 2024.

    Example:
        >>> import torch
        >>> pred, target = torch.tensor([[0.0, 0, 20, 10]]), torch.tensor([[5.0, 0, 25, 10]])
        >>> FocalerIoU("GIoULoss", d=0.2, u=1.0)(pred, target)  # IoU 0.6 maps to 0.5
        tensor(0.5000)
    """

    paper = "Zhang and Zhang, Focaler-IoU, arXiv 2401.10525, 2024"
    example: ClassVar[Mapping[str, Any]] = {"loss": "CIoULoss"}

    def __init__(
        self,
        loss: str | Mapping[str, Any] | nn.Module,
        *,
        d: float = 0.0,
        u: float = 0.95,
        reduction: str = "mean",
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(loss, reduction=reduction, loss_weight=loss_weight)
        check_argument("d", d, 0 <= d < u, f"in [0, u) with u = {u!r}")
        check_argument("u", u, u <= 1, "at most 1")
        self.d = d
        self.u = u

    def iou(self, pair: BoxPair) -> Tensor:
        """The wrapped loss's IoU, mapped from [d, u] to [0, 1]."""
        return ((self.loss.iou(pair) - self.d) / (self.u - self.d)).clamp(0, 1)
