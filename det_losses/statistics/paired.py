"""Differences between variants, paired over seeds and images."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy.special import nctdtrinc, stdtr, stdtrit

from det_losses.errors import InputError
from det_losses.statistics.multiple import holm

POWER = 0.8
"""Power at which a difference is called detectable."""


@dataclass(frozen=True, eq=False)
class Scores:
    """One metric of one variant, on all images and on resamples of them.

    A resample draws images with replacement. Resample b is the same for all variants and seeds,
    because images are crossed with seeds.

    Attributes:
        seeds: the S seeds of the runs.
        full: [S], the metric on all images, in 0..1; NaN without ground truth.
        resampled: [B, S], the metric on each resample; NaN without ground truth.

    Raises:
        ValueError: a seed is repeated, the shapes do not match, or a score is infinite.
    """

    seeds: tuple[int, ...]
    full: np.ndarray
    resampled: np.ndarray

    def __post_init__(self) -> None:
        seeds = tuple(self.seeds)
        full = np.asarray(self.full, dtype=np.float64)
        resampled = np.asarray(self.resampled, dtype=np.float64)
        if not seeds or len(set(seeds)) < len(seeds):
            raise ValueError(f"seeds must be one or more distinct numbers, got {seeds}")
        if full.shape != (len(seeds),):
            raise ValueError(f"full must have one score per seed, [{len(seeds)}], got {full.shape}")
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
    """The difference between two variants, with its interval and p-values.

    Differences are in the unit of the metric (0..1). All numbers except `seeds` are NaN if the
    metric is undefined.

    Attributes:
        first: label of the first variant.
        second: label of the second variant.
        value: first minus second on all images, mean over the common seeds.
        se: standard error of `value`, over seeds and images.
        df: Welch-Satterthwaite degrees of freedom of `se`.
        low: lower end of the t interval, not adjusted for other tests.
        high: upper end of the interval.
        p: two-sided p-value, not adjusted.
        p_holm: p-value adjusted over its family of tests by Holm's method.
        seed_sd: standard deviation of the difference over seeds; None with one seed.
        image_se: standard error of `value` over images only.
        seeds: number of common seeds.
        detectable: the true difference that this test detects with 80% power
            (`minimal_detectable`).
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


class _Pair(NamedTuple):
    """Estimates of one pair, before any inference."""

    first: str
    second: str
    value: float
    seeds: int
    seed_sd: float | None
    image_se: float


def paired_differences(
    pairs: Sequence[tuple[str, str]],
    scores: Mapping[str, Scores],
    images: int,
    level: float = 0.95,
) -> list[Difference]:
    r"""Return the difference of each pair with its t interval; `p_holm` is over these pairs.

    With :math:`d_s` the difference of seed s on all images, :math:`d^*_b` the mean over seeds of
    the difference on resample b of the images, S seeds and I images:

    .. math::
        d = \bar d_s, \qquad
        \mathrm{SE}^2 = v_1 + v_2, \qquad
        v_1 = s^2(d_s) / S, \qquad v_2 = \mathrm{var}(d^*_b)

    The interval is :math:`d \pm t_\nu \mathrm{SE}` with Welch-Satterthwaite degrees of freedom:

    .. math::
        \nu = \frac{(v_1' + v_2)^2}{v_1'^2 / (S - 1) + v_2^2 / (I - 1)}

    where :math:`v_1'` is the larger of :math:`v_1` and :math:`1 / S` times the median of
    :math:`s^2` over the pairs. A variance over three seeds is often far too small by chance. The
    degrees of freedom are then far too large as well, exactly when the difference looks clear. A
    single pair has no other pairs for that median. In the worst case, with a variance over images
    of a tenth of that over seeds, 7.5% of its 95% intervals are false positives with three seeds,
    6% with five and 13% with two. At the small levels of Holm's correction over many pairs, the
    rates would be higher.

    If a pair has one seed in common and other pairs have more, :math:`v_1` is that median, with the
    degrees of freedom of the largest number of seeds: a single training has the same variance, but
    gives no estimate of it. If no pair has two seeds, :math:`v_1` is unknown and left out: the
    intervals then cover other images, but not other trainings. Resamples without ground truth for
    the metric are left out.

    The interaction of images and seeds (noise of single images in single runs, with variance
    :math:`c / (I S)` in d) is part of both :math:`v_1` and :math:`v_2`, so it is counted twice.
    This has no effect if seeds or images dominate. If there is only interaction, SE is too large by
    a factor of :math:`\sqrt 2`, and with three seeds 1.2% are false positives instead of 5%. All
    rates are measured in tests/statistics/test_simulation.py.

    Args:
        pairs: labels of the first and the second variant of each pair.
        scores: label -> scores, all on the same resamples of the images.
        images: number of evaluated images.
        level: coverage of the intervals.

    Raises:
        InputError: a pair has no seed in common.
        ValueError: the numbers of resamples of a pair differ.

    Reference: F. E. Satterthwaite, "An Approximate Distribution of Estimates of Variance
    Components", Biometrics Bulletin 2 (1946); crossed designs: A. B. Owen, "The Pigeonhole
    Bootstrap", Annals of Applied Statistics 1 (2007).
    """
    found = [_pair(first, second, scores) for first, second in pairs]
    spreads = [p.seed_sd for p in found if p.seed_sd is not None and not math.isnan(p.seed_sd)]
    median = float(np.median(np.square(spreads))) if spreads else 0.0
    max_seeds = max((p.seeds for p in found), default=1)
    return with_holm([_difference(pair, median, max_seeds, images, level) for pair in found])


def with_holm(family: Sequence[Difference]) -> list[Difference]:
    """Return the differences with `p_holm` adjusted over this family of tests."""
    adjusted = holm([difference.p for difference in family])
    return [replace(d, p_holm=float(p)) for d, p in zip(family, adjusted, strict=True)]


def minimal_detectable(se: float, df: float, level: float = 0.95) -> float:
    """Return the minimal detectable difference, (t.975 + t.80) SE.

    A single test detects a true difference of this size with 80% power. With few degrees of freedom
    the power is slightly lower: 77% at 2, 78% at 3, 79% at 4, 80% from 8 on (noncentral t). SE is
    itself an estimate, which is imprecise with few seeds.

    Args:
        se: standard error of the difference.
        df: degrees of freedom of ``se``.
        level: coverage of the interval.
    """
    return float(stdtrit(df, (1 + level) / 2) + stdtrit(df, POWER)) * se


def detectable_after_holm(difference: Difference, tests: int, level: float = 0.95) -> float:
    r"""Return the true difference that Holm's first step detects with 80% power.

    It is :math:`\lambda\,\mathrm{SE}`, where a noncentral t variable of noncentrality
    :math:`\lambda` exceeds the critical value at (1 - level) / (2 tests) with probability 80%.

    Args:
        difference: a difference with standard error and degrees of freedom.
        tests: number of tests in the family.
        level: 1 - level is the family-wise error rate.
    """
    critical = stdtrit(difference.df, 1 - (1 - level) / (2 * tests))
    return float(nctdtrinc(difference.df, 1 - POWER, critical)) * difference.se


def _pair(first: str, second: str, scores: Mapping[str, Scores]) -> _Pair:
    per_seed, draws = _common(first, second, scores)
    return _Pair(
        first,
        second,
        value=float(per_seed.mean()),
        seeds=len(per_seed),
        seed_sd=float(per_seed.std(ddof=1)) if len(per_seed) > 1 else None,
        image_se=float(draws.std(ddof=1)) if len(draws) > 1 else math.nan,
    )


def _difference(
    pair: _Pair, median: float, max_seeds: int, images: int, level: float
) -> Difference:
    """Return the difference of one pair with interval and p-value.

    Args:
        pair: estimates of the pair.
        median: median variance over seeds of all pairs.
        max_seeds: largest number of common seeds of a pair.
        images: number of images.
        level: coverage of the interval.
    """
    known_from = max_seeds if pair.seeds == 1 else pair.seeds
    v1 = median if pair.seed_sd is None else pair.seed_sd**2 / pair.seeds
    v2 = pair.image_se**2
    se = math.sqrt(v1 + v2)
    df = _degrees_of_freedom(max(v1, median / pair.seeds), known_from, v2, images)
    if math.isnan(pair.value) or math.isnan(se):
        se = df = half = p = math.nan
    elif se == 0:
        half, p = 0.0, float(pair.value == 0)
    else:
        half = float(stdtrit(df, (1 + level) / 2)) * se
        p = 2 * float(stdtr(df, -abs(pair.value) / se))
    return Difference(
        first=pair.first,
        second=pair.second,
        value=pair.value,
        se=se,
        df=df,
        low=pair.value - half,
        high=pair.value + half,
        p=p,
        p_holm=p,
        seed_sd=pair.seed_sd,
        image_se=pair.image_se,
        seeds=pair.seeds,
        detectable=minimal_detectable(se, df, level),
    )


def _degrees_of_freedom(v1: float, seeds: int, v2: float, images: int) -> float:
    if seeds == 1 or not v1 + v2 > 0:
        return images - 1.0
    share = v1 / (v1 + v2)
    return 1 / (share**2 / (seeds - 1) + (1 - share) ** 2 / (images - 1))


def _common(first: str, second: str, scores: Mapping[str, Scores]) -> tuple[np.ndarray, np.ndarray]:
    """Return the differences per common seed, [S], and per valid resample, [up to B]."""
    a, b = scores[first], scores[second]
    seeds = [seed for seed in a.seeds if seed in b.seeds]
    if not seeds:
        raise InputError(
            f"{first} (seeds {_listed(a)}) and {second} (seeds {_listed(b)}) have no seed in "
            "common: run both with the same seeds"
        )
    if len(a.resampled) != len(b.resampled):
        raise ValueError(
            f"{first} has {len(a.resampled)} resamples and {second} {len(b.resampled)}: "
            "all variants need the same resamples"
        )
    in_a, in_b = ([s.seeds.index(seed) for seed in seeds] for s in (a, b))
    draws = (a.resampled[:, in_a] - b.resampled[:, in_b]).mean(axis=1)
    return a.full[in_a] - b.full[in_b], draws[~np.isnan(draws)]


def _listed(scores: Scores) -> str:
    return ", ".join(map(str, scores.seeds))
