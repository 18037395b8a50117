"""A tensor that records what a formula does with it.

A :class:`Traced` takes the place of a tensor ``[N]`` in the formula of a loss: it has the operators
and methods of a tensor, and functions such as ``torch.exp`` accept it. Each adds an operation to
its trace (:mod:`~det_losses.tracing.trace`). What cannot be recorded raises
:class:`UnsupportedOperation`; a tensor without gradient has values for all other functions.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, smooth_l1_loss

if TYPE_CHECKING:
    from det_losses.tracing.trace import Trace


class UnsupportedOperation(BaseException):
    """A formula uses an operation that a traced tensor does not have.

    It is no ``Exception``, so a formula that handles those does not handle this one.
    """


_POWERS = {
    0.5: "sqrt",
    1.5: "three_halves",
    2: "square",
    3: "cube",
    4: "fourth",
    -0.5: "inverse_sqrt",
    -1: "inverse",
    -2: "inverse_square",
}
_MOST = 2**53  # above, one less is the same float64 number


def _unary(name: str) -> Callable[["Traced"], "Traced"]:
    return lambda self: self.trace.add(name, self)


def _binary(name: str) -> Callable[["Traced", "Operand"], "Traced"]:
    return lambda self, other: self.trace.add(name, self, other)


def _reflected(name: str) -> Callable[["Traced", "Operand"], "Traced"]:
    return lambda self, other: self.trace.add(name, other, self)


def _logical(name: str) -> Callable[..., "Traced"]:
    def record(self: "Traced", *other: "Operand") -> "Traced":
        if not all(getattr(each, "dtype", None) == torch.bool for each in (self, *other)):
            raise UnsupportedOperation(f"{name} of operands that are not booleans")
        return self.trace.add(name, self, *other)

    return record


class Traced(Tensor):
    """A tensor ``[N]`` in a formula; it has no storage of its own.

    Attributes:
        trace: the trace.
        index: its operation, or ``~k`` for constant k.
        constant: whether it has no gradient.
        is_boolean: whether its values are booleans.
    """

    __slots__ = ("constant", "index", "is_boolean", "trace")
    __hash__ = Tensor.__hash__

    __add__ = __radd__ = _binary("add")
    __mul__ = __rmul__ = _binary("mul")
    __sub__, __rsub__ = _binary("sub"), _reflected("sub")
    __truediv__, __rtruediv__ = _binary("div"), _reflected("div")
    __lt__, __le__, __eq__ = _binary("lt"), _binary("le"), _binary("eq")
    __gt__, __ge__, __ne__ = _binary("gt"), _binary("ge"), _binary("ne")
    __neg__, abs, exp, log = _unary("neg"), _unary("abs"), _unary("exp"), _unary("log")
    sqrt, relu, atan = _unary("sqrt"), _unary("relu"), _unary("atan")
    sigmoid = _unary("sigmoid")
    __and__, __or__, __invert__ = _logical("and"), _logical("or"), _logical("not")

    def __pow__(self, exponent: float) -> "Traced":
        if not isinstance(exponent, int | float):
            raise UnsupportedOperation("a power whose exponent is not a number")
        if exponent == 0:
            return self.trace.number(1.0)
        if exponent == 1:
            return self
        if not abs(exponent) < _MOST:
            raise UnsupportedOperation(f"a power whose exponent is {exponent}")
        if exponent in _POWERS:
            return self.trace.add(_POWERS[exponent], self)
        return self.trace.add("power", self, exponent)

    def clamp(self, min: float | None = None, max: float | None = None) -> "Traced":
        """Limit the values."""
        bounded = self
        for name, limit in (("at_least", min), ("at_most", max)):
            if limit is None:
                continue
            if not isinstance(limit, int | float) or limit != limit:
                raise UnsupportedOperation("a limit that is not a number")  # has another slope
            bounded = self.trace.add(name, bounded, limit)
        return bounded

    def to(self, *args: Any, **kwargs: Any) -> Tensor:
        """The tensor itself for its dtype, else its values converted, which need no gradient."""
        if len(args) == 1 and args[0] is self.dtype and not kwargs:
            return self
        return super().to(*args, **kwargs)

    def detach(self) -> "Traced":
        """The values, constant in the gradient."""
        self.trace.operations.append(("detach", self.index))
        return make_traced(self.trace, len(self.trace.operations) - 1, True, self.is_boolean)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the tensor."""
        if self.is_boolean:
            return torch.bool
        return self.trace.pred.dtype

    @property
    def shape(self) -> torch.Size:
        """The shape of the tensor."""
        return self.trace.pred.shape[:1]

    @property
    def device(self) -> torch.device:
        """The device of the tensor."""
        return torch.device("cpu")

    def __len__(self) -> int:
        return len(self.trace.pred)

    def dim(self) -> int:
        """The number of axes."""
        return 1

    def __iadd__(self, other: "Operand") -> "Traced":
        raise UnsupportedOperation("an operation in place, which changes other tensors too")

    __isub__ = __imul__ = __itruediv__ = __ipow__ = __iadd__

    @classmethod
    def __torch_function__(
        cls, function: Callable, types: Sequence[type], args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        handler = _FUNCTIONS.get(function)
        if handler is not None:
            return handler(*args, **(kwargs or {}))
        name = getattr(function, "__name__", "")
        if name in ("__set__", "__setitem__") or (name.endswith("_") and not name.endswith("__")):
            raise UnsupportedOperation("an operation in place")
        return function(*map(_values, args), **{k: _values(v) for k, v in (kwargs or {}).items()})


Operand = float | Tensor
_NOTHING = torch.empty(0, device="meta")  # has no values that code in C++ could read
_make = Tensor._make_subclass


def make_traced(trace: "Trace", index: int, constant: bool, is_boolean: bool = False) -> Traced:
    """Make a traced tensor with these attributes."""
    made = _make(Traced, _NOTHING)
    made.trace, made.index = trace, index
    made.constant, made.is_boolean = constant, is_boolean
    return made


def is_number(operand: Operand) -> bool:
    """Return whether an operand has one number, not a boolean, for each row."""
    return isinstance(operand, Tensor) and operand.dim() > 0 and operand.dtype != torch.bool


def _values(argument: Any) -> Any:
    """Replace the traced tensors in an argument by their values."""
    if type(argument) is Traced:
        return argument.trace.value(argument)
    return type(argument)(map(_values, argument)) if type(argument) in (list, tuple) else argument


def _function(name: str) -> Callable[..., Traced]:
    def record(*operands: Operand) -> Traced:
        return next(each for each in operands if type(each) is Traced).trace.add(name, *operands)

    return record


def _extremum(name: str) -> Callable[..., Traced]:
    def record(x: Tensor, y: Tensor) -> Traced:
        if not (isinstance(x, Tensor) and isinstance(y, Tensor)):
            raise UnsupportedOperation(f"{name} of a number")  # an error of torch
        return (x if type(x) is Traced else y).trace.add(name, x, y)

    return record


def _two_or_values(function: Callable, name: str) -> Callable[..., Any]:
    """``torch.max`` and ``torch.min``: of two tensors, or a reduction of one without gradient."""

    def record(x: Tensor, *others: Any, **kwargs: Any) -> Any:
        if len(others) == 1 and isinstance(others[0], Tensor) and not kwargs:
            return _extremum(name)(x, *others)
        return function(*map(_values, (x, *others)), **kwargs)

    return record


def _where(condition: Tensor, x: Operand, other: Operand) -> Traced:
    trace = next(each for each in (condition, x, other) if type(each) is Traced).trace
    if not (is_number(x) or is_number(other)):
        raise UnsupportedOperation("where between booleans or numbers")  # gives another dtype
    return trace.add("where", condition, x, other)


def _unshared(tensor: Tensor, *_: Any, **__: Any) -> None:
    raise UnsupportedOperation("memory that is shared")


def _like(number: float) -> Callable[..., Traced | Tensor]:
    def like(traced: Traced, dtype: torch.dtype | None = None) -> Traced | Tensor:
        if dtype is None and traced.is_boolean:
            dtype = torch.bool
        if dtype is None:
            return traced.trace.number(number)
        return traced.trace.pred.new_full(traced.shape, number, dtype=dtype)

    return like


def _smooth_l1(
    pred: Tensor, target: Tensor, *, beta: float, reduction: str, **others: Any
) -> Traced:
    known = reduction == "none" and isinstance(beta, int | float) and beta >= 0
    if not (known and is_number(pred) and is_number(target)) or any(
        each is not None for each in others.values()
    ):
        raise UnsupportedOperation("smooth_l1_loss with these arguments")
    error = pred - target
    return error.trace.add("smooth_l1", error, beta) if beta else error.abs()


_FUNCTIONS: dict[Callable, Callable[..., Any]] = {
    logsigmoid: _unary("logsigmoid"),
    smooth_l1_loss: _smooth_l1,
    torch.abs: Traced.abs,
    torch.atan: Traced.atan,
    torch.clamp: Traced.clamp,
    torch.clip: Traced.clamp,
    torch.neg: Traced.__neg__,
    torch.pow: Traced.__pow__,
    torch.square: lambda x: x**2,
    torch.add: _function("add"),
    torch.sub: _function("sub"),
    torch.mul: _function("mul"),
    torch.div: _function("div"),
    torch.exp: Traced.exp,
    torch.log: Traced.log,
    torch.relu: Traced.relu,
    torch.sigmoid: Traced.sigmoid,
    torch.sqrt: Traced.sqrt,
    Tensor.clip: Traced.clamp,
    Tensor.maximum: _extremum("maximum"),
    Tensor.minimum: _extremum("minimum"),
    Tensor.pow: Traced.__pow__,
    Tensor.square: lambda x: x**2,
    torch.max: _two_or_values(torch.max, "maximum"),
    torch.maximum: _extremum("maximum"),
    torch.min: _two_or_values(torch.min, "minimum"),
    torch.minimum: _extremum("minimum"),
    torch.where: _where,
    torch.ones_like: _like(1.0),
    torch.zeros_like: _like(0.0),
    Tensor.add: _function("add"),
    Tensor.sub: _function("sub"),
    Tensor.mul: _function("mul"),
    Tensor.div: _function("div"),
    Tensor.expand_as: lambda tensor, traced: tensor.expand(traced.shape),
    # A change of this memory does not count as one of the tensor.
    Tensor.data.__get__: _unshared,
    Tensor.numpy: _unshared,
    Tensor.__array__: _unshared,
    Tensor.__dlpack__: _unshared,
    Tensor.data_ptr: _unshared,
    Tensor.untyped_storage: _unshared,
}
