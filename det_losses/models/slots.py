"""Where losses sit in a detector: the slots, what each takes, how a box loss is called there."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection._utils import BoxCoder

from det_losses.boxes import box_pair
from det_losses.generators import generators_kept
from det_losses.losses import Loss, build_loss
from det_losses.losses.core.build import with_classes
from det_losses.models.published import complete
from det_losses.tensors import upcast

LossConfig = str | Mapping[str, Any] | nn.Module
# What every head can pass to a loss beside pred and target, by the kind of the slot.
INPUTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "box": ("image_size", "pred_deltas", "target_deltas", "logits", "labels"),
        "classification": ("quality",),
        "distribution": (),
    }
)


@dataclass(frozen=True)
class Slot:
    """A place of a detector that one loss fills.

    Attributes:
        kind: ``"box"``, ``"classification"`` or ``"distribution"``.
        default: the config of torchvision's own loss in this slot, completed as any other; None
            where torchvision has no such slot, which is then left out unless a config fills it.
        activations: what a classification loss may bring here.
        classes: how many classes are told apart here; None is as many as the detector has.
    """

    kind: str
    default: Mapping[str, Any] | None
    activations: tuple[str, ...] = ("sigmoid", "softmax")
    classes: int | None = None

    def config(
        self, table: str, name: str, given: LossConfig | None, num_classes: int
    ) -> tuple[LossConfig | None, str]:
        """Return the complete config of the slot's loss, and where its parameters come from.

        Args:
            table: which of :data:`published.SETTINGS` completes it.
            name: of this slot.
            given: a name, a config or a module; None is the default.
            num_classes: of the detector.
        """
        loss = self.default if given is None else given
        if loss is None or isinstance(loss, nn.Module):
            return loss, "built by the caller"
        loss, source = complete(table, name, loss)
        return with_classes(loss, self.classes or num_classes), source


def build_slot_losses(
    detector: str,
    slots: Mapping[str, Slot],
    configs: Mapping[str, LossConfig | None],
    num_classes: int,
    table: str | None = None,
) -> tuple[nn.ModuleDict, dict[str, str]]:
    """Build the loss of each slot with its published setting; refuse one that does not fit.

    The global generators stay as they are, so that a loss which draws random numbers when it is
    built leaves the detector's initial weights alone.

    Args:
        detector: the name that errors speak of.
        slots: the detector's slots by name.
        configs: for each slot a name, a config or a module; None is torchvision's own loss, if
            there is one.
        num_classes: of the detector, for losses that keep something of each class.
        table: which of :data:`published.SETTINGS` completes the configs; None is ``detector``.

    Returns:
        The losses, and for each slot one line that says where weight and parameters come from.

    Raises:
        ValueError: the loss is of another kind, does not average, needs an input that no head has,
            or has an activation that the slot, or the logits that it is given, cannot take.
    """
    losses, sources = nn.ModuleDict(), {}
    for name, slot in slots.items():
        config, source = slot.config(table or detector, name, configs[name], num_classes)
        if config is None:
            continue
        with generators_kept():
            loss = build_loss(config)
        _check(detector, name, slot, loss)
        losses[name], sources[name] = loss, source
    for name, loss in losses.items():
        if "logits" in loss.inputs:
            _check_logits(detector, name, loss, losses)
    return losses, sources


def _check_logits(detector: str, name: str, loss: Loss, losses: nn.ModuleDict) -> None:
    scores = name.replace("bbox", "cls")
    if scores in losses and loss.activation not in (None, losses[scores].activation):
        raise ValueError(
            f"{detector}.{name} holds a classification loss for {loss.activation}, and "
            f"{detector}.{scores} scores by {losses[scores].activation}: choose the same"
        )


def _check(detector: str, name: str, slot: Slot, loss: Loss) -> None:
    title = type(loss).__name__
    kind = getattr(loss, "kind", None)
    if kind != slot.kind:
        raise ValueError(
            f"{detector}.{name} takes a {slot.kind} loss, and {title} is "
            f"{f'a {kind} loss' if kind else 'no loss of this registry (it has no `kind`)'}"
        )
    if loss.reduction != "mean":
        raise ValueError(
            f"{detector}.{name}: the head normalises by the number of samples, so the loss must "
            f"have reduction='mean', got {loss.reduction!r}"
        )
    if slot.kind == "classification" and loss.activation not in slot.activations:
        raise ValueError(
            f"{detector}.{name} scores by {' or '.join(slot.activations)}, and {title} is for "
            f"{loss.activation}: choose another loss"
        )
    for key in loss.inputs:
        if key not in INPUTS[slot.kind]:
            raise ValueError(
                f"{detector}.{name}: {title} needs the input {key!r}; a detector passes "
                f"{', '.join(INPUTS[slot.kind]) or 'none'} to a {slot.kind} loss"
            )
    if slot.kind == "box" and loss.space not in ("delta", "decoded"):
        raise ValueError(f"{title}.space is {loss.space!r}; it must be 'delta' or 'decoded'")


class PairCoder(BoxCoder):
    """A coder that hands training the pair of ground truth and anchor instead of their deltas.

    torchvision encodes all matched boxes before it samples; a loss on decoded boxes needs the
    boxes themselves. ``encode`` returns ``[N, 8]``, ground truth beside anchor;
    :func:`box_slot_loss` encodes or decodes the positives alone.
    """

    def encode(self, reference_boxes: list[Tensor], proposals: list[Tensor]) -> list[Tensor]:
        """Return for each image the ground truth and the proposal of each row, ``[N, 8]``."""
        return [torch.cat(pair, dim=1) for pair in zip(reference_boxes, proposals, strict=True)]


def box_slot_loss(
    loss: Loss,
    coder: BoxCoder,
    deltas: Tensor,
    target_boxes: Tensor,
    anchors: Tensor,
    *,
    offers: Mapping[str, Callable[[], Tensor]] = MappingProxyType({}),
    weight: Tensor | None = None,
    avg_factor: float | Tensor,
) -> Tensor:
    """Call a box loss in the space it lives in, on the positives of the whole batch.

    Args:
        loss: a box loss; its ``space`` decides what is compared.
        coder: the head's coder.
        deltas: predicted deltas of the positives, ``[N, 4]``; half precision is raised to float32.
        target_boxes: their ground truth, ``[N, 4]``, xyxy, pixels of the network's input.
        anchors: their anchors or proposals, ``[N, 4]``, likewise.
        offers: the other inputs that the loss may ask for, computed where it does:
            ``image_size`` (``[N, 2]``, width and height of the network's input), ``logits``
            (``[N, C]``) and ``labels`` (``[N]``).
        weight: sample weights, ``[N]``.
        avg_factor: what the sum over all elements is divided by.
    """
    deltas = upcast(deltas)
    coded = partial(_coded, coder, deltas, target_boxes, anchors)
    offers = {
        **offers,
        "pred_deltas": lambda: deltas,
        "target_deltas": lambda: coded("delta")[1],
    }
    inputs = asked_for(loss, offers)
    return loss(*coded(loss.space), weight=weight, avg_factor=avg_factor, **inputs)


def asked_for(loss: Loss, offers: Mapping[str, Callable[[], Tensor]]) -> dict[str, Tensor]:
    """Compute those of a head's offers that a loss asks for, by name."""
    return {name: offers[name]() for name in loss.inputs if name in offers}


def _coded(
    coder: BoxCoder, deltas: Tensor, target_boxes: Tensor, anchors: Tensor, space: str
) -> tuple[Tensor, Tensor]:
    if space == "delta":
        return deltas, coder.encode_single(target_boxes, anchors).to(deltas.dtype)
    return coder.decode_single(deltas, anchors), target_boxes.to(deltas.dtype)


@torch.no_grad()
def box_quality(coder: BoxCoder, deltas: Tensor, target_boxes: Tensor, anchors: Tensor) -> Tensor:
    """Return the IoU of each predicted box with its ground truth, ``[N]``, without gradient.

    The arguments are those of :func:`box_slot_loss`.
    """
    return box_pair(*_coded(coder, upcast(deltas), target_boxes, anchors, "decoded")).iou


def at_positives(values: Tensor, positive: Tensor) -> Tensor:
    """Return zeros in the shape of the mask ``positive``, and the values, in order, where it is."""
    return values.new_zeros(positive.shape).masked_scatter(positive, values)
