"""The slots of a detector: the losses each accepts, and how box losses are called."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection._utils import BoxCoder

from det_losses.boxes import box_pair
from det_losses.errors import InputError, located
from det_losses.generators import generators_kept
from det_losses.losses import Loss, build_loss
from det_losses.losses.core.build import with_classes
from det_losses.models.published import complete
from det_losses.tensors import upcast

LossConfig = str | Mapping[str, Any] | nn.Module
# The inputs that heads offer to a loss in addition to pred and target, by kind of slot.
INPUTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "box": ("image_size", "pred_deltas", "target_deltas", "logits", "labels"),
        "classification": ("quality",),
        "distribution": (),
    }
)


@dataclass(frozen=True)
class Slot:
    """A place for one loss in a detector.

    Attributes:
        kind: ``"box"``, ``"classification"`` or ``"distribution"``.
        default: config of torchvision's loss in this slot, completed like any other; None if
            torchvision has no such slot, which is then used only if the config names a loss.
        activations: activations that a classification loss may have.
        classes: number of classes of a classification slot; None: that of the detector.
        layer: for box slots, the name of the submodule that outputs the deltas.
    """

    kind: str
    default: Mapping[str, Any] | None
    activations: tuple[str, ...] = ("sigmoid", "softmax")
    classes: int | None = None
    layer: str | None = None

    def config(
        self, table: str, name: str, given: LossConfig | None, num_classes: int
    ) -> tuple[LossConfig | None, str]:
        """Return the complete config of the slot's loss, and the source of its parameters.

        Args:
            table: name of the table in :data:`published.SETTINGS`.
            name: name of this slot.
            given: a name, a config or a module; None: the default.
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

    The states of the global random generators are restored. So a loss whose constructor draws
    random numbers does not change the detector's initial weights.

    Args:
        detector: name for error messages.
        slots: the detector's slots by name.
        configs: for each slot a name, a config or a module; None: the slot's default.
        num_classes: number of classes of the detector, for losses with state or parameters per
            class.
        table: name of the table in :data:`published.SETTINGS`; None: ``detector``.

    Returns:
        The losses, and for each slot one line with the sources of weight and parameters.

    Raises:
        InputError: the loss is of another kind, its reduction is not mean, it needs an input that
            no head offers, or its activation does not fit the slot or the logits.
    """
    losses, sources = nn.ModuleDict(), {}
    for name, slot in slots.items():
        with located(name):
            config, source = slot.config(table or detector, name, configs[name], num_classes)
        if config is None:
            continue
        with generators_kept(), located(name):
            loss = build_loss(config)
        _check(detector, name, slot, loss)
        losses[name], sources[name] = loss, source
    for name, loss in losses.items():
        if "logits" in loss.inputs:
            _check_logits(detector, name, loss, losses)
    return losses, sources


def box_layer_name(detector: type[nn.Module], slot: str) -> str:
    """Return the name of the layer that outputs the deltas of a box slot.

    The layer is called once per feature level in RetinaNet's head and in the RPN (output ``[B, 4 A,
    H, W]``, A anchors per location), and once in the RoI head (output ``[N, 4 C]``, deltas per
    channel). In FCOS a ReLU follows (``[B, 4, H, W]``), or the output is the logits of a
    distribution per side (``[B, 4 (n + 1), H, W]``).

    Args:
        detector: the detector's class, or a class derived from it.
        slot: such as ``"loss_bbox"``.

    Returns:
        The name for the detector's ``get_submodule``.

    Raises:
        InputError: the detector has no such box slot.
    """
    layers = {name: each.layer for name, each in getattr(detector, "slots", {}).items()}
    layers = {name: layer for name, layer in layers.items() if layer}
    if slot not in layers:
        raise InputError(
            f"{detector.__name__} has no box deltas for {slot!r}; its box slots are "
            f"{', '.join(layers) or 'none'}"
        )
    return layers[slot]


def _check_logits(detector: str, name: str, loss: Loss, losses: nn.ModuleDict) -> None:
    scores = name.replace("bbox", "cls")
    if scores in losses and loss.activation not in (None, losses[scores].activation):
        raise InputError(
            f"{detector}.{name} contains a classification loss for {loss.activation}, and "
            f"{detector}.{scores} scores by {losses[scores].activation}: use the same activation"
        )


def _check(detector: str, name: str, slot: Slot, loss: Loss) -> None:
    title = type(loss).__name__
    kind = getattr(loss, "kind", None)
    if kind != slot.kind:
        raise InputError(
            f"{detector}.{name} takes a {slot.kind} loss, and {title} is "
            f"{f'a {kind} loss' if kind else 'not a loss of this registry (it has no `kind`)'}"
        )
    if loss.reduction != "mean":
        raise InputError(
            f"{detector}.{name}: the head normalises by the number of samples, so the loss must "
            f"have reduction='mean', got {loss.reduction!r}"
        )
    if slot.kind == "classification" and loss.activation not in slot.activations:
        raise InputError(
            f"{detector}.{name} scores by {' or '.join(slot.activations)}, and {title} is for "
            f"{loss.activation}: choose another loss"
        )
    for key in loss.inputs:
        if key not in INPUTS[slot.kind]:
            raise InputError(
                f"{detector}.{name}: {title} needs the input {key!r}; a detector passes "
                f"{', '.join(INPUTS[slot.kind]) or 'none'} to a {slot.kind} loss"
            )
    if slot.kind == "box" and loss.space not in ("delta", "decoded"):
        raise InputError(f"{title}.space is {loss.space!r}; it must be 'delta' or 'decoded'")


def adopt(module: nn.Module, built: nn.Module) -> None:
    """Initialize a module of a derived class from one that torchvision's constructor has built.

    The attributes and submodules are ``built``'s own, so parameters and hooks are shared.
    """
    nn.Module.__init__(module)
    module.__dict__.update(built.__dict__)


class PairCoder(BoxCoder):
    """A box coder whose ``encode`` keeps the pair of ground truth and anchor.

    torchvision encodes all matched boxes before it samples, but a loss on decoded boxes needs the
    boxes themselves. ``encode`` returns ``[N, 8]``, ground truth and anchor; :func:`box_slot_loss`
    then encodes or decodes the positives only.
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
    """Compute a box loss in its own space, on the positives of the whole batch.

    Args:
        loss: a box loss; its ``space`` determines whether deltas or boxes are compared.
        coder: the head's coder.
        deltas: predicted deltas of the positives, ``[N, 4]``; half precision is cast to float32.
        target_boxes: ground truth of the positives, ``[N, 4]``, xyxy, pixels of the network input.
        anchors: anchors or proposals of the positives, in the same format.
        offers: functions that compute extra inputs, called only for those that the loss needs:
            ``image_size`` (``[N, 2]``, width and height of the network's input), ``logits``
            (``[N, C]``) and ``labels`` (``[N]``).
        weight: sample weights, ``[N]``.
        avg_factor: divisor of the sum over all elements.
    """
    deltas = upcast(deltas)
    in_space = partial(_in_space, coder, deltas, target_boxes, anchors)
    offers = {
        **offers,
        "pred_deltas": lambda: deltas,
        "target_deltas": lambda: in_space("delta")[1],
    }
    inputs = extra_inputs(loss, offers)
    return loss(*in_space(loss.space), weight=weight, avg_factor=avg_factor, **inputs)


def extra_inputs(loss: Loss, offers: Mapping[str, Callable[[], Tensor]]) -> dict[str, Tensor]:
    """Compute those of a head's extra inputs that a loss needs, by name."""
    return {name: offers[name]() for name in loss.inputs if name in offers}


def _in_space(
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
    return box_pair(*_in_space(coder, upcast(deltas), target_boxes, anchors, "decoded")).iou


def at_positives(values: Tensor, positive: Tensor) -> Tensor:
    """Scatter the values in order to the true entries of the mask ``positive``; 0 elsewhere."""
    return values.new_zeros(positive.shape).masked_scatter(positive, values)
