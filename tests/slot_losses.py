"""Which of the registered losses a slot of a detector takes."""

from det_losses import build_loss, list_losses
from det_losses.models.fcos import takes_soft_targets

PER_CLASS = {"num_classes", "class_counts"}  # arguments of losses that count three classes


def losses_of_slot(detector, slot):
    """List what the registry knows of the losses for a slot of a detector of three classes."""
    place = detector.slots[slot]
    return [
        info
        for info in list_losses()
        if info.kind == place.kind
        and info.activation in (None, *place.activations)
        and not (slot == "loss_rpn_cls" and PER_CLASS & info.config.keys())
        and not (slot == "loss_centerness" and not takes_soft_targets(build_loss(info.config)))
    ]
