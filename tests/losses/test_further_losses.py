"""GCD and normalised L1."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from loss_inputs import box_pairs
from reference_further import REFERENCES

from det_losses import build_loss, functional

NAMES = sorted(REFERENCES)
SIZE = torch.tensor([[640.0, 480.0]], dtype=torch.float64)
CASES = [(n, k, f) for n in NAMES for k, f, _ in REFERENCES[n]]


def arguments(name):
    return REFERENCES[name][0][0]


def inputs(loss, dtype=torch.float64):
    """Return pred (with gradient), target and the inputs that the loss asks for."""
    pred, target = box_pairs(8, dtype)
    extra = {"image_size": SIZE.expand(8, 2)}
    extra = {key: value for key, value in extra.items() if key in loss.inputs}
    return pred.clone().requires_grad_(), target, extra


def expected(loss, function, pred, target, extra, **more):
    arrays = {key: value.numpy() for key, value in extra.items()}
    parameters = {k: v for k, v in loss.params().items() if k not in ("reduction", "loss_weight")}
    return function(pred.detach().numpy(), target.numpy(), **parameters, **arrays, **more)


def state(loss):
    return {key: value.double().numpy().copy() for key, value in loss.state_dict().items()}


@pytest.mark.parametrize(("name", "kwargs", "function"), CASES)
def test_value_is_that_of_the_equation(name, kwargs, function):
    loss = build_loss(name, reduction="none", **kwargs).eval()
    pred, target, extra = inputs(loss)
    value = loss(pred, target, **extra).detach().numpy()
    reference = expected(loss, function, pred, target, extra, state=state(loss))
    np.testing.assert_allclose(value, reference, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("name", NAMES)
def test_rows_of_weight_zero_change_nothing_beside_an_avg_factor(name):
    alone, padded = (build_loss(name, **arguments(name)) for _ in range(2))
    pred, target, extra = inputs(alone)
    weight = torch.linspace(0.5, 2, len(pred), dtype=torch.float64)
    weight[5:] = 0
    first = {key: value[:5] for key, value in extra.items()}
    for _ in range(2):
        value = padded(pred, target, weight, avg_factor=7, **extra)
        torch.testing.assert_close(
            value, alone(pred[:5], target[:5], weight[:5], avg_factor=7, **first)
        )


def test_gcd_knows_no_pixels_and_grows_with_the_distance():
    target = torch.tensor([[0.0, 0, 8, 4]], dtype=torch.float64)
    shifts = torch.linspace(0, 30, 61, dtype=torch.float64)[:, None]
    moved = target + shifts * torch.tensor([1.0, 0, 1, 0])
    loss = functional.gcd_loss(moved, target.expand_as(moved))
    assert loss[0] == 0 and (loss.diff() > 0).all()
    scaled = functional.gcd_loss(1e3 * moved, 1e3 * target.expand_as(moved))
    torch.testing.assert_close(scaled, loss)
    # A box of equal size, off by its own width: D^2 = (1 + 1) / 2.
    assert loss[16].item() == pytest.approx(1 - math.exp(-1))


def test_gcd_has_no_iou_that_a_wrapper_could_change():
    with pytest.raises(ValueError, match="InnerIoU changes the terms of an IoU loss, and GCDLoss"):
        build_loss("InnerIoU(GCDLoss, ratio=0.5)")


def test_normalized_l1_is_detrs():
    """DETR: sum |difference| of (cx, cy, w, h), in units of the image, over the number of boxes."""
    pred, target = box_pairs(4)
    scale = torch.cat([SIZE, SIZE], 1)

    def cxcywh(b):
        return torch.cat([(b[:, :2] + b[:, 2:]) / 2, b[:, 2:] - b[:, :2]], 1) / scale

    value = build_loss("NormalizedL1Loss")(pred, target, avg_factor=4, image_size=SIZE.expand(4, 2))
    torch.testing.assert_close(
        value, F.l1_loss(cxcywh(pred), cxcywh(target), reduction="none").sum() / 4
    )
    with pytest.raises(TypeError, match="NormalizedL1Loss needs the input 'image_size'"):
        build_loss("NormalizedL1Loss")(pred, target)
    with pytest.raises(ValueError, match=r"image_size must hold .*\[4, 2\], got \[4, 4\]"):
        functional.normalized_l1_loss(pred, target, pred)
    with pytest.raises(ValueError, match=r"boxes must have 4 values .* got shape \[4, 2\]"):
        functional.normalized_l1_loss(pred[:, :2], target[:, :2], pred[:, :2])


def test_eps_of_gcd_is_above_0():
    with pytest.raises(ValueError, match="eps must be above 0, got 0"):
        build_loss("GCDLoss(eps=0)")
