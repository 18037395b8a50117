import math

import pytest
import torch
import torch.nn.functional as F
import torchvision.ops as ops

from det_losses.errors import InputError, UserError
from det_losses.losses import Loss
from det_losses.plots import probe

# Overlapping, barely overlapping and disjoint boxes.
OFFSETS = torch.tensor(
    [[0.1, -0.2, 0.3, -0.1], [0.9, 0.5, -0.4, 0.2], [1.6, 0.3, 0.2, 0.1]], dtype=torch.float64
)
CLOSE = dict(rtol=1e-5, atol=1e-6)  # torchvision clamps with eps = 1e-7 elsewhere


def built(text):
    return next(iter(probe.named_losses([text]).values()))


def test_offsets_are_of_the_centre_and_of_the_logarithms_of_the_sides():
    # Half a width to the right, twice as high: 40 x 20 becomes 40 x 40 around (340, 320).
    box = probe.decode(torch.tensor([[0.5, 0, 0, math.log(2)]], dtype=torch.float64))
    assert box[0].tolist() == pytest.approx([320, 300, 360, 340])


def test_delta_losses_are_those_of_torch():
    value, gradient = probe.boxes(built("SmoothL1Loss(beta=0.5)"), OFFSETS)
    point = OFFSETS.clone().requires_grad_()
    loss = F.smooth_l1_loss(point, torch.zeros_like(point), reduction="none", beta=0.5).sum(1)
    torch.testing.assert_close(value, loss.detach())
    torch.testing.assert_close(gradient, torch.autograd.grad(loss.sum(), point)[0])


@pytest.mark.parametrize(
    ("text", "function"),
    [
        ("GIoULoss", ops.generalized_box_iou_loss),
        ("DIoULoss", ops.distance_box_iou_loss),
        ("CIoULoss", ops.complete_box_iou_loss),
    ],
)
def test_losses_of_boxes_are_those_of_torchvision(text, function):
    value, gradient = probe.boxes(built(text), OFFSETS)
    point = OFFSETS.clone().requires_grad_()
    target = torch.tensor(probe.TARGET, dtype=torch.float64).expand(3, 4)
    loss = function(probe.decode(point), target)
    torch.testing.assert_close(value, loss.detach(), **CLOSE)
    torch.testing.assert_close(gradient, torch.autograd.grad(loss.sum(), point)[0], **CLOSE)


def test_a_sum_gets_boxes_and_deltas():
    both, parts = built("SumLoss(L1Loss, GIoULoss)"), (built("L1Loss"), built("GIoULoss"))
    expected = [sum(pair) for pair in zip(*(probe.boxes(p, OFFSETS) for p in parts), strict=True)]
    for found, each in zip(probe.boxes(both, OFFSETS), expected, strict=True):
        torch.testing.assert_close(found, each)


@pytest.mark.parametrize("positive", [True, False])
def test_sigmoid_losses_have_the_gradient_of_cross_entropy(positive):
    p = torch.tensor([0.1, 0.7], dtype=torch.float64)
    value, gradient = probe.probability(built("BinaryCrossEntropyLoss"), p, positive=positive)
    # -ln p or -ln(1 - p); the derivative in the logit is p - y.
    torch.testing.assert_close(value, -(p if positive else 1 - p).log())
    torch.testing.assert_close(gradient, p - float(positive))


def test_softmax_losses_have_the_gradient_of_cross_entropy():
    p = torch.tensor([0.1, 0.7], dtype=torch.float64)
    value, gradient = probe.probability(built("CrossEntropyLoss"), p)
    torch.testing.assert_close(value, -p.log())
    torch.testing.assert_close(gradient, p - 1)


def test_the_quality_is_the_target_of_quality_focal_loss():
    p = torch.tensor([0.3, 0.6, 0.9], dtype=torch.float64)
    value, _ = probe.probability(built("QualityFocalLoss"), p, quality=0.6)
    # |p - q|^2 times the cross-entropy to q, which is 0 at p = q.
    cross_entropy = -(0.6 * p.log() + 0.4 * (1 - p).log())
    torch.testing.assert_close(value, (p - 0.6) ** 2 * cross_entropy)


def test_a_distribution_is_a_discretised_normal_one():
    # With a tiny spread around 5, all probability is on bin 5; the target 5 has no other bin.
    mean, spread = torch.tensor([5.0, 7.0]).double(), torch.tensor([0.1, 0.5]).double()
    value, norm = probe.distribution(built("DistributionFocalLoss"), mean, spread, 5.0)
    assert value[0] == pytest.approx(0, abs=1e-9) and norm[0] == pytest.approx(0, abs=1e-9)
    # Spread 1/2: logits -2 d^2, so bin 5 is exp(-8) of bin 7, and the sum is theta_3(exp(-2)).
    total = 1 + 2 * math.exp(-2) + 2 * math.exp(-8) + 2 * math.exp(-18)
    assert value[1] == pytest.approx(8 + math.log(total), rel=1e-6)


def test_channels_follow_the_arguments_of_the_loss():
    p = torch.tensor([0.5], dtype=torch.float64)
    for text in (
        "ClassBalanced(FocalLoss, class_counts=[5, 4, 3, 2, 1])",
        "SeesawLoss(num_classes=7)",
        "CrossEntropyLoss(class_weight=[1, 2, 3, 4, 5])",
        "BinaryCrossEntropyLoss(class_weight=[1, 2])",
    ):
        assert probe.probability(built(text), p)[0].isfinite().all(), text


def test_the_loss_itself_is_not_changed():
    loss = built("WIoUv3Loss").train()
    before = {name: value.clone() for name, value in loss.state_dict().items()}
    probe.boxes(loss, OFFSETS)
    assert loss.training and all(torch.equal(before[k], v) for k, v in loss.state_dict().items())


def test_a_bare_name_gets_the_arguments_of_its_example():
    assert list(probe.named_losses(["InnerIoU", "SmoothL1Loss(beta=1/9)"])) == [
        "InnerIoU(CIoULoss)",
        "SmoothL1Loss(beta=1/9)",
    ]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["GIoULos"], "Did you mean 'GIoULoss'"),
        (["GIoULoss", "GIoULoss"], "GIoULoss is given twice"),
        (["RetinaNet"], "needs|missing|not a det_losses"),
        (["InnerIoU(L1Loss)"], "InnerIoU"),
    ],
)
def test_a_loss_that_cannot_be_built_is_one_error(texts, message):
    with pytest.raises(UserError, match=message):
        probe.named_losses(texts)


class NeedsMore(Loss):
    kind, space, inputs = "box", "decoded", ("depth",)


class Scalar(Loss):
    kind, space = "box", "decoded"

    def unreduced(self, pred, target, weight=None):
        return (pred - target).abs().mean(0)


@pytest.mark.parametrize(("cls", "message"), [(NeedsMore, "'depth'"), (Scalar, "per row")])
def test_a_loss_that_cannot_be_drawn_is_one_error(cls, message):
    with pytest.raises(InputError, match=message):
        probe.boxes(cls(), OFFSETS)
