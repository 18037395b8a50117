"""The losses as pure, unreduced functions, such as ``eiou_loss(pred, target, *, eps)``.

A loss of a whole box or of a softmax returns ``[N]``, an elementwise loss the shape of ``pred``.
Each function is documented at the class that calls it.
"""

from det_losses.losses.alpha_iou import alpha_iou_loss
from det_losses.losses.asymmetric import asymmetric_loss
from det_losses.losses.balanced_l1 import balanced_l1_loss
from det_losses.losses.binary_cross_entropy import binary_cross_entropy_loss
from det_losses.losses.bounded_iou import bounded_iou_loss
from det_losses.losses.ciou import ciou_loss
from det_losses.losses.cross_entropy import cross_entropy_loss
from det_losses.losses.diou import diou_loss
from det_losses.losses.distribution_focal import distribution_focal_loss
from det_losses.losses.eiou import eiou_loss
from det_losses.losses.eqlv2 import eqlv2_loss
from det_losses.losses.equalized_focal import equalized_focal_loss
from det_losses.losses.extended_iou import extended_iou_loss
from det_losses.losses.federated import federated_loss
from det_losses.losses.focal import sigmoid_focal_loss, softmax_focal_loss
from det_losses.losses.focal_eiou import focal_eiou_loss
from det_losses.losses.focal_l1 import focal_l1_loss
from det_losses.losses.gcd import gcd_loss
from det_losses.losses.ghm import ghmc_loss, ghmr_loss
from det_losses.losses.giou import giou_loss
from det_losses.losses.huber import huber_loss
from det_losses.losses.interp_iou import dynamic_interp_iou_loss, interp_iou_loss
from det_losses.losses.iou import iou_loss
from det_losses.losses.iou_aware_bce import iou_aware_bce_loss
from det_losses.losses.l1 import l1_loss
from det_losses.losses.label_smoothing import label_smoothing_loss
from det_losses.losses.matchability_aware import matchability_aware_loss
from det_losses.losses.mpdiou import mpdiou_loss
from det_losses.losses.mse import mse_loss
from det_losses.losses.normalized_l1 import normalized_l1_loss
from det_losses.losses.nwd import nwd_loss
from det_losses.losses.piou import piou_loss, piouv2_loss
from det_losses.losses.poly_cross_entropy import poly_cross_entropy_loss
from det_losses.losses.poly_focal import poly_focal_loss
from det_losses.losses.quality_focal import quality_focal_loss
from det_losses.losses.seesaw import seesaw_loss
from det_losses.losses.shape_iou import shape_iou_loss
from det_losses.losses.siou import siou_loss
from det_losses.losses.slide import slide_loss
from det_losses.losses.smooth_l1 import smooth_l1_loss
from det_losses.losses.varifocal import varifocal_loss
from det_losses.losses.wiou import wiou_v1_loss

__all__ = [
    "alpha_iou_loss",
    "asymmetric_loss",
    "balanced_l1_loss",
    "binary_cross_entropy_loss",
    "bounded_iou_loss",
    "ciou_loss",
    "cross_entropy_loss",
    "diou_loss",
    "distribution_focal_loss",
    "dynamic_interp_iou_loss",
    "eiou_loss",
    "eqlv2_loss",
    "equalized_focal_loss",
    "extended_iou_loss",
    "federated_loss",
    "focal_eiou_loss",
    "focal_l1_loss",
    "gcd_loss",
    "ghmc_loss",
    "ghmr_loss",
    "giou_loss",
    "huber_loss",
    "interp_iou_loss",
    "iou_aware_bce_loss",
    "iou_loss",
    "l1_loss",
    "label_smoothing_loss",
    "matchability_aware_loss",
    "mpdiou_loss",
    "mse_loss",
    "normalized_l1_loss",
    "nwd_loss",
    "piou_loss",
    "piouv2_loss",
    "poly_cross_entropy_loss",
    "poly_focal_loss",
    "quality_focal_loss",
    "seesaw_loss",
    "shape_iou_loss",
    "sigmoid_focal_loss",
    "siou_loss",
    "slide_loss",
    "smooth_l1_loss",
    "softmax_focal_loss",
    "varifocal_loss",
    "wiou_v1_loss",
]
