"""What classification losses share: the label convention, and labels put in place sparsely."""

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from det_losses.losses.core.base import Loss, check_argument


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


def require_sigmoid(loss: str, use_sigmoid: bool) -> None:
    """Refuse the softmax for a loss that is defined on the sigmoid alone."""
    if not use_sigmoid:
        raise ValueError(
            f"use_sigmoid must be True, got {use_sigmoid!r}: {loss} is defined on the sigmoid; for "
            "the softmax take CrossEntropyLoss or FocalLoss"
        )


def sigmoid_power(logits: Tensor, exponent: float) -> Tensor:
    """Sigmoid to a power, in log space: value and gradient are finite for every logit."""
    return (exponent * F.logsigmoid(logits)).exp()


def safe_power(base: Tensor, exponent: float) -> Tensor:
    """``base ** exponent`` of what is at least 0, with gradient 0 where ``base`` is 0.

    A direct power below 1 has an infinite gradient there.
    """
    inside = base > torch.finfo(base.dtype).tiny
    power = torch.where(inside, base, 1.0) ** exponent
    return torch.where(inside, power, 0.0**exponent)


class QualityLoss(ClassificationLoss):
    """A sigmoid loss whose target at the label's channel is a quality in [0, 1], such as the IoU.

    The target is given in one of three ways: labels ``[N]`` and the input ``quality`` ``[N]``, as
    the heads of this package do; ``(labels, quality)`` as in mmdetection's quality focal loss; or
    ``[N, K]``, a value for each channel, of which negative ones are ignored. Qualities are constant
    and count as at most 1 and at least 0.
    """

    activation = "sigmoid"
    inputs = ("quality",)
    zero_at_target: ClassVar[bool] = False

    def forward(
        self,
        pred: Tensor,
        target: Tensor | Sequence[Tensor],
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: str | None = None,
        **inputs: Tensor | None,
    ) -> Tensor:
        """Compute the loss; see :meth:`Loss.forward`.

        Raises:
            ValueError: a pair of another length than two, or a pair and ``quality`` too.
        """
        if not isinstance(target, Tensor):
            if len(target) != 2:
                raise ValueError(f"target must be (labels, quality), got {len(target)} tensors")
            if "quality" in inputs:
                raise ValueError("target is (labels, quality) already: leave out quality=...")
            target, inputs["quality"] = target
        if "quality" not in inputs and target.shape == pred.shape:
            inputs["quality"] = None
        return super().forward(pred, target, weight, avg_factor, reduction_override, **inputs)


def quality_channels(
    logits: Tensor,
    target: Tensor,
    quality: Tensor | None,
    negative: Callable[[Tensor], Tensor],
    positive: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """Loss of each channel, ``[N, K]``, against qualities, which count as within [0, 1].

    Args:
        logits: ``[N, K]``.
        target: labels ``[N]``, 0..K-1, background K, negative ignored; or, without ``quality``,
            ``[N, K]`` values, of which those above 0 are positive and negative ones ignored.
        quality: the value at the label's channel, ``[N]``.
        negative: loss of logits whose target is 0.
        positive: loss of logits at the label's channel, given also their quality, which may be 0.

    Raises:
        ValueError: the shapes do not fit, or labels come without quality.
    """
    if quality is None:
        if not is_dense(logits, target):
            raise ValueError("labels need a quality for each row: pass quality=..., [N] in [0, 1]")
        value = target.detach().to(logits.dtype).clamp(0, 1)
        loss = torch.where(value > 0, positive(logits, value), negative(logits))
        return torch.where(is_valid(target, None), loss, 0.0)
    check_labels(logits, target)
    if quality.shape != target.shape:
        raise ValueError(
            f"quality must have one value per row, {list(target.shape)}, got {list(quality.shape)}"
        )
    # What stands at a row without a class is never read, not even a NaN.
    has_class = (target >= 0) & (target < logits.shape[-1])
    value = torch.where(has_class, quality.detach().to(logits.dtype), 0.0).clamp(0, 1)
    return sparse_channels(
        logits, target, negative, lambda own, _: positive(own, value.unsqueeze(-1))
    )


def check_class_number(num_classes: int) -> None:
    """Refuse a number of classes that is none."""
    valid = isinstance(num_classes, int) and num_classes > 0
    check_argument("num_classes", num_classes, valid, "the number of classes without background")


def check_channels(loss: ClassificationLoss, pred: Tensor, channels: int) -> None:
    """Refuse logits of another number of classes than the loss counts."""
    if pred.shape[-1] != channels:
        raise ValueError(
            f"{type(loss).__name__}: num_classes={loss.num_classes} goes with {channels} channels, "
            f"pred has {pred.shape[-1]}; set num_classes to the detector's"
        )
