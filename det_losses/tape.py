"""Reverse-mode differentiation of elementwise operations on numpy arrays.

Autograd needs several microseconds for each operation on a tensor, which is more than the operation
itself on a thousand boxes. A :class:`Node` needs a fraction of that. It can take the place of a
tensor in the formula of a loss: it has the operators and methods of a tensor, and functions such as
``torch.exp`` accept it. What is not in this file raises :class:`UnsupportedOperation`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

Pull = Callable[[ndarray], None]


def _slope_at_limit() -> bool:
    """Return whether the slope of ``clamp`` at a limit is 1, which depends on torch's version."""
    with torch.enable_grad():
        x = torch.zeros((), requires_grad=True)
        return bool(torch.autograd.grad(x.clamp(min=0), x)[0] == 1)


_above, _below = (np.greater_equal, np.less_equal) if _slope_at_limit() else (np.greater, np.less)


class UnsupportedOperation(Exception):
    """A formula uses an operation that a Node does not have."""


class Node:
    """An array on a tape.

    Args:
        tape: the nodes in the order of their computation, to which this one is added.
        value: the array.
        pull: adds to the gradients of the operands, given the gradient of this node; None, or
            ``torch.no_grad``: the node is a constant.
        always: record the node even under ``torch.no_grad``.
    """

    __slots__ = ("gradient", "pull", "tape", "value")
    __array_ufunc__ = None  # an operation of an array and a node is left to the node
    __class__ = property(lambda self: Tensor)  # a formula may ask isinstance(x, Tensor)

    def __init__(
        self, tape: list["Node"], value: ndarray, pull: Pull | None = None, always: bool = False
    ) -> None:
        self.tape, self.value = tape, value
        self.gradient: ndarray | None = None
        self.pull = pull if always or torch.is_grad_enabled() else None
        if self.pull is not None:
            tape.append(self)

    def add(self, gradient: ndarray) -> None:
        """Add to the gradient of this node; the array itself is kept, and never changed."""
        if self.pull is not None:
            self.gradient = gradient if self.gradient is None else self.gradient + gradient

    def backward(self) -> None:
        """Compute the gradients of the sum of this node with respect to all others of its tape."""
        self.add(np.ones_like(self.value))
        for node in reversed(self.tape):
            if node.gradient is not None:
                node.pull(node.gradient)

    def detach(self) -> Tensor:
        """The values as a tensor, constant in the gradient."""
        return torch.from_numpy(self.value).detach()

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the tensor."""
        return torch.float64 if self.value.dtype == np.float64 else torch.float32

    @property
    def shape(self) -> torch.Size:
        """The shape of the tensor."""
        return torch.Size(self.value.shape)

    def __len__(self) -> int:
        return len(self.value)

    def __getattr__(self, name: str) -> Any:
        raise UnsupportedOperation(name)

    def __bool__(self) -> bool:
        raise UnsupportedOperation("the truth of a node")

    def __iadd__(self, other: "Operand") -> "Node":
        raise UnsupportedOperation("an operator in place, which changes other names of the tensor")

    __isub__ = __imul__ = __itruediv__ = __ipow__ = __iadd__

    def __add__(self, other: "Operand") -> "Node":
        if isinstance(other, Node):

            def pull(gradient: ndarray) -> None:
                self.add(gradient)
                other.add(gradient)

            return Node(self.tape, self.value + other.value, pull)
        return Node(self.tape, self.value + _array(other), self.add)

    __radd__ = __add__

    def __neg__(self) -> "Node":
        return Node(self.tape, -self.value, lambda gradient: self.add(-gradient))

    def __sub__(self, other: "Operand") -> "Node":
        if isinstance(other, Node):

            def pull(gradient: ndarray) -> None:
                self.add(gradient)
                other.add(-gradient)

            return Node(self.tape, self.value - other.value, pull)
        return Node(self.tape, self.value - _array(other), self.add)

    def __rsub__(self, other: "Constant") -> "Node":
        return Node(self.tape, _array(other) - self.value, lambda gradient: self.add(-gradient))

    def __mul__(self, other: "Operand") -> "Node":
        if isinstance(other, Node):

            def pull(gradient: ndarray) -> None:
                self.add(gradient * other.value)
                other.add(gradient * self.value)

            return Node(self.tape, self.value * other.value, pull)
        factor = _array(other)
        return Node(self.tape, self.value * factor, lambda gradient: self.add(gradient * factor))

    __rmul__ = __mul__

    def __truediv__(self, other: "Operand") -> "Node":
        if isinstance(other, Node):
            value = self.value / other.value

            def pull(gradient: ndarray) -> None:
                ratio = gradient / other.value
                self.add(ratio)
                other.add(-(ratio * value))

            return Node(self.tape, value, pull)
        divisor = _array(other)
        return Node(self.tape, self.value / divisor, lambda gradient: self.add(gradient / divisor))

    def __rtruediv__(self, other: "Constant") -> "Node":
        value = _array(other) / self.value
        return Node(self.tape, value, lambda gradient: self.add(-(gradient * value / self.value)))

    def __pow__(self, exponent: float) -> "Node":
        if not isinstance(exponent, int | float):
            raise UnsupportedOperation("a power with an exponent that is not a number")
        x = self.value

        def pull(gradient: ndarray) -> None:
            slope = exponent * x ** (exponent - 1) if exponent != 2 else 2 * x
            self.add(gradient * slope if exponent else np.zeros_like(x))

        return Node(self.tape, x * x if exponent == 2 else x**exponent, pull)

    def __eq__(self, other: "Operand") -> Tensor:
        return torch.from_numpy(self.value == _value(other))

    def __ne__(self, other: "Operand") -> Tensor:
        return torch.from_numpy(self.value != _value(other))

    __hash__ = object.__hash__

    def __lt__(self, other: "Operand") -> Tensor:
        return torch.from_numpy(self.value < _value(other))

    def __gt__(self, other: "Operand") -> Tensor:
        return torch.from_numpy(self.value > _value(other))

    def __le__(self, other: "Operand") -> Tensor:
        return torch.from_numpy(self.value <= _value(other))

    def __ge__(self, other: "Operand") -> Tensor:
        return torch.from_numpy(self.value >= _value(other))

    def abs(self) -> "Node":
        """Absolute value, with slope 0 at 0."""
        x = self.value
        return Node(self.tape, np.abs(x), lambda gradient: self.add(gradient * np.sign(x)))

    def exp(self) -> "Node":
        """Exponential."""
        value = np.exp(self.value)
        return Node(self.tape, value, lambda gradient: self.add(gradient * value))

    def log(self) -> "Node":
        """Natural logarithm."""
        return Node(self.tape, np.log(self.value), lambda gradient: self.add(gradient / self.value))

    def sqrt(self) -> "Node":
        """Square root."""
        value = np.sqrt(self.value)
        return Node(self.tape, value, lambda gradient: self.add(gradient / (2 * value)))

    def relu(self) -> "Node":
        """Zero where negative, with slope 0 at 0."""
        x = self.value
        pull = lambda gradient: self.add(_masked(gradient, x > 0))  # noqa: E731
        return Node(self.tape, np.maximum(x, 0), pull)

    def clamp(self, min: float | None = None, max: float | None = None) -> "Node":
        """Limit the values, with torch's slope at the limits."""
        x, inside = self.value, True
        value = x
        if min is not None:
            min = _array(min)
            value, inside = np.maximum(value, min), _above(x, min)
        if max is not None:
            max = _array(max)
            value, inside = np.minimum(value, max), inside & _below(x, max)
        return Node(self.tape, value, lambda gradient: self.add(_masked(gradient, inside)))

    @classmethod
    def __torch_function__(
        cls, function: Callable, types: Sequence[type], args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        handler = _FUNCTIONS.get(function)
        if handler is None:
            raise UnsupportedOperation(getattr(function, "__name__", repr(function)))
        return handler(*args, **(kwargs or {}))


Constant = float | ndarray | Tensor
Operand = Node | Constant


def _array(constant: Constant) -> float | ndarray:
    if not isinstance(constant, Tensor):
        return constant
    if constant.requires_grad or constant.dim() > 1:
        raise UnsupportedOperation("a tensor with a gradient, or with several axes")
    return constant.numpy()


def _value(operand: Operand) -> float | ndarray:
    return operand.value if isinstance(operand, Node) else _array(operand)


def _masked(gradient: ndarray, mask: ndarray | bool) -> ndarray:
    """Return the gradient where the mask is set, and 0 elsewhere, also where it is infinite."""
    product = gradient * mask  # three times as fast as np.where, but infinity times 0 is NaN
    return np.where(mask, gradient, 0) if np.isnan(product.sum()) else product


def _extreme(function: np.ufunc, is_chosen: np.ufunc) -> Callable:
    """Elementwise minimum or maximum; where both are equal, each has half the gradient."""

    def extreme(a: Operand, b: Operand) -> Node:
        x, y = _value(a), _value(b)

        def pull(gradient: ndarray) -> None:
            share = np.where(x == y, 0.5 * gradient, gradient)
            if isinstance(a, Node):
                a.add(_masked(share, is_chosen(x, y)))
            if isinstance(b, Node):
                b.add(_masked(share, is_chosen(y, x)))

        return Node((a if isinstance(a, Node) else b).tape, function(x, y), pull)

    return extreme


def _where(condition: ndarray | Tensor, a: Operand, b: Operand) -> Node:
    chosen = _array(condition)

    def pull(gradient: ndarray) -> None:
        if isinstance(a, Node):
            a.add(np.where(chosen, gradient, 0))
        if isinstance(b, Node):
            b.add(np.where(chosen, 0, gradient))

    node = a if isinstance(a, Node) else b
    value = np.where(chosen, _value(a), _value(b)).astype(node.value.dtype, copy=False)
    return Node(node.tape, value, pull)


def _smooth_l1(pred: Node, target: Operand, *, beta: float, reduction: str, **_: None) -> Node:
    if reduction != "none" or not isinstance(pred, Node) or isinstance(target, Node):
        raise UnsupportedOperation("smooth_l1_loss with a reduction, or of two nodes")
    error = pred.value - _array(target)
    size = np.abs(error)
    value = size - 0.5 * beta
    if beta:
        value = np.where(size < beta, error * error * (0.5 / beta), value)

    def pull(gradient: ndarray) -> None:
        slope = np.clip(error / beta, -1, 1) if beta else np.sign(error)
        pred.add(gradient * slope)

    return Node(pred.tape, value, pull)


_FUNCTIONS: dict[Callable, Callable[..., Any]] = {
    smooth_l1_loss: _smooth_l1,
    torch.abs: Node.abs,
    torch.exp: Node.exp,
    torch.log: Node.log,
    torch.relu: Node.relu,
    torch.sqrt: Node.sqrt,
    torch.maximum: _extreme(np.maximum, np.greater_equal),
    torch.minimum: _extreme(np.minimum, np.less_equal),
    torch.where: _where,
    torch.ones_like: lambda node: torch.from_numpy(np.ones_like(node.value)),
    torch.zeros_like: lambda node: torch.from_numpy(np.zeros_like(node.value)),
    Tensor.add: lambda tensor, node: node + tensor,
    Tensor.sub: lambda tensor, node: node.__rsub__(tensor),
    Tensor.mul: lambda tensor, node: node * tensor,
    Tensor.div: lambda tensor, node: node.__rtruediv__(tensor),
}
