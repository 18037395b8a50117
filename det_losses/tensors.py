"""What a loss does with its tensors on entry: one precision, one shape."""

import torch
from torch import Tensor


def upcast(x: Tensor) -> Tensor:
    """Raise half precision (and integers) to float32; float32 and float64 stay as they are."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def root(squared: Tensor) -> Tensor:
    """Return the square root; at 0, where its slope is infinite, with a gradient of 0."""
    above = squared > 0
    return torch.where(above, torch.where(above, squared, 1.0).sqrt(), 0.0)


def aligned(pred: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return both tensors in the upcast precision of ``pred``.

    Raises:
        ValueError: the shapes differ; broadcasting one box over many is never meant.
    """
    if pred.shape != target.shape:
        raise ValueError(
            f"pred and target must have the same shape, got {list(pred.shape)} and "
            f"{list(target.shape)}"
        )
    pred = upcast(pred)
    return pred, target.to(pred.dtype)
