"""A value whose gradient is computed with it, instead of by autograd."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from det_losses.tensors import is_readable

Compute = Callable[[Tensor], tuple[Tensor, Tensor]]
Plain = Callable[[Tensor], Tensor]

_keeps_graph = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", lambda: True)


def is_allowed(pred: Tensor, *constants: Tensor | None, on_gpu: bool = False) -> bool:
    """Return whether only a plain gradient with respect to ``pred`` can be asked for.

    So no gradient of ``constants``, no ``torch.compile``, no transform of ``torch.func``, no mode
    that records operations, and no forward-mode differentiation.
    """
    return (
        pred.requires_grad
        and torch.is_grad_enabled()
        and is_readable(pred, on_gpu)
        and not pred.is_neg()  # whose memory has the opposite sign
        and forward_ad._current_level < 0
        and not torch._C._are_functorch_transforms_active()
        and not torch._C._len_torch_dispatch_stack()
        and all(
            each is None or (not each.requires_grad and is_readable(each, on_gpu))
            for each in constants
        )
    )


def closed_form(pred: Tensor, compute: Compute, plain: Plain) -> Tensor:
    """Return a loss of ``pred`` with its gradient.

    Args:
        pred: predictions.
        compute: returns the loss, and the gradient of its sum with respect to ``pred``.
        plain: returns the same loss by differentiable operations, for second derivatives.
    """
    return _ClosedForm.apply(pred, compute, plain)


class _ClosedForm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pred: Tensor, compute: Compute, plain: Plain) -> Tensor:
        value, gradient = compute(pred)
        ctx.save_for_backward(pred, gradient)
        ctx.plain = plain
        return value

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        pred, gradient = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph: for a second derivative
            return (
                *torch.autograd.grad(ctx.plain(pred), pred, upstream, create_graph=True),
                None,
                None,
            )
        if (
            upstream.dim() == 0
            and is_readable(upstream)
            and not _keeps_graph()  # a second backward pass needs the gradient as it is
            and upstream.item() == 1
        ):
            return gradient, None, None  # it is not copied
        if 0 < upstream.dim() < gradient.dim():  # one value per row
            upstream = upstream.unsqueeze(-1)
        return gradient * upstream, None, None
