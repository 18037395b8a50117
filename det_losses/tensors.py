"""Helpers for tensors: precision and shape of inputs, a square root, and tracing."""

import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor, is_legacy_batchedtensor

from det_losses.errors import InputError

_PLAIN = (Tensor, nn.Parameter)


def upcast(x: Tensor) -> Tensor:
    """Upcast half precision and integers to float32; keep float32 and float64."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def safe_sqrt(squared: Tensor) -> Tensor:
    """Return the square root, with gradient 0 instead of infinity at 0."""
    above = squared > 0
    return torch.where(above, torch.where(above, squared, 1.0).sqrt(), 0.0)


def aligned(pred: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return both tensors in the dtype of ``pred`` after :func:`upcast`.

    Raises:
        InputError: the shapes differ; they are not broadcast.
    """
    if pred.shape != target.shape:
        raise InputError(
            f"pred and target must have the same shape, got {list(pred.shape)} and "
            f"{list(target.shape)}"
        )
    pred = upcast(pred)
    return pred, target.to(pred.dtype)


def is_traced() -> bool:
    """Return whether a tracer or compiler records the operations, for an export for example."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def is_readable(values: Tensor, on_gpu: bool = False) -> bool:
    """Return whether the values are known: on a CPU, or if ``on_gpu`` on a GPU; not traced."""
    return not is_traced() and is_plain(values, on_gpu)


def is_plain(values: Tensor, on_gpu: bool = False) -> bool:
    """Return whether this is an ordinary tensor on a CPU, or if ``on_gpu`` on a GPU."""
    return (
        type(values) in _PLAIN  # not a FakeTensor or another subclass
        and (values.is_cpu or (on_gpu and not values.is_meta))
        and not is_functorch_wrapped_tensor(values)
        and not is_legacy_batchedtensor(values)
    )
