"""All statistics of one metric: differences to the baseline, candidates for the best, groups."""

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import NamedTuple

import numpy as np

from det_losses.errors import InputError
from det_losses.statistics.cautions import Caution, find_cautions
from det_losses.statistics.estimates import Scores, by_fold, estimate, table
from det_losses.statistics.families import Families, Spread, detectable_difference
from det_losses.statistics.letters import letters
from det_losses.statistics.looks import look_error
from det_losses.statistics.maximum import Family

_MOST_SEEDS = 1000


@dataclass(frozen=True)
class Summary:
    """A variant's score.

    Attributes:
        label: the variant.
        mean: mean over seeds, on all images; NaN if the metric is undefined. If runs are missing,
            the least-squares mean of the model loss + seed: the mean that all seeds would give.
        sd: standard deviation over the variant's own seeds; None with one seed.
        seeds: number of its seeds.
    """

    label: str
    mean: float
    sd: float | None
    seeds: int


@dataclass(frozen=True)
class Difference:
    """The difference between two variants, with its interval and p-value within a family.

    Differences are in the metric's own unit (0..1). Interval and p-value cannot disagree: p is
    below the error if and only if the interval excludes zero. All numbers except `seeds` are NaN if
    the metric is undefined. Without an estimate of the variance over seeds (one seed, or runs that
    are identical for all seeds) p and `detectable` are NaN, and the interval is for other images
    with the same trained models.

    Attributes:
        first: label of the first variant.
        second: label of the second one.
        value: first minus second on all images.
        se: standard error of `value`, over seeds and images.
        df: Satterthwaite's degrees of freedom of `se`.
        critical: critical value of the family; low, high = value -+ critical * se, cut at -1 and 1.
        low: lower end of the simultaneous interval.
        high: upper end of it.
        p: two-sided p-value, adjusted for the family.
        seed_se: part of `se` from seeds; se^2 = seed_se^2 + image_se^2.
        image_se: part of `se` from images.
        seeds: number of common seeds, or of common folds.
        detectable: true difference that the family's test detects with 80% power.
    """

    first: str
    second: str
    value: float
    se: float
    df: float
    critical: float
    low: float
    high: float
    p: float
    seed_se: float
    image_se: float
    seeds: int
    detectable: float


class Detectable(NamedTuple):
    """True differences to the baseline that are detected with 80% power.

    Attributes:
        median: of the variants.
        low: of the variant with the smallest standard error.
        high: of the variant with the largest.
    """

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Precision:
    """What determines the standard error of a typical difference, to plan further seeds.

    Attributes:
        losses: number of variants with a score.
        seed_variance: of a per-seed difference, median of the variants.
        image_variance: of a difference over images, median of the variants.
        images: number of images.
        error: family-wise error.
        folds: number of folds; None if all runs are evaluated on the same images.
    """

    losses: int
    seed_variance: float
    image_variance: float
    images: int
    error: float
    folds: int | None = None

    def with_seeds(self, seeds: int, family: Family) -> tuple[float, float, float]:
        """Return standard error, degrees of freedom and critical value with that many seeds.

        Further runs on the same folds count as no gain, because it is not known how much of the
        variance is that of the images.
        """
        others, overlap = self.losses - 1, 0.0
        if self.folds is not None:
            seeds, overlap = min(seeds, self.folds), 1 / (self.folds - 1)
        v1 = self.seed_variance * (1 / seeds + overlap)
        df = 4 * others * (seeds - 1) / (others + 3)
        parts = map(np.asarray, (v1, df, self.image_variance))
        spread = Spread(*parts, self.images, cochran_cox=seeds == 2)
        c = spread.critical(self.error, family, self.losses)
        return float(spread.se), float(spread.df), float(c)


@dataclass(frozen=True)
class Verdict:
    """The statistics of one metric for a set of variants.

    There are three families of tests. Each has the family-wise error `error`: all variants against
    the baseline (Dunnett), all pairs (Tukey, for the groups), and all variants against the unknown
    best (Hsu, for the candidates).

    Attributes:
        metric: name of the metric, such as "AP".
        baseline: label of the baseline.
        images: number of evaluated images.
        level: coverage of all looks together.
        error: family-wise error of these tests: 1 - level, or the share of the look.
        within: differences up to this one do not matter.
        tested: whether the variance over seeds is known, so that anything can be concluded about
            trainings. If not, there are no p-values, letters or candidates.
        summaries: the variants, best first.
        against_baseline: every other variant minus the baseline, best variant first.
        pairs: all pairs, the better variant first.
        letters: label -> groups; two variants share a letter if and only if their difference in
            `pairs` is not significant. Empty for a variant without a score.
        regrets: the variants that may be the best, best first -> regret bound: by how much the best
            variant may be better than this one.
        detectable: true differences to the baseline that are detected with 80% power; NaN if not
            tested.
        precision: for planning; None if not tested.
        cautions: what may make these results unreliable.
        folds: number of folds; None if all runs are evaluated on the same images.
    """

    metric: str
    baseline: str
    images: int
    level: float
    error: float
    within: float
    tested: bool
    summaries: tuple[Summary, ...]
    against_baseline: tuple[Difference, ...]
    pairs: tuple[Difference, ...]
    letters: dict[str, str]
    regrets: dict[str, float]
    detectable: Detectable
    precision: Precision | None
    cautions: tuple[Caution, ...]
    folds: int | None = None

    @property
    def candidates(self) -> tuple[str, ...]:
        """The variants that may be the best, best first; none if not tested."""
        return tuple(self.regrets)

    @property
    def leader(self) -> str | None:
        """The candidate with the highest mean; None if not tested."""
        return next(iter(self.regrets), None)

    @property
    def regret(self) -> float:
        """By how much the best variant may be better than the leader; NaN if not tested."""
        return self.regrets[self.leader] if self.leader is not None else math.nan

    @property
    def decided(self) -> bool:
        """Whether choosing the leader costs at most `within`."""
        return self.regret <= self.within

    @property
    def interchangeable(self) -> tuple[str, ...]:
        """The candidates that cost at most `within`: any of them can be chosen."""
        return tuple(label for label, bound in self.regrets.items() if bound <= self.within)

    @property
    def equivalent(self) -> tuple[Difference, ...]:
        """The pairs whose whole interval is within `within`."""
        return tuple(
            d
            for d in self.pairs
            if not math.isnan(d.p) and max(abs(d.low), abs(d.high)) <= self.within
        )

    def differs(self, difference: Difference) -> bool:
        """Return whether a difference is significant within its family of tests."""
        return difference.p < self.error

    def difference(self, first: str, second: str) -> Difference:
        """Return first minus second, of the family of all pairs.

        Raises:
            InputError: the two are not a pair of this comparison.
        """
        for pair in self.pairs:
            if (pair.first, pair.second) == (first, second):
                return pair
            if (pair.second, pair.first) == (first, second):
                return _reversed(pair)
        labels = ", ".join(summary.label for summary in self.summaries)
        raise InputError(f"{first} and {second} are not two variants of this comparison: {labels}")

    def seeds_needed(self, target: float) -> int | None:
        """Return how many seeds detect a true difference to the baseline with 80% power.

        For the median variant, with its variances as they are estimated now.

        Args:
            target: the true difference.

        Returns:
            The number of seeds of every variant; None if no number suffices, because the variance
            over images remains, or if not tested.
        """
        if self.precision is None:
            return None

        def enough(seeds: int) -> bool:
            return (
                detectable_difference(*self.precision.with_seeds(seeds, Family.BASELINE)) <= target
            )

        return _fewest(enough)

    def seeds_to_decide(self) -> int | None:
        """Return how many seeds bound the leader's regret by `within`.

        That is where the one-sided interval of two equal losses is no wider than `within`. If the
        leader is truly better than the others, fewer seeds suffice.

        Returns:
            The number of seeds of every variant; None as in :meth:`seeds_needed`.
        """
        if self.precision is None:
            return None

        def enough(seeds: int) -> bool:
            se, _, c = self.precision.with_seeds(seeds, Family.BEST)
            return c * se <= self.within

        return _fewest(enough)


def analyse(
    scores: Mapping[str, Scores],
    baseline: str,
    images: int,
    *,
    metric: str = "AP",
    level: float = 0.95,
    within: float = 0.01,
    look: int | None = None,
    class_images: int | None = None,
    folds: int | None = None,
) -> Verdict:
    r"""Compare variants over seeds and images by simultaneous intervals.

    With :math:`d_j` the difference of loss j to a reference (:class:`Estimates` has the formulas):

    .. math::
        \mathrm{SE}^2 = v_1 + v_c, \qquad d_j \pm c\, \mathrm{SE}

    where c is the critical value of the family (:mod:`~det_losses.statistics.maximum`) with
    Satterthwaite's degrees of freedom. With two seeds, c is Cochran and Cox's mean of the
    critical values of the two parts, weighted by their variances.

    - Baseline: the reference is the baseline, c is Dunnett's.
    - Pairs: every loss in turn is the reference, v_1 contains the pooled variance of the baseline's
      family, c is Tukey's.
    - Best: every loss i in turn is the reference, c is Dunnett's one-sided value. Loss i is a
      candidate if :math:`\min_j (y_i - y_j + c\, \mathrm{SE}_{ij}) > 0`. Its regret bound is the
      largest :math:`(y_j - y_i + c\, \mathrm{SE}_{ji})^+` over the other candidates j.

    Args:
        scores: label -> scores, all on the same resamples of the images.
        baseline: label that the others are compared with.
        images: number of evaluated images, at least 2.
        metric: name of the metric, for the record.
        level: coverage of the intervals; 1 - level is the family-wise error of each family.
        within: a difference that does not matter, in the unit of the scores.
        look: number of seeds of a scheduled look (:mod:`~det_losses.statistics.looks`), whose share
            of the error is used; None if the number of seeds was fixed in advance.
        class_images: number of images with objects of the metric's class, if it is of one class:
            these determine its degrees of freedom.
        folds: number of folds, K, if the run with seed s was trained on the other folds and
            evaluated on fold s mod K. The means over the runs of each fold then take the place of
            runs, and the variance is corrected for training sets with common images
            (:func:`~det_losses.statistics.estimates.estimate`).

    Raises:
        InputError: an argument has a value that cannot be used, or variants have no seed in common.
        ValueError: the numbers of resamples differ.

    References: Dunnett (1955), Hsu (1981), Tukey (1953), see
    :mod:`~det_losses.statistics.maximum`; for unequal variances of losses, D. G. Edwards and
    J. C. Hsu, "Multiple Comparisons with the Best Treatment", JASA 78 (1983); W. G. Cochran and
    G. M. Cox, "Experimental Designs" (1957), section 4.14.
    """
    _check(scores, baseline, images, level, within)
    error = 1 - level if look is None else look_error(look, level)
    runs = scores
    if folds is not None:
        scores = by_fold(scores, folds)
    scored = {label: own for label, own in scores.items() if not np.isnan(own.full).any()}
    informative = images if class_images is None else max(2, min(images, class_images))
    results = _Results(scored, baseline, informative, error, folds) if scored else None
    summaries = _summaries(runs, results)
    ranked = [summary.label for summary in summaries]
    to_baseline = [(label, baseline) for label in ranked if label != baseline]
    all_pairs = list(combinations(ranked, 2))
    if results is None:
        against, pairs = [_undefined(*p) for p in to_baseline], [_undefined(*p) for p in all_pairs]
    else:
        against = results.differences(Family.BASELINE, to_baseline)
        pairs = results.differences(Family.PAIRS, all_pairs)
    tested = results is not None and results.tested
    resampled = (images, class_images) if folds is None else (None, None)
    groups = dict.fromkeys(ranked, "")
    if tested:
        groups |= _letters(pairs, error, [label for label in ranked if label in scored])
    return Verdict(
        metric=metric,
        baseline=baseline,
        images=images,
        level=level,
        error=error,
        within=within,
        tested=tested,
        summaries=tuple(summaries),
        against_baseline=tuple(against),
        pairs=tuple(pairs),
        letters=groups,
        regrets=results.regrets() if tested else {},
        detectable=_detectable(against),
        precision=results.precision() if tested else None,
        cautions=tuple(find_cautions(scored, baseline, *resampled)),
        folds=folds,
    )


def _check(
    scores: Mapping[str, Scores], baseline: str, images: int, level: float, within: float
) -> None:
    if baseline not in scores:
        raise InputError(f"baseline {baseline} has no scores; there are {', '.join(scores)}")
    if images < 2:
        raise InputError(f"images must be at least 2 to resample them, got {images}")
    if not 0.5 < level < 1:
        raise InputError(f"level must be above 0.5 and below 1, got {level}")
    if not within > 0:
        raise InputError(f"within must be above 0, got {within}")


class _Results:
    """Families of tests of the variants with a score, by label."""

    def __init__(
        self,
        scores: Mapping[str, Scores],
        baseline: str,
        images: int,
        error: float,
        folds: int | None,
    ):
        self.labels, self.folds = tuple(scores), folds
        full, covariance = table(scores)
        overlap = 1 / (folds - 1) if folds else 0.0
        self.estimates = estimate(full, covariance, images, overlap)
        reference = self.labels.index(baseline) if baseline in self.labels else 0
        self.families = Families(self.estimates, reference)
        self.reference = reference
        self.error = error
        self.tested = len(self.labels) > 1 and bool(self.estimates.pooled[reference] > 0)
        self.tested = self.tested and not np.isnan(self.estimates.image).any()

    def mean(self, label: str) -> float:
        return float(self.estimates.means[self.labels.index(label)])

    def differences(self, family: Family, pairs: Sequence[tuple[str, str]]) -> list[Difference]:
        """Return first minus second of each pair; NaN where one has no score."""
        known = [pair for pair in pairs if set(pair) <= set(self.labels)]
        found = dict(zip(known, self._known(family, known), strict=True))
        return [found.get(pair) or _undefined(*pair) for pair in pairs]

    def _known(self, family: Family, pairs: Sequence[tuple[str, str]]) -> list[Difference]:
        index = np.array(
            [[self.labels.index(label) for label in pair] for pair in pairs], dtype=int
        )
        column, row = index.reshape(-1, 2).T  # the second of a pair is the reference
        families, losses = self.families, len(self.labels)
        spread = families.of_pairs if family is Family.PAIRS else families.by_reference
        spread = spread.at(row, column)
        value, se = self.estimates.value[row, column], spread.se
        critical = spread.critical(self.error, family, losses)
        p = spread.p(value, family, losses)
        p = np.where((se == 0) & (value == 0), 1.0, p)
        with np.errstate(invalid="ignore"):
            detectable = np.where(
                np.isnan(p), np.nan, detectable_difference(se, spread.df, critical)
            )
        # A difference of two scores in 0..1 cannot be beyond -1..1, so the cut keeps the coverage.
        low, high = np.clip([value - critical * se, value + critical * se], -1, 1)
        columns = (value, se, spread.df, critical, low, high, p)
        columns += (np.sqrt(spread.seed), np.sqrt(spread.image))
        seeds = self.estimates.common[row, column]
        rows = zip(pairs, zip(*columns, strict=True), seeds, detectable, strict=True)
        return [
            Difference(*pair, *map(float, own), int(n), float(mdd)) for pair, own, n, mdd in rows
        ]

    def regrets(self) -> dict[str, float]:
        candidate, regret = self.families.best(self.error)
        order = np.argsort(-self.estimates.means, kind="stable")
        return {self.labels[i]: float(min(regret[i], 1)) for i in order if candidate[i]}

    def precision(self) -> Precision:
        others = np.arange(len(self.labels)) != self.reference
        spread, share = self.families.by_reference, self.estimates.share
        per_seed = spread.seed[self.reference, others] / share[self.reference, others]
        image = spread.image[self.reference, others]
        medians = float(np.median(per_seed)), float(np.median(image))
        images = self.estimates.images
        return Precision(len(self.labels), *medians, images, self.error, self.folds)


def _undefined(first: str, second: str) -> Difference:
    return Difference(first, second, *[math.nan] * 9, 0, math.nan)


def _reversed(found: Difference) -> Difference:
    return replace(
        found,
        first=found.second,
        second=found.first,
        value=0.0 - found.value,
        low=0.0 - found.high,
        high=0.0 - found.low,
    )


def _summaries(scores: Mapping[str, Scores], results: _Results | None) -> list[Summary]:
    """Return the variants, best first; those without a score last."""
    found = []
    for label, own in scores.items():
        known = own.full[~np.isnan(own.full)]
        sd = float(known.std(ddof=1)) if len(known) > 1 else None
        mean = results.mean(label) if results and label in results.labels else math.nan
        found.append(Summary(label, mean, sd, len(own.seeds)))
    return sorted(found, key=lambda s: math.inf if math.isnan(s.mean) else -s.mean)


def _letters(pairs: Sequence[Difference], error: float, scored: Sequence[str]) -> dict[str, str]:
    """Return the groups of the variants with a score, given best first."""
    different = np.zeros((len(scored), len(scored)), dtype=bool)
    for pair in pairs:
        if pair.p < error:
            i, j = scored.index(pair.first), scored.index(pair.second)
            different[i, j] = different[j, i] = True
    return dict(zip(scored, letters(different), strict=True))


def _detectable(against: Sequence[Difference]) -> Detectable:
    known = [d.detectable for d in against if not math.isnan(d.detectable)]
    if not known:
        return Detectable(math.nan, math.nan, math.nan)
    return Detectable(float(np.median(known)), min(known), max(known))


def _fewest(enough: Callable[[int], bool]) -> int | None:
    """Return the smallest number of seeds that is enough; more seeds are never worse."""
    if not enough(_MOST_SEEDS):
        return None
    return bisect_left(range(_MOST_SEEDS), True, lo=2, key=enough)
