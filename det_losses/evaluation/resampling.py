"""Bootstrap over the images: COCO metrics of several result files on resamples."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from det_losses.errors import InputError
from det_losses.evaluation.average_precision import Matches, Resample, check_counts
from det_losses.evaluation.metrics import METRICS
from det_losses.evaluation.summary import ap_numbers

_AT_ONCE = 256  # resamples that a thread processes at once; they take about 200 MiB for COCO


def draw_counts(images: int, resamples: int, seed: int = 0) -> np.ndarray:
    """Draw the multiplicity of each image in each resample with replacement.

    Args:
        images: number of images, I.
        resamples: number of resamples, B. The first ones do not depend on it.
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
    """Compute the metrics of each result file on each resample.

    The same resamples are applied to all files, so that files can be paired. A class without boxes
    in a resample is NaN and excluded from its means, for all files.

    Args:
        matches: matches of F result files with the same ground truth.
        counts: ``[B, I]`` multiplicities of the images, see :func:`draw_counts`.
        workers: number of threads, each of which processes one file after the other; None: one
            per core that this process may use. The result does not depend on it.

    Returns:
        ``[B, F]`` for each of METRICS and for ``AP/<class name>`` of each class.

    Raises:
        InputError: no matches, matches of different ground truths, ``counts`` that do not fit, or
            ``workers`` below 1.
    """
    if not matches:
        raise InputError("matches is empty; at least one result file is required.")
    population = matches[0].population
    for index, other in enumerate(matches):
        if not population.same(other.population):
            raise InputError(
                f"matches[{index}] and matches[0] have different ground truths. Match all result "
                "files with the same annotation file."
            )
    if np.ndim(counts) != 2:
        raise InputError(f"counts must be [B, I], got shape {list(np.shape(counts))}.")
    counts = check_counts(counts, population.images)
    workers = _cores() if workers is None else workers
    if workers < 1:
        raise InputError(f"workers must be at least 1, got {workers}.")

    count = -(-len(counts) // _AT_ONCE)
    parts = [Resample.of(population, part) for part in np.array_split(counts, count)]

    def evaluate(matched: Matches) -> list[np.ndarray]:
        return list(ap_numbers(matched.resampled(parts), population.names).values())

    if workers == 1:
        values = [evaluate(matched) for matched in matches]
    else:
        with ThreadPoolExecutor(workers) as pool:
            values = list(pool.map(evaluate, matches))
    names = [*METRICS, *(f"AP/{name}" for name in population.names)]
    return dict(zip(names, np.stack(values, axis=-1), strict=True))


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # Linux: the cores that this process may use
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
