"""What a check is given, and how it says that something is wrong."""

import inspect
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from det_losses.losses.core.base import Loss
from det_losses.losses.core.build import build_loss

# So many classes have the examples, whatever the number that a loss has by default.
CLASSES = 3


class Failed(Exception):
    """A check found the loss wrong; the message says what was expected and what came."""


class Skipped(Exception):
    """A check does not apply to the loss, or cannot be made here; the message says why."""


class Reference(NamedTuple):
    """A loss's equation in code that shares nothing with the loss.

    Attributes:
        kwargs: the constructor arguments that it stands for.
        function: ``(pred, target, **params) -> unreduced loss``, numpy arrays of float64. It gets
            what the loss's ``params()`` holds but ``reduction`` and ``loss_weight``, its extra
            inputs, and ``state`` (the buffers before the call) if the loss has any.
        constants: called alike, returns the parts that are constant in the gradient, which
            ``function`` takes as keyword arguments; None if the value alone is compared.
    """

    kwargs: Mapping[str, Any]
    function: Callable[..., np.ndarray]
    constants: Callable[..., Mapping[str, Any]] | None = None


@dataclass(frozen=True)
class Inputs:
    """One call's tensors: what the loss takes and, by name, what it asks for beside."""

    pred: Tensor
    target: Tensor
    extra: Mapping[str, Tensor] = field(default_factory=dict)

    def map(self, change: Callable[[Tensor], Tensor]) -> "Inputs":
        """Apply ``change`` to every tensor."""
        extra = {name: change(value) for name, value in self.extra.items()}
        return Inputs(change(self.pred), change(self.target), extra)

    def to(self, dtype: torch.dtype) -> "Inputs":
        """Cast what is floating."""
        return self.map(lambda x: x.to(dtype) if x.is_floating_point() else x)

    def rows(self, index: Any) -> "Inputs":
        """Take some of the rows."""
        return self.map(lambda x: x[index])

    def leaves(self) -> tuple["Inputs", list[Tensor]]:
        """Copy, so that what a model predicts requires a gradient; and the list of that."""
        extra = {name: value.detach().clone() for name, value in self.extra.items()}
        copy = Inputs(self.pred.detach().clone(), self.target, extra)
        predicted = [copy.pred, *(extra[name] for name in PREDICTED if name in extra)]
        return copy, [tensor.requires_grad_() for tensor in predicted]

    def with_predicted(self, values: list[Tensor]) -> "Inputs":
        """Put other values in the place of what :meth:`leaves` lists."""
        names = [name for name in PREDICTED if name in self.extra]
        extra = {**self.extra, **dict(zip(names, values[1:], strict=True))}
        return replace(self, pred=values[0], extra=extra)


# The inputs beside pred through which a gradient flows.
PREDICTED = ("pred_deltas", "logits")


@dataclass(frozen=True)
class Case:
    """A registered loss, and what its checks need to know beside.

    Attributes:
        name: its ``type`` in a config.
        cls: its class.
        references: its equation, for the constructor arguments that each stands for.
        inputs: for inputs that only this loss asks for: name -> ``function(n, generator)``.
    """

    name: str
    cls: type[Loss]
    references: tuple[Reference, ...] = ()
    inputs: Mapping[str, Callable[[int, torch.Generator], Tensor]] = field(default_factory=dict)

    def config(self, **kwargs: Any) -> dict[str, Any]:
        """Return a config that builds it."""
        arguments = {"type": self.cls, **self.cls.example}
        if "num_classes" in inspect.signature(self.cls).parameters:
            arguments["num_classes"] = CLASSES
        return {**arguments, **kwargs}

    def build(self, **kwargs: Any) -> Loss:
        """Build it; a stateful one in double precision, so that its state rounds nothing."""
        return build_loss(self.config(**kwargs)).double()


def call(
    loss: Loss,
    inputs: Inputs,
    weight: Tensor | None = None,
    avg_factor: float | Tensor | None = None,
    reduction: str | None = None,
) -> Tensor:
    """Call a copy of ``loss``, whose state therefore stays as it is."""
    return call_in_place(deepcopy(loss), inputs, weight, avg_factor, reduction)


def call_in_place(
    loss: Loss,
    inputs: Inputs,
    weight: Tensor | None = None,
    avg_factor: float | Tensor | None = None,
    reduction: str | None = None,
) -> Tensor:
    """Call ``loss`` itself."""
    return loss(inputs.pred, inputs.target, weight, avg_factor, reduction, **inputs.extra)


def gradients(value: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    """Return the gradient of the sum of ``value``; zeros where it does not depend on a leaf."""
    found = torch.autograd.grad(value.sum(), leaves, allow_unused=True, materialize_grads=True)
    return list(found)


def expect(holds: Any, message: str) -> None:
    """Fail with ``message`` unless ``holds``."""
    if not holds:
        raise Failed(message)


def expect_close(
    what: str, actual: Any, expected: Any, rtol: float = 1e-10, atol: float = 1e-12
) -> None:
    """Fail unless both are equal within the tolerances; the message has the worst entry."""
    actual, expected = (
        np.asarray(x.detach() if isinstance(x, Tensor) else x, dtype=np.float64)
        for x in (actual, expected)
    )
    expect(
        actual.shape == expected.shape,
        f"{what}: expected shape {list(expected.shape)}, got {list(actual.shape)}",
    )
    wrong = ~np.isclose(actual, expected, rtol=rtol, atol=atol)
    if wrong.any():
        index = np.unravel_index(np.argmax(wrong * _distance(actual, expected)), wrong.shape)
        where = f" at {[int(i) for i in index]}" if index else ""
        raise Failed(
            f"{what}{where}: expected {expected[index]:.10g}, got {actual[index]:.10g} "
            f"({int(wrong.sum())} of {wrong.size} values differ)"
        )


def _distance(actual: np.ndarray, expected: np.ndarray) -> np.ndarray:
    return np.nan_to_num(np.abs(actual - expected), nan=np.inf) + 1e-300
