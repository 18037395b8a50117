"""history.jsonl: the curve of a run."""

import json
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from training import run

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


class Stop(Hook):
    """Stands for a kill at a stage of training, after a number of finished steps."""

    priority = "LOWEST"

    def __init__(self, stage, step):
        self.step = step
        setattr(self, stage, self.stop)

    def stop(self, runner, **kwargs):
        if runner.iter == self.step:
            raise KeyboardInterrupt


def without_times(runner):
    found = map(json.loads, (Path(runner.work_dir) / "history.jsonl").read_text().splitlines())
    return [{key: line[key] for key in line if key != "seconds"} for line in found]


@pytest.fixture(scope="module")
def whole(toy_cfg_in, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return run(cfg_of(lambda name, **changes: toy_cfg_in(folder, **changes), interval=4))


@pytest.mark.parametrize(
    "stops",
    [
        [("before_train_iter", 8)],  # within the third epoch
        [("before_val_epoch", 6)],  # between a checkpoint and its evaluation
        [("after_val_epoch", 6)],
        [("before_train_iter", step) for step in (1, 4, 7, 10)],  # in each epoch
        [("before_val_iter", 12)],  # in the last evaluation
    ],
)
def test_a_resumed_run_has_the_same_lines_as_an_uninterrupted_one(toy_cfg, whole, stops):
    for stop in stops:
        with pytest.raises(KeyboardInterrupt):
            run({**cfg_of(toy_cfg, interval=4), "resume": True}, Stop(*stop))
    resumed = run({**cfg_of(toy_cfg, interval=4), "resume": True})
    assert without_times(resumed) == without_times(whole)
    ours, theirs = (
        torch.load(Path(each.work_dir) / "epoch_4.pth")["state_dict"] for each in (resumed, whole)
    )
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


@pytest.mark.parametrize(
    "damage", ['{"kind": "val", "st', "null", "[1]", '{"step": "x", "kind": "val"}', "\udcff\x00"]
)
def test_a_damaged_line_is_left_out(toy_cfg, whole, damage):
    with pytest.raises(KeyboardInterrupt):
        run(cfg_of(toy_cfg, interval=4), Stop("before_train_iter", 8))
    file = Path(toy_cfg()["work_dir"]) / "history.jsonl"
    lines = file.read_bytes().splitlines()
    lines.insert(1, damage.encode(errors="surrogateescape"))
    file.write_bytes(b"\n".join([*lines, damage.encode(errors="surrogateescape")]))
    resumed = run({**cfg_of(toy_cfg, interval=4), "resume": True})
    assert without_times(resumed) == without_times(whole)


def test_an_interval_below_one_is_refused():
    with pytest.raises(ValueError, match="interval must be at least 1, got 0"):
        HistoryHook(interval=0)
