"""Binary cross-entropy of each channel."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from det_losses.losses.core.classification import (
    ClassificationLoss,
    channel_weight,
    is_dense,
    is_valid,
    sparse_channels,
    weigh_channels,
)
from det_losses.losses.core.closed_channels import ChannelTerms
from det_losses.registry import MODELS
from det_losses.tensors import upcast


def binary_cross_entropy_loss(
    pred: Tensor,
    target: Tensor,
    *,
    class_weight: Tensor | None = None,
    pos_weight: Tensor | None = None,
    ignore_index: int | None = None,
) -> Tensor:
    """Sigmoid cross-entropy of each channel, ``[N, C]``; see :class:`BinaryCrossEntropyLoss`.

    ``pos_weight`` is a factor for each channel on its positive term only, as in torch.
    """
    dense = is_dense(pred, target)
    pred = upcast(pred)
    weight = channel_weight(pos_weight, pred)
    if dense:
        loss = F.binary_cross_entropy_with_logits(
            pred, target.to(pred.dtype), pos_weight=weight, reduction="none"
        )
        return weigh_channels(torch.where(is_valid(target, ignore_index), loss, 0.0), class_weight)

    def positive(logits: Tensor, channel: Tensor) -> Tensor:
        loss = -F.logsigmoid(logits)
        return loss if weight is None else loss * weight[channel]

    loss = sparse_channels(pred, target, lambda x: -F.logsigmoid(-x), positive, ignore_index)
    return weigh_channels(loss, class_weight)


@MODELS.register_module()
class BinaryCrossEntropyLoss(ClassificationLoss):
    r"""Sigmoid cross-entropy of each channel.

    .. math:: L_c = w_c \left( -y_c \ln \sigma(x_c) - (1 - y_c) \ln (1 - \sigma(x_c)) \right)

    Args:
        class_weight: factor w on each channel, for positives and negatives; None means 1. For a
            factor on the positives only, use ``CrossEntropyLoss(use_sigmoid=True)``.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Use:
        Objectness, and classes that are not mutually exclusive, if positives and negatives are
        balanced.

    Shape:
        pred: logits ``[N, K]``. target: labels ``[N]``, 0..K-1, background K, -1 ignored;
        or values in [0, 1] of the shape of ``pred``. Unreduced: ``[N, K]``.

    Raises:
        InputError: a class_weight of the wrong length, or a target of the wrong shape or type.

    Reference:
        Maximum likelihood of independent Bernoulli variables (logistic regression).

    Example:
        >>> import torch
        >>> loss = BinaryCrossEntropyLoss(reduction="none")
        >>> loss(torch.zeros(2, 1), torch.tensor([0, -1]))  # ln 2; the second row is ignored
        tensor([[0.6931],
                [0.0000]])
    """

    paper = "classical (logistic regression)"
    activation = "sigmoid"

    def __init__(
        self,
        *,
        class_weight: Sequence[float] | None = None,
        reduction: str = "mean",
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(reduction=reduction, loss_weight=loss_weight)
        self._store_class_weight(class_weight)

    def channel_terms(self) -> ChannelTerms:
        """The cross-entropy of a channel."""
        return ChannelTerms(lambda x: -F.logsigmoid(-x), lambda x: -F.logsigmoid(x))

    def unreduced(self, pred: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Return the loss of each channel."""
        return binary_cross_entropy_loss(pred, target, class_weight=self._channel_weight)
