"""COCO's numbers of several result files on resamples of the images: the bootstrap."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from det_losses.evaluation.accumulation import METRICS, Matches, Recalls, check_counts, numbers


def draw_counts(images: int, resamples: int, seed: int = 0) -> np.ndarray:
    """Draw how often each image comes in each resample with replacement.

    Args:
        images: number of images, I.
        resamples: number of resamples, B. More of them leave the first ones as they are.
        seed: of the draws.

    Returns:
        ``[B, I]`` int64; each row sums to I.

    Raises:
        ValueError: ``images`` or ``resamples`` below 1.
    """
    if images < 1 or resamples < 1:
        raise ValueError(
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

    Every resample is applied to all files alike, so that files can be paired. A class without a
    box in a resample takes part in no mean of it, for all files, and is itself NaN.

    Args:
        matches: of F result files with the same ground truth.
        counts: ``[B, I]`` multiplicities of the images, see :func:`draw_counts`.
        workers: threads; None: as many as there are cores for this process. They share the
            matches, and numpy computes without Python's lock. The result does not depend on it.

    Returns:
        ``[B, F]`` for each of METRICS and for ``AP/<class name>`` of each class.

    Raises:
        ValueError: no matches, matches of different ground truths, ``counts`` that do not fit, or
            ``workers`` below 1.
    """
    if not matches:
        raise ValueError("matches is empty: give the matches of at least one result file.")
    population = matches[0].population
    for index, other in enumerate(matches):
        if not population.same(other.population):
            raise ValueError(
                f"matches[{index}] is of another ground truth than matches[0]. Match all result "
                "files with the same annotation file."
            )
    if np.ndim(counts) != 2:
        raise ValueError(f"counts must be [B, I], got shape {list(np.shape(counts))}.")
    counts = check_counts(counts, population.images)
    workers = _cores() if workers is None else workers
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}.")

    def evaluate(weights: np.ndarray) -> np.ndarray:
        recalls = Recalls.of(population, weights)
        return np.stack([_values(found.weighted(weights, recalls)) for found in matches])

    if workers == 1:
        values = np.stack([evaluate(weights) for weights in counts])
    else:
        with ThreadPoolExecutor(workers) as pool:
            values = np.stack(list(pool.map(evaluate, counts)))
    names = [*METRICS, *(f"AP/{name}" for name in population.names)]
    return {name: values[..., index] for index, name in enumerate(names)}


def _values(ap: np.ndarray) -> np.ndarray:
    found = numbers(ap)
    return np.array([*(found[name] for name in METRICS), *ap[..., 0].mean(axis=0)])


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # Linux: those that this process may use
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
