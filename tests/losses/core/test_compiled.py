"""The fast path of box losses: state after a fallback, modes, a subclass."""

from typing import Generic, TypeVar

import pytest
import torch

from det_losses.conformance.case import box_pairs
from det_losses.losses import GIoULoss
from det_losses.losses.core.box import IoUFamilyLoss
from det_losses.losses.core.state import RunningMean

Anything = TypeVar("Anything")


class Counting(IoUFamilyLoss):
    """Counts its evaluations in three buffers before an operation that may need the plain path."""

    paper = "made up"

    def __init__(self, then):
        super().__init__()
        self.then = then
        self.mean = RunningMean(0.5)
        self.register_buffer("in_place", torch.zeros(()), persistent=False)
        self.register_buffer("later", None)

    def penalties(self, pair):
        self.mean(pair.iou.detach().mean(), torch.tensor(True))
        self.in_place += 1
        self.later = torch.ones(()) if self.later is None else self.later + 1
        return (self.then(pair),)


def sorted_penalty(pair):
    return pair.iou.sort().values if (pair.iou < 0.1).any() else pair.iou


@pytest.mark.parametrize(
    "then",
    [
        lambda pair: pair.iou,
        lambda pair: pair.iou.sort().values,  # cannot be recorded
        lambda pair: pair.scaled(1e-8).iou,
        sorted_penalty,  # the fast path at first
        lambda pair: torch.where(condition=pair.iou < 0.1, input=pair.iou, other=0.0),
    ],
)
def test_each_forward_pass_updates_the_state_once(then):
    pred, target = box_pairs()
    close = target + 0.5
    loss = Counting(then)
    for count, boxes in enumerate((close, pred + 1e3, pred), start=1):
        loss(boxes.clone().requires_grad_(), target)
        assert loss.mean.batches == loss.in_place == loss.later == count


def test_an_error_of_a_later_batch_is_that_of_the_formula():
    def then(pair):
        if (pair.iou < 0.1).all():
            raise KeyError("far")
        return pair.iou

    loss, target = Counting(then), box_pairs()[1]
    loss((target + 0.5).requires_grad_(), target)
    with pytest.raises(KeyError, match="far"):
        loss((target + 1e3).requires_grad_(), target)
    assert loss.in_place == 2


def test_a_second_derivative_keeps_the_modes_of_all_parts():
    loss = Counting(lambda pair: pair.iou)
    loss.mean.eval()
    pred, target = box_pairs()
    pred = pred.clone().requires_grad_()
    torch.autograd.grad(loss(pred, target), pred, create_graph=True)
    assert loss.training and not loss.mean.training


class InPlace(IoUFamilyLoss):
    """Divides by a running mean that it changes in place."""

    paper = "made up"

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.ones(()))

    def factor(self, pair, weight=None):
        if self.training:
            self.mean.mul_(0.5).add_(pair.iou.detach().mean() / 2)
        return 1 / self.mean


def test_a_second_derivative_needs_the_state_of_its_forward_pass():
    loss = InPlace()
    pred, target = box_pairs()
    pred = pred.clone().requires_grad_()
    first = loss(pred, target)
    loss(pred, target)
    with pytest.raises(RuntimeError, match="have changed since"):
        torch.autograd.grad(first, pred, create_graph=True)


def test_a_subclass_may_have_further_bases():
    class Generalised(GIoULoss, Generic[Anything]):
        pass

    assert Generalised[int]
