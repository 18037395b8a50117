"""Object-detection losses, built by name, and tools to compare them.

Example:
    >>> import torch
    >>> import det_losses
    >>> loss = det_losses.build_loss("EIoULoss", loss_weight=2.0)
    >>> loss(torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[0.0, 0, 20, 10]]))
    tensor(1.6000)
"""

import importlib
from typing import Any

from det_losses import functional
from det_losses.losses import build_loss, list_losses

__all__ = ["build_loss", "draw", "functional", "list_losses", "load_detector", "predict"]
__version__ = "0.2.0"

# Imported on first use, because they import torchvision.
_LATER = {
    "draw": "det_losses.inference",
    "load_detector": "det_losses.inference",
    "predict": "det_losses.inference",
}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(importlib.import_module(_LATER[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
