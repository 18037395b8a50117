"""Binary cross-entropy of each channel."""

import torch
import torch.nn.functional as F
from torch import Tensor

from det_losses.losses.core.classification import (
    ClassificationLoss,
    channel_weight,
    is_dense,
    is_valid,
    sparse_channels,
)
from det_losses.registry import MODELS
from det_losses.tensors import upcast


def binary_cross_entropy_loss(
    pred: Tensor,
    target: Tensor,
    *,
    class_weight: Tensor | None = None,
    ignore_index: int | None = None,
) -> Tensor:
    """Sigmoid cross-entropy of each channel, ``[N, C]``; see :class:`BinaryCrossEntropyLoss`."""
    dense = is_dense(pred, target)
    pred = upcast(pred)
    weight = channel_weight(class_weight, pred)
    if dense:
        loss = F.binary_cross_entropy_with_logits(
            pred, target.to(pred.dtype), pos_weight=weight, reduction="none"
        )
        return torch.where(is_valid(target, ignore_index), loss, 0.0)

    def positive(logits: Tensor, channel: Tensor) -> Tensor:
        loss = -F.logsigmoid(logits)
        return loss if weight is None else loss * weight[channel]

    return sparse_channels(pred, target, lambda x: -F.logsigmoid(-x), positive, ignore_index)


@MODELS.register_module()
class BinaryCrossEntropyLoss(ClassificationLoss):
    r"""Cross-entropy of the sigmoid of each channel.

    .. math:: L_c = -y_c \ln \sigma(x_c) - (1 - y_c) \ln (1 - \sigma(x_c))

    Args:
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Use:
        Objectness, and classes that do not exclude each other, where positives and negatives are
        in balance.

    Shape:
        pred: logits ``[N, K]``. target: labels ``[N]``, 0..K-1, background K, negative ignored;
        or values in [0, 1] of the shape of ``pred``. Unreduced: ``[N, K]``.

    Raises:
        ValueError: a target of another shape or type.

    Reference:
        Maximum likelihood of independent Bernoulli variables; the classical logistic loss.

    Example:
        >>> import torch
        >>> loss = BinaryCrossEntropyLoss(reduction="none")
        >>> loss(torch.zeros(2, 1), torch.tensor([0, -1]))  # ln 2; the second is ignored
        tensor([[0.6931],
                [0.0000]])
    """

    paper = "classical (logistic regression)"
    activation = "sigmoid"

    def unreduced(self, pred: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Return the loss of each channel."""
        return binary_cross_entropy_loss(pred, target)
