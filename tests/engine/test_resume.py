"""An interrupted and resumed run equals one that was never interrupted."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from training import run

EMA = [dict(type="EMAHook", momentum=0.3)]


class Interrupt(Hook):
    """Stands for Ctrl-C at a stage of an epoch (counted from 1)."""

    def __init__(self, stage, epoch):
        self.epoch = epoch
        setattr(self, stage, self._raise)

    def _raise(self, runner, **kwargs):
        if runner.epoch + 1 == self.epoch and kwargs.get("batch_idx", 1) == 1:
            raise KeyboardInterrupt


def checkpoint(runner, epoch):
    return torch.load(Path(runner.work_dir) / f"epoch_{epoch}.pth", weights_only=True)


@pytest.mark.parametrize("custom_hooks", [[], EMA], ids=["plain", "ema"])
def test_interrupted_and_resumed_equals_uninterrupted(toy_cfg, custom_hooks, record):
    whole = run(toy_cfg("whole", custom_hooks=custom_hooks))
    with pytest.raises(KeyboardInterrupt):
        run(toy_cfg("parts", custom_hooks=custom_hooks), Interrupt("before_train_iter", epoch=3))
    resumed = run(toy_cfg("parts", custom_hooks=custom_hooks, resume=True))

    expected, got = checkpoint(whole, 4), checkpoint(resumed, 4)
    for part in ("state_dict", "ema_state_dict")[: 1 + bool(custom_hooks)]:
        assert expected[part].keys() == got[part].keys()
        for key, value in expected[part].items():
            assert torch.equal(value, got[part][key]), (part, key)
    for key in ("train/loss", "train/loss_cls", "train/loss_bbox", "train/lr"):
        ours, theirs = (r.message_hub.get_scalar(key) for r in (whole, resumed))
        assert len(ours.data[0]) == 12
        np.testing.assert_array_equal(ours.data, theirs.data, err_msg=key)
    assert record(resumed)["metrics"] == record(whole)["metrics"]
    assert record(whole)["metrics"]["AP"] > 0.05


def test_resuming_is_logged_without_warnings(toy_cfg, capfd):
    run(toy_cfg(epochs=1))
    capfd.readouterr()
    run(toy_cfg(epochs=2, resume=True))
    out = capfd.readouterr().out
    assert "resumed epoch: 1, iter: 3" in out
    assert "WARNING" not in out


def test_evaluation_uses_the_averaged_weights(toy_cfg):
    class Watch(Hook):
        def __init__(self):
            self.trained, self.evaluated = [], []

        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            self.trained.append(runner.model.box.bias.detach().clone())

        def before_val_iter(self, runner, batch_idx, data_batch=None):
            self.evaluated.append(runner.model.box.bias.detach().clone())

    watch = Watch()
    runner = run(toy_cfg(epochs=2, custom_hooks=EMA), watch)
    # mmengine's average: a copy of the first weights, then (1 - 0.3) average + 0.3 weights.
    average = watch.trained[0]
    for weights in watch.trained[1:]:
        average = 0.7 * average + 0.3 * weights
    torch.testing.assert_close(watch.evaluated[-1], average)
    assert not torch.allclose(watch.evaluated[-1], watch.trained[-1])
    # The checkpoint's model is the averaged one, ready to be tested.
    torch.testing.assert_close(checkpoint(runner, 2)["state_dict"]["box.bias"], average)
    assert torch.equal(runner.model.box.bias, watch.trained[-1])


def test_a_missing_last_evaluation_is_done_at_the_end(toy_cfg, record):
    whole = run(toy_cfg("whole"))
    # Epoch 5 would be the next one: training and the last checkpoint are done.
    with pytest.raises(KeyboardInterrupt):
        run(toy_cfg("parts"), Interrupt("before_val", epoch=5))
    resumed = run(toy_cfg("parts", resume=True))
    assert record(resumed)["status"] == "done"
    assert record(resumed)["metrics_epoch"] == 4
    assert record(resumed)["metrics"] == record(whole)["metrics"]


def test_two_newest_checkpoints_are_kept(toy_cfg):
    runner = run(toy_cfg())
    kept = sorted(path.name for path in Path(runner.work_dir).glob("*.pth"))
    assert kept == ["epoch_3.pth", "epoch_4.pth"]
