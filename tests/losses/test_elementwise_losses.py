"""The l_n family against its formulas and torch."""

import math

import pytest
import torch
import torch.nn.functional as F

from det_losses import build_loss, functional


def test_the_smooth_l1_example():
    """Three errors of 0.1, each 0.5 * 0.01."""
    pred, target = torch.tensor([1.4, 2.1, 2.9]), torch.tensor([1.5, 2.0, 3.0])
    assert build_loss("SmoothL1Loss")(pred, target).item() == pytest.approx(0.005, rel=1e-5)


def test_smooth_l1_with_beta_zero_is_exactly_l1():
    pred = torch.tensor([[-2.0, 0.0, 1e-9, 3.0]], requires_grad=True)
    target = torch.zeros(1, 4)
    smooth = functional.smooth_l1_loss(pred, target, beta=0.0)
    assert torch.equal(smooth, functional.l1_loss(pred, target))
    smooth.sum().backward()
    assert pred.grad.tolist() == [[-1.0, 0.0, 1.0, 1.0]]


def test_losses_equal_torchs_own():
    pred, target = torch.randn(2, 50, 4, dtype=torch.float64)
    for ours, theirs in [
        (functional.l1_loss(pred, target), F.l1_loss(pred, target)),
        (functional.mse_loss(pred, target), F.mse_loss(pred, target)),
        (
            functional.smooth_l1_loss(pred, target, beta=0.5),
            F.smooth_l1_loss(pred, target, beta=0.5),
        ),
        (functional.huber_loss(pred, target, delta=0.5), F.huber_loss(pred, target, delta=0.5)),
    ]:
        torch.testing.assert_close(ours.mean(), theirs, rtol=1e-12, atol=0)


def test_huber_is_delta_times_smooth_l1():
    pred, target = torch.randn(2, 50, 4, dtype=torch.float64)
    smooth = functional.smooth_l1_loss(pred, target, beta=0.3)
    torch.testing.assert_close(functional.huber_loss(pred, target, delta=0.3), 0.3 * smooth)


@pytest.mark.parametrize("beta", [0.4, 0.8, 1.0])
def test_focal_l1_gradient_peaks_at_one(beta):
    """-a x ln(b x) with a = e b has its maximum 1 at x = 1/(e b)."""
    x = torch.tensor([1 / (math.e * beta)], dtype=torch.float64, requires_grad=True)
    value = functional.focal_l1_loss(x, torch.zeros(1, dtype=torch.float64), beta=beta)
    (grad,) = torch.autograd.grad(value.sum(), x)
    assert grad.item() == pytest.approx(1, rel=1e-12)
    line = torch.linspace(0, 5, 1001, dtype=torch.float64, requires_grad=True)
    value = functional.focal_l1_loss(line, torch.zeros_like(line), beta=beta)
    (grad,) = torch.autograd.grad(value.sum(), line)
    assert grad.max() <= 1 and grad.isfinite().all() and grad[0] == 0


def test_focal_l1_is_continuous_where_its_pieces_meet():
    x = torch.tensor([1 - 1e-12, 1 + 1e-12], dtype=torch.float64)
    near, far = functional.focal_l1_loss(x, torch.zeros_like(x)).tolist()
    assert near == pytest.approx(far, rel=1e-10)


@pytest.mark.parametrize(
    ("function", "kwargs", "message"),
    [
        ("smooth_l1_loss", {"beta": -1.0}, "beta must be at least 0, got -1.0"),
        ("huber_loss", {"delta": 0.0}, "delta must be above 0, got 0.0"),
        ("focal_l1_loss", {"beta": 0.3}, r"beta must be in \[1/e, 1\], got 0.3"),
    ],
)
def test_parameters_out_of_range_are_refused_by_function_and_module(function, kwargs, message):
    names = {"smooth_l1_loss": "SmoothL1Loss", "huber_loss": "HuberLoss"}
    with pytest.raises(ValueError, match=message):
        getattr(functional, function)(torch.zeros(1), torch.zeros(1), **kwargs)
    with pytest.raises(ValueError, match=message):
        build_loss(names.get(function, "FocalL1Loss"), **kwargs)
