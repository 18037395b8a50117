"""A formula on tensors, recorded as the operations that it applies to each row.

Nothing is computed until the formula is complete; :mod:`~det_losses.tracing.kernels` then computes
the value and the gradient.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from det_losses.boxes import BoxPair, geometry
from det_losses.tensors import is_readable
from det_losses.tracing.kernels import Operation, Program
from det_losses.tracing.traced import (
    Operand,
    Traced,
    UnsupportedOperation,
    is_number,
    make_traced,
)

# The number of operations that autograd has recorded in this thread.
_count_nodes = getattr(torch._C._autograd, "_get_sequence_nr", lambda: 0)


class Trace:
    """The operations of one evaluation of a formula on pairs of boxes.

    Besides those of :data:`~det_losses.tracing.kernels.OPERATIONS`, there are operations on pairs,
    which :func:`_expanded` replaces: ``("boxes", eps)`` is the pair of the boxes, ``("field",
    pair, name)`` one of its quantities, ``("scaled", pair, x)`` and ``("interpolated", pair, x)``
    are other pairs.

    Args:
        pred: predicted boxes, ``[N, 4]``, contiguous, float32 or float64.
        target: their targets, same shape and dtype.
    """

    __slots__ = (
        "__weakref__",
        "arrays",
        "constants",
        "nodes",
        "operations",
        "pred",
        "shared",
        "target",
        "values",
    )

    def __init__(self, pred: Tensor, target: Tensor) -> None:
        self.pred, self.target = pred, target
        self.operations: list[Operation] = []
        self.constants: list[float] = []
        self.arrays: list[Tensor] = []
        self.values: dict[int, Tensor] = {}  # those that the formula has asked for
        self.shared: list[tuple[Tensor, int]] = []  # tensors of the formula, with their versions
        self.nodes = _count_nodes()  # before the formula

    def pair(self, eps: float, inputs: Mapping[str, Tensor]) -> "TracedPair":
        """Return the geometry of the boxes."""
        if not isinstance(eps, int | float):
            raise UnsupportedOperation("an eps that is not a number")
        self.operations.append(("boxes", eps))
        return TracedPair(self, len(self.operations) - 1, eps, inputs)

    def add(self, name: str, *operands: Operand) -> Traced:
        """Record an operation."""
        operation: list[str | int] = [name]
        is_boolean, constant = name in _BOOLEANS, True
        for operand in operands:
            if type(operand) is Traced:
                if operand.trace is not self:
                    raise UnsupportedOperation("a tensor of another evaluation")
                if operand.is_boolean and not self._takes_boolean(operation):
                    if not (is_boolean or any(map(is_number, operands))):
                        raise UnsupportedOperation(f"{name} of booleans")  # gives another dtype
                    operand = self.add("where", operand, 1.0, 0.0)
                operation.append(operand.index)
                constant = constant and operand.constant
            else:
                operation.append(self.place(operand, self._takes_boolean(operation)))
        self.operations.append(tuple(operation))
        made = make_traced(self, len(self.operations) - 1, constant or is_boolean, is_boolean)
        return made if constant or torch.is_grad_enabled() else made.detach()

    def column(self, axis: int) -> Traced:
        """Return a column of ``pred``."""
        self.operations.append(("pred", axis))
        return make_traced(self, len(self.operations) - 1, False)

    def number(self, value: float) -> Traced:
        """Record a number."""
        return make_traced(self, self.place(value), True)

    def value(self, constant: Traced) -> Tensor:
        """Return the values of a traced tensor that has no gradient."""
        if constant.index not in self.values:
            if not (constant.constant and len(self.pred)):
                raise UnsupportedOperation("the values of a tensor that has a gradient or no rows")
            value, _ = self.evaluate(constant, has_gradient=False)
            value = value.bool() if constant.is_boolean else value
            self.values[constant.index] = value
            self.shared.append((value, value._version))
        return self.values[constant.index]

    def evaluate(
        self, result: Traced, seed: float = 1.0, has_gradient: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Return the values of the result, and ``seed`` times its gradient by ``pred``."""
        program, constants = self.program(result, has_gradient)
        return program.evaluate(self.pred, self.target, constants, self.arrays, seed)

    def check(self) -> None:
        """Raise if the formula has done what the trace does not record.

        It has changed a tensor that it shares with the trace, or autograd has recorded an
        operation, such as a function that has its own gradient.
        """
        if self.shared and any(tensor._version != version for tensor, version in self.shared):
            raise UnsupportedOperation("an operation in place")
        if _count_nodes() != self.nodes:
            raise UnsupportedOperation("an operation with a gradient of its own")

    def program(self, result: Traced, has_gradient: bool) -> tuple[Program, list[float]]:
        """Return the compiled formula and its constants."""
        key = (*self.operations, result.index, len(self.constants), self.pred.shape[1])
        compiled = _program(key, has_gradient, self.pred.dtype)
        if compiled is None:
            raise UnsupportedOperation("a formula that cannot be compiled")
        program, constants = compiled
        return program, [*self.constants, *constants]

    def place(self, operand: float | Tensor, is_boolean: bool = False) -> int:
        """Return the operand of an operation, for a number or a tensor that is not traced."""
        if not isinstance(operand, int | float):
            if not isinstance(operand, Tensor):
                raise UnsupportedOperation(f"an operand that is {type(operand).__name__}")
            if operand.requires_grad:
                raise UnsupportedOperation("another tensor with a gradient")
            if operand.dim():
                return self._array(operand, is_boolean)
            operand = operand.item()
        self.constants.append(operand)
        return -len(self.constants)

    @staticmethod
    def _takes_boolean(operation: Sequence[str | int]) -> bool:
        """Return whether the next operand of an operation may be a boolean."""
        return operation[0] in _OF_BOOLEANS and (operation[0] != "where" or len(operation) == 1)

    def _array(self, tensor: Tensor, is_boolean: bool) -> int:
        if not is_readable(tensor):
            raise UnsupportedOperation("a tensor that is not in the memory of the CPU")
        self.shared.append((tensor, tensor._version))
        mask = tensor.dtype == torch.bool and is_boolean
        if tensor.dtype == torch.bool and not is_boolean:
            tensor = tensor.to(self.pred.dtype)
        if tensor.shape != self.pred.shape[:1] or not (mask or tensor.dtype == self.pred.dtype):
            raise UnsupportedOperation("a tensor of another shape or type")
        self.arrays.append(tensor.contiguous().resolve_neg())
        self.operations.append(("mask" if mask else "array", len(self.arrays) - 1))
        return len(self.operations) - 1


def elementwise(
    formula: Callable[[Tensor], Tensor], dtype: torch.dtype
) -> Callable[[Tensor, Tensor, float | Tensor], Tensor]:
    """Return a function that computes a formula of each number of a tensor.

    The function writes the derivative, times its third argument, to its second argument, a tensor
    like the first one. Both must be contiguous.

    Args:
        formula: a function of a tensor, whose values it may not ask for.
        dtype: of the tensor, float32 or float64.

    Raises:
        UnsupportedOperation: the formula cannot be traced.
    """
    nothing = torch.empty(0, 1, dtype=dtype)
    trace = Trace(nothing, nothing)
    with torch.enable_grad():
        result = formula(trace.column(0))
    if type(result) is not Traced or result.constant or trace.arrays or trace.values:
        raise UnsupportedOperation("a formula that depends on other tensors than its argument")
    trace.check()
    program, constants = trace.program(result, True)

    def compute(x: Tensor, slope: Tensor, seed: float | Tensor = 1.0) -> Tensor:
        column = x.view(-1, 1)
        value, _ = program.evaluate(column, column, constants, (), float(seed), slope.view(-1, 1))
        return value.view(x.shape)

    return compute


@functools.lru_cache(256)
def _program(
    key: tuple, has_gradient: bool, dtype: torch.dtype
) -> tuple[Program, list[float]] | None:
    """Return the compiled formula, and the constants that it needs besides those of the trace.

    None stands for one that cannot be compiled, which takes long to find out.
    """
    *operations, result, constants, columns = key
    try:
        trace, index = _expanded(operations, result, constants)
        program = Program(trace.operations, index, columns, has_gradient, dtype)
    except Exception:
        return None
    return program, trace.constants[constants:]


def _expanded(operations: Sequence[Operation], result: int, constants: int) -> tuple[Trace, int]:
    """Replace the operations on pairs by those of :mod:`~det_losses.boxes`."""
    none = torch.empty(0, 4)
    trace = Trace(none, none)
    trace.constants += [0.0] * constants
    made: list[Any] = []

    def traced(operand: int) -> Traced:
        return made[operand] if operand >= 0 else make_traced(trace, operand, True)

    with torch.enable_grad():
        for name, *operands in operations:
            if name == "boxes":
                trace.operations += [(box, axis) for box in ("pred", "target") for axis in range(4)]
                edges = [make_traced(trace, index, index >= 4) for index in range(8)]
                made.append(geometry(tuple(edges[:4]), tuple(edges[4:]), operands[0], {}))
            elif name == "field":
                pair, field, *axis = operands
                value = getattr(made[pair], field)
                made.append(value[axis[0]] if axis else value)
            elif name in ("scaled", "interpolated"):
                made.append(getattr(made[operands[0]], name)(traced(operands[1])))
            elif name in ("pred", "array", "mask"):
                trace.operations.append((name, *operands))
                made.append(make_traced(trace, len(trace.operations) - 1, name != "pred"))
            else:
                made.append(trace.add(name, *map(traced, operands)))
    return trace, traced(result).index


class TracedPair(BoxPair):
    """The geometry of the boxes of a trace.

    Args:
        trace: the trace.
        index: the operation that is this pair.
        eps: as for :func:`~det_losses.boxes.box_pair`.
        inputs: further inputs of the loss, by name.
        constant: whether it has no gradient.
    """

    def __init__(
        self,
        trace: Trace,
        index: int,
        eps: float,
        inputs: Mapping[str, Tensor],
        constant: bool = False,
    ) -> None:
        vars(self).update(trace=trace, index=index, eps=eps, inputs=inputs, constant=constant)

    def __getattr__(self, name: str) -> Traced | tuple[Traced, ...]:
        if name not in BoxPair.__dataclass_fields__:
            raise AttributeError(f"a pair of boxes has no {name!r}")
        value = vars(self)[name] = self.field(name)
        return value

    def field(self, name: str) -> Traced | tuple[Traced, ...]:
        """Return a quantity of the pair."""
        if name in _AXES:
            return tuple(self._record(name, axis) for axis in range(_AXES[name]))
        return self._record(name)

    def interpolated(self, alpha: Operand) -> "TracedPair":
        """The pair of the interpolated box and the target."""
        return self._other("interpolated", alpha)

    def scaled(self, ratio: Operand) -> "TracedPair":
        """The pair with both boxes scaled about their own centres."""
        return self._other("scaled", ratio)

    def _other(self, name: str, operand: Operand) -> "TracedPair":
        is_traced = type(operand) is Traced
        if is_traced and operand.trace is not self.trace:
            raise UnsupportedOperation("a tensor of another evaluation")
        if name == "scaled" and is_traced and not operand.constant:
            raise UnsupportedOperation("a ratio that has a gradient")
        place = operand.index if is_traced else self.trace.place(operand)
        self.trace.operations.append((name, self.index, place))
        constant = self.constant or not torch.is_grad_enabled()
        index = len(self.trace.operations) - 1
        return TracedPair(self.trace, index, self.eps, self.inputs, constant)

    def _record(self, name: str, *axis: int) -> Traced:
        self.trace.operations.append(("field", self.index, name, *axis))
        value = make_traced(self.trace, len(self.trace.operations) - 1, name in _OF_TARGET)
        if value.constant:
            return value
        # A tensor that a BoxPair stores has its gradient wherever it is read.
        kept = name in BoxPair.__dataclass_fields__ or torch.is_grad_enabled()
        return value.detach() if self.constant or not kept else value


for _name, _member in vars(BoxPair).items():
    if isinstance(_member, property) and _name not in ("pred", "target"):
        setattr(TracedPair, _name, property(functools.partial(TracedPair.field, name=_name)))

_OF_TARGET = {"target_edges", "wg", "hg"}  # fields without gradient
_AXES = {"edges": 4, "target_edges": 4, "edge_offsets": 4, "size_gaps": 2}  # fields of several
_BOOLEANS = {"lt", "gt", "le", "ge", "eq", "ne", "and", "or", "not"}  # have boolean values
_OF_BOOLEANS = {"where", "and", "or", "not", "detach"}  # take boolean operands
