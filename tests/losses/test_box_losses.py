"""Losses on decoded boxes: values derived by hand, torchvision parity, properties of single losses.

test_conformance compares every loss with its equation and checks for finite gradients.
"""

from math import atan, exp, log, pi, sqrt

import loss_references as ref
import pytest
import torch
import torch.nn.functional as F
from loss_inputs import DEGENERATE, INFOS, IOU_NAMES, box_pairs, degenerate_pairs
from reference_boxes import siou
from torchvision.ops import complete_box_iou_loss, distance_box_iou_loss, generalized_box_iou_loss

from det_losses import build_loss, functional
from det_losses.boxes import box_pair
from det_losses.losses import IoULoss

DECODED_NAMES = [info.name for info in INFOS if info.space == "decoded"]
SIZE = torch.tensor([[640.0, 480.0]], dtype=torch.float64)

# 10 x 10 and 20 x 10 from one corner: half overlaps, centres 5 apart along x, enclosing box
# 20 x 10, whose diagonal^2 is 500.
HALF = ([0.0, 0, 10, 10], [0.0, 0, 20, 10])
# 20 x 10 and its copy shifted right by 10: a third overlaps, enclosing box 30 x 10.
SHIFTED = ([0.0, 0, 20, 10], [10.0, 0, 30, 10])
# 10 x 20 and 20 x 10 from one corner: 100 of 300 overlap, centres (5, 10) and (10, 5), apart along
# the diagonal; enclosing box 20 x 20; each side is half or twice the target's.
CROSSED = ([0.0, 0, 10, 20], [0.0, 0, 20, 10])
V = 4 / pi**2 * (atan(2) - atan(0.5)) ** 2
# Two 10 x 10 boxes with a gap of 20 between them: union 200, enclosing box 40 x 10.
GAP = ([0.0, 0, 10, 10], [30.0, 0, 40, 10])
# Two 20 x 10 boxes, the prediction 30 to the right and 40 below: centres 50 apart, gaps 10 and 30,
# enclosing box 50 x 50.
APART = ([30.0, 40, 50, 50], [0.0, 0, 20, 10])


@pytest.mark.parametrize(
    ("config", "boxes", "expected"),
    [
        ("IoULoss", SHIFTED, log(3)),
        ("IoULoss", GAP, log(1e6)),
        ("GIoULoss", SHIFTED, 2 / 3),
        ("GIoULoss", CROSSED, 2 / 3 + 100 / 400),
        ("GIoULoss", GAP, 1 + 200 / 400),
        ("DIoULoss", SHIFTED, 2 / 3 + 100 / 1000),
        ("DIoULoss", GAP, 1 + 900 / 1700),
        ("CIoULoss", SHIFTED, 2 / 3 + 100 / 1000),
        ("CIoULoss", CROSSED, 2 / 3 + 50 / 800 + V * V / (2 / 3 + V)),
        ("EIoULoss", SHIFTED, 2 / 3 + 100 / 1000),
        ("EIoULoss", HALF, 1 / 2 + 25 / 500 + 10**2 / 20**2),
        ("EIoULoss", CROSSED, 2 / 3 + 50 / 800 + 10**2 / 20**2 + 10**2 / 20**2),
        ("FocalEIoULoss", HALF, 1 / 2 + 25 / 500 + 10**2 / 20**2),
        # level centres: Lambda = 0, rho_x = (5 / 20)^2; width off by half
        ("SIoULoss", HALF, 1 / 2 + (1 - exp(-2 / 16) + (1 - exp(-1 / 2)) ** 4) / 2),
        ("SIoULoss(theta=2.0)", HALF, 1 / 2 + (1 - exp(-1 / 8) + (1 - exp(-1 / 2)) ** 2) / 2),
        ("SIoULoss", SHIFTED, 2 / 3 + (1 - exp(-2 / 9)) / 2),
        # the diagonal: Lambda = 1, rho_x = rho_y = (5 / 20)^2
        ("SIoULoss", CROSSED, 2 / 3 + 1 - exp(-1 / 16) + (1 - exp(-1 / 2)) ** 4),
        # Lambda = 2 * 30 * 40 / 50^2 = 0.96
        ("SIoULoss", APART, 1 + (2 - exp(-1.04 * 0.6**2) - exp(-1.04 * 0.8**2)) / 2),
        # image 300 x 400, diagonal 500: the corners are (10, 0) and (10, 0) apart
        ("MPDIoULoss", SHIFTED, 2 / 3 + (100 + 100) / 500**2),
        ("MPDIoULoss", CROSSED, 2 / 3 + (0 + 200) / 500**2),
        ("MPDIoULoss", APART, 1 + (2500 + 2500) / 500**2),
        ("ShapeIoULoss", SHIFTED, 2 / 3 + 100 / 1000),
        # the target is twice as wide as high: ww = 4/3 and hh = 2/3
        ("ShapeIoULoss(scale=1.0)", SHIFTED, 2 / 3 + 2 / 3 * 100 / 1000),
        ("ShapeIoULoss(scale=1.0)", APART, 1 + (2 / 3 * 900 + 4 / 3 * 1600) / 5000),
        (
            "ShapeIoULoss(scale=1.0)",
            CROSSED,
            2 / 3 + 50 / 800 + ((1 - exp(-1 / 3)) ** 4 + (1 - exp(-2 / 3)) ** 4) / 2,
        ),
        # two edges of four are off by half the width: P = 1/4
        ("PIoULoss", SHIFTED, 2 / 3 + 1 - exp(-1 / 16)),
        # the right edge by half the width, the lower one by the height: P = 3/8
        ("PIoULoss", CROSSED, 2 / 3 + 1 - exp(-9 / 64)),
        # lambda q = e^(1/4) e^(-1/4) = 1
        (f"PIoUv2Loss(lambda_={exp(1 / 4)})", SHIFTED, 3 / exp(1) * (5 / 3 - exp(-1 / 16))),
        # the interpolated box is 5 off: 150 of 250 overlap
        ("InterpIoULoss(alpha=0.5)", SHIFTED, 2 / 3 + 2 / 5),
        # at alpha 0.9 it is (3, 4) off: 17 x 6 of 400 - 102
        ("InterpIoULoss(alpha=0.9)", APART, 2 - 102 / 298),
        # IoU 1/3, alpha 2/3: 10/3 off, 500/3 of 400 - 500/3
        ("DynamicInterpIoULoss", SHIFTED, 2 / 3 + 1 - 5 / 7),
        ("DynamicInterpIoULoss(alpha_max=0.9)", APART, 2 - 102 / 298),
        # centres 5 apart, widths differ by 10: 25 + 100/4
        ("NWDLoss(constant=10.0)", HALF, 1 - exp(-sqrt(50) / 10)),
        ("NWDLoss(constant=50.0)", APART, 1 - exp(-1)),
        # D^2 = (25 + 25) (1/100 + 1/400) / 2
        ("GCDLoss", HALF, 1 - exp(-sqrt(0.3125))),
        # x off by a quarter of the width: 1 - (20 - 10) / (20 + 10) = 2/3; half the width
        ("BoundedIoULoss", HALF, (2 / 3 - 0.1) + (1 / 2 - 0.1)),
        ("BoundedIoULoss(beta=0.6)", HALF, (2 / 3 - 0.3) + (1 / 2) ** 2 / 1.2),
        # both centre offsets exceed half the target's size: 1 and 1 at any distance
        ("BoundedIoULoss", APART, 2 * 0.9),
        ("ExtendedIoULoss", SHIFTED, 2 / 3 - 0.05),
        ("ExtendedIoULoss(smooth_point=1.0)", SHIFTED, (2 / 3) ** 2 / 2),
        # gaps 10 and 30 after 20 and 10: I = -10 * 2 * 10 - 30 * 2 * 20 - 2 * 300 = -2000
        ("ExtendedIoULoss", APART, 1 + 2000 / 2400 - 0.05),
    ],
)
def test_known_values(config, boxes, expected):
    pred, target = (torch.tensor([box], dtype=torch.float64) for box in boxes)
    loss = build_loss(config)
    inputs = {"image_size": torch.tensor([[300, 400]])} if loss.inputs else {}
    assert loss(pred, target, **inputs).item() == pytest.approx(expected, rel=1e-9)


# torchvision adds eps to its denominators. With eps=0 both compute the same ratio; CIoU still adds
# 1e-7 in places, so its boxes are large.
@pytest.mark.parametrize(
    ("name", "peer", "scale"),
    [
        ("GIoULoss", generalized_box_iou_loss, 1),
        ("DIoULoss", distance_box_iou_loss, 1),
        ("CIoULoss", complete_box_iou_loss, 1e4),
    ],
)
def test_equals_torchvision(name, peer, scale):
    pred, target = (boxes * scale for boxes in box_pairs(60))
    ours = pred.clone().requires_grad_()
    theirs = pred.clone().requires_grad_()
    loss = build_loss(name, reduction="none")
    value, expected = loss(ours, target), peer(theirs, target, eps=0.0)
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)
    value.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-11, atol=1e-12 / scale)


@pytest.mark.parametrize("name", DECODED_NAMES)
def test_gradients_stay_below_the_largest_float16(name):
    """Degenerate boxes, and centres close to each other; 65504 is the largest float16."""
    loss = build_loss(name, reduction="none")
    pairs = [degenerate_pairs(torch.float32, 1.0)]
    step = torch.tensor([[1.0, 0], [0, 1], [1, 1], [-1, 1], [1, 1e-6]]).repeat(1, 2)
    target = torch.tensor([[1.0, 1, 3, 2]]).expand(5, 4)
    # The gradient of IoULoss's logarithm is the inverse of the overlap, as its card says.
    for size in (1e-3, 1.0, 1e5) if name == "IoULoss" else (1e-20, 1e-6, 1e-3, 1.0, 1e5):
        pairs += [(size * (target + part * step), size * target) for part in (1e-3, 1e-9, 0.0)]
    for pred, target in pairs:
        largest = target.abs().max().clamp(min=1)
        inputs = {"image_size": largest.expand(len(pred), 2)} if loss.inputs else {}
        value = loss(pred.requires_grad_(), target, **inputs)
        value.sum().backward()
        assert value.isfinite().all() and pred.grad.abs().max() < 6e4


def test_large_boxes_in_float16_do_not_overflow():
    """200 x 200 shifted by 50: IoU 30000/50000, centres 2500 of 250^2 + 200^2 = 102500."""
    pred = torch.tensor([[0, 0, 200, 200]], dtype=torch.float16)
    target = torch.tensor([[50, 0, 250, 200]], dtype=torch.float16)
    assert build_loss("DIoULoss")(pred, target).item() == pytest.approx(0.4 + 2500 / 102500)


@pytest.mark.parametrize("name", IOU_NAMES)
def test_an_inverted_prediction_does_not_overlap(name):
    """Focal-EIoU has weight 0 there, so EIoU is tested instead."""
    loss = build_loss("EIoULoss" if name == "FocalEIoULoss" else name, reduction="none")
    inverted = [pair for case, pair in DEGENERATE.items() if case.startswith("inverted")]
    pred, target = torch.tensor(inverted, dtype=torch.float32).unbind(1)
    assert (box_pair(pred, target).iou == 0).all() and len(pred) == 4
    assert (loss(pred, target) >= 1).all()


def test_ciou_alpha_gate_sets_alpha_to_zero_where_the_overlap_is_small():
    pred, target = box_pairs(60)
    iou = box_pair(pred, target).iou
    gated = functional.ciou_loss(pred, target, alpha_gate=0.5)
    low, high = iou < 0.5, iou > 0.5
    assert low.any() and high.any()
    assert torch.equal(gated[low], functional.diou_loss(pred, target)[low])
    assert torch.equal(gated[high], functional.ciou_loss(pred, target)[high])
    assert (functional.ciou_loss(pred, target)[low] != gated[low]).any()


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_eiou_is_normalised_by_the_sum_of_its_weights(gamma):
    """sum(s W E) / sum(s W), in numpy."""
    pred, target = box_pairs()
    e = ref.per_box(ref.eiou, pred, target)
    w = ref.per_box(lambda b, g: ref.geometry(b, g)["iou"], pred, target) ** gamma
    loss = build_loss("FocalEIoULoss", gamma=gamma)
    assert loss(pred, target).item() == pytest.approx((w * e).sum() / w.sum(), rel=1e-12)
    s = torch.linspace(0, 2, len(pred), dtype=torch.float64)
    w *= s.numpy()
    value = loss(pred, target, s, avg_factor=s.sum())
    assert value.item() == pytest.approx((w * e).sum() / w.sum(), rel=1e-12)


def test_focal_eiou_with_gamma_zero_is_eiou():
    pred, target = box_pairs()
    focal = functional.focal_eiou_loss(pred, target, gamma=0.0)
    torch.testing.assert_close(focal, functional.eiou_loss(pred, target), rtol=1e-12, atol=0)


def test_focal_eiou_of_only_disjoint_boxes_is_zero_with_zero_gradient():
    pred = torch.tensor([[0.0, 0, 10, 20]], requires_grad=True)
    value = build_loss("FocalEIoULoss")(pred, pred.detach() + 100)
    value.backward()
    assert value == 0 and (pred.grad == 0).all()


def test_iou_loss_in_log_mode_is_bounded_by_eps():
    pred, target = box_pairs(9)
    value = functional.iou_loss(pred, target, eps=1e-3)
    torch.testing.assert_close(value[-3:], -torch.full((3,), 1e-3).double().log())


def test_repr_shows_the_linear_mode():
    assert repr(IoULoss(linear=True)).startswith("IoULoss(mode='linear', linear=True, eps=1e-06")


@pytest.mark.parametrize(("dx", "dy"), [(0, 3.0), (3.0, 0), (1e-9, 3.0), (3.0, 3.0), (2.0, -5.0)])
def test_siou_angle_cost_equals_the_papers_with_a_finite_gradient(dx, dy):
    """The slope of the arcsine is infinite where one box is exactly above the other."""
    target = torch.tensor([[0.0, 0, 20, 10]], dtype=torch.float64)
    pred = (target + torch.tensor([[dx, dy, dx, dy]])).requires_grad_()
    value = build_loss("SIoULoss")(pred, target)
    value.backward()
    (expected,) = siou(pred.detach().numpy(), target.numpy(), theta=4.0)
    assert value.item() == pytest.approx(expected, rel=1e-7)
    assert pred.grad.isfinite().all()


def test_siou_warns_about_mmdetections_sign_and_uses_the_papers():
    with pytest.warns(UserWarning, match="paper's distance cost.*neg_gamma=False rewards distance"):
        loss = build_loss("SIoULoss", neg_gamma=False)
    target = torch.tensor([[0.0, 0, 10, 10]])
    near, far = target + torch.tensor([8.0, 0, 8, 0]), target + torch.tensor([40.0, 0, 40, 0])
    assert loss(far, target) > loss(near, target)
    assert torch.equal(loss(far, target), build_loss("SIoULoss")(far, target))


def test_eiou_warns_about_the_argument_of_mmdetections_eiou_loss():
    with pytest.warns(UserWarning, match="Extended IoU, which is ExtendedIoULoss here"):
        loss = build_loss(dict(type="EIoULoss", smooth_point=0.1, loss_weight=5.0))
    boxes = (torch.tensor([box]) for box in HALF)
    assert loss(*boxes).item() == pytest.approx(5 * (1 / 2 + 25 / 500 + 1 / 4))


def test_mmdetection_configs_can_be_built():
    for config in (
        dict(type="SIoULoss", eps=1e-6, neg_gamma=True, reduction="mean", loss_weight=2.0),
        dict(type="BoundedIoULoss", beta=0.2, eps=1e-3, reduction="sum", loss_weight=10.0),
        dict(type="BalancedL1Loss", alpha=0.5, gamma=1.5, beta=1.0, loss_weight=1.0),
        dict(type="ExtendedIoULoss", eps=1e-6, smooth_point=0.1, loss_weight=1.0),
    ):
        loss = build_loss(config)
        assert config.items() <= {"type": config["type"], **loss.params()}.items()


@pytest.mark.parametrize("dtype", [torch.int64, torch.float16, torch.float64])
def test_mpdiou_accepts_an_image_size_of_any_dtype(dtype):
    """An image of 1333 x 800 px, whose squared sides do not fit float16."""
    pred, target = (torch.tensor([box]) for box in APART)
    value = build_loss("MPDIoULoss")(pred, target, image_size=torch.tensor([[1333, 800]]).to(dtype))
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(1 + 5000 / (1333**2 + 800**2), rel=1e-5)


def test_piou_v2_attention_peaks_at_medium_quality_and_has_a_gradient():
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


def test_an_interpolated_box_gives_disjoint_boxes_a_gradient():
    """IoU is constant there; the interpolated box is 0.8 px off and moves 0.02 px per px."""
    pred = torch.tensor([[40.0, 0, 60, 10]], dtype=torch.float64, requires_grad=True)
    build_loss("InterpIoULoss")(pred, torch.tensor([[0.0, 0, 20, 10]]).double()).backward()
    # IoU (20 - s) / (20 + s) at s = 0.8: slope -40 / (20 + s)^2
    assert pred.grad[0, [0, 2]].sum().item() == pytest.approx(0.02 * 40 / 20.8**2)


def test_inner_iou_does_not_scale_the_interpolated_box():
    """Scaled to half, the boxes only touch; the interpolated box, 5 px off, is not scaled."""
    pred, target = (torch.tensor([box]) for box in SHIFTED)
    loss = build_loss("InnerIoU(InterpIoULoss(alpha=0.5), ratio=0.5)")
    assert loss(pred, target).item() == pytest.approx(1 + 2 / 5)


def test_bounded_iou_is_one_value_per_box_the_sum_of_mmdetections_four():
    """The centre is 4 px off in x and y: 1 - 12/28 for 20 px, 1 - 2/18 for 10 px."""
    target = torch.tensor([[0.0, 0, 20, 10]])
    value = build_loss("BoundedIoULoss", reduction="none")(target + 4, target)
    assert value.shape == (1,)
    assert value.item() == pytest.approx(16 / 28 + 16 / 18 - 0.2)


def test_extended_iou_equals_iou_of_overlapping_boxes_with_zero_gradient_at_the_target():
    pred, target = (boxes[:40] for boxes in box_pairs(60))
    loss = functional.extended_iou_loss(pred, target, smooth_point=0.0)
    torch.testing.assert_close(loss, functional.iou_loss(pred, target, mode="linear", eps=1e-7))
    leaf = target.clone().requires_grad_()
    functional.extended_iou_loss(leaf, target).sum().backward()
    assert leaf.grad.abs().max() == 0


def test_gcd_grows_with_the_distance():
    """A box of equal size, off by its own width, has D^2 = (1 + 1) / 2."""
    target = torch.tensor([[0.0, 0, 8, 4]], dtype=torch.float64)
    shifts = torch.linspace(0, 30, 61, dtype=torch.float64)[:, None]
    moved = target + shifts * torch.tensor([1.0, 0, 1, 0])
    loss = functional.gcd_loss(moved, target.expand_as(moved))
    assert loss[0] == 0 and (loss.diff() > 0).all()
    assert loss[16].item() == pytest.approx(1 - exp(-1))


def test_normalized_l1_equals_detrs_l1_loss():
    """DETR: sum |difference| of (cx, cy, w, h), in units of the image, over the number of boxes."""
    pred, target = box_pairs(4)
    scale = torch.cat([SIZE, SIZE], 1)

    def cxcywh(b):
        return torch.cat([(b[:, :2] + b[:, 2:]) / 2, b[:, 2:] - b[:, :2]], 1) / scale

    value = build_loss("NormalizedL1Loss")(pred, target, avg_factor=4, image_size=SIZE.expand(4, 2))
    torch.testing.assert_close(
        value, F.l1_loss(cxcywh(pred), cxcywh(target), reduction="none").sum() / 4
    )
    with pytest.raises(ValueError, match=r"image_size must contain .*\[4, 2\], got \[4, 4\]"):
        functional.normalized_l1_loss(pred, target, pred)
    with pytest.raises(ValueError, match=r"boxes must have 4 values .* got shape \[4, 2\]"):
        functional.normalized_l1_loss(pred[:, :2], target[:, :2], pred[:, :2])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("IoULoss(mode='cubic')", "mode must be one of log, linear, square, got 'cubic'"),
        ("IoULoss(mode='square', linear=True)", "linear=True contradicts mode='square'"),
        ("GIoULoss(eps=-1.0)", "eps must be at least 0, got -1.0"),
        ("CIoULoss(alpha_gate=2)", r"alpha_gate must be in \[0, 1\], got 2"),
        ("FocalEIoULoss(gamma=-0.5)", "gamma must be at least 0, got -0.5"),
        ("SIoULoss(theta=0.5)", "theta must be at least 1, got 0.5"),
        ("AlphaIoULoss(alpha=0.5)", "alpha must be at least 1, got 0.5"),
        ("ShapeIoULoss(scale=-1.0)", "scale must be at least 0, got -1.0"),
        ("PIoUv2Loss(lambda_=0.0)", "lambda_ must be above 0, got 0.0"),
        ("InterpIoULoss(alpha=1.0)", r"alpha must be in \[0, 1\), got 1.0"),
        (
            "DynamicInterpIoULoss(alpha_min=0.8, alpha_max=0.5)",
            r"alpha_min must be in \[0, alpha_max\] with alpha_max = 0.5, got 0.8",
        ),
        ("DynamicInterpIoULoss(alpha_max=1.0)", "alpha_max must be below 1, got 1.0"),
        ("NWDLoss(constant=0.0)", "constant must be above 0, got 0.0"),
        ("GCDLoss(eps=0)", "eps must be above 0, got 0"),
        ("BoundedIoULoss(beta=-0.1)", "beta must be at least 0, got -0.1"),
        ("BoundedIoULoss(eps=-1e-3)", "eps must be at least 0, got -0.001"),
        ("ExtendedIoULoss(smooth_point=-0.1)", "smooth_point must be at least 0, got -0.1"),
    ],
)
def test_arguments_out_of_range_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        build_loss(config)


def test_functions_refuse_the_same_arguments_as_modules():
    boxes = torch.zeros(2, 2, 4).unbind()
    for name, arguments, message in [
        ("giou_loss", {"eps": -1.0}, "eps must be at least 0, got -1.0"),
        ("ciou_loss", {"alpha_gate": 2}, r"alpha_gate must be in \[0, 1\], got 2"),
        ("iou_loss", {"mode": "cubic"}, "mode must be one of"),
        ("siou_loss", {"theta": 0.5}, "theta must be at least 1"),
        ("alpha_iou_loss", {"alpha": 0.5}, "alpha must be at least 1"),
        ("interp_iou_loss", {"alpha": 1.0}, r"alpha must be in \[0, 1\)"),
        ("dynamic_interp_iou_loss", {"alpha_max": 1.0}, "alpha_max must be below 1"),
        ("piouv2_loss", {"lambda_": 0.0}, "lambda_ must be above 0"),
        ("shape_iou_loss", {"scale": -1.0}, "scale must be at least 0"),
        ("extended_iou_loss", {"smooth_point": -1.0}, "smooth_point must be at least 0"),
        ("focal_eiou_loss", {"gamma": -1.0}, "gamma must be at least 0"),
        ("nwd_loss", {"constant": 0.0}, "constant must be above 0"),
        ("gcd_loss", {"eps": 0.0}, "eps must be above 0"),
        ("bounded_iou_loss", {"beta": -1.0}, "beta must be at least 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            getattr(functional, name)(*boxes, **arguments)
    with pytest.raises(ValueError, match=r"boxes must have 4 values .* got shape \[2, 5\]"):
        functional.giou_loss(torch.zeros(2, 5), torch.zeros(2, 5))
