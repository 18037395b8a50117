"""The median of steps in bounded memory."""

import statistics

import pytest
import torch

from det_losses.engine.step_time import CAPACITY, WARM_UP, StepTimes


def filled(values, state=None):
    times = StepTimes(state)
    for value in [99.0] * WARM_UP + list(values):
        times.add(value)
    return times


def test_median_without_warm_up():
    assert filled([]).median() is None
    assert filled([3.0, 1.0, 8.0]).median() == 3.0


@pytest.mark.parametrize("count", [CAPACITY, 10 * CAPACITY + 7])
def test_a_long_run_keeps_a_bounded_sample_of_all_of_it(count):
    # A step gets slower all the time: the median of the whole run is the middle step's time.
    values = [1 + index / count for index in range(count)]
    times = filled(values)
    assert len(times.state["seconds"]) <= CAPACITY
    assert times.median() == pytest.approx(statistics.median(values), rel=0.005)
    assert times.state["count"] == count


def test_the_state_goes_on_after_a_resume(tmp_path):
    values = [float(index % 17) for index in range(3 * CAPACITY)]
    torch.save(filled(values[:2000]).state, tmp_path / "state.pth")
    state = torch.load(tmp_path / "state.pth", weights_only=True)
    resumed, whole = filled(values[2000:], state), filled(values)
    assert resumed.state == whole.state
