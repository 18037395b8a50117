"""Inputs that fit any loss of the registry, and the geometry of awkward boxes in words."""

import torch

from det_losses import build_loss, list_losses

CLASSES = 3
INFOS = [info for info in list_losses() if len(info.config) == 1]
NAMES = [info.name for info in INFOS]
BOX_NAMES = [info.name for info in INFOS if info.kind == "box"]
IOU_NAMES = [info.name for info in INFOS if info.space == "decoded"]
DELTA_NAMES = [info.name for info in INFOS if info.space == "delta"]
CLASSIFICATION_NAMES = [info.name for info in INFOS if info.kind == "classification"]
# value, gradient; relative, by what the result was computed in
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}


def random_boxes(n, generator, dtype=torch.float64):
    """Boxes of 10 to 90 px a side, nearly never square."""
    corner = torch.rand(n, 2, generator=generator, dtype=torch.float64) * 100
    size = torch.rand(n, 2, generator=generator, dtype=torch.float64) * 80 + 10
    return torch.cat([corner, corner + size], 1).to(dtype)


def box_pairs(n=12, dtype=torch.float64, seed=0):
    """Random pairs; two thirds overlap, the last third is disjoint."""
    generator = torch.Generator().manual_seed(seed)
    target = random_boxes(n, generator)
    jitter = torch.randn(n, 4, generator=generator, dtype=torch.float64) * 3
    pred = target + jitter
    pred[-(n // 3) :] += 250
    return pred.to(dtype), target.to(dtype)


def inputs_for(loss, n=12, dtype=torch.float64, seed=0):
    """Return pred and target that ``loss`` takes."""
    generator = torch.Generator().manual_seed(seed)
    if loss.kind == "classification":
        channels = CLASSES + (loss.activation == "softmax")
        pred = torch.randn(n, channels, generator=generator, dtype=torch.float64) * 2
        target = torch.arange(n) % (CLASSES + 1)
        return pred.to(dtype), target
    if loss.space == "decoded":
        return box_pairs(n, dtype, seed)
    pred, target = torch.randn(2, n, 4, generator=generator, dtype=torch.float64)
    return pred.to(dtype), target.to(dtype)


def build_and_inputs(name, *, dtype=torch.float64, n=12, **kwargs):
    """Return a loss, and pred (with gradient) and target that it takes."""
    loss = build_loss(name, **kwargs)
    pred, target = inputs_for(loss, n, dtype)
    return loss, pred.requires_grad_(), target


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
# Largest coordinate is ten times the size.
SIZES = [
    (torch.float64, 1.0),
    (torch.float32, 1e-3),
    (torch.float32, 1.0),
    (torch.float32, 1e5),
    (torch.bfloat16, 1.0),
    (torch.bfloat16, 1e5),
    (torch.float16, 1.0),
    (torch.float16, 6e3),
]


def awkward_pairs(dtype, size):
    boxes = torch.tensor(list(AWKWARD.values()), dtype=torch.float64) * size
    return boxes[:, 0].to(dtype), boxes[:, 1].to(dtype)
