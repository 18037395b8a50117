"""The difference of two variants, paired over seeds and images."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy.special import nctdtrinc, stdtr, stdtrit

from det_losses.statistics.multiple import holm
from det_losses.statistics.scores import Scores

POWER = 0.8
"""Power of the differences that are called detectable."""


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


class _Pair(NamedTuple):
    """What the scores of two variants say, before any inference."""

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
    the difference on draw b of the images, S seeds and I images:

    .. math::
        d = \bar d_s, \qquad
        \mathrm{SE}^2 = v_1 + v_2, \qquad
        v_1 = s^2(d_s) / S, \qquad v_2 = \mathrm{var}(d^*_b)

    The interval is :math:`d \pm t_\nu \mathrm{SE}` with Welch-Satterthwaite degrees of freedom:

    .. math::
        \nu = \frac{(v_1' + v_2)^2}{v_1'^2 / (S - 1) + v_2^2 / (I - 1)}

    where :math:`v_1'` is :math:`v_1`, or the median over the pairs of :math:`s^2`, over S, where
    that is larger. By luck a variance over three seeds is often far too small; its degrees of
    freedom are then far too many as well, just when the difference looks clear. Alone, a pair has
    no other pairs to borrow from: where the variance over images is a tenth of that over seeds, the
    worst case, 7.5% of its 95% intervals are false alarms with three seeds, 6% with five and 13%
    with two. At the small levels of Holm's correction over many pairs it would be far worse.

    Where a pair has one seed in common and others have more, :math:`v_1` is that median, with the
    degrees of freedom of the most seeds: one training more says nothing about the spread, but it
    has no less of it. If no pair has two seeds, :math:`v_1` is unknown and left out: intervals are
    then about other images for these trainings, not about other trainings. Draws without ground
    truth for the metric are left out.

    The noise of single images in single runs (the interaction of images and seeds, of variance
    :math:`c / (I S)` in d) is in both :math:`v_1` and :math:`v_2`, so it is counted twice. Where
    seeds or images dominate that does not show. Where the interaction is all there is, SE is
    :math:`\sqrt 2` times too long, and 1.2% are false alarms instead of 5% with three seeds. All
    rates are measured in tests/statistics/test_simulation.py.

    Args:
        pairs: labels of the first and the second variant of each.
        scores: label -> scores, all of the same draws of images.
        images: number of evaluated images.
        level: coverage of the intervals.

    Raises:
        ValueError: if a pair shares no seed, or its numbers of draws differ.

    Reference: F. E. Satterthwaite, "An Approximate Distribution of Estimates of Variance
    Components", Biometrics Bulletin 2 (1946); crossed designs: A. B. Owen, "The Pigeonhole
    Bootstrap", Annals of Applied Statistics 1 (2007).
    """
    found = [_pair(first, second, scores) for first, second in pairs]
    spreads = [p.seed_sd for p in found if p.seed_sd is not None and not math.isnan(p.seed_sd)]
    usual = float(np.median(np.square(spreads))) if spreads else 0.0
    seeds = max((p.seeds for p in found), default=1)
    return with_holm([_difference(pair, usual, seeds, images, level) for pair in found])


def with_holm(family: Sequence[Difference]) -> list[Difference]:
    """Return the differences with `p_holm` adjusted over this family."""
    adjusted = holm([difference.p for difference in family])
    return [replace(d, p_holm=float(p)) for d, p in zip(family, adjusted, strict=True)]


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


def detectable_after_holm(difference: Difference, tests: int, level: float = 0.95) -> float:
    r"""Return the true difference that Holm's first step detects with 80% power.

    It is :math:`\lambda\,\mathrm{SE}`, where a noncentral t variable of noncentrality
    :math:`\lambda` exceeds the critical value at (1 - level) / (2 tests) with probability 80%.

    Args:
        difference: gives the standard error and its degrees of freedom.
        tests: size of the family.
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


def _difference(pair: _Pair, usual: float, most: int, images: int, level: float) -> Difference:
    """Infer from one pair; the variance over seeds that pairs of `most` seeds have is `usual`."""
    known_from = most if pair.seeds == 1 else pair.seeds
    v1 = usual if pair.seed_sd is None else pair.seed_sd**2 / pair.seeds
    v2 = pair.image_se**2
    se = math.sqrt(v1 + v2)
    df = _degrees_of_freedom(max(v1, usual / pair.seeds), known_from, v2, images)
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
