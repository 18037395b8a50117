"""Families of tests on the differences of all pairs: standard errors, p-values, candidates."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import nctdtrinc

from det_losses.statistics.estimates import Estimates
from det_losses.statistics.maximum import Family, critical, survival

POWER = 0.8
"""Power of the differences that are called detectable."""

_SMALLEST = 1e-12  # p-value that is found by bisection
_HALVINGS = 32


@dataclass(frozen=True, eq=False)
class Spread:
    r"""Standard errors of differences, from a variance over seeds and one over images.

    The degrees of freedom are Satterthwaite's. Where they are poor, with two seeds, Cochran and Cox
    replace the critical value by the mean of the two parts' own, weighted by their variances.

    .. math::
        \nu' = \frac{(v_1 + v_c)^2}{v_1^2 / \nu + v_c^2 / (I - 1)}, \qquad
        c = \frac{v_1 c(\nu) + v_c c(I - 1)}{v_1 + v_c}

    Attributes:
        seed: v_1, 0 where it is unknown.
        seed_df: nu.
        image: v_c.
        images: I.
        cochran_cox: whether to use Cochran and Cox's critical values.

    References: F. E. Satterthwaite, "An Approximate Distribution of Estimates of Variance
    Components", Biometrics Bulletin 2 (1946); W. G. Cochran and G. M. Cox, "Experimental Designs"
    (1957), section 4.14.
    """

    seed: np.ndarray
    seed_df: np.ndarray
    image: np.ndarray
    images: int
    cochran_cox: bool = False

    @property
    def se(self) -> np.ndarray:
        """Standard errors."""
        return np.sqrt(self.seed + self.image)

    @cached_property
    def df(self) -> np.ndarray:
        """Satterthwaite's degrees of freedom; I - 1 where the variance over seeds is unknown."""
        seed, image = self.seed, self.image
        with np.errstate(invalid="ignore", divide="ignore"):
            both = (seed + image) ** 2 / (seed**2 / self.seed_df + image**2 / (self.images - 1))
        alone = np.where(np.isnan(image), np.nan, self.images - 1.0)
        return np.where(seed > 0, both, alone)

    def at(self, *index: object) -> "Spread":
        """Return the part at an index of the last two dimensions."""
        part = (..., *index)
        return Spread(
            self.seed[part], self.seed_df[part], self.image[part], self.images, self.cochran_cox
        )

    def critical(self, error: float | np.ndarray, family: Family, losses: int) -> np.ndarray:
        """Return the critical values of a family of tests."""
        if not self.cochran_cox:
            return critical(error, family, losses, self.df)
        known = self.seed > 0
        of_seeds = critical(error, family, losses, np.where(known, self.seed_df, np.nan))
        of_images = critical(error, family, losses, np.full(self.df.shape, self.images - 1.0))
        total = np.where(known, self.seed + self.image, 1)
        weighted = (self.seed * of_seeds + self.image * of_images) / total
        return np.where(known, weighted, of_images)

    def p(self, difference: np.ndarray, family: Family, losses: int) -> np.ndarray:
        """Return the error whose critical value is |difference| / SE; NaN if it cannot be tested.

        It is the adjusted p-value: below the error if and only if the interval excludes zero.
        Without a variance over seeds there is no test.
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            t = np.where(self.seed > 0, abs(difference) / self.se, np.nan)
        if not self.cochran_cox:
            return survival(t, family, losses, self.df)
        alone = np.stack(
            [survival(t, family, losses, df) for df in (self.seed_df, self.images - 1.0)]
        )
        low, high = np.log(np.clip([alone.min(axis=0), alone.max(axis=0)], _SMALLEST, 1))
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            beyond = self.critical(np.exp(middle), family, losses) > t
            low, high = np.where(beyond, middle, low), np.where(beyond, high, middle)
        return np.where(np.isnan(t), np.nan, np.exp((low + high) / 2))


@dataclass(frozen=True, eq=False)
class Families:
    r"""The families of tests on the same estimates.

    Arrays [..., r, j] are of loss j minus the reference r, as in :class:`Estimates`.

    Attributes:
        estimates: differences and variances.
        baseline: index of the baseline.
    """

    estimates: Estimates
    baseline: int

    @property
    def losses(self) -> int:
        """Number of losses."""
        return self.estimates.common.shape[0]

    @cached_property
    def by_reference(self) -> Spread:
        """[..., L, L], with the pooled variance of each reference's own differences.

        The row of the baseline serves the comparison with it, all rows that with the best.
        """
        own = self.estimates
        return self._spread(own.seed(own.pooled[..., :, None]), own.df[:, None])

    @cached_property
    def of_pairs(self) -> Spread:
        """[..., L, L], all with the pooled variance of the differences to the baseline."""
        own, r = self.estimates, self.baseline
        return self._spread(own.seed(own.pooled[..., r, None, None]), own.df[r])

    def best(self, error: float) -> tuple[np.ndarray, np.ndarray]:
        r"""Return which losses may be the best, and their regret bounds: Hsu's comparisons.

        Each loss i in turn is the reference, with Dunnett's one-sided critical value c. It is a
        candidate if

        .. math::
            \min_{j \ne i} (y_i - y_j + c\, \mathrm{SE}_{ij}) > 0

        and its regret bound is the largest :math:`(y_j - y_i + c\, \mathrm{SE}_{ji})^+` over the
        other candidates j, with the standard error and c of the reference j. The probability that
        the best loss is no candidate, or is better than some loss by more than the regret bound of
        that loss, is at most `error`. A loss is not excluded without a variance over seeds.

        Args:
            error: above 0, below 0.5.

        Returns:
            [..., L] bool and [..., L]; the regret of what is no candidate counts too.

        References: J. C. Hsu, "Simultaneous Confidence Intervals for All Distances from the
        'Best'", Annals of Statistics 9 (1981); D. G. Edwards and J. C. Hsu, "Multiple Comparisons
        with the Best Treatment", JASA 78 (1983), for unequal variances.
        """
        spread, value = self.by_reference, self.estimates.value
        half = spread.critical(error, Family.BEST, self.losses) * spread.se
        itself = np.eye(self.losses, dtype=bool)
        behind = (value >= half) & (spread.seed > 0) & ~itself
        candidate = ~behind.any(axis=-1)
        # value[i, j] = y_j - y_i, half[j, i] has the reference j
        ahead = np.where(itself, 0, value + np.swapaxes(half, -1, -2))
        return candidate, np.where(candidate[..., None, :], np.maximum(ahead, 0), 0).max(axis=-1)

    def _spread(self, seed: np.ndarray, df: np.ndarray) -> Spread:
        own = self.estimates
        most = int(own.common[~np.eye(self.losses, dtype=bool)].max(initial=0))
        df = np.broadcast_to(df, seed.shape)
        return Spread(seed, df, own.image, own.images, cochran_cox=most == 2)


def detectable_difference(se: np.ndarray, df: np.ndarray, threshold: np.ndarray) -> np.ndarray:
    r"""Return the true difference that a test detects with 80% power.

    It is :math:`\lambda\,\mathrm{SE}`, where a noncentral t variable of noncentrality
    :math:`\lambda` exceeds the critical value with probability 80%.

    Args:
        se: standard error of the difference.
        df: its degrees of freedom.
        threshold: critical value of the family that is tested.
    """
    return nctdtrinc(df, 1 - POWER, threshold) * se
