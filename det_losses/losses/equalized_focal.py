"""Equalized focal loss: a focusing parameter for each class, from its accumulated gradients."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from det_losses.losses.core.base import check_argument
from det_losses.losses.core.classification import (
    GradientBalancedLoss,
    alpha_pair,
    check_alpha,
    check_channels,
    check_labels,
    is_label,
    is_valid,
    sigmoid_power,
)
from det_losses.registry import MODELS
from det_losses.tensors import upcast


def equalized_focal_loss(
    pred: Tensor,
    target: Tensor,
    balance: Tensor,
    *,
    gamma: float = 2.0,
    alpha: float | None = 0.25,
    scale: float = 8.0,
) -> Tensor:
    """Equalized focal loss of each channel, ``[N, K]``; see :class:`EqualizedFocalLoss`.

    ``balance`` is the ratio g of the accumulated positive to negative gradient of each class,
    ``[K]``, at most 1.
    """
    check_labels(pred, target)
    x, factor, gamma_c = _terms(upcast(pred), target, balance, gamma, alpha, scale)
    loss = -factor * sigmoid_power(-x, gamma_c) * F.logsigmoid(x)
    return torch.where(is_valid(target, None).unsqueeze(-1), loss, 0.0)


def _terms(
    pred: Tensor, target: Tensor, balance: Tensor, gamma: float, alpha: float | None, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the logit of p_t, the weight of each channel and the focusing parameters."""
    positive = is_label(target, pred.shape[-1])
    gamma_c = (gamma + scale * (1 - balance)).to(pred.dtype)
    a_pos, a_neg = alpha_pair(alpha)
    factor = torch.where(positive, a_pos, a_neg) * gamma_c / gamma
    return torch.where(positive, pred, -pred), factor, gamma_c


@MODELS.register_module()
class EqualizedFocalLoss(GradientBalancedLoss):
    r"""Focal loss with more focusing and a larger weight for classes with little positive gradient.

    .. math::
        L_c = -\alpha_t \frac{\gamma_c}{\gamma} (1 - p_t)^{\gamma_c} \ln p_t, \qquad
        \gamma_c = \gamma + s (1 - g_c), \qquad
        g_c = \min\left(1, \frac{\sum |\partial L_c / \partial x|_{pos}}
        {\sum |\partial L_c / \partial x|_{neg}}\right)

    :math:`p_t = \sigma(x), \alpha_t = \alpha` at the label's channel, :math:`p_t = 1 - \sigma(x),
    \alpha_t = 1 - \alpha` elsewhere. g is computed from the gradients of all previous training
    steps, summed over all ranks; in the first step it is 1, which gives focal loss. g includes
    sample weights, but not avg_factor or loss_weight. g and :math:`\gamma_c` are constant in the
    gradient.

    Args:
        num_classes: number K of classes, without background.
        gamma: focusing parameter of a balanced class, above 0.
        alpha: weight of positives, in [0, 1]; None disables balancing.
        scale: s, the increase of the focusing parameter of a class without positives, at least 0; 0
            is focal loss.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Use:
        Dense detectors on long-tailed data, such as LVIS, without known class frequencies.

    Shape:
        pred: logits ``[N, K]``. target: labels ``[N]``, 0..K-1, background K, -1 ignored.
        Unreduced: ``[N, K]``.

    Raises:
        InputError: an argument out of range, a number of channels other than num_classes, or a
            target of the wrong shape or type.

    Reference:
        Bo Li, Yongqiang Yao, Jingru Tan, Gang Zhang, Fengwei Yu, Jianwei Lu, Ye Luo: Equalized
        Focal Loss for Dense Long-Tailed Object Detection. arXiv 2201.02593, 2022. Formula and
        defaults are those of the authors' code (ModelTC/United-Perception, efl.py).

    Note:
        The authors' code takes g from the gradients that reach the logits, after normalisation of
        the loss; here the gradients of the unreduced loss are summed, so a batch with more boxes
        counts more.

    Example:
        >>> import torch
        >>> loss = EqualizedFocalLoss(num_classes=1)
        >>> loss(torch.zeros(1, 1), torch.tensor([0]))  # focal loss: 0.25 * 0.5^2 * ln 2
        tensor(0.0433)
    """

    paper = "Li et al., Equalized Focal Loss, arXiv 2201.02593, 2022"
    constant_in_gradient = ("the focusing parameter of each class",)
    example: ClassVar[Mapping[str, Any]] = {"num_classes": 3}

    def __init__(
        self,
        *,
        num_classes: int,
        gamma: float = 2.0,
        alpha: float | None = 0.25,
        scale: float = 8.0,
        reduction: str = "mean",
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(num_classes=num_classes, reduction=reduction, loss_weight=loss_weight)
        check_argument("gamma", gamma, gamma > 0, "above 0")
        check_alpha(alpha)
        check_argument("scale", scale, scale >= 0, "at least 0")
        self.gamma = gamma
        self.alpha = alpha
        self.scale = scale

    def balance(self) -> Tensor:
        """Return g, the ratio of positive to negative gradient of each class, ``[K]``."""
        return self.gradient_ratio(self.positive_gradient.dtype).clamp(max=1)

    def unreduced(self, pred: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Return the loss of each channel, ``[N, K]``; in training, accumulate its gradients."""
        check_labels(pred, target)
        check_channels(self, pred, self.num_classes)
        balance = self.balance()
        if self.training:
            self.accumulate(self._gradient(upcast(pred), target, balance), target, weight)
        return equalized_focal_loss(
            pred, target, balance, gamma=self.gamma, alpha=self.alpha, scale=self.scale
        )

    @torch.no_grad()
    def _gradient(self, pred: Tensor, target: Tensor, balance: Tensor) -> Tensor:
        """Return the absolute derivative of the loss with respect to each logit."""
        x, factor, gamma = _terms(pred, target, balance, self.gamma, self.alpha, self.scale)
        slope = (-x).sigmoid() - gamma * x.sigmoid() * F.logsigmoid(x)
        return factor * sigmoid_power(-x, gamma) * slope
