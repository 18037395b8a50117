"""Focal loss, of each channel's sigmoid or of the softmax."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from det_losses.errors import InputError
from det_losses.losses.core.classification import (
    ClassificationLoss,
    alpha_pair,
    channel_weight,
    check_focusing,
    check_labels,
    is_dense,
    is_valid,
    label_log_probability,
    sigmoid_power,
    soft_terms,
    sparse_channels,
    weigh_channels,
)
from det_losses.losses.core.closed_channels import ChannelTerms
from det_losses.registry import MODELS
from det_losses.tensors import upcast


def sigmoid_focal_loss(
    pred: Tensor,
    target: Tensor,
    *,
    gamma: float = 2.0,
    alpha: float | None = 0.25,
    class_weight: Tensor | None = None,
) -> Tensor:
    """Focal loss of each channel's sigmoid, ``[N, K]``; see :class:`FocalLoss`."""
    check_focusing(gamma, alpha)
    dense = is_dense(pred, target)
    pred = upcast(pred)
    if dense:
        a_pos, a_neg = alpha_pair(alpha)
        # Clamped because the logarithm of a value outside would put NaN into the gradient.
        y = target.to(pred.dtype).clamp(0, 1)
        alpha_t = a_pos * y + a_neg * (1 - y)
        log_miss, cross_entropy = soft_terms(pred, y)
        loss = alpha_t * (gamma * log_miss).exp() * cross_entropy
        loss = torch.where(is_valid(target, None), loss, 0.0)
    else:
        negative, positive = _channel_terms(gamma, alpha)
        loss = sparse_channels(pred, target, negative, lambda x, _: positive(x))
    return weigh_channels(loss, class_weight)


def softmax_focal_loss(
    pred: Tensor,
    target: Tensor,
    *,
    gamma: float = 2.0,
    alpha: float | None = 0.25,
    class_weight: Tensor | None = None,
) -> Tensor:
    """Focal loss of the softmax of each row, ``[N]``; see :class:`FocalLoss`."""
    check_focusing(gamma, alpha)
    check_labels(pred, target)
    background = pred.shape[-1] - 1
    if background < 1:
        raise InputError("softmax needs a class and the background; pred has one channel")
    pred = upcast(pred)
    weight = channel_weight(class_weight, pred)
    log_pt, label, valid = label_log_probability(pred, target)
    others = pred.scatter(-1, label.unsqueeze(-1), float("-inf"))
    log_miss = others.logsumexp(-1) - pred.logsumexp(-1)  # ln(1 - p_t)
    loss = -(gamma * log_miss).exp() * log_pt
    if alpha is not None:
        loss = torch.where(label < background, alpha * loss, (1 - alpha) * loss)
    if weight is not None:
        loss = loss * weight[label]
    return torch.where(valid, loss, 0.0)


def _channel_terms(gamma: float, alpha: float | None) -> ChannelTerms:
    """Return the loss of a channel; 1 - p_t is the sigmoid of -x for positives."""
    a_pos, a_neg = alpha_pair(alpha)
    return ChannelTerms(
        negative=lambda x: -a_neg * sigmoid_power(x, gamma) * F.logsigmoid(-x),
        positive=lambda x: -a_pos * sigmoid_power(-x, gamma) * F.logsigmoid(x),
    )


@MODELS.register_module()
class FocalLoss(ClassificationLoss):
    r"""Cross-entropy down-weighted for well-classified examples.

    .. math:: L = -\alpha_t (1 - p_t)^\gamma \ln p_t

    Sigmoid: per channel, :math:`p_t = \sigma(x), \alpha_t = \alpha` for the label's channel and
    :math:`p_t = 1 - \sigma(x), \alpha_t = 1 - \alpha` for the others. Softmax: per row,
    :math:`p_t` is the probability of the label, :math:`\alpha_t = \alpha` for a class and
    :math:`1 - \alpha` for the background. The paper divides the sum by the number of positives:
    pass it as ``avg_factor``. Powers are computed in log space, so gradients are finite for every
    gamma.

    Args:
        use_sigmoid: sigmoid of each channel; False is softmax.
        gamma: focusing parameter, at least 0; 0 is cross-entropy.
        alpha: weight of positives, in [0, 1]; None disables balancing.
        class_weight: factor on each channel, for positives and negatives; with softmax, factor on
            the rows of each label, background last; None means 1.
        activated: must be False: pred contains logits.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Use:
        Dense detectors (RetinaNet, FCOS), where nearly all anchors are easy background.

    Shape:
        pred: logits ``[N, K]``, with softmax ``[N, K + 1]``, background last. target: labels
        ``[N]``, 0..K-1, background K, -1 ignored; with sigmoid also values in [0, 1] of
        the shape of ``pred``. Unreduced: ``[N, K]``, with softmax ``[N]``.

    Raises:
        InputError: gamma or alpha out of range, activated, a class_weight of the wrong length, or a
            target of the wrong shape or type.

    Reference:
        Tsung-Yi Lin, Priya Goyal, Ross Girshick, Kaiming He, Piotr Dollar: Focal Loss for Dense
        Object Detection. arXiv 1708.02002, 2017.

    Note:
        mmdetection 3.3 implements the sigmoid only. torchvision computes the power directly: with
        gamma 0.5 its gradient is NaN at logits of 100.

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
        class_weight: Sequence[float] | None = None,
        activated: bool = False,
        reduction: str = "mean",
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(reduction=reduction, loss_weight=loss_weight)
        check_focusing(gamma, alpha)
        if activated:
            raise InputError("activated=True means that pred contains probabilities; pass logits")
        self._store_class_weight(class_weight)
        self.use_sigmoid = use_sigmoid
        self.gamma = gamma
        self.alpha = alpha
        self.activated = activated
        self.activation = "sigmoid" if use_sigmoid else "softmax"

    def channel_terms(self) -> ChannelTerms | None:
        """The focal loss of a channel."""
        return _channel_terms(self.gamma, self.alpha) if self.use_sigmoid else None

    def unreduced(self, pred: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Return the loss of each channel (sigmoid) or row (softmax)."""
        function = sigmoid_focal_loss if self.use_sigmoid else softmax_focal_loss
        return function(
            pred,
            target,
            gamma=self.gamma,
            alpha=self.alpha,
            class_weight=self._channel_weight,
        )
