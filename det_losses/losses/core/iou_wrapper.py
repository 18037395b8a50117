"""What changes another loss of the IoU family: the wrapper's terms are the wrapped loss's."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from det_losses.boxes import BoxPair
from det_losses.losses.core.build import build_loss
from det_losses.losses.core.families import IoUFamilyLoss


class IoUWrapper(IoUFamilyLoss):
    """A loss of the IoU family that holds another and changes some of its terms.

    A subclass overrides the term that it changes and asks ``self.loss`` for it.

    Args:
        loss: a loss of the IoU family: its name, its config, or the loss itself.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Raises:
        ValueError: the wrapped loss is of another family, or has a ``loss_weight`` or
            ``reduction`` of its own, which would have no effect.
    """

    def __init__(
        self,
        loss: str | Mapping[str, Any] | nn.Module,
        *,
        reduction: str = "mean",
        loss_weight: float = 1.0,
    ) -> None:
        inner = build_loss(loss)
        wrapper, wrapped = type(self).__name__, type(inner).__name__
        if not isinstance(inner, IoUFamilyLoss):
            raise ValueError(
                f"{wrapper} changes the terms of an IoU loss, and {wrapped} has none: wrap a loss "
                "on decoded boxes that is built of IoU and penalties, such as CIoULoss"
            )
        if inner.loss_weight != 1 or inner.reduction != "mean":
            raise ValueError(
                f"{wrapper}: give loss_weight and reduction to {wrapper}, those of the wrapped "
                f"{wrapped} have no effect"
            )
        super().__init__(eps=inner.eps, reduction=reduction, loss_weight=loss_weight)
        self.loss = inner
        self.inputs = inner.inputs
        for words in ("constant_in_gradient", "falls_with_distance"):
            both = (getattr(type(self), words), getattr(inner, words))
            setattr(self, words, "; ".join(dict.fromkeys(filter(None, both))))
        self.zero_at_target = self.zero_at_target and inner.zero_at_target
        self.invariances = tuple(name for name in self.invariances if name in inner.invariances)

    def iou(self, pair: BoxPair) -> Tensor:
        """IoU as the wrapped overlap term sees it."""
        return self.loss.iou(pair)

    def overlap(self, iou: Tensor) -> Tensor:
        """The wrapped overlap term."""
        return self.loss.overlap(iou)

    def penalties(self, pair: BoxPair) -> tuple[Tensor, ...]:
        """The wrapped penalties."""
        return self.loss.penalties(pair)

    def factor(self, pair: BoxPair, weight: Tensor | None = None) -> Tensor:
        """The wrapped factor."""
        return self.loss.factor(pair, weight)
