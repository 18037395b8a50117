"""Inputs that fit any loss, and the geometry of awkward boxes in words."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from det_losses.conformance.case import CLASSES, Case, Inputs
from det_losses.losses.core.base import Loss

# Bins of the examples of a distribution loss, one more than the largest distance.
BINS = 8

Maker = Callable[[int, torch.Generator], Tensor]


def example_inputs(
    loss: Loss,
    n: int = 12,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    makers: Mapping[str, Maker] | None = None,
) -> Inputs:
    """Return ``n`` rows that ``loss`` takes, at random but for the kinds of rows that occur.

    Boxes are hardly ever square; a third is near its target, a third overlaps it, a third is far
    from it. Labels are all classes, the background and, once, ignored.

    Args:
        loss: the loss.
        n: number of rows.
        dtype: of what is floating.
        seed: of the random numbers.
        makers: how to make inputs that the suite does not know, by name.

    Raises:
        ValueError: the loss asks for an input that nothing here makes.
    """
    generator = torch.Generator().manual_seed(seed)
    if loss.kind == "distribution":
        pred = 2 * _normal(generator, n, BINS)
        target = _uniform(generator, 0, BINS - 1, n)
    elif loss.kind == "classification":
        pred, target = 2 * _normal(generator, n, channels(loss)), _labels(n)
    elif loss.space == "decoded":
        pred, target = box_pairs(n, seed=seed)
    else:
        pred, target = _normal(generator, 2, n, 4).unbind()
    known = {**_makers(loss), **(makers or {})}
    for name in loss.inputs:
        if name not in known:
            raise ValueError(
                f"{type(loss).__name__} needs the input {name!r}, of which there is no example: "
                "give INPUTS = {name: function(n, generator)} in the module of --references"
            )
    extra = {name: known[name](n, generator) for name in loss.inputs}
    return Inputs(pred, target, extra).to(dtype)


def examples(
    case: Case, loss: Loss, n: int = 12, dtype: torch.dtype = torch.float64, seed: int = 0
) -> Inputs:
    """Return :func:`example_inputs` with the case's own makers."""
    return example_inputs(loss, n, dtype, seed, case.inputs)


def channels(loss: Loss) -> int:
    """Return the number of channels that a classification loss takes for the examples."""
    return CLASSES + (loss.activation == "softmax")


def _makers(loss: Loss) -> dict[str, Maker]:
    return {
        "image_size": lambda n, g: _uniform(g, 500, 1000, n, 2),
        "quality": lambda n, g: _uniform(g, 0.05, 0.95, n),
        "pred_deltas": lambda n, g: _normal(g, n, 4),
        "target_deltas": lambda n, g: _normal(g, n, 4),
        "logits": lambda n, g: 2 * _normal(g, n, channels(loss)),
        "labels": lambda n, g: _labels(n) % (CLASSES + 1),
    }


def _labels(n: int) -> Tensor:
    labels = torch.arange(n) % (CLASSES + 1)
    labels[CLASSES + 2 : CLASSES + 3] = -1
    return labels


def _normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def _uniform(generator: torch.Generator, low: float, high: float, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=generator, dtype=torch.float64) * (high - low) + low


def random_boxes(n: int, generator: torch.Generator, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return boxes of 10 to 90 px a side."""
    corner, size = _uniform(generator, 0, 100, n, 2), _uniform(generator, 10, 90, n, 2)
    return torch.cat([corner, corner + size], 1).to(dtype)


def box_pairs(
    n: int = 12, dtype: torch.dtype = torch.float64, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Return pairs of which a third is near, a third overlaps and a third is disjoint."""
    generator = torch.Generator().manual_seed(seed)
    target = random_boxes(n, generator)
    size = (target[:, 2:] - target[:, :2]).repeat(1, 2)
    reach = torch.where(torch.arange(n) < n // 3, 0.1, 0.3)[:, None]
    pred = target + reach * size * _uniform(generator, -1, 1, n, 4)
    pred[n - n // 3 :] += 250
    return pred.to(dtype), target.to(dtype)


# name: (predicted box, target), as multiples of a size
AWKWARD = {
    "identical": ((1, 1, 3, 2), (1, 1, 3, 2)),
    "disjoint": ((0, 0, 2, 1), (5, 6, 7, 9)),
    "touching along an edge": ((0, 0, 2, 1), (2, 0, 5, 1)),
    "touching at a corner": ((0, 0, 2, 1), (2, 1, 5, 3)),
    "contained": ((0, 0, 9, 6), (2, 1, 5, 3)),
    "predicted without width": ((1, 1, 1, 2), (0, 0, 3, 4)),
    "predicted without height": ((1, 1, 3, 1), (0, 0, 3, 4)),
    "target without width": ((0, 0, 3, 4), (1, 1, 1, 2)),
    "both without width, identical": ((1, 1, 1, 4), (1, 1, 1, 4)),
    "both without height, apart": ((1, 1, 4, 1), (1, 2, 4, 2)),
    "predicted point inside": ((1, 1, 1, 1), (0, 0, 3, 4)),
    "identical points": ((1, 1, 1, 1), (1, 1, 1, 1)),
    "points at the origin": ((0, 0, 0, 0), (0, 0, 0, 0)),
    "points apart": ((1, 1, 1, 1), (4, 5, 4, 5)),
    "inverted in x": ((3, 1, 1, 2), (0, 0, 3, 4)),
    "inverted in both, same corners": ((3, 4, 0, 0), (0, 0, 3, 4)),
    "inverted in both, inside": ((2, 3, 1, 1), (0, 0, 3, 4)),
    "inverted, disjoint": ((9, 8, 6, 6), (0, 0, 3, 4)),
    "very long and flat": ((-10, 0, 10, 1e-3), (0, 0, 3, 4)),
}
# The largest coordinate is ten times the size: 1e6, and 6e4 in float16.
SIZES = (
    (torch.float64, 1.0),
    (torch.float32, 1e-3),
    (torch.float32, 1.0),
    (torch.float32, 1e5),
    (torch.bfloat16, 1.0),
    (torch.bfloat16, 1e5),
    (torch.float16, 1.0),
    (torch.float16, 6e3),
)


def awkward_pairs(dtype: torch.dtype, size: float) -> tuple[Tensor, Tensor]:
    """Return the awkward pairs, times ``size``."""
    boxes = torch.tensor(list(AWKWARD.values()), dtype=torch.float64) * size
    return boxes[:, 0].to(dtype), boxes[:, 1].to(dtype)
