"""metrics.json: numbers, time and memory of a run."""

import hashlib
import json
import statistics
import time
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from torch import nn

from det_losses.engine import build_runner
from det_losses.engine.run_record import CAPACITY, WARM_UP, StepTimes, peak_memory, weights_hash


class Sleep(Hook):
    """Adds a known time to each iteration of a mode."""

    def __init__(self, train=0.0, val=0.0):
        self.seconds = {"train": train, "val": val}

    def _before_iter(self, runner, batch_idx, data_batch=None, mode="train"):
        time.sleep(self.seconds[mode])


def run(cfg, *hooks):
    runner = build_runner(cfg)
    for hook in hooks:
        runner.register_hook(hook)
    runner.train()
    return runner


def test_record_of_a_finished_run(toy_cfg, record):
    runner = run(toy_cfg(epochs=2, randomness=dict(seed=3)))
    got = record(runner)
    assert [got[key] for key in ("status", "epoch", "iter", "max_epochs", "seed")] == [
        "done",
        2,
        6,
        2,
        3,
    ]
    assert got["losses"]["loss_bbox"] == "ToyLoss(beta=0.5, loss_weight=1.0)"
    assert got["metrics"]["AP"] == runner.message_hub.get_scalar("val/AP").current()
    assert got["metrics"]["APl"] is None  # the toy has no large box
    assert got["metrics_epoch"] == 2


def test_time_of_evaluations_does_not_count(toy_cfg, record):
    # One epoch of 3 iterations and one evaluation of 3.
    got = record(run(toy_cfg(epochs=1), Sleep(train=0.05, val=0.5)))
    assert 0.15 <= got["train_seconds"] < 1.5


def test_time_of_evaluations_inside_an_iteration_loop_does_not_count(toy_cfg, record):
    cfg = toy_cfg(train_cfg=dict(by_epoch=False, max_iters=4, val_interval=2))
    cfg["train_dataloader"]["sampler"]["type"] = "InfiniteSampler"
    cfg["log_processor"]["by_epoch"] = False
    cfg["default_hooks"]["checkpoint"].update(by_epoch=False, interval=2)
    runner = run(cfg, Sleep(train=0.05, val=0.3))
    got = record(runner)
    # 4 iterations in training; two evaluations of 3 would add 1.8 s.
    assert 0.2 <= got["train_seconds"] < 1.8
    assert got["iter"] == 4
    assert got["status"] == "done"
    # Without epochs, the augmentation is not bound to one.
    assert runner.train_dataloader.dataset.epochs == []


def test_resumed_run_counts_on(toy_cfg, record):
    run(toy_cfg(epochs=1), Sleep(train=0.1))
    runner = run(toy_cfg(epochs=2, resume=True))
    assert record(runner)["train_seconds"] > 0.3


def test_seconds_of_an_iteration_are_a_median_without_warm_up(toy_cfg, record):
    class Slow(Hook):
        """The first two steps, while caches fill, and one later step are slow."""

        def before_train_iter(self, runner, batch_idx, data_batch=None):
            time.sleep(0.5 if runner.iter in (0, 1, 7) else 0.05)

    got = record(run(toy_cfg(epochs=4), Slow(), Sleep(val=0.1)))  # 12 steps, 5 of them warm-up
    assert 0.05 <= got["seconds_per_iteration"] < 0.25
    assert got["train_seconds"] > 3 * 0.5 + 9 * 0.05
    # Resumed, the steps before count on: two more, which are warm-up, change nothing.
    runner = run(toy_cfg(epochs=5, resume=True), Sleep(train=0.4))
    assert record(runner)["seconds_per_iteration"] == got["seconds_per_iteration"]


def test_a_run_without_steps_after_the_warm_up_has_no_seconds_per_iteration(toy_cfg, record):
    assert record(run(toy_cfg(epochs=1)))["seconds_per_iteration"] is None


def test_initial_weights_are_those_before_the_first_step(toy_cfg, record):
    class Note(Hook):
        priority = "HIGHEST"

        def before_train_iter(self, runner, batch_idx, data_batch=None):
            if runner.iter == 0:
                self.hash = weights_hash(runner.model)

    scratch, loaded = Note(), Note()
    first = record(run(toy_cfg("first", epochs=1), scratch))
    assert first["initial_weights"] == scratch.hash
    resumed = record(run(toy_cfg("first", epochs=2, resume=True)))
    assert resumed["initial_weights"] == scratch.hash
    weights = str(Path(toy_cfg("first")["work_dir"]) / "epoch_1.pth")
    other = record(run(toy_cfg("other", epochs=1, load_from=weights), loaded))
    assert other["initial_weights"] == loaded.hash != scratch.hash


def test_file_is_there_after_the_first_evaluation(toy_cfg):
    class Stop(Hook):
        def before_train_epoch(self, runner):
            if runner.epoch == 1:
                raise KeyboardInterrupt

    cfg = toy_cfg()
    with pytest.raises(KeyboardInterrupt):
        run(cfg, Stop())
    got = json.loads((Path(cfg["work_dir"]) / "metrics.json").read_text())
    assert (got["status"], got["epoch"]) == ("running", 1)


def test_training_without_validation(toy_cfg, record):
    cfg = toy_cfg(epochs=1, val_dataloader=None, val_cfg=None, val_evaluator=None)
    got = record(run(cfg))
    assert (got["status"], got["metrics"], got["metrics_epoch"]) == ("done", {}, None)


def test_validation_without_training_writes_no_record(toy_cfg):
    runner = build_runner(toy_cfg())
    assert "AP" in runner.val()
    assert not (Path(runner.work_dir) / "metrics.json").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="counts the GPU's memory")
def test_peak_memory_is_this_process():
    before, kind = peak_memory()
    assert kind == "rss"
    assert before > 100  # MiB; torch alone takes more
    torch.ones(300 * 2**18)  # 300 MiB of float32, each page written
    assert peak_memory()[0] >= before
    assert peak_memory()[0] > 300


class TestWeightsHash:
    def model(self, dtype=torch.float32):
        model = nn.Module()
        model.detector = nn.BatchNorm1d(2, dtype=dtype)
        model.losses = nn.ModuleDict({"loss_bbox": nn.BatchNorm1d(1)})
        return model

    def test_it_is_the_sha256_of_names_types_and_bytes(self):
        digest = hashlib.sha256()
        for name, value in self.model().detector.state_dict().items():
            digest.update(f"detector.{name} {value.dtype} {list(value.shape)}\n".encode())
            digest.update(value.numpy().tobytes())
        assert weights_hash(self.model()) == digest.hexdigest()

    def test_the_hash_depends_on_each_bit_but_not_on_the_losses(self):
        expected = weights_hash(self.model())
        for name in ("weight", "running_var", "num_batches_tracked"):
            model = self.model()
            tensor = getattr(model.detector, name).data
            tensor += 1 if name.startswith("num") else 1e-7
            assert weights_hash(model) != expected, name
        assert weights_hash(self.model(torch.float64)) != expected
        model = self.model()
        model.losses["loss_bbox"].running_mean += 1
        assert weights_hash(model) == expected

    def test_the_hash_ignores_a_ddp_wrapper(self):
        wrapper = nn.Module()
        wrapper.module = self.model()
        assert weights_hash(wrapper) == weights_hash(self.model())


def filled(values, state=None):
    times = StepTimes(state)
    for value in [99.0] * WARM_UP + list(values):
        times.add(value)
    return times


def test_median_without_warm_up():
    assert filled([]).median() is None
    assert filled([3.0, 1.0, 8.0]).median() == 3.0


@pytest.mark.parametrize("count", [CAPACITY, 10 * CAPACITY + 7])
def test_a_long_run_stores_a_bounded_number_of_times(count):
    # A step gets slower all the time: the median of the whole run is the middle step's time.
    values = [1 + index / count for index in range(count)]
    times = filled(values)
    assert len(times.state["seconds"]) <= CAPACITY
    assert times.median() == pytest.approx(statistics.median(values), rel=0.005)
    assert times.state["count"] == count


def test_the_state_continues_after_a_resume(tmp_path):
    values = [float(index % 17) for index in range(3 * CAPACITY)]
    torch.save(filled(values[:2000]).state, tmp_path / "state.pth")
    state = torch.load(tmp_path / "state.pth", weights_only=True)
    resumed, whole = filled(values[2000:], state), filled(values)
    assert resumed.state == whole.state
