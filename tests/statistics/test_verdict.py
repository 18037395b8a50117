import math
from itertools import combinations

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import brentq

from det_losses.statistics import CautionKind, Difference, Scores, Summary, analyse
from det_losses.statistics.maximum import Family, critical, survival

SEEDS = (0, 1, 2)


def study(means, seeds=SEEDS, noise=0.004, image=0.006, draws=200, seed=0):
    """Seed noise for each run, and noise of the draws that all runs of a variant share."""
    rng = np.random.default_rng(seed)
    scores = {}
    for label, mean in means.items():
        full = mean + noise * rng.standard_normal(len(seeds))
        scores[label] = Scores(seeds, full, full + image * rng.standard_normal((draws, 1)))
    return scores


def constant(rows, draws=9):
    """Scores that no draw of images changes: there is no image noise."""
    return {
        label: Scores(tuple(range(len(full))), full, np.tile(full, (draws, 1)))
        for label, full in rows.items()
    }


MEANS = {"L1": 0.30, "GIoU": 0.40, "DIoU": 0.401, "EIoU": 0.45, "IoU": 0.25}


def test_summaries_are_best_first():
    scores = study(MEANS)
    verdict = analyse(scores, "L1", 500, metric="AP75")
    assert (verdict.metric, verdict.baseline, verdict.images) == ("AP75", "L1", 500)
    labels = [summary.label for summary in verdict.summaries]
    assert labels == sorted(MEANS, key=lambda label: -scores[label].full.mean())
    full = scores["EIoU"].full
    assert verdict.summaries[0] == Summary("EIoU", full.mean(), np.std(full, ddof=1), 3)


def test_three_losses_by_hand():
    """Differences to z (1, 2, 3) and (0, 3, 6) hundredths: V = 5, nu = 3.2, V_b = 38 / 6.

    Without image noise df = nu, and c = 3.716.
    """
    verdict = analyse(
        constant({"z": [0.3, 0.3, 0.3], "a": [0.31, 0.32, 0.33], "b": [0.30, 0.33, 0.36]}), "z", 50
    )
    b, a = verdict.against_baseline
    assert (b.first, b.second, a.first, a.seeds) == ("b", "z", "a", 3)
    assert (b.value, a.value) == pytest.approx((0.03, 0.02))
    assert (a.se, b.se) == pytest.approx((0.01 * math.sqrt(5 / 3), 0.01 * math.sqrt(38 / 18)))
    assert (a.df, a.critical, a.image_se) == pytest.approx((3.2, 3.716, 0), abs=1e-3)
    assert (a.low, a.high) == pytest.approx((0.02 - 3.716 * a.se, 0.02 + 3.716 * a.se), abs=1e-5)
    assert a.p == pytest.approx(survival(a.value / a.se, Family.BASELINE, 3, 3.2))
    # of the pair, with the pooled variance of the baseline: s^2 of (-1, 1, 3) is 4, below 5
    pair = verdict.difference("b", "a")
    assert pair.se == pytest.approx(0.01 * math.sqrt(5 / 3))
    c = stats.studentized_range.ppf(0.95, 3, 3.2) / math.sqrt(2)
    assert (pair.low, pair.high) == pytest.approx((0.01 - c * pair.se, 0.01 + c * pair.se))
    # Hsu: with "a" as reference the variances are 1 (to z) and 4 (to b), V = 2.5
    c1, to_b = 2.851, 0.01 * math.sqrt((4 * 2.5 + 2 * 4) / 6 / 3)
    assert verdict.leader == "b" and 0.01 < c1 * to_b
    # regret of b: a is the reference, y_a - y_b + c1 SE_ab
    assert verdict.regrets["b"] == pytest.approx(
        max(-0.01 + c1 * to_b, -0.03 + c1 * 0.01 * math.sqrt(38 / 18)), abs=1e-5
    )


@pytest.mark.parametrize("level", [0.95, 0.8])
def test_two_losses_without_image_noise_are_the_paired_t_test(level):
    rng = np.random.default_rng(1)
    a, b = 0.4 + 0.02 * rng.standard_normal((2, 4))
    (d,) = analyse(constant({"a": a, "b": b}), "b", 50, level=level).against_baseline
    expected = stats.ttest_rel(a, b)
    interval = expected.confidence_interval(level)
    assert d.p == pytest.approx(expected.pvalue)
    assert d.df == pytest.approx(expected.df)
    assert (d.low, d.high) == pytest.approx((interval.low, interval.high))


def test_an_interval_contains_possible_differences_only():
    # The differences 0.4 and -0.5 have an SE of 0.45, and c is 12.7 or more with two seeds.
    verdict = analyse(constant({"z": [0.1, 0.9], "a": [0.5, 0.4]}), "z", 50)
    (found,) = verdict.against_baseline
    assert found.critical * found.se > 5
    assert (found.low, found.high) == (-1, 1)
    assert verdict.difference("z", "a").low == -1
    assert verdict.regret == 1


def test_degrees_of_freedom_are_welchs():
    """Two samples: per-seed differences, and 50 image values whose mean's variance is vc."""
    rng = np.random.default_rng(3)
    per_seed, per_image = 0.1 * rng.standard_normal(4), 0.3 * rng.standard_normal(50)
    image_se = per_image.std(ddof=1) / math.sqrt(50)
    # two draws at +-x have the standard deviation x sqrt 2
    draws = np.array([[1.0], [-1.0]]) * image_se / math.sqrt(2) + np.zeros((2, 4))
    scores = {"a": Scores(range(4), per_seed, draws), **constant({"b": [0.0] * 4}, draws=2)}
    (d,) = analyse(scores, "b", 50).against_baseline
    assert d.df == pytest.approx(stats.ttest_ind(per_seed, per_image, equal_var=False).df)
    assert d.image_se == pytest.approx(image_se)
    assert d.se == pytest.approx(math.hypot(d.seed_se, d.image_se))


def test_two_seeds_have_cochran_and_coxs_critical_value():
    """Differences .04 and .02: v1 = .0002 / 2; draws' means .02, .03, .04: vc = .0001."""
    first = Scores((7, 8), [0.34, 0.32], [[0.33, 0.31], [0.34, 0.32], [0.35, 0.33]])
    second = Scores((7, 8), [0.30, 0.30], [[0.30, 0.30]] * 3)
    (d,) = analyse({"a": first, "b": second}, "b", 50).against_baseline
    assert (d.seed_se, d.image_se) == pytest.approx((0.01, 0.01))
    assert d.critical == pytest.approx((stats.t.ppf(0.975, 1) + stats.t.ppf(0.975, 49)) / 2)

    def excess(p):
        return (stats.t.isf(p / 2, 1) + stats.t.isf(p / 2, 49)) / 2 - d.value / d.se

    assert d.p == pytest.approx(brentq(excess, 1e-9, 1), abs=1e-6)


@pytest.mark.parametrize("seeds", [(0, 1), SEEDS])
def test_intervals_and_p_values_never_disagree(seeds):
    for number in range(5):
        scores = study(dict.fromkeys("abcd", 0.3), seeds, seed=number, noise=0.02)
        first = analyse(scores, "a", 80)
        for d in (*first.against_baseline, *first.pairs):
            # at the level 1 - p the interval ends at zero
            for step, inside in ((0.999, False), (1.001, True)):
                if d.p * max(step, 1.01) >= 0.5:
                    continue
                again = analyse(scores, "a", 80, level=1 - d.p / step)
                family = again.pairs if d in first.pairs else again.against_baseline
                own = next(x for x in family if (x.first, x.second) == (d.first, d.second))
                assert (own.low <= 0 <= own.high) == inside == (not again.differs(own))


def test_families():
    verdict = analyse(study(MEANS), "L1", 500)
    ranked = [s.label for s in verdict.summaries]
    assert [(d.first, d.second) for d in verdict.against_baseline] == [
        (label, "L1") for label in ranked if label != "L1"
    ]
    assert [(d.first, d.second) for d in verdict.pairs] == list(combinations(ranked, 2))
    assert all(d.value >= 0 for d in verdict.pairs)
    for kind, family in (
        (Family.BASELINE, verdict.against_baseline),
        (Family.PAIRS, verdict.pairs),
    ):
        for d in family:
            assert d.critical == pytest.approx(critical(0.05, kind, 5, d.df))
            assert (d.low, d.high) == pytest.approx(
                (d.value - d.critical * d.se, d.value + d.critical * d.se)
            )


def test_difference_of_two_in_either_order():
    verdict = analyse(study(MEANS), "L1", 500)
    one, other = verdict.difference("IoU", "EIoU"), verdict.difference("EIoU", "IoU")
    assert (one.first, one.second, other.first, other.second) == ("IoU", "EIoU", "EIoU", "IoU")
    assert (one.value, one.low, one.high) == (-other.value, -other.high, -other.low)
    assert (one.p, one.se, one.seed_se) == (other.p, other.se, other.seed_se)


@pytest.mark.parametrize("pair", [("EIoU", "EIoU"), ("EIoU", "Huber")])
def test_difference_of_what_is_no_pair(pair):
    verdict = analyse(study(MEANS), "L1", 500)
    with pytest.raises(ValueError, match="are not two variants of this comparison: EIoU, "):
        verdict.difference(*pair)


def test_letters_agree_with_the_pairs():
    verdict = analyse(study(MEANS), "L1", 500)
    assert verdict.letters == {"EIoU": "a", "GIoU": "b", "DIoU": "b", "L1": "c", "IoU": "d"}
    for pair in verdict.pairs:
        shared = set(verdict.letters[pair.first]) & set(verdict.letters[pair.second])
        assert bool(shared) == (not verdict.differs(pair)) == (pair.low <= 0 <= pair.high)


def test_candidates_and_regret():
    verdict = analyse(study(MEANS), "L1", 500)
    assert verdict.candidates == ("EIoU",) and verdict.leader == "EIoU"
    assert verdict.regret == 0 and verdict.decided
    close = analyse(study({"a": 0.3, "b": 0.305, "c": 0.2}), "a", 500)
    assert set(close.candidates) == {"a", "b"} and "c" not in close.regrets
    assert close.regrets[close.candidates[0]] < close.regrets[close.candidates[1]]
    assert close.regret > 0
    wide, narrow = (
        analyse(study({"a": 0.3, "b": 0.305}), "a", 500, within=w) for w in (0.1, 0.001)
    )
    assert wide.decided and set(wide.interchangeable) == {"a", "b"} and len(wide.equivalent) == 1
    assert not narrow.decided and narrow.interchangeable == () and narrow.equivalent == ()


def test_a_pair_is_equivalent_if_its_whole_interval_is_within_the_margin():
    scores = study({"a": 0.3, "b": 0.302})
    (pair,) = analyse(scores, "a", 500).pairs
    widest = max(abs(pair.low), abs(pair.high))
    assert analyse(scores, "a", 500, within=widest * 1.001).equivalent == (pair,)
    assert analyse(scores, "a", 500, within=widest * 0.999).equivalent == ()


def test_detectable_difference_is_by_the_noncentral_t():
    verdict = analyse(study(MEANS), "L1", 500)
    for d in verdict.against_baseline:
        power = stats.nct.sf(d.critical, d.df, d.detectable / d.se)
        assert power == pytest.approx(0.8, abs=1e-4)
    values = sorted(d.detectable for d in verdict.against_baseline)
    assert verdict.detectable == pytest.approx((np.median(values), values[0], values[-1]))


def test_seeds_needed():
    """Without image noise, by hand: a variance V of a difference, nu = 4 k (S - 1) / (k + 3)."""
    scores = constant({"z": [0.3, 0.31, 0.32], "a": [0.32, 0.30, 0.31], "b": [0.3, 0.32, 0.31]})
    verdict = analyse(scores, "z", 50)
    variances = [3 * d.seed_se**2 for d in verdict.against_baseline]

    def detectable(seeds):
        df = 8 * (seeds - 1) / 5
        c = critical(0.05, Family.BASELINE, 3, df)
        steps = brentq(lambda x: stats.nct.sf(c, df, x) - 0.8, 0.1, 100)
        return steps * math.sqrt(np.median(variances) / seeds)

    needed = verdict.seeds_needed(0.02)
    assert detectable(needed) <= 0.02 < detectable(needed - 1)
    assert verdict.seeds_needed(1.0) == 2
    decide = analyse(scores, "z", 50, within=0.02).seeds_to_decide()
    half = [
        critical(0.05, Family.BEST, 3, 8 * (n - 1) / 5) * math.sqrt(np.median(variances) / n)
        for n in (decide, decide - 1)
    ]
    assert half[0] <= 0.02 < half[1]


def test_no_number_of_seeds_replaces_images():
    verdict = analyse(study(MEANS, image=0.02), "L1", 500)
    assert verdict.seeds_needed(0.01) is None and verdict.seeds_to_decide() is None


def test_a_look_uses_its_share_of_the_error():
    scores = study(MEANS)
    verdict = analyse(scores, "L1", 500, look=3)
    assert (verdict.level, verdict.error) == (0.95, pytest.approx(0.01))
    expected = analyse(scores, "L1", 500, level=0.99)
    assert verdict.against_baseline == expected.against_baseline
    assert verdict.letters == expected.letters and verdict.regrets == expected.regrets


def test_one_seed_concludes_nothing():
    verdict = analyse(study(MEANS, seeds=(4,)), "L1", 500)
    assert not verdict.tested and not verdict.decided
    assert verdict.leader is None and verdict.candidates == verdict.equivalent == ()
    assert set(verdict.letters.values()) == {""}
    assert math.isnan(verdict.regret) and math.isnan(verdict.detectable.median)
    assert verdict.seeds_needed(0.01) is None
    assert all(s.sd is None and s.seeds == 1 for s in verdict.summaries)
    for d in (*verdict.against_baseline, *verdict.pairs):
        assert math.isnan(d.p) and not verdict.differs(d)
        assert d.df == 499 and d.se == d.image_se and d.low < d.value < d.high
    assert [c.kind for c in verdict.cautions] == [CautionKind.ONE_SEED]


def test_identical_runs_are_not_certain():
    """The same for all seeds: nothing is known about other trainings, so there is no p = 0."""
    verdict = analyse(constant({"a": [0.5] * 3, "b": [0.25] * 3}), "b", 50)
    (d,) = verdict.against_baseline
    assert (d.value, d.se) == (0.25, 0) and math.isnan(d.p)
    assert not verdict.tested and verdict.candidates == ()
    assert CautionKind.IDENTICAL_RUNS in [c.kind for c in verdict.cautions]


def test_the_same_variant_twice():
    rng = np.random.default_rng(7)
    full = 0.4 + 0.01 * rng.standard_normal(3)
    scores = Scores(SEEDS, full, full + 0.02 * rng.standard_normal((40, 3)))
    other = study({"c": 0.4}, draws=40)
    alone = analyse({"a": scores, "b": scores}, "a", 50)
    (d,) = alone.against_baseline
    assert (d.value, d.se, d.low, d.high, d.p) == (0, 0, 0, 0, 1) and not alone.tested
    verdict = analyse({"a": scores, "b": scores, **other}, "a", 50)
    assert {"a", "b"} <= set(verdict.candidates) or verdict.candidates == ("c",)
    assert verdict.difference("a", "b").p == pytest.approx(1)


def test_a_variant_without_a_score_is_last_and_changes_nothing():
    scores = study(MEANS)
    undefined = Scores(SEEDS, [math.nan] * 3, np.full((200, 3), math.nan))
    with_it = analyse({"none": undefined, **scores}, "L1", 500)
    without = analyse(scores, "L1", 500)
    assert [s.label for s in with_it.summaries][-1] == "none"
    assert math.isnan(with_it.summaries[-1].mean)
    assert with_it.letters == {**without.letters, "none": ""}
    assert with_it.regrets == without.regrets
    assert [d for d in with_it.against_baseline if d.first != "none"] == list(
        without.against_baseline
    )
    assert [d for d in with_it.pairs if "none" not in (d.first, d.second)] == list(without.pairs)


def test_nothing_has_a_score():
    undefined = Scores(SEEDS, [math.nan] * 3, np.full((9, 3), math.nan))
    verdict = analyse({"a": undefined, "b": undefined}, "a", 500)
    assert verdict.letters == {"a": "", "b": ""} and not verdict.tested
    assert math.isnan(verdict.pairs[0].value) and verdict.cautions == ()


def test_the_baseline_has_no_score():
    undefined = Scores(SEEDS, [math.nan] * 3, np.full((200, 3), math.nan))
    verdict = analyse({"none": undefined, **study(MEANS)}, "none", 500)
    assert all(math.isnan(d.value) for d in verdict.against_baseline)
    assert verdict.leader == "EIoU" and math.isnan(verdict.detectable.median)


def test_draws_without_ground_truth_are_left_out():
    scores = study({"a": 0.3, "b": 0.31})
    gaps = scores["a"].resampled.copy()
    gaps[:5] = math.nan
    shorter = {x: Scores(own.seeds, own.full, own.resampled[5:]) for x, own in scores.items()}
    found = analyse({**scores, "a": Scores(SEEDS, scores["a"].full, gaps)}, "a", 50)
    assert found == analyse(shorter, "a", 50)


def test_too_few_usable_draws_give_a_value_without_interval():
    scores = study({"a": 0.3, "b": 0.31})
    gaps = scores["a"].resampled.copy()
    gaps[1:] = math.nan
    verdict = analyse({**scores, "a": Scores(SEEDS, scores["a"].full, gaps)}, "a", 50)
    (d,) = verdict.against_baseline
    assert d.value == pytest.approx(np.mean(scores["b"].full - scores["a"].full))
    assert all(map(math.isnan, (d.se, d.df, d.low, d.high, d.p, d.detectable)))
    assert not verdict.tested


def test_one_variant():
    verdict = analyse(study({"L1": 0.3}), "L1", 500)
    assert verdict.against_baseline == verdict.pairs == verdict.candidates == ()
    assert verdict.letters == {"L1": ""} and not verdict.tested


def test_unequal_seeds_do_not_change_the_order_of_means():
    """IoU lacks the seed in which every loss is worst: its plain mean would be the highest."""
    rows = {"L1": [0.30, 0.31, 0.20], "GIoU": [0.32, 0.33, 0.23], "IoU": [0.305, 0.316, np.nan]}
    scores = constant({x: [v for v in row if not np.isnan(v)] for x, row in rows.items()})
    verdict = analyse(scores, "L1", 500)
    assert [s.label for s in verdict.summaries] == ["GIoU", "IoU", "L1"]
    means = {s.label: s.mean for s in verdict.summaries}
    for d in (*verdict.pairs, *verdict.against_baseline):
        assert d.value == pytest.approx(means[d.first] - means[d.second])
    assert verdict.difference("IoU", "L1").seeds == 2
    assert CautionKind.UNEQUAL_SEEDS in [c.kind for c in verdict.cautions]


def test_images_of_a_class_give_the_degrees_of_freedom():
    scores = study({"a": 0.3, "b": 0.31}, noise=1e-4)
    few, many = (analyse(scores, "a", 500, class_images=n) for n in (8, None))
    assert few.pairs[0].df < 8 < many.pairs[0].df
    assert few.pairs[0].high > many.pairs[0].high
    assert [c.kind for c in few.cautions] == [CautionKind.RARE_CLASS]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"baseline": "Huber"}, "baseline Huber has no scores; there are a, b"),
        ({"images": 1}, "images must be at least 2 to resample them, got 1"),
        ({"level": 95}, "level must be above 0.5 and below 1, got 95"),
        ({"within": 0.0}, "within must be above 0, got 0.0"),
        ({"look": 4}, "a look at 4 seeds is not one of 3, 5, 8"),
    ],
)
def test_arguments_are_checked(change, message):
    arguments = {"baseline": "a", "images": 500, "level": 0.95, **change}
    with pytest.raises(ValueError, match=message):
        analyse(study({"a": 0.3, "b": 0.4}), **arguments)


def test_the_undefined_difference_has_no_numbers():
    undefined = Scores(SEEDS, [math.nan] * 3, np.full((200, 3), math.nan))
    verdict = analyse({"none": undefined, **study({"a": 0.3, "b": 0.31})}, "a", 500)
    (d,) = (d for d in verdict.against_baseline if d.first == "none")
    assert isinstance(d, Difference) and math.isnan(d.detectable) and d.seeds == 0


def test_folds_by_hand():
    """Differences (1, 2, 3) hundredths on three folds: variance 1, SE^2 = 1 (1/3 + 1/2).

    The second seeds of folds 0 and 2 change the means of their folds only, here not at all. The
    draws of the images do not matter, because the images of each run are others.
    """
    rng = np.random.default_rng(0)
    seeds, first = (0, 1, 2, 3, 5), np.array([0.3, 0.4, 0.5, 0.3, 0.5])
    full = {"a": first, "b": first + 0.01 * np.array([1, 2, 3, 1, 3])}
    scores = {k: Scores(seeds, v, v + rng.standard_normal((9, 5))) for k, v in full.items()}
    verdict = analyse(scores, "a", 60, folds=3)
    (d,) = verdict.against_baseline
    assert (d.value, d.se, d.df, d.seeds) == pytest.approx((0.02, 0.01 * math.sqrt(5 / 6), 2, 3))
    assert d.image_se == 0
    assert [s.seeds for s in verdict.summaries] == [5, 5]
    assert not [c for c in verdict.cautions if c.kind is CautionKind.FEW_IMAGES]
    # further seeds on the same folds are not counted on
    se, df, c = verdict.precision.with_seeds(9, Family.BASELINE)
    assert (se, df, c) == pytest.approx((d.se, d.df, d.critical))
    se, df, _ = verdict.precision.with_seeds(2, Family.BASELINE)
    assert (se, df) == pytest.approx((0.01, 1))


def test_folds_without_the_class_are_left_out():
    """Fold 1 has no object of the class: its scores are NaN for all losses."""
    nan = math.nan
    scores = constant({"a": [0.3, nan, 0.4, 0.5], "b": [0.31, nan, 0.42, 0.53]})
    verdict = analyse(scores, "a", 60, class_images=5, folds=4)
    (d,) = verdict.against_baseline
    assert (d.value, d.seeds) == pytest.approx((0.02, 3))
    assert d.se == pytest.approx(0.01 * math.sqrt(1 / 3 + 1 / 3))
    assert verdict.summaries[0].sd == pytest.approx(0.11)


def test_one_fold_has_intervals_for_other_images():
    scores = study({"a": 0.3, "b": 0.4}, seeds=(2,))
    plain, folds = (analyse(scores, "a", 60, folds=count) for count in (None, 5))
    (d,), (e,) = plain.against_baseline, folds.against_baseline
    assert (e.value, e.low, e.high, e.image_se) == (d.value, d.low, d.high, d.image_se)
    assert not folds.tested and folds.cautions == plain.cautions[:1]


def test_a_run_that_is_missing_on_a_fold_is_compared_by_common_seeds():
    """b lacks seed 3, which is 10 points better than seed 0 of the same fold for all losses."""
    a = Scores((0, 1, 2, 3), [0.3, 0.4, 0.5, 0.4], np.tile([0.3, 0.4, 0.5, 0.4], (9, 1)))
    full = [0.31, 0.42, 0.53]
    b = Scores((0, 1, 2), full, np.tile(full, (9, 1)))
    (d,) = analyse({"a": a, "b": b}, "a", 60, folds=3).against_baseline
    assert (d.value, d.se) == pytest.approx((0.02, 0.01 * math.sqrt(1 / 3 + 1 / 2)))


def test_runs_on_a_fold_without_a_common_seed_are_plain_means():
    a = Scores((0, 1, 2), [0.3, 0.4, 0.5], np.ones((9, 3)))
    b = Scores((3, 1, 2), [0.31, 0.42, 0.53], np.ones((9, 3)))
    (d,) = analyse({"a": a, "b": b}, "a", 60, folds=3).against_baseline
    assert d.value == pytest.approx(0.02) and d.seeds == 3
