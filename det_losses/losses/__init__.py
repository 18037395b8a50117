"""The losses: a module for each, and importing the package registers them all."""

from importlib import import_module
from pkgutil import iter_modules

from det_losses.losses.core.base import Loss
from det_losses.losses.core.build import LossInfo, build_loss, list_losses
from det_losses.losses.core.classification import ClassificationLoss
from det_losses.losses.core.families import ElementwiseBoxLoss, IoUFamilyLoss
from det_losses.registry import MODELS

for _module in iter_modules(__path__, f"{__name__}."):
    import_module(_module.name)

CLASSES = {
    name: cls
    for name, cls in MODELS.module_dict.items()
    if cls.__module__.startswith(f"{__name__}.")
}
globals().update(CLASSES)

__all__ = [
    "ClassificationLoss",
    "ElementwiseBoxLoss",
    "IoUFamilyLoss",
    "Loss",
    "LossInfo",
    "build_loss",
    "list_losses",
    *CLASSES,
]
