"""Elementwise losses: parity with torch, gradients, and statistics over batches."""

import math
from math import exp, log

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from loss_inputs import DELTA_NAMES

from det_losses import build_loss, functional


@pytest.mark.parametrize("name", DELTA_NAMES)
def test_elementwise_losses_accept_any_shape(name):
    loss = build_loss(name, reduction="none")
    pred, target = torch.randn(2, 5, dtype=torch.float64)
    assert loss(pred, target).shape == (5,)


def test_smooth_l1_by_hand():
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


def test_losses_equal_those_of_torch():
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


def test_focal_l1_is_continuous_at_one():
    x = torch.tensor([1 - 1e-12, 1 + 1e-12], dtype=torch.float64)
    near, far = functional.focal_l1_loss(x, torch.zeros_like(x)).tolist()
    assert near == pytest.approx(far, rel=1e-10)


@pytest.mark.parametrize("beta", [1.0, 0.1, 3.0])
def test_balanced_l1_has_the_papers_gradient_for_any_beta(beta):
    """Slope 0 at the target, alpha ln(b / 2 + 1) half way to beta, gamma at beta and beyond."""
    x = torch.tensor([[1e-12, beta / 2, beta * (1 - 1e-12), beta * 3]], dtype=torch.float64)
    x.requires_grad_()
    build_loss("BalancedL1Loss", beta=beta, reduction="sum")(x, torch.zeros_like(x)).backward()
    expected = [0, 0.5 * log((exp(3) - 1) / 2 + 1), 1.5, 1.5]
    np.testing.assert_allclose(x.grad[0], expected, atol=1e-9)


def test_balanced_l1_as_released_has_the_gradient_of_the_authors_code():
    """RetinaNet's beta of 0.11; the numbers are those of OceanPang/Libra_R-CNN and mmdet 2.x."""
    x = torch.tensor([1e-4, 0.01, 0.05], dtype=torch.float64, requires_grad=True)
    for as_released, slopes, second in (
        (True, [3.99, 1.98, 1.55], 0.0264),
        (False, [0.009, 0.50, 1.14], 0.0029),
    ):
        loss = build_loss("BalancedL1Loss", beta=0.11, as_released=as_released, reduction="none")
        value = loss(x, torch.zeros_like(x))
        (gradient,) = torch.autograd.grad(value.sum(), x)
        np.testing.assert_allclose(gradient, slopes, atol=0.006)
        assert value[1].item() == pytest.approx(second, abs=6e-5)


def test_balanced_l1_as_released_equals_the_paper_for_beta_one():
    pred, target = torch.randn(2, 50, 4, dtype=torch.float64)
    released = functional.balanced_l1_loss(pred, target, as_released=True)
    torch.testing.assert_close(released, functional.balanced_l1_loss(pred, target))


@pytest.mark.parametrize("as_released", [False, True])
def test_balanced_l1_is_finite_for_huge_deltas(as_released):
    x = torch.tensor([[1e30, -1e38, 3e4, 0.0]], requires_grad=True)
    loss = build_loss("BalancedL1Loss", as_released=as_released, reduction="none")
    value = loss(x, torch.zeros_like(x))
    value.sum().backward()
    assert value[0, 2:].isfinite().all()
    assert x.grad.tolist() == [[1.5, -1.5, 1.5, 0.0]]


def dynamic_betas(errors_of_batches, k, interval, beta):
    """The betas of hkzhang95/DynamicRCNN's training loop, for lists of proposals' errors."""
    betas, recorded, now = [], [], beta
    for errors in errors_of_batches:
        betas.append(now)
        if len(errors) == 0:
            continue
        recorded.append(sorted(errors)[min(k, len(errors)) - 1])
        if len(recorded) == interval:
            now = min(sorted(recorded)[interval // 2], beta)
            recorded = []
    return betas


def test_dynamic_smooth_l1_follows_the_authors_schedule():
    """Batches of 0 to 5 proposals with decreasing deltas; rows of weight 0 are not proposals."""
    generator = torch.Generator().manual_seed(0)
    loss = build_loss("DynamicSmoothL1Loss", k=3, interval=4, beta=0.8)
    seen, errors = [], []
    for step in range(40):
        target = torch.randn(6, 4, generator=generator) * 0.95**step
        weight = (torch.arange(6) < step % 6).float()
        seen.append(loss.current_beta.item())
        kept = target[weight > 0]
        value = loss(torch.zeros(6, 4), target, weight, avg_factor=1)
        expected = functional.smooth_l1_loss(torch.zeros_like(kept), kept, beta=seen[-1])
        torch.testing.assert_close(value, expected.sum())
        errors.append(kept[:, :2].abs().mean(1).tolist())
    np.testing.assert_allclose(seen, dynamic_betas(errors, 3, 4, 0.8), rtol=1e-6)
    assert len(set(seen)) > 5 and max(seen) == pytest.approx(0.8)


def test_dynamic_smooth_l1_keeps_beta_in_evaluation_and_for_perfect_proposals():
    loss = build_loss("DynamicSmoothL1Loss", k=1, interval=1)
    pred, target = torch.ones(2, 4), torch.full((2, 4), 0.25)
    loss.eval()(pred, target)
    assert loss.current_beta == 1
    loss.train()(pred, torch.zeros(2, 4))  # every error is 0
    assert loss.current_beta == 1
    loss(pred, target)
    assert loss.current_beta == 0.25


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("SmoothL1Loss(beta=-1.0)", "beta must be at least 0, got -1.0"),
        ("HuberLoss(delta=0.0)", "delta must be above 0, got 0.0"),
        ("FocalL1Loss(beta=0.3)", r"beta must be in \[1/e, 1\], got 0.3"),
        ("BalancedL1Loss(alpha=0.01)", "alpha must be above gamma / 80 = 0.01875, got 0.01"),
        ("BalancedL1Loss(gamma=0.0)", "gamma must be above 0, got 0.0"),
        ("BalancedL1Loss(beta=0.0)", "beta must be above 0, got 0.0"),
        ("DynamicSmoothL1Loss(k=0)", "k must be a whole number of at least 1, got 0"),
        ("DynamicSmoothL1Loss(interval=0)", "interval must be a whole number of at least 1"),
        ("DynamicSmoothL1Loss(beta=0.0)", "beta must be above 0, got 0.0"),
    ],
)
def test_arguments_out_of_range_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        build_loss(config)


def test_functions_refuse_the_same_arguments_as_modules():
    for name, arguments, message in [
        ("smooth_l1_loss", {"beta": -1.0}, "beta must be at least 0, got -1.0"),
        ("huber_loss", {"delta": 0.0}, "delta must be above 0, got 0.0"),
        ("focal_l1_loss", {"beta": 0.3}, r"beta must be in \[1/e, 1\], got 0.3"),
        ("balanced_l1_loss", {"beta": 0.0}, "beta must be above 0, got 0.0"),
    ]:
        with pytest.raises(ValueError, match=message):
            getattr(functional, name)(torch.zeros(1), torch.zeros(1), **arguments)
