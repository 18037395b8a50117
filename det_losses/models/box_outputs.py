"""Where a detector puts out the boxes of a slot, before anything decodes them."""

from collections.abc import Mapping
from types import MappingProxyType

from torch import nn

from det_losses.models.faster_rcnn import FasterRCNN
from det_losses.models.fcos import FCOS
from det_losses.models.retinanet import RetinaNet

# What each layer puts out are the slot's deltas, or what a head makes them of by itself.
_LAYERS: Mapping[type[nn.Module], Mapping[str, str]] = MappingProxyType(
    {
        RetinaNet: {"loss_bbox": "detector.head.regression_head.bbox_reg"},
        FasterRCNN: {
            "loss_rpn_bbox": "detector.rpn.head.bbox_pred",
            "loss_bbox": "detector.roi_heads.box_predictor.bbox_pred",
        },
        FCOS: {"loss_bbox": "detector.head.regression_head.bbox_reg"},
    }
)


def box_layer_name(detector: type[nn.Module], slot: str) -> str:
    """Return the name of the layer that puts out the deltas of a box slot.

    The layer is called once for each feature level in RetinaNet's head and in the RPN (output
    ``[B, 4 A, H, W]``, A anchors a place), and once in the RoI head (output ``[N, 4 C]``, deltas of
    each channel). FCOS's head takes the positive part of the output (``[B, 4, H, W]``), or with a
    distribution for each side its mean (``[B, 4 (n + 1), H, W]``, logits).

    Args:
        detector: the detector's class, or one derived from it.
        slot: such as ``"loss_bbox"``.

    Returns:
        The name, as ``get_submodule`` of the detector takes it.

    Raises:
        ValueError: the detector is another one, or it has no such box slot.
    """
    known = next((_LAYERS[cls] for cls in detector.__mro__ if cls in _LAYERS), None)
    if known is None:
        names = ", ".join(cls.__name__ for cls in _LAYERS)
        raise ValueError(f"{detector.__name__}: the box outputs of {names} only are known")
    if slot not in known:
        raise ValueError(
            f"{detector.__name__} puts out no boxes for {slot!r}; its box slots are "
            f"{', '.join(known)}"
        )
    return known[slot]
