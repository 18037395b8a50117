"""A traced formula has the value and the gradient that it has with plain tensors."""

import pytest
import torch
from torch.nn.functional import logsigmoid, smooth_l1_loss

from det_losses.conformance.case import box_pairs
from det_losses.kernels import ROWS_AT_ONCE
from det_losses.losses.core.box import IoUFamilyLoss
from det_losses.tracing import UnsupportedOperation, elementwise


def under_no_grad(read):
    """A penalty whose second factor is read where no gradient is recorded."""

    def formula(pair):
        with torch.no_grad():
            constant = read(pair)
        return pair.hull_waste * constant

    return formula


def in_place(pair):
    offset = pair.dx
    offset += 1
    return offset**2 + pair.center_distance2 + pair.dx


def other_name(pair):
    first = pair.iou * 1
    second = first
    first *= 2
    return second**2


FORMULAS = {
    "equal": lambda pair: (pair.iou == 1) * 5 + pair.iou * (pair.iou != 0),
    "isinstance": lambda pair: pair.iou if isinstance(pair.iou, torch.Tensor) else 2 * pair.iou,
    "truth": lambda pair: pair.iou if pair.iou.shape == (0,) or pair.iou else pair.dx,
    "in place": in_place,
    "other name": other_name,
    "clamp below an infinite slope": lambda pair: (pair.iou - 0.5).clamp(min=0).sqrt(),
    "relu below an infinite slope": lambda pair: torch.relu(pair.iou - 0.5).sqrt(),
    "maximum below an infinite slope": lambda pair: torch.maximum(
        pair.iou - 0.5, torch.zeros_like(pair.iou)
    ).sqrt(),
    "at a lower limit": lambda pair: (pair.iou - pair.iou.detach()).clamp(min=0),
    "at an upper limit": lambda pair: (pair.iou - pair.iou.detach()).clamp(-1, 0),
    "limit of a node": lambda pair: pair.iou.clamp(min=pair.hull_waste),
    "interpolation by a node": lambda pair: pair.interpolated(1 - pair.iou).iou,
    "field": under_no_grad(lambda pair: pair.iou),
    "diagonal": under_no_grad(lambda pair: pair.hull_diagonal2),
    "waste": under_no_grad(lambda pair: pair.hull_waste),
    "angle": under_no_grad(lambda pair: pair.angle_gap),
    "edge": under_no_grad(lambda pair: pair.edges[2]),
    "square": under_no_grad(lambda pair: pair.hull_w2 + pair.dh2),
    "scaled": under_no_grad(lambda pair: pair.scaled(0.5).iou),
    "interpolated": under_no_grad(lambda pair: pair.interpolated(0.5).hull_waste),
}


class Formula(IoUFamilyLoss):
    """IoU loss with a given penalty."""

    paper = "made up"

    def __init__(self, formula):
        super().__init__(reduction="none")
        self.formula = formula

    def penalties(self, pair):
        return (self.formula(pair),)


def outcome(loss, pred, target):
    pred = pred.clone().requires_grad_()
    try:
        value = loss(pred, target)
        return value, torch.autograd.grad(value.sum(), pred)[0]
    except RuntimeError as error:
        return str(error)


@pytest.mark.parametrize("formula", FORMULAS.values(), ids=FORMULAS)
def test_a_traced_formula_equals_that_on_tensors(formula):
    pred, target = box_pairs()
    pred[0], pred[1] = target[0], target[1] + 1e3  # IoU 1 and 0
    fast, plain = Formula(formula), Formula(formula)
    plain.is_compiled = False
    for _ in range(2):
        actual, expected = outcome(fast, pred, target), outcome(plain, pred, target)
        if isinstance(expected, str):
            assert actual == expected
        else:
            torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("side", [1e10, 1e19, 1e25])
def test_boxes_whose_area_overflows_have_the_gradient_of_the_plain_formula(side):
    pred = torch.tensor([[50.0, 50, 60, 60], [5, 5, 9, 9]])
    target = torch.tensor([[0.0, 0, side, side], [5, 5, 8, 8]])
    fast, plain = (Formula(lambda pair: pair.hull_waste) for _ in range(2))
    plain.is_compiled = False
    torch.testing.assert_close(
        outcome(fast, pred, target), outcome(plain, pred, target), equal_nan=True
    )


ELEMENTWISE = {
    "powers": lambda x: x**2 + x**3 + x**4 + x**5 + x.abs() ** 2.5 + x**1 + x**0,
    "negative powers": lambda x: (x.abs() + 1) ** -2 + (x.abs() + 1) ** -1.5 + x.exp() ** 0.5,
    "abs": lambda x: x.abs() * torch.abs(x - 1),
    "exp and log": lambda x: torch.log(torch.exp(x / 4) + 1),
    "sigmoid": lambda x: x.sigmoid() - torch.sigmoid(-2 * x),
    "logsigmoid": lambda x: logsigmoid(x) + 3 * logsigmoid(-x),
    "atan": torch.atan,
    "sqrt": lambda x: (x**2 + 1).sqrt(),
    "relu": lambda x: torch.relu(x) + x.relu() * x,
    "limits": lambda x: x.clamp(-1, 2) * x.clamp(min=0) + torch.clamp(x, max=0),
    "extremes of equal numbers": lambda x: torch.maximum(x, 2 * x) * torch.minimum(x**2, x),
    "division": lambda x: 1 / (2 + x.abs()) + x / 3 + (x - 1) / (x**2 + 1) - (2 - x),
    "where": lambda x: torch.where((x > 0) & ~(x >= 3) | (x < -3), x**2, -x) * (x == 1),
    "smooth L1": lambda x: smooth_l1_loss(x, torch.zeros_like(x), beta=2.0, reduction="none"),
    "constant": lambda x: x * x.detach() + torch.ones_like(x),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("formula", ELEMENTWISE.values(), ids=ELEMENTWISE)
def test_an_elementwise_formula_has_the_value_and_slope_of_autograd(formula, dtype):
    x = torch.cat([torch.linspace(-12, 12, 97), torch.tensor([-80.0, 80.0])]).to(dtype)
    value, slope = elementwise(formula, dtype)(x)
    leaf = x.clone().requires_grad_()
    expected = formula(leaf)
    torch.testing.assert_close(value, expected.detach())
    torch.testing.assert_close(slope, torch.autograd.grad(expected.sum(), leaf)[0])


def test_a_formula_of_more_rows_than_are_computed_at_once():
    x = torch.linspace(-3, 3, 2 * ROWS_AT_ONCE + 5)
    value, slope = elementwise(lambda x: x.exp() * (x.sigmoid() + 1).log(), x.dtype)(x)
    leaf = x.clone().requires_grad_()
    expected = leaf.exp() * (leaf.sigmoid() + 1).log()
    torch.testing.assert_close(value, expected.detach())
    torch.testing.assert_close(slope, torch.autograd.grad(expected.sum(), leaf)[0])


@pytest.mark.parametrize(
    "formula", [lambda x: x - x.mean(), lambda x: x.detach().max() - x, lambda x: x + torch.ones(2)]
)
def test_an_elementwise_formula_may_not_depend_on_other_elements(formula):
    with pytest.raises(UnsupportedOperation):
        elementwise(formula, torch.float32)


@pytest.mark.parametrize("column", range(4))
@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_a_number_stays_so(number, column):
    pred, target = box_pairs()
    pred[0, column] = target[1, column] = number
    fast, plain = (Formula(lambda pair: pair.hull_waste + pair.dw2) for _ in range(2))
    plain.is_compiled = False
    (actual, _), (expected, _) = (outcome(loss, pred, target) for loss in (fast, plain))
    assert fast.is_compiled and not expected.isfinite().all()
    torch.testing.assert_close(actual, expected, equal_nan=True)


@pytest.mark.parametrize(
    "formula",
    [
        lambda x: torch.minimum(x, torch.zeros_like(x)),
        lambda x: torch.maximum(torch.zeros_like(x), x),
        lambda x: x.clamp(-1, 1),
        torch.relu,
        lambda x: torch.where(x != x, 1.0, 0.0),
    ],
)
def test_functions_of_nan(formula):
    x = torch.tensor([float("nan"), -1.0, 2.0])
    torch.testing.assert_close(elementwise(formula, x.dtype)(x)[0], formula(x), equal_nan=True)
