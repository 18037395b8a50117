"""The IoU family against its papers' equations, torchvision, and geometry in words."""

import loss_references as ref
import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from loss_inputs import DEGENERATE, IOU_NAMES, box_pairs, degenerate_pairs
from torchvision.ops import complete_box_iou_loss, distance_box_iou_loss, generalized_box_iou_loss

from det_losses import build_loss, functional
from det_losses.boxes import box_pair
from det_losses.losses import IoULoss


def test_ciou_gate_silences_alpha_where_the_overlap_is_small():
    pred, target = box_pairs(60)
    iou = box_pair(pred, target).iou
    gated = functional.ciou_loss(pred, target, alpha_gate=0.5)
    low, high = iou < 0.5, iou > 0.5
    assert low.any() and high.any()
    assert torch.equal(gated[low], functional.diou_loss(pred, target)[low])
    assert torch.equal(gated[high], functional.ciou_loss(pred, target)[high])
    assert (functional.ciou_loss(pred, target)[low] != gated[low]).any()


# torchvision adds eps to its denominators; without it (CIoU keeps 1e-7 in parts, so its boxes are
# large) both compute the same ratio.
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


# 20 x 10 beside its copy shifted right by 10: overlap 10 x 10 = 100, union 300, hull 30 x 10;
# centres 10 apart, hull diagonal^2 = 1000; sizes equal.
SHIFTED = ([0.0, 0, 20, 10], [10.0, 0, 30, 10])
# 10 x 10 and 20 x 10 from one corner: overlap 100, union 200, hull 20 x 10; centres 5 apart,
# hull diagonal^2 = 500; the widths differ by half the hull's.
HALF = ([0.0, 0, 10, 10], [0.0, 0, 20, 10])
# 10 x 20 and 20 x 10 from one corner: overlap 100, union 300, hull 20 x 20 = 400; centres (5, 10)
# and (10, 5), 50 of 800; v = 4/pi^2 (atan 2 - atan 1/2)^2.
CROSSED = ([0.0, 0, 10, 20], [0.0, 0, 20, 10])
V = 4 / np.pi**2 * (np.arctan(2) - np.arctan(0.5)) ** 2
# Two 10 x 10 boxes with a gap of 20 between them: no overlap, union 200, hull 40 x 10.
APART = ([0.0, 0, 10, 10], [30.0, 0, 40, 10])


@pytest.mark.parametrize(
    ("name", "boxes", "expected"),
    [
        ("IoULoss", SHIFTED, np.log(3)),
        ("IoULoss", APART, np.log(1e6)),
        ("GIoULoss", SHIFTED, 2 / 3),
        ("GIoULoss", CROSSED, 2 / 3 + 100 / 400),
        ("GIoULoss", APART, 1 + 200 / 400),
        ("DIoULoss", SHIFTED, 2 / 3 + 100 / 1000),
        ("DIoULoss", APART, 1 + 900 / 1700),
        ("CIoULoss", SHIFTED, 2 / 3 + 100 / 1000),
        ("CIoULoss", CROSSED, 2 / 3 + 50 / 800 + V * V / (2 / 3 + V)),
        ("EIoULoss", SHIFTED, 2 / 3 + 100 / 1000),
        ("EIoULoss", HALF, 1 / 2 + 25 / 500 + 10**2 / 20**2),
        ("EIoULoss", CROSSED, 2 / 3 + 50 / 800 + 10**2 / 20**2 + 10**2 / 20**2),
        ("FocalEIoULoss", HALF, 1 / 2 + 25 / 500 + 10**2 / 20**2),
    ],
)
def test_known_values(name, boxes, expected):
    pred, target = (torch.tensor([box], dtype=torch.float64) for box in boxes)
    assert build_loss(name)(pred, target).item() == pytest.approx(expected, rel=1e-9)


def test_large_boxes_in_float16_do_not_overflow():
    """200 x 200 shifted by 50: IoU 30000/50000, centres 2500 of 250^2 + 200^2 = 102500."""
    pred = torch.tensor([[0, 0, 200, 200]], dtype=torch.float16)
    target = torch.tensor([[50, 0, 250, 200]], dtype=torch.float16)
    assert build_loss("DIoULoss")(pred, target).item() == pytest.approx(0.4 + 2500 / 102500)


@pytest.mark.parametrize("name", IOU_NAMES)
@pytest.mark.parametrize("case", [case for case in DEGENERATE if case.startswith("inverted")])
def test_an_inverted_prediction_is_no_overlap(name, case):
    pred, target = (torch.tensor([box], dtype=torch.float32) for box in DEGENERATE[case])
    assert box_pair(pred, target).iou == 0
    plain = build_loss("EIoULoss") if name == "FocalEIoULoss" else build_loss(name)
    assert plain(pred, target) >= 1


@pytest.mark.parametrize("name", IOU_NAMES)
def test_identical_boxes_without_area_have_no_gradient_explosion(name):
    pred, target = degenerate_pairs(torch.float32, 1.0)
    pred.requires_grad_()
    build_loss(name, reduction="sum")(pred, target).backward()
    assert pred.grad.abs().max() < 4e4  # below float16's 65504


coordinates = st.one_of(
    st.sampled_from([0.0, -0.0, 1e-30, 1e-7, 3e-4, 1.0, 1e6, -1e6]),
    st.floats(-1e6, 1e6, width=32),
)


def focal_reference(pred, target, weight=None, gamma=0.5):
    """sum(s W E) / sum(s W), in numpy."""
    pred, target = pred.detach().numpy(), target.numpy()
    e = ref.per_box(ref.eiou, pred, target)
    w = ref.per_box(lambda b, g: ref.geometry(b, g)["iou"], pred, target) ** gamma
    s = np.ones_like(w) if weight is None else weight.numpy()
    return (s * w * e).sum() / (s * w).sum()


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_eiou_is_normalised_by_the_sum_of_its_weights(gamma):
    pred, target = box_pairs()
    weight = torch.linspace(0, 2, len(pred), dtype=torch.float64)
    loss = build_loss("FocalEIoULoss", gamma=gamma)
    expected = focal_reference(pred, target, gamma=gamma)
    assert loss(pred, target).item() == pytest.approx(expected, rel=1e-12)
    expected = focal_reference(pred, target, weight, gamma)
    value = loss(pred, target, weight, avg_factor=weight.sum())
    assert value.item() == pytest.approx(expected, rel=1e-12)


def test_focal_eiou_takes_its_weight_as_constant_in_the_gradient():
    pred, target = box_pairs()
    pred.requires_grad_()
    w = box_pair(pred, target).iou.detach() ** 0.5
    (expected,) = torch.autograd.grad(
        (w * functional.eiou_loss(pred, target)).sum() / w.sum(), pred
    )
    (grad,) = torch.autograd.grad(build_loss("FocalEIoULoss")(pred, target), pred)
    torch.testing.assert_close(grad, expected, rtol=1e-12, atol=0)


def test_focal_eiou_with_gamma_zero_is_eiou():
    pred, target = box_pairs()
    focal = functional.focal_eiou_loss(pred, target, gamma=0.0)
    torch.testing.assert_close(focal, functional.eiou_loss(pred, target), rtol=1e-12, atol=0)


def test_focal_eiou_of_disjoint_boxes_alone_is_zero_without_gradient():
    pred = torch.tensor([[0.0, 0, 10, 20]], requires_grad=True)
    value = build_loss("FocalEIoULoss")(pred, pred.detach() + 100)
    value.backward()
    assert value == 0 and (pred.grad == 0).all()


@pytest.mark.parametrize("wrapped", ["WIoUv1Loss", "FocalIoU(EIoULoss, gamma=1.0)"])
def test_the_focus_weighs_whatever_the_wrapped_loss_gives_each_box(wrapped):
    """Sum of W times the wrapped loss over the sum of W, whether that has a factor or not."""
    pred, target = box_pairs(15)
    s = torch.linspace(0.5, 2, len(pred), dtype=torch.float64)
    each = build_loss(wrapped).unreduced(pred, target, s)
    w = s * box_pair(pred, target).iou ** 0.5
    value = build_loss(f"FocalIoU({wrapped})")(pred, target, s, avg_factor=s.sum())
    torch.testing.assert_close(value, (w * each).sum() / w.sum())


def test_iou_loss_of_the_log_mode_is_floored_at_eps():
    pred, target = box_pairs(9)
    value = functional.iou_loss(pred, target, eps=1e-3)
    torch.testing.assert_close(value[-3:], -torch.full((3,), 1e-3).double().log())


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("IoULoss", {"mode": "cubic"}, "mode must be one of log, linear, square, got 'cubic'"),
        ("IoULoss", {"mode": "square", "linear": True}, "linear=True contradicts mode='square'"),
        ("GIoULoss", {"eps": -1.0}, "eps must be at least 0, got -1.0"),
        ("CIoULoss", {"alpha_gate": 2}, r"alpha_gate must be in \[0, 1\], got 2"),
        ("FocalEIoULoss", {"gamma": -0.5}, "gamma must be at least 0, got -0.5"),
    ],
)
def test_errors_of_the_arguments(name, kwargs, message):
    with pytest.raises(ValueError, match=message):
        build_loss(name, **kwargs)


def test_linear_says_what_it_is():
    assert repr(IoULoss(linear=True)).startswith("IoULoss(mode='linear', linear=True, eps=1e-06")


def test_a_box_has_four_values():
    with pytest.raises(ValueError, match=r"boxes must have 4 values .* got shape \[2, 5\]"):
        functional.giou_loss(torch.zeros(2, 5), torch.zeros(2, 5))
