"""Each check of the suite fails for a loss that violates what the check requires."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from det_losses.boxes import box_pair
from det_losses.conformance import CHECKS, Case, Failed, Reference, Skipped, interface, run
from det_losses.conformance.interface import cpp_compiler, has_command
from det_losses.losses import ClassificationLoss, DIoULoss, FocalLoss, IoUFamilyLoss
from det_losses.losses.core.closed_channels import ChannelTerms
from det_losses.tracing.trace import TracedPair


class Plain(IoUFamilyLoss):
    """1 - IoU; passes all checks."""

    paper = "made up"


class NegativeDistance(Plain):
    def penalties(self, pair):
        return (-pair.center_distance2 / pair.hull_diagonal2,)


class NoGrad(Plain):
    """Constant by no_grad, which the finite differences cannot reproduce."""

    def penalties(self, pair):
        with torch.no_grad():
            return (pair.center_distance2 / pair.hull_diagonal2,)


class UndetachedHull(DIoULoss):
    """The diagonal of the enclosing box is constant in the reference, but not in the loss."""


class SilentDetach(Plain):
    def penalties(self, pair):
        return (pair.center_distance2 / pair.hull_diagonal2.detach(),)


class NamedButNotDetached(DIoULoss):
    constant_in_gradient = ("the hull",)


class NotZero(Plain):
    def overlap(self, iou):
        return 1.1 - iou


class DeclaresNonzero(Plain):
    zero_at_target = False


class InPixels(Plain):
    def penalties(self, pair):
        return (pair.center_distance2 / 1000,)


class LacksMirror(Plain):
    invariances = ("translation", "scale")


class DeclaresFalling(DIoULoss):
    monotone_in_distance = False


class FirstRowCounts(Plain):
    def factor(self, pair, weight=None):
        return torch.arange(len(pair.iou)) + 1.0


class OtherInTrace(Plain):
    def factor(self, pair, weight=None):
        return 2 if isinstance(pair, TracedPair) else 1


class OtherTerms(FocalLoss):
    def channel_terms(self):
        negative, positive = super().channel_terms()
        return ChannelTerms(lambda x: 1.01 * negative(x), positive)


class PlainRoot(Plain):
    """The gradient of a square root is infinite at zero."""

    def penalties(self, pair):
        return ((pair.center_distance2 / pair.hull_diagonal2).sqrt(),)


class WeightTwice(Plain):
    def factor(self, pair, weight=None):
        return torch.ones_like(pair.iou) if weight is None else weight


class MeanOfAllRows(Plain):
    def factor(self, pair, weight=None):
        return 1 / (1 + pair.iou.sum()) * torch.ones_like(pair.iou)


class IgnoresFactor(Plain):
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
    """Autocast runs a matrix product in half precision."""

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
    """Only a summary line."""

    __module__ = "det_losses.losses.no_args"


class Negative(Plain):
    def overlap(self, iou):
        return -iou


class UnknownInvariance(Plain):
    invariances = ("rotation",)


class WrongShape(Plain):
    def unreduced_shape(self, pred):
        return pred.shape


class EmptyWithoutGradient(Plain):
    def forward(self, pred, *args, **inputs):
        return super().forward(pred if len(pred) else pred.detach(), *args, **inputs)


class OneMeanState(Plain):
    """A loss with one buffer, which a subclass updates in training."""

    def __init__(self, *, reduction="mean", loss_weight=1.0):
        super().__init__(reduction=reduction, loss_weight=loss_weight)
        self.register_buffer("mean", torch.zeros(1))

    def unreduced(self, pred, target, weight=None):
        value = super().unreduced(pred, target, weight)
        if self.training:
            self.mean = self.updated(value)
        result = value * (1 + self.mean.sum())
        self.mean = self.mean.detach()
        return result


class StateInGradient(OneMeanState):
    def updated(self, value):
        return (self.mean + value.mean()) / 2


class InfiniteState(OneMeanState):
    def updated(self, value):
        return value.detach().mean()[None] / 0

    def unreduced(self, pred, target, weight=None):
        super().unreduced(pred, target, weight)
        return Plain.unreduced(self, pred, target, weight)


class GrowingState(OneMeanState):
    def updated(self, value):
        return torch.cat([self.mean, value.detach()])


class RaisesKeyError(Plain):
    def _check_inputs(self, inputs):
        if inputs:
            raise KeyError(*inputs)


class NamesNoInput(Plain):
    def _check_inputs(self, inputs):
        if inputs:
            raise TypeError("wrong input")


class WrongParams(DIoULoss):
    """repr() is correct, but params() returns a different eps than the constructor got."""

    def __init__(self, *, eps=1e-7, reduction="mean", loss_weight=1.0):
        super().__init__(eps=eps / 2, reduction=reduction, loss_weight=loss_weight)

    def __repr__(self):
        return f"WrongParams(eps={2 * self.eps})"


class WrongKind(Plain):
    kind = "boxes"


class WrongSpace(Plain):
    space = "encoded"


class NoActivation(ClassificationLoss):
    paper = "made up"


class NoPaper(Plain):
    paper = ""


class Undocumented(DIoULoss):
    __doc__ = DIoULoss.__doc__
    __module__ = "det_losses.losses.undocumented"

    def __init__(self, *, depth=1, **kwargs):
        super().__init__(**kwargs)
        self.depth = depth


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
    ("gradient", StateInGradient, "the state must be constant in the gradient"),
    ("reference_gradient", UndetachedHull, "gradient against the reference"),
    ("stop_gradient", SilentDetach, "but constant_in_gradient is empty"),
    ("stop_gradient", NamedButNotDetached, "names the hull, but nothing is detached"),
    ("fast_path", OtherInTrace, "value, fast path against the plain formula"),
    ("fast_path", OtherTerms, "value, fast path against the plain formula"),
    ("zero", NotZero, "expected 0 for a perfect prediction, got 0.1"),
    ("zero", DeclaresNonzero, "zero_at_target is False, but"),
    ("zero", Negative, "expected no negative loss, got -"),
    ("invariances", InPixels, "lists scale, but the value changes"),
    ("invariances", LacksMirror, "mirror changes no value, but"),
    ("invariances", UnknownInvariance, "known are translation, scale, mirror"),
    ("distance", NegativeDistance, "the loss falls from"),
    ("distance", DeclaresFalling, "the loss never falls"),
    ("row_order", FirstRowCounts, "loss of permuted rows"),
    ("degenerate", PlainRoot, "not finite at"),
    ("degenerate", InfiniteState, "buffer 'mean' is not finite"),
    ("fuzz", PlainRoot, "not finite at"),
    ("weights", WeightTwice, "loss with twice the weight"),
    ("zero_weight", MeanOfAllRows, "with additional rows of weight 0"),
    ("avg_factor", IgnoresFactor, "mean with avg_factor=7"),
    ("reductions", SumForMean, "mean: expected"),
    ("reductions", WrongShape, "unreduced_shape returns [12, 4], but"),
    ("empty_batch", PlainMean, "mean of no rows: expected 0, got nan"),
    ("empty_batch", EmptyWithoutGradient, "none of no rows cannot be backpropagated"),
    ("half_precision", InHalf, "expected float32, got torch.float16"),
    ("autocast", Product, "value under autocast"),
    ("compile", Branch, "does not compile"),
    pytest.param("inductor", Branch, "does not compile", marks=needs_compiler),
    ("vmap", Branch, "torch.func"),
    ("stateless", Counting, "second call with the same inputs"),
    ("state", MovesInEvaluation, "after a call in evaluation"),
    ("state", MovesUnsaved, "is not in the state_dict"),
    ("state", GrowingState, "its own state_dict does not load"),
    ("errors", TakesAnything, "takes no input 'no_such_input'"),
    ("errors", Broadcasting, "but nothing was raised"),
    ("errors", RaisesKeyError, 'expected a TypeError that contains "takes no'),
    ("errors", NamesNoInput, "expected an error that contains"),
    ("repr", WrongText, "repr WrongText(eps=0.5): expected"),
    ("repr", WrongParams, "params(): expected the arguments"),
    ("card", NoArgs, "the docstring has no .. math:, Args:"),
    ("card", WrongKind, "kind must be one of box, classification, distribution, got 'boxes'"),
    ("card", WrongSpace, "space of a box loss must be delta or decoded, got 'encoded'"),
    ("card", NoActivation, "must be sigmoid or softmax, got None"),
    ("card", NoPaper, "paper is empty"),
    ("card", Undocumented, "Args lacks depth, kwargs"),
]


@pytest.mark.parametrize(("check", "cls", "message"), BROKEN)
def test_a_broken_loss_fails_its_check(check, cls, message):
    case = Case(cls.__name__, cls, (Reference({}, diou, hull_of),))
    with pytest.raises(Failed) as failure:
        CHECKS[check](case)
    assert message in str(failure.value)


def test_every_check_has_a_loss_that_fails_it():
    # fuzz_long is fuzz with more batches.
    noticed = {getattr(entry, "values", entry)[0] for entry in BROKEN}
    assert noticed == set(CHECKS) - {"fuzz_long"}


@pytest.fixture
def quick(monkeypatch):
    """Leave out the checks that take a second; they are tested above."""
    for name in ("compile", "fuzz"):
        monkeypatch.delitem(CHECKS, name)


@pytest.mark.usefixtures("quick")
def test_a_correct_loss_of_another_package_passes_without_a_card():
    results = run(Case("Plain", Plain))
    assert [r.check for r in results if r.status == "fail"] == []
    skipped = {r.check: r.message for r in results if r.status == "skip"}
    assert skipped["inductor"] == "slow, runs with --slow"
    assert skipped["value"].startswith("no reference: define REFERENCES")
    assert skipped["card"].endswith("Example:, Disjoint:, so there is no card")


def test_a_loss_that_cannot_be_built_gives_one_failure():
    class Needy(Plain):
        def __init__(self, *, depth):
            super().__init__()

    (result,) = run(Case("Needy", Needy))
    assert result.status == "fail" and "cannot be built" in result.message
    assert re.search("missing a required .*argument: 'depth'", result.message)


@pytest.mark.usefixtures("quick")
def test_an_unexpected_exception_is_a_failure_with_its_type():
    class Raises(Plain):
        def unreduced(self, pred, target, weight=None):
            raise KeyError("lost")

    results = {r.check: r for r in run(Case("Raises", Raises))}
    assert results["zero"].message == "KeyError: 'lost'"


@pytest.mark.usefixtures("quick")
def test_the_case_supplies_inputs_unknown_to_the_suite():
    class Deep(Plain):
        inputs = ("depth",)

        def penalties(self, pair):
            return (pair.inputs["depth"] * pair.center_distance2 / pair.hull_diagonal2,)

    results = {r.check: r for r in run(Case("Deep", Deep))}
    assert "needs the input 'depth', which the suite cannot make" in results["zero"].message
    makers = {"depth": lambda n, generator: torch.rand(n, generator=generator).double()}
    CHECKS["errors"](Case("Deep", Deep, inputs=makers))
    CHECKS["gradient"](Case("Deep", Deep, inputs=makers))


def test_own_mean_must_match_the_effect_of_avg_factor():
    own = type("OwnMean", (IgnoresFactor,), {"own_mean": True})
    CHECKS["avg_factor"](Case("OwnMean", own))
    stale = type("Stale", (Plain,), {"own_mean": True})
    with pytest.raises(Failed, match="own_mean"):
        CHECKS["avg_factor"](Case("Stale", stale))


def test_a_check_that_does_not_apply_states_the_reason():
    with pytest.raises(Skipped, match="no state"):
        CHECKS["state"](Case("Plain", Plain))


def test_without_docstrings_the_card_is_skipped(monkeypatch):
    monkeypatch.setattr(interface, "sys", SimpleNamespace(flags=SimpleNamespace(optimize=2)))
    with pytest.raises(Skipped, match="removes docstrings"):
        CHECKS["card"](Case("Plain", Plain))


def test_without_a_compiler_inductor_is_skipped(monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", "no-such-compiler -O2")
    with pytest.raises(Skipped, match="no C\\+\\+ compiler 'no-such-compiler -O2'"):
        CHECKS["inductor"](Case("Plain", Plain))
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Skipped, match="no C\\+\\+ compiler"):
        CHECKS["inductor"](Case("Plain", Plain))
