"""Running statistics of losses: buffers that are equal on all ranks."""

import torch
import torch.distributed as dist
from torch import Tensor, nn

from det_losses.tensors import upcast


class RunningMean(nn.Module):
    """Running mean of a statistic over batches, in a buffer.

    With ``start``, the mean begins at that value and each batch has weight ``momentum``. Without
    it, batch k has weight max(1 / k, momentum): the first batches have equal weight, so the mean
    has no bias from an initial value.

    Args:
        momentum: weight of a new batch, in (0, 1].
        size: shape of the statistic.
        start: the mean before the first batch, or None.
    """

    mean: Tensor
    batches: Tensor

    def __init__(
        self, momentum: float, size: tuple[int, ...] = (), start: float | None = None
    ) -> None:
        super().__init__()
        self.momentum = momentum
        self.start = start
        self.register_buffer("mean", torch.full(size, 0.0 if start is None else start))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def forward(self, value: Tensor, present: Tensor) -> Tensor:
        """Return the mean; in training mode, first update it with this batch.

        In evaluation mode the mean does not change. Before the first batch, ``value`` is returned.

        Args:
            value: the statistic of this batch, over all ranks.
            present: whether the batch has the statistic, a bool scalar.
        """
        if not self.training:
            if self.start is not None:
                return self.mean.to(value.dtype)
            return torch.where(self.batches > 0, self.mean.to(value.dtype), value)
        weight = self.momentum
        if self.start is None:
            weight = (1 / (self.batches + 1).to(value.dtype)).clamp(min=self.momentum)
        moved = self.mean + weight * (value - self.mean)
        # New tensors: a compiled backward pass may recompute from the old ones.
        self.mean = torch.where(present, moved.to(self.mean.dtype), self.mean)
        self.batches = self.batches + present.long()
        return self.mean.to(value.dtype)


def counted_rows(values: Tensor, weight: Tensor | None) -> Tensor:
    """Return which values have a sample weight above 0; without weights, all."""
    if weight is None:
        return torch.ones_like(values, dtype=torch.bool)
    return (upcast(weight) > 0).expand_as(values)


def over_ranks(total: Tensor) -> Tensor:
    """Sum over the ranks if training is distributed."""
    if dist.is_available() and dist.is_initialized():
        total = total.clone()
        dist.all_reduce(total)
    return total
