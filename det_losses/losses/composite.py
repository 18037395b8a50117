"""Several losses in one place: their sum, and their product."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from det_losses.losses.core.base import Loss
from det_losses.losses.core.build import build_loss
from det_losses.registry import MODELS

DELTAS = ("pred_deltas", "target_deltas")
LABELS = ("logits", "labels")


class CompositeLoss(Loss):
    """Losses that one place of a detector takes together.

    Box losses of both spaces go together: the composite then lives on decoded boxes, and those on
    deltas get the inputs ``pred_deltas`` and ``target_deltas``. Beside a box loss a classification
    loss gets ``logits`` and ``labels`` of the same boxes. A detector's head passes them all.

    Args:
        losses: two or more losses: names, configs, or the losses themselves. Their
            ``loss_weight`` counts.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Raises:
        ValueError: fewer than two losses, one with a reduction or a mean of its own, or
            classification losses of two activations.
    """

    def __init__(
        self,
        losses: Sequence[str | Mapping[str, Any] | nn.Module],
        *,
        reduction: str = "mean",
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(reduction=reduction, loss_weight=loss_weight)
        name = type(self).__name__
        if isinstance(losses, (str, Mapping)) or len(losses) < 2:
            raise ValueError(f"{name} needs two losses or more, got {losses!r}")
        self.losses = nn.ModuleList(build_loss(loss) for loss in losses)
        for loss in self.losses:
            if loss.reduction != "mean":
                raise ValueError(f"{name}: give reduction to {name}, not to {type(loss).__name__}")
            if loss.own_mean:
                raise ValueError(
                    f"{name}: {type(loss).__name__} divides by its own number of examples, has no "
                    "value per box, and cannot be combined with other losses"
                )
        kinds = [loss.kind for loss in self.losses]
        if "distribution" in kinds:
            raise ValueError(f"{name} takes box and classification losses, no distribution loss")
        if "box" in kinds:
            spaces = {loss.space for loss in self.losses if loss.kind == "box"}
            self.kind = "box"
            self.space = spaces.pop() if len(spaces) == 1 else "decoded"
        else:
            self.kind = "classification"
        activations = {loss.activation for loss in self.losses} - {None}
        if len(activations) > 1:
            raise ValueError(f"{name}: its losses are for {' and '.join(sorted(activations))}")
        self.activation = activations.pop() if activations else None
        needed = (self._extra(loss) + tuple(loss.inputs) for loss in self.losses)
        self.inputs = tuple(dict.fromkeys(key for keys in needed for key in keys))
        held = (name for loss in self.losses for name in loss.constant_in_gradient)
        self.constant_in_gradient = tuple(dict.fromkeys(held))
        self.monotone_in_distance = all(loss.monotone_in_distance for loss in self.losses)

    def params(self) -> dict[str, Any]:
        """Return every constructor argument with its present value."""
        return {**super().params(), "losses": list(self.losses)}

    def unreduced_shape(self, pred: Tensor) -> torch.Size:
        """One value per box; without a box loss, what the losses themselves have."""
        if self.kind == "box":
            return pred.shape[:-1]
        return self.losses[0].unreduced_shape(pred)

    def parts(
        self, pred: Tensor, target: Tensor, weight: Tensor | None, inputs: Mapping[str, Tensor]
    ) -> list[Tensor]:
        """Return each loss's value of each box, ``[N]``, times its ``loss_weight``.

        A loss of coordinates or channels counts with the sum over a box's.
        """
        found = []
        for loss in self.losses:
            extra = self._extra(loss)
            own = tuple(inputs[key] for key in extra) if extra else (pred, target)
            # A loss of the whole box takes the box's weight; what else it needs has its name.
            part = loss.unreduced(*own, weight, **{key: inputs[key] for key in loss.inputs})
            if self.kind == "box" and part.dim() > pred.dim() - 1:
                part = part.sum(-1)
            found.append(loss.loss_weight * part)
        return found

    def _extra(self, loss: Loss) -> tuple[str, ...]:
        """Return the names of the inputs that stand for a loss's own pred and target."""
        if self.kind == "classification":
            return ()
        if loss.kind == "classification":
            return LABELS
        return DELTAS if loss.space != self.space else ()


@MODELS.register_module()
class SumLoss(CompositeLoss):
    r"""The sum of several losses, each with its weight.

    .. math:: L = \sum_k \lambda_k L_k

    :math:`\lambda_k` is the ``loss_weight`` of loss k. Of each box a loss of coordinates counts
    with the sum over the four, so with an ``avg_factor`` the value is exactly the sum of what the
    losses give alone.

    Args:
        losses: two or more losses: names, configs, or the losses themselves.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Use:
        Two box losses at once, such as L1 and GIoU as in DETR, on their own spaces.

    Shape:
        pred, target: what the losses take; decoded boxes ``[N, 4]`` where box losses of both
        spaces meet, with the inputs ``pred_deltas`` and ``target_deltas``, ``[N, 4]``. Unreduced:
        ``[N]``; of classification losses what they have.

    Disjoint:
        The sum of what the losses do.

    Raises:
        ValueError: fewer than two losses, one with a reduction of its own, or classification
            losses of two activations.

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

    Of each box a loss of coordinates counts with the sum over the four. With
    ``["FocalLoss", "L1Loss", "EIoULoss"]`` this is the "Focal-L1-EIoU" of the detection literature
    in which a box counts more where its class is uncertain: a focal term, an L1 term on deltas and
    EIoU, with EIoU as its paper has it.

    Args:
        losses: two or more losses: names, configs, or the losses themselves.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Use:
        To let one loss weigh another; gradients flow through all factors.

    Shape:
        pred, target: what the losses take; decoded boxes ``[N, 4]`` where box losses of both
        spaces meet, with the inputs ``pred_deltas`` and ``target_deltas``, ``[N, 4]``; beside a
        classification loss the inputs ``logits`` ``[N, C]`` and ``labels`` ``[N]``. Unreduced:
        ``[N]``; of classification losses what they have.

    Disjoint:
        The product of what the losses do: a factor that is constant there leaves the gradient to
        the others.

    Raises:
        ValueError: fewer than two losses, one with a reduction of its own, or classification
            losses of two activations.

    Reference:
        A composite without a paper of its own.

    Example:
        >>> import torch
        >>> pred, target = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[0.0, 0, 20, 10]])
        >>> ProductLoss(["GIoULoss", "EIoULoss"])(pred, target)  # 0.5 * 0.8
        tensor(0.4000)
    """

    paper = "composite, without a paper of its own"
    example: ClassVar[Mapping[str, Any]] = {"losses": ["L1Loss", "EIoULoss"]}

    def unreduced(
        self, pred: Tensor, target: Tensor, weight: Tensor | None = None, **inputs: Tensor
    ) -> Tensor:
        """Return the product of each box."""
        return math.prod(self.parts(pred, target, weight, inputs))
