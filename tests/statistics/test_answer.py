import math

import pytest
from scipy import stats
from scipy.optimize import brentq

from det_losses.statistics import Difference, Summary, Verdict, answer, caution

LONG = ("EIoULoss:loss_weight=2", "FocalEIoULoss:gamma=0.5,loss_weight=1.5")


def verdict_of(
    means, *, metric="AP", half=0.009, seeds=3, images=500, se=0.004, df=1000.0, apart=0.01
):
    """A verdict in which two variants differ where their means are more than `apart` apart.

    The first is the baseline. A mean of None is a variant without a score.
    """
    seeds = seeds if isinstance(seeds, dict) else dict.fromkeys(means, seeds)
    baseline = next(iter(means))
    ranked = sorted(means, key=lambda label: -(means[label] or 0))

    def difference(first, second):
        if means[first] is None or means[second] is None:
            return Difference(first, second, *[math.nan] * 7, math.nan, math.nan, 3, math.nan)
        value = means[first] - means[second]
        p = 0.001 if abs(value) > apart else 0.2
        common = min(seeds[first], seeds[second])
        interval = (value - half, value + half)
        return Difference(first, second, value, se, df, *interval, p, p, 0.002, se, common, 0.01)

    return Verdict(
        metric=metric,
        baseline=baseline,
        images=images,
        level=0.95,
        summaries=tuple(
            Summary(k, math.nan if means[k] is None else means[k], 0.01, seeds[k]) for k in ranked
        ),
        against_baseline=tuple(difference(k, baseline) for k in ranked if k != baseline),
        pairs=tuple(difference(a, b) for i, a in enumerate(ranked) for b in ranked[i + 1 :]),
        letters={},
    )


def test_one_winner():
    means = {"SmoothL1Loss": 0.35, "EIoULoss": 0.363, "GIoULoss": 0.351, "DIoULoss": 0.349}
    assert answer(verdict_of(means)) == (
        "EIoULoss beats SmoothL1Loss by 1.3 AP [0.4, 2.2]; "
        "GIoULoss and DIoULoss cannot be told apart from SmoothL1Loss on this data."
    )


def test_one_winner_alone():
    means = {"L1Loss": 0.35, LONG[0]: 0.372}
    assert answer(verdict_of(means, metric="AP75")) == (
        "EIoULoss:loss_weight=2 beats L1Loss by 2.2 AP75 [1.3, 3.1]."
    )


def test_winners_that_cannot_be_told_apart():
    means = {"SmoothL1Loss": 0.35, "CIoULoss": 0.37, "EIoULoss": 0.373, "GIoULoss": 0.372}
    assert answer(verdict_of(means)) == (
        "EIoULoss (2.3 AP [1.4, 3.2]), GIoULoss (2.2 AP [1.3, 3.1]) and CIoULoss (2.0 AP "
        "[1.1, 2.9]) beat SmoothL1Loss; EIoULoss cannot be told apart from GIoULoss and CIoULoss."
    )


def test_winners_of_which_one_is_ahead():
    means = {"L1Loss": 0.35, "GIoULoss": 0.37, "EIoULoss": 0.39}
    assert answer(verdict_of(means)) == (
        "EIoULoss (4.0 AP [3.1, 4.9]) and GIoULoss (2.0 AP [1.1, 2.9]) beat L1Loss; "
        "EIoULoss is also ahead of GIoULoss."
    )
    ahead = answer(verdict_of(means | {"DIoULoss": 0.371}))
    assert ahead.endswith("beat L1Loss; EIoULoss is also ahead of the other winners.")


def test_winners_of_which_some_equal_the_first():
    means = {"L1Loss": 0.35, "GIoULoss": 0.37, "EIoULoss": 0.39, "CIoULoss": 0.389}
    assert "beat L1Loss; EIoULoss cannot be told apart from CIoULoss." in answer(verdict_of(means))


def test_winners_and_losers():
    means = {"L1Loss": 0.35, "EIoULoss": 0.37, "IoULoss": 0.351, "MSELoss": 0.30}
    assert answer(verdict_of(means)) == (
        "EIoULoss beats L1Loss by 2.0 AP [1.1, 2.9]; "
        "IoULoss cannot be told apart from L1Loss on this data; "
        "MSELoss is behind L1Loss by 5.0 AP [4.1, 5.9]."
    )


def test_only_losers():
    assert answer(verdict_of({"a.json": 0.35, "b.json": 0.33})) == (
        "b.json is behind a.json by 2.0 AP [1.1, 2.9]."
    )
    means = {"L1Loss": 0.35, "MSELoss": 0.33, "HuberLoss": 0.32}
    assert answer(verdict_of(means)) == (
        "Nothing beats L1Loss: HuberLoss (3.0 AP [2.1, 3.9]) and MSELoss (2.0 AP [1.1, 2.9]) "
        "are behind it."
    )
    means |= {"IoULoss": 0.351, "HuberLoss": 0.349}
    assert answer(verdict_of(means)) == (
        "Nothing beats L1Loss: MSELoss is behind it by 2.0 AP [1.1, 2.9]; "
        "IoULoss and HuberLoss cannot be told apart from it on this data."
    )


def test_ten_losses_stay_readable():
    means = {"SmoothL1Loss": 0.35, LONG[0]: 0.39, LONG[1]: 0.389}
    means |= {f"Winner{i}Loss": 0.385 - i / 1000 for i in range(3)}
    means |= {f"Same{i}Loss": 0.35 + i / 1000 for i in range(5)}
    means |= {f"Behind{i}Loss": 0.31 + i / 1000 for i in range(5)}
    assert answer(verdict_of(means)) == (
        "EIoULoss:loss_weight=2 (4.0 AP [3.1, 4.9]), "
        "FocalEIoULoss:gamma=0.5,loss_weight=1.5 (3.9 AP [3.0, 4.8]), "
        "Winner0Loss (3.5 AP [2.6, 4.4]) and 2 more beat SmoothL1Loss; "
        "EIoULoss:loss_weight=2 cannot be told apart from 4 other winners; "
        "5 others cannot be told apart from SmoothL1Loss on this data; "
        "Behind0Loss (4.0 AP [3.1, 4.9]), Behind1Loss (3.9 AP [3.0, 4.8]), "
        "Behind2Loss (3.8 AP [2.9, 4.7]) and 2 more are behind SmoothL1Loss."
    )


def found_with_80_percent_power(se, df, tests):
    """The noncentrality at which a test at 5% / tests has 80% power, in points."""
    critical = stats.t.ppf(1 - 0.05 / tests / 2, df)
    return 100 * se * brentq(lambda x: stats.nct.sf(critical, df, x) - 0.8, 0.1, 1000)


def test_a_pair_that_cannot_be_told_apart():
    found = found_with_80_percent_power(0.004, 1000, tests=1)
    assert f"{found:.1f}" == "1.1"
    assert answer(verdict_of({"a.json": 0.35, "b.json": 0.353})) == (
        "b.json cannot be told apart from a.json on this data: the difference is "
        "0.3 AP [-0.6, 1.2], and one of 1.1 AP would have been found with 80% power."
    )


def test_the_difference_of_a_pair_keeps_its_sign():
    assert "the difference is -0.3 AP [-1.2, 0.6], and" in answer(
        verdict_of({"a.json": 0.353, "b.json": 0.35})
    )


@pytest.mark.parametrize(("se", "df"), [(0.004, 1000.0), (0.004, 4.2), (0.001, 2.0)])
def test_nothing_differs_from_the_baseline(se, df):
    """The power is that of Holm's first step, of 3 tests."""
    means = {"SmoothL1Loss": 0.35, "EIoULoss": 0.351, "GIoULoss": 0.352, "DIoULoss": 0.349}
    found = found_with_80_percent_power(se, df, tests=3)
    assert answer(verdict_of(means, se=se, df=df)) == (
        "None of the 3 others can be told apart from SmoothL1Loss on this data; "
        f"a difference of {found:.1f} AP would have been found with 80% power."
    )


def test_nothing_could_have_been_found():
    """With one degree of freedom the 80% are beyond 100 AP."""
    means = {"SmoothL1Loss": 0.35, "EIoULoss": 0.351, "GIoULoss": 0.352}
    assert found_with_80_percent_power(0.04, 1, tests=2) > 100
    assert answer(verdict_of(means, se=0.04, df=1.0)) == (
        "None of the 2 others can be told apart from SmoothL1Loss on this data; "
        "even a very large difference would have been missed."
    )


def test_others_may_differ_where_the_baseline_does_not():
    means = {"L1Loss": 0.35, "EIoULoss": 0.358, "IoULoss": 0.342}
    assert answer(verdict_of(means)).endswith(
        "80% power; but EIoULoss beats IoULoss by 1.6 AP [0.7, 2.5]."
    )


def test_identical_results():
    same = {"a.json": 0.35, "b.json": 0.35}
    assert answer(verdict_of(same, se=0.0, half=0.0)) == (
        "b.json cannot be told apart from a.json on this data: the AP is the same."
    )


def test_one_seed_says_nothing_about_training():
    means = {"L1Loss": 0.35, "EIoULoss": 0.37}
    assert answer(verdict_of(means, seeds=1)) == (
        "EIoULoss beats L1Loss by 2.0 AP [1.1, 2.9]; "
        "seeds were not varied, so this says nothing about another training."
    )
    some = verdict_of(means | {"IoULoss": 0.37}, seeds={"L1Loss": 3, "EIoULoss": 3, "IoULoss": 1})
    assert "another training" not in answer(some)


def test_one_variant():
    assert answer(verdict_of({"L1Loss": 0.352})) == (
        "L1Loss has 35.2 AP; there is nothing to compare it with."
    )
    assert answer(verdict_of({"L1Loss": None}, metric="APs")) == (
        "L1Loss has no APs; there is nothing to compare it with."
    )


def test_metric_of_a_class():
    means = {"L1Loss": 0.35, "EIoULoss": 0.37}
    assert answer(verdict_of(means, metric="AP/traffic light")) == (
        "EIoULoss beats L1Loss by 2.0 AP of traffic light [1.1, 2.9]."
    )


def test_no_ground_truth():
    assert answer(verdict_of({"L1Loss": None, "EIoULoss": None}, metric="APl")) == (
        "APl cannot be compared on this data."
    )
    means = {"L1Loss": 0.35, "EIoULoss": 0.37, "IoULoss": None}
    assert answer(verdict_of(means)) == (
        "EIoULoss beats L1Loss by 2.0 AP [1.1, 2.9]; there is no AP to compare for IoULoss."
    )


@pytest.mark.parametrize(
    ("value", "half", "words"),
    [
        (0.0005, 0.0001, "by 0.05 AP [0.04, 0.06]"),
        (0.00007, 0.00005, "by 0.007 AP [0.002, 0.012]"),
        (0.0130, 0.0129, "by 1.30 AP [0.01, 2.59]"),
        (-0.0130, 0.0129, "by 1.30 AP [0.01, 2.59]"),
        (0.02, 0.0196, "by 2.00 AP [0.04, 3.96]"),
    ],
)
def test_a_bound_that_is_not_zero_is_not_shown_as_zero(value, half, words):
    verdict = verdict_of({"a": 0.35, "b": 0.35 + value}, half=half, apart=0)
    assert words in answer(verdict)


def test_there_is_no_negative_zero():
    verdict = verdict_of({"a": 0.35, "b": 0.3499}, half=0.0001)
    assert "the difference is 0.0 AP [0.0, 0.0]," in answer(verdict)


def test_caution():
    means = {"L1Loss": 0.35, "EIoULoss": 0.37, "IoULoss": 0.36}
    assert caution(verdict_of(means)) == []
    (one,) = caution(verdict_of(means, seeds=1))
    assert one.startswith("With one seed the intervals are about other images only")
    (two,) = caution(verdict_of(means, seeds=2))
    assert two.startswith("With two seeds the spread between trainings")
    (few,) = caution(verdict_of(means, images=99))
    assert few.startswith("Only 99 images were evaluated")
    assert caution(verdict_of(means, images=100)) == []
    mixed = caution(verdict_of(means, seeds={"L1Loss": 3, "EIoULoss": 3, "IoULoss": 2}))
    assert [sentence.split()[0:2] for sentence in mixed] == [["With", "two"], ["Not", "all"]]
    mixed = caution(verdict_of(means, seeds={"L1Loss": 3, "EIoULoss": 3, "IoULoss": 1}))
    assert [sentence.split()[0:2] for sentence in mixed] == [["Some", "variants"], ["Not", "all"]]
    assert caution(verdict_of({"L1Loss": 0.35})) == []
