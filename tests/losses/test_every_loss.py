"""What holds for every registered loss; a new one is covered by being registered."""

import inspect

import pytest
import torch
from loss_inputs import (
    BOX_NAMES,
    CLASSIFICATION_NAMES,
    DELTA_NAMES,
    INFOS,
    NAMES,
    SIZES,
    TOLERANCE,
    awkward_pairs,
    build_and_inputs,
)

from det_losses import build_loss, functional
from det_losses.registry import MODELS

# Alpha of CIoU and W of Focal-EIoU are constant in the gradient: test_iou_family checks them.
CONSTANT_IN_GRADIENT = {"CIoULoss", "FocalEIoULoss"}


@pytest.mark.parametrize("info", INFOS, ids=lambda info: info.name)
def test_info_card_and_repr_agree_with_the_class(info):
    cls, loss = MODELS.module_dict[info.name], build_loss(info.name)
    assert info.paper and info.kind in ("box", "classification")
    assert (info.space in ("delta", "decoded")) == (info.kind == "box")
    assert (info.activation in ("sigmoid", "softmax")) == (info.kind == "classification")
    assert loss.params() == info.defaults
    assert eval(repr(loss), {info.name: cls}).params() == loss.params()
    card = inspect.getdoc(cls)
    for part in (".. math::", "Args:", "Shape:", "Raises:", "Reference:", "Example:"):
        assert part in card, f"{info.name} has no {part}"
    arguments = card[card.index("Args:") : card.index("Shape:")]
    assert all(f"{name}: " in arguments for name in info.defaults)


@pytest.mark.parametrize("name", NAMES)
def test_reductions_agree_with_the_unreduced_loss(name):
    loss, pred, target = build_and_inputs(name, loss_weight=2.5)
    none = loss(pred, target, reduction_override="none")
    assert none.shape in (pred.shape, pred.shape[:-1])
    torch.testing.assert_close(loss(pred, target), none.mean(), rtol=1e-12, atol=0)
    total = loss(pred, target, reduction_override="sum")
    torch.testing.assert_close(total, none.sum(), rtol=1e-12, atol=0)
    torch.testing.assert_close(none, 2.5 * build_loss(name).unreduced(pred, target))


@pytest.mark.parametrize("as_tensor", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_mean_with_avg_factor_is_the_weighted_sum_over_it(name, as_tensor):
    loss, pred, target = build_and_inputs(name)
    weight = torch.linspace(0.5, 2, len(pred), dtype=torch.float64)
    none = loss(pred, target, weight, reduction_override="none")
    factor = torch.tensor([7]) if as_tensor else 7.0
    torch.testing.assert_close(loss(pred, target, weight, factor), none.sum() / 7)


@pytest.mark.parametrize("zero", [0, 0.0, torch.tensor(0.0), torch.tensor([0])])
@pytest.mark.parametrize("name", NAMES)
def test_zero_avg_factor_counts_as_one(name, zero):
    loss, pred, target = build_and_inputs(name)
    torch.testing.assert_close(
        loss(pred, target, avg_factor=zero), loss(pred, target, avg_factor=1)
    )


@pytest.mark.parametrize("name", NAMES)
def test_weight_per_row_equals_the_same_weight_on_every_element(name):
    loss, pred, target = build_and_inputs(name)
    rows = torch.linspace(0, 2, len(pred), dtype=torch.float64)
    per_row = loss(pred, target, rows)
    if loss.kind == "classification" and loss.activation == "softmax":
        with pytest.raises(ValueError, match=rf"{name}: weight must have shape \[12\], got"):
            loss(pred, target, rows[:, None].expand_as(pred))
        return
    torch.testing.assert_close(per_row, loss(pred, target, rows[:, None].expand_as(pred)))
    with pytest.raises(ValueError, match=rf"{name}: weight must have shape \[12\] or \[12, "):
        loss(pred, target, rows[:3])


@pytest.mark.parametrize("name", NAMES)
def test_rows_of_weight_zero_change_nothing_beside_an_avg_factor(name):
    loss, pred, target = build_and_inputs(name)
    weight = torch.ones(len(pred), dtype=torch.float64)
    alone = loss(pred[:8], target[:8], weight[:8], avg_factor=5)
    (alone_grad,) = torch.autograd.grad(alone, pred)
    weight[8:] = 0
    padded = loss(pred, target, weight, avg_factor=5)
    torch.testing.assert_close(padded, alone, rtol=1e-12, atol=0)
    (padded_grad,) = torch.autograd.grad(padded, pred)
    torch.testing.assert_close(padded_grad, alone_grad, rtol=1e-12, atol=0)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name", NAMES)
def test_empty_batch_is_a_zero_that_back_propagates(name, reduction):
    loss, pred, target = build_and_inputs(name)
    pred = pred.detach()[:0].requires_grad_()
    value = loss(pred, target[:0], pred.new_ones(0), reduction_override=reduction)
    assert value.sum() == 0
    value.sum().backward()
    assert pred.grad.shape == pred.shape


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", NAMES)
def test_half_precision_is_computed_in_float32(name, dtype):
    loss, pred, target = build_and_inputs(name, dtype=dtype)
    value = loss(pred, target, torch.ones(len(pred), dtype=dtype))
    assert value.dtype == torch.float32
    target = target.float() if target.is_floating_point() else target
    torch.testing.assert_close(value, loss(pred.float(), target), rtol=1e-6, atol=0)
    value.backward()
    assert pred.grad.dtype == dtype and pred.grad.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_autocast_leaves_the_loss_in_float32(name):
    loss, pred, target = build_and_inputs(name, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(pred, target)
    torch.testing.assert_close(value, loss(pred, target), rtol=0, atol=0)


@pytest.mark.parametrize("name", sorted(set(NAMES) - CONSTANT_IN_GRADIENT))
def test_gradient_is_that_of_the_value(name):
    loss, pred, target = build_and_inputs(name, n=8, reduction="none")
    assert torch.autograd.gradcheck(lambda x: loss(x, target), pred)


@pytest.mark.parametrize(("dtype", "size"), SIZES)
@pytest.mark.parametrize("name", BOX_NAMES)
def test_awkward_boxes_have_finite_loss_and_gradient(name, dtype, size):
    loss = build_loss(name)
    pred, target = awkward_pairs(dtype, size)
    pred.requires_grad_()
    assert loss(pred, target, reduction_override="none").isfinite().all()
    loss(pred, target).backward()
    assert pred.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", CLASSIFICATION_NAMES)
def test_extreme_logits_have_finite_loss_and_gradient(name, dtype):
    loss, pred, target = build_and_inputs(name)
    extremes = torch.tensor([1e4, -1e4, 100.0, -100.0, 0.0], dtype=dtype)
    pred = extremes.repeat(12)[: pred.numel()].reshape(pred.shape).requires_grad_()
    value = loss(pred, target, reduction_override="sum")
    value.backward()
    assert value.isfinite() and pred.grad.isfinite().all()


@pytest.fixture
def fresh_compiler():
    """All losses share one forward, and the compiler keeps eight variants of a function."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("name", NAMES)
def test_compiles_without_a_graph_break(name):
    loss, pred, target = build_and_inputs(name, dtype=torch.float32)
    weight = torch.linspace(0, 2, len(pred))
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    expected = loss(pred, target, weight, torch.tensor(3.0))
    value = compiled(pred, target, weight, torch.tensor(3.0))
    torch.testing.assert_close(value, expected, rtol=TOLERANCE[torch.float32], atol=0)
    grads = [torch.autograd.grad(v, pred)[0] for v in (value, expected)]
    torch.testing.assert_close(*grads, rtol=TOLERANCE[torch.float32], atol=1e-7)


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("name", functional.__all__)
def test_functions_compile_without_a_graph_break(name):
    function = getattr(functional, name)
    pred, target = torch.tensor([[0.0, 0, 9, 6], [1, 2, 8, 3]]), torch.tensor([[1.0, 1, 7, 5]] * 2)
    if inspect.getmodule(function).__name__.rpartition(".")[2] in (
        "focal",
        "cross_entropy",
        "binary_cross_entropy",
    ):
        target = torch.tensor([1, 3])
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(pred, target), function(pred, target))


@pytest.mark.parametrize("name", DELTA_NAMES)
def test_elementwise_losses_take_any_shape(name):
    loss = build_loss(name, reduction="none")
    pred, target = torch.randn(2, 5, dtype=torch.float64)
    assert loss(pred, target).shape == (5,)


@pytest.mark.parametrize("name", BOX_NAMES)
def test_box_losses_are_zero_at_the_target_and_positive_elsewhere(name):
    loss, pred, target = build_and_inputs(name, reduction="none")
    assert loss(target, target).abs().max() < 1e-12
    assert (loss(pred, target)[:8] > 0).all()


@pytest.mark.parametrize("name", BOX_NAMES)
def test_box_losses_refuse_to_broadcast(name):
    loss, pred, target = build_and_inputs(name)
    with pytest.raises(ValueError, match=r"same shape, got \[12, 4\] and \[1, 4\]"):
        loss(pred, target[:1])


@pytest.mark.parametrize("name", NAMES)
def test_clear_errors_of_the_call(name):
    loss, pred, target = build_and_inputs(name)
    with pytest.raises(ValueError, match="reduction_override must be one of none, mean, sum"):
        loss(pred, target, reduction_override="average")
    with pytest.raises(ValueError, match="reduction 'sum' takes no avg_factor"):
        loss(pred, target, avg_factor=2, reduction_override="sum")
    with pytest.raises(ValueError, match=r"avg_factor must be one number, got shape \[2\]"):
        loss(pred, target, avg_factor=torch.ones(2))
    with pytest.raises(TypeError, match=f"{name} takes no input 'image_size'"):
        loss(pred, target, image_size=target)
    with pytest.raises(ValueError, match="reduction must be one of none, mean, sum, got 'avg'"):
        build_loss(name, reduction="avg")
