import math

import numpy as np
import pytest

from det_losses.statistics import Scores
from det_losses.statistics.estimates import estimate, table


def covariance(draws):
    """[B, L, S] scores on draws of the images -> their covariance."""
    return np.cov(draws.reshape(len(draws), -1), rowvar=False)


def test_pooled_variance_and_degrees_of_freedom_by_hand():
    """Differences to loss 0: (1, 2, 3), variance 1, and (0, 3, 6), variance 9.

    V = (2 * 1 + 2 * 9) / 4 = 5; nu = 4 * 4 / 5 = 3.2. The second is noisier than the pooled one:
    V_2 = (4 * 5 + 2 * 9) / (3 + 3) = 6.33; v_1 = V_j / 3.
    """
    found = estimate(np.array([[0.0, 0, 0], [1, 2, 3], [0, 3, 6]]), None, 50)
    assert found.value[0].tolist() == [0, 2, 3]
    assert (found.value == -found.value.T).all()
    assert found.own[0] == pytest.approx([0, 1, 9])
    assert found.pooled[0] == pytest.approx(5)
    assert found.df == pytest.approx([3.2] * 3)
    assert found.seed(found.pooled[0])[0, 1:] == pytest.approx([5 / 3, 38 / 6 / 3])


@pytest.mark.parametrize(
    ("losses", "seeds", "df"), [(2, 3, 2), (3, 3, 3.2), (8, 3, 5.6), (2, 2, 1)]
)
def test_degrees_of_freedom(losses, seeds, df):
    full = np.random.default_rng(0).standard_normal((losses, seeds))
    assert estimate(full, None, 50).df == pytest.approx([df] * losses)


def test_degrees_of_freedom_are_those_of_the_pooled_variance():
    """A variance with nu degrees of freedom has a relative variance of 2 / nu."""
    full = np.random.default_rng(1).standard_normal((40_000, 5, 3))
    found = estimate(full, None, 50)
    pooled = found.pooled[:, 0]
    assert pooled.mean() == pytest.approx(2, rel=0.02)
    assert 2 / (pooled.var() / pooled.mean() ** 2) == pytest.approx(found.df[0], rel=0.04)


def test_two_losses_have_the_variance_of_the_paired_t_test():
    full = np.random.default_rng(2).standard_normal((2, 4))
    found = estimate(full, None, 50)
    expected = np.var(full[1] - full[0], ddof=1) / 4
    assert found.seed(found.pooled[0])[0, 1] == pytest.approx(expected)


def draws_of(rng, image_sd, single_sd, losses=3, seeds=3, images=400, count=4000):
    """Scores of images -> scores on draws of them, [B, L, S]."""
    x = image_sd * rng.standard_normal((losses, 1, images))
    x = x + single_sd * rng.standard_normal((losses, seeds, images))
    counts = rng.multinomial(images, np.full(images, 1 / images), size=count)
    return x, np.einsum("lsi,bi->bls", x, counts / images)


@pytest.mark.parametrize(("image_sd", "single_sd"), [(1.0, 0.0), (1.0, 2.0), (0.0, 2.0)])
def test_image_variance_leaves_out_the_noise_of_single_runs(image_sd, single_sd):
    """Of a difference of two losses over 400 images: 2 image_sd^2 / 400, whatever single_sd is.

    The noise of single images in single runs, 2 single_sd^2 / (400 * 3), is in the variance over
    seeds already. Each estimate has a relative error of sqrt(2 / 400) and of the subtraction.
    """
    rng = np.random.default_rng(3)
    x, draws = draws_of(rng, image_sd, single_sd)
    found = estimate(x.mean(axis=-1), covariance(draws), 400)
    single = 2 * single_sd**2 / 400 / 3
    error = 4 * math.sqrt(2 / 400) * (2 * image_sd**2 / 400 + 2 * single)
    assert found.image[0, 1:] == pytest.approx([2 * image_sd**2 / 400] * 2, abs=error)


def test_image_variance_is_owens_formula():
    rng = np.random.default_rng(4)
    x, draws = draws_of(rng, 1.0, 1.0, count=300)
    difference = draws[:, 2] - draws[:, 1]  # [B, S]
    mean = difference.mean(axis=1)
    within = (difference - mean[:, None]).var(axis=0, ddof=1).sum() / (3 * 2)
    found = estimate(x.mean(axis=-1), covariance(draws), 400)
    assert found.image[1, 2] == pytest.approx(mean.var(ddof=1) - within)
    assert (found.image == found.image.T).all()


def test_with_one_seed_the_image_variance_is_that_of_the_draws():
    rng = np.random.default_rng(5)
    x, draws = draws_of(rng, 1.0, 1.0, seeds=1, count=300)
    found = estimate(x.mean(axis=-1), covariance(draws), 400)
    expected = (draws[:, 1, 0] - draws[:, 0, 0]).var(ddof=1)
    assert found.image[0, 1] == pytest.approx(expected)
    assert np.isnan(found.df).all() and (found.pooled == 0).all()


def test_missing_runs_are_left_out_by_least_squares():
    """Loss 2 lacks seed 2, in which all are 6 higher. Its mean is as if it had that seed.

    The normal equations of the model loss + seed, solved by numpy's lstsq, are the reference.
    """
    full = np.array([[1.0, 2, 8], [2, 1, 9], [3, 3.5, np.nan]])
    found = estimate(full, None, 50)
    loss, seed = np.nonzero(~np.isnan(full))
    design = np.hstack([np.eye(3)[loss], np.eye(3)[seed][:, 1:]])
    solved = np.linalg.lstsq(design, full[loss, seed], rcond=None)[0]
    assert found.value[0] == pytest.approx(solved[:3] - solved[0])
    assert found.means == pytest.approx(solved[:3] + solved[3:].sum() / 3)
    assert found.common.tolist() == [[3, 3, 2], [3, 3, 2], [2, 2, 2]]
    # variance of a contrast in units of a run's, halved: (X'X)^-1 of the same design
    inverse = np.linalg.inv(design.T @ design)
    share = (inverse[2, 2] + inverse[0, 0] - 2 * inverse[0, 2]) / 2
    assert found.share[0, 2] == pytest.approx(share) and found.share[0, 1] == pytest.approx(1 / 3)
    # V = (2 * s_1^2 + 1 * s_2^2) / 3 over common seeds; nu = 4 * 3 / 5
    squares = np.var([1, -1, 1], ddof=1), np.var([2, 1.5], ddof=1)
    assert found.pooled[0] == pytest.approx((2 * squares[0] + squares[1]) / 3)
    assert found.df[0] == pytest.approx(2.4)


def test_a_missing_run_does_not_reverse_the_order():
    """Loss 1 has only the easy seed: a plain mean would rank it first."""
    found = estimate(np.array([[1.0, 5.0], [np.nan, 4.0]]), None, 50)
    assert found.means == pytest.approx([3.0, 2.0])


def test_a_baseline_with_one_seed_uses_the_variance_of_the_others():
    rng = np.random.default_rng(6)
    full = rng.standard_normal((3, 3))
    full[0, 1:] = np.nan
    found = estimate(full, None, 50)
    expected = np.var(full[2] - full[1], ddof=1)
    assert found.pooled == pytest.approx([expected] * 3)
    assert found.df == pytest.approx([2.0] * 3)


def test_losses_without_common_seeds():
    with pytest.raises(ValueError, match="not connected by common seeds: run all of them with the"):
        estimate(np.array([[1.0, np.nan], [np.nan, 2.0]]), None, 50)


def test_a_table_of_scores_in_any_order_of_seeds():
    a = Scores((5, 1), [0.1, 0.2], [[0.1, 0.2], [0.3, 0.5], [np.nan, 0.1]])
    b = Scores((1,), [0.4], [[0.4], [0.1], [0.2]])
    full, cov = table({"a": a, "b": b})
    assert full[0].tolist() == [0.1, 0.2] and np.isnan(full[1, 0]) and full[1, 1] == 0.4
    # the third draw is left out; of two draws the covariance is the product of half differences * 2
    assert cov[0, 1] == pytest.approx(0.2 * 0.3 / 2) and cov[0, 3] == pytest.approx(-0.2 * 0.3 / 2)


def test_other_numbers_of_resamples():
    scores = {x: Scores((0,), [0.1], np.zeros((n, 1))) for x, n in (("a", 3), ("b", 4))}
    with pytest.raises(ValueError, match="the same resamples, got different numbers: a 3, b 4"):
        table(scores)


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
