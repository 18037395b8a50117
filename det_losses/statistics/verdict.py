"""All differences of a comparison, to the baseline and between all pairs, and letter groups."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from det_losses.errors import InputError
from det_losses.statistics.multiple import letters
from det_losses.statistics.paired import Difference, Scores, paired_differences, with_holm


@dataclass(frozen=True)
class Summary:
    """Mean and standard deviation of the metric over the seeds of a variant.

    Attributes:
        label: the variant.
        mean: mean over seeds, on all images; NaN if the metric is undefined.
        sd: standard deviation over seeds; None with one seed.
        seeds: number of seeds.
    """

    label: str
    mean: float
    sd: float | None
    seeds: int


@dataclass(frozen=True)
class Verdict:
    """The statistics of one metric for a set of variants.

    There are two families of tests: all variants against the baseline, and all pairs, which the
    groups use. The second family is larger, so a variant that differs significantly from the
    baseline in the first may still share a letter with it.

    Attributes:
        metric: name of the metric, such as "AP".
        baseline: label of the baseline.
        images: number of evaluated images.
        level: coverage of each interval; 1 - level is the family-wise error rate.
        summaries: the variants, best first.
        against_baseline: every other variant minus the baseline, best variant first. `p_holm` is
            of this family.
        pairs: all pairs, the better variant first. `p_holm` is of this family.
        letters: label -> groups; two variants share a letter if and only if their difference in
            `pairs` is not significant. Empty for a variant without a score.
    """

    metric: str
    baseline: str
    images: int
    level: float
    summaries: tuple[Summary, ...]
    against_baseline: tuple[Difference, ...]
    pairs: tuple[Difference, ...]
    letters: dict[str, str]

    def differs(self, difference: Difference) -> bool:
        """Return whether a difference is significant within its family of tests."""
        return difference.p_holm < 1 - self.level

    def difference(self, first: str, second: str) -> Difference:
        """Return first minus second, with `p_holm` of the family of all pairs.

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


def analyse(
    scores: Mapping[str, Scores],
    baseline: str,
    images: int,
    *,
    metric: str = "AP",
    level: float = 0.95,
) -> Verdict:
    """Compare variants by paired t intervals with Holm's correction.

    Args:
        scores: label -> scores, all on the same resamples of the images. A pair is compared on its
            common seeds.
        baseline: label of the variant that all others are compared with.
        images: number of evaluated images, at least 2.
        metric: name of the metric.
        level: coverage of the intervals, above 0.5 and below 1.

    Raises:
        InputError: the baseline is not among the scores, a pair has no seed in common, or `images`
            or `level` is out of range.
        ValueError: a pair has different numbers of resamples.
    """
    if baseline not in scores:
        raise InputError(f"baseline {baseline} has no scores; there are {', '.join(scores)}")
    if images < 2:
        raise InputError(f"images must be at least 2 to resample them, got {images}")
    if not 0.5 < level < 1:
        raise InputError(f"level must be above 0.5 and below 1, got {level}")
    summaries = sorted((_summary(label, scores[label]) for label in scores), key=_best_first)
    labels = [summary.label for summary in summaries]
    pairs = paired_differences(list(combinations(labels, 2)), scores, images, level)
    of_baseline = [pair for pair in pairs if baseline in (pair.first, pair.second)]
    against = [_reversed(d) if d.first == baseline else d for d in of_baseline]
    verdict = Verdict(
        metric=metric,
        baseline=baseline,
        images=images,
        level=level,
        summaries=tuple(summaries),
        against_baseline=tuple(with_holm(against)),
        pairs=tuple(pairs),
        letters={},
    )
    return replace(verdict, letters=_letters(verdict))


def _summary(label: str, scores: Scores) -> Summary:
    sd = float(scores.full.std(ddof=1)) if len(scores.seeds) > 1 else None
    return Summary(label, float(scores.full.mean()), sd, len(scores.seeds))


def _best_first(summary: Summary) -> float:
    return math.inf if math.isnan(summary.mean) else -summary.mean


def _reversed(difference: Difference) -> Difference:
    return replace(
        difference,
        first=difference.second,
        second=difference.first,
        value=0.0 - difference.value,
        low=0.0 - difference.high,
        high=0.0 - difference.low,
    )


def _letters(verdict: Verdict) -> dict[str, str]:
    scored = [s.label for s in verdict.summaries if not math.isnan(s.mean)]
    different = np.zeros((len(scored), len(scored)), dtype=bool)
    for pair in verdict.pairs:
        if verdict.differs(pair):
            i, j = scored.index(pair.first), scored.index(pair.second)
            different[i, j] = different[j, i] = True
    display = dict.fromkeys((s.label for s in verdict.summaries), "")
    return display | dict(zip(scored, letters(different), strict=True))
