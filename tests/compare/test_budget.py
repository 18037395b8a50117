import copy

import pytest

from det_losses.compare.budget import Budget, measure_run
from det_losses.compare.variants import Variant


def test_as_many_seeds_as_fit_are_planned():
    # 100 minutes hold ten rounds of ten minutes; two runs a round make 20 runs: 5 seeds of 4.
    budget = Budget(6000.5, 600, jobs=2)
    assert budget.seeds(lambda seed: 4, None) == [0, 1, 2, 3, 4]
    assert budget.seeds(lambda seed: 4, [7, 8, 9]) == [7, 8, 9]
    assert budget.seeds(lambda seed: 10, [7, 8, 9]) == [7, 8]


def test_finished_runs_take_no_time():
    # Twenty minutes hold two runs. Seeds 0 and 1 are done, of seed 2 one of three is left.
    budget = Budget(1200.5, 600, jobs=1)
    assert budget.seeds({0: 0, 1: 0, 2: 1, 3: 3}.get, [0, 1, 2, 3]) == [0, 1, 2]
    assert budget.seeds({0: 0, 1: 3}.get, [0, 1]) == [0]


def test_a_budget_too_small_for_one_seed_is_an_error_with_the_time_needed():
    with pytest.raises(ValueError, match=r"one seed needs 4 runs and about 40 min 00 s"):
        Budget(1200, 600, jobs=1).seeds(lambda seed: 4, None)


def test_measured_runs_replace_the_estimate(monkeypatch):
    budget = Budget(100, run_seconds=10, jobs=1)
    monkeypatch.setattr("time.monotonic", lambda: budget.start + 80)
    assert budget.allows_run([])
    assert not budget.allows_run([25, 35])


def test_a_run_is_measured_by_its_steps_and_evaluations(shapes):
    cfg = copy.deepcopy(shapes)
    variant = Variant("L1Loss", {"model.loss_bbox": {"type": "L1Loss"}})
    short = measure_run(cfg, variant, 1)
    cfg.train_cfg.max_epochs = 2000
    assert measure_run(cfg, variant, 1) > 2 * short
