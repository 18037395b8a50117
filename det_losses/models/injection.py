"""Losses in a detector of torchvision that the user has built."""

from collections.abc import Mapping
from typing import Any, TypeVar

from torch import Tensor, nn
from torchvision.models import detection as tv
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.fcos import FCOSHead
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from det_losses.errors import InputError, InputTypeError, did_you_mean
from det_losses.models import fcos, fcos_head, retinanet
from det_losses.models.detector import Detector, FullPrecisionAnchors
from det_losses.models.faster_rcnn import RPN, BoxRoIHeads, FasterRCNN
from det_losses.models.slots import LossConfig, adopt, build_slot_losses
from det_losses.models.transform import SizingTransform

AnyDetector = TypeVar("AnyDetector", bound=nn.Module)
Configs = dict[str, LossConfig | None]
Losses = tuple[nn.ModuleDict, dict[str, str]]
# The box losses that torchvision's RetinaNet can be built with; the v2 builder uses giou.
_RETINANET_BOX_LOSSES: Mapping[str, Mapping[str, Any]] = {
    "l1": dict(type="L1Loss", loss_weight=1.0),
    "smooth_l1": dict(type="SmoothL1Loss", beta=1.0, loss_weight=1.0),
    "giou": dict(type="GIoULoss", loss_weight=1.0),
    "diou": dict(type="DIoULoss", loss_weight=1.0),
    "ciou": dict(type="CIoULoss", loss_weight=1.0),
}


def with_losses(detector: AnyDetector, **losses: LossConfig | None) -> AnyDetector:
    """Put losses into a RetinaNet, Faster R-CNN or FCOS of torchvision, in place.

    The slots and the rule for loss weights are those of :class:`~det_losses.models.RetinaNet`,
    :class:`~det_losses.models.FasterRCNN` and :class:`~det_losses.models.FCOS`. A slot that is not
    named gets the loss that torchvision has there, so without any name the detector trains as
    before. In training mode the detector returns its losses by slot: ``loss_bbox`` for
    torchvision's ``bbox_regression`` or ``loss_box_reg``. Labels, channels, parameters and
    predictions remain torchvision's: labels are 1..K in Faster R-CNN, and the index of the channel
    in the others.

    The losses are modules of the detector, ``detector.losses``. Keys are added to the state_dict
    only by losses with state, such as WIoUv3Loss. A checkpoint without these keys loads, before or
    after this call. ``detector.loss_sources`` has the source of each loss's parameters.

    - Faster R-CNN with a sigmoid ``loss_cls``: channel 0, the background, is no longer used, and a
      class is scored by its sigmoid.
    - FCOS with a ``loss_cls`` that learns the quality of the box, such as QualityFocalLoss: the
      branch of centerness is no longer used, and a detection is scored by its class.
    - RetinaNet with a softmax ``loss_cls``, and ``loss_dfl``, need other layers than torchvision
      has. They are refused; the detectors of this package have these layers.

    Args:
        detector: the detector, pretrained or not. Replace its class layers before this call.
        **losses: for each slot a name, a config or a module.

    Returns:
        ``detector`` itself.

    Raises:
        InputTypeError: the detector has no such slot, or is of another class.
        InputError: a loss does not fit its slot, or the detector has a head of the user's own.
            The detector is unchanged.

    Example:
        >>> from torchvision.models.detection import retinanet_resnet50_fpn
        >>> model = retinanet_resnet50_fpn(weights=None, weights_backbone=None, num_classes=2)
        >>> model = with_losses(model, loss_bbox="GIoULoss")
        >>> model.losses["loss_bbox"].loss_weight, model.loss_sources["loss_bbox"]
        (2.5, 'loss_weight 2.5: 2101.08158, for its IoU-type losses')
    """
    ours, put = _kind(detector)
    for name in losses.keys() - ours.slots.keys():
        slots = ", ".join(ours.slots)
        hint = did_you_mean(name, ours.slots)
        raise InputTypeError(f"{ours.__name__} has no slot {name!r}, but {slots}. {hint}".rstrip())
    modules, sources = put(detector, {slot: losses.get(slot) for slot in ours.slots})
    modules.train(detector.training).to(next(detector.parameters()).device)
    modules.register_load_state_dict_pre_hook(_keep_state)
    detector.losses, detector.loss_sources = modules, sources
    if type(detector.transform) is GeneralizedRCNNTransform:
        detector.transform = SizingTransform(detector.transform)
    return detector


def _kind(detector: nn.Module) -> tuple[type[Detector], Any]:
    """Return the class of this package with the slots of a detector, and what fills them."""
    if isinstance(detector, Detector):
        raise InputTypeError(
            f"{type(detector).__name__} of det_losses is built with its losses: give them to its "
            "constructor"
        )
    for ours, put in _PUT.items():
        if isinstance(detector, ours.torchvision_class):
            return ours, put
    raise InputTypeError(
        "with_losses takes a RetinaNet, FasterRCNN or FCOS of torchvision, got "
        f"{type(detector).__name__}"
    )


def _put_retinanet(detector: tv.RetinaNet, configs: Configs) -> Losses:
    _check_class(detector.head, RetinaNetHead, retinanet.Head)
    if configs["loss_bbox"] is None:
        built = getattr(detector.head.regression_head, "_loss_type", "l1")
        configs["loss_bbox"] = _RETINANET_BOX_LOSSES[built]
    classes = _attribute(detector.head.classification_head, "num_classes")
    losses, sources = build_slot_losses("RetinaNet", retinanet.RetinaNet.slots, configs, classes)
    if losses["loss_cls"].activation == "softmax":
        raise InputError(
            f"RetinaNet.loss_cls: {type(losses['loss_cls']).__name__} is for softmax, and "
            "torchvision's head has no channel of the background: choose a sigmoid loss, or "
            "det_losses.models.RetinaNet, which adds the channel"
        )
    _check_sizes(detector, losses)
    detector.head = retinanet.Head(detector.head, losses)
    detector.anchor_generator = _full_precision(detector.anchor_generator)
    return losses, sources


def _put_fcos(detector: tv.FCOS, configs: Configs) -> Losses:
    _check_class(detector.head, FCOSHead, fcos_head.Head)
    if configs["loss_dfl"] is not None:
        raise InputError(
            "FCOS.loss_dfl needs a distribution for each side of a box, and torchvision's head has "
            "one channel per side: use det_losses.models.FCOS, which adds the channels"
        )
    built = detector.head
    classes = _attribute(built.classification_head, "num_classes")
    losses, sources = fcos.build_losses(fcos.FCOS.slots, configs, classes)
    _check_sizes(detector, losses)
    detector.head = fcos_head.Head(
        built.classification_head, fcos_head.BoxHead.of(built.regression_head), losses
    )
    detector.head.training = built.training
    detector.anchor_generator = _full_precision(detector.anchor_generator)
    return losses, sources


def _put_faster_rcnn(detector: tv.FasterRCNN, configs: Configs) -> Losses:
    rpn, heads = detector.rpn, detector.roi_heads
    _check_class(rpn, RegionProposalNetwork, RPN)
    _check_class(heads, RoIHeads, BoxRoIHeads)
    if heads.has_mask() or heads.has_keypoint():
        raise InputError(
            f"{type(detector).__name__} also trains masks or keypoints, and this package has the "
            "losses of boxes and classes only"
        )
    classes = _attribute(heads.box_predictor, "cls_score").out_features - 1
    losses, sources = build_slot_losses("FasterRCNN", FasterRCNN.slots, configs, classes)
    detector.rpn, detector.roi_heads = RPN(rpn, losses), BoxRoIHeads(heads, losses)
    detector.rpn.anchor_generator = _full_precision(rpn.anchor_generator)
    return losses, sources


_PUT: Mapping[type[Detector], Any] = {
    retinanet.RetinaNet: _put_retinanet,
    FasterRCNN: _put_faster_rcnn,
    fcos.FCOS: _put_fcos,
}


def _check_class(head: nn.Module, *known: type[nn.Module]) -> None:
    """Refuse a derived class, whose own methods would be replaced too."""
    if type(head) not in known:
        raise InputError(
            f"with_losses replaces torchvision's {known[0].__name__}, and this detector has "
            f"{type(head).__name__} in its place"
        )


def _attribute(layers: nn.Module, name: str) -> Any:
    if not hasattr(layers, name):
        raise InputError(
            f"with_losses reads the number of classes from {name!r}, which "
            f"{type(layers).__name__} does not have"
        )
    return getattr(layers, name)


def _check_sizes(detector: nn.Module, losses: nn.ModuleDict) -> None:
    """Refuse a loss that needs the image size, which only torchvision's own transform stores."""
    loss = losses["loss_bbox"]
    known = (GeneralizedRCNNTransform, SizingTransform)
    if "image_size" in loss.inputs and type(detector.transform) not in known:
        raise InputError(
            f"loss_bbox: {type(loss).__name__} needs the size of the image, which is not known "
            f"with the transform {type(detector.transform).__name__}"
        )


def _full_precision(generator: nn.Module) -> nn.Module:
    """Return torchvision's anchor generator with float32 anchors under autocast."""
    if type(generator) is not AnchorGenerator:
        return generator
    full = FullPrecisionAnchors.__new__(FullPrecisionAnchors)
    adopt(full, generator)
    return full


def _keep_state(losses: nn.ModuleDict, state_dict: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Keep the losses' state where a checkpoint has none, as torchvision's weights."""
    if not any(key.startswith(prefix) for key in state_dict):
        state_dict.update({prefix + key: value for key, value in losses.state_dict().items()})
