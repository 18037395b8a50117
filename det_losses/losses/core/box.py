"""Base classes of box losses: elementwise, decoded boxes, the IoU family and its wrappers."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from det_losses.boxes import BoxPair, box_pair
from det_losses.errors import InputError
from det_losses.losses.core.base import Loss, check_argument, known_divisor
from det_losses.losses.core.build import build_loss
from det_losses.losses.core.compiled import compiled_loss


class ElementwiseBoxLoss(Loss):
    """A loss of each coordinate, on encoded deltas.

    ``weight`` has one entry per box or one per coordinate.
    """

    kind = "box"
    space = "delta"


class DecodedBoxLoss(Loss):
    """A loss with one value per decoded box.

    ``weight`` has one entry per box, or one per coordinate; these are averaged.
    """

    kind = "box"
    space = "decoded"

    def unreduced_shape(self, pred: Tensor) -> torch.Size:
        """One value per box."""
        return pred.shape[:-1]


class PairLoss(DecodedBoxLoss):
    """A loss that is computed from the geometry of the predicted box and its target.

    On a CPU, the formula is compiled to one loop that computes value and gradient, which is many
    times faster than autograd: see :mod:`det_losses.losses.core.compiled`.

    Args:
        eps: smallest denominator, an area in square pixels.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Attributes:
        is_compiled: whether the formula can be compiled; None until this was tried.
        programs: the number of calls that compiled a formula.
    """

    is_compiled: bool | None = None
    programs = 0

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "plain" in vars(cls):
            cls.is_compiled = False  # the fast path has of_pair alone

    def __init__(
        self, *, eps: float = 1e-7, reduction: str = "mean", loss_weight: float = 1.0
    ) -> None:
        super().__init__(reduction=reduction, loss_weight=loss_weight)
        check_argument("eps", eps, eps >= 0, "at least 0")
        self.eps = eps

    def of_pair(self, pair: BoxPair, weight: Tensor | None = None) -> Tensor:
        """Return the loss of each box, ``[N]``; it may depend on the sample weights."""
        raise NotImplementedError

    def plain(
        self, pred: Tensor, target: Tensor, weight: Tensor | None = None, **inputs: Tensor
    ) -> Tensor:
        """Return the loss of each box, ``[N]``, by operations on tensors."""
        return self.of_pair(box_pair(pred, target, self.eps, inputs), weight)

    def unreduced(
        self, pred: Tensor, target: Tensor, weight: Tensor | None = None, **inputs: Tensor
    ) -> Tensor:
        """Return the loss of each box, ``[N]``, from boxes of shape ``[N, 4]``."""
        loss = compiled_loss(self, pred, target, weight, inputs)
        return self.plain(pred, target, weight, **inputs) if loss is None else loss

    def reduced(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None,
        inputs: Mapping[str, Tensor],
        reduction: str,
        avg_factor: float | Tensor | None,
    ) -> Tensor:
        """Return the weighted and reduced loss; the fast path computes the sum itself."""
        if reduction != "none" and type(self).unreduced is PairLoss.unreduced:
            divisor = known_divisor(reduction, avg_factor, len(pred))
            loss = compiled_loss(self, pred, target, weight, inputs, divisor)
            if loss is not None:
                return loss
        return super().reduced(pred, target, weight, inputs, reduction, avg_factor)


class IoUFamilyLoss(PairLoss):
    """A loss on decoded boxes: an overlap term plus penalties, times a factor.

    A subclass overrides the terms in which it differs from ``1 - IoU``. An :class:`IoUWrapper` uses
    the terms of the wrapped loss and changes some of them.

    Args:
        eps: smallest denominator, an area in square pixels.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.
    """

    def iou(self, pair: BoxPair) -> Tensor:
        """IoU that the overlap term is computed from, ``[N]``."""
        return pair.iou

    def overlap(self, iou: Tensor) -> Tensor:
        """Overlap term for this IoU, ``[N]``."""
        return 1 - iou

    def penalties(self, pair: BoxPair) -> tuple[Tensor, ...]:
        """Terms added to the overlap term, each ``[N]``."""
        return ()

    def factor(self, pair: BoxPair, weight: Tensor | None = None) -> Tensor | float:
        """Factor on the sum of the terms, ``[N]`` or 1; may depend on the sample weights."""
        return 1

    def of_pair(self, pair: BoxPair, weight: Tensor | None = None) -> Tensor:
        """Sum of the terms, times the factor, ``[N]``."""
        terms = sum(self.penalties(pair), self.overlap(self.iou(pair)))
        factor = self.factor(pair, weight)
        return terms if type(factor) is int and factor == 1 else terms * factor


class IoUWrapper(IoUFamilyLoss):
    """A loss of the IoU family that wraps another one and changes some of its terms.

    A subclass overrides the changed terms and takes the original ones from ``self.loss``.

    Args:
        loss: a loss of the IoU family: a name, a config or a loss module.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Raises:
        InputError: the wrapped loss is not of the IoU family, or has its own ``loss_weight`` or
            ``reduction``, which would have no effect.
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
            raise InputError(
                f"{wrapper} changes the terms of an IoU loss, and {wrapped} has none: wrap a loss "
                "on decoded boxes that consists of IoU and penalties, such as CIoULoss"
            )
        if inner.loss_weight != 1 or inner.reduction != "mean":
            raise InputError(
                f"{wrapper}: give loss_weight and reduction to {wrapper}, those of the wrapped "
                f"{wrapped} have no effect"
            )
        super().__init__(eps=inner.eps, reduction=reduction, loss_weight=loss_weight)
        self.loss = inner
        self.inputs = inner.inputs
        constant = (*self.constant_in_gradient, *inner.constant_in_gradient)
        self.constant_in_gradient = tuple(dict.fromkeys(constant))
        self.monotone_in_distance = self.monotone_in_distance and inner.monotone_in_distance
        self.zero_at_target = self.zero_at_target and inner.zero_at_target
        self.invariances = tuple(name for name in self.invariances if name in inner.invariances)

    def iou(self, pair: BoxPair) -> Tensor:
        """IoU that the wrapped overlap term is computed from."""
        return self.loss.iou(pair)

    def overlap(self, iou: Tensor) -> Tensor:
        """The wrapped overlap term."""
        return self.loss.overlap(iou)

    def penalties(self, pair: BoxPair) -> tuple[Tensor, ...]:
        """The wrapped penalties."""
        return self.loss.penalties(pair)

    def factor(self, pair: BoxPair, weight: Tensor | None = None) -> Tensor | float:
        """The wrapped factor."""
        return self.loss.factor(pair, weight)
