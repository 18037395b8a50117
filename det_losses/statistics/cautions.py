"""What may make the results of a comparison unreliable, as data."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import combinations

import numpy as np
from scipy.special import fdtrc, stdtr

from det_losses.statistics.estimates import Scores

FEW_IMAGES = 100
FEW_CLASS_IMAGES = 10
LARGE_RATIO = 4.0  # of variances
_ERROR = 0.05  # of finding unequal variances where they are equal
_OUTLIER_ERROR = 0.01  # of finding an outlying run where there is none


class CautionKind(Enum):
    """The kinds of cautions. `value` of a Caution is described for each.

    Attributes:
        ONE_SEED: no two variants have two seeds in common; nothing can be concluded about
            trainings. Value: 1.
        TWO_SEEDS: the variance over seeds is poorly known. Value: 2.
        UNEQUAL_SEEDS: runs are missing, so means are of the model loss + seed. Value: how many.
        OUTLYING_RUN: the run `seed` of a variant is far from its other runs. Value: its distance
            from their mean, in the unit of the scores.
        UNEQUAL_VARIANCE: a variant is noisier over seeds than the others. Value: ratio of its
            variance to theirs.
        IDENTICAL_RUNS: all runs of one variant have the same score, or two variants have the same
            scores. Value: how many scores are equal.
        FEW_IMAGES: value: the number of images.
        RARE_CLASS: the metric's class is in too few images to resample them. Value: their number.
        UNLIKE_BASELINE: the other variants are more similar to each other than to the baseline, so
            that differences between them are known more precisely than the pooled variance says.
            Value: ratio of the variances.
    """

    ONE_SEED = "one seed"
    TWO_SEEDS = "two seeds"
    UNEQUAL_SEEDS = "unequal seeds"
    OUTLYING_RUN = "outlying run"
    UNEQUAL_VARIANCE = "unequal variance"
    IDENTICAL_RUNS = "identical runs"
    FEW_IMAGES = "few images"
    RARE_CLASS = "rare class"
    UNLIKE_BASELINE = "unlike baseline"


@dataclass(frozen=True)
class Caution:
    """One reason for caution.

    Attributes:
        kind: what it is.
        value: how much, see :class:`CautionKind`.
        labels: the variants concerned; empty if it concerns all.
        seed: the run concerned (with folds, the fold); None if it is not one run.
    """

    kind: CautionKind
    value: float
    labels: tuple[str, ...] = ()
    seed: int | None = None


def find_cautions(
    scores: Mapping[str, Scores],
    baseline: str,
    images: int | None,
    class_images: int | None = None,
) -> list[Caution]:
    """Return the cautions, in the order of the kinds.

    Args:
        scores: label -> scores, of the variants for which the metric is defined.
        baseline: label of the baseline.
        images: number of images that are resampled; None if they are not.
        class_images: number of images with the metric's class; None if it is not of one class.
    """
    found = [
        *_seeds(scores),
        *_outlying_runs(scores),
        *_unequal_variances(scores),
        *_identical_runs(scores),
        *_unlike_baseline(scores, baseline),
    ]
    if images is not None and images < FEW_IMAGES:
        found.append(Caution(CautionKind.FEW_IMAGES, images))
    if class_images is not None and class_images < FEW_CLASS_IMAGES:
        found.append(Caution(CautionKind.RARE_CLASS, class_images))
    order = list(CautionKind)
    return sorted(found, key=lambda caution: order.index(caution.kind))


def _seeds(scores: Mapping[str, Scores]) -> Iterator[Caution]:
    if len(scores) < 2:
        return
    common = [len(set(a.seeds) & set(b.seeds)) for a, b in combinations(scores.values(), 2)]
    if max(common) < 2:
        yield Caution(CautionKind.ONE_SEED, 1)
    elif max(common) == 2:
        yield Caution(CautionKind.TWO_SEEDS, 2)
    seeds = {seed for own in scores.values() for seed in own.seeds}
    fewer = tuple(label for label, own in scores.items() if len(own.seeds) < len(seeds))
    if fewer:
        missing = sum(len(seeds) - len(scores[label].seeds) for label in fewer)
        yield Caution(CautionKind.UNEQUAL_SEEDS, missing, fewer)


def _outlying_runs(scores: Mapping[str, Scores]) -> Iterator[Caution]:
    """Find runs far from the other runs of their loss.

    The t statistic of a run's distance from the mean of its loss's other runs; the variance is
    pooled over all losses without that run. Bonferroni over all runs.
    """
    runs = sum(len(own.seeds) for own in scores.values())
    squares = {label: _squares(own.full) for label, own in scores.items()}
    for label, own in scores.items():
        others = len(own.seeds) - 1
        if others < 2:
            continue
        rest = [name for name in scores if name != label and len(scores[name].seeds) > 1]
        df = others - 1 + sum(len(scores[name].seeds) - 1 for name in rest)
        worst = int(np.argmax(abs(own.full - np.median(own.full))))
        left = np.delete(own.full, worst)
        distance = float(own.full[worst] - left.mean())
        variance = (_squares(left) + sum(squares[name] for name in rest)) / df
        if variance > 0:
            t = abs(distance) / math.sqrt(variance * (1 + 1 / others))
            if 2 * stdtr(df, -t) * runs < _OUTLIER_ERROR:
                yield Caution(CautionKind.OUTLYING_RUN, distance, (label,), own.seeds[worst])


def _unequal_variances(scores: Mapping[str, Scores]) -> Iterator[Caution]:
    """Find losses whose variance over seeds is several times that of the others: F tests."""
    known = {label: own for label, own in scores.items() if len(own.seeds) > 1}
    squares = {label: _squares(own.full) for label, own in known.items()}
    free = {label: len(own.seeds) - 1 for label, own in known.items()}
    for label in known:
        others = sum(free.values()) - free[label]
        if not others:
            continue
        usual = (sum(squares.values()) - squares[label]) / others
        ratio = squares[label] / free[label] / usual if usual > 0 else math.nan
        if ratio > LARGE_RATIO and fdtrc(free[label], others, ratio) * len(known) < _ERROR:
            yield Caution(CautionKind.UNEQUAL_VARIANCE, ratio, (label,))


def _identical_runs(scores: Mapping[str, Scores]) -> Iterator[Caution]:
    """Find equal scores above 0; those of 0 are equal because nothing was found."""
    for label, own in scores.items():
        if len(own.seeds) > 1 and np.ptp(own.full) == 0 and own.full.any():
            yield Caution(CautionKind.IDENTICAL_RUNS, len(own.seeds), (label,))
    for (first, a), (second, b) in combinations(scores.items(), 2):
        in_a, in_b = _common(a, b)
        if in_a and (a.full[in_a] == b.full[in_b]).all() and a.full.any():
            yield Caution(CautionKind.IDENTICAL_RUNS, len(in_a), (first, second))


def _unlike_baseline(scores: Mapping[str, Scores], baseline: str) -> Iterator[Caution]:
    """Compare the differences among the other losses with those to the baseline: an F test."""
    if baseline not in scores:
        return
    labels = [label for label in scores if label != baseline]
    to_baseline = _difference_variances(scores, [(label, baseline) for label in labels])
    among = _difference_variances(scores, list(combinations(labels, 2)))
    if not to_baseline or not among:
        return
    usual = np.mean(among)
    ratio = float(np.mean(to_baseline) / usual) if usual > 0 else math.nan
    seeds = min(len(own.seeds) for own in scores.values())
    if ratio > LARGE_RATIO and fdtrc(seeds - 1, (len(labels) - 1) * (seeds - 1), ratio) < _ERROR:
        yield Caution(CautionKind.UNLIKE_BASELINE, ratio, (baseline,))


def _difference_variances(
    scores: Mapping[str, Scores], pairs: Sequence[tuple[str, str]]
) -> list[float]:
    found = []
    for first, second in pairs:
        in_a, in_b = _common(scores[first], scores[second])
        if len(in_a) > 1:
            difference = scores[first].full[in_a] - scores[second].full[in_b]
            found.append(float(difference.var(ddof=1)))
    return found


def _common(a: Scores, b: Scores) -> tuple[list[int], list[int]]:
    seeds = [seed for seed in a.seeds if seed in b.seeds]
    return [a.seeds.index(seed) for seed in seeds], [b.seeds.index(seed) for seed in seeds]


def _squares(values: np.ndarray) -> float:
    return float(((values - values.mean()) ** 2).sum())
