"""The difference of two variants, paired over seeds and images."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit

POWER = 0.8
"""Power of the differences that are called detectable."""


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


@dataclass(frozen=True)
class Difference:
    """How much better the first variant is than the second, and how sure that is.

    All differences are in the metric's own unit (0..1). Every number but `seeds` is NaN where the
    metric is not defined.

    Attributes:
        first: label of the first variant.
        second: label of the second one.
        value: mean over the common seeds of first minus second, on all images.
        se: standard error of `value`, over seeds and images.
        df: Welch-Satterthwaite degrees of freedom of `se`.
        low: lower end of the t interval, for this difference alone.
        high: upper end of it.
        p: two-sided p-value, for this difference alone.
        p_holm: p-value within its family of tests, by Holm.
        seed_sd: standard deviation of the difference over seeds; None with one seed.
        image_se: standard error of `value` over images only.
        seeds: number of common seeds.
        detectable: the smallest difference that such a test would find (`minimal_detectable`).
    """

    first: str
    second: str
    value: float
    se: float
    df: float
    low: float
    high: float
    p: float
    p_holm: float
    seed_sd: float | None
    image_se: float
    seeds: int
    detectable: float


def paired_difference(
    first: str, second: str, scores: Mapping[str, Scores], images: int, level: float = 0.95
) -> Difference:
    r"""Return the difference of two variants with its t interval; `p_holm` is that of one test.

    With :math:`d_s` the difference of seed s on all images, :math:`d^*_b` the mean over seeds of
    the difference on draw b of the images, S seeds and I images:

    .. math::
        d = \bar d_s, \qquad
        \mathrm{SE}^2 = v_1 + v_2, \qquad
        v_1 = s^2(d_s) / S, \qquad v_2 = \mathrm{var}(d^*_b), \qquad
        \nu = \frac{(v_1 + v_2)^2}{v_1^2 / (S - 1) + v_2^2 / (I - 1)}

    The interval is :math:`d \pm t_\nu \mathrm{SE}`. With one seed :math:`v_1` is unknown and left
    out: the interval is then about other images for these two trainings, not about other trainings.
    Draws without ground truth for the metric are left out.

    The noise of single images in single runs (the interaction of images and seeds, of variance
    :math:`c / (I S)` in d) is in both :math:`v_1` and :math:`v_2`, so it is counted twice. Where
    seeds or images dominate that does not show. Where the interaction is all there is, the
    standard error is :math:`\sqrt 2` times too long and the interval errs on the safe side:
    tests/statistics/test_simulation.py measures 0.9% false alarms instead of 5% with three seeds.

    Args:
        first: label of the first variant.
        second: label of the second one.
        scores: label -> scores, all of the same draws of images.
        images: number of evaluated images.
        level: coverage of the interval.

    Raises:
        ValueError: if the two share no seed, or their numbers of draws differ.

    Reference: F. E. Satterthwaite, "An Approximate Distribution of Estimates of Variance
    Components", Biometrics Bulletin 2 (1946); crossed designs: A. B. Owen, "The Pigeonhole
    Bootstrap", Annals of Applied Statistics 1 (2007).
    """
    per_seed, draws = _common(first, second, scores)
    value, seeds = float(per_seed.mean()), len(per_seed)
    seed_sd = float(per_seed.std(ddof=1)) if seeds > 1 else None
    image_se = float(draws.std(ddof=1)) if len(draws) > 1 else math.nan
    se, df = standard_error(seed_sd, seeds, image_se, images)
    if math.isnan(value) or math.isnan(se):
        se = df = half = p = math.nan
    elif se == 0:
        half, p = 0.0, float(value == 0)
    else:
        half = float(stdtrit(df, (1 + level) / 2)) * se
        p = 2 * float(stdtr(df, -abs(value) / se))
    return Difference(
        first=first,
        second=second,
        value=value,
        se=se,
        df=df,
        low=value - half,
        high=value + half,
        p=p,
        p_holm=p,
        seed_sd=seed_sd,
        image_se=image_se,
        seeds=seeds,
        detectable=minimal_detectable(se, df, level),
    )


def standard_error(
    seed_sd: float | None, seeds: int, image_se: float, images: int
) -> tuple[float, float]:
    """Return the standard error over seeds and images, and its degrees of freedom.

    Args:
        seed_sd: standard deviation of the difference over seeds; None with one seed.
        seeds: number of seeds.
        image_se: standard error of the mean difference over images.
        images: number of images.
    """
    if seed_sd is None:
        return image_se, images - 1.0
    v1, v2 = seed_sd**2 / seeds, image_se**2
    if not v1 + v2 > 0:
        return v1 + v2, images - 1.0
    share = v1 / (v1 + v2)
    return math.sqrt(v1 + v2), 1 / (share**2 / (seeds - 1) + (1 - share) ** 2 / (images - 1))


def minimal_detectable(se: float, df: float, level: float = 0.95) -> float:
    """Return the minimal detectable difference, (t.975 + t.80) SE.

    A true difference of this size is found by a single test with 80% power. With few degrees of
    freedom the formula is a little short: 77% at 2, 78% at 3, 79% at 4, 80% from 8 on (noncentral
    t). SE is itself an estimate, a rough one from few seeds.

    Args:
        se: standard error of the difference.
        df: its degrees of freedom.
        level: coverage of the interval.
    """
    return float(stdtrit(df, (1 + level) / 2) + stdtrit(df, POWER)) * se


def _common(first: str, second: str, scores: Mapping[str, Scores]) -> tuple[np.ndarray, np.ndarray]:
    """Return the differences of the common seeds, [S], and of the usable draws, [up to B]."""
    a, b = scores[first], scores[second]
    seeds = [seed for seed in a.seeds if seed in b.seeds]
    if not seeds:
        raise ValueError(
            f"{first} (seeds {_listed(a)}) and {second} (seeds {_listed(b)}) have no seed in "
            "common: run both with the same seeds"
        )
    if len(a.resampled) != len(b.resampled):
        raise ValueError(
            f"{first} has {len(a.resampled)} resamples and {second} {len(b.resampled)}: "
            "resample all variants with the same draws of images"
        )
    in_a, in_b = ([s.seeds.index(seed) for seed in seeds] for s in (a, b))
    draws = (a.resampled[:, in_a] - b.resampled[:, in_b]).mean(axis=1)
    return a.full[in_a] - b.full[in_b], draws[~np.isnan(draws)]


def _listed(scores: Scores) -> str:
    return ", ".join(map(str, scores.seeds))
