"""Aligned pairs of boxes: the only box arithmetic of the losses."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from det_losses.tensors import aligned


@dataclass(frozen=True)
class BoxPair:
    """The geometry of N predicted boxes, each beside its target; made by :func:`box_pair`.

    What stands in a denominator (``hull_area``, ``hull_w2``, ``hull_h2``, ``hull_diagonal2``) is
    held above zero; everything else is exact.

    Attributes:
        pred: predicted boxes, ``[N, 4]``, xyxy, pixels; float32 or float64.
        target: their targets, likewise.
        eps: the smallest denominator, an area; lengths are held at its square root.
        w, h: sizes of ``pred``, negative where it is inverted, ``[N]`` as all that follows.
        wg, hg: sizes of ``target``.
        dx, dy: centre of ``pred`` minus centre of ``target``.
        hull_w, hull_h: sizes of the smallest box that encloses both.
        hull_area: area of that box.
        hull_empty: the part of that area which the union leaves empty.
        intersection, union: areas; an inverted box has none.
        iou: intersection over union.
        inputs: what a loss asks for beside the boxes, by name.
    """

    pred: Tensor
    target: Tensor
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
    def center_distance2(self) -> Tensor:
        """Squared distance of the two centres."""
        return self.dx**2 + self.dy**2

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
        """Difference of the aspect ratios as angles, atan(wg / hg) - atan(w / h)."""
        side = self.eps**0.5
        w, h, wg, hg = (size.clamp(min=side) for size in (self.w, self.h, self.wg, self.hg))
        return torch.atan(wg / hg) - torch.atan(w / h)

    @property
    def size_gaps(self) -> tuple[Tensor, Tensor]:
        """Relative differences of width and height, |w - wg| / max(w, wg).

        Above 1 if ``pred`` is inverted; an inverted ``target`` counts as one without size.
        """
        side = self.eps**0.5
        wg, hg = self.wg.clamp(min=0), self.hg.clamp(min=0)
        return (
            (self.w - wg).abs() / torch.maximum(self.w, wg).clamp(min=side),
            (self.h - hg).abs() / torch.maximum(self.h, hg).clamp(min=side),
        )

    @property
    def edge_offsets(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Offsets of x1, y1, x2 and y2 from those of the target."""
        x1, y1, x2, y2 = (self.pred - self.target).unbind(-1)
        return x1, y1, x2, y2

    @property
    def extended_iou(self) -> Tensor:
        """IoU whose intersection goes on below 0 where the boxes are apart."""
        x1, y1, x2, y2 = self.pred.unbind(-1)
        x1g, y1g, x2g, y2g = self.target.unbind(-1)
        overlap_w, gap_w, lead_w = _meeting(x1, x2, x1g, x2g)
        overlap_h, gap_h, lead_h = _meeting(y1, y2, y1g, y2g)
        missing = (
            gap_w * (2 * lead_h + overlap_h) + gap_h * (2 * lead_w + overlap_w) + 2 * gap_w * gap_h
        )
        union = _denominator(self.union + missing, self.hull_w, self.hull_h, self.eps)
        return (self.intersection - missing) / union

    def interpolated(self, alpha: float | Tensor) -> "BoxPair":
        """The predicted box moved towards the target by the part ``alpha``, beside the target."""
        rest = (1 - alpha).unsqueeze(-1) if isinstance(alpha, Tensor) else 1 - alpha
        moved = self.target + rest * (self.pred - self.target)
        return box_pair(moved, self.target, self.eps, self.inputs)

    def scaled(self, ratio: float) -> "BoxPair":
        """Both boxes with their sides times ``ratio``, about their own centres."""
        return box_pair(
            _scaled(self.pred, ratio), _scaled(self.target, ratio), self.eps, self.inputs
        )


def box_pair(
    pred: Tensor,
    target: Tensor,
    eps: float = 1e-7,
    inputs: Mapping[str, Tensor] | None = None,
) -> BoxPair:
    """Build the pairs: upcast, sizes, centres, intersection, union and enclosing box.

    Values are exact for every pair in which one box has both sides above ``sqrt(eps)``. For the
    others value and gradient stay finite. An inverted box has no area and overlaps nothing.

    Args:
        pred: predicted boxes, ``[N, 4]`` (or any leading shape), xyxy, pixels; half precision is
            raised to float32.
        target: their targets, the same shape.
        eps: the smallest denominator, an area in square pixels.
        inputs: what the loss asks for beside the boxes.

    Raises:
        ValueError: the shapes differ, or their last axis is not 4.
    """
    if pred.shape[-1:] != (4,):
        raise ValueError(f"boxes must have 4 values (x1, y1, x2, y2), got shape {list(pred.shape)}")
    pred, target = aligned(pred, target)
    x1, y1, x2, y2 = pred.unbind(-1)
    x1g, y1g, x2g, y2g = target.unbind(-1)
    w, h, wg, hg = x2 - x1, y2 - y1, x2g - x1g, y2g - y1g
    overlap_w = _length(torch.minimum(x2, x2g) - torch.maximum(x1, x1g))
    overlap_h = _length(torch.minimum(y2, y2g) - torch.maximum(y1, y1g))
    intersection = overlap_w * overlap_h
    union = _length(w) * _length(h) + _length(wg) * _length(hg) - intersection
    hull_w = _extent(x1, x2, x1g, x2g)
    hull_h = _extent(y1, y2, y1g, y2g)
    return BoxPair(
        pred=pred,
        target=target,
        eps=eps,
        w=w,
        h=h,
        wg=wg,
        hg=hg,
        dx=(x1 + x2 - x1g - x2g) / 2,
        dy=(y1 + y2 - y1g - y2g) / 2,
        hull_w=hull_w,
        hull_h=hull_h,
        hull_area=_denominator(hull_w * hull_h, hull_w, hull_h, eps),
        hull_empty=hull_w * hull_h - union,
        intersection=intersection,
        union=union,
        iou=intersection / _denominator(union, overlap_w, overlap_h, eps),
        inputs=inputs or {},
    )


def _scaled(boxes: Tensor, ratio: float) -> Tensor:
    first, second = boxes.split(2, dim=-1)
    center, half = (first + second) / 2, (second - first) * (ratio / 2)
    return torch.cat([center - half, center + half], dim=-1)


def _length(x: Tensor) -> Tensor:
    """Hold a length at zero; its slope at zero is 1, so that a box without width can grow."""
    return torch.where(x < 0, 0.0, x)


def _extent(a1: Tensor, a2: Tensor, b1: Tensor, b2: Tensor) -> Tensor:
    """Length of the interval that covers all four ends, in whatever order they stand."""
    low = torch.minimum(torch.minimum(a1, a2), torch.minimum(b1, b2))
    high = torch.maximum(torch.maximum(a1, a2), torch.maximum(b1, b2))
    return high - low


def _meeting(a1: Tensor, a2: Tensor, b1: Tensor, b2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Length that two intervals share, the gap between them, and what their hull has before it."""
    start, end = torch.maximum(a1, b1), torch.minimum(a2, b2)
    low = torch.minimum(torch.minimum(a1, a2), torch.minimum(b1, b2))
    return _length(end - start), torch.relu(start - end), torch.minimum(start, end) - low


def _denominator(area: Tensor, w: Tensor, h: Tensor, eps: float) -> Tensor:
    """Hold an area that a ratio of w * h is divided by above zero.

    A side below sqrt(eps) counts as sqrt(eps), so the ratio's gradient stays below 1 / sqrt(eps),
    which even float16 can hold; eps alone would let h / eps through.
    """
    return torch.maximum(area, eps**0.5 * torch.maximum(w, h)).clamp(min=eps)
