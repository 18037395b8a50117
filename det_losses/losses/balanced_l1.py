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


def balanced_l1_loss(
    pred: Tensor,
    target: Tensor,
    *,
    alpha: float = 0.5,
    gamma: float = 1.5,
    beta: float = 1.0,
    as_released: bool = False,
) -> Tensor:
    """Balanced L1 of each element; see :class:`BalancedL1Loss`."""
    _check(alpha, gamma, beta)
    pred, target = aligned(pred, target)
    x = (pred - target).abs()
    b = math.expm1(gamma / alpha)
    if as_released:
        near = x.clamp(max=beta)
        factor = b * near + 1  # unlike in the logarithm, not divided by beta
        curve = alpha / b * factor * (b / beta * near + 1).log() - alpha * near
        return torch.where(x < beta, curve, gamma * x + gamma / b - alpha * beta)
    z = x / beta
    y = b * z.clamp(max=1) + 1
    near = alpha / b * y * y.log() - alpha * z
    far = gamma * z + gamma / b - alpha
    return beta * torch.where(z < 1, near, far)


@MODELS.register_module()
class BalancedL1Loss(ElementwiseBoxLoss):
    r"""A smooth L1 with a larger gradient at small errors, so that accurate boxes count more.

    .. math::
        L = \beta f(x / \beta), \qquad
        f(z) = \begin{cases} \frac{\alpha}{b} (b z + 1) \ln(b z + 1) - \alpha z & z < 1 \\
        \gamma z + \gamma / b - \alpha & \text{otherwise} \end{cases}, \qquad
        b = e^{\gamma / \alpha} - 1

    with :math:`x = |\hat{x} - x^*|`. The gradient is :math:`\alpha \ln(b x / \beta + 1)` below
    beta and gamma above; b makes it continuous.

    The paper has beta = 1. For other values the authors' code computes a different function:

    .. math::
        L = \begin{cases} \frac{\alpha}{b} (b x + 1) \ln(b x / \beta + 1) - \alpha x & x < \beta \\
        \gamma x + \gamma / b - \alpha \beta & \text{otherwise} \end{cases}

    Its gradient at zero error is :math:`\alpha (1 / \beta - 1)`, 4.0 for beta = 0.11, and falls to
    gamma. ``as_released=True`` selects it; with beta = 1 both functions are equal.

    Args:
        alpha: must be above gamma / 80; smaller values give small errors a larger gradient.
        gamma: gradient of the outliers, above 0.
        beta: error at which the linear part begins, above 0; 1 in the paper.
        as_released: compute the formula of the authors' code. It differs for a beta other than 1,
            such as the published RetinaNet setting, beta = 0.11.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Use:
        Instead of smooth L1 where the gradients of outliers outweigh those of accurate boxes.

    Shape:
        pred, target: ``[N, 4]`` encoded deltas; any common shape is accepted. Unreduced: the shape
        of ``pred``.

    Raises:
        InputError: an argument out of range, or the shapes of pred and target differ.

    Reference:
        Jiangmiao Pang, Kai Chen, Jianping Shi, Huajun Feng, Wanli Ouyang, Dahua Lin: Libra R-CNN:
        Towards Balanced Learning for Object Detection. arXiv 1904.02701, 2019. ``as_released`` is
        the formula of OceanPang/Libra_R-CNN and of mmdetection.

    Published:
        RetinaNet R50-FPN, COCO AP / AP75 in arXiv 2101.08158: 36.3 / 38.8; Smooth L1 35.9 / 38.4.

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
        as_released: bool = False,
        reduction: str = "mean",
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(reduction=reduction, loss_weight=loss_weight)
        _check(alpha, gamma, beta)
        self.alpha = alpha
        self.gamma = gamma
        self.beta = beta
        self.as_released = as_released

    def unreduced(self, pred: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Return the loss of each coordinate."""
        return balanced_l1_loss(
            pred,
            target,
            alpha=self.alpha,
            gamma=self.gamma,
            beta=self.beta,
            as_released=self.as_released,
        )


def _check(alpha: float, gamma: float, beta: float) -> None:
    check_argument("gamma", gamma, gamma > 0, "above 0")
    least = gamma / STEEPEST
    check_argument("alpha", alpha, alpha > least, f"above gamma / {STEEPEST} = {least}")
    check_argument("beta", beta, beta > 0, "above 0")
