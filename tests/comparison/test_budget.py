import pytest

from det_losses.comparison.budget import Budget


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
