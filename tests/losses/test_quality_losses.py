"""Losses of qualities, poly and asymmetric focal loss, and the distribution of a side."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from reference_classes import REFERENCES, matchability_aware
from torchvision.ops import sigmoid_focal_loss

from det_losses import build_loss, functional

K = 3
# every class, the background K twice, an ignored label
LABELS = torch.tensor([0, 1, 2, K, -1, 2, K, 0])
# what stands at background and ignored rows must not matter
QUALITY = torch.tensor([0.9, 0.2, 0.0, 0.7, 0.4, 1.0, 0.0, 0.55], dtype=torch.float64)
QUALITY_NAMES = ["QualityFocalLoss", "VarifocalLoss", "MatchabilityAwareLoss"]
HARD_NAMES = ["PolyFocalLoss", "AsymmetricLoss"]
CLASS_NAMES = QUALITY_NAMES + HARD_NAMES
CASES = [
    pytest.param(name, arguments, function, id=f"{name}-{arguments}")
    for name, cases in REFERENCES.items()
    for arguments, function, _constants in cases
]
LN2 = float(np.log(2))


def logits(channels=K, rows=8, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(rows, channels, generator=generator, dtype=torch.float64) * 3).to(dtype)


def inputs_of(name):
    return {"quality": QUALITY} if name in QUALITY_NAMES else {}


def dense(labels=LABELS, quality=None):
    """The quality (or 1) at the label's channel; a negative row for an ignored label."""
    own = (labels[:, None] == torch.arange(K)).double()
    values = own if quality is None else own * quality[:, None]
    return torch.where(labels[:, None] < 0, -1.0, values)


def arguments_of(loss):
    return {k: v for k, v in loss.params().items() if k not in ("reduction", "loss_weight")}


@pytest.mark.parametrize(("name", "arguments", "function"), CASES)
def test_value_is_the_papers(name, arguments, function):
    loss = build_loss(name, reduction="none", **arguments)
    if name == "DistributionFocalLoss":
        pred, target, inputs = logits(6), torch.tensor([0, 5, 2, 0.25, 4.9, 3.5, 1, 2.1]), {}
    else:
        pred, target, inputs = logits(), LABELS, inputs_of(name)
    arrays = {key: value.numpy() for key, value in inputs.items()}
    target = target.double() if target.is_floating_point() else target
    expected = function(pred.numpy(), target.numpy(), **arguments_of(loss), **arrays)
    value = loss(pred, target, **inputs)
    np.testing.assert_allclose(value.numpy(), expected, rtol=1e-11, atol=1e-15)


@pytest.mark.parametrize(
    ("name", "arguments", "function"), [c for c in CASES if c.values[0] in CLASS_NAMES]
)
def test_values_per_channel_are_the_papers_and_negative_ones_ignored(name, arguments, function):
    """Three channels of a row at once, as in mmdetection's varifocal loss."""
    loss = build_loss(name, reduction="none", **arguments)
    pred = logits().requires_grad_()
    soft = torch.rand(pred.shape, generator=torch.Generator().manual_seed(1)).double()
    target = torch.where(soft < 0.3, 0.0, soft)
    target[1, 2] = target[4] = -1
    expected = function(pred.detach().numpy(), target.numpy(), **arguments_of(loss))
    value = loss(pred, target)
    np.testing.assert_allclose(value.detach().numpy(), expected, rtol=1e-11, atol=1e-15)
    value.sum().backward()
    assert (pred.grad[4] == 0).all() and pred.grad[1, 2] == 0 and (pred.grad[0] != 0).all()


@pytest.mark.parametrize("name", CLASS_NAMES)
def test_labels_and_values_per_channel_agree(name):
    pred, loss = logits(), build_loss(name, reduction="none")
    labels = LABELS
    if name == "MatchabilityAwareLoss":  # tells a positive of quality 0 by its label alone
        labels = torch.where(QUALITY == 0, K, LABELS)
    quality = inputs_of(name)
    expected = loss(pred, dense(labels, *quality.values()))
    torch.testing.assert_close(loss(pred, labels, **quality), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", QUALITY_NAMES)
def test_mmdetections_pair_is_labels_and_quality(name):
    pred, loss = logits(), build_loss(name)
    expected = loss(pred, LABELS, QUALITY.new_ones(8), 3.0, quality=QUALITY)
    pair = (LABELS, QUALITY)
    for target in (pair, list(pair)):
        assert loss(pred, target, weight=QUALITY.new_ones(8), avg_factor=3.0) == expected


@pytest.mark.parametrize("name", QUALITY_NAMES)
def test_quality_is_constant_and_counts_within_0_and_1(name):
    pred, loss = logits(), build_loss(name, reduction="none")
    quality = QUALITY.clone().requires_grad_()
    assert not loss(pred, LABELS, quality=quality).requires_grad
    beyond = QUALITY * 1.5
    assert (
        loss(pred, LABELS, quality=beyond) == loss(pred, LABELS, quality=beyond.clamp(0, 1))
    ).all()


@pytest.mark.parametrize("name", QUALITY_NAMES)
def test_quality_of_rows_without_a_class_is_not_read(name):
    loss = build_loss(name)
    without = (LABELS < 0) | (LABELS == K)
    values, grads = [], []
    for quality in (QUALITY, torch.where(without, torch.nan, QUALITY)):
        pred = logits().requires_grad_()
        values.append(loss(pred, LABELS, quality=quality))
        grads.append(torch.autograd.grad(values[-1], pred)[0])
    assert values[0] == values[1] and (grads[0] == grads[1]).all()


@pytest.mark.parametrize("name", CLASS_NAMES)
def test_ignored_rows_and_rows_of_weight_zero_change_nothing(name):
    loss, inputs = build_loss(name, reduction="sum"), inputs_of(name)
    pred = logits().requires_grad_()
    loss(pred, LABELS, **inputs).backward()
    assert (pred.grad[LABELS < 0] == 0).all() and (pred.grad[LABELS >= 0] != 0).any(-1).all()
    kept = LABELS >= 0
    some = {key: value[kept] for key, value in inputs.items()}
    expected = loss(pred[kept], LABELS[kept], **some)
    torch.testing.assert_close(loss(pred, LABELS, **inputs), expected, rtol=1e-12, atol=0)
    # the row has a class now, but no weight
    labels = torch.where(kept, LABELS, 1)
    torch.testing.assert_close(
        loss(pred, labels, kept.double(), **inputs), expected, rtol=1e-12, atol=0
    )


def test_quality_focal_with_quality_1_and_beta_2_is_focal_without_alpha():
    """torchvision takes alpha -1 for no balance."""
    loss = build_loss("QualityFocalLoss", reduction="none")
    ours, theirs = logits().requires_grad_(), logits().requires_grad_()
    labels = LABELS.clamp(min=0)
    value = loss(ours, labels, quality=torch.ones(8))
    expected = sigmoid_focal_loss(theirs, dense(labels), alpha=-1, gamma=2)
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-14)
    value.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("QualityFocalLoss", {"beta": 0.0}),
        ("VarifocalLoss", {"gamma": 0.0, "alpha": 1.0, "iou_weighted": False}),
    ],
)
def test_without_focus_a_quality_loss_is_cross_entropy_to_the_quality(name, arguments):
    labels = LABELS.clamp(min=0)
    loss = build_loss(name, reduction="none", **arguments)
    expected = F.binary_cross_entropy_with_logits(
        logits(), dense(labels, QUALITY), reduction="none"
    )
    torch.testing.assert_close(loss(logits(), labels, quality=QUALITY), expected)


def test_varifocal_weighs_positives_by_quality_and_negatives_as_focal_loss_does():
    labels = LABELS.clamp(min=0)
    target = dense(labels, QUALITY)
    value = build_loss("VarifocalLoss", reduction="none")(logits(), labels, quality=QUALITY)
    entropy = F.binary_cross_entropy_with_logits(logits(), target, reduction="none")
    focal = sigmoid_focal_loss(logits(), torch.zeros_like(target), alpha=-1, gamma=2)
    torch.testing.assert_close(value, torch.where(target > 0, target * entropy, 0.75 * focal))


def test_matchability_aware_with_quality_1_is_cross_entropy_of_positives():
    """A match of quality 0 keeps its weight: it costs -ln(1 - p), where varifocal has p^2 of it."""
    pred, labels = torch.tensor([[1.5], [1.5], [1.5]]), torch.tensor([0, 0, 1])
    quality = torch.tensor([1.0, 0.0, 0.0])
    value = functional.matchability_aware_loss(pred, labels, quality)[:, 0]
    p = pred[0, 0].sigmoid()
    expected = torch.stack([-p.log(), -(1 - p).log(), -(p**1.5) * (1 - p).log()])
    torch.testing.assert_close(value, expected)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("kind", ["labels", "one-hot", "soft"])
def test_poly_focal_with_eps1_zero_is_torchvisions_focal(gamma, kind):
    ours, theirs = logits().requires_grad_(), logits().requires_grad_()
    labels = LABELS.clamp(min=0)
    values = torch.rand(8, K).double() if kind == "soft" else dense(labels)
    value = functional.poly_focal_loss(
        ours, labels if kind == "labels" else values, eps1=0.0, gamma=gamma
    )
    expected = sigmoid_focal_loss(theirs, values, gamma=gamma)
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-14)
    value.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("eps1", [-1.0, 0.0, 2.0])
def test_poly_focal_moves_the_first_coefficient_of_the_expansion(eps1):
    """-ln p_t = sum of (1 - p_t)^j / j: at p_t = 0.9 forty terms are exact."""
    pred = torch.tensor([[0.9]], dtype=torch.float64).logit()
    value = functional.poly_focal_loss(pred, torch.tensor([0]), eps1=eps1, gamma=2.0, alpha=None)
    terms = [0.1 ** (2 + j) * (1 / j + (eps1 if j == 1 else 0)) for j in range(1, 41)]
    assert value.item() == pytest.approx(sum(terms), rel=1e-12)


def test_asymmetric_without_focus_and_margin_is_torchs_cross_entropy():
    arguments = dict(gamma_pos=0.0, gamma_neg=0.0, clip=0.0)
    labels, soft = LABELS.clamp(min=0), torch.rand(8, K).double()
    for target, values in ((labels, dense(labels)), (soft, soft)):
        expected = F.binary_cross_entropy_with_logits(logits(), values, reduction="none")
        torch.testing.assert_close(
            functional.asymmetric_loss(logits(), target, **arguments), expected
        )


def test_asymmetric_with_one_gamma_is_focal_loss():
    arguments = dict(gamma_pos=2.0, gamma_neg=2.0, clip=0.0)
    labels = LABELS.clamp(min=0)
    expected = sigmoid_focal_loss(logits(), dense(labels), alpha=-1, gamma=2)
    torch.testing.assert_close(functional.asymmetric_loss(logits(), labels, **arguments), expected)


@pytest.mark.parametrize("gamma_neg", [0.0, 0.5, 4.0])
def test_asymmetric_drops_negatives_below_the_margin(gamma_neg):
    """A negative of score 0.04 is nothing and has no gradient; one of 0.3 counts as 0.25."""
    pred = torch.tensor([[0.04], [0.3]], dtype=torch.float64).logit().requires_grad_()
    labels = torch.tensor([1, 1])
    value = functional.asymmetric_loss(pred, labels, gamma_neg=gamma_neg, clip=0.05)
    value.sum().backward()
    assert value[0] == 0 and pred.grad[0] == 0 and pred.grad[1] > 0
    assert value[1].item() == pytest.approx(-(0.25**gamma_neg) * np.log(0.75), rel=1e-12)


@pytest.mark.parametrize("logit", [0.0, -1e4])
def test_asymmetric_at_and_below_the_margin_has_no_nan_on_the_way_back(logit):
    """A direct power of 0.5 has an infinite slope at 0; anomaly detection sees it within."""
    pred = torch.full((1, 1), logit, requires_grad=True)
    with torch.autograd.set_detect_anomaly(True):
        value = functional.asymmetric_loss(pred, torch.tensor([1]), gamma_neg=0.5, clip=0.5)
        value.sum().backward()
    assert pred.grad.isfinite().all()


def test_distribution_focal_at_a_whole_number_is_torchs_cross_entropy():
    """Also at the largest, n, which has no whole number above it."""
    pred, target = logits(6), torch.tensor([0, 5, 2, 1, 4, 3, 5, 0])
    expected = F.cross_entropy(pred, target, reduction="none")
    for distances in (target, target.double()):
        torch.testing.assert_close(functional.distribution_focal_loss(pred, distances), expected)


def test_distribution_focal_between_whole_numbers_is_cross_entropy_to_both_by_nearness():
    """3.25 is three quarters 3 and a quarter 4; torch takes shares as targets too."""
    pred = logits(6, rows=1)
    shares = torch.tensor([[0, 0, 0, 0.75, 0.25, 0]], dtype=torch.float64)
    value = functional.distribution_focal_loss(pred, torch.tensor([3.25]))
    torch.testing.assert_close(value, F.cross_entropy(pred, shares, reduction="none"))


def test_distribution_focal_is_least_where_the_mean_is_the_distance():
    pred = torch.zeros(1, 5, dtype=torch.float64, requires_grad=True)
    target = torch.tensor([2.3], dtype=torch.float64)
    optimiser = torch.optim.LBFGS([pred], max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        optimiser.zero_grad()
        loss = functional.distribution_focal_loss(pred, target).sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    shares = pred.detach().softmax(-1)[0]
    assert (shares * torch.arange(5)).sum().item() == pytest.approx(2.3, abs=1e-3)
    assert shares[2].item() == pytest.approx(0.7, abs=1e-3)


def test_distances_outside_count_as_the_nearer_end():
    pred = logits(6, rows=2)
    value = functional.distribution_focal_loss(pred, torch.tensor([-3.0, 7.5]))
    expected = F.cross_entropy(pred, torch.tensor([0, 5]), reduction="none")
    torch.testing.assert_close(value, expected)


def test_distribution_focal_has_a_weight_per_side():
    loss = build_loss("DistributionFocalLoss")
    pred, target = logits(6), torch.rand(8).double() * 5
    weight = torch.tensor([1.0, 0, 2, 0, 0, 0, 0, 0])
    sides = functional.distribution_focal_loss(pred, target)
    expected = (sides[0] + 2 * sides[2]) / 4
    torch.testing.assert_close(loss(pred, target, weight, avg_factor=4), expected)
    with pytest.raises(ValueError, match=r"weight must have shape \[8\], got \[8, 6\]"):
        loss(pred, target, pred)


def test_known_values_at_score_one_half():
    """One channel at logit 0, where every score is 0.5 and every cross-entropy ln 2.

    A positive of quality 0.8 and a negative: quality focal 0.3^2 ln 2 and 0.5^2 ln 2; varifocal
    0.8 ln 2 and 0.75 * 0.5^2 ln 2; matchability-aware ln 2 and 0.5^1.5 ln 2.
    """
    pred, labels = torch.zeros(2, 1), torch.tensor([0, 1])
    for name, expected in {
        "QualityFocalLoss": [0.09 * LN2, 0.25 * LN2],
        "VarifocalLoss": [0.8 * LN2, 0.1875 * LN2],
        "MatchabilityAwareLoss": [LN2, 0.5**1.5 * LN2],
    }.items():
        value = build_loss(name, reduction="none")(pred, labels, quality=torch.tensor([0.8, 0.3]))
        torch.testing.assert_close(value[:, 0], torch.tensor(expected))


@pytest.mark.parametrize("name", [*CLASS_NAMES, "DistributionFocalLoss"])
def test_zero_at_a_perfect_prediction_is_declared_truthfully(name):
    """The score is the quality; for hard labels it is 1 at the label and 0 elsewhere."""
    loss = build_loss(name, reduction="none")
    if name == "DistributionFocalLoss":
        # 0.75 on 3 and 0.25 on 4, a mean of 3.25
        pred = torch.tensor([[0, 0, 0, 0.75, 0.25]]).clamp(min=1e-30).log()
        value = loss(pred, torch.tensor([3.25]))
    else:
        target = dense(LABELS.clamp(min=0), *inputs_of(name).values())
        value = loss(target.clamp(1e-15, 1 - 1e-15).logit(), target)
    assert (value.abs().max() < 1e-12) == loss.zero_at_target


def test_quality_focal_without_beta_is_not_zero_at_the_quality():
    assert build_loss("QualityFocalLoss").zero_at_target
    assert not build_loss("QualityFocalLoss", beta=0.0).zero_at_target


GRADIENT_CASES = [c for c in CASES if c.values[0] not in ("MatchabilityAwareLoss",)]


@pytest.mark.parametrize(("name", "arguments", "function"), GRADIENT_CASES)
def test_gradient_is_that_of_the_value(name, arguments, function):
    loss = build_loss(name, reduction="none", **arguments)
    if name == "DistributionFocalLoss":
        pred, target = logits(6, rows=3), torch.tensor([0, 4.9, 5])
        assert torch.autograd.gradcheck(lambda x: loss(x, target), pred.requires_grad_())
        return
    pred, inputs = logits().requires_grad_(), inputs_of(name)
    assert torch.autograd.gradcheck(lambda x: loss(x, LABELS, **inputs), pred)


def test_matchability_aware_holds_the_weight_of_negatives_constant():
    pred = logits().requires_grad_()
    functional.matchability_aware_loss(pred, LABELS, QUALITY).sum().backward()
    x, step, numeric = pred.detach().numpy(), 1e-5, np.zeros(pred.shape)
    known = dict(quality=QUALITY.numpy(), gamma=1.5, constant=x)
    for index in np.ndindex(*x.shape):
        shift = np.zeros_like(x)
        shift[index] = step
        up, down = (
            matchability_aware(x + s, LABELS.numpy(), **known).sum() for s in (shift, -shift)
        )
        numeric[index] = (up - down) / (2 * step)
    np.testing.assert_allclose(pred.grad.numpy(), numeric, rtol=1e-6, atol=1e-9)


EXTREMES = [1e4, -1e4, 100.0, -100.0, 20.0, -20.0, 0.0]
FRACTIONAL = {
    "QualityFocalLoss": [{}, {"beta": 0.01}, {"beta": 0.5}, {"beta": 0.0}, {"beta": 1.0}],
    "VarifocalLoss": [{}, {"gamma": 0.01}, {"gamma": 0.5}],
    "MatchabilityAwareLoss": [{}, {"gamma": 0.01}],
    "PolyFocalLoss": [{}, {"gamma": 0.01, "eps1": -1.0}, {"gamma": 0.5}],
    "AsymmetricLoss": [
        {},
        {"gamma_pos": 0.01, "gamma_neg": 0.01},
        {"gamma_pos": 0.5, "gamma_neg": 0.5, "clip": 0.0},
        {"gamma_neg": 0.5, "clip": 1e-12},
    ],
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("name", "arguments"), [(name, case) for name in FRACTIONAL for case in FRACTIONAL[name]]
)
def test_extreme_logits_have_finite_loss_and_gradient(name, arguments, dtype):
    """Every extreme logit against every quality, as label and per channel."""
    qualities = torch.tensor([0.0, 1e-30, 1e-4, 0.5, 1 - 1e-7, 1.0])
    pairs = torch.cartesian_prod(torch.tensor(EXTREMES), qualities)
    loss = build_loss(name, reduction="sum", **arguments)
    quality = {"quality": pairs[:, 1]} if name in QUALITY_NAMES else {}
    for target, inputs in (
        (torch.zeros(len(pairs), dtype=torch.long), quality),
        (torch.ones(len(pairs), dtype=torch.long), quality),
        (pairs[:, 1:], {}),
    ):
        pred = pairs[:, :1].to(dtype).requires_grad_()
        value = loss(pred, target, **inputs)
        value.backward()
        assert value.isfinite() and pred.grad.isfinite().all()


@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0])
def test_quality_focal_at_the_quality_has_no_gradient(beta):
    """Below beta 1 the formula's slope is infinite there, on both sides."""
    pred = torch.tensor([[0.0], [0.0]], requires_grad=True)
    value = functional.quality_focal_loss(pred, torch.full((2, 1), 0.5), beta=beta)
    value.sum().backward()
    assert (value == 0).all() and (pred.grad == 0).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_distribution_focal_at_extreme_logits(dtype):
    pred = torch.tensor([[1e4, -1e4, 0, 100], [-1e4, 0, 1e4, 1e4]], dtype=dtype)
    pred.requires_grad_()
    value = functional.distribution_focal_loss(pred, torch.tensor([0.5, 3.0])).sum()
    value.backward()
    assert value.isfinite() and pred.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", [*CLASS_NAMES, "DistributionFocalLoss"])
def test_half_precision_is_computed_in_float32(name, dtype):
    pred = logits(dtype=dtype).requires_grad_()
    loss, inputs, target = build_loss(name), inputs_of(name), LABELS
    if name == "DistributionFocalLoss":
        target = (QUALITY * 2).to(dtype)
    value = loss(pred, target, torch.ones(8, dtype=dtype), **inputs)
    target = target.float() if target.is_floating_point() else target
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(pred.float(), target, **inputs), rtol=1e-6, atol=0)
    value.backward()
    assert pred.grad.dtype == dtype and pred.grad.isfinite().all()


@pytest.mark.parametrize("name", [*CLASS_NAMES, "DistributionFocalLoss"])
def test_empty_batch_is_a_zero_that_back_propagates(name):
    pred = torch.zeros(0, K, requires_grad=True)
    inputs = {key: value[:0] for key, value in inputs_of(name).items()}
    value = build_loss(name)(pred, LABELS[:0], torch.ones(0), **inputs)
    value.backward()
    assert value == 0 and pred.grad.shape == pred.shape


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("QualityFocalLoss", {"use_sigmoid": False}, "use_sigmoid must be True, got False"),
        ("QualityFocalLoss", {"activated": True}, "activated=True means that pred holds"),
        ("QualityFocalLoss", {"beta": -1.0}, "beta must be at least 0, got -1.0"),
        ("VarifocalLoss", {"use_sigmoid": False}, "VarifocalLoss is defined for the sigmoid"),
        ("VarifocalLoss", {"alpha": -0.1}, "alpha must be at least 0, got -0.1"),
        ("VarifocalLoss", {"gamma": -1.0}, "gamma must be at least 0, got -1.0"),
        ("MatchabilityAwareLoss", {"gamma": -1.0}, "gamma must be at least 0, got -1.0"),
        ("PolyFocalLoss", {"eps1": -1.5}, "eps1 must be at least -1, got -1.5"),
        ("PolyFocalLoss", {"gamma": -1.0}, "gamma must be at least 0, got -1.0"),
        ("PolyFocalLoss", {"alpha": 1.5}, r"alpha must be in \[0, 1\], or None"),
        ("AsymmetricLoss", {"use_sigmoid": False}, "AsymmetricLoss is defined for the sigmoid"),
        ("AsymmetricLoss", {"gamma_pos": -1.0}, "gamma_pos must be at least 0, got -1.0"),
        ("AsymmetricLoss", {"gamma_neg": -1.0}, "gamma_neg must be at least 0, got -1.0"),
        ("AsymmetricLoss", {"clip": 1.0}, r"clip must be in \[0, 1\), got 1.0"),
    ],
)
def test_arguments_that_cannot_be_honoured_are_refused(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        build_loss(name, **arguments)


def test_mmpretrains_eps_is_refused_with_its_reason():
    with pytest.raises(TypeError, match="eps: logarithms are computed from logits"):
        build_loss("AsymmetricLoss", eps=1e-8)


@pytest.mark.parametrize(
    "config",
    [
        dict(type="QualityFocalLoss", use_sigmoid=True, beta=2.0, loss_weight=1.0),
        dict(type="QualityFocalLoss", use_sigmoid=True, activated=False, reduction="mean"),
        dict(type="VarifocalLoss", use_sigmoid=True, alpha=0.75, gamma=2.0, iou_weighted=True),
        dict(type="DistributionFocalLoss", loss_weight=0.25),
        dict(type="AsymmetricLoss", gamma_pos=0.0, gamma_neg=4.0, clip=0.05, use_sigmoid=True),
    ],
)
def test_openmmlabs_configs_build(config):
    loss = build_loss(config)
    assert all(getattr(loss, key) == value for key, value in config.items() if key != "type")


@pytest.mark.parametrize("name", QUALITY_NAMES)
def test_targets_that_do_not_fit_are_refused(name):
    loss, pred = build_loss(name), logits()
    with pytest.raises(TypeError, match=rf"{name} needs the input 'quality'"):
        loss(pred, LABELS)
    with pytest.raises(ValueError, match=r"one value per row, \[8\], got \[3\]"):
        loss(pred, LABELS, quality=QUALITY[:3])
    with pytest.raises(ValueError, match=r"target must be \(labels, quality\), got 3 tensors"):
        loss(pred, (LABELS, QUALITY, QUALITY))
    with pytest.raises(ValueError, match="leave out quality"):
        loss(pred, (LABELS, QUALITY), quality=QUALITY)
    with pytest.raises(ValueError, match=r"one integer label per row; .* target \[8, 3\]"):
        loss(pred, dense(), quality=QUALITY)
    function = {
        "QualityFocalLoss": functional.quality_focal_loss,
        "VarifocalLoss": functional.varifocal_loss,
        "MatchabilityAwareLoss": functional.matchability_aware_loss,
    }[name]
    with pytest.raises(ValueError, match=r"labels need a quality for each row"):
        function(pred, LABELS)


@pytest.mark.parametrize(
    ("pred", "target"),
    [
        (torch.zeros(2, 1), torch.zeros(2)),
        (torch.zeros(2, 4), torch.zeros(3)),
        (torch.zeros(2, 4), torch.zeros(2, 4)),
        (torch.tensor(0.0), torch.tensor(0.0)),
    ],
)
def test_distribution_focal_refuses_shapes_that_do_not_fit(pred, target):
    with pytest.raises(ValueError, match=r"pred must be \[N, n \+ 1\] with n at least 1"):
        functional.distribution_focal_loss(pred, target)
