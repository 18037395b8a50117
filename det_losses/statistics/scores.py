"""What is compared: one metric of one variant, by seed and by resample."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Scores:
    """One metric of one variant: on all images, and on resamples of them.

    Resample b is one draw of images with replacement. It is the same draw for all variants and all
    seeds: images are crossed with seeds.

    Attributes:
        seeds: the S seeds of the runs.
        full: [S], the metric on all images, in 0..1; NaN where there is no ground truth for it.
        resampled: [B, S], the metric on each draw; NaN where a draw holds no ground truth for it.

    Raises:
        ValueError: if a seed comes twice, the shapes do not fit, or a score is infinite.
    """

    seeds: tuple[int, ...]
    full: np.ndarray
    resampled: np.ndarray

    def __post_init__(self) -> None:
        seeds = tuple(self.seeds)
        full = np.asarray(self.full, dtype=np.float64)
        resampled = np.asarray(self.resampled, dtype=np.float64)
        if not seeds or len(set(seeds)) < len(seeds):
            raise ValueError(f"seeds must be one or more different numbers, got {seeds}")
        if full.shape != (len(seeds),):
            raise ValueError(f"full must have one score a seed, [{len(seeds)}], got {full.shape}")
        if resampled.ndim != 2 or resampled.shape[1] != len(seeds) or len(resampled) < 2:
            raise ValueError(
                f"resampled must be [resamples, {len(seeds)}] of at least 2 resamples, "
                f"got {resampled.shape}"
            )
        if np.isinf(full).any() or np.isinf(resampled).any():
            raise ValueError("full and resampled must be finite or NaN, got an infinite score")
        for name, value in (("seeds", seeds), ("full", full), ("resampled", resampled)):
            object.__setattr__(self, name, value)
