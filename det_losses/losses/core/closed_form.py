"""A value whose gradient is computed with it, instead of by autograd."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from det_losses.tensors import is_plain, is_readable

Plain = Callable[[Tensor], Tensor]

_keeps_graph = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", lambda: True)


def is_allowed(pred: Tensor, *constants: Tensor | None, on_gpu: bool = False) -> bool:
    """Return whether only a plain gradient with respect to ``pred`` can be asked for.

    So no gradient of ``constants``, no ``torch.compile``, no transform of ``torch.func``, no mode
    that records operations, and no forward-mode differentiation.
    """
    if not (pred.requires_grad and torch.is_grad_enabled() and is_readable(pred, on_gpu)):
        return False
    for each in constants:
        if each is not None and (each.requires_grad or not is_plain(each, on_gpu)):
            return False
    return not (
        pred.is_neg()  # its memory has the opposite sign
        or forward_ad._current_level >= 0
        or torch._C._are_functorch_transforms_active()
        or torch._C._len_torch_dispatch_stack()
    )


def closed_form(pred: Tensor, value: Tensor, gradient: Tensor, plain: Plain) -> Tensor:
    """Return a loss of ``pred`` whose gradient is known.

    Args:
        pred: predictions.
        value: the loss.
        gradient: the gradient of its sum with respect to ``pred``.
        plain: returns the same loss by differentiable operations, for second derivatives.
    """
    return _ClosedForm.apply(pred, (value, gradient), plain)


class _ClosedForm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pred: Tensor, known: tuple[Tensor, Tensor], plain: Plain) -> Tensor:
        value, gradient = known  # in a tuple, they are no inputs of the function
        ctx.save_for_backward(pred, gradient)
        ctx.plain = plain
        return value

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        pred, gradient = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph: for a second derivative
            (gradient,) = torch.autograd.grad(ctx.plain(pred), pred, upstream, create_graph=True)
            return gradient, None, None
        if upstream.dim() == 0:
            # A second backward pass needs the gradient as it is; else it is not copied.
            if not _keeps_graph() and is_readable(upstream) and upstream.item() == 1:
                return gradient, None, None
        elif upstream.dim() < gradient.dim():  # one value per row
            upstream = upstream.unsqueeze(-1)
        return gradient * upstream, None, None
