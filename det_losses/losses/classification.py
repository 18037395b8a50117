"""What classification losses share: the label convention, and labels put in place sparsely."""

from collections.abc import Callable

import torch
from torch import Tensor

from det_losses.losses.base import Loss


class ClassificationLoss(Loss):
    """A loss of logits ``[N, C]`` against integer labels ``[N]``.

    Labels are 0..K-1, background K, and negative ones are ignored. A sigmoid loss has C = K
    channels and one value per channel; a softmax loss has C = K + 1, of which the last is the
    background, and one value per row.
    """

    kind = "classification"
    activation: str

    def unreduced_shape(self, pred: Tensor) -> torch.Size:
        """One value per channel (sigmoid) or per row (softmax)."""
        return pred.shape if self.activation == "sigmoid" else pred.shape[:-1]


def is_dense(pred: Tensor, target: Tensor) -> bool:
    """Whether ``target`` gives a value for each channel rather than one label per row.

    Raises:
        ValueError: it is neither.
    """
    if target.shape == pred.shape:
        return True
    check_labels(pred, target, " or one value per channel")
    return False


def check_labels(pred: Tensor, target: Tensor, alternative: str = "") -> None:
    """Refuse a target that is not one integer label per row."""
    integer = not (target.is_floating_point() or target.dtype == torch.bool)
    if target.shape != pred.shape[:-1] or not integer:
        raise ValueError(
            f"target must hold one integer label per row{alternative}; pred has shape "
            f"{list(pred.shape)}, target {list(target.shape)} of {target.dtype}"
        )


def is_valid(target: Tensor, ignore_index: int | None) -> Tensor:
    """Whether a label counts: it is neither negative nor ``ignore_index``."""
    valid = target >= 0
    return valid if ignore_index is None else valid & (target != ignore_index)


def sparse_channels(
    logits: Tensor,
    labels: Tensor,
    negative: Callable[[Tensor], Tensor],
    positive: Callable[[Tensor, Tensor], Tensor],
    ignore_index: int | None = None,
) -> Tensor:
    """Loss of each channel against integer labels, without a one-hot tensor.

    Args:
        logits: ``[N, C]``.
        labels: ``[N]``; 0..C-1 are classes, larger ones background, negative ones ignored.
        negative: loss of logits whose target is 0.
        positive: loss of logits whose target is 1, given also their channels.
        ignore_index: another label to ignore.

    Returns:
        ``[N, C]``: ``negative`` everywhere but at the labels' channels.
    """
    loss = negative(logits)
    labels = labels.long().unsqueeze(-1)
    channel = labels.clamp(0, logits.shape[-1] - 1)
    own = logits.gather(-1, channel)
    own_loss = torch.where(labels == channel, positive(own, channel), negative(own))
    loss = loss.scatter(-1, channel, own_loss)
    return torch.where(is_valid(labels, ignore_index), loss, 0.0)


def channel_weight(class_weight: Tensor | None, pred: Tensor) -> Tensor | None:
    """Bring the classes' weights to the logits' precision and place.

    Raises:
        ValueError: their number is not that of the channels.
    """
    if class_weight is None:
        return None
    if class_weight.shape != pred.shape[-1:]:
        raise ValueError(
            f"class_weight must have one entry per channel: {class_weight.numel()} given, pred "
            f"has {pred.shape[-1]}"
        )
    return class_weight.to(pred)
