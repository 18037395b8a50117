"""Inner-IoU: overlap of scaled boxes, for any loss of the IoU family."""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from det_losses.boxes import BoxPair
from det_losses.losses.core.base import check_argument
from det_losses.losses.core.box import IoUWrapper
from det_losses.registry import MODELS


@MODELS.register_module()
class InnerIoU(IoUWrapper):
    r"""Computes the overlap from both boxes scaled by ``ratio`` about their centres.

    .. math:: L_{inner} = L + IoU - IoU_{inner}

    Only the IoU in the overlap term changes: :math:`1 - IoU` becomes :math:`1 - IoU_{inner}`. The
    penalties, including CIoU's alpha and GIoU's union, use the unscaled boxes.

    Args:
        loss: a loss of the IoU family: a name, a config or a loss module.
        ratio: scale of both boxes, above 0; the paper uses 0.5 to 1.5.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Use:
        A ratio below 1 increases the gradient of boxes that overlap well. A ratio above 1 gives
        boxes that are further apart an overlap and a gradient, for small objects.

    Shape:
        pred, target: ``[N, 4]`` decoded boxes, xyxy, pixels. Unreduced: ``[N]``.

    Disjoint:
        As the wrapped loss, but the overlap term is constant where the scaled boxes are disjoint.
        With a ratio below 1, that happens while the boxes still overlap.

    Raises:
        InputError: a ratio that is not above 0, a wrapped loss that is not of the IoU family or has
            its own loss_weight or reduction, or mismatched shapes.

    Reference:
        Hao Zhang, Cong Xu, Shuaijie Zhang: Inner-IoU: More Effective Intersection over Union Loss
        with Auxiliary Bounding Box. arXiv 2311.02877, 2023.

    Example:
        >>> import torch
        >>> pred, target = torch.tensor([[0.0, 0, 20, 10]]), torch.tensor([[10.0, 0, 30, 10]])
        >>> # scaled boxes, 10 wide, 10 apart, do not overlap; the boxes fill the enclosing box
        >>> InnerIoU("GIoULoss", ratio=0.5)(pred, target)
        tensor(1.)
    """

    paper = "Zhang et al., Inner-IoU, arXiv 2311.02877, 2023"
    example: ClassVar[Mapping[str, Any]] = {"loss": "CIoULoss"}

    def __init__(
        self,
        loss: str | Mapping[str, Any] | nn.Module,
        *,
        ratio: float = 0.75,
        reduction: str = "mean",
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(loss, reduction=reduction, loss_weight=loss_weight)
        check_argument("ratio", ratio, ratio > 0, "above 0")
        self.ratio = ratio

    def iou(self, pair: BoxPair) -> Tensor:
        """The wrapped loss's IoU of the scaled boxes."""
        return self.loss.iou(pair.scaled(self.ratio))
