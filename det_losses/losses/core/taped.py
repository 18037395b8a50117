"""The fast path of losses on pairs of boxes: value and gradient in one pass over numpy arrays."""

import copy
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor
from torch.autograd import forward_ad

from det_losses.box_gradients import IrregularBoxes, TapedPair
from det_losses.losses.core.base import is_readable
from det_losses.tape import Node, UnsupportedOperation
from det_losses.tensors import aligned

if TYPE_CHECKING:
    from det_losses.losses.core.box import PairLoss

CHUNK = 32768  # boxes whose intermediate values fit into a core's cache


def taped_loss(
    loss: "PairLoss",
    pred: Tensor,
    target: Tensor,
    weight: Tensor | None,
    inputs: Mapping[str, Tensor],
    divisor: float | None = None,
) -> Tensor | None:
    """Return the loss of each box, or None where the plain formula is needed.

    It is needed on a GPU, without a gradient, for a gradient with respect to anything else than
    ``pred``, inside ``torch.compile`` and the transforms of ``torch.func``, for irregular boxes and
    for a formula with operations that a :class:`~det_losses.tape.Node` does not have.

    Args:
        loss: the loss, whose ``of_pair`` has the formula.
        pred: predicted boxes, ``[N, 4]``.
        target: their targets.
        weight: sample weights, ``[N]``, or None.
        inputs: further inputs of the loss, by name.
        divisor: if given, the result is the weighted sum of the losses divided by this number.
    """
    if not (
        loss.is_taped is not False
        and is_readable(pred)
        and is_readable(target)
        and pred.requires_grad
        and torch.is_grad_enabled()
        and forward_ad._current_level < 0
        and pred.dim() == 2
        and pred.shape == target.shape
        and pred.shape[1] == 4
        and pred.shape[0]
        and not any(x.requires_grad for x in (target, weight, *inputs.values()) if x is not None)
    ):
        return None
    pred, target = aligned(pred, target)
    untried = loss.is_taped is None
    if untried and next(loss.parameters(), None) is not None:
        return None  # learned parameters need autograd
    state = copy.deepcopy(loss.state_dict()) if untried else {}
    try:
        value = _PairFunction.apply(pred, target, loss, weight, inputs, divisor)
    except IrregularBoxes:
        return None
    except Exception as error:  # at first, whatever it is: an error of the formula is raised again
        if not (untried or isinstance(error, UnsupportedOperation)):
            raise
        loss.is_taped = False
        if untried:
            loss.load_state_dict(state)
        return None
    if untried:
        loss.is_taped = True
    return value


def _evaluate(
    loss: "PairLoss",
    pred: ndarray,
    target: ndarray,
    weight: Tensor | None,
    inputs: Mapping[str, Tensor],
) -> tuple[ndarray, ndarray]:
    """Return the loss of each box, and the gradient of the sum with respect to ``pred``."""
    pair = TapedPair(pred, target, loss.eps, inputs)
    value = loss.of_pair(pair, weight)
    if not isinstance(value, Node) or value.value.shape != pred.shape[:1]:
        raise UnsupportedOperation(f"a loss that is {type(value).__name__}")
    return value.value, pair.gradient(value)


class _PairFunction(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        pred: Tensor,
        target: Tensor,
        loss: "PairLoss",
        weight: Tensor | None,
        inputs: Mapping[str, Tensor],
        divisor: float | None,
    ) -> Tensor:
        boxes, targets = pred.numpy(), target.numpy()
        with np.errstate(all="ignore"), torch.enable_grad():
            if loss.rowwise and not inputs and len(boxes) > CHUNK:
                value, gradient = _in_chunks(loss, boxes, targets, weight)
            else:
                value, gradient = _evaluate(loss, boxes, targets, weight, inputs)
                gradient = np.ascontiguousarray(gradient, boxes.dtype)
            if divisor is not None:
                if weight is not None:
                    weights = weight.numpy()
                    value = value * weights
                    gradient *= weights[:, None]
                value = value.sum() / divisor
                if divisor != 1:
                    gradient /= divisor
        ctx.save_for_backward(pred, torch.from_numpy(gradient))
        ctx.divisor = divisor
        ctx.call = loss, target, weight, inputs, divisor, _buffers(loss)
        return torch.as_tensor(value, dtype=pred.dtype)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        pred, gradient = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph: for a second derivative
            gradient = _differentiable(*ctx.call, pred, upstream)
        else:
            gradient = gradient * (upstream if ctx.divisor else upstream.unsqueeze(-1))
        return gradient, None, None, None, None, None


def _in_chunks(
    loss: "PairLoss", pred: ndarray, target: ndarray, weight: Tensor | None
) -> tuple[ndarray, ndarray]:
    value, gradient = np.empty(len(pred), pred.dtype), np.empty_like(pred)

    def evaluate(rows: slice) -> None:
        weights = None if weight is None else weight[rows]
        with np.errstate(all="ignore"), torch.enable_grad():  # both are settings of a thread
            value[rows], gradient[rows] = _evaluate(loss, pred[rows], target[rows], weights, {})

    threads = min(torch.get_num_threads(), -(-len(pred) // CHUNK))
    if threads == 1:
        for rows in _chunks(len(pred)):
            evaluate(rows)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(evaluate, _chunks(len(pred))))  # raises what a chunk raises
    return value, gradient


def _chunks(rows: int) -> Iterator[slice]:
    return (slice(start, start + CHUNK) for start in range(0, rows, CHUNK))


def _buffers(loss: "PairLoss") -> tuple[Tensor, ...]:
    return tuple(loss.buffers()) if loss._modules or loss._buffers else ()


def _differentiable(
    loss: "PairLoss",
    target: Tensor,
    weight: Tensor | None,
    inputs: Mapping[str, Tensor],
    divisor: float | None,
    state: tuple[Tensor, ...],
    pred: Tensor,
    upstream: Tensor,
) -> Tensor:
    """Return the gradient as a function of ``pred``, by the plain formula.

    Raises:
        RuntimeError: the loss has running statistics, which a later forward pass has changed.
    """
    if any(old is not new for old, new in zip(state, _buffers(loss), strict=True)):
        raise RuntimeError(
            f"{type(loss).__name__}: its running statistics have changed since the forward pass; "
            "for second derivatives, call backward or grad before the next forward pass"
        )
    training = loss.training
    loss.eval()  # the statistics of the forward pass, not updated again
    try:
        value = loss.plain(pred, target, weight, **inputs)
    finally:
        loss.train(training)
    if divisor is not None:
        value = (value if weight is None else value * weight).sum() / divisor
    return torch.autograd.grad(value, pred, upstream, create_graph=True)[0]
