"""Error rates of the intervals on simulated scores with known true differences.

The short form runs by default; the long one (`-m slow`) has more replications and more worlds. A
rate over n replications has a binomial standard error; the tests allow four of them.
"""

import math
from collections.abc import Iterable, Iterator
from itertools import combinations

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import brentq
from simulated_scores import (
    BOTH,
    IMAGES,
    IMAGES_DOMINATE,
    INTERACTION,
    SEEDS_DOMINATE,
    SEEDS_LEAD,
    World,
    as_scores,
    simulate,
)

from det_losses.statistics import Difference, Scores, analyse, holm, paired_differences

LONG = 10_000


def rate(hits: Iterable[bool]) -> tuple[float, float]:
    """Share of hits and its binomial error."""
    found = np.fromiter(hits, dtype=float)
    share = found.mean()
    return share, math.sqrt(max(share * (1 - share), 0.01 * 0.99) / len(found))


def compared(world: World, difference: float, seeds: int, count: int) -> Iterator[Difference]:
    """Two losses, the second better by `difference`."""
    for full, resampled in simulate(world, (0.3, 0.3 + difference), seeds, count, seed=seeds):
        scores = as_scores(full, resampled)
        yield paired_differences([("loss 1", "loss 0")], scores, IMAGES)[0]


def false_alarms(world: World, seeds: int, count: int) -> tuple[float, float]:
    return rate(d.p < 0.05 for d in compared(world, 0.0, seeds, count))


def true_error(world: World, seeds: int) -> tuple[float, float]:
    """Standard error of a difference and its Welch-Satterthwaite degrees of freedom, by formula."""
    v1, v2 = 2 * world.seed_sd**2 / seeds, 2 * world.image_sd**2 / IMAGES
    df = (v1 + v2) ** 2 / (v1**2 / (seeds - 1) + v2**2 / (IMAGES - 1))
    return math.sqrt(v1 + v2), df


@pytest.mark.parametrize(("seeds", "count"), [(3, 3000), (5, 1500)])
@pytest.mark.parametrize("world", [IMAGES_DOMINATE, SEEDS_DOMINATE], ids=["images", "seeds"])
def test_false_positives_are_five_percent(world, seeds, count):
    found, error = false_alarms(world, seeds, count)
    assert 4 * error < 0.025
    assert 0.03 <= found <= 0.07, f"{found:.4f} +- {error:.4f}"


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize(
    "world", [IMAGES_DOMINATE, SEEDS_DOMINATE, BOTH], ids=["images", "seeds", "both"]
)
def test_false_positives_are_five_percent_long(world, seeds):
    found, error = false_alarms(world, seeds, LONG)
    assert 4 * error < 0.011
    assert 0.03 <= found <= 0.07, f"{found:.4f} +- {error:.4f}"


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "expected"), [(2, 0.13), (3, 0.075), (5, 0.058)])
def test_false_positives_where_welch_satterthwaite_is_worst(seeds, expected):
    """Two variants, the variance over images a tenth of that over seeds.

    Welch-Satterthwaite's approximation is at its worst here. The report states the rate with two
    seeds.
    """
    found, error = false_alarms(SEEDS_LEAD, seeds, LONG)
    assert found == pytest.approx(expected, abs=4 * error)


@pytest.mark.parametrize("count", [1000, pytest.param(LONG, marks=pytest.mark.slow)])
def test_interaction_makes_intervals_safe(count):
    """The noise of single images in single runs is counted twice, so SE is sqrt(2) too large."""
    found = list(compared(INTERACTION, 0.0, 3, count))
    alarms, error = rate(d.p < 0.05 for d in found)
    assert alarms == pytest.approx(0.012, abs=4 * error)
    # each image and run adds 2 sd^2 to the sum of the differences over images and seeds
    true = math.sqrt(2 * INTERACTION.single_sd**2 / (3 * IMAGES))
    squared = math.sqrt(np.mean([d.se**2 for d in found]))
    assert squared / true == pytest.approx(math.sqrt(2), rel=0.03)


@pytest.mark.parametrize("count", [700, pytest.param(LONG, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("world", "seeds"), [(IMAGES_DOMINATE, 3), (SEEDS_DOMINATE, 3), (SEEDS_DOMINATE, 5)]
)
def test_a_detectable_difference_is_found_with_80_percent_power(world, seeds, count):
    """(t.975 + t.80) SE with the true SE: 77% by the noncentral t at 2 degrees of freedom."""
    se, df = true_error(world, seeds)
    planted = (stats.t.ppf(0.975, df) + stats.t.ppf(0.80, df)) * se
    power, error = rate(d.p < 0.05 for d in compared(world, planted, seeds, count))
    expected = stats.nct.sf(stats.t.ppf(0.975, df), df, planted / se)
    assert 0.76 < expected < 0.81
    assert power == pytest.approx(expected, abs=0.01 + 4 * error)


def family_power(world: World, seeds: int, count: int) -> tuple[float, float]:
    """How often Holm's headline finds the one of four losses that is better.

    By as much as `answer` calls 80% power: the noncentral t at 0.05 / 4.
    """
    se, df = true_error(world, seeds)
    critical = stats.t.ppf(1 - 0.05 / 4 / 2, df)
    steps = brentq(lambda x: stats.nct.sf(critical, df, x) - 0.8, 0.1, 100)
    truth = (0.3, 0.3, 0.3, 0.3, 0.3 + steps * se)
    return rate(
        any(d.first == "loss 4" and d.p_holm < 0.05 for d in verdict.against_baseline)
        for verdict in verdicts(world, truth, seeds, count)
    )


def verdicts(world, truth, seeds, count):
    for full, resampled in simulate(world, truth, seeds, count, seed=seeds):
        yield analyse(as_scores(full, resampled), "loss 0", IMAGES)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("world", "seeds"), [(IMAGES_DOMINATE, 3), (SEEDS_DOMINATE, 3), (SEEDS_DOMINATE, 5), (BOTH, 5)]
)
def test_the_detectable_difference_of_the_headline_includes_holm(world, seeds):
    power, error = family_power(world, seeds, 3000)
    assert power == pytest.approx(0.80, abs=0.01 + 4 * error)


EQUAL = (0.3,) * 5


def family_alarms(world: World, seeds: int, count: int) -> list[tuple[float, float]]:
    """Any false alarm among 5 equal losses: in the headline, in all pairs."""
    found = [
        [any(map(verdict.differs, family)) for family in (verdict.against_baseline, verdict.pairs)]
        for verdict in verdicts(world, EQUAL, seeds, count)
    ]
    return [rate(hits) for hits in zip(*found, strict=True)]


def alarms_with_own_degrees_of_freedom(world, seeds, count):
    """The same in all pairs, if each pair's degrees of freedom were of its own variances only."""
    for full, resampled in simulate(world, EQUAL, seeds, count, seed=seeds):
        scores = as_scores(full, resampled)
        pairs = combinations(scores, 2)
        p = [paired_differences([pair], scores, IMAGES)[0].p for pair in pairs]
        yield holm(p).min() < 0.05


def test_holm_keeps_the_family_wise_error():
    """With a single pair's degrees of freedom, three seeds would give about 22% instead of 5%."""
    for found, error in family_alarms(SEEDS_LEAD, 3, 200):
        assert found < 0.05 + 2 * error
    own, error = rate(alarms_with_own_degrees_of_freedom(SEEDS_LEAD, 3, 150))
    assert own == pytest.approx(0.22, abs=4 * error)


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize(
    "world",
    [IMAGES_DOMINATE, SEEDS_DOMINATE, SEEDS_LEAD, BOTH],
    ids=["images", "seeds", "lead", "both"],
)
def test_holm_keeps_the_family_wise_error_long(world, seeds):
    for found, error in family_alarms(world, seeds, 3000):
        assert found < 0.05 + 2 * error


def test_a_variant_with_one_seed_has_few_false_positives():
    """After a failed run, the pairs of a variant use the variance over seeds of the other pairs.

    Without it, an outlying training would count as a significant difference: 60% false alarms if
    seeds dominate.
    """
    hits = []
    for full, resampled in simulate(SEEDS_DOMINATE, EQUAL[:4], 3, 400, seed=1):
        scores = as_scores(full, resampled)
        last = scores["loss 3"]
        scores["loss 3"] = Scores(last.seeds[:1], last.full[:1], last.resampled[:, :1])
        verdict = analyse(scores, "loss 0", IMAGES)
        hits.append([verdict.differs(verdict.difference("loss 3", "loss 0"))])
    found, error = rate(any(each) for each in hits)
    assert found < 0.05 + 2 * error


def percentile_interval_excludes_zero(
    rng: np.random.Generator, draws_a: np.ndarray, draws_b: np.ndarray
) -> bool:
    """A bootstrap nested over seeds: seeds drawn with replacement, images drawn for each anew.

    draws: [S, B] scores on draws of images. The interval is from the 2.5th to the 97.5th percentile
    of the mean difference.
    """
    difference = draws_a - draws_b
    seeds, resamples = difference.shape
    seed = rng.integers(seeds, size=(1000, seeds))
    image_draw = rng.integers(resamples, size=(1000, seeds))
    low, high = np.percentile(difference[seed, image_draw].mean(axis=1), [2.5, 97.5])
    return not low <= 0 <= high


@pytest.mark.parametrize("count", [1000, pytest.param(LONG, marks=pytest.mark.slow)])
def test_a_percentile_bootstrap_over_three_seeds_has_many_false_positives(count):
    """Why the interval is a t interval.

    The interval is approximately the range of the three differences, which have the same sign in
    2 (1/2)^3 = 25% of all comparisons of equal losses.
    """
    rng = np.random.default_rng(0)
    alarms, error = rate(
        percentile_interval_excludes_zero(rng, draws[0], draws[1])
        for _, draws in simulate(SEEDS_DOMINATE, (0.3, 0.3), 3, count, seed=3)
    )
    assert alarms == pytest.approx(0.24, abs=4 * error)


def test_simulated_scores_agree_with_their_model():
    """The mean over resamples is the metric on all images."""
    full, resampled = next(simulate(BOTH, (0.3, 0.4), 3, 1, seed=0))
    scores = as_scores(full, resampled)
    assert isinstance(scores["loss 1"], Scores)
    assert full.shape == (2, 3) and resampled.shape == (2, 3, 200)
    # the bootstrap's mean over draws is the metric on all images, up to se / sqrt(200)
    spread = resampled.std(axis=-1, ddof=1)
    assert (abs(resampled.mean(axis=-1) - full) < 4 * spread / math.sqrt(200)).all()
