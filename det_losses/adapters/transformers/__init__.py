"""Losses of this package in the detectors of transformers, and their comparison."""

from det_losses.adapters.transformers.losses import with_losses

__all__ = ["with_losses"]
