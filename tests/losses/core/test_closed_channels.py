"""The fast path of sigmoid losses against the formula by operations on tensors."""

import pytest
import torch
from torch import nn
from torch.nn.functional import one_hot
from torchvision.ops import sigmoid_focal_loss

from det_losses.losses import FocalLoss
from det_losses.losses.core import closed_channels


@pytest.mark.parametrize("is_compiled", [True, False])
@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 3.0])
def test_value_and_gradient_are_torchvisions(monkeypatch, gamma, is_compiled):
    if not is_compiled:  # as on a GPU
        monkeypatch.setattr(closed_channels, "elementwise", None)
    pred = torch.linspace(-9, 9, 50 * 7 + 1, dtype=torch.float64)[1:]  # a logit is 0
    pred = pred.reshape(50, 7).requires_grad_()
    labels = torch.arange(50) % 8
    target = one_hot(labels, 8)[:, :7].double()
    expected = sigmoid_focal_loss(pred, target, gamma=gamma, reduction="sum")
    value = FocalLoss(gamma=gamma, reduction="sum")(pred, labels)
    torch.testing.assert_close(value, expected)
    slopes = [torch.autograd.grad(each, pred)[0] for each in (value, expected)]
    torch.testing.assert_close(*slopes)


def test_as_many_rows_as_classes_in_several_chunks():
    """Class weights belong to the channels, also of a batch whose rows are as many."""
    size = 400
    pred = torch.linspace(-3, 3, size * size).reshape(size, size).requires_grad_()
    loss = FocalLoss(class_weight=torch.linspace(0.5, 2, size).tolist())
    value = loss(pred, torch.arange(size))
    torch.testing.assert_close(value.detach(), loss(pred.detach(), torch.arange(size)))


def test_a_row_without_a_batch():
    pred, label = torch.tensor([0.5, -1.0]), torch.tensor(1)
    loss = FocalLoss()
    torch.testing.assert_close(loss(pred.clone().requires_grad_(), label), loss(pred, label))


def test_an_overridden_formula_is_used():
    class Doubled(FocalLoss):
        def unreduced(self, pred, target, weight=None):
            return 2 * super().unreduced(pred, target, weight)

    class Again(Doubled):
        pass

    pred, labels = torch.tensor([[0.5, -1.0]], requires_grad=True), torch.tensor([1])
    expected = 2 * FocalLoss()(pred, labels)
    torch.testing.assert_close(Doubled()(pred, labels), expected)
    torch.testing.assert_close(Again()(pred, labels), expected)


def test_a_learned_exponent_has_a_gradient():
    loss = FocalLoss()
    loss.gamma = nn.Parameter(torch.tensor(2.0))
    loss(torch.tensor([[0.5, -1.0]], requires_grad=True), torch.tensor([1])).backward()
    assert loss.gamma.grad is not None


def test_without_a_compiler_autograd_differentiates(monkeypatch):
    def fail(formula, dtype):
        raise ImportError

    pred, labels = torch.tensor([[0.5, -1.0]], requires_grad=True), torch.tensor([1])
    expected = torch.autograd.grad(FocalLoss()(pred, labels), pred)
    monkeypatch.setattr(closed_channels, "elementwise", fail)
    actual = torch.autograd.grad(FocalLoss()(pred, labels), pred)
    torch.testing.assert_close(actual, expected)


def test_weights_of_higher_precision_give_it_to_the_loss():
    pred, labels = torch.tensor([[0.5, -1.0]]), torch.tensor([1])
    weight = torch.tensor([0.1], dtype=torch.float64)
    expected = FocalLoss()(pred, labels, weight)
    torch.testing.assert_close(
        FocalLoss()(pred.requires_grad_(), labels, weight).detach(), expected
    )
