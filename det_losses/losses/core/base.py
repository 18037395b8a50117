"""What all losses share: weight, avg_factor, reduction and loss_weight; here and nowhere else."""

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from det_losses.tensors import upcast

REDUCTIONS = ("none", "mean", "sum")


class Loss(nn.Module):
    """A detection loss with mmdetection's calling convention.

    A subclass stores each constructor argument as the attribute of the same name and gives
    :meth:`unreduced`. The base class weighs, reduces and scales.

    Args:
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Attributes:
        kind: ``"box"``, ``"classification"``, or ``"distribution"`` of a side's distance.
        paper: short citation.
        space: of a box loss, ``"decoded"`` boxes or encoded ``"delta"``.
        activation: of a classification loss, or of the logits that another asks for,
            ``"sigmoid"`` or ``"softmax"``.
        inputs: names of the tensors that the loss needs beside pred and target.
        refused: arguments that a peer's class of the same name takes and this one does not, each
            with the reason that :func:`build_loss` gives.
        example: the arguments of an example, for a loss that cannot be built without any.
        constant_in_gradient: what the gradient takes as constant, in words; empty if nothing.
        zero_at_target: whether a perfect prediction has loss 0.
        invariances: of a box loss on decoded boxes, what changes neither value: ``"translation"``,
            ``"scale"`` and ``"mirror"`` of both boxes together.
        own_mean: of a loss that is a mean by its definition, how, in words: ``avg_factor`` then has
            no effect; empty for all others.
        falls_with_distance: why the loss may fall when a box moves away from a target of its own
            size, in words; empty if it never does.
    """

    kind: ClassVar[str]
    paper: ClassVar[str]
    space: str | None = None
    activation: str | None = None
    inputs: tuple[str, ...] = ()
    refused: ClassVar[Mapping[str, str]] = {}
    example: ClassVar[Mapping[str, Any]] = {}
    constant_in_gradient: ClassVar[str] = ""
    zero_at_target: ClassVar[bool] = True
    invariances: ClassVar[tuple[str, ...]] = ("translation", "scale", "mirror")
    falls_with_distance: ClassVar[str] = ""
    own_mean: ClassVar[str] = ""

    def __init__(self, *, reduction: str = "mean", loss_weight: float = 1.0) -> None:
        super().__init__()
        self.reduction = _known_reduction("reduction", reduction)
        self.loss_weight = loss_weight

    def unreduced(
        self, pred: Tensor, target: Tensor, weight: Tensor | None = None, **inputs: Tensor
    ) -> Tensor:
        """Return the loss of each element or box, before its sample weight.

        ``weight`` has been brought to the result's shape by :meth:`align_weight`. It is only for
        losses that normalise over the batch; the base class multiplies by it afterwards.
        """
        raise NotImplementedError

    def unreduced_shape(self, pred: Tensor) -> torch.Size:
        """Shape of :meth:`unreduced`: that of ``pred``, or without its last axis."""
        return pred.shape

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: str | None = None,
        **inputs: Tensor,
    ) -> Tensor:
        """Compute the weighted and reduced loss, in float32 for half precision.

        Args:
            pred: predictions.
            target: targets.
            weight: sample weights, one per row or one per element.
            avg_factor: what ``mean`` divides the sum over all elements by, instead of their
                number; a zero counts as one.
            reduction_override: replaces ``reduction`` for this call.
            **inputs: exactly those named by :attr:`inputs`.

        Raises:
            ValueError: an unknown reduction, ``sum`` with an ``avg_factor``, shapes that do not
                fit.
            TypeError: an input that the loss needs is missing, or one that it does not know.
        """
        reduction = self.reduction
        if reduction_override is not None:
            reduction = _known_reduction("reduction_override", reduction_override)
        self._check_inputs(inputs)
        if weight is not None:
            weight = self.align_weight(upcast(weight), pred)
        loss = self.unreduced(pred, target, weight, **inputs)
        if weight is not None:
            loss = loss * weight
        return self.loss_weight * reduce_loss(loss, reduction, avg_factor)

    def align_weight(self, weight: Tensor, pred: Tensor) -> Tensor:
        """Bring sample weights to a shape that broadcasts over the unreduced loss.

        A loss of a whole box takes the mean of weights given per coordinate.
        """
        rows = pred.shape[:-1]
        elementwise = self.unreduced_shape(pred) == pred.shape
        if weight.shape == rows:
            return weight.unsqueeze(-1) if elementwise else weight
        per_element = elementwise or self.kind == "box"
        if per_element and weight.shape == pred.shape:
            return weight if elementwise else weight.mean(-1)
        allowed = f"{list(rows)}" + (f" or {list(pred.shape)}" if per_element else "")
        raise ValueError(
            f"{type(self).__name__}: weight must have shape {allowed}, got {list(weight.shape)}"
        )

    def params(self) -> dict[str, Any]:
        """Return every constructor argument with its present value."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.params().items())
        return f"{type(self).__name__}({arguments})"

    def _check_inputs(self, inputs: Mapping[str, Tensor]) -> None:
        for name in self.inputs:
            if name not in inputs:
                raise TypeError(f"{type(self).__name__} needs the input {name!r}; pass {name}=...")
        for name in inputs:
            if name not in self.inputs:
                raise TypeError(f"{type(self).__name__} takes no input {name!r}")


def reduce_loss(loss: Tensor, reduction: str, avg_factor: float | Tensor | None = None) -> Tensor:
    """Reduce a weighted loss; an empty one gives a zero that back-propagates.

    Args:
        loss: weighted loss of each element or box, any shape.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        avg_factor: divisor of ``mean`` in place of the number of elements; without effect on
            ``"none"``.

    Raises:
        ValueError: ``sum`` with an ``avg_factor``, or an ``avg_factor`` of several elements.
    """
    if reduction == "none":
        return loss
    if reduction == "sum":
        if avg_factor is not None:
            raise ValueError("reduction 'sum' takes no avg_factor; use 'mean' or leave it out")
        return loss.sum()
    if avg_factor is None:
        return loss.sum() / max(loss.numel(), 1)
    return loss.sum() / _nonzero(avg_factor)


def check_argument(name: str, value: Any, valid: bool, expected: str) -> None:
    """Refuse a hyper-parameter that is not valid, saying what is."""
    if not valid:
        raise ValueError(f"{name} must be {expected}, got {value!r}")


def _known_reduction(argument: str, value: str) -> str:
    if value not in REDUCTIONS:
        raise ValueError(f"{argument} must be one of {', '.join(REDUCTIONS)}, got {value!r}")
    return value


def _nonzero(avg_factor: float | Tensor) -> float | Tensor:
    """Replace a zero by one, for a tensor without waiting for the device."""
    if not isinstance(avg_factor, Tensor):
        return avg_factor or 1.0
    if avg_factor.numel() != 1:
        raise ValueError(f"avg_factor must be one number, got shape {list(avg_factor.shape)}")
    factor = upcast(avg_factor).reshape(())
    return torch.where(factor == 0, torch.ones_like(factor), factor)
