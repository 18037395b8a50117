"""What a new loss gets from the base classes: terms, factors, inputs, nested building."""

import pytest
import torch
from loss_inputs import box_pairs
from torch import nn

from det_losses import build_loss, functional
from det_losses.losses import FocalEIoULoss, GIoULoss, Loss
from det_losses.losses.core.box import IoUFamilyLoss


class CornerLoss(IoUFamilyLoss):
    """Distance of the top left corners, relative to the image: needs the image's size."""

    paper = "made up"
    inputs = ("image_size",)

    def penalties(self, pair):
        corner2 = ((pair.pred - pair.target)[:, :2] ** 2).sum(-1)
        return (corner2 / pair.inputs["image_size"].pow(2).sum(-1),)


class Squared(IoUFamilyLoss):
    """A wrapper that sees IoU squared and delegates everything else to the loss it holds."""

    paper = "made up"

    def __init__(self, *, loss, **kwargs):
        super().__init__(**kwargs)
        self.loss = build_loss(loss)

    def iou(self, pair):
        return self.loss.iou(pair) ** 2

    def overlap(self, iou):
        return self.loss.overlap(iou)

    def penalties(self, pair):
        return self.loss.penalties(pair)

    def factor(self, pair, weight=None):
        return self.loss.factor(pair, weight)


def test_a_declared_input_reaches_the_terms():
    """Corners 3 and 4 px apart, 25 of the 30^2 + 40^2 = 2500 of the image; the boxes disjoint."""
    pred, target = torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([[3.0, 4, 5, 6]])
    value = CornerLoss()(pred, target, image_size=torch.tensor([[30.0, 40.0]]))
    assert value.item() == pytest.approx(1 + 25 / 2500)


def test_a_missing_input_is_named():
    pred, target = box_pairs()
    with pytest.raises(TypeError, match="CornerLoss needs the input 'image_size'"):
        CornerLoss()(pred, target)


def test_a_wrapper_changes_one_term_at_any_depth():
    pred, target = box_pairs()
    iou = 1 - functional.iou_loss(pred, target, mode="linear")
    once = Squared(loss="GIoULoss", reduction="none")(pred, target)
    torch.testing.assert_close(once, functional.giou_loss(pred, target) + iou - iou**2)
    twice = Squared(loss=Squared(loss=GIoULoss()), reduction="none")(pred, target)
    torch.testing.assert_close(twice, functional.giou_loss(pred, target) + iou - iou**4)


def test_a_focal_factor_survives_a_wrapper_and_sees_the_sample_weights():
    pred, target = box_pairs()
    s = torch.linspace(0, 2, len(pred), dtype=torch.float64)
    iou = 1 - functional.iou_loss(pred, target, mode="linear")
    w, e = iou**0.5, functional.eiou_loss(pred, target) + iou - iou**2
    value = Squared(loss=dict(type="FocalEIoULoss"))(pred, target, s, avg_factor=s.sum())
    torch.testing.assert_close(value, (s * w * e).sum() / (s * w).sum())


def test_repr_shows_nested_losses_on_one_line():
    assert repr(GIoULoss(loss_weight=2.5)) == (
        "GIoULoss(eps=1e-07, reduction='mean', loss_weight=2.5)"
    )
    text = repr(nn.ModuleDict({"loss_bbox": FocalEIoULoss()}))
    assert "(loss_bbox): FocalEIoULoss(gamma=0.5, eps=1e-07," in text


def test_four_weights_of_a_box_count_by_their_mean():
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


def test_a_loss_must_say_how_it_is_computed():
    with pytest.raises(NotImplementedError):
        Loss()(torch.zeros(1), torch.zeros(1))
