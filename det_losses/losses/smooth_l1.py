"""Smooth L1 loss."""

import torch.nn.functional as F
from torch import Tensor

from det_losses.losses.core.base import check_argument
from det_losses.losses.core.box import ElementwiseBoxLoss
from det_losses.registry import MODELS
from det_losses.tensors import aligned


def smooth_l1_loss(pred: Tensor, target: Tensor, *, beta: float = 1.0) -> Tensor:
    """Smooth L1 of each element; see :class:`SmoothL1Loss`."""
    check_argument("beta", beta, beta >= 0, "at least 0")
    return F.smooth_l1_loss(*aligned(pred, target), beta=beta, reduction="none")


@MODELS.register_module()
class SmoothL1Loss(ElementwiseBoxLoss):
    r"""Quadratic below ``beta``, linear with slope 1 above.

    .. math::
        L = \begin{cases} x^2 / (2 \beta) & x < \beta \\ x - \beta / 2 & \text{otherwise}
        \end{cases}, \qquad x = |\hat{x} - x^*|

    Args:
        beta: error at which the quadratic part ends, at least 0; 0 is L1. Fast R-CNN uses 1,
            torchvision's Faster R-CNN 1/9.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Use:
        The box loss of Fast and Faster R-CNN. The gradient vanishes at the target, so small
        errors do not oscillate.

    Shape:
        pred, target: ``[N, 4]`` encoded deltas; any common shape is accepted. Unreduced: the shape
        of ``pred``.

    Raises:
        InputError: a negative beta, or the shapes of pred and target differ.

    Reference:
        Ross Girshick: Fast R-CNN. arXiv 1504.08083, 2015.

    Note:
        mmdetection rejects beta = 0; here, as in torch, it is L1.

    Published:
        RetinaNet R50-FPN, COCO AP / AP75 in arXiv 2101.08158: 35.9 / 38.4.

    Example:
        >>> import torch
        >>> SmoothL1Loss(beta=0.5)(torch.tensor([[2.25, 0, 0, 0]]), torch.zeros(1, 4))
        tensor(0.5000)
    """

    paper = "Girshick, Fast R-CNN, arXiv 1504.08083, 2015"

    def __init__(
        self, *, beta: float = 1.0, reduction: str = "mean", loss_weight: float = 1.0
    ) -> None:
        super().__init__(reduction=reduction, loss_weight=loss_weight)
        check_argument("beta", beta, beta >= 0, "at least 0")
        self.beta = beta

    def unreduced(self, pred: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Return the loss of each coordinate."""
        return smooth_l1_loss(pred, target, beta=self.beta)
