import math

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import brentq
from scipy.special import stdtrit

from det_losses.statistics import (
    Scores,
    detectable_after_holm,
    minimal_detectable,
    paired_differences,
)

IMAGES = 50


def same_on_all_draws(full, draws=9, seeds=None):
    """Scores that no draw of images changes: there is no image noise."""
    full = np.asarray(full, dtype=float)
    return Scores(seeds or tuple(range(len(full))), full, np.tile(full, (draws, 1)))


def noisy(rng, seeds=(0, 1, 2), draws=40, mean=0.4):
    full = mean + 0.01 * rng.standard_normal(len(seeds))
    return Scores(seeds, full, full + 0.02 * rng.standard_normal((draws, len(seeds))))


def only(first, second, images=IMAGES, level=0.95):
    """First minus second."""
    return paired_differences([("a", "b")], {"a": first, "b": second}, images, level)[0]


def test_two_seeds_by_hand():
    """Per-seed differences .04 and .02: mean .03, s = .02 / sqrt 2, so s^2 / 2 = .0001.

    Draws' mean differences .02, .03, .04: variance .0001. SE^2 = .0002. Both parts are equal, so
    df = 4 / (1 / 1 + 1 / 49) = 3.92.
    """
    first = Scores((7, 8), [0.34, 0.32], [[0.32, 0.32], [0.34, 0.32], [0.35, 0.33]])
    second = Scores((7, 8), [0.30, 0.30], [[0.30, 0.30], [0.30, 0.30], [0.30, 0.30]])
    d = only(first, second)
    assert (d.first, d.second, d.seeds) == ("a", "b", 2)
    assert d.value == pytest.approx(0.03)
    assert d.seed_sd == pytest.approx(0.02 / math.sqrt(2))
    assert d.image_se == pytest.approx(0.01)
    assert d.se == pytest.approx(math.sqrt(0.0002))
    assert d.df == pytest.approx(3.92)
    half = stats.t.ppf(0.975, 3.92) * math.sqrt(0.0002)
    assert (d.low, d.high) == pytest.approx((0.03 - half, 0.03 + half))
    assert d.p == d.p_holm == pytest.approx(2 * stats.t.sf(0.03 / math.sqrt(0.0002), 3.92))


@pytest.mark.parametrize("level", [0.95, 0.8])
def test_without_image_noise_it_is_the_paired_t_test(level):
    rng = np.random.default_rng(1)
    a, b = 0.4 + 0.02 * rng.standard_normal(4), 0.39 + 0.02 * rng.standard_normal(4)
    d = only(same_on_all_draws(a), same_on_all_draws(b), level=level)
    expected = stats.ttest_rel(a, b)
    interval = expected.confidence_interval(level)
    assert d.p == pytest.approx(expected.pvalue)
    assert d.df == pytest.approx(expected.df)
    assert (d.low, d.high) == pytest.approx((interval.low, interval.high))


def test_one_seed_is_about_the_t_test_over_images():
    """The metric is a mean over 200 images: its bootstrap is close to the t test's formula."""
    rng = np.random.default_rng(2)
    a = 0.4 + 0.2 * rng.standard_normal(200)
    b = a - 0.01 + 0.1 * rng.standard_normal(200)
    share = rng.multinomial(200, np.full(200, 1 / 200), size=4000) / 200
    first, second = (Scores((3,), [x.mean()], (share @ x)[:, None]) for x in (a, b))
    d = only(first, second, images=200)
    expected = stats.ttest_rel(a, b)
    interval = expected.confidence_interval(0.95)
    assert d.seed_sd is None and d.seeds == 1
    assert d.df == expected.df == 199
    # 4,000 draws give the standard error to 1 / sqrt(8000) = 1.1%
    assert d.high - d.low == pytest.approx(interval.high - interval.low, rel=0.035)
    assert d.p == pytest.approx(expected.pvalue, rel=0.2)


def test_degrees_of_freedom_are_welchs():
    """Two samples: per-seed differences, and 50 image values whose mean's variance is v2."""
    rng = np.random.default_rng(3)
    per_seed, per_image = rng.standard_normal(4), 3 * rng.standard_normal(IMAGES)
    image_se = per_image.std(ddof=1) / math.sqrt(IMAGES)
    # two draws at +-x have the standard deviation x sqrt 2
    draws = np.array([[1.0], [-1.0]]) * image_se / math.sqrt(2) + np.zeros((2, 4))
    d = only(Scores(range(4), per_seed, draws), same_on_all_draws(np.zeros(4), draws=2))
    assert d.df == pytest.approx(stats.ttest_ind(per_seed, per_image, equal_var=False).df)


def test_a_small_variance_by_chance_does_not_increase_the_degrees_of_freedom():
    """b differs from a by the same in every seed, as if trainings had no noise; c and d do not."""
    noise = np.array([[0.002], [-0.002]]) + np.zeros((2, 3))
    full = {"a": [0.30, 0.32, 0.34], "b": [0.31, 0.33, 0.35]}
    full |= {"c": [0.35, 0.33, 0.31], "d": [0.30, 0.36, 0.30]}
    scores = {
        k: Scores(range(3), v, np.asarray(v) + noise * i) for i, (k, v) in enumerate(full.items())
    }
    pairs = [("a", "b"), ("a", "c"), ("a", "d")]
    own = [paired_differences([pair], scores, IMAGES)[0] for pair in pairs]
    lucky, middle, large = paired_differences(pairs, scores, IMAGES)
    assert own[0].seed_sd == pytest.approx(0) and own[0].df == pytest.approx(IMAGES - 1)
    v1, v2 = np.var([-0.05, -0.01, 0.03], ddof=1) / 3, lucky.image_se**2
    assert lucky.df == pytest.approx((v1 + v2) ** 2 / (v1**2 / 2 + v2**2 / (IMAGES - 1)))
    assert (lucky.se, lucky.value) == (own[0].se, own[0].value)
    assert (middle.df, large.df) == pytest.approx((own[1].df, own[2].df))


def test_only_common_seeds_count():
    rng = np.random.default_rng(4)
    a, b = noisy(rng, seeds=(5, 1, 2)), noisy(rng, seeds=(2, 9, 1))
    picked = Scores((1, 2), a.full[[1, 2]], a.resampled[:, [1, 2]])
    other = Scores((1, 2), b.full[[2, 0]], b.resampled[:, [2, 0]])
    found, expected = only(a, b), only(picked, other)
    assert found.seeds == 2
    for name in ("value", "se", "df", "p", "seed_sd", "image_se"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=1e-12)


def test_no_common_seed():
    rng = np.random.default_rng(5)
    with pytest.raises(
        ValueError, match=r"a \(seeds 0, 1\) and b \(seeds 2\) have no seed in comm"
    ):
        only(noisy(rng, seeds=(0, 1)), noisy(rng, seeds=(2,)))


def test_other_numbers_of_draws():
    rng = np.random.default_rng(6)
    with pytest.raises(ValueError, match="a has 40 resamples and b 30: all variants need"):
        only(noisy(rng), noisy(rng, draws=30))


@pytest.mark.parametrize("seeds", [1, 3])
def test_identical_files(seeds):
    rng = np.random.default_rng(7)
    scores = noisy(rng, seeds=tuple(range(seeds)))
    d = only(scores, scores)
    assert (d.value, d.se, d.low, d.high, d.p, d.detectable) == (0, 0, 0, 0, 1, 0)
    assert d.df == IMAGES - 1


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_same_difference_everywhere(seeds):
    """No noise at all: the difference is certain."""
    scores = same_on_all_draws([0.5] * seeds)
    d = only(scores, same_on_all_draws([0.25] * seeds))
    assert (d.value, d.se, d.low, d.high, d.p) == (0.25, 0, 0.25, 0.25, 0)


def test_seeds_without_noise():
    """Images alone are left: the normal case of evaluating fixed models twice."""
    noise = np.random.default_rng(8).standard_normal((40, 1)) * 0.01
    full = np.array([0.5, 0.5, 0.5])
    d = only(Scores(range(3), full, full + noise), same_on_all_draws(full - 0.125, draws=40))
    assert d.seed_sd == 0 and d.df == pytest.approx(IMAGES - 1)
    assert d.se == pytest.approx(noise.std(ddof=1))


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_metric_without_ground_truth(seeds):
    rng = np.random.default_rng(9)
    empty = Scores(tuple(range(seeds)), [math.nan] * seeds, np.full((40, seeds), math.nan))
    d = only(empty, noisy(rng, seeds=tuple(range(seeds))))
    numbers = (d.value, d.se, d.df, d.low, d.high, d.p, d.p_holm, d.image_se, d.detectable)
    assert all(map(math.isnan, numbers))
    assert d.seed_sd is None if seeds == 1 else math.isnan(d.seed_sd)


def test_undefined_metric_does_not_change_other_pairs():
    rng = np.random.default_rng(10)
    scores = {"a": noisy(rng), "b": noisy(rng)}
    scores["c"] = Scores((0, 1, 2), [math.nan] * 3, np.full((40, 3), math.nan))
    with_c = paired_differences([("a", "b"), ("a", "c"), ("c", "b")], scores, IMAGES)
    assert with_c[0] == paired_differences([("a", "b")], scores, IMAGES)[0]


def test_draws_without_ground_truth_are_left_out():
    rng = np.random.default_rng(11)
    a, b = noisy(rng), noisy(rng)
    gap_a, gap_b = a.resampled.copy(), b.resampled.copy()
    gap_a[:5] = math.nan
    gap_b[3:8] = math.nan
    found = only(Scores(a.seeds, a.full, gap_a), Scores(b.seeds, b.full, gap_b))
    assert found == only(
        Scores(a.seeds, a.full, a.resampled[8:]), Scores(b.seeds, b.full, b.resampled[8:])
    )


def test_too_few_valid_resamples_give_a_value_without_interval():
    rng = np.random.default_rng(12)
    a, b = noisy(rng), noisy(rng)
    gap = a.resampled.copy()
    gap[1:] = math.nan
    d = only(Scores(a.seeds, a.full, gap), b)
    assert d.value == pytest.approx(np.mean(a.full - b.full))
    assert all(map(math.isnan, (d.se, d.df, d.low, d.high, d.p, d.p_holm, d.detectable)))


def test_holm_is_over_the_pairs_given():
    """Of three tests the smallest p is multiplied by 3, the next by 2, the last by 1."""
    rng = np.random.default_rng(13)
    scores = {name: noisy(rng, mean=m) for name, m in zip("abc", (0.4, 0.43, 0.44), strict=True)}
    found = paired_differences([("a", "b"), ("a", "c"), ("b", "c")], scores, IMAGES)
    p = sorted((d.p, d.p_holm) for d in found)
    expected = np.maximum.accumulate([3 * p[0][0], 2 * p[1][0], p[2][0]])
    assert [holm for _, holm in p] == pytest.approx(np.minimum(expected, 1))


def test_minimal_detectable_difference():
    """(t.975 + t.80) SE; its power by the noncentral t is what the docstring says."""
    assert minimal_detectable(0.01, 6.5) == pytest.approx(
        0.01 * (stats.t.ppf(0.975, 6.5) + stats.t.ppf(0.80, 6.5))
    )
    for df, power in ((2, 0.77), (3, 0.78), (4, 0.79), (8, 0.80), (1000, 0.80)):
        found = stats.nct.sf(stdtrit(df, 0.975), df, minimal_detectable(1.0, df))
        assert found == pytest.approx(power, abs=0.005)


@pytest.mark.parametrize("tests", [1, 3])
def test_detectable_difference_after_holm(tests):
    """The noncentrality at which a t test at 5% / tests has 80% power, times SE."""
    d = only(noisy(np.random.default_rng(3)), noisy(np.random.default_rng(4)))
    critical = stats.t.ppf(1 - 0.05 / tests / 2, d.df)
    steps = brentq(lambda x: stats.nct.sf(critical, d.df, x) - 0.8, 0.1, 1000)
    assert detectable_after_holm(d, tests) == pytest.approx(steps * d.se)


@pytest.mark.parametrize(
    ("seeds", "full", "resampled", "message"),
    [
        ((), [], np.zeros((5, 0)), "seeds must be one or more distinct numbers"),
        ((1, 1), [0.1, 0.1], np.zeros((5, 2)), r"seeds must be .* got \(1, 1\)"),
        ((1, 2), [0.1], np.zeros((5, 2)), r"full must have one score per seed, \[2\], got \(1,\)"),
        ((1, 2), [0.1, 0.1], np.zeros((2, 5)), r"resampled must be \[resamples, 2\]"),
        ((1, 2), [0.1, 0.1], np.zeros((1, 2)), "of at least 2 resamples"),
        ((1,), [math.inf], np.zeros((5, 1)), "must be finite or NaN"),
    ],
)
def test_scores_are_checked(seeds, full, resampled, message):
    with pytest.raises(ValueError, match=message):
        Scores(seeds, full, resampled)
