"""A traced formula has the value and the gradient that it has with plain tensors."""

import gc
import threading
import warnings

import numpy as np
import pytest
import torch
from torch.nn.functional import logsigmoid, relu, smooth_l1_loss

from det_losses.conformance.case import box_pairs
from det_losses.losses import FocalLoss, GIoULoss
from det_losses.losses.core.box import IoUFamilyLoss, PairLoss
from det_losses.losses.core.compiled import MOST_PROGRAMS
from det_losses.tracing.kernels import MOST_INSTRUCTIONS
from det_losses.tracing.trace import Trace, elementwise
from det_losses.tracing.traced import UnsupportedOperation


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


def array_changed(pair):
    weight = torch.ones(len(pair.iou), dtype=pair.iou.dtype)
    total = pair.iou + weight
    weight.zero_()
    return total


def changed_by(change):
    """A penalty with a constant that an operation on its values changes."""

    def formula(pair):
        size = pair.wg * 1
        change(size)
        return size * pair.dx

    return formula


def mask_changed(pair):
    right = pair.dx > 0
    same = right
    right &= pair.dy > 0
    return torch.where(same, pair.dx, pair.dy)


def handled(pair):
    try:
        return pair.iou.sort().values
    except Exception:
        return 3 * pair.iou


class Rounded(torch.autograd.Function):
    """Whose gradient passes through."""

    @staticmethod
    def forward(ctx, x):
        return (x > 0.1).to(x.dtype)

    @staticmethod
    def backward(ctx, upstream):
        return upstream


class Doubled(torch.autograd.Function):
    """Whose gradient is five times as large."""

    @staticmethod
    def forward(ctx, x):
        return torch.where(x > 0.1, 2 * x, torch.zeros_like(x))

    @staticmethod
    def backward(ctx, upstream):
        return 5 * upstream


def total(x: torch.Tensor) -> torch.Tensor:
    """Return the sum."""
    return x.sum()


def scripted(pair):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch.jit
        return torch.jit.script(total)(pair.iou.detach()) * pair.iou


def by_exponent(exponent):
    return lambda pair: (pair.iou + 0.5) ** exponent


FORMULAS = {
    "sum of booleans": lambda pair: ((pair.dx > 0) + (pair.dy > 0)) * pair.iou,
    "product of booleans": lambda pair: ((pair.dx > 0) * (pair.dy < 0) + (pair.iou > 0)) * pair.dx,
    "choice of booleans": lambda pair: (
        (torch.where(pair.dx > 0, pair.dy > 0, pair.iou > 0.1) + (pair.dx < 3)) * pair.iou
    ),
    "integers": lambda pair: ((pair.dx > 0) * 2) ** -1 * pair.iou,
    "negative boolean": lambda pair: -(pair.dx > 0) * pair.iou,
    "choice of numbers": lambda pair: torch.where(pair.dx > 0, 0.1, 0.7) * pair.iou,
    "number as a boolean": lambda pair: pair.interpolated(pair.dx > 0).iou,
    "array changed": array_changed,
    "view changed": changed_by(lambda size: size.view(-1)[:3].zero_()),
    "numpy changed": changed_by(lambda size: size.numpy().fill(7)),
    "data changed": changed_by(lambda size: size.data.zero_()),
    "data set": changed_by(lambda size: setattr(size, "data", torch.zeros(len(size)))),
    "function in place": changed_by(lambda size: relu(size - 1e9, inplace=True)),
    "mask changed": mask_changed,
    "handled": handled,
    "rounded": lambda pair: Rounded.apply(pair.iou),
    "doubled": lambda pair: Doubled.apply(pair.iou),
    "doubled constant": lambda pair: Doubled.apply(pair.wg) * pair.iou,
    "scripted": scripted,
    "numpy exponent": by_exponent(np.float64(2.5)),
    "tensor as a limit": lambda pair: (pair.iou - pair.iou.detach()).clamp(min=torch.tensor(0.0)),
    "limit that is NaN": lambda pair: pair.dx.clamp(min=float("nan")),
    "maximum of a number": lambda pair: torch.maximum(pair.dx, torch.tensor(0.5)),
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("formula", FORMULAS.values(), ids=FORMULAS)
def test_a_traced_formula_equals_that_on_tensors(formula, dtype):
    pred, target = (boxes.to(dtype) for boxes in box_pairs())
    pred[0], pred[1] = target[0], target[1] + 1e3  # IoU 1 and 0
    fast, plain = Formula(formula), Formula(formula)
    plain.is_compiled = False
    for _ in range(2):
        actual, expected = outcome(fast, pred, target), outcome(plain, pred, target)
        if isinstance(expected, str):
            assert actual == expected
        else:
            tolerance = dict(rtol=1e-5, atol=1e-5) if dtype == torch.float32 else {}
            torch.testing.assert_close(actual, expected, equal_nan=True, **tolerance)


@pytest.mark.parametrize("side", [1e10, 1e19, 1e25])
def test_boxes_whose_area_overflows_have_the_gradient_of_the_plain_formula(side):
    pred = torch.tensor([[50.0, 50, 60, 60], [5, 5, 9, 9]])
    target = torch.tensor([[0.0, 0, side, side], [5, 5, 8, 8]])
    fast, plain = (Formula(lambda pair: pair.hull_waste) for _ in range(2))
    plain.is_compiled = False
    torch.testing.assert_close(
        outcome(fast, pred, target), outcome(plain, pred, target), equal_nan=True
    )


NOT_NUMBERS = {
    "minimum": lambda pair: torch.minimum(pair.dx, pair.dy),
    "maximum": lambda pair: torch.maximum(pair.dx, pair.dy),
    "relu": lambda pair: torch.relu(pair.dx),
    "absolute of zero": lambda pair: (pair.wg - pair.wg + pair.dy * 0).abs() * pair.dx,
    "smooth L1": lambda pair: smooth_l1_loss(pair.dx, pair.dy, reduction="none"),
    "negative zero": lambda pair: 1 / torch.relu(-pair.w * 0),
    "iou": lambda pair: pair.iou,
}


@pytest.mark.parametrize("formula", NOT_NUMBERS.values(), ids=NOT_NUMBERS)
def test_the_gradient_of_values_that_are_no_numbers_is_that_of_autograd(formula):
    pred, target = box_pairs()
    pred[0, 0] = pred[1, 3] = target[2, 2] = float("nan")
    fast, plain = Formula(formula), Formula(formula)
    plain.is_compiled = False
    torch.testing.assert_close(
        outcome(fast, pred, target), outcome(plain, pred, target), equal_nan=True
    )
    assert fast.is_compiled


class Comparing(IoUFamilyLoss):
    """Keeps what it reads, and compares IoU with that of the first batch."""

    paper = "made up"

    def __init__(self, read):
        super().__init__(reduction="none")
        self.read, self.last, self.all = read, None, []

    def penalties(self, pair):
        self.last = self.read(pair)
        self.all.append(self.last)
        first = getattr(self.all[0], "iou", self.all[0])
        return (pair.iou - first.detach(),)


@pytest.mark.parametrize("read", [lambda pair: pair, lambda pair: pair.iou.detach()])
def test_a_loss_may_keep_what_it_reads(read):
    pred, target = box_pairs()
    fast, plain = Comparing(read), Comparing(read)
    plain.is_compiled = False
    for step in range(2):
        torch.testing.assert_close(
            outcome(fast, pred + step, target), outcome(plain, pred + step, target)
        )
    assert len(fast.all) == 2
    assert type(fast.last) is type(plain.last)


class Remembering(IoUFamilyLoss):
    """Updates attributes of several kinds before an operation that needs the plain formula."""

    paper = "made up"
    count = 0

    def __init__(self):
        super().__init__()
        self.values, self.names = [], {}

    def penalties(self, pair):
        self.count += 1
        self.values.append(self.count)
        self.names[self.count] = self.count
        if "steps" not in self._buffers:
            self.register_buffer("steps", torch.zeros(()))
        self.steps += 1
        return (pair.iou.sort().values,)


def test_a_fallback_updates_attributes_once():
    pred, target = box_pairs()
    loss = Remembering()
    loss(pred.requires_grad_(), target)
    assert (loss.count, loss.values, loss.names, loss.steps) == (1, [1], {1: 1}, 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool])
def test_a_tensor_without_memory_is_refused(dtype):
    pred, target = (boxes.float() for boxes in box_pairs())
    other = torch.ones(len(pred), dtype=dtype, device="meta")
    with pytest.raises(RuntimeError, match="device"):
        Formula(lambda pair: torch.where(pair.dx > 0, pair.iou, 0.0) * other)(
            pred.requires_grad_(), target
        )
    with pytest.raises(RuntimeError, match="device"):
        Formula(lambda pair: torch.where(other > 0, pair.iou, pair.dx))(pred, target)


def test_memory_with_the_opposite_sign():
    pred, target = box_pairs()
    other = torch.ones(len(pred), dtype=pred.dtype)
    expected = Formula(lambda pair: pair.dx * other)(pred, target)

    def negative(x):
        return torch._neg_view(-x)

    loss = Formula(lambda pair: pair.dx * negative(other))
    for boxes, goal in ((pred, target), (negative(pred), target), (pred, negative(target))):
        value = loss(boxes.detach().requires_grad_(), goal)
        torch.testing.assert_close(value.detach(), expected)


class Alone(PairLoss):
    """A formula without other terms."""

    paper = "made up"

    def __init__(self, formula):
        super().__init__()
        self.of_pair = lambda pair, weight=None: formula(pair)


@pytest.mark.parametrize(
    "formula",
    [lambda pair: pair.iou.detach(), lambda pair: pair.wg, lambda pair: torch.zeros_like(pair.iou)],
)
def test_a_constant_formula_has_no_gradient(formula):
    pred, target = box_pairs()
    assert not Alone(formula)(pred.requires_grad_(), target).requires_grad


def test_a_divisor_of_higher_precision_gives_it_to_the_loss():
    pred, target = (boxes.float() for boxes in box_pairs())
    divisor = torch.tensor(3.0, dtype=torch.float64)
    expected = GIoULoss()(pred, target, avg_factor=divisor)
    torch.testing.assert_close(
        GIoULoss()(pred.requires_grad_(), target, avg_factor=divisor).detach(), expected
    )


def test_a_formula_that_differs_at_each_call_is_not_compiled_for_ever():
    repeats = iter(range(2 * MOST_PROGRAMS))
    loss = Formula(lambda pair: sum([pair.dx] * next(repeats), pair.iou))
    pred, target = box_pairs()
    pred.requires_grad_()
    for _ in range(MOST_PROGRAMS):
        loss(pred, target)
    assert loss.is_compiled is False


def test_other_threads_that_compile_do_not_count():
    def formula(pair):
        compiling = threading.Thread(target=elementwise, args=(next(others), torch.float32))
        compiling.start()
        compiling.join()
        return pair.dx

    others = iter([lambda x, k=k: sum([x] * k, x.exp()) for k in range(3, 8)])
    loss = Formula(formula)
    pred, target = box_pairs()
    for _ in range(5):
        loss(pred.requires_grad_(), target)
    assert loss.programs == 1


def test_a_loss_leaves_no_reference_cycle():
    logits, labels = torch.zeros(9, 4, requires_grad=True), torch.arange(9) % 5
    loss = FocalLoss()
    gc.collect()
    gc.disable()
    try:
        loss(logits, labels).backward()
        assert not any(type(each) is Trace for each in gc.get_objects())
    finally:
        gc.enable()


def test_a_formula_of_no_rows():
    assert elementwise(torch.exp, torch.float32)(torch.empty(0), torch.empty(0)).shape == (0,)


def test_a_long_formula_is_not_compiled():
    loss = Formula(lambda pair: sum([1e-3] * MOST_INSTRUCTIONS, pair.iou))
    pred, target = box_pairs()
    loss(pred.requires_grad_(), target)
    assert loss.is_compiled is False


def test_a_fallback_draws_the_random_numbers_of_the_plain_formula():
    def formula(pair):
        return (pair.iou * torch.rand(len(pair.iou), dtype=pair.iou.dtype)).cumsum(0)

    pred, target = box_pairs()
    torch.manual_seed(0)
    expected = Formula(formula)(pred, target)
    torch.manual_seed(0)
    actual = Formula(formula)(pred.requires_grad_(), target)
    torch.testing.assert_close(actual.detach(), expected)


def test_an_overridden_plain_formula_is_used():
    class Twice(GIoULoss):
        def plain(self, *args, **inputs):
            return 2 * super().plain(*args, **inputs)

    pred, target = box_pairs()
    expected = 2 * GIoULoss()(pred, target)
    torch.testing.assert_close(Twice()(pred.requires_grad_(), target).detach(), expected)


def test_a_second_derivative_is_that_of_the_mode():
    loss = Formula(lambda pair: pair.iou if loss.training else pair.dx)
    pred, target = box_pairs()
    pred.requires_grad_()
    first, kept = (
        torch.autograd.grad(loss(pred, target).sum(), pred, create_graph=graph)[0]
        for graph in (False, True)
    )
    torch.testing.assert_close(kept, first)


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
    "smooth L1, tiny beta": lambda x: smooth_l1_loss(
        x, torch.zeros_like(x), beta=1e-39, reduction="none"
    ),
    "smooth L1, beta 0": lambda x: smooth_l1_loss(x, x.detach() + 1, beta=0, reduction="none"),
    "conversion to the same dtype": lambda x: x.to(x.dtype) * 2,
    "constant": lambda x: x * x.detach() + torch.ones_like(x),
    "names of powers": lambda x: x.square() - torch.square(x - 1) * x.pow(3) + torch.pow(x, 2),
    "names of extremes": lambda x: torch.max(x, x**2) - torch.min(x, -x) * x.maximum(-x),
    "names of limits": lambda x: x.clip(-1, 2) + torch.clip(x, min=0) * x.minimum(x * x),
    "names of operators": lambda x: torch.add(x, torch.mul(x, x)) - torch.sub(1, torch.neg(x)),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("formula", ELEMENTWISE.values(), ids=ELEMENTWISE)
def test_an_elementwise_formula_has_the_value_and_slope_of_autograd(formula, dtype):
    x = torch.cat([torch.linspace(-12, 12, 97), torch.tensor([-80.0, 80.0])]).to(dtype)
    slope = torch.empty_like(x)
    value = elementwise(formula, dtype)(x, slope)
    leaf = x.clone().requires_grad_()
    expected = formula(leaf)
    torch.testing.assert_close(value, expected.detach())
    torch.testing.assert_close(slope, torch.autograd.grad(expected.sum(), leaf)[0])


class OwnGradient(torch.autograd.Function):
    """The identity with another gradient."""

    @staticmethod
    def forward(ctx, x):
        return x * 1

    @staticmethod
    def backward(ctx, upstream):
        return 100 * upstream


def smooth(x, **arguments):
    return smooth_l1_loss(x, torch.zeros_like(x), **{"reduction": "none", **arguments})


@pytest.mark.parametrize(
    "formula",
    [
        lambda x: x - x.mean(),
        lambda x: x.detach().max() - x,
        lambda x: x + torch.ones(2),
        lambda x: x > 0,
        torch.zeros_like,
        lambda x: OwnGradient.apply(x) + x,
        lambda x: smooth(x, beta=-1.0),
        lambda x: smooth(x, beta=float("nan")),
        lambda x: smooth(x, size_average=False),
        lambda x: smooth(x, reduce=True),
        lambda x: smooth_l1_loss(x, 1.0, reduction="none"),
        lambda x: smooth_l1_loss(x, torch.tensor(1.0, dtype=torch.float64), reduction="none"),
    ],
)
@pytest.mark.filterwarnings("ignore")  # of deprecated arguments
def test_what_an_elementwise_formula_may_not_do(formula):
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
        lambda x: torch.where(x != x, torch.ones_like(x), x),
    ],
)
def test_functions_of_nan(formula):
    x = torch.tensor([float("nan"), -1.0, 2.0])
    value = elementwise(formula, x.dtype)(x, torch.empty_like(x))
    torch.testing.assert_close(value, formula(x), equal_nan=True)
