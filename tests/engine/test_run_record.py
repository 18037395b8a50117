"""metrics.json: numbers, time and memory of a run."""

import json
import time
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook

from det_losses.engine import build_runner
from det_losses.engine.run_record import peak_memory


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


def test_validation_alone_leaves_no_record(toy_cfg):
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
