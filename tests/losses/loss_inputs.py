"""The losses that can be built from their names alone, and inputs for them."""

import torch

from det_losses import build_loss, list_losses
from det_losses.conformance.inputs import (
    AWKWARD,
    SIZES,
    awkward_pairs,
    box_pairs,
    example_inputs,
)
from det_losses.losses import IoUFamilyLoss
from det_losses.registry import MODELS

__all__ = ["AWKWARD", "SIZES", "awkward_pairs", "box_pairs", "build_and_inputs"]

INFOS = [info for info in list_losses() if len(info.config) == 1]
NAMES = [info.name for info in INFOS]
BOX_NAMES = [info.name for info in INFOS if info.kind == "box"]
IOU_NAMES = [
    name
    for name in BOX_NAMES
    if issubclass(MODELS.module_dict[name], IoUFamilyLoss) and not build_loss(name).inputs
]
DELTA_NAMES = [info.name for info in INFOS if info.space == "delta"]
CLASSIFICATION_NAMES = [info.name for info in INFOS if info.kind == "classification"]


def build_and_inputs(name, *, dtype=torch.float64, n=12, **kwargs):
    """Return a loss, and pred (with gradient) and target that it takes."""
    loss = build_loss(name, **kwargs)
    inputs = example_inputs(loss, n, dtype)
    return loss, inputs.pred.requires_grad_(), inputs.target
