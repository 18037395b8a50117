"""Random numbers of an epoch that depend on nothing but the run's seed and the epoch."""

import random

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner

from det_losses.registry import HOOKS


@HOOKS.register_module()
class EpochSeedHook(Hook):
    """Seed all generators, and the dataset's augmentation, at the start of each epoch.

    A resumed run then continues exactly as it would have without the interrupt, and the runs of two
    losses, which may draw different amounts of random numbers, start each epoch alike. A dataset
    takes part by a method ``set_epoch(epoch, seed)``. A loop by iterations has no epochs: there the
    generators run on from the run's seed.
    """

    priority = "VERY_HIGH"

    def before_train_epoch(self, runner: Runner) -> None:
        """Seed by (seed, epoch, rank)."""
        if not isinstance(runner.train_loop, EpochBasedTrainLoop):
            return
        sequence = np.random.SeedSequence([runner.seed, runner.epoch, get_rank()])
        seed = int(sequence.generate_state(1)[0])
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        dataset = runner.train_dataloader.dataset
        if hasattr(dataset, "set_epoch"):
            dataset.set_epoch(runner.epoch, runner.seed)
