"""L1 loss."""

import torch.nn.functional as F
from torch import Tensor

from det_losses.losses.core.box import ElementwiseBoxLoss
from det_losses.registry import MODELS
from det_losses.tensors import aligned


def l1_loss(pred: Tensor, target: Tensor) -> Tensor:
    """Absolute error of each element; see :class:`L1Loss`."""
    return F.l1_loss(*aligned(pred, target), reduction="none")


@MODELS.register_module()
class L1Loss(ElementwiseBoxLoss):
    r"""Absolute error of each coordinate (MAE).

    .. math:: L = |\hat{x} - x|

    Args:
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Use:
        The usual box loss on deltas. The gradient has the same magnitude for every error, so
        outliers do not dominate.

    Shape:
        pred, target: ``[N, 4]`` encoded deltas; any common shape is accepted. Unreduced: the shape
        of ``pred``.

    Raises:
        InputError: the shapes of pred and target differ.

    Reference:
        Least absolute deviations (L1 norm).

    Published:
        mmdetection 3.3.0, Faster R-CNN R50-FPN, 12 epochs: AP 37.4.

    Example:
        >>> import torch
        >>> L1Loss()(torch.tensor([[1.0, 0, 0, 0]]), torch.zeros(1, 4))
        tensor(0.2500)
    """

    paper = "classical (least absolute deviations)"

    def unreduced(self, pred: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Return the loss of each coordinate."""
        return l1_loss(pred, target)
