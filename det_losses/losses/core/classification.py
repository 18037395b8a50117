"""What classification losses share: the label convention, checks, and the building blocks."""

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from det_losses.errors import InputError, InputTypeError
from det_losses.losses.core.base import Loss, check_argument
from det_losses.losses.core.state import over_ranks


class ClassificationLoss(Loss):
    """A loss of logits ``[N, C]`` against integer labels ``[N]``.

    Labels are 0..K-1 for classes and K for background; negative labels are ignored. A sigmoid loss
    has C = K channels and returns one value per channel. A softmax loss has C = K + 1 channels,
    background last, and returns one value per row.
    """

    kind = "classification"

    def unreduced_shape(self, pred: Tensor) -> torch.Size:
        """One value per channel (sigmoid) or per row (softmax)."""
        return pred.shape if self.activation == "sigmoid" else pred.shape[:-1]

    def _store_class_weight(self, class_weight: Sequence[float] | None) -> None:
        """Keep the argument, and its values in a buffer that is not part of the state_dict."""
        if isinstance(class_weight, str):
            raise InputTypeError(f"class_weight must be a list of numbers, got {class_weight!r}")
        self.class_weight = class_weight
        weights = None if class_weight is None else torch.tensor(class_weight, dtype=torch.float64)
        self.register_buffer("_channel_weight", weights, persistent=False)


class QualityLoss(ClassificationLoss):
    """A sigmoid loss whose target at the label's channel is a quality in [0, 1], such as the IoU.

    The target has one of three forms: labels ``[N]`` with the input ``quality`` ``[N]``, as the
    heads of this package pass it; a pair ``(labels, quality)``, as mmdetection's quality focal loss
    takes it; or values per channel ``[N, K]``, of which negative ones are ignored. Qualities are
    detached and clamped to [0, 1].
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
            InputError: a tuple whose length is not two, or a pair together with ``quality``.
        """
        if not isinstance(target, Tensor):
            if len(target) != 2:
                raise InputError(f"target must be (labels, quality), got {len(target)} tensors")
            if "quality" in inputs:
                raise InputError("target is (labels, quality) already: leave out quality=...")
            target, inputs["quality"] = target
        if "quality" not in inputs and target.shape == pred.shape:
            inputs["quality"] = None
        return super().forward(pred, target, weight, avg_factor, reduction_override, **inputs)


class GradientBalancedLoss(ClassificationLoss):
    """A sigmoid loss whose class weights depend on the gradients accumulated in training.

    For each class, the absolute gradients that its logits received as positives and as negatives
    are summed over all training steps and all ranks.

    Args:
        num_classes: number K of classes, without background.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        loss_weight: factor on the result.
    """

    activation = "sigmoid"
    positive_gradient: Tensor
    negative_gradient: Tensor

    def __init__(self, *, num_classes: int, reduction: str, loss_weight: float) -> None:
        super().__init__(reduction=reduction, loss_weight=loss_weight)
        check_class_number(num_classes)
        self.num_classes = num_classes
        self.register_buffer("positive_gradient", torch.zeros(num_classes))
        self.register_buffer("negative_gradient", torch.zeros(num_classes))

    def gradient_ratio(self, dtype: torch.dtype) -> Tensor:
        """Return positive over negative gradient of each class, ``[K]``; inf without negatives."""
        positive, negative = self.positive_gradient.to(dtype), self.negative_gradient.to(dtype)
        known = negative > 0
        return torch.where(known, positive / torch.where(known, negative, 1.0), torch.inf)

    @torch.no_grad()
    def accumulate(self, gradient: Tensor, labels: Tensor, weight: Tensor | None) -> None:
        """Add the absolute gradients ``[N, K]`` of this batch; ignored rows do not count."""
        positive = is_label(labels, self.num_classes)
        gradient = torch.where(is_valid(labels, None).unsqueeze(-1), gradient, 0.0)
        if weight is not None:
            gradient = gradient * weight
        sides = (torch.where(side, gradient, 0.0) for side in (positive, ~positive))
        total = over_ranks(torch.stack([side.flatten(0, -2).sum(0) for side in sides]))
        total = total.to(self.positive_gradient)
        # Not in place: a compiled backward recomputes the weights from the tensors of the forward.
        self.positive_gradient = self.positive_gradient + total[0]
        self.negative_gradient = self.negative_gradient + total[1]


# Checks


def check_labels(pred: Tensor, target: Tensor, alternative: str = "") -> None:
    """Raise unless the target has one integer label per row."""
    integer = not (target.is_floating_point() or target.dtype == torch.bool)
    if target.shape != pred.shape[:-1] or not integer:
        raise InputError(
            f"target must hold one integer label per row{alternative}; pred has shape "
            f"{list(pred.shape)}, target {list(target.shape)} of {target.dtype}"
        )


def check_class_number(num_classes: int) -> None:
    """Raise unless ``num_classes`` is a positive integer."""
    valid = isinstance(num_classes, int) and num_classes > 0
    check_argument("num_classes", num_classes, valid, "the number of classes without background")


def check_channels(loss: ClassificationLoss, pred: Tensor, channels: int) -> None:
    """Raise unless the logits have the number of channels that ``num_classes`` implies."""
    if pred.shape[-1] != channels:
        raise InputError(
            f"{type(loss).__name__}: num_classes={loss.num_classes} requires {channels} channels, "
            f"pred has {pred.shape[-1]}; set num_classes to that of the detector"
        )


def check_focusing(gamma: float, alpha: float | None) -> None:
    """Raise unless gamma and alpha are valid for focal loss."""
    check_argument("gamma", gamma, gamma >= 0, "at least 0")
    check_alpha(alpha)


def check_alpha(alpha: float | None) -> None:
    """Raise unless alpha is a weight of positives in [0, 1], or None."""
    balanced = alpha is None or 0 <= alpha <= 1
    check_argument("alpha", alpha, balanced, "in [0, 1], or None for no balancing")


def require_sigmoid(loss: str, use_sigmoid: bool) -> None:
    """Raise if softmax is requested of a loss that is defined for the sigmoid only."""
    if not use_sigmoid:
        raise InputError(
            f"use_sigmoid must be True, got {use_sigmoid!r}: {loss} is defined for the sigmoid "
            "only; for softmax use CrossEntropyLoss or FocalLoss"
        )


# Labels


def is_dense(pred: Tensor, target: Tensor) -> bool:
    """Whether ``target`` has a value for each channel instead of one label per row.

    Raises:
        InputError: neither is the case.
    """
    if target.shape == pred.shape:
        return True
    check_labels(pred, target, " or one value per channel")
    return False


def is_valid(target: Tensor, ignore_index: int | None) -> Tensor:
    """Whether a label counts: it is neither negative nor ``ignore_index``."""
    valid = target >= 0
    return valid if ignore_index is None else valid & (target != ignore_index)


def is_label(labels: Tensor, channels: int) -> Tensor:
    """Whether a channel is that of the row's label, ``[N, C]``."""
    return labels.unsqueeze(-1) == torch.arange(channels, device=labels.device)


def check_quality(pred: Tensor, target: Tensor, quality: Tensor | None) -> None:
    """Raise unless the target is labels with one quality each, or values without quality."""
    if quality is None:
        if not is_dense(pred, target):
            raise InputError("labels need a quality for each row: pass quality=..., [N] in [0, 1]")
        return
    check_labels(pred, target)
    if quality.shape != target.shape:
        raise InputError(
            f"quality must have one value per row, {list(target.shape)}, got {list(quality.shape)}"
        )


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
        positive: loss of logits whose target is 1; it is also passed their channels.
        ignore_index: another label to ignore.

    Returns:
        ``[N, C]``: ``positive`` at the labels' channels, ``negative`` elsewhere.
    """
    loss = negative(logits)
    labels = labels.long().unsqueeze(-1)
    channel = labels.clamp(0, logits.shape[-1] - 1)
    own = logits.gather(-1, channel)
    own_loss = torch.where(labels == channel, positive(own, channel), negative(own))
    loss = loss.scatter(-1, channel, own_loss)
    return torch.where(is_valid(labels, ignore_index), loss, 0.0)


def quality_channels(
    logits: Tensor,
    target: Tensor,
    quality: Tensor | None,
    negative: Callable[[Tensor], Tensor],
    positive: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """Loss of each channel, ``[N, K]``, against qualities, which are clamped to [0, 1].

    Args:
        logits: ``[N, K]``.
        target: labels ``[N]``, 0..K-1, background K, negative ignored; or, without ``quality``,
            values ``[N, K]``: positive if above 0, ignored if negative.
        quality: quality of each row, the target at its label's channel, ``[N]``.
        negative: loss of logits whose target is 0.
        positive: loss of logits at the label's channel; it is also passed their quality, which may
            be 0.

    Raises:
        InputError: the shapes do not fit, or labels are given without quality.
    """
    check_quality(logits, target, quality)
    if quality is None:
        value = target.detach().to(logits.dtype).clamp(0, 1)
        loss = torch.where(value > 0, positive(logits, value), negative(logits))
        return torch.where(is_valid(target, None), loss, 0.0)
    # The quality of rows without a class is never used, even if it is NaN.
    has_class = (target >= 0) & (target < logits.shape[-1])
    value = torch.where(has_class, quality.detach().to(logits.dtype), 0.0).clamp(0, 1)
    return sparse_channels(
        logits, target, negative, lambda own, _: positive(own, value.unsqueeze(-1))
    )


# Weights of channels and of positives against negatives


def channel_weight(class_weight: Tensor | None, pred: Tensor) -> Tensor | None:
    """Bring class weights to the dtype and device of the logits.

    Raises:
        InputError: their number is not the number of channels.
    """
    if class_weight is None:
        return None
    if class_weight.shape != pred.shape[-1:]:
        raise InputError(
            f"class_weight must have one entry per channel: {class_weight.numel()} given, pred "
            f"has {pred.shape[-1]}"
        )
    return class_weight.to(pred)


def weigh_channels(loss: Tensor, class_weight: Tensor | None) -> Tensor:
    """Multiply each channel of a loss ``[N, C]`` by the weight of its class."""
    weight = channel_weight(class_weight, loss)
    return loss if weight is None else loss * weight


def alpha_pair(alpha: float | None) -> tuple[float, float]:
    """Return focal loss's weights of positives and negatives; None is no balancing."""
    return (1.0, 1.0) if alpha is None else (alpha, 1 - alpha)


# Powers of probabilities, finite in value and gradient


def sigmoid_power(logits: Tensor, exponent: float | Tensor) -> Tensor:
    """Sigmoid to a power, in log space: value and gradient are finite for every logit."""
    return (exponent * F.logsigmoid(logits)).exp()


def safe_power(base: Tensor, exponent: float) -> Tensor:
    """``base ** exponent`` for ``base`` at least 0, with gradient 0 where ``base`` is 0.

    The gradient of a direct power is infinite there if the exponent is below 1.
    """
    inside = base > torch.finfo(base.dtype).tiny
    power = torch.where(inside, base, 1.0) ** exponent
    return torch.where(inside, power, 0.0**exponent)


def soft_terms(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``ln(1 - p_t)`` and the sigmoid cross-entropy, for targets y in [0, 1].

    ``p_t = y p + (1 - y)(1 - p)``, as in torchvision's focal loss.
    """
    log_p, log_q = F.logsigmoid(logits), F.logsigmoid(-logits)
    log_miss = torch.logaddexp(target.log() + log_q, (1 - target).log() + log_p)
    return log_miss, -target * log_p - (1 - target) * log_q
