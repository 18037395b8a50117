"""The base classes of box losses: terms, factors, inputs, wrappers at any depth."""

import pytest
import torch

from det_losses import build_loss, functional
from det_losses.boxes import box_pair
from det_losses.conformance.case import box_pairs
from det_losses.losses import GIoULoss
from det_losses.losses.core.box import IoUFamilyLoss, IoUWrapper


class CornerLoss(IoUFamilyLoss):
    """Distance of the top left corners relative to the image; needs the image size."""

    paper = "made up"
    inputs = ("image_size",)

    def penalties(self, pair):
        corner2 = ((pair.pred - pair.target)[:, :2] ** 2).sum(-1)
        return (corner2 / pair.inputs["image_size"].pow(2).sum(-1),)


class Squared(IoUWrapper):
    """A wrapper whose overlap term uses IoU squared; all other terms are unchanged."""

    paper = "made up"

    def iou(self, pair):
        return self.loss.iou(pair) ** 2


def test_a_declared_input_reaches_the_terms():
    """Corners 3 and 4 px apart, 25 of the 30^2 + 40^2 = 2500 of the image; the boxes disjoint."""
    pred, target = torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([[3.0, 4, 5, 6]])
    value = CornerLoss()(pred, target, image_size=torch.tensor([[30.0, 40.0]]))
    assert value.item() == pytest.approx(1 + 25 / 2500)


def test_a_missing_input_is_named():
    pred, target = box_pairs()
    with pytest.raises(TypeError, match="CornerLoss needs the input 'image_size'; pass image_size"):
        CornerLoss()(pred, target)


def test_a_wrapper_changes_one_term_at_any_depth():
    pred, target = box_pairs()
    iou = 1 - functional.iou_loss(pred, target, mode="linear")
    once = Squared("GIoULoss", reduction="none")(pred, target)
    torch.testing.assert_close(once, functional.giou_loss(pred, target) + iou - iou**2)
    twice = Squared(Squared(GIoULoss()), reduction="none")(pred, target)
    torch.testing.assert_close(twice, functional.giou_loss(pred, target) + iou - iou**4)


def test_a_wrapper_keeps_the_focal_factor_and_its_sample_weights():
    pred, target = box_pairs()
    s = torch.linspace(0, 2, len(pred), dtype=torch.float64)
    iou = 1 - functional.iou_loss(pred, target, mode="linear")
    w, e = iou**0.5, functional.eiou_loss(pred, target) + iou - iou**2
    value = Squared("FocalEIoULoss")(pred, target, s, avg_factor=s.sum())
    torch.testing.assert_close(value, (s * w * e).sum() / (s * w).sum())


@pytest.mark.parametrize("wrapped", ["WIoUv1Loss", "FocalIoU(EIoULoss, gamma=1.0)"])
def test_focal_iou_weights_the_wrapped_loss_of_each_box(wrapped):
    """Sum of W times the wrapped loss over the sum of W, also if the loss has its own factor."""
    pred, target = box_pairs(15)
    s = torch.linspace(0.5, 2, len(pred), dtype=torch.float64)
    each = build_loss(wrapped).unreduced(pred, target, s)
    w = s * box_pair(pred, target).iou ** 0.5
    value = build_loss(f"FocalIoU({wrapped})")(pred, target, s, avg_factor=s.sum())
    torch.testing.assert_close(value, (w * each).sum() / w.sum())


def test_a_wrapper_combines_the_declarations_of_both_losses():
    loss = build_loss("InnerIoU(FocalIoU(CIoULoss))")
    assert loss.constant_in_gradient == ("the weight W", "alpha")
    assert not loss.monotone_in_distance and loss.zero_at_target
    assert build_loss("InnerIoU(ExtendedIoULoss)").invariances == ("translation", "scale")
    assert build_loss("FocalerIoU(MPDIoULoss)").inputs == ("image_size",)


@pytest.mark.parametrize("name", ["NWDLoss", "BoundedIoULoss", "GCDLoss", "L1Loss"])
def test_a_loss_without_an_iou_term_cannot_be_wrapped(name):
    with pytest.raises(ValueError, match=f"InnerIoU changes the terms of an IoU loss, and {name}"):
        build_loss(f"InnerIoU({name})")


@pytest.mark.parametrize("argument", ["loss_weight=2.0", "reduction='sum'"])
def test_arguments_without_effect_on_a_wrapped_loss_are_refused(argument):
    with pytest.raises(ValueError, match="AlphaIoU: give loss_weight and reduction to AlphaIoU"):
        build_loss(f"AlphaIoU(GIoULoss({argument}))")
