"""Composite losses: sum and product."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from det_losses.errors import InputError
from det_losses.losses.core.base import Loss
from det_losses.losses.core.build import build_loss
from det_losses.registry import MODELS

DELTAS = ("pred_deltas", "target_deltas")
LABELS = ("logits", "labels")


class CompositeLoss(Loss):
    """Several losses in one slot of a detector.

    Box losses of both spaces can be combined. The composite is then a loss on decoded boxes, and
    its losses on deltas use the inputs ``pred_deltas`` and ``target_deltas``. A classification loss
    that is combined with a box loss uses the inputs ``logits`` and ``labels`` of the same boxes.
    This package's heads pass all of these.

    Args:
        losses: two or more losses: names, configs or loss modules. Their ``loss_weight`` is
            applied.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Raises:
        InputError: fewer than two losses, a loss with its own reduction or mean, a distribution
            loss, or classification losses with different activations.
    """

    def __init__(
        self,
        losses: Sequence[str | Mapping[str, Any] | nn.Module],
        *,
        reduction: str = "mean",
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(reduction=reduction, loss_weight=loss_weight)
        if isinstance(losses, (str, Mapping)) or len(losses) < 2:
            raise InputError(f"{type(self).__name__} needs two losses or more, got {losses!r}")
        self.losses = nn.ModuleList(build_loss(loss) for loss in losses)
        self._check_losses()
        spaces = {loss.space for loss in self.losses if loss.kind == "box"}
        self.kind = "box" if spaces else "classification"
        self.space = "decoded" if len(spaces) > 1 else next(iter(spaces), None)
        self.activation = next((loss.activation for loss in self.losses if loss.activation), None)
        needed = (self._replacements(loss) + tuple(loss.inputs) for loss in self.losses)
        self.inputs = tuple(dict.fromkeys(key for keys in needed for key in keys))
        constant = (name for loss in self.losses for name in loss.constant_in_gradient)
        self.constant_in_gradient = tuple(dict.fromkeys(constant))
        self.monotone_in_distance = all(loss.monotone_in_distance for loss in self.losses)

    def _check_losses(self) -> None:
        name = type(self).__name__
        for loss in self.losses:
            if loss.reduction != "mean":
                raise InputError(f"{name}: give reduction to {name}, not to {type(loss).__name__}")
            if loss.own_mean:
                raise InputError(
                    f"{name}: {type(loss).__name__} divides by its own number of examples and "
                    "cannot be combined with other losses"
                )
            if loss.kind == "distribution":
                raise InputError(f"{name} takes only box and classification losses")
        activations = {loss.activation for loss in self.losses} - {None}
        if len(activations) > 1:
            raise InputError(f"{name}: its losses are for {' and '.join(sorted(activations))}")

    def params(self) -> dict[str, Any]:
        """Return every constructor argument with its current value."""
        return {**super().params(), "losses": list(self.losses)}

    def unreduced_shape(self, pred: Tensor) -> torch.Size:
        """One value per box, or the shape of the classification losses."""
        if self.kind == "box":
            return pred.shape[:-1]
        return self.losses[0].unreduced_shape(pred)

    def parts(
        self, pred: Tensor, target: Tensor, weight: Tensor | None, inputs: Mapping[str, Tensor]
    ) -> list[Tensor]:
        """Return each loss of each box, ``[N]``, times its ``loss_weight``.

        An elementwise loss is summed over the coordinates or channels of a box.
        """
        found = []
        for loss in self.losses:
            operands = self._operands(loss, pred, target, inputs)
            extra = {name: inputs[name] for name in loss.inputs}
            part = loss.unreduced(*operands, weight, **extra)
            if self.kind == "box" and part.dim() > pred.dim() - 1:
                part = part.sum(-1)
            found.append(loss.loss_weight * part)
        return found

    def check_values(
        self, pred: Tensor, target: Tensor, weight: Tensor | None = None, **inputs: Tensor | None
    ) -> None:
        """Check the labels of each loss, and the sample weights.

        Raises:
            InputError: a label is out of range, or a sample weight is negative.
        """
        for loss in self.losses:
            loss.check_values(*self._operands(loss, pred, target, inputs), weight)

    def _operands(
        self, loss: Loss, pred: Tensor, target: Tensor, inputs: Mapping[str, Tensor]
    ) -> tuple[Tensor, ...]:
        names = self._replacements(loss)
        return tuple(inputs[name] for name in names) if names else (pred, target)

    def _replacements(self, loss: Loss) -> tuple[str, ...]:
        """Return the names of the inputs that replace pred and target for a loss."""
        if self.kind == "classification":
            return ()
        if loss.kind == "classification":
            return LABELS
        return DELTAS if loss.space != self.space else ()


@MODELS.register_module()
class SumLoss(CompositeLoss):
    r"""The weighted sum of several losses.

    .. math:: L = \sum_k \lambda_k L_k

    :math:`\lambda_k` is the ``loss_weight`` of loss k. An elementwise loss is summed over the four
    coordinates of a box, so with an ``avg_factor`` the value is the sum of the separate losses.

    Args:
        losses: two or more losses: names, configs or loss modules.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Use:
        Two box losses, each in its own space, such as L1 and GIoU in DETR.

    Shape:
        pred, target: as the losses take them; for box losses of both spaces decoded boxes ``[N,
        4]`` with the inputs ``pred_deltas`` and ``target_deltas``, ``[N, 4]``. Unreduced: ``[N]``;
        for classification losses the shape of those.

    Disjoint:
        As the losses: their values and gradients are added.

    Raises:
        InputError: fewer than two losses, a loss with its own reduction or mean, a distribution
            loss, or classification losses with different activations.

    Reference:
        Nicolas Carion et al.: End-to-End Object Detection with Transformers. arXiv 2005.12872,
        2020, Eqn. (9), for L1 and GIoU.

    Example:
        >>> import torch
        >>> loss = SumLoss(["GIoULoss", dict(type="L1Loss", loss_weight=0.1)])
        >>> pred, target = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[0.0, 0, 20, 10]])
        >>> deltas = torch.zeros(1, 4), torch.tensor([[0.5, 0, 0.7, 0]])
        >>> loss(pred, target, pred_deltas=deltas[0], target_deltas=deltas[1])  # 1/2 + 0.12
        tensor(0.6200)
    """

    paper = "Carion et al., DETR, arXiv 2005.12872, 2020 (L1 + GIoU)"
    example: ClassVar[Mapping[str, Any]] = {"losses": ["L1Loss", "GIoULoss"]}

    def unreduced(
        self, pred: Tensor, target: Tensor, weight: Tensor | None = None, **inputs: Tensor
    ) -> Tensor:
        """Return the sum of each box."""
        return sum(self.parts(pred, target, weight, inputs))


@MODELS.register_module()
class ProductLoss(CompositeLoss):
    r"""The product of several losses of the same box.

    .. math:: L = \prod_k \lambda_k L_k

    :math:`\lambda_k` is the ``loss_weight`` of loss k. An elementwise loss is summed over the four
    coordinates of a box. The product ``["FocalLoss", "L1Loss", "EIoULoss"]`` multiplies a focal
    loss, an L1 loss on deltas and EIoU, so a box counts more if its class is uncertain.

    Args:
        losses: two or more losses: names, configs or loss modules.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Use:
        To weight one loss by another; the gradient flows through all factors.

    Shape:
        pred, target: as the losses take them; for box losses of both spaces decoded boxes ``[N,
        4]`` with the inputs ``pred_deltas`` and ``target_deltas``, ``[N, 4]``; with a
        classification loss the inputs ``logits`` ``[N, C]`` and ``labels`` ``[N]``. Unreduced:
        ``[N]``; for classification losses the shape of those.

    Disjoint:
        Where one loss is constant, the gradient comes from the others.

    Raises:
        InputError: fewer than two losses, a loss with its own reduction or mean, a distribution
            loss, or classification losses with different activations.

    Reference:
        None: a composite of other losses.

    Example:
        >>> import torch
        >>> pred, target = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[0.0, 0, 20, 10]])
        >>> ProductLoss(["GIoULoss", "EIoULoss"])(pred, target)  # 0.5 * 0.8
        tensor(0.4000)
    """

    paper = "composite, no paper"
    example: ClassVar[Mapping[str, Any]] = {"losses": ["L1Loss", "EIoULoss"]}

    def unreduced(
        self, pred: Tensor, target: Tensor, weight: Tensor | None = None, **inputs: Tensor
    ) -> Tensor:
        """Return the product of each box."""
        return math.prod(self.parts(pred, target, weight, inputs))
