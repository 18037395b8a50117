import numpy as np
import pytest

from det_losses.statistics import Caution, CautionKind, Scores
from det_losses.statistics.cautions import find_cautions


def scores(rows, seeds=None):
    return {
        label: Scores(
            (seeds or {}).get(label, tuple(range(len(full)))), full, np.tile(full, (3, 1))
        )
        for label, full in rows.items()
    }


# No two variants alike, standard deviations of about 0.01.
CALM = {
    "base": [0.300, 0.320, 0.311],
    "a": [0.310, 0.301, 0.323],
    "b": [0.305, 0.317, 0.295],
    "c": [0.321, 0.303, 0.312],
}


def kinds(found):
    return [caution.kind for caution in found]


def test_nothing_to_say():
    assert find_cautions(scores(CALM), "base", images=500) == []
    assert find_cautions(scores({"base": CALM["base"]}), "base", images=500) == []


@pytest.mark.parametrize(("seeds", "kind"), [(1, CautionKind.ONE_SEED), (2, CautionKind.TWO_SEEDS)])
def test_few_seeds(seeds, kind):
    few = scores({label: full[:seeds] for label, full in CALM.items()})
    assert find_cautions(few, "base", images=500) == [Caution(kind, seeds)]


def test_missing_runs_are_counted():
    few = scores({**CALM, "a": [0.31, 0.30]}, {"a": (0, 2)})
    (found,) = find_cautions(few, "base", images=500)
    assert found == Caution(CautionKind.UNEQUAL_SEEDS, 1, ("a",))


def test_a_run_that_diverged():
    """0.31 below the mean of the two other runs, thirty times their standard deviation."""
    diverged = scores({**CALM, "b": [0.305, 0.001, 0.317]})
    found = find_cautions(diverged, "base", images=500)
    assert CautionKind.OUTLYING_RUN in kinds(found)
    run = next(c for c in found if c.kind is CautionKind.OUTLYING_RUN)
    assert (run.labels, run.seed, run.value) == (("b",), 1, pytest.approx(-0.31))


def test_an_outlying_run_is_rarely_found_where_there_is_none():
    rng = np.random.default_rng(0)
    hits = [
        CautionKind.OUTLYING_RUN
        in kinds(find_cautions(scores(dict(zip("abcd", x, strict=True))), "a", images=500))
        for x in rng.standard_normal((400, 4, 3))
    ]
    assert np.mean(hits) < 0.03


def test_a_noisy_variant():
    """Variance of "a" 2,500 times that of the others: F(2, 6) > 2,500 is nearly impossible."""
    noisy = {
        label: np.mean(full) + np.subtract(full, np.mean(full)) for label, full in CALM.items()
    }
    noisy["a"] = noisy["a"].mean() + 50 * (noisy["a"] - noisy["a"].mean())
    found = find_cautions(scores(noisy), "base", images=500)
    (caution,) = [c for c in found if c.kind is CautionKind.UNEQUAL_VARIANCE]
    own, *others = (np.var(noisy[x], ddof=1) for x in ("a", "base", "b", "c"))
    assert caution.labels == ("a",) and caution.value == pytest.approx(own / np.mean(others))


def test_identical_runs():
    same = scores({**CALM, "a": [0.3, 0.3, 0.3], "c": CALM["b"]})
    found = find_cautions(same, "base", images=500)
    identical = [c.labels for c in found if c.kind is CautionKind.IDENTICAL_RUNS]
    assert identical == [("a",), ("b", "c")]


def test_a_baseline_unlike_similar_losses():
    rng = np.random.default_rng(1)
    common = 0.02 * rng.standard_normal(5)
    family = {x: 0.3 + common + 0.001 * rng.standard_normal(5) for x in "abc"}
    found = find_cautions(
        scores({"base": 0.3 + 0.02 * rng.standard_normal(5), **family}), "base", images=500
    )
    (caution,) = [c for c in found if c.kind is CautionKind.UNLIKE_BASELINE]
    assert caution.labels == ("base",) and caution.value > 4


@pytest.mark.parametrize(("images", "warned"), [(99, True), (100, False)])
def test_few_images(images, warned):
    assert (CautionKind.FEW_IMAGES in kinds(find_cautions(scores(CALM), "base", images))) == warned


@pytest.mark.parametrize(("class_images", "warned"), [(9, True), (10, False), (None, False)])
def test_a_class_in_few_images(class_images, warned):
    found = find_cautions(scores(CALM), "base", 500, class_images)
    assert found == ([Caution(CautionKind.RARE_CLASS, 9)] if warned else [])
