import pytest
import torch
from mmengine.config import Config
from training import compare

from det_losses.comparison import comparison, jobs, prepare
from det_losses.comparison.jobs import Throughput, measure_jobs
from det_losses.comparison.process import LocalExecutor
from det_losses.models.backbones import ResNetFPN


@pytest.fixture
def measured(cfg, monkeypatch):
    """Measure jobs on 8 cores with given steps per second: ``measured(runs, {1: 10.0, ...})``."""

    def measure(runs, steps, memory=1, free=1000):
        def fake(config, number, executor):
            return Throughput(number, steps[number], memory, free) if number in steps else None

        monkeypatch.setattr(jobs, "_measure", fake)
        return [each.jobs for each in measure_jobs(cfg, runs)]

    monkeypatch.setattr(jobs.os, "cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return measure


def test_jobs_are_doubled_as_far_as_that_is_faster(measured):
    linear = {1: 10.0, 2: 20.0, 4: 40.0, 8: 80.0}
    assert measured(100, linear) == [1, 2, 4, 8]
    assert measured(100, {**linear, 4: 20.5}) == [1, 2, 4]  # 4 gain 2.5%, so 8 are not tried
    assert measured(3, {**linear, 3: 30.0}) == [1, 2, 3]  # there are 3 runs
    assert measured(100, {1: 10.0, 2: 20.0}) == [1, 2]  # 4 fail
    assert measured(100, {}) == []


def test_jobs_fit_in_memory(measured):
    # 80% of 1000 bytes are used: 2 runs of 300 take 600, 4 would take 1200.
    assert measured(100, {1: 1.0, 2: 2.0, 4: 4.0}, memory=300) == [1, 2]


def test_the_memory_of_a_run_includes_the_features_that_it_will_keep(monkeypatch):
    monkeypatch.setattr(jobs, "uses_cuda", lambda: False)
    cached = ResNetFPN("resnet18", frozen_stages=1, norm="FrozenBN", feature_cache_mb=4000)
    cached.cache.size = 1000.0  # of which this process has these already
    growth = jobs._memory(cached)[0] - jobs._memory(torch.nn.Identity())[0]
    assert growth == pytest.approx(3000 * 2**20, abs=2**20)


def test_jobs_leave_each_run_the_threads_that_the_user_gave(measured, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "4,1")
    assert measured(100, {1: 1.0, 2: 2.0, 4: 4.0}) == [1, 2]  # of 8 cores


@pytest.mark.parametrize("status", [0, 1])
def test_a_measurement_trains_the_run_as_configured(tiny_config, monkeypatch, status):
    threads = []

    def here(self, command, output, tick, **options):
        assert command[1:3] == ["-m", "det_losses.comparison.jobs"]
        if status == 0:
            with monkeypatch.context() as patch:
                patch.setattr(torch, "set_num_threads", threads.append)
                jobs.main(command[3:])
        return status

    monkeypatch.setattr(LocalExecutor, "run", here)
    monkeypatch.setattr(jobs, "_WINDOW", 0.1)
    monkeypatch.setattr(jobs.os, "cpu_count", lambda: 4)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    found = measure_jobs(Config.fromfile(tiny_config), 1)
    if status:
        assert found == []
        return
    assert threads == [3]
    assert (found[0].jobs, len(found)) == (1, 1)
    assert 1 < found[0].steps < 10_000
    assert 50 << 20 < found[0].memory < found[0].free


@pytest.fixture
def timed(monkeypatch):
    """Two jobs train 1.6 times the steps of one; return the arguments of the measurements."""
    calls = []
    found = [Throughput(1, 10.0, 1, 9), Throughput(2, 16.0, 1, 9)]
    monkeypatch.setattr(prepare, "measure_jobs", lambda *args: calls.append(args[1]) or found)
    return calls


def test_a_comparison_takes_the_fastest_number_of_jobs(shapes, tmp_path, timed, capsys):
    compare(shapes, tmp_path, ["L1Loss", "GIoULoss"], seeds=[0, 1, 2], dry_run=True)
    assert timed == [6]
    out = " ".join(capsys.readouterr().out.split())
    assert "6: 2 variants with seeds 0, 1, 2, 2 in parallel" in out
    assert (
        "2, which is fastest (training steps per second of all jobs: 10 with 1, 16 with 2)" in out
    )
    # A run alone takes 10 s to start and 50 s of steps, which take 2 / 1.6 times as long in two
    # jobs: 72.5 s. Six runs in two jobs take three times that.
    assert "time about 1.2 min a run, 3.6 min in all" in out


@pytest.mark.parametrize(
    "options", [{"seeds": [0]}, {"seeds": [0, 1, 2], "jobs": 1}], ids=["short", "given"]
)
def test_jobs_are_not_measured_in_vain(shapes, tmp_path, timed, capsys, options):
    compare(shapes, tmp_path, ["L1Loss", "GIoULoss"], dry_run=True, **options)
    assert timed == []
    assert "in parallel" not in capsys.readouterr().out


def test_runs_get_the_number_of_jobs_and_results_tell_it(shapes, tmp_path, timed, monkeypatch):
    made = []

    class Runner(comparison.PlanRunner):
        def __init__(self, cfg, plan, root, lock, facts, number, *args):
            made.append((number, facts["jobs"]))
            super().__init__(cfg, plan, root, lock, facts, number, *args)

    monkeypatch.setattr(comparison, "PlanRunner", Runner)
    monkeypatch.setattr(LocalExecutor, "run", lambda *args, **kwargs: 1)
    compare(shapes, tmp_path, ["L1Loss", "GIoULoss"], seeds=[0, 1])
    assert made == [(2, 2)]
