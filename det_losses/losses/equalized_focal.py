"""Equalized focal loss: a focusing factor for each class, from its gradients so far."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from det_losses.losses.core.base import check_argument
from det_losses.losses.core.classification import (
    ClassificationLoss,
    check_channels,
    check_class_number,
    check_labels,
    is_valid,
)
from det_losses.losses.core.state import over_ranks
from det_losses.registry import MODELS
from det_losses.tensors import upcast


@MODELS.register_module()
class EqualizedFocalLoss(ClassificationLoss):
    r"""Focal loss that focuses more, and weighs more, in classes short of positive gradient.

    .. math::
        L_c = -\alpha_t \frac{\gamma_c}{\gamma} (1 - p_t)^{\gamma_c} \ln p_t, \qquad
        \gamma_c = \gamma + s (1 - g_c), \qquad
        g_c = \min\left(1, \frac{\sum |\partial L_c / \partial x|_{pos}}
        {\sum |\partial L_c / \partial x|_{neg}}\right)

    :math:`p_t = \sigma(x), \alpha_t = \alpha` at the label's channel, :math:`p_t = 1 - \sigma(x),
    \alpha_t = 1 - \alpha` elsewhere. g sums the gradients of all training steps so far, over all
    ranks; before the first it is 1, which is focal loss. A step enters after its own loss. Sample
    weights count in g, avg_factor and loss_weight do not. g and :math:`\gamma_c` are constant in
    the gradient.

    Args:
        num_classes: K, the number of channels.
        gamma: focusing factor of a balanced class, above 0.
        alpha: weight of positives, in [0, 1]; None is no balance.
        scale: s, how much a class without positives exceeds gamma, at least 0; 0 is focal loss.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Use:
        Dense detectors on long-tailed data, such as LVIS, without counts of the classes.

    Shape:
        pred: logits ``[N, K]``. target: labels ``[N]``, 0..K-1, background K, negative ignored.
        Unreduced: ``[N, K]``.

    Raises:
        ValueError: an argument out of range, another number of channels than num_classes, or a
            target of another shape or type.

    Reference:
        Bo Li, Yongqiang Yao, Jingru Tan, Gang Zhang, Fengwei Yu, Jianwei Lu, Ye Luo: Equalized
        Focal Loss for Dense Long-Tailed Object Detection. arXiv 2201.02593, 2022. Formula and
        defaults are those of the authors' code (United-Perception).

    Note:
        The authors' code takes g from the gradients after they are divided by the number of
        positives; here they are summed as they are, so a batch with more boxes counts more.

    Example:
        >>> import torch
        >>> loss = EqualizedFocalLoss(num_classes=1)
        >>> loss(torch.zeros(1, 1), torch.tensor([0]))  # focal loss: 0.25 * 0.5^2 * ln 2
        tensor(0.0433)
    """

    paper = "Li et al., Equalized Focal Loss, arXiv 2201.02593, 2022"
    activation = "sigmoid"
    constant_in_gradient = ("the focusing factor of each class",)
    example: ClassVar[Mapping[str, Any]] = {"num_classes": 3}
    positive_gradient: Tensor
    negative_gradient: Tensor

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
        super().__init__(reduction=reduction, loss_weight=loss_weight)
        check_class_number(num_classes)
        check_argument("gamma", gamma, gamma > 0, "above 0")
        balanced = alpha is None or 0 <= alpha <= 1
        check_argument("alpha", alpha, balanced, "in [0, 1], or None for no balance")
        check_argument("scale", scale, scale >= 0, "at least 0")
        self.num_classes = num_classes
        self.gamma = gamma
        self.alpha = alpha
        self.scale = scale
        self.register_buffer("positive_gradient", torch.zeros(num_classes))
        self.register_buffer("negative_gradient", torch.zeros(num_classes))

    def balance(self) -> Tensor:
        """Return g, the ratio of positive to negative gradient of each class, ``[K]``."""
        none = self.negative_gradient == 0
        ratio = self.positive_gradient / torch.where(none, 1.0, self.negative_gradient)
        return torch.where(none, 1.0, ratio.clamp(max=1))

    def unreduced(self, pred: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Return the loss of each channel, ``[N, K]``; in training mode, add to its state."""
        check_labels(pred, target)
        check_channels(self, pred, self.num_classes)
        pred = upcast(pred)
        positive = target.unsqueeze(-1) == torch.arange(self.num_classes, device=pred.device)
        valid = is_valid(target, None).unsqueeze(-1)
        gamma = (self.gamma + self.scale * (1 - self.balance())).to(pred.dtype)
        a_pos, a_neg = (1.0, 1.0) if self.alpha is None else (self.alpha, 1 - self.alpha)
        factor = torch.where(positive, a_pos, a_neg) * gamma / self.gamma
        x = torch.where(positive, pred, -pred)  # p_t is its sigmoid
        loss = -factor * (gamma * F.logsigmoid(-x)).exp() * F.logsigmoid(x)
        if self.training:
            self._collect(torch.where(valid, factor, 0.0), gamma, x, positive, weight)
        return torch.where(valid, loss, 0.0)

    @torch.no_grad()
    def _collect(
        self, factor: Tensor, gamma: Tensor, x: Tensor, positive: Tensor, weight: Tensor | None
    ) -> None:
        log_p, p, miss = F.logsigmoid(x), x.sigmoid(), (-x).sigmoid()
        gradient = factor * (gamma * F.logsigmoid(-x)).exp() * (miss - gamma * p * log_p)
        if weight is not None:
            gradient = gradient * weight
        own = torch.where(positive, gradient, 0.0).flatten(0, -2).sum(0)
        others = torch.where(positive, 0.0, gradient).flatten(0, -2).sum(0)
        total = over_ranks(torch.stack([own, others])).to(self.positive_gradient)
        # New tensors: gamma is computed again in a compiled backward, from the old ones.
        self.positive_gradient = self.positive_gradient + total[0]
        self.negative_gradient = self.negative_gradient + total[1]
