"""A loss or gradient that is no number stops the run before it spoils anything."""

from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook

from det_losses.engine import NonFiniteError, build_runner


class Break(Hook):
    """From an iteration on (counted from 0), multiply what a slot's loss gives."""

    def __init__(self, slot, factor, iteration=4):
        self.slot, self.factor, self.iteration = slot, factor, iteration

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.iteration:
            self.weights = runner.model.box.weight.detach().clone()
            loss = runner.model.losses[self.slot]
            loss.register_forward_hook(lambda module, args, output: self.factor(output))


def nan_gradient(loss):
    # sqrt has an infinite derivative at 0, times the inner derivative 0: NaN; its value is 0.
    return loss + torch.sqrt((loss - loss) ** 2)


def train(cfg, hook):
    runner = build_runner(cfg)
    runner.register_hook(hook)
    with pytest.raises(NonFiniteError) as error:
        runner.train()
    return runner, str(error.value)


@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
def test_loss_is_named_with_its_place(toy_cfg, factor):
    hook = Break("loss_bbox", lambda loss: loss * factor)
    runner, message = train(toy_cfg(), hook)
    # Iteration 4 counted from 0 is the fifth, in the second epoch of 3.
    assert message.startswith("non-finite loss at epoch 2, iteration 5, image ids 10")
    assert f"loss_bbox={factor}." in message
    assert "loss_cls" not in message
    assert torch.equal(runner.model.box.weight, hook.weights)
    assert Path(runner.work_dir, "last_checkpoint").read_text().endswith("epoch_1.pth")


def test_bad_boxes_are_named_by_image(toy_cfg):
    cfg = toy_cfg()
    cfg["train_dataloader"]["dataset"]["infinite"] = (103,)
    with pytest.raises(NonFiniteError, match=r"epoch 1.*image ids .*103.*loss_bbox=inf"):
        build_runner(cfg).train()


def test_a_non_finite_gradient_is_detected_in_its_iteration(toy_cfg):
    hook = Break("loss_cls", nan_gradient)
    runner, message = train(toy_cfg(), hook)
    assert message.startswith("the gradient is NaN or infinite at epoch 2, iteration 5, image ids")
    assert "loss_cls=0." in message
    assert torch.equal(runner.model.box.weight, hook.weights)


def test_iterations_without_an_optimizer_step_are_checked(toy_cfg):
    cfg = toy_cfg(param_scheduler=None)
    cfg["optim_wrapper"]["accumulative_counts"] = 3
    hook = Break("loss_cls", lambda loss: loss * float("nan"), iteration=3)
    runner, message = train(cfg, hook)
    assert "epoch 2, iteration 4" in message
    assert "loss_cls=nan." in message
    assert "loss=" not in message
    assert torch.equal(runner.model.box.weight, hook.weights)


def test_model_and_optimizer_are_unchanged(toy_cfg):
    runner = build_runner(toy_cfg(epochs=1))
    runner.train()
    assert not runner.model._forward_hooks
    assert not runner.optim_wrapper.optimizer._optimizer_step_pre_hooks
