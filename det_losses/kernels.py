"""Elementwise formulas compiled to machine code: the value of each row and its gradient in one loop.

A formula is a list of operations on the numbers of one row. This module writes the source of a loop
over the rows, in which the derivative follows the formula in reverse, and numba compiles it. No
array of intermediate values is made, and a call takes a few microseconds. The compiled code is kept
in the user's cache, see :func:`~det_losses.paths.cache_root`.
"""

import functools
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy import ndarray

from det_losses.files import write_text
from det_losses.paths import cache_root

Operation = tuple[str | int, ...]
ROWS_PER_THREAD = 16384  # fewer take less time than to start a thread


def _slope_at_limit() -> bool:
    """Return whether the slope of ``clamp`` at a limit is 1, which depends on torch's version."""
    with torch.enable_grad():
        x = torch.zeros((), requires_grad=True)
        return bool(torch.autograd.grad(x.clamp(min=0), x)[0] == 1)


_ABOVE, _BELOW = (">=", "<=") if _slope_at_limit() else (">", "<")

# Name -> value, and the derivative by each operand: {0}, {1} and {2} are the operands, {v} is the
# value, {g} the derivative of the result by the value. An operand without derivative has None.
# Derivatives are those of autograd: 0 for abs at 0, half each for the minimum of equal numbers.
OPERATIONS: dict[str, tuple[str | None, ...]] = {
    "add": ("{0} + {1}", "{g}", "{g}"),
    "sub": ("{0} - {1}", "{g}", "-{g}"),
    "mul": ("{0} * {1}", "{g} * {1}", "{g} * {0}"),
    "div": ("{0} / {1}", "{g} / {1}", "-({g} / {1} * {v})"),
    "neg": ("-{0}", "-{g}"),
    "abs": ("abs({0})", "({g} if {0} > zero else -{g} if {0} < zero else zero)"),
    "exp": ("call", "{g} * {v}"),
    "log": ("call", "{g} / {0}"),
    "sqrt": ("np.sqrt({0})", "{g} / (two * {v})"),
    "atan": ("call", "{g} / (one + {0} * {0})"),
    "square": ("{0} * {0}", "{g} * (two * {0})"),
    "cube": ("{0} * {0} * {0}", "{g} * (three * ({0} * {0}))"),
    "fourth": ("({0} * {0}) * ({0} * {0})", "{g} * (four * ({0} * {0} * {0}))"),
    "inverse_square": ("one / ({0} * {0})", "-({g} * (two / ({0} * {0} * {0})))"),
    "power": ("call", "{g} * ({1} * {2})", None, None),  # {2} is {0} ** ({1} - 1)
    "slope_of_power": ("call", None, None),
    "relu": ("(zero if {0} <= zero else {0})", "({g} if {0} > zero else zero)"),
    "at_least": (
        "({1} if {0} < {1} else {0})",
        f"({{g}} if {{0}} {_ABOVE} {{1}} else zero)",
        None,
    ),
    "at_most": (
        "({1} if {0} > {1} else {0})",
        f"({{g}} if {{0}} {_BELOW} {{1}} else zero)",
        None,
    ),
    "minimum": (
        "({0} if {0} < {1} or {0} != {0} else {1})",
        "({g} if {0} < {1} else half * {g} if {0} == {1} else zero)",
        "({g} if {1} < {0} else half * {g} if {0} == {1} else zero)",
    ),
    "maximum": (
        "({0} if {0} > {1} or {0} != {0} else {1})",
        "({g} if {0} > {1} else half * {g} if {0} == {1} else zero)",
        "({g} if {1} > {0} else half * {g} if {0} == {1} else zero)",
    ),
    "where": ("({1} if {0} else {2})", None, "({g} if {0} else zero)", "(zero if {0} else {g})"),
    "detach": ("{0}", None),
    "lt": ("{0} < {1}", None, None),
    "gt": ("{0} > {1}", None, None),
    "le": ("{0} <= {1}", None, None),
    "ge": ("{0} >= {1}", None, None),
    "eq": ("{0} == {1}", None, None),
    "ne": ("{0} != {1}", None, None),
    "and": ("({0} and {1})", None, None),
    "or": ("({0} or {1})", None, None),
    "not": ("(not {0})", None),
}
# Functions of numpy, which computes several numbers at once where numba calls a function for each.
_CALLS = {
    "exp": np.exp,
    "log": np.log,
    "atan": np.arctan,
    "power": lambda base, exponent, slope: base**exponent,
    "slope_of_power": np.power,
}
_NUMBERS = {"zero": 0.0, "one": 1.0, "half": 0.5, "two": 2.0, "three": 3.0, "four": 4.0}


@functools.lru_cache(1)
def _pool(process: int) -> ThreadPoolExecutor:
    """Return the threads of a process; those of its parent do not survive a fork."""
    return ThreadPoolExecutor(os.cpu_count())


class Program:
    """A formula as compiled loops over the rows, with calls of numpy's functions between them.

    Args:
        operations: the operations in the order of their computation: a name of
            :data:`OPERATIONS` and its operands, each the index of an operation, or ``~k`` for
            constant k; or ``("pred", k)`` and ``("target", k)`` for column k, ``("array", k)`` for
            an element of array k.
        result: the operand whose value is returned.
        columns: the number of columns of ``pred`` and ``target``.
        has_gradient: whether the gradient is computed.

    Raises:
        ImportError: numba is not installed.
    """

    def __init__(
        self, operations: Sequence[Operation], result: int, columns: int, has_gradient: bool
    ) -> None:
        depth: dict[int, int] = {}  # the number of calls that wait for one another
        for index in _needed(operations, [result]):
            known = [depth[each] for each in _operands(operations[index]) if each >= 0]
            depth[index] = max(known, default=0) + (operations[index][0] in _CALLS)
        self.stages = []
        for level in range(1, max(depth.values(), default=0) + 1):
            calls = [
                (index, *operations[index])
                for index, own in depth.items()
                if own == level and operations[index][0] in _CALLS
            ]
            arguments = list(dict.fromkeys(argument for _, _, argument, *_ in calls))
            self.stages.append((_Loop(operations, arguments, columns), arguments, calls))
        self.last = _Loop(operations, [result], columns, has_gradient)

    def evaluate(
        self,
        pred: ndarray,
        target: ndarray,
        constants: Iterable[float],
        arrays: Sequence[ndarray],
        seed: float | None = None,
    ) -> tuple[ndarray, ndarray | None]:
        """Return the result for each row, and ``seed`` times its gradient by ``pred``.

        Args:
            pred: ``[N, K]``, contiguous, float32 or float64.
            target: same shape and dtype.
            constants: the constants.
            arrays: each ``[N]``, contiguous, of the dtype of ``pred`` or bool.
            seed: a number, if the program has the gradient.
        """
        numbers = np.array((*_NUMBERS.values(), seed or 0.0, *constants), pred.dtype)
        value = np.empty(len(pred), pred.dtype)
        gradient = None if seed is None else np.empty_like(pred)
        rows = (value, value if gradient is None else gradient, pred, target, *arrays)
        threads = min(torch.get_num_threads(), len(pred) // ROWS_PER_THREAD)
        if threads <= 1:
            self._run(numbers, *rows)
            return value, gradient
        bounds = [len(pred) * k // threads for k in range(threads + 1)]
        own, *others = (
            [each[start:stop] for each in rows]
            for start, stop in zip(bounds, bounds[1:], strict=False)
        )
        running = [_pool(os.getpid()).submit(self._run, numbers, *part) for part in others]
        self._run(numbers, *own)
        for each in running:
            each.result()
        return value, gradient

    def _run(
        self,
        numbers: ndarray,
        value: ndarray,
        gradient: ndarray,
        pred: ndarray,
        target: ndarray,
        *arrays: ndarray,
    ) -> None:
        """Compute the value and the gradient of some rows."""
        rows = {f"array{k}": array for k, array in enumerate(arrays)}
        rows["pred"], rows["target"] = pred.reshape(-1), target.reshape(-1)
        rows["gradient"] = gradient.reshape(-1)
        for loop, arguments, calls in self.stages:
            outputs = [np.empty_like(value) for _ in arguments]
            loop(numbers, outputs, rows)
            for index, name, argument, *exponent in calls:
                constants = [numbers[len(_NUMBERS) + 1 + ~each] for each in exponent[:1]]
                rows[_call(index)] = _CALLS[name](outputs[arguments.index(argument)], *constants)
        self.last(numbers, [value], rows)


class _Loop:
    """The compiled loop that computes some operations and, if asked for, the gradient of the first.

    Args:
        operations: the operations.
        outputs: those whose values are written.
        columns: the number of columns of ``pred``.
        has_gradient: whether the gradient is computed.
    """

    def __init__(
        self,
        operations: Sequence[Operation],
        outputs: Sequence[int],
        columns: int,
        has_gradient: bool = False,
    ) -> None:
        needed = _needed(operations, outputs)
        self.inputs: dict[str, None] = {}  # the arrays that the loop reads, and the gradient
        body = [*self._values(operations, needed, columns)]
        body += [f"out{k}[i] = {_name(output)}" for k, output in enumerate(outputs)]
        if has_gradient:
            self.inputs["gradient"] = None
            body += _derivative(operations, outputs[0], needed, columns)
        used = {~operand for index in needed for operand in _operands(operations[index])}
        used |= {~output for output in outputs}
        names = [*_NUMBERS, "seed", *(f"c{k}" for k in range(max(used) + 1))]
        parameters = ["numbers", *(f"out{k}" for k in range(len(outputs))), *self.inputs]
        lines = [f"{name} = numbers[{k}]" for k, name in enumerate(names)]
        lines += ["for i in range(len(out0)):", *(f"    {line}" for line in body)]
        source = [f"def kernel({', '.join(parameters)}):", *(f"    {line}" for line in lines)]
        self.function = _compiled("\n".join(["import numpy as np", "", "", *source, ""]))

    def __call__(
        self, numbers: ndarray, outputs: Sequence[ndarray], rows: Mapping[str, ndarray]
    ) -> None:
        """Run the loop."""
        self.function(numbers, *outputs, *[rows[name] for name in self.inputs])

    def _values(
        self, operations: Sequence[Operation], needed: Iterable[int], columns: int
    ) -> Iterator[str]:
        for index in needed:
            name, *operands = operations[index]
            if name in OPERATIONS and name not in _CALLS:
                yield f"{_name(index)} = {OPERATIONS[name][0].format(*map(_name, operands))}"
                continue
            array, place = name, f"{columns} * i + {operands[0]}"
            if name in _CALLS or name == "array":
                array, place = _call(index) if name in _CALLS else f"array{operands[0]}", "i"
            self.inputs[array] = None
            yield f"{_name(index)} = {array}[{place}]"


def _derivative(
    operations: Sequence[Operation], result: int, needed: Sequence[int], columns: int
) -> Iterator[str]:
    """Yield the lines that compute the gradient, from the result back to ``pred``."""
    terms: dict[int, list[str]] = {result: ["seed"]}  # of the derivative by each operation
    depends = _depends_on_pred(operations, needed)
    by_column = ["zero"] * columns
    for index in reversed(needed):
        if index not in depends or index not in terms:
            continue
        gradient = f"g{index}"
        yield f"{gradient} = {' + '.join(terms[index])}"
        name, *operands = operations[index]
        if name == "pred":
            by_column[operands[0]] = gradient
            continue
        names = [_name(operand) for operand in operands]
        for operand, term in zip(operands, OPERATIONS[name][1:], strict=True):
            if term is not None and operand in depends:
                expression = term.format(*names, v=_name(index), g=gradient)
                terms.setdefault(operand, []).append(expression)
    for column, gradient in enumerate(by_column):
        yield f"gradient[{columns} * i + {column}] = {gradient}"


def _needed(operations: Sequence[Operation], outputs: Iterable[int]) -> list[int]:
    """Return the operations that the outputs depend on, in their order."""
    needed: set[int] = set()
    waiting = list(outputs)
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


def _call(index: int) -> str:
    """Return the array with the result of a call."""
    return f"call{index}"


@functools.cache
def _compiled(source: str) -> Callable[..., None]:
    import numba  # takes 0.2 s, which a training on a GPU does not need

    path = cache_root() / "kernels" / f"{hashlib.sha256(source.encode()).hexdigest()[:20]}.py"
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, source)
        cached = os.access(path.parent, os.W_OK)
    except OSError:
        cached = False
    scope = {"__name__": __name__}  # numba imports it for code from its cache
    exec(compile(source, str(path), "exec"), scope)
    return numba.njit(scope["kernel"], cache=cached, nogil=True, error_model="numpy")
