"""IA-BCE, slide, label smoothing, equalized focal, class-balanced."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from reference_further import class_weights

from det_losses import build_loss, functional

K = 3
# every class, the background K, an ignored label
LABELS = torch.tensor([0, 1, 2, K, -1, 2, K, 0])
QUALITY = torch.tensor([0.9, 0.35, 0.62, 0.0, 0.8, 0.55, 0.7, 0.0], dtype=torch.float64)


def inputs(loss):
    """Return pred (with gradient), target and the inputs that the loss asks for."""
    generator = torch.Generator().manual_seed(0)
    channels = K + (loss.activation == "softmax")
    pred = torch.randn(8, channels, generator=generator, dtype=torch.float64) * 3
    extra = {"quality": QUALITY} if "quality" in loss.inputs else {}
    return pred.requires_grad_(), LABELS, extra


def state(loss):
    return {key: value.double().numpy().copy() for key, value in loss.state_dict().items()}


def test_ia_bce_is_bce_to_the_quality_without_score_and_fading():
    """alpha 0: t is the quality; gamma 0: negatives do not fade. What is left is BCE."""
    loss = build_loss("IoUAwareBCELoss", alpha=0.0, gamma=0.0, min_target=0.0, reduction="none")
    pred, target, extra = inputs(loss)
    soft = F.one_hot(LABELS.clamp(min=0), K + 1)[:, :K] * QUALITY[:, None]
    entropy = F.binary_cross_entropy_with_logits(pred, soft, reduction="none")
    torch.testing.assert_close(loss(pred, target, **extra), entropy * (LABELS >= 0)[:, None])


@pytest.mark.parametrize("name", ["IoUAwareBCELoss", "SlideLoss"])
def test_dense_qualities_equal_labels_with_quality(name):
    loss = build_loss(name, reduction="none")
    pred, _, _ = inputs(loss)
    labels, quality = torch.tensor([0, 1, 2, K, 1, 2, K, 0]), QUALITY.clamp(min=0.1)
    dense = F.one_hot(labels, K + 1)[:, :K] * quality[:, None]
    torch.testing.assert_close(loss(pred, dense), loss(pred, labels, quality=quality))
    torch.testing.assert_close(loss(pred, dense), loss(pred, (labels, quality)))


def test_slide_without_positives_is_cross_entropy():
    pred = torch.randn(4, K, dtype=torch.float64)
    background = torch.full((4,), K)
    value = functional.slide_loss(pred, background, pred.new_ones(4))
    torch.testing.assert_close(value, functional.binary_cross_entropy_loss(pred, background))


def test_label_smoothing_equals_torch_and_the_targets_of_yolov5():
    loss = build_loss("LabelSmoothingLoss", epsilon=0.2, reduction="none")
    pred, target, _ = inputs(loss)
    value = F.cross_entropy(pred, target, ignore_index=-1, reduction="none", label_smoothing=0.2)
    torch.testing.assert_close(loss(pred, target), value)
    sigmoid = build_loss("LabelSmoothingLoss", epsilon=0.2, use_sigmoid=True, reduction="none")
    soft = torch.where(F.one_hot(LABELS.clamp(min=0), K + 1)[:, :K] > 0, 0.9, 0.1).double()
    entropy = F.binary_cross_entropy_with_logits(pred[:, :K], soft, reduction="none")
    torch.testing.assert_close(sigmoid(pred[:, :K], target), entropy * (LABELS >= 0)[:, None])


def test_equalized_focal_starts_as_focal_loss_and_collects_its_own_gradient():
    loss = build_loss("EqualizedFocalLoss", num_classes=K, reduction="none")
    pred, target, _ = inputs(loss)
    weight = torch.linspace(0.5, 2, len(pred), dtype=torch.float64)
    own = F.one_hot(LABELS.clamp(min=0), K + 1)[:, :K] * (LABELS >= 0)[:, None]
    focal = functional.sigmoid_focal_loss(pred, target)
    torch.testing.assert_close(loss(pred, target, weight), focal * weight[:, None])
    sums = np.zeros((2, K))
    for _ in range(2):  # the step above, then one whose focusing factors it has set
        before = state(loss)
        twin = build_loss("EqualizedFocalLoss", num_classes=K, reduction="sum").eval()
        sums = np.stack([before["positive_gradient"], before["negative_gradient"]])
        twin.load_state_dict(loss.state_dict())
        (gradient,) = torch.autograd.grad(twin(pred, target, weight), pred)
        loss(pred, target, weight)
        found = [loss.positive_gradient, loss.negative_gradient]
        for part, total, collected in zip((own, 1 - own), sums, found, strict=True):
            step = (gradient.abs() * part).sum(0).numpy()
            np.testing.assert_allclose(collected.numpy(), total + step, rtol=1e-5)
    assert (loss.balance() < 1).any()


def test_equalized_focal_sums_over_the_ranks(monkeypatch):
    alone, one_of_two = (build_loss("EqualizedFocalLoss", num_classes=K) for _ in range(2))
    pred, target, _ = inputs(alone)
    alone(pred, target)
    monkeypatch.setattr("det_losses.losses.core.classification.over_ranks", lambda total: 2 * total)
    one_of_two(pred, target)
    torch.testing.assert_close(one_of_two.positive_gradient, 2 * alone.positive_gradient)
    torch.testing.assert_close(one_of_two.negative_gradient, 2 * alone.negative_gradient)


def test_equalized_focal_focuses_more_on_a_class_without_positives():
    """Its gamma is 2 + 8: at a score of 1/2 its negatives cost 5 / 2^8 of focal loss."""
    loss = build_loss("EqualizedFocalLoss", num_classes=2, reduction="none")
    logits, labels = torch.zeros(40, 2), torch.zeros(40, dtype=torch.long)
    first = loss(logits, labels)
    assert loss.balance().tolist() == [1, 0]
    second = loss(logits, labels)
    assert (second[:, 1] / first[:, 1]).mean().item() == pytest.approx(5 / 2**8)
    torch.testing.assert_close(second[:, 0], first[:, 0])


def test_equalized_focal_takes_a_class_of_many_positives_as_balanced():
    """39 positives of gradient 0.25 each beside a negative of 0.75: more than enough."""
    loss = build_loss("EqualizedFocalLoss", num_classes=2)
    loss(torch.zeros(40, 2), torch.tensor([0] * 39 + [1]))
    assert loss.positive_gradient[0] > 10 * loss.negative_gradient[0] > 0
    assert loss.balance()[0] == 1
    assert loss.balance()[1].item() == pytest.approx(0.25 / (39 * 0.75))


def test_equalized_focal_keeps_its_state_in_evaluation_and_in_the_state_dict():
    loss = build_loss("EqualizedFocalLoss", num_classes=K)
    pred, target, _ = inputs(loss)
    loss(pred, target)
    before = state(loss)
    value = loss.eval()(pred, target)
    assert all((before[key] == each).all() for key, each in state(loss).items())
    resumed = build_loss("EqualizedFocalLoss", num_classes=K).eval()
    assert resumed(pred, target) != value
    resumed.load_state_dict(loss.state_dict())
    assert resumed(pred, target) == value


def test_class_balanced_weights_lie_between_equal_and_inverse_counts():
    counts = [50, 20, 5]
    for beta, by_hand in [(0.0, [1, 1, 1]), (1.0, np.array([0.02, 0.05, 0.2]) / 0.09)]:
        loss = build_loss("ClassBalanced", loss="FocalLoss", class_counts=counts, beta=beta)
        np.testing.assert_allclose(loss.class_weight, by_hand)
        np.testing.assert_allclose(loss.class_weight, class_weights(counts, beta))
    near = build_loss("ClassBalanced", loss="FocalLoss", class_counts=counts, beta=1 - 1e-9)
    np.testing.assert_allclose(near.class_weight, loss.class_weight, rtol=1e-6)


def test_class_balanced_softmax_is_torchs_class_weight_with_background_1():
    counts = [30, 10, 4]
    loss = build_loss(
        f"ClassBalanced(CrossEntropyLoss, class_counts={counts}, beta=0.9)", reduction="none"
    )
    pred, target, _ = inputs(loss)
    weight = torch.tensor([*class_weights(counts, 0.9), 1.0])
    value = F.cross_entropy(pred, target, weight, ignore_index=-1, reduction="none")
    torch.testing.assert_close(loss(pred, target), value)


def test_class_balanced_passes_the_quality_on():
    loss = build_loss("ClassBalanced(IoUAwareBCELoss, class_counts=[9, 3, 1])", reduction="none")
    pred, target, extra = inputs(loss)
    plain = build_loss("IoUAwareBCELoss", reduction="none")(pred, target, **extra)
    ratio = (loss(pred, target, **extra) / plain)[LABELS >= 0]
    table = torch.cat([loss.class_weight, torch.ones(1)])
    torch.testing.assert_close(ratio, table[LABELS[LABELS >= 0], None].expand_as(ratio))
    with pytest.raises(ValueError, match="ClassBalanced takes labels as target: pass the quality"):
        loss(pred, (target, QUALITY), **extra)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("IoUAwareBCELoss(alpha=2)", r"alpha must be in \[0, 1\], got 2"),
        ("IoUAwareBCELoss(gamma=-1)", "gamma must be at least 0, got -1"),
        ("IoUAwareBCELoss(min_target=-1)", r"min_target must be in \[0, 1\], got -1"),
        ("SlideLoss(min_mean=0)", r"min_mean must be in \[0.1, 1\], got 0"),
        ("LabelSmoothingLoss(epsilon=2)", r"epsilon must be in \[0, 1\], got 2"),
        ("EqualizedFocalLoss(num_classes=0)", "num_classes must be the number of classes"),
        ("EqualizedFocalLoss(num_classes=3, gamma=0)", "gamma must be above 0, got 0"),
        ("EqualizedFocalLoss(num_classes=3, alpha=2)", r"alpha must be in \[0, 1\], or None"),
        ("EqualizedFocalLoss(num_classes=3, scale=-1)", "scale must be at least 0, got -1"),
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
def test_arguments_that_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        build_loss(config)


def test_another_number_of_classes_is_refused():
    pred, labels = torch.zeros(2, 4), torch.tensor([0, 1])
    with pytest.raises(ValueError, match="num_classes=3 requires 3 channels, pred has 4"):
        build_loss("EqualizedFocalLoss", num_classes=3)(pred, labels)
    with pytest.raises(ValueError, match="class_counts must have one entry per class: 3 given"):
        build_loss("ClassBalanced(FocalLoss, class_counts=[1, 2, 3])")(pred, labels)
