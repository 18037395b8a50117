"""Balanced L1 loss."""

import math

import torch
from torch import Tensor

from det_losses.losses.core.base import check_argument
from det_losses.losses.core.box import ElementwiseBoxLoss
from det_losses.registry import MODELS
from det_losses.tensors import aligned

# exp(gamma / alpha) must fit float32.
STEEPEST = 80


@MODELS.register_module()
class BalancedL1Loss(ElementwiseBoxLoss):
    r"""A smooth L1 whose gradient rises faster at small errors, so that accurate boxes count more.

    .. math::
        L = \beta f(x / \beta), \qquad
        f(z) = \begin{cases} \frac{\alpha}{b} (b z + 1) \ln(b z + 1) - \alpha z & z < 1 \\
        \gamma z + \gamma / b - \alpha & \text{otherwise} \end{cases}, \qquad
        b = e^{\gamma / \alpha} - 1

    with :math:`x = |\hat{x} - x^*|`. The gradient is :math:`\alpha \ln(b x / \beta + 1)` up to
    beta and gamma beyond; b makes both meet.

    Args:
        alpha: how little small errors count, above gamma / 80; the smaller, the more they do.
        gamma: gradient of the outliers, above 0.
        beta: where the two pieces meet, above 0; 1 is the paper.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Use:
        In place of smooth L1 where the gradients of outliers drown those of accurate boxes.

    Shape:
        pred, target: ``[N, 4]`` encoded deltas, without unit; any common shape is taken.
        Unreduced: the shape of ``pred``.

    Raises:
        ValueError: an argument out of its range, or the shapes of pred and target differ.

    Reference:
        Jiangmiao Pang, Kai Chen, Jianping Shi, Huajun Feng, Wanli Ouyang, Dahua Lin: Libra R-CNN:
        Towards Balanced Learning for Object Detection. arXiv 1904.02701, 2019. The paper has
        beta = 1.

    Note:
        With a beta other than 1 mmdetection scales the argument of the logarithm but not the factor
        before it: its gradient at zero error is alpha (1 / beta - 1), 4.5 for beta = 0.1; here it
        is 0.

    Published:
        RetinaNet R50-FPN, COCO AP / AP75 in arXiv 2101.08158: 36.3 / 38.8; Smooth L1 there 35.9 /
        38.4.

    Example:
        >>> import torch
        >>> loss = BalancedL1Loss(alpha=0.5, gamma=0.5)  # b = e - 1
        >>> loss(torch.tensor([[1.0, 0, 0, 0]]), torch.zeros(1, 4)) * 4  # 1/2 + 1/2 / b - 1/2
        tensor(0.2910)
    """

    paper = "Pang et al., Libra R-CNN, arXiv 1904.02701, 2019"

    def __init__(
        self,
        *,
        alpha: float = 0.5,
        gamma: float = 1.5,
        beta: float = 1.0,
        reduction: str = "mean",
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(reduction=reduction, loss_weight=loss_weight)
        check_argument("gamma", gamma, gamma > 0, "above 0")
        least = gamma / STEEPEST
        check_argument("alpha", alpha, alpha > least, f"above gamma / {STEEPEST} = {least}")
        check_argument("beta", beta, beta > 0, "above 0")
        self.alpha = alpha
        self.gamma = gamma
        self.beta = beta

    def unreduced(self, pred: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Return the loss of each coordinate."""
        pred, target = aligned(pred, target)
        z = (pred - target).abs() / self.beta
        b = math.expm1(self.gamma / self.alpha)
        y = b * z.clamp(max=1) + 1
        near = self.alpha / b * y * y.log() - self.alpha * z
        far = self.gamma * z + self.gamma / b - self.alpha
        return self.beta * torch.where(z < 1, near, far)


def balanced_l1_loss(
    pred: Tensor, target: Tensor, *, alpha: float = 0.5, gamma: float = 1.5, beta: float = 1.0
) -> Tensor:
    """Balanced L1 of each element; see :class:`BalancedL1Loss`."""
    return BalancedL1Loss(alpha=alpha, gamma=gamma, beta=beta).unreduced(pred, target)
