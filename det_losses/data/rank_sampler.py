"""The images of one process of a distributed training or evaluation."""

from collections.abc import Iterator, Sized

import torch
from mmengine.dataset import DefaultSampler
from torch import Tensor

from det_losses.registry import DATA_SAMPLERS


@DATA_SAMPLERS.register_module()
class RankSampler(DefaultSampler):
    """Divides the batches that one process would load among the ranks.

    In training, every rank has a part of each batch: batch k of all R ranks together is batch k of
    one process with R times the batch size. The last batch may give some ranks one image less; only
    if it has fewer than R images, the first images of the epoch fill it up. In evaluation, rank r
    has the batches r, r + R, ... of one process, so that an image is evaluated once, padded to the
    same size for any number of ranks.

    Args:
        dataset: the dataset.
        batch_size: images per batch and rank.
        shuffle: whether each epoch has a new order.
        seed: of the order, equal on all ranks.
        whole_batches: whether a rank has whole batches, as for evaluation.
        drop_last: whether the dataloader leaves out an incomplete last batch.
    """

    def __init__(
        self,
        dataset: Sized,
        batch_size: int,
        shuffle: bool = True,
        seed: int | None = None,
        whole_batches: bool = False,
        drop_last: bool = False,
    ) -> None:
        super().__init__(dataset, shuffle, seed, round_up=False)
        self.batch_size, self.whole_batches, self.drop_last = batch_size, whole_batches, drop_last
        self.num_samples = len(self._share(torch.arange(len(dataset))))

    def __iter__(self) -> Iterator[int]:
        """Return this rank's indices of the epoch."""
        order = torch.arange(len(self.dataset))
        if self.shuffle:  # as mmengine's sampler in one process
            generator = torch.Generator()
            generator.manual_seed(self.seed + self.epoch)
            order = torch.randperm(len(order), generator=generator)
        return iter(self._share(order).tolist())

    def _share(self, order: Tensor) -> Tensor:
        """Return the part of this rank, ``[n]``."""
        if self.whole_batches:
            batches = order.split(self.batch_size)[self.rank :: self.world_size]
            return torch.cat([order[:0], *batches])
        rest = len(order) % (self.batch_size * self.world_size)
        if self.drop_last:
            order = order[: len(order) - rest]
        elif 0 < rest < self.world_size:
            missing = self.world_size - rest
            order = torch.cat([order, order.repeat(missing)[:missing]])
        return order[self.rank :: self.world_size]
