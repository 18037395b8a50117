import math
from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from det_losses.statistics import Scores, Summary, analyse, paired_differences

SEEDS = (0, 1, 2)
NOISE = {"seed": 0.004, "image": 0.006}


def study(means, seeds=SEEDS, draws=200, noise=NOISE):
    rng = np.random.default_rng(0)
    scores = {}
    for label, mean in means.items():
        full = mean + noise["seed"] * rng.standard_normal(len(seeds))
        scores[label] = Scores(seeds, full, full + noise["image"] * rng.standard_normal((draws, 1)))
    return scores


MEANS = {"L1": 0.30, "GIoU": 0.40, "DIoU": 0.401, "EIoU": 0.45, "IoU": 0.25}


def test_summaries_are_best_first():
    scores = study(MEANS)
    verdict = analyse(scores, "L1", 500, metric="AP75")
    assert (verdict.metric, verdict.baseline, verdict.images) == ("AP75", "L1", 500)
    labels = [summary.label for summary in verdict.summaries]
    assert labels == sorted(MEANS, key=lambda label: -scores[label].full.mean())
    first = verdict.summaries[0]
    full = scores["EIoU"].full
    assert first == Summary("EIoU", full.mean(), np.std(full, ddof=1), 3)


def test_both_families():
    """Each family has its own Holm: of 4 tests for the headline, of all 10 pairs for the groups."""
    scores = study(MEANS)
    verdict = analyse(scores, "L1", 500)
    assert [(d.first, d.second) for d in verdict.against_baseline] == [
        (s.label, "L1") for s in verdict.summaries if s.label != "L1"
    ]
    assert {frozenset((d.first, d.second)) for d in verdict.pairs} == set(
        map(frozenset, combinations(MEANS, 2))
    )
    assert all(d.value >= 0 for d in verdict.pairs)
    for family in (verdict.against_baseline, verdict.pairs):
        ranked = sorted(family, key=lambda d: d.p)
        steps = [d.p * (len(ranked) - rank) for rank, d in enumerate(ranked)]
        expected = np.minimum(np.maximum.accumulate(steps), 1)
        assert [d.p_holm for d in ranked] == pytest.approx(expected)
    for d in verdict.against_baseline:
        assert d.value == pytest.approx(np.mean(scores[d.first].full - scores["L1"].full))
        assert d.p == pytest.approx(verdict.difference(d.first, "L1").p)
        half = stats.t.ppf(0.975, d.df) * d.se
        assert (d.low, d.high) == pytest.approx((d.value - half, d.value + half))


def test_difference_of_two_in_either_order():
    scores = study(MEANS)
    verdict = analyse(scores, "L1", 500)
    one, other = verdict.difference("IoU", "EIoU"), verdict.difference("EIoU", "IoU")
    assert (one.first, one.second, other.first, other.second) == ("IoU", "EIoU", "EIoU", "IoU")
    assert one.value == pytest.approx(np.mean(scores["IoU"].full - scores["EIoU"].full))
    assert (one.value, one.low, one.high) == (-other.value, -other.high, -other.low)
    assert (one.p_holm, one.se, one.seed_sd) == (other.p_holm, other.se, other.seed_sd)
    assert one.low < one.value < one.high < 0


@pytest.mark.parametrize("pair", [("EIoU", "EIoU"), ("EIoU", "Huber")])
def test_difference_of_an_unknown_pair(pair):
    verdict = analyse(study(MEANS), "L1", 500)
    with pytest.raises(ValueError, match="are not two variants of this comparison: EIoU, "):
        verdict.difference(*pair)


def test_letters_agree_with_the_pairs():
    verdict = analyse(study(MEANS), "L1", 500)
    assert verdict.letters == {"EIoU": "a", "GIoU": "b", "DIoU": "b", "L1": "c", "IoU": "d"}
    for pair in verdict.pairs:
        shared = set(verdict.letters[pair.first]) & set(verdict.letters[pair.second])
        assert bool(shared) == (not verdict.differs(pair)) == (not pair.p_holm < 0.05)


def test_the_level_determines_significance():
    scores = study({"a": 0.30, "b": 0.32})
    p = analyse(scores, "a", 500).pairs[0].p
    strict, loose = (analyse(scores, "a", 500, level=1 - p * x) for x in (0.9, 1.1))
    assert set(strict.letters.values()) == {"a"} and set(loose.letters.values()) == {"a", "b"}
    assert strict.pairs[0].low < 0 < loose.pairs[0].low


def test_one_variant():
    verdict = analyse(study({"L1": 0.3}), "L1", 500)
    assert verdict.against_baseline == verdict.pairs == ()
    assert verdict.letters == {"L1": "a"}


def test_one_seed():
    verdict = analyse(study(MEANS, seeds=(4,)), "L1", 500)
    assert all(s.sd is None and s.seeds == 1 for s in verdict.summaries)
    assert all(d.df == 499 and d.se == d.image_se for d in verdict.pairs)


def test_a_variant_without_a_score_is_last_and_does_not_affect_others():
    scores = study(MEANS)
    undefined = Scores(SEEDS, [math.nan] * 3, np.full((200, 3), math.nan))
    with_it = analyse({"none": undefined, **scores}, "L1", 500)
    without = analyse(scores, "L1", 500)
    assert [s.label for s in with_it.summaries][-1] == "none"
    assert math.isnan(with_it.summaries[-1].mean)
    assert with_it.letters == {**without.letters, "none": ""}
    assert [d for d in with_it.against_baseline if d.first != "none"] == list(
        without.against_baseline
    )
    assert [d for d in with_it.pairs if "none" not in (d.first, d.second)] == list(without.pairs)


def test_nothing_has_a_score():
    undefined = Scores(SEEDS, [math.nan] * 3, np.full((9, 3), math.nan))
    verdict = analyse({"a": undefined, "b": undefined}, "a", 500)
    assert verdict.letters == {"a": "", "b": ""}
    assert math.isnan(verdict.pairs[0].value)


def test_variants_with_different_seeds():
    """A budget that ended early: IoU has one seed fewer, which its pairs go without."""
    scores = study(MEANS)
    short = scores["IoU"]
    scores["IoU"] = Scores((0, 2), short.full[[0, 2]], short.resampled[:, [0, 2]])
    verdict = analyse(scores, "L1", 500)
    assert verdict.difference("IoU", "L1").seeds == 2
    assert verdict.difference("EIoU", "L1").seeds == 3
    expected = np.mean(short.full[[0, 2]] - scores["L1"].full[[0, 2]])
    assert verdict.difference("IoU", "L1").value == pytest.approx(expected)


def test_variants_without_a_common_seed_are_stated():
    scores = study({"a": 0.3, "b": 0.3}) | study({"c": 0.3}, seeds=(7, 8))
    with pytest.raises(ValueError, match="have no seed in common: run both with the same seeds"):
        analyse(scores, "a", 500)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"baseline": "Huber"}, "baseline Huber has no scores; there are a, b"),
        ({"images": 1}, "images must be at least 2 to resample them, got 1"),
        ({"level": 95}, "level must be above 0.5 and below 1, got 95"),
    ],
)
def test_arguments_are_checked(change, message):
    arguments = {"baseline": "a", "images": 500, "level": 0.95, **change}
    with pytest.raises(ValueError, match=message):
        analyse(study({"a": 0.3, "b": 0.4}), **arguments)


def test_paired_differences_and_verdict_agree():
    scores = study({"a": 0.3, "b": 0.32})
    alone = paired_differences([("b", "a")], scores, 500)
    assert list(analyse(scores, "a", 500).against_baseline) == alone
