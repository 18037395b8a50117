"""The fast path of losses on pairs of boxes: value and gradient from one compiled loop."""

import weakref
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from det_losses.losses.core.closed_form import closed_form, is_allowed
from det_losses.tensors import aligned
from det_losses.tracing.kernels import this_thread
from det_losses.tracing.trace import Trace
from det_losses.tracing.traced import Traced, UnsupportedOperation

if TYPE_CHECKING:
    from det_losses.losses.core.box import PairLoss

MOST_PROGRAMS = 20  # that a loss compiles; a formula that differs at each call needs more


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
    operations that :class:`~det_losses.tracing.traced.Traced` tensors do not have.

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
    for each in constants[1:3]:
        if each is not None and each.dtype is torch.float64 is not pred.dtype:
            return None  # the result is float64
    if weight is not None:
        weight = weight.to(pred.dtype)
    is_first = loss.is_compiled is None
    if is_first and next(loss.parameters(), None) is not None:
        return None  # learned parameters need autograd
    state, programs = _saved(loss, deep=is_first), this_thread.programs
    random = torch.get_rng_state() if is_first else None
    try:
        call = _Call(loss, target, weight, inputs, divisor)
        computed = call.compute(pred)
    except (Exception, UnsupportedOperation):  # the plain formula raises its own errors again
        _restore(state)  # the plain formula updates it
        if random is not None:
            torch.set_rng_state(random)
        loss.is_compiled = False
        return None
    if is_first:
        loss.is_compiled = True
    if this_thread.programs != programs:
        loss.programs += 1
        loss.is_compiled = loss.programs < MOST_PROGRAMS
    # Outside of the try: checkpointing ends a recomputation by an exception.
    return closed_form(pred, *computed, call.plain)


@dataclass
class _Call:
    """One evaluation of a loss, as a function of the predicted boxes."""

    loss: "PairLoss"
    target: Tensor
    weight: Tensor | None
    inputs: Mapping[str, Tensor]
    divisor: float | Tensor | None
    state: tuple[tuple, ...] = ()  # buffers after the evaluation, with their versions

    def compute(self, pred: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss, and the gradient of its sum; where gradients are recorded."""
        trace = Trace(pred.contiguous(), self.target.contiguous().resolve_neg())
        loss = self.loss.of_pair(trace.pair(self.loss.eps, self.inputs), self.weight)
        if type(loss) is not Traced or loss.constant:
            raise UnsupportedOperation(f"a {type(loss).__name__} without gradient")
        divisor = None if self.divisor is None else float(self.divisor)
        if divisor is not None and self.weight is not None:
            loss = loss * self.weight
        value, gradient = trace.evaluate(loss, 1 / (divisor or 1))
        trace.check()
        alive = weakref.ref(trace)
        del trace, loss
        if alive() is not None:
            raise UnsupportedOperation("a tensor that is kept after the evaluation")
        if divisor is not None:
            value = value.sum() if divisor == 1 else value.sum() / divisor
        self.state = _buffers(self.loss)
        return value, gradient

    def plain(self, pred: Tensor) -> Tensor:
        """Return the loss by operations on tensors, with the running statistics of `compute`.

        Raises:
            RuntimeError: a later forward pass has changed them.
        """
        loss = self.loss
        if not _are_same(self.state, _buffers(loss)):
            raise RuntimeError(
                f"{type(loss).__name__}: its running statistics have changed since the forward "
                "pass; for second derivatives, call backward or grad before the next forward pass"
            )
        modes = [(module, module.training) for module in loss.modules()]
        if self.state:
            loss.eval()  # the statistics are not updated again
        try:
            value = loss.plain(pred, self.target, self.weight, **self.inputs)
        finally:
            for module, training in modes:
                module.training = training
        if self.divisor is None:
            return value
        return (value if self.weight is None else value * self.weight).sum() / self.divisor


def _buffers(loss: nn.Module) -> tuple[tuple, ...]:
    """Return each buffer and its version, the number of changes in place."""
    if not (loss._modules or loss._buffers):
        return ()
    return tuple(
        (each, getattr(each, "_version", 0))
        for module in _parts(loss)
        for each in module._buffers.values()
    )


def _are_same(old: tuple[tuple, ...], new: tuple[tuple, ...]) -> bool:
    pairs = zip(old, new, strict=True)
    return all(a is b and version == now for (a, version), (b, now) in pairs)


def _parts(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the modules; faster than ``modules()``, which removes duplicates."""
    yield module
    for child in module._modules.values():
        yield from _parts(child)


def _saved(loss: nn.Module, deep: bool) -> list[tuple[Any, Any]]:
    """Return the attributes and buffers of a loss, each with a copy, for :func:`_restore`.

    Args:
        loss: the loss.
        deep: whether the contents of lists and dicts are copied too.
    """
    saved: list[tuple[Any, Any]] = []
    for module in _parts(loss) if loss._modules else (loss,):
        attributes = vars(module)
        saved.append((attributes, attributes.copy()))
        if deep:
            for each in attributes.values():
                if isinstance(each, list | dict | set | deque):
                    saved.append((each, each.copy()))
        if module._buffers:
            if not deep:
                saved.append((module._buffers, module._buffers.copy()))
            for each in module._buffers.values():
                if each is not None:
                    saved.append((each, each.detach().clone()))
    return saved


@torch.no_grad()
def _restore(saved: list[tuple[Any, Any]]) -> None:
    """Undo all changes since :func:`_saved`, in place or not."""
    for each, before in saved:
        if isinstance(each, Tensor):
            if not torch.equal(each, before):
                each.copy_(before)
        elif isinstance(each, dict):  # of attributes that other threads may be reading
            for name in each.keys() - before.keys():
                del each[name]
            each.update(before)
        else:
            each.clear()
            (each.update if isinstance(each, set) else each.extend)(before)
