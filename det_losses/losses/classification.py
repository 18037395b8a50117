"""What classification losses share: the label convention, and labels put in place sparsely."""

from collections.abc import Callable
from typing import ClassVar

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


class QualityLoss(ClassificationLoss):
    """A sigmoid loss whose target at the label's channel is a quality in [0, 1], such as the IoU.

    The target is given in one of three ways: labels ``[N]`` and the input ``quality`` ``[N]``, as
    the heads of this package do; ``(labels, quality)`` as in mmdetection's quality focal loss; or
    ``[N, K]``, a value for each channel. All values count as constant.
    """

    activation = "sigmoid"
    inputs = ("quality",)
    zero_at_target: ClassVar[bool] = False

    def forward(
        self,
        pred: Tensor,
        target: Tensor | tuple[Tensor, Tensor],
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: str | None = None,
        **inputs: Tensor,
    ) -> Tensor:
        """Compute the loss; see :meth:`Loss.forward`."""
        if isinstance(target, tuple):
            target, inputs["quality"] = target
        if "quality" not in inputs and target.shape == pred.shape:
            inputs["quality"] = None
        return super().forward(pred, target, weight, avg_factor, reduction_override, **inputs)


def soft_targets(pred: Tensor, target: Tensor, quality: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the target of each channel, ``[N, K]``, and which rows count, ``[N, 1]``.

    Args:
        pred: logits ``[N, K]``, in the precision that the targets shall have.
        target: labels ``[N]``, 0..K-1, background K, negative ignored; or, without ``quality``,
            ``[N, K]`` values in [0, 1], of which negative ones are ignored: then ``[N, K]`` count.
        quality: the value at the label's channel, ``[N]``.

    Raises:
        ValueError: the shapes do not fit.
    """
    if quality is None:
        if not is_dense(pred, target):
            raise ValueError("labels need a quality for each row: pass quality=..., [N] in [0, 1]")
        target = target.detach().to(pred.dtype)
        return target.clamp(min=0), is_valid(target, None)
    check_labels(pred, target)
    if quality.shape != target.shape:
        raise ValueError(
            f"quality must have one value per row, {list(target.shape)}, got {list(quality.shape)}"
        )
    labels = target.long().unsqueeze(-1)
    channels = torch.arange(pred.shape[-1], device=pred.device)
    value = quality.detach().to(pred.dtype).unsqueeze(-1)
    return torch.where(labels == channels, value, 0.0), labels >= 0
