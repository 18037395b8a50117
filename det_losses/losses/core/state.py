"""Statistics over the ranks of a distributed training, and running means of them.

With these, the ranks together compute the loss that one process computes for the whole batch.
"""

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
    def forward(self, value: Tensor, present: Tensor | bool) -> Tensor:
        """Return the mean; in training mode, first update it with this batch.

        In evaluation mode the mean does not change. Before the first batch, ``value`` is returned.

        Args:
            value: the statistic of this batch, over all ranks.
            present: whether the batch has the statistic.
        """
        if not self.training:
            if self.start is not None:
                return self.mean.to(value.dtype)
            return torch.where(self.batches > 0, self.mean.to(value.dtype), value)
        weight = self.momentum
        if self.start is None:
            weight = (1 / (self.batches + 1).to(self.mean.dtype)).clamp(min=self.momentum)
        moved = torch.lerp(self.mean, value.to(self.mean.dtype), weight)
        # New tensors: a compiled backward pass may recompute from the old ones.
        if isinstance(present, Tensor):
            moved = torch.where(present, moved, self.mean)
        self.mean = moved if present is not False else self.mean
        self.batches = self.batches + present
        return self.mean.to(value.dtype)


def counted_rows(values: Tensor, weight: Tensor | None) -> Tensor:
    """Return which values have a sample weight above 0; without weights, all."""
    if weight is None:
        return torch.ones_like(values, dtype=torch.bool)
    return (upcast(weight) > 0).expand_as(values)


def is_distributed() -> bool:
    """Return whether several processes train together."""
    return dist.is_available() and dist.is_initialized()


def over_ranks(total: Tensor) -> Tensor:
    """Sum over the ranks if training is distributed."""
    if is_distributed():
        total = total.clone()
        dist.all_reduce(total)
    return total


def sum_and_weight(
    values: Tensor, weight: Tensor | None, shared: bool
) -> tuple[Tensor, Tensor | int]:
    """Return the weighted sum of ``values`` and the sum of the weights; without weights, of ones.

    Args:
        values: any shape.
        weight: same shape, of floating-point numbers or booleans, or None.
        shared: whether the sums include the values of all ranks.
    """
    if weight is None:
        total, count = values.sum(), len(values)
    elif weight.dtype == torch.bool:
        total, count = torch.where(weight, values, 0.0).sum(), weight.sum()
    else:
        total, count = (values * weight).sum(), weight.sum()
    if shared and is_distributed():
        count = torch.as_tensor(count, dtype=total.dtype, device=total.device)
        total, count = over_ranks(torch.stack([total, count])).unbind()
    return total, count


def mean_over_ranks(total: Tensor, least: float | None = None) -> Tensor:
    """Return the divisor for a rank's sum, such as the number of positives: their mean over ranks.

    The gradients of the ranks are averaged. With R ranks and this divisor, the average is the sum
    over all ranks divided by the total, as in one process.

    Args:
        total: the number on this rank.
        least: smallest number of the whole batch.
    """
    total = over_ranks(total)
    if least is not None:
        total = total.clamp(min=least)
    return total / dist.get_world_size() if is_distributed() else total


def gathered(values: Tensor) -> Tensor:
    """Return the values of all ranks in one row; each rank has the same number of them."""
    if not is_distributed():
        return values
    parts = [torch.empty_like(values) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, values.contiguous())
    return torch.cat(parts)


def of_first_rank(values: Tensor) -> Tensor:
    """Return the values of rank 0 on all ranks."""
    if is_distributed():
        values = values.clone()
        dist.broadcast(values, 0)
    return values
