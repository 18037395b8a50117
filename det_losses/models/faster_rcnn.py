"""Faster R-CNN on torchvision's own, with its four losses from the config."""

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from torch import nn
from torchvision.models import detection as tv
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.ops import MultiScaleRoIAlign

from det_losses.models.backbones import build_backbone
from det_losses.models.detector import (
    Detector,
    anchor_generator,
    check_torchvision_arguments,
    with_normalisation,
)
from det_losses.models.faster_rcnn_heads import RPN, BoxRoIHeads
from det_losses.models.slots import (
    LossConfig,
    Slot,
    build_slot_losses,
)
from det_losses.registry import MODELS

PRIOR = 0.01  # chance of each class before training with a sigmoid loss; 1708.02002, 3.3
ANCHOR_SIZES = ((32,), (64,), (128,), (256,), (512,))
ASPECT_RATIOS = (0.5, 1.0, 2.0)


def _drop_background(predictor: FastRCNNPredictor) -> None:
    """Take channel 0 out of both layers, and start each class with the chance PRIOR.

    The classes keep the weights that they have beside a background, and no other layer's draws
    shift: two losses of different activation start from the same weights wherever both have one.
    """
    for layer, rows in ((predictor.cls_score, 1), (predictor.bbox_pred, 4)):
        layer.weight = nn.Parameter(layer.weight.detach()[rows:].clone())
        layer.bias = nn.Parameter(layer.bias.detach()[rows:].clone())
        layer.out_features -= rows
    nn.init.constant_(predictor.cls_score.bias, -math.log((1 - PRIOR) / PRIOR))


@MODELS.register_module()
class FasterRCNN(Detector):
    """Faster R-CNN with FPN (Ren et al., 1506.01497, 2015; Lin et al., 1612.03144, 2017).

    All four losses are chosen by name; without a choice they are torchvision's: binary cross
    entropy and Smooth L1 (beta 1/9) in the RPN, cross entropy and Smooth L1 (beta 1/9) in the RoI
    head, each divided by the number of sampled anchors or proposals. The same weights load as in
    ``torchvision.models.detection.FasterRCNN``.

    Args:
        backbone: config of a registered backbone, or a module with ``out_channels``.
        num_classes: number of classes K, without background.
        loss_rpn_cls: classification loss of the RPN, sigmoid, one channel.
        loss_rpn_bbox: box loss of the RPN, of either space.
        loss_cls: classification loss of the RoI head, softmax (K + 1 channels) or sigmoid (K).
        loss_bbox: box loss of the RoI head, of either space.
        anchors: ``dict(sizes=..., aspect_ratios=...)`` as torchvision's AnchorGenerator takes
            them, one tuple for each feature level; None is torchvision's.
        representation_size: width of the two fully connected layers of the RoI head.
        roi_size: side of the pooled RoI features.
        roi_levels: names of the feature maps that RoIs are pooled from; None takes all but "pool".
        label_slots: channel of each class where channels and classes differ (see Detector).
        num_slots: number of channels with the background (channel 0); default K + 1.
        weights: local file, or a name such as ``"FasterRCNN_ResNet50_FPN_Weights.COCO_V1"``.
        **kwargs: further arguments of torchvision's FasterRCNN (``min_size``, ``max_size``,
            ``rpn_*``, ``box_*``, ...).

    Raises:
        ValueError: an argument is out of range, or a loss does not fit its slot.
        TypeError: an argument that neither this class nor torchvision's has.
    """

    slots: Mapping[str, Slot] = MappingProxyType(
        {
            "loss_rpn_cls": Slot(
                "classification", {"type": "BinaryCrossEntropyLoss"}, ("sigmoid",), classes=1
            ),
            "loss_rpn_bbox": Slot("box", {"type": "SmoothL1Loss"}),
            "loss_cls": Slot("classification", {"type": "CrossEntropyLoss"}),
            "loss_bbox": Slot("box", {"type": "SmoothL1Loss"}),
        }
    )

    @classmethod
    def settings_table(cls, model: Mapping[str, Any]) -> str:
        """Return the name of the published settings that a model's config uses."""
        return "FasterRCNN"

    def __init__(
        self,
        backbone: Mapping[str, Any] | nn.Module,
        num_classes: int,
        *,
        loss_rpn_cls: LossConfig | None = None,
        loss_rpn_bbox: LossConfig | None = None,
        loss_cls: LossConfig | None = None,
        loss_bbox: LossConfig | None = None,
        anchors: Mapping[str, Any] | None = None,
        representation_size: int = 1024,
        roi_size: int = 7,
        roi_levels: Sequence[str] | None = None,
        label_slots: Sequence[int] | None = None,
        num_slots: int | None = None,
        weights: str | None = None,
        **kwargs: Any,
    ) -> None:
        check_torchvision_arguments(FasterRCNN, tv.FasterRCNN, kwargs)
        super().__init__(num_classes, label_slots, num_slots or num_classes + 1, first_slot=1)
        configs = {
            "loss_rpn_cls": loss_rpn_cls,
            "loss_rpn_bbox": loss_rpn_bbox,
            "loss_cls": loss_cls,
            "loss_bbox": loss_bbox,
        }
        self.losses, self.loss_sources = build_slot_losses(
            "FasterRCNN", self.slots, configs, self.loss_classes
        )
        softmax = self.losses["loss_cls"].activation == "softmax"
        body = build_backbone(backbone)
        default = {"sizes": ANCHOR_SIZES, "aspect_ratios": ASPECT_RATIOS}
        levels = list(roi_levels or (name for name in body.level_names if name != "pool"))
        predictor = FastRCNNPredictor(representation_size, self.num_slots)
        if not softmax:
            _drop_background(predictor)
        detector = tv.FasterRCNN(
            body,
            rpn_anchor_generator=anchor_generator("FasterRCNN", **(anchors or default)),
            box_roi_pool=MultiScaleRoIAlign(levels, output_size=roi_size, sampling_ratio=2),
            box_head=TwoMLPHead(body.out_channels * roi_size**2, representation_size),
            box_predictor=predictor,
            **with_normalisation(body, kwargs),
        )
        detector.rpn = RPN(detector.rpn, self.losses)
        detector.roi_heads = BoxRoIHeads(detector.roi_heads, self.losses)
        self.detector = detector
        self.load_torchvision(weights)
