"""Arrays with gaps, and long arrays made short."""

import numpy as np


def nan_mean(values: np.ndarray, axis: int = 0) -> np.ndarray:
    """Return the mean over ``axis`` of what is known; NaN, without a warning, where nothing is.

    >>> nan_mean([[1.0, float("nan")], [3.0, float("nan")]]).tolist()
    [2.0, nan]
    """
    values = np.asarray(values, float)
    known = ~np.isnan(values)
    count = known.sum(axis)
    total = np.where(known, values, 0.0).sum(axis)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def block_means(values: np.ndarray, blocks: int) -> np.ndarray:
    """Shorten an array by taking the mean of neighbours.

    >>> block_means(np.array([1.0, 3.0, 5.0, 7.0]), 2).tolist()
    [2.0, 6.0]

    Args:
        values: ``[N]``.
        blocks: length of the result, if ``values`` is longer.
    """
    if len(values) <= blocks:
        return values
    return np.array([part.mean() for part in np.array_split(values, blocks)])
