"""Focal L1 loss."""

import math

import torch
from torch import Tensor

from det_losses.losses.core.base import check_argument
from det_losses.losses.core.box import ElementwiseBoxLoss
from det_losses.registry import MODELS
from det_losses.tensors import aligned


def focal_l1_loss(pred: Tensor, target: Tensor, *, beta: float = 0.8) -> Tensor:
    """Focal L1 of each element; see :class:`FocalL1Loss`."""
    check_argument("beta", beta, 1 / math.e <= beta <= 1, "in [1/e, 1]")
    pred, target = aligned(pred, target)
    x = (pred - target).abs()
    a = math.e * beta
    c = (2 * a * math.log(beta) + a) / 4
    # The product tends to 0 with x, but the logarithm is not defined at 0.
    log = torch.log(beta * torch.where(x > 0, x, 1.0))
    near = -a * x**2 * (2 * log - 1) / 4  # Eqn. (9)
    far = -a * math.log(beta) * x + c
    return torch.where(x <= 1, near, far)


@MODELS.register_module()
class FocalL1Loss(ElementwiseBoxLoss):
    r"""An L1 loss whose gradient is largest at moderate errors and small for outliers.

    .. math::
        L = \begin{cases} -\alpha x^2 (2 \ln(\beta x) - 1) / 4 & 0 < x \le 1 \\
        -\alpha \ln(\beta) x + C & x > 1 \end{cases}, \qquad
        \alpha = e \beta, \quad C = (2 \alpha \ln \beta + \alpha) / 4

    with :math:`x = |\hat{x} - x^*|`. The gradient :math:`-\alpha x \ln(\beta x)` has its maximum 1
    at :math:`x = 1 / (e \beta)`.

    Args:
        beta: in [1/e, 1]; smaller values give outliers a larger gradient, at 1 their gradient is 0.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Use:
        When many inaccurate boxes would outweigh the accurate ones.

    Shape:
        pred, target: ``[N, 4]`` encoded deltas; any common shape is accepted. Unreduced: the shape
        of ``pred``.

    Raises:
        InputError: beta outside [1/e, 1], or the shapes of pred and target differ.

    Reference:
        Yi-Fan Zhang, Weiqiang Ren, Zhang Zhang, Zhen Jia, Liang Wang, Tieniu Tan: Focal and
        Efficient IOU Loss for Accurate Bounding Box Regression. arXiv 2101.08158, 2021,
        Eqn. (8) and (9).

    Note:
        The "focal L1" of arXiv 2102.09554 is a different loss.

    Published:
        RetinaNet R50-FPN, COCO AP / AP75 in arXiv 2101.08158: 36.5 / 38.9; Smooth L1 35.9 / 38.4.

    Example:
        >>> import torch
        >>> loss = FocalL1Loss(beta=1.0, reduction="none")
        >>> loss(torch.tensor([[1.0, 2.0]]), torch.zeros(1, 2)) / (torch.e / 4)
        tensor([[1., 1.]])
    """

    paper = "Zhang et al., Focal and Efficient IOU Loss, arXiv 2101.08158, 2021"

    def __init__(
        self, *, beta: float = 0.8, reduction: str = "mean", loss_weight: float = 1.0
    ) -> None:
        super().__init__(reduction=reduction, loss_weight=loss_weight)
        check_argument("beta", beta, 1 / math.e <= beta <= 1, "in [1/e, 1]")
        self.beta = beta

    def unreduced(self, pred: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Return the loss of each coordinate."""
        return focal_l1_loss(pred, target, beta=self.beta)
