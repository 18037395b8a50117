"""Gradients that are computed with the value: the features of autograd that they must keep."""

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from det_losses.conformance.case import box_pairs
from det_losses.losses import FocalLoss, GIoULoss


def boxes():
    pred, target = box_pairs()
    return GIoULoss(), pred, target


def logits():
    pred = torch.linspace(-2, 2, 15, dtype=torch.float64).reshape(5, 3)
    return FocalLoss(), pred, torch.tensor([0, 1, 2, 3, -1])


@pytest.fixture(params=[boxes, logits], ids=["boxes", "logits"])
def case(request):
    loss, pred, target = request.param()
    return loss, pred.clone().requires_grad_(), target


def test_a_changed_gradient_changes_no_later_one(case):
    loss, pred, target = case
    value = loss(pred, target)
    first = torch.autograd.grad(value, pred, retain_graph=True)[0]
    expected = first.clone()
    first.zero_()
    torch.testing.assert_close(torch.autograd.grad(value, pred)[0], expected)


def test_a_graph_that_is_kept_accumulates_the_gradient(case):
    loss, pred, target = case
    expected = torch.autograd.grad(loss(pred, target), pred)[0]
    value = loss(pred.view(pred.shape), target)  # a view of the gradient goes into pred.grad
    for _ in range(3):
        value.backward(retain_graph=True)
    torch.testing.assert_close(pred.grad, 3 * expected)


def test_a_checkpoint_computes_the_loss_again(case):
    loss, pred, target = case
    expected = torch.autograd.grad(loss(pred, target), pred)[0]
    value = checkpoint(lambda x: loss(x, target), pred * 1, use_reentrant=False)
    torch.testing.assert_close(torch.autograd.grad(value, pred)[0], expected)


def test_gradients_of_several_upstreams_at_once(case):
    loss, pred, target = case
    value = loss(pred, target)
    upstreams = torch.tensor([1.0, 2.0], dtype=value.dtype)
    both = torch.autograd.grad(value, pred, upstreams, is_grads_batched=True)[0]
    expected = torch.autograd.grad(loss(pred, target), pred)[0]
    torch.testing.assert_close(both, torch.stack([expected, 2 * expected]))


@pytest.mark.filterwarnings("ignore")
def test_a_trace_computes_the_loss_of_its_input(case):
    loss, pred, target = case
    traced = torch.jit.trace(lambda x: loss(x, target), (pred,), check_trace=False)
    other = (pred + 0.25).detach().requires_grad_()
    torch.testing.assert_close(traced(other), loss(other, target))


def test_transforms_of_the_divisor(case):
    """The fast path needs the number; inside vmap there is none."""
    loss, pred, target = case
    divisors = torch.tensor([1.0, 4.0], dtype=pred.dtype)
    loss(pred, target)  # the fast path works
    both = torch.vmap(lambda divisor: loss(pred, target, None, divisor))(divisors)
    torch.testing.assert_close(both[1], loss(pred, target, None, 4.0))
