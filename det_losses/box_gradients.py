"""The geometry of pairs of boxes on a tape: gradients in closed form, much faster than autograd.

The quantities of a :class:`TapedPair` (IoU, area of the enclosing box, ...) are nodes of a tape. A
loss computes its terms from them as from the tensors of a :class:`BoxPair`, whose formulas define
the values. The gradient of each quantity is collected in a few arrays, such as the gradient with
respect to the sides of the enclosing box, from which the coordinates get theirs at once.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from det_losses.boxes import BoxPair
from det_losses.tape import Node


class IrregularBoxes(Exception):
    """A box is inverted, not finite, or has a side of at most sqrt(eps) or above _longest()."""


@functools.cache
def _longest(dtype: np.dtype) -> float:
    """Return the longest side of a regular box: products of four lengths do not overflow."""
    return float(np.finfo(dtype).max) ** 0.25


class _once:
    """A property that is computed at first access: ``functools.cached_property`` without a lock."""

    def __init__(self, function: Callable[["TapedPair"], Any]) -> None:
        self.function, self.__doc__ = function, function.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, pair: "TapedPair", owner: type) -> Any:
        value = vars(pair)[self.name] = self.function(pair)
        return value


class TapedPair(BoxPair):
    """N pairs of regular boxes.

    Args:
        pred: predicted boxes, ``[N, 4]``, xyxy, float32 or float64.
        target: their targets, same shape and dtype.
        eps: as for :func:`~det_losses.boxes.box_pair`.
        inputs: further inputs of the loss, by name.

    Raises:
        IrregularBoxes: see there.
    """

    def __init__(
        self,
        pred: ndarray,
        target: ndarray,
        eps: float,
        inputs: Mapping[str, Tensor],
    ) -> None:
        ends = np.empty((2, 4, len(pred)), pred.dtype)
        ends[0], ends[1] = pred.T, target.T
        np.negative(ends[:, :2], out=ends[:, :2])
        vars(self).update(eps=eps, inputs=inputs, _tape=[])
        self._measure(ends)

    def _measure(self, ends: ndarray) -> None:
        """Compute what every loss needs.

        With the signs of x1 and y1 changed, a side is a sum, and the intersection of two boxes is
        the minimum of all four coordinates.

        Args:
            ends: axes: pred and target; -x1, -y1, x2, y2; pairs.

        Raises:
            IrregularBoxes: see there.
        """
        size = ends[:, :2] + ends[:, 2:]
        if not (size.min() > self.eps**0.5 and size.max() < _longest(size.dtype)):
            raise IrregularBoxes
        inner = np.minimum(ends[0], ends[1])
        reach = inner[:2] + inner[2:]
        overlap = np.maximum(reach, 0)
        area = size[:, 0] * size[:, 1]
        intersection = overlap[0] * overlap[1]
        union = area[0] + area[1]
        union -= intersection
        vars(self).update(
            _ends=ends,
            _size=size,
            _reach=reach,  # overlap of the sides, negative for disjoint boxes
            _overlap=overlap,
            _intersection=intersection,
            _union=union,
            _sums={},
        )

    def gradient(self, loss: Node) -> ndarray:
        """Return the gradient of the sum of ``loss`` with respect to ``pred``, ``[N, 4]``."""
        loss.backward()
        ends = self._to_ends(**self._sums)
        np.negative(ends[:2], out=ends[:2])
        return ends.T

    @_once
    def _hull(self) -> ndarray:
        """Sides of the enclosing box: on each axis, they and the overlap add up to w + wg."""
        sides = self._size[0] + self._size[1]
        sides -= self._reach
        return sides

    @_once
    def _hull_area(self) -> ndarray:
        return self._hull[0] * self._hull[1]

    @_once
    def _shift(self) -> ndarray:
        """Pred minus target; negative where the end of pred limits the intersection."""
        return self._ends[0] - self._ends[1]

    @_once
    def _offset(self) -> ndarray:
        """Centre of pred minus centre of target."""
        return (self._shift[2:] - self._shift[:2]) * 0.5

    @_once
    def _growth(self) -> ndarray:
        """Sides of pred minus those of the target."""
        return self._size[0] - self._size[1]

    def _add(self, part: str, gradient: ndarray) -> None:
        known = self._sums.get(part)
        self._sums[part] = gradient if known is None else known + gradient

    def _to_ends(
        self,
        intersection: ndarray | None = None,
        area: ndarray | None = None,
        size: ndarray | None = None,
        hull: ndarray | None = None,
        offset: ndarray | None = None,
        ends: ndarray | None = None,
    ) -> ndarray:
        """Return the gradient of the ends of pred from the gradients of its parts."""
        zero = np.zeros_like(self._reach) if intersection is None or area is None else None
        if intersection is None:
            by_reach = zero
        else:
            by_reach = self._overlap[::-1] * intersection
            by_reach *= self._reach >= 0
        by_size = zero if area is None else self._size[0, ::-1] * area
        if hull is not None:
            by_reach = by_reach - hull
            by_size = by_size + hull
        if size is not None:
            by_size = by_size + size
        # An end limits the intersection or not; of two equal ends, each counts by half.
        by_reach = by_reach * 0.5
        sides = np.sign(self._shift).reshape(2, 2, -1)
        sides *= by_reach
        np.subtract(by_size + by_reach, sides, out=sides)
        if offset is not None:
            half = offset * 0.5
            sides[0] -= half
            sides[1] += half
        by_ends = sides.reshape(4, -1)
        if ends is not None:
            by_ends += ends
        return by_ends

    @_once
    def target(self) -> Tensor:
        """The targets."""
        return torch.from_numpy(np.concatenate([-self._ends[1, :2], self._ends[1, 2:]]).T)

    @_once
    def wg(self) -> Tensor:
        """Widths of the targets."""
        return torch.from_numpy(self._size[1, 0])

    @_once
    def hg(self) -> Tensor:
        """Heights of the targets."""
        return torch.from_numpy(self._size[1, 1])

    @_once
    def iou(self) -> Node:
        """Intersection over union."""
        value = self._intersection / self._union

        def pull(gradient: ndarray) -> None:
            by_intersection = gradient / self._union
            by_union = by_intersection * value
            self._add("intersection", by_intersection + by_union)
            self._add("area", np.negative(by_union, out=by_union))

        return self._node(value, pull)

    @_once
    def intersection(self) -> Node:
        """Area of the intersection."""
        return self._node(self._intersection, lambda g: self._add("intersection", g))

    @_once
    def union(self) -> Node:
        """Area of the union."""

        def pull(gradient: ndarray) -> None:
            self._add("intersection", -gradient)
            self._add("area", gradient)

        return self._node(self._union, pull)

    @_once
    def hull_area(self) -> Node:
        """Area of the enclosing box."""
        return self._node(self._hull_area, lambda g: self._add("hull", self._hull[::-1] * g))

    @_once
    def hull_empty(self) -> Node:
        """Area of the enclosing box outside the union."""

        def pull(gradient: ndarray) -> None:
            self._add("hull", self._hull[::-1] * gradient)
            self._add("intersection", gradient)
            self._add("area", -gradient)

        return self._node(self._hull_area - self._union, pull)

    @property
    def hull_waste(self) -> Node:
        """Fraction of the enclosing box outside the union, 1 - union / hull_area."""
        filled = self._union / self._hull_area

        def pull(gradient: ndarray) -> None:
            by_union = gradient / self._hull_area
            self._add("hull", self._hull[::-1] * (by_union * filled))
            self._add("intersection", by_union)
            self._add("area", -by_union)

        return Node(self._tape, 1 - filled, pull)

    @property
    def center_distance2(self) -> Node:
        """Squared distance of the two centres."""
        return self._length2(self._offset, "offset")

    @property
    def hull_diagonal2(self) -> Node:
        """Squared diagonal of the enclosing box."""
        return self._length2(self._hull, "hull")

    @property
    def angle_gap(self) -> Node:
        """Difference of the aspect ratios as angles."""
        pred, target = np.arctan(self._size[:, 0] / self._size[:, 1])

        def pull(gradient: ndarray) -> None:
            w, h = self._size[0]
            turn = gradient / (w * w + h * h)
            self._add("size", np.stack([-turn * h, turn * w]))

        return Node(self._tape, target - pred, pull)

    w = _once(lambda self: self._axis(0, self._size[0], "size"))
    h = _once(lambda self: self._axis(1, self._size[0], "size"))
    dx = _once(lambda self: self._axis(0, self._offset, "offset"))
    dy = _once(lambda self: self._axis(1, self._offset, "offset"))
    hull_w = _once(lambda self: self._axis(0, self._hull, "hull"))
    hull_h = _once(lambda self: self._axis(1, self._hull, "hull"))
    hull_w2 = property(lambda self: self._axis2(0, self._hull, "hull"))
    hull_h2 = property(lambda self: self._axis2(1, self._hull, "hull"))
    dw2 = property(lambda self: self._axis2(0, self._growth, "size"))
    dh2 = property(lambda self: self._axis2(1, self._growth, "size"))

    @property
    def edges(self) -> tuple[Node, ...]:
        """x1, y1, x2 and y2 of the predicted boxes."""
        return tuple(self._edge(axis) for axis in range(4))

    def interpolated(self, alpha: float | Tensor) -> BoxPair:
        """The pair of the interpolated box (1 - alpha) * pred + alpha * target and the target."""
        rest = 1 - (alpha.numpy() if isinstance(alpha, Tensor) else alpha)
        moved = np.stack([self._ends[1] + rest * self._shift, self._ends[1]])
        return self._moved(moved, lambda gradient: rest * gradient)

    def scaled(self, ratio: float) -> BoxPair:
        """The pair with both boxes scaled by ``ratio`` about their own centres."""
        return self._moved(_scaled(self._ends, ratio), lambda gradient: _scaled(gradient, ratio))

    def _node(self, value: ndarray, pull: Callable[[ndarray], None]) -> Node:
        # A field of a BoxPair has a gradient wherever it is read, and the node is read again.
        return Node(self._tape, value, pull, always=True)

    def _moved(self, ends: ndarray, back: Callable[[ndarray], ndarray]) -> BoxPair:
        """The pair of transformed boxes; ``back`` is the transposed map, for the gradient."""
        pair = object.__new__(TapedPair)
        vars(pair).update(eps=self.eps, inputs=self.inputs, _tape=self._tape)
        pair._measure(ends)
        pull = lambda parts: self._add("ends", back(pair._to_ends(**parts)))  # noqa: E731
        if torch.is_grad_enabled():
            self._tape.append(_Source(pair, pull))  # before the nodes of the pair
        return pair

    def _axis(self, axis: int, part: ndarray, name: str) -> Node:
        """One row of a part."""

        def pull(gradient: ndarray) -> None:
            both = np.zeros_like(part)
            both[axis] = gradient
            self._add(name, both)

        return self._node(part[axis], pull)

    def _axis2(self, axis: int, part: ndarray, name: str) -> Node:
        """The square of one row of a part."""

        def pull(gradient: ndarray) -> None:
            both = np.zeros_like(part)
            np.multiply(part[axis], 2 * gradient, out=both[axis])
            self._add(name, both)

        return Node(self._tape, part[axis] * part[axis], pull)

    def _length2(self, part: ndarray, name: str) -> Node:
        """The sum of the squares of both rows of a part."""
        squares = part * part
        return Node(
            self._tape,
            squares[0] + squares[1],
            lambda gradient: self._add(name, part * (2 * gradient)),
        )

    def _edge(self, axis: int) -> Node:
        sign = -1 if axis < 2 else 1

        def pull(gradient: ndarray) -> None:
            ends = np.zeros_like(self._ends[0])
            np.multiply(gradient, sign, out=ends[axis])
            self._add("ends", ends)

        return Node(self._tape, sign * self._ends[0, axis], pull)


def _scaled(ends: ndarray, ratio: float) -> ndarray:
    """Scale boxes, given by their ends ``[..., 4, N]``, about their centres."""
    low, high = ends[..., :2, :], ends[..., 2:, :]
    own, other = (1 + ratio) / 2, (ratio - 1) / 2
    return np.concatenate([own * low + other * high, own * high + other * low], axis=-2)


@dataclass(frozen=True)
class _Source:
    """The place on the tape of a pair that was made from another one, before its own nodes."""

    pair: TapedPair
    pull: Callable[[Mapping[str, ndarray]], None]

    @property
    def gradient(self) -> Mapping[str, ndarray] | None:
        """The gradients of the parts of the pair, if it has any."""
        return self.pair._sums or None
