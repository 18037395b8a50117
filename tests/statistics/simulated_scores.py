"""Comparisons with known true differences, many at a time.

The score of image i in the run of loss l with seed s is

    truth[l] + seed noise[l, s] + image_sd * N[l, i] + single_sd * N[l, s, i]

Seed noise is shared by all images; image effects are shared by all seeds and depend on the loss;
the noise of single images in single runs is the interaction of both. What a seed or an image does
to all losses alike cancels in every difference and is left out. The metric on a resample of the
images is the mean of the image scores, weighted by how often each image was drawn, so that the
covariance of runs over infinitely many resamples is the one over images divided by their number.

The unit is the standard deviation of a run: an equal loss has seed noise of variance 1.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from det_losses.statistics.estimates import estimate
from det_losses.statistics.families import Families

IMAGES = 60
_AT_ONCE = 2000

Noise = Callable[[np.random.Generator, tuple[int, int, int]], np.ndarray]


class World(NamedTuple):
    """Noise of the runs, [R, L, S], and standard deviations of an image's effects."""

    noise: Noise
    image_sd: float = 0.0
    single_sd: float = 0.0


def normal(rng, shape):
    return rng.standard_normal(shape)


def small(rng, shape):
    return 0.05 * rng.standard_normal(shape)


def noisier(factor: float, loss: int) -> Noise:
    """One loss has a standard deviation that is larger than the others' 1."""

    def noise(rng, shape):
        found = rng.standard_normal(shape)
        found[:, loss] *= factor
        return found

    return noise


def lognormal(rng, shape):
    """Every loss has its own standard deviation, between 0.44 and 2.3 for most."""
    return np.exp(0.5 * rng.standard_normal((*shape[:2], 1))) * rng.standard_normal(shape)


def heavy_tails(rng, shape):
    return rng.standard_t(3, shape) / math.sqrt(3)


def diverging(rng, shape):
    """4% of the runs end ten standard deviations lower."""
    return rng.standard_normal(shape) - 10 * (rng.random(shape) < 0.04)


def family(rng, shape):
    """All losses but the baseline have most of their seed noise in common."""
    found = rng.standard_normal(shape)
    common = rng.standard_normal((shape[0], 1, shape[2]))
    found[:, 1:] = math.sqrt(0.8) * common + math.sqrt(0.2) * found[:, 1:]
    return found


def twins(rng, shape):
    """The last two losses are almost the same loss."""
    found = rng.standard_normal(shape)
    found[:, -1] = found[:, -2] + 0.1 * found[:, -1]
    return found


WORLDS = {
    "equal": World(normal),
    "one loss 2 times noisier": World(noisier(2, 1)),
    "one loss 3 times noisier": World(noisier(3, 1)),
    "baseline 2 times noisier": World(noisier(2, 0)),
    "baseline 3 times noisier": World(noisier(3, 0)),
    "lognormal SDs": World(lognormal),
    "t with 3 df": World(heavy_tails),
    "4% diverged": World(diverging),
    "similar losses": World(family),
    "twins": World(twins),
    "images only": World(small, image_sd=math.sqrt(IMAGES)),
    "seeds lead": World(normal, image_sd=0.3 * math.sqrt(IMAGES)),
    "seeds and images": World(normal, image_sd=0.6 * math.sqrt(IMAGES)),
    "images lead": World(normal, image_sd=2 * math.sqrt(IMAGES)),
    "interaction only": World(small, single_sd=math.sqrt(IMAGES)),
    "all": World(normal, image_sd=0.6 * math.sqrt(IMAGES), single_sd=math.sqrt(IMAGES)),
}


def draw(
    world: World, losses: int, seeds: int, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return scores on all images, [R, L, S], and their covariances over resamples."""
    full = world.noise(rng, (count, losses, seeds))
    if not (world.image_sd or world.single_sd):
        return full, None
    scores = np.zeros((count, losses, seeds, IMAGES))
    if world.image_sd:
        scores += world.image_sd * rng.standard_normal((count, losses, 1, IMAGES))
    if world.single_sd:
        scores += world.single_sd * rng.standard_normal(scores.shape)
    means = scores.mean(axis=-1)
    centred = (scores - means[..., None]).reshape(count, losses * seeds, IMAGES)
    return full + means, centred @ np.swapaxes(centred, 1, 2) / IMAGES**2


def compared(
    world: World,
    losses: int,
    seeds: int,
    count: int,
    seed: int = 0,
    truth: np.ndarray | float = 0.0,
) -> Iterator[Families]:
    """Yield the tests of `count` comparisons in parts; loss 0 is the baseline."""
    rng = np.random.default_rng(seed)
    for start in range(0, count, _AT_ONCE):
        full, covariance = draw(world, losses, seeds, min(_AT_ONCE, count - start), rng)
        full = full + np.reshape(truth, (-1, 1)) if np.ndim(truth) else full
        yield Families(estimate(full, covariance, IMAGES), baseline=0)
