"""Formulas compiled to machine code: the value of each row and its gradient in one loop.

A formula is a list of operations on the numbers of one row. The derivative follows it in reverse.
LLVM compiles both to one loop over the rows, which makes no array of intermediate values. It takes
usually less than 0.1 s to compile a formula, and a few microseconds to call it.
"""

import ctypes
import threading
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from det_losses.tracing.machine_code import Code, compiled

Operation = tuple[str | int | float, ...]
MOST_INSTRUCTIONS = 3000  # take up to 1.5 s to compile


class _ThisThread(threading.local):
    programs = 0  # that it has compiled


this_thread = _ThisThread()


def _slope_at_limit() -> bool:
    """Return whether the slope of ``clamp`` at a limit is 1, which depends on torch's version."""
    with torch.enable_grad():
        x = torch.zeros((), requires_grad=True)
        return bool(torch.autograd.grad(x.clamp(min=0), x)[0] == 1)


_ABOVE, _BELOW = (">=", "<=") if _slope_at_limit() else (">", "<")

# Name -> value, and the derivative by each operand, as expressions of Python: {0}, {1} and {2} are
# the operands, {v} is the value, {g} the derivative of the result by the value. An operand without
# derivative has None. Derivatives are those of autograd, or nearer to the exact ones: 0 for abs at
# 0, half each for the minimum of equal numbers, and both for that of NaN.
OPERATIONS: dict[str, tuple[str | None, ...]] = {
    "add": ("{0} + {1}", "{g}", "{g}"),
    "sub": ("{0} - {1}", "{g}", "-{g}"),
    "mul": ("{0} * {1}", "{g} * {1}", "{g} * {0}"),
    "div": ("{0} / {1}", "{g} / {1}", "-({g} / {1} * {v})"),
    "neg": ("-{0}", "-{g}"),
    "abs": ("abs({0})", "{g} * (1 if {0} > 0 else -1 if {0} < 0 else 0)"),
    "sqrt": ("sqrt({0})", "{g} / (2 * {v})"),
    "exp": ("exp({0})", "{g} * {v}"),
    "log": ("log({0})", "{g} / {0}"),
    "atan": ("atan({0})", "{g} / (1 + {0} * {0})"),
    "sigmoid": ("sigmoid({0})", "{g} * ({v} * sigmoid(-{0}))"),
    "logsigmoid": ("logsigmoid({0})", "{g} * sigmoid(-{0})"),
    "power": ("power({0}, {1})", "{g} * ({1} * power({0}, {1} - 1))", None),
    "square": ("{0} * {0}", "{g} * (2 * {0})"),
    "cube": ("{0} * {0} * {0}", "{g} * (3 * ({0} * {0}))"),
    "fourth": ("({0} * {0}) * ({0} * {0})", "{g} * (4 * ({0} * {0} * {0}))"),
    "three_halves": ("{0} * sqrt({0})", "{g} * (1.5 * sqrt({0}))"),
    "inverse_sqrt": ("1 / sqrt({0})", "-({g} * (0.5 * {v} / {0}))"),
    "inverse": ("1 / {0}", "-({g} * ({v} / {0}))"),
    "inverse_square": ("1 / ({0} * {0})", "-({g} * (2 * {v} / {0}))"),
    "relu": ("0 if {0} < 0 else {0}", "0 if {0} <= 0 else {g}"),
    "at_least": ("{1} if {0} < {1} else {0}", f"{{g}} if {{0}} {_ABOVE} {{1}} else 0", None),
    "at_most": ("{1} if {0} > {1} else {0}", f"{{g}} if {{0}} {_BELOW} {{1}} else 0", None),
    "minimum": (
        "{0} if {0} < {1} or {0} != {0} else {1}",
        "0 if {0} > {1} else 0.5 * {g} if {0} == {1} else {g}",
        "0 if {1} > {0} else 0.5 * {g} if {0} == {1} else {g}",
    ),
    "maximum": (
        "{0} if {0} > {1} or {0} != {0} else {1}",
        "0 if {0} < {1} else 0.5 * {g} if {0} == {1} else {g}",
        "0 if {1} < {0} else 0.5 * {g} if {0} == {1} else {g}",
    ),
    "smooth_l1": (
        "0.5 * {0} * ({0} / {1}) if abs({0}) < {1} else abs({0}) - 0.5 * {1}",
        "{g} * (1 if {0} > 0 else -1 if {0} < 0 else 0) if abs({0}) >= {1} else {g} * {0} / {1}",
        None,
    ),
    "where": ("{1} if {0} else {2}", None, "{g} if {0} else 0", "0 if {0} else {g}"),
    "detach": ("{0}", None),
    "lt": ("{0} < {1}", None, None),
    "gt": ("{0} > {1}", None, None),
    "le": ("{0} <= {1}", None, None),
    "ge": ("{0} >= {1}", None, None),
    "eq": ("{0} == {1}", None, None),
    "ne": ("{0} != {1}", None, None),
    "and": ("{0} and {1}", None, None),
    "or": ("{0} or {1}", None, None),
    "not": ("not {0}", None),
}


class Program:
    """A formula as a compiled loop over the rows.

    Args:
        operations: the operations in the order of their computation: a name of
            :data:`OPERATIONS` and its operands, each the index of an operation, or ``~k`` for
            constant k; or ``("pred", k)`` and ``("target", k)`` for column k, ``("array", k)`` for
            an element of array k, ``("mask", k)`` if its values are booleans.
        result: the operand whose value is returned.
        columns: the number of columns of ``pred`` and ``target``.
        has_gradient: whether the gradient is computed.
        dtype: of all numbers, float32 or float64.

    Attributes:
        loop: the function of the number of rows, the constants and the arrays.

    Raises:
        ImportError: llvmlite is not installed.
        ValueError: the formula is too long.
    """

    def __init__(
        self,
        operations: Sequence[Operation],
        result: int,
        columns: int,
        has_gradient: bool,
        dtype: torch.dtype,
    ) -> None:
        this_thread.programs += 1
        arrays = sum(name in ("array", "mask") for name, *_ in operations)
        parameters = ["pred", "target", "gradient", "value", *(f"array{k}" for k in range(arrays))]
        code = _loop(operations, result, columns, has_gradient, dtype)
        if code.count > MOST_INSTRUCTIONS:
            raise ValueError(f"{code.count} instructions take too long to compile")
        self.loop = compiled(code.text(parameters), len(parameters))

    def evaluate(
        self,
        pred: Tensor,
        target: Tensor,
        constants: Sequence[float],
        arrays: Iterable[Tensor],
        seed: float = 1.0,
        gradient: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the result for each row, and ``seed`` times its gradient by ``pred``.

        Args:
            pred: ``[N, K]``, contiguous, on a CPU.
            target: same shape.
            constants: the constants.
            arrays: each ``[N]``, contiguous, numbers or booleans.
            seed: a factor.
            gradient: a tensor like ``pred`` for the gradient; None: a new one.

        Raises:
            ValueError: a tensor has no memory, such as one whose storage was freed.
        """
        numbers = (ctypes.c_double * (len(constants) + 1))(seed, *constants)
        rows = len(pred)
        value = pred.new_empty(rows)
        if gradient is None:
            gradient = torch.empty_like(pred)
        pointers = [each.data_ptr() for each in (pred, target, gradient, value, *arrays)]
        if rows and 0 in pointers:
            raise ValueError("a tensor without memory")
        self.loop(rows, numbers, *pointers)
        return value, gradient


def _loop(
    operations: Sequence[Operation],
    result: int,
    columns: int,
    has_gradient: bool,
    dtype: torch.dtype,
) -> Code:
    """Return the code of a loop; the arguments are those of :class:`Program`."""
    needed = _needed(operations, result)
    code = Code("double" if dtype == torch.float64 else "float")
    for index in needed:
        name, *operands = operations[index]
        if name in OPERATIONS:
            code.assign(_name(index), OPERATIONS[name][0].format(*map(_name, operands)))
        elif name in ("array", "mask"):
            code.load(_name(index), f"array{operands[0]}", 1, 0, name == "mask")
        else:
            code.load(_name(index), name, columns, operands[0])
    code.store(_name(result), "value", 1, 0)
    if has_gradient:
        for name, expression in _derivative(operations, result, needed, columns):
            code.assign(name, expression)
        for column in range(columns):
            code.store(f"d{column}", "gradient", columns, column)
    return code


def _derivative(
    operations: Sequence[Operation], result: int, needed: Sequence[int], columns: int
) -> Iterator[tuple[str, str]]:
    """Yield names and expressions, from the result back to ``d0``, ``d1``, ..., the gradient."""
    terms: dict[int, list[str]] = {result: ["seed"]}  # of the derivative by each operation
    depends = _depends_on_pred(operations, needed)
    by_column = ["0"] * columns
    for index in reversed(needed):
        if index not in depends or index not in terms:
            continue
        gradient = f"g{index}"
        yield gradient, " + ".join(terms[index])
        name, *operands = operations[index]
        if name == "pred":
            by_column[operands[0]] = gradient
            continue
        names = [_name(operand) for operand in operands]
        for operand, term in zip(operands, OPERATIONS[name][1:], strict=True):
            if term is not None and operand in depends:
                expression = term.format(*names, v=_name(index), g=gradient)
                terms.setdefault(operand, []).append(f"({expression})")
    for column, expression in enumerate(by_column):
        yield f"d{column}", expression


def _needed(operations: Sequence[Operation], result: int) -> list[int]:
    """Return the operations that the result depends on, in their order."""
    needed: set[int] = set()
    waiting = [result]
    while waiting:
        index = waiting.pop()
        if index >= 0 and index not in needed:
            needed.add(index)
            waiting += _operands(operations[index])
    return sorted(needed)


def _depends_on_pred(operations: Sequence[Operation], needed: Iterable[int]) -> set[int]:
    """Return the operations that have a gradient."""
    depends: set[int] = set()
    for index in needed:
        operands = _operands(operations[index])
        derivatives = OPERATIONS[operations[index][0]][1:] if operands else ()
        if operations[index][0] == "pred" or any(
            derivative is not None and operand in depends
            for operand, derivative in zip(operands, derivatives, strict=True)
        ):
            depends.add(index)
    return depends


def _operands(operation: Operation) -> tuple[int, ...]:
    return operation[1:] if operation[0] in OPERATIONS else ()


def _name(operand: int) -> str:
    """Return the variable of an operation or a constant."""
    return f"v{operand}" if operand >= 0 else f"c{~operand}"
