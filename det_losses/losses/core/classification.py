"""Shared code of classification losses: label convention, checks and building blocks."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from det_losses.errors import InputError, InputTypeError
from det_losses.losses.core.base import Loss, check_argument, known_divisor
from det_losses.losses.core.closed_channels import ChannelTerms, ClosedChannels
from det_losses.losses.core.closed_form import closed_form, is_allowed
from det_losses.losses.core.state import over_ranks
from det_losses.tensors import upcast


class ClassificationLoss(Loss):
    """A loss of logits ``[N, C]`` against integer labels ``[N]``.

    Labels are 0..K-1 for classes and K for background; the label -1 is ignored. A sigmoid loss
    has C = K channels and returns one value per channel. A softmax loss has C = K + 1 channels,
    background last, and returns one value per row.
    """

    kind = "classification"

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        # The terms belong to the formula: a class that overrides `unreduced` does not inherit them.
        owner = next(
            each for each in cls.__mro__ if {"unreduced", "channel_terms"} & vars(each).keys()
        )
        if "channel_terms" not in vars(owner):
            cls.channel_terms = ClassificationLoss.channel_terms

    def unreduced_shape(self, pred: Tensor) -> torch.Size:
        """One value per channel (sigmoid) or per row (softmax)."""
        return pred.shape if self.activation == "sigmoid" else pred.shape[:-1]

    def check_values(
        self, pred: Tensor, target: Tensor, weight: Tensor | None = None, **inputs: Tensor | None
    ) -> None:
        """Check labels and sample weights.

        Raises:
            InputError: a label is neither a class, the background K, the ignored -1 nor the loss's
                ``ignore_index``, or a sample weight is negative.
        """
        super().check_values(pred, target, weight, **inputs)
        if target.shape == pred.shape or target.is_floating_point():
            return  # one value per channel
        background = pred.shape[-1] - int(self.activation == "softmax")
        check_label_values(
            type(self).__name__, target, background, getattr(self, "ignore_index", None)
        )

    def channel_terms(self) -> ChannelTerms | None:
        """Return the loss of one channel, for the fast path; None: there is none.

        It must equal :meth:`unreduced` for integer labels, before ``class_weight``. A subclass that
        overrides :meth:`unreduced` has none, unless it defines this method too.
        """
        return None

    def reduced(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None,
        inputs: Mapping[str, Tensor],
        reduction: str,
        avg_factor: float | Tensor | None,
    ) -> Tensor:
        """Return the weighted and reduced loss; by the fast path where there is one."""

        def plain(pred: Tensor) -> Tensor:
            return super(ClassificationLoss, self).reduced(
                pred, target, weight, inputs, reduction, avg_factor
            )

        terms = self.channel_terms()
        factor = avg_factor if isinstance(avg_factor, Tensor) else None
        if (
            terms is None
            or not is_allowed(pred, target, weight, factor, on_gpu=True)
            or next(self.parameters(), None) is not None  # learned parameters need autograd
            or inputs
            or pred.dim() < 2
            or is_dense(pred, target)
            or not pred.numel()
            or (weight is not None and weight.dtype == torch.float64 != pred.dtype)
        ):
            return plain(pred)
        pred = upcast(pred)
        channels = channel_weight(getattr(self, "_channel_weight", None), pred)
        weights = [each.to(pred.dtype) for each in (weight, channels) if each is not None]
        divisor = known_divisor(reduction, avg_factor, pred.numel())
        call = ClosedChannels(terms, target.long(), tuple(weights), divisor)
        return closed_form(pred, *call.compute(pred), plain)

    def _store_class_weight(self, class_weight: Sequence[float] | None) -> None:
        """Store the argument, and its values in a buffer outside the state_dict."""
        if isinstance(class_weight, str):
            raise InputTypeError(f"class_weight must be a list of numbers, got {class_weight!r}")
        self.class_weight = class_weight
        weights = None if class_weight is None else torch.tensor(class_weight, dtype=torch.float64)
        valid = weights is None or bool(((weights >= 0) & weights.isfinite()).all())
        check_argument("class_weight", class_weight, valid, "a list of numbers of at least 0")
        self.register_buffer("_channel_weight", weights, persistent=False)


class QualityLoss(ClassificationLoss):
    """A sigmoid loss whose target at the label's channel is a quality in [0, 1], such as IoU.

    The target has one of three forms: labels ``[N]`` with the input ``quality`` ``[N]``, as this
    package's heads pass them; a pair ``(labels, quality)``, as for mmdetection's quality focal
    loss; or values per channel ``[N, K]``, where negative values are ignored. Qualities are
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
            InputError: a tuple of a length other than two, or a pair in addition to ``quality``.
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

    For each class, the absolute gradients of its logits as positives and as negatives are summed
    over all training steps and ranks.

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
        seen = negative > 0
        return torch.where(seen, positive / torch.where(seen, negative, 1.0), torch.inf)

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
        # Not in place: a compiled backward pass recomputes the weights from the forward's tensors.
        self.positive_gradient = self.positive_gradient + total[0]
        self.negative_gradient = self.negative_gradient + total[1]


# Checks


def check_labels(pred: Tensor, target: Tensor, alternative: str = "") -> None:
    """Raise unless the target has one integer label per row."""
    integer = not (target.is_floating_point() or target.dtype == torch.bool)
    if target.shape != pred.shape[:-1] or not integer:
        raise InputError(
            f"target must be one integer label per row{alternative}; pred has shape "
            f"{list(pred.shape)}, target {list(target.shape)} of {target.dtype}"
        )


def check_label_values(
    loss: str, labels: Tensor, highest: int, ignore_index: int | None = None
) -> None:
    """Raise InputError unless all labels are in -1..highest or ``ignore_index``."""
    if ignore_index is not None:
        labels = labels[labels != ignore_index]
    low, high = map(int, torch.aminmax(labels)) if labels.numel() else (0, 0)
    if low < -1 or high > highest:
        raise InputError(
            f"{loss}: labels must be in 0..{highest} ({highest} is the background), or -1 to be "
            f"ignored, got {low if low < -1 else high}"
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
    """Raise unless alpha is in [0, 1] or None."""
    balanced = alpha is None or 0 <= alpha <= 1
    check_argument("alpha", alpha, balanced, "in [0, 1], or None for no balancing")


def require_sigmoid(loss: str, use_sigmoid: bool) -> None:
    """Raise unless ``use_sigmoid`` is True, for a loss that is defined for sigmoid only."""
    if not use_sigmoid:
        raise InputError(
            f"use_sigmoid must be True, got {use_sigmoid!r}: {loss} is defined for the sigmoid "
            "only; for softmax use CrossEntropyLoss or FocalLoss"
        )


# Labels


def is_dense(pred: Tensor, target: Tensor) -> bool:
    """Return whether ``target`` has one value per channel, rather than one label per row.

    Raises:
        InputError: neither is the case.
    """
    if target.shape == pred.shape:
        return True
    check_labels(pred, target, " or one value per channel")
    return False


def is_valid(target: Tensor, ignore_index: int | None) -> Tensor:
    """Return which labels count: those that are neither negative nor ``ignore_index``."""
    valid = target >= 0
    return valid if ignore_index is None else valid & (target != ignore_index)


def is_label(labels: Tensor, channels: int) -> Tensor:
    """Return which channel is that of the row's label, bool ``[N, C]``."""
    return labels.unsqueeze(-1) == torch.arange(channels, device=labels.device)


def check_quality(pred: Tensor, target: Tensor, quality: Tensor | None) -> None:
    """Raise unless the target is labels with a quality each, or values without quality."""
    if quality is None:
        if not is_dense(pred, target):
            raise InputError("labels need a quality for each row: pass quality=..., [N] in [0, 1]")
        return
    check_labels(pred, target)
    if quality.shape != target.shape:
        raise InputError(
            f"quality must have one value per row, {list(target.shape)}, got {list(quality.shape)}"
        )


def label_log_probability(
    logits: Tensor, labels: Tensor, ignore_index: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return ln p of each row's label under softmax, the labels, and which rows count, ``[N]``.

    Ignored labels are replaced by 0.
    """
    valid = is_valid(labels, ignore_index)
    label = torch.where(valid, labels, 0).long()
    log_p = logits.log_softmax(-1).gather(-1, label.unsqueeze(-1)).squeeze(-1)
    return log_p, label, valid


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
        labels: ``[N]``; 0..C-1 are classes, C is the background, negative ones are ignored.
        negative: loss of logits whose target is 0.
        positive: loss of logits whose target is 1; its second argument is their channels.
        ignore_index: a further label to ignore.

    Returns:
        ``[N, C]``: ``positive`` at the labels' channels, ``negative`` elsewhere.
    """
    loss = negative(logits)
    labels = labels.long().unsqueeze(-1)
    channel = labels.clamp(0, logits.shape[-1] - 1)
    at_label = logits.gather(-1, channel)
    label_loss = torch.where(labels == channel, positive(at_label, channel), negative(at_label))
    loss = loss.scatter(-1, channel, label_loss)
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
        target: labels ``[N]``, 0..K-1, background K, -1 ignored; or, without ``quality``,
            values ``[N, K]``: positive if above 0, ignored if negative.
        quality: quality of each row, the target at its label's channel, ``[N]``.
        negative: loss of logits whose target is 0.
        positive: loss of logits at the label's channel; its second argument is their quality, which
            may be 0.

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
        logits, target, negative, lambda at_label, _: positive(at_label, value.unsqueeze(-1))
    )


# Weights of channels, and of positives and negatives


def channel_weight(class_weight: Tensor | None, pred: Tensor) -> Tensor | None:
    """Return class weights in the dtype and on the device of the logits.

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
    """Return focal loss's weights of positives and negatives; None disables balancing."""
    return (1.0, 1.0) if alpha is None else (alpha, 1 - alpha)


# Powers of probabilities with finite values and gradients


def sigmoid_power(logits: Tensor, exponent: float | Tensor) -> Tensor:
    """Return a power of the sigmoid, with finite value and gradient."""
    if not isinstance(exponent, Tensor) and exponent >= 1:
        return logits.sigmoid() ** exponent
    return (exponent * F.logsigmoid(logits)).exp()


def safe_power(base: Tensor, exponent: float) -> Tensor:
    """Return ``base ** exponent`` for ``base`` of at least 0, with gradient 0 where ``base`` is 0.

    There, the gradient of a direct power is infinite if the exponent is below 1.
    """
    nonzero = base > torch.finfo(base.dtype).tiny
    power = torch.where(nonzero, base, 1.0) ** exponent
    return torch.where(nonzero, power, 0.0**exponent)


def soft_terms(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``ln(1 - p_t)`` and the sigmoid cross-entropy, for targets y in [0, 1].

    ``p_t = y p + (1 - y)(1 - p)``, as in torchvision's focal loss.
    """
    log_p, log_q = F.logsigmoid(logits), F.logsigmoid(-logits)
    log_miss = torch.logaddexp(target.log() + log_q, (1 - target).log() + log_p)
    return log_miss, -target * log_p - (1 - target) * log_q
