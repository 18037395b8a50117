"""Object-detection losses, built by name, and tools to compare them.

Example:
    >>> import torch
    >>> import det_losses
    >>> loss = det_losses.build_loss("EIoULoss", loss_weight=2.0)
    >>> loss(torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[0.0, 0, 20, 10]]))
    tensor(1.6000)
"""

from det_losses import functional
from det_losses.losses import build_loss, list_losses

__all__ = ["build_loss", "functional", "list_losses"]
__version__ = "0.2.0"
