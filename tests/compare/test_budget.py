import copy

import pytest

from det_losses.compare import budget
from det_losses.compare.budget import Budget, RunTime, measure_run
from det_losses.compare.variants import Variant


def test_as_many_seeds_as_fit_are_planned():
    # 100 minutes hold ten rounds of ten minutes; two runs a round make 20 runs: 5 seeds of 4.
    given = Budget(6000.5, 600, jobs=2)
    assert given.seeds(lambda seed: 4, None) == [0, 1, 2, 3, 4]
    assert given.seeds(lambda seed: 4, [7, 8, 9]) == [7, 8, 9]
    assert given.seeds(lambda seed: 10, [7, 8, 9]) == [7, 8]


def test_finished_runs_take_no_time():
    # Twenty minutes hold two runs. Seeds 0 and 1 are done, of seed 2 one of three is left.
    given = Budget(1200.5, 600, jobs=1)
    assert given.seeds({0: 0, 1: 0, 2: 1, 3: 3}.get, [0, 1, 2, 3]) == [0, 1, 2]
    assert given.seeds({0: 0, 1: 3}.get, [0, 1]) == [0]


def test_a_budget_too_small_for_one_seed_is_an_error_with_the_time_needed():
    with pytest.raises(ValueError, match=r"one seed needs 4 runs and about 40 min 00 s"):
        Budget(1200, 600, jobs=1).seeds(lambda seed: 4, None)


def test_measured_runs_replace_the_estimate(monkeypatch):
    given = Budget(100, run_seconds=10, jobs=1)
    monkeypatch.setattr("time.monotonic", lambda: given.start + 80)
    assert given.allows_run([])
    assert not given.allows_run([25, 35])


def test_a_run_is_measured_by_its_steps_and_evaluations(shapes):
    cfg = copy.deepcopy(shapes)
    variant = Variant("L1Loss", {"model.loss_bbox": {"type": "L1Loss"}})
    short = measure_run(cfg, variant, 1)
    cfg.train_cfg.update(max_epochs=2000, val_interval=1000)
    long = measure_run(cfg, variant, 1)
    assert long.seconds > 2 * short.seconds
    assert (short.evaluations, long.evaluations) == (1, 2)


def test_a_measurement_of_slow_steps_is_short(shapes, monkeypatch):
    steps = []
    monkeypatch.setattr(budget, "_LIMIT", 0.0)
    monkeypatch.setattr(budget, "_synchronise", lambda: steps.append(1))
    measure_run(copy.deepcopy(shapes), Variant("L1Loss", {}), 1)
    assert len(steps) == 3  # one to warm up, one timed, and the evaluated batch


@pytest.mark.parametrize(
    ("evaluation", "evaluations", "note"),
    [
        (20.0, 1, None),
        (40.0, 4, "Evaluation will take 40% of the training time; train_cfg.val_interval="),
        (40.0, 1, "Evaluation will take 40% of the training time; val_dataloader.dataset.num_"),
    ],
)
def test_an_expensive_evaluation_is_stated_with_its_remedy(evaluation, evaluations, note):
    found = RunTime(10.0, 100.0, evaluation, evaluations).note
    assert found is None if note is None else found.startswith(note)
