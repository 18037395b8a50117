"""Which boxes a detector can be trained on: those with an anchor, or a location, of their own.

torchvision's matchers also give the best anchor of a box to it, however small its IoU. Such a box
has one or two anchors that it fits badly, so it does not count as covered here.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import nn
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from det_losses.models.detector import Detector

_PROBE = 256  # side of the image that shows the strides, pixels
# The matcher of an RPN has 0.7, which 64% of COCO's boxes do not reach with the published anchors.
# They are found none the less, because an RPN refines the best anchor of each box.
_LOCALISED = 0.5


class Targets(Protocol):
    """How a detector assigns boxes to the positions of its feature maps."""

    strides: tuple[int, ...]
    threshold: float

    def covers(self, boxes: np.ndarray, padded: np.ndarray) -> np.ndarray:
        """Return ``[N]``: whether each box alone would get a position.

        Args:
            boxes: ``[N, 4]`` xyxy, pixels of the resized image.
            padded: ``[N, 2]`` width and height of its image with padding.
        """

    def scaled(self, factor: float) -> "Targets":
        """Return the same with sizes multiplied by a factor and rounded."""


@dataclass(frozen=True)
class Anchors:
    """Anchors of RetinaNet and of an RPN.

    Attributes:
        sizes: square root of the areas, for each level.
        ratios: heights divided by widths, for each level.
        strides: of the levels, pixels.
        threshold: IoU from which on an anchor is positive.
    """

    sizes: tuple[tuple[float, ...], ...]
    ratios: tuple[tuple[float, ...], ...]
    strides: tuple[int, ...]
    threshold: float

    def covers(self, boxes: np.ndarray, padded: np.ndarray) -> np.ndarray:
        """Return whether an anchor has an IoU of at least the threshold with each box."""
        return self.best_iou(boxes, padded) >= self.threshold

    def best_iou(self, boxes: np.ndarray, padded: np.ndarray) -> np.ndarray:
        """Return the largest IoU of each box with an anchor, ``[N]``.

        With anchors of one shape, the IoU falls with the distance of the centres in x and in y, so
        the nearest position has the largest.
        """
        sides, centres = boxes[:, 2:] - boxes[:, :2], (boxes[:, :2] + boxes[:, 2:]) / 2
        best = np.zeros(len(boxes))
        for stride, shapes in zip(self.strides, self._shapes(), strict=True):
            distance = np.abs(centres - _nearest(centres, *_grid(stride, padded)))
            for shape in shapes:
                overlap = np.minimum((sides + shape) / 2 - distance, np.minimum(sides, shape))
                shared = overlap.clip(min=0).prod(axis=1)
                union = sides.prod(axis=1) + shape.prod() - shared
                best = np.maximum(best, shared / union)
        return best

    def _shapes(self) -> Iterator[np.ndarray]:
        """Yield width and height of the anchors of each level, rounded as in torchvision."""
        for sizes, ratios in zip(self.sizes, self.ratios, strict=True):
            root = np.sqrt(np.array(ratios, np.float32))[:, None]
            own = np.array(sizes, np.float32)[None]
            yield 2 * np.stack([own / root / 2, own * root / 2], axis=-1).round().reshape(-1, 2)

    def scaled(self, factor: float) -> "Anchors":
        """Return anchors with other sizes, in whole pixels."""
        levels = [tuple(max(2, round(size * factor)) for size in level) for level in self.sizes]
        return replace(self, sizes=tuple(levels))


@dataclass(frozen=True)
class Locations:
    """Locations of FCOS.

    Attributes:
        sizes: side of the square anchor of each level, which is the unit of distances.
        strides: of the levels, pixels.
        radius: of centre sampling, in units of the sizes.
    """

    sizes: tuple[float, ...]
    strides: tuple[int, ...]
    radius: float
    threshold: float = 0.0

    def covers(self, boxes: np.ndarray, padded: np.ndarray) -> np.ndarray:
        """Return whether each box has a location that it is assigned to.

        That is one inside of it, near its centre, on a level whose range contains the largest
        distance to a side.
        """
        sides, centres = boxes[:, 2:] - boxes[:, :2], (boxes[:, :2] + boxes[:, 2:]) / 2
        found = np.zeros(len(boxes), dtype=bool)
        for level, (size, stride) in enumerate(zip(self.sizes, self.strides, strict=True)):
            low = 4 * size if level else 0.0
            high = 8 * size if level + 1 < len(self.sizes) else math.inf
            most = np.minimum(sides / 2, self.radius * size)  # distance from the centre, exclusive
            most = np.minimum(most, high - sides / 2)
            farthest = _farthest(centres, most, *_grid(stride, padded))
            largest = (sides / 2 + farthest).max(axis=1)  # NaN without a location
            found |= largest > low
        return found

    def scaled(self, factor: float) -> "Locations":
        """Return locations with other sizes, in even pixels, as torchvision rounds half of them."""
        return replace(self, sizes=tuple(max(2, 2 * round(s * factor / 2)) for s in self.sizes))


def _grid(stride: int, padded: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distance of the positions of a level and their number, each ``[N, 2]``."""
    count = np.ceil(padded / stride)
    return padded // count, count


def _nearest(centres: np.ndarray, step: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Return the position of a level that is nearest to each centre, ``[N, 2]``."""
    return step * np.clip(np.round(centres / step), 0, count - 1)


def _farthest(
    centres: np.ndarray, most: np.ndarray, step: np.ndarray, count: np.ndarray
) -> np.ndarray:
    """Return the largest distance below ``most`` of a position, in x and y; NaN without any."""
    near = np.clip(np.round(centres / step), 0, count - 1)
    reach = int(np.ceil(most.max(initial=0) / step.min(initial=np.inf)))
    found = np.full(centres.shape, np.nan)
    for offset in range(-reach, reach + 1):
        place = near + offset
        distance = np.abs(step * place - centres)
        allowed = (place >= 0) & (place < count) & (distance < most)
        found = np.fmax(found, np.where(allowed, distance, np.nan))
    return found


def targets_of(model: Detector) -> Targets | None:
    """Return how a detector assigns boxes; None for a kind that is not known here."""
    detector = model.detector
    generator = getattr(getattr(detector, "rpn", detector), "anchor_generator", None)
    if generator is None:
        return None
    strides = _strides(detector.backbone)
    if len(strides) != len(generator.sizes):
        return None
    if hasattr(detector, "center_sampling_radius"):
        widths = tuple(float(cell[0, 2] - cell[0, 0]) for cell in generator.cell_anchors)
        return Locations(widths, strides, float(detector.center_sampling_radius))
    matcher = getattr(detector, "rpn", detector).proposal_matcher
    return Anchors(
        tuple(tuple(map(float, level)) for level in generator.sizes),
        tuple(tuple(map(float, level)) for level in generator.aspect_ratios),
        strides,
        min(matcher.high_threshold, _LOCALISED),
    )


def _strides(backbone: nn.Module) -> tuple[int, ...]:
    """Return the stride of each feature map, shown by a blank image."""
    first = next(backbone.parameters())
    with _evaluating(backbone), torch.no_grad():
        levels = backbone(torch.zeros(1, 3, _PROBE, _PROBE, device=first.device, dtype=first.dtype))
    return tuple(round(_PROBE / level.shape[-1]) for level in levels.values())


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    modes = {each: each.training for each in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for each, training in modes.items():
            each.training = training


def resized(
    transform: GeneralizedRCNNTransform, boxes: np.ndarray, sizes: np.ndarray, scale: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Return boxes in the resized image, and the size of that image with padding.

    Of several ``min_size``, from which training draws, the boxes get one after the other.

    Args:
        transform: of the detector.
        boxes: ``[N, 4]`` xyxy, pixels.
        sizes: ``[N, 2]`` width and height of their images.
        scale: factor by which ``min_size`` and ``max_size`` are multiplied.
    """
    smallest = np.resize(np.array(transform.min_size, float), len(boxes)) * scale
    ratio = np.minimum(smallest / sizes.min(axis=1), transform.max_size * scale / sizes.max(axis=1))
    new = np.floor(sizes * ratio[:, None] + 1e-4)
    if transform.fixed_size is not None:
        new = np.broadcast_to(np.array(transform.fixed_size, float) * scale, sizes.shape)
    factor = new / sizes
    padded = np.ceil(new / transform.size_divisible) * transform.size_divisible
    return boxes * np.tile(factor, 2), padded
