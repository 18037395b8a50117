"""Classification losses against their formulas, torch and torchvision."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import sigmoid_focal_loss

from det_losses import build_loss, functional

K = 3
# every class, the background K, an ignored label
LABELS = torch.tensor([0, 1, 2, K, -1, 2, K, 0])


def logits(channels, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(len(LABELS), channels, generator=generator, dtype=torch.float64) * 3


def one_hot(labels):
    """Ones at the label's channel, none for the background."""
    return (labels[:, None] == torch.arange(K)).double()


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("kind", ["labels", "one-hot", "soft"])
def test_sigmoid_focal_equals_torchvision_in_value_and_gradient(gamma, kind):
    ours, theirs = logits(K).requires_grad_(), logits(K).requires_grad_()
    labels = LABELS.clamp(min=0)
    dense = torch.rand(len(labels), K).double() if kind == "soft" else one_hot(labels)
    target = labels if kind == "labels" else dense
    value = functional.sigmoid_focal_loss(ours, target, gamma=gamma)
    expected = sigmoid_focal_loss(theirs, dense, gamma=gamma)
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-14)
    value.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-10, atol=1e-14)


def test_cross_entropies_equal_torchs():
    pred, labels = logits(K + 1), LABELS.clamp(min=0)
    torch.testing.assert_close(
        build_loss("CrossEntropyLoss")(pred, labels), F.cross_entropy(pred, labels)
    )
    soft = torch.rand(len(labels), K, dtype=torch.float64)
    torch.testing.assert_close(
        build_loss("BinaryCrossEntropyLoss")(pred[:, :K], soft),
        F.binary_cross_entropy_with_logits(pred[:, :K], soft),
    )


def test_focal_without_focus_and_balance_is_cross_entropy():
    pred = logits(K + 1)
    softmax = functional.softmax_focal_loss(pred, LABELS, gamma=0.0, alpha=None)
    torch.testing.assert_close(softmax, functional.cross_entropy_loss(pred, LABELS))
    sigmoid = functional.sigmoid_focal_loss(pred, LABELS, gamma=0.0, alpha=None)
    torch.testing.assert_close(sigmoid, functional.binary_cross_entropy_loss(pred, LABELS))


@pytest.mark.parametrize("use_sigmoid", [True, False])
@pytest.mark.parametrize("size", [100.0, 1e4])
def test_focal_gradient_is_finite_at_a_fractional_gamma(use_sigmoid, size):
    """torchvision's direct power has NaN gradients at logits of 100 and gamma 0.5."""
    loss = build_loss("FocalLoss", use_sigmoid=use_sigmoid, gamma=0.5, reduction="sum")
    for sign in (1, -1):
        pred = torch.full((len(LABELS), K + 1), -sign * size)
        pred[:, 0] = sign * size
        pred.requires_grad_()
        value = loss(pred, LABELS)
        value.backward()
        assert value.isfinite() and pred.grad.isfinite().all()


def test_one_hot_floats_at_extreme_logits_have_finite_gradients():
    pred = torch.tensor([[1e4, -1e4, 0.0]] * len(LABELS), requires_grad=True)
    value = functional.sigmoid_focal_loss(pred, one_hot(LABELS).float(), gamma=0.5).sum()
    value.backward()
    assert value.isfinite() and pred.grad.isfinite().all()


@pytest.mark.parametrize("name", ["BinaryCrossEntropyLoss", "FocalLoss"])
def test_negative_values_per_channel_are_ignored(name):
    pred, target = logits(K).requires_grad_(), one_hot(LABELS)
    target[1, 2] = -1
    loss = build_loss(name, reduction="none")(pred, target)
    loss.sum().backward()
    assert loss[1, 2] == 0 and pred.grad[1, 2] == 0
    assert pred.grad.isfinite().all() and (pred.grad[0] != 0).all()


def test_single_channel_takes_foreground_as_zero():
    """At logit 0 both cost ln 2; a sure foreground costs nothing as 0 and 20 as background 1."""
    loss = build_loss("BinaryCrossEntropyLoss", reduction="none")
    pred = torch.tensor([[0.0], [0.0], [20.0], [20.0]])
    value = loss(pred, torch.tensor([0, 1, 0, 1]))[:, 0]
    torch.testing.assert_close(value, torch.tensor([np.log(2), np.log(2), 0, 20]).float())


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("BinaryCrossEntropyLoss", {}),
        ("CrossEntropyLoss", {}),
        ("FocalLoss", {}),
        ("FocalLoss", {"use_sigmoid": False}),
    ],
)
def test_ignored_rows_cost_nothing_and_have_no_gradient(name, kwargs):
    pred = logits(K + 1).requires_grad_()
    loss = build_loss(name, reduction="sum", **kwargs)
    loss(pred, LABELS).backward()
    assert (pred.grad[LABELS < 0] == 0).all() and (pred.grad[LABELS >= 0] != 0).any()
    kept = LABELS >= 0
    torch.testing.assert_close(loss(pred, LABELS), loss(pred[kept], LABELS[kept]))


@pytest.mark.parametrize("use_sigmoid", [True, False])
def test_avg_non_ignore_divides_by_what_counts(use_sigmoid):
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


def test_avg_non_ignore_with_values_per_channel_counts_channels():
    pred, target = logits(K), one_hot(LABELS)
    target[0, 0] = -1
    loss = build_loss("CrossEntropyLoss", use_sigmoid=True, avg_non_ignore=True)
    total = F.binary_cross_entropy_with_logits(pred, target, reduction="none")[target >= 0].sum()
    torch.testing.assert_close(loss(pred, target), total / (target.numel() - 1))


def test_class_weight_is_torchs():
    labels, weight = LABELS.clamp(min=0), [0.5, 1.0, 2.0, 4.0]
    pred, factors = logits(K + 1), torch.tensor(weight, dtype=torch.float64)
    loss = build_loss("CrossEntropyLoss", class_weight=weight, reduction="none")
    expected = F.cross_entropy(pred, labels, weight=factors, reduction="none")
    torch.testing.assert_close(loss(pred, labels), expected)
    dense = F.one_hot(labels, K + 1).double()
    loss = build_loss("CrossEntropyLoss", use_sigmoid=True, class_weight=weight, reduction="none")
    expected = F.binary_cross_entropy_with_logits(pred, dense, pos_weight=factors, reduction="none")
    torch.testing.assert_close(loss(pred, labels), expected)
    torch.testing.assert_close(loss(pred, dense), expected)
    assert not loss.state_dict()


def test_sigmoid_losses_on_labels_build_no_one_hot_tensor(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("one_hot was called")

    monkeypatch.setattr(F, "one_hot", refuse)
    functional.sigmoid_focal_loss(logits(K), LABELS)


def test_activation_follows_the_arguments():
    assert build_loss("CrossEntropyLoss").activation == "softmax"
    assert build_loss("CrossEntropyLoss", use_sigmoid=True).activation == "sigmoid"
    assert build_loss("FocalLoss").activation == "sigmoid"
    assert build_loss("FocalLoss", use_sigmoid=False).activation == "softmax"


@pytest.mark.parametrize(
    ("name", "kwargs", "error", "message"),
    [
        ("CrossEntropyLoss", {"use_mask": True}, ValueError, "use_mask=True is mmdetection's mask"),
        ("CrossEntropyLoss", {"class_weight": "w.npy"}, TypeError, "class_weight must be a list"),
        ("FocalLoss", {"activated": True}, ValueError, "activated=True means that pred holds"),
        ("FocalLoss", {"gamma": -1.0}, ValueError, "gamma must be at least 0, got -1.0"),
        ("FocalLoss", {"alpha": -1}, ValueError, r"alpha must be in \[0, 1\], or None .* got -1"),
    ],
)
def test_arguments_that_cannot_be_honoured_are_refused(name, kwargs, error, message):
    with pytest.raises(error, match=message):
        build_loss(name, **kwargs)


def test_targets_that_are_no_labels_are_refused():
    softmax, sigmoid = build_loss("CrossEntropyLoss"), build_loss("FocalLoss")
    pred = logits(K + 1)
    with pytest.raises(
        ValueError, match=r"one integer label per row; .* target \[8\] of .*float32"
    ):
        softmax(pred, LABELS.float())
    with pytest.raises(ValueError, match=r"one integer label per row; .* target \[8, 4\]"):
        softmax(pred, torch.zeros_like(pred))
    with pytest.raises(
        ValueError, match=r"or one value per channel; .* target \[8\] of torch.bool"
    ):
        sigmoid(pred, LABELS > 0)
    with pytest.raises(
        ValueError, match=r"or one value per channel; .* target \[3\] of torch.int64"
    ):
        sigmoid(pred, LABELS[:3])


def test_class_weight_needs_one_entry_per_channel():
    loss = build_loss("CrossEntropyLoss", class_weight=[1.0, 2.0])
    with pytest.raises(ValueError, match="one entry per channel: 2 given, pred has 4"):
        loss(logits(K + 1), LABELS)


def test_softmax_focal_needs_a_background_channel():
    with pytest.raises(ValueError, match="softmax needs a class and the background"):
        functional.softmax_focal_loss(torch.zeros(2, 1), torch.zeros(2, dtype=torch.long))
