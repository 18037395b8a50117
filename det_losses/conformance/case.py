"""What the checks work with: cases, example inputs and ways to report a failure."""

import inspect
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from det_losses.errors import InputError
from det_losses.losses.core.base import Loss
from det_losses.losses.core.build import build_loss

# Number of classes in the example inputs, whatever the loss's default.
CLASSES = 3
# Bins in the example inputs of a distribution loss, one more than the largest distance.
BINS = 8
# The extra inputs that a model predicts, which need a gradient.
PREDICTED = ("pred_deltas", "logits")

Maker = Callable[[int, torch.Generator], Tensor]


class Failed(Exception):
    """A check failed; the message states the expected and the actual result."""


class Skipped(Exception):
    """A check does not apply to the loss or cannot run here; the message states the reason."""


class Reference(NamedTuple):
    """The equation of a loss, implemented independently of it.

    Attributes:
        kwargs: the constructor arguments of the loss.
        function: ``(pred, target, **params) -> unreduced loss``, on numpy arrays of float64. Its
            keyword arguments are the loss's ``params()`` without ``reduction`` and ``loss_weight``,
            the extra inputs, and ``state`` (the buffers before the call) if the loss has buffers.
        constants: takes the same arguments and returns the values that are constant in the
            gradient, as keyword arguments for ``function``; None to compare the value only.
    """

    kwargs: Mapping[str, Any]
    function: Callable[..., np.ndarray]
    constants: Callable[..., Mapping[str, Any]] | None = None


@dataclass(frozen=True)
class Inputs:
    """The tensors of one call: pred, target and the extra inputs by name."""

    pred: Tensor
    target: Tensor
    extra: Mapping[str, Tensor] = field(default_factory=dict)

    def map(self, change: Callable[[Tensor], Tensor]) -> "Inputs":
        """Apply ``change`` to every tensor."""
        extra = {name: change(value) for name, value in self.extra.items()}
        return Inputs(change(self.pred), change(self.target), extra)

    def to(self, dtype: torch.dtype) -> "Inputs":
        """Cast the floating-point tensors."""
        return self.map(lambda x: x.to(dtype) if x.is_floating_point() else x)

    def rows(self, index: Any) -> "Inputs":
        """Select rows."""
        return self.map(lambda x: x[index])

    def leaves(self) -> tuple["Inputs", list[Tensor]]:
        """Return a copy whose predicted tensors require a gradient, and a list of them."""
        extra = {name: value.detach().clone() for name, value in self.extra.items()}
        copy = Inputs(self.pred.detach().clone(), self.target, extra)
        predicted = [copy.pred, *(extra[name] for name in PREDICTED if name in extra)]
        return copy, [tensor.requires_grad_() for tensor in predicted]

    def with_predicted(self, values: list[Tensor]) -> "Inputs":
        """Replace the tensors that :meth:`leaves` lists."""
        names = [name for name in PREDICTED if name in self.extra]
        extra = {**self.extra, **dict(zip(names, values[1:], strict=True))}
        return replace(self, pred=values[0], extra=extra)


@dataclass(frozen=True)
class Case:
    """A registered loss with its references and inputs.

    Attributes:
        name: its ``type`` in a config.
        cls: its class.
        references: its equation, for one or more sets of constructor arguments.
        inputs: functions that make inputs unknown to the suite: name -> ``function(n, generator)``.
    """

    name: str
    cls: type[Loss]
    references: tuple[Reference, ...] = ()
    inputs: Mapping[str, Maker] = field(default_factory=dict)

    def config(self, **kwargs: Any) -> dict[str, Any]:
        """Return a config that builds the loss."""
        arguments = {"type": self.cls, **self.cls.example}
        if "num_classes" in inspect.signature(self.cls).parameters:
            arguments["num_classes"] = CLASSES
        return {**arguments, **kwargs}

    def build(self, **kwargs: Any) -> Loss:
        """Build the loss with float64 buffers, so that its state is not rounded."""
        return build_loss(self.config(**kwargs)).double()

    def examples(
        self, loss: Loss, n: int = 12, dtype: torch.dtype = torch.float64, seed: int = 0
    ) -> Inputs:
        """Return :func:`example_inputs` for ``loss``, with the makers of this case."""
        return example_inputs(loss, n, dtype, seed, self.inputs)


def call(
    loss: Loss,
    inputs: Inputs,
    weight: Tensor | None = None,
    avg_factor: float | Tensor | None = None,
    reduction: str | None = None,
) -> Tensor:
    """Call a copy of ``loss``, so that the state of ``loss`` does not change."""
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
    """Return the gradient of the sum of ``value``; zeros for leaves it does not depend on."""
    found = torch.autograd.grad(value.sum(), leaves, allow_unused=True, materialize_grads=True)
    return list(found)


def has_state(loss: Loss) -> bool:
    """Whether the loss has buffers, such as running means."""
    return next(loss.buffers(), None) is not None


def state_of(loss: Loss) -> dict[str, Tensor]:
    """Return a copy of the buffers."""
    return {name: buffer.detach().clone() for name, buffer in loss.named_buffers()}


def warmed_up(case: Case, loss: Loss) -> Loss:
    """Return a copy of ``loss`` in training mode, after two batches."""
    loss = deepcopy(loss).train()
    for seed in (101, 102):
        call_in_place(loss, case.examples(loss, 24, seed=seed))
    return loss


# Reporting a failure


def expect(condition: Any, message: str) -> None:
    """Fail with ``message`` unless ``condition`` is true."""
    if not condition:
        raise Failed(message)


def expect_close(
    what: str, actual: Any, expected: Any, rtol: float = 1e-10, atol: float = 1e-12
) -> None:
    """Fail unless both are equal within the tolerances; the message shows the worst entry."""
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
        error = np.nan_to_num(np.abs(actual - expected), nan=np.inf)
        index = np.unravel_index(np.argmax(np.where(wrong, error, -1)), wrong.shape)
        where = f" at {[int(i) for i in index]}" if index else ""
        raise Failed(
            f"{what}{where}: expected {expected[index]:.10g}, got {actual[index]:.10g} "
            f"({int(wrong.sum())} of {wrong.size} values differ)"
        )


def expect_error(function: Callable[[], object], kind: type[Exception], message: str) -> None:
    """Fail unless ``function`` raises an error of type ``kind`` that contains ``message``."""
    try:
        function()
    except kind as error:
        expect(message in str(error), f"expected an error that contains {message!r}, got {error}")
    except Exception as error:
        raise Failed(
            f"expected a {kind.__name__} that contains {message!r}, "
            f"got {type(error).__name__}: {error}"
        ) from None
    else:
        raise Failed(
            f"expected a {kind.__name__} that contains {message!r}, but nothing was raised"
        )


# Example inputs


def example_inputs(
    loss: Loss,
    n: int = 12,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    makers: Mapping[str, Maker] | None = None,
) -> Inputs:
    """Return ``n`` random rows for ``loss``, with all kinds of rows.

    Decoded boxes are those of :func:`box_pairs`. Labels include all classes, the background and one
    ignored row.

    Args:
        loss: the loss.
        n: number of rows.
        dtype: dtype of the floating-point tensors.
        seed: seed of the random numbers.
        makers: functions that make inputs unknown to the suite, by name.

    Raises:
        InputError: the loss needs an input that neither the suite nor ``makers`` can make.
    """
    generator = torch.Generator().manual_seed(seed)
    if loss.kind == "distribution":
        pred = 2 * _normal(generator, n, BINS)
        target = _uniform(generator, 0, BINS - 1, n)
    elif loss.kind == "classification":
        pred, target = 2 * _normal(generator, n, channels(loss)), _labels(n)
    elif loss.space == "decoded":
        pred, target = box_pairs(n, seed=seed)
    else:
        pred, target = _normal(generator, 2, n, 4).unbind()
    known = {**_makers(loss), **(makers or {})}
    for name in loss.inputs:
        if name not in known:
            raise InputError(
                f"{type(loss).__name__} needs the input {name!r}, which the suite cannot make: "
                "define INPUTS = {name: function(n, generator)} in the module of --references"
            )
    extra = {name: known[name](n, generator) for name in loss.inputs}
    return Inputs(pred, target, extra).to(dtype)


def box_pairs(
    n: int = 12, dtype: torch.dtype = torch.float64, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Return boxes and targets: one third close, one third overlapping, one third disjoint.

    Boxes have sides of 10 to 90 px and are not square.
    """
    generator = torch.Generator().manual_seed(seed)
    corner, size = _uniform(generator, 0, 100, n, 2), _uniform(generator, 10, 90, n, 2)
    target = torch.cat([corner, corner + size], 1)
    reach = torch.where(torch.arange(n) < n // 3, 0.1, 0.3)[:, None]
    pred = target + reach * size.repeat(1, 2) * _uniform(generator, -1, 1, n, 4)
    pred[n - n // 3 :] += 250
    return pred.to(dtype), target.to(dtype)


def channels(loss: Loss) -> int:
    """Return the number of channels of a classification loss's example inputs."""
    return CLASSES + (loss.activation == "softmax")


def _makers(loss: Loss) -> dict[str, Maker]:
    return {
        "image_size": lambda n, g: _uniform(g, 500, 1000, n, 2),
        "quality": lambda n, g: _uniform(g, 0.05, 0.95, n),
        "pred_deltas": lambda n, g: _normal(g, n, 4),
        "target_deltas": lambda n, g: _normal(g, n, 4),
        "logits": lambda n, g: 2 * _normal(g, n, channels(loss)),
        "labels": lambda n, g: _labels(n) % (CLASSES + 1),
    }


def _labels(n: int) -> Tensor:
    labels = torch.arange(n) % (CLASSES + 1)
    labels[CLASSES + 2 : CLASSES + 3] = -1
    return labels


def _normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def _uniform(generator: torch.Generator, low: float, high: float, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=generator, dtype=torch.float64) * (high - low) + low
