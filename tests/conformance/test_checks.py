"""Each check of the suite notices a loss that is wrong in the way it looks for."""

import numpy as np
import pytest
import torch

from det_losses.boxes import box_pair
from det_losses.conformance import CHECKS, Case, Failed, Reference, Skipped, run
from det_losses.conformance.transforms import cpp_compiler, has_command
from det_losses.losses import DIoULoss, IoUFamilyLoss


class Plain(IoUFamilyLoss):
    """1 - IoU; right in all that is asked of the formula and of the call."""

    paper = "made up"


class NegativeDistance(Plain):
    def penalties(self, pair):
        return (-pair.center_distance2 / pair.hull_diagonal2,)


class NoGrad(Plain):
    """Constant in the gradient by no_grad, which a finite difference does not see."""

    def penalties(self, pair):
        with torch.no_grad():
            return (pair.center_distance2 / pair.hull_diagonal2,)


class UndetachedHull(DIoULoss):
    """The paper of this made-up loss holds the hull's diagonal constant."""


class SilentDetach(Plain):
    def penalties(self, pair):
        return (pair.center_distance2 / pair.hull_diagonal2.detach(),)


class NamedButNotDetached(DIoULoss):
    constant_in_gradient = ("the hull",)


class NotZero(Plain):
    def overlap(self, iou):
        return 1.1 - iou


class DenyingZero(Plain):
    zero_at_target = False


class InPixels(Plain):
    def penalties(self, pair):
        return (pair.center_distance2 / 1000,)


class DenyingMirror(Plain):
    invariances = ("translation", "scale")


class DenyingRise(DIoULoss):
    monotone_in_distance = False


class FirstRowCounts(Plain):
    def factor(self, pair, weight=None):
        return torch.arange(len(pair.iou)) + 1.0


class PlainRoot(Plain):
    """The slope of a square root is infinite at zero."""

    def penalties(self, pair):
        return ((pair.center_distance2 / pair.hull_diagonal2).sqrt(),)


class WeightTwice(Plain):
    def factor(self, pair, weight=None):
        return torch.ones_like(pair.iou) if weight is None else weight


class MeanOfAllRows(Plain):
    def factor(self, pair, weight=None):
        return 1 / (1 + pair.iou.sum()) * torch.ones_like(pair.iou)


class DeafToFactor(Plain):
    def forward(self, pred, target, weight=None, avg_factor=None, *args, **inputs):
        return super().forward(pred, target, weight, None, *args, **inputs)


class SumForMean(Plain):
    def forward(self, pred, target, weight=None, avg_factor=None, reduction_override=None):
        if (reduction_override or self.reduction) == "mean" and avg_factor is None:
            reduction_override = "sum"
        return super().forward(pred, target, weight, avg_factor, reduction_override)


class PlainMean(Plain):
    """The mean of no rows is NaN."""

    def forward(self, pred, target, weight=None, avg_factor=None, reduction_override=None):
        none = super().forward(pred, target, weight, None, "none")
        return none.mean() if (reduction_override or self.reduction) == "mean" else none


class InHalf(Plain):
    def forward(self, pred, *args, **inputs):
        return super().forward(pred, *args, **inputs).to(pred.dtype)


class Product(Plain):
    """A matrix product is what autocast takes down to half precision."""

    def penalties(self, pair):
        return ((pair.pred - pair.target).abs() @ torch.full((4,), 0.01).to(pair.pred),)


class Branch(Plain):
    def penalties(self, pair):
        return (pair.iou * 0,) if pair.iou.sum() > 3 else ()


class Counting(Plain):
    def __init__(self):
        super().__init__()
        self.calls = 0

    def factor(self, pair, weight=None):
        self.calls += 1
        return torch.full_like(pair.iou, self.calls)


class MovesInEvaluation(Plain):
    def __init__(self, *, persistent=True, reduction="mean", loss_weight=1.0):
        super().__init__(reduction=reduction, loss_weight=loss_weight)
        self.persistent = persistent
        self.register_buffer("mean", torch.zeros(()), persistent)

    def unreduced(self, pred, target, weight=None):
        value = super().unreduced(pred, target, weight)
        self.mean = self.mean + value.detach().mean()
        return value


class MovesUnsaved(MovesInEvaluation):
    def __init__(self):
        super().__init__(persistent=False)


class TakesAnything(Plain):
    def forward(self, pred, target, *args, anything=None, **inputs):
        return super().forward(pred, target, *args)


class Broadcasting(Plain):
    def unreduced(self, pred, target, weight=None):
        return super().unreduced(pred, target.expand_as(pred), weight)


class WrongText(Plain):
    def __repr__(self):
        return "WrongText(eps=0.5)"


class NoArgs(Plain):
    """One line alone."""

    __module__ = "det_losses.losses.no_args"


def hull_of(pred, target, **_):
    corners = np.maximum(pred[:, 2:], target[:, 2:]) - np.minimum(pred[:, :2], target[:, :2])
    return {"hull": (corners**2).sum(1)}


def diou(pred, target, *, hull=None, **_):
    hull = hull_of(pred, target)["hull"] if hull is None else hull
    iou = box_pair(torch.from_numpy(pred), torch.from_numpy(target)).iou.numpy()
    offset = (pred - target)[:, :2] + (pred - target)[:, 2:]
    return 1 - iou + (offset**2).sum(1) / 4 / hull


needs_compiler = pytest.mark.skipif(
    not has_command(cpp_compiler()), reason=f"no C++ compiler {cpp_compiler()!r}"
)
BROKEN = [
    ("value", NegativeDistance, "value of NegativeDistance"),
    ("gradient", NoGrad, "analytic against finite differences"),
    ("reference_gradient", UndetachedHull, "gradient against the reference's"),
    ("constant", SilentDetach, "constant_in_gradient must name what"),
    ("constant", NamedButNotDetached, "names the hull, but nothing is detached"),
    ("zero", NotZero, "expected 0 at a perfect prediction, got 0.1"),
    ("zero", DenyingZero, "zero_at_target is False, but"),
    ("invariances", InPixels, "names scale, but the value changes"),
    ("invariances", DenyingMirror, "mirror changes no value, but"),
    ("distance", NegativeDistance, "the loss falls from"),
    ("distance", DenyingRise, "the loss never falls"),
    ("order", FirstRowCounts, "loss of permuted rows"),
    ("awkward", PlainRoot, "not finite at"),
    ("search", PlainRoot, "not finite at"),
    ("weights", WeightTwice, "loss with twice the weight"),
    ("zero_weight", MeanOfAllRows, "with rows of weight 0 among"),
    ("avg_factor", DeafToFactor, "mean with avg_factor=7"),
    ("reductions", SumForMean, "mean: expected"),
    ("empty", PlainMean, "mean of no rows: expected 0, got nan"),
    ("half", InHalf, "expected float32, got torch.float16"),
    ("autocast", Product, "value under autocast"),
    ("compile", Branch, "does not compile"),
    pytest.param("inductor", Branch, "does not compile", marks=needs_compiler),
    ("vmap", Branch, "torch.func"),
    ("memory", Counting, "second call with the same inputs"),
    ("state", MovesInEvaluation, "after a call in evaluation"),
    ("state", MovesUnsaved, "is not in the state_dict"),
    ("errors", TakesAnything, "takes no input 'no_such_input'"),
    ("errors", Broadcasting, "but nothing was raised"),
    ("text", WrongText, "repr WrongText(eps=0.5): expected"),
    ("card", NoArgs, "the docstring has no .. math:, Args:"),
]


@pytest.mark.parametrize(("check", "cls", "message"), BROKEN)
def test_a_broken_loss_is_noticed(check, cls, message):
    case = Case(cls.__name__, cls, (Reference({}, diou, hull_of),))
    with pytest.raises(Failed) as failure:
        CHECKS[check](case)
    assert message in str(failure.value)


def test_no_check_is_without_a_loss_that_it_notices():
    # The long search is the short one with more examples.
    noticed = {getattr(entry, "values", entry)[0] for entry in BROKEN}
    assert noticed == set(CHECKS) - {"long_search"}


@pytest.fixture
def quick(monkeypatch):
    """Without what takes seconds, and is tested above."""
    for name in ("compile", "search"):
        monkeypatch.delitem(CHECKS, name)


@pytest.mark.usefixtures("quick")
def test_a_right_loss_of_another_package_passes_without_a_card():
    results = run(Case("Plain", Plain))
    assert [r.check for r in results if r.status == "fail"] == []
    skipped = {r.check: r.message for r in results if r.status == "skip"}
    assert skipped["inductor"] == "slow, made by --slow"
    assert skipped["value"].startswith("no reference: give REFERENCES")
    assert skipped["card"].endswith("Example:, Disjoint:, so there is no card")


def test_a_loss_that_cannot_be_built_is_one_failure():
    class Needy(Plain):
        def __init__(self, *, depth):
            super().__init__()

    (result,) = run(Case("Needy", Needy))
    assert result.status == "fail" and "cannot be built" in result.message
    assert "missing a required argument: 'depth'" in result.message


@pytest.mark.usefixtures("quick")
def test_any_exception_is_a_failure_that_names_it():
    class Raises(Plain):
        def unreduced(self, pred, target, weight=None):
            raise KeyError("lost")

    results = {r.check: r for r in run(Case("Raises", Raises))}
    assert results["zero"].message == "KeyError: 'lost'"


@pytest.mark.usefixtures("quick")
def test_inputs_that_the_suite_does_not_know_come_with_the_case():
    class Deep(Plain):
        inputs = ("depth",)

        def penalties(self, pair):
            return (pair.inputs["depth"] * pair.center_distance2 / pair.hull_diagonal2,)

    results = {r.check: r for r in run(Case("Deep", Deep))}
    assert "needs the input 'depth', of which there is no example" in results["zero"].message
    makers = {"depth": lambda n, generator: torch.rand(n, generator=generator).double()}
    CHECKS["errors"](Case("Deep", Deep, inputs=makers))
    CHECKS["gradient"](Case("Deep", Deep, inputs=makers))


def test_an_own_mean_takes_no_factor_and_must_say_so():
    own = type("OwnMean", (DeafToFactor,), {"own_mean": True})
    CHECKS["avg_factor"](Case("OwnMean", own))
    stale = type("Stale", (Plain,), {"own_mean": True})
    with pytest.raises(Failed, match="own_mean"):
        CHECKS["avg_factor"](Case("Stale", stale))


def test_a_check_that_does_not_apply_says_why():
    with pytest.raises(Skipped, match="no state"):
        CHECKS["state"](Case("Plain", Plain))


def test_without_a_compiler_inductor_is_skipped(monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", "no-such-compiler -O2")
    with pytest.raises(Skipped, match="no C\\+\\+ compiler 'no-such-compiler -O2'"):
        CHECKS["inductor"](Case("Plain", Plain))
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Skipped, match="no C\\+\\+ compiler"):
        CHECKS["inductor"](Case("Plain", Plain))
