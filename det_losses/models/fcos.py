"""torchvision's FCOS with the losses of the config; GFL with a distribution loss."""

import copy
from collections.abc import Mapping, Sequence
from math import inf
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torchvision.models import detection as tv
from torchvision.models.detection.fcos import FCOSClassificationHead

from det_losses.errors import InputError
from det_losses.losses import Loss
from det_losses.models.backbones import build_backbone
from det_losses.models.detector import (
    MOST_PAIRS,
    Detector,
    FullPrecisionAnchors,
    check_levels,
    check_torchvision_arguments,
    with_normalisation,
)
from det_losses.models.fcos_head import BoxHead, Head
from det_losses.models.fpn import norm_layer
from det_losses.models.postprocessing import detections
from det_losses.models.slots import LossConfig, Slot, build_slot_losses
from det_losses.models.transform import SizingTransform
from det_losses.models.weights import WeightsConfig
from det_losses.registry import MODELS
from det_losses.signatures import check_ranges
from det_losses.tensors import is_traced

REG_MAX = 16  # mmdet gfl_r50_fpn
CENTERNESS_TARGETS = ("centerness", "iou")
BOX_WEIGHTS = ("uniform", "centerness", "score", "iou")


def takes_soft_targets(loss: Loss, channels: int = 1) -> bool:
    """Whether a classification loss accepts a target in [0, 1] per channel."""
    try:
        with torch.no_grad():
            row = torch.zeros(1, channels)
            copy.deepcopy(loss).cpu().eval()(row, torch.full_like(row, 0.5))
    except (TypeError, ValueError):
        return False
    return True


@MODELS.register_module()
class FCOS(Detector):
    """FCOS (Tian et al., 1904.01355, 2019), and with QFL and DFL GFL (Li et al., 2006.04388, 2020).

    The default losses are torchvision's: focal loss, GIoU on decoded boxes and binary cross-entropy
    on centerness. Each is a sum divided by the number of positives of the batch. Targets are
    assigned as in torchvision. Weights of ``torchvision.models.detection.FCOS`` can be loaded.

    With a classification loss that has the input ``quality``, such as QFL and VFL, the class score
    learns the IoU of the predicted box. The head then has no centerness branch, and a detection's
    score is its class score. Otherwise the score is the square root of class score times
    centerness. A ``score_thresh`` of 0.2 on the root is 0.04 on the product, so use a lower
    threshold without the branch.

    With ``loss_dfl`` the distance to each side is the mean of a distribution over 0..n strides, and
    ``bbox_reg`` outputs its logits, 4 (n + 1) channels, instead of four distances. Longer distances
    are clamped to n in ``loss_dfl``; with n >= 8 only the last level has any. GFL and mmdetection
    multiply the logits by a learned scale per level. torchvision's FCOS and this class do not.

    Args:
        backbone: config of a registered backbone, or a module with ``out_channels``.
        num_classes: number of classes K, without background.
        loss_cls: classification loss, sigmoid, K channels.
        loss_bbox: box loss, on decoded boxes or on deltas, which are the distances l, t, r, b in
            strides.
        loss_centerness: sigmoid loss with a target in [0, 1].
        loss_dfl: loss of the distributions, such as ``"DistributionFocalLoss"``; with None the head
            outputs distances.
        centerness_target: target of the centerness branch: ``"centerness"``, or ``"iou"``, the IoU
            of the predicted box.
        box_weight: weight of a positive in ``loss_bbox`` and ``loss_dfl``, which are weighted
            means: ``"uniform"`` (torchvision), ``"centerness"`` of the location (mmdet's FCOS),
            ``"score"``, its highest class score (GFL), or ``"iou"`` of the predicted box (VFNet).
            mmdet divides by max(1, sum of weights), this class by the sum of weights.
        reg_max: n of the distributions, only with ``loss_dfl``; None: 16.
        anchor_sizes: side of the square anchor of each feature level, the unit of distances; in
            torchvision these are the strides. A level is assigned the boxes whose largest distance
            is 4 to 8 units.
        head_norm: normalisation of the head's convolutions: ``"GN"`` (torchvision), ``"BN"`` or
            None.
        num_convs: convolutions in each branch of the head.
        class_to_channel: channel of each class, if channels and classes differ; see Detector.
        num_channels: number of class channels; default ``num_classes``.
        weights: local file of a detector, or a name such as
            ``"FCOS_ResNet50_FPN_Weights.COCO_V1"``; see
            :func:`~det_losses.models.weights.read_pretrained`.
        **kwargs: further arguments of torchvision's FCOS (``min_size``, ``max_size``,
            ``center_sampling_radius``, ``score_thresh``, ``nms_thresh``, ...).

    Raises:
        InputError: an argument is out of range or has no effect with these losses, or a loss does
            not fit its slot.
        InputTypeError: an argument unknown to this class and torchvision's.
    """

    torchvision_class = tv.FCOS
    class_layers = ("head.classification_head.cls_logits",)
    slots: Mapping[str, Slot] = MappingProxyType(
        {
            "loss_cls": Slot("classification", {"type": "FocalLoss"}, ("sigmoid",)),
            "loss_bbox": Slot(
                "box", {"type": "GIoULoss"}, layer="detector.head.regression_head.bbox_reg"
            ),
            "loss_centerness": Slot(
                "classification", {"type": "BinaryCrossEntropyLoss"}, ("sigmoid",), classes=1
            ),
            "loss_dfl": Slot("distribution", None),
        }
    )

    @classmethod
    def settings_table(cls, model: Mapping[str, Any]) -> str:
        """Return ``"GFL"`` for a config with distributions, else ``"FCOS"``."""
        return "FCOS" if model.get("loss_dfl") is None else "GFL"

    def __init__(
        self,
        backbone: Mapping[str, Any] | nn.Module,
        num_classes: int,
        *,
        loss_cls: LossConfig | None = None,
        loss_bbox: LossConfig | None = None,
        loss_centerness: LossConfig | None = None,
        loss_dfl: LossConfig | None = None,
        centerness_target: str | None = None,
        box_weight: str = "uniform",
        reg_max: int | None = None,
        anchor_sizes: Sequence[int] = (8, 16, 32, 64, 128),
        head_norm: str | None = "GN",
        num_convs: int = 4,
        class_to_channel: Sequence[int] | None = None,
        num_channels: int | None = None,
        weights: WeightsConfig = None,
        **kwargs: Any,
    ) -> None:
        check_torchvision_arguments(FCOS, kwargs)
        channels = num_classes if num_channels is None else num_channels
        super().__init__(num_classes, class_to_channel, channels, first_channel=0)
        configs = {
            "loss_cls": loss_cls,
            "loss_bbox": loss_bbox,
            "loss_centerness": loss_centerness,
            "loss_dfl": loss_dfl,
        }
        self.losses, self.loss_sources = build_losses(self.slots, configs, self.loss_classes)
        branch = "loss_centerness" in self.losses
        _check(branch, "loss_dfl" in self.losses, centerness_target, box_weight, reg_max, num_convs)
        pretrained = self.read_weights(weights)
        body = build_backbone(backbone, pretrained)
        convs = dict(
            in_channels=body.out_channels,
            num_anchors=1,
            num_convs=num_convs,
            norm_layer=norm_layer(head_norm) or (lambda _channels: nn.Identity()),
        )
        classes = FCOSClassificationHead(num_classes=self.num_channels, **convs)
        distribution = (reg_max or REG_MAX) if "loss_dfl" in self.losses else None
        boxes = BoxHead(centerness=branch, reg_max=distribution, **convs)
        self.detector = _FCOS(
            body,
            self.num_channels,
            anchor_generator=_anchor_generator(anchor_sizes, body),
            head=Head(classes, boxes, self.losses, centerness_target or "centerness", box_weight),
            **with_normalisation(body, kwargs),
        )
        self.detector.transform = SizingTransform(self.detector.transform)
        self.load(pretrained)


def build_losses(
    slots: Mapping[str, Slot], configs: Mapping[str, LossConfig | None], num_classes: int
) -> tuple[nn.ModuleDict, dict[str, str]]:
    """Build the losses; without a centerness loss if the class score is the quality."""
    table = FCOS.settings_table(configs)
    losses, sources = build_slot_losses("FCOS", slots, configs, num_classes, table)
    if "quality" in losses["loss_cls"].inputs:
        if configs["loss_centerness"] is not None:
            raise InputError(
                f"FCOS.loss_centerness: {type(losses['loss_cls']).__name__} scores by the quality "
                "itself, and the head then has no centerness branch; remove loss_centerness"
            )
        del losses["loss_centerness"], sources["loss_centerness"]
    elif not takes_soft_targets(losses["loss_centerness"]):
        raise InputError(
            "FCOS.loss_centerness has targets between 0 and 1, and "
            f"{type(losses['loss_centerness']).__name__} accepts labels only: choose another loss"
        )
    return losses, sources


def _check(
    branch: bool,
    distribution: bool,
    centerness_target: str | None,
    box_weight: str,
    reg_max: int | None,
    num_convs: int,
) -> None:
    if centerness_target is not None:
        if centerness_target not in CENTERNESS_TARGETS:
            raise InputError(
                f"FCOS centerness_target must be 'centerness' or 'iou', got {centerness_target!r}"
            )
        if not branch:
            raise InputError(
                "FCOS centerness_target has no effect: with this loss_cls there is no centerness "
                "branch; remove it"
            )
    if box_weight not in BOX_WEIGHTS:
        raise InputError(f"FCOS box_weight must be one of {BOX_WEIGHTS}, got {box_weight!r}")
    if reg_max is not None:
        if reg_max < 1:
            raise InputError(f"FCOS reg_max must be at least 1, got {reg_max}")
        if not distribution:
            raise InputError("FCOS reg_max has no effect without loss_dfl; remove it")
    if num_convs < 1:
        raise InputError(f"FCOS num_convs must be at least 1, got {num_convs}")


class _FCOS(tv.FCOS):
    """torchvision's FCOS; the images of a batch are assigned and postprocessed together."""

    def compute_loss(
        self,
        targets: list[dict[str, Tensor]],
        head_outputs: dict[str, Tensor],
        anchors: list[Tensor],
        num_anchors_per_level: list[int],
    ) -> dict[str, Tensor]:
        """Assign boxes to locations, and return the losses of the head."""
        boxes = [target["boxes"] for target in targets]
        levels = (num_anchors_per_level[0], num_anchors_per_level[-1])
        matched = match_locations(boxes, anchors[0], levels, self.center_sampling_radius)
        return self.head.compute_loss(targets, head_outputs, anchors, list(matched))

    def postprocess_detections(
        self,
        head_outputs: dict[str, list[Tensor]],
        anchors: list[list[Tensor]],
        image_shapes: list[tuple[int, int]],
    ) -> list[dict[str, Tensor]]:
        """Return what torchvision's method returns."""
        if is_traced():
            return super().postprocess_detections(head_outputs, anchors, image_shapes)
        return detections(
            self,
            lambda logits, branch: (logits.sigmoid() * branch.sigmoid()).sqrt(),
            list(zip(head_outputs["cls_logits"], head_outputs["bbox_ctrness"], strict=True)),
            self.box_coder.decode,
            head_outputs["bbox_regression"],
            anchors[0],
            image_shapes,
        )


def match_locations(
    boxes: Sequence[Tensor], anchors: Tensor, ends: tuple[int, int], radius: float
) -> Tensor:
    """Return the index of the box that each location of each image is assigned, ``[B, A]``.

    The values are those of torchvision for one image after the other; -1 for none. A location is
    assigned the smallest box that contains it, whose center is near, and whose largest distance is
    in the range of the level. The images of a batch are assigned together unless that would take
    much memory.

    Args:
        boxes: ground truth of each image, ``[n, 4]``.
        anchors: squares around the locations, ``[A, 4]``, level by level.
        ends: number of anchors of the first and of the last level, whose ranges are open.
        radius: largest distance of the centers, in sides of the anchor.
    """
    most = max(map(len, boxes))
    if len(boxes) > 1 and len(boxes) * most * len(anchors) > MOST_PAIRS:
        return torch.cat([match_locations([each], anchors, ends, radius) for each in boxes])
    if most == 0:
        return torch.full((len(boxes), len(anchors)), -1, device=anchors.device)
    # A box of zeros, which fills up an image, contains no location.
    padded = pad_sequence(list(boxes), batch_first=True)[..., None]  # [B, G, 4, 1]
    x0, y0, x1, y1 = padded.unbind(2)
    center_x, center_y = ((padded[:, :, :2] + padded[:, :, 2:]) / 2).unbind(2)
    x, y = ((anchors[:, :2] + anchors[:, 2:]) / 2).unbind(1)
    side = anchors[:, 2] - anchors[:, 0]
    low, high = side * 4, side * 8
    low[: ends[0]] = 0
    high[-ends[1] :] = inf
    offset = torch.maximum((x - center_x).abs_(), (y - center_y).abs_())
    first, last = torch.aminmax(torch.stack([x - x0, y - y0, x1 - x, y1 - y]), dim=0)
    matches = (offset < radius * side) & (first > 0) & (last > low) & (last < high)
    area = (x1 - x0) * (y1 - y0)
    best, index = (matches.to(torch.float32) * (1e8 - area)).max(dim=1)
    return index.masked_fill(best < 1e-5, -1)


def _anchor_generator(sizes: Sequence[int], body: nn.Module) -> FullPrecisionAnchors:
    check_ranges({"anchor_sizes": sizes}, {"anchor_sizes": (1, inf)})
    check_levels("FCOS anchor_sizes needs one size", sizes, body)
    return FullPrecisionAnchors(tuple((size,) for size in sizes), ((1.0,),) * len(sizes))
