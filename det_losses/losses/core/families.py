"""The two families of box losses: elementwise on deltas, and built of IoU terms on boxes."""

import torch
from torch import Tensor

from det_losses.boxes import BoxPair, box_pair
from det_losses.losses.core.base import Loss, check_argument


class ElementwiseBoxLoss(Loss):
    """A loss of each coordinate's error, on encoded deltas.

    ``weight`` has one entry per box or one per coordinate.
    """

    kind = "box"
    space = "delta"


class DecodedBoxLoss(Loss):
    """A loss of a whole decoded box.

    ``weight`` has one entry per box, or four, whose mean counts.
    """

    kind = "box"
    space = "decoded"

    def unreduced_shape(self, pred: Tensor) -> torch.Size:
        """One value per box."""
        return pred.shape[:-1]


class IoUFamilyLoss(DecodedBoxLoss):
    """A loss of a whole decoded box: an overlap term and penalties, times a factor.

    A subclass gives its terms; what wraps a loss asks the wrapped one for its terms and changes
    them. ``weight`` has one entry per box, or four, whose mean counts.

    Args:
        eps: the smallest denominator, an area in square pixels.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.
    """

    def __init__(
        self, *, eps: float = 1e-7, reduction: str = "mean", loss_weight: float = 1.0
    ) -> None:
        super().__init__(reduction=reduction, loss_weight=loss_weight)
        check_argument("eps", eps, eps >= 0, "at least 0")
        self.eps = eps

    def iou(self, pair: BoxPair) -> Tensor:
        """IoU as the overlap term sees it, ``[N]``."""
        return pair.iou

    def overlap(self, iou: Tensor) -> Tensor:
        """The overlap term of that IoU, ``[N]``."""
        return 1 - iou

    def penalties(self, pair: BoxPair) -> tuple[Tensor, ...]:
        """The terms beside the overlap, each ``[N]``."""
        return ()

    def factor(self, pair: BoxPair, weight: Tensor | None = None) -> Tensor:
        """What the sum of the terms is multiplied by, ``[N]``; may depend on sample weights."""
        return torch.ones_like(pair.iou)

    def per_box(self, pair: BoxPair) -> Tensor:
        """Sum of the terms, ``[N]``."""
        return sum(self.penalties(pair), self.overlap(self.iou(pair)))

    def unreduced(
        self, pred: Tensor, target: Tensor, weight: Tensor | None = None, **inputs: Tensor
    ) -> Tensor:
        """Return the loss of each box, ``[N]``, from boxes of shape ``[N, 4]``."""
        pair = box_pair(pred, target, self.eps, inputs)
        return self.per_box(pair) * self.factor(pair, weight)
