"""The losses, one module each; importing this package registers them all."""

from det_losses.losses.alpha_iou import AlphaIoU, AlphaIoULoss
from det_losses.losses.asymmetric import AsymmetricLoss
from det_losses.losses.balanced_l1 import BalancedL1Loss
from det_losses.losses.binary_cross_entropy import BinaryCrossEntropyLoss
from det_losses.losses.bounded_iou import BoundedIoULoss
from det_losses.losses.ciou import CIoULoss
from det_losses.losses.class_balanced import ClassBalanced
from det_losses.losses.composite import ProductLoss, SumLoss
from det_losses.losses.core.base import Loss
from det_losses.losses.core.box import ElementwiseBoxLoss, IoUFamilyLoss
from det_losses.losses.core.build import LossInfo, build_loss, list_losses
from det_losses.losses.core.classification import ClassificationLoss
from det_losses.losses.cross_entropy import CrossEntropyLoss
from det_losses.losses.diou import DIoULoss
from det_losses.losses.distribution_focal import DistributionFocalLoss
from det_losses.losses.dynamic_smooth_l1 import DynamicSmoothL1Loss
from det_losses.losses.eiou import EIoULoss
from det_losses.losses.eqlv2 import EQLv2Loss
from det_losses.losses.equalized_focal import EqualizedFocalLoss
from det_losses.losses.extended_iou import ExtendedIoULoss
from det_losses.losses.federated import FederatedLoss
from det_losses.losses.focal import FocalLoss
from det_losses.losses.focal_eiou import FocalEIoULoss
from det_losses.losses.focal_iou import FocalIoU
from det_losses.losses.focal_l1 import FocalL1Loss
from det_losses.losses.focaler_iou import FocalerIoU
from det_losses.losses.gcd import GCDLoss
from det_losses.losses.ghm import GHMCLoss, GHMRLoss
from det_losses.losses.giou import GIoULoss
from det_losses.losses.huber import HuberLoss
from det_losses.losses.inner_iou import InnerIoU
from det_losses.losses.interp_iou import DynamicInterpIoULoss, InterpIoULoss
from det_losses.losses.iou import IoULoss
from det_losses.losses.iou_aware_bce import IoUAwareBCELoss
from det_losses.losses.l1 import L1Loss
from det_losses.losses.label_smoothing import LabelSmoothingLoss
from det_losses.losses.matchability_aware import MatchabilityAwareLoss
from det_losses.losses.mpdiou import MPDIoULoss
from det_losses.losses.mse import MSELoss
from det_losses.losses.normalized_l1 import NormalizedL1Loss
from det_losses.losses.nwd import NWDLoss
from det_losses.losses.piou import PIoULoss, PIoUv2Loss
from det_losses.losses.poly_cross_entropy import PolyCrossEntropyLoss
from det_losses.losses.poly_focal import PolyFocalLoss
from det_losses.losses.quality_focal import QualityFocalLoss
from det_losses.losses.seesaw import SeesawLoss
from det_losses.losses.shape_iou import ShapeIoULoss
from det_losses.losses.siou import SIoULoss
from det_losses.losses.slide import SlideLoss
from det_losses.losses.smooth_l1 import SmoothL1Loss
from det_losses.losses.varifocal import VarifocalLoss
from det_losses.losses.wiou import WIoUv1Loss, WIoUv2Loss, WIoUv3Loss

__all__ = [
    "AlphaIoU",
    "AlphaIoULoss",
    "AsymmetricLoss",
    "BalancedL1Loss",
    "BinaryCrossEntropyLoss",
    "BoundedIoULoss",
    "CIoULoss",
    "ClassBalanced",
    "ClassificationLoss",
    "CrossEntropyLoss",
    "DIoULoss",
    "DistributionFocalLoss",
    "DynamicInterpIoULoss",
    "DynamicSmoothL1Loss",
    "EIoULoss",
    "EQLv2Loss",
    "ElementwiseBoxLoss",
    "EqualizedFocalLoss",
    "ExtendedIoULoss",
    "FederatedLoss",
    "FocalEIoULoss",
    "FocalIoU",
    "FocalL1Loss",
    "FocalLoss",
    "FocalerIoU",
    "GCDLoss",
    "GHMCLoss",
    "GHMRLoss",
    "GIoULoss",
    "HuberLoss",
    "InnerIoU",
    "InterpIoULoss",
    "IoUAwareBCELoss",
    "IoUFamilyLoss",
    "IoULoss",
    "L1Loss",
    "LabelSmoothingLoss",
    "Loss",
    "LossInfo",
    "MPDIoULoss",
    "MSELoss",
    "MatchabilityAwareLoss",
    "NWDLoss",
    "NormalizedL1Loss",
    "PIoULoss",
    "PIoUv2Loss",
    "PolyCrossEntropyLoss",
    "PolyFocalLoss",
    "ProductLoss",
    "QualityFocalLoss",
    "SIoULoss",
    "SeesawLoss",
    "ShapeIoULoss",
    "SlideLoss",
    "SmoothL1Loss",
    "SumLoss",
    "VarifocalLoss",
    "WIoUv1Loss",
    "WIoUv2Loss",
    "WIoUv3Loss",
    "build_loss",
    "list_losses",
]
