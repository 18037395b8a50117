"""torchvision's detectors with the losses of the config, and their backbones."""

from det_losses.models.backbones import (
    EfficientNetLite0FPN,
    MobileNetV3FPN,
    ResNetFPN,
    SmallResNetFPN,
    TimmFPN,
    build_backbone,
)
from det_losses.models.detector import Detector
from det_losses.models.faster_rcnn import FasterRCNN
from det_losses.models.fcos import FCOS
from det_losses.models.fpn import FPNBackbone
from det_losses.models.injection import with_losses
from det_losses.models.retinanet import RetinaNet

__all__ = [
    "FCOS",
    "Detector",
    "EfficientNetLite0FPN",
    "FPNBackbone",
    "FasterRCNN",
    "MobileNetV3FPN",
    "ResNetFPN",
    "RetinaNet",
    "SmallResNetFPN",
    "TimmFPN",
    "build_backbone",
    "with_losses",
]
