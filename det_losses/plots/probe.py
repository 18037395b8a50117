"""Call a loss at chosen points: its value and its gradient there."""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy

import torch
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder

from det_losses.boxes import box_pair
from det_losses.errors import InputError, InputTypeError
from det_losses.generators import generators_kept
from det_losses.losses.core.base import Loss
from det_losses.losses.core.build import build_loss, loss_class, loss_config, with_classes
from det_losses.losses.core.text import loss_text

TARGET = (300.0, 310.0, 340.0, 330.0)  # 40 x 20 pixels, in the middle of the image
IMAGE = 640.0  # width and height, pixels
CLASSES = 3  # unless the loss's own arguments determine the number
BINS = 17  # of a distribution loss: distances 0 to 16, as in Generalized Focal Loss

KINDS = {
    "delta": "box losses on encoded deltas",
    "decoded": "losses of decoded boxes",
    "sigmoid": "classification losses, sigmoid",
    "quality": "classification losses with the quality of the box, sigmoid",
    "softmax": "classification losses, softmax",
    "distribution": "losses of the distribution of a box side",
}


def named_losses(texts: Sequence[str]) -> dict[str, Loss]:
    """Build losses and return them by their text.

    A bare name whose loss has required arguments gets those of its ``example``.

    Raises:
        UserError: a loss is given twice or cannot be built, or is not a :class:`Loss`.
    """
    losses = {}
    for text in texts:
        config = loss_config(text)
        cls = loss_class(config)
        if len(config) == 1:
            config = {**getattr(cls, "example", {}), **config}
        label = text if len(loss_config(text)) == len(config) else loss_text(config)
        if label in losses:
            raise InputError(f"{label} is given twice")
        loss = build_loss(with_classes(config, CLASSES))
        if not isinstance(loss, Loss):
            raise InputTypeError(f"{label}: {cls.__qualname__} is not a det_losses.losses.Loss")
        losses[label] = loss
    return losses


def kind_of(loss: Loss) -> str:
    """Return the kind of a loss: a key of ``KINDS``, by the inputs it is a function of."""
    if loss.kind == "box":
        return loss.space
    if loss.kind == "classification":
        return "quality" if "quality" in loss.inputs else loss.activation
    return loss.kind


def boxes(loss: Loss, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """Return the value ``[N]`` and the gradient ``[N, 4]`` of a box loss.

    Args:
        loss: a loss on encoded deltas, of which the coordinates are summed, or on decoded boxes.
        offsets: ``[N, 4]``: the predicted box relative to the target: offset of the centre in
            units of the target's width and height, and logarithms of the ratios of the sides. The
            gradient is with respect to these.
    """
    target = torch.tensor(TARGET, dtype=offsets.dtype).expand_as(offsets)
    zero = torch.zeros_like(offsets)

    def arguments(point: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        box = decode(point)
        known = {
            "image_size": torch.full_like(point[:, :2], IMAGE),
            "pred_deltas": point,
            "target_deltas": zero,
            "quality": box_pair(box, target).iou.detach(),
            "logits": point.new_zeros(len(point), _channels(loss)),
            "labels": torch.zeros(len(point), dtype=torch.int64),
        }
        pair = (box, target) if loss.space == "decoded" else (point, zero)
        return *pair, known

    return _evaluate(loss, offsets, arguments, lambda v: v.reshape(len(v), -1).sum(1))


def decode(offsets: Tensor) -> Tensor:
    """Return the boxes ``[N, 4]`` that have these offsets from ``TARGET``."""
    target = torch.tensor(TARGET, dtype=offsets.dtype).expand_as(offsets)
    return BoxCoder((1.0, 1.0, 1.0, 1.0)).decode_single(offsets, target)


def probability(
    loss: Loss, p: Tensor, *, positive: bool = True, quality: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Return the value and the gradient of a classification loss in one logit, both ``[N]``.

    Args:
        loss: with sigmoid, the value is that of one channel; all channels have the same ``p``.
            With softmax, it is that of the row, and the other classes share ``1 - p`` equally.
        p: predicted probability of the class, ``[N]``, in (0, 1).
        positive: whether the label is this class; otherwise it is the background.
        quality: input of losses with the quality of the box.
    """
    channels = _channels(loss)
    if loss.activation == "softmax":
        rest = ((1 - p) / (channels - 1)).log()
        logits = torch.stack([p.log()] + [rest] * (channels - 1), 1)
    else:
        logits = p.logit().unsqueeze(1).expand(-1, channels).clone()
    background = channels - (loss.activation == "softmax")
    label = torch.full((len(p),), 0 if positive else background)
    known = {"quality": torch.full_like(p, quality)}
    value, gradient = _evaluate(
        loss, logits, lambda point: (point, label, known), lambda v: v[:, 0] if v.dim() > 1 else v
    )
    return value, gradient[:, 0]


def distribution(loss: Loss, mean: Tensor, spread: Tensor, target: float) -> tuple[Tensor, Tensor]:
    """Return the value and the norm of the gradient in the logits, both ``[N]``.

    Args:
        loss: a loss of the distribution of the distance to a box side.
        mean: centre of a discretised normal distribution, ``[N]``, in bins.
        spread: its standard deviation, ``[N]``, in bins.
        target: the true distance, in bins.
    """
    steps = torch.arange(BINS, dtype=mean.dtype)
    logits = -(((steps - mean[:, None]) / spread[:, None]) ** 2) / 2
    distance = torch.full_like(mean, target)
    value, gradient = _evaluate(loss, logits, lambda point: (point, distance, {}), lambda v: v)
    return value, gradient.norm(dim=1)


def has_state(loss: Loss) -> bool:
    """Whether the loss has running statistics; the plots use those it was built with."""
    return bool(loss.state_dict())


Arguments = tuple[Tensor, Tensor, Mapping[str, Tensor]]


def _evaluate(
    loss: Loss,
    point: Tensor,
    arguments: Callable[[Tensor], Arguments],
    per_row: Callable[[Tensor], Tensor],
) -> tuple[Tensor, Tensor]:
    """Call a copy of the loss in evaluation mode, all points in one batch.

    Raises:
        InputError: the loss needs an unknown input, or does not return one value per row.
    """
    loss = deepcopy(loss).double().eval()
    point = point.detach().clone().requires_grad_()
    pred, target, known = arguments(point)
    name = type(loss).__name__
    if unknown := [each for each in loss.inputs if each not in known]:
        raise InputError(f"{name} needs the input {unknown[0]!r}, which the plots cannot provide")
    inputs = {each: known[each] for each in loss.inputs}
    with generators_kept(0):
        value = loss(pred, target, reduction_override="none", **inputs)
    if value.shape[:1] != point.shape[:1]:
        raise InputError(
            f"{name} must return one value per row without reduction: got shape "
            f"{list(value.shape)} for {len(point)} rows"
        )
    value = per_row(value)
    if not value.requires_grad:
        return value, torch.zeros_like(point)
    (gradient,) = torch.autograd.grad(value.sum(), point, materialize_grads=True)
    return value.detach(), gradient


def _channels(loss: Loss) -> int:
    """Return the number of logits, from the arguments of the loss or of one that it contains."""
    classes = CLASSES
    for module in loss.modules():
        if isinstance(number := getattr(module, "num_classes", None), int):
            classes = number
        elif isinstance(counts := getattr(module, "class_counts", None), Sequence):
            classes = len(counts)
        elif isinstance(weights := getattr(module, "class_weight", None), Sequence):
            return len(weights)
    return classes + (loss.activation == "softmax")
