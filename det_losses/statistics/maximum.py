r"""The largest of several t statistics: p-values and critical values of families of tests.

The losses' means are independent and have equal variances, so any two differences to the same
loss have the correlation 1/2. The estimate of the variance is shared and has :math:`\nu` degrees
of freedom, which need not be an integer. With :math:`s = \sqrt{\chi^2_\nu / \nu}`,

.. math::
    P(\max T \le c) = \int f_\nu(s)\, H(c s)\, ds

where H is the distribution of the maximum with known variance. For k losses beside a reference:

.. math::
    H(a) = \int \varphi(z)\, [\Phi(z + \sqrt 2 a) - \Phi(z - \sqrt 2 a)]^k\, dz
    &\quad \text{two-sided, Dunnett} \\
    H(a) = \int \varphi(z)\, \Phi(z + \sqrt 2 a)^k\, dz
    &\quad \text{one-sided, Dunnett and Hsu} \\
    H(a) = (k + 1) \int \varphi(z)\, [\Phi(z + \sqrt 2 a) - \Phi(z)]^k\, dz
    &\quad \text{all pairs, Tukey's studentized range divided by } \sqrt 2

Both integrals are trapezoidal sums, the outer one over log s. For such smooth integrands with
vanishing tails these converge exponentially.

References: C. W. Dunnett, "A Multiple Comparison Procedure for Comparing Several Treatments with a
Control", JASA 50 (1955). J. C. Hsu, "Simultaneous Confidence Intervals for All Distances from the
'Best'", Annals of Statistics 9 (1981). J. W. Tukey, "The Problem of Multiple Comparisons" (1953).
"""

import math
from enum import Enum
from functools import cache

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.special import gammainccinv, gammaincinv, gammaln, ndtr, stdtr, stdtrit

_LARGEST = 9.0  # H is 1 beyond it
_NODES = 64  # of the outer integral
_STEPS = 12  # of the solution for a critical value


class Family(Enum):
    """Which statistics are tested together."""

    BASELINE = "two-sided, all losses against one"
    BEST = "one-sided, all losses against one"
    PAIRS = "two-sided, all pairs of losses"


def survival(t: np.ndarray, family: Family, losses: int, df: np.ndarray) -> np.ndarray:
    """Return P(max T >= t): the adjusted p-value of each statistic of a family.

    Args:
        t: statistics, in absolute value if the family is two-sided; below 0 counts as 0.
        family: what is tested together.
        losses: number of losses, at least 2; the reference counts.
        df: degrees of freedom of each statistic's standard error, at least 0.5.

    Returns:
        Values in the shape of ``t`` and ``df`` broadcast; NaN where one of them is NaN.
    """
    t, df = np.broadcast_arrays(np.asarray(t, dtype=float), np.asarray(df, dtype=float))
    if losses == 2:
        return (1 if family is Family.BEST else 2) * stdtr(df, -np.maximum(t, 0))
    known = ~(np.isnan(t) | np.isnan(df))
    distinct, index = np.unique(df[known], return_inverse=True)
    scales, weights = _scales(distinct)
    maximum = _known_variance(family, losses)
    found = np.full(t.shape, np.nan)
    inside = _mixed(np.maximum(t[known], 0), maximum, scales[index], weights[index])
    found[known] = np.clip(1 - inside, 0, 1)
    return found


def critical(error: float | np.ndarray, family: Family, losses: int, df: np.ndarray) -> np.ndarray:
    """Return c such that P(max T >= c) is ``error``.

    Args:
        error: family-wise error, above 0 and below 0.5.
        family: what is tested together.
        losses: number of losses, at least 2; the reference counts.
        df: degrees of freedom, at least 0.5.

    Returns:
        Values in the shape of ``error`` and ``df`` broadcast; NaN where df is NaN.
    """
    df, error = np.broadcast_arrays(np.asarray(df, dtype=float), np.asarray(error, dtype=float))
    known = ~np.isnan(df)
    distinct, index = np.unique(np.stack([df[known], error[known]]), axis=1, return_inverse=True)
    found = np.full(df.shape, np.nan)
    found[known] = _solved(distinct[1], family, losses, distinct[0])[index.ravel()]
    return found


def _solved(error: np.ndarray, family: Family, losses: int, df: np.ndarray) -> np.ndarray:
    """Return critical values by the Illinois method: false position without a stuck end.

    They lie between the critical value of a single test and Bonferroni's.
    """
    sides = 1 if family is Family.BEST else 2
    tests = math.comb(losses, 2) if family is Family.PAIRS else losses - 1
    low, high = (stdtrit(df, 1 - error / (sides * n)) for n in (1, tests))
    if tests == 1:
        return low
    scales, weights = _scales(df)
    maximum = _known_variance(family, losses)

    def excess(c: np.ndarray) -> np.ndarray:
        return 1 - _mixed(c, maximum, scales, weights) - error

    at_low, at_high = excess(low), excess(high)
    side = np.zeros(df.shape)  # 1 where the last step moved the low end, -1 the high end
    for _ in range(_STEPS):
        width = np.where(at_low > at_high, at_low - at_high, np.inf)
        middle = low + (high - low) * at_low / width
        at_middle = excess(middle)
        above = at_middle > 0  # the error is still too large, so c is larger
        at_high = np.where(above, np.where(side == 1, at_high / 2, at_high), at_middle)
        at_low = np.where(above, at_middle, np.where(side == -1, at_low / 2, at_low))
        low, high = np.where(above, middle, low), np.where(above, high, middle)
        side = np.where(above, 1, -1)
    return middle


@cache
def _known_variance(family: Family, losses: int) -> CubicSpline:
    """Return H of the module's docstring on 0.._LARGEST."""
    z, others = np.linspace(-8.5, 8.5, 171), losses - 1
    a = np.linspace(0, _LARGEST, 361)
    above = ndtr(z + math.sqrt(2) * a[:, None])
    if family is Family.BEST:
        inner = above**others
    elif family is Family.BASELINE:
        inner = (above - ndtr(z - math.sqrt(2) * a[:, None])) ** others
    else:
        inner = losses * (above - ndtr(z)) ** others
    density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    return CubicSpline(a, inner @ density * (z[1] - z[0]))


def _scales(df: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return nodes and weights of the distribution of s, [..., _NODES], equally spaced in log s."""
    half = np.minimum(df, 1e6)[..., None] / 2
    low = np.log(gammaincinv(half, 1e-8) / half) / 2
    high = np.log(gammainccinv(half, 1e-10) / half) / 2
    at = low + (high - low) * np.linspace(0, 1, _NODES)
    density = 2 * np.exp(
        half * np.log(half) - gammaln(half) + 2 * half * at - half * np.exp(2 * at)
    )
    weights = density * (high - low) / (_NODES - 1)
    return np.exp(at), weights / weights.sum(axis=-1, keepdims=True)


def _mixed(
    t: np.ndarray, maximum: CubicSpline, scales: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    inner = maximum(np.minimum(t[..., None] * scales, _LARGEST))
    return np.einsum("...s,...s->...", inner, weights)
