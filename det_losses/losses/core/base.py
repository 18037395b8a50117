"""The base class of all losses: sample weights, avg_factor, reduction and loss_weight."""

from collections.abc import Mapping
from math import inf
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from det_losses.errors import InputError, InputTypeError
from det_losses.signatures import parameters
from det_losses.tensors import is_readable, upcast

REDUCTIONS = ("none", "mean", "sum")


class Loss(nn.Module):
    """A detection loss with mmdetection's calling convention.

    A subclass stores each constructor argument in an attribute of the same name and implements
    :meth:`unreduced`. This class applies sample weights, reduction and ``loss_weight``.

    Args:
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Attributes:
        kind: ``"box"``, ``"classification"``, or ``"distribution"`` (over the distance to a box
            side).
        paper: short citation.
        space: for box losses, ``"decoded"`` (boxes) or ``"delta"`` (encoded offsets).
        activation: ``"sigmoid"`` or ``"softmax"``: for classification losses, and for box losses
            with logits as input.
        inputs: names of the tensors needed in addition to pred and target.
        refused: arguments that another library's class of the same name takes and this class does
            not, with the reasons that :func:`build_loss` prints.
        example: constructor arguments of an example, for losses with required arguments.
        constant_in_gradient: names of the detached quantities.
        zero_at_target: whether a perfect prediction has loss 0.
        invariances: for losses on decoded boxes, the transforms of both boxes that leave the value
            unchanged: ``"translation"``, ``"scale"``, ``"mirror"``.
        own_mean: whether ``mean`` divides by a number that the loss defines and ignores
            ``avg_factor``.
        monotone_in_distance: for box losses, whether the loss never falls when a box moves straight
            away from a target of the same size.
        waits_for_gpu: whether :meth:`forward` checks values on a GPU, which waits for it;
            LossRecordHook sets this for the first step of a training.
    """

    kind: ClassVar[str]
    paper: ClassVar[str]
    space: str | None = None
    activation: str | None = None
    inputs: tuple[str, ...] = ()
    refused: ClassVar[Mapping[str, str]] = {}
    example: ClassVar[Mapping[str, Any]] = {}
    constant_in_gradient: tuple[str, ...] = ()
    zero_at_target: bool = True
    invariances: tuple[str, ...] = ("translation", "scale", "mirror")
    own_mean: ClassVar[bool] = False
    monotone_in_distance: bool = True
    waits_for_gpu: bool = False

    def __init__(self, *, reduction: str = "mean", loss_weight: float = 1.0) -> None:
        super().__init__()
        self.reduction = _known_reduction("reduction", reduction)
        valid = 0 <= loss_weight < inf
        check_argument("loss_weight", loss_weight, valid, "at least 0 and finite")
        self.loss_weight = loss_weight

    def unreduced(
        self, pred: Tensor, target: Tensor, weight: Tensor | None = None, **inputs: Tensor
    ) -> Tensor:
        """Return the loss of each element or box, before sample weights are applied.

        ``weight`` has the shape of the result (see :meth:`align_weight`). Only losses that
        normalise over the batch use it. The base class multiplies the result by it.
        """
        raise NotImplementedError

    def unreduced_shape(self, pred: Tensor) -> torch.Size:
        """Shape of the result of :meth:`unreduced`: that of ``pred``, or without its last axis."""
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
        """Compute the weighted and reduced loss; half precision is upcast to float32.

        Args:
            pred: predictions.
            target: targets.
            weight: sample weights, one per row or one per element.
            avg_factor: divisor of the sum for ``mean``, instead of the number of elements; zero
                counts as one.
            reduction_override: replaces ``reduction`` for this call.
            **inputs: exactly the tensors named by :attr:`inputs`.

        Raises:
            InputError: an unknown reduction, ``sum`` with an ``avg_factor``, mismatched shapes, or,
                on a CPU, a value that :meth:`check_values` refuses.
            InputTypeError: an input is missing or unknown.
        """
        reduction = self.reduction
        if reduction_override is not None:
            reduction = _known_reduction("reduction_override", reduction_override)
        self._check_inputs(inputs)
        only_weights = type(self).check_values is Loss.check_values
        if not (only_weights and weight is None) and is_readable(target, self.waits_for_gpu):
            self.check_values(pred, target, weight, **inputs)
        if weight is not None:
            weight = self.align_weight(upcast(weight), pred)
        loss = self.reduced(pred, target, weight, inputs, reduction, avg_factor)
        return loss if self.loss_weight == 1 else self.loss_weight * loss

    def reduced(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None,
        inputs: Mapping[str, Tensor],
        reduction: str,
        avg_factor: float | Tensor | None,
    ) -> Tensor:
        """Return the weighted and reduced loss, before ``loss_weight``; ``weight`` is aligned."""
        loss = self.unreduced(pred, target, weight, **inputs)
        if weight is not None:
            loss = loss * weight
        return reduce_loss(loss, reduction, avg_factor)

    def check_values(
        self, pred: Tensor, target: Tensor, weight: Tensor | None = None, **inputs: Tensor | None
    ) -> None:
        """Check labels and sample weights.

        Reading values waits for a GPU, so :meth:`forward` calls this method on a CPU, and on a GPU
        only while :attr:`waits_for_gpu` is set. The arguments are those of the forward pass.

        Raises:
            InputError: a sample weight is negative.
        """
        if weight is not None and weight.numel() and (low := weight.min().item()) < 0:
            raise InputError(f"{type(self).__name__}: weights must be at least 0, got {low:g}")

    def align_weight(self, weight: Tensor, pred: Tensor) -> Tensor:
        """Reshape sample weights so that they broadcast over the unreduced loss.

        For losses with one value per box, weights per coordinate are averaged.
        """
        rows = pred.shape[:-1]
        elementwise = self.unreduced_shape(pred) == pred.shape
        if weight.shape == rows:
            return weight.unsqueeze(-1) if elementwise else weight
        per_element = elementwise or self.kind == "box"
        if per_element and weight.shape == pred.shape:
            return weight if elementwise else weight.mean(-1)
        allowed = f"{list(rows)}" + (f" or {list(pred.shape)}" if per_element else "")
        raise InputError(
            f"{type(self).__name__}: weight must have shape {allowed}, got {list(weight.shape)}"
        )

    def params(self) -> dict[str, Any]:
        """Return every constructor argument with its current value.

        Raises:
            InputTypeError: the class does not store an argument in an attribute of its name.
        """
        names, is_open = parameters(type(self))
        missing = ["**kwargs"] if is_open else [name for name in names if not hasattr(self, name)]
        if missing:
            raise InputTypeError(
                f"{type(self).__name__} must store each constructor argument in an attribute of "
                f"the same name; it does not store {', '.join(missing)}"
            )
        return {name: getattr(self, name) for name in names}

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.params().items())
        return f"{type(self).__name__}({arguments})"

    def _check_inputs(self, inputs: Mapping[str, Tensor]) -> None:
        if not (self.inputs or inputs):
            return
        for name in self.inputs:
            if name not in inputs:
                raise InputTypeError(
                    f"{type(self).__name__} needs the input {name!r}; pass {name}=..."
                )
        for name in inputs:
            if name not in self.inputs:
                raise InputTypeError(f"{type(self).__name__} takes no input {name!r}")


def reduce_loss(loss: Tensor, reduction: str, avg_factor: float | Tensor | None = None) -> Tensor:
    """Reduce a weighted loss; an empty loss gives a zero that can be backpropagated.

    Args:
        loss: weighted loss of each element or box, any shape.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        avg_factor: divisor for ``mean`` instead of the number of elements; no effect on
            ``"none"``.

    Raises:
        InputError: ``sum`` with an ``avg_factor``, or an ``avg_factor`` of several elements.
    """
    if reduction == "none":
        return loss
    if reduction == "sum":
        _check_no_factor(avg_factor)
        return loss.sum()
    if avg_factor is None:
        return loss.mean() if loss.numel() else loss.sum()
    return loss.sum() / _nonzero(avg_factor)


def known_divisor(
    reduction: str, avg_factor: float | Tensor | None, elements: int
) -> float | Tensor | None:
    """Return the number by which the sum of a loss is divided, or None if it is not reduced.

    Raises:
        InputError: as :func:`reduce_loss`.
    """
    if reduction == "none":
        return None
    if reduction == "sum":
        _check_no_factor(avg_factor)
        return 1.0
    return elements if avg_factor is None else _nonzero(avg_factor)


def check_argument(name: str, value: Any, valid: bool, expected: str) -> None:
    """Raise an InputError that states the valid values, unless ``valid``."""
    if not valid:
        raise InputError(f"{name} must be {expected}, got {value!r}")


def _known_reduction(argument: str, value: str) -> str:
    if value not in REDUCTIONS:
        raise InputError(f"{argument} must be one of {', '.join(REDUCTIONS)}, got {value!r}")
    return value


def _check_no_factor(avg_factor: float | Tensor | None) -> None:
    if avg_factor is not None:
        raise InputError("reduction 'sum' takes no avg_factor; use 'mean' or leave it out")


def _nonzero(avg_factor: float | Tensor) -> float | Tensor:
    """Replace zero by one, without a device synchronisation for a tensor."""
    if not isinstance(avg_factor, Tensor):
        return avg_factor or 1.0
    if avg_factor.numel() != 1:
        raise InputError(f"avg_factor must be one number, got shape {list(avg_factor.shape)}")
    factor = upcast(avg_factor).reshape(())
    return torch.where(factor == 0, torch.ones_like(factor), factor)
