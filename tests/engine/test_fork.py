"""Runs that continue from the middle of another one, with other losses."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from training import run

from det_losses.engine import LossRecordError
from det_losses.registry import MODELS

FILE = "fork.checkpoint"
EMA = [dict(type="EMAHook", momentum=0.3)]
KEEP = [dict(type="ForkHook", epoch=2, filename=FILE)]


class CountingLoss(nn.Module):
    """L1 with a buffer: its number of steps."""

    def __init__(self):
        super().__init__()
        self.register_buffer("steps", torch.tensor(0))

    def forward(self, pred, target):
        self.steps = self.steps + 1
        return nn.functional.l1_loss(pred, target)


@MODELS.register_module()
class CountingDetector(MODELS.get("ToyDetector")):
    """The toy with another box loss."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.losses["loss_bbox"] = CountingLoss()


def state(runner, name="epoch_4.pth"):
    return torch.load(Path(runner.work_dir) / name, weights_only=True)


def assert_equal_weights(one, other, part="state_dict"):
    assert one[part].keys() == other[part].keys()
    for key, value in one[part].items():
        assert torch.equal(value, other[part][key]), key


def forked(toy_cfg, trunk, name="forked", **changes):
    return toy_cfg(name, resume=True, load_from=str(Path(trunk.work_dir) / FILE), **changes)


@pytest.mark.parametrize("hooks", [[], EMA], ids=["plain", "ema"])
def test_a_fork_into_the_same_loss_equals_the_whole_training(toy_cfg, hooks, record):
    falling = dict(param_scheduler=[dict(type="CosineAnnealingLR", convert_to_iter_based=True)])
    plain = run(toy_cfg("plain", custom_hooks=hooks, **falling))
    trunk = run(toy_cfg("trunk", custom_hooks=[*hooks, *KEEP], **falling))
    branch = run(forked(toy_cfg, trunk, custom_hooks=hooks, **falling))
    for other in (trunk, branch):
        for part in ("state_dict", "ema_state_dict")[: 1 + bool(hooks)]:
            assert_equal_weights(state(plain), state(other), part)
        assert record(other)["metrics"] == record(plain)["metrics"]
    optimizers = [state(runner)["optimizer"]["state"] for runner in (plain, branch)]
    assert all(
        torch.equal(optimizers[0][i]["momentum_buffer"], optimizers[1][i]["momentum_buffer"])
        for i in optimizers[0]
    )


def test_the_records_of_a_forked_run_are_its_own(toy_cfg, record):
    trunk = run(toy_cfg("trunk", custom_hooks=KEEP))
    branch = run(forked(toy_cfg, trunk, model=dict(type="ToyDetector", loss_weight=3.0)))
    ours, theirs = record(branch), record(trunk)
    assert "fork" not in theirs
    # Two of four epochs, of three steps each, were trained with the other loss.
    losses = {"loss_cls": "CrossEntropyLoss()", "loss_bbox": "ToyLoss(beta=0.5, loss_weight=1.0)"}
    assert ours["fork"] == {"epoch": 2, "iter": 6, "losses": losses}
    assert ours["proof"]["loss_bbox"]["loss"] == "ToyLoss(beta=0.5, loss_weight=3.0)"
    assert [r["proof"]["loss_bbox"]["calls"] for r in (theirs, ours)] == [12, 6]
    assert ours["initial_weights"] == theirs["initial_weights"]
    lines = (Path(branch.work_dir) / "history.jsonl").read_text().splitlines()
    assert [line["epoch"] for line in map(json.loads, lines) if line["kind"] == "val"] == [3, 4]
    assert branch.message_hub.get_scalar("train/loss").data[0].shape == (6,)


def test_an_interrupted_forked_run_resumes_from_its_own_checkpoint(toy_cfg, record):
    trunk = run(toy_cfg("trunk", custom_hooks=KEEP))
    other = dict(type="ToyDetector", loss_weight=3.0)
    whole = run(forked(toy_cfg, trunk, "whole", model=other))
    short = dict(by_epoch=True, max_epochs=3, val_interval=1)
    run(forked(toy_cfg, trunk, "parts", model=other, train_cfg=short))
    resumed = run(toy_cfg("parts", model=other, resume=True))
    assert_equal_weights(state(whole), state(resumed))
    assert record(resumed)["fork"] == record(whole)["fork"]
    assert record(resumed)["proof"] == record(whole)["proof"]


def test_the_statistics_of_a_loss_start_at_the_fork(toy_cfg):
    model = dict(type="CountingDetector")
    trunk = run(toy_cfg("trunk", model=model, custom_hooks=[*EMA, *KEEP]))
    branch = run(forked(toy_cfg, trunk, model=model, custom_hooks=EMA))
    assert [int(r.model.losses["loss_bbox"].steps) for r in (trunk, branch)] == [12, 6]


def test_the_checkpoint_of_a_fork_is_not_one_of_the_run(toy_cfg):
    """A run with other losses cannot resume from a checkpoint that is not a fork's."""
    trunk = run(toy_cfg("trunk", custom_hooks=KEEP))
    assert sorted(path.name for path in Path(trunk.work_dir).glob("*.pth")) == [
        "epoch_3.pth",
        "epoch_4.pth",
    ]
    assert not list(Path(trunk.work_dir).glob("*.part"))
    changes = dict(resume=True, load_from=str(Path(trunk.work_dir) / "epoch_3.pth"))
    with pytest.raises(LossRecordError, match="this run was started with"):
        run(toy_cfg("other", model=dict(type="ToyDetector", loss_weight=3.0), **changes))
