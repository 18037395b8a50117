"""Cross-entropy of the softmax, or of each channel's sigmoid."""

from collections.abc import Sequence

import torch
from torch import Tensor

from det_losses.errors import InputError
from det_losses.losses.binary_cross_entropy import binary_cross_entropy_loss
from det_losses.losses.core.classification import (
    ClassificationLoss,
    channel_weight,
    check_labels,
    is_valid,
    label_log_probability,
)
from det_losses.registry import MODELS
from det_losses.tensors import upcast


def cross_entropy_loss(
    pred: Tensor,
    target: Tensor,
    *,
    class_weight: Tensor | None = None,
    ignore_index: int | None = None,
) -> Tensor:
    """Softmax cross-entropy of each row, ``[N]``; see :class:`CrossEntropyLoss`."""
    check_labels(pred, target)
    pred = upcast(pred)
    weight = channel_weight(class_weight, pred)
    log_pt, label, valid = label_log_probability(pred, target, ignore_index)
    loss = -log_pt
    if weight is not None:
        loss = loss * weight[label]
    return torch.where(valid, loss, 0.0)


@MODELS.register_module()
class CrossEntropyLoss(ClassificationLoss):
    r"""Cross-entropy of the softmax over the classes and the background.

    .. math:: L = -w_y \ln \frac{e^{x_y}}{\sum_c e^{x_c}}

    With ``use_sigmoid`` the loss is a sigmoid cross-entropy per channel:
    :math:`L_c = -w_c y_c \ln \sigma(x_c) - (1 - y_c) \ln (1 - \sigma(x_c))`.

    Args:
        use_sigmoid: sigmoid of each channel instead of softmax.
        use_mask: must be False: mmdetection's mask loss is not implemented.
        class_weight: factor w of each channel; with ``use_sigmoid`` on the positive term only, as
            in mmdetection.
        ignore_index: a label to ignore in addition to -1.
        avg_non_ignore: ``mean`` without avg_factor divides by the number of elements that are not
            ignored, instead of by the number of all elements.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.

    Use:
        The classifier of two-stage detectors, whose sampler balances objects and background.

    Shape:
        pred: logits ``[N, K + 1]``, background last; with ``use_sigmoid`` ``[N, K]``. target:
        labels ``[N]``, 0..K-1, background K, -1 ignored; with ``use_sigmoid`` also values
        in [0, 1] of the shape of ``pred``. Unreduced: ``[N]``; with ``use_sigmoid`` ``[N, K]``.

    Raises:
        InputError: use_mask, a class_weight of the wrong length, or a target of the wrong shape or
            type.

    Reference:
        Maximum likelihood of a categorical variable (multinomial logistic regression).

    Example:
        >>> import torch
        >>> CrossEntropyLoss()(torch.zeros(1, 4), torch.tensor([3]))  # ln 4
        tensor(1.3863)
    """

    paper = "classical (maximum likelihood)"

    def __init__(
        self,
        *,
        use_sigmoid: bool = False,
        use_mask: bool = False,
        class_weight: Sequence[float] | None = None,
        ignore_index: int | None = None,
        avg_non_ignore: bool = False,
        reduction: str = "mean",
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(reduction=reduction, loss_weight=loss_weight)
        if use_mask:
            raise InputError("use_mask=True is mmdetection's mask loss, which is not implemented")
        self._store_class_weight(class_weight)
        self.use_sigmoid = use_sigmoid
        self.use_mask = use_mask
        self.ignore_index = ignore_index
        self.avg_non_ignore = avg_non_ignore
        self.activation = "sigmoid" if use_sigmoid else "softmax"

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: str | None = None,
        **inputs: Tensor,
    ) -> Tensor:
        """Compute the loss; see :meth:`Loss.forward`."""
        mean = (reduction_override or self.reduction) == "mean"
        if self.avg_non_ignore and mean and avg_factor is None:
            rows = is_valid(target, self.ignore_index).sum()
            per_target = self.unreduced_shape(pred).numel() // max(target.numel(), 1)
            avg_factor = rows * per_target
        return super().forward(pred, target, weight, avg_factor, reduction_override, **inputs)

    def unreduced(self, pred: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Return the loss of each row, or with ``use_sigmoid`` of each channel."""
        ignored = self.ignore_index
        if not self.use_sigmoid:
            return cross_entropy_loss(
                pred, target, class_weight=self._channel_weight, ignore_index=ignored
            )
        return binary_cross_entropy_loss(
            pred, target, pos_weight=self._channel_weight, ignore_index=ignored
        )
