"""Classification losses: label convention, options, agreement with torch, values by hand.

Values and gradients against the papers' equations are in test_conformance.py, state in
test_state.py.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from reference_classes import REFERENCES, class_weights
from torchvision.ops import sigmoid_focal_loss

from det_losses import build_loss, functional
from det_losses.losses.federated import sample_classes

K = 3
# all classes, background (K) twice, an ignored label
LABELS = torch.tensor([0, 1, 2, K, -1, 2, K, 0])
KNOWN = LABELS.clamp(min=0)
# the quality of background and ignored rows must not matter
QUALITY = torch.tensor([0.9, 0.2, 0.0, 0.7, 0.4, 1.0, 0.0, 0.55], dtype=torch.float64)
QUALITY_NAMES = [
    "QualityFocalLoss",
    "VarifocalLoss",
    "MatchabilityAwareLoss",
    "IoUAwareBCELoss",
    "SlideLoss",
]
DENSE_NAMES = [
    *QUALITY_NAMES,
    "BinaryCrossEntropyLoss",
    "FocalLoss",
    "PolyFocalLoss",
    "AsymmetricLoss",
]
DENSE_CASES = [
    pytest.param(name, arguments, function, id=f"{name}-{arguments}")
    for name in DENSE_NAMES
    for arguments, function, _constants in REFERENCES[name]
    if arguments.get("use_sigmoid", True)
]


def logits(channels=K, rows=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, channels, generator=generator, dtype=torch.float64) * 3


def dense(labels=KNOWN, quality=None):
    """The quality (or 1) at the label's channel, 0 elsewhere."""
    own = (labels[:, None] == torch.arange(K)).double()
    return own if quality is None else own * quality[:, None]


def soft(seed=1):
    """Values for several channels per row; one value and one row are ignored."""
    target = torch.rand(8, K, generator=torch.Generator().manual_seed(seed)).double()
    target = torch.where(target < 0.3, 0.0, target)
    target[1, 2] = target[4] = -1
    return target


def value_and_gradient(function):
    pred = logits().requires_grad_()
    value = function(pred)
    return value.detach(), torch.autograd.grad(value.sum(), pred)[0]


def assert_same(ours, theirs):
    """Equal in value and gradient."""
    pairs = zip(value_and_gradient(ours), value_and_gradient(theirs), strict=True)
    for actual, expected in pairs:
        torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-14)


class TestTargets:
    @pytest.mark.parametrize(("name", "arguments", "function"), DENSE_CASES)
    def test_values_per_channel(self, name, arguments, function):
        """Negative values are ignored; the others have the value of the equation."""
        loss = build_loss(name, reduction="none", **arguments)
        pred, target = logits().requires_grad_(), soft()
        value = loss(pred, target)
        expected = function(pred.detach().numpy(), target.numpy(), **loss.params())
        np.testing.assert_allclose(value.detach(), expected, rtol=1e-11, atol=1e-15)
        (slope,) = torch.autograd.grad(value.sum(), pred)
        assert (slope[4] == 0).all() and slope[1, 2] == 0 and (slope[0] != 0).all()

    def test_a_single_channel_has_label_zero_for_foreground(self):
        """Logit 0 has loss ln 2; logit 20 has loss 0 for label 0 and 20 for background."""
        loss = build_loss("BinaryCrossEntropyLoss", reduction="none")
        pred = torch.tensor([[0.0], [0.0], [20.0], [20.0]])
        value = loss(pred, torch.tensor([0, 1, 0, 1]))[:, 0]
        torch.testing.assert_close(value, torch.tensor([np.log(2), np.log(2), 0, 20]).float())

    def test_sigmoid_losses_build_no_one_hot_tensor_of_labels(self, monkeypatch):
        def refuse(*args, **kwargs):
            raise AssertionError("one_hot was called")

        monkeypatch.setattr(F, "one_hot", refuse)
        functional.sigmoid_focal_loss(logits(), LABELS)

    def test_invalid_labels_are_refused(self):
        softmax, sigmoid = build_loss("CrossEntropyLoss"), build_loss("FocalLoss")
        pred = logits(K + 1)
        for loss, target, message in (
            (softmax, LABELS.float(), r"one integer label per row; .* target \[8\] of .*float32"),
            (softmax, torch.zeros_like(pred), r"one integer label per row; .* target \[8, 4\]"),
            (sigmoid, LABELS > 0, r"or one value per channel; .* target \[8\] of torch.bool"),
            (sigmoid, LABELS[:3], r"or one value per channel; .* target \[3\] of torch.int64"),
        ):
            with pytest.raises(ValueError, match=message):
                loss(pred, target)


@pytest.mark.parametrize("name", QUALITY_NAMES)
class TestQuality:
    def test_mmdetections_pair_is_labels_and_quality(self, name):
        pred, loss = logits(), build_loss(name)
        expected = loss(pred, LABELS, QUALITY.new_ones(8), 3.0, quality=QUALITY)
        for target in ((LABELS, QUALITY), [LABELS, QUALITY]):
            assert loss(pred, target, weight=QUALITY.new_ones(8), avg_factor=3.0) == expected

    def test_quality_is_detached_and_clamped(self, name):
        pred, loss = logits(), build_loss(name, reduction="none")
        quality = QUALITY.clone().requires_grad_()
        assert not loss(pred, LABELS, quality=quality).requires_grad
        beyond = loss(pred, LABELS, quality=QUALITY * 1.5)
        assert torch.equal(beyond, loss(pred, LABELS, quality=(QUALITY * 1.5).clamp(0, 1)))

    def test_the_quality_of_rows_without_a_class_is_not_used(self, name):
        loss = build_loss(name, reduction="none")
        nan = torch.where((LABELS < 0) | (LABELS == K), torch.nan, QUALITY)
        assert_same(
            lambda x: loss(x, LABELS, quality=nan), lambda x: loss(x, LABELS, quality=QUALITY)
        )

    def test_invalid_targets_are_refused(self, name):
        loss, pred = build_loss(name), logits()
        with pytest.raises(TypeError, match=rf"{name} needs the input 'quality'"):
            loss(pred, LABELS)
        with pytest.raises(ValueError, match=r"one value per row, \[8\], got \[3\]"):
            loss.unreduced(pred, LABELS, quality=QUALITY[:3])
        with pytest.raises(ValueError, match=r"target must be \(labels, quality\), got 3 tensors"):
            loss(pred, (LABELS, QUALITY, QUALITY))
        with pytest.raises(ValueError, match="leave out quality"):
            loss(pred, (LABELS, QUALITY), quality=QUALITY)
        with pytest.raises(ValueError, match=r"one integer label per row; .* target \[8, 3\]"):
            loss(pred, dense(), quality=dense())
        with pytest.raises(ValueError, match=r"labels need a quality for each row"):
            functional.varifocal_loss(pred, LABELS)


class TestTorch:
    @pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
    @pytest.mark.parametrize(
        "target",
        [KNOWN, dense(), soft().clamp(min=0)],
        ids=lambda t: "labels" if t.dim() == 1 else "values",
    )
    def test_focal_equals_torchvision(self, gamma, target):
        values = dense() if target is KNOWN else target

        def theirs(x):
            return sigmoid_focal_loss(x, values, gamma=gamma)

        assert_same(lambda x: functional.sigmoid_focal_loss(x, target, gamma=gamma), theirs)
        assert_same(lambda x: functional.poly_focal_loss(x, target, eps1=0, gamma=gamma), theirs)

    def test_focal_without_alpha_equals_torchvision(self):
        """In torchvision, alpha -1 disables balancing."""
        quality_focal = build_loss("QualityFocalLoss", reduction="none")
        one_gamma = dict(gamma_pos=2.0, gamma_neg=2.0, clip=0.0)
        for ours in (
            lambda x: quality_focal(x, KNOWN, quality=torch.ones(8)),
            lambda x: functional.asymmetric_loss(x, KNOWN, **one_gamma),
            lambda x: functional.sigmoid_focal_loss(x, KNOWN, alpha=None),
        ):
            assert_same(ours, lambda x: sigmoid_focal_loss(x, dense(), alpha=-1, gamma=2))

    def test_negatives_of_varifocal_equal_torchvisions_focal(self):
        target = dense(quality=QUALITY)
        assert_same(
            lambda x: functional.varifocal_loss(x, KNOWN, QUALITY) * (target == 0),
            lambda x: (
                0.75
                * sigmoid_focal_loss(x, torch.zeros_like(target), alpha=-1, gamma=2)
                * (target == 0)
            ),
        )

    @pytest.mark.parametrize(
        "expression",
        [
            "QualityFocalLoss(beta=0)",
            "VarifocalLoss(gamma=0, alpha=1, iou_weighted=False)",
            "IoUAwareBCELoss(alpha=0, gamma=0, min_target=0)",
        ],
    )
    def test_a_quality_loss_without_weights_is_cross_entropy_with_the_quality(self, expression):
        loss = build_loss(expression, reduction="none")
        target = dense(quality=QUALITY)
        assert_same(
            lambda x: loss(x, KNOWN, quality=QUALITY),
            lambda x: F.binary_cross_entropy_with_logits(x, target, reduction="none"),
        )

    @pytest.mark.parametrize(
        "target", [KNOWN, soft().clamp(min=0)], ids=lambda t: "labels" if t.dim() == 1 else "values"
    )
    def test_binary_cross_entropy(self, target):
        values = dense() if target is KNOWN else target
        no_weights = dict(gamma_pos=0.0, gamma_neg=0.0, clip=0.0)
        for ours in (
            lambda x: functional.binary_cross_entropy_loss(x, target),
            lambda x: functional.sigmoid_focal_loss(x, target, gamma=0.0, alpha=None),
            lambda x: functional.asymmetric_loss(x, target, **no_weights),
        ):
            assert_same(
                ours, lambda x: F.binary_cross_entropy_with_logits(x, values, reduction="none")
            )

    def test_cross_entropy(self):
        labels = torch.tensor([0, 1, 2, 2, -1, 2, 1, 0])
        for ours in (
            functional.cross_entropy_loss,
            lambda x, y: functional.softmax_focal_loss(x, y, gamma=0.0, alpha=None),
            lambda x, y: functional.poly_cross_entropy_loss(x, y, eps1=0.0),
        ):
            assert_same(
                lambda x, ours=ours: ours(x, labels),
                lambda x: F.cross_entropy(x, labels, ignore_index=-1, reduction="none"),
            )

    def test_label_smoothing_equals_torch_and_yolov5(self):
        """YOLOv5's smooth_BCE: targets 1 - eps / 2 and eps / 2."""
        labels = torch.tensor([0, 1, 2, 2, -1, 2, 1, 0])
        assert_same(
            lambda x: functional.label_smoothing_loss(x, labels, epsilon=0.2),
            lambda x: F.cross_entropy(
                x, labels, ignore_index=-1, reduction="none", label_smoothing=0.2
            ),
        )
        targets = 0.1 + 0.8 * dense()
        assert_same(
            lambda x: functional.label_smoothing_loss(x, KNOWN, epsilon=0.2, use_sigmoid=True),
            lambda x: F.binary_cross_entropy_with_logits(x, targets, reduction="none"),
        )

    def test_class_weight(self):
        weight = [0.5, 1.0, 2.0, 4.0]
        pred, factors = logits(K + 1), torch.tensor(weight, dtype=torch.float64)
        loss = build_loss("CrossEntropyLoss", class_weight=weight, reduction="none")
        expected = F.cross_entropy(pred, KNOWN, weight=factors, reduction="none")
        torch.testing.assert_close(loss(pred, KNOWN), expected)
        one_hot = F.one_hot(KNOWN, K + 1).double()
        loss = build_loss(
            "CrossEntropyLoss", use_sigmoid=True, class_weight=weight, reduction="none"
        )
        expected = F.binary_cross_entropy_with_logits(
            pred, one_hot, pos_weight=factors, reduction="none"
        )
        torch.testing.assert_close(loss(pred, KNOWN), expected)
        torch.testing.assert_close(loss(pred, one_hot), expected)
        assert not loss.state_dict()

    def test_class_balanced_softmax_equals_class_weight_with_background_1(self):
        counts = [30, 10, 4]
        expression = f"ClassBalanced(CrossEntropyLoss, class_counts={counts}, beta=0.9)"
        loss, pred = build_loss(expression, reduction="none"), logits(K + 1)
        weight = torch.tensor([*class_weights(counts, 0.9), 1.0])
        expected = F.cross_entropy(pred, LABELS, weight, ignore_index=-1, reduction="none")
        torch.testing.assert_close(loss(pred, LABELS), expected)

    def test_distribution_focal_is_cross_entropy_with_two_integers_as_target(self):
        """3.25 is 3 with weight 3/4 and 4 with 1/4; the largest, 5, has no integer above it.

        Distances outside are clamped.
        """
        target = torch.tensor([0, 5, 2, 3.25, -3, 7.5]).double()
        shares = F.one_hot(target.clamp(0, 5).long(), 6).double()
        shares[3] = torch.tensor([0, 0, 0, 0.75, 0.25, 0])
        pred = logits(6, rows=6)
        value = functional.distribution_focal_loss(pred, target)
        torch.testing.assert_close(value, F.cross_entropy(pred, shares, reduction="none"))


class TestByHand:
    @pytest.mark.parametrize("eps1", [-1.0, 0.0, 2.0])
    def test_poly_1_changes_the_first_coefficient_of_the_expansion(self, eps1):
        """-ln p_t = sum of (1 - p_t)^j / j: at p_t = 0.9 forty terms are exact."""
        pred, label = torch.tensor([[0.9]], dtype=torch.float64).logit(), torch.tensor([0])
        focal = functional.poly_focal_loss(pred, label, eps1=eps1, gamma=2.0, alpha=None)
        two = torch.cat([pred, torch.zeros_like(pred)], 1)
        softmax = functional.poly_cross_entropy_loss(two, label, eps1=eps1)
        for value, gamma in ((focal, 2), (softmax, 0)):
            coefficients = [1 / j + (eps1 if j == 1 else 0) for j in range(1, 41)]
            terms = [c * 0.1 ** (gamma + j) for j, c in enumerate(coefficients, 1)]
            assert value.item() == pytest.approx(sum(terms), rel=1e-12)

    @pytest.mark.parametrize("gamma_neg", [0.0, 0.5, 4.0])
    def test_asymmetric_drops_negatives_below_the_margin(self, gamma_neg):
        """A negative of score 0.04 has loss and gradient 0; one of 0.3 counts as 0.25."""
        pred = torch.tensor([[0.04], [0.3]], dtype=torch.float64).logit().requires_grad_()
        value = functional.asymmetric_loss(pred, torch.tensor([1, 1]), gamma_neg=gamma_neg)
        value.sum().backward()
        assert value[0] == 0 and pred.grad[0] == 0 and pred.grad[1] > 0
        assert value[1].item() == pytest.approx(-(0.25**gamma_neg) * np.log(0.75), rel=1e-12)

    @pytest.mark.parametrize("name", ["asymmetric_loss", "varifocal_loss"])
    def test_detached_focusing_leaves_the_slope_of_the_logarithm(self, name):
        """A background logit x of score p: d/dx -ln(1 - p) is p, times the factor p^2."""
        pred = torch.tensor([[0.8]], dtype=torch.float64, requires_grad=True)
        arguments = {
            "asymmetric_loss": dict(gamma_neg=2.0, clip=0.0),
            "varifocal_loss": dict(quality=torch.zeros(1), gamma=2.0, alpha=1.0),
        }[name]
        function = getattr(functional, name)
        value = function(pred, torch.tensor([1]), detach_focusing=True, **arguments)
        (slope,) = torch.autograd.grad(value, pred)
        assert slope.item() == pytest.approx(torch.tensor(0.8).double().sigmoid().item() ** 3)
        assert value == function(pred, torch.tensor([1]), **arguments)

    def test_matchability_aware_does_not_down_weight_matches_of_low_quality(self):
        """A match of quality 0 has loss -ln(1 - p), background p^1.5 times that."""
        pred, labels = torch.full((3, 1), 1.5), torch.tensor([0, 0, 1])
        value = functional.matchability_aware_loss(pred, labels, torch.tensor([1.0, 0, 0]))
        p = pred[0, 0].sigmoid()
        expected = torch.stack([-p.log(), -(1 - p).log(), -(p**1.5) * (1 - p).log()])
        torch.testing.assert_close(value[:, 0], expected)

    def test_slide_without_positives_is_cross_entropy(self):
        background = torch.full((8,), K)
        value = functional.slide_loss(logits(), background, QUALITY)
        torch.testing.assert_close(
            value, functional.binary_cross_entropy_loss(logits(), background)
        )

    def test_distribution_focal_is_minimal_where_the_mean_is_the_distance(self):
        """The slope of cross-entropy is softmax minus target: 0 at shares 0.7 of 2, 0.3 of 3."""
        shares = torch.tensor([[1e-30, 1e-30, 0.7, 0.3, 1e-30]], dtype=torch.float64)
        pred = shares.log().requires_grad_()
        target = torch.tensor([2.3], dtype=torch.float64)
        value = functional.distribution_focal_loss(pred, target)
        (slope,) = torch.autograd.grad(value.sum(), pred)
        torch.testing.assert_close(slope, torch.zeros_like(slope), rtol=0, atol=1e-12)

    def test_class_balanced_weights_lie_between_equal_and_inverse_counts(self):
        counts = [50, 20, 5]
        for beta, by_hand in [(0.0, [1, 1, 1]), (1.0, np.array([0.02, 0.05, 0.2]) / 0.09)]:
            loss = build_loss("ClassBalanced", loss="FocalLoss", class_counts=counts, beta=beta)
            np.testing.assert_allclose(loss.class_weight, by_hand)
        near = build_loss("ClassBalanced", loss="FocalLoss", class_counts=counts, beta=1 - 1e-9)
        np.testing.assert_allclose(near.class_weight, loss.class_weight, rtol=1e-6)

    def test_class_balanced_passes_quality_to_the_wrapped_loss(self):
        expression = "ClassBalanced(IoUAwareBCELoss, class_counts=[9, 3, 1])"
        loss, pred = build_loss(expression, reduction="none"), logits()
        plain = build_loss("IoUAwareBCELoss", reduction="none")(pred, LABELS, quality=QUALITY)
        table = torch.cat([loss.class_weight, torch.ones(1)])
        value = loss(pred, LABELS, quality=QUALITY)
        torch.testing.assert_close(value, plain * table[KNOWN, None])
        with pytest.raises(ValueError, match="ClassBalanced takes labels as target"):
            loss(pred, (LABELS, QUALITY), quality=QUALITY)

    @pytest.mark.parametrize("use_sigmoid", [True, False])
    def test_avg_non_ignore_divides_by_the_number_of_valid_elements(self, use_sigmoid):
        """Of 8 rows one is negative and, with ignore_index 2, two more are ignored: 5 are left."""
        pred = logits(K + 1)
        kwargs = dict(use_sigmoid=use_sigmoid, ignore_index=2)
        elements = 5 * (K + 1 if use_sigmoid else 1)
        total = build_loss("CrossEntropyLoss", reduction="sum", **kwargs)(pred, LABELS)
        loss = build_loss("CrossEntropyLoss", avg_non_ignore=True, **kwargs)
        torch.testing.assert_close(loss(pred, LABELS), total / elements)
        torch.testing.assert_close(loss(pred, LABELS, avg_factor=3), total / 3)
        all_rows = build_loss("CrossEntropyLoss", **kwargs)(pred, LABELS)
        torch.testing.assert_close(all_rows, total / (pred.numel() if use_sigmoid else 8))

    def test_avg_non_ignore_with_values_per_channel_counts_channels(self):
        target = soft()  # one value and a row of three are ignored
        loss = build_loss("CrossEntropyLoss", use_sigmoid=True, avg_non_ignore=True)
        each = F.binary_cross_entropy_with_logits(logits(), target, reduction="none")
        total = each[target >= 0].sum()
        torch.testing.assert_close(loss(logits(), target), total / (8 * K - 4))


class TestFederated:
    def test_classes_of_the_batch_always_count(self):
        loss = build_loss("FederatedLoss", num_classes=K, num_sampled=1, reduction="none")
        labels = torch.tensor([2, -1, 0, 2])
        value = loss(torch.zeros(4, K), labels)
        assert (value > 0).tolist() == [[c != 1 and row != 1 for c in range(K)] for row in range(4)]

    def test_rows_of_weight_zero_select_no_class(self):
        loss = build_loss("FederatedLoss", num_classes=K, num_sampled=1)
        selected = loss.select(torch.tensor([2, 0]), torch.tensor([[1.0], [0.0]]))
        assert selected.tolist() == [False, False, True]

    @pytest.mark.parametrize(("label", "number"), [(0, 4), (10, 3), (-1, 4)])
    def test_number_of_classes(self, label, number):
        """4 classes: the label and 3 drawn; background counts as one, an ignored row does not."""
        loss = build_loss("FederatedLoss", num_classes=10, num_sampled=4)
        assert loss.select(torch.tensor([label])).sum() == number

    def test_evaluation_counts_every_class(self):
        loss = build_loss("FederatedLoss", num_classes=K, num_sampled=1).eval()
        labels = torch.tensor([0, K])
        torch.testing.assert_close(
            loss(logits(rows=2), labels),
            functional.binary_cross_entropy_loss(logits(rows=2), labels).mean(),
        )

    def test_draws_have_the_distribution_of_weighted_sampling_without_replacement(self):
        """Counts 1, 4, 9 with power 1/2 are weights 1, 2, 3; class 3 is never drawn.

        First class 2 (3/6) and then class 0 (1/3), or 0 (1/6) and then 2 (3/5): 4/15. Likewise
        {0, 1} has 2/6 * 1/4 + 1/6 * 2/5 = 3/20 and {1, 2} has 2/6 * 3/4 + 3/6 * 2/3 = 7/12.
        """
        loss = build_loss("FederatedLoss", num_classes=4, class_counts=[1, 4, 9, 0])
        torch.testing.assert_close(loss.sampling_weight, torch.tensor([1.0, 2, 3, 0]))
        torch.manual_seed(0)
        absent = torch.zeros(4, dtype=torch.bool)
        draws = [sample_classes(absent, loss.sampling_weight, 2).tolist() for _ in range(4000)]
        for kept, share in (({0, 2}, 4 / 15), ({0, 1}, 3 / 20), ({1, 2}, 7 / 12)):
            found = draws.count([c in kept for c in range(4)]) / len(draws)
            # four standard deviations of a share of 4000 draws
            assert found == pytest.approx(share, abs=4 * (share * (1 - share) / 4000) ** 0.5)

    def test_draws_use_torchs_generator(self):
        loss, labels = build_loss("FederatedLoss", num_classes=100), torch.tensor([3])
        first, second, third = (
            (torch.manual_seed(seed), loss.select(labels))[1] for seed in (0, 0, 1)
        )
        assert torch.equal(first, second) and not torch.equal(first, third)


class TestExtremes:
    """Arguments other than the defaults, which the conformance suite does not fuzz."""

    LOGITS = (1e4, -1e4, 100.0, -100.0, 20.0, -20.0, 0.0)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
    @pytest.mark.parametrize(
        "expression",
        [
            "FocalLoss(gamma=0.5)",
            "QualityFocalLoss(beta=0.01)",
            "QualityFocalLoss(beta=0.5)",
            "QualityFocalLoss(beta=0)",
            "QualityFocalLoss(beta=1)",
            "VarifocalLoss(gamma=0.01)",
            "VarifocalLoss(gamma=0.5, detach_focusing=True)",
            "MatchabilityAwareLoss(gamma=0.01)",
            "IoUAwareBCELoss(alpha=0.01, gamma=0.01, min_target=0)",
            "PolyFocalLoss(gamma=0.01, eps1=-1.0)",
            "PolyFocalLoss(gamma=0.5)",
            "AsymmetricLoss(gamma_pos=0.01, gamma_neg=0.01)",
            "AsymmetricLoss(gamma_pos=0.5, gamma_neg=0.5, clip=0)",
            "AsymmetricLoss(gamma_neg=0.5, clip=1e-12)",
        ],
    )
    def test_fractional_exponents_have_finite_loss_and_gradient(self, expression, dtype):
        """Every extreme logit with every quality, as label and per channel.

        torchvision's direct power has NaN gradients at logits of 100 and gamma 0.5.
        """
        qualities = torch.tensor([0.0, 1e-30, 1e-4, 0.5, 1 - 1e-7, 1.0])
        pairs = torch.cartesian_prod(torch.tensor(self.LOGITS), qualities)
        loss = build_loss(expression, reduction="sum")
        quality = {"quality": pairs[:, 1]} if loss.inputs else {}
        zeros = torch.zeros(len(pairs), dtype=torch.long)
        for target, inputs in ((zeros, quality), (zeros + 1, quality), (pairs[:, 1:], {})):
            pred = pairs[:, :1].to(dtype).requires_grad_()
            value = loss(pred, target, **inputs)
            (slope,) = torch.autograd.grad(value, pred)
            assert value.isfinite() and slope.isfinite().all()

    @pytest.mark.parametrize("size", [100.0, -100.0, 1e4, -1e4])
    def test_softmax_focal_with_a_fractional_gamma(self, size):
        pred = torch.full((len(LABELS), K + 1), -size)
        pred[:, 0] = size
        value = functional.softmax_focal_loss(pred.requires_grad_(), LABELS, gamma=0.5)
        (slope,) = torch.autograd.grad(value.sum(), pred)
        assert value.isfinite().all() and slope.isfinite().all()

    @pytest.mark.parametrize("beta", [0.5, 1.0, 2.0])
    def test_quality_focal_at_the_quality_has_no_gradient(self, beta):
        """For beta below 1 the gradient of the formula is infinite there, on both sides."""
        pred = torch.zeros(2, 1, requires_grad=True)
        value = functional.quality_focal_loss(pred, torch.full((2, 1), 0.5), beta=beta)
        value.sum().backward()
        assert (value == 0).all() and (pred.grad == 0).all()

    @pytest.mark.parametrize("logit", [0.0, -1e4])
    def test_asymmetric_at_and_below_the_margin_has_no_nan_in_the_backward_pass(self, logit):
        """A direct power of 0.5 has an infinite slope at 0; anomaly detection finds it."""
        pred = torch.full((1, 1), logit, requires_grad=True)
        with torch.autograd.set_detect_anomaly(True):
            value = functional.asymmetric_loss(pred, torch.tensor([1]), gamma_neg=0.5, clip=0.5)
            value.sum().backward()
        assert pred.grad.isfinite().all()


class TestDeclarations:
    def test_activation_follows_the_arguments(self):
        assert build_loss("CrossEntropyLoss").activation == "softmax"
        assert build_loss("CrossEntropyLoss", use_sigmoid=True).activation == "sigmoid"
        assert build_loss("FocalLoss").activation == "sigmoid"
        assert build_loss("FocalLoss", use_sigmoid=False).activation == "softmax"

    def test_quality_focal_without_beta_is_not_zero_at_the_quality(self):
        assert build_loss("QualityFocalLoss").zero_at_target
        assert not build_loss("QualityFocalLoss", beta=0.0).zero_at_target

    @pytest.mark.parametrize(
        "config",
        [
            dict(type="QualityFocalLoss", use_sigmoid=True, activated=False, beta=2.0),
            dict(type="VarifocalLoss", use_sigmoid=True, alpha=0.75, gamma=2.0, iou_weighted=True),
            dict(type="DistributionFocalLoss", loss_weight=0.25),
            dict(type="AsymmetricLoss", gamma_pos=0.0, gamma_neg=4.0, clip=0.05, use_sigmoid=True),
        ],
    )
    def test_openmmlabs_configs_build(self, config):
        loss = build_loss(config)
        assert all(getattr(loss, key) == value for key, value in config.items() if key != "type")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("CrossEntropyLoss(use_mask=True)", "use_mask=True is mmdetection's mask"),
        ("FocalLoss(activated=True)", "activated=True means that pred contains probabilities"),
        ("FocalLoss(gamma=-1)", "gamma must be at least 0, got -1"),
        ("FocalLoss(alpha=-1)", r"alpha must be in \[0, 1\], or None .* got -1"),
        ("QualityFocalLoss(use_sigmoid=False)", "use_sigmoid must be True, got False"),
        ("QualityFocalLoss(activated=True)", "means that pred contains probabilities"),
        ("QualityFocalLoss(beta=-1)", "beta must be at least 0, got -1"),
        ("VarifocalLoss(use_sigmoid=False)", "VarifocalLoss is defined for the sigmoid"),
        ("VarifocalLoss(alpha=-0.1)", "alpha must be at least 0, got -0.1"),
        ("VarifocalLoss(gamma=-1)", "gamma must be at least 0, got -1"),
        ("MatchabilityAwareLoss(gamma=-1)", "gamma must be at least 0, got -1"),
        ("PolyFocalLoss(eps1=-1.5)", "eps1 must be at least -1, got -1.5"),
        ("PolyFocalLoss(gamma=-1)", "gamma must be at least 0, got -1"),
        ("PolyCrossEntropyLoss(eps1=-1.5)", "eps1 must be at least -1, got -1.5"),
        ("AsymmetricLoss(use_sigmoid=False)", "AsymmetricLoss is defined for the sigmoid"),
        ("AsymmetricLoss(gamma_pos=-1)", "gamma_pos must be at least 0, got -1"),
        ("AsymmetricLoss(gamma_neg=-1)", "gamma_neg must be at least 0, got -1"),
        ("AsymmetricLoss(clip=1)", r"clip must be in \[0, 1\), got 1"),
        ("IoUAwareBCELoss(alpha=2)", r"alpha must be in \[0, 1\], got 2"),
        ("IoUAwareBCELoss(gamma=-1)", "gamma must be at least 0, got -1"),
        ("IoUAwareBCELoss(min_target=-1)", r"min_target must be in \[0, 1\], got -1"),
        ("SlideLoss(min_mean=0)", r"min_mean must be in \[0.1, 1\], got 0"),
        ("LabelSmoothingLoss(epsilon=2)", r"epsilon must be in \[0, 1\], got 2"),
        ("FederatedLoss(num_classes=0)", "num_classes must be the number of classes"),
        ("FederatedLoss(num_classes=2, num_sampled=0)", "num_sampled must be an integer above 0"),
        ("FederatedLoss(num_classes=2, power=-1)", "power must be at least 0, got -1"),
        ("FederatedLoss(num_classes=2, class_counts=[1])", "class_counts must be num_classes=2"),
        ("ClassBalanced(GIoULoss, class_counts=[1])", "wraps a classification loss, which GIoU"),
        ("ClassBalanced(FocalLoss, class_counts=[1, 0])", "class_counts must be numbers of at"),
        ("ClassBalanced(FocalLoss, class_counts=[1], beta=2)", r"beta must be in \[0, 1\], got 2"),
        ("ClassBalanced(FocalLoss(loss_weight=2), class_counts=[1])", "give loss_weight and red"),
        (
            "ClassBalanced(CrossEntropyLoss(avg_non_ignore=True), class_counts=[1])",
            "avg_non_ignore of the wrapped CrossEntropyLoss has no effect",
        ),
    ],
)
def test_arguments_out_of_range_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        build_loss(config)


def test_arguments_of_the_wrong_type_are_refused():
    with pytest.raises(TypeError, match=r"class_weight must be a list of numbers, got 'w\.npy'"):
        build_loss("FocalLoss", class_weight="w.npy")
    with pytest.raises(TypeError, match="eps: logarithms are computed from logits"):
        build_loss("AsymmetricLoss", eps=1e-8)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ("CrossEntropyLoss(class_weight=[1, 2])", "one entry per channel: 2 given, pred has 4"),
        ("FocalLoss(class_weight=[1, 2])", "one entry per channel: 2 given, pred has 4"),
        ("FederatedLoss(num_classes=3)", "num_classes=3 requires 3 channels, pred has 4"),
        ("ClassBalanced(FocalLoss, class_counts=[1, 2, 3])", "one entry per class: 3 given"),
    ],
)
def test_a_wrong_number_of_channels_is_refused(loss, message):
    with pytest.raises(ValueError, match=message):
        build_loss(loss)(logits(4), LABELS)


def test_softmax_focal_needs_a_background_channel():
    with pytest.raises(ValueError, match="softmax needs a class and the background"):
        functional.softmax_focal_loss(torch.zeros(2, 1), torch.zeros(2, dtype=torch.long))


@pytest.mark.parametrize(
    ("pred", "target"),
    [
        (torch.zeros(2, 1), torch.zeros(2)),
        (torch.zeros(2, 4), torch.zeros(3)),
        (torch.zeros(2, 4), torch.zeros(2, 4)),
        (torch.tensor(0.0), torch.tensor(0.0)),
    ],
)
def test_distribution_focal_refuses_invalid_shapes(pred, target):
    with pytest.raises(ValueError, match=r"pred must be \[N, n \+ 1\] with n at least 1"):
        functional.distribution_focal_loss(pred, target)
