"""What a step and its loading draw depends on the seed and the step alone."""

import random

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook

from det_losses.engine import build_runner
from det_losses.generators import (
    generator_states,
    generators_kept,
    seed_generators,
    set_generator_states,
)
from det_losses.registry import DATASETS

ToyBoxes = DATASETS.get("ToyBoxes")


@DATASETS.register_module()
class NoisyBoxes(ToyBoxes):
    """Draws from the global generator, as a dataset of another project may."""

    def __getitem__(self, index):
        image, target = super().__getitem__(index)
        return image + 0.01 * torch.rand(1), target


class Draw(Hook):
    """Draws from all generators in a step, as a loss does."""

    priority = "HIGHEST"  # as the step itself, before any hook

    def __init__(self, amount):
        self.amount = amount

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        torch.rand(self.amount)
        np.random.rand(self.amount)
        random.sample(range(99), self.amount)


class Watch(Hook):
    """Keeps the first numbers that a step draws, and its pixels."""

    priority = "LOWEST"

    def __init__(self):
        self.drawn, self.pixels = [], []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.pixels += [image.sum().item() for image in data_batch["images"]]
        self.drawn.append((torch.rand(1).item(), random.random(), np.random.rand()))


def watch(cfg, amount):
    runner, hook = build_runner(cfg), Watch()
    runner.register_hook(Draw(amount))
    runner.register_hook(hook)
    runner.train()
    return hook


def config(toy_cfg, name, workers, by_epoch):
    cfg = toy_cfg(name, epochs=2)
    cfg["train_dataloader"].update(num_workers=workers)
    cfg["train_dataloader"]["dataset"]["type"] = "NoisyBoxes"
    cfg["val_dataloader"] = cfg["val_cfg"] = cfg["val_evaluator"] = None
    if not by_epoch:
        cfg["train_cfg"] = dict(by_epoch=False, max_iters=6)
        cfg["train_dataloader"]["sampler"]["type"] = "InfiniteSampler"
        cfg["default_hooks"]["checkpoint"].update(by_epoch=False)
    return cfg


@pytest.mark.parametrize("by_epoch", [True, False])
@pytest.mark.parametrize("workers", [0, 1])
def test_steps_draw_the_same_whatever_was_drawn_before(toy_cfg, workers, by_epoch):
    few, many = (watch(config(toy_cfg, str(n), workers, by_epoch), n) for n in (1, 7))
    assert few.drawn == many.drawn
    assert few.pixels == many.pixels
    for numbers in zip(*few.drawn, strict=True):
        assert len(set(numbers)) == len(numbers) == 6
    # mmengine seeds the workers of each epoch alike, so that these repeat their noise.
    assert workers or len(set(few.pixels)) == len(few.pixels) == 12


class TestGenerators:
    def draw(self):
        return torch.rand(1).item(), random.random(), np.random.rand()

    def test_seeds(self):
        drawn = []
        for numbers in ((1, 2), (1, 2), (1, 3), (2, 1)):
            seed_generators(*numbers)
            drawn.append(self.draw())
        assert drawn[0] == drawn[1]
        assert all(len(set(numbers)) == 3 for numbers in zip(*drawn, strict=True))

    def test_states_are_restored(self):
        states = generator_states()
        first = self.draw()
        set_generator_states(states)
        assert self.draw() == first

    def test_generators_are_restored_after_an_error(self):
        states = generator_states()
        expected = self.draw()
        set_generator_states(states)
        with pytest.raises(KeyError), generators_kept(5):
            inside = self.draw()
            raise KeyError
        assert self.draw() == expected
        with generators_kept(5):
            assert self.draw() == inside
