"""The base class of all losses: weights, repr, and the error without an implementation."""

import pytest
import torch
from torch import nn

from det_losses.conformance.case import box_pairs
from det_losses.losses import FocalEIoULoss, GIoULoss, Loss


def test_repr_shows_nested_losses_on_one_line():
    assert repr(GIoULoss(loss_weight=2.5)) == (
        "GIoULoss(eps=1e-07, reduction='mean', loss_weight=2.5)"
    )
    text = repr(nn.ModuleDict({"loss_bbox": FocalEIoULoss()}))
    assert "(loss_bbox): FocalEIoULoss(gamma=0.5, eps=1e-07," in text


def test_four_weights_of_a_box_are_averaged():
    pred, target = box_pairs(3)
    weight = torch.tensor([[1.0, 1, 1, 1], [0, 0, 2, 2], [0, 0, 0, 2]], dtype=torch.float64)
    none = GIoULoss(reduction="none")
    mean = torch.tensor([1.0, 1.0, 0.5], dtype=torch.float64)
    assert torch.equal(none(pred, target, weight), none(pred, target, mean))


def test_weights_may_be_a_mask():
    pred, target = box_pairs(3)
    mask = torch.tensor([True, False, True])
    total = GIoULoss(reduction="sum")
    kept = total(pred[mask], target[mask])
    torch.testing.assert_close(total(pred, target, mask), kept)
    torch.testing.assert_close(total(pred, target, mask[:, None].expand(3, 4)), kept)


def test_a_loss_must_implement_unreduced():
    with pytest.raises(NotImplementedError):
        Loss()(torch.zeros(1), torch.zeros(1))
