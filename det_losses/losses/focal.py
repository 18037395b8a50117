"""Focal loss, of each channel's sigmoid or of the softmax."""

import torch
import torch.nn.functional as F
from torch import Tensor

from det_losses.losses.core.base import check_argument
from det_losses.losses.core.classification import (
    ClassificationLoss,
    check_labels,
    is_dense,
    is_valid,
    sparse_channels,
)
from det_losses.registry import MODELS
from det_losses.tensors import upcast


def sigmoid_focal_loss(
    pred: Tensor, target: Tensor, *, gamma: float = 2.0, alpha: float | None = 0.25
) -> Tensor:
    """Focal loss of each channel's sigmoid, ``[N, K]``; see :class:`FocalLoss`."""
    _check(gamma, alpha)
    dense = is_dense(pred, target)
    pred = upcast(pred)
    a_pos, a_neg = (1.0, 1.0) if alpha is None else (alpha, 1 - alpha)
    if dense:
        return _dense_sigmoid_focal(pred, target.to(pred.dtype), gamma, a_pos, a_neg)
    # (1 - p_t)^gamma in log space: 1 - p_t is the sigmoid of -x (positives) or of x.
    return sparse_channels(
        pred,
        target,
        negative=lambda x: -a_neg * (gamma * F.logsigmoid(x)).exp() * F.logsigmoid(-x),
        positive=lambda x, _: -a_pos * (gamma * F.logsigmoid(-x)).exp() * F.logsigmoid(x),
    )


def _dense_sigmoid_focal(
    pred: Tensor, target: Tensor, gamma: float, a_pos: float, a_neg: float
) -> Tensor:
    valid = is_valid(target, None)
    target = target.clamp(0, 1)  # a logarithm of another value would put NaN into the gradient
    log_p, log_q = F.logsigmoid(pred), F.logsigmoid(-pred)
    # ln(1 - p_t) with 1 - p_t = y (1 - p) + (1 - y) p
    log_miss = torch.logaddexp(target.log() + log_q, (1 - target).log() + log_p)
    cross_entropy = -target * log_p - (1 - target) * log_q
    alpha_t = a_pos * target + a_neg * (1 - target)
    loss = alpha_t * (gamma * log_miss).exp() * cross_entropy
    return torch.where(valid, loss, 0.0)


def softmax_focal_loss(
    pred: Tensor, target: Tensor, *, gamma: float = 2.0, alpha: float | None = 0.25
) -> Tensor:
    """Focal loss of the softmax of each row, ``[N]``; see :class:`FocalLoss`."""
    _check(gamma, alpha)
    check_labels(pred, target)
    background = pred.shape[-1] - 1
    if background < 1:
        raise ValueError("softmax needs a class and the background; pred has one channel")
    pred = upcast(pred)
    valid = is_valid(target, None)
    label = torch.where(valid, target, 0).long().unsqueeze(-1)
    log_pt = pred.log_softmax(-1).gather(-1, label).squeeze(-1)
    others = pred.scatter(-1, label, float("-inf"))
    log_miss = others.logsumexp(-1) - pred.logsumexp(-1)  # ln(1 - p_t)
    loss = -(gamma * log_miss).exp() * log_pt
    if alpha is not None:
        loss = torch.where(label.squeeze(-1) < background, alpha * loss, (1 - alpha) * loss)
    return torch.where(valid, loss, 0.0)


@MODELS.register_module()
class FocalLoss(ClassificationLoss):
    r"""Cross-entropy that fades for examples which are already right.

    .. math:: L = -\alpha_t (1 - p_t)^\gamma \ln p_t

    Sigmoid: per channel, :math:`p_t = \sigma(x), \alpha_t = \alpha` for the label's channel and
    :math:`p_t = 1 - \sigma(x), \alpha_t = 1 - \alpha` for the others. Softmax: per row,
    :math:`p_t` is the probability of the label, :math:`\alpha_t = \alpha` for a class and
    :math:`1 - \alpha` for the background. The paper divides the sum by the number of positives:
    pass it as ``avg_factor``. Powers are taken in log space, so gradients are finite for every
    gamma.

    Args:
        use_sigmoid: sigmoid of each channel; False is softmax.
        gamma: how fast easy examples fade, at least 0; 0 is cross-entropy.
        alpha: weight of positives, in [0, 1]; None is no balance.
        activated: that pred holds probabilities; only False, give logits.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Use:
        Dense detectors (RetinaNet, FCOS), where nearly all anchors are easy background.

    Shape:
        pred: logits ``[N, K]``, with softmax ``[N, K + 1]``, background last. target: labels
        ``[N]``, 0..K-1, background K, negative ignored; with sigmoid also values in [0, 1] of
        the shape of ``pred``. Unreduced: ``[N, K]``, with softmax ``[N]``.

    Raises:
        ValueError: gamma or alpha out of range, activated, or a target of another shape or type.

    Reference:
        Tsung-Yi Lin, Priya Goyal, Ross Girshick, Kaiming He, Piotr Dollar: Focal Loss for Dense
        Object Detection. arXiv 1708.02002, 2017.

    Note:
        mmdetection has the sigmoid only. torchvision takes the power directly: with gamma 0.5
        its gradient is NaN at logits of 100.

    Published:
        RetinaNet R50-FPN at 600 px, arXiv 1708.02002, Table 1b: AP 34.0; with gamma 0, the
        balanced cross-entropy, 31.1.

    Example:
        >>> import torch
        >>> FocalLoss()(torch.zeros(1, 1), torch.tensor([0]))  # 0.25 * 0.5^2 * ln 2
        tensor(0.0433)
    """

    paper = "Lin et al., Focal Loss, arXiv 1708.02002, 2017"

    def __init__(
        self,
        *,
        use_sigmoid: bool = True,
        gamma: float = 2.0,
        alpha: float | None = 0.25,
        activated: bool = False,
        reduction: str = "mean",
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(reduction=reduction, loss_weight=loss_weight)
        _check(gamma, alpha)
        if activated:
            raise ValueError("activated=True takes probabilities; this loss needs logits")
        self.use_sigmoid = use_sigmoid
        self.gamma = gamma
        self.alpha = alpha
        self.activated = activated
        self.activation = "sigmoid" if use_sigmoid else "softmax"

    def unreduced(self, pred: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Return the loss of each channel (sigmoid) or row (softmax)."""
        function = sigmoid_focal_loss if self.use_sigmoid else softmax_focal_loss
        return function(pred, target, gamma=self.gamma, alpha=self.alpha)


def _check(gamma: float, alpha: float | None) -> None:
    check_argument("gamma", gamma, gamma >= 0, "at least 0")
    balanced = alpha is None or 0 <= alpha <= 1
    check_argument("alpha", alpha, balanced, "in [0, 1], or None for no balance")
