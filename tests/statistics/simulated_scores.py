"""Scores with known true differences, from a model of a metric that is a mean over images.

The score of image i in the run of loss l with seed s is

    truth[l] + image_sd * N[l, i] + seed_sd * N[l, s] + single_sd * N[l, s, i] + easy[i]

Image effects are shared by all seeds and depend on the loss; seed noise is shared by all images;
the noise of single images in single runs is the interaction of both; easy[i] cancels in every
difference. The metric on a resample of the images is the mean of the image scores, weighted by how
often each image was drawn.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from det_losses.statistics import Scores

IMAGES = 60
RESAMPLES = 200
_AT_ONCE = 500


class World(NamedTuple):
    """Standard deviations of the effects; those of images and single runs are for one image."""

    image_sd: float
    seed_sd: float
    single_sd: float = 0.0


# Standard errors of one loss over images and over three seeds: 0.01 and 0.001, and so on.
IMAGES_DOMINATE = World(image_sd=0.01 * math.sqrt(IMAGES), seed_sd=0.001 * math.sqrt(3))
SEEDS_DOMINATE = World(image_sd=0.001 * math.sqrt(IMAGES), seed_sd=0.01 * math.sqrt(3))
SEEDS_LEAD = World(image_sd=0.0032 * math.sqrt(IMAGES), seed_sd=0.01 * math.sqrt(3))
BOTH = World(image_sd=0.01 * math.sqrt(IMAGES), seed_sd=0.01 * math.sqrt(3))
INTERACTION = World(image_sd=0.0, seed_sd=0.0, single_sd=0.01 * math.sqrt(3 * IMAGES))


def simulate(
    world: World, truth: tuple[float, ...], seeds: int, replications: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield replications: scores of each loss on all images, [L, S], and on draws, [L, S, B]."""
    rng = np.random.default_rng(seed)
    losses = len(truth)
    for start in range(0, replications, _AT_ONCE):
        count = min(_AT_ONCE, replications - start)
        shape = (count, losses, seeds, IMAGES)
        scores = (
            np.reshape(truth, (1, losses, 1, 1))
            + world.image_sd * rng.standard_normal((count, losses, 1, IMAGES))
            + world.seed_sd * rng.standard_normal((count, losses, seeds, 1))
            + 0.2 * rng.standard_normal((count, 1, 1, IMAGES))
        )
        if world.single_sd:
            scores = scores + world.single_sd * rng.standard_normal(shape)
        draws = rng.multinomial(IMAGES, np.full(IMAGES, 1 / IMAGES), size=RESAMPLES)
        resampled = np.broadcast_to(scores, shape) @ (draws.T / IMAGES)
        yield from zip(scores.mean(axis=-1), resampled, strict=True)


def as_scores(full: np.ndarray, resampled: np.ndarray) -> dict[str, Scores]:
    """Return label -> scores; the first loss is "loss 0"."""
    seeds = tuple(range(full.shape[1]))
    return {
        f"loss {i}": Scores(seeds, one, draws.T)
        for i, (one, draws) in enumerate(zip(full, resampled, strict=True))
    }
