"""Object-detection losses, built by name, and tools to compare them.

torch is imported at the first use of a name, so the tools start at once and can be interrupted.
mmengine imports ``det_losses.registry`` itself when it sees a type such as
``"det_losses.EIoULoss"``.

Example:
    >>> import torch
    >>> import det_losses
    >>> loss = det_losses.build_loss("EIoULoss", loss_weight=2.0)
    >>> loss(torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[0.0, 0, 20, 10]]))
    tensor(1.6000)
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from det_losses import functional
    from det_losses.api import compare
    from det_losses.inference import draw, load_detector, predict
    from det_losses.losses import build_loss, list_losses
    from det_losses.report import Study

__all__ = [
    "Study",
    "build_loss",
    "compare",
    "draw",
    "functional",
    "list_losses",
    "load_detector",
    "predict",
]
__version__ = "0.2.0"

_MODULES = ("boxes", "errors", "functional", "losses", "registry")
_PLACES = {
    "Study": "det_losses.report",
    "build_loss": "det_losses.losses",
    "compare": "det_losses.api",
    "draw": "det_losses.inference",
    "list_losses": "det_losses.losses",
    "load_detector": "det_losses.inference",
    "predict": "det_losses.inference",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"det_losses.{name}")
    if name in _PLACES:
        return getattr(importlib.import_module(_PLACES[name]), name)
    raise AttributeError(f"module 'det_losses' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
