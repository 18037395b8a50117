"""Mean squared error."""

import torch.nn.functional as F
from torch import Tensor

from det_losses.losses.core.box import ElementwiseBoxLoss
from det_losses.registry import MODELS
from det_losses.tensors import aligned


def mse_loss(pred: Tensor, target: Tensor) -> Tensor:
    """Squared error of each element; see :class:`MSELoss`."""
    return F.mse_loss(*aligned(pred, target), reduction="none")


@MODELS.register_module()
class MSELoss(ElementwiseBoxLoss):
    r"""Squared error of each coordinate (L2), without a factor of one half.

    .. math:: L = (\hat{x} - x)^2

    Args:
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Use:
        Rarely for boxes, because large errors dominate the gradient; as a baseline for robust
        losses.

    Shape:
        pred, target: ``[N, 4]`` encoded deltas; any common shape is accepted. Unreduced: the shape
        of ``pred``.

    Raises:
        InputError: the shapes of pred and target differ.

    Reference:
        Least squares (L2 norm).

    Note:
        The gradient grows with the error: for an unreduced error above 32752 it overflows float16.

    Example:
        >>> import torch
        >>> MSELoss()(torch.tensor([[2.0, 0, 0, 0]]), torch.zeros(1, 4))
        tensor(1.)
    """

    paper = "classical (least squares)"

    def unreduced(self, pred: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Return the loss of each coordinate."""
        return mse_loss(pred, target)
