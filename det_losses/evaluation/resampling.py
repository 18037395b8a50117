"""COCO's numbers of several result files on resamples of the images: the bootstrap."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from det_losses.errors import InputError
from det_losses.evaluation.average_precision import Matches, Recalls, check_counts
from det_losses.evaluation.metrics import METRICS
from det_losses.evaluation.summary import ap_numbers


def draw_counts(images: int, resamples: int, seed: int = 0) -> np.ndarray:
    """Draw how often each image is in each resample with replacement.

    Args:
        images: number of images, I.
        resamples: number of resamples, B. A larger number does not change the first ones.
        seed: seed of the draws.

    Returns:
        ``[B, I]`` int64; each row sums to I.

    Raises:
        InputError: ``images`` or ``resamples`` below 1.
    """
    if images < 1 or resamples < 1:
        raise InputError(
            f"a resample needs at least one image and one draw, got {images} images and "
            f"{resamples} resamples."
        )
    return np.random.default_rng(seed).multinomial(
        images, np.full(images, 1 / images), size=resamples
    )


def resample(
    matches: Sequence[Matches], counts: np.ndarray, workers: int | None = None
) -> dict[str, np.ndarray]:
    """Compute the numbers of each result file on each resample.

    Every resample is applied to all files, so that files can be paired. A class without a box in a
    resample is NaN and is in no mean of it, for all files.

    Args:
        matches: of F result files with the same ground truth.
        counts: ``[B, I]`` multiplicities of the images, see :func:`draw_counts`.
        workers: threads; None: one for each core that this process may use. They share the
            matches, and numpy releases Python's lock. The result does not depend on it.

    Returns:
        ``[B, F]`` for each of METRICS and for ``AP/<class name>`` of each class.

    Raises:
        InputError: no matches, matches of different ground truths, ``counts`` that do not fit, or
            ``workers`` below 1.
    """
    if not matches:
        raise InputError("matches is empty: give the matches of at least one result file.")
    population = matches[0].population
    for index, other in enumerate(matches):
        if not population.same(other.population):
            raise InputError(
                f"matches[{index}] is of another ground truth than matches[0]. Match all result "
                "files with the same annotation file."
            )
    if np.ndim(counts) != 2:
        raise InputError(f"counts must be [B, I], got shape {list(np.shape(counts))}.")
    counts = check_counts(counts, population.images)
    workers = _cores() if workers is None else workers
    if workers < 1:
        raise InputError(f"workers must be at least 1, got {workers}.")

    def evaluate(weights: np.ndarray) -> np.ndarray:
        recalls = Recalls.of(population, weights)
        found = (matched.weighted(weights, recalls) for matched in matches)
        return np.stack([list(ap_numbers(ap, population.names).values()) for ap in found])

    if workers == 1:
        values = np.stack([evaluate(weights) for weights in counts])
    else:
        with ThreadPoolExecutor(workers) as pool:
            values = np.stack(list(pool.map(evaluate, counts)))
    names = [*METRICS, *(f"AP/{name}" for name in population.names)]
    return {name: values[..., index] for index, name in enumerate(names)}


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # Linux: those that this process may use
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
