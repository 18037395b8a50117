"""history.jsonl: the curve of a run."""

import json
from pathlib import Path

import pytest
from mmengine.hooks import Hook

from det_losses.engine import HistoryHook, build_runner


def lines(runner, kind):
    text = (Path(runner.work_dir) / "history.jsonl").read_text()
    found = [json.loads(line) for line in text.splitlines()]
    return [line for line in found if line["kind"] == kind]


class Losses(Hook):
    """Keeps the loss of every step."""

    def __init__(self):
        self.values = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.values.append(outputs["loss"].item())


def cfg_of(toy_cfg, name="run", interval=2, **changes):
    cfg = toy_cfg(name, **changes)
    cfg["default_hooks"]["history"] = dict(type="HistoryHook", interval=interval)
    return cfg


def test_a_line_has_the_means_since_the_previous_line(toy_cfg):
    runner, losses = build_runner(cfg_of(toy_cfg, epochs=3)), Losses()
    runner.register_hook(losses)
    runner.train()  # 3 epochs of 3 steps
    found = lines(runner, "train")
    assert [line["step"] for line in found] == [2, 4, 6, 8, 9]
    pairs = [losses.values[i : i + 2] for i in range(0, 9, 2)]
    for line, values in zip(found, pairs, strict=True):
        assert line["losses"]["loss"] == pytest.approx(sum(values) / len(values), rel=1e-6)
    assert set(found[0]["losses"]) == {"loss", "loss_cls", "loss_bbox"}


def test_every_evaluation_has_a_line_with_the_steps_before_it(toy_cfg):
    runner = build_runner(cfg_of(toy_cfg, epochs=3))
    runner.train()
    found = lines(runner, "val")
    assert [(line["step"], line["epoch"]) for line in found] == [(3, 1), (6, 2), (9, 3)]
    assert found[-1]["metrics"]["AP"] == runner.message_hub.get_scalar("val/AP").current()
    assert found[-1]["metrics"]["APl"] is None  # the toy has no large box
    assert found[-1]["seconds"] > found[0]["seconds"] > 0


def test_a_resumed_run_has_the_same_lines_as_an_uninterrupted_one(toy_cfg):
    whole = build_runner(cfg_of(toy_cfg, "whole", interval=3, epochs=4))
    whole.train()
    first = build_runner(cfg_of(toy_cfg, "broken", interval=3, epochs=4))
    first.train_loop.dataloader  # noqa: B018  (built before it is stopped)

    class Stop(Hook):
        def before_train_iter(self, runner, *args, **kwargs):
            if runner.iter == 8:  # inside the third epoch
                raise KeyboardInterrupt

    first.register_hook(Stop())
    with pytest.raises(KeyboardInterrupt):
        first.train()
    cfg = cfg_of(toy_cfg, "broken", interval=3, epochs=4)
    second = build_runner({**cfg, "resume": True})
    second.train()
    for kind, key in (("train", "losses"), ("val", "metrics")):
        got = [(line["step"], line["epoch"], line[key]) for line in lines(second, kind)]
        assert got == [(line["step"], line["epoch"], line[key]) for line in lines(whole, kind)]


def test_an_interval_below_one_is_refused():
    with pytest.raises(ValueError, match="interval must be at least 1, got 0"):
        HistoryHook(interval=0)
