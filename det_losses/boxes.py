"""Geometry of aligned box pairs. All box arithmetic of the losses is here."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from det_losses.errors import InputError
from det_losses.tensors import aligned


@dataclass(frozen=True)
class BoxPair:
    """The geometry of N predicted boxes and their targets; built by :func:`box_pair`.

    The "hull" is the smallest enclosing box of a pair. ``hull_area``, ``hull_w2``, ``hull_h2`` and
    ``hull_diagonal2`` serve as denominators and are clamped above zero. All others are exact.

    Attributes:
        edges: x1, y1, x2 and y2 of ``pred`` in pixels, each ``[N]`` like all attributes below;
            float32 or float64.
        target_edges: those of ``target``.
        eps: smallest denominator, an area; lengths are clamped at its square root.
        w, h: sides of ``pred``, negative if it is inverted.
        wg, hg: sides of ``target``.
        dx, dy: centre of ``pred`` minus centre of ``target``.
        hull_w, hull_h: sides of the enclosing box.
        hull_area: area of the enclosing box.
        hull_empty: area of the enclosing box outside the union.
        intersection, union: areas; an inverted box has area 0.
        iou: intersection over union.
        inputs: further inputs of the loss, by name.
    """

    edges: tuple[Tensor, ...]
    target_edges: tuple[Tensor, ...]
    eps: float
    w: Tensor
    h: Tensor
    wg: Tensor
    hg: Tensor
    dx: Tensor
    dy: Tensor
    hull_w: Tensor
    hull_h: Tensor
    hull_area: Tensor
    hull_empty: Tensor
    intersection: Tensor
    union: Tensor
    iou: Tensor
    inputs: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def pred(self) -> Tensor:
        """The predicted boxes, ``[N, 4]``."""
        return torch.stack(self.edges, -1)

    @property
    def target(self) -> Tensor:
        """The targets, ``[N, 4]``."""
        return torch.stack(self.target_edges, -1)

    @property
    def center_distance2(self) -> Tensor:
        """Squared distance of the two centres."""
        return self.dx**2 + self.dy**2

    @property
    def hull_waste(self) -> Tensor:
        """Fraction of the enclosing box outside the union."""
        return self.hull_empty / self.hull_area

    @property
    def hull_diagonal2(self) -> Tensor:
        """Squared diagonal of the enclosing box."""
        return (self.hull_w**2 + self.hull_h**2).clamp(min=self.eps)

    @property
    def hull_w2(self) -> Tensor:
        """Squared width of the enclosing box."""
        return (self.hull_w**2).clamp(min=self.eps)

    @property
    def hull_h2(self) -> Tensor:
        """Squared height of the enclosing box."""
        return (self.hull_h**2).clamp(min=self.eps)

    @property
    def dw2(self) -> Tensor:
        """Squared difference of the widths."""
        return (self.w - self.wg) ** 2

    @property
    def dh2(self) -> Tensor:
        """Squared difference of the heights."""
        return (self.h - self.hg) ** 2

    @property
    def angle_gap(self) -> Tensor:
        """Difference of the aspect ratios as angles: atan(wg / hg) - atan(w / h)."""
        side = self.eps**0.5
        w, h, wg, hg = (size.clamp(min=side) for size in (self.w, self.h, self.wg, self.hg))
        return torch.atan(wg / hg) - torch.atan(w / h)

    @property
    def size_gaps(self) -> tuple[Tensor, Tensor]:
        """Relative differences of width and height, |w - wg| / max(w, wg).

        They exceed 1 if ``pred`` is inverted; an inverted ``target`` counts as having size 0.
        """
        side = self.eps**0.5
        wg, hg = self.wg.clamp(min=0), self.hg.clamp(min=0)
        return (
            (self.w - wg).abs() / torch.maximum(self.w, wg).clamp(min=side),
            (self.h - hg).abs() / torch.maximum(self.h, hg).clamp(min=side),
        )

    @property
    def edge_offsets(self) -> tuple[Tensor, ...]:
        """Offsets of x1, y1, x2 and y2 from those of the target."""
        pairs = zip(self.edges, self.target_edges, strict=True)
        return tuple(edge - target for edge, target in pairs)

    @property
    def extended_iou(self) -> Tensor:
        """IoU whose intersection is negative for disjoint boxes, see ExtendedIoULoss."""
        x1, y1, x2, y2 = self.edges
        x1g, y1g, x2g, y2g = self.target_edges
        overlap_w, gap_w, lead_w = _overlap_and_gap(x1, x2, x1g, x2g)
        overlap_h, gap_h, lead_h = _overlap_and_gap(y1, y2, y1g, y2g)
        missing = (
            gap_w * (2 * lead_h + overlap_h) + gap_h * (2 * lead_w + overlap_w) + 2 * gap_w * gap_h
        )
        union = _denominator(self.union + missing, self.hull_w, self.hull_h, self.eps)
        return (self.intersection - missing) / union

    def interpolated(self, alpha: float | Tensor) -> "BoxPair":
        """The pair of the interpolated box (1 - alpha) * pred + alpha * target and the target."""
        rest = 1 - alpha
        pairs = zip(self.edges, self.target_edges, strict=True)
        moved = tuple(target + rest * (edge - target) for edge, target in pairs)
        return geometry(moved, self.target_edges, self.eps, self.inputs)

    def scaled(self, ratio: float) -> "BoxPair":
        """The pair with both boxes scaled by ``ratio`` about their own centres."""
        edges, target_edges = _scaled(self.edges, ratio), _scaled(self.target_edges, ratio)
        return geometry(edges, target_edges, self.eps, self.inputs)


def box_pair(
    pred: Tensor,
    target: Tensor,
    eps: float = 1e-7,
    inputs: Mapping[str, Tensor] | None = None,
) -> BoxPair:
    """Compute the geometry of pairs: sizes, centres, intersection, union and enclosing box.

    Values are exact if one box of the pair has both sides above ``sqrt(eps)``. Values and gradients
    of other pairs are finite. An inverted box has area 0 and overlaps nothing.

    Args:
        pred: predicted boxes, ``[N, 4]`` (or any leading shape), xyxy, pixels; half precision is
            upcast to float32.
        target: their targets, the same shape.
        eps: smallest denominator, an area in square pixels.
        inputs: further inputs of the loss, by name.

    Raises:
        InputError: eps is negative, the shapes differ, or the last axis is not 4.
    """
    if eps < 0:
        raise InputError(f"eps must be at least 0, got {eps!r}")
    if pred.shape[-1:] != (4,):
        raise InputError(f"boxes must have 4 values (x1, y1, x2, y2), got shape {list(pred.shape)}")
    pred, target = aligned(pred, target)
    return geometry(pred.unbind(-1), target.unbind(-1), eps, inputs or {})


def geometry(
    edges: tuple[Tensor, ...],
    target_edges: tuple[Tensor, ...],
    eps: float,
    inputs: Mapping[str, Tensor],
) -> BoxPair:
    """Compute the geometry of pairs from x1, y1, x2 and y2 of both boxes; see :func:`box_pair`."""
    x1, y1, x2, y2 = edges
    x1g, y1g, x2g, y2g = target_edges
    w, h, wg, hg = x2 - x1, y2 - y1, x2g - x1g, y2g - y1g
    overlap_w = _length(torch.minimum(x2, x2g) - torch.maximum(x1, x1g))
    overlap_h = _length(torch.minimum(y2, y2g) - torch.maximum(y1, y1g))
    intersection = overlap_w * overlap_h
    union = _length(w) * _length(h) + _length(wg) * _length(hg) - intersection
    hull_w = _extent(x1, x2, x1g, x2g)
    hull_h = _extent(y1, y2, y1g, y2g)
    return BoxPair(
        edges=edges,
        target_edges=target_edges,
        eps=eps,
        w=w,
        h=h,
        wg=wg,
        hg=hg,
        dx=((x1 - x1g) + (x2 - x2g)) / 2,
        dy=((y1 - y1g) + (y2 - y2g)) / 2,
        hull_w=hull_w,
        hull_h=hull_h,
        hull_area=_denominator(hull_w * hull_h, hull_w, hull_h, eps),
        hull_empty=hull_w * hull_h - union,
        intersection=intersection,
        union=union,
        iou=intersection / _denominator(union, overlap_w, overlap_h, eps),
        inputs=inputs,
    )


def _scaled(edges: tuple[Tensor, ...], ratio: float) -> tuple[Tensor, ...]:
    """Scale boxes about their centres."""
    centers = [(low + high) / 2 for low, high in zip(edges[:2], edges[2:], strict=True)]
    halves = [(high - low) * (ratio / 2) for low, high in zip(edges[:2], edges[2:], strict=True)]
    ends = list(zip(centers, halves, strict=True))
    return (*(center - half for center, half in ends), *(center + half for center, half in ends))


def _length(x: Tensor) -> Tensor:
    """Clamp a length at 0, with slope 1 at 0, so a box without width has a gradient."""
    return torch.where(x < 0, 0.0, x)


def _extent(a1: Tensor, a2: Tensor, b1: Tensor, b2: Tensor) -> Tensor:
    """Length of the interval that covers four ends in any order."""
    low = torch.minimum(torch.minimum(a1, a2), torch.minimum(b1, b2))
    high = torch.maximum(torch.maximum(a1, a2), torch.maximum(b1, b2))
    return high - low


def _overlap_and_gap(
    a1: Tensor, a2: Tensor, b1: Tensor, b2: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return overlap and gap of two intervals, and their distance from the lowest end."""
    start, end = torch.maximum(a1, b1), torch.minimum(a2, b2)
    low = torch.minimum(torch.minimum(a1, a2), torch.minimum(b1, b2))
    return _length(end - start), torch.relu(start - end), torch.minimum(start, end) - low


def _denominator(area: Tensor, w: Tensor, h: Tensor, eps: float) -> Tensor:
    """Clamp the denominator of a ratio whose numerator is w * h above zero.

    A side below sqrt(eps) counts as sqrt(eps). So the gradient of the ratio is at most 1 /
    sqrt(eps), which float16 can represent. Clamping at eps alone would allow h / eps.
    """
    return torch.maximum(area, eps**0.5 * torch.maximum(w, h)).clamp(min=eps)
