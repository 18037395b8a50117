"""DETR, RT-DETR, D-FINE of transformers with losses of this package; see docs/transformers.md."""

from det_losses.adapters.transformers.losses import with_losses
from det_losses.adapters.transformers.training import train

__all__ = ["train", "with_losses"]
