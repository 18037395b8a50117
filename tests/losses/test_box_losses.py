"""The box losses that keep no state: their papers' equations, and geometry in words."""

import inspect
from math import exp, log, sqrt

import numpy as np
import pytest
import torch
from loss_references import central_difference
from reference_boxes import REFERENCES

from det_losses import build_loss, functional

CASES = [(name, *entry) for name, entries in REFERENCES.items() for entry in entries]
NAMES = list(REFERENCES)


def pairs():
    """Sixty pairs, a third each close to the target, overlapping it, and apart from it."""
    rng = np.random.default_rng(0)
    corner, size = rng.uniform(0, 100, (60, 2)), rng.uniform(10, 90, (60, 2))
    target = np.concatenate([corner, corner + size], 1)
    reach = np.repeat([0.03, 0.3, 0.3], 20)[:, None] * np.tile(size, 2)
    pred = target + reach * rng.uniform(-1, 1, (60, 4))
    pred[40:] += np.tile(rng.uniform(-200, 200, (20, 2)), 2)
    return pred, target


def deltas():
    rng = np.random.default_rng(1)
    return rng.normal(size=(40, 4)), rng.normal(size=(40, 4))


def inputs_of(loss, n):
    size = np.random.default_rng(2).uniform(300, 900, (n, 2))
    return {name: size for name in loss.inputs}


def call(loss, pred, target, inputs):
    tensors = {name: torch.tensor(value) for name, value in inputs.items()}
    return loss(pred, torch.tensor(target), reduction_override="none", **tensors)


@pytest.mark.parametrize(
    ("name", "kwargs", "reference", "constants"),
    [(*case, None) if len(case) == 3 else case for case in CASES],
)
def test_value_and_gradient_equal_the_papers_equation(name, kwargs, reference, constants):
    loss = build_loss(name, **kwargs)
    pred, target = deltas() if loss.space == "delta" else pairs()
    known = {**loss.params(), **inputs_of(loss, len(pred))}
    leaf = torch.tensor(pred, requires_grad=True)
    value = call(loss, leaf, target, inputs_of(loss, len(pred)))
    np.testing.assert_allclose(value.detach(), reference(pred, target, **known), rtol=1e-10)
    if constants is not None:
        known |= constants(pred, target, **known)
    value.sum().backward()
    slope = central_difference(lambda x: reference(x, target, **known), pred)
    np.testing.assert_allclose(leaf.grad, slope, rtol=1e-5, atol=1e-8)


# 10 x 10 and 20 x 10 from one corner: half overlaps, centres 5 apart along x, hull 20 x 10.
HALF = ([0.0, 0, 10, 10], [0.0, 0, 20, 10])
# 20 x 10 and its copy shifted right by 10: a third overlaps, hull 30 x 10.
SHIFTED = ([0.0, 0, 20, 10], [10.0, 0, 30, 10])
# 10 x 20 and 20 x 10 from one corner: 100 of 300 overlap, centres (5, 10) and (10, 5): apart along
# the diagonal; hull 20 x 20; each side is half or twice the target's.
CROSSED = ([0.0, 0, 10, 20], [0.0, 0, 20, 10])
# 20 x 10 twice, the prediction 30 to the right and 40 below: centres 50 apart, gaps 10 and 30,
# hull 50 x 50.
APART = ([30.0, 40, 50, 50], [0.0, 0, 20, 10])


@pytest.mark.parametrize(
    ("name", "kwargs", "boxes", "expected"),
    [
        # level centres: Lambda = 0, rho_x = (5 / 20)^2; width off by half
        ("SIoULoss", {}, HALF, 1 / 2 + (1 - exp(-2 / 16) + (1 - exp(-1 / 2)) ** 4) / 2),
        ("SIoULoss", {"theta": 2.0}, HALF, 1 / 2 + (1 - exp(-1 / 8) + (1 - exp(-1 / 2)) ** 2) / 2),
        ("SIoULoss", {}, SHIFTED, 2 / 3 + (1 - exp(-2 / 9)) / 2),
        # the diagonal: Lambda = 1, rho_x = rho_y = (5 / 20)^2
        ("SIoULoss", {}, CROSSED, 2 / 3 + 1 - exp(-1 / 16) + (1 - exp(-1 / 2)) ** 4),
        # Lambda = 2 * 30 * 40 / 50^2 = 0.96
        ("SIoULoss", {}, APART, 1 + (2 - exp(-1.04 * 0.6**2) - exp(-1.04 * 0.8**2)) / 2),
        # of an image 300 x 400, diagonal 500: the corners are (10, 0) and (10, 0) apart
        ("MPDIoULoss", {}, SHIFTED, 2 / 3 + (100 + 100) / 500**2),
        ("MPDIoULoss", {}, CROSSED, 2 / 3 + (0 + 200) / 500**2),
        ("MPDIoULoss", {}, APART, 1 + (2500 + 2500) / 500**2),
        ("ShapeIoULoss", {}, SHIFTED, 2 / 3 + 100 / 1000),
        # the target is twice as wide as high: ww = 4/3 and hh = 2/3
        ("ShapeIoULoss", {"scale": 1.0}, SHIFTED, 2 / 3 + 2 / 3 * 100 / 1000),
        ("ShapeIoULoss", {"scale": 1.0}, APART, 1 + (2 / 3 * 900 + 4 / 3 * 1600) / 5000),
        (
            "ShapeIoULoss",
            {"scale": 1.0},
            CROSSED,
            2 / 3 + 50 / 800 + ((1 - exp(-1 / 3)) ** 4 + (1 - exp(-2 / 3)) ** 4) / 2,
        ),
        # two edges of four are off by half the width: P = 1/4
        ("PIoULoss", {}, SHIFTED, 2 / 3 + 1 - exp(-1 / 16)),
        # the right edge by half the width, the lower one by the height: P = 3/8
        ("PIoULoss", {}, CROSSED, 2 / 3 + 1 - exp(-9 / 64)),
        # lambda q = e^(1/4) e^(-1/4) = 1
        ("PIoUv2Loss", {"lambda_": exp(1 / 4)}, SHIFTED, 3 / exp(1) * (5 / 3 - exp(-1 / 16))),
        # the interpolated box is 5 off: 150 of 250 overlap
        ("InterpIoULoss", {"alpha": 0.5}, SHIFTED, 2 / 3 + 2 / 5),
        # at alpha 0.9 it is (3, 4) off: 17 x 6 of 400 - 102
        ("InterpIoULoss", {"alpha": 0.9}, APART, 2 - 102 / 298),
        # IoU 1/3, alpha 2/3: 10/3 off, 500/3 of 400 - 500/3
        ("DynamicInterpIoULoss", {}, SHIFTED, 2 / 3 + 1 - 5 / 7),
        ("DynamicInterpIoULoss", {"alpha_max": 0.9}, APART, 2 - 102 / 298),
        # centres 5 apart, widths differ by 10: 25 + 100/4
        ("NWDLoss", {"constant": 10.0}, HALF, 1 - exp(-sqrt(50) / 10)),
        ("NWDLoss", {"constant": 50.0}, APART, 1 - exp(-1)),
        # x off by a quarter of the width: 1 - (20 - 10) / (20 + 10) = 2/3; half the width
        ("BoundedIoULoss", {}, HALF, (2 / 3 - 0.1) + (1 / 2 - 0.1)),
        ("BoundedIoULoss", {"beta": 0.6}, HALF, (2 / 3 - 0.3) + (1 / 2) ** 2 / 1.2),
        # both centres further off than half the target's size: 1 and 1, however far
        ("BoundedIoULoss", {}, APART, 2 * 0.9),
        ("ExtendedIoULoss", {}, SHIFTED, 2 / 3 - 0.05),
        ("ExtendedIoULoss", {"smooth_point": 1.0}, SHIFTED, (2 / 3) ** 2 / 2),
        # gaps 10 and 30 after 20 and 10: I = -10 * 2 * 10 - 30 * 2 * 20 - 2 * 300 = -2000
        ("ExtendedIoULoss", {}, APART, 1 + 2000 / 2400 - 0.05),
    ],
)
def test_known_values(name, kwargs, boxes, expected):
    pred, target = (torch.tensor([box], dtype=torch.float64) for box in boxes)
    loss = build_loss(name, **kwargs)
    inputs = {"image_size": torch.tensor([[300, 400]])} if loss.inputs else {}
    assert loss(pred, target, **inputs).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("beta", [1.0, 0.1, 3.0])
def test_balanced_l1_has_the_papers_slopes_for_any_beta(beta):
    """Slope 0 at the target, alpha ln(b / 2 + 1) half way to beta, gamma at beta and beyond."""
    x = torch.tensor([[1e-12, beta / 2, beta * (1 - 1e-12), beta * 3]], dtype=torch.float64)
    x.requires_grad_()
    build_loss("BalancedL1Loss", beta=beta, reduction="sum")(x, torch.zeros_like(x)).backward()
    expected = [0, 0.5 * log((exp(3) - 1) / 2 + 1), 1.5, 1.5]
    np.testing.assert_allclose(x.grad[0], expected, atol=1e-9)


def test_balanced_l1_is_finite_for_huge_deltas():
    x = torch.tensor([[1e30, -1e38, 3e4, 0.0]], requires_grad=True)
    value = build_loss("BalancedL1Loss", reduction="none")(x, torch.zeros_like(x))
    value.sum().backward()
    assert value[0, 2:].isfinite().all()
    assert x.grad.tolist() == [[1.5, -1.5, 1.5, 0.0]]


@pytest.mark.parametrize("name", NAMES)
def test_identical_boxes_have_loss_zero_and_a_finite_gradient(name):
    """Points, lines, boxes of a micrometre and of a million pixels."""
    sizes = [(0, 0), (0, 5), (1e-6, 1e-6), (20, 10), (1e6, 3e5)]
    boxes = torch.tensor([[7, 7, 7 + w, 7 + h] for w, h in sizes])
    pred = boxes.clone().requires_grad_()
    loss = build_loss(name, reduction="none")
    inputs = {"image_size": torch.tensor([[640, 480]]).expand(5, 2)} if loss.inputs else {}
    value = loss(pred, boxes, **inputs)
    value.sum().backward()
    assert (value[-2:] == 0).all() and value.isfinite().all()
    assert pred.grad.isfinite().all()


@pytest.mark.parametrize("name", [name for name in NAMES if name != "BalancedL1Loss"])
@pytest.mark.parametrize("size", [1e-20, 1e-6, 1e-3, 1.0, 1e5])
def test_centres_next_to_each_other_have_a_finite_gradient(name, size):
    """Steps of a thousandth, a billionth and of nothing along one axis, the other and both."""
    step = torch.tensor([[1.0, 0], [0, 1], [1, 1], [-1, 1], [1, 1e-6]]).repeat(1, 2) * size
    target = torch.tensor([[1.0, 1, 3, 2]]) * size
    loss = build_loss(name, reduction="none")
    for part in (1e-3, 1e-9, 0.0):
        pred = (target + part * step).requires_grad_()
        inputs = {"image_size": torch.full((5, 2), 10 * size)} if loss.inputs else {}
        value = loss(pred, target.expand(5, 4), **inputs)
        value.sum().backward()
        assert value.isfinite().all() and pred.grad.abs().max() < 6e4


@pytest.mark.parametrize(("dx", "dy"), [(0, 3.0), (3.0, 0), (1e-9, 3.0), (3.0, 3.0), (2.0, -5.0)])
def test_siou_angle_cost_is_that_of_the_paper_without_its_infinite_slope(dx, dy):
    """With the arcsine the slope is infinite where one box stands above the other."""
    target = torch.tensor([[0.0, 0, 20, 10]], dtype=torch.float64)
    pred = (target + torch.tensor([[dx, dy, dx, dy]])).requires_grad_()
    value = build_loss("SIoULoss")(pred, target)
    value.backward()
    (expected,) = REFERENCES["SIoULoss"][0][1](pred.detach().numpy(), target.numpy(), theta=4.0)
    assert value.item() == pytest.approx(expected, rel=1e-7)
    assert pred.grad.isfinite().all()


def test_siou_warns_of_mmdetections_sign_and_keeps_the_papers():
    with pytest.warns(UserWarning, match="paper's distance cost.*neg_gamma=False rewards distance"):
        turned = build_loss("SIoULoss", neg_gamma=False)
    target = torch.tensor([[0.0, 0, 10, 10]])
    near, far = target + torch.tensor([8.0, 0, 8, 0]), target + torch.tensor([40.0, 0, 40, 0])
    assert turned(far, target) > turned(near, target)
    assert torch.equal(turned(far, target), build_loss("SIoULoss")(far, target))


def test_eiou_warns_of_the_argument_of_mmdetections_loss_of_its_name():
    with pytest.warns(UserWarning, match="Extended IoU, which is ExtendedIoULoss here"):
        loss = build_loss(dict(type="EIoULoss", smooth_point=0.1, loss_weight=5.0))
    boxes = (torch.tensor([box]) for box in HALF)
    assert loss(*boxes).item() == pytest.approx(5 * (1 / 2 + 25 / 500 + 1 / 4))


def test_configs_of_mmdetection_move_over():
    for config in (
        dict(type="SIoULoss", eps=1e-6, neg_gamma=True, reduction="mean", loss_weight=2.0),
        dict(type="BoundedIoULoss", beta=0.2, eps=1e-3, reduction="sum", loss_weight=10.0),
        dict(type="BalancedL1Loss", alpha=0.5, gamma=1.5, beta=1.0, loss_weight=1.0),
        dict(type="ExtendedIoULoss", eps=1e-6, smooth_point=0.1, loss_weight=1.0),
    ):
        loss = build_loss(config)
        assert config.items() <= {"type": config["type"], **loss.params()}.items()


def test_mpdiou_without_the_image_size_says_what_is_missing():
    pred, target = (torch.tensor([box]) for box in HALF)
    with pytest.raises(TypeError, match="MPDIoULoss needs the input 'image_size'; pass image_"):
        build_loss("MPDIoULoss")(pred, target)


@pytest.mark.parametrize("dtype", [torch.int64, torch.float16, torch.float64])
def test_mpdiou_takes_an_image_size_of_any_type(dtype):
    """Of 1333 x 800, whose squares do not fit float16."""
    pred, target = (torch.tensor([box]) for box in APART)
    value = build_loss("MPDIoULoss")(pred, target, image_size=torch.tensor([[1333, 800]]).to(dtype))
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(1 + 5000 / (1333**2 + 800**2), rel=1e-5)


def test_piou_v2_attention_peaks_at_medium_quality_and_lets_gradients_through():
    """A box shifted by d times its width has P = d / 2, so lambda q = 0.7 at P = ln(1.3 sqrt 2)."""
    target = torch.tensor([[0.0, 0, 20, 10]], dtype=torch.float64)
    loss = build_loss("PIoUv2Loss")
    peak = 40 * log(1.3 * sqrt(2))
    pred = (target + torch.tensor([[peak, 0, peak, 0]], dtype=torch.float64)).requires_grad_()
    attention = loss(pred, target) / build_loss("PIoULoss")(pred, target)
    assert attention.item() == pytest.approx(3 / sqrt(2 * exp(1)))
    (slope,) = torch.autograd.grad(attention, pred)
    assert slope.abs().max() < 1e-12
    shifts = torch.linspace(0, 400, 401, dtype=torch.float64)[:, None] * torch.tensor([1, 0, 1, 0])
    along = loss(target + shifts, target.expand(401, 4), reduction_override="none")
    assert along[60] > along[400] and along[400] < 1e-3


def test_interpolated_boxes_attract_where_the_prediction_is_disjoint():
    """IoU alone is flat there; the interpolated box is 0.4 px off, and moves 0.01 px a px."""
    pred = torch.tensor([[40.0, 0, 60, 10]], dtype=torch.float64, requires_grad=True)
    build_loss("InterpIoULoss")(pred, torch.tensor([[0.0, 0, 20, 10]]).double()).backward()
    # IoU (20 - s) / (20 + s) at s = 0.4: slope -40 / (20 + s)^2
    assert pred.grad[0, [0, 2]].sum().item() == pytest.approx(0.01 * 40 / 20.4**2)


def test_dynamic_interp_iou_takes_alpha_as_constant():
    """At IoU 1/3 alpha is 2/3, inside its bounds; with it fixed the gradient is the same."""
    grads = []
    for loss in (build_loss("DynamicInterpIoULoss"), build_loss("InterpIoULoss", alpha=2 / 3)):
        pred = torch.tensor([SHIFTED[0]], dtype=torch.float64, requires_grad=True)
        loss(pred, torch.tensor([SHIFTED[1]], dtype=torch.float64)).backward()
        grads.append(pred.grad)
    torch.testing.assert_close(*grads, rtol=1e-12, atol=1e-15)


def test_bounded_iou_is_one_value_a_box_the_sum_of_mmdetections_four():
    """The centre 4 px off in both: 1 - 12/28 along the 20 px, 1 - 2/18 along the 10 px."""
    target = torch.tensor([[0.0, 0, 20, 10]])
    value = build_loss("BoundedIoULoss", reduction="none")(target + 4, target)
    assert value.shape == (1,)
    assert value.item() == pytest.approx(16 / 28 + 16 / 18 - 0.2)


def test_extended_iou_equals_iou_where_boxes_overlap_and_has_no_slope_at_the_target():
    pred, target = (torch.tensor(boxes[:40]) for boxes in pairs())
    loss = functional.extended_iou_loss(pred, target, smooth_point=0.0)
    torch.testing.assert_close(loss, functional.iou_loss(pred, target, mode="linear", eps=1e-7))
    leaf = target.clone().requires_grad_()
    functional.extended_iou_loss(leaf, target).sum().backward()
    assert leaf.grad.abs().max() == 0


@pytest.mark.parametrize("name", ["NWDLoss", "BoundedIoULoss"])
def test_a_loss_without_an_iou_term_cannot_be_wrapped(name):
    with pytest.raises(ValueError, match=f"InnerIoU changes the terms of an IoU loss, and {name}"):
        build_loss(dict(type="InnerIoU", loss=name))


def test_an_interpolated_box_keeps_its_size_in_a_wrapper():
    """Scaled to half, the boxes only touch; the interpolated one, 5 off, is not scaled."""
    pred, target = (torch.tensor([box]) for box in SHIFTED)
    loss = build_loss(dict(type="InnerIoU", ratio=0.5, loss=dict(type="InterpIoULoss", alpha=0.5)))
    assert loss(pred, target).item() == pytest.approx(1 + 2 / 5)


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("SIoULoss", {"theta": 0.5}, "theta must be at least 1, got 0.5"),
        ("ShapeIoULoss", {"scale": -1.0}, "scale must be at least 0, got -1.0"),
        ("PIoUv2Loss", {"lambda_": 0.0}, "lambda_ must be above 0, got 0.0"),
        ("InterpIoULoss", {"alpha": 1.0}, r"alpha must be in \[0, 1\), got 1.0"),
        (
            "DynamicInterpIoULoss",
            {"alpha_min": 0.8, "alpha_max": 0.5},
            r"alpha_min must be in \[0, alpha_max\] with alpha_max = 0.5, got 0.8",
        ),
        ("DynamicInterpIoULoss", {"alpha_max": 1.0}, "alpha_max must be below 1, got 1.0"),
        ("NWDLoss", {"constant": 0.0}, "constant must be above 0, got 0.0"),
        ("BoundedIoULoss", {"beta": -0.1}, "beta must be at least 0, got -0.1"),
        ("BoundedIoULoss", {"eps": -1e-3}, "eps must be at least 0, got -0.001"),
        ("ExtendedIoULoss", {"smooth_point": -0.1}, "smooth_point must be at least 0, got -0.1"),
        ("BalancedL1Loss", {"alpha": 0.01}, "alpha must be above gamma / 80 = 0.01875, got 0.01"),
        ("BalancedL1Loss", {"gamma": 0.0}, "gamma must be above 0, got 0.0"),
        ("BalancedL1Loss", {"beta": 0.0}, "beta must be above 0, got 0.0"),
    ],
)
def test_errors_of_the_arguments(name, kwargs, message):
    with pytest.raises(ValueError, match=message):
        build_loss(name, **kwargs)


@pytest.mark.parametrize("name", NAMES)
def test_the_function_is_the_unreduced_loss(name):
    functions = {key.replace("_", ""): getattr(functional, key) for key in functional.__all__}
    function = functions[name.lower()]
    loss = build_loss(name)
    pred, target = (torch.tensor(x) for x in (deltas() if loss.space == "delta" else pairs()))
    inputs = {key: torch.tensor(x) for key, x in inputs_of(loss, len(pred)).items()}
    expected = loss(pred, target, reduction_override="none", **inputs)
    assert torch.equal(function(pred, target, **inputs), expected)
    defaults = {
        key: parameter.default
        for key, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and key not in loss.inputs
    }
    assert defaults.items() <= loss.params().items()
