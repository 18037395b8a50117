"""State of losses: running statistics in buffers, the same on every rank."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn

from det_losses.tensors import upcast

_apart = False  # whether this rank computes what the others do not wait for


class RunningMean(nn.Module):
    """The mean of a statistic over the batches of a training, in a buffer.

    The first batches enter with equal weight, so that the mean is right from the start; the later
    ones with ``momentum``: batch k moves the mean by max(1 / k, momentum) of the difference.

    Args:
        momentum: the least weight of a new batch, in (0, 1].
        size: shape of the statistic.
    """

    mean: Tensor
    batches: Tensor

    def __init__(self, momentum: float, size: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def forward(self, value: Tensor, present: Tensor) -> Tensor:
        """Return the mean, in training mode after this batch has entered.

        In evaluation the mean stays as it is; where there is none yet, this batch's is returned.

        Args:
            value: the statistic of this batch, of all ranks.
            present: whether there is any, a bool without axes.
        """
        started = self.batches > 0
        if not self.training:
            return torch.where(started, self.mean.to(value.dtype), value)
        weight = (1 / (self.batches + 1).to(value.dtype)).clamp(min=self.momentum)
        moved = self.mean + weight * (value - self.mean)
        # New tensors: a compiled backward may compute again what stands here, from the old ones.
        self.mean = torch.where(present, moved.to(self.mean.dtype), self.mean)
        self.batches = self.batches + present.long()
        return self.mean.to(value.dtype)


def counted_rows(values: Tensor, weight: Tensor | None) -> Tensor:
    """Return which of the values count: those whose sample weight is above 0, all without one."""
    if weight is None:
        return torch.ones_like(values, dtype=torch.bool)
    return (upcast(weight) > 0).expand_as(values)


def over_ranks(total: Tensor) -> Tensor:
    """Sum over the ranks, where training is distributed."""
    if dist.is_available() and dist.is_initialized() and not _apart:
        total = total.clone()
        dist.all_reduce(total)
    return total


@contextmanager
def on_this_rank_alone() -> Iterator[None]:
    """Let losses count this rank's boxes alone, where the other ranks do not call them too."""
    global _apart
    before, _apart = _apart, True
    try:
        yield
    finally:
        _apart = before
