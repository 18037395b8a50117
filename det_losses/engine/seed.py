"""Seeding of each step, so that its random numbers depend only on the seed and the step."""

from typing import Any

from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner

from det_losses.generators import seed_generators
from det_losses.registry import HOOKS

_STEP, _LOADING = 1, 2  # distinct from each other and from the start of an epoch


@HOOKS.register_module()
class SeedHook(Hook):
    """Seed all generators at the start of each epoch and of each training step.

    The random numbers of a step, and of loading in the main process, are a function of (seed, step,
    rank). A resumed run is therefore identical to an uninterrupted one. Runs with different losses,
    which may draw different amounts of random numbers, still load the same batches, sample the same
    anchors and drop the same activations. Worker processes are seeded with the run's seed.

    If the dataset has a method ``set_epoch(epoch, seed)``, it is called, so that the augmentation
    of a sample can be a function of (seed, epoch, image id). An iteration-based loop has no epochs.
    """

    priority = "VERY_HIGH"

    def before_train_epoch(self, runner: Runner) -> None:
        """Seed with (seed, epoch, rank), and pass the epoch to the dataset."""
        if not isinstance(runner.train_loop, EpochBasedTrainLoop):
            seed_generators(runner.seed, runner.iter, get_rank(), _LOADING)
            return
        seed_generators(runner.seed, runner.epoch, get_rank())
        dataset = runner.train_dataloader.dataset
        if hasattr(dataset, "set_epoch"):
            dataset.set_epoch(runner.epoch, runner.seed)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Seed with (seed, step, rank)."""
        seed_generators(runner.seed, runner.iter, get_rank(), _STEP)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Seed again for the next batch, whatever the step has drawn."""
        seed_generators(runner.seed, runner.iter + 1, get_rank(), _LOADING)
