import copy

import pytest

from det_losses.engine import run_time
from det_losses.engine.run_time import RunTime, measure_run


def test_a_run_is_measured_by_its_steps_and_evaluations(shapes):
    cfg = copy.deepcopy(shapes)
    short = measure_run(cfg)
    cfg.train_cfg.update(max_epochs=2000, val_interval=1000)
    long = measure_run(cfg)
    assert long.seconds > 2 * short.seconds
    assert (short.evaluations, long.evaluations) == (1, 2)


def test_a_measurement_of_slow_steps_is_short(shapes, monkeypatch):
    steps = []
    monkeypatch.setattr(run_time, "_LIMIT", 0.0)
    monkeypatch.setattr(run_time, "_synchronise", lambda: steps.append(1))
    measure_run(copy.deepcopy(shapes))
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
