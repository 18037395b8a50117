"""Seeding of each step, so that its random numbers depend only on the seed and the step."""

from collections.abc import Iterator
from typing import Any

from mmengine.dataset import InfiniteSampler
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner

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
    of a sample can be a function of (seed, epoch, image id). In an iteration-based loop an epoch is
    a pass through the data; with an InfiniteSampler, workers load ahead across its end, so there
    the method is not called.
    """

    priority = "VERY_HIGH"

    def before_train_epoch(self, runner: Runner) -> None:
        """Seed with (seed, epoch, rank), and pass the epoch to the dataset."""
        loop = runner.train_loop
        if not isinstance(loop, EpochBasedTrainLoop):
            seed_generators(runner.seed, runner.iter, get_rank(), _LOADING)
            if isinstance(loop, IterBasedTrainLoop):
                loop.dataloader_iterator = _seeded(loop.dataloader_iterator, runner)
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


def _seeded(batches: Iterator[Any], runner: Runner) -> Iterator[Any]:
    """Seed before each batch is loaded, also before those that a resumed run skips."""
    loader = runner.train_dataloader
    follows = hasattr(loader.dataset, "set_epoch") and not isinstance(
        loader.sampler, InfiniteSampler
    )
    number = 0
    while True:
        if follows and number % len(loader) == 0:
            loader.dataset.set_epoch(number // len(loader), runner.seed)
        seed_generators(runner.seed, number, get_rank(), _LOADING)
        yield next(batches)
        number += 1
