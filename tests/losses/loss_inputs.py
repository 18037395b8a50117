"""The losses that can be built without arguments, and inputs for them."""

from det_losses import build_loss, list_losses
from det_losses.conformance.case import box_pairs
from det_losses.conformance.robustness import DEGENERATE, degenerate_pairs
from det_losses.losses import IoUFamilyLoss
from det_losses.registry import MODELS

__all__ = ["DEGENERATE", "box_pairs", "degenerate_pairs"]

INFOS = [info for info in list_losses() if len(info.config) == 1]
IOU_NAMES = [
    info.name
    for info in INFOS
    if issubclass(MODELS.module_dict[info.name], IoUFamilyLoss) and not build_loss(info.name).inputs
]
DELTA_NAMES = [info.name for info in INFOS if info.space == "delta"]
