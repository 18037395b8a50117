"""The state of losses and when it is updated; test_ranks.py has several ranks."""

import copy
import math

import numpy as np
import pytest
import reference_stateful as paper
import torch

from det_losses import build_loss
from det_losses.losses.core.state import RunningMean

CONFIGS = {
    "WIoUv2Loss": {},
    "WIoUv3Loss": {"momentum": 0.4},
    "GHMRLoss": {"momentum": 0.75, "bins": 4},
    "GHMCLoss": {"momentum": 0.75, "bins": 4},
    "SeesawLoss": {"num_classes": 3},
    "EQLv2Loss": {"num_classes": 3},
    "EqualizedFocalLoss": {"num_classes": 3},
}
BOXES = torch.tensor([[0.0, 0, 20, 10], [5, 5, 45, 25], [0, 0, 9, 30], [50, 60, 70, 99]])
SHIFT = torch.tensor([[2.0, 1, 4, 3], [9, -3, 1, 7], [-2, 5, 30, 1], [90, 90, 95, 80]])
LABELS = torch.tensor([0, 1, 0, 3])
LOGITS = torch.tensor([[2.0, -1, 0.3], [-3, 0.5, 1], [0.1, 0.2, -4], [3, -2, -1]])


def build(name, **kwargs):
    return build_loss({"type": name, **CONFIGS[name], **kwargs})


def batch(loss, rows=slice(None)):
    """Four rows for the loss; the last box is disjoint, the last label is background."""
    if loss.kind == "classification":
        logits = LOGITS.double()
        if loss.activation == "softmax":
            logits = torch.nn.functional.pad(logits, (0, 1), value=0.5)
        return logits[rows], LABELS[rows]
    if loss.space == "decoded":
        return (BOXES + SHIFT).double()[rows], BOXES.double()[rows]
    return SHIFT.double()[rows] / 50, torch.zeros(4, 4, dtype=torch.float64)[rows]


def state(loss):
    return {name: buffer.clone() for name, buffer in loss.named_buffers()}


def assert_same(first, second, **tolerance):
    assert first.keys() == second.keys() and first
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], **(tolerance or {"rtol": 0, "atol": 0}))


@pytest.mark.parametrize("name", CONFIGS)
def test_training_updates_the_state_unless_all_weights_are_zero(name):
    """The conformance suite checks evaluation, the state_dict and single rows of weight 0."""
    loss = build(name)
    fresh = state(loss)
    loss(*batch(loss))
    moved = state(loss)
    assert any(not torch.equal(value, fresh[key]) for key, value in moved.items())
    assert loss(*batch(loss), torch.zeros(4), 1) == 0
    assert_same(state(loss), moved)


@pytest.mark.parametrize("name", ["WIoUv3Loss", "EQLv2Loss"])
def test_the_compiled_gradient_uses_the_state_before_the_update(name):
    torch.compiler.reset()
    eager = build(name)
    eager(*batch(eager, slice(2)))  # an identical second batch would hide a repeated update
    compiled = copy.deepcopy(eager)
    values = []
    for function in (eager, torch.compile(compiled, fullgraph=True, backend="aot_eager")):
        pred, target = batch(eager, slice(1, 4))
        value = function(pred.requires_grad_(), target, torch.tensor([0.5, 1.0, 2.0]))
        values.append((value, *torch.autograd.grad(value, pred)))
    torch.compiler.reset()
    torch.testing.assert_close(*values)
    assert_same(state(compiled), state(eager), rtol=1e-6, atol=0)


class TestRunningMean:
    def test_first_batches_have_equal_weight_then_momentum_applies(self):
        mean = RunningMean(0.4)
        got = [mean(torch.tensor(x), torch.tensor(True)).item() for x in (1.0, 3.0, 8.0)]
        # 1; (1 + 3) / 2; 1/3 is below the momentum: 0.6 * 2 + 0.4 * 8
        assert got == pytest.approx([1, 2, 4.4])
        assert mean.batches == 3

    def test_a_batch_without_boxes_does_not_count(self):
        mean = RunningMean(0.1)
        mean(torch.tensor(2.0), torch.tensor(True))
        assert mean(torch.tensor(0.0), torch.tensor(False)) == 2
        assert mean.batches == 1

    def test_evaluation_before_training_returns_the_value_of_the_batch(self):
        mean = RunningMean(0.1).eval()
        assert mean(torch.tensor(2.0), torch.tensor(True)) == 2
        assert mean.batches == 0


class TestWIoU:
    def test_v1_of_disjoint_boxes(self):
        # 10 x 10 boxes, centres 20 apart in x: hull 30 x 10, no overlap: exp(400 / 1000)
        pred = torch.tensor([[0.0, 0, 10, 10]], dtype=torch.float64, requires_grad=True)
        value = build_loss("WIoUv1Loss")(pred, torch.tensor([[20.0, 0, 30, 10]]))
        assert value.item() == pytest.approx(math.exp(0.4))
        # With the hull constant, 20^2 / 1000 has the slope 2 * 20 / 1000 for the centre, and half
        # that for an end.
        (slope,) = torch.autograd.grad(value, pred)
        expected = [-0.02 * math.exp(0.4), 0, -0.02 * math.exp(0.4), 0]
        assert slope[0].tolist() == pytest.approx(expected)

    @pytest.mark.parametrize("name", ["WIoUv2Loss", "WIoUv3Loss"])
    def test_gain_is_relative_to_the_mean_of_all_batches(self, name):
        loss = build_loss(name)
        pred, target = batch(loss)
        loss(pred[:3], target[:3])
        known = {key: value.numpy() for key, value in state(loss).items()}
        got = loss(pred, target, reduction_override="none")
        expected = getattr(paper, name.lower().replace("wiou", "wiou_").replace("loss", ""))(
            pred.numpy(), target.numpy(), **loss.params(), state=known
        )
        np.testing.assert_allclose(got, expected, rtol=1e-6)

    def test_v3_gives_outliers_the_smallest_gain(self):
        loss = build_loss("WIoUv3Loss")
        beta = torch.tensor([0.5, 1 / math.log(1.9), 3.0, 8.0, 1e7])
        small, most, unit, outlier, extreme = loss.gain(beta)
        assert unit == pytest.approx(1) and most > unit and most > small and outlier < 0.2
        assert extreme == 0

    def test_the_gain_is_finite_after_perfect_boxes(self):
        loss = build_loss("WIoUv2Loss")
        box = torch.tensor([[0.0, 0, 20, 10]])
        assert loss(box, box) == 0
        pred = (box + 300).requires_grad_()
        loss.eval()(pred, box).backward()
        assert pred.grad.isfinite().all()

    def test_a_wrapper_changes_the_overlap_but_not_the_gain(self):
        pred, target = batch(build("WIoUv3Loss"))
        plain, inner = build_loss("WIoUv3Loss"), build_loss("InnerIoU(WIoUv3Loss, ratio=0.7)")
        ratio = inner(pred, target, None, None, "none") / plain(pred, target, None, None, "none")
        linear = dict(type="IoULoss", mode="linear")
        expected = [
            loss(pred, target, None, None, "none")
            for loss in (build_loss("InnerIoU", loss=linear, ratio=0.7), build_loss(linear))
        ]
        torch.testing.assert_close(ratio, expected[0] / expected[1])
        assert_same(state(inner.loss), state(plain))


class TestGHM:
    def test_mean_is_over_the_examples_for_every_avg_factor(self):
        loss = build_loss("GHMCLoss", momentum=0)
        logits, labels = batch(loss)
        ignored = torch.tensor([0, -1, 0, 3])
        whole = loss(logits, ignored, None, 3.0)
        kept = ignored >= 0
        torch.testing.assert_close(whole, loss(logits[kept], labels[kept]))
        torch.testing.assert_close(whole * 9, loss(logits, ignored, reduction_override="sum"))
        # A mean does not change if all rows have twice the weight.
        torch.testing.assert_close(whole, loss(logits, ignored, torch.full((4,), 2.0), 5))

    def test_each_non_empty_bin_has_the_same_share(self):
        # 8 easy negatives in the first of ten bins, one hard positive in the last: 9 / (10 R)
        loss = build_loss("GHMCLoss", bins=10)
        logits = torch.tensor([-4.0] * 9, dtype=torch.float64)[:, None]
        got = loss(logits, torch.tensor([1] * 8 + [0]), reduction_override="none").flatten()
        easy, hard = math.log1p(math.exp(-4)), math.log1p(math.exp(4))
        assert got.tolist() == pytest.approx([easy * 9 / 80] * 8 + [hard * 9 / 10])

    def test_moving_counts_follow_all_bins(self):
        loss = build_loss("GHMRLoss", bins=2, momentum=0.8)
        small, large = torch.full((6,), 1e-4), torch.full((2,), 5.0)
        zero = torch.zeros(6)
        loss(small, zero)
        assert loss.counts.mean.tolist() == [6, 0]
        loss(large, zero[:2])  # the second batch has weight 1/2, the empty bin counts as 0
        assert loss.counts.mean.tolist() == [3, 1]

    def test_evaluation_is_finite_for_a_bin_that_was_empty_in_training(self):
        loss = build_loss("GHMRLoss", bins=2, momentum=0.8)
        loss(torch.full((6,), 1e-4), torch.zeros(6))
        value = loss.eval()(torch.full((2,), 5.0), torch.zeros(2), reduction_override="none")
        # the running count is at least 0.2 of the batch's 2: beta = 2 / (2 * 0.4)
        torch.testing.assert_close(value, torch.full((2,), 2.5 * (math.hypot(5, 0.02) - 0.02)))


class TestSeesaw:
    def test_without_factors_it_is_cross_entropy(self):
        loss = build("SeesawLoss", p=0.0, q=0.0)
        logits, labels = batch(loss)
        torch.testing.assert_close(
            loss(logits, labels), torch.nn.functional.cross_entropy(logits, labels)
        )

    def test_background_rows_are_plain_cross_entropy_and_not_counted(self):
        loss = build("SeesawLoss")
        logits, labels = batch(loss)
        got = loss(logits, labels, reduction_override="none")
        plain = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
        torch.testing.assert_close(got[3], plain[3])
        assert not torch.isclose(got[:3], plain[:3]).any()
        assert loss.class_counts.tolist() == [2, 1, 0]

    def test_the_penalty_on_a_rare_class_is_reduced_only_for_a_frequent_label(self):
        # 9 of class 0 and 1 of class 1, all scores equal: M is (1/9)^0.8 one way, 1 the other
        loss = build("SeesawLoss", num_classes=2)
        got = loss(torch.zeros(10, 3), torch.tensor([0] * 9 + [1]), reduction_override="none")
        assert got[0].item() == pytest.approx(math.log(2 + (1 / 9) ** 0.8))
        assert got[9].item() == pytest.approx(math.log(3))

    def test_a_misclassified_example_is_compensated(self):
        # one of each class: M is 1; sigma_1 / sigma_0 = e, squared, against the row of class 0
        loss = build("SeesawLoss", num_classes=2)
        logits = torch.tensor([[0.0, 1, -9], [0, 1, -9]], dtype=torch.float64)
        got = loss(logits, torch.tensor([0, 1]), reduction_override="none")
        small = math.exp(-9)
        assert got[0].item() == pytest.approx(math.log(1 + math.e**3 + small))
        assert got[1].item() == pytest.approx(math.log(1 + 1 / math.e + small / math.e))


class TestGradientBalance:
    def test_first_batch_of_eqlv2_is_binary_cross_entropy(self):
        loss = build("EQLv2Loss")
        logits, labels = batch(loss)
        torch.testing.assert_close(
            loss(logits, labels), build_loss("BinaryCrossEntropyLoss")(logits, labels)
        )

    def test_gradients_of_eqlv2_are_summed_with_their_weights(self):
        loss = build("EQLv2Loss", num_classes=1)
        logits, labels = torch.zeros(4, 1), torch.tensor([0, 1, 1, -1])
        loss(logits, labels, torch.tensor([1.0, 1, 3, 1]))
        # |gradient| 1/2 each: one positive, negatives of weight 1 and 3, one ignored
        assert (loss.positive_gradient, loss.negative_gradient) == (0.5, 2)
        r = 1 / (1 + math.exp(-12 * (0.25 - 0.8)))
        got = loss(logits, labels, reduction_override="none").flatten() / math.log(2)
        assert got.tolist() == pytest.approx([1 + 4 * (1 - r), r, r, 0])
        # the second batch, of weight 1 each, with those weights
        assert loss.positive_gradient.item() == pytest.approx(0.5 + (1 + 4 * (1 - r)) / 2)
        assert loss.negative_gradient.item() == pytest.approx(2 + r)

    def test_equalized_focal_starts_as_focal_loss(self):
        loss = build("EqualizedFocalLoss")
        logits, labels = batch(loss)
        expected = build_loss("FocalLoss", reduction="none")(logits, labels)
        got = loss(logits, labels, reduction_override="none")
        torch.testing.assert_close(got, expected)

    @pytest.mark.parametrize("name", ["EQLv2Loss", "EqualizedFocalLoss"])
    def test_the_accumulated_gradient_is_that_of_the_loss(self, name):
        loss, weight = build(name), torch.tensor([0.5, 1.0, 2.0, 1.0], dtype=torch.float64)
        logits, labels = batch(loss)
        own = (labels[:, None] == torch.arange(3)).double()
        for _ in range(2):  # the first step, and one with weights from the state
            before = state(loss)
            twin = copy.deepcopy(loss).eval()
            pred = logits.clone().requires_grad_()
            value = twin(pred, labels, weight, reduction_override="sum")
            (gradient,) = torch.autograd.grad(value, pred)
            loss(logits, labels, weight)
            for side, name_of_side in ((own, "positive"), (1 - own, "negative")):
                step = (gradient.abs() * side).sum(0)
                total = before[f"{name_of_side}_gradient"] + step
                found = state(loss)[f"{name_of_side}_gradient"]
                torch.testing.assert_close(found.double(), total, rtol=1e-5, atol=0)
        assert not torch.equal(value, build(name)(logits, labels, weight, reduction_override="sum"))

    def test_equalized_focal_focuses_more_on_a_class_without_positives(self):
        """Its gamma is 2 + 8: at score 1/2 its negatives have 5 / 2^8 of the focal loss."""
        loss = build("EqualizedFocalLoss", num_classes=2, reduction="none")
        logits, labels = torch.zeros(40, 2), torch.zeros(40, dtype=torch.long)
        first = loss(logits, labels)
        assert loss.balance().tolist() == [1, 0]
        second = loss(logits, labels)
        assert (second[:, 1] / first[:, 1]).mean().item() == pytest.approx(5 / 2**8)
        torch.testing.assert_close(second[:, 0], first[:, 0])

    def test_equalized_focal_treats_a_class_with_many_positives_as_balanced(self):
        """39 positives of gradient 0.25 each and a negative of 0.75: the ratio is above 1."""
        loss = build("EqualizedFocalLoss", num_classes=2)
        loss(torch.zeros(40, 2), torch.tensor([0] * 39 + [1]))
        assert loss.positive_gradient[0] > 10 * loss.negative_gradient[0] > 0
        assert loss.balance()[0] == 1
        assert loss.balance()[1].item() == pytest.approx(0.25 / (39 * 0.75))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (dict(type="WIoUv2Loss", gamma=-1.0), "gamma must be at least 0, got -1.0"),
        (dict(type="WIoUv2Loss", momentum=0.0), r"momentum must be in \(0, 1\], got 0.0"),
        (dict(type="WIoUv3Loss", alpha=1.0), "alpha must be above 1, got 1.0"),
        (dict(type="WIoUv3Loss", delta=0.0), "delta must be above 0, got 0.0"),
        (dict(type="GHMCLoss", bins=0), "bins must be an integer above 0, got 0"),
        (dict(type="GHMCLoss", momentum=1.0), r"momentum must be in \[0, 1\), got 1.0"),
        (dict(type="GHMCLoss", use_sigmoid=False), "use_sigmoid must be True, got False"),
        (dict(type="GHMRLoss", mu=0.0), "mu must be above 0, got 0.0"),
        (dict(type="SeesawLoss", num_classes=0), "num_classes must be the number of classes"),
        (dict(type="SeesawLoss", num_classes=3, p=-1.0), "p must be at least 0, got -1.0"),
        (dict(type="SeesawLoss", num_classes=3, q=-1.0), "q must be at least 0, got -1.0"),
        (dict(type="SeesawLoss", num_classes=3, eps=0.0), r"eps must be in \(0, 1\], got 0.0"),
        (
            dict(type="SeesawLoss", num_classes=3, use_sigmoid=True),
            "use_sigmoid must be False, this is a softmax loss, got True",
        ),
        (dict(type="EQLv2Loss", num_classes=3, use_sigmoid=False), "use_sigmoid must be True"),
        (dict(type="EQLv2Loss", num_classes=3, class_weight=[1.0]), "class_weight must be None"),
        (dict(type="EQLv2Loss", num_classes=3, alpha=-1.0), "alpha must be at least 0, got -1.0"),
        (dict(type="EQLv2Loss", num_classes=3, gamma=0.0), "gamma must be above 0, got 0.0"),
        ("EqualizedFocalLoss(num_classes=0)", "num_classes must be the number of classes"),
        ("EqualizedFocalLoss(num_classes=3, gamma=0)", "gamma must be above 0, got 0"),
        ("EqualizedFocalLoss(num_classes=3, alpha=2)", r"alpha must be in \[0, 1\], or None"),
        ("EqualizedFocalLoss(num_classes=3, scale=-1)", "scale must be at least 0, got -1"),
    ],
)
def test_arguments_out_of_range(config, message):
    with pytest.raises(ValueError, match=message):
        build_loss(config)


@pytest.mark.parametrize("name", ["SeesawLoss", "EQLv2Loss", "EqualizedFocalLoss"])
def test_a_detector_with_a_different_number_of_classes_is_refused(name):
    loss = build(name, num_classes=7)
    with pytest.raises(ValueError, match=rf"{name}: num_classes=7 requires [78] channels, pred"):
        loss(*batch(loss))


def test_mmdetection_arguments_without_effect_raise_warnings():
    with pytest.warns(UserWarning, match="SeesawLoss: return_dict=True has no effect"):
        build("SeesawLoss", return_dict=True)
    for name in ("vis_grad", "test_with_obj"):
        with pytest.warns(UserWarning, match=f"EQLv2Loss: {name}=True has no effect"):
            build("EQLv2Loss", **{name: True})
    with pytest.raises(TypeError, match="use_distributed: gradients are always summed over"):
        build("EQLv2Loss", use_distributed=True)
