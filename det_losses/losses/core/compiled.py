"""The fast path of losses on pairs of boxes: value and gradient from one compiled loop."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from det_losses.losses.core.closed_form import closed_form, is_allowed
from det_losses.tensors import aligned
from det_losses.tracing import Trace, Traced, UnsupportedOperation

if TYPE_CHECKING:
    from det_losses.losses.core.box import PairLoss


def compiled_loss(
    loss: "PairLoss",
    pred: Tensor,
    target: Tensor,
    weight: Tensor | None,
    inputs: Mapping[str, Tensor],
    divisor: float | Tensor | None = None,
) -> Tensor | None:
    """Return the loss of each box, or None where the plain formula is needed.

    It is needed on a GPU, without a gradient, for a gradient with respect to anything else than
    ``pred``, inside ``torch.compile`` and the transforms of ``torch.func``, and for a formula with
    operations that :class:`~det_losses.tracing.Traced` tensors do not have.

    Args:
        loss: the loss, whose ``of_pair`` has the formula.
        pred: predicted boxes, ``[N, 4]``.
        target: their targets.
        weight: sample weights, ``[N]``, or None.
        inputs: further inputs of the loss, by name.
        divisor: if given, the result is the weighted sum of the losses divided by this number.
    """
    constants = (target, weight, divisor if isinstance(divisor, Tensor) else None, *inputs.values())
    shape = pred.shape
    if not (
        loss.is_compiled is not False
        and is_allowed(pred, *constants)
        and len(shape) == 2
        and shape[1] == 4
        and shape[0]
        and shape == target.shape
    ):
        return None
    if pred.dtype is not target.dtype or pred.dtype not in (torch.float32, torch.float64):
        pred, target = aligned(pred, target)
    if weight is not None and weight.dtype is not pred.dtype:
        if weight.dtype is torch.float64:
            return None  # the result is float64
        weight = weight.to(pred.dtype)
    if loss.is_compiled is None and next(loss.parameters(), None) is not None:
        return None  # learned parameters need autograd
    state = _saved(loss)
    try:
        call = _Call(loss, target, weight, inputs, divisor)
        value = closed_form(pred, *call.compute(pred), call.plain)
    except Exception:  # whatever it is: the plain formula raises its own errors again
        loss.is_compiled = False
        _restore(state)  # the plain formula updates it
        return None
    loss.is_compiled = True
    return value


@dataclass
class _Call:
    """One evaluation of a loss, as a function of the predicted boxes."""

    loss: "PairLoss"
    target: Tensor
    weight: Tensor | None
    inputs: Mapping[str, Tensor]
    divisor: float | Tensor | None
    state: tuple[Tensor, ...] = ()  # buffers after the evaluation

    def compute(self, pred: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss, and the gradient of its sum."""
        trace = Trace(pred.contiguous(), self.target.contiguous())
        loss = self.loss.of_pair(trace.pair(self.loss.eps, self.inputs), self.weight)
        if type(loss) is not Traced:
            raise UnsupportedOperation(f"a loss that is {type(loss).__name__}")
        if self.divisor is None:
            value, gradient = trace.evaluate(loss)
        else:
            divisor = float(self.divisor)
            loss = loss if self.weight is None else loss * self.weight
            value, gradient = trace.evaluate(loss, 1 / divisor)
            value = value.sum() if divisor == 1 else value.sum() / divisor
        self.state = _buffers(self.loss)
        return value, gradient

    def plain(self, pred: Tensor) -> Tensor:
        """Return the loss by operations on tensors, with the running statistics of `compute`.

        Raises:
            RuntimeError: a later forward pass has changed them.
        """
        loss = self.loss
        if any(old is not new for old, new in zip(self.state, _buffers(loss), strict=True)):
            raise RuntimeError(
                f"{type(loss).__name__}: its running statistics have changed since the forward "
                "pass; for second derivatives, call backward or grad before the next forward pass"
            )
        modes = [(module, module.training) for module in loss.modules()]
        loss.eval()  # the statistics are not updated again
        try:
            value = loss.plain(pred, self.target, self.weight, **self.inputs)
        finally:
            for module, training in modes:
                module.training = training
        if self.divisor is None:
            return value
        return (value if self.weight is None else value * self.weight).sum() / self.divisor


def _buffers(loss: nn.Module) -> tuple[Tensor, ...]:
    if not (loss._modules or loss._buffers):
        return ()
    return tuple(each for module in _stateful(loss) for each in module._buffers.values())


def _stateful(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the modules that have buffers; faster than ``modules()``, which removes duplicates."""
    if module._buffers:
        yield module
    for child in module._modules.values():
        yield from _stateful(child)


def _saved(loss: nn.Module) -> list[tuple[dict, dict]]:
    """Return the buffers of each module, and by name each buffer with a copy of its values."""
    if not (loss._modules or loss._buffers):
        return []
    return [
        (
            module._buffers,
            {
                name: (each, None if each is None else each.detach().clone())
                for name, each in module._buffers.items()
            },
        )
        for module in _stateful(loss)
    ]


@torch.no_grad()
def _restore(state: list[tuple[dict, dict]]) -> None:
    """Undo all changes of buffers since :func:`_saved`, in place or not."""
    for buffers, before in state:
        for name, (buffer, values) in before.items():
            if buffer is not None and not torch.equal(buffer, values):
                buffer.copy_(values)
            buffers[name] = buffer
