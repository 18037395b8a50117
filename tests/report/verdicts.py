"""Verdicts with given results, for the sentences that report them."""

import math

from det_losses.statistics import Detectable, Difference, Summary, Verdict


def verdict_of(
    means,
    regrets=None,
    *,
    metric="AP",
    half=0.009,
    within=0.01,
    seeds=3,
    images=500,
    cautions=(),
    precision=None,
    error=0.05,
):
    """Return a verdict in which the intervals have the half-width ``half``.

    The first label is the baseline. A mean of None is a variant without a score. ``regrets`` are
    the candidates with their regret bounds; without them nothing was tested.
    """
    baseline, tested = next(iter(means)), regrets is not None
    ranked = sorted(means, key=lambda label: -(means[label] or 0))

    def difference(first, second):
        if means[first] is None or means[second] is None:
            return Difference(first, second, *[math.nan] * 9, 0, math.nan)
        value = means[first] - means[second]
        p = (0.001 if abs(value) > half else 0.2) if tested else math.nan
        interval = (value - half, value + half)
        parts = (half / 3, 20.0, 3.0, *interval, p, half / 4, half / 4)
        return Difference(first, second, value, *parts, seeds, 0.011)

    return Verdict(
        metric=metric,
        baseline=baseline,
        images=images,
        level=0.95,
        error=error,
        within=within,
        tested=tested,
        summaries=tuple(
            Summary(k, math.nan if means[k] is None else means[k], 0.01, seeds) for k in ranked
        ),
        against_baseline=tuple(difference(k, baseline) for k in ranked if k != baseline),
        pairs=tuple(difference(a, b) for i, a in enumerate(ranked) for b in ranked[i + 1 :]),
        letters=dict.fromkeys(means, "a"),
        regrets=regrets or {},
        detectable=Detectable(0.011, 0.01, 0.013),
        precision=precision,
        cautions=tuple(cautions),
    )
