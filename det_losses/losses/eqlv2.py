"""Equalization loss v2 for long-tailed classes."""

import warnings
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from det_losses.losses.core.base import check_argument
from det_losses.losses.core.classification import (
    GradientBalancedLoss,
    check_channels,
    check_labels,
    is_label,
    is_valid,
    require_sigmoid,
)
from det_losses.registry import MODELS
from det_losses.tensors import upcast

# Arguments of mmdetection for features that are not part of the loss.
_WITHOUT_EFFECT = {
    "vis_grad": "gradients are not plotted",
    "test_with_obj": "there is no objectness channel to multiply the scores by",
}


def eqlv2_loss(
    pred: Tensor,
    target: Tensor,
    gradient_ratio: Tensor,
    *,
    mu: float = 0.8,
    alpha: float = 4.0,
    gamma: float = 12.0,
) -> Tensor:
    """Equalization loss v2 of each channel, ``[N, K]``; see :class:`EQLv2Loss`.

    ``gradient_ratio`` is the ratio g of the accumulated positive to negative gradient of each
    class, ``[K]``; inf for a class without negatives, whose weights are then 1.
    """
    check_labels(pred, target)
    pred = upcast(pred)
    q, r = eqlv2_weights(gradient_ratio.to(pred.dtype), mu=mu, alpha=alpha, gamma=gamma)
    positive = is_label(target, pred.shape[-1])
    loss = torch.where(positive, q * F.softplus(-pred), r * F.softplus(pred))
    return torch.where(is_valid(target, None).unsqueeze(-1), loss, 0.0)


def eqlv2_weights(
    gradient_ratio: Tensor, *, mu: float, alpha: float, gamma: float
) -> tuple[Tensor, Tensor]:
    """Return the weights q of positives and r of negatives of each class."""
    r = torch.sigmoid(gamma * (gradient_ratio - mu))
    return 1 + alpha * (1 - r), r


@MODELS.register_module()
class EQLv2Loss(GradientBalancedLoss):
    r"""Sigmoid cross-entropy that balances the positive and negative gradients of each class.

    .. math::
        L_c = -q_c \, y_c \ln \sigma(x_c) - r_c \, (1 - y_c) \ln (1 - \sigma(x_c)), \qquad
        r_c = f(g_c), \quad q_c = 1 + \alpha (1 - f(g_c)), \quad
        f(g) = \frac{1}{1 + e^{-\gamma (g - \mu)}}

    :math:`g_c` is the accumulated absolute gradient of the logits of class c as positives, divided
    by that as negatives. Both include the weights q and r. A rare class has a small g, so its
    negatives are down-weighted and its positives up-weighted. All weights are 1 for a class without
    accumulated gradients. The weights are constant in the gradient.

    The gradients of a row, :math:`q (1 - p)` and :math:`r p`, are multiplied by its sample weight
    and summed over all ranks. They take effect from the next batch on and are accumulated in
    training mode only.

    Args:
        use_sigmoid: must be True: the loss is defined for the sigmoid only.
        class_weight: must be None.
        num_classes: number K of classes, without background.
        mu: the ratio g at which f is 1/2.
        alpha: maximum increase of the weight of positives, at least 0.
        gamma: steepness of f, above 0.
        vis_grad: argument of mmdetection without effect.
        test_with_obj: argument of mmdetection without effect; there is no objectness channel.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``. The paper divides the sum by the number of
            rows: pass it as ``avg_factor``, as the RoI head does.
        loss_weight: factor on the result.

    Use:
        Long-tailed data, such as LVIS, with a head that scores by sigmoid.

    Shape:
        pred: logits ``[N, K]``. target: labels ``[N]``, 0..K-1, background K, -1 ignored.
        Unreduced: ``[N, K]``.

    Raises:
        InputError: use_sigmoid=False, a class_weight, an argument out of range, logits with the
            wrong number of channels, or a target of the wrong shape or type.

    Reference:
        Jingru Tan, Xin Lu, Gang Zhang, Changqing Yin, Quanquan Li: Equalization Loss v2: A New
        Gradient Balance Approach for Long-tailed Object Detection. CVPR 2021, arXiv 2012.08548.

    Note:
        The paper adds an objectness channel with weights of 1 and multiplies the scores by it. That
        is part of a detector and is not implemented here. mmdetection 3.3 (EQLV2Loss) has that
        channel, ignores sample weights and ``avg_factor``, divides by the number of rows, and sums
        gradients over the ranks only with ``use_distributed=True``.

    Example:
        >>> import torch
        >>> loss, logits = EQLv2Loss(num_classes=2, reduction="none"), torch.zeros(2, 2)
        >>> loss(logits, torch.tensor([0, 0]))[0]  # ln 2 in the first step
        tensor([0.6931, 0.6931])
        >>> # class 1 had negatives only, g = 0: its positives have weight 1 + 4
        >>> loss(logits, torch.tensor([0, 1]))[1]
        tensor([0.6931, 3.4655])
    """

    paper = "Tan et al., Equalization Loss v2, arXiv 2012.08548, 2021"
    constant_in_gradient = ("the weights q and r",)
    example: ClassVar[Mapping[str, Any]] = {"num_classes": 3}
    refused: ClassVar[Mapping[str, str]] = {
        "use_distributed": "gradients are always summed over the ranks in distributed training"
    }

    def __init__(
        self,
        *,
        num_classes: int,
        use_sigmoid: bool = True,
        class_weight: None = None,
        mu: float = 0.8,
        alpha: float = 4.0,
        gamma: float = 12.0,
        vis_grad: bool = False,
        test_with_obj: bool = False,
        reduction: str = "mean",
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(num_classes=num_classes, reduction=reduction, loss_weight=loss_weight)
        require_sigmoid("EQLv2Loss", use_sigmoid)
        none = "None: q and r are the weights of the classes"
        check_argument("class_weight", class_weight, class_weight is None, none)
        check_argument("alpha", alpha, alpha >= 0, "at least 0")
        check_argument("gamma", gamma, gamma > 0, "above 0")
        self.use_sigmoid = use_sigmoid
        self.class_weight = class_weight
        self.mu = mu
        self.alpha = alpha
        self.gamma = gamma
        self.vis_grad = vis_grad
        self.test_with_obj = test_with_obj
        for name, reason in _WITHOUT_EFFECT.items():
            if getattr(self, name):
                warnings.warn(f"EQLv2Loss: {name}=True has no effect, {reason}", stacklevel=2)

    def unreduced(self, pred: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Return the loss of each channel; in training, accumulate its gradients."""
        check_labels(pred, target)
        check_channels(self, pred, self.num_classes)
        pred = upcast(pred)
        ratio = self.gradient_ratio(pred.dtype)
        parameters = {"mu": self.mu, "alpha": self.alpha, "gamma": self.gamma}
        if self.training:
            q, r = eqlv2_weights(ratio, **parameters)
            p = pred.detach().sigmoid()
            positive = is_label(target, self.num_classes)
            self.accumulate(torch.where(positive, q * (1 - p), r * p), target, weight)
        return eqlv2_loss(pred, target, ratio, **parameters)
