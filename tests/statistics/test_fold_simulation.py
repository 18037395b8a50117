"""Error rates with folds: equal losses, whose training sets have images in common.

The difference of a loss in the run of seed s, on fold f = s mod K, is

    training * (sum of g over the other folds) / sqrt(K - 1) + images * sqrt(K) * h[f] + N[s]

with standard normal g (what the images of a fold do to a model that is trained on them), h (what
they do to its evaluation) and N, each of its own for every loss. So `training` is the standard
deviation of a run's score over training sets, `images` that over the evaluation of all images, and
the unit is the standard deviation of a run over seeds. Two runs share all but two folds.

The short form runs by default. `-m slow -s` prints the tables of docs/statistics.md.
"""

import math
from typing import NamedTuple

import numpy as np
import pytest
from test_simulation import allowance, findings, rate

from det_losses.statistics import LOOKS, look_error
from det_losses.statistics.estimates import Scores, by_fold, estimate
from det_losses.statistics.families import Families
from det_losses.statistics.maximum import Family


class World(NamedTuple):
    training: float
    images: float
    seeds: float = 1.0


WORLDS = {
    "seeds only": World(0, 0),
    "images lead": World(0, 1.5),
    "training sets and images 0.5": World(0.5, 0.5),
    "training sets and images 0.7": World(0.7, 0.7),
    "no seeds": World(1, 1, 0.05),
    "training sets twice the images": World(1, 0.5),
    "training sets 0.5, no images": World(0.5, 0),
}
# what is added to 1 / S for K folds; the first is what an ordinary paired test does
CORRECTIONS = {"none": 0.0, "half": 0.5, "Nadeau-Bengio": 1.0}


def draw(world: World, losses: int, folds: int, seeds: int, count: int) -> np.ndarray:
    """Return scores of equal losses, [R, L, S]."""
    rng = np.random.default_rng(seeds)
    g, h = rng.standard_normal((2, count, losses, folds))
    of_fold = world.training * (g.sum(axis=-1, keepdims=True) - g) / math.sqrt(folds - 1)
    of_fold = of_fold + world.images * math.sqrt(folds) * h
    own = rng.standard_normal((count, losses, seeds))
    return of_fold[..., np.arange(seeds) % folds] + world.seeds * own


def families(full: np.ndarray, folds: int, correction: float = 1.0) -> Families:
    """Return the tests on the means of the runs of each fold."""
    seeds = full.shape[-1]
    means = [full[..., f::folds].mean(axis=-1) for f in range(min(folds, seeds))]
    return Families(estimate(np.stack(means, axis=-1), None, 60, correction / (folds - 1)), 0)


def worst(world: str, losses: int, folds: int, seeds: int, count: int, correction=1.0) -> float:
    """Return the largest rate of an error, of the three families of tests."""
    full = draw(WORLDS[world], losses, folds, seeds, count)
    return max(rate(part) for part in findings(families(full, folds, correction)))


def test_runs_are_averaged_by_fold_as_in_the_simulation():
    full = draw(WORLDS["seeds only"], 2, 3, 7, 1)[0]
    scores = {
        k: Scores(range(7), own, np.stack([own] * 2)) for k, own in zip("ab", full, strict=True)
    }
    expected = families(full[None], 3).estimates.means[0]
    found = by_fold(scores, 3)
    assert found["a"].seeds == (0, 1, 2)
    assert [own.full.mean() for own in found.values()] == pytest.approx(expected)


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize(("losses", "seeds"), [(2, 5), (3, 5), (3, 10), (5, 8)])
def test_the_error_of_five_folds_is_at_most_eight_percent(world, losses, seeds):
    assert worst(world, losses, 5, seeds, 3000) < 0.08 + allowance(0.08, 3000) / 2


@pytest.mark.parametrize("world", ["training sets and images 0.5", "no seeds"])
@pytest.mark.parametrize(("folds", "seeds"), [(3, 3), (3, 6), (10, 10), (10, 20)])
def test_an_image_that_matters_as_much_in_training_as_in_evaluation(world, folds, seeds):
    """What the correction assumes, for other numbers of folds: the error is the nominal one."""
    assert worst(world, 3, folds, seeds, 3000) < 0.05 + allowance(0.05, 3000) / 2


def test_without_correction_equal_losses_would_differ():
    world = "training sets and images 0.7"
    assert worst(world, 3, 10, 10, 3000, correction=0) > 0.10
    full = draw(WORLDS[world], 3, 5, 10, 3000)
    # and runs on the same fold that count as independent
    as_runs = Families(estimate(full, None, 60), 0)
    assert max(rate(part) for part in findings(as_runs)) > 0.25


def looked_at(world: str, losses: int, folds: int, count: int) -> float:
    """Return the rate of an error at any scheduled look."""
    full = draw(WORLDS[world], losses, folds, max(LOOKS), count)
    found = [findings(families(full[..., :s], folds), look_error(s)) for s in LOOKS]
    return max(rate(np.any(part, axis=0)) for part in zip(*found, strict=True))


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("losses", [2, 3])
def test_looks_before_all_folds_are_evaluated_keep_the_error(world, losses):
    assert looked_at(world, losses, 5, 3000) < 0.05 + allowance(0.05, 3000) / 2


def detectable(world: str, folds: int, seeds: int, count: int, correction: float) -> float:
    """Return the difference to the baseline that 80% of comparisons of three losses detect."""
    tests = families(draw(WORLDS[world], 3, folds, seeds, count), folds, correction)
    part, d = tests.by_reference.at(0, 1), tests.estimates.value[:, 0, 1]
    return float(np.quantile(part.critical(0.05, Family.BASELINE, 3) * part.se - d, 0.8))


@pytest.mark.slow
def test_fold_error_long():
    """Both tables of docs/statistics.md: errors in percent, worst of 2, 3 and 5 losses; power."""
    columns = [(3, 3), (3, 6), (5, 3), (5, 5), (5, 10), (10, 5), (10, 10), (10, 20)]
    header = "".join(f" {folds} x {seeds} |" for folds, seeds in columns)
    print(f"\n| world |{header}\n|---|" + "---|" * len(columns))
    for world in WORLDS:
        rows = [
            [
                max(worst(world, losses, *column, 10_000, c) for losses in (2, 3, 5))
                for c in CORRECTIONS.values()
            ]
            for column in columns
        ]
        cells = [" / ".join(f"{100 * value:.1f}" for value in row) for row in rows]
        print(f"| {world} | {' | '.join(cells)} |", flush=True)
        if world != "training sets 0.5, no images" and world != "training sets twice the images":
            assert max(row[-1] for row in rows) < 0.08
    print(f"\n| world |{header}\n|---|" + "---|" * len(columns))
    for world in ("seeds only", "training sets and images 0.5", "images lead"):
        cells = [
            " / ".join(f"{detectable(world, *c, 10_000, x):.1f}" for x in CORRECTIONS.values())
            for c in columns
        ]
        print(f"| {world} | {' | '.join(cells)} |", flush=True)
    for folds in (5, 10):
        shares = {
            w: max(looked_at(w, losses, folds, 10_000) for losses in (2, 3, 5)) for w in WORLDS
        }
        print(f"looks, {folds} folds:", {w: f"{100 * s:.1f}" for w, s in shares.items()})
