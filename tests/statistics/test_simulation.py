"""Error rates and power on simulated comparisons with known true differences.

The short form runs by default. The long one (`-m slow -s`) has more worlds and replications, and
prints the table of docs/statistics.md. A rate over n replications has a binomial standard error.
"""

import math
from itertools import product

import numpy as np
import pytest
from scipy import stats
from simulated_scores import IMAGES, WORLDS, World, compared, draw, normal

from det_losses.statistics import Scores, analyse, look_error
from det_losses.statistics.estimates import estimate
from det_losses.statistics.families import Families, detectable_difference
from det_losses.statistics.maximum import Family

PARTS = ("baseline", "pairs", "best excluded")


def findings(tests: Families, error: float = 0.05, truth=0.0) -> list[np.ndarray]:
    """Return, for each comparison, whether something wrong is found in each of PARTS.

    Wrong is an interval that does not contain the true difference, and a true best loss that is no
    candidate. If several losses are the best, the last part is [R, n], one column for each.
    """
    own, losses = tests.estimates, tests.losses
    true = np.broadcast_to(truth, losses)
    off = own.value - (true - true[:, None])
    missed = []
    for spread, family, index in (
        (tests.by_reference, Family.BASELINE, (0, slice(1, None))),
        (tests.of_pairs, Family.PAIRS, np.triu_indices(losses, 1)),
    ):
        part = spread.at(*index)
        half = part.critical(error, family, losses) * part.se
        missed.append((abs(off[(..., *index)]) >= half).any(axis=-1))
    candidate, _ = tests.best(error)
    return [*missed, ~candidate[:, true == true.max()]]


def rate(wrong: np.ndarray) -> float:
    """Return the share of comparisons, of the best loss that is worst off."""
    return wrong.mean(axis=0).max()


def rates(world, losses, seeds, count, error=0.05, truth=0.0) -> np.ndarray:
    """Return the rate of wrong findings in each of PARTS."""
    found = [
        findings(tests, error, truth)
        for tests in compared(world, losses, seeds, count, seed=seeds, truth=truth)
    ]
    return np.array([rate(np.concatenate(part)) for part in zip(*found, strict=True)])


def limit(world: str, losses: int, seeds: int) -> float:
    """Return the family-wise error that is accepted: nominal 5%."""
    if world == "twins" and losses == 3:
        return 0.09
    return 0.08


def allowance(share: float, count: int) -> float:
    return 3 * math.sqrt(share * (1 - share) / count)


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize(("losses", "seeds"), [(2, 3), (3, 3), (8, 3)])
def test_family_wise_error(world, losses, seeds):
    count = 300 if WORLDS[world].image_sd or WORLDS[world].single_sd else 2000
    found = rates(WORLDS[world], losses, seeds, count)
    most = limit(world, losses, seeds)
    assert (found[:2] < most + allowance(most, count) / 2).all(), dict(
        zip(PARTS, found, strict=True)
    )
    best = 0.08 if world == "twins" else 0.06
    assert found[2] < best + allowance(best, count), found


@pytest.mark.slow
def test_family_wise_error_long():
    """The table of docs/statistics.md: percent of comparisons with an error, in each of PARTS."""
    columns = [(2, 3), (3, 2), (3, 3), (3, 5), (5, 3), (8, 2), (8, 3), (8, 5)]
    header = " | ".join(f"{losses} x {seeds}" for losses, seeds in columns)
    print(f"\n| world | {header} |\n|---|" + "---|" * len(columns))
    wrong = []
    for name, world in WORLDS.items():
        count = 4000 if world.image_sd or world.single_sd else 20_000
        cells = []
        for losses, seeds in columns:
            found = rates(world, losses, seeds, count)
            cells.append(" / ".join(f"{100 * share:.1f}" for share in found))
            # with two seeds the twins have up to 9% as well
            most = max(limit(name, losses, seeds), 0.09 if seeds == 2 else 0)
            best = 0.09 if name == "twins" else 0.07  # measured: 8.1% for twins with two seeds
            if (found[:2] > most).any() or found[2] > best:
                wrong.append((name, losses, seeds, found))
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    assert not wrong


@pytest.mark.parametrize("losses", [3, 8])
def test_equal_losses_are_not_far_below_the_nominal_error(losses):
    """The floor of the pair's own spread costs some power; Holm at 2 df had 1.0% with 8 losses."""
    baseline, pairs, best = rates(WORLDS["equal"], losses, 3, 4000)
    assert baseline > 0.015 and pairs > 0.01 and best > 0.025


def test_intervals_cover_true_differences_and_regrets():
    """Losses that differ: coverage is that of equal losses, and no regret is above its bound."""
    truth = np.array([0.0, 0.7, 1.0, 3.0])
    world = World(normal, image_sd=0.6 * math.sqrt(IMAGES))
    missed = rates(world, 4, 3, 1500, truth=truth)
    assert (missed < 0.05 + allowance(0.05, 1500)).all(), missed
    above = [
        (tests.best(0.05)[1] < truth.max() - truth).any(axis=-1)
        for tests in compared(world, 4, 3, 1500, seed=9, truth=truth)
    ]
    assert np.mean(np.concatenate(above)) < 0.05 + allowance(0.05, 1500)


def test_pooling_alone_would_give_many_false_alarms():
    """Why each pair's own spread is a floor: one of eight losses three times noisier."""
    (tests,) = compared(WORLDS["one loss 3 times noisier"], 8, 5, 2000)
    own = tests.estimates
    spread = tests.by_reference.at(0, slice(1, None))
    c = spread.critical(0.05, Family.BASELINE, 8)
    pooled = np.sqrt(own.pooled[:, :1] / 5)
    assert (abs(own.value[:, 0, 1:]) > c * pooled).any(axis=-1).mean() > 0.10
    assert (abs(own.value[:, 0, 1:]) > c * spread.se).any(axis=-1).mean() < 0.065


@pytest.mark.parametrize("world", ["interaction only", "all", "images lead"])
def test_no_noise_is_counted_twice(world):
    """The mean squared standard error is the variance of the difference, not more.

    It may be up to a sixth more, because V_j and v_c are floored.
    """
    (tests,) = compared(WORLDS[world], 2, 3, 2000)
    own = tests.estimates
    variance = own.value[:, 0, 1].var()
    estimated = (tests.by_reference.se[:, 0, 1] ** 2).mean()
    assert 0.93 < estimated / variance < 1.22


def holm_threshold(tests: Families) -> np.ndarray:
    """Return the difference that Holm's first step on separate paired t tests detects."""
    own, others = tests.estimates, tests.losses - 1
    seeds = int(own.common[0, 1])
    return stats.t.ppf(1 - 0.025 / others, seeds - 1) * np.sqrt(own.own[:, 0, 1] / seeds)


def detectable(losses: int, seeds: int, count: int) -> tuple[float, float, float]:
    """Return differences that are detected with 80% power: by Holm, Dunnett, Hsu.

    A loss that is better by delta is detected if d + delta exceeds the threshold, so the 80th
    percentile of threshold - d is the difference that is wanted.
    """
    found = []
    for tests in compared(WORLDS["equal"], losses, seeds, count, seed=1):
        d = tests.estimates.value[:, 0, 1]
        two, one = tests.by_reference.at(0, 1), tests.by_reference.at(1, 0)
        found.append(
            [
                holm_threshold(tests) - d,
                two.critical(0.05, Family.BASELINE, losses) * two.se - d,
                one.critical(0.05, Family.BEST, losses) * one.se - d,
            ]
        )
    return tuple(np.quantile(np.concatenate(part), 0.8) for part in zip(*found, strict=True))


@pytest.mark.parametrize(
    ("losses", "seeds", "to_baseline", "to_best"),
    [(3, 3, 0.64, 0.51), (8, 3, 0.34, 0.29), (4, 2, 0.17, None)],
)
def test_detectable_difference_beside_holms(losses, seeds, to_baseline, to_best):
    """As a part of that of paired t tests with Holm's correction, from the same runs."""
    holm, dunnett, hsu = detectable(losses, seeds, 4000)
    assert dunnett / holm == pytest.approx(to_baseline, abs=0.05)
    if to_best is not None:
        assert hsu / holm == pytest.approx(to_best, abs=0.05)


@pytest.mark.slow
def test_detectable_difference_long():
    """The second table of docs/statistics.md, in standard deviations of a run."""
    print(
        "\n| losses x seeds | Holm | baseline | best | stated: median, 5% to 95% |"
        "\n|---|---|---|---|---|"
    )
    for losses, seeds in ((2, 3), (3, 3), (5, 3), (8, 3), (4, 2), (3, 5), (8, 5)):
        holm, dunnett, hsu = detectable(losses, seeds, 20_000)
        low, middle, high = np.quantile(stated(losses, seeds, 4000), [0.05, 0.5, 0.95])
        numbers = f"{holm:.2f} | {dunnett:.2f} | {hsu:.2f} | {middle:.2f}, {low:.2f} to {high:.2f}"
        print(f"| {losses} x {seeds} | {numbers} |")
        assert middle == pytest.approx(dunnett, rel=0.2)


def stated(losses: int, seeds: int, count: int) -> np.ndarray:
    """Return the detectable differences that are stated: medians over the losses."""
    found = []
    for tests in compared(WORLDS["equal"], losses, seeds, count, seed=2):
        spread = tests.by_reference.at(0, slice(1, None))
        c = spread.critical(0.05, Family.BASELINE, losses)
        found.append(np.median(detectable_difference(spread.se, spread.df, c), axis=-1))
    return np.concatenate(found)


def test_the_stated_detectable_difference_is_about_the_true_one():
    _, true, _ = detectable(8, 3, 4000)
    low, middle, high = np.quantile(stated(8, 3, 500), [0.05, 0.5, 0.95])
    assert middle == pytest.approx(true, rel=0.15)
    assert high / low < 3  # it was 5 and more with separate variances


def any_look(looks: dict[int, float], losses: int, count: int) -> np.ndarray:
    """Return the rates of an error at any of several looks at the same trainings."""
    full = np.random.default_rng(3).standard_normal((count, losses, max(looks)))
    found = [
        findings(Families(estimate(full[..., :seeds], None, IMAGES), 0), error)
        for seeds, error in looks.items()
    ]
    return np.array([rate(np.any(part, axis=0)) for part in zip(*found, strict=True)])


@pytest.mark.parametrize("losses", [2, 3, 8])
def test_looks_keep_the_error(losses):
    planned = any_look({seeds: look_error(seeds) for seeds in (3, 5, 8)}, losses, 4000)
    assert (planned < 0.05 + allowance(0.05, 4000)).all(), planned
    naive = any_look(dict.fromkeys(range(3, 11), 0.05), losses, 2000)
    print(f"\n{losses} losses: {planned[0]:.1%} at planned looks, {naive[0]:.1%} without a plan")
    assert naive[0] > 0.10  # why the error is shared among the looks


def test_looks_that_add_seeds_to_candidates_only_keep_the_error():
    """Three equal losses; one that is no candidate at a look gets no further seeds."""
    full = np.random.default_rng(4).standard_normal((4000, 3, 8))
    excluded = np.zeros(full.shape[:2], dtype=bool)
    for seeds in (3, 5, 8):
        patterns, which = np.unique(np.isnan(full[..., :seeds]), axis=0, return_inverse=True)
        for pattern in range(len(patterns)):
            rows = np.flatnonzero(which.ravel() == pattern)
            tests = Families(estimate(full[rows, :, :seeds], None, IMAGES), 0)
            excluded[rows] |= ~tests.best(look_error(seeds))[0]
        full[excluded, seeds:] = np.nan
    assert (excluded.mean(axis=0) < 0.05 + allowance(0.05, 4000)).all()


@pytest.mark.parametrize("seeds_of_last", [1, 2])
def test_missing_runs_keep_the_error(seeds_of_last):
    """A run or two of one loss failed, with noise that all losses of a seed share."""
    rng = np.random.default_rng(5)
    full = rng.standard_normal((4000, 4, 3)) + 5 * rng.standard_normal((4000, 1, 3))
    full[:, 3, seeds_of_last:] = np.nan
    found = [rate(part) for part in findings(Families(estimate(full, None, IMAGES), 0))]
    assert max(found) < 0.05 + allowance(0.05, 4000), found


@pytest.mark.parametrize("count", [2000, pytest.param(20_000, marks=pytest.mark.slow)])
def test_a_percentile_bootstrap_over_three_seeds_has_many_false_alarms(count):
    """Why the interval is a t interval.

    The percentile interval is the range of the three differences, which have the same
    sign in 2 (1/2)^3 = 25% of all comparisons of equal losses.
    """
    rng = np.random.default_rng(0)
    full, _ = draw(WORLDS["equal"], 2, 3, count, rng)
    difference = full[:, 0] - full[:, 1]
    drawn = difference[:, list(product(range(3), repeat=3))].mean(axis=-1)  # all resamples
    low, high = np.percentile(drawn, [2.5, 97.5], axis=1, method="inverted_cdf")
    alarms = ((low > 0) | (high < 0)).mean()
    assert alarms == pytest.approx(0.25, abs=allowance(0.25, count))


def test_the_covariance_is_that_of_resamples():
    """Draws of images by a multinomial: analyse() on them agrees with the simulation's formula."""
    rng = np.random.default_rng(6)
    x = rng.standard_normal((3, 1, IMAGES)) + rng.standard_normal((3, 3, IMAGES))
    runs = rng.standard_normal((3, 3))
    counts = rng.multinomial(IMAGES, np.full(IMAGES, 1 / IMAGES), size=4000) / IMAGES
    full, resampled = runs + x.mean(axis=-1), runs + np.moveaxis(x @ counts.T, -1, 0)
    scores = {str(i): Scores(range(3), full[i], resampled[:, i]) for i in range(3)}
    centred = (x - x.mean(axis=-1, keepdims=True)).reshape(9, IMAGES)
    tests = Families(estimate(full, centred @ centred.T / IMAGES**2, IMAGES), 0)
    verdict = analyse(scores, "0", IMAGES)
    own = tests.by_reference.at(0, slice(None))
    p = own.p(tests.estimates.value[0], Family.BASELINE, tests.losses)
    for d in verdict.against_baseline:
        assert d.se == pytest.approx(own.se[int(d.first)], rel=0.05)
        assert d.p == pytest.approx(p[int(d.first)], abs=0.03)
